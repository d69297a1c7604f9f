//! Compares the database with its schema file: the file is loaded into a scratch database, and the two are compared object by object. Or
//! with another database that lives (`against`).
//!
//! An interruption leaves the scratch database, which the job's next run drops.

mod against;
mod compare;
mod object;
mod sources;

use std::collections::HashSet;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use serde_json::Value;
use sha2::{Digest as _, Sha256};
use sqlx::PgConnection;

use self::compare::compare;
use self::object::{Object, QUERY, Scope};
pub use self::sources::try_sources;
use super::context;
use super::context::{AuditContext, CheckResult};
use crate::base::child::Child;
use crate::base::units;
use crate::pg::table::with_schema;
use crate::pg::{self, Server};
use crate::task::backup::{facts, scratch};
use crate::work::Does;

/// Long enough for a schema of 20,000 tables, whose facts take some 10 s.
const LOAD_TIMEOUT: Duration = Duration::from_secs(300);

/// `end` is that of the audit: loading a file has more time than one check.
pub async fn look(
    context: &AuditContext<'_>,
    connection: &mut PgConnection,
    in_recovery: bool,
    end: Instant,
) -> Result<CheckResult> {
    if let Some(name) = &context.audit.against {
        let mut other = match against::connect(context, connection, name).await? {
            Ok(other) => other,
            Err(reason) => return Ok(CheckResult::unknown(reason)),
        };
        let (there, here) = (objects(&mut other, left(end)).await?, objects(connection, left(end)).await?);
        let rows = against::differences(&there, &here, name, partitioned_by_jobs(connection, context).await?);
        return Ok(CheckResult { rows, ..CheckResult::default() });
    }
    let Some(file) = &context.audit.schema_file else { return Ok(CheckResult::unknown("no schema_file is configured")) };
    if in_recovery && context.audit.scratch.is_none() {
        return Ok(CheckResult::unknown(
            "a replica cannot create a scratch database: set the job's `scratch` to a [databases] entry on another server",
        ));
    }
    if !file.is_file() {
        return Ok(CheckResult::unknown(format!("schema_file {} does not exist", file.display())));
    }
    let text = tokio::fs::read(file).await.with_context(|| format!("cannot read {}", file.display()))?;
    let text = String::from_utf8_lossy(&text);
    if connects_to_publisher(&text) {
        return Ok(CheckResult::unknown(format!(
            "{} would make a subscription that connects to its publisher and takes a slot there: write connect = false, as pg_dump does",
            file.display()
        )));
    }
    let mut scope = Scope::of_file(&text);
    scope.partitioned_by_jobs = partitioned_by_jobs(connection, context).await?;
    let here = objects(connection, left(end)).await?;
    let mut like = facts::server(connection, context.settings).await?;
    like.database.tablespace = None;
    // The login owns the scratch database. The database's owner could let itself in there, and the file's SQL runs with the login's rights.
    like.database.owner = String::new();
    let target = match &context.audit.scratch {
        Some(name) => context.config.database(name).context("`scratch` is configured")?.settings()?,
        None => context.settings.clone(),
    };
    let mut maintenance = scratch::maintenance_connection(&target).await.context("for the scratch database")?;
    // A manual audit takes no lock, so an existing scratch database may belong to a run under way.
    let who = if context.is_manual { format!("by hand {}", std::process::id()) } else { context.job.to_owned() };
    let digest = hex::encode(Sha256::digest(format!("{}/{who}/{}", context.database, like.database.name)));
    let prefix = format!("pgtend_audit_{}_", &digest[..12]);
    for leftover in scratch::scratch_leftovers(&mut maintenance, &prefix).await? {
        if let Some(left) = scratch::drop_or_warn(&target, &leftover, None).await {
            tracing::warn!("{left}");
        }
    }
    let name = format!("{prefix}{}", std::process::id());
    let scratch_settings = target.with_database(&name);
    let loading = load(context, &scratch_settings, file, end);
    let (there, left) = scratch::with_scratch(&target, &name, &like.database, context.cancel, loading).await;
    if let Some(left) = left {
        tracing::warn!("{left}");
    }
    let there = there?;
    Ok(match there {
        Loaded::Objects(there) => CheckResult::of(compare(&there, &here, &file.display().to_string(), &scope)),
        Loaded::Refused(reason) => CheckResult::unknown(reason),
    })
}

/// The time for one step.
fn left(end: Instant) -> Duration {
    LOAD_TIMEOUT.min(end.saturating_duration_since(Instant::now()))
}

/// Whether one of its subscriptions would reach out while the file is loaded: all that pg_dump writes have `connect = false`.
fn connects_to_publisher(text: &str) -> bool {
    let upper = text.to_ascii_uppercase();
    let mut subscriptions = upper.split("CREATE SUBSCRIPTION ").skip(1);
    subscriptions.any(|rest| {
        let statement: String = rest.split(';').next().unwrap_or_default().split_whitespace().collect();
        !["CONNECT=FALSE", "CONNECT='FALSE'", "CONNECT=OFF"].iter().any(|no| statement.contains(no))
    })
}

/// The result of loading a file.
enum Loaded {
    /// The objects that the file creates.
    Objects(Vec<Object>),
    /// The reason why it cannot be loaded.
    Refused(String),
}

async fn load(context: &AuditContext<'_>, scratch: &pg::Settings, file: &std::path::Path, end: Instant) -> Result<Loaded> {
    let mut connection = scratch.connect().await?;
    let major = Server::of(&mut connection).await?.major();
    let tools = crate::pg::client_tools::find_for_restore(context.config.tools.bin_dir.as_deref(), major).await?;
    let mut command = tools.command("psql");
    // The file is the user's own SQL: names resolve as they do in psql.
    scratch.apply_for(pg::Purpose::Application, &mut command);
    command.args(["-X", "-q", "-w", "-v", "ON_ERROR_STOP=1", "-o", "/dev/null", "-f"]).arg(file);
    let mut psql = Child::spawn(command)?;
    drop(psql.take_stdin()?);
    let limit = left(end);
    let ended = tokio::time::timeout(limit, psql.wait()).await;
    let Ok(ended) = ended else {
        return Ok(Loaded::Refused(format!("{} takes more than {} to load", file.display(), units::duration(limit))));
    };
    let ended = ended?;
    if !ended.status.success() {
        let said = ended.stderr.lines().find(|line| line.contains("ERROR") || line.contains("error:")).unwrap_or(&ended.stderr);
        return Ok(Loaded::Refused(format!("{} does not load into an empty database: {said}", file.display())));
    }
    Ok(Loaded::Objects(objects(&mut connection, left(end)).await?))
}

async fn objects(connection: &mut PgConnection, limit: Duration) -> Result<Vec<Object>> {
    context::begin_within(connection, limit).await?;
    let sql = format!("SELECT to_jsonb(o) FROM (\n{QUERY}\n) o");
    let rows = pg::query(sql).fetch_all(&mut *connection).await.map_err(pg::in_its_own_words)?;
    context::end(connection).await?;
    let values: Result<Vec<Value>, sqlx::Error> = rows.iter().map(|row| sqlx::Row::try_get(row, 0)).collect();
    let read = |value| serde_json::from_value(value).context("the query for objects returned unexpected columns");
    let mut objects: Vec<Object> = values?.into_iter().map(read).collect::<Result<_>>()?;
    objects.sort_by(|a, b| (a.rank, &a.name).cmp(&(b.rank, &b.name)));
    Ok(objects)
}

/// Returns the tables of [partition] jobs, quoted: their partitions are not those of any file.
async fn partitioned_by_jobs(connection: &mut PgConnection, context: &AuditContext<'_>) -> Result<HashSet<String>> {
    let mut tables = HashSet::new();
    for job in context.others.iter().filter(|job| job.enabled && job.runs_on(context.database)) {
        let Does::Partition { table } = &job.does else { continue };
        let found: Result<Option<String>, sqlx::Error> = sqlx::query_scalar(
            "SELECT pg_catalog.format('%I.%I', n.nspname, c.relname) FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
             WHERE c.oid = pg_catalog.to_regclass($1)",
        )
        .bind(with_schema(table))
        .fetch_optional(&mut *connection)
        .await;
        // A table whose name cannot be parsed is reported by its own job.
        tables.extend(found.ok().flatten());
    }
    Ok(tables)
}
