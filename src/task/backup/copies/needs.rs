//! The sets that a store needs by its rules and is not known to have whole: no other store of the job lets those go, whatever its own rules say. What deletes
//! rests on a positive answer: a store that was not read is not known to have anything, and a copy that was not read back is not known to be good. Pure.

use std::collections::{BTreeMap, BTreeSet};

use super::place::is_copy_of;
use crate::base::{shell, units};
use crate::task::backup::keep::{Candidate, Keep};
use crate::task::backup::manifest::Filters;
use crate::task::backup::needed::{Needed, Why};
use crate::task::backup::rules::{self, Rules};
use crate::task::backup::set::{Listing, Set};
use crate::task::backup::set_name::SetName;
use crate::task::backup::verdict::Bytes;

/// A store of the job besides the one that is pruned.
pub struct Other<'a> {
    pub store: &'a str,
    /// None: it keeps all.
    pub keep: Option<&'a Keep>,
    /// None: it could not be read.
    pub listing: Option<&'a Listing>,
}

/// Returns the sets here that the other store's rules would keep, and that it is not known to have whole; where it was not read, also those whose data are
/// doubted. `rules`: those of this store. `with`: a set that both will have. A set that is damaged here is none that another store needs.
pub fn needed(here: &Listing, other: &Other<'_>, rules: &Rules<'_>, with: Option<(&Candidate, &Filters)>) -> Vec<Needed> {
    let lacking: Vec<(&Set, Why)> = rules
        .own_sets(here)
        .filter(|set| set.verification.verdict() != Bytes::Damaged)
        .filter_map(|set| Some((set, why_not_there(set, other.listing)?)))
        .collect();
    let kept = other.keep.map(|keep| {
        let rules = Rules { keep, own: None, needed: &[], ..rules.clone() };
        // One that nobody has read yet counts as what it will be: a prune reads it, and would then let it go. It must not push out one that is known.
        let mut kept = kept_there(&lacking, other, &rules, with, |set| set.verification.verdict() == Bytes::Intact);
        kept.extend(kept_there(&lacking, other, &rules, with, |_| true));
        kept
    });
    let is_doubted =
        |set: &Set| set.verification.refused_for_its_data(rules.now).is_some() || set.written_before_it_began().is_some();
    lacking
        .into_iter()
        .filter(|(set, why)| {
            let by_rules = kept.as_ref().is_none_or(|kept| kept.contains(&set.name.to_string()));
            by_rules || (*why == Why::Unread && is_doubted(set))
        })
        .map(|(set, why)| Needed { set: set.name.clone(), store: other.store.to_owned(), why })
        .collect()
}

/// The names of the sets that the other store's rules would keep there if it had these as well, and they were intact.
fn kept_there(
    lacking: &[(&Set, Why)],
    other: &Other<'_>,
    rules: &Rules<'_>,
    with: Option<(&Candidate, &Filters)>,
    counts: impl Fn(&Set) -> bool,
) -> BTreeSet<String> {
    let there = other.listing.into_iter().flat_map(|listing| rules.own_sets(listing));
    let there = there.filter(|there| !lacking.iter().any(|(set, _)| set.name == there.name));
    let there = there.map(|set| (rules.candidate(set), &set.manifest.filters));
    let brought = lacking.iter().filter(|(set, _)| counts(set));
    let brought = brought.map(|(set, _)| (Candidate { bytes: Bytes::Intact, ..rules.candidate(set) }, &set.manifest.filters));
    let with = with.map(|(candidate, filters)| (candidate.clone(), filters));
    let decisions = rules::of_candidates(there.chain(brought).chain(with), rules);
    decisions.into_iter().filter(|decision| decision.keep && !decision.check_first).map(|decision| decision.name).collect()
}

/// Says why a store is not known to have a good copy of the set; None: it has one.
fn why_not_there(set: &Set, listing: Option<&Listing>) -> Option<Why> {
    let Some(listing) = listing else { return Some(Why::Unread) };
    if let Some(there) = listing.sets.iter().find(|there| there.name == set.name) {
        return why_not_good(there, set).map(Why::NotGood);
    }
    let is_rest = listing.incomplete.iter().any(|(name, _)| *name == set.name);
    let unreadable = listing.unreadable.iter().find(|(name, _)| *name == set.name && !is_rest);
    let not_ours = listing.not_ours.iter().find(|(there, _)| there.name == set.name);
    Some(match (unreadable, not_ours) {
        (Some((_, why)), _) => Why::NotGood(why.clone()),
        (None, Some((_, signature))) => Why::NotGood(signature.in_words().to_owned()),
        (None, None) if listing.adopted.iter().any(|there| there.name == set.name) => Why::NotGood(ANOTHER.to_owned()),
        (None, None) if listing.doubt().is_some() => Why::Unread,
        (None, None) => Why::Lacking,
    })
}

const ANOTHER: &str = "another set has that name there";

fn why_not_good(there: &Set, set: &Set) -> Option<String> {
    if !is_copy_of(there, set) {
        return Some(ANOTHER.to_owned());
    }
    match there.verification.verdict() {
        Bytes::Damaged => Some("the copy there is damaged".to_owned()),
        Bytes::Unknown => Some("the copy there has not been read back".to_owned()),
        Bytes::Intact => there.listed.globals_problem.clone(),
    }
}

/// Says which sets stay for other stores alone, and what ends that: one warning for each store and reason. `location`: where they are.
pub fn warnings(listing: &Listing, rules: &Rules<'_>, location: &str) -> Vec<String> {
    let alone = Rules { needed: &[], ..rules.clone() };
    let would_go: BTreeSet<String> = rules::decide(listing, &alone, None)
        .into_iter()
        .filter(|decision| !decision.keep && !decision.check_first)
        .map(|decision| decision.name)
        .collect();
    let mut groups: BTreeMap<(&str, &Why), BTreeSet<&SetName>> = BTreeMap::new();
    for needed in rules.needed.iter().filter(|needed| would_go.contains(&needed.set.to_string())) {
        groups.entry((needed.store.as_str(), &needed.why)).or_default().insert(&needed.set);
    }
    let warning = |((store, why), sets): ((&str, &Why), BTreeSet<&SetName>)| {
        let newest = sets.last()?;
        let stay = match sets.len() {
            1 => format!("{newest} stays in {location} for {store}"),
            count => format!("{} stay in {location} for {store}, the newest of them {newest}", units::plural(count, "set")),
        };
        let copy = format!("pgtend backups copy {} --to {}", shell::word(&newest.to_string()), shell::word(store));
        let because = match why {
            Why::Unread => format!(
                "that store could not be read, and its rules would keep what it is not known to have. When it can be read again, the rules here go on; if it is \
                 gone for good, remove `{store}` from `store` of the job"
            ),
            Why::Lacking => {
                format!(
                    "its rules keep what it lacks. Runs copy it, three sets at a time, unless only that store signs; this does it at once: {copy}"
                )
            }
            Why::NotGood(why) => format!(
                "its rules keep it, and it is not known to have a good copy ({why}). No run replaces what is there; this reads it, and makes it anew if it is \
                 damaged: {copy}"
            ),
            Why::Untold => "what speaks against the data could not be recorded beside the copy there".to_owned(),
        };
        Some(format!("{stay}: {because}"))
    };
    groups.into_iter().filter_map(warning).collect()
}

#[cfg(test)]
mod tests {
    use chrono::{TimeDelta, Utc};

    use super::*;
    use crate::store::Unread;
    use crate::task::backup::manifest::tests::manifest;
    use crate::task::backup::restore_check::tests::check;
    use crate::task::backup::series::Series;
    use crate::task::backup::verdict::{BytesCheck, Verification};

    fn set(day: u32, verdict: Bytes) -> Set {
        let name: SetName = format!("app/nightly/2026-11-{day:02}T02-00-00Z").parse().unwrap();
        let mut manifest = manifest();
        manifest.dump.sha256 = format!("{day:064}");
        (manifest.by_hand, manifest.started_at, manifest.server.clock) = (false, name.taken_at, None);
        let bytes = BytesCheck {
            verdict,
            checked_at: name.taken_at,
            problems: vec![],
            elapsed_seconds: 0.0,
            not_decoded: None,
            pgtend_version: None,
        };
        let verification = Verification { bytes: Some(bytes), ..Verification::default() };
        Set { name, manifest, verification, holds: vec![], listed: Default::default() }
    }

    fn listing(sets: impl IntoIterator<Item = Set>) -> Listing {
        Listing { sets: sets.into_iter().collect(), ..Listing::default() }
    }

    /// The days of the sets here that the other store needs, by this rule of its own.
    fn days(here: &Listing, there: Option<&Listing>, last: Option<u32>) -> Vec<(u32, Why)> {
        let (keep, series) = (Keep { last: 1, ..Keep::default() }, Series::default());
        let theirs = last.map(|last| Keep { last, ..Keep::default() });
        let now = Utc::now().max("2026-12-01T00:00:00Z".parse().unwrap());
        let rules = Rules {
            keep: &keep,
            zone: chrono_tz::Tz::UTC,
            now,
            identity: None,
            series: &series,
            own: None,
            has_schedule: true,
            needed: &[],
        };
        let other = Other { store: "offsite", keep: theirs.as_ref(), listing: there };
        let needed = needed(here, &other, &rules, None).into_iter();
        needed.map(|needed| (needed.set.to_string()[20..22].parse().unwrap(), needed.why)).collect()
    }

    #[test]
    fn what_a_store_that_was_not_read_keeps_by_its_rules_is_not_known_to_be_there() {
        let here = listing([set(1, Bytes::Damaged), set(2, Bytes::Intact), set(3, Bytes::Unknown), set(4, Bytes::Intact)]);
        let unread = |days: &[u32]| days.iter().map(|day| (*day, Why::Unread)).collect::<Vec<_>>();
        assert_eq!(days(&here, None, None), unread(&[2, 3, 4]), "it keeps all");
        assert_eq!(days(&here, None, Some(1)), unread(&[4]));
        assert_eq!(days(&here, None, Some(2)), unread(&[2, 3, 4]), "an unread one pushes out none that was read");

        let mut in_part = listing([set(4, Bytes::Intact)]);
        let key = "app/nightly/".to_owned();
        in_part.unseen.push(Unread { key, reason: "no right".to_owned(), hides_folder: true });
        assert_eq!(days(&here, Some(&in_part), Some(9)), unread(&[2, 3]), "what it shows is there");
    }

    #[test]
    fn only_an_intact_copy_of_the_same_set_is_known_to_be_there() {
        let here = listing([set(1, Bytes::Intact), set(2, Bytes::Intact)]);
        let newer = set(2, Bytes::Intact);
        let with = |first: Set| listing([first, newer.clone()]);
        assert_eq!(days(&here, Some(&with(set(1, Bytes::Intact))), Some(2)), []);
        assert_eq!(days(&here, Some(&listing([newer.clone()])), Some(2)), [(1, Why::Lacking)]);
        assert_eq!(days(&here, Some(&listing([newer.clone()])), Some(1)), [], "its rules would let it go");

        let (mut other, mut no_globals) = (set(1, Bytes::Intact), set(1, Bytes::Intact));
        other.manifest.dump.sha256 = "f".repeat(64);
        no_globals.listed.globals_problem = Some("its globals are gone".to_owned());
        for there in [other, no_globals, set(1, Bytes::Damaged), set(1, Bytes::Unknown)] {
            let needed = days(&here, Some(&with(there)), Some(2));
            assert!(matches!(needed[..], [(1, Why::NotGood(_))]), "{needed:?}");
        }
        let mut unreadable = listing([newer.clone()]);
        unreadable.unreadable.push((set(1, Bytes::Intact).name, "its dump is gone".to_owned()));
        assert_eq!(days(&here, Some(&unreadable), Some(2)), [(1, Why::NotGood("its dump is gone".to_owned()))]);
        unreadable.incomplete.push((set(1, Bytes::Intact).name, vec![]));
        assert_eq!(days(&here, Some(&unreadable), Some(2)), [(1, Why::Lacking)], "the rest of a set is made whole");
    }

    #[test]
    fn a_doubt_stays_while_a_store_is_away_that_may_have_a_copy() {
        let mut here = listing([set(1, Bytes::Intact), set(2, Bytes::Intact), set(3, Bytes::Intact)]);
        here.sets[0].verification.restores = vec![check("db", 0, Some(true))];
        here.sets[1].listed.manifest_at = Some(here.sets[1].name.taken_at - TimeDelta::hours(1));
        let unread = |days: &[u32]| days.iter().map(|day| (*day, Why::Unread)).collect::<Vec<_>>();
        assert_eq!(days(&here, None, Some(1)), unread(&[1, 2, 3]));
    }
}
