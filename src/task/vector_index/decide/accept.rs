//! The verdict on a new index: nothing that is slower and finds less is swapped in.

use super::{Current, Request, WORTH_IT, at_the_highest, recall_in_words};
use crate::task::vector_index::found::Found;

/// Milliseconds by which the clock of a busy machine may be wrong: the same search took 0.08 and 0.44 ms.
const SLACK_MS: f64 = 0.2;
/// Recall that may be lost at a setting that stays fixed.
const RECALL_TO_LOSE: f64 = 0.01;

/// Why a new index is not taken.
#[derive(Debug, PartialEq)]
pub struct Refusal {
    pub reason: String,
    /// True if what is there is better: the present index, or a search without one.
    pub is_worse: bool,
}

/// Returns the verdict on a new index that stands beside the old one. The error is the reason why the old one stays.
pub fn accept(
    request: &Request,
    current: &Current,
    reached: bool,
    new: &Found,
    at_the_applications: &Found,
) -> Result<(), Refusal> {
    let missed = |reason: String| Err(Refusal { reason, is_worse: false });
    if !reached {
        return missed(format!("its recall is {}, below {}", at_the_highest(request.method, new), request.target));
    }
    if let Some(reason) = is_worse(request, current, new) {
        return Err(Refusal { reason, is_worse: true });
    }
    costs_no_recall(request, current, new, at_the_applications).or_else(missed)
}

/// Says why what is there is better at equal recall, if it is: each is taken at the lowest setting that reaches the target. hnsw has none below
/// ef_search = 40, so that what it finds above the target counts for it.
fn is_worse(request: &Request, current: &Current, new: &Found) -> Option<String> {
    let cost = new.cost?;
    if cost.is_read_whole {
        return Some(format!(
            "the planner reads the whole table instead, in {:.2} ms, and finds every neighbour",
            current.exact_ms
        ));
    }
    let Some(old) = current.index.as_ref().filter(|index| index.is_valid) else {
        return (current.exact_ms > 0.0 && cost.ms * WORTH_IT > current.exact_ms + SLACK_MS).then(|| {
            format!(
                "a search with it takes {:.2} ms, and without an index {:.2} ms, which finds every neighbour",
                cost.ms, current.exact_ms
            )
        });
    };
    let (_, least) = old.least.as_ref().filter(|(reached, _)| *reached)?;
    let of_old = least.cost?;
    let finds_less = new.recall + new.margin < least.recall - least.margin;
    let finds_more = new.recall - new.margin > least.recall + least.margin;
    // What finds less has to be faster by more than the clock may be wrong: 0.20 ms for 0.957 replaced 0.11 ms for 0.997, which had been measured as 0.36 ms.
    let is_slower = match finds_less {
        true => cost.ms + SLACK_MS > of_old.ms,
        false => cost.ms * WORTH_IT > of_old.ms + SLACK_MS,
    };
    // Of one method, pages tell a slow index from a busy machine.
    let is_same_method = old.method == Some(request.method);
    let is_slower = is_slower && (!is_same_method || cost.pages > of_old.pages);
    let is_worse = is_slower && (finds_less || is_same_method && !request.is_given && !finds_more);
    is_worse.then(|| {
        format!(
            "it takes {:.2} ms for {}, and the present index {:.2} ms for {}",
            cost.ms,
            recall_in_words(new),
            of_old.ms,
            recall_in_words(least)
        )
    })
}

/// An error says what applications would lose at a setting that stays fixed.
fn costs_no_recall(request: &Request, current: &Current, new: &Found, at_the_applications: &Found) -> Result<(), String> {
    let Some(old) = current.index.as_ref().filter(|index| index.is_valid) else { return Ok(()) };
    if old.is_behind_a_new_one && !request.sets_the_setting && !at_the_applications.reaches(request.target) {
        return Err(format!(
            "at {} = {}, which stays fixed, its recall is {:.3}, and the old index could not be measured for comparison",
            request.method.setting(),
            at_the_applications.setting,
            at_the_applications.recall,
        ));
    }
    if let Some(now) = &old.now
        && !request.sets_the_setting
        && !at_the_applications.reaches(request.target)
        && at_the_applications.recall < now.recall - RECALL_TO_LOSE - now.margin.min(at_the_applications.margin)
    {
        return Err(format!(
            "at {name} = {setting}, which stays fixed, its recall is {:.3} and the old index's {:.3}: it needs {name} = {}; \
             set apply_setting = \"database\" in the job, or set {name} in the application and in the job",
            at_the_applications.recall,
            now.recall,
            new.setting,
            name = request.method.setting(),
            setting = at_the_applications.setting,
        ));
    }
    Ok(())
}
