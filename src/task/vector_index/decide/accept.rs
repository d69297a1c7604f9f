//! The verdict on a new index: nothing that is slower and finds less is swapped in.

use super::{Current, Request, WORTH_IT, at_the_highest, recall_in_words};
use crate::task::vector_index::found::Found;
use crate::task::vector_index::kind::Method;
use crate::task::vector_index::pairs::{ByIndex, Pairs, Rival};

/// Milliseconds by which the clock of a busy machine may be wrong where two searches were not measured in turns: the same one took 0.08 and 0.44 ms.
pub const SLACK_MS: f64 = 0.2;
/// Recall that may be lost at a setting that stays fixed.
const RECALL_TO_LOSE: f64 = 0.01;

/// Why a new index is not taken.
#[derive(Debug, PartialEq)]
pub struct Refusal {
    pub reason: String,
    /// True if what is there is better: the present index, or a search without one.
    pub is_worse: bool,
}

/// Returns the verdict on a new index that stands beside the old one. The error is the reason why the old one stays. `pairs`: times of both, where they
/// could be measured in turns.
pub fn accept(
    request: &Request,
    current: &Current,
    reached: bool,
    new: &Found,
    at_the_applications: &Found,
    pairs: Option<Pairs>,
) -> Result<(), Refusal> {
    let missed = |reason: String| Err(Refusal { reason, is_worse: false });
    if !reached {
        return missed(format!("its recall is {}, below {}", at_the_highest(request.method, new), request.target));
    }
    if let Some(reason) = is_worse(request, current, new, pairs) {
        return Err(Refusal { reason, is_worse: true });
    }
    costs_no_recall(request, current, new, at_the_applications).or_else(missed)
}

/// Says why what is there is better at equal recall, if it is: each is taken at the lowest setting that reaches the target. hnsw has none below
/// ef_search = 40, so that what it finds above the target counts for it.
fn is_worse(request: &Request, current: &Current, new: &Found, pairs: Option<Pairs>) -> Option<String> {
    let cost = new.cost?;
    if cost.is_read_whole {
        return Some(format!(
            "the planner reads the whole table instead, in {:.2} ms, and finds every neighbour",
            current.exact_ms
        ));
    }
    let times = |present_ms: f64| match pairs {
        Some(pairs) => (pairs.new_ms, pairs.present_ms, 0.0),
        None => (cost.ms, present_ms, SLACK_MS),
    };
    let Some(old) = current.index.as_ref().filter(|index| index.is_valid) else {
        let (ms, exact_ms, slack) = times(current.exact_ms);
        return (exact_ms > 0.0 && ms * WORTH_IT > exact_ms + slack).then(|| {
            format!("a search with it takes {ms:.2} ms, and without an index {exact_ms:.2} ms, which finds every neighbour")
        });
    };
    let (_, least) = old.least.as_ref().filter(|(reached, _)| *reached)?;
    let of_old = least.cost?;
    let finds_less = new.recall + new.margin < least.recall - least.margin;
    let finds_more = new.recall - new.margin > least.recall + least.margin;
    let (ms, old_ms, slack) = times(of_old.ms);
    let is_same_method = old.method == Some(request.method);
    let is_slower = match (is_same_method, finds_less) {
        // Of one method, pages tell more than a clock.
        (true, true) => cost.pages > of_old.pages,
        (true, false) => cost.pages * WORTH_IT > of_old.pages,
        // What finds less has to be clearly faster.
        (false, true) => ms + slack > old_ms * WORTH_IT,
        (false, false) => ms * WORTH_IT > old_ms + slack,
    };
    // Another method has to be good for something: dense hnsw of 0.37 ms became lists of 1.40 ms, with 0.011 less recall than either's margin shows.
    let is_asked_for = is_same_method && request.is_given;
    let is_worse = is_slower && (finds_less || !is_asked_for && !finds_more);
    is_worse.then(|| {
        let pages = match is_same_method {
            true => format!(" ({:.0} pages, and {:.0})", cost.pages, of_old.pages),
            false => String::new(),
        };
        format!(
            "it takes {ms:.2} ms for {}, and the present index {old_ms:.2} ms for {}{pages}",
            recall_in_words(new),
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

/// Returns what a new index by `method` is compared with by the clock; none where pages tell which of two indexes by one method is slower, and an index that
/// misses the target is no rival. `name`: of the present index.
pub fn rival(current: &Current, name: &str, method: Method) -> Option<Rival> {
    let Some(index) = current.index.as_ref().filter(|index| index.is_valid) else { return Some(Rival::Exact) };
    let (_, least) = index.least.as_ref().filter(|(reached, _)| *reached)?;
    let present = index.method.filter(|present| *present != method)?;
    Some(Rival::Index(ByIndex { name: name.to_owned(), method: present, setting: least.setting, hidden: None }))
}
