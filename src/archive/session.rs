//! The server's part in an archive: settings under which rows are written, and whether a transaction committed.
//!
//! Its queries run between statements that fire other people's triggers, so every name and operator is qualified.

use anyhow::{Context as _, Result};
use chrono::{DateTime, Utc};
use sqlx::PgConnection;

use crate::pg;

/// The encoding in which rows are written where the database has it; of another database, the bytes go to the archive unchanged.
const UTF8: &str = "UTF8";

/// The encoding of a database that says nothing about its bytes.
pub(super) const SQL_ASCII: &str = "SQL_ASCII";

/// Returns the columns of a table whose rows are put back into `target`, without those that `target` generates, which take no values.
pub async fn columns(connection: &mut PgConnection, table: i64, target: i64) -> Result<Vec<String>> {
    Ok(sqlx::query_scalar(
        "SELECT attname::pg_catalog.text FROM pg_catalog.pg_attribute
         WHERE attrelid OPERATOR(pg_catalog.=) $1::bigint::pg_catalog.oid AND attnum OPERATOR(pg_catalog.>) 0 AND NOT attisdropped
           AND attname OPERATOR(pg_catalog.<>) ALL (ARRAY(
               SELECT t.attname FROM pg_catalog.pg_attribute t
               WHERE t.attrelid OPERATOR(pg_catalog.=) $2::bigint::pg_catalog.oid AND t.attnum OPERATOR(pg_catalog.>) 0
                 AND NOT t.attisdropped AND t.attgenerated OPERATOR(pg_catalog.<>) ''::pg_catalog.\"char\"))
         ORDER BY attnum",
    )
    .bind(table)
    .bind(target)
    .fetch_all(connection)
    .await?)
}

/// A table that archived rows belong to: they are restored into it.
pub struct Home {
    pub oid: i64,
    pub schema: String,
    pub name: String,
}

impl Home {
    /// Returns the table itself, or the one that it is a partition of where that has columns of its own values that the partition generates
    /// (PostgreSQL 14 and 15 allow it): without the partition, nothing would generate them again.
    pub async fn of(connection: &mut PgConnection, table: Self) -> Result<Self> {
        let root: Option<(i64, String, String)> = sqlx::query_as(
            "SELECT c.oid::bigint, n.nspname::pg_catalog.text, c.relname::pg_catalog.text
             FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid OPERATOR(pg_catalog.=) c.relnamespace
             WHERE c.oid OPERATOR(pg_catalog.=) pg_catalog.pg_partition_root($1::bigint::pg_catalog.oid::pg_catalog.regclass)::pg_catalog.oid
               AND EXISTS (
                   SELECT FROM pg_catalog.pg_attribute a JOIN pg_catalog.pg_attribute t
                     ON t.attrelid OPERATOR(pg_catalog.=) c.oid AND t.attname OPERATOR(pg_catalog.=) a.attname AND NOT t.attisdropped
                   WHERE a.attrelid OPERATOR(pg_catalog.=) $1::bigint::pg_catalog.oid AND a.attnum OPERATOR(pg_catalog.>) 0
                     AND NOT a.attisdropped AND a.attgenerated OPERATOR(pg_catalog.<>) ''::pg_catalog.\"char\"
                     AND t.attgenerated OPERATOR(pg_catalog.=) ''::pg_catalog.\"char\")",
        )
        .bind(table.oid)
        .fetch_optional(connection)
        .await?;
        Ok(root.map_or(table, |(oid, schema, name)| Self { oid, schema, name }))
    }
}

/// Returns the number of the transaction that `connection` is in; no other of this server ever has it.
pub async fn transaction(connection: &mut PgConnection) -> Result<i64> {
    // xid8 is sent as text: it is wider than any type that is read here.
    let xid: String = sqlx::query_scalar("SELECT pg_catalog.pg_current_xact_id()::pg_catalog.text").fetch_one(connection).await?;
    xid.parse().context("the server returned no transaction number")
}

/// Returns the number that the next transaction of the server gets.
pub(super) async fn next_transaction(connection: &mut PgConnection) -> Result<i64> {
    let sql = "SELECT pg_catalog.pg_snapshot_xmax(pg_catalog.pg_current_snapshot())::pg_catalog.text";
    let xid: String = sqlx::query_scalar(sql).fetch_one(connection).await?;
    xid.parse().context("the server returned no transaction number")
}

/// Sets how values are written so that any server reads the same: the settings of pg_dump (setup_connection in pg_dump.c).
pub async fn prepare_session(connection: &mut PgConnection) -> Result<()> {
    for (name, value) in [
        ("datestyle", "ISO"),
        ("intervalstyle", "postgres"),
        ("extra_float_digits", "3"),
        ("bytea_output", "hex"),
        ("xmloption", "content"),
    ] {
        pg::set(connection, name, value).await?;
    }
    Ok(())
}

/// Returns how to read the rows of this session: the database's encoding if it is not [`UTF8`], and the statements for psql. The server accepts
/// bytes that its encoding has and UTF-8 has no character for (0x81 in WIN1252, f5a1 in EUC_JP), so it is not asked to convert any.
pub(super) async fn preamble(connection: &mut PgConnection) -> Result<(Option<String>, String)> {
    let (encoding, search_path): (String, String) =
        sqlx::query_as("SELECT pg_catalog.current_setting('server_encoding'), pg_catalog.current_setting('search_path')")
            .fetch_one(connection)
            .await?;
    let encoding = Some(encoding).filter(|encoding| encoding != UTF8);
    let mut text = format!(
        "-- pgtend archive\nSET client_encoding = '{}';\nSET datestyle = 'ISO';\nSET intervalstyle = 'postgres';\nSET xmloption = content;\n",
        encoding.as_deref().unwrap_or(UTF8)
    );
    // Names in values (regclass and the like) were written under this path. Under our own path they have their schemas, and can
    // be read under any; triggers of the target table may need another.
    if search_path != pg::SEARCH_PATH {
        text += &format!("SELECT pg_catalog.set_config('search_path', {}, false);\n", pg::literal(&search_path));
    }
    Ok((encoding, text))
}

/// Passes bytes in this encoding until [`convert_again`]. The server's messages would come in it, too: a notice that is not UTF-8 breaks the
/// connection (sqlx takes it for the end of the rows), so that none is asked for.
pub(super) async fn pass_bytes(connection: &mut PgConnection, encoding: &str) -> Result<()> {
    pg::set(connection, "client_min_messages", "error").await?;
    pg::set(connection, "client_encoding", encoding).await
}

pub(super) async fn convert_again(connection: &mut PgConnection) -> Result<()> {
    pg::set(connection, "client_encoding", UTF8).await?;
    pg::set(connection, "client_min_messages", "notice").await
}

/// Explains an error whose text is not UTF-8, which is all that sqlx says of it.
pub(super) fn in_another_encoding(error: anyhow::Error, encoding: Option<&str>) -> anyhow::Error {
    let is_unread = error.chain().any(|cause| matches!(cause.downcast_ref(), Some(sqlx::Error::Protocol(_))));
    match encoding {
        Some(encoding) if is_unread => error.context(format!(
            "the server's message is in {encoding} and not UTF-8, so it cannot be shown: the server's log has it"
        )),
        _ => error,
    }
}

/// The end of a transaction, as far as the server knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fate {
    InProgress,
    Committed,
    Aborted,
    /// It did not commit in this server's history, and the server was started since: it was set back or lost the number in a crash, or it is a physical copy
    /// of the server where the transaction was.
    Undone,
    /// The server was restarted since, and may have given the number to another transaction after a crash.
    MaybeCommitted,
    Forgotten,
}

/// Returns the fate of a transaction. `server_started_at` is when its server was started.
pub(super) async fn fate(connection: &mut PgConnection, transaction: i64, server_started_at: Option<&str>) -> Result<Fate> {
    let status: std::result::Result<Option<String>, sqlx::Error> =
        sqlx::query_scalar("SELECT pg_catalog.pg_xact_status($1::pg_catalog.text::pg_catalog.xid8)")
            .bind(transaction.to_string())
            .fetch_one(&mut *connection)
            .await;
    let status = match status.map_err(anyhow::Error::from) {
        Ok(status) => status,
        // "transaction ID is in the future": its number is free again, or was never given out here.
        Err(error) if pg::sql_state(&error).as_deref() == Some("22023") => Some("aborted".to_owned()),
        Err(error) => return Err(error),
    };
    let has_restarted = server_started_at != Some(self::server_started_at(connection).await?.as_str());
    Ok(match status.as_deref() {
        Some("in progress") => Fate::InProgress,
        Some("committed") if has_restarted => Fate::MaybeCommitted,
        Some("committed") => Fate::Committed,
        Some(_) if has_restarted => Fate::Undone,
        Some(_) => Fate::Aborted,
        None => Fate::Forgotten,
    })
}

pub(super) async fn database_name(connection: &mut PgConnection) -> Result<String> {
    Ok(sqlx::query_scalar("SELECT pg_catalog.current_database()::pg_catalog.text").fetch_one(connection).await?)
}

pub(super) async fn server_started_at(connection: &mut PgConnection) -> Result<String> {
    let started_at: DateTime<Utc> =
        sqlx::query_scalar("SELECT pg_catalog.pg_postmaster_start_time()").fetch_one(connection).await?;
    Ok(started_at.to_rfc3339())
}

/// Returns an identifier that changes with initdb and pg_restore, not with failover or physical restore, which keep transactions.
pub(super) async fn system_identifier(connection: &mut PgConnection) -> Result<String> {
    Ok(sqlx::query_scalar("SELECT system_identifier::pg_catalog.text FROM pg_catalog.pg_control_system()")
        .fetch_one(connection)
        .await?)
}
