//! Asks the target which tables' rows one session takes alone, and what statements use. The definitions are there by then, and the target's catalogs say
//! what they are, whatever the dump says.

use std::collections::{HashMap, HashSet};

use anyhow::Result;
use sqlx::postgres::PgConnection;

use super::queue::{Resource, Use};
use super::way::{Build, What};
use crate::pg;

/// The answers hold until definitions change.
pub struct Alone {
    oids: HashSet<i64>,
    /// By names as SQL has them. There are as many as tables.
    known: HashMap<String, bool>,
}

impl Alone {
    pub async fn read(connection: &mut PgConnection) -> Result<Self> {
        let oids: Vec<i64> = sqlx::query_scalar(concat!(include_str!("../calling.sql"), include_str!("alone.sql")))
            .fetch_all(connection)
            .await
            .map_err(pg::in_its_own_words)?;
        Ok(Self { oids: oids.into_iter().collect(), known: HashMap::new() })
    }

    /// `table`: its name as SQL has it. One that is not there is alone: the server says so.
    pub async fn has(&mut self, connection: &mut PgConnection, table: &str) -> Result<bool> {
        if let Some(known) = self.known.get(table) {
            return Ok(*known);
        }
        let oid: Option<i64> = sqlx::query_scalar("SELECT pg_catalog.to_regclass($1)::pg_catalog.oid::pg_catalog.int8")
            .bind(table)
            .fetch_one(connection)
            .await
            .map_err(pg::in_its_own_words)?;
        let Some(oid) = oid else { return Ok(true) };
        let is_alone = self.oids.contains(&oid);
        self.known.insert(table.to_owned(), is_alone);
        Ok(is_alone)
    }
}

#[derive(sqlx::FromRow)]
struct Found {
    oid: i64,
    /// The root of the tree of partitions that it belongs to.
    root: Option<i64>,
    is_partitioned: bool,
}

/// What a statement uses; None where a table is not there. Nothing here waits for a lock of the sessions at work.
pub async fn uses(connection: &mut PgConnection, build: &Build) -> Result<Option<Vec<Use>>> {
    let mut uses = Vec::new();
    for table in &build.tables {
        let found: Option<Found> = sqlx::query_as(
            "SELECT c.oid::pg_catalog.int8 AS oid, pg_catalog.pg_partition_root(c.oid::pg_catalog.regclass)::pg_catalog.oid::pg_catalog.int8 AS root,
                    c.relkind = 'p' AS is_partitioned
             FROM pg_catalog.pg_class c WHERE c.oid = pg_catalog.to_regclass($1)::pg_catalog.oid",
        )
        .bind(table)
        .fetch_optional(&mut *connection)
        .await
        .map_err(pg::in_its_own_words)?;
        let Some(found) = found else { return Ok(None) };
        uses.extend(uses_of(build.what, &found));
    }
    if build.needs_memory {
        uses.push(Use::exclusive(Resource::Memory));
    }
    Ok(Some(uses))
}

/// A constraint of a partitioned table, and a foreign key from or to one, locks its partitions as well. Pure.
fn uses_of(what: What, Found { oid, root, is_partitioned }: &Found) -> Vec<Use> {
    let of = |oid: &i64, is_exclusive| Use { of: Resource::Table(*oid), is_exclusive };
    let tree = |is_exclusive| root.iter().filter(|root| *root != oid).map(move |root| of(root, is_exclusive));
    match what {
        What::Index => [of(oid, false)].into_iter().chain(tree(false)).collect(),
        What::Constraint => [of(oid, true)].into_iter().chain(tree(*is_partitioned)).collect(),
        What::ForeignKey => [of(oid, true)].into_iter().chain(tree(true)).collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn partitions_are_used_with_their_tree() {
        let found = |oid, root, is_partitioned| Found { oid, root, is_partitioned };
        let table = |oid, is_exclusive| Use { of: Resource::Table(oid), is_exclusive };
        let (plain, leaf, root, middle) =
            (found(1, None, false), found(11, Some(10), false), found(10, Some(10), true), found(12, Some(10), true));
        for (what, found, expected) in [
            (What::Index, &plain, &[table(1, false)][..]),
            (What::Index, &leaf, &[table(11, false), table(10, false)]),
            (What::Index, &root, &[table(10, false)]),
            (What::Constraint, &plain, &[table(1, true)]),
            (What::Constraint, &leaf, &[table(11, true), table(10, false)]),
            (What::Constraint, &root, &[table(10, true)]),
            (What::Constraint, &middle, &[table(12, true), table(10, true)]),
            (What::ForeignKey, &plain, &[table(1, true)]),
            (What::ForeignKey, &leaf, &[table(11, true), table(10, true)]),
            (What::ForeignKey, &root, &[table(10, true)]),
        ] {
            assert_eq!(uses_of(what, found), expected, "{what:?}");
        }
    }
}
