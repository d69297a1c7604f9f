//! Tries the databases: the connection, the client tools, and what each job needs there.

use std::collections::BTreeSet;

use anyhow::{Context as _, Result};
use chrono::Utc;
use futures_util::StreamExt as _;
use sqlx::postgres::PgConnection;

use super::attempt::{AT_ONCE, Attempt, LONGEST, warnings};
use super::one_server;
use crate::base::fault::{Fault, Kind};
use crate::base::units;
use crate::config::{self, Config};
use crate::pg::databases::Listed;
use crate::pg::{self, Server, client_tools};
use crate::run::job::Job;
use crate::task::backup::copies::several::within_time;

/// pg_dump and psql connect by themselves, with another TLS library.
const CLIENT_TOOLS: &str = "connection of the client tools";

/// Tries each configured database, and an example of those that were found for each job with patterns.
pub(super) async fn try_databases(config: &Config, jobs: &[Job], servers: &[(&String, Listed)]) -> Vec<Attempt> {
    let of_entries = config.databases.iter().map(|(name, database)| (name.clone(), database.clone()));
    let examples = examples(config, jobs).into_iter().filter_map(|name| Some((name.clone(), config.place(&name)?.into_owned())));
    let to_try: Vec<_> = of_entries.chain(examples).collect();
    let trying = to_try.iter().map(|(name, database)| try_database(name, database, jobs, config, servers));
    futures_util::stream::iter(trying).buffered(AT_ONCE).collect::<Vec<_>>().await.into_iter().flatten().collect()
}

/// The first found database of each job with patterns: thousands cannot all be tried.
fn examples(config: &Config, jobs: &[Job]) -> BTreeSet<String> {
    let first = |job: &Job| job.databases.iter().find(|name| !config.databases.contains_key(*name)).cloned();
    jobs.iter().filter(|job| job.chosen.is_some()).filter_map(first).collect()
}

/// Tries the connection to a database, the client tools for its server, and the privileges that each of its jobs needs.
async fn try_database(
    name: &str,
    database: &config::Database,
    jobs: &[Job],
    config: &Config,
    servers: &[(&String, Listed)],
) -> Vec<Attempt> {
    let what = format!("database {name}");
    let settings = match database.settings() {
        Ok(settings) => settings,
        Err(error) => return vec![Attempt::new(what, Err(error))],
    };
    let (mut connection, server, clock) = match within_time(LONGEST, connect(&settings)).await {
        Ok(connected) => connected,
        Err(error) => return try_client_tools(what, error, &settings, config).await,
    };
    let also_found = one_server::also_found(name, &settings, &mut connection, config, servers).await;
    let warned = warnings(clock.into_iter().chain(also_found));
    let said = format!("{}, PostgreSQL {}{warned}", settings.display(), server.version);
    let mut tried = vec![Attempt::new(what.clone(), Ok(said))];
    let tools = client_tools::find(config.tools.bin_dir.as_deref(), server.major()).await;
    let way_in = match &tools {
        Ok(tools) => Some(within_time(LONGEST, client_tools::try_connection(tools, &settings)).await),
        Err(_) => None,
    };
    tried.push(Attempt::new(
        format!("{what}: client tools"),
        tools.map(|tools| format!("{} in {}", tools.version, tools.folder.display())),
    ));
    tried.extend(way_in.map(|result| Attempt::new(format!("{what}: {CLIENT_TOOLS}"), result)));
    for job in jobs.iter().filter(|job| job.databases.iter().any(|other| other == name)) {
        let job = &Job { task: job.task_on(config, name).into_owned(), ..job.clone() };
        let answered = tokio::time::timeout(LONGEST, may_run(&mut connection, &settings, database, job, config)).await;
        let (is_silent, result) = match answered {
            Ok(result) => (false, result),
            Err(_) => (true, Err(silent())),
        };
        tried.push(Attempt::new(format!("{what}: privileges for {}", job.name), result));
        // The session waits for an answer still, and can be asked nothing else.
        if is_silent {
            break;
        }
    }
    tried
}

fn silent() -> anyhow::Error {
    Fault::new(Kind::Unreachable, format!("it has not answered for {}", units::duration(LONGEST))).into()
}

/// Connects, and compares the server's clock with this host's.
async fn connect(settings: &pg::Settings) -> Result<(PgConnection, Server, Option<String>)> {
    let mut connection = settings.connect().await?;
    let server = Server::of(&mut connection).await?;
    let started = Utc::now();
    let at = sqlx::query_scalar("SELECT clock_timestamp()").fetch_one(&mut connection).await?;
    let clock = units::clocks_differ("the database server", at, started, Utc::now());
    Ok((connection, server, clock))
}

/// Tries the newest client tools where the program itself cannot connect: problems that they meet help to explain its own.
async fn try_client_tools(what: String, error: anyhow::Error, settings: &pg::Settings, config: &Config) -> Vec<Attempt> {
    let way_in = format!("{what}: {CLIENT_TOOLS}");
    let mut tried = vec![Attempt::new(what, Err(error))];
    if let Ok(tools) = client_tools::find_for_restore(config.tools.bin_dir.as_deref(), u32::MAX).await {
        let result = within_time(LONGEST, client_tools::try_connection(&tools, settings)).await;
        tried.push(Attempt::new(way_in, result));
    }
    tried
}

/// Checks what the job needs, and warns of other owners' code that it would run.
async fn may_run(
    connection: &mut PgConnection,
    settings: &pg::Settings,
    database: &config::Database,
    job: &Job,
    config: &Config,
) -> Result<String> {
    if database.owner_url.is_none() || !job.task.meets_owners() {
        return may_run_as(connection, settings, job, config).await;
    }
    let owner = database.owner_settings()?;
    let mut connection = owner.connect().await.context("owner_url")?;
    let found = may_run_as(&mut connection, &owner, job, config).await?;
    Ok(format!("{found}; by owner_url: {}", owner.display()))
}

async fn may_run_as(connection: &mut PgConnection, settings: &pg::Settings, job: &Job, config: &Config) -> Result<String> {
    // This comes first, because looking at the table runs some of that code.
    let (mut foreign_code, _) = job.task.foreign_code(settings, config, &job.limits).await?;
    foreign_code.extend(job.task.lends(connection, job.limits.trust_owners).await?);
    let found = job.task.check(connection, settings, config).await?;
    Ok(format!("{found}{}", warnings(foreign_code)))
}
