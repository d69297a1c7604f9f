//! Copies what single stores of a run lack, after the run's own set is complete: sets; then holds, and doubts about the data. What a store needs and does not have
//! stays in the others.

use anyhow::Result;
use chrono::Utc;

use super::copy::Copy;
use super::doubts;
use super::holds::{self, Elsewhere};
use super::needs::{self, Other};
use super::several::{ensure_answers, within};
use super::target::Target;
use crate::base::fault::Kind;
use crate::pg::failure;
use crate::store::{Store, key};
use crate::task::backup::needed::Needed;
use crate::task::backup::plan::Plan;
use crate::task::backup::rules::Rules;
use crate::task::backup::set::{self, Listing};
use crate::work::RunContext;

/// Copies into each store that took the set of this run what it lacks of earlier ones. Returns warnings: a copy that failed leaves the run's
/// own set as good as it is.
pub async fn mend(targets: &mut [Target], run: &RunContext<'_>) -> Result<Vec<String>> {
    let mut warnings = Vec::new();
    for into in 0..targets.len() {
        for lacking in targets[into].lacks.clone() {
            let from = targets.iter().find(|target| target.name() == lacking.from && target.is_good());
            let (Some(from), true) = (from, targets[into].is_good()) else { continue };
            let to = &targets[into];
            let copy = Copy {
                set: &lacking.copied,
                from: (from.name(), &from.store),
                to: (to.name(), &to.store),
                unsigned_ok: false,
                encrypt_to: None,
                replace: false,
                // The run has the job's lock: no other writes sets of it.
                runs_are_over: run.run_id.is_some(),
            };
            match copy.apply(&run.progress, &run.cancel).await {
                Ok(_) => {
                    tracing::info!("copied {} from {} to {}, which lacked it", lacking.set, lacking.from, targets[into].name());
                    targets[into].copied.push(lacking.set);
                }
                Err(error) if failure::kind_of(&error) == Some(Kind::Cancelled) => return Err(error),
                Err(error) => warnings.push(format!(
                    "{} lacks {}, and it could not be copied there from {}: {}",
                    targets[into].name(),
                    lacking.set,
                    lacking.from,
                    failure::in_a_line(&error)
                )),
            }
        }
    }
    Ok(warnings)
}

/// Reads all stores once more before anything is deleted in one: gives every copy the longest holds of all, and what speaks against the data of any; and notes
/// of each store what others hold and need of it. Returns warnings.
pub async fn before_pruning(targets: &mut [Target], plan: &Plan, run: &RunContext<'_>) -> Vec<String> {
    if plan.stores.len() < 2 {
        return Vec::new();
    }
    let (listings, mut warnings) = listed(targets, &key::folder(run.database, run.job.name)).await;
    warnings.extend(share_holds(targets, &listings).await);
    let read = targets.iter().zip(&listings).filter_map(|(target, listing)| Some((target, listing.as_ref()?)));
    let read: Vec<(&str, &Store, &Listing)> = read.map(|(target, listing)| (target.name(), &target.store, listing)).collect();
    let (untold, of_doubts) = doubts::share(&read).await;
    warnings.extend(of_doubts);
    for number in 0..targets.len() {
        let needed = needed_of(number, targets, &listings, plan, run);
        let Some(target) = targets.get_mut(number) else { continue };
        // What others need of it was not asked of what is there now.
        if listings.get(number).is_none_or(Option::is_none) {
            target.deletes_nothing.push("its sets could not be listed".to_owned());
        }
        let untold = untold.iter().filter(|needed| needed.store != target.name()).cloned();
        target.needed = needed.into_iter().chain(untold).collect();
    }
    warnings
}

/// Lists the sets of each; None of one that does not answer.
async fn listed(targets: &[Target], folder: &str) -> (Vec<Option<Listing>>, Vec<String>) {
    let (mut listings, mut warnings) = (Vec::new(), Vec::new());
    for target in targets {
        let listing = async {
            // One that has failed may not answer.
            if !target.is_good() {
                ensure_answers(&target.store).await?;
            }
            within(true, set::list(&target.store, folder)).await
        };
        let listing = listing.await;
        if let Err(error) = &listing {
            warnings.push(format!("what is held in {} is not known: {}", target.name(), failure::in_a_line(error)));
        }
        listings.push(listing.ok());
    }
    (listings, warnings)
}

/// What the job's other stores need of this one, those included that could not be read before the dump.
fn needed_of(number: usize, targets: &[Target], listings: &[Option<Listing>], plan: &Plan, run: &RunContext<'_>) -> Vec<Needed> {
    let here = targets.get(number).zip(listings.get(number).and_then(Option::as_ref));
    let Some((target, listing)) = here else { return Vec::new() };
    let Some(keep) = &target.kept.keep else { return Vec::new() };
    let rules = Rules {
        keep,
        zone: run.job.timezone,
        now: Utc::now(),
        identity: plan.identity.as_ref(),
        series: &target.series,
        own: None,
        has_schedule: run.job.has_schedule,
        needed: &[],
    };
    let others = plan.stores.iter().filter(|of_store| of_store.store != target.name());
    let needed = others.flat_map(|of_store| {
        let there = targets.iter().zip(listings).find(|(target, _)| target.name() == of_store.store);
        let there = there.and_then(|(_, listing)| listing.as_ref());
        let other = Other { store: &of_store.store, keep: of_store.kept.keep.as_ref(), listing: there };
        needs::needed(listing, &other, &rules, None)
    });
    needed.collect()
}

/// Gives every copy the longest holds of all, as far as one store may say so to another, and notes of each store what others hold. What the plan saw counts
/// on where a store has failed or cannot be read now. Returns warnings.
async fn share_holds(targets: &mut [Target], listings: &[Option<Listing>]) -> Vec<String> {
    let now = Utc::now();
    let mut warnings = Vec::new();
    // Into one that has failed nothing more is written.
    let listings: Vec<Option<&Listing>> =
        targets.iter().zip(listings).map(|(target, listing)| listing.as_ref().filter(|_| target.is_good())).collect();
    let all_are_read = listings.iter().all(Option::is_some);
    let stores: Vec<(String, bool)> =
        targets.iter().map(|target| (target.name().to_owned(), target.store.has_sign_key())).collect();
    for (number, listing) in listings.iter().enumerate() {
        let (Some(target), Some(into)) = (targets.get_mut(number), listing) else { continue };
        let others: Vec<(&str, &Listing)> = stores
            .iter()
            .zip(&listings)
            .filter(|((name, _), _)| name != target.name())
            .filter_map(|((name, _), listing)| Some((name.as_str(), (*listing)?)))
            .collect();
        let held = holds::elsewhere(into, &others, now);
        for Elsewhere { set, hold, store } in &held {
            let signs = stores.iter().any(|(name, signs)| name == store && *signs);
            if !signs && target.store.has_sign_key() {
                continue;
            }
            match within(true, holds::write_longer(&target.store, set, hold)).await {
                Ok(true) => tracing::info!("{set} is held in {}, as it is in {store}", target.name()),
                Ok(false) => {}
                Err(error) => warnings.push(format!(
                    "{set} is held in {store}, and could not be held in {}: {}",
                    target.name(),
                    failure::in_a_line(&error)
                )),
            }
        }
        if all_are_read {
            target.held_elsewhere = held;
        } else {
            target.held_elsewhere.extend(held);
        }
    }
    warnings
}
