use std::time::Duration;

use chrono_tz::Tz;

use super::*;
use crate::base::units::Span;
use crate::pg::Server;
use crate::pg::table::TableName;
use crate::task::partition::calendar::{Calendar, Every, Period, Unit};
use crate::task::partition::key::Key;
use crate::task::partition::keys::{Partition, Retain};
use crate::task::partition::mark::{Archived, Mark};
use crate::task::partition::state::found::{
    CopyStatement, Counted, DefaultContents, Existing, Extra, OtherOwnersTable, Published, StrayPeriod,
};

mod numbers;

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
        like: Like::Parent,
        lock_timeout: Duration::from_secs(2),
        give_up_after: Duration::from_secs(60),
        only_retires: false,
        agreed: false,
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
        counted: None,
        asks: None,
        chain: None,
        far_row: None,
        far_sequence: None,
        zone: Tz::Asia__Tokyo,
        at: DateTime::from_timestamp_micros(10 * DAY + DAY / 2).unwrap(),
        clocks_apart: None,
        existing: existing.collect(),
        detached: Vec::new(),
        inbound: Vec::new(),
        of_other_owners: Vec::new(),
        published: Vec::new(),
        extras: Vec::new(),
        default: DefaultContents::default(),
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
        takes_rows: true,
        is_pending: false,
        mark: None,
        inbound: Vec::new(),
        referred_to: Vec::new(),
        dependants: Vec::new(),
        has_rows_without_time: false,
        bytes: 0,
    }
}

fn default_partition() -> Existing {
    Existing { range: None, is_default: true, shown: "DEFAULT".to_owned(), ..existing(99, 0, 0) }
}

fn everything() -> Published {
    Published { name: "everything".to_owned(), via_root: false, slots: vec!["sub (active)".to_owned()] }
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
        bounds: None,
        is_guarded: false,
        foreign_keys: Vec::new(),
    }
}

fn archived(store: Option<&str>) -> Archived {
    Archived { key: "k".to_owned(), rows: 1, contents: None, store: store.map(str::to_owned), database: None }
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
    assert_eq!(steps(&decide(state, &job())), ["finish the detach of public.d1_2", "record that public.d1_2 is detached"]);
}

#[test]
fn only_what_ends_before_the_cutoff_goes_oldest_first() {
    let job = Partition { retain: Some(Retain::Age(Span(Duration::from_secs(3 * 86_400)))), ..job() };
    let state = state(&[(6, 7), (5, 6), (7, 8), (10, 11), (11, 12), (12, 13)]);
    let expected = ["detach public.d5_6 concurrently", "detach public.d6_7 concurrently"];
    assert_eq!(steps(&decide(state.clone(), &job)), expected);
    let mut wrong = state.clone();
    wrong.clocks_apart = Some("clocks are apart".to_owned());
    let plan = decide(wrong, &job);
    assert!(plan.steps.is_empty() && plan.refusals.len() == 1, "{plan}");
    // Where others refer to the table, a partition goes that no row refers to, and the look and the detach are one.
    let mut referred_to = state.clone();
    referred_to.inbound.push("public.notes (fk)".to_owned());
    referred_to.existing[1].referred_to.push("3 rows of public.notes (fk)".to_owned());
    let plan = decide(referred_to, &job);
    assert_eq!(steps(&plan), ["detach public.d6_7"]);
    assert!(
        plan.notes[0]
            .contains("public.d5_6 is past its retention but is kept: rows of other tables refer to it (3 rows of public.notes"),
        "{plan}"
    );
    // A view is named before the detach; without a grace it is in the way at once.
    let mut seen = state.clone();
    seen.existing[1].dependants.push("view public.seen".to_owned());
    let plan = decide(seen.clone(), &job);
    assert_eq!(steps(&plan), expected);
    assert!(plan.warnings[0].contains("view public.seen"), "{plan}");
    let plan = decide(seen, &Partition { grace: Duration::ZERO, ..job.clone() });
    assert_eq!(steps(&plan), ["detach public.d6_7 concurrently"]);
    assert!(plan.refusals[0].contains("view public.seen"), "{plan}");
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
        state.detached.push(crate::task::partition::state::found::Detached {
            table,
            mark: mark(oid, Stage::Retired, day),
            inbound: Vec::new(),
            dependants: Vec::new(),
            guard_of_another: None,
        });
    }
    let mut of_another = state.clone();
    of_another.detached[0].guard_of_another = Some("public.f() of mallory".to_owned());
    let plan = decide(of_another.clone(), &job());
    assert!(
        plan.steps.is_empty() && plan.refusals[0].contains("public.f() of mallory"),
        "nothing tells what it let through: {plan}"
    );
    of_another.detached[0].mark.archive = Some(archived(None));
    let with_store = Partition { archive: Some("local".to_owned()), ..job() };
    assert_eq!(steps(&decide(of_another, &with_store))[0], "record that public.old7 is detached");
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
    state.default.rows = Counted { rows: 5, is_capped: false };
    state.default.strays = vec![StrayPeriod { position: 4 * DAY + 7, rows: 5, cuts: Vec::new(), is_dense: false }];
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
    refused(|state| state.published.push(everything()), "subscribers");
    refused(|state| state.default.strays[0].is_dense = true, "more than 50,000 rows with one key");

    // Too many for one transaction: several partitions, side by side.
    state.default.strays[0].cuts = vec![4 * DAY + DAY / 4, 4 * DAY + DAY / 2];
    let plan = decide(state.clone(), &job());
    let expected = ["create logs_p1970_01_05", "create logs_p1970_01_05_2", "create logs_p1970_01_05_3"];
    assert_eq!(steps(&plan), expected);
    assert!(
        matches!(&plan.steps[1].step, Step::Create(new) if new.range == Some(Period { from: 4 * DAY + DAY / 4, to: 4 * DAY + DAY / 2 }))
    );
}

#[test]
fn rows_whose_key_means_no_time_stay_and_capped_counts_are_said_as_such() {
    let mut state = state(&[(10, 11), (11, 12), (12, 13)]);
    state.existing.push(default_partition());
    state.default.rows = Counted { rows: 1_000_000, is_capped: true };
    state.default.odd_rows = Counted { rows: 2, is_capped: false };
    state.default.odd_keys = vec!["-infinity".to_owned()];
    let plan = decide(state, &job());
    assert!(plan.steps.is_empty() && plan.refusals.is_empty(), "{plan}");
    assert!(plan.notes[0].starts_with("1,000,000 rows or more in the default partition"), "{plan}");
    assert!(plan.notes[1].starts_with("2 rows of public.d0_0 stay there") && plan.notes[1].ends_with("-infinity"), "{plan}");
}

#[test]
fn what_the_newest_partition_has_alone_is_copied_or_said_and_so_is_who_needs_the_new_one_too() {
    let mut state = state(&[(10, 11), (11, 12)]);
    let copied = CopyStatement::Constraint("PRIMARY KEY (id)".to_owned());
    state.extras = vec![Extra { what: "PRIMARY KEY (id)".to_owned(), copy: Some(copied) }];
    let plan = decide(state.clone(), &job());
    assert!(
        !plan.is_like_newest && plan.warnings[0].contains("new partitions lack: PRIMARY KEY (id); like = \"newest\""),
        "{plan}"
    );
    let plan = decide(state.clone(), &Partition { like: Like::Newest, ..job() });
    assert!(plan.is_like_newest && plan.warnings.is_empty(), "{plan}");
    state.extras.clear();
    state.published = vec![everything(), Published { name: "by_root".to_owned(), via_root: true, slots: Vec::new() }];
    let plan = decide(state, &job());
    assert_eq!(plan.warnings.len(), 1, "{plan}");
    assert!(
        plan.warnings[0].contains("before rows arrive, create logs_p1970_01_13 on its subscribers")
            && plan.warnings[0].contains("sub (active)"),
        "{plan}"
    );
}

#[test]
fn a_partition_that_is_partitioned_itself_and_has_none_covers_nothing() {
    let mut state = state(&[(9, 10), (10, 11), (11, 12), (12, 13)]);
    state.existing[2].takes_rows = false;
    let plan = decide(state.clone(), &job());
    assert_eq!(plan.covered_until.as_deref(), Some("1970-01-12T00:00:00Z"));
    assert!(!plan.is_covered && plan.refusals[0].starts_with("public.d11_12 is partitioned itself"), "{plan}");
    // No new rows come for the past.
    (state.existing[2].takes_rows, state.existing[0].takes_rows) = (true, false);
    assert!(decide(state, &job()).refusals.is_empty());
}

#[test]
fn a_table_of_another_owner_is_named_and_an_archive_in_another_store_is_none() {
    let mut state = state(&[(10, 11), (11, 12), (12, 13)]);
    state.of_other_owners =
        vec![OtherOwnersTable { table: name(7, "theirs"), owner: "bob".to_owned(), expected: "\"the shop\"".to_owned() }];
    let plan = decide(state.clone(), &job());
    assert!(plan.steps.is_empty() && plan.notes[0].ends_with("OWNER TO \"the shop\""), "{plan}");

    let with_store = Partition { archive: Some("new".to_owned()), ..job() };
    for (store, expected) in [(None, None), (Some("new"), None), (Some("old"), Some("archive public.kept"))] {
        state.detached = vec![crate::task::partition::state::found::Detached {
            table: name(8, "kept"),
            mark: Mark { archive: Some(archived(store)), ..mark(8, Stage::Retired, 9) },
            inbound: Vec::new(),
            dependants: Vec::new(),
            guard_of_another: None,
        }];
        assert_eq!(steps(&decide(state.clone(), &with_store)).first().map(String::as_str), expected, "{store:?}");
    }
}
