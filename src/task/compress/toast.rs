//! `method = "toast"` rewrites values with another of PostgreSQL's own compression methods. SET COMPRESSION affects only new values;
//! an old value is rewritten by an expression that reads it, such as `value || ''` (`value.rs`), and by nothing less: `SET value = value`, VACUUM FULL and CREATE TABLE AS keep its form.
//!
//! The size of a value in its new form shows only once it is stored. So each is first stored in a temporary table: otherwise every run
//! would rewrite, for nothing, those that do not become smaller (base64, random bytes).

use anyhow::{Context as _, Result};
use sqlx::{PgConnection, Row as _};

use super::decide::Target;
use super::keys::Toast;
use super::sample;
use super::table::Table;
use super::walk::{self, Batch, Change, Done, Selection, Walk};
use crate::base::fault::{Fault, Kind};
use crate::live::governor::{Go, Governor};
use crate::live::session::{Attempt, Session};
use crate::pg;

const TRIAL: &str = "pgtend_trial";

pub async fn change_all(walk: &Walk<'_>, compression: Toast, governor: &mut Governor, done: &mut Done) -> Result<Go> {
    for statement in settings(walk.table, compression) {
        let limits = governor.limits();
        let mut session = walk.run.or_cancelled(Session::open(walk.run, limits.lock_timeout.0, limits.max_wait.0)).await?;
        if let Attempt::Locked(who) = walk.run.or_cancelled(session.transaction(&[statement], &[walk.table.oid])).await? {
            return Err(Fault::new(Kind::Busy, format!("{} is locked: {who}", walk.table.sql())).into());
        }
    }
    let mut connection = walk.run.or_cancelled(walk.connect(governor.limits())).await?;
    let trial = format!(
        "CREATE TEMPORARY TABLE {TRIAL} (place text, body {} COMPRESSION {compression}) ON COMMIT DELETE ROWS",
        walk.table.text_column.data_type
    );
    pg::execute(&mut connection, trial).await.context("cannot create the temporary table in which the new form is tried")?;
    let selection = Selection {
        condition: sample::condition(walk.compress, walk.table, Target::Toast(compression)),
        bytes: walk.table.size(),
        too_large: "false".to_owned(),
    };
    walk.change_all(&mut connection, governor, &selection, done, &Rewrite(compression)).await
}

/// Returns the statements that set the compression of new values in a table.
pub fn settings(table: &Table, compression: Toast) -> Vec<String> {
    let column = &table.text_column;
    settings_of(&table.sql(), &column.name, (&column.compression, &column.storage), compression)
}

/// Returns the statements that set the compression of new values of a column, whose present settings are those of pg_attribute. STORAGE EXTERNAL
/// would leave all values uncompressed.
pub fn settings_of(name: &str, column: &str, (now, storage): (&str, &str), compression: Toast) -> Vec<String> {
    let column = pg::identifier(column);
    let mut statements = Vec::new();
    if form_of(now) != Some(compression) {
        statements.push(format!("ALTER TABLE ONLY {name} ALTER COLUMN {column} SET COMPRESSION {compression}"));
    }
    if !matches!(storage, "x" | "m") {
        statements.push(format!("ALTER TABLE ONLY {name} ALTER COLUMN {column} SET STORAGE EXTENDED"));
    }
    statements
}

/// Returns the compression that is set on a column, by pg_attribute.attcompression; None for the server's default.
pub fn form_of(attcompression: &str) -> Option<Toast> {
    match attcompression {
        "p" => Some(Toast::Pglz),
        "l" => Some(Toast::Lz4),
        _ => None,
    }
}

struct Rewrite(Toast);

impl Change for Rewrite {
    async fn batch(&self, connection: &mut PgConnection, table: &Table, rows: &[walk::Row]) -> Result<Batch> {
        let before = sizes(connection, table, rows).await?;
        let mut result = Batch { changed_meanwhile: (rows.len() - before.len()) as u64, ..Batch::default() };
        let mut chosen = smaller(connection, table, &before).await?;
        result.not_smaller = (before.len() - chosen.len()) as u64;
        // If a value becomes larger anyway, because it was changed since, the batch is repeated without it.
        for _ in 0..2 {
            if chosen.is_empty() {
                return Ok(result);
            }
            walk::begin(connection, table).await?;
            let after = write(connection, table, self.0, &chosen).await?;
            let larger: Vec<&str> =
                after.iter().filter(|after| after.stored >= after.before).map(|after| after.ctid.as_str()).collect();
            if larger.is_empty() {
                pg::execute(connection, "COMMIT".to_owned()).await.context("cannot commit a batch")?;
                result.changed_meanwhile += (chosen.len() - after.len()) as u64;
                result.rows = after.len() as u64;
                result.before_bytes = after.iter().map(|row| row.before).sum();
                result.dead_bytes += result.before_bytes;
                result.after_bytes = after.iter().map(|row| row.stored).sum();
                result.raw_bytes = after.iter().map(|row| row.raw).sum();
                return Ok(result);
            }
            pg::execute(connection, "ROLLBACK".to_owned()).await?;
            result.dead_bytes += after.iter().map(|row| row.stored).sum::<u64>();
            result.not_smaller += larger.len() as u64;
            chosen.retain(|row| !larger.contains(&row.ctid.as_str()));
        }
        // The second time, another row became larger, so it was changed. The next run looks at all of them again.
        result.changed_meanwhile += chosen.len() as u64;
        Ok(result)
    }
}

/// Returns the values that would become smaller. They are tried in a temporary table: no WAL, no replication, no dead rows.
async fn smaller<'a>(connection: &mut PgConnection, table: &Table, before: &'a [Before]) -> Result<Vec<&'a Before>> {
    pg::execute(connection, "BEGIN ISOLATION LEVEL READ COMMITTED".to_owned()).await?;
    let sql = format!(
        "INSERT INTO pg_temp.{TRIAL} SELECT ctid::text, {} FROM ONLY {} WHERE ctid = ANY ($1::text[]::tid[])",
        table.anew(&table.content()),
        table.sql()
    );
    let ctids: Vec<&str> = before.iter().map(|row| row.ctid.as_str()).collect();
    pg::query(sql).bind(ctids).execute(&mut *connection).await.map_err(pg::in_its_own_words)?;
    let sql = format!("SELECT place, pg_column_size(body)::bigint FROM pg_temp.{TRIAL}");
    let tried = pg::query(sql).fetch_all(&mut *connection).await.map_err(pg::in_its_own_words)?;
    pg::execute(connection, "COMMIT".to_owned()).await?;
    let mut smaller = Vec::new();
    for row in tried {
        let (place, bytes): (String, Option<i64>) = (row.try_get(0)?, row.try_get(1)?);
        smaller.extend(before.iter().find(|row| row.ctid == place && bytes.is_some_and(|bytes| (bytes as u64) < row.stored)));
    }
    Ok(smaller)
}

struct Before {
    ctid: String,
    xmin: String,
    stored: u64,
    raw: u64,
    hash: Vec<u8>,
    fingerprint: String,
}

struct After {
    /// The row's place before.
    ctid: String,
    before: u64,
    stored: u64,
    raw: u64,
}

async fn sizes(connection: &mut PgConnection, table: &Table, rows: &[walk::Row]) -> Result<Vec<Before>> {
    let (ctids, _) = walk::places(rows);
    let sql = format!(
        "SELECT ctid::text, xmin::text, pg_column_size({content})::bigint, octet_length({bytes})::bigint, pg_catalog.sha256({bytes}), {fingerprint}
         FROM ONLY {table} t WHERE ctid = ANY ($1::text[]::tid[]) AND {content} IS NOT NULL",
        content = table.content(),
        bytes = table.bytes_of_value(&table.content()),
        fingerprint = table.fingerprint("t"),
        table = table.sql()
    );
    let found = pg::query(sql).bind(ctids).fetch_all(connection).await.map_err(pg::in_its_own_words)?;
    let mut before = Vec::new();
    for row in found {
        let (ctid, xmin): (String, String) = (row.try_get(0)?, row.try_get(1)?);
        if rows.iter().any(|seen| seen.ctid == ctid && seen.xmin == xmin) {
            let (stored, raw) = (row.try_get::<i64, _>(2)? as u64, row.try_get::<i64, _>(3)? as u64);
            before.push(Before { ctid, xmin, stored, raw, hash: row.try_get(4)?, fingerprint: row.try_get(5)? });
        }
    }
    Ok(before)
}

async fn write(connection: &mut PgConnection, table: &Table, compression: Toast, rows: &[&Before]) -> Result<Vec<After>> {
    let content = table.content();
    let sql = format!(
        "UPDATE ONLY {table} t SET {content} = {anew}
         FROM unnest($1::text[], $2::text[]) AS d (ctid, xmin)
         WHERE t.ctid = ANY (ARRAY(SELECT ctid FROM ONLY {table} WHERE ctid = ANY ($1::text[]::tid[]) FOR NO KEY UPDATE SKIP LOCKED))
           AND t.ctid = d.ctid::tid AND t.xmin = d.xmin::xid AND pg_column_compression(t.{content}) IS DISTINCT FROM '{compression}'
         RETURNING t.ctid::text, d.ctid",
        anew = table.anew(&format!("t.{content}")),
        table = table.sql(),
    );
    let rows_written = pg::query(sql)
        .bind(rows.iter().map(|row| row.ctid.clone()).collect::<Vec<_>>())
        .bind(rows.iter().map(|row| row.xmin.clone()).collect::<Vec<_>>())
        .fetch_all(&mut *connection)
        .await
        .map_err(pg::in_its_own_words)?;
    let moved = walk::Moved::of(&rows_written)?;
    // The size is known only of a stored value.
    let sql = format!(
        "SELECT ctid::text, pg_column_size({content})::bigint, pg_catalog.sha256({bytes}), {fingerprint}
         FROM ONLY {table} t WHERE ctid = ANY ($1::text[]::tid[])",
        bytes = table.bytes_of_value(&content),
        fingerprint = table.fingerprint("t"),
        table = table.sql(),
    );
    let mut after = Vec::new();
    for row in moved.read_again(connection, table, sql).await? {
        let (place, stored): (String, Option<i64>) = (row.try_get(0)?, row.try_get(1)?);
        let from = moved.from(&place)?;
        let before = rows.iter().find(|before| before.ctid == from).context("the server changed a row that was not named")?;
        anyhow::ensure!(
            row.try_get::<Option<Vec<u8>>, _>(2)?.as_ref() == Some(&before.hash)
                && row.try_get::<String, _>(3)? == before.fingerprint,
            "a trigger of {} changes rows whose value is rewritten: nothing was changed; give it a WHEN condition, or disable it while \
             the job runs",
            table.sql()
        );
        let stored = stored.context("a value has a size")? as u64;
        after.push(After { ctid: before.ctid.clone(), before: before.stored, stored, raw: before.raw });
    }
    Ok(after)
}
