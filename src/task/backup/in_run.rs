//! What a run does in each of its stores besides writing the set: it sweeps before the dump, proves the set after it, and deletes old ones.

use anyhow::Result;
use chrono::Utc;

use super::copies::proof::record_proof;
use super::copies::several::within;
use super::copies::target::Target;
use super::guard::{self, Asked};
use super::keys::{Backup, Verify};
use super::plan::Plan;
use super::set::Set;
use super::verdict::Verification;
use super::verify::{self, Verified};
use super::{prove, prune, rules, tagged};
use crate::base::fault::Kind;
use crate::pg::failure;
use crate::store::key;
use crate::task::backup::sweep as leftovers;
use crate::work::RunContext;

/// The number of unread sets that a run reads before it prunes. Each costs reading a dump; the next run continues.
const CHECKS_IN_A_RUN: usize = 3;

/// Sweeps what earlier runs have left in the store. Returns warnings.
pub async fn sweep(target: &Target, plan: &Plan, run: &RunContext<'_>) -> Vec<String> {
    let in_it = in_words(target, plan);
    if !target.deletes_nothing.is_empty() {
        let doubts = target.deletes_nothing.iter();
        return doubts.map(|doubt| format!("nothing in the store{in_it} is swept or pruned: {doubt}")).collect();
    }
    // The guard is taken only when something may be ready for a sweep.
    if !target.may_sweep {
        return Vec::new();
    }
    let sweeping = async {
        let (store, database, job) = (&target.store, run.database, run.job.name);
        Ok(match guard::ask(store, database, job, run.run_id.is_some(), None).await {
            Asked::Refused(why) => vec![format!("leftovers of earlier runs were not swept{in_it}: {why}")],
            Asked::Granted(mut guard) => {
                let swept = leftovers::apply(store, &key::folder(database, job), plan.identity.as_ref(), &mut guard).await;
                guard.release().await;
                swept?
            }
        })
    };
    within(plan.stores.len() > 1, sweeping).await.unwrap_or_else(|error| {
        vec![format!("leftovers of earlier runs could not be swept{in_it}: {}", failure::in_a_line(&error))]
    })
}

/// Verifies the set in every store that has it, as the plan says: by a restore in the first that can be read, by reading it back in the others. In a store
/// where that fails, the set is not good; where it is the only store, that is an error. Returns what the restore has found.
pub async fn verify(backup: &Backup, targets: &mut [Target], plan: &Plan, run: &RunContext<'_>) -> Result<Option<Verified>> {
    if plan.verify == Verify::None {
        return Ok(None);
    }
    let are_several = targets.len() > 1;
    let (mut verified, mut proved): (_, Option<usize>) = (None, None);
    for number in 0..targets.len() {
        let (before, rest) = targets.split_at_mut(number);
        let Some(target) = rest.first_mut() else { continue };
        let Some(mut set) = target.set.take() else { continue };
        set.verification.sets_since_restore = Some(plan.sets_since_restore);
        let of = proved.and_then(|number| before.get(number));
        let result = match plan.verify {
            Verify::Restore if proved.is_none() => {
                prove::by_restore(backup, &target.store, &mut set, plan, run).await.map(|found| verified = Some(found))
            }
            _ => read_back(target, &mut set, of, run).await,
        };
        target.set = Some(set);
        match result {
            Ok(()) => proved = proved.or(Some(number)),
            Err(error) if !are_several || failure::kind_of(&error) == Some(Kind::Cancelled) => return Err(error),
            Err(error) => target.failure = Some(error),
        }
    }
    Ok(verified)
}

/// Reads the set back. What was proved of the same bytes in the store `of` is recorded here, too.
async fn read_back(target: &Target, set: &mut Set, of: Option<&Target>, run: &RunContext<'_>) -> Result<()> {
    run.or_cancelled(verify::by_checksum(&target.store, set, &run.progress)).await?;
    let Some((of, proved)) = of.and_then(|of| Some((of, of.set.as_ref()?))) else { return Ok(()) };
    let verification: &Verification = &proved.verification;
    record_proof(verification, (of.name(), &of.store), &target.store, &proved.manifest, set).await
}

/// Deletes the sets that the store's `keep` no longer keeps.
pub async fn prune(target: &Target, plan: &Plan, run: &RunContext<'_>) -> Result<rules::Pruned> {
    let (database, job) = (run.database, run.job.name);
    let (Some(keep), true) = (&target.kept.keep, target.deletes_nothing.is_empty()) else {
        return Ok(rules::Pruned::default());
    };
    let ledger = run.ledger.filter(|_| run.run_id.is_some());
    let mut readers = guard::Readers::of(ledger, database, job).await?;
    readers.keep_out().await?;
    readers.let_in().await?;
    let mut guard = match guard::ask(&target.store, database, job, ledger.is_some(), target.seen.as_ref()).await {
        Asked::Granted(guard) => guard,
        Asked::Refused(why) => anyhow::bail!("{why}"),
    };
    let rules = rules::Rules {
        keep,
        zone: run.job.timezone,
        now: Utc::now(),
        identity: plan.identity.as_ref(),
        series: &target.series,
        own: Some(&plan.name),
        has_schedule: run.job.has_schedule,
        needed: &target.needed,
    };
    let checks_most = if plan.verify == Verify::None { 0 } else { CHECKS_IN_A_RUN };
    let folder = key::folder(database, job);
    let held = &target.held_elsewhere;
    let guards = (&mut guard, &mut readers);
    let pruned = prune::apply(&target.store, &folder, &rules, held, guards, checks_most, &run.progress).await;
    guard.release().await;
    let mut pruned = pruned?;
    pruned.warnings.extend(tagged::tag(&target.store, &folder, &pruned.decisions, plan.verify, rules.now).await);
    Ok(pruned)
}

/// " of offsite", where there are several stores.
fn in_words(target: &Target, plan: &Plan) -> String {
    if plan.stores.len() > 1 { format!(" {}", target.name()) } else { String::new() }
}
