//! The table of decisions, row by row.

use super::super::candidates::{Candidate, Tuning};
use super::super::search::Cost;
use super::*;

fn request() -> Request {
    Request {
        method: Method::Ivfflat,
        lists: None,
        m: None,
        ef_construction: None,
        target: 0.95,
        exact_below: 2000,
        sets_the_setting: true,
        others_setting: 0,
        measure_ms: 80_000.0,
    }
}

fn found(setting: u32, recall: f64, ms: f64) -> Found {
    let cost = Cost { ms, pages: ms * 100.0, is_planners_choice: true };
    Found { setting, recall, margin: 0.01, queries: 200, cost: Some(cost) }
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
    let spec = Spec::Hnsw { m: 16, ef_construction: 64 };
    decided(&hnsw, &current(Some(index())), Action::Build { spec }, "the job asks for hnsw, and the index is ivfflat");
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
    let hnsw = Request { method: Method::Hnsw, ..request() };
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
        Some(Candidate { spec, build_seconds: 9.0, reached, found: found(60, 0.96, ms), at_todays_setting: None })
    };
    let lists = tuning(&[(100, 1.5, true), (316, 0.9, true)]);
    let after =
        |hnsw: Option<Candidate>, tuning: Tuning| after_tuning(&request(), &current(None), tune(), &Tuning { hnsw, ..tuning });
    let (switch, stay) =
        (Action::Build { spec: Spec::Hnsw { m: 16, ef_construction: 64 } }, Action::Build { spec: Spec::Ivfflat { lists: 316 } });
    let decision = after(hnsw(0.7, true), lists.clone());
    assert_eq!(decision.action, switch);
    assert!(decision.reasons.iter().any(|reason| reason.contains("hnsw takes 0.70 ms at ef_search = 60")), "{decision:?}");
    let decision = after(hnsw(0.8, true), lists.clone());
    assert_eq!(decision.action, stay);
    assert!(decision.reasons.iter().any(|reason| reason.contains("has to save 15 %")), "{decision:?}");
    assert_eq!(after(hnsw(0.1, false), lists.clone()).action, stay);
    assert_eq!(after(hnsw(5.0, true), tuning(&[(100, 1.0, false)])).action, switch);
    // Applications would search it with less than it needs, and no job sets it.
    let dear = Some(Candidate { at_todays_setting: Some(found(40, 0.5, 0.1)), ..hnsw(0.7, true).unwrap() });
    let with = Tuning { hnsw: dear, ..lists.clone() };
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
fn within_the_noise_of_the_clock_pages_decide() {
    let mut tuning = tuning(&[(100, 1.0, true), (316, 1.02, true)]);
    tuning.candidates[0].found.cost = Some(Cost { ms: 1.0, pages: 300.0, is_planners_choice: true });
    assert_eq!(tuning.best().map(Candidate::lists), Some(316));
}

#[test]
fn a_new_index_is_taken_only_when_it_reaches_the_target_and_costs_applications_no_recall() {
    let old = current(Some(index()));
    assert_eq!(accept(&request(), &old, true, &found(8, 0.96, 1.0), &found(3, 0.5, 0.4)), Ok(()));
    assert!(accept(&request(), &old, false, &found(9, 0.9, 1.0), &found(3, 0.5, 0.4)).unwrap_err().contains("below 0.95"));
    let left_to_applications = Request { sets_the_setting: false, ..request() };
    let error = accept(&left_to_applications, &old, true, &found(8, 0.96, 1.0), &found(3, 0.5, 0.4)).unwrap_err();
    assert!(error.contains("apply_setting"), "{error}");
    assert_eq!(accept(&left_to_applications, &old, true, &found(8, 0.96, 1.0), &found(3, 0.955, 0.9)), Ok(()));
    assert_eq!(accept(&left_to_applications, &current(None), true, &found(8, 0.96, 1.0), &found(1, 0.5, 0.4)), Ok(()));
}

#[test]
fn the_rule_is_where_the_search_begins() {
    assert_eq!([500.0, 100_000.0, 1e6, 4e6].map(lists_by_rule), [1, 100, 1000, 2000]);
}
