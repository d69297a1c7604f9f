//! Prepares a new configuration: for a server that is looked at.

use std::collections::BTreeSet;
use std::path::Path;

use anyhow::{Context as _, Result};
use chrono::NaiveTime;

use super::arguments::{Arguments, Place, time_of_day};
use super::facts::{Contents, Listed, Server, ShownDatabase};
use super::names::{free, quoted, slug};
use super::prepared::Prepared;
use super::propose::Target;
use super::shown::{Shown, runs_in};
use super::text::{Choices, DatabaseEntry, NewConfig, NewStore};
use super::{ask, look, prove, store};
use crate::base::fault::{Fault, Kind};
use crate::base::toml_file::did_you_mean;
use crate::base::units;
use crate::config::{Config, is_of_a_variable};
use crate::pg::{Settings, client_tools};
use crate::run::job::{self, Job};

const AT: &str = "02:00";

/// So many names of databases are listed in a message.
const NAMES_LISTED: usize = 10;

/// pgtend's own databases for proofs, which come and go.
const SCRATCH: &str = "pgtend_verify_";

/// Where the URL is, and what an entry of `[databases]` says of that.
struct Given {
    url: String,
    /// `url_env = …` or `url_file = …`: for the one database that it names.
    elsewhere: Option<String>,
}

pub async fn prepare(place: &Place, arguments: &Arguments, asks: bool) -> Result<Prepared> {
    let given = given(arguments)?;
    let settings = Settings::from_url(&given.url)?;
    let is_named = Settings::means_a_database(&given.url);
    ensure_one_url_for_one_database(&given, &settings, arguments)?;
    let names = match arguments.database.as_slice() {
        [] if is_named || given.elsewhere.is_some() => vec![settings.database().to_owned()],
        names => names.to_vec(),
    };
    let server = look::server(&settings, is_named, &names).await?;
    let chosen = chosen(&server, &names, asks)?;
    let mut shown = Shown::of(&server);
    let mut found = Vec::new();
    for listed in &chosen {
        found.push((listed, look::contents(&settings.with_database(&listed.name)).await));
    }
    // Without tables of its own, it is what its name says: a place to connect to.
    let is_for_connections = |(listed, contents): &(&Listed, Result<Contents>)| {
        listed.name == "postgres" && contents.as_ref().is_ok_and(|contents| !contents.has_tables)
    };
    if found.len() > 1 && arguments.database.is_empty() {
        found.retain(|found| !is_for_connections(found));
    }
    let new_store = choose_store(place, arguments, asks)?;
    let at = match (arguments.at, asks) {
        (Some(at), _) => at,
        (None, true) => ask::question(&format!("When do backups begin ({})?", arguments.timezone.name()), AT, time_of_day)?,
        (None, false) => NaiveTime::from_hms_opt(2, 0, 0).unwrap_or_default(),
    };
    let (mut entries, mut targets, mut taken, mut ledger) = (Vec::new(), Vec::new(), BTreeSet::new(), None);
    let mut looked_at = Vec::new();
    for (listed, contents) in found {
        let name = free(slug(&listed.name), &mut taken);
        if listed.may_create && !server.is_standby && ledger.is_none() {
            ledger = Some(name.clone());
        }
        if let Ok(contents) = &contents {
            shown.runs_already.extend(runs_in(&name, contents));
            looked_at.push((name.clone(), listed.name.clone()));
        }
        let contents = contents.unwrap_or_else(|error| {
            shown.not_seen(&name, &error);
            Contents::default()
        });
        shown.databases.push(ShownDatabase::of(&name, listed, &contents));
        entries.push(entry(&name, listed, &contents, &given)?);
        targets.push(Target { name, contents });
    }
    url_to_do(&given, &settings, chosen.iter().map(|listed| listed.name.as_str()), &mut shown)?;
    let bin_dir = arguments.bin_dir.as_deref().map(absolute);
    if let Err(error) = client_tools::find(bin_dir.as_deref().map(Path::new), server.major).await {
        shown.to_do.push(format!("{error:#}"));
    }
    let ledger = ledger.ok_or_else(|| no_ledger(&server, &chosen));
    let text = NewConfig {
        schema: "schema/config.json".to_owned(),
        server: format!("PostgreSQL {} at {}", server.version, server.place),
        databases: &entries,
        store: &new_store,
        bin_dir: bin_dir.as_deref(),
        ledger: ledger.as_ref().map(String::as_str).map_err(String::as_str),
    }
    .text();
    if let Err(why) = ledger {
        shown.to_do.push(format!("no [ledger]: {why}"));
    }
    let choices = Choices { store: new_store.name().to_owned(), at, timezone: arguments.timezone };
    let config = prove::config(&text)?;
    prove::entries_lead_to(&config, &looked_at).await?;
    let known = jobs_there(place, &config, &mut shown);
    Ok(Prepared { config, new_config: Some(text), targets, known, choices, shown })
}

/// Reads jobs that were there before their configuration. What does not fit it is left to a person, and said.
fn jobs_there(place: &Place, config: &Config, shown: &mut Shown) -> Vec<Job> {
    if !place.jobs.exists() {
        return Vec::new();
    }
    let folder = match job::load_dir(&place.jobs, config) {
        Ok(folder) => folder,
        Err(problem) => {
            shown.to_do.push(problem.in_a_line());
            return Vec::new();
        }
    };
    for broken in &folder.broken {
        let reasons = broken.reasons().join("; ");
        shown.to_do.push(format!("job `{}` is there, and is not right with the new configuration: {reasons}", broken.job));
    }
    let there = |job: &Job| format!("job `{}` in {}: [{}]", job.name, place.jobs.display(), job.task.kind());
    shown.runs_already.extend(folder.jobs.iter().map(there));
    folder.jobs
}

fn given(arguments: &Arguments) -> Result<Given> {
    if let Some(variable) = &arguments.url_env {
        let url = std::env::var(variable).map_err(|_| Fault::new(Kind::Configuration, no_variable(variable)))?;
        return Ok(Given { url, elsewhere: Some(format!("url_env = {}", quoted(variable))) });
    }
    if let Some(file) = &arguments.url_file {
        let url = std::fs::read_to_string(file).with_context(|| format!("cannot read {}", file.display()))?;
        return Ok(Given { url: url.trim().to_owned(), elsewhere: Some(format!("url_file = {}", quoted(&absolute(file)))) });
    }
    Ok(Given { url: arguments.url.clone().unwrap_or_else(|| "postgres://".to_owned()), elsewhere: None })
}

/// What is no name of a variable may be the URL itself.
fn no_variable(name: &str) -> String {
    match is_of_a_variable(name) {
        true => format!("the environment has no variable `{name}`"),
        false => "the environment has no such variable: --url-env takes the name of one, not the URL".to_owned(),
    }
}

/// A URL that stays where it is leads to one database, and every entry that names it would lead there.
fn ensure_one_url_for_one_database(given: &Given, settings: &Settings, arguments: &Arguments) -> Result<()> {
    let own = settings.database();
    let Some(other) = arguments.database.iter().find(|name| *name != own).filter(|_| given.elsewhere.is_some()) else {
        return Ok(());
    };
    let message = format!(
        "--url-env and --url-file are for the one database that the URL names, which is `{own}`: an entry for `{other}` would lead to `{own}`. Put a URL \
         of `{other}` into a variable or file of its own: for a first configuration, name that one here; in one that is there, add [databases.NAME] with \
         url_env or url_file, and run `pgtend init` again. Or give the server's URL without a password, which comes from ~/.pgpass: \
         pgtend init postgres://USER@HOST --database NAME"
    );
    Err(not_there(message).into())
}

/// Chooses the databases: those that were named, else all.
fn chosen(server: &Server, names: &[String], asks: bool) -> Result<Vec<Listed>> {
    if names.is_empty() && server.databases.len() > look::MOST_DATABASES {
        let message = format!(
            "the server has more than {} databases: name those that are meant, with --database NAME for each or in the URL",
            look::MOST_DATABASES
        );
        return Err(not_there(message).into());
    }
    let all = || server.databases.iter().filter(|listed| !listed.name.starts_with(SCRATCH)).cloned().collect::<Vec<_>>();
    if names.is_empty() && asks && server.databases.len() > 1 {
        return ask_which(&all());
    }
    let chosen: Vec<Listed> = match names.is_empty() {
        true => all(),
        false => names.iter().map(|name| named(&server.databases, name)).collect::<Result<_, String>>().map_err(not_there)?,
    };
    match chosen.is_empty() {
        true => Err(not_there("the server has no database that this role may connect to".to_owned()).into()),
        false => Ok(chosen),
    }
}

fn ask_which(all: &[Listed]) -> Result<Vec<Listed>> {
    let names: Vec<&str> = all.iter().map(|listed| listed.name.as_str()).collect();
    let question = format!("Which databases, with commas between them? There are: {}", names.join(", "));
    ask::question(&question, "all", |answer| match answer {
        "all" => Ok(all.to_vec()),
        names => names.split(',').map(|name| named(all, name.trim())).collect(),
    })
}

fn named(databases: &[Listed], name: &str) -> Result<Listed, String> {
    let found = databases.iter().find(|listed| listed.name == name).cloned();
    found.ok_or_else(|| {
        let names = databases.iter().map(|listed| listed.name.as_str());
        let hint = did_you_mean(name, names.clone()).unwrap_or_else(|| format!("there are: {}", some(names)));
        format!("the server has no database `{name}` that this role may connect to; {hint}")
    })
}

/// The first of the names.
fn some<'n>(mut names: impl ExactSizeIterator<Item = &'n str>) -> String {
    let first: Vec<&str> = names.by_ref().take(NAMES_LISTED).collect();
    let more = if names.len() > 0 { ", …" } else { "" };
    first.join(", ") + more
}

fn not_there(message: String) -> Fault {
    Fault::new(Kind::Configuration, message)
}

fn choose_store(place: &Place, arguments: &Arguments, asks: bool) -> Result<NewStore> {
    let is_here = place.folder.as_os_str().is_empty();
    let default = if is_here { "store" } else { "/var/lib/pgtend/store" };
    let chosen = match (&arguments.store, asks) {
        (Some(text), _) => store::parse(text).map_err(not_there)?,
        (None, true) => ask::question("Where do backups go: a folder, or s3://BUCKET/PREFIX?", default, store::parse)?,
        (None, false) => store::parse(default).map_err(not_there)?,
    };
    Ok(match chosen {
        NewStore::Dir(path) => NewStore::Dir(match path.strip_prefix("~/").zip(std::env::home_dir()) {
            Some((below, home)) => home.join(below).display().to_string(),
            // The configuration reads a path as relative to itself, a person as relative to where he is.
            None if is_here => path,
            None => absolute(Path::new(&path)),
        }),
        bucket => bucket,
    })
}

fn entry(name: &str, listed: &Listed, contents: &Contents, given: &Given) -> Result<DatabaseEntry> {
    let connection = match &given.elsewhere {
        Some(elsewhere) => elsewhere.clone(),
        None => {
            let url = Settings::written(&given.url, &listed.name).map_err(not_there)?;
            format!("url = {}", quoted(&url.text))
        }
    };
    let renamed = if name == listed.name { String::new() } else { format!("{} on its server, ", listed.name) };
    let extensions = if contents.extensions.is_empty() { String::new() } else { format!("; {}", contents.extensions.join(", ")) };
    let size = listed.size_bytes.map_or("of unknown size".to_owned(), |bytes| units::bytes(bytes.unsigned_abs()));
    let remark = format!("{renamed}{size}{extensions}");
    Ok(DatabaseEntry { name: name.to_owned(), connection, remark })
}

/// Says where a password goes that stood in the URL, and what stays in a service file.
fn url_to_do<'n>(given: &Given, settings: &Settings, mut names: impl Iterator<Item = &'n str>, shown: &mut Shown) -> Result<()> {
    let first = names.next().unwrap_or_default();
    let written = Settings::written(&given.url, first).map_err(not_there)?;
    if let Some(service) = written.service {
        let named_by = if given.elsewhere.is_some() { "the URL or PGSERVICE names" } else { "the configuration names" };
        shown.to_do.push(format!(
            "{named_by} the service {service}: what that file says stays there, is read at each connection, and is not in the configuration. Whoever \
             runs pgtend must find and be able to read it"
        ));
    }
    if given.elsewhere.is_some() || !written.had_password {
        return Ok(());
    }
    let database = if names.next().is_some() { "*" } else { first };
    shown.to_do.push(format!(
        "the URL's password was not written to any file. Put this line with the password into ~/.pgpass, and let nobody else read that (chmod 600 \
         ~/.pgpass): {}",
        settings.passfile_line(database)
    ));
    Ok(())
}

/// Says why no database keeps the run history.
fn no_ledger(server: &Server, chosen: &[Listed]) -> String {
    if server.is_standby {
        return "this server is a standby, which takes no rows: name a database of its primary".to_owned();
    }
    let name = chosen.first().map_or("NAME", |listed| listed.name.as_str());
    let database = crate::pg::identifier(name);
    format!("the role may create a schema in none of the databases: GRANT CREATE ON DATABASE {database} TO the role")
}

fn absolute(path: &Path) -> String {
    std::path::absolute(path).unwrap_or_else(|_| path.to_owned()).display().to_string()
}
