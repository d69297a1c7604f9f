//! Compares the numbers of rows of a restored database with the manifest, table by table.

use std::collections::{BTreeMap, HashSet};

use anyhow::Result;
use sqlx::postgres::PgConnection;

use super::scan::TableData;
use crate::base::units;
use crate::pg;

/// The number of tables in one query, so that no statement grows without bound, and not every table costs a round trip.
const TABLES_PER_QUERY: usize = 100;

/// The findings, in words: each names its table.
#[derive(Debug, Default, PartialEq)]
pub struct Counts {
    /// Tables whose count differs from the manifest's.
    pub differ: Vec<String>,
    pub missing: Vec<Missing>,
    /// Tables that have more rows than the manifest says.
    pub more: Vec<String>,
    /// Tables that this role may not read, or whose rows it sees only partly because of row security.
    pub unreadable: Vec<String>,
}

/// A table of the manifest that does not exist.
#[derive(Debug, PartialEq)]
pub struct Missing {
    pub schema: String,
    pub name: String,
    /// Rows by the manifest.
    pub rows: u64,
}

/// A table of the manifest, as it is in this database.
#[derive(sqlx::FromRow)]
struct Found {
    number: i64,
    oid: Option<i64>,
    /// True if an extension created it: CREATE EXTENSION may have inserted rows.
    of_extension: bool,
    unreadable: bool,
    /// Ancestors, the topmost first.
    ancestors: Vec<i64>,
}

/// Relations that are compared together: a table, or a partitioned table with all its leaves.
#[derive(Debug, Default)]
pub struct Group {
    pub name: String,
    /// Rows by the manifest.
    pub expected: u64,
    pub of_extension: bool,
    /// The tables of the manifest, by schema and name.
    pub tables: Vec<(String, String)>,
    /// The relations that hold their rows.
    pub relations: Vec<Relation>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Relation {
    pub oid: i64,
    /// Its name in SQL.
    pub sql: String,
}

/// Counts the tables of the manifest, and compares. The search_path and other settings of the session do not matter.
pub async fn compare(connection: &mut PgConnection, tables: &[TableData]) -> Result<Counts> {
    let (groups, mut counts) = groups(connection, tables).await?;
    let rows = count(connection, &groups.iter().collect::<Vec<_>>()).await?;
    for (group, rows) in groups.iter().zip(rows) {
        counts.judge(group, rows);
    }
    Ok(counts)
}

/// Finds the tables of the manifest. Blocks of one name are one table; where a block names the root of a partitioned table ("load via
/// partition root": partitions by the hash of an enum), its rows may be in any leaf, so the whole tree is compared with all its blocks.
pub async fn groups(connection: &mut PgConnection, tables: &[TableData]) -> Result<(Vec<Group>, Counts)> {
    let mut blocks: BTreeMap<(&str, &str), u64> = BTreeMap::new();
    for table in tables {
        *blocks.entry((&table.schema, &table.name)).or_default() += table.rows;
    }
    let blocks: Vec<((&str, &str), u64)> = blocks.into_iter().collect();
    let schemas: Vec<&str> = blocks.iter().map(|((schema, _), _)| *schema).collect();
    let names: Vec<&str> = blocks.iter().map(|((_, name), _)| *name).collect();
    let found: Vec<Found> =
        sqlx::query_as(include_str!("counts.sql")).bind(&schemas).bind(&names).fetch_all(&mut *connection).await?;

    let mut counts = Counts::default();
    let with_blocks: HashSet<i64> = found.iter().filter_map(|found| found.oid).collect();
    let mut groups: BTreeMap<i64, Group> = BTreeMap::new();
    for found in &found {
        let Some(((schema, name), rows)) = blocks.get(found.number as usize - 1) else { continue };
        let (Some(oid), called) = (found.oid, format!("{schema}.{name}")) else {
            counts.missing.push(Missing { schema: (*schema).to_owned(), name: (*name).to_owned(), rows: *rows });
            continue;
        };
        if found.unreadable {
            counts.unreadable.push(called);
            continue;
        }
        let root = found.ancestors.iter().find(|ancestor| with_blocks.contains(ancestor)).copied().unwrap_or(oid);
        let group = groups.entry(root).or_default();
        group.expected += rows;
        group.tables.push(((*schema).to_owned(), (*name).to_owned()));
        if root == oid {
            group.name = called;
            group.of_extension = found.of_extension;
        }
    }
    let roots: Vec<i64> = groups.keys().copied().collect();
    let relations: Vec<(i64, i64, String, String)> =
        sqlx::query_as(include_str!("counted.sql")).bind(&roots).fetch_all(&mut *connection).await?;
    for (root, oid, schema, name) in relations {
        if let Some(group) = groups.get_mut(&root) {
            group.relations.push(Relation { oid, sql: pg::qualified(&schema, &name) });
        }
    }
    Ok((groups.into_values().collect(), counts))
}

/// The numbers of rows of these groups, in their order.
pub async fn count(connection: &mut PgConnection, groups: &[&Group]) -> Result<Vec<u64>> {
    let mut rows = vec![0_u64; groups.len()];
    let counted: Vec<(usize, &str)> = groups
        .iter()
        .enumerate()
        .flat_map(|(number, group)| group.relations.iter().map(move |relation| (number, relation.sql.as_str())))
        .collect();
    for chunk in counted.chunks(TABLES_PER_QUERY) {
        let queries: Vec<String> = chunk
            .iter()
            .map(|(number, relation)| format!("SELECT {number}::bigint, pg_catalog.count(*) FROM ONLY {relation}"))
            .collect();
        let found: Vec<(i64, i64)> = pg::fetch_all_as(&mut *connection, queries.join(" UNION ALL ")).await?;
        for (number, count) in found {
            rows[number as usize] += count as u64;
        }
    }
    Ok(rows)
}

impl Counts {
    /// Compares the rows that a group has with those that it should have.
    pub fn judge(&mut self, group: &Group, rows: u64) {
        if rows > group.expected && group.of_extension {
            return;
        }
        let said =
            format!("{} has {} and the manifest says {}", group.name, units::plural(rows, "row"), units::count(group.expected));
        if rows > group.expected {
            self.more.push(said.clone());
        }
        if rows != group.expected {
            self.differ.push(said);
        }
    }
}
