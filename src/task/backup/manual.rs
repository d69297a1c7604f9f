//! The work of `backups prune`: what a run does after its dump, for a person, who waits until every set is read back.

use std::fmt;

use anyhow::{Context as _, Result};
use chrono::Utc;
use serde::Serialize;

use super::guard::{self, Asked};
use super::identity::Identity;
use super::keep::{Decision, Keep};
use super::rules::{self, Rules};
use super::series::Series;
use super::warnings::doubts;
use super::{facts, prune, set};
use crate::base::fault::{Fault, Kind};
use crate::base::units;
use crate::ledger::report::Report;
use crate::store::{Store, key};
use crate::work::{RunContext, Work};

/// A person asked for it and waits: all sets are read.
const CHECKS: usize = usize::MAX;

/// Deletes the sets of a job that its `keep` no longer keeps.
pub struct Prune {
    pub store: String,
    pub keep: Keep,
}

/// The sets that would be kept and those that would be deleted.
#[derive(Debug, Serialize)]
pub struct Plan {
    pub sets: Vec<Decision>,
    /// The reason why nothing may be deleted this time; then there are no `sets`.
    pub doubts: Vec<String>,
    #[serde(skip)]
    identity: Option<Identity>,
    #[serde(skip)]
    series: Series,
}

impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        self.sets.iter().try_for_each(|set| writeln!(f, "{set}"))
    }
}

impl Work for Prune {
    type Plan = Plan;

    async fn plan(&self, run: &RunContext<'_>) -> Result<Plan> {
        let store = Store::named(run.config, &self.store).await?;
        let (series, trouble) = Series::read(&store, run.database, run.job.name).await?;
        // Whose sets are meant, and what time it is, is asked of the server: with another configuration's names, or on another host, the
        // sets may be another's.
        let connected = run.settings.connect().await;
        let mut connection = connected
            .with_context(|| format!("cannot tell which sets are those of database `{}`, so none is deleted", run.database))?;
        let server = facts::server(&mut connection, &run.settings).await?;
        let host_clock = Utc::now();
        let listing = set::list(&store, &key::folder(run.database, run.job.name)).await?;
        if let Some(said) = listing.not_ours_in_words() {
            tracing::warn!("{}/{}: {said}", run.database, run.job.name);
        }
        // The doubts that keep a run from deleting keep a person from it, too.
        let mut doubts = doubts(&server, host_clock, &series, &listing);
        doubts.extend(trouble);
        let mut plan = Plan { sets: Vec::new(), doubts, identity: Identity::of(&server), series };
        if plan.doubts.is_empty() {
            plan.sets = rules::decide(&listing, &self.rules(run, &plan), None);
        }
        Ok(plan)
    }

    fn refusal(&self, _run: &RunContext<'_>, plan: &Plan) -> Option<anyhow::Error> {
        (!plan.doubts.is_empty()).then(|| Fault::new(Kind::Deferred, plan.doubts.join("; ")).into())
    }

    async fn apply(&self, run: &RunContext<'_>, plan: Plan) -> Result<Report> {
        if let Some(refusal) = self.refusal(run, &plan) {
            return Err(refusal);
        }
        let store = Store::named(run.config, &self.store).await?;
        let ledger = run.ledger.filter(|_| run.run_id.is_some());
        let (database, job) = (run.database, run.job.name);
        let mut readers = run.or_cancelled(guard::Readers::of(ledger, database, job)).await?;
        readers.keep_out().await?;
        readers.let_in().await?;
        let mut guard = match guard::ask(&store, database, job, ledger.is_some(), None).await {
            Asked::Granted(guard) => guard,
            Asked::Refused(why) => return Err(Fault::new(Kind::Deferred, why).into()),
        };
        let (folder, rules) = (key::folder(database, job), self.rules(run, &plan));
        let pruning = prune::apply(&store, &folder, &rules, (&mut guard, &mut readers), CHECKS, &run.progress);
        let pruned = run.or_cancelled(pruning).await;
        guard.release().await;
        let pruned = pruned?;
        let mut report = Report { warnings: pruned.warnings, ..Report::default() };
        report.summary = format!("{} deleted", units::plural(pruned.sets.len(), "set"));
        report.fact("pruned_sets", pruned.sets);
        report.fact("sets", serde_json::to_value(pruned.decisions)?);
        Ok(report)
    }
}

impl Prune {
    fn rules<'a>(&'a self, run: &RunContext<'_>, plan: &'a Plan) -> Rules<'a> {
        Rules {
            keep: &self.keep,
            zone: run.job.timezone,
            now: Utc::now(),
            identity: plan.identity.as_ref(),
            series: &plan.series,
            own: None,
            has_schedule: run.job.has_schedule,
        }
    }
}
