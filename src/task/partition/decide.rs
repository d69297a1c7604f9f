//! What to do, and why: pure. State in; steps, refusals and notes out.

use std::collections::BTreeSet;

use chrono::{DateTime, TimeDelta, TimeZone as _, Utc};

pub use super::plan::{Detach, New, Plan, Planned, Step};

use super::calendar::{self, Period};
use super::key::Bound;
use super::mark::{Mark, Stage};
use super::state::{CUTS, Existing, MOVED_AT_ONCE_ROWS, State};
use super::{Partition, Retain};
use crate::units;

/// Pieces of one period that older partitions leave uncovered.
const PIECES: usize = 100;

pub fn decide(state: State, partition: &Partition) -> Plan {
    let mut plan = Plan {
        table: state.table.clone(),
        column: state.column.clone(),
        key: state.key,
        major: state.server.major(),
        steps: Vec::new(),
        refusals: Vec::new(),
        clocks_apart: false,
        notes: Vec::new(),
        covered_until: None,
        covered_until_instant: None,
        is_covered: false,
        partitions: state.existing.len(),
        default_rows: state.default_rows,
        default: state.default_partition().map(|default| default.table.clone()),
        grace: partition.grace,
        at: state.at,
    };
    finish_what_was_begun(&state, &mut plan);
    if !partition.only_retires {
        create_ahead(&state, partition, &mut plan);
        empty_the_default(&state, &mut plan);
    }
    retire(&state, partition, &mut plan);
    drop_what_is_over(&state, partition, &mut plan);
    if partition.only_retires {
        plan.is_covered = true;
    } else {
        runway(&state, &mut plan);
        describe(&state, &mut plan);
    }
    plan
}

impl Plan {
    fn push(&mut self, step: Step, reason: impl Into<String>) {
        self.steps.push(Planned { step, reason: reason.into() });
    }
}

fn finish_what_was_begun(state: &State, plan: &mut Plan) {
    for partition in state.existing.iter().filter(|partition| partition.is_pending) {
        let reason = "its detach is pending: the table shows its rows no more, refuses new ones of its range, and allows no other \
                      detach until it is finished";
        plan.push(Step::Finalise { partition: partition.table.clone() }, reason);
        // Without a mark the detach was somebody else's, and the table stays.
        if let Some(mark) = &partition.mark {
            plan.push(Step::Confirm { table: partition.table.clone(), mark: mark.clone() }, "its detach was ours");
        }
    }
    for detached in state.detached.iter().filter(|detached| detached.mark.stage == Stage::Retiring) {
        let reason = "it is detached, and the run that did it was ended before it said so";
        plan.push(Step::Confirm { table: detached.table.clone(), mark: detached.mark.clone() }, reason);
    }
}

/// Ranges that take rows, in order.
fn covered(state: &State) -> Vec<(Bound, Bound)> {
    let mut ranges: Vec<_> = state.existing.iter().filter_map(|partition| partition.range).collect();
    ranges.sort();
    ranges
}

/// What of `period` no range covers: the whole, nothing, or pieces between partitions of other sizes.
fn uncovered(period: Period, ranges: &[(Bound, Bound)]) -> Vec<Period> {
    let (mut from, mut pieces) = (period.from, Vec::new());
    for (low, high) in ranges {
        let low = match low {
            Bound::Min => i64::MIN,
            Bound::At(low) => *low,
            Bound::Max => i64::MAX,
        };
        let high = match high {
            Bound::Min => i64::MIN,
            Bound::At(high) => *high,
            Bound::Max => i64::MAX,
        };
        if high <= from || low >= period.to {
            continue;
        }
        if low > from {
            pieces.push(Period { from, to: low });
        }
        from = from.max(high);
    }
    if from < period.to {
        pieces.push(Period { from, to: period.to });
    }
    pieces.truncate(PIECES);
    pieces
}

fn create_ahead(state: &State, partition: &Partition, plan: &mut Plan) {
    let Some(current) = state.calendar.period_at(state.now) else {
        plan.refusals.push(format!("{} is beyond every calendar", state.key.show(state.now)));
        return;
    };
    let mut taken: BTreeSet<String> = state.taken.iter().cloned().collect();
    if partition.default && state.default_partition().is_none() {
        let name = free_name(state, "default", &mut taken);
        let new = New { name, range: None, moves_rows: false, model: model(state) };
        plan.push(Step::Create(new), "default = true, and there is none");
    }
    let ranges = covered(state);
    let mut period = current;
    for number in 0..=partition.premake {
        for piece in uncovered(period, &ranges) {
            let reason = match number {
                0 => "rows of now have no partition".to_owned(),
                _ => format!("{number} of {} ahead", partition.premake),
            };
            create_piece(state, plan, &mut taken, period, piece, &reason);
        }
        match state.calendar.after(period) {
            Some(next) => period = next,
            None => return,
        }
    }
}

/// What one transaction makes, and fills from the default partition: where that has too many rows of a period for one, the
/// period gets several partitions. There is no merging them before PostgreSQL 19; they go by their bounds, like all.
fn create_piece(state: &State, plan: &mut Plan, taken: &mut BTreeSet<String>, period: Period, piece: Period, reason: &str) {
    let stray = state.strays.iter().find(|stray| period.from <= stray.position && stray.position < period.to);
    let mut from = piece.from;
    for cut in stray.map(|stray| stray.cuts.as_slice()).unwrap_or_default() {
        if from < *cut && *cut < piece.to {
            create_slice(state, plan, taken, period, Period { from, to: *cut }, reason);
            from = *cut;
        }
    }
    // More than one run takes: the next one goes on from there.
    if stray.is_none_or(|stray| stray.cuts.len() < CUTS) {
        create_slice(state, plan, taken, period, Period { from, to: piece.to }, reason);
    }
}

fn create_slice(state: &State, plan: &mut Plan, taken: &mut BTreeSet<String>, period: Period, piece: Period, reason: &str) {
    if let Err(error) = state.key.sql(piece.to) {
        plan.refusals.push(format!("no partition for {}: {error}", state.key.show(piece.from)));
        return;
    }
    let is_there = |planned: &Planned| matches!(&planned.step, Step::Create(new) if new.range == Some(piece));
    if plan.steps.iter().any(is_there) {
        return;
    }
    let name = free_name(state, &state.calendar.suffix(period), taken);
    let moves_rows = state.strays.iter().any(|stray| period.from <= stray.position && stray.position < period.to);
    let new = New { name, range: Some(piece), moves_rows, model: model(state) };
    let range = format!("{} to {}", state.key.show(piece.from), state.key.show(piece.to));
    plan.push(Step::Create(new), format!("{range}; {reason}"));
}

/// The newest ordinary partition.
fn model(state: &State) -> Option<i64> {
    let plain = state.existing.iter().filter(|existing| existing.is_plain && existing.range.is_some());
    plain.max_by_key(|existing| existing.range).map(|existing| existing.table.oid)
}

fn free_name(state: &State, suffix: &str, taken: &mut BTreeSet<String>) -> String {
    let mut name = calendar::partition_name(&state.table.name, suffix);
    for number in 2..=taken.len() + 2 {
        if taken.insert(name.clone()) {
            break;
        }
        name = calendar::partition_name(&state.table.name, &format!("{suffix}_{number}"));
    }
    name
}

/// Why rows cannot leave the default partition by our hands: what a DELETE there would do elsewhere.
fn cannot_move(state: &State) -> Option<String> {
    let default = state.default_partition()?;
    let inbound: Vec<_> = state.inbound.iter().chain(&default.inbound).cloned().collect();
    if !inbound.is_empty() {
        return Some(format!("foreign keys refer to it, which a move would fire: {}", inbound.join(", ")));
    }
    if !state.publications.is_empty() {
        return Some(format!(
            "it is published ({}), and subscribers would lose the rows: the partition they go to is published only after them",
            state.publications.join(", ")
        ));
    }
    None
}

fn empty_the_default(state: &State, plan: &mut Plan) {
    let Some(default) = state.default_partition() else { return };
    if state.strays.is_empty() {
        return;
    }
    if let Some(reason) = cannot_move(state) {
        plan.refusals.push(format!("rows in the default partition {} stay there: {reason}", default.table));
        // Nor can a partition be made of what the default partition has rows of.
        plan.steps.retain(|planned| match &planned.step {
            Step::Create(New { range: Some(range), .. }) => {
                !state.strays.iter().any(|stray| range.from <= stray.position && stray.position < range.to)
            }
            _ => true,
        });
        return;
    }
    let ranges = covered(state);
    let mut taken: BTreeSet<String> = state.taken.iter().cloned().collect();
    taken.extend(plan.steps.iter().filter_map(|planned| match &planned.step {
        Step::Create(new) => Some(new.name.clone()),
        _ => None,
    }));
    for stray in &state.strays {
        let Some(period) = state.calendar.period_at(stray.position) else { continue };
        if stray.is_dense {
            plan.refusals.push(format!(
                "the default partition {} has more than {} rows with one key in {}: moving them would hold the table locked for more than a \
                 second; move them by hand at a quiet time",
                default.table,
                units::count(MOVED_AT_ONCE_ROWS),
                state.calendar.suffix(period)
            ));
            plan.steps.retain(|planned| {
                !matches!(&planned.step, Step::Create(New { range: Some(range), .. })
                if period.from <= range.from && range.from < period.to)
            });
            continue;
        }
        for piece in uncovered(period, &ranges) {
            let more = if stray.cuts.is_empty() { "" } else { "more than " };
            let rows = units::plural(stray.rows.min(MOVED_AT_ONCE_ROWS) as usize, "row");
            let reason = format!("{more}{rows} of {} in the default partition", state.calendar.suffix(period));
            create_piece(state, plan, &mut taken, period, piece, &reason);
        }
    }
}

/// Where the past begins that goes; none when nothing does.
fn cutoff(state: &State, partition: &Partition) -> Option<i64> {
    match partition.retain? {
        Retain::Age(age) => state.now.checked_sub(i64::try_from(age.0.as_micros()).ok()?),
        Retain::Numbers(numbers) => state.highest_row?.checked_sub(i64::from(numbers)),
    }
}

fn retire(state: &State, partition: &Partition, plan: &mut Plan) {
    let cutoff = cutoff(state, partition);
    let is_over = |existing: &Existing| match (existing.range, cutoff) {
        (Some((_, Bound::At(high))), Some(cutoff)) => high <= cutoff,
        _ => false,
    };
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
    if !state.inbound.is_empty() {
        plan.refusals.push(format!(
            "{} would go, but foreign keys refer to {}: {}; drop them, or give the referring tables partitions of their own",
            names(),
            state.table,
            state.inbound.join(", ")
        ));
        return;
    }
    // PostgreSQL refuses CONCURRENTLY beside a default partition, whose constraint would change under its readers.
    let how = if state.default_partition().is_some() || partition.default { Detach::Plainly } else { Detach::Concurrently };
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
        let mark = Mark {
            parent: state.table.oid,
            table: existing.table.oid,
            stage: Stage::Retiring,
            at: state.at,
            from: state.key.show_bound(low),
            to: state.key.show_bound(high),
            // One of ours is there from a run that was ended: what was there before it is in it.
            comment: existing.mark.as_ref().and_then(|mark| mark.comment.clone()),
            archive: None,
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
fn drop_what_is_over(state: &State, partition: &Partition, plan: &mut Plan) {
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

/// How far the ranges reach from now on without a gap.
fn runway(state: &State, plan: &mut Plan) {
    let mut until = Bound::At(state.now);
    let ranges: Vec<_> = state
        .existing
        .iter()
        .filter(|existing| !existing.is_pending)
        .filter_map(|existing| existing.range)
        .collect::<BTreeSet<_>>()
        .into_iter()
        .collect();
    for (low, high) in ranges {
        if low <= until && high > until {
            until = high;
        }
    }
    if until != Bound::At(state.now) {
        plan.covered_until = Some(state.key.show_bound(until));
        plan.covered_until_instant = instant(state, until);
    }
    let next = state.calendar.period_at(state.now).and_then(|current| state.calendar.after(current));
    plan.is_covered = next.is_some_and(|next| until >= Bound::At(next.to));
}

fn instant(state: &State, until: Bound) -> Option<DateTime<Utc>> {
    let Bound::At(position) = until else { return None };
    let read = DateTime::from_timestamp_micros(position).filter(|_| state.key.is_time())?;
    if !state.key.is_on_the_wall() {
        return Some(read);
    }
    // Where clocks skip that reading, an hour later is the earliest that they do not.
    let on_the_wall = |read: chrono::NaiveDateTime| state.zone.from_local_datetime(&read).earliest();
    let found = on_the_wall(read.naive_utc()).or_else(|| on_the_wall(read.naive_utc() + TimeDelta::hours(1)));
    found.map(|found| found.with_timezone(&Utc))
}

fn describe(state: &State, plan: &mut Plan) {
    for existing in &state.existing {
        if existing.range.is_none() && !existing.is_default {
            plan.notes.push(format!("{} is left alone: its bounds are {}", existing.table, existing.shown));
        }
    }
    let ranges = covered(state);
    for pair in ranges.windows(2) {
        if let [(_, Bound::At(end)), (Bound::At(start), _)] = pair
            && end < start
        {
            // One that this run fills is no news.
            let is_filled = |planned: &Planned| matches!(&planned.step, Step::Create(New { range: Some(range), .. }) if range.from <= *end && *start <= range.to);
            if !plan.steps.iter().any(is_filled) {
                plan.notes.push(format!("no partition from {} to {}", state.key.show(*end), state.key.show(*start)));
            }
        }
    }
    if let Some(default) = state.default_partition() {
        if state.default_rows > 0 {
            let nulls = if state.default_null_rows > 0 {
                format!(", {} of them without a key, which stay", units::count(state.default_null_rows))
            } else {
                String::new()
            };
            plan.notes.push(format!(
                "{} in the default partition {}{nulls}",
                units::plural(state.default_rows, "row"),
                default.table
            ));
        }
        plan.notes.push(format!(
            "with the default partition {} a partition is detached under ACCESS EXCLUSIVE, for a moment, and not CONCURRENTLY",
            default.table
        ));
    }
}

#[cfg(test)]
mod tests;
