//! Reads a server and its databases, from catalogs alone: no row of a user's table, and no lock that anybody waits for.

use std::time::Duration;

use anyhow::{Context as _, Result};
use sqlx::PgConnection;

use super::facts::{Contents, Listed, Server};
use crate::base::fault::{Fault, Kind};
use crate::pg::{self, Settings};
use crate::task::backup::existing_database::is_empty_but_for_runs;

/// A database whose server names none is looked for under these names.
const MAINTENANCE: [&str; 2] = ["postgres", "template1"];

/// Catalogs of 100,000 tables are read in some seconds.
const STATEMENT_TIMEOUT: &str = "30s";
const LOCK_TIMEOUT: &str = "2s";

/// The longest time for one database.
const LONGEST: Duration = Duration::from_secs(60);

/// More databases than this are not looked at: one job file for each kind of work would be better written by hand.
pub const MOST_DATABASES: usize = 500;

/// Looks at the server to which these settings lead. With `is_named`, only that database of it will do. Databases of these names come first: they are
/// found among however many.
pub async fn server(settings: &Settings, is_named: bool, names: &[String]) -> Result<Server> {
    let (settings, mut connection) = connected(settings, is_named).await?;
    let server = pg::Server::of(&mut connection).await?;
    let is_standby = sqlx::query_scalar("SELECT pg_is_in_recovery()").fetch_one(&mut connection).await?;
    let databases: Vec<Listed> = sqlx::query_as(
        "SELECT datname::text AS name, pg_database_size(oid) AS size_bytes, has_database_privilege(oid, 'CREATE') AS may_create
         FROM pg_database
         WHERE datallowconn AND NOT datistemplate AND datconnlimit <> -2 AND has_database_privilege(oid, 'CONNECT')
         ORDER BY datname::text = ANY ($1) DESC, datname LIMIT $2",
    )
    .bind(names)
    // One more, to see that there are more.
    .bind(i64::try_from(MOST_DATABASES + 1 + names.len())?)
    .fetch_all(&mut connection)
    .await?;
    let display = settings.display();
    let place = display.strip_suffix(&format!("/{}", settings.database())).unwrap_or(&display).to_owned();
    let archiving = archiving(&mut connection).await?;
    let left_out = pg::databases::list(&settings).await?.left_out;
    Ok(Server { major: server.major(), version: server.version, place, is_standby, archiving, databases, left_out })
}

async fn connected(settings: &Settings, is_named: bool) -> Result<(Settings, PgConnection)> {
    let tried: Vec<Settings> = match is_named {
        true => vec![settings.clone()],
        false => MAINTENANCE.iter().map(|name| settings.with_database(name)).chain([settings.clone()]).collect(),
    };
    let mut first = None;
    for settings in tried {
        match settings.connect().await {
            Ok(connection) => return Ok((settings, connection)),
            Err(error) => first = first.or(Some(error)),
        }
    }
    Err(first.unwrap_or_else(|| Fault::new(Kind::Unreachable, "no database to connect to").into()))
}

/// Returns what keeps the server's WAL, in words; None where nothing does, or where the role may not see it.
async fn archiving(connection: &mut PgConnection) -> Result<Option<String>> {
    let settings: Vec<(String, String)> = sqlx::query_as(
        "SELECT name::text, setting::text FROM pg_settings WHERE name IN ('archive_mode', 'archive_command', 'archive_library')",
    )
    .fetch_all(connection)
    .await?;
    let of = |name: &str| settings.iter().find(|(found, _)| found == name).map_or("", |(_, value)| value.as_str());
    Ok(match of("archive_mode") {
        "" | "off" => None,
        _ if !of("archive_library").is_empty() => Some(format!("archive_library = {}", of("archive_library"))),
        _ => Some(tool_of(of("archive_command")).to_owned()),
    })
}

/// Names the tool of an archive_command; the command itself may hold a password.
fn tool_of(command: &str) -> &'static str {
    [("pgbackrest", "pgBackRest"), ("wal-g", "WAL-G"), ("wal-e", "WAL-E"), ("barman", "Barman"), ("pg_probackup", "pg_probackup")]
        .into_iter()
        .find_map(|(word, name)| command.contains(word).then_some(name))
        .unwrap_or("an archive_command of its own")
}

/// Looks into one database.
pub async fn contents(settings: &Settings) -> Result<Contents> {
    let looking = async {
        let mut connection = settings.connect().await?;
        pg::set(&mut connection, "statement_timeout", STATEMENT_TIMEOUT).await?;
        pg::set(&mut connection, "lock_timeout", LOCK_TIMEOUT).await?;
        read(&mut connection).await
    };
    let looked = tokio::time::timeout(LONGEST, looking).await;
    looked.unwrap_or_else(|_| {
        Err(Fault::new(Kind::Unreachable, format!("its catalogs were not read in {} s", LONGEST.as_secs())).into())
    })
}

async fn read(connection: &mut PgConnection) -> Result<Contents> {
    let extensions = sqlx::query_scalar(
        "SELECT concat(extname::text, ' ', extversion) FROM pg_extension WHERE extname <> 'plpgsql' ORDER BY extname",
    )
    .fetch_all(&mut *connection)
    .await?;
    Ok(Contents {
        extensions,
        has_objects: !is_empty_but_for_runs(connection).await?,
        timed: sqlx::query_as(include_str!("timed.sql")).fetch_all(&mut *connection).await.context("tables with a time")?,
        partitioned: sqlx::query_as(include_str!("partitioned.sql")).fetch_all(&mut *connection).await.context("partitions")?,
        vectors: sqlx::query_as(include_str!("vectors.sql")).fetch_all(&mut *connection).await.context("vectors")?,
        texts: sqlx::query_as(include_str!("texts.sql")).fetch_all(&mut *connection).await.context("large text")?,
        cron: of_extension(connection, ("pg_cron", "job"), "schedule::text AS schedule, command::text AS command").await?,
        partman: of_extension(connection, ("pg_partman", "part_config"), "parent_table::text")
            .await?
            .map(|parents| parents.into_iter().map(|(parent,): (String,)| parent).collect()),
    })
}

/// Reads a table of an extension: nothing where it is not installed, None where the role may not read it or where its owner, who is no superuser, could
/// have put code in its place.
async fn of_extension<T>(connection: &mut PgConnection, (extension, table): (&str, &str), columns: &str) -> Result<Option<Vec<T>>>
where
    T: for<'r> sqlx::FromRow<'r, sqlx::postgres::PgRow> + Send + Unpin,
{
    let found: Option<(String, bool)> = sqlx::query_as(
        "SELECT n.nspname::text, c.relkind = 'r' AND r.rolsuper AND has_schema_privilege(n.oid, 'USAGE') AND has_table_privilege(c.oid, 'SELECT')
         FROM pg_extension e
         JOIN pg_depend d ON d.refclassid = 'pg_extension'::regclass AND d.refobjid = e.oid AND d.deptype = 'e'
              AND d.classid = 'pg_class'::regclass
         JOIN pg_class c ON c.oid = d.objid AND c.relname = $2
         JOIN pg_namespace n ON n.oid = c.relnamespace
         JOIN pg_roles r ON r.oid = c.relowner
         WHERE e.extname = $1",
    )
    .bind(extension)
    .bind(table)
    .fetch_optional(&mut *connection)
    .await?;
    let Some((schema, may_read)) = found else { return Ok(Some(Vec::new())) };
    if !may_read {
        return Ok(None);
    }
    if let Some(sql) = pg::tables_alone(connection) {
        pg::execute(connection, sql).await?;
    }
    let sql = format!("SELECT {columns} FROM {} ORDER BY 1 LIMIT 200", pg::qualified(&schema, table));
    Ok(pg::fetch_all_as(connection, sql).await.ok())
}
