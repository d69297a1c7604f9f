//! `grants` prints SQL for a role that may do what the configured jobs do, and no more.

use std::collections::BTreeSet;
use std::process::ExitCode;

use anyhow::{Context as _, Result};
use clap::Args;

use super::global::{Global, found_for};
use super::output::print;
use crate::base::fault::{Fault, Kind};
use crate::config::{Config, places};
use crate::pg::{self, comment, identifier};
use crate::run::job::Job;
use crate::work::Memberships;

/// A superuser runs this SQL, and the database may have a search_path with functions and views of its owner.
const OWN_NAMES: &str = "SET search_path = pg_catalog, pg_temp;\n";

#[derive(Debug, Args)]
#[command(after_help = "Examples:
  pgtend grants >grants.sql   read it, then: psql -f grants.sql
  pgtend grants --role tender --database app")]
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
    let jobs = found_for(&config, folder.jobs, false).await?;
    let found = jobs.iter().flat_map(|job| databases_of(job, &config));
    let names: BTreeSet<&str> = config.databases.keys().map(String::as_str).chain(found).collect();
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
    for name in names {
        let Some(configured) = config.database(name) else { continue };
        if arguments.database.as_ref().is_some_and(|only| only != name) {
            continue;
        }
        let jobs: Vec<&Job> = jobs.iter().filter(|job| databases_of(job, &config).contains(name)).collect();
        let is_ledger = config.ledger.as_ref().is_some_and(|ledger| ledger.database == name);
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
        if is_ledger && jobs.iter().any(|job| job.task.meets_owners()) {
            text += &comment(&format!(
                "Code that the owners of the tables below put there may read and change this run history, as it runs as {role}: where that matters, \
                 set `owner_url` of the database, so that it runs as the owner"
            ));
            text.push('\n');
        }
        for job in jobs {
            text += &format!("\n{}\n", comment(&format!("{} [{}]", job.name, job.task.kind())));
            if configured.owner_url.is_some() && job.task.meets_owners() {
                text += "-- runs as the login of owner_url\n";
                continue;
            }
            // They are the same for each schema.
            let is_of_schemas = job.has_schemas();
            let place = if is_of_schemas { places::name_of(name, "public") } else { name.to_owned() };
            for line in job.task_on(&config, &place).grants(&mut connection, &role, &mut memberships).await? {
                text += &line;
                text.push('\n');
            }
        }
    }
    if let Some(warning) = memberships.warning(&role) {
        text += &format!("\n{warning}");
    }
    print(&text)?;
    Ok(ExitCode::SUCCESS)
}

/// The databases of a job, whose schemas may be its places; also one of which no schema was found.
fn databases_of<'j>(job: &'j Job, config: &Config) -> BTreeSet<&'j str> {
    let named = job.chosen.iter().flat_map(|chosen| &chosen.named).map(String::as_str);
    job.databases.iter().map(|place| config.database_of(place)).chain(named).collect()
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
