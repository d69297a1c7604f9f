//! Decides from the candidates whether a build is worth it.

use super::{Action, Current, Decision, GROWN, Index, Request, WORTH_IT, accept, by_setting, recall_in_words};
use crate::base::units;
use crate::task::vector_index::candidates::{Candidate, Spec, Tuning};
use crate::task::vector_index::kind::Method;

/// Decides from the candidates whether a build is worth it. `why`: the decision to look for them.
pub fn after_tuning(request: &Request, current: &Current, why: Decision, tuning: &Tuning) -> Decision {
    let mut reasons = why.reasons;
    reasons.extend(tuning.hnsw_ended.as_ref().map(|why| format!("hnsw was not compared: {why}")));
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
    if let Some(at_todays) = &best.at_todays_setting
        && let Err(reason) = accept(request, current, true, &best.found, at_todays)
    {
        reasons.push(format!("not built: {reason}"));
        return Decision { action: Action::GiveUp, reasons };
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
    let accepted = match &hnsw.at_todays_setting {
        Some(at_todays) => accept(&as_hnsw, current, true, &hnsw.found, at_todays),
        None => Ok(()),
    };
    match accepted {
        Ok(()) => Some(Action::Build { spec: hnsw.spec }),
        Err(reason) => {
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
    match tuning.best().and_then(|best| Some((best.ms()?, best.lists()))) {
        None => (true, format!("{measured}, and no number of lists reached the target")),
        Some((of_lists, lists)) if ms < of_lists * WORTH_IT => (true, format!("{measured}; {lists} lists take {of_lists:.2} ms")),
        Some((of_lists, lists)) => {
            (false, format!("{measured}; {lists} lists take {of_lists:.2} ms, and a change has to save 15 %"))
        }
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
        (Some(rebuilt), _, Some(best)) if best.ms < rebuilt.ms * WORTH_IT => {
            Some(format!("the present number of lists takes {:.2} ms", rebuilt.ms))
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
