//! Decides from the candidates whether a build is worth it.

use super::accept::SLACK_MS;
use super::{
    Action, Current, Decision, GROWN, Index, Refusal, Request, WORTH_IT, accept, by_setting, of_present, recall_in_words,
};
use crate::base::units;
use crate::task::vector_index::candidates::{Candidate, Spec, Tuning};
use crate::task::vector_index::kind::Method;

/// Decides from the candidates whether a build is worth it. `why`: the decision to look for them.
pub fn after_tuning(request: &Request, current: &Current, why: Decision, tuning: &Tuning) -> Decision {
    let mut reasons = why.reasons;
    reasons.extend(tuning.hnsw_ended.as_ref().map(|why| format!("hnsw was not compared: {why}")));
    if request.method == Method::Hnsw {
        return after_graphs(request, current, reasons, tuning);
    }
    if let Some(hnsw) = &tuning.hnsw
        && let Some(action) = change_to_hnsw(request, current, hnsw, tuning, &mut reasons)
    {
        return Decision { action, reasons };
    }
    let Some(best) = tuning.best() else {
        reasons.extend(without_a_best(request, current, tuning));
        return Decision { action: Action::GiveUp, reasons };
    };
    let lists = tuning.scaled(best.lists());
    reasons.push(best_in_words(best, lists, tuning));
    let build = Action::Build { spec: Spec::Ivfflat { lists } };
    let at_todays = best.at_todays_setting.as_ref().unwrap_or(&best.found);
    if let Err(refusal) = accept(request, &as_on_the_copy(current, tuning), true, &best.found, at_todays, best.pairs) {
        return not_built(request, current, refusal, reasons);
    }
    let Some(index) = current.index.as_ref().filter(|index| index.is_valid && index.method == Some(Method::Ivfflat)) else {
        return Decision { action: build, reasons };
    };
    match (gain(index, best, tuning), &index.least) {
        (Some(gain), _) => reasons.push(gain),
        (None, Some((_, least))) if is_well(index, current) => {
            reasons.push("the present number of lists is within 15 % of it: a build would gain too little".to_owned());
            let mut decision = by_setting(request, index, least);
            reasons.append(&mut decision.reasons);
            return Decision { action: decision.action, reasons };
        }
        _ => {}
    }
    Decision { action: build, reasons }
}

/// Decides from the graphs that were tried where the job asks for hnsw.
fn after_graphs(request: &Request, current: &Current, mut reasons: Vec<String>, tuning: &Tuning) -> Decision {
    let present = current.index.as_ref().filter(|index| index.is_valid && index.method == Some(Method::Hnsw));
    let Some(best) = &tuning.hnsw else {
        // As without a search: it is measured when it is built.
        let action = if present.is_some() { Action::GiveUp } else { Action::Build { spec: super::hnsw(None, None) } };
        return Decision { action, reasons };
    };
    let found = recall_in_words(&best.found);
    let cost = best.ms().map_or(String::new(), |ms| format!(" in {ms:.2} ms"));
    reasons.push(format!(
        "of {}, {} is best: {found} at ef_search = {}{cost}",
        units::plural(tuning.graphs.len(), "graph"),
        best.spec,
        best.found.setting
    ));
    if !best.reached {
        reasons.push(format!(
            "none reached {}; an exact search takes {:.1} ms and finds every neighbour",
            request.target, current.exact_ms
        ));
        return Decision { action: Action::GiveUp, reasons };
    }
    let at_todays = best.at_todays_setting.as_ref().unwrap_or(&best.found);
    if let Err(refusal) = accept(request, &as_on_the_copy(current, tuning), true, &best.found, at_todays, best.pairs) {
        return not_built(request, current, refusal, reasons);
    }
    // Pages can be compared between the copy and the table.
    if let Some((index, (true, least))) = present.and_then(|index| Some((index, index.least.as_ref()?)))
        && let (Some(now), Some(then)) = (least.cost, best.found.cost)
        && then.pages > now.pages * WORTH_IT
    {
        reasons.push("the present index is within 15 % of it: a build would gain too little".to_owned());
        let mut decision = by_setting(request, index, least);
        reasons.append(&mut decision.reasons);
        return Decision { action: decision.action, reasons };
    }
    Decision { action: Action::Build { spec: best.spec }, reasons }
}

/// What a build on a copy can be compared with: times of the table are those of a copy of all of it, and of a part of it they are not.
fn as_on_the_copy(current: &Current, tuning: &Tuning) -> Current {
    let mut current = current.clone();
    if tuning.share < 1.0 {
        current.exact_ms = 0.0;
    }
    current
}

/// Nothing is built: what is there is better and stays, or applications would lose by it.
fn not_built(request: &Request, current: &Current, refusal: Refusal, mut reasons: Vec<String>) -> Decision {
    let Refusal { reason, is_worse } = refusal;
    reasons.push(format!("not built: {reason}"));
    let index = current.index.as_ref().filter(|index| index.is_valid);
    let action = match (is_worse, index, index.and_then(|index| index.least.as_ref())) {
        (true, Some(index), Some((true, least))) => {
            let mut decision = by_setting(&of_present(request, index), index, least);
            reasons.append(&mut decision.reasons);
            decision.action
        }
        (true, None, _) => Action::Nothing,
        _ => Action::GiveUp,
    };
    Decision { action, reasons }
}

/// Returns the build of hnsw if it is faster and would be accepted, and adds the reasons for or against it.
fn change_to_hnsw(
    request: &Request,
    current: &Current,
    hnsw: &Candidate,
    tuning: &Tuning,
    reasons: &mut Vec<String>,
) -> Option<Action> {
    let (is_faster, reason) = against_hnsw(hnsw, tuning);
    reasons.push(reason);
    if !is_faster {
        return None;
    }
    let as_hnsw = Request { method: Method::Hnsw, ..request.clone() };
    let at_todays = hnsw.at_todays_setting.as_ref().unwrap_or(&hnsw.found);
    match accept(&as_hnsw, &as_on_the_copy(current, tuning), true, &hnsw.found, at_todays, hnsw.pairs) {
        Ok(()) => Some(Action::Build { spec: hnsw.spec }),
        Err(Refusal { reason, .. }) => {
            reasons.push(format!("hnsw is not built: {reason}"));
            None
        }
    }
}

/// Returns whether hnsw is worth more than the best ivfflat, and the reason in words. Its build and its inserts take longer, so it must save as
/// much as another number of lists has to.
fn against_hnsw(hnsw: &Candidate, tuning: &Tuning) -> (bool, String) {
    let found = &hnsw.found;
    let Some(ms) = hnsw.ms() else {
        return (false, format!("hnsw has a recall of {:.3} at ef_search = {}, its highest", found.recall, found.setting));
    };
    let measured = format!("hnsw takes {ms:.2} ms at ef_search = {}, {}", found.setting, recall_in_words(found));
    let Some(best) = tuning.best() else { return (true, format!("{measured}, and no number of lists reached the target")) };
    let lists = best.lists();
    // hnsw cannot find less and be faster: lists are asked for as much as it finds.
    let (at, of_lists) = match &best.at_recall_of_hnsw {
        Some((false, _)) => return (true, format!("{measured}; {lists} lists do not find as much at any ivfflat.probes")),
        Some((true, as_much)) => (format!(" at as much recall (probes = {})", as_much.setting), as_much.cost),
        None => (String::new(), best.found.cost),
    };
    let Some(of_lists) = of_lists.map(|cost| cost.ms) else { return (true, measured) };
    let (ms, of_lists, slack, turns) = match tuning.in_turns {
        Some(pairs) => {
            let turns = format!(" (in turns {:.2} and {:.2} ms)", pairs.new_ms, pairs.present_ms);
            (pairs.new_ms, pairs.present_ms, 0.0, turns)
        }
        // At two moments a clock may be wrong.
        None => (ms, of_lists, SLACK_MS, String::new()),
    };
    let compared = format!("{measured}; {lists} lists take {of_lists:.2} ms{at}{turns}");
    match ms + slack < of_lists * WORTH_IT {
        true => (true, compared),
        false => (false, format!("{compared}, and a change has to save 15 %")),
    }
}

/// Says why no number of lists is built, and what else there is.
fn without_a_best(request: &Request, current: &Current, tuning: &Tuning) -> [String; 2] {
    let why = match tuning.candidates.len() {
        0 => format!("no candidate was built and measured: {}", tuning.ended),
        _ => format!("no candidate reached {}: {}", request.target, tuning.ended),
    };
    let hnsw = if tuning.hnsw.is_none() { "; hnsw may reach it (method = \"auto\" or \"hnsw\")" } else { "" };
    [why, format!("an exact search takes {:.1} ms and finds every neighbour{hnsw}", current.exact_ms)]
}

/// `lists`: the best number, scaled from the copy to the table.
fn best_in_words(best: &Candidate, lists: u32, tuning: &Tuning) -> String {
    let cost = best.found.cost.map_or(String::new(), |cost| format!(" in {:.2} ms and {:.0} pages", cost.ms, cost.pages));
    let on_a_copy = match tuning.share < 1.0 {
        true => format!(" of {} ({lists} of all)", units::plural(tuning.copied_rows, "row")),
        false => String::new(),
    };
    format!(
        "of {}, {} lists are best{on_a_copy}: {} at probes = {}{cost}",
        units::plural(tuning.lists().len(), "number"),
        best.lists(),
        recall_in_words(&best.found),
        best.found.setting,
    )
}

/// Says what a build would gain, if that is enough. Milliseconds on the copy and on the table cannot be compared; pages can.
fn gain(index: &Index, best: &Candidate, tuning: &Tuning) -> Option<String> {
    let rebuilt = index
        .lists_in_fact
        .and_then(|present| tuning.lists().into_iter().find(|lists| tuning.scaled(*lists) == present))
        .and_then(|lists| tuning.worst(lists));
    let as_it_is = index.least.as_ref().and_then(|(_, least)| least.cost);
    match (rebuilt.and_then(|one| one.found.cost), as_it_is, best.found.cost) {
        (Some(rebuilt), Some(as_it_is), _) if rebuilt.pages < as_it_is.pages * WORTH_IT => {
            let (now, then) = (as_it_is.pages, rebuilt.pages);
            Some(format!("a search reads {now:.0} pages today, and {then:.0} with the same number of lists after a rebuild"))
        }
        (Some(rebuilt), _, Some(best)) if best.work < rebuilt.work * WORTH_IT => {
            Some(format!("a search reads {:.0} pages with the present number of lists, built anew", rebuilt.pages))
        }
        (None, Some(as_it_is), Some(best)) if best.pages < as_it_is.pages * WORTH_IT => {
            Some(format!("a search reads {:.0} pages today", as_it_is.pages))
        }
        _ => None,
    }
}

/// Returns whether the index needs no rebuild for another reason than its number of lists.
fn is_well(index: &Index, current: &Current) -> bool {
    index.lopsided().is_none()
        && index.rows_then.is_none_or(|rows| current.vectors <= rows * GROWN)
        && index.least.as_ref().is_some_and(|(reached, _)| *reached)
}
