//! The work of `backups prune`: what a run does after its dump, for a person, who waits until every set is read back.

use std::fmt;

use anyhow::{Context as _, Result};
use chrono::Utc;
use serde::Serialize;

use super::copies::holds::{self, Elsewhere};
use super::copies::several::{ensure_answers, ensure_apart, within};
use super::guard::{self, Asked};
use super::identity::Identity;
use super::keep::{Decision, Keep};
use super::keys::Verify;
use super::rules::{self, Rules};
use super::series::Series;
use super::set::Listing;
use super::warnings::doubts;
use super::{facts, prune, set, tagged};
use crate::base::fault::{Fault, Kind};
use crate::base::units;
use crate::ledger::report::Report;
use crate::pg::failure;
use crate::store::{Store, key};
use crate::work::{RunContext, Work};

/// A person asked for it and waits: all sets are read.
const CHECKS: usize = usize::MAX;

/// Deletes the sets of a job that its `keep` no longer keeps.
pub struct Prune {
    pub store: String,
    /// The job's others: what is held there stays here, too.
    pub others: Vec<String>,
    pub keep: Keep,
    pub verify: Verify,
}

/// The sets that would be kept and those that would be deleted.
#[derive(Debug, Serialize)]
pub struct Plan {
    pub sets: Vec<Decision>,
    /// The reason why nothing may be deleted this time; then there are no `sets`.
    pub doubts: Vec<String>,
    /// What copies in other stores are held for.
    #[serde(skip)]
    held: Vec<Elsewhere>,
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
        let mut listing = set::list(&store, &key::folder(run.database, run.job.name)).await?;
        if let Some(said) = listing.not_ours_in_words() {
            tracing::warn!("{}/{}: {said}", run.database, run.job.name);
        }
        // The doubts that keep a run from deleting keep a person from it, too.
        let mut doubts = doubts(&server, host_clock, &series, &listing);
        doubts.extend(trouble);
        let held = self.held_elsewhere(run, &store, &listing).await?;
        holds::add(&mut listing, &held);
        let mut plan = Plan { sets: Vec::new(), doubts, held, identity: Identity::of(&server), series };
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
        let others = self.opened(run).await;
        run.or_cancelled(self.ensure_apart(&store, &others, true)).await?;
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
        let pruning = prune::apply(&store, &folder, &rules, &plan.held, (&mut guard, &mut readers), CHECKS, &run.progress);
        let pruned = run.or_cancelled(pruning).await;
        guard.release().await;
        let mut pruned = pruned?;
        let tagging = tagged::tag(&store, &folder, &pruned.decisions, self.verify, rules.now);
        pruned.warnings.extend(run.or_cancelled(async { Ok(tagging.await) }).await?);
        let mut report = Report { warnings: pruned.warnings, ..Report::default() };
        report.summary = format!("{} deleted", units::plural(pruned.sets.len(), "set"));
        report.fact("pruned_sets", pruned.sets);
        report.fact("sets", serde_json::to_value(pruned.decisions)?);
        Ok(report)
    }
}

impl Prune {
    /// The job's other stores that can be opened.
    async fn opened(&self, run: &RunContext<'_>) -> Vec<(&str, Store)> {
        let mut opened = Vec::new();
        for name in &self.others {
            match Store::named(run.config, name).await {
                Ok(store) => opened.push((name.as_str(), store)),
                Err(error) => tracing::debug!("{error:#}"),
            }
        }
        opened
    }

    async fn ensure_apart(&self, store: &Store, others: &[(&str, Store)], gives_ids: bool) -> Result<()> {
        let mut stores = vec![(self.store.as_str(), store)];
        for (name, other) in others {
            match ensure_answers(other).await {
                Ok(()) => stores.push((*name, other)),
                Err(error) => tracing::debug!("{name}: {error:#}"),
            }
        }
        ensure_apart(&stores, gives_ids).await
    }

    /// What the job's other stores hold of the sets here. One that cannot be read is a warning: the copies there stay held by what is written beside them.
    async fn held_elsewhere(&self, run: &RunContext<'_>, store: &Store, listing: &Listing) -> Result<Vec<Elsewhere>> {
        let others = self.opened(run).await;
        self.ensure_apart(store, &others, false).await?;
        let folder = key::folder(run.database, run.job.name);
        let mut listings = Vec::new();
        for (name, other) in &others {
            let reading = async {
                ensure_answers(other).await?;
                within(true, set::list(other, &folder)).await
            };
            match reading.await {
                Ok(listing) => listings.push((*name, listing)),
                Err(error) => tracing::warn!("what is held in {name} is not known: {}", failure::in_a_line(&error)),
            }
        }
        let listings: Vec<(&str, &Listing)> = listings.iter().map(|(name, listing)| (*name, listing)).collect();
        Ok(holds::elsewhere(listing, &listings, Utc::now()))
    }

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
