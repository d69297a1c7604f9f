//! Asks the servers for their databases, and databases for their schemas: what jobs with patterns run on.

use futures_util::StreamExt as _;
use futures_util::future::join_all;

use super::attempt::{AT_ONCE, Attempt, LONGEST, WARNINGS_OF_A_SERVER, warnings};
use super::one_server;
use crate::base::units;
use crate::config::Config;
use crate::pg::databases::{self, Listed};
use crate::run::fleet::Found;
use crate::run::fleet::asked::Asked;
use crate::run::job::Job;
use crate::task::backup::copies::several::within_time;

/// Asks each server for its databases. Returns the jobs with those that their patterns stand for, and what each server said.
pub(super) async fn try_servers<'c>(config: &'c Config, jobs: &[Job]) -> (Vec<Attempt>, Vec<Job>, Vec<(&'c String, Listed)>) {
    let (mut tried, mut found, mut said) = (Vec::new(), Found::default(), Vec::new());
    let asking = config.servers.values().map(|server| async { databases::list(&server.login.settings()?).await });
    let asking = asking.map(|listed| within_time(LONGEST, listed));
    for (name, listed) in config.servers.keys().zip(join_all(asking).await) {
        match listed {
            Ok(listed) => {
                found.add(Asked::Server(name.clone()), listed.names.clone());
                said.push((name, listed));
            }
            Err(error) => tried.push(Attempt::new(format!("server {name}"), Err(error))),
        }
    }
    let with_entries = found.with_entries(config);
    for (number, (name, listed)) in said.iter().enumerate() {
        if let Some(error) = one_server::under_two_names(name, listed, &said[..number]) {
            tried.push(Attempt::new(format!("server {name}"), Err(error)));
            continue;
        }
        let left_out = listed.left_out.iter().map(|(own, why)| format!("{} is left out: {why}", own.escape_debug()));
        let of_it = with_entries.iter().filter(|(found, _)| found.starts_with(&format!("{name}.")));
        let taken = of_it.map(|(found, entry)| format!("{found} is [databases.{entry}], whose settings count for its jobs"));
        let counts = format!("{} of {} count", found.count(name, config), units::plural(listed.names.len(), "database"));
        let result = Ok(format!("{counts}{}", warnings(left_out.chain(taken).take(WARNINGS_OF_A_SERVER))));
        tried.push(Attempt::new(format!("server {name}"), result));
    }
    tried.extend(try_schemas(&mut found, config, jobs).await);
    let is_one_silent = tried.iter().any(|tried| tried.result.is_err());
    let jobs = found.given_to(jobs, config);
    for job in jobs.iter().filter(|job| job.chosen.is_some()) {
        let patterns = job.chosen.as_ref().map(ToString::to_string).unwrap_or_default();
        let none = (job.databases.is_empty() && !is_one_silent).then(|| format!("it runs on no {} now", job.has_runs_for()));
        let counts = format!("{patterns}: {}", units::plural(job.databases.len(), job.has_runs_for()));
        tried.push(Attempt::new(format!("{}s of {}", job.has_runs_for(), job.name), Ok(format!("{counts}{}", warnings(none)))));
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
        tried.push(Attempt::new(format!("schemas of {asked}").replace('`', ""), result));
    }
    tried
}
