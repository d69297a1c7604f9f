//! The sizes of tables of which the catalog knows none: before their first ANALYZE, after pg_upgrade (before 18), or when the statistics were lost.

use anyhow::Result;
use sqlx::PgConnection;

use super::context::{AuditContext, begin, end};
use super::probe::reason_unknown;
use crate::base::units;
use crate::pg;

/// This many tables are named; the rest are only counted.
const NAMED: usize = 3;

/// The bytes of tables that have no statistics, by their oids.
#[derive(Debug, Default)]
pub struct Sizes {
    pub oids: Vec<i64>,
    pub bytes: Vec<i64>,
    /// Tables of which nothing is known: somebody has locked them.
    pub unknown: Vec<i64>,
}

#[derive(Debug, sqlx::FromRow)]
struct Measured {
    oid: i64,
    name: String,
    bytes: Option<i64>,
    is_locked: bool,
    /// How many rows it has is a guess.
    is_guessed: bool,
}

/// pg_relation_size locks the table for a moment (ACCESS SHARE): those that somebody has locked against it are left out. Fewer rows, live
/// and dead, than pages are not all rows: the same condition stands in prelude.sql.
const SQL: &str = "SELECT c.oid::bigint AS oid, format('%I.%I', n.nspname, c.relname) AS name, s.bytes, s.bytes IS NULL AS is_locked,
        coalesce(c.reltuples <= 0 AND (pg_stat_get_live_tuples(c.oid) + pg_stat_get_dead_tuples(c.oid)) * current_setting('block_size')::bigint < s.bytes, false) AS is_guessed
    FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace,
    LATERAL (SELECT CASE WHEN c.oid NOT IN (SELECT l.relation FROM pg_locks l WHERE l.locktype = 'relation' AND l.mode = 'AccessExclusiveLock'
                                          AND l.database = (SELECT oid FROM pg_database WHERE datname = current_database())) THEN pg_relation_size(c.oid) END AS bytes OFFSET 0) s
    WHERE c.relkind = 'r' AND c.relpersistence <> 't' AND (c.reltuples < 0 OR c.relpages = 0) AND n.nspname NOT IN ('pg_catalog', 'information_schema', 'pgtend') AND n.nspname NOT LIKE 'pg\\_%'
    ORDER BY s.bytes DESC NULLS FIRST";

impl Sizes {
    /// Asks for the sizes that the catalog does not know. Returns them, and a note on those that are unknown or guessed.
    pub async fn ask(connection: &mut PgConnection, context: &AuditContext<'_>) -> Result<(Self, Vec<String>)> {
        begin(connection, context).await?;
        let asked = sqlx::query_as::<_, Measured>(SQL).fetch_all(&mut *connection).await;
        end(connection).await?;
        let rows = match asked.map_err(pg::in_its_own_words) {
            Ok(rows) => rows,
            Err(error) => match reason_unknown(&error, context.audit.check_timeout) {
                Some(reason) => {
                    return Ok((Self::default(), vec![format!("the sizes of tables without statistics are unknown: {reason}")]));
                }
                None => return Err(error.context("while asking for the sizes of tables without statistics")),
            },
        };
        let named = |is: fn(&Measured) -> bool| -> Vec<&str> {
            rows.iter().filter(|table| is(table)).map(|table| table.name.as_str()).collect()
        };
        let notes = [
            (
                named(|table| table.is_guessed),
                "without statistics: the rows are estimated from the size, at 100 bytes each, until ANALYZE",
            ),
            (named(|table| table.is_locked), "without statistics, and locked: the size is unknown"),
        ];
        let notes = notes.into_iter().filter(|(names, _)| !names.is_empty()).map(|(names, what)| {
            let more = if names.len() > NAMED { ", …" } else { "" };
            format!("{} {what}: {}{more}", units::plural(names.len(), "table"), names[..names.len().min(NAMED)].join(", "))
        });
        let notes = notes.collect();
        let (oids, bytes) = rows.iter().filter_map(|table| Some((table.oid, table.bytes?))).unzip();
        let unknown = rows.iter().filter(|table| table.is_locked).map(|table| table.oid).collect();
        Ok((Self { oids, bytes, unknown }, notes))
    }
}
