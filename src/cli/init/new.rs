//! Prepares a new configuration: for a server that is looked at.

use std::collections::BTreeSet;
use std::path::Path;

use anyhow::Result;
use chrono::NaiveTime;

use super::arguments::{Arguments, Place, time_of_day};
use super::decide::LeftOut;
use super::facts::{Contents, Listed, Server, ShownDatabase};
use super::given::{Given, absolute};
use super::names::{free, slug};
use super::prepared::{Entries, Prepared};
use super::propose::Target;
use super::shown::{Shown, runs_in};
use super::text::{Choices, NewConfig, NewStore};
use super::{ask, fleet, look, prove, store};
use crate::base::fault::{Fault, Kind};
use crate::base::toml_file::did_you_mean;
use crate::config::Config;
use crate::pg::{Settings, client_tools};
use crate::run::job::{self, Job};

const AT: &str = "02:00";

/// So many names of databases are listed in a message.
const NAMES_LISTED: usize = 10;

/// pgtend's own databases for proofs, which come and go.
const SCRATCH: &str = "pgtend_verify_";

pub async fn prepare(place: &Place, arguments: &Arguments, asks: bool) -> Result<Prepared> {
    let given = Given::by(arguments)?;
    let settings = Settings::from_url(&given.url)?;
    let is_named = Settings::means_a_database(&given.url);
    ensure_one_url_for_one_database(&given, &settings, arguments)?;
    let names = match arguments.database.as_slice() {
        [] if arguments.fleet => fleet::LEDGERS.map(str::to_owned).into(),
        [] if is_named || given.elsewhere.is_some() => vec![settings.database().to_owned()],
        names => names.to_vec(),
    };
    let server = look::server(&settings, is_named && !arguments.fleet, &names).await?;
    let is_fleet = fleet::is_wanted(arguments, names.is_empty(), server.databases.len(), asks)?;
    let chosen = if is_fleet { all(&server) } else { chosen(&server, &names, asks)? };
    let mut shown = Shown::of(&server);
    if names.is_empty() || is_fleet {
        shown.left_out_of(&server);
    }
    let new_store = choose_store(place, arguments, asks)?;
    let at = match (arguments.at, asks) {
        (Some(at), _) => at,
        (None, true) => ask::question(&format!("When do backups begin ({})?", arguments.timezone.name()), AT, time_of_day)?,
        (None, false) => NaiveTime::from_hms_opt(2, 0, 0).unwrap_or_default(),
    };
    let Entries { server: of_server, databases, targets, leads_to, ledger, found } = match is_fleet {
        true => fleet::entries(&settings, &given, (&server, &chosen), &mut shown).await?,
        false => entries(&settings, &given, (&server, &chosen), !arguments.database.is_empty(), &mut shown).await?,
    };
    url_to_do(&given, &settings, chosen.iter().map(|listed| listed.name.as_str()), &mut shown)?;
    let bin_dir = arguments.bin_dir.as_deref().map(absolute);
    if let Err(error) = client_tools::find(bin_dir.as_deref().map(Path::new), server.major).await {
        shown.to_do.push(format!("{error:#}"));
    }
    let ledger = ledger.ok_or_else(|| no_ledger(&server, &chosen));
    let text = NewConfig {
        schema: "schema/config.json".to_owned(),
        server: format!("PostgreSQL {} at {}", server.version, server.place),
        of_server: of_server.as_ref(),
        databases: &databases,
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
    prove::entries_lead_to(&config, &leads_to).await?;
    let known = jobs_there(place, &config, &mut shown);
    Ok(Prepared { config, new_config: Some(text), targets, found, known, choices, shown })
}

/// An entry for each database, and what is in it.
async fn entries(
    settings: &Settings,
    given: &Given,
    (server, chosen): (&Server, &[Listed]),
    are_named: bool,
    shown: &mut Shown,
) -> Result<Entries> {
    let mut found = Vec::new();
    for listed in chosen {
        found.push((listed, look::contents(&settings.with_database(&listed.name)).await));
    }
    // With nothing of its own, it is what its name says: a place to connect to.
    let is_for_connections = |(listed, contents): &(&Listed, Result<Contents>)| {
        listed.name == "postgres" && contents.as_ref().is_ok_and(|contents| !contents.has_objects)
    };
    if found.len() > 1 && !are_named && found.iter().any(is_for_connections) {
        found.retain(|found| !is_for_connections(found));
        shown.left_out.push(LeftOut {
            what: "database postgres".to_owned(),
            why: "it has nothing of its own, so it gets no entry; what is made in it later is in no backup until `pgtend init` runs again".to_owned(),
        });
    }
    let may_keep_runs = |listed: &Listed| listed.may_create && !server.is_standby;
    let own_ledger =
        found.iter().map(|(listed, _)| *listed).find(|listed| listed.name == fleet::LEDGERS[0] && may_keep_runs(listed));
    let own_ledger = own_ledger.map(|listed| listed.name.as_str());
    let (mut new, mut taken) = (Entries::default(), BTreeSet::new());
    for (listed, contents) in found {
        let name = free(slug(&listed.name), &mut taken);
        if may_keep_runs(listed) && new.ledger.is_none() && own_ledger.is_none_or(|own| own == listed.name) {
            new.ledger = Some(name.clone());
        }
        if let Ok(contents) = &contents {
            shown.runs_already.extend(runs_in(&name, contents));
            new.leads_to.push((name.clone(), listed.name.clone()));
        }
        let contents = contents.unwrap_or_else(|error| {
            shown.not_seen(&name, &error);
            Contents::default()
        });
        shown.databases.push(ShownDatabase::of(&name, listed, &contents));
        new.databases.push(given.entry(&name, listed, &contents)?);
        new.targets.push(Target { name, contents });
    }
    Ok(new)
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
            "the server has more than {} databases: name those that are meant, with --database NAME for each or in the URL, or take all: --fleet",
            look::MOST_DATABASES
        );
        return Err(not_there(message).into());
    }
    if names.is_empty() && asks && server.databases.len() > 1 {
        return ask_which(&all(server));
    }
    let chosen: Vec<Listed> = match names.is_empty() {
        true => all(server),
        false => names.iter().map(|name| named(&server.databases, name)).collect::<Result<_, String>>().map_err(not_there)?,
    };
    match chosen.is_empty() {
        true => Err(not_there("the server has no database that this role may connect to".to_owned()).into()),
        false => Ok(chosen),
    }
}

fn all(server: &Server) -> Vec<Listed> {
    server.databases.iter().filter(|listed| !listed.name.starts_with(SCRATCH)).cloned().collect()
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
