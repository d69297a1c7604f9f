//! The plan for one of a job's stores: what is swept, kept, deleted and copied there. Pure.

use chrono::{DateTime, Utc};
use serde::Serialize;

use super::copies::holds::Elsewhere;
use super::copies::lacks::{self, COPIES_IN_A_RUN, KEEP_ALL, Lacking};
use super::copies::needs::{self, Other};
use super::found::Found;
use super::identity::Identity;
use super::keep::{Candidate, Decision, Keep};
use super::keys::{Backup, InStore, Verify};
use super::needed::Needed;
use super::rules::{self, Rules};
use super::series::Series;
use super::set::{Listing, Set};
use super::set_name::SetName;
use super::state::State;
use super::sweep;
use super::verdict::Bytes;
use super::warnings::doubts;
use crate::work::RunContext;

#[derive(Debug, Serialize)]
pub struct OfStore {
    pub store: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub location: String,
    /// To whom a set is encrypted there, in words.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub encrypted_to: Option<String>,
    /// The reason why it could not be read: nothing is written there.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub away: Option<String>,
    pub sweep: sweep::Plan,
    pub keep: Vec<Decision>,
    /// What others of the job's stores have, and this one lacks: it is copied after the dump.
    pub lacks: Vec<Lacking>,
    /// The reasons why this run deletes nothing there; empty when it may.
    pub deletes_nothing: Vec<String>,
    /// What copies of its sets in other stores are held for.
    #[serde(skip)]
    pub held_elsewhere: Vec<Elsewhere>,
    #[serde(skip)]
    pub kept: InStore,
    #[serde(skip)]
    pub series: Series,
    /// The set there that the new one is compared with.
    #[serde(skip)]
    pub previous: Option<Set>,
    /// The number of intact sets of the series there.
    #[serde(skip)]
    pub intact_sets: usize,
}

/// What is decided for all stores alike.
pub struct Own<'a> {
    pub backup: &'a Backup,
    pub run: &'a RunContext<'a>,
    pub identity: Option<&'a Identity>,
    pub name: &'a SetName,
    pub verify: Verify,
}

/// Decides for all stores, the nearest that could be read first.
pub fn decide(state: &State, own: &Own<'_>) -> Vec<OfStore> {
    let found: Vec<&Found> = [&state.main].into_iter().chain(&state.others).collect();
    let lacks: Vec<Vec<Lacking>> = found.iter().map(|into| own.lacks(into, &found)).collect();
    let needed = |here: &Found| own.needed(here, state, found.iter().copied().zip(&lacks));
    let mut stores: Vec<OfStore> =
        found.iter().zip(&lacks).map(|(into, lacks)| own.of(state, into, lacks.clone(), &needed(into))).collect();
    stores.extend(state.away.iter().map(|(kept, why)| away(kept, why)));
    stores
}

impl Own<'_> {
    fn of(&self, state: &State, into: &Found, lacks: Vec<Lacking>, needed: &[Needed]) -> OfStore {
        let mut deletes_nothing = doubts(&state.server, state.host_clock, &into.series, &into.listing);
        deletes_nothing.extend(into.series_trouble.clone());
        let (leftovers, uploads) = (into.leftovers.clone(), into.uploads.clone());
        let mut sweep = sweep::decide(leftovers, uploads, self.identity, into.listing.not_after_now());
        if !deletes_nothing.is_empty() {
            sweep.objects.clear();
            sweep.uploads.clear();
        }
        let (_, previous) = last_good(&into.listing, &into.series, self.identity, self.run.now);
        OfStore {
            store: into.kept.store.clone(),
            location: into.location.clone(),
            encrypted_to: into.encrypted_to.clone(),
            away: None,
            keep: if deletes_nothing.is_empty() { self.fates(into, needed) } else { Vec::new() },
            lacks,
            held_elsewhere: into.held_elsewhere.clone(),
            sweep,
            deletes_nothing,
            kept: into.kept.clone(),
            series: into.series.clone(),
            previous: previous.cloned(),
            intact_sets: intact(&into.listing, &into.series, self.identity).count(),
        }
    }

    /// Says of each set, that of this run among them, whether `keep` keeps it. Nothing without `keep`.
    fn fates(&self, into: &Found, needed: &[Needed]) -> Vec<Decision> {
        let Some(keep) = &into.kept.keep else { return Vec::new() };
        rules::decide(&into.listing, &Rules { needed, ..self.rules(into, keep) }, Some((self.candidate(), &self.backup.filters)))
    }

    /// What other stores need of this one, besides what this run copies into them: as if no copy failed.
    fn needed<'f>(&self, here: &Found, state: &State, all: impl Iterator<Item = (&'f Found, &'f Vec<Lacking>)>) -> Vec<Needed> {
        let Some(keep) = &here.kept.keep else { return Vec::new() };
        let (rules, own) = (self.rules(here, keep), self.candidate());
        let needed = |other: &Other<'_>| needs::needed(&here.listing, other, &rules, Some((&own, &self.backup.filters)));
        let mut all_needed = Vec::new();
        for (there, lacks) in all.filter(|(there, _)| there.kept != here.kept) {
            let other = Other { store: &there.kept.store, keep: there.kept.keep.as_ref(), listing: Some(&there.listing) };
            let is_copied = |needed: &Needed| lacks.iter().any(|lacking| lacking.copied.name == needed.set);
            all_needed.extend(needed(&other).into_iter().filter(|needed| !is_copied(needed)));
        }
        for (away, _) in &state.away {
            all_needed.extend(needed(&Other { store: &away.store, keep: away.keep.as_ref(), listing: None }));
        }
        all_needed
    }

    /// What this run copies into it.
    fn lacks(&self, into: &Found, all: &[&Found]) -> Vec<Lacking> {
        let others: Vec<&Found> = all.iter().copied().filter(|other| other.kept != into.kept).collect();
        let rules = into.kept.keep.as_ref().map(|keep| self.rules(into, keep));
        let keep_all = self.rules(into, &KEEP_ALL);
        let mut lacks = lacks::decide(into, &others, rules.as_ref(), &keep_all, (self.candidate(), &self.backup.filters));
        lacks.truncate(COPIES_IN_A_RUN);
        lacks
    }

    fn rules<'k>(&'k self, into: &'k Found, keep: &'k Keep) -> Rules<'k> {
        Rules {
            keep,
            zone: self.run.job.timezone,
            now: self.run.now,
            identity: self.identity,
            series: &into.series,
            own: None,
            has_schedule: self.run.job.has_schedule,
            needed: &[],
        }
    }

    /// The set of this run, as it will be.
    fn candidate(&self) -> Candidate {
        Candidate {
            name: self.name.to_string(),
            taken_at: self.name.taken_at,
            bytes: if self.verify == Verify::None { Bytes::Unknown } else { Bytes::Intact },
            damaged_at: None,
            was_restored: false,
            fills: !self.run.by_hand,
            pinned: vec!["made by this run".to_owned()],
        }
    }
}

fn away(kept: &InStore, why: &str) -> OfStore {
    OfStore {
        store: kept.store.clone(),
        location: String::new(),
        encrypted_to: None,
        away: Some(why.to_owned()),
        sweep: sweep::Plan::default(),
        keep: Vec::new(),
        lacks: Vec::new(),
        held_elsewhere: Vec::new(),
        deletes_nothing: Vec::new(),
        kept: kept.clone(),
        series: Series::default(),
        previous: None,
        intact_sets: 0,
    }
}

/// The intact sets of the series.
pub fn intact<'s>(listing: &'s Listing, series: &Series, identity: Option<&Identity>) -> impl Iterator<Item = &'s Set> {
    listing.sets.iter().filter(move |set| series.unites(identity, set) && set.verification.verdict() == Bytes::Intact)
}

/// The last intact set of the series, and the set that a new one is compared with: where none was read back, an unread one.
pub fn last_good<'s>(
    listing: &'s Listing,
    series: &Series,
    identity: Option<&Identity>,
    now: DateTime<Utc>,
) -> (Option<&'s Set>, Option<&'s Set>) {
    let of_series = |set: &&Set| series.unites(identity, set);
    let sets: Vec<&Set> = listing.sets.iter().filter(of_series).collect();
    let previous = newest_good(&sets, now);
    (previous.filter(|set| set.verification.verdict() == Bytes::Intact), previous)
}

/// The newest set that another one is compared with, of these, the oldest first: where none was read back, an unread one, which may be damaged.
pub fn newest_good<'s>(sets: &[&'s Set], now: DateTime<Utc>) -> Option<&'s Set> {
    let newest = |bytes| {
        let of_now = sets.iter().rev().filter(|set| !set.is_from_the_future(now));
        of_now.copied().find(|set| set.verification.verdict() == bytes)
    };
    newest(Bytes::Intact).or_else(|| newest(Bytes::Unknown))
}
