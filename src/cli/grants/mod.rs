//! `grants` prints SQL for a role that may do what the configured jobs do, and no more.

mod membership;

use std::process::ExitCode;

use anyhow::{Context as _, Result};
use clap::Args;
use sqlx::PgConnection;

use self::membership::Memberships;
use super::global::Global;
use super::output::print;
use crate::base::fault::{Fault, Kind};
use crate::base::units;
use crate::pg::table::with_schema;
use crate::pg::{self, Server, comment, identifier};
use crate::run::job::Job;
use crate::task::Task;
use crate::task::backup::{Scratch, Verify, readiness};
use crate::task::vector_index::ApplySetting;

/// A superuser runs this SQL, and the database may have a search_path with functions and views of its owner.
const OWN_NAMES: &str = "SET search_path = pg_catalog, pg_temp;\n";

#[derive(Debug, Args)]
pub struct Arguments {
    /// The name of the role
    #[arg(long, default_value = "pgtend")]
    role: String,
    /// Only for this database
    #[arg(long, value_name = "NAME")]
    database: Option<String>,
}

pub async fn run(global: &Global, arguments: &Arguments) -> Result<ExitCode> {
    let (config, folder) = global.load_all()?;
    let jobs = folder.jobs;
    let role = identifier(&arguments.role);
    let mut text = format!(
        "{}\n-- psql -v ON_ERROR_STOP=1 -f grants.sql\n\n\
         {OWN_NAMES}\
         SELECT 'CREATE ROLE {} LOGIN' WHERE NOT EXISTS (SELECT FROM pg_roles WHERE rolname = {}) \\gexec\n\
         {}\n",
        comment(&format!(
            "Privileges that {role} needs for the jobs of {}. Read this, then run it with psql as a superuser.",
            config.path.display()
        )),
        role.replace('\'', "''"),
        pg::literal(&arguments.role),
        comment(&format!("If the role needs a password: \\password {role}")),
    );
    let mut memberships = Memberships::default();
    for (name, configured) in &config.databases {
        if arguments.database.as_ref().is_some_and(|only| only != name) {
            continue;
        }
        let jobs: Vec<&Job> = jobs.iter().filter(|job| job.databases.contains(name)).collect();
        let is_ledger = config.ledger.as_ref().is_some_and(|ledger| ledger.database == *name);
        if jobs.is_empty() && !is_ledger {
            continue;
        }
        let settings = configured.settings().with_context(|| format!("database `{name}`"))?;
        let mut connection = settings.connect().await.with_context(|| format!("database `{name}`"))?;
        text += &format!(
            "\n{}\n\\connect -reuse-previous=on {}\n{OWN_NAMES}",
            comment(&format!("database {name}: {}", settings.display())),
            connect_argument(settings.database())?
        );
        text += &format!("GRANT CONNECT ON DATABASE {} TO {role};\n", identifier(settings.database()));
        if is_ledger {
            text += &format!(
                "\n-- [ledger]: the role creates the tables in a schema of its own, or uses those that another role created\n\
                 CREATE SCHEMA IF NOT EXISTS pgtend AUTHORIZATION {role};\n\
                 GRANT USAGE ON SCHEMA pgtend TO {role};\n\
                 GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA pgtend TO {role};\n"
            );
        }
        for job in jobs {
            text += &format!("\n{}\n", comment(&format!("{} [{}]", job.name, job.task.kind())));
            if configured.owner_url.is_some() && job.task.meets_owners() {
                text += "-- runs as the login of owner_url\n";
                continue;
            }
            for line in needs(&mut connection, job, &role, &mut memberships).await? {
                text += &line;
                text.push('\n');
            }
        }
    }
    if let Some(amount_to) = memberships.amount_to(&role) {
        text += &format!("\n{amount_to}");
    }
    print(&text)?;
    Ok(ExitCode::SUCCESS)
}

/// psql's \connect takes a quoted name; a name that looks like a connection string must become one.
fn connect_argument(database: &str) -> Result<String> {
    if database.contains(['\n', '\r']) {
        // psql ends a command at the end of the line, even within quotes: it would run the rest of the name.
        let message = format!("the name of database {} has a line break: psql's \\connect cannot name it", identifier(database));
        return Err(Fault::new(Kind::Configuration, message).into());
    }
    // Two readers, one after the other: libpq reads the connection string, in whose quotes a backslash escapes; psql reads the argument, in
    // whose quotes a backslash escapes as well, and a quote is doubled. Of what is left psql takes double quotes for those of an identifier
    // (dequote_downcase_identifier, by OT_SQLIDHACK): four of them are one.
    let connection_string = format!("dbname='{}'", database.replace('\\', r"\\").replace('\'', r"\'"));
    Ok(format!("'{}'", connection_string.replace('\\', r"\\").replace('\'', "''").replace('"', "\"\"\"\"")))
}

async fn needs(connection: &mut PgConnection, job: &Job, role: &str, memberships: &mut Memberships) -> Result<Vec<String>> {
    match &job.task {
        Task::Audit(audit) => {
            let mut lines = vec![
                "-- the audit reports as unknown what the role may not read; it needs no privilege to write".to_owned(),
                format!("GRANT pg_monitor, pg_read_all_data TO {role};"),
            ];
            if audit.schema_file.is_some() && audit.scratch.is_none() {
                lines.push("-- schema_file: a scratch database".to_owned());
                lines.push(format!("ALTER ROLE {role} CREATEDB;"));
            }
            Ok(lines)
        }
        Task::Backup(backup) => {
            let mut lines = vec![format!("GRANT pg_read_all_data TO {role};")];
            if has_row_security(connection).await? {
                lines.push("-- Some tables have row security, which would hide rows from the dump:".to_owned());
                lines.push(format!("ALTER ROLE {role} BYPASSRLS;"));
            }
            if backup.verify == Verify::Restore && matches!(backup.scratch, Scratch::Auto | Scratch::Same) {
                lines.push(match backup.scratch {
                    Scratch::Same => "-- verify = \"restore\": a scratch database".to_owned(),
                    _ => "-- verify = \"restore\": a scratch database, where pgtend's host has no server programs".to_owned(),
                });
                lines.push(format!("ALTER ROLE {role} CREATEDB;"));
                if backup.filters.schemas.is_empty() {
                    lines.extend(for_superusers(connection).await?);
                }
            }
            // With `schemas`, pg_dump dumps no large objects.
            if backup.filters.schemas.is_empty() {
                lines.extend(large_objects(connection, role).await?);
            }
            Ok(lines)
        }
        Task::Compress(compress) => {
            let mut lines =
                vec!["-- Only the owner may put a view in the table's place, change its compression and VACUUM it:".to_owned()];
            lines.extend(memberships.in_owner_of(connection, &compress.table, role).await?);
            lines.push(format!(
                "-- to see replication and WAL archiving, so that it can slow down for them\nGRANT pg_monitor TO {role};"
            ));
            // A role with this privilege can bypass foreign keys and triggers anywhere, so a person should decide on it.
            lines.push(
                "-- PostgreSQL 15 and later, if the table's triggers (updated_at, audits) should not fire when rows are compressed:"
                    .to_owned(),
            );
            lines.push(comment(&format!("GRANT SET ON PARAMETER session_replication_role TO {role};")));
            Ok(lines)
        }
        Task::Partition(partition) => {
            let mut lines = vec![
                "-- Only the owner may attach and detach partitions, and partitions are created in the table's schema:"
                    .to_owned(),
            ];
            lines.extend(memberships.in_owner_of(connection, &partition.table, role).await?);
            Ok(lines)
        }
        Task::Reindex(reindex) => owns(connection, &reindex.table, role, memberships).await,
        Task::Retention(retention) => {
            // SELECT … FOR UPDATE needs the UPDATE privilege.
            let tables = std::iter::once(&retention.table).chain(&retention.cascade);
            let mut lines: Vec<String> =
                tables.map(|table| format!("GRANT SELECT, UPDATE, DELETE ON {} TO {role};", with_schema(table))).collect();
            for table in retention.referring(connection).await? {
                lines.push(format!("-- to keep rows that this table refers to\nGRANT SELECT ON {table} TO {role};"));
            }
            lines.push(format!(
                "-- to see replication and WAL archiving, so that it can slow down for them\nGRANT pg_monitor TO {role};"
            ));
            Ok(lines)
        }
        Task::Sql(sql) => {
            let server = Server::of(connection).await?;
            let mut lines: Vec<String> =
                sql.statements().iter().map(|statement| comment(&format!("runs: {statement}"))).collect();
            if sql.statements().iter().any(|statement| is_maintenance(statement)) {
                if server.major() >= 17 {
                    lines.push(format!("GRANT pg_maintain TO {role};"));
                } else {
                    lines.push(comment(&format!("Before PostgreSQL 17, only owners may do that (this is {}):", server.version)));
                    lines.extend(memberships.in_all_owners(connection, role).await?);
                }
            } else {
                lines.push("-- pgtend cannot tell which privileges these statements need".to_owned());
            }
            Ok(lines)
        }
        Task::VectorIndex(job) => {
            let mut lines = owns(connection, &job.table, role, memberships).await?;
            match &job.apply_setting {
                Some(ApplySetting::Database) => {
                    lines.push("-- apply_setting = \"database\": only the owner of the database may set it".to_owned());
                    lines.extend(memberships.in_database_owner(connection, role).await?);
                }
                Some(ApplySetting::Role(other)) if identifier(other) != role => {
                    lines.extend(administers(connection, other, role).await?)
                }
                _ => {}
            }
            Ok(lines)
        }
    }
}

/// Indexes belong to the table's owner, and are created in the table's schema.
async fn owns(connection: &mut PgConnection, table: &str, role: &str, memberships: &mut Memberships) -> Result<Vec<String>> {
    let mut lines =
        vec!["-- Only the owner may create, rename and drop a table's indexes, and they are created in its schema:".to_owned()];
    lines.extend(memberships.in_owner_of(connection, table, role).await?);
    Ok(lines)
}

/// Grants what ALTER ROLE `other` SET requires.
async fn administers(connection: &mut PgConnection, other: &str, role: &str) -> Result<Vec<String>> {
    let quoted = identifier(other);
    let Some(found) = membership::roles(connection, &[other.to_owned()]).await?.pop() else {
        return Ok(vec![comment(&format!("apply_setting = \"role:…\": there is no role {quoted}"))]);
    };
    if let Some(is_superuser) = found.is_superuser() {
        let line = format!(
            "apply_setting = \"role:…\": {quoted} {is_superuser}, and only a superuser may set its parameters: name another role, or use apply_setting = \"database\""
        );
        return Ok(vec![comment(&line)]);
    }
    let mut lines = vec![comment(&format!("apply_setting = \"role:…\": only a role that administers {quoted} may set it"))];
    if Server::of(connection).await?.major() < 16 {
        lines.push(
            "-- Before PostgreSQL 16, CREATEROLE may alter every role but superusers, and become a member of it (pg_execute_server_program, too):"
                .to_owned(),
        );
    }
    lines.push(format!("ALTER ROLE {role} CREATEROLE;\nGRANT {quoted} TO {role} WITH ADMIN OPTION;"));
    Ok(lines)
}

fn is_maintenance(statement: &str) -> bool {
    let first = statement.split_whitespace().next().unwrap_or_default().to_ascii_uppercase();
    matches!(first.as_str(), "VACUUM" | "ANALYZE" | "REINDEX" | "REFRESH" | "CLUSTER")
}

async fn has_row_security(connection: &mut PgConnection) -> Result<bool> {
    Ok(sqlx::query_scalar("SELECT EXISTS (SELECT FROM pg_class WHERE relrowsecurity)").fetch_one(connection).await?)
}

/// Names what a role cannot create whatever it is granted, so that it cannot restore a dump of it.
async fn for_superusers(connection: &mut PgConnection) -> Result<Vec<String>> {
    let extensions: Vec<String> =
        sqlx::query_scalar("SELECT extname::text FROM pg_extension").fetch_all(&mut *connection).await?;
    let untrusted = readiness::untrusted_extensions(connection, &extensions).await?;
    let mut whats: Vec<String> =
        untrusted.iter().map(|name| format!("extension {} is not trusted, so", identifier(name))).collect();
    whats.extend(readiness::of_superusers(connection).await?.iter().map(|what| format!("{what}:")));
    Ok(whats
        .iter()
        .map(|what| {
            format!(
                "{}\n-- [databases] entry that connects as a superuser to a server for that, or use verify = \"checksum\"",
                comment(&format!("{what} only a superuser restores it: set `scratch` of the job to a"))
            )
        })
        .collect())
}

/// pg_read_all_data covers no large objects before PostgreSQL 19 (seen with 14 to 18).
async fn large_objects(connection: &mut PgConnection, role: &str) -> Result<Vec<String>> {
    if Server::of(connection).await?.major() >= 19 {
        return Ok(Vec::new());
    }
    let (count, database): (i64, String) = sqlx::query_as(
        "SELECT count(*), pg_catalog.quote_ident(pg_catalog.current_database()) FROM pg_catalog.pg_largeobject_metadata",
    )
    .fetch_one(connection)
    .await?;
    Ok(match count {
        0 => Vec::new(),
        _ => vec![
            format!(
                "-- {}, which pg_read_all_data does not cover before PostgreSQL 19. With this",
                units::plural(count, "large object")
            ),
            "-- setting the role may read and write every one in this database; otherwise make it a member of their owners:"
                .to_owned(),
            format!("ALTER ROLE {role} IN DATABASE {database} SET lo_compat_privileges = on;"),
        ],
    })
}
