//! A store that a run writes its set to, and what has come of it there.

use anyhow::Result;
use serde_json::json;

use super::holds::Elsewhere;
use super::lacks::Lacking;
use super::several::{ensure_apart, none_took_it, within};
use crate::base::fault::Kind;
use crate::base::shell;
use crate::ledger::report::Failure;
use crate::pg::failure;
use crate::store::Store;
use crate::store::lease::Seen;
use crate::task::backup::keys::InStore;
use crate::task::backup::needed::Needed;
use crate::task::backup::of_store::OfStore;
use crate::task::backup::plan::Plan;
use crate::task::backup::series::Series;
use crate::task::backup::set::Set;
use crate::task::backup::{guard, markers};
use crate::work::RunContext;

pub struct Target {
    pub kept: InStore,
    pub store: Store,
    /// The last good set there, which the new one is compared with.
    pub previous: Option<Set>,
    pub series: Series,
    /// The reasons why nothing is deleted there.
    pub deletes_nothing: Vec<String>,
    /// Leftovers may be ready for a sweep.
    pub may_sweep: bool,
    pub seen: Option<Seen>,
    /// Sets of others of these stores, to be copied into this one.
    pub lacks: Vec<Lacking>,
    /// What copies of its sets in other stores are held for: it deletes none of these.
    pub held_elsewhere: Vec<Elsewhere>,
    /// What others of the job's stores need of it: it deletes none of these, either.
    pub needed: Vec<Needed>,
    /// The folder of the set belongs to this run.
    pub is_claimed: bool,
    /// The set, when it is complete there.
    pub set: Option<Set>,
    /// The reason why there is no good set in this store.
    pub failure: Option<anyhow::Error>,
    pub pruned: Vec<String>,
    /// The number of intact sets of the series there: before the run, and after it has pruned.
    pub intact_sets: usize,
    pub copied: Vec<String>,
}

impl Target {
    /// Opens all stores of the plan that could be read.
    pub async fn all(plan: &Plan, run: &RunContext<'_>) -> Result<Vec<Self>> {
        let mut targets = Vec::new();
        for of_store in plan.stores.iter().filter(|of_store| of_store.away.is_none()) {
            targets.push(Self::open(of_store, run).await?);
        }
        // Nothing is written or deleted before.
        let stores: Vec<_> = targets.iter().map(|target| (target.name(), &target.store)).collect();
        run.or_cancelled(ensure_apart(&stores, true)).await?;
        Ok(targets)
    }

    async fn open(of_store: &OfStore, run: &RunContext<'_>) -> Result<Self> {
        let store = Store::named(run.config, &of_store.kept.store).await?;
        let left = &of_store.sweep.left;
        Ok(Self {
            kept: of_store.kept.clone(),
            seen: guard::look(&store, run.database, run.job.name, run.run_id.is_some()).await,
            store,
            previous: of_store.previous.clone(),
            series: of_store.series.clone(),
            deletes_nothing: of_store.deletes_nothing.clone(),
            may_sweep: !of_store.sweep.is_empty() || left.iter().any(|left| !left.for_ever),
            lacks: of_store.lacks.clone(),
            held_elsewhere: of_store.held_elsewhere.clone(),
            needed: Vec::new(),
            is_claimed: false,
            set: None,
            failure: None,
            pruned: Vec::new(),
            intact_sets: of_store.intact_sets,
            copied: Vec::new(),
        })
    }

    pub fn name(&self) -> &str {
        &self.kept.store
    }

    /// Returns whether the run's set is complete there, and nothing speaks against it.
    pub fn is_good(&self) -> bool {
        self.set.is_some() && self.failure.is_none()
    }

    /// The facts about this store in the report of a run with several.
    pub fn facts(&self) -> serde_json::Value {
        json!({
            "store": self.name(),
            "location": self.set.as_ref().map(|set| self.store.location(&set.name.key(&set.manifest.dump.object))),
            "dump_bytes": self.set.as_ref().map(|set| set.manifest.dump.bytes),
            "bytes": self.set.as_ref().map(|set| set.verification.verdict().name()),
            "verified": self.set.as_ref().map(|set| set.verification.in_words()),
            "copied_sets": self.copied,
            "pruned_sets": self.pruned,
            "error": self.failure.as_ref().map(failure::in_a_line),
        })
    }
}

/// Takes the name of the set in all stores: in the first, the first free one; in the others that same one.
pub async fn claim(targets: &mut [Target], plan: &mut Plan, marker: &markers::RunMarker) -> Result<()> {
    let are_several = targets.len() > 1;
    let Some((first, others)) = targets.split_first_mut() else { anyhow::bail!("the job has no store") };
    let claimed = within(are_several, markers::claim(&first.store, &plan.name, marker)).await;
    match claimed {
        Ok(name) => {
            plan.name = name;
            first.is_claimed = true;
        }
        Err(error) if are_several => first.failure = Some(error),
        Err(error) => return Err(error),
    }
    plan.set = plan.name.to_string();
    for target in others {
        match within(true, markers::claim_exactly(&target.store, &plan.name, marker)).await {
            Ok(true) => target.is_claimed = true,
            Ok(false) => target.failure = Some(anyhow::anyhow!("another run has the name {} there", plan.name)),
            Err(error) => target.failure = Some(error),
        }
    }
    if targets.iter().all(|target| target.failure.is_some()) {
        return Err(none_took_it(targets.iter_mut().filter_map(|target| target.failure.take()).collect()));
    }
    Ok(())
}

/// Says of each store that has no good copy of the set: why, and how it is mended.
pub fn failures(targets: &[Target], plan: &Plan) -> Vec<Failure> {
    let good: Vec<&str> = targets.iter().filter(|target| target.is_good()).map(Target::name).collect();
    let has = match good[..] {
        [] => format!("no store has a good copy of set {}", plan.name),
        _ => format!("set {} is in {}", plan.name, good.join(" and ")),
    };
    let mend = |store: &str, has_one: bool| {
        let command = format!("pgtend backups copy {} --to {}", shell::word(&plan.set), shell::word(store));
        match (&good[..], has_one) {
            ([], _) => String::new(),
            (_, false) => format!(". The next run copies it there, or do it now: {command}"),
            (_, true) => format!(
                ". No run replaces a copy that is there. This reads it again, and makes it anew if it is damaged: {command}"
            ),
        }
    };
    let failed = targets.iter().filter_map(|target| {
        let (name, error) = (target.name(), target.failure.as_ref()?);
        let lacks = match target.set {
            None => format!("{has}, and not in {name}"),
            Some(_) => format!("{has}, and the copy in {name} is not good"),
        };
        let how = mend(name, target.set.is_some());
        Some((failure::kind_of(error), format!("{lacks}: {}{how}", failure::in_a_line(error))))
    });
    let away = plan.stores.iter().filter_map(|of_store| {
        let (name, why) = (&of_store.store, of_store.away.as_ref()?);
        Some((
            Some(Kind::Unreachable),
            format!("{has}, and not in {name}, which could not be read before the dump: {why}{}", mend(name, false)),
        ))
    });
    failed.chain(away).collect()
}
