//! What servers say of all their databases at once, and databases of their schemas: which there are, and whose sets are theirs.

use std::collections::{BTreeMap, HashMap};

use chrono::{DateTime, Utc};
use futures_util::StreamExt as _;
use futures_util::future::join_all;

use super::say::Unread;
use super::stores::in_time;
use crate::base::units;
use crate::config::{Config, places, servers};
use crate::ledger::LeftOut;
use crate::pg::databases::Listed;
use crate::pg::failure;
use crate::run::fleet;
use crate::run::fleet::asked::Asked;
use crate::run::job::Job;
use crate::task::backup::whose::{OfServer, Theirs, Whose};

/// So many databases are asked for their schemas at once.
const AT_ONCE: usize = 32;

/// What servers and databases say now, and what they said before where they do not answer.
pub(super) struct Servers {
    pub found: fleet::Found,
    pub left_out: Vec<LeftOut>,
    /// The databases that servers have now, and that `databases`, `include` and `exclude` leave out; without those that have entries of their own.
    pub excluded: Vec<String>,
    answers: HashMap<String, Result<OfServer, String>>,
    /// Of databases with entries that were asked for their schemas: whose sets are theirs.
    theirs: HashMap<String, Result<Theirs, String>>,
    /// The databases that do not say which schemas they have, each with the reason.
    silent: BTreeMap<String, String>,
}

/// Asks all servers, each for some seconds.
pub async fn asked(config: &Config) -> HashMap<String, Result<OfServer, String>> {
    let asking = config.servers.iter().map(|(name, server)| async move {
        let answer = in_time("it", async { OfServer::ask(&server.login.settings()?).await }).await;
        (name.clone(), answer.map_err(|error| failure::in_a_line(&error)))
    });
    join_all(asking).await.into_iter().collect()
}

impl Servers {
    /// Pure. `found` and `before`: what the ledger has as found and as left out.
    pub fn of(
        config: &Config,
        answers: HashMap<String, Result<OfServer, String>>,
        (mut found, before): (fleet::Found, Vec<LeftOut>),
        now: DateTime<Utc>,
    ) -> Self {
        let answered = |server: &str| answers.get(server).and_then(|answer| answer.as_ref().ok());
        let (mut left_out, mut since) = (Vec::new(), HashMap::new());
        for of_ledger in before {
            match servers::parts(&of_ledger.database) {
                Some((server, _)) if answered(server).is_some() => drop(since.insert(of_ledger.database, of_ledger.since)),
                _ => left_out.push(of_ledger),
            }
        }
        for (name, server) in &config.servers {
            let Some(OfServer { listed, .. }) = answered(name) else { continue };
            found.add(Asked::Server(name.clone()), listed.names.clone());
            for (own, why) in listed.left_out.iter().filter(|(own, _)| server.takes(own)) {
                let database = servers::name_of(name, own);
                let since = since.get(&database).copied().unwrap_or(now);
                left_out.push(LeftOut { database, why: (*why).to_owned(), since });
            }
        }
        left_out.retain(|left_out| !fleet::has_entry(config, &left_out.database));
        left_out.sort_by(|a, b| a.database.cmp(&b.database));
        let of_answers = config.servers.iter().filter_map(|(name, server)| Some((name, server, answered(name)?)));
        let excluded = of_answers.flat_map(|(name, server, OfServer { listed, .. })| {
            let excluded = listed.names.iter().filter(|own| !server.takes(own));
            excluded.map(|own| servers::name_of(name, own))
        });
        let excluded = fleet::without_entries(config, excluded.collect());
        Self { found, left_out, excluded, answers, theirs: HashMap::new(), silent: BTreeMap::new() }
    }

    /// Asks the databases whose schemas have jobs for these. One that does not answer, or whose server does not, keeps those that it had.
    pub async fn ask_for_schemas(&mut self, config: &Config, jobs: &[Job], now: DateTime<Utc>) {
        let databases = self.found.with_schemas(jobs, config);
        let is_of_entry = |name: &str| config.databases.contains_key(name);
        let is_away = |name: &str| {
            let server = servers::parts(name).filter(|_| !is_of_entry(name)).and_then(|(server, _)| self.answers.get(server));
            matches!(server, Some(Err(_)))
        };
        let asking = databases.into_iter().filter(|name| !is_away(name)).map(|name| async move {
            let asked = Asked::Database(name.clone());
            let listing = in_time("it", asked.ask(config));
            let whose = Whose::Own { by_name: false };
            let theirs = async {
                if !is_of_entry(&name) {
                    return None;
                }
                Some(in_time("the database", Theirs::of(config, &name, &whose)).await.map_err(|error| failure::in_a_line(&error)))
            };
            let (listed, theirs) = tokio::join!(listing, theirs);
            (name, listed.map_err(|error| failure::in_a_line(&error)), theirs)
        });
        let answers: Vec<_> = futures_util::stream::iter(asking).buffered(AT_ONCE).collect().await;
        for (name, listed, theirs) in answers {
            self.theirs.extend(theirs.map(|theirs| (name.clone(), theirs)));
            match listed {
                Ok(listed) => self.take_schemas(config, jobs, name, listed, now),
                Err(why) => drop(self.silent.insert(name, why)),
            }
        }
        self.left_out.sort_by(|a, b| a.database.cmp(&b.database));
    }

    fn take_schemas(&mut self, config: &Config, jobs: &[Job], database: String, listed: Listed, now: DateTime<Utc>) {
        let is_of_it = |left_out: &LeftOut| places::parts(&left_out.database).is_some_and(|(of, _)| of == database);
        let (of_it, mut others): (Vec<_>, Vec<_>) = std::mem::take(&mut self.left_out).into_iter().partition(is_of_it);
        let since: HashMap<String, DateTime<Utc>> = of_it.into_iter().map(|before| (before.database, before.since)).collect();
        let left_out = listed.left_out.iter().map(|(own, why)| {
            let name = places::name_of(&database, own);
            LeftOut { since: since.get(&name).copied().unwrap_or(now), database: name, why: (*why).to_owned() }
        });
        others.extend(left_out.filter(|left_out| fleet::counts(&left_out.database, config, jobs)));
        self.left_out = others;
        self.found.add_listed(Asked::Database(database), listed);
    }

    pub fn unread(&self, config: &Config) -> Vec<Unread> {
        let silent = self.answers.iter().filter_map(|(server, answer)| Some((server, answer.as_ref().err()?)));
        let mut unread: Vec<Unread> = silent
            .map(|(server, why)| {
                let had = units::plural(self.found.count(server, config), "database");
                Unread {
                    what: format!("server {server}"),
                    why: format!("server `{server}` does not answer, so the {had} that it had count: {why}"),
                }
            })
            .collect();
        unread.extend(self.silent.iter().map(|(database, why)| Unread {
            what: format!("database {database}"),
            why: format!("database `{database}` does not say which schemas it has, so those that it had count: {why}"),
        }));
        unread.sort_by(|a, b| a.what.cmp(&b.what));
        unread
    }

    /// Whose sets are those of a place: of the same database, whatever it is of it.
    pub fn theirs(&self, config: &Config, place: &str) -> Result<Theirs, String> {
        let name = config.database_of(place);
        if let Some(theirs) = self.theirs.get(name) {
            return theirs.clone();
        }
        let Some((server, own)) = servers::parts(name) else { return Err("no server has it".to_owned()) };
        match self.answers.get(server) {
            Some(Ok(of_server)) => Ok(Theirs::of_found(of_server, &own)),
            Some(Err(why)) => Err(why.clone()),
            None => Err("its server was not asked".to_owned()),
        }
    }
}
