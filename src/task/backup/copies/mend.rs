//! Copies what single stores of a run lack, after the run's own set is complete: sets, and holds.

use anyhow::Result;
use chrono::{TimeDelta, Utc};

use super::copy::Copy;
use super::holds::{self, Elsewhere};
use super::several::within;
use super::target::Target;
use crate::base::fault::Kind;
use crate::pg::failure;
use crate::task::backup::markers::Hold;
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

/// Keeps every store from deleting a set that another one lacks still, and whose rules would keep it: that may be the last copy. Only this run is bound.
pub fn keep_what_is_lacked(targets: &mut [Target]) {
    let mut lacked = Vec::new();
    for target in targets.iter() {
        let still = target.lacks.iter().chain(&target.lacks_later).filter(|lacking| !target.copied.contains(&lacking.set));
        lacked.extend(still.map(|lacking| (lacking.copied.name.clone(), target.name().to_owned())));
    }
    for (set, store) in lacked {
        let reason = format!("{store} keeps it by its rules, and lacks it: it is to be copied there first");
        let hold = Hold { until: Utc::now() + KEPT_FOR, reason, because_of: None, for_copy: true };
        for target in targets.iter_mut().filter(|target| target.name() != store) {
            target.held_elsewhere.push(Elsewhere { set: set.clone(), hold: hold.clone(), store: store.clone() });
        }
    }
}

/// Longer than a run prunes.
const KEPT_FOR: TimeDelta = TimeDelta::days(2);

/// Gives every copy in the stores of a run the longest holds of all, as far as one store may say so to another, and notes of each store what others hold.
/// What the plan saw counts on where a store has failed or cannot be read now. Returns warnings.
pub async fn share_holds(targets: &mut [Target], folder: &str) -> Vec<String> {
    if targets.len() < 2 {
        return Vec::new();
    }
    let now = Utc::now();
    let mut warnings = Vec::new();
    let mut listings = Vec::new();
    for target in targets.iter() {
        // One that has failed may not answer.
        let listing = if target.is_good() { Some(within(true, set::list(&target.store, folder)).await) } else { None };
        if let Some(Err(error)) = &listing {
            warnings.push(format!("what is held in {} is not known: {}", target.name(), failure::in_a_line(error)));
        }
        listings.push(listing.and_then(Result::ok));
    }
    let all_are_read = listings.iter().all(Option::is_some);
    let stores: Vec<(String, bool)> =
        targets.iter().map(|target| (target.name().to_owned(), target.store.has_sign_key())).collect();
    for (number, listing) in listings.iter().enumerate() {
        let (Some(target), Some(into)) = (targets.get_mut(number), listing) else { continue };
        let others: Vec<(&str, &Listing)> = stores
            .iter()
            .zip(&listings)
            .filter(|((name, _), _)| name != target.name())
            .filter_map(|((name, _), listing)| Some((name.as_str(), listing.as_ref()?)))
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
