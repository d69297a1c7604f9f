//! `cascade`: tables whose rows go with the rows that they reference.

use anyhow::Result;
use sqlx::PgConnection;

use super::facts::{Facts, refused};
use super::keys::Retention;
use super::references::{self, Reference};
use crate::pg;
use crate::pg::table::with_schema;

/// The longest chain of tables from the job's own: a longer one is a circle or a mistake.
const MAX_STEPS: usize = 20;

/// Tables whose rows go too, children before their parents.
#[derive(Clone, Debug, Default)]
pub struct Tree {
    pub branches: Vec<TreeTable>,
}

#[derive(Clone, Debug)]
pub struct TreeTable {
    pub oid: i64,
    pub schema: String,
    pub name: String,
    /// Paths along foreign keys from the job's table to this one.
    paths: Vec<Vec<Reference>>,
}

impl TreeTable {
    pub fn sql(&self) -> String {
        pg::qualified(&self.schema, &self.name)
    }

    /// Returns the SQL condition that the row goes with one of the rows of `table` (quoted) at `places`.
    pub fn goes_with(&self, table: &str, places: &str) -> String {
        let ways = self.paths.iter().map(|path| {
            let mut from = format!("ONLY {table} r0");
            for (number, step) in path.iter().take(path.len() - 1).enumerate() {
                let (parent, child) = (format!("r{number}"), format!("r{}", number + 1));
                from += &format!(" JOIN {} {child} ON {}", step.table, step.matches(&parent, &child));
            }
            let last = path[path.len() - 1].matches(&format!("r{}", path.len() - 1), &self.sql());
            format!("EXISTS (SELECT FROM {from} WHERE r0.ctid OPERATOR(pg_catalog.=) ANY ({places}) AND {last})")
        });
        ways.collect::<Vec<_>>().join(" OR ")
    }
}

impl Tree {
    pub fn is_empty(&self) -> bool {
        self.branches.is_empty()
    }

    pub fn oids(&self) -> Vec<i64> {
        self.branches.iter().map(|branch| branch.oid).collect()
    }

    /// `references`: foreign keys into the job's table.
    pub async fn load(connection: &mut PgConnection, retention: &Retention, references: &[Reference]) -> Result<Self> {
        let mut branches = Vec::new();
        for name in &retention.cascade {
            let oid: Option<i64> = sqlx::query_scalar("SELECT to_regclass($1)::oid::bigint")
                .bind(with_schema(name))
                .fetch_one(&mut *connection)
                .await?;
            let oid = oid.ok_or_else(|| refused(format!("there is no table {name}, which `cascade` names")))?;
            let facts = Facts::read(connection, oid, "").await?;
            facts.refuse_table()?;
            branches.push(TreeTable { oid, schema: facts.schema, name: facts.name, paths: Vec::new() });
        }
        let is_named = |oid: i64| branches.iter().position(|branch| branch.oid == oid);
        let mut found: Vec<Vec<Vec<Reference>>> = vec![Vec::new(); branches.len()];
        let mut open: Vec<Vec<Reference>> = references.iter().map(|reference| vec![reference.clone()]).collect();
        while let Some(path) = open.pop() {
            let last = &path[path.len() - 1];
            let Some(position) = is_named(last.referencing_oid).filter(|_| !last.is_self) else { continue };
            if path.len() > MAX_STEPS {
                return Err(refused(
                    "tables in `cascade` reference each other in a circle, so that no order to delete them in exists".to_owned(),
                ));
            }
            let further = references::load(connection, last.referencing_oid).await?;
            open.extend(further.into_iter().map(|next| [path.clone(), vec![next]].concat()));
            found[position].push(path);
        }
        for (branch, paths) in branches.iter_mut().zip(found) {
            branch.paths = paths;
        }
        if let Some(lost) = branches.iter().find(|branch| branch.paths.is_empty()) {
            return Err(refused(format!(
                "`cascade` names {}, which references neither {} nor another table listed there",
                lost.sql(),
                retention.table
            )));
        }
        branches.sort_by_key(|branch| std::cmp::Reverse(branch.paths.iter().map(Vec::len).max()));
        let tree = Self { branches };
        tree.refuse(connection, retention).await?;
        Ok(tree)
    }

    /// Keys into the tree's tables must meet the same conditions as keys into the job's own.
    async fn refuse(&self, connection: &mut PgConnection, retention: &Retention) -> Result<()> {
        for branch in &self.branches {
            let references = references::load(connection, branch.oid).await?;
            references::refuse(&references, retention, &self.oids())?;
        }
        Ok(())
    }
}
