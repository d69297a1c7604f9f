//! Number keys, with rows and sequences far beyond the partitions.

use super::*;
use crate::task::partition::chain::Chain;
use crate::task::partition::state::found::{Below, FarRow, RetainFrom};

/// Partitions of 1000 numbers up to 5000, of which the first is over for the highest row, 4500.
fn numbers() -> (State, Partition) {
    let mut state = state(&[]);
    state.key = Key::Number { largest: i64::MAX };
    state.calendar = Calendar { every: Every::Step(1000), zone: Tz::UTC };
    state.existing = (0..5).map(|number| of_numbers(number, number * 1000, number * 1000 + 1000)).collect();
    (state.now, state.highest_row, state.chain) = (4500, Some(4500), Some(Chain { from: 0, to: 5000 }));
    state.counted = Some(RetainFrom { position: 4500, below: None });
    (state, Partition { every: Every::Step(1000), retain: Some(Retain::Numbers(3000)), ..job() })
}

fn of_numbers(oid: i64, from: i64, to: i64) -> Existing {
    Existing { range: Some((Bound::At(from), Bound::At(to))), table: name(200 + oid, &format!("n{from}")), ..existing(oid, 0, 0) }
}

#[test]
fn a_row_or_a_sequence_far_beyond_all_others_retires_nothing_and_creates_nothing_there() {
    let (state, job) = numbers();
    let ahead = ["create logs_p5000", "create logs_p6000"];
    assert_eq!(steps(&decide(state.clone(), &job)), [&ahead[..], &["detach public.n0 concurrently"]].concat());

    for position in [1_000_000_000_000, i64::MAX] {
        for far_partition in [false, true] {
            let mut state = state.clone();
            state.far_row = Some(FarRow { shown: position.to_string(), position });
            if far_partition {
                state.existing.push(of_numbers(9, position - 1000, position));
            }
            let plan = decide(state.clone(), &job);
            assert_eq!(steps(&plan), ahead, "{plan}");
            assert!(
                plan.refusals.len() == 1
                    && plan.refusals[0].contains(&format!("at = {position}"))
                    && plan.refusals[0].contains("at\" >= 15000"),
                "{plan}"
            );
            assert!(over(&state, &job).is_empty());
            // Without `retain` nothing would go: that is worth a note.
            let plan = decide(state, &Partition { retain: None, ..job.clone() });
            assert!(
                plan.refusals.is_empty() && plan.notes.iter().any(|note| note.contains("no partition is created for it")),
                "{plan}"
            );
        }
    }

    let mut wrong = state.clone();
    wrong.far_sequence = Some(1_000_000_000_000);
    let plan = decide(wrong.clone(), &job);
    assert_eq!(steps(&plan)[..2], ahead);
    assert!(plan.refusals[0].contains("setval(pg_get_serial_sequence(") && plan.refusals[0].contains(", 4500)"), "{plan}");
    // A partition up to MAXVALUE takes them.
    wrong.existing.push(Existing { range: Some((Bound::At(100_000), Bound::Max)), ..of_numbers(9, 0, 0) });
    assert!(decide(wrong, &job).refusals.is_empty());
}

#[test]
fn a_partition_below_a_wide_gap_stays_and_is_named() {
    let (mut state, job) = numbers();
    state.existing.push(of_numbers(9, -100_000, -99_000));
    let plan = decide(state.clone(), &job);
    assert_eq!(steps(&plan)[2..], ["detach public.n0 concurrently"]);
    assert!(plan.notes.iter().any(|note| note.starts_with("public.\"n-100000\" is past its retention but is kept")), "{plan}");
    assert_eq!(over(&state, &job), [200]);
    // Where no row says what belongs together, nothing goes.
    (state.chain, state.highest_row, state.counted) = (None, None, None);
    assert!(over(&state, &job).is_empty());
}

#[test]
fn numbers_at_the_ends_of_the_type_are_no_trouble() {
    let (mut state, job) = numbers();
    state.existing = vec![of_numbers(0, i64::MIN, i64::MIN + 1000), of_numbers(1, i64::MAX - 1000, i64::MAX)];
    for highest in [i64::MIN, i64::MIN + 10, 0, i64::MAX - 10, i64::MAX] {
        (state.now, state.highest_row) = (highest, Some(highest));
        state.counted = Some(RetainFrom { position: highest, below: None });
        for chain in [Chain { from: i64::MIN, to: i64::MIN + 1000 }, Chain { from: i64::MAX - 1000, to: i64::MAX }] {
            state.chain = Some(chain);
            for far in [None, Some(i64::MIN), Some(i64::MAX)] {
                state.far_row = far.map(|position| FarRow { shown: position.to_string(), position });
                state.far_sequence = far;
                let plan = decide(state.clone(), &job);
                assert!(!steps(&plan).iter().any(|step| step.starts_with("detach")) || far.is_none(), "{plan}");
            }
        }
    }
}

#[test]
fn a_row_that_nothing_confirms_retires_nothing_and_most_of_a_table_needs_consent() {
    let (mut state, job) = numbers();
    state.highest_row = Some(9000);
    for (below, said) in [(Below::Sequence(4500), "setval("), (Below::Alone(9000), "stands alone")] {
        state.counted = Some(RetainFrom { position: 4500, below: Some(below) });
        let plan = decide(state.clone(), &job);
        assert_eq!(steps(&plan)[2..], ["detach public.n0 concurrently"], "{plan}");
        let told = plan.refusals.iter().chain(&plan.warnings).filter(|told| told.contains(said)).count();
        assert_eq!((told, plan.refusals.len()), (1, usize::from(below == Below::Sequence(4500))), "{plan}");
    }
    // It would retire no more than the others: nothing is said.
    (state.highest_row, state.counted) = (Some(4700), Some(RetainFrom { position: 4500, below: Some(Below::Sequence(4500)) }));
    assert!(decide(state.clone(), &job).refusals.is_empty());

    state.counted = Some(RetainFrom { position: 9000, below: None });
    state.existing.iter_mut().for_each(|existing| existing.bytes = 8192);
    assert_eq!(steps(&decide(state.clone(), &job)).len(), 7);
    state.asks = Some("say --yes".to_owned());
    let plan = decide(state.clone(), &job);
    assert!(
        steps(&plan).len() == 2 && plan.refusals[0].contains("100 % of its bytes") && plan.refusals[0].ends_with("say --yes"),
        "{plan}"
    );
    state.existing.push(Existing { bytes: 8192, ..of_numbers(9, 9000, 10_000) });
    assert_eq!(steps(&decide(state, &job))[1..].len(), 6);
}
