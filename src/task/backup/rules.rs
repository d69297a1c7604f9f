//! Which sets go, and why: pure.

use chrono::{DateTime, Utc};
use chrono_tz::Tz;

use super::identity::Identity;
use super::keep::{self, Candidate, Decision, Keep};
use super::manifest::Filters;
use super::series::Series;
use super::set::{Listing, Set};
use super::set_name::SetName;
use super::verdict::Bytes;

/// What decides beside the sets themselves.
#[derive(Clone, Debug)]
pub struct Rules<'a> {
    pub keep: &'a Keep,
    pub zone: Tz,
    pub now: DateTime<Utc>,
    /// Whose sets these are; None where the server does not say, or nobody is asked.
    pub identity: Option<&'a Identity>,
    pub series: &'a Series,
    /// The set of the run that asks.
    pub own: Option<&'a SetName>,
    /// Sets made by hand fill no places then.
    pub has_schedule: bool,
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

    /// The sets that these rules are about.
    pub fn own_sets<'s>(&self, listing: &'s Listing) -> impl Iterator<Item = &'s Set> {
        listing.sets.iter().filter(|set| self.series.unites(self.identity, set))
    }
}

/// Pure. One that will be there is said with `with`, and what its job leaves out. Sets that hold a part of the database are none of
/// those that hold all of it, nor of another part: each kind has the places of the rules to itself.
pub fn decide(listing: &Listing, rules: &Rules<'_>, with: Option<(Candidate, &Filters)>) -> Vec<Decision> {
    decide_by(listing, rules, with, &|_| true)
}

/// The same, where a set is intact only if that is believed, and unknown otherwise.
pub(super) fn decide_by(
    listing: &Listing,
    rules: &Rules<'_>,
    with: Option<(Candidate, &Filters)>,
    is_believed: &dyn Fn(&Set) -> bool,
) -> Vec<Decision> {
    let mut kinds: Vec<(&Filters, Vec<Candidate>)> = Vec::new();
    let listed = rules.own_sets(listing).map(|set| {
        let mut candidate = rules.candidate(set);
        if candidate.bytes == Bytes::Intact && !is_believed(set) {
            candidate.bytes = Bytes::Unknown;
        }
        (candidate, &set.manifest.filters)
    });
    for (candidate, filters) in listed.chain(with) {
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
}
