//! One entry for a server whose databases are found, and jobs for all that it has and will have.

use anyhow::{Context as _, Result};

use super::arguments::Arguments;
use super::decide::LeftOut;
use super::facts::{Contents, Listed, Server, ShownDatabase};
use super::given::Given;
use super::names::slug;
use super::prepared::Entries;
use super::propose::{ALL, Target};
use super::shown::Shown;
use super::text::ServerEntry;
use super::{ask, look};
use crate::base::units;
use crate::config::servers;
use crate::pg::Settings;
use crate::run::fleet::asked::Asked;

/// A server with more databases than this gets one entry, unless a person says otherwise.
const MOST_ENTRIES: usize = 5;

/// The name of the server in the configuration.
const NAME: &str = "main";

/// The databases that keep the run history, the best first: one of its own, and the one that every server has.
pub const LEDGERS: [&str; 2] = ["pgtend", "postgres"];

/// Returns whether one entry stands for the server, which has so many databases. `are_all_meant`: none of them was named.
pub fn is_wanted(arguments: &Arguments, are_all_meant: bool, count: usize, asks: bool) -> Result<bool> {
    if arguments.fleet || arguments.entries || !are_all_meant || !(2..=look::MOST_DATABASES).contains(&count) {
        return Ok(arguments.fleet);
    }
    let is_default = count > MOST_ENTRIES;
    if !asks {
        return Ok(is_default);
    }
    let question = format!(
        "The server has {}. Shall jobs run on all of them, also on those that appear later? Otherwise each gets an entry of its own",
        units::plural(count, "database")
    );
    ask::yes_or_no(&question, is_default)
}

/// The entry of the server, and that of the database that keeps the run history.
pub async fn entries(
    settings: &Settings,
    given: &Given,
    (server, databases): (&Server, &[Listed]),
    shown: &mut Shown,
) -> Result<Entries> {
    let of_name = |name: &str| databases.iter().find(|listed| listed.name == name);
    let may_keep_runs = |listed: &&Listed| listed.may_create && !server.is_standby;
    let ledger = LEDGERS.iter().filter_map(|name| of_name(name)).chain(databases).find(may_keep_runs);
    let connects_to = of_name("postgres").or(ledger).or(databases.first());
    let connects_to = connects_to.context("the server has no database that this role may connect to")?;
    let is_of_ledger = ledger.is_some_and(|ledger| ledger.name == connects_to.name);
    // With nothing of its own it is what its name says: a place to connect to.
    let exclude = !is_of_ledger && connects_to.name == "postgres" && {
        let contents = look::contents(&settings.with_database(&connects_to.name)).await;
        contents.is_ok_and(|contents| !contents.has_objects)
    };
    if exclude {
        shown.left_out.push(LeftOut {
            what: format!("database {}", connects_to.name),
            why: "it has nothing of its own, so `exclude` names it; once it has, `pgtend` and `pgtend doctor` say that no job backs it up".to_owned(),
        });
    }
    let mut new = Entries {
        server: Some(ServerEntry {
            name: NAME.to_owned(),
            connection: given.connection(&connects_to.name)?,
            exclude: exclude.then(|| connects_to.name.clone()),
        }),
        targets: vec![Target { name: ALL.to_owned(), contents: Contents::default() }],
        ..Entries::default()
    };
    if let Some(listed) = ledger {
        let name = slug(&listed.name);
        new.databases.push(given.entry(&name, listed, &Contents::default())?);
        new.leads_to.push((name.clone(), listed.name.clone()));
        new.ledger = Some(name);
        if listed.name != LEDGERS[0] {
            shown.to_do.push(format!(
                "the run history will be in the database {}. Where owners of other databases may connect to it, give it one of its own: CREATE DATABASE \
                 pgtend, and name that in [databases] and [ledger]",
                listed.name
            ));
        }
    }
    shown.left_out.push(LeftOut {
        what: "jobs for tables".to_owned(),
        why: "the databases were not looked into; write one by hand for all that have such a table, with `databases = \"*\"`"
            .to_owned(),
    });
    let own = |listed: &Listed| ShownDatabase::of(&servers::name_of(NAME, &listed.name), listed, &Contents::default());
    let are_backed_up = databases.iter().filter(|listed| !exclude || listed.name != connects_to.name);
    shown.databases.extend(are_backed_up.map(own));
    let names = databases.iter().map(|listed| listed.name.clone());
    new.found.add(Asked::Server(NAME.to_owned()), names.collect());
    Ok(new)
}
