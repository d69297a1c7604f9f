//! Partitions whose time is over: which of them are detached, archived, dropped, and which stay.

use chrono::TimeDelta;

use crate::base::units;
use crate::task::partition::key::Bound;
use crate::task::partition::keys::{Partition, Retain};
use crate::task::partition::mark::{Mark, Stage};
use crate::task::partition::plan::{Detach, Plan, Step};
use crate::task::partition::state::found::{Existing, State};

/// The attached partitions that would go, by their numbers.
pub fn over(state: &State, partition: &Partition) -> Vec<i64> {
    let cutoff = cutoff(state, partition);
    let goes = |existing: &&Existing| !existing.is_default && existing.is_plain && is_over(existing, cutoff);
    state.existing.iter().filter(goes).map(|existing| existing.table.oid).collect()
}

fn is_over(existing: &Existing, cutoff: Option<i64>) -> bool {
    match (existing.range, cutoff) {
        (Some((_, Bound::At(high))), Some(cutoff)) => high <= cutoff,
        _ => false,
    }
}

/// Where the past begins that goes; none when nothing does.
fn cutoff(state: &State, partition: &Partition) -> Option<i64> {
    match partition.retain? {
        Retain::Age(age) => state.now.checked_sub(i64::try_from(age.0.as_micros()).ok()?),
        Retain::Numbers(numbers) => state.highest_row?.checked_sub(i64::from(numbers)),
    }
}

pub(super) fn retire(state: &State, partition: &Partition, plan: &mut Plan) {
    let cutoff = cutoff(state, partition);
    let is_over = |existing: &Existing| is_over(existing, cutoff);
    let attached = || state.existing.iter().filter(|existing| !existing.is_default && !existing.is_pending);
    for kept in attached().filter(|existing| !is_over(existing)) {
        if let Some(mark) = &kept.mark {
            plan.push(Step::Keep { partition: kept.table.clone(), mark: mark.clone() }, "its time is not over any more");
        }
    }
    let mut over: Vec<&Existing> = attached().filter(|existing| is_over(existing)).collect();
    over.sort_by_key(|existing| existing.range);
    if over.is_empty() {
        return;
    }
    let names = || over.iter().map(|existing| existing.table.to_string()).collect::<Vec<_>>().join(", ");
    if let Some(apart) = state.clocks_apart.as_ref().filter(|_| state.key.is_time()) {
        plan.clocks_apart = true;
        plan.refusals.push(format!("{} would go, but {apart}", names()));
        return;
    }
    // PostgreSQL refuses CONCURRENTLY beside a default partition, whose constraint would change under its readers. Where others refer to
    // the table, the look for their rows and the detach are one: CONCURRENTLY lets some in between.
    let is_plain = state.default_partition().is_some() || partition.default || !state.inbound.is_empty();
    let how = if is_plain { Detach::Plainly } else { Detach::Concurrently };
    for existing in over {
        let (low, high) = existing.range.unwrap_or((Bound::Min, Bound::Max));
        if !existing.is_plain {
            plan.notes.push(format!("{} is over, and stays: it is partitioned itself, or a foreign table", existing.table));
            continue;
        }
        if !existing.inbound.is_empty() {
            let inbound = existing.inbound.join(", ");
            plan.refusals.push(format!("{} would go, but foreign keys refer to it: {inbound}", existing.table));
            continue;
        }
        if !existing.referred_to.is_empty() {
            plan.notes.push(format!(
                "{} is over, and stays: rows of others refer to it: {}; theirs go first, or their partition of the same time",
                existing.table,
                existing.referred_to.join(", ")
            ));
            continue;
        }
        if !existing.dependants.is_empty() && partition.grace.is_zero() {
            let dependants = existing.dependants.join(", ");
            plan.refusals.push(format!("{} would go at once, but there is {dependants}: drop that first", existing.table));
            continue;
        }
        if !existing.dependants.is_empty() {
            plan.warnings.push(format!(
                "{} is detached, and cannot be dropped while there is: {}; it goes on showing the detached table until then",
                existing.table,
                existing.dependants.join(", ")
            ));
        }
        let mark = Mark {
            parent: state.table.oid,
            table: existing.table.oid,
            stage: Stage::Retiring,
            at: state.at,
            from: state.key.show_bound(low),
            to: state.key.show_bound(high),
            // One of ours is there from a run that was ended: what was there before it is in it.
            comment: existing.mark.as_ref().and_then(|mark| mark.comment.clone()),
            // Attached again, and over again: what its archive does not hold is found at the drop, and takes its place.
            archive: existing.mark.as_ref().and_then(|mark| mark.archive.clone()),
            bounds: Some(existing.shown.clone()).filter(|shown| !shown.is_empty()),
            is_guarded: existing.mark.as_ref().is_some_and(|mark| mark.is_guarded),
            foreign_keys: existing.mark.as_ref().map(|mark| mark.foreign_keys.clone()).unwrap_or_default(),
        };
        let reason = format!(
            "it ends at {}, and all before {} goes{}",
            mark.to,
            state.key.show(cutoff.unwrap_or_default()),
            partition.archive.as_ref().map(|store| format!(", to the store `{store}` first")).unwrap_or_default()
        );
        plan.push(Step::Retire { partition: existing.table.clone(), how, mark }, reason);
    }
}

/// Of tables that were detached by earlier runs; those of this run are looked at by the next one, or have no grace.
pub(super) fn drop_what_is_over(state: &State, partition: &Partition, plan: &mut Plan) {
    for detached in &state.detached {
        if detached.mark.stage != Stage::Retired {
            continue;
        }
        if let Some(store) = partition.archive.as_ref().filter(|_| detached.mark.archive.is_none()) {
            let step = Step::Archive { table: detached.table.clone(), mark: detached.mark.clone() };
            plan.push(
                step,
                format!("detached {} ago, and not in the store `{store}` yet", units::age(detached.mark.at, state.at)),
            );
            continue;
        }
        let age = state.at - detached.mark.at;
        let grace = TimeDelta::from_std(partition.grace).unwrap_or(TimeDelta::MAX);
        if age < grace {
            let left = units::duration((grace - age).to_std().unwrap_or_default());
            plan.notes.push(format!("{} is detached, and will be dropped in {left}", detached.table));
            continue;
        }
        if !detached.inbound.is_empty() {
            let inbound = detached.inbound.join(", ");
            plan.refusals.push(format!("{} would be dropped, but foreign keys refer to it: {inbound}", detached.table));
            continue;
        }
        if !detached.dependants.is_empty() {
            let dependants = detached.dependants.join(", ");
            plan.refusals.push(format!("{} would be dropped, but there is {dependants}: drop that first", detached.table));
            continue;
        }
        // A grace is a time, too.
        if let Some(apart) = &state.clocks_apart {
            plan.clocks_apart = true;
            plan.refusals.push(format!("{} would be dropped, but {apart}", detached.table));
            continue;
        }
        let reason = format!(
            "detached {} ago, and `grace` is {}",
            units::age(detached.mark.at, state.at),
            units::duration(partition.grace)
        );
        plan.push(Step::Drop { table: detached.table.clone(), mark: detached.mark.clone() }, reason);
    }
}
