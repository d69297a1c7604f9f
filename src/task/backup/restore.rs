//! Puts a set back into PostgreSQL, through psql: into a new database that gets its name only when all is proved,
//! or into an existing empty one inside a single transaction. Either is whole or not there at all, and the proof
//! comes first: SHA-256, members, trailer, and every table's count.

use std::collections::HashSet;
use std::fs::File;
use std::io::Write as _;

use anyhow::{Context as _, Result};
use sha2::{Digest as _, Sha256};
use sqlx::postgres::PgConnection;

use super::facts::{self, DatabaseFacts, Lacks, ServerFacts};
use super::read_back;
use super::scan::TableData;
use super::set::{Manifest, Set};
use super::stream::{hex, without_unknown_settings};
use crate::child::Child;
use crate::client_tools::Tools;
use crate::fault::{Fault, Kind};
use crate::pg::{self, identifier, literal};
use crate::progress::Phase;
use crate::store::Store;
use crate::units;

/// Counted in one DO block, so that no statement grows without bound.
const TABLES_PER_BLOCK: usize = 200;

/// Index builds of the restore's own session. An ivfflat index over 11,000 vectors of 1,536 dimensions refuses the
/// server's default of 64 MB ("memory required is 65 MB"); a larger setting stays.
const BUILD_MEMORY: &str = "SELECT set_config('maintenance_work_mem', '512MB', false) FROM pg_settings WHERE name = 'maintenance_work_mem' AND setting::bigint < 524288;\n";

/// Marks databases that pgtend makes for a moment; only such a one is ever dropped.
const SCRATCH_COMMENT: &str = "made by pgtend, dropped when its restore ends";

/// How a restore ended: what was seen of the set's bytes, and whether this server took them. The one says nothing of the other.
#[derive(Debug, Default)]
pub struct Restored {
    /// Where the bytes differ from the manifest, by this one read; empty when they do not.
    pub problems: Vec<String>,
    /// Why this server did not take them; None when all is restored.
    pub refusal: Option<Refusal>,
    /// Worth saying of a restore that is complete.
    pub notes: Vec<String>,
}

impl Restored {
    pub fn is_complete(&self) -> bool {
        self.problems.is_empty() && self.refusal.is_none()
    }
}

/// Why a server did not take a dump. It speaks of this server, now; never of the set.
#[derive(Clone, Debug)]
pub struct Refusal {
    pub kind: Option<Kind>,
    /// Of the first error.
    pub sql_state: Option<String>,
    /// With what to do.
    pub message: String,
}

impl From<Refusal> for anyhow::Error {
    fn from(refusal: Refusal) -> Self {
        match refusal.kind {
            Some(kind) => Fault::new(kind, refusal.message).into(),
            None => Self::msg(refusal.message),
        }
    }
}

/// Where the dump goes.
pub struct Target<'a> {
    pub settings: &'a pg::Settings,
    pub tools: &'a Tools,
    /// All in one transaction, committed after the proof. The database must be empty.
    pub in_transaction: bool,
}

/// Streams the set's dump into psql. An error is the store's, or this host's.
pub async fn stream_into(store: &Store, set: &Set, target: &Target<'_>, phase: &Phase) -> Result<Restored> {
    let mut connection = target.settings.connect().await?;
    let known_settings = facts::setting_names(&mut connection).await?;
    drop(connection);

    let mut psql = start_psql(target)?;
    // Its output is what SELECT set_config says; nobody reads it, so it must not fill the pipe.
    let stdin = psql.take_stdin()?;
    let mut sink = stdin.try_clone().context("cannot duplicate psql's input")?;
    let begin = if target.in_transaction { "BEGIN;\n" } else { "" };
    sink.write_all(format!("{BUILD_MEMORY}{begin}").as_bytes()).context("psql does not take its input")?;
    let mut head = Some(known_settings);
    let read = read_back::read_dump(store, set, phase, move |bytes| write_dump(&mut sink, &mut head, bytes)).await?;
    if !read.problems.is_empty() {
        return Ok(Restored { problems: read.problems, ..Restored::default() });
    }
    let finished = match read.sink_error {
        None => finish_psql(stdin, set, target.in_transaction).await,
        Some(error) => {
            drop(stdin);
            Err(error)
        }
    };
    let ended = psql.wait().await?;
    if ended.status.success() && finished.is_ok() {
        return Ok(Restored::default());
    }
    let said = if ended.stderr.is_empty() { format!("psql ended with {}", ended.status) } else { ended.stderr };
    Ok(Restored { refusal: Some(classify(&said)), ..Restored::default() })
}

fn classify(said: &str) -> Refusal {
    let first =
        said.lines().find(|line| line.contains("ERROR") || line.contains("FATAL") || line.contains("error:")).unwrap_or(said);
    let refusal = |kind: Option<Kind>, message: String| Refusal { kind, sql_state: None, message };
    if said.contains("No space left on device") || said.contains("could not extend file") {
        return refusal(None, format!("the target's disk is full: {first}"));
    }
    if said.contains("invalid command \\restrict") {
        let message = "this psql is older than the dump's pg_dump: it does not know \\restrict; install the newest minor release of the client tools";
        return refusal(None, message.to_owned());
    }
    if said.contains("max_locks_per_transaction") {
        return refusal(None, format!("too many tables for one transaction: restore with --create, which needs none ({first})"));
    }
    if ["out of memory", "out of shared memory", "could not resize shared memory", "memory required is"]
        .iter()
        .any(|text| said.contains(text))
    {
        return refusal(None, format!("the target is short of memory: {first}"));
    }
    if let Some(kind) = pg::kind_of_message(said) {
        let hint = if kind == Kind::Permission {
            "; a restore needs a superuser, or a member of every role that owns something"
        } else {
            ""
        };
        return refusal(Some(kind), format!("psql: {first}{hint}"));
    }
    refusal(None, format!("it does not restore: {}", said.lines().take(12).collect::<Vec<_>>().join("\n")))
}

fn start_psql(target: &Target<'_>) -> Result<Child> {
    let mut command = target.tools.command("psql");
    target.settings.apply_to(&mut command);
    // No psqlrc; stop at the first error; nothing asked, nothing printed.
    command.args(["-X", "-q", "-w", "-v", "ON_ERROR_STOP=1", "-o", "/dev/null", "-f", "-"]);
    Child::spawn(command)
}

/// The head of the dump comes in the first piece: pieces are of 256 KiB, heads of 1.
fn write_dump(sink: &mut File, known_settings: &mut Option<HashSet<String>>, bytes: &[u8]) -> std::io::Result<()> {
    match known_settings.take() {
        Some(known) => sink.write_all(&without_unknown_settings(bytes, &known)),
        None => sink.write_all(bytes),
    }
}

/// After the last byte is proved: counts every table in psql's own session, commits, and ends it.
async fn finish_psql(mut stdin: File, set: &Set, in_transaction: bool) -> std::io::Result<()> {
    let mut script = count_checks(&set.manifest);
    if in_transaction {
        script += "COMMIT;\n";
    }
    let written = tokio::task::spawn_blocking(move || stdin.write_all(script.as_bytes())).await;
    written.map_err(std::io::Error::other)?
}

/// SQL that fails with a list of all tables whose rows are not those of the manifest. A table that an extension
/// made may have more: rows that CREATE EXTENSION put there.
fn count_checks(manifest: &Manifest) -> String {
    let mut script = String::new();
    for tables in manifest.tables.chunks(TABLES_PER_BLOCK) {
        let checks: String = tables.iter().map(count_check).collect();
        let body = format!(
            "DECLARE n bigint; problems text[] := '{{}}'; BEGIN {checks} IF problems <> '{{}}' THEN RAISE EXCEPTION '%', array_to_string(problems, '; '); END IF; END"
        );
        script += &format!("DO {};\n", literal(&body));
    }
    script
}

fn count_check(table: &TableData) -> String {
    let qualified = pg::qualified(&table.schema, &table.name);
    let rows = table.rows;
    format!(
        "SELECT count(*) INTO n FROM ONLY {qualified}; \
         IF n <> {rows} AND NOT (n > {rows} AND EXISTS (SELECT FROM pg_depend WHERE classid = 'pg_class'::regclass AND objid = {name}::regclass AND deptype = 'e')) \
         THEN problems := problems || format('%s has %s rows and the manifest says {rows}', {name}, n); END IF; ",
        name = literal(&qualified),
    )
}

/// Refuses a target that lacks what the dump needs, before anything is written. Missing roles are created without
/// login when asked for.
pub async fn prepare_server(connection: &mut PgConnection, set: &Set, create_roles: bool) -> Result<Lacks> {
    let lacks = facts::lacks(connection, &set.manifest.server).await?;
    anyhow::ensure!(
        lacks.extensions.is_empty(),
        Fault::new(
            Kind::Configuration,
            format!(
                "the target lacks extensions that the dump needs: {}; install their packages on the target's host",
                lacks.extensions.join(", ")
            )
        )
    );
    if create_roles {
        for role in &lacks.roles {
            pg::execute(connection, format!("CREATE ROLE {} NOLOGIN", identifier(role)))
                .await
                .with_context(|| format!("cannot create the role {role}"))?;
        }
    } else {
        anyhow::ensure!(
            lacks.roles.is_empty(),
            Fault::new(
                Kind::Configuration,
                format!(
                    "the target lacks roles that own objects or have grants in the dump: {}; restore globals.sql.gz first, or let --create-roles make them without login",
                    lacks.roles.join(", ")
                )
            )
        );
    }
    Ok(lacks)
}

/// A new database that is dropped when its restore ends; where it stands in for the source, with the source's
/// encoding and locale.
pub async fn create_scratch(connection: &mut PgConnection, name: &str, like: &DatabaseFacts) -> Result<()> {
    let provider = match like.locale_provider.as_str() {
        "i" => format!("LOCALE_PROVIDER icu ICU_LOCALE {}", literal(like.locale.as_deref().unwrap_or("und"))),
        "b" => format!("LOCALE_PROVIDER builtin BUILTIN_LOCALE {}", literal(like.locale.as_deref().unwrap_or("C"))),
        _ => String::new(),
    };
    // Since 15 the owner of a database may create in its schema public, and so may its tables' owners only if they are
    // that owner. Without the membership the restore shows whether it matters.
    let member: Option<bool> = sqlx::query_scalar("SELECT pg_has_role(oid, 'MEMBER') FROM pg_roles WHERE rolname = $1")
        .bind(&like.owner)
        .fetch_optional(&mut *connection)
        .await?;
    let owner = if member == Some(true) { format!("OWNER {}", identifier(&like.owner)) } else { String::new() };
    let sql = format!(
        "CREATE DATABASE {} TEMPLATE template0 ENCODING {} LC_COLLATE {} LC_CTYPE {} {provider} {owner}",
        identifier(name),
        literal(&like.encoding),
        literal(&like.collate),
        literal(&like.ctype)
    );
    pg::execute(&mut *connection, sql).await.with_context(|| format!("cannot create the database {name}"))?;
    let comment = format!("COMMENT ON DATABASE {} IS {}", identifier(name), literal(SCRATCH_COMMENT));
    pg::execute(connection, comment).await.with_context(|| format!("cannot mark the database {name} as scratch"))
}

/// Drops a database that [`create_scratch`] made and that nobody uses. Anything else of that name is refused.
pub async fn drop_scratch(connection: &mut PgConnection, name: &str) -> Result<()> {
    let found: Option<(Option<String>, bool)> = sqlx::query_as(
        "SELECT shobj_description(oid, 'pg_database'), pg_has_role(datdba, 'MEMBER') FROM pg_database WHERE datname = $1",
    )
    .bind(name)
    .fetch_optional(&mut *connection)
    .await?;
    match found {
        None => Ok(()),
        Some((Some(comment), true)) if comment == SCRATCH_COMMENT => {
            // A psql that was killed a moment ago may still have its server process: FORCE ends that one.
            pg::execute(connection, format!("DROP DATABASE IF EXISTS {} WITH (FORCE)", identifier(name)))
                .await
                .with_context(|| format!("cannot drop the scratch database {name}"))
        }
        Some(_) => anyhow::bail!("database {name} does not carry pgtend's mark, or is not ours: it is left alone"),
    }
}

/// Scratch databases of this prefix that a killed run left. None of them has a session: one that has is in use.
pub async fn scratch_leftovers(connection: &mut PgConnection, prefix: &str) -> Result<Vec<String>> {
    let names = sqlx::query_scalar(
        "SELECT datname::text FROM pg_database d
         WHERE starts_with(datname::text, $1) AND shobj_description(oid, 'pg_database') = $2 AND pg_has_role(datdba, 'MEMBER')
           AND NOT EXISTS (SELECT FROM pg_stat_activity a WHERE a.datid = d.oid AND coalesce(a.backend_type, 'client backend') = 'client backend')",
    )
    .bind(prefix)
    .bind(SCRATCH_COMMENT)
    .fetch_all(connection)
    .await?;
    Ok(names)
}

/// The prefix of a job's scratch databases. It takes in what the job's lock is on, the source's server and database, so
/// that nobody who has another lock has the same prefix.
pub fn scratch_prefix(database: &str, job: &str, server: &ServerFacts) -> String {
    let identifier = server.system_identifier.as_deref().unwrap_or_default();
    let digest = Sha256::digest(format!("{database}/{job}/{identifier}/{}", server.database.name));
    format!("pgtend_verify_{}_", &hex(&digest)[..12])
}

/// Restores into a database `settings.database()` that does not exist yet. Until it is complete it has another name.
pub async fn into_new_database(
    store: &Store,
    set: &Set,
    settings: &pg::Settings,
    tools: &Tools,
    phase: &Phase,
) -> Result<Restored> {
    let name = settings.database();
    let mut connection = maintenance_connection(settings).await?;
    let exists: bool = sqlx::query_scalar("SELECT EXISTS (SELECT FROM pg_database WHERE datname = $1)")
        .bind(name)
        .fetch_one(&mut connection)
        .await?;
    anyhow::ensure!(
        !exists,
        Fault::new(
            Kind::Configuration,
            format!("database {name} exists already: choose another name, or restore into it without --create if it is empty")
        )
    );

    let digest = hex(&Sha256::digest(name));
    let scratch = format!("pgtend_restore_{}", &digest[..16]);
    for leftover in scratch_leftovers(&mut connection, &scratch).await? {
        drop_scratch(&mut connection, &leftover).await?;
    }
    create_scratch(&mut connection, &scratch, &set.manifest.server.database).await?;
    let target = Target { settings: &settings.with_database(&scratch), tools, in_transaction: false };
    let restored = stream_into(store, set, &target, phase).await;
    if !matches!(&restored, Ok(restored) if restored.is_complete()) {
        if let Err(error) = drop_scratch(&mut connection, &scratch).await {
            tracing::warn!("{error:#}");
        }
        return restored;
    }
    pg::execute(&mut connection, format!("ALTER DATABASE {} RENAME TO {}", identifier(&scratch), identifier(name)))
        .await
        .with_context(|| format!("the restore is complete in database {scratch} but cannot be renamed to {name}"))?;
    // After the rename: killed in between, the database is whole and only its comment is wrong. The other way round it
    // would be a leftover that nobody may drop.
    pg::execute(&mut connection, format!("COMMENT ON DATABASE {} IS NULL", identifier(name))).await?;
    if let Err(error) = carry_settings(&mut connection, name, &set.manifest.server.database).await {
        tracing::warn!("database {name} is restored, but not all of its properties: {error:#}");
    }
    restored
}

/// Restores into an existing database, all or nothing; refused when there is anything in it.
pub async fn into_empty_database(
    store: &Store,
    set: &Set,
    settings: &pg::Settings,
    tools: &Tools,
    phase: &Phase,
) -> Result<Restored> {
    let mut connection = settings.connect().await?;
    let objects: i64 = sqlx::query_scalar(include_str!("objects.sql")).fetch_one(&mut connection).await?;
    anyhow::ensure!(
        objects == 0,
        Fault::new(
            Kind::Configuration,
            format!(
                "database {} is not empty ({} objects): restore into a new one with --create",
                settings.database(),
                units::count(objects as u64)
            )
        )
    );
    stream_into(store, set, &Target { settings, tools, in_transaction: true }, phase).await
}

/// A connection for CREATE and DROP DATABASE, which must not be to the database itself.
pub async fn maintenance_connection(settings: &pg::Settings) -> Result<PgConnection> {
    match settings.with_database("postgres").connect().await {
        Ok(connection) => Ok(connection),
        // Some servers have no `postgres`; template1 is always there.
        Err(first) => settings.with_database("template1").connect().await.map_err(|_| first),
    }
}

/// `ALTER DATABASE … SET` and the owner, which a plain dump leaves out. Values go through set_config and FROM
/// CURRENT: they are bound, and lists such as search_path keep their form.
async fn carry_settings(connection: &mut PgConnection, name: &str, facts: &DatabaseFacts) -> Result<()> {
    for setting in &facts.settings {
        let Some((setting, value)) = setting.split_once('=') else { continue };
        sqlx::query("SELECT set_config($1, $2, false)")
            .bind(setting)
            .bind(value)
            .execute(&mut *connection)
            .await
            .with_context(|| format!("setting {setting}"))?;
        // A custom setting has a dot that is not part of a name.
        let quoted = setting.split('.').map(identifier).collect::<Vec<_>>().join(".");
        pg::execute(connection, format!("ALTER DATABASE {} SET {quoted} FROM CURRENT", identifier(name)))
            .await
            .with_context(|| format!("setting {setting}"))?;
    }
    if let Some(comment) = &facts.comment {
        pg::execute(connection, format!("COMMENT ON DATABASE {} IS {}", identifier(name), literal(comment)))
            .await
            .context("comment")?;
    }
    if let Some(grants) = &facts.grants {
        carry_grants(connection, name, grants).await.context("grants")?;
    }
    pg::execute(connection, format!("ALTER DATABASE {} OWNER TO {}", identifier(name), identifier(&facts.owner)))
        .await
        .context("owner")
}

/// What PUBLIC has by default goes first: it may have been revoked.
async fn carry_grants(connection: &mut PgConnection, name: &str, grants: &[String]) -> Result<()> {
    let database = identifier(name);
    pg::execute(&mut *connection, format!("REVOKE ALL ON DATABASE {database} FROM PUBLIC")).await?;
    for grant in grants {
        let Some((privilege @ ("CONNECT" | "CREATE" | "TEMPORARY"), role)) = grant.split_once(' ') else { continue };
        let grantee = if role.is_empty() { "PUBLIC".to_owned() } else { identifier(role) };
        pg::execute(&mut *connection, format!("GRANT {privilege} ON DATABASE {database} TO {grantee}")).await?;
    }
    Ok(())
}
