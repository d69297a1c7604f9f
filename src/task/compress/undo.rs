//! Back to plain text, row by row with the same guarantees, and then the table takes its name back.

use std::fmt;

use anyhow::{Context as _, Result};
use serde::Serialize;
use sha2::{Digest as _, Sha256};
use sqlx::{PgConnection, Row as _};

use super::install::{self, FUNCTIONS, GUARD, PLAIN};
use super::table::{CONSTRAINT, Table, View, companion};
use super::walk::{self, Act, Batch, Done, Wanted, Work};
use super::{Compress, gzip};
use crate::fault::{Fault, Kind};
use crate::governor::{Go, Governor};
use crate::pg::{self, identifier, literal, qualified};
use crate::task::RunContext;
use crate::task::partition::session::{Attempt, Session};
use crate::units;

/// Rows that somebody holds are tried again in the next pass.
const PASSES: u32 = 20;

#[derive(Debug, Serialize)]
pub struct Undoing {
    pub table: Table,
    pub compressed_rows: i64,
    pub compressed_bytes: i64,
    pub keep_view: bool,
    /// Before them, while reads and writes go on.
    pub check: Vec<String>,
    /// All in one transaction, under ACCESS EXCLUSIVE.
    pub statements: Vec<String>,
}

impl fmt::Display for Undoing {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        let (rows, bytes) = (units::count(self.compressed_rows as u64), units::bytes(self.compressed_bytes as u64));
        writeln!(f, "{rows} bodies of {}, {bytes} compressed, become text again in batches", self.table.view_sql())?;
        if self.keep_view {
            return writeln!(f, "The view stays.");
        }
        writeln!(f, "Then, while reads and writes go on:")?;
        self.check.iter().try_for_each(|statement| writeln!(f, "  {statement}"))?;
        writeln!(f, "Then in one transaction, under ACCESS EXCLUSIVE, for a moment:")?;
        self.statements.iter().try_for_each(|statement| writeln!(f, "  {}", statement.lines().next().unwrap_or_default()))
    }
}

pub async fn plan(compress: &Compress, connection: &mut PgConnection, keep_view: bool) -> Result<Undoing> {
    let table = super::find(compress, connection).await?;
    let Some(view) = &table.view else {
        let message = format!("{} is no view of pgtend: there is nothing to undo", compress.table);
        return Err(Fault::new(Kind::Configuration, message).into());
    };
    let sql = format!(
        "SELECT count(*), coalesce(sum(octet_length({0})), 0)::bigint FROM ONLY {1} WHERE {0} IS NOT NULL",
        table.gz(),
        table.sql()
    );
    let row = pg::query(sql).fetch_one(&mut *connection).await.map_err(pg::in_its_own_words)?;
    let (compressed_rows, compressed_bytes) = (row.try_get(0)?, row.try_get(1)?);
    let dependents = install::views_on(connection, view.oid).await?;
    let (check, statements) = uninstall(&table, view, dependents);
    Ok(Undoing { compressed_rows, compressed_bytes, keep_view, check, statements, table })
}

fn uninstall(table: &Table, installed: &View, dependents: Vec<String>) -> (Vec<String>, Vec<String>) {
    let (stored, view, content, gz, hash) = (table.sql(), table.view_sql(), table.content(), table.gz(), table.hash());
    let name = table.public_name();
    let old_view = companion(name, "_pgtend_old");
    let and_text = if installed.not_null { format!(" AND {content} IS NOT NULL") } else { String::new() };
    let check = vec![
        format!("ALTER TABLE ONLY {stored} DROP CONSTRAINT IF EXISTS {PLAIN}"),
        format!("ALTER TABLE ONLY {stored} ADD CONSTRAINT {PLAIN} CHECK ({gz} IS NULL AND {hash} IS NULL{and_text}) NOT VALID"),
        format!("ALTER TABLE {stored} VALIDATE CONSTRAINT {PLAIN}"),
    ];
    let mut statements = vec![
        // The view, and the table behind it, in the order of its readers.
        format!("LOCK TABLE {view} IN ACCESS EXCLUSIVE MODE"),
        format!("SET LOCAL ROLE {}", identifier(&table.owner)),
        format!("ALTER VIEW {view} RENAME TO {}", identifier(&old_view)),
        format!("DROP TRIGGER IF EXISTS {GUARD} ON {stored}"),
    ];
    // Without a look at the rows: the validated CHECK says it.
    match &installed.not_null_name {
        Some(constraint) => {
            statements.push(format!("ALTER TABLE ONLY {stored} ADD CONSTRAINT {} NOT NULL {content}", identifier(constraint)))
        }
        None if installed.not_null => statements.push(format!("ALTER TABLE ONLY {stored} ALTER COLUMN {content} SET NOT NULL")),
        None => {}
    }
    statements.push(format!("ALTER TABLE ONLY {stored} DROP CONSTRAINT {PLAIN}, DROP CONSTRAINT {CONSTRAINT}"));
    statements.push(format!("ALTER TABLE ONLY {stored} RENAME TO {}", identifier(name)));
    statements.push("RESET ROLE".to_owned());
    statements.extend(dependents);
    statements.push(format!("SET LOCAL ROLE {}", identifier(&table.owner)));
    statements.push(format!("DROP VIEW {}", qualified(&table.schema, &old_view)));
    let arguments = |what| match what {
        "huffman" => "int[]",
        "inflate" => "bytea",
        "gunzip" => "bytea, bytea, text",
        _ => "",
    };
    statements.extend(FUNCTIONS.map(|what| format!("DROP FUNCTION IF EXISTS {}({})", table.function(what), arguments(what))));
    statements.push(format!("ALTER TABLE ONLY {view} DROP COLUMN {gz}, DROP COLUMN {hash}"));
    (check, statements)
}

/// Returns what was done, and whether it went to its end.
pub async fn apply(compress: &Compress, run: &RunContext<'_>, undoing: &Undoing) -> Result<(Done, Go)> {
    let table = &undoing.table;
    let mut governor = run.or_cancelled(Governor::start(run, &run.job.limits, Some(table.oid))).await?;
    let phase = run.progress.phase("undo", Some(undoing.compressed_bytes as u64));
    let mut done = Done::default();
    let work = Work { compress, table, run, phase: &phase };
    let mut connection = run.or_cancelled(work.connect(governor.limits())).await?;
    let wanted = Wanted {
        condition: format!("{} IS NOT NULL", table.gz()),
        // As text it is several times as large.
        bytes: format!("octet_length({}) * 8", table.gz()),
        too_large: "false".to_owned(),
    };
    let left = format!("SELECT 'some' FROM ONLY {} WHERE {} IS NOT NULL LIMIT 1", table.sql(), table.gz());
    let mut passes = 0;
    while pg::fetch_text(&mut connection, left.clone()).await?.is_some() {
        passes += 1;
        anyhow::ensure!(
            passes <= PASSES,
            "some rows of {} are always locked or changed by somebody: try again later",
            table.sql()
        );
        if let Go::Stop(reason) = work.all(&mut connection, &mut governor, &wanted, &mut done, Act::Undo).await? {
            return Ok((done, Go::Stop(reason)));
        }
    }
    phase.done(&units::plural(done.rows as usize, "row"));
    if undoing.keep_view {
        return Ok((done, Go::On));
    }
    let limits = &run.job.limits;
    let mut session = run.or_cancelled(Session::open(&run.settings, limits.lock_timeout.0, limits.max_wait.0)).await?;
    let (validate, check) = undoing.check.split_last().context("there is a check")?;
    locked(run.or_cancelled(session.transaction(check, &[table.oid])).await?, table)?;
    run.or_cancelled(install::long(&mut session, validate)).await?;
    locked(run.or_cancelled(session.transaction(&undoing.statements, &[table.oid])).await?, table)?;
    Ok((done, Go::On))
}

fn locked(attempt: Attempt<Vec<u64>>, table: &Table) -> Result<()> {
    match attempt {
        Attempt::Done(_) => Ok(()),
        Attempt::Locked(who) => {
            let message =
                format!("{} is locked: {who}; its text is plain, and the view still there: try again", table.view_sql());
            Err(Fault::new(Kind::Busy, message).into())
        }
    }
}

struct Body {
    ctid: String,
    xmin: String,
    stored: u64,
    fingerprint: String,
    hash: Vec<u8>,
    text: Vec<u8>,
}

pub async fn batch(connection: &mut PgConnection, table: &Table, rows: &[walk::Row]) -> Result<Batch> {
    let (content, gz, hash, name) = (table.content(), table.gz(), table.hash(), table.sql());
    let (ctids, _) = walk::places(rows);
    let sql = format!(
        "SELECT ctid::text, xmin::text, {gz}, {hash}, {} FROM ONLY {name} t WHERE ctid = ANY ($1::text[]::tid[]) AND {gz} IS NOT NULL",
        table.fingerprint("t")
    );
    let found = pg::query(sql).bind(ctids).fetch_all(&mut *connection).await.map_err(pg::in_its_own_words)?;
    let bodies = tokio::task::block_in_place(|| {
        let mut bodies = Vec::new();
        for row in found {
            let (ctid, xmin): (String, String) = (row.try_get(0)?, row.try_get(1)?);
            let Some(seen) = rows.iter().find(|seen| seen.ctid == ctid && seen.xmin == xmin) else { continue };
            let (packed, hash): (&[u8], Vec<u8>) = (row.try_get(2)?, row.try_get(3)?);
            let text = gzip::unpack(packed).with_context(|| damaged(table, seen))?;
            anyhow::ensure!(Sha256::digest(&text)[..] == hash, "{}: its hash is another one", damaged(table, seen));
            bodies.push(Body {
                ctid,
                xmin,
                stored: (packed.len() + hash.len()) as u64,
                fingerprint: row.try_get(4)?,
                hash,
                text,
            });
        }
        anyhow::Ok(bodies)
    })?;
    let mut result = Batch::default();
    if !bodies.is_empty() {
        let sql = format!(
            "UPDATE ONLY {name} t SET {content} = pg_catalog.convert_from(d.text, {encoding}), {gz} = NULL, {hash} = NULL
             FROM unnest($1::text[], $2::text[], $3::bytea[], $4::bytea[]) AS d (ctid, xmin, text, hash)
             WHERE t.ctid = ANY (ARRAY(SELECT ctid FROM ONLY {name} WHERE ctid = ANY ($1::text[]::tid[]) FOR NO KEY UPDATE SKIP LOCKED))
               AND t.ctid = d.ctid::tid AND t.xmin = d.xmin::xid AND t.{content} IS NULL AND t.{hash} = d.hash
             RETURNING d.ctid, pg_catalog.sha256({bytes}), t.{gz} IS NULL, {fingerprint}",
            encoding = literal(&table.encoding),
            bytes = table.bytes_of(&format!("t.{content}")),
            fingerprint = table.fingerprint("t"),
        );
        pg::execute(connection, "BEGIN ISOLATION LEVEL READ COMMITTED".to_owned()).await?;
        let written = pg::query(sql)
            .bind(bodies.iter().map(|body| body.ctid.clone()).collect::<Vec<_>>())
            .bind(bodies.iter().map(|body| body.xmin.clone()).collect::<Vec<_>>())
            .bind(bodies.iter().map(|body| body.text.clone()).collect::<Vec<_>>())
            .bind(bodies.iter().map(|body| body.hash.clone()).collect::<Vec<_>>())
            .fetch_all(&mut *connection)
            .await
            .map_err(pg::in_its_own_words)?;
        for row in written {
            let ctid: String = row.try_get(0)?;
            let body = bodies.iter().find(|body| body.ctid == ctid).context("the server changed a row that was not named")?;
            anyhow::ensure!(
                row.try_get::<Option<Vec<u8>>, _>(1)?.as_ref() == Some(&body.hash)
                    && row.try_get::<bool, _>(2)?
                    && row.try_get::<String, _>(3)? == body.fingerprint,
                "a trigger of {name} changes rows whose body becomes text again: nothing was changed; disable it for this"
            );
            result.rows += 1;
            result.before_bytes += body.stored;
            result.raw_bytes += body.text.len() as u64;
            result.after_bytes += body.text.len() as u64;
        }
        pg::execute(connection, "COMMIT".to_owned()).await.context("cannot commit a batch")?;
    }
    result.changed_meanwhile = rows.len() as u64 - result.rows;
    Ok(result)
}

fn damaged(table: &Table, row: &walk::Row) -> String {
    let columns = table.key.as_ref().map(|key| key.columns.join(", ")).unwrap_or_default();
    format!("the compressed body of {} where ({columns}) = ({}) is damaged, and stays as it is", table.sql(), row.key.join(", "))
}
