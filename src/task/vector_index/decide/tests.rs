//! The table of decisions, row by row.

use super::super::candidates::{Candidate, Tuning};
use super::super::found::Cost;
use super::super::pairs::{ByIndex, Pairs, Rival};
use super::*;

fn request() -> Request {
    Request {
        method: Method::Ivfflat,
        is_given: false,
        min_setting: 1,
        lists: None,
        m: None,
        ef_construction: None,
        target: 0.95,
        exact_below: 2000,
        sets_the_setting: true,
        others_setting: 0,
        others_of_present: 0,
        measure_ms: 80_000.0,
    }
}

fn found(setting: u32, recall: f64, ms: f64) -> Found {
    let cost = Cost { ms, pages: ms * 100.0, work: ms * 100.0, is_planners_choice: true, is_read_whole: false };
    Found { setting, recall, margin: 0.01, lower: recall - 0.005, queries: 200, cost: Some(cost) }
}

fn index() -> Index {
    Index {
        method: Some(Method::Ivfflat),
        is_valid: true,
        lists_in_catalog: Some(100),
        lists_in_fact: Some(100),
        m: 16,
        ef_construction: 64,
        is_built_by_pgtend: false,
        rows_then: None,
        tuned: true,
        skew: Some(1.1),
        now: Some(found(3, 0.96, 1.0)),
        least: Some((true, found(3, 0.96, 1.0))),
        curve: Curve::default(),
        declined: None,
        unmeasured: None,
        is_behind_a_new_one: false,
    }
}

fn current(index: Option<Index>) -> Current {
    Current { vectors: 100_000.0, exact_ms: 25.0, index }
}

#[track_caller]
fn decided(request: &Request, current: &Current, action: Action, reason: &str) {
    let decision = decide(request, current);
    assert_eq!(decision.action, action, "{decision:?}");
    assert!(decision.reasons.iter().any(|one| one.contains(reason)), "`{reason}` is not in {:?}", decision.reasons);
}

#[test]
fn without_an_index_one_is_made_unless_there_are_few_vectors() {
    decided(&request(), &current(None), Action::Tune, "there is no index");
    decided(&request(), &Current { vectors: 1999.0, ..current(None) }, Action::Nothing, "no index is needed");
    decided(&request(), &Current { vectors: 0.0, ..current(None) }, Action::Nothing, "no vectors to index yet");
    let lists = Request { lists: Some(7), ..request() };
    decided(&lists, &current(None), Action::Build { spec: Spec::Ivfflat { lists: 7 } }, "there is no index");
    let hnsw = Request { method: Method::Hnsw, m: Some(40), ..request() };
    decided(&hnsw, &current(None), Action::Build { spec: Spec::Hnsw { m: 40, ef_construction: 80 } }, "there is no index");
}

#[test]
fn an_index_that_is_as_it_should_be_stays() {
    decided(&request(), &current(Some(index())), Action::Nothing, "the least that reaches 0.95");
}

#[test]
fn an_invalid_index_another_method_and_other_parameters_are_rebuilt() {
    decided(&request(), &current(Some(Index { is_valid: false, ..index() })), Action::Tune, "invalid");
    let hnsw = Request { method: Method::Hnsw, ..request() };
    decided(&hnsw, &current(Some(index())), Action::Tune, "the job asks for hnsw, and the index is ivfflat");
    let lists = Request { lists: Some(316), ..request() };
    let spec = Spec::Ivfflat { lists: 316 };
    decided(&lists, &current(Some(index())), Action::Build { spec }, "the index has 100");
    let altered = Index { lists_in_catalog: Some(316), ..index() };
    decided(&lists, &current(Some(altered)), Action::Build { spec }, "the index was not rebuilt after ALTER INDEX");
    let rebuilt = Index { lists_in_fact: Some(316), ..index() };
    decided(&lists, &current(Some(rebuilt)), Action::Nothing, "recall is 0.960");
    let hnsw = Request { method: Method::Hnsw, m: Some(24), ..request() };
    let present = Index { method: Some(Method::Hnsw), ..index() };
    decided(&hnsw, &current(Some(present)), Action::Build { spec: Spec::Hnsw { m: 24, ef_construction: 64 } }, "m = 16");
}

#[test]
fn lopsided_lists_growth_and_unmeasured_lists_lead_to_a_search_for_better_ones() {
    decided(&request(), &current(Some(Index { skew: Some(6.8), ..index() })), Action::Tune, "lopsided");
    let grown = Index { is_built_by_pgtend: true, rows_then: Some(40_000.0), ..index() };
    decided(&request(), &current(Some(grown)), Action::Tune, "40,000 when it was built");
    let compared = Index { rows_then: Some(40_000.0), ..index() };
    decided(&request(), &current(Some(compared)), Action::Tune, "40,000 when its number of lists was compared");
    decided(&request(), &current(Some(Index { tuned: false, ..index() })), Action::Tune, "have not been measured");
    let empty = Index { least: Some((true, found(62, 0.952, 2.4))), tuned: false, ..index() };
    let given = Request { lists: Some(100), ..request() };
    decided(&given, &current(Some(empty)), Action::Build { spec: Spec::Ivfflat { lists: 100 } }, "62 of 100 lists");
    let by_nature = Index { skew: Some(6.8), is_built_by_pgtend: true, rows_then: Some(100_000.0), ..index() };
    decided(&request(), &current(Some(by_nature)), Action::Nothing, "the least that reaches");
    let few = Current { vectors: 1000.0, ..current(Some(Index { skew: Some(6.8), tuned: false, ..index() })) };
    decided(&request(), &few, Action::Nothing, "the least that reaches");
}

#[test]
fn the_setting_alone_is_changed_where_that_is_enough() {
    let low = Index { now: Some(found(1, 0.6, 0.4)), ..index() };
    decided(
        &request(),
        &current(Some(low)),
        Action::Set { setting: 3 },
        "recall is 0.600 ± 0.010 at ivfflat.probes = 1, below 0.95",
    );
    let high = Index { now: Some(found(10, 0.99, 3.0)), ..index() };
    decided(&request(), &current(Some(high)), Action::Set { setting: 3 }, "cheaper");
    let a_little_high = Index { now: Some(found(4, 0.97, 1.1)), ..index() };
    decided(&request(), &current(Some(a_little_high)), Action::Nothing, "save little");
}

#[test]
fn a_setting_that_another_index_needs_is_not_lowered() {
    let shared = Request { others_setting: 10, ..request() };
    let at = |setting| current(Some(Index { now: Some(found(setting, 0.99, 3.0)), ..index() }));
    decided(&shared, &at(10), Action::Nothing, "another index needs it");
    decided(&shared, &at(20), Action::Set { setting: 10 }, "10 is enough");
    let low = current(Some(Index { now: Some(found(1, 0.6, 0.4)), ..index() }));
    decided(&shared, &low, Action::Set { setting: 10 }, "below 0.95");
    // Another job is responsible for raising it.
    decided(&shared, &at(4), Action::Nothing, "which is enough");
}

#[test]
fn nothing_is_built_that_could_not_be_measured_afterwards() {
    let slow = Current { exact_ms: 8_200.0, ..current(None) };
    decided(&request(), &slow, Action::GiveUp, "an exact search takes 8.2 s, and 20 of them are needed");
    decided(&Request { measure_ms: 200_000.0, ..request() }, &slow, Action::Tune, "there is no index");
    decided(&request(), &Current { exact_ms: 8_200.0, ..current(Some(index())) }, Action::Nothing, "the least");
}

#[test]
fn what_was_measured_before_the_time_was_over_may_be_enough() {
    let stopped = || Index { unmeasured: Some("the time is over".to_owned()), now: None, least: None, ..index() };
    decided(&request(), &current(Some(Index { skew: Some(6.8), ..stopped() })), Action::Tune, "the time is over");
    let low = Index { now: Some(found(1, 0.6, 400.0)), ..stopped() };
    decided(&request(), &current(Some(low.clone())), Action::Tune, "below 0.95");
    decided(
        &Request { method: Method::Hnsw, ..request() },
        &current(Some(Index { method: Some(Method::Hnsw), ..low })),
        Action::GiveUp,
        "the time is over",
    );
    decided(&request(), &current(Some(stopped())), Action::GiveUp, "the time is over");
}

#[test]
fn what_cannot_be_reached_or_measured_is_no_success() {
    let hnsw = Request { method: Method::Hnsw, is_given: true, m: Some(16), ..request() };
    let present = Index { method: Some(Method::Hnsw), least: Some((false, found(1000, 0.9, 9.0))), ..index() };
    decided(&hnsw, &current(Some(present)), Action::GiveUp, "raise `m`");
    decided(&request(), &current(Some(Index { unmeasured: Some("no time".to_owned()), ..index() })), Action::GiveUp, "no time");
}

fn tuning(candidates: &[(u32, f64, bool)]) -> Tuning {
    let candidates = candidates
        .iter()
        .map(|(lists, ms, reached)| Candidate {
            spec: Spec::Ivfflat { lists: *lists },
            build_seconds: 1.0,
            reached: *reached,
            found: found(4, 0.955, *ms),
            at_todays_setting: None,
            at_recall_of_hnsw: None,
            pairs: None,
        })
        .collect();
    Tuning { candidates, share: 1.0, copied_rows: 100_000, ended: "time".to_owned(), ..Tuning::default() }
}

#[test]
fn the_cheapest_candidate_is_built_when_it_saves_enough() {
    let tune = Decision::new(Action::Tune, "why");
    let after = |index: Option<Index>, tuning: &Tuning| after_tuning(&request(), &current(index), tune.clone(), tuning).action;
    let saves = tuning(&[(100, 1.5, true), (316, 0.9, true), (1000, 0.5, false)]);
    assert_eq!(after(Some(index()), &saves), Action::Build { spec: Spec::Ivfflat { lists: 316 } });
    let saves_little = tuning(&[(100, 1.0, true), (316, 0.9, true)]);
    assert_eq!(after(Some(index()), &saves_little), Action::Nothing);
    assert_eq!(after(None, &saves_little), Action::Build { spec: Spec::Ivfflat { lists: 316 } });
    let built_empty = Index { least: Some((true, found(62, 0.952, 2.4))), ..index() };
    assert_eq!(after(Some(built_empty), &tuning(&[(100, 1.0, true)])), Action::Build { spec: Spec::Ivfflat { lists: 100 } });
    let lopsided = Index { skew: Some(7.0), ..index() };
    assert_eq!(after(Some(lopsided), &saves_little), Action::Build { spec: Spec::Ivfflat { lists: 316 } });
    assert_eq!(after(None, &tuning(&[(100, 1.0, false)])), Action::GiveUp);
    // The lists were found on a quarter of the rows.
    let sampled = Tuning { share: 0.25, ..tuning(&[(100, 1.0, true)]) };
    assert_eq!(after(None, &sampled), Action::Build { spec: Spec::Ivfflat { lists: 200 } });
}

#[test]
fn what_would_cost_applications_their_recall_is_not_even_built() {
    let mut tuning = tuning(&[(316, 0.9, true)]);
    tuning.candidates[0].at_todays_setting = Some(found(3, 0.4, 0.3));
    let tune = Decision::new(Action::Tune, "why");
    let left_to_applications = Request { sets_the_setting: false, ..request() };
    let decision = after_tuning(&left_to_applications, &current(Some(index())), tune, &tuning);
    assert_eq!(decision.action, Action::GiveUp);
    assert!(decision.reasons.iter().any(|reason| reason.contains("apply_setting")), "{decision:?}");
}

#[test]
fn hnsw_is_built_where_it_saves_enough_and_what_it_showed_is_told() {
    let tune = || Decision::new(Action::Tune, "why");
    let hnsw = |ms: f64, reached: bool| {
        let spec = Spec::Hnsw { m: 16, ef_construction: 64 };
        Some(Candidate {
            spec,
            build_seconds: 9.0,
            reached,
            found: found(60, 0.96, ms),
            at_todays_setting: None,
            at_recall_of_hnsw: None,
            pairs: None,
        })
    };
    let lists = tuning(&[(100, 1.5, true), (316, 0.9, true)]);
    // In turns with the best lists, which take 0.9 ms.
    let with = |hnsw: Option<Candidate>, tuning: Tuning| {
        let both = hnsw.as_ref().and_then(Candidate::ms).zip(tuning.best().and_then(Candidate::ms));
        let in_turns = both.map(|(new_ms, present_ms)| Pairs { new_ms, present_ms, queries: 20 });
        Tuning { hnsw, in_turns, ..tuning }
    };
    let after = |hnsw: Option<Candidate>, tuning: Tuning| after_tuning(&request(), &current(None), tune(), &with(hnsw, tuning));
    let (switch, stay) =
        (Action::Build { spec: Spec::Hnsw { m: 16, ef_construction: 64 } }, Action::Build { spec: Spec::Ivfflat { lists: 316 } });
    let decision = after(hnsw(0.7, true), lists.clone());
    assert_eq!(decision.action, switch);
    assert!(decision.reasons.iter().any(|reason| reason.contains("hnsw takes 0.70 ms at ef_search = 60")), "{decision:?}");
    let decision = after(hnsw(0.8, true), lists.clone());
    assert_eq!(decision.action, stay);
    assert!(decision.reasons.iter().any(|reason| reason.contains("has to save 15 %")), "{decision:?}");
    assert_eq!(after(hnsw(0.1, false), lists.clone()).action, stay);
    // What was timed at different moments has to differ by more than the clock may be wrong; in turns the minute does not matter.
    let at_moments = |ms: f64| Tuning { hnsw: hnsw(ms, true), ..lists.clone() };
    let decided = |tuning: &Tuning| after_tuning(&request(), &current(None), tune(), tuning).action;
    assert_eq!([decided(&at_moments(0.7)), decided(&at_moments(0.5))], [stay.clone(), switch.clone()]);
    let in_a_busy_minute = Tuning { in_turns: Some(Pairs { new_ms: 0.2, present_ms: 0.9, queries: 20 }), ..at_moments(7.0) };
    assert_eq!(decided(&in_a_busy_minute), switch);
    assert_eq!(after(hnsw(5.0, true), tuning(&[(100, 1.0, false)])).action, switch);
    // Applications would search it with less than it needs, and no job sets it.
    let dear = Some(Candidate { at_todays_setting: Some(found(40, 0.5, 0.1)), ..hnsw(0.7, true).unwrap() });
    let with = with(dear, lists.clone());
    let left_to_applications = Request { sets_the_setting: false, ..request() };
    let decision = after_tuning(&left_to_applications, &current(Some(index())), tune(), &with);
    assert!(
        decision.action != switch
            && decision.reasons.iter().any(|reason| reason.starts_with("hnsw is not built: at hnsw.ef_search = 40")),
        "{decision:?}"
    );
    assert_eq!(after_tuning(&request(), &current(Some(index())), tune(), &with).action, switch);
    let ended = Tuning { hnsw_ended: Some("the time is over".to_owned()), ..lists };
    assert!(after(None, ended).reasons.iter().any(|reason| reason.contains("not compared: the time is over")));
}

#[test]
fn lists_are_compared_by_what_they_read_and_not_by_the_clock() {
    let mut tuning = tuning(&[(100, 1.0, true), (316, 1.02, true)]);
    tuning.candidates[0].found.cost =
        Some(Cost { ms: 0.1, pages: 300.0, work: 300.0, is_planners_choice: true, is_read_whole: false });
    assert_eq!(tuning.best().map(Candidate::lists), Some(316));
}

#[test]
fn a_new_index_is_taken_only_when_it_reaches_the_target_and_costs_applications_no_recall() {
    let old = current(Some(index()));
    assert_eq!(accept(&request(), &old, true, &found(8, 0.96, 1.0), &found(3, 0.5, 0.4), None), Ok(()));
    assert!(
        accept(&request(), &old, false, &found(9, 0.9, 1.0), &found(3, 0.5, 0.4), None)
            .unwrap_err()
            .reason
            .contains("below 0.95")
    );
    let left_to_applications = Request { sets_the_setting: false, ..request() };
    let error = accept(&left_to_applications, &old, true, &found(8, 0.96, 1.0), &found(3, 0.5, 0.4), None).unwrap_err();
    assert!(error.reason.contains("apply_setting") && !error.is_worse, "{error:?}");
    assert_eq!(accept(&left_to_applications, &old, true, &found(8, 0.96, 1.0), &found(3, 0.955, 0.9), None), Ok(()));
    assert_eq!(accept(&left_to_applications, &current(None), true, &found(8, 0.96, 1.0), &found(1, 0.5, 0.4), None), Ok(()));
}

#[test]
fn nothing_that_is_slower_and_finds_less_is_swapped_in() {
    let with = |method, ms: f64, recall: f64| {
        let least = Found { margin: 0.003, ..found(40, recall, ms) };
        current(Some(Index { method: Some(method), least: Some((true, least)), ..index() }))
    };
    let verdict = |request: &Request, current: &Current, recall: f64, ms: f64| {
        let new = Found { margin: 0.006, ..found(8, recall, ms) };
        let least = current.index.as_ref().and_then(|index| index.least.as_ref()).and_then(|(_, least)| least.cost);
        let present_ms = least.map_or(current.exact_ms, |cost| cost.ms);
        accept(request, current, true, &new, &new, Some(Pairs { new_ms: ms, present_ms, queries: 20 }))
    };
    // PSScript: 717 rows, hnsw found all in 0.56 ms; the job asked for ivfflat.
    let worse = verdict(&request(), &with(Method::Hnsw, 0.56, 1.0), 0.957, 1.56).unwrap_err();
    assert!(worse.is_worse && worse.reason.contains("it takes 1.56 ms") && worse.reason.contains("0.56 ms"), "{worse:?}");
    // Slower, and it cannot be told which finds less; slower, but more complete; less complete, but faster: the job asked for the other method.
    assert!(verdict(&request(), &with(Method::Hnsw, 0.56, 0.96), 0.957, 1.56).unwrap_err().is_worse);
    assert_eq!(verdict(&request(), &with(Method::Hnsw, 0.56, 0.96), 0.975, 1.56), Ok(()));
    assert_eq!(verdict(&request(), &with(Method::Hnsw, 0.56, 0.96), 0.957, 0.6), Ok(()));
    assert_eq!(verdict(&request(), &with(Method::Hnsw, 0.56, 1.0), 0.957, 0.3), Ok(()));
    // Less complete, and not clearly faster.
    assert!(verdict(&request(), &with(Method::Hnsw, 0.56, 1.0), 0.957, 0.5).unwrap_err().is_worse);
    assert!(verdict(&request(), &with(Method::Hnsw, 0.36, 0.997), 0.957, 0.32).unwrap_err().is_worse);
    assert_eq!(verdict(&request(), &with(Method::Hnsw, 0.36, 0.997), 0.957, 0.2), Ok(()));
    // Of the same method, without parameters of the job, it has to be better in one of the two.
    assert!(verdict(&request(), &with(Method::Ivfflat, 0.5, 0.957), 0.957, 1.0).unwrap_err().is_worse);
    let given = Request { is_given: true, lists: Some(10), ..request() };
    assert_eq!(verdict(&given, &with(Method::Ivfflat, 0.5, 0.957), 0.957, 0.8), Ok(()));
    assert_eq!(verdict(&request(), &with(Method::Ivfflat, 0.5, 0.957), 0.99, 0.8), Ok(()));
    // No index is a candidate, too: 25 ms exactly.
    assert!(verdict(&request(), &current(None), 0.99, 30.0).unwrap_err().reason.contains("without an index 25.00 ms"));
    assert_eq!(verdict(&request(), &current(None), 0.99, 20.0), Ok(()));
    // The planner would not use it.
    let mut ignored = found(8, 0.99, 1.0);
    ignored.cost = ignored.cost.map(|cost| Cost { is_read_whole: true, ..cost });
    assert!(
        accept(&request(), &current(None), true, &ignored, &ignored, None).unwrap_err().reason.contains("reads the whole table")
    );
}

#[test]
fn exact_below_wins_over_the_method_and_what_the_planner_reads_anyway_stays() {
    let hnsw = || Index {
        method: Some(Method::Hnsw),
        now: Some(found(40, 1.0, 0.56)),
        least: Some((true, found(40, 1.0, 0.56))),
        ..index()
    };
    let small = |index| Current { vectors: 717.0, exact_ms: 2.0, index };
    decided(&request(), &small(Some(hnsw())), Action::Nothing, "fewer than exact_below (2,000)");
    let given = Request { lists: Some(7), is_given: true, ..request() };
    decided(&given, &small(Some(index())), Action::Nothing, "no other index is built: 717 vectors");
    decided(&request(), &small(Some(Index { is_valid: false, ..hnsw() })), Action::Nothing, "DROP INDEX");
    // But its setting has to be enough, by the name that its method has.
    let low = Index { method: Some(Method::Ivfflat), now: Some(found(1, 0.4, 0.2)), ..index() };
    decided(
        &Request { method: Method::Hnsw, ..request() },
        &small(Some(low)),
        Action::Set { setting: 3 },
        "ivfflat.probes = 1, below 0.95",
    );
    let missed = Index { least: Some((false, found(100, 0.9, 0.2))), ..index() };
    decided(&request(), &small(Some(missed)), Action::GiveUp, "DROP INDEX");
    let read_whole = |found: Found| Found { cost: found.cost.map(|cost| Cost { is_read_whole: true, ..cost }), ..found };
    let ignored = Index {
        now: Some(read_whole(found(1, 0.4, 0.2))),
        least: Some((true, read_whole(found(3, 0.96, 1.0)))),
        tuned: false,
        ..index()
    };
    decided(&request(), &current(Some(ignored.clone())), Action::Nothing, "the planner reads the whole table");
    decided(&request(), &small(Some(ignored)), Action::Nothing, "the planner reads the whole table");
}

#[test]
fn a_build_that_was_no_better_is_not_repeated_before_the_table_has_grown() {
    let hnsw =
        Index { method: Some(Method::Hnsw), least: Some((true, found(40, 1.0, 0.5))), now: Some(found(40, 1.0, 0.5)), ..index() };
    let declined = Index { declined: Some((Spec::Ivfflat { lists: 316 }, 100_000.0)), ..hnsw };
    decided(&request(), &current(Some(declined.clone())), Action::Nothing, "ivfflat with 316 lists was built and measured");
    let other = Request { lists: Some(100), is_given: true, ..request() };
    decided(
        &other,
        &current(Some(declined.clone())),
        Action::Build { spec: Spec::Ivfflat { lists: 100 } },
        "the job asks for ivfflat",
    );
    let grown = Index { declined: Some((Spec::Ivfflat { lists: 316 }, 40_000.0)), ..declined };
    decided(&request(), &current(Some(grown)), Action::Tune, "the job asks for ivfflat");
}

#[test]
fn graphs_are_compared_where_the_job_names_none() {
    assert_eq!(graphs(None, None).len(), 3);
    assert_eq!(graphs(Some(40), None), [80, 128, 200].map(|ef_construction| Spec::Hnsw { m: 40, ef_construction }));
    assert_eq!(graphs(None, Some(100)), [Spec::Hnsw { m: 16, ef_construction: 100 }]);
    let hnsw = Request { method: Method::Hnsw, min_setting: 40, ..request() };
    let needs = |setting| Index {
        method: Some(Method::Hnsw),
        tuned: false,
        now: Some(found(setting, 0.96, 2.0)),
        least: Some((true, found(setting, 0.96, 2.0))),
        ..index()
    };
    decided(&hnsw, &current(Some(needs(120))), Action::Tune, "a denser graph may be faster");
    decided(&hnsw, &current(Some(needs(60))), Action::Nothing, "the least that reaches");
    let graph = |ef_construction, ms: f64, reached| Candidate {
        spec: Spec::Hnsw { m: 16, ef_construction },
        build_seconds: 1.0,
        reached,
        found: found(40, 0.96, ms),
        at_todays_setting: None,
        at_recall_of_hnsw: None,
        pairs: None,
    };
    let after = |index: Option<Index>, graphs: Vec<Candidate>| {
        let hnsw_ = crate::task::vector_index::candidates::best_graph(&graphs).cloned();
        let tuning = Tuning { share: 1.0, hnsw: hnsw_, graphs, ..Tuning::default() };
        after_tuning(&hnsw, &current(index), Decision::new(Action::Tune, "why"), &tuning).action
    };
    let build = |ef_construction| Action::Build { spec: Spec::Hnsw { m: 16, ef_construction } };
    assert_eq!(after(None, vec![graph(64, 1.0, true), graph(128, 0.9, true), graph(200, 0.8, true)]), build(200));
    assert_eq!(after(None, vec![graph(64, 1.0, true), graph(128, 0.9, true)]), build(64));
    assert_eq!(after(None, vec![graph(64, 1.0, false), graph(128, 1.9, true)]), build(128));
    assert_eq!(after(None, vec![graph(64, 1.0, false)]), Action::GiveUp);
    assert_eq!(after(None, vec![]), build(64));
    assert_eq!(after(Some(needs(120)), vec![graph(64, 1.9, true)]), Action::Nothing);
    assert_eq!(after(Some(needs(120)), vec![graph(128, 0.9, true)]), build(128));
    // Wider graphs are tried where dense ones are slow, and the job leaves it open.
    let best = |setting, reached| Candidate { found: found(setting, 0.96, 1.0), ..graph(200, 1.0, reached) };
    let tried = |best: &Candidate, m| wider(best, m, None, 40).len();
    assert_eq!(
        [(&best(80, true), None), (&best(120, true), None), (&best(40, false), None), (&best(120, true), Some(16))]
            .map(|(best, m)| tried(best, m)),
        [0, 2, 2, 0]
    );
}

#[test]
fn lists_are_compared_with_hnsw_at_as_much_recall_as_it_finds() {
    let hnsw = Candidate {
        spec: Spec::Hnsw { m: 16, ef_construction: 64 },
        build_seconds: 9.0,
        reached: true,
        found: found(40, 0.99, 1.0),
        at_todays_setting: None,
        at_recall_of_hnsw: None,
        pairs: None,
    };
    let mut tuning = Tuning { hnsw: Some(hnsw), ..tuning(&[(316, 0.9, true)]) };
    let after = |tuning: &Tuning| after_tuning(&request(), &current(None), Decision::new(Action::Tune, "why"), tuning);
    assert_eq!(after(&tuning).action, Action::Build { spec: Spec::Ivfflat { lists: 316 } });
    tuning.candidates[0].at_recall_of_hnsw = Some((true, found(19, 0.99, 2.0)));
    let decision = after(&tuning);
    assert_eq!(decision.action, Action::Build { spec: Spec::Hnsw { m: 16, ef_construction: 64 } });
    assert!(decision.reasons.iter().any(|reason| reason.contains("at as much recall (probes = 19)")), "{decision:?}");
}

#[test]
fn the_rule_is_where_the_search_begins() {
    assert_eq!([500.0, 100_000.0, 1e6, 4e6].map(lists_by_rule), [1, 100, 1000, 2000]);
}

#[test]
fn a_clock_is_asked_only_where_pages_do_not_tell_and_of_both_at_one_time() {
    let new = Found { margin: 0.006, ..found(8, 0.957, 0.9) };
    let with = |method, ms: f64, recall: f64| {
        let least = Found { margin: 0.003, ..found(40, recall, ms) };
        current(Some(Index { method: Some(method), least: Some((true, least)), ..index() }))
    };
    let verdict = |current: &Current, pairs: Option<(f64, f64)>| {
        let pairs = pairs.map(|(new_ms, present_ms)| Pairs { new_ms, present_ms, queries: 20 });
        accept(&request(), current, true, &new, &new, pairs)
    };
    // The plan saw hnsw in a busy minute; in turns it is the faster one. Without turns, what finds less has to save more than a clock may be wrong.
    assert!(verdict(&with(Method::Hnsw, 3.0, 1.0), Some((0.9, 0.3))).unwrap_err().reason.contains("0.30 ms"));
    assert_eq!(verdict(&with(Method::Hnsw, 3.0, 1.0), None), Ok(()));
    assert!(verdict(&with(Method::Hnsw, 1.2, 1.0), None).unwrap_err().is_worse);
    // Of one method, 90 pages are less than 100 and more than 50, whatever the clock says.
    assert_eq!(verdict(&with(Method::Ivfflat, 1.0, 1.0), Some((9.0, 0.1))), Ok(()));
    assert!(verdict(&with(Method::Ivfflat, 0.5, 1.0), Some((0.1, 9.0))).unwrap_err().reason.contains("(90 pages, and 50)"));
    // An exact search: 25 ms in the plan.
    assert!(verdict(&current(None), Some((0.9, 0.5))).unwrap_err().reason.contains("without an index 0.50 ms"));
    assert_eq!(verdict(&Current { exact_ms: 0.1, ..current(None) }, Some((0.9, 5.0))), Ok(()));
}

#[test]
fn the_rival_is_the_present_index_of_another_method_or_no_index() {
    assert_eq!(rival(&current(None), "items_idx", Method::Hnsw), Some(Rival::Exact));
    let by = ByIndex { name: "items_idx".to_owned(), method: Method::Ivfflat, setting: 3, hidden: None };
    assert_eq!(rival(&current(Some(index())), "items_idx", Method::Hnsw), Some(Rival::Index(by)));
    assert_eq!(rival(&current(Some(index())), "items_idx", Method::Ivfflat), None);
    let missed = Index { least: Some((false, found(100, 0.9, 1.0))), ..index() };
    assert_eq!(rival(&current(Some(missed)), "items_idx", Method::Hnsw), None);
    assert_eq!(rival(&current(Some(Index { is_valid: false, ..index() })), "items_idx", Method::Hnsw), Some(Rival::Exact));
}
