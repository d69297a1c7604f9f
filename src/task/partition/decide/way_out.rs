//! Partitions whose time is over: which of them are detached, archived, dropped, and which stay.

use chrono::TimeDelta;

use crate::base::units;
use crate::pg::identifier;
use crate::task::partition::calendar::Every;
use crate::task::partition::chain::PERIODS_AHEAD;
use crate::task::partition::key::Bound;
use crate::task::partition::keys::{Partition, Retain};
use crate::task::partition::mark::{Mark, Stage};
use crate::task::partition::plan::{Detach, Plan, Step};
use crate::task::partition::state::found::{Existing, FarRow, State};

/// Returns the OIDs of the attached partitions that would go.
pub fn over(state: &State, partition: &Partition) -> Vec<i64> {
    let cutoff = cutoff(state, partition).filter(|_| state.far_row.is_none());
    let goes = |existing: &&Existing| {
        !existing.is_default && existing.is_plain && is_over(existing, cutoff) && belongs_to_the_rows(state, existing)
    };
    state.existing.iter().filter(goes).map(|existing| existing.table.oid).collect()
}

/// Of number keys: no wide gap lies between the partition and the highest row, which says that it is over.
fn belongs_to_the_rows(state: &State, existing: &Existing) -> bool {
    match (state.chain, existing.range) {
        (Some(chain), Some((Bound::At(low), _))) => chain.from <= low,
        (Some(chain), Some((Bound::Min, _))) => chain.from == i64::MIN,
        _ => !matches!(state.calendar.every, Every::Step(_)),
    }
}

fn is_over(existing: &Existing, cutoff: Option<i64>) -> bool {
    match (existing.range, cutoff) {
        (Some((_, Bound::At(high))), Some(cutoff)) => high <= cutoff,
        _ => false,
    }
}

/// Returns the position before which everything goes, or None if nothing does.
fn cutoff(state: &State, partition: &Partition) -> Option<i64> {
    match partition.retain? {
        Retain::Age(age) => state.now.checked_sub(i64::try_from(age.0.as_micros()).ok()?),
        Retain::Numbers(numbers) => state.highest_row?.checked_sub(i64::from(numbers)),
    }
}

pub(super) fn retire(state: &State, partition: &Partition, plan: &mut Plan) {
    if is_stopped_by_a_far_row(state, partition, plan) {
        return;
    }
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
        match stays(state, partition, existing) {
            Some(Stays::Rightly(why)) => plan.notes.push(why),
            Some(Stays::Against(why)) => plan.refusals.push(why),
            None => detach(state, partition, existing, how, plan),
        }
    }
}

/// A partition whose time is over, and stays.
enum Stays {
    /// Nothing is wrong.
    Rightly(String),
    /// The job says that it goes.
    Against(String),
}

fn stays(state: &State, partition: &Partition, existing: &Existing) -> Option<Stays> {
    let name = &existing.table;
    if !belongs_to_the_rows(state, existing) {
        let (table, partition) = (state.table.sql(), existing.table.sql());
        let from = state.chain.map(|chain| state.key.show(chain.from)).unwrap_or_default();
        return Some(Stays::Rightly(format!(
            "{name} is over, and stays: more than {PERIODS_AHEAD} periods lie between it and the partitions from {from} on; if nobody needs it: ALTER TABLE \
             {table} DETACH PARTITION {partition}"
        )));
    }
    if !existing.is_plain {
        return Some(Stays::Rightly(format!("{name} is over, and stays: it is partitioned itself, or a foreign table")));
    }
    if !existing.inbound.is_empty() {
        return Some(Stays::Against(format!("{name} would go, but foreign keys refer to it: {}", existing.inbound.join(", "))));
    }
    if !existing.referred_to.is_empty() {
        return Some(Stays::Rightly(format!(
            "{name} is over, and stays: rows of others refer to it: {}; theirs go first, or their partition of the same time",
            existing.referred_to.join(", ")
        )));
    }
    if existing.has_rows_without_time {
        let (table, column) = (name.sql(), identifier(&state.column));
        return Some(Stays::Rightly(format!(
            "{name} is past its time and is kept: it has rows whose uuid is not of version 7, and their age is unknown. SELECT * FROM {table} WHERE {} shows \
             them; delete them or move them to another table",
            state.key.is_no_time(&column).unwrap_or_default()
        )));
    }
    if !existing.dependants.is_empty() && partition.grace.is_zero() {
        let dependants = existing.dependants.join(", ");
        return Some(Stays::Against(format!("{name} would go at once, but there is {dependants}: drop that first")));
    }
    None
}

fn detach(state: &State, partition: &Partition, existing: &Existing, how: Detach, plan: &mut Plan) {
    if !existing.dependants.is_empty() {
        plan.warnings.push(format!(
            "{} is detached, and cannot be dropped while there is: {}; it goes on showing the detached table until then",
            existing.table,
            existing.dependants.join(", ")
        ));
    }
    let (low, high) = existing.range.unwrap_or((Bound::Min, Bound::Max));
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
        state.key.show(cutoff(state, partition).unwrap_or_default()),
        partition.archive.as_ref().map(|store| format!(", to the store `{store}` first")).unwrap_or_default()
    );
    plan.push(Step::Retire { partition: existing.table.clone(), how, mark }, reason);
}

/// One wrong number must not retire the whole table: as long as the highest row is far beyond all others, nobody knows what is over.
fn is_stopped_by_a_far_row(state: &State, partition: &Partition, plan: &mut Plan) -> bool {
    let Some(far) = &state.far_row else { return false };
    let words = far_row_in_words(state, far);
    let Some(Retain::Numbers(numbers)) = partition.retain else {
        plan.notes.push(format!("{words}: no partition is created for it"));
        return false;
    };
    let cutoff = far.position.saturating_sub(i64::from(numbers));
    let would_go = |existing: &Existing| !existing.is_default && !existing.is_pending && is_over(existing, Some(cutoff));
    match state.existing.iter().any(would_go) {
        true => plan.refusals.push(format!(
            "nothing is retired, as {words}; correct or delete it, or if new rows do come there, detach the partitions below yourself"
        )),
        false => plan.notes.push(format!("{words}: no partition is created for it, and nothing is retired")),
    }
    true
}

/// Describes the row, with a query that shows it and all like it.
fn far_row_in_words(state: &State, far: &FarRow) -> String {
    let (Every::Step(step), Some(chain)) = (state.calendar.every, state.chain) else { return format!("a row has {}", far.shown) };
    format!(
        "a row has {} = {}, more than {PERIODS_AHEAD} periods beyond the other rows and partitions, which end at {} (SELECT * FROM {} WHERE {} >= {} shows all \
         such rows)",
        state.column,
        far.shown,
        chain.to,
        state.table.sql(),
        identifier(&state.column),
        chain.limit(step)
    )
}

/// Drops tables that earlier runs detached. The next run looks at those of this run, unless there is no grace.
pub(super) fn drop_what_is_over(state: &State, partition: &Partition, plan: &mut Plan) {
    for other in &state.of_other_owners {
        plan.notes.push(format!(
            "{} was retired from {}, and stays: it belongs to {}, and its mark counts only if it belongs to {}; if it was a partition of that table: ALTER TABLE \
             {} OWNER TO {}",
            other.table,
            state.table,
            other.owner,
            other.expected,
            other.table.sql(),
            other.expected
        ));
    }
    for detached in &state.detached {
        if detached.mark.stage != Stage::Retired {
            continue;
        }
        if let Some(store) = partition.archive.as_ref().filter(|store| !detached.mark.may_be_in(store)) {
            let step = Step::Archive { table: detached.table.clone(), mark: detached.mark.clone() };
            let elsewhere = detached.mark.archive.as_ref().and_then(|archived| archived.store.as_ref());
            let elsewhere = elsewhere.map(|elsewhere| format!(", but in `{elsewhere}`")).unwrap_or_default();
            let age = units::age(detached.mark.at, state.at);
            plan.push(step, format!("detached {age} ago, and not in the store `{store}` yet{elsewhere}"));
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
