//! Asks the target which tables' rows one session takes alone, and what statements use. The definitions are there by then, and the target's catalogs say
//! what they are, whatever the dump says.

use std::collections::{HashMap, HashSet};

use anyhow::Result;
use sqlx::postgres::PgConnection;

use super::queue::{Mode, Resource, Use};
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
    for (at, table) in build.tables.iter().enumerate() {
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
        uses.extend(uses_of(build.what, at > 0, &found));
    }
    if build.needs_memory {
        uses.push(Use { of: Resource::Memory, mode: Mode::Exclusive });
    }
    Ok(Some(uses))
}

/// A constraint of a partitioned table, and a foreign key from or to one, locks its partitions as well. `is_referenced`: a foreign key refers to it. Pure.
fn uses_of(what: What, is_referenced: bool, Found { oid, root, is_partitioned }: &Found) -> Vec<Use> {
    let (of_table, of_tree) = match what {
        What::Index => (Mode::Shared, Mode::Shared),
        What::Constraint if *is_partitioned => (Mode::Exclusive, Mode::Exclusive),
        What::Constraint => (Mode::Exclusive, Mode::Shared),
        What::ForeignKey if is_referenced => (Mode::Referenced, Mode::Referenced),
        What::ForeignKey => (Mode::Referencing, Mode::Referencing),
    };
    let of = |oid: &i64, mode| Use { of: Resource::Table(*oid), mode };
    let tree = root.iter().filter(|root| *root != oid).map(|root| of(root, of_tree));
    [of(oid, of_table)].into_iter().chain(tree).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn partitions_are_used_with_their_tree() {
        let found = |oid, root, is_partitioned| Found { oid, root, is_partitioned };
        let table = |oid, mode| Use { of: Resource::Table(oid), mode };
        let (plain, leaf, root, middle) =
            (found(1, None, false), found(11, Some(10), false), found(10, Some(10), true), found(12, Some(10), true));
        for (what, found, expected) in [
            (What::Index, &plain, &[table(1, Mode::Shared)][..]),
            (What::Index, &leaf, &[table(11, Mode::Shared), table(10, Mode::Shared)]),
            (What::Index, &root, &[table(10, Mode::Shared)]),
            (What::Constraint, &plain, &[table(1, Mode::Exclusive)]),
            (What::Constraint, &leaf, &[table(11, Mode::Exclusive), table(10, Mode::Shared)]),
            (What::Constraint, &root, &[table(10, Mode::Exclusive)]),
            (What::Constraint, &middle, &[table(12, Mode::Exclusive), table(10, Mode::Exclusive)]),
            (What::ForeignKey, &plain, &[table(1, Mode::Referencing)]),
            (What::ForeignKey, &leaf, &[table(11, Mode::Referencing), table(10, Mode::Referencing)]),
            (What::ForeignKey, &root, &[table(10, Mode::Referencing)]),
        ] {
            assert_eq!(uses_of(what, false, found), expected, "{what:?}");
        }
        assert_eq!(uses_of(What::ForeignKey, true, &leaf), [table(11, Mode::Referenced), table(10, Mode::Referenced)]);
    }
}
