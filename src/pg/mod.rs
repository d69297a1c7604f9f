//! Talks to PostgreSQL: where a server is, connections, quoting, and the meaning of its errors.
//!
//! Only this file and `pooler` use `AssertSqlSafe`: identifiers reach SQL through [`identifier`], literals of utility
//! statements (which take no bound values) through [`literal`], all other values are bound.

pub mod client_tools;
pub mod clock;
mod contract;
pub mod copy_text;
pub mod databases;
pub mod failure;
pub mod form;
pub mod locked;
mod operator;
mod parameters;
mod passfile;
mod pooler;
mod route;
pub mod schemas;
mod service;
mod session;
mod settings;
pub mod stat_statements;
pub mod table;
pub mod tenants;
pub mod throwaway;
mod tls;
#[doc(hidden)]
pub mod url;
pub mod views;
pub mod wal;
mod who;

use std::time::Duration;

use anyhow::{Context as _, Result};
use bytes::Bytes;
pub use contract::{Purpose, SEARCH_PATH};
pub use failure::{Fields, constraint, fields, in_its_own_words, sql_state, words_of};
use futures_util::TryStreamExt as _;
use futures_util::stream::BoxStream;
pub use operator::Operator;
pub use pooler::TRANSACTION_POOLER;
pub use settings::{Settings, WrittenUrl};
use sqlx::postgres::{PgArguments, PgConnection, PgCopyIn};
use sqlx::query::Query;
use sqlx::{AssertSqlSafe, Column as _, Executor as _, Postgres, Row as _, SqlSafeStr as _, Statement as _};
pub(crate) use who::session_in_words;

use crate::base::fault::{Fault, Kind};
use crate::base::terminal::reorders_text;
/// Quotes an identifier, whatever is in the name. PostgreSQL allows anything but NUL, which cannot occur in a catalog; a NUL from
/// elsewhere is dropped.
pub fn identifier(name: &str) -> String {
    format!("\"{}\"", name.replace('\0', "").replace('"', "\"\""))
}

/// Returns `"schema"."name"`.
pub fn qualified(schema: &str, name: &str) -> String {
    format!("{}.{}", identifier(schema), identifier(name))
}

/// Returns a string literal for a statement that takes no bound values (CREATE DATABASE). `E''` makes it independent of
/// standard_conforming_strings.
pub fn literal(text: &str) -> String {
    format!("E'{}'", text.replace('\0', "").replace('\\', "\\\\").replace('\'', "''"))
}

/// Returns a comment, `-- ` and one line, whatever is in a foreign name or statement. The server ends a comment at LF and CR;
/// editors and other tools also at U+0085, U+2028 and U+2029.
pub fn comment(text: &str) -> String {
    let is_space = |letter: char| letter.is_control() || matches!(letter, '\u{2028}' | '\u{2029}') || reorders_text(letter);
    format!("-- {}", text.replace(is_space, " "))
}

/// Runs a statement made by [`identifier`] and [`literal`].
pub async fn execute(connection: &mut PgConnection, sql: String) -> Result<()> {
    connection.execute(AssertSqlSafe(sql)).await?;
    Ok(())
}

/// Does the same by the simple protocol, with sqlx's error: for SET and SHOW before a session keeps the contract.
async fn execute_plain(connection: &mut PgConnection, sql: String) -> sqlx::Result<()> {
    connection.execute(AssertSqlSafe(sql)).await.map(drop)
}

/// Ensures that a COMMIT is on disk when it returns, even if the database or the role has synchronous_commit off: an archive then
/// claims that its rows are deleted. The server still decides about waiting for standbys.
pub async fn commit_durably(connection: &mut PgConnection) -> Result<()> {
    let now = fetch_text(connection, "SHOW synchronous_commit".to_owned()).await?;
    if now.as_deref() == Some("off") {
        execute(connection, "SET synchronous_commit = on".to_owned()).await?;
    }
    Ok(())
}

/// Refuses a session in which neither triggers nor foreign keys act: a database, a role or the server has session_replication_role = replica,
/// and the role may not set it, as the contract does where it may. With `local`, the same triggers fire as with `origin`.
pub async fn check_triggers_fire(connection: &mut PgConnection) -> Result<()> {
    if fetch_text(connection, "SHOW session_replication_role".to_owned()).await?.as_deref() != Some("replica") {
        return Ok(());
    }
    let (role, database, may_be_granted): (String, String, bool) = sqlx::query_as(
        "SELECT pg_catalog.quote_ident(CURRENT_USER), pg_catalog.quote_ident(pg_catalog.current_database()),
                pg_catalog.current_setting('server_version_num')::pg_catalog.int4 OPERATOR(pg_catalog.>=) 150000",
    )
    .fetch_one(connection)
    .await?;
    let grant = match may_be_granted {
        true => format!("GRANT SET ON PARAMETER session_replication_role TO {role}, or take the setting back"),
        false => "take the setting back".to_owned(),
    };
    let message = format!(
        "sessions of {role} have session_replication_role = replica, so that neither triggers nor foreign keys act on the rows that a run \
         writes or deletes, and {role} may not set it: {grant} (ALTER DATABASE {database} RESET session_replication_role, or ALTER ROLE {role} RESET \
         session_replication_role)"
    );
    Err(Fault::new(Kind::Configuration, message).into())
}

/// Sets our search_path again after another owner's code has run in the session: a trigger's set_config survives its transaction.
pub async fn reset_search_path(connection: &mut PgConnection) -> Result<()> {
    execute(connection, contract::SET_SEARCH_PATH.to_owned()).await
}

/// Does the same, and returns the number of affected rows, or an error whose SQLSTATE the caller reads.
pub async fn execute_counting(connection: &mut PgConnection, sql: String) -> Result<u64, sqlx::Error> {
    Ok(connection.execute(AssertSqlSafe(sql)).await?.rows_affected())
}

/// Runs exactly one statement: in the extended protocol the server refuses several in one message, even if the text looked like
/// one.
pub async fn execute_single(connection: &mut PgConnection, sql: String) -> Result<(), sqlx::Error> {
    sqlx::query(AssertSqlSafe(sql)).persistent(false).execute(connection).await?;
    Ok(())
}

/// Returns the first row of a query made by [`identifier`] and [`literal`]; its one column is text.
pub async fn fetch_text(connection: &mut PgConnection, sql: String) -> Result<Option<String>> {
    let text: Option<Option<String>> =
        sqlx::query_scalar(AssertSqlSafe(sql)).fetch_optional(connection).await.map_err(in_its_own_words)?;
    Ok(text.flatten())
}

/// Returns all rows of a query made by [`identifier`] and [`literal`].
pub async fn fetch_all_as<T>(connection: &mut PgConnection, sql: String) -> Result<Vec<T>>
where
    T: for<'r> sqlx::FromRow<'r, sqlx::postgres::PgRow> + Send + Unpin,
{
    sqlx::query_as(AssertSqlSafe(sql)).fetch_all(connection).await.map_err(in_its_own_words)
}

/// Returns a statement made by [`identifier`], to which values can be bound.
pub fn query<'q>(sql: String) -> Query<'q, Postgres, PgArguments> {
    sqlx::query(AssertSqlSafe(sql))
}

/// Returns the names of the columns that a statement returns, without running it.
pub async fn columns_of(connection: &mut PgConnection, sql: String) -> Result<Vec<String>> {
    let statement = connection.prepare(AssertSqlSafe(sql).into_sql_str()).await.map_err(in_its_own_words)?;
    Ok(statement.columns().iter().map(|column| column.name().to_owned()).collect())
}

/// Runs the user's own SQL unchanged. Returns the rows of each of its commands by the server's count: affected, or returned and
/// discarded.
pub async fn execute_script(connection: &mut PgConnection, sql: &str) -> Result<Vec<u64>> {
    let mut rows = Vec::new();
    execute_script_into(connection, sql, &mut rows).await?;
    Ok(rows)
}

/// Does the same; `rows` gets one number for each command that the server answered, even when a later one fails.
pub async fn execute_script_into(connection: &mut PgConnection, sql: &str, rows: &mut Vec<u64>) -> Result<()> {
    let mut results = connection.fetch_many(AssertSqlSafe(sql));
    while let Some(result) = results.try_next().await.map_err(in_its_own_words)? {
        if let sqlx::Either::Left(done) = result {
            rows.push(done.rows_affected());
        }
    }
    Ok(())
}

/// Returns the rows of a query in COPY's text format. They must be read to the end, or the connection is unusable. After an error of this function,
/// [`keep_step`] must be called: it cannot do that itself, as the rows borrow the connection.
pub async fn copy_out<'c>(connection: &'c mut PgConnection, query: &str) -> Result<BoxStream<'c, sqlx::Result<Bytes>>> {
    connection.copy_out_raw(&format!("COPY ({query}) TO STDOUT")).await.map_err(in_its_own_words)
}

/// Starts to read all rows of a table, in COPY's text format. PostgreSQL plans nothing for it, as it does for a query: no expression of the table's indexes
/// and statistics is computed.
pub async fn copy_table_out<'c>(
    connection: &'c mut PgConnection,
    table: &str,
    columns: &str,
) -> Result<BoxStream<'c, sqlx::Result<Bytes>>> {
    connection.copy_out_raw(&format!("COPY {table} ({columns}) TO STDOUT")).await.map_err(in_its_own_words)
}

/// Returns the statement after which a session reads no view and no foreign table of a user; None where the server does not know that: before 14.13, 15.8 and
/// 16.4.
pub fn tables_alone(connection: &PgConnection) -> Option<String> {
    contract::tables_alone(connection.server_version_num().unwrap_or_default())
}

/// Returns the statements that set what decides about the text of values, as every session of ours has it at its start.
pub fn text_settings() -> String {
    contract::text_settings()
}

/// Reads the end of a [`copy_out`] that the server refused at its start. sqlx 0.9 leaves its ReadyForQuery unread (`pg_begin_copy_out`), and each
/// later statement would get the answer to the one before it.
pub async fn keep_step(connection: &mut PgConnection) {
    // sqlx reads that message in the place of ParseComplete, which is an error; then it reads on to the end of this statement before the next one.
    // ROLLBACK may be parsed in a failed transaction, and is not run. No other statement has this text: a cached one would not be parsed.
    let _ = connection.prepare(sqlx::SqlStr::from_static(READ_ON)).await;
}

const READ_ON: &str = "ROLLBACK -- not run, but parsed after a COPY that was refused";

/// Sends rows in COPY's text format to a table.
pub async fn copy_in<'c>(connection: &'c mut PgConnection, table: &str, columns: &str) -> Result<PgCopyIn<&'c mut PgConnection>> {
    connection.copy_in_raw(&format!("COPY {table} {columns} FROM STDIN")).await.map_err(in_its_own_words)
}

/// Does the same by a dump's own `COPY … FROM stdin`, with an error whose SQLSTATE the caller reads.
pub async fn copy_in_by<'c>(connection: &'c mut PgConnection, statement: &str) -> sqlx::Result<PgCopyIn<&'c mut PgConnection>> {
    connection.copy_in_raw(statement).await
}

/// Cancels the statement of another connection of ours: a server does not notice that its client has gone before it has something
/// to send.
pub async fn cancel_backend(settings: &Settings, pid: i32) -> Result<()> {
    let mut connection = settings.connect().await?;
    sqlx::query("SELECT pg_catalog.pg_cancel_backend($1)").bind(pid).execute(&mut connection).await?;
    Ok(())
}

pub async fn backend_pid(connection: &mut PgConnection) -> Result<i32> {
    Ok(sqlx::query_scalar("SELECT pg_catalog.pg_backend_pid()").fetch_one(connection).await?)
}

/// The state of a session between two statements.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum InTransaction {
    No,
    /// The time at which the transaction began, which tells it from the next one.
    Since(String),
    /// One of its statements has failed: only ROLLBACK is accepted.
    Failed,
}

/// Asks by the simple protocol, where a statement outside of a transaction block begins its own transaction at the time when the
/// server received it; in the extended protocol Parse begins it, and Execute has a later time.
pub async fn in_transaction(connection: &mut PgConnection) -> Result<InTransaction> {
    let sql = "SELECT (pg_catalog.now() OPERATOR(pg_catalog.<>) pg_catalog.statement_timestamp())::pg_catalog.text,
                      pg_catalog.now()::pg_catalog.text";
    let row = match connection.fetch_one(sql).await {
        Ok(row) => row,
        // The SQLSTATE is in_failed_sql_transaction.
        Err(sqlx::Error::Database(said)) if said.code().as_deref() == Some("25P02") => return Ok(InTransaction::Failed),
        Err(error) => return Err(in_its_own_words(error)),
    };
    let (is_open, began): (String, String) = (row.try_get(0)?, row.try_get(1)?);
    Ok(if is_open == "true" { InTransaction::Since(began) } else { InTransaction::No })
}

/// Sets a parameter of the session.
pub async fn set(connection: &mut PgConnection, name: &str, value: &str) -> Result<()> {
    sqlx::query("SELECT pg_catalog.set_config($1, $2, false)").bind(name).bind(value).execute(connection).await?;
    Ok(())
}

/// A server's description of itself.
#[derive(Clone, Debug)]
pub struct Server {
    /// The value of `server_version_num`: 180004 is 18.4.
    pub version_num: i32,
    pub version: String,
}

impl Server {
    pub async fn of(connection: &mut PgConnection) -> Result<Self> {
        let (number, version): (String, String) =
            // Sessions for rows ask, too, and find names as their database's owner says.
            sqlx::query_as("SELECT pg_catalog.current_setting('server_version_num'), pg_catalog.current_setting('server_version')")
                .fetch_one(connection)
                .await?;
        // Debian adds its package's name: "15.18 (Debian 15.18-0+deb12u1)".
        let version = version.split(' ').next().unwrap_or_default().to_owned();
        Ok(Self { version_num: number.parse().context("server_version_num is not a number")?, version })
    }

    pub fn major(&self) -> u32 {
        self.version_num as u32 / 10_000
    }
}

/// Takes the session lock of a job on a database; returns true unless another session holds it. It is released when the
/// connection ends, however it ends.
pub async fn try_lock(connection: &mut PgConnection, name: &str) -> Result<bool> {
    let locked = sqlx::query_scalar("SELECT pg_catalog.pg_try_advisory_lock(pg_catalog.hashtextextended($1, 0))")
        .bind(name)
        .fetch_one(connection)
        .await?;
    Ok(locked)
}

/// Does the same in shared mode: together with other shared holders, but not with an exclusive one.
pub async fn try_shared_lock(connection: &mut PgConnection, name: &str) -> Result<bool> {
    let locked = sqlx::query_scalar("SELECT pg_catalog.pg_try_advisory_lock_shared(pg_catalog.hashtextextended($1, 0))")
        .bind(name)
        .fetch_one(connection)
        .await?;
    Ok(locked)
}

/// Releases such a lock while the connection goes on.
pub async fn unlock(connection: &mut PgConnection, name: &str) -> Result<()> {
    let unlock = sqlx::query_scalar::<_, bool>("SELECT pg_catalog.pg_advisory_unlock(pg_catalog.hashtextextended($1, 0))");
    unlock.bind(name).fetch_one(connection).await?;
    Ok(())
}

/// Waits for the lock in shared mode; returns false when another session holds it for so long.
pub async fn wait_for_shared_lock(connection: &mut PgConnection, name: &str, timeout: Duration) -> Result<bool> {
    set(connection, "lock_timeout", &format!("{}ms", timeout.as_millis())).await?;
    let lock = sqlx::query("SELECT pg_catalog.pg_advisory_lock_shared(pg_catalog.hashtextextended($1, 0))").bind(name);
    match lock.execute(connection).await.map_err(anyhow::Error::from) {
        Ok(_) => Ok(true),
        // lock_not_available
        Err(error) if sql_state(&error).as_deref() == Some("55P03") => Ok(false),
        Err(error) => Err(error),
    }
}

/// The holder of a lock; shown as "server process 123 (app, pgtend, from 10.0.0.1, connected since 02:00)".
#[derive(Clone, Debug, sqlx::FromRow)]
pub struct Holder {
    words: String,
    /// The holder's last statement; empty if the role may not see it.
    pub query: String,
}

impl std::fmt::Display for Holder {
    fn fmt(&self, f: &mut std::fmt::Formatter) -> std::fmt::Result {
        f.write_str(&self.words)
    }
}

/// Returns the holder of that lock.
pub async fn lock_holder(connection: &mut PgConnection, name: &str) -> Result<Option<Holder>> {
    let holder = sqlx::query_as(
        concat!(
            "SELECT ",
            session_in_words!(
                "a",
                "format(', from %s, connected since %s', coalesce(a.client_addr::text, 'local'), to_char(a.backend_start, 'YYYY-MM-DD HH24:MI:SSOF'))"
            ),
            " AS words, coalesce(a.query, '') AS query
         FROM pg_locks l JOIN pg_stat_activity a USING (pid)
         WHERE l.locktype = 'advisory' AND l.granted AND l.objsubid = 1
           AND l.database = (SELECT oid FROM pg_database WHERE datname = current_database())
           AND ((l.classid::bigint << 32) | l.objid::bigint) = hashtextextended($1, 0)"
        ),
    )
    .bind(name)
    .fetch_optional(connection)
    .await?;
    Ok(holder)
}

/// Lists the holders of locks on these tables, the oldest transaction first; empty when there are none. A prepared transaction
/// has no process, and holds its locks until a person ends it.
pub async fn lock_holders(connection: &mut PgConnection, tables: &[i64]) -> Result<String> {
    let holders: Vec<String> = sqlx::query_scalar(
        concat!(
            "SELECT who FROM (
             SELECT DISTINCT ON (a.xact_start, a.pid) a.xact_start AS since, ",
            session_in_words!("a", "NULL"),
            " || format(' has %s on %s since %s', l.mode, l.relation::regclass,
                    to_char(a.xact_start AT TIME ZONE 'UTC', 'YYYY-MM-DD HH24:MI:SS') || 'Z') AS who
             FROM pg_locks l JOIN pg_stat_activity a USING (pid)
             WHERE l.locktype = 'relation' AND l.granted AND l.relation::bigint = ANY($1) AND a.pid <> pg_backend_pid()
               AND l.database = (SELECT oid FROM pg_database WHERE datname = current_database())
             ORDER BY a.xact_start, a.pid, l.mode LIMIT 3) session
         UNION ALL
         SELECT who FROM (
             SELECT DISTINCT ON (p.prepared, p.gid) p.prepared AS since, format('prepared transaction %L (%s, since %s) has %s on %s: COMMIT PREPARED or ROLLBACK PREPARED ends it',
                    p.gid, p.owner, to_char(p.prepared AT TIME ZONE 'UTC', 'YYYY-MM-DD HH24:MI:SS') || 'Z', l.mode, l.relation::regclass) AS who
             FROM pg_prepared_xacts p
             -- Its locks have the number that its session had, and '-1/' before its own after a restart.
             JOIN pg_locks x ON x.pid IS NULL AND x.locktype = 'transactionid' AND x.transactionid = p.transaction
             JOIN pg_locks l ON l.virtualtransaction = x.virtualtransaction
             WHERE l.pid IS NULL AND l.locktype = 'relation' AND l.granted AND l.relation::bigint = ANY($1)
               AND l.database = (SELECT oid FROM pg_database WHERE datname = current_database())
             ORDER BY p.prepared, p.gid, l.mode LIMIT 3) prepared"
        ),
    )
    .bind(tables)
    .fetch_all(connection)
    .await?;
    Ok(holders.join("; "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hostile_names_stay_names() {
        assert_eq!(identifier("we\"ird; drop"), "\"we\"\"ird; drop\"");
        assert_eq!(qualified("Ö", "a.b"), "\"Ö\".\"a.b\"");
        assert_eq!(literal("it's \\ x"), "E'it''s \\\\ x'");
    }

    #[test]
    fn a_comment_is_one_line_whatever_is_in_it() {
        assert_eq!(comment("x\nDROP\r\u{85}\u{2028}\u{2029}\x0b\x1b\u{202e}--ü"), "-- x DROP       --ü");
    }
}
