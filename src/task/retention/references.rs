//! Foreign keys into the table: which rows they keep, and how a run leaves those rows out.

use anyhow::Result;
use serde::Serialize;
use sqlx::PgConnection;

use super::facts::refused;
use super::keys::Retention;
use crate::base::fault::{Fault, Kind};
use crate::pg::{self, Operator};

/// Cascades are followed for this many steps: real schemas chain fewer tables, and a circle has to end somewhere.
const MAX_STEPS: usize = 6;
const MAX_BLOCKERS: usize = 100;

#[derive(Clone, Debug, sqlx::FromRow, Serialize)]
pub struct Reference {
    pub name: String,
    pub referencing: String,
    /// The table itself, or the partition that the key references.
    pub referenced: String,
    /// The letter of pg_constraint.confdeltype.
    pub action: String,
    pub indexed: bool,
    #[serde(skip)]
    pub referencing_oid: i64,
    /// Quoted.
    #[serde(skip)]
    pub table: String,
    /// True if the referencing table is the referenced table itself.
    pub is_self: bool,
    #[serde(skip)]
    columns: Vec<String>,
    #[serde(skip)]
    referenced_columns: Vec<String>,
    #[serde(skip)]
    #[sqlx(json)]
    operators: Vec<Operator>,
    #[serde(skip)]
    can_select: bool,
}

impl Reference {
    /// Returns whether rows that the key references cannot be deleted.
    pub fn blocks(&self) -> bool {
        matches!(self.action.as_str(), "a" | "r")
    }

    /// Returns whether row `referencing` references row `referenced`, both as SQL names them.
    pub fn matches(&self, referenced: &str, referencing: &str) -> String {
        let pairs = self.referenced_columns.iter().zip(&self.operators).zip(&self.columns);
        let pairs =
            pairs.map(|((to, operator), from)| operator.of(&format!("{referenced}.{to}"), &format!("{referencing}.{from}")));
        pairs.collect::<Vec<_>>().join(" AND ")
    }
}

/// A reason why a row stays: a foreign key to it, or one to rows that would be deleted with it. The last step blocks; the steps before it
/// cascade.
#[derive(Clone, Debug)]
pub struct Blocker {
    steps: Vec<Reference>,
    /// True if a row of another tree, in the table of the step before the last, references a row of this tree.
    is_from_another_tree: bool,
}

impl Blocker {
    pub fn name(&self) -> String {
        let last = &self.steps[self.steps.len() - 1];
        format!("{} of {}", last.name, last.referencing)
    }

    /// Returns the SQL condition that some row references the row of `table` (quoted).
    pub fn exists(&self, table: &str) -> String {
        let mut from = String::new();
        for (number, step) in self.steps.iter().enumerate() {
            match number {
                0 => from = format!("{} r0", step.table),
                _ => {
                    let on = step.matches(&format!("r{}", number - 1), &format!("r{number}"));
                    from += &format!(" JOIN {} r{number} ON {on}", step.table);
                }
            }
        }
        let mut which = self.steps[0].matches(table, "r0");
        if self.is_from_another_tree {
            which += &format!(" AND ({}) IS NOT TRUE", self.steps[0].matches(table, "r1"));
        }
        format!("EXISTS (SELECT FROM {from} WHERE {which})")
    }
}

/// Loads the foreign keys into the table, or into a table above or below it.
pub async fn load(connection: &mut PgConnection, table: i64) -> Result<Vec<Reference>> {
    Ok(sqlx::query_as(include_str!("references.sql")).bind(table).fetch_all(connection).await?)
}

/// Returns other tables that keep rows of this one, quoted.
pub fn referring(references: &[Reference]) -> Vec<String> {
    let tables = references.iter().filter(|reference| !reference.is_self && reference.blocks());
    let mut tables: Vec<String> = tables.map(|reference| reference.table.clone()).collect();
    tables.sort();
    tables.dedup();
    tables
}

/// Finds everything that keeps rows of a table with these foreign keys, except the table's own keys. `tree`: tables whose rows go too.
async fn blockers(connection: &mut PgConnection, references: &[Reference], tree: &[i64]) -> Result<Vec<Blocker>> {
    let mut blockers = Vec::new();
    let mut paths: Vec<Vec<Reference>> =
        references.iter().filter(|reference| !reference.is_self).map(|reference| vec![reference.clone()]).collect();
    while let Some(path) = paths.pop() {
        let last = &path[path.len() - 1];
        let goes_too = tree.contains(&last.referencing_oid);
        if last.blocks() && !goes_too {
            blockers.push(Blocker { steps: path, is_from_another_tree: false });
        } else if (last.action == "c" || goes_too) && path.len() < MAX_STEPS && blockers.len() + paths.len() < MAX_BLOCKERS {
            for next in load(connection, last.referencing_oid).await? {
                if next.is_self && next.blocks() && goes_too && path.len() == 1 {
                    blockers.push(Blocker { steps: [path.clone(), vec![next]].concat(), is_from_another_tree: true });
                } else if !next.is_self && path.iter().all(|step| step.referencing_oid != next.referencing_oid) {
                    paths.push([path.clone(), vec![next]].concat());
                }
            }
        }
    }
    blockers.sort_by_key(Blocker::name);
    Ok(blockers)
}

/// The foreign keys that keep rows of one part of the table.
#[derive(Clone, Debug, Default)]
pub struct Kept {
    pub blockers: Vec<Blocker>,
    /// Keys from the table to itself that block a deletion.
    pub selves: Vec<Reference>,
}

impl Kept {
    /// `tree`: tables whose rows go too.
    pub async fn load(connection: &mut PgConnection, references: &[Reference], tree: &[i64]) -> Result<Self> {
        let selves = references.iter().filter(|reference| reference.is_self && reference.blocks()).cloned().collect();
        Ok(Self { blockers: blockers(connection, references, tree).await?, selves })
    }

    pub fn is_empty(&self) -> bool {
        self.blockers.is_empty() && self.selves.is_empty()
    }

    /// Fails where the role cannot read the referencing rows: it has to see them to leave out the rows that they reference.
    pub fn check_visible(&self) -> Result<()> {
        let steps = self.blockers.iter().flat_map(|blocker| &blocker.steps).chain(&self.selves);
        let hidden: Vec<&str> = steps.filter(|step| !step.can_select).map(|step| step.table.as_str()).collect();
        if hidden.is_empty() {
            return Ok(());
        }
        let message = format!(
            "some rows are still referenced; to leave those in place the role must be able to read the referencing rows: GRANT SELECT ON {} TO the role",
            hidden.join(", ")
        );
        Err(Fault::new(Kind::Permission, message).into())
    }

    /// Returns the SQL condition, with AND before it, that no other row references the row of `table` (quoted).
    pub fn and_free(&self, table: &str) -> String {
        self.blockers.iter().map(|blocker| format!(" AND NOT {}", blocker.exists(table))).collect()
    }

    /// Returns the columns of the picked rows that [`Kept::kept`] needs, with a comma before each.
    pub fn columns(&self) -> String {
        let mut columns = String::new();
        for (number, own) in self.selves.iter().enumerate() {
            for (position, (to, from)) in own.referenced_columns.iter().zip(&own.columns).enumerate() {
                columns += &format!(", {to} AS to_{number}_{position}, {from} AS from_{number}_{position}");
            }
        }
        columns
    }

    /// Returns a query for WITH RECURSIVE that returns the places of those rows in `picked (at, ...)` that stay because one of their children
    /// stays; `table` is the table's oid. None where the table does not reference itself.
    pub fn kept(&self, table: i64) -> Option<String> {
        if self.selves.is_empty() {
            return None;
        }
        let (mut has_a_child, mut is_parent) = (Vec::new(), Vec::new());
        for (number, own) in self.selves.iter().enumerate() {
            let (mut outside, mut inside) = (Vec::new(), Vec::new());
            for (position, (operator, from)) in own.operators.iter().zip(&own.columns).enumerate() {
                let to = format!("p.to_{number}_{position}");
                outside.push(operator.of(&to, &format!("c.{from}")));
                inside.push(operator.of(&to, &format!("k.from_{number}_{position}")));
            }
            has_a_child.push(format!(
                "EXISTS (SELECT FROM {} c WHERE {} AND NOT (c.tableoid OPERATOR(pg_catalog.=) {table}::pg_catalog.oid AND c.ctid OPERATOR(pg_catalog.=) ANY (SELECT at FROM picked)))",
                own.table,
                outside.join(" AND ")
            ));
            is_parent.push(format!("({})", inside.join(" AND ")));
        }
        Some(format!(
            "SELECT p.at FROM picked p WHERE {}
             UNION
             SELECT p.at FROM kept JOIN picked k ON k.at OPERATOR(pg_catalog.=) kept.at JOIN picked p ON {}",
            has_a_child.join(" OR "),
            is_parent.join(" OR ")
        ))
    }

    /// Counts by key name how many rows that should go each key keeps. `table` is quoted; `condition` selects the rows that should go.
    pub async fn count(&self, connection: &mut PgConnection, table: &str, condition: &str) -> Result<Vec<(String, u64)>> {
        let mut counted = Vec::new();
        let own = self.selves.iter().map(|own| Blocker { steps: vec![own.clone()], is_from_another_tree: false });
        for blocker in self.blockers.iter().cloned().chain(own) {
            let sql = format!(
                "SELECT pg_catalog.count(*)::pg_catalog.text FROM ONLY {table} WHERE {condition} AND {}",
                blocker.exists(table)
            );
            let rows = pg::fetch_text(connection, sql).await?.and_then(|count| count.parse().ok()).unwrap_or_default();
            if rows > 0 {
                counted.push((blocker.name(), rows));
            }
        }
        Ok(counted)
    }
}

/// Refuses cascades that would delete rows without archiving them, and foreign keys without an index, where each deleted row would scan
/// another table. `tree`: tables whose rows go too.
pub fn refuse(references: &[Reference], retention: &Retention, tree: &[i64]) -> Result<()> {
    let changes = |reference: &&Reference| {
        "cnd".contains(&reference.action) && (reference.is_self || !tree.contains(&reference.referencing_oid))
    };
    if let (Some(_), Some(reference)) = (&retention.archive, references.iter().find(changes)) {
        return Err(refused(format!(
            "foreign key {} of {} changes or deletes rows there when rows of {} are deleted (ON DELETE), and those rows would not be archived: \
             add {} to `cascade`, make the key NO ACTION, or remove `archive`",
            reference.name, reference.referencing, reference.referenced, reference.referencing
        )));
    }
    if let Some(reference) = references.iter().find(|reference| !reference.indexed) {
        return Err(refused(format!(
            "foreign key {} of {} references {} and has no index on its own columns: each deleted row would scan all of {}; \
             create the index first (CREATE INDEX CONCURRENTLY)",
            reference.name, reference.referencing, reference.referenced, reference.referencing
        )));
    }
    Ok(())
}

/// Returns whether the error says that a row could not be deleted because another row still references it.
pub fn is_referred(error: &anyhow::Error) -> bool {
    // PostgreSQL 18 has an SQLSTATE of its own for ON DELETE RESTRICT.
    pg::sql_state(error).is_some_and(|state| state == "23503" || state == "23001")
}
