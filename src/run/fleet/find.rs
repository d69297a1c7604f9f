//! Asks servers and databases what they have, keeps that in the ledger, and says once what changes.

use std::collections::BTreeSet;

use anyhow::Result;
use chrono::{DateTime, Utc};
use futures_util::StreamExt as _;

use super::asked::Asked;
use super::{Found, counts, is_needed};
use crate::base::fault::{Fault, Kind};
use crate::base::units;
use crate::config::{Config, servers};
use crate::ledger::{Changes, Ledger};
use crate::pg::databases::Listed;
use crate::pg::failure;
use crate::run::job::Job;

/// More names in one line would hide the rest of the log.
const NAMED: usize = 10;

/// So many are asked at once.
const AT_ONCE: usize = 16;

/// A server or a database that did not answer.
#[derive(Debug)]
pub struct Silent {
    pub asked: Asked,
    pub error: anyhow::Error,
    /// When it gave the list that counts meanwhile, where that is the ledger's.
    pub listed_at: Option<DateTime<Utc>>,
}

/// The ledger as the memory of what servers had.
#[derive(Clone, Copy)]
pub enum Memory<'l> {
    None,
    /// Lists that only show do not write: who writes a change first also tells it.
    Read(&'l Ledger),
    Write(&'l Ledger),
}

impl<'l> Memory<'l> {
    fn ledger(self) -> Option<&'l Ledger> {
        match self {
            Self::None => None,
            Self::Read(ledger) | Self::Write(ledger) => Some(ledger),
        }
    }
}

/// Asks all servers for their databases, and then the databases of jobs with `schemas` for these, each for a bounded time. What one does not say is what it
/// had before: in `known`, or by the ledger.
pub async fn find(config: &Config, jobs: &[Job], memory: Memory<'_>, known: &Found) -> (Found, Vec<Silent>) {
    let asking = Asking { config, jobs, memory, known };
    let servers = config.servers.keys().map(|server| Asked::Server(server.clone()));
    let (mut found, mut silent) = asking.of(servers.collect()).await;
    let is_away = |database: &String| {
        let server = servers::parts(database).filter(|_| !config.databases.contains_key(database)).map(|(server, _)| server);
        server.is_some_and(|server| silent.iter().any(|silent| silent.asked == Asked::Server(server.to_owned())))
    };
    let databases = found.with_schemas(jobs, config);
    let (away, there): (BTreeSet<_>, BTreeSet<_>) = databases.into_iter().partition(is_away);
    let to_ask = there.into_iter().map(Asked::Database).collect();
    let (of_databases, not_answered) = asking.of(to_ask).await;
    found.lists.extend(of_databases.lists);
    found.left_out.extend(of_databases.left_out);
    silent.extend(not_answered);
    // That their server is away was said.
    for asked in away.into_iter().map(Asked::Database) {
        if let Some((names, _)) = asking.had(&asked).await {
            found.add(asked, names);
        }
    }
    (found, silent)
}

/// Finds databases and schemas for a command: warns of those that do not answer, and gives the jobs what is known.
pub async fn found_for(config: &Config, memory: Memory<'_>, jobs: Vec<Job>) -> Vec<Job> {
    if !is_needed(&jobs) {
        return jobs;
    }
    let (found, silent) = find(config, &jobs, memory, &Found::default()).await;
    for Silent { asked, error, listed_at } in &silent {
        let had = match (found.had(asked, config), listed_at) {
            (Some(number), Some(at)) => {
                let at = at.format("%Y-%m-%d %H:%M:%S UTC");
                format!("the {} that it had at {at} count", units::plural(number, asked.has()))
            }
            _ => format!("nothing is known of its {}s", asked.has()),
        };
        tracing::warn!("{asked} does not answer, so {had}: {}", failure::in_a_line(error));
    }
    found.given_to(&jobs, config)
}

/// Fails for a job with patterns if one of them may stand for what a server or a database has of which nothing is known.
pub async fn ensure_known(job: &Job, config: &Config, memory: Memory<'_>) -> Result<()> {
    let Some(chosen) = &job.chosen else { return Ok(()) };
    let memory = memory.ledger().map_or(Memory::None, Memory::Read);
    let (found, silent) = find(config, std::slice::from_ref(job), memory, &Found::default()).await;
    for Silent { asked, error, .. } in silent {
        let may_be_of = match &asked {
            Asked::Server(server) => chosen.may_be_of(server),
            Asked::Database(_) => chosen.has_patterns_of_schemas(),
        };
        if may_be_of && !found.lists.contains_key(&asked) {
            let message = format!("which {}s {asked} has is not known", asked.has());
            return Err(error.context(Fault::new(Kind::Unreachable, message)));
        }
    }
    Ok(())
}

/// What a look for databases and schemas goes by.
struct Asking<'a> {
    config: &'a Config,
    jobs: &'a [Job],
    memory: Memory<'a>,
    known: &'a Found,
}

impl Asking<'_> {
    async fn of(&self, all: Vec<Asked>) -> (Found, Vec<Silent>) {
        let asking = all.into_iter().map(|asked| async move {
            let answer = asked.ask(self.config).await;
            (asked, answer)
        });
        let (mut found, mut silent, mut unchanged) = (Found::default(), Vec::new(), Vec::new());
        let mut asking = futures_util::stream::iter(asking).buffered(AT_ONCE);
        while let Some((asked, answer)) = asking.next().await {
            match answer {
                Ok(listed) => {
                    match self.known.has_said(&asked, &listed) {
                        true => unchanged.push(asked.ledger_name()),
                        false => self.remember(&asked, &listed).await,
                    }
                    found.add_listed(asked, listed);
                }
                Err(error) => {
                    let (had, listed_at) = self.had(&asked).await.unzip();
                    silent.push(Silent { asked: asked.clone(), error, listed_at: listed_at.flatten() });
                    if let Some(names) = had {
                        found.add(asked, names);
                    }
                }
            }
        }
        if let (Memory::Write(ledger), false) = (self.memory, unchanged.is_empty())
            && let Err(error) = ledger.confirm_databases(&unchanged).await
        {
            tracing::warn!("when databases were last asked is not in the ledger: {}", failure::in_a_line(&error));
        }
        (found, silent)
    }

    /// What counts of one that does not answer, and when it was listed, where the ledger says that.
    async fn had(&self, asked: &Asked) -> Option<(Vec<String>, Option<DateTime<Utc>>)> {
        match self.known.lists.get(asked) {
            Some(names) => Some((names.clone(), None)),
            None => recall(asked, self.memory).await.map(|(names, at)| (names, Some(at))),
        }
    }

    /// Writes a new list to the ledger, and says once what it changes.
    async fn remember(&self, asked: &Asked, listed: &Listed) {
        if let Memory::Write(ledger) = self.memory {
            let names: Vec<String> = listed.names.iter().map(|own| asked.name_of(own)).collect();
            let left_out: Vec<_> = listed.left_out.iter().map(|(own, why)| (asked.name_of(own), *why)).collect();
            match ledger.remember_databases(&asked.ledger_name(), &names, &left_out).await {
                Ok(changes) => self.say(asked, &changes, &listed.left_out),
                Err(error) => {
                    tracing::warn!("the {}s of {asked} are not in the ledger: {}", asked.has(), failure::in_a_line(&error));
                }
            }
        }
        if !self.known.left_out.contains_key(asked) && !listed.left_out.is_empty() {
            let left_out = listed.left_out.iter().map(|(own, why)| format!("{} ({why})", own.escape_debug()));
            tracing::info!("of {asked} are left out: {}", some_of(left_out.collect()));
        }
    }

    fn say(&self, asked: &Asked, changes: &Changes, left_out: &[(String, &'static str)]) {
        let counts = |full: &&String| counts(full, self.config, self.jobs);
        let appeared: Vec<String> = changes.appeared.iter().filter(counts).cloned().collect();
        let gone: Vec<String> = changes.gone.iter().filter(counts).cloned().collect();
        let with_reason = |full: &String| {
            let own = asked.own_name(full)?;
            left_out.iter().find(|(name, _)| *name == own).map(|(_, why)| format!("{full} ({why})"))
        };
        let of_left_out: Vec<String> = changes.left_out.iter().filter(counts).filter_map(with_reason).collect();
        if !appeared.is_empty() {
            let (count, named) = (appeared.len(), some_of(appeared));
            match changes.is_first {
                true => tracing::info!("{asked} has {}: {named}", units::plural(count, asked.has())),
                false => tracing::info!(
                    "{asked} has {}, on which jobs run from their next ticks on: {named}",
                    units::plural(count, &format!("new {}", asked.has()))
                ),
            }
        }
        if !gone.is_empty() {
            let count = units::plural(gone.len(), asked.has());
            tracing::warn!("{count} of {asked} went; no job runs there any more, and the sets stay: {}", some_of(gone));
        }
        if !of_left_out.is_empty() {
            let are = if of_left_out.len() == 1 { "is" } else { "are" };
            let count = units::plural(of_left_out.len(), asked.has());
            tracing::warn!("{count} of {asked} {are} left out, and no job runs there: {}", some_of(of_left_out));
        }
    }
}

/// The last list by the ledger, and when it was given. A ledger that does not answer knows none.
async fn recall(asked: &Asked, memory: Memory<'_>) -> Option<(Vec<String>, DateTime<Utc>)> {
    let remembered = match memory.ledger()?.remembered_databases(&asked.ledger_name()).await {
        Ok(remembered) => remembered?,
        Err(error) => {
            tracing::debug!("the ledger does not say which {}s {asked} had: {error:#}", asked.has());
            return None;
        }
    };
    let names = remembered.databases.iter().filter_map(|name| asked.own_name(name)).collect();
    Some((names, remembered.listed_at))
}

fn some_of(mut names: Vec<String>) -> String {
    let more = names.len().saturating_sub(NAMED);
    names.truncate(NAMED);
    let names = names.join(", ");
    if more > 0 { format!("{names}, and {more} more") } else { names }
}
