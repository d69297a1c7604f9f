//! Decides which sets are deleted, and why: pure.

use chrono::{DateTime, Utc};
use chrono_tz::Tz;

use super::identity::Identity;
use super::keep::{self, Candidate, Decision, Keep};
use super::manifest::Filters;
use super::needed::Needed;
use super::series::Series;
use super::set::{Listing, Set};
use super::set_name::SetName;
use super::verdict::Bytes;

/// The inputs of the decision besides the sets.
#[derive(Clone, Debug)]
pub struct Rules<'a> {
    pub keep: &'a Keep,
    pub zone: Tz,
    pub now: DateTime<Utc>,
    /// The identity of the sets; None where the server does not tell it or is not asked.
    pub identity: Option<&'a Identity>,
    pub series: &'a Series,
    /// The set of the current run.
    pub own: Option<&'a SetName>,
    /// True if the job has a schedule: then manual sets fill no places.
    pub has_schedule: bool,
    /// The sets that stay for other stores of the job.
    pub needed: &'a [Needed],
}

impl Rules<'_> {
    pub(super) fn candidate(&self, set: &Set) -> Candidate {
        let mut pinned = Vec::new();
        if self.own == Some(&set.name) {
            pinned.push("made by this run".to_owned());
        }
        pinned.extend(set.held(self.now).map(|hold| match hold.until == DateTime::<Utc>::MAX_UTC {
            true => hold.reason.clone(),
            false => format!("held until {}: {}", hold.until.format("%Y-%m-%d"), hold.reason),
        }));
        pinned.extend(self.needed.iter().filter(|needed| needed.set == set.name).map(Needed::in_words));
        let is_from_the_future = set.is_from_the_future(self.now);
        if is_from_the_future {
            pinned.push("dated in the future: a clock was wrong".to_owned());
        }
        Candidate {
            name: set.name.to_string(),
            taken_at: set.name.taken_at,
            bytes: set.verification.verdict(),
            damaged_at: set.verification.damaged_at(),
            was_restored: set.verification.was_restored(),
            fills: !is_from_the_future && (!self.has_schedule || !set.manifest.by_hand),
            pinned,
        }
    }

    /// The sets that these rules cover.
    pub fn own_sets<'s>(&self, listing: &'s Listing) -> impl Iterator<Item = &'s Set> {
        listing.sets.iter().filter(|set| self.series.unites(self.identity, set))
    }
}

/// Decides on all sets. `with` is a set that will exist, with its job's filters. Sets that hold a part of the database are separate from
/// those that hold all of it or another part: each kind has its own places. Pure.
pub fn decide(listing: &Listing, rules: &Rules<'_>, with: Option<(Candidate, &Filters)>) -> Vec<Decision> {
    decide_by(listing, rules, with, &|_| true)
}

/// Decides in the same way, but a set counts as intact only if `believed` says so, and as unknown otherwise.
pub(super) fn decide_by(
    listing: &Listing,
    rules: &Rules<'_>,
    with: Option<(Candidate, &Filters)>,
    is_believed: &dyn Fn(&Set) -> bool,
) -> Vec<Decision> {
    let listed = rules.own_sets(listing).map(|set| {
        let mut candidate = rules.candidate(set);
        if candidate.bytes == Bytes::Intact && !is_believed(set) {
            candidate.bytes = Bytes::Unknown;
        }
        (candidate, &set.manifest.filters)
    });
    of_candidates(listed.chain(with), rules)
}

/// Decides on candidates, each with the filters of its job. Pure.
pub fn of_candidates<'s>(candidates: impl Iterator<Item = (Candidate, &'s Filters)>, rules: &Rules<'_>) -> Vec<Decision> {
    let mut kinds: Vec<(&Filters, Vec<Candidate>)> = Vec::new();
    for (candidate, filters) in candidates {
        match kinds.iter_mut().find(|(kind, _)| *kind == filters) {
            Some((_, candidates)) => candidates.push(candidate),
            None => kinds.push((filters, vec![candidate])),
        }
    }
    let decided = kinds.iter().flat_map(|(_, candidates)| keep::decide(candidates, rules.keep, rules.zone, rules.now));
    let mut decisions: Vec<Decision> = decided.collect();
    decisions.sort_by(|a, b| b.name.cmp(&a.name));
    decisions
}

#[derive(Debug, Default)]
pub struct Pruned {
    pub sets: Vec<String>,
    pub warnings: Vec<String>,
    pub decisions: Vec<Decision>,
    /// The number of intact sets of the series that are left.
    pub intact_sets: Option<usize>,
}
