//! `pgtend backups prune`.

use std::process::ExitCode;

use anyhow::{Context as _, Result};
use chrono::{DateTime, Utc};
use serde_json::json;

use crate::base::fault::{Fault, Kind};
use crate::cli::global::Global;
use crate::cli::output::print;
use crate::ledger::Ledger;
use crate::store::{Store, key};
use crate::task::Task;
use crate::task::backup::facts::{self, ServerFacts};
use crate::task::backup::guard::{self, Asked};
use crate::task::backup::identity::Identity;
use crate::task::backup::rules::Rules;
use crate::task::backup::series::Series;
use crate::task::backup::{plan, prune, rules, set};

/// A person asked for it and waits: all sets are read.
const CHECKS_BY_HAND: usize = usize::MAX;

pub async fn run(global: &Global, only: Option<&str>, dry_run: bool) -> Result<ExitCode> {
    let (config, folder) = global.load()?;
    if let Some(name) = only {
        global.find_job(&folder, name)?;
    }
    let mut json_rows = Vec::new();
    let mut text = String::new();
    let mut refused = Vec::new();
    let ledger = Ledger::new(&config)?;
    for job in folder.jobs.iter().filter(|job| only.is_none_or(|name| name == job.name)) {
        let Task::Backup(backup) = &job.task else { continue };
        let Some(keep) = &backup.keep else { continue };
        let store = Store::named(&config, &backup.store).await?;
        for database in &job.databases {
            let folder = key::folder(database, &job.name);
            let (series, trouble) = Series::read(&store, database, &job.name).await?;
            let configured = config.databases.get(database).context("the database is known: the job was checked")?;
            let (server, host_clock) = server_facts(configured, database).await?;
            let identity = Identity::of(&server);
            // The doubts that keep a run from deleting keep a person from it, too.
            let listing = set::list(&store, &folder).await?;
            if let Some(said) = listing.not_ours_in_words() {
                tracing::warn!("{database}/{}: {said}", job.name);
            }
            let mut doubts = plan::doubts(&server, host_clock, &series, &listing);
            doubts.extend(trouble);
            if !doubts.is_empty() {
                refused.push(format!("{database}/{}: {}", job.name, doubts.join("; ")));
                continue;
            }
            let rules = Rules {
                keep,
                zone: job.timezone,
                now: Utc::now(),
                identity: identity.as_ref(),
                series: &series,
                own: None,
                has_schedule: job.schedule.is_some(),
            };
            let decisions = match dry_run {
                true => rules::decide(&set::list(&store, &folder).await?, &rules, None),
                false => match guard::ask_manual(&store, ledger.as_ref(), database, &job.name).await {
                    Asked::Refused(why) => {
                        refused.push(format!("{database}/{}: {why}", job.name));
                        continue;
                    }
                    Asked::Granted(mut guard) => {
                        let pruned = prune::apply(&store, &folder, &rules, &mut guard, CHECKS_BY_HAND, &global.progress()).await;
                        guard.release().await;
                        let pruned = pruned?;
                        pruned.warnings.iter().for_each(|warning| tracing::warn!("{warning}"));
                        pruned.decisions
                    }
                },
            };
            for decision in decisions {
                let verb = match (decision.keep, decision.check_first) {
                    (_, true) => "check",
                    (true, false) => "keep",
                    (false, false) => "delete",
                };
                text += &format!("{verb:<8} {}  ({})\n", decision.name, decision.reasons.join(", "));
                json_rows.push(json!(decision));
            }
        }
    }
    if global.json {
        print(&format!("{:#}\n", json!({ "dry_run": dry_run, "sets": json_rows })))?;
    } else {
        print(if text.is_empty() { "no sets of a job with `keep`\n" } else { &text })?;
    }
    if refused.is_empty() {
        return Ok(ExitCode::SUCCESS);
    }
    Err(Fault::new(Kind::Deferred, format!("not pruned: {}", refused.join("; "))).into())
}

/// Asks the server for its identity and its time: with another configuration's names, or on another host, the sets may belong to
/// another server. Returns this host's time of that moment as well.
async fn server_facts(configured: &crate::config::Database, database: &str) -> Result<(ServerFacts, DateTime<Utc>)> {
    let settings = configured.settings().with_context(|| format!("database `{database}`"))?;
    let mut connection = settings
        .connect()
        .await
        .with_context(|| format!("cannot tell which sets are those of database `{database}`, so none is deleted"))?;
    let server = facts::server(&mut connection, &settings).await?;
    Ok((server, Utc::now()))
}
