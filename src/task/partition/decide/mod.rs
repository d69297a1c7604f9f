//! Decides what to do, and why. Pure: it takes the state, and returns steps, refusals and notes.

use std::collections::BTreeSet;

use chrono::{DateTime, TimeDelta, TimeZone as _, Utc};

use super::plan::{New, Plan, Planned, RowsThatStay, Step};

mod default;
mod pieces;
mod retirement;

pub use retirement::over;

use super::calendar::Every;
use super::chain::PERIODS_AHEAD;
use super::key::Bound;
use super::keys::{Like, Partition};
use super::mark::Stage;
use super::runway::Runway;
use crate::pg::{self, identifier};
use crate::task::partition::state::found::{Extra, State};

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
        warnings: Vec::new(),
        covered_until: None,
        covered_until_instant: None,
        is_covered: false,
        partitions: state.existing.len(),
        default_rows: state.default.rows,
        default: state.default_partition().map(|default| default.table.clone()),
        is_like_newest: partition.like == Like::Newest,
        grace: partition.grace,
        rows_that_stay: rows_that_stay(&state),
        at: state.at,
        now: state.now,
        others: Vec::new(),
        left: Vec::new(),
    };
    finish_what_was_begun(&state, &mut plan);
    if !partition.only_retires {
        create_ahead(&state, partition, &mut plan);
        default::empty_the_default(&state, &mut plan);
        say_what_takes_no_rows(&state, &mut plan);
        say_what_new_ones_lack(&state, partition, &mut plan);
    }
    retirement::retire(&state, partition, &mut plan);
    retirement::drop_what_is_over(&state, partition, &mut plan);
    if partition.only_retires {
        plan.is_covered = true;
    } else {
        let runway = runway(&state);
        plan.covered_until = runway.until;
        plan.covered_until_instant = runway.until_instant;
        plan.is_covered = runway.is_covered;
        describe(&state, &mut plan);
    }
    plan
}

/// Returns the condition on rows whose key is no time, so that their age is unknown. A partition gets such a row by chance, or in the moment before it is detached.
fn rows_that_stay(state: &State) -> Option<RowsThatStay> {
    Some(RowsThatStay { condition: state.key.is_no_time(&identifier(&state.column))?, before: None })
}

impl Plan {
    fn push(&mut self, step: Step, reason: impl Into<String>) {
        self.steps.push(Planned { step, reason: reason.into() });
    }
}

fn finish_what_was_begun(state: &State, plan: &mut Plan) {
    for partition in state.existing.iter().filter(|partition| partition.is_pending) {
        let reason = "its detach is pending: until it is finished, the table does not show its rows, refuses new rows of its range, and \
                      allows no other detach";
        plan.push(Step::Finalise { partition: partition.table.clone() }, reason);
        // Without a mark, another program has detached it, and the table stays.
        if let Some(mark) = &partition.mark {
            plan.push(Step::Confirm { table: partition.table.clone(), mark: mark.clone() }, "pgtend started its detach");
        }
    }
    for detached in state.detached.iter().filter(|detached| detached.mark.stage == Stage::Retiring) {
        let reason = "it is detached, but the run that detached it ended before it recorded that";
        plan.push(Step::Confirm { table: detached.table.clone(), mark: detached.mark.clone() }, reason);
    }
}

fn create_ahead(state: &State, partition: &Partition, plan: &mut Plan) {
    say_where_the_sequence_is(state, plan);
    let Some(current) = state.calendar.period_at(state.now) else {
        plan.refusals.push(format!("{} is outside the supported range (years 1 to 9998)", state.key.show(state.now)));
        return;
    };
    let mut taken: BTreeSet<String> = state.taken.iter().cloned().collect();
    if partition.default && state.default_partition().is_none() {
        let name = free_name(state, "default", &mut taken);
        let new = New { name, range: None, moves_rows: false, model: pieces::model(state) };
        plan.push(Step::Create(new), "default = true, and there is no default partition");
    }
    let ranges = covered(state);
    let mut period = current;
    for number in 0..=partition.premake {
        for piece in uncovered(period, &ranges) {
            let reason = match number {
                0 => "no partition covers new rows".to_owned(),
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

/// Refuses a sequence far beyond all rows: it was set wrong, or the application continues there. Only a person can tell.
fn say_where_the_sequence_is(state: &State, plan: &mut Plan) {
    let (Some(last), Some(chain), Every::Step(step)) = (state.far_sequence, state.chain, state.calendar.every) else { return };
    let has_partition = |(low, high): &(Bound, Bound)| *low <= Bound::At(last) && Bound::At(last) < *high;
    if covered(state).iter().any(has_partition) {
        return;
    }
    let (table, column) = (pg::literal(&state.table.sql()), pg::literal(&state.column));
    let period = state.calendar.period_at(last).map(|period| format!(" FROM ({}) TO ({})", period.from, period.to));
    plan.refusals.push(format!(
        "the sequence of {} is at {last}, more than {PERIODS_AHEAD} periods beyond the rows and partitions, which end at {}, so its next \
         rows have no partition; set it back: SELECT setval(pg_get_serial_sequence({table}, {column}), {}); or, if new rows belong there, \
         create the first partition there yourself: FOR VALUES{}",
        state.column,
        chain.to,
        state.highest_row.unwrap_or(1).max(1),
        period.unwrap_or_else(|| format!(" FROM ({}) TO (MAXVALUE)", chain.limit(step)))
    ));
}

/// Warns of what partitions that are about to be created lack.
fn say_what_new_ones_lack(state: &State, partition: &Partition, plan: &mut Plan) {
    let new: Vec<&str> = plan
        .steps
        .iter()
        .filter_map(|planned| match &planned.step {
            Step::Create(new) => Some(new.name.as_str()),
            _ => None,
        })
        .collect();
    if new.is_empty() {
        return;
    }
    let copies = partition.like == Like::Newest;
    let (copied, left): (Vec<&Extra>, Vec<&Extra>) = state.extras.iter().partition(|extra| extra.copy.is_some());
    let words = |extras: &[&Extra]| extras.iter().map(|extra| extra.what.clone()).collect::<Vec<_>>().join("; ");
    if let Some(model) = state.model() {
        let lacks = |extras: &[&Extra], cure: &str| {
            format!(
                "{} has properties that {} itself does not have and that new partitions lack: {}; {cure}",
                model.table,
                state.table,
                words(extras)
            )
        };
        if !copied.is_empty() && !copies {
            plan.warnings.push(lacks(&copied, "like = \"newest\" copies them"));
        }
        if !left.is_empty() {
            plan.warnings.push(lacks(&left, "create them yourself if new partitions need them"));
        }
    }
    for published in state.published.iter().filter(|published| !published.via_root) {
        let slots = if published.slots.is_empty() { String::new() } else { format!("; slots: {}", published.slots.join(", ")) };
        plan.warnings.push(format!(
            "publication {} publishes {} by its partitions: before rows arrive, create {} on its subscribers and refresh their \
             subscriptions{slots}",
            published.name,
            state.table,
            new.join(", ")
        ));
    }
}

/// Refuses partitions that are partitioned themselves and have no partition of their own: no other partition can take their range, and its
/// rows are refused.
fn say_what_takes_no_rows(state: &State, plan: &mut Plan) {
    for existing in state.existing.iter().filter(|existing| !existing.takes_rows && !existing.is_pending) {
        let is_past = existing.range.is_some_and(|(_, high)| high <= Bound::At(state.now));
        if !is_past {
            plan.refusals.push(format!(
                "{} is partitioned itself and has no partition of its own: rows in its range are refused; create a partition below it, or \
                 detach it",
                existing.table
            ));
        }
    }
}

/// Returns how far the ranges reach from now on without a gap.
pub fn runway(state: &State) -> Runway {
    let mut until = Bound::At(state.now);
    let ranges: Vec<_> = state
        .existing
        .iter()
        .filter(|existing| !existing.is_pending && existing.takes_rows)
        .filter_map(|existing| existing.range)
        .collect::<BTreeSet<_>>()
        .into_iter()
        .collect();
    for (low, high) in ranges {
        if low <= until && high > until {
            until = high;
        }
    }
    let is_any = until != Bound::At(state.now);
    let next = state.calendar.period_at(state.now).and_then(|current| state.calendar.after(current));
    Runway {
        until: is_any.then(|| state.key.show_bound(until)),
        until_instant: if is_any { instant(state, until) } else { None },
        is_covered: next.is_some_and(|next| until >= Bound::At(next.to)),
    }
}

fn instant(state: &State, until: Bound) -> Option<DateTime<Utc>> {
    let Bound::At(position) = until else { return None };
    let read = DateTime::from_timestamp_micros(position).filter(|_| state.key.is_time())?;
    if !state.key.is_wall_clock() {
        return Some(read);
    }
    // If clocks skip that wall-clock time, the earliest one that exists is an hour later.
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
            // A gap that this run fills is not reported.
            let is_filled = |planned: &Planned| matches!(&planned.step, Step::Create(New { range: Some(range), .. }) if range.from <= *end && *start <= range.to);
            if !plan.steps.iter().any(is_filled) {
                plan.notes.push(format!("no partition from {} to {}", state.key.show(*end), state.key.show(*start)));
            }
        }
    }
    default::describe(state, plan);
}

#[cfg(test)]
mod tests;
use pieces::{covered, create_piece, free_name, uncovered};
