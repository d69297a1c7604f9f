//! How large the tables are, and how much they are used: what a finding costs depends on it.

use std::collections::HashMap;

use anyhow::Result;
use sqlx::PgConnection;

use super::context::{AuditContext, begin, end};
use super::document::Weight;
use super::probe::reason_unknown;
use super::sizes::Sizes;
use crate::pg;

/// The weights of tables and of their partitions by their names, quoted.
#[derive(Debug, Default)]
pub struct Weights(HashMap<String, Weight>);

const SQL: &str = concat!(
    include_str!("prelude.sql"),
    r#"
    , used AS (
        SELECT coalesce(p.root, c.oid) AS oid,
               sum(pg_stat_get_numscans(c.oid) + pg_stat_get_tuples_inserted(c.oid) + pg_stat_get_tuples_updated(c.oid) + pg_stat_get_tuples_deleted(c.oid) + coalesce(i.scans, 0)) AS calls
        FROM pg_class c LEFT JOIN partitions p ON p.oid = c.oid LEFT JOIN (SELECT indrelid, sum(pg_stat_get_numscans(indexrelid)) AS scans FROM pg_index GROUP BY indrelid) i ON i.indrelid = c.oid
        WHERE c.relkind = 'r' GROUP BY 1
    )
    SELECT t."table", t.bytes::bigint, t.rows, coalesce(u.calls, 0)::bigint, t.oid::bigint FROM all_tables t LEFT JOIN used u ON u.oid = t.oid"#
);

impl Weights {
    /// Reads the weights; without them, and with the reason, where that takes too long.
    pub async fn read(
        connection: &mut PgConnection,
        context: &AuditContext<'_>,
        sizes: &Sizes,
    ) -> Result<(Self, Option<String>)> {
        begin(connection, context).await?;
        let read = pg::query(SQL.to_owned())
            .bind(0.0)
            .bind(Vec::<i64>::new())
            .bind(0.0)
            .bind(Vec::<String>::new())
            .bind(None::<String>)
            .bind(&sizes.oids)
            .bind(&sizes.bytes)
            .fetch_all(&mut *connection)
            .await
            .map_err(pg::in_its_own_words);
        end(connection).await?;
        let rows = match read {
            Ok(rows) => rows,
            Err(error) => match reason_unknown(&error, context.audit.check_timeout) {
                Some(reason) => return Ok((Self::default(), Some(format!("the sizes of tables are unknown: {reason}")))),
                None => return Err(error.context("while reading the sizes of tables")),
            },
        };
        let weight = |row: &sqlx::postgres::PgRow| -> sqlx::Result<(String, Weight)> {
            let get = |index: usize| sqlx::Row::try_get::<i64, _>(row, index);
            Ok((sqlx::Row::try_get(row, 0)?, Weight { bytes: get(1)?, rows: get(2)?, calls: get(3)? }))
        };
        // What is not known is not called small.
        let is_known = |row: &&sqlx::postgres::PgRow| sqlx::Row::try_get(*row, 4).is_ok_and(|oid| !sizes.unknown.contains(&oid));
        let weights: sqlx::Result<HashMap<String, Weight>> = rows.iter().filter(is_known).map(weight).collect();
        Ok((Self(weights?), None))
    }

    /// Returns the weight of the table of this name; none for what is no table, and where it is not known.
    pub fn of(&self, object: &str) -> Option<Weight> {
        self.0.get(object).copied()
    }
}
