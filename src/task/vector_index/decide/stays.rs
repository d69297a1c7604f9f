//! Decides where what is there stays, whatever the job asks for: small tables, tables that the planner reads anyway, builds that were no better.

use super::{Action, Current, Decision, GROWN, Index, Request, at_the_highest, by_setting, by_what_was_measured};
use crate::base::units;
use crate::task::vector_index::candidates::Spec;
use crate::task::vector_index::found::Found;
use crate::task::vector_index::kind::Method;

/// With few vectors no index is needed, whatever method the job names. One that is there stays, and applications search it as they shall.
pub fn of_a_small_table(request: &Request, current: &Current) -> Decision {
    let vectors = units::plural(current.vectors as u64, "vector");
    let few = format!("{vectors}, fewer than exact_below ({})", units::count(request.exact_below));
    let exact = format!("an exact search takes {:.1} ms", current.exact_ms);
    let Some(index) = &current.index else {
        return Decision::new(Action::Nothing, format!("no index is needed: {few}; {exact}"));
    };
    if !index.is_valid {
        let reason =
            format!("no index is needed: {few}; {exact}. The present one is invalid, and every insert maintains it: DROP INDEX");
        return Decision::new(Action::Nothing, reason);
    }
    let reason = format!("no other index is built: {few}");
    let mut decision = match (&index.unmeasured, &index.least) {
        (Some(why), _) => return by_what_was_measured(request, index, why, None),
        (None, Some((true, least))) => {
            is_read_whole(index, least, current).unwrap_or_else(|| by_setting(&of_present(request, index), index, least))
        }
        (None, Some((false, least))) => {
            let method = index.method.unwrap_or(request.method);
            let missed = format!("recall is {}, and the target is {}", at_the_highest(method, least), request.target);
            Decision::new(Action::GiveUp, format!("{missed}; {exact} and finds every neighbour: DROP INDEX"))
        }
        (None, None) => Decision::new(Action::GiveUp, "its recall was not measured"),
    };
    decision.reasons.insert(0, reason);
    decision
}

/// Returns the request as it is about the present index, whose method may be another one.
pub fn of_present(request: &Request, index: &Index) -> Request {
    match index.method {
        Some(method) if method != request.method => {
            Request { method, others_setting: request.others_of_present, ..request.clone() }
        }
        _ => request.clone(),
    }
}

/// Where the planner reads a small table rather than search its index, at the setting of applications and at the lowest one that is enough, no
/// index changes what they find.
pub fn is_read_whole(index: &Index, least: &Found, current: &Current) -> Option<Decision> {
    let is = |found: &Found| found.cost.is_some_and(|cost| cost.is_read_whole);
    (index.now.as_ref().is_some_and(is) && is(least)).then(|| {
        let reason = format!(
            "the planner reads the whole table for the application's statement, in {:.1} ms, and finds every neighbour: no index changes that",
            current.exact_ms
        );
        Decision::new(Action::Nothing, reason)
    })
}

/// A build that was measured and no better than the present index is not repeated before the table has grown.
pub fn was_declined(request: &Request, index: &Index, current: &Current) -> Option<Decision> {
    let (declined, rows) = index.declined?;
    let is_asked_for = match (declined, request.lists) {
        (Spec::Ivfflat { lists }, Some(asked)) => request.method == Method::Ivfflat && lists == asked,
        (Spec::Ivfflat { .. }, None) => request.method == Method::Ivfflat,
        (Spec::Hnsw { m, ef_construction }, _) => {
            request.method == Method::Hnsw
                && request.m.is_none_or(|asked| asked == m)
                && request.ef_construction.is_none_or(|asked| asked == ef_construction)
        }
    };
    let (reached, least) = index.least.as_ref()?;
    if !is_asked_for || !reached || current.vectors > rows * GROWN || index.method == Some(declined.method()) && !request.is_given
    {
        return None;
    }
    let mut decision = by_setting(&of_present(request, index), index, least);
    let reason = format!(
        "{declined} was built and measured with {}, was slower and found less than this index, and is not built again: drop this index if you want it nevertheless",
        units::plural(rows as u64, "vector")
    );
    decision.reasons.insert(0, reason);
    Some(decision)
}
