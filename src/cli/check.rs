//! `pgtend check` loads everything as a real run does, and with `--connect` tries everything that a run will need.

mod one_server;

use std::collections::BTreeSet;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context as _, Result};
use chrono::Utc;
use futures_util::StreamExt as _;
use futures_util::future::join_all;
use sqlx::postgres::PgConnection;

use super::global::Global;
use super::output::{self, print, print_json};
use super::outputs::before_runs as printed;
use super::{cleartext, encryption, lifetimes};
use crate::base::fault::{Fault, Kind};
use crate::base::pattern::Pattern;
use crate::base::units;
use crate::config::{self, Config};
use crate::ledger::Ledger;
use crate::pg::databases::Listed;
use crate::pg::{self, Server, client_tools, databases, failure};
use crate::run::fleet::Found;
use crate::run::fleet::asked::Asked;
use crate::run::job::{Folder, Job};
use crate::store::Store;
use crate::task::backup::Backup;
use crate::task::backup::copies::several::{apart_by_name, ensure_answers, ensure_apart, within_time};
use crate::work::Other;

/// pg_dump and psql connect by themselves, with another TLS library.
const CLIENT_TOOLS: &str = "connection of the client tools";

/// So many databases are tried at once.
const AT_ONCE: usize = 16;

/// Nothing that is tried takes longer: a connection may take 20 s for each of its hosts.
const LONGEST: Duration = Duration::from_secs(120);

/// One thing that was tried, and its result.
pub(super) struct Attempt {
    pub what: String,
    pub result: Result<String>,
}

pub async fn run(global: &Global, connect: bool) -> Result<ExitCode> {
    let (config, folder) = global.load_all()?;
    let warnings = notes(&config, &folder);
    let jobs = folder.jobs;
    let problems = one_place(&config, &jobs).await;
    let tried = if connect { try_all(&config, &jobs).await } else { Vec::new() };

    if global.json {
        let problem = |(job, error): &(String, anyhow::Error)| format!("{job}: {}", failure::in_a_line(error));
        let of = |tried: &Attempt| printed::Tried { what: tried.what.clone(), ok: tried.result.is_ok(), detail: detail(tried) };
        print_json(&printed::Check {
            jobs: jobs.len(),
            problems: problems.iter().map(problem).collect(),
            warnings: &warnings,
            connections: tried.iter().map(of).collect(),
        })?;
    } else {
        print(&format!(
            "{}: {}{}, {}, {}, {}\n",
            config.path.display(),
            if config.servers.is_empty() { String::new() } else { units::plural(config.servers.len(), "server") + ", " },
            units::plural(config.databases.len(), "database"),
            units::plural(config.stores.len(), "store"),
            units::plural(jobs.len(), "job"),
            if problems.is_empty() { "no mistakes".to_owned() } else { units::plural(problems.len(), "mistake") }
        ))?;
        for (job, error) in &problems {
            print(&format!("MISTAKE: {job}: {}\n", failure::in_a_line(error)))?;
        }
        for warning in &warnings {
            print(&format!("WARNING: {warning}\n"))?;
        }
        if connect {
            let rows = tried.iter().map(|tried| {
                vec![if tried.result.is_ok() { "ok" } else { "FAILED" }.to_owned(), tried.what.clone(), detail(tried)]
            });
            print(&output::table(&["", "", ""], rows))?;
        }
    }
    // The first failure gives the exit code: the rest may follow from it.
    let of_files = problems.into_iter().map(|(_, error)| error).next();
    Ok(match of_files.or_else(|| tried.into_iter().find_map(|tried| tried.result.err())) {
        Some(error) => failure::exit_code(&error),
        None => ExitCode::SUCCESS,
    })
}

/// Returns what is no mistake, and worth knowing, in the files.
pub(super) fn notes(config: &Config, folder: &Folder) -> Vec<String> {
    let jobs = &folder.jobs;
    let mut notes = cleartext::warnings(config, jobs);
    notes.extend(folder.misnamed.iter().cloned());
    notes.extend(folder.unread.iter().cloned());
    notes.extend(folder.notes.iter().cloned());
    notes.extend(config.notes.iter().cloned());
    notes.extend(nowhere(config));
    notes.extend(schedule_notes(jobs));
    notes.extend(will_refuse(jobs));
    notes.extend(without_servers(config, jobs));
    notes.extend(encryption::warnings(config, jobs));
    notes
}

/// Databases of which neither the configuration nor the environment says where they are: libpq's defaults may be another server.
fn nowhere(config: &Config) -> Vec<String> {
    const VARIABLES: [&str; 5] = ["PGHOST", "PGHOSTADDR", "PGDATABASE", "PGSERVICE", "PGPORT"];
    if VARIABLES.iter().any(|variable| std::env::var_os(variable).is_some()) {
        return Vec::new();
    }
    let without = config.databases.iter().filter(|(_, database)| database.url.is_none());
    let note = |name: &String| {
        format!(
            "database `{name}` has no `url`, and the environment has no PGHOST, PGDATABASE or PGSERVICE: it is what psql connects to by itself. \
             Write url = \"postgres://user@host:5432/database\""
        )
    };
    without.map(|(name, _)| note(name)).collect()
}

/// Patterns that can stand for nothing: no such server is there, and no entry has such a name.
fn without_servers(config: &Config, jobs: &[Job]) -> Vec<String> {
    let mut notes = Vec::new();
    for job in jobs {
        let Some(chosen) = &job.chosen else { continue };
        let of_nothing = chosen.of_nothing(config).into_iter().filter(|_| !config.servers.is_empty());
        notes.extend(of_nothing.map(|pattern| {
            format!(
                "{}: the pattern \"{}\" stands for nothing: what is before its first dot is the name of no [servers.NAME], and no [databases.NAME] matches. \
                 Databases' own names are compared with patterns without a dot",
                job.name,
                pattern.as_str()
            )
        }));
        if !config.servers.is_empty() || !chosen.of(&config.entries()).is_empty() {
            continue;
        }
        let patterns = chosen.patterns.iter().map(Pattern::as_str).collect::<Vec<_>>().join(", ");
        notes.push(format!(
            "{}: databases = \"{patterns}\" matches no [databases.NAME], and there is no [servers.NAME] to find any",
            job.name
        ));
    }
    notes
}

/// Explains schedules that mean something else than they do elsewhere or did before: each note once, with its jobs.
fn schedule_notes(jobs: &[Job]) -> Vec<String> {
    let mut notes: Vec<(&str, Vec<&str>)> = Vec::new();
    for (job, note) in jobs.iter().filter_map(|job| Some((job, job.schedule.as_ref()?.note()?))) {
        match notes.iter_mut().find(|(known, _)| *known == note) {
            Some((_, names)) => names.push(&job.name),
            None => notes.push((note, vec![&job.name])),
        }
    }
    notes.into_iter().map(|(note, names)| format!("{}: {note}", names.join(", "))).collect()
}

/// Finds jobs of which two stores are one place, as far as that shows on this host.
pub(super) async fn one_place(config: &Config, jobs: &[Job]) -> Vec<(String, anyhow::Error)> {
    let mut found = Vec::new();
    for job in jobs {
        let folders = stores_of(config, job).filter(|(_, store)| matches!(store, config::Store::Dir { .. }));
        let opened = join_all(folders.map(|(name, store)| async move { (name, Store::open(store).await) })).await;
        let stores: Vec<(&str, &Store)> =
            opened.iter().filter_map(|(name, store)| Some((name.as_str(), store.as_ref().ok()?))).collect();
        let mut pairs =
            stores.iter().enumerate().flat_map(|(number, one)| stores.iter().skip(number + 1).map(move |other| (one, other)));
        if let Some(error) = pairs.find_map(|(one, other)| apart_by_name(*one, *other).err()) {
            found.push((job.name.clone(), error));
        }
    }
    found
}

/// The stores that the job keeps sets in.
fn stores_of<'c>(config: &'c Config, job: &Job) -> impl Iterator<Item = (String, &'c config::Store)> {
    let names: Vec<String> =
        job.task.as_a::<Backup>().iter().flat_map(|backup| backup.stores()).map(|kept| kept.store.clone()).collect();
    names.into_iter().filter_map(|name| {
        let store = config.stores.get(&name)?;
        Some((name, store))
    })
}

/// Says which jobs refuse to run because of other jobs, or of one that is not there.
fn will_refuse(jobs: &[Job]) -> Vec<String> {
    let all: Vec<Other> = jobs.iter().map(Job::in_short).collect();
    let of_job = |job: &Job| Some(format!("{}: {}", job.name, job.task.will_refuse(&job.databases, &all)?));
    jobs.iter().filter_map(of_job).collect()
}

fn detail(tried: &Attempt) -> String {
    match &tried.result {
        Ok(detail) => detail.clone(),
        Err(error) => failure::in_a_line(error),
    }
}

/// A server may have thousands of databases with something to say.
const WARNINGS_OF_A_SERVER: usize = 20;

const WARNING: &str = "; WARNING: ";

/// Formats warnings that follow a success.
fn warnings(of: impl IntoIterator<Item = String>) -> String {
    of.into_iter().map(|warning| format!("{WARNING}{warning}")).collect()
}

/// Takes a detail apart: the success, and the warnings that follow it.
pub(super) fn parts(detail: &str) -> (&str, impl Iterator<Item = &str>) {
    let mut parts = detail.split(WARNING);
    (parts.next().unwrap_or_default(), parts)
}

/// Tries everything that runs will need: databases, the ledger and stores side by side. Returns it in the order of the configuration.
pub(super) async fn try_all(config: &Config, jobs: &[Job]) -> Vec<Attempt> {
    let (of_servers, jobs, servers) = try_servers(config, jobs).await;
    let servers = &servers[..];
    let jobs = &jobs[..];
    let of_entries = config.databases.iter().map(|(name, database)| (name.clone(), database.clone()));
    let examples = examples(config, jobs).into_iter().filter_map(|name| Some((name.clone(), config.place(&name)?.into_owned())));
    let to_try: Vec<_> = of_entries.chain(examples).collect();
    let databases = to_try.iter().map(|(name, database)| try_database(name, database, jobs, config, servers));
    let databases = futures_util::stream::iter(databases).buffered(AT_ONCE).collect::<Vec<_>>();
    let (databases, ledger, stores) = tokio::join!(databases, try_ledger(config), try_stores(config, jobs));
    let mut tried = of_servers;
    tried.extend(databases.into_iter().flatten());
    if let Some(result) = ledger.transpose() {
        tried.push(Attempt { what: "ledger".to_owned(), result });
    }
    tried.extend(stores);
    tried.extend(try_apart(config, jobs).await);
    tried
}

async fn try_stores(config: &Config, jobs: &[Job]) -> Vec<Attempt> {
    let are_several = config.stores.len() > 1;
    let trying = config.stores.iter().map(|(name, store)| within_time(LONGEST, try_store(name, store, jobs, are_several)));
    let mut tried = Vec::new();
    for ((name, store), result) in config.stores.iter().zip(join_all(trying).await) {
        tried.push(Attempt { what: format!("store {name}"), result });
        tried.extend(
            encryption::in_words(store).map(|said| Attempt { what: format!("store {name}: encryption"), result: Ok(said) }),
        );
    }
    tried
}

/// Finds jobs of which two stores are one place, among those that answer. Each store is asked once, whichever jobs use it.
async fn try_apart(config: &Config, jobs: &[Job]) -> Vec<Attempt> {
    let of_jobs: Vec<Vec<String>> = jobs.iter().map(|job| stores_of(config, job).map(|(name, _)| name).collect()).collect();
    let several: BTreeSet<&String> = of_jobs.iter().filter(|names| names.len() > 1).flatten().collect();
    let opening = several.iter().filter_map(|name| Some((*name, config.stores.get(*name)?))).map(|(name, store)| async move {
        let store = Store::open(store).await.ok()?;
        ensure_answers(&store).await.ok()?;
        Some((name.as_str(), store))
    });
    let opened: Vec<(&str, Store)> = join_all(opening).await.into_iter().flatten().collect();
    let mut tried = Vec::new();
    for (job, names) in jobs.iter().zip(&of_jobs) {
        let stores = opened.iter().filter(|(name, _)| names.iter().any(|of_job| of_job == name));
        let stores: Vec<(&str, &Store)> = stores.map(|(name, store)| (*name, store)).collect();
        if let Err(error) = ensure_apart(&stores, false).await {
            tried.push(Attempt { what: format!("stores of {}", job.name), result: Err(error) });
        }
    }
    tried
}

/// Asks each server for its databases. Returns the jobs with those that their patterns stand for, and what each server said.
async fn try_servers<'c>(config: &'c Config, jobs: &[Job]) -> (Vec<Attempt>, Vec<Job>, Vec<(&'c String, Listed)>) {
    let (mut tried, mut found, mut said) = (Vec::new(), Found::default(), Vec::new());
    let asking = config.servers.values().map(|server| async { databases::list(&server.login.settings()?).await });
    let asking = asking.map(|listed| within_time(LONGEST, listed));
    for (name, listed) in config.servers.keys().zip(join_all(asking).await) {
        match listed {
            Ok(listed) => {
                found.add(Asked::Server(name.clone()), listed.names.clone());
                said.push((name, listed));
            }
            Err(error) => tried.push(Attempt { what: format!("server {name}"), result: Err(error) }),
        }
    }
    let with_entries = found.with_entries(config);
    for (number, (name, listed)) in said.iter().enumerate() {
        if let Some(error) = one_server::under_two_names(name, listed, &said[..number]) {
            tried.push(Attempt { what: format!("server {name}"), result: Err(error) });
            continue;
        }
        let left_out = listed.left_out.iter().map(|(own, why)| format!("{} is left out: {why}", own.escape_debug()));
        let of_it = with_entries.iter().filter(|(found, _)| found.starts_with(&format!("{name}.")));
        let taken = of_it.map(|(found, entry)| format!("{found} is [databases.{entry}], whose settings count for its jobs"));
        let counts = format!("{} of {} count", found.count(name, config), units::plural(listed.names.len(), "database"));
        let result = Ok(format!("{counts}{}", warnings(left_out.chain(taken).take(WARNINGS_OF_A_SERVER))));
        tried.push(Attempt { what: format!("server {name}"), result });
    }
    tried.extend(try_schemas(&mut found, config, jobs).await);
    let is_one_silent = tried.iter().any(|tried| tried.result.is_err());
    let jobs = found.given_to(jobs, config);
    for job in jobs.iter().filter(|job| job.chosen.is_some()) {
        let patterns = job.chosen.as_ref().map(ToString::to_string).unwrap_or_default();
        let none = (job.databases.is_empty() && !is_one_silent).then(|| format!("it runs on no {} now", job.has_runs_for()));
        let counts = format!("{patterns}: {}", units::plural(job.databases.len(), job.has_runs_for()));
        tried.push(Attempt {
            what: format!("{}s of {}", job.has_runs_for(), job.name),
            result: Ok(format!("{counts}{}", warnings(none))),
        });
    }
    (tried, jobs, said)
}

/// Asks the databases of jobs with `schemas` for these, and adds them to what was found.
async fn try_schemas(found: &mut Found, config: &Config, jobs: &[Job]) -> Vec<Attempt> {
    let asking = found.with_schemas(jobs, config).into_iter().map(|database| async move {
        let asked = Asked::Database(database);
        let answer = within_time(LONGEST, asked.ask(config)).await;
        (asked, answer)
    });
    let answers = futures_util::stream::iter(asking).buffered(AT_ONCE).collect::<Vec<_>>().await;
    let mut tried = Vec::new();
    for (asked, answer) in answers {
        let result = answer.map(|listed| {
            let left_out = listed.left_out.iter().map(|(own, why)| format!("{} is left out: {why}", own.escape_debug()));
            let said = format!(
                "it has {}{}",
                units::plural(listed.names.len(), "schema"),
                warnings(left_out.take(WARNINGS_OF_A_SERVER))
            );
            found.add(asked.clone(), listed.names);
            said
        });
        tried.push(Attempt { what: format!("schemas of {asked}").replace('`', ""), result });
    }
    tried
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
        Err(error) => return vec![Attempt { what, result: Err(error) }],
    };
    let (mut connection, server, clock) = match within_time(LONGEST, connect(&settings)).await {
        Ok(connected) => connected,
        Err(error) => return try_client_tools(what, error, &settings, config).await,
    };
    let also_found = one_server::also_found(name, &settings, &mut connection, config, servers).await;
    let mut tried = vec![Attempt {
        what: what.clone(),
        result: Ok(format!(
            "{}, PostgreSQL {}{}",
            settings.display(),
            server.version,
            warnings(clock.into_iter().chain(also_found))
        )),
    }];
    let tools = client_tools::find(config.tools.bin_dir.as_deref(), server.major()).await;
    let way_in = match &tools {
        Ok(tools) => Some(within_time(LONGEST, client_tools::try_connection(tools, &settings)).await),
        Err(_) => None,
    };
    tried.push(Attempt {
        what: format!("{what}: client tools"),
        result: tools.map(|tools| format!("{} in {}", tools.version, tools.folder.display())),
    });
    tried.extend(way_in.map(|result| Attempt { what: format!("{what}: {CLIENT_TOOLS}"), result }));
    for job in jobs.iter().filter(|job| job.databases.iter().any(|other| other == name)) {
        let job = &Job { task: job.task_on(config, name).into_owned(), ..job.clone() };
        let answered = tokio::time::timeout(LONGEST, may_run(&mut connection, &settings, database, job, config)).await;
        let (is_silent, result) = match answered {
            Ok(result) => (false, result),
            Err(_) => (true, Err(silent())),
        };
        tried.push(Attempt { what: format!("{what}: privileges for {}", job.name), result });
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
    let mut tried = vec![Attempt { what, result: Err(error) }];
    if let Ok(tools) = client_tools::find_for_restore(config.tools.bin_dir.as_deref(), u32::MAX).await {
        let result = within_time(LONGEST, client_tools::try_connection(&tools, settings)).await;
        tried.push(Attempt { what: way_in, result });
    }
    tried
}

async fn try_ledger(config: &Config) -> Result<Option<String>> {
    let Some(mut ledger) = Ledger::new(config)? else { return Ok(None) };
    let trying = async {
        let ready = ledger.readiness().await?;
        let strangers = if config.servers.is_empty() { Vec::new() } else { ledger.strangers().await? };
        Ok(format!("{ready}{}", warnings(of_strangers(&strangers))))
    };
    within_time(LONGEST, trying).await.map(Some)
}

/// Tenants who may connect to the ledger's database can take the locks by which runs know each other.
fn of_strangers(roles: &[String]) -> Option<String> {
    let first = roles.first()?;
    let others = if roles.len() > 1 { format!(" and {} others", roles.len() - 1) } else { String::new() };
    Some(format!(
        "{}{others} may connect to its database without being runners: such a session can take the locks by which runs of one job, and `max_concurrent` over \
         several hosts, are known. REVOKE CONNECT ON DATABASE of the ledger FROM PUBLIC",
        first.escape_debug()
    ))
}

async fn try_store(name: &str, configured: &config::Store, jobs: &[Job], are_several: bool) -> Result<String> {
    let store = Store::open(configured).await?;
    if are_several {
        ensure_answers(&store).await?;
    }
    let mut probed = store.probe().await?;
    if let Store::S3(s3) = &store {
        let archiving = s3.archiving().await;
        probed.warnings.extend(lifetimes::unfit(name, configured, (probed.expiry.as_ref(), archiving.as_ref()), jobs));
        if s3.tags_proved() {
            probed.warnings.extend(lifetimes::unused_tags(archiving.as_ref(), s3.moves_tagged().await));
        }
    }
    let did = if probed.can_delete { "wrote, read, listed and deleted a probe" } else { "wrote, read and listed a probe" };
    Ok(format!("{}: {did}{}", store.location(""), warnings(probed.warnings)))
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
