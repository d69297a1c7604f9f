use std::time::Duration;

use chrono_tz::Tz;

use super::*;
use crate::pg::Server;
use crate::task::partition::calendar::{Calendar, Every, Unit};
use crate::task::partition::key::Key;
use crate::task::partition::state::{Stray, TableName};
use crate::units::Span;

const DAY: i64 = 86_400_000_000;

fn job() -> Partition {
    Partition {
        table: "public.logs".to_owned(),
        column: "at".to_owned(),
        every: Every::Unit(Unit::Day),
        epoch: None,
        zone: None,
        premake: 2,
        retain: None,
        archive: None,
        grace: Duration::from_secs(7 * 86_400),
        default: false,
        lock_timeout: Duration::from_secs(2),
        give_up_after: Duration::from_secs(60),
        only_retires: false,
    }
}

fn name(oid: i64, name: &str) -> TableName {
    TableName { oid, schema: "public".to_owned(), name: name.to_owned() }
}

/// Days since 1970; `now` is in the tenth. Partitions of whole days, by their bounds.
fn state(partitions: &[(i64, i64)]) -> State {
    let existing = partitions.iter().enumerate().map(|(index, (from, to))| existing(100 + index as i64, *from, *to));
    State {
        server: Server { version_num: 180_000, version: "18".to_owned() },
        table: name(1, "logs"),
        column: "at".to_owned(),
        key: Key::TimestampTz,
        calendar: Calendar { every: Every::Unit(Unit::Day), zone: Tz::UTC },
        now: 10 * DAY + DAY / 2,
        highest_row: None,
        zone: Tz::Asia__Tokyo,
        at: DateTime::from_timestamp_micros(10 * DAY + DAY / 2).unwrap(),
        clocks_apart: None,
        existing: existing.collect(),
        detached: Vec::new(),
        inbound: Vec::new(),
        publications: Vec::new(),
        default_rows: 0,
        default_null_rows: 0,
        strays: Vec::new(),
        taken: Vec::new(),
    }
}

fn existing(oid: i64, from: i64, to: i64) -> Existing {
    Existing {
        table: name(oid, &format!("d{from}_{to}")),
        shown: String::new(),
        range: Some((Bound::At(from * DAY), Bound::At(to * DAY))),
        is_default: false,
        is_plain: true,
        is_pending: false,
        mark: None,
        inbound: Vec::new(),
    }
}

fn default_partition() -> Existing {
    Existing { range: None, is_default: true, shown: "DEFAULT".to_owned(), ..existing(99, 0, 0) }
}

fn mark(table: i64, stage: Stage, day: i64) -> Mark {
    Mark {
        parent: 1,
        table,
        stage,
        at: DateTime::from_timestamp_micros(day * DAY).unwrap(),
        from: String::new(),
        to: String::new(),
        comment: None,
        archive: None,
    }
}

fn steps(plan: &Plan) -> Vec<String> {
    plan.steps.iter().map(|planned| planned.step.to_string()).collect()
}

/// Days that are created.
fn created(plan: &Plan) -> Vec<(i64, i64)> {
    let ranges = plan.steps.iter().filter_map(|planned| match &planned.step {
        Step::Create(new) => new.range,
        _ => None,
    });
    ranges.map(|range| (range.from / DAY, range.to / DAY)).collect()
}

#[test]
fn what_is_missing_from_now_on_is_created_and_what_is_missing_before_is_said() {
    let plan = decide(state(&[]), &job());
    assert_eq!(created(&plan), [(10, 11), (11, 12), (12, 13)]);
    assert!(!plan.is_covered && plan.covered_until.is_none());

    let plan = decide(state(&[(5, 6), (8, 9), (9, 10), (10, 11), (12, 13)]), &job());
    assert_eq!(created(&plan), [(11, 12)]);
    assert_eq!(plan.covered_until.as_deref(), Some("1970-01-12T00:00:00Z"));
    assert_eq!(plan.notes, ["no partition from 1970-01-07T00:00:00Z to 1970-01-09T00:00:00Z"]);
    assert!(!plan.is_covered);

    let plan = decide(state(&[(10, 11), (11, 12), (12, 13)]), &job());
    assert!(plan.steps.is_empty() && plan.is_covered);
    assert_eq!(plan.covered_until_instant.unwrap().to_rfc3339(), "1970-01-14T00:00:00+00:00");
    let on_the_wall = State { key: Key::Timestamp, ..state(&[(10, 11), (11, 12), (12, 13)]) };
    assert_eq!(decide(on_the_wall, &job()).covered_until_instant.unwrap().to_rfc3339(), "1970-01-13T15:00:00+00:00");
}

#[test]
fn partitions_of_another_size_are_filled_around() {
    let mut state = state(&[(3, 11)]);
    state.existing[0].range = Some((Bound::Min, Bound::At(11 * DAY + DAY / 4)));
    let plan = decide(state, &job());
    let Step::Create(first) = &plan.steps[0].step else { panic!("{plan}") };
    assert_eq!(first.range, Some(Period { from: 11 * DAY + DAY / 4, to: 12 * DAY }));
}

#[test]
fn a_name_that_is_taken_is_not_used_again() {
    let mut state = state(&[]);
    state.taken = vec!["logs_p1970_01_11".to_owned()];
    assert_eq!(steps(&decide(state, &job()))[0], "create logs_p1970_01_11_2");
}

#[test]
fn a_pending_detach_is_finished_before_anything_else() {
    let mut state = state(&[(10, 11), (11, 12), (12, 13), (1, 2)]);
    state.existing[3].is_pending = true;
    assert_eq!(steps(&decide(state.clone(), &job())), ["finish the detach of public.d1_2"]);
    // With our mark, it goes on its way.
    state.existing[3].mark = Some(mark(103, Stage::Retiring, 9));
    assert_eq!(steps(&decide(state, &job())), ["finish the detach of public.d1_2", "note that public.d1_2 is detached"]);
}

#[test]
fn only_what_ends_before_the_cutoff_goes_oldest_first() {
    let job = Partition { retain: Some(Retain::Age(Span(Duration::from_secs(3 * 86_400)))), ..job() };
    let state = state(&[(6, 7), (5, 6), (7, 8), (10, 11), (11, 12), (12, 13)]);
    let expected = ["detach public.d5_6 concurrently", "detach public.d6_7 concurrently"];
    assert_eq!(steps(&decide(state.clone(), &job)), expected);
    for (what, change) in [
        (
            "a foreign key to the table",
            (|state: &mut State| state.inbound.push("public.notes (fk)".to_owned())) as fn(&mut State),
        ),
        ("a clock that is wrong", |state| state.clocks_apart = Some("clocks are apart".to_owned())),
    ] {
        let mut state = state.clone();
        change(&mut state);
        let plan = decide(state, &job);
        assert!(plan.steps.is_empty() && plan.refusals.len() == 1, "{what}: {plan}");
    }
    let mut with_default = state.clone();
    with_default.existing.push(default_partition());
    assert_eq!(steps(&decide(with_default, &job)), ["detach public.d5_6", "detach public.d6_7"]);
    let mut open = state;
    open.existing[1].range = Some((Bound::At(0), Bound::Max));
    assert_eq!(steps(&decide(open, &job)), ["detach public.d6_7 concurrently"]);
}

#[test]
fn a_mark_comes_off_when_its_time_is_not_over_any_more() {
    let mut state = state(&[(5, 6), (10, 11), (11, 12), (12, 13)]);
    state.existing[0].mark = Some(mark(100, Stage::Retiring, 9));
    assert_eq!(steps(&decide(state, &job())), ["keep public.d5_6"]);
}

#[test]
fn a_detached_table_goes_after_its_archive_and_its_grace() {
    let mut state = state(&[(10, 11), (11, 12), (12, 13)]);
    for (oid, day) in [(7, 1), (8, 9)] {
        let table = name(oid, &format!("old{oid}"));
        state.detached.push(crate::task::partition::state::Detached {
            table,
            mark: mark(oid, Stage::Retired, day),
            inbound: Vec::new(),
        });
    }
    let plan = decide(state.clone(), &job());
    assert_eq!(steps(&plan), ["drop public.old7"]);
    assert!(plan.notes[0].starts_with("public.old8 is detached, and will be dropped in 5 d"), "{plan}");
    let with_store = Partition { archive: Some("local".to_owned()), ..job() };
    assert_eq!(steps(&decide(state.clone(), &with_store)), ["archive public.old7", "archive public.old8"]);
    state.detached[0].inbound = vec!["public.notes (fk)".to_owned()];
    let plan = decide(state, &job());
    assert!(plan.steps.is_empty() && plan.refusals[0].contains("public.notes"), "{plan}");
}

#[test]
fn rows_of_the_default_partition_get_their_partitions_unless_a_move_would_do_harm() {
    let mut state = state(&[(10, 11), (11, 12), (12, 13)]);
    state.existing.push(default_partition());
    state.default_rows = 5;
    state.strays = vec![Stray { position: 4 * DAY + 7, rows: 5, cuts: Vec::new(), is_dense: false }];
    let plan = decide(state.clone(), &job());
    assert_eq!(created(&plan), [(4, 5)]);
    assert!(matches!(&plan.steps[0].step, Step::Create(new) if new.moves_rows));

    let refused = |change: fn(&mut State), says: &str| {
        let mut state = state.clone();
        change(&mut state);
        let plan = decide(state, &job());
        assert!(plan.steps.is_empty() && plan.refusals[0].contains(says), "{plan}");
    };
    refused(|state| state.inbound.push("public.notes (fk)".to_owned()), "public.notes");
    refused(|state| state.publications.push("everything".to_owned()), "subscribers");
    refused(|state| state.strays[0].is_dense = true, "more than 50,000 rows with one key");

    // Too many for one transaction: several partitions, side by side.
    state.strays[0].cuts = vec![4 * DAY + DAY / 4, 4 * DAY + DAY / 2];
    let plan = decide(state.clone(), &job());
    let expected = ["create logs_p1970_01_05", "create logs_p1970_01_05_2", "create logs_p1970_01_05_3"];
    assert_eq!(steps(&plan), expected);
    assert!(
        matches!(&plan.steps[1].step, Step::Create(new) if new.range == Some(Period { from: 4 * DAY + DAY / 4, to: 4 * DAY + DAY / 2 }))
    );
}
