//! Back to plain text, row by row with the same guarantees, and then the table takes its name back.

use std::fmt;

use anyhow::{Context as _, Result};
use serde::Serialize;
use sha2::{Digest as _, Sha256};
use sqlx::{PgConnection, Row as _};

use super::keys::Compress;
use super::names::{CONSTRAINT, FUNCTIONS, GUARDS, PLAIN};
use super::plan::lost;
use super::table::{Table, View, companion};
use super::walk::{self, Act, Batch, Done, Wanted, Work};
use super::{definition, install, pack, snapshots, table};
use crate::base::fault::{Fault, Kind};
use crate::base::progress::Phase;
use crate::base::units;
use crate::ledger::report::{Report, Unfinished};
use crate::live::governor::{Go, Governor};
use crate::live::session::{Attempt, Session};
use crate::pg::{self, identifier, literal, qualified};
use crate::work::RunContext;

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
    /// Privileges that were taken from the view, and that the table still gives: nobody but its owner knows what was meant.
    pub wider: Vec<String>,
}

impl fmt::Display for Undoing {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        let (bodies, bytes) = (units::plural(self.compressed_rows, "body"), units::bytes(self.compressed_bytes as u64));
        writeln!(f, "To become text again, in batches: {bodies} of {}, {bytes} compressed", self.table.view_sql())?;
        if self.keep_view {
            return writeln!(f, "The view stays.");
        }
        writeln!(f, "Then, while reads and writes go on:")?;
        self.check.iter().try_for_each(|statement| writeln!(f, "  {statement}"))?;
        writeln!(
            f,
            "Then, once no transaction is left that may look at the rows as they were, in one under ACCESS EXCLUSIVE, for a moment:"
        )?;
        self.statements.iter().try_for_each(|statement| writeln!(f, "  {}", statement.lines().next().unwrap_or_default()))?;
        self.wider.iter().try_for_each(|remark| writeln!(f, "Look at it: {remark}"))
    }
}

pub async fn plan(compress: &Compress, job: &str, connection: &mut PgConnection, keep_view: bool) -> Result<Undoing> {
    let table = table::find(compress, connection).await?;
    let Some(view) = &table.view else {
        let message = format!("{} is no view of pgtend: there is nothing to undo", compress.table);
        return Err(Fault::new(Kind::Configuration, message).into());
    };
    if view.is_lost {
        return Err(Fault::new(Kind::Configuration, lost(&compress.table, job)).into());
    }
    // Before all that is read of it below.
    let definition = definition::of(connection, view.oid).await?;
    let sql = format!(
        "SELECT count(*), coalesce(sum(octet_length({0})), 0)::bigint FROM ONLY {1} WHERE {0} IS NOT NULL",
        table.gz(),
        table.sql()
    );
    let row = pg::query(sql).fetch_one(&mut *connection).await.map_err(pg::in_its_own_words)?;
    let (compressed_rows, compressed_bytes) = (row.try_get(0)?, row.try_get(1)?);
    if !keep_view {
        may_uninstall(connection, &table).await?;
    }
    let in_the_way = if keep_view { Vec::new() } else { bound_to(connection, view.oid).await? };
    let on_columns = if keep_view { Vec::new() } else { bound_to_columns(connection, &table, view.oid).await? };
    if !on_columns.is_empty() {
        let message = format!(
            "{} and {} of {} cannot go: {}. Change or drop that first; --keep-view makes all bodies text, and leaves view and columns",
            table.gz(),
            table.hash(),
            table.sql(),
            on_columns.join(", ")
        );
        return Err(Fault::new(Kind::Configuration, message).into());
    }
    if !in_the_way.is_empty() {
        let message = format!(
            "{} cannot give way to the table again: {} depends on it. Drop that first, and make it anew afterwards; --keep-view makes all bodies text, \
             and leaves the view",
            table.view_sql(),
            in_the_way.join(", ")
        );
        return Err(Fault::new(Kind::Configuration, message).into());
    }
    let dependents = install::views_on(connection, view.oid).await?;
    let wider = if keep_view { Vec::new() } else { wider(connection, &table, view.oid).await? };
    let (check, mut statements) = uninstall(&table, view, dependents, later_grants(connection, &table, view.oid).await?);
    // Right after the lock, under which none of them changes.
    statements.insert(1, definition::unchanged(view.oid, &definition));
    Ok(Undoing { compressed_rows, compressed_bytes, keep_view, check, statements, wider, table })
}

fn uninstall(table: &Table, installed: &View, dependents: Vec<String>, grants: Vec<String>) -> (Vec<String>, Vec<String>) {
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
    ];
    statements.extend(GUARDS.map(|guard| format!("DROP TRIGGER IF EXISTS {guard} ON {stored}")));
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
    statements.extend(grants);
    statements.push("RESET ROLE".to_owned());
    statements.extend(dependents);
    statements.push(format!("SET LOCAL ROLE {}", identifier(&table.owner)));
    statements.push(format!("DROP VIEW {}", qualified(&table.schema, &old_view)));
    let arguments = |what| match what {
        "huffman" => "int[]",
        "inflate" => "bytea",
        "gunzip" => "bytea, bytea, text",
        "own" => "xid",
        _ => "",
    };
    statements.extend(FUNCTIONS.map(|what| format!("DROP FUNCTION IF EXISTS {}({})", table.function(what), arguments(what))));
    statements.push(format!("ALTER TABLE ONLY {view} DROP COLUMN {gz}, DROP COLUMN {hash}"));
    (check, statements)
}

/// What depends on the view by more than its name, and is no view.
async fn bound_to(connection: &mut PgConnection, view: i64) -> Result<Vec<String>> {
    Ok(sqlx::query_scalar(
        "SELECT DISTINCT CASE WHEN v.oid IS NULL THEN pg_describe_object(d.classid, d.objid, 0) ELSE pg_describe_object('pg_class'::regclass, v.oid, 0) END
         FROM pg_depend d LEFT JOIN pg_rewrite r ON d.classid = 'pg_rewrite'::regclass AND r.oid = d.objid LEFT JOIN pg_class v ON v.oid = r.ev_class
         WHERE d.deptype = 'n' AND v.oid IS DISTINCT FROM $1::bigint::oid
           AND (d.refclassid = 'pg_class'::regclass AND d.refobjid = $1::bigint::oid AND v.relkind IS DISTINCT FROM 'v'
             OR d.refclassid = 'pg_type'::regclass AND d.refobjid IN (
                 SELECT reltype FROM pg_class WHERE oid = $1::bigint::oid UNION SELECT typarray FROM pg_type WHERE typrelid = $1::bigint::oid))
         ORDER BY 1",
    )
    .bind(view)
    .fetch_all(connection)
    .await?)
}

/// Only its owner gives the table its name back: found out before hours of work.
async fn may_uninstall(connection: &mut PgConnection, table: &Table) -> Result<()> {
    let may: bool = sqlx::query_scalar("SELECT pg_has_role($1::name, 'USAGE')").bind(&table.owner).fetch_one(connection).await?;
    if may {
        return Ok(());
    }
    let (owner, name) = (identifier(&table.owner), table.sql());
    let message = format!(
        "only the owner of {name} may give it its name back: GRANT {owner} TO the role; --keep-view needs no more than UPDATE"
    );
    Err(Fault::new(Kind::Permission, message).into())
}

/// What needs the companion columns and is not ours: by PostgreSQL's own book, and what functions of triggers say.
async fn bound_to_columns(connection: &mut PgConnection, table: &Table, view: i64) -> Result<Vec<String>> {
    let names = ["_gz", "_sha256"].map(|ending| companion(&table.body.name, ending)).to_vec();
    Ok(sqlx::query_scalar(
        "SELECT DISTINCT CASE WHEN v.oid IS NULL THEN pg_describe_object(d.classid, d.objid, d.objsubid) ELSE pg_describe_object('pg_class'::regclass, v.oid, 0) END || ' needs ' || quote_ident(a.attname)
         FROM pg_depend d JOIN pg_attribute a ON a.attrelid = d.refobjid AND a.attnum = d.refobjsubid
         LEFT JOIN pg_rewrite r ON d.classid = 'pg_rewrite'::regclass AND r.oid = d.objid LEFT JOIN pg_class v ON v.oid = r.ev_class
         LEFT JOIN pg_trigger t ON d.classid = 'pg_trigger'::regclass AND t.oid = d.objid
         LEFT JOIN pg_constraint k ON d.classid = 'pg_constraint'::regclass AND k.oid = d.objid
         WHERE d.refclassid = 'pg_class'::regclass AND d.refobjid = $1::bigint::oid AND a.attname = ANY ($3::text[])
           AND d.classid IN ('pg_rewrite'::regclass, 'pg_trigger'::regclass, 'pg_constraint'::regclass, 'pg_class'::regclass, 'pg_policy'::regclass, 'pg_proc'::regclass, 'pg_attrdef'::regclass)
           AND v.oid IS DISTINCT FROM $2::bigint::oid AND (t.tgname IS NULL OR t.tgname <> ALL ($4::text[])) AND (k.conname IS NULL OR k.conname <> ALL ($5::text[]))
           AND NOT (d.classid = 'pg_class'::regclass AND d.objid = $1::bigint::oid AND d.objsubid = 0)
         UNION
         SELECT format('the function of trigger %I, %s, names %I', t.tgname, p.oid::regprocedure, name)
         FROM pg_trigger t JOIN pg_proc p ON p.oid = t.tgfoid, unnest($3::text[]) name
         WHERE t.tgrelid = $1::bigint::oid AND NOT t.tgisinternal AND t.tgname <> ALL ($4::text[]) AND strpos(p.prosrc, name) > 0
         ORDER BY 1",
    )
    .bind(table.oid)
    .bind(view)
    .bind(names)
    .bind(GUARDS.map(str::to_owned).to_vec())
    .bind(vec![CONSTRAINT, PLAIN])
    .fetch_all(connection)
    .await?)
}

/// Privileges that were given on the view since, and that the table has not: its readers keep them.
async fn later_grants(connection: &mut PgConnection, table: &Table, view: i64) -> Result<Vec<String>> {
    let name = table.view_sql();
    Ok(privileges_beyond(connection, view, table.oid)
        .await?
        .into_iter()
        .map(|(role, privilege, grantable)| {
            let option = if grantable && role != "PUBLIC" { " WITH GRANT OPTION" } else { "" };
            format!("GRANT {privilege} ON TABLE {name} TO {role}{option}")
        })
        .collect())
}

/// Privileges that the table gives under its other name, and the view does not.
async fn wider(connection: &mut PgConnection, table: &Table, view: i64) -> Result<Vec<String>> {
    let name = table.view_sql();
    let remark = |(role, privilege, _): (String, String, bool)| {
        format!(
            "{role} has {privilege} on {}, which is {name} afterwards, and not on the view; if it was revoked there: REVOKE {privilege} ON TABLE {name} FROM {role}",
            table.sql()
        )
    };
    // What a view has no use for, it never had.
    let found = privileges_beyond(connection, table.oid, view).await?.into_iter();
    Ok(found
        .filter(|(_, privilege, _)| ["SELECT", "INSERT", "UPDATE", "DELETE"].contains(&privilege.as_str()))
        .map(remark)
        .collect())
}

/// What one relation gives to roles other than its owner, and the other does not: role, quoted; privilege; with GRANT OPTION.
async fn privileges_beyond(connection: &mut PgConnection, one: i64, other: i64) -> Result<Vec<(String, String, bool)>> {
    Ok(sqlx::query_as(
        "SELECT coalesce(quote_ident(rolname), 'PUBLIC'), privilege_type, bool_or(is_grantable)
         FROM pg_class v, aclexplode(v.relacl) given LEFT JOIN pg_roles r ON r.oid = given.grantee
         WHERE v.oid = $1::bigint::oid AND given.grantee <> v.relowner AND (given.grantee = 0 OR rolname IS NOT NULL) AND NOT EXISTS (
             SELECT FROM pg_class t, aclexplode(t.relacl) had
             WHERE t.oid = $2::bigint::oid AND had.grantee = given.grantee AND had.privilege_type = given.privilege_type)
         GROUP BY 1, 2 ORDER BY 1, 2",
    )
    .bind(one)
    .bind(other)
    .fetch_all(connection)
    .await?)
}

/// Returns what was done, and whether it went to its end.
pub async fn apply(compress: &Compress, run: &RunContext<'_>, undoing: &Undoing, report: &mut Report) -> Result<(Done, Go)> {
    let table = &undoing.table;
    let mut governor = run.or_cancelled(Governor::start(run, run.job.limits, Some(table.oid))).await?;
    let phase = run.progress.phase("undo", Some(undoing.compressed_bytes as u64));
    let mut done = Done::default();
    let work = Work { compress, table, run, phase: &phase };
    let mut connection = run.or_cancelled(work.connect(governor.limits())).await?;
    let wanted = Wanted {
        condition: format!("{} IS NOT NULL", table.gz()),
        // As text, by the last four bytes of gzip.
        bytes: format!(
            "CASE WHEN octet_length({0}) < 18 THEN 0 ELSE {1} END",
            table.gz(),
            (0..4)
                .map(|byte| format!(
                    "get_byte(substring({0} FROM octet_length({0}) - {1}), 0) * {2}::bigint",
                    table.gz(),
                    3 - byte,
                    1_u64 << (8 * byte)
                ))
                .collect::<Vec<_>>()
                .join(" + ")
        ),
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
        let changed = done.changed_meanwhile;
        (done.damaged, done.damaged_named) = (0, Vec::new());
        if let Go::Stop(reason) = work.all(&mut connection, &mut governor, &wanted, &mut done, &Undone).await? {
            governor.report(report);
            return Ok((done, Go::Stop(reason)));
        }
        // All others were got: these would be left for good.
        if done.damaged > 0 && done.changed_meanwhile == changed {
            governor.report(report);
            return Err(damaged_ones(table, &done, report));
        }
    }
    governor.report(report);
    phase.done(&units::plural(done.rows as usize, "row"));
    if undoing.keep_view {
        return Ok((done, Go::On));
    }
    // It took a while: views that somebody changed meanwhile stay as they are now.
    // On a new connection: in this one the name in the job is looked for nowhere.
    let mut fresh = run.or_cancelled(run.settings.connect()).await?;
    let undoing = &run.or_cancelled(plan(compress, run.job.name, &mut fresh, false)).await?;
    let limits = &run.job.limits;
    let mut session = run.or_cancelled(Session::open(run, limits.lock_timeout.0, limits.max_wait.0)).await?;
    run.or_cancelled(table::prepare(&mut session.connection)).await?;
    let phase = run.progress.phase("uninstall", None);
    let uninstalled = run.or_cancelled(uninstalled(run, &mut session, undoing, &phase)).await;
    run.stop_if_cancelled(session.pid).await;
    uninstalled?;
    done.lock_waits += session.lock_waits;
    Ok((done, Go::On))
}

/// Nobody sees the table half undone.
async fn uninstalled(run: &RunContext<'_>, session: &mut Session, undoing: &Undoing, phase: &Phase) -> Result<()> {
    let table = &undoing.table;
    let (validate, check) = undoing.check.split_last().context("there is a check")?;
    locked(session.transaction(check, &[table.oid]).await?, table)?;
    // From here on no row has a compressed form, nor gets one.
    let horizon = snapshots::horizon(&mut session.connection).await?;
    locked(install::long(session, validate, &table.checked()).await?, table)?;
    let give_up_after = session.give_up_after;
    if let Some(waited) = snapshots::wait_for_old_snapshots(run, &mut session.connection, &horizon, give_up_after, phase).await? {
        let message = format!(
            "all text of {0} is plain; the view stays for now, as without it a transaction that began before would read NULL in place of \
             text: {waited}. End it, or let it end, and run undo again",
            table.view_sql()
        );
        return Err(Fault::new(Kind::Busy, message).into());
    }
    locked(session.transaction(&undoing.statements, &[table.oid]).await?, table)?;
    phase.done("the table has its name back");
    Ok(())
}

/// All others are text again; with these, the table cannot be plain.
fn damaged_ones(table: &Table, done: &Done, report: &mut Report) -> anyhow::Error {
    let more = done.damaged - done.damaged_named.len() as u64;
    let more = if more > 0 { format!("; and {} more", units::count(more)) } else { String::new() };
    report.fact("rows", done.rows);
    report.fact("bytes", done.raw_bytes);
    report.fact("rows_damaged", done.damaged);
    report.fact("view_stays", true);
    let message = format!(
        "Text again: {}; and {} cannot become text and stay as they are, behind the view: {}{more}. Write their text from a backup \
         (UPDATE {} SET {} = …), or delete them, and run undo again",
        units::plural(done.rows, "body"),
        units::count(done.damaged),
        done.damaged_named.join("; "),
        table.sql(),
        table.content()
    );
    Unfinished::error(None, message, std::mem::take(report))
}

fn locked<T>(attempt: Attempt<T>, table: &Table) -> Result<()> {
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
    /// By its key, for people.
    place: String,
    ctid: String,
    xmin: String,
    stored: u64,
    fingerprint: String,
    hash: Vec<u8>,
    text: Vec<u8>,
}

struct Undone;

impl Act for Undone {
    async fn batch(&self, connection: &mut PgConnection, table: &Table, rows: &[walk::Row]) -> Result<Batch> {
        let (gz, hash, name) = (table.gz(), table.hash(), table.sql());
        let (ctids, _) = walk::places(rows);
        let sql = format!(
            "SELECT ctid::text, xmin::text, {gz}, {hash}, {} FROM ONLY {name} t WHERE ctid = ANY ($1::text[]::tid[]) AND {gz} IS NOT NULL",
            table.fingerprint("t")
        );
        let found = pg::query(sql).bind(ctids).fetch_all(&mut *connection).await.map_err(pg::in_its_own_words)?;
        let mut result = Batch::default();
        let bodies = tokio::task::block_in_place(|| {
            let mut bodies = Vec::new();
            for row in found {
                let (ctid, xmin): (String, String) = (row.try_get(0)?, row.try_get(1)?);
                let Some(seen) = rows.iter().find(|seen| seen.ctid == ctid && seen.xmin == xmin) else { continue };
                let (packed, hash): (&[u8], Option<Vec<u8>>) = (row.try_get(2)?, row.try_get(3)?);
                let place = place_of(table, seen);
                let text = match pack::unpack(packed) {
                    Ok(text) if hash.as_deref() == Some(&Sha256::digest(&text)[..]) => text,
                    Ok(_) => {
                        result.damaged.push(format!("{place}: its hash is another one"));
                        continue;
                    }
                    Err(error) => {
                        result.damaged.push(format!("{place}: {error:#}"));
                        continue;
                    }
                };
                let hash = hash.unwrap_or_default();
                bodies.push(Body {
                    place,
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
        if let Err(error) = write(connection, table, &bodies, &mut result).await {
            if !is_unwritable(&error) {
                return Err(error);
            }
            // In a database of another encoding, perhaps; and only some of them.
            for body in &bodies {
                pg::execute(connection, "ROLLBACK".to_owned()).await?;
                match write(connection, table, std::slice::from_ref(body), &mut result).await {
                    Err(error) if is_unwritable(&error) => result.damaged.push(format!("{}: {error:#}", body.place)),
                    written => written?,
                }
            }
            pg::execute(connection, "ROLLBACK".to_owned()).await?;
        }
        result.dead_bytes = result.before_bytes;
        result.changed_meanwhile = rows.len() as u64 - result.rows - result.damaged.len() as u64;
        Ok(result)
    }
}

/// A character that this database has not, or bytes that are none.
fn is_unwritable(error: &anyhow::Error) -> bool {
    pg::sql_state(error).is_some_and(|state| ["22P05", "22021"].contains(&state.as_str()))
}

async fn write(connection: &mut PgConnection, table: &Table, bodies: &[Body], result: &mut Batch) -> Result<()> {
    if bodies.is_empty() {
        return Ok(());
    }
    let (content, gz, hash, name) = (table.content(), table.gz(), table.hash(), table.sql());
    let sql = format!(
        "UPDATE ONLY {name} t SET {content} = pg_catalog.convert_from(d.text, {encoding}), {gz} = NULL, {hash} = NULL
         FROM unnest($1::text[], $2::text[], $3::bytea[], $4::bytea[]) AS d (ctid, xmin, text, hash)
         WHERE t.ctid = ANY (ARRAY(SELECT ctid FROM ONLY {name} WHERE ctid = ANY ($1::text[]::tid[]) FOR NO KEY UPDATE SKIP LOCKED))
           AND t.ctid = d.ctid::tid AND t.xmin = d.xmin::xid AND t.{content} IS NULL AND t.{hash} = d.hash
         RETURNING t.ctid::text, d.ctid",
        encoding = literal(&table.encoding),
    );
    walk::begin(connection, table).await?;
    let written = pg::query(sql)
        .bind(bodies.iter().map(|body| body.ctid.clone()).collect::<Vec<_>>())
        .bind(bodies.iter().map(|body| body.xmin.clone()).collect::<Vec<_>>())
        .bind(bodies.iter().map(|body| body.text.clone()).collect::<Vec<_>>())
        .bind(bodies.iter().map(|body| body.hash.clone()).collect::<Vec<_>>())
        .fetch_all(&mut *connection)
        .await
        .map_err(pg::in_its_own_words)?;
    let moved = walk::Moved::of(&written)?;
    let sql = format!(
        "SELECT ctid::text, pg_catalog.sha256({}), {gz} IS NULL AND {hash} IS NULL, {}
         FROM ONLY {name} t WHERE ctid = ANY ($1::text[]::tid[])",
        table.bytes_of(&content),
        table.fingerprint("t")
    );
    for row in moved.read_again(connection, table, sql).await? {
        let place: String = row.try_get(0)?;
        let from = moved.from(&place)?;
        let body = bodies.iter().find(|body| body.ctid == from).context("the server changed a row that was not named")?;
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
    pg::execute(connection, "COMMIT".to_owned()).await.context("cannot commit a batch")
}

/// A row by its key, for people.
fn place_of(table: &Table, row: &walk::Row) -> String {
    let columns = table.key.as_ref().map(|key| key.columns.join(", ")).unwrap_or_default();
    format!("({columns}) = ({})", row.key.join(", "))
}
