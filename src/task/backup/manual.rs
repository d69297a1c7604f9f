//! The work of `backups prune`: what a run does after its dump, for a person, who waits until every set is read back.

use std::fmt;

use anyhow::{Context as _, Result};
use chrono::Utc;
use serde::Serialize;

use super::copies::doubts;
use super::copies::holds::{self, Elsewhere};
use super::copies::needs::{self, Other};
use super::copies::several::{ensure_answers, ensure_apart, within};
use super::guard::{self, Asked};
use super::identity::Identity;
use super::keep::{Decision, Keep};
use super::keys::{InStore, Verify};
use super::needed::Needed;
use super::rules::{self, Rules};
use super::series::Series;
use super::set::Listing;
use super::warnings;
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
    /// The job's others: what is held there stays here, too, and what they need and are not known to have.
    pub others: Vec<InStore>,
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
    /// What stays for other stores.
    #[serde(skip)]
    needed: Vec<Needed>,
    #[serde(skip)]
    listing: Listing,
    /// The sets of the job's other stores that could be read.
    #[serde(skip)]
    elsewhere: Vec<(String, Listing)>,
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
        let place = run.config.place(run.database);
        let schema = place.as_ref().and_then(|place| place.schema.as_deref());
        let server = facts::place(&mut connection, &run.settings, schema).await?;
        facts::ensure_there(&server, schema)?;
        let host_clock = Utc::now();
        let mut listing = set::list(&store, &key::folder(run.database, run.job.name)).await?;
        if let Some(said) = listing.not_ours_in_words() {
            tracing::warn!("{}/{}: {said}", run.database, run.job.name);
        }
        let own = Identity::of(&server);
        let of_earlier_ones = warnings::of_earlier_ones(&series, own.as_ref(), &listing.sets);
        for said in of_earlier_ones.into_iter().chain(warnings::of_unknown_servers(&series, own.as_ref(), &listing.sets)) {
            tracing::warn!("{}/{}: {said}", run.database, run.job.name);
        }
        // The doubts that keep a run from deleting keep a person from it, too.
        let mut doubts = warnings::doubts(&server, host_clock, &series, &listing);
        doubts.extend(trouble);
        let elsewhere = self.elsewhere(run, &store).await?;
        let others: Vec<(&str, &Listing)> = elsewhere.iter().map(|(name, listing)| (name.as_str(), listing)).collect();
        let held = holds::elsewhere(&listing, &others, Utc::now());
        holds::add(&mut listing, &held);
        let (sets, needed, identity) = (Vec::new(), Vec::new(), Identity::of(&server));
        let mut plan = Plan { sets, doubts, held, needed, listing, elsewhere, identity, series };
        plan.needed = self.needed(run, &plan);
        if plan.doubts.is_empty() {
            plan.sets = rules::decide(&plan.listing, &self.rules(run, &plan), None);
        }
        Ok(plan)
    }

    fn refusal(&self, _run: &RunContext<'_>, plan: &Plan) -> Option<anyhow::Error> {
        (!plan.doubts.is_empty()).then(|| Fault::new(Kind::Deferred, plan.doubts.join("; ")).into())
    }

    async fn apply(&self, run: &RunContext<'_>, mut plan: Plan) -> Result<Report> {
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
        let told = run.or_cancelled(async { Ok(self.share_doubts(&store, &others, &mut plan).await) }).await?;
        let mut guard = match guard::ask(&store, database, job, ledger.is_some(), None).await {
            Asked::Granted(guard) => guard,
            Asked::Refused(why) => return Err(Fault::new(Kind::Deferred, why).into()),
        };
        let (folder, rules) = (key::folder(database, job), self.rules(run, &plan));
        let pruning = prune::apply(&store, &folder, &rules, &plan.held, (&mut guard, &mut readers), CHECKS, &run.progress);
        let pruned = run.or_cancelled(pruning).await;
        guard.release().await;
        let mut pruned = pruned?;
        pruned.warnings.extend(told);
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
        for InStore { store: name, .. } in &self.others {
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

    /// The sets of the job's other stores. One that cannot be read is a warning: what it holds is not known, but the copies here stay held by what is written
    /// beside them, and what its rules keep stays here.
    async fn elsewhere(&self, run: &RunContext<'_>, store: &Store) -> Result<Vec<(String, Listing)>> {
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
                Ok(listing) => listings.push(((*name).to_owned(), listing)),
                Err(error) => tracing::warn!("what is held in {name} is not known: {}", failure::in_a_line(&error)),
            }
        }
        Ok(listings)
    }

    /// What the other stores need of this one.
    fn needed(&self, run: &RunContext<'_>, plan: &Plan) -> Vec<Needed> {
        let rules = self.rules(run, plan);
        let needed = self.others.iter().flat_map(|InStore { store, keep }| {
            let listing = plan.elsewhere.iter().find(|(name, _)| name == store).map(|(_, listing)| listing);
            needs::needed(&plan.listing, &Other { store, keep: keep.as_ref(), listing }, &rules, None)
        });
        needed.collect()
    }

    /// Records beside every copy what speaks against the data of its set; where that is not possible, the copies here stay. Returns warnings.
    async fn share_doubts(&self, store: &Store, others: &[(&str, Store)], plan: &mut Plan) -> Vec<String> {
        let mut stores = vec![(self.store.as_str(), store, &plan.listing)];
        for (name, listing) in &plan.elsewhere {
            let opened = others.iter().find(|(other, _)| other == name);
            stores.extend(opened.map(|(name, other)| (*name, other, listing)));
        }
        let (untold, warnings) = doubts::share(&stores).await;
        plan.needed.extend(untold.into_iter().filter(|needed| needed.store != self.store));
        warnings
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
            needed: &plan.needed,
        }
    }
}
