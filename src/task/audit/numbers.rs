//! Reads the numbers of a [`Baseline`].

use anyhow::Result;
use sqlx::PgConnection;

use super::baseline::Baseline;
use super::context::{AuditContext, begin, end};
use super::document::Document;
use super::probe::reason_unknown;
use crate::pg;

const SQL: &str = "SELECT pg_stat_get_db_stat_reset_time(d.oid) AS since, pg_size_bytes(current_setting('work_mem')) AS work_mem_bytes, pg_size_bytes(current_setting('shared_buffers')) AS shared_buffers_bytes,
        pg_stat_get_db_temp_files(d.oid) AS temp_files, pg_stat_get_db_temp_bytes(d.oid) AS temp_bytes,
        100 * pg_stat_get_db_blocks_hit(d.oid)::float8 / nullif(pg_stat_get_db_blocks_fetched(d.oid), 0) AS hit_percent,
        (SELECT 100 * sum(pg_stat_get_blocks_hit(c.oid))::float8 / nullif(sum(pg_stat_get_blocks_fetched(c.oid)), 0)::float8 FROM pg_class c WHERE c.relkind = 'i') AS index_hit_percent
     FROM pg_database d WHERE d.datname = current_database()";

/// Reads the numbers; says why not where that takes too long.
pub async fn look(connection: &mut PgConnection, context: &AuditContext<'_>, document: &mut Document) -> Result<()> {
    begin(connection, context).await?;
    let read = pg::fetch_all_as::<Baseline>(connection, SQL.to_owned()).await;
    end(connection).await?;
    match read {
        Ok(read) => document.baseline = read.into_iter().next(),
        Err(error) => match reason_unknown(&error, context.audit.check_timeout) {
            Some(reason) => document.notes.push(format!("the numbers of the server are unknown: {reason}")),
            None => return Err(error.context("while reading numbers of the server")),
        },
    }
    Ok(())
}
