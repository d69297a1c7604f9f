//! Tags by which a lifecycle rule of the bucket moves older sets to a cheaper storage class (`tag_proved`): a set has them once it was proved and a rule for
//! weeks, months or years alone keeps it. pgtend moves nothing itself, and rewrites nothing.

use std::collections::BTreeMap;

use chrono::{DateTime, Utc};
use futures_util::{StreamExt as _, stream};

use super::keep::Decision;
use super::keys::Verify;
use super::manifest::{Filters, Globals};
use super::set::{self, Set};
use super::verdict::Bytes;
use crate::pg::failure;
use crate::store::Store;
use crate::store::tags::Tags;

/// Sets whose tags are read at once.
const AT_ONCE: usize = 8;

/// Gives each set that stays the tags that it should have, and takes them from those that should have none any more. Returns warnings.
pub async fn tag(store: &Store, folder: &str, decisions: &[Decision], verify: Verify, now: DateTime<Utc>) -> Vec<String> {
    if !store.tags_proved() {
        return Vec::new();
    }
    let listing = match set::list(store, folder).await {
        Ok(listing) => listing,
        Err(error) => return vec![format!("no set is tagged for the bucket's lifecycle rules: {}", failure::in_a_line(&error))],
    };
    let mut tagging = Vec::new();
    for (set, tags) in decide(&listing.sets, decisions, verify, now) {
        tagging.push(async move { (set, tag_one(store, set, tags.as_ref()).await) });
    }
    let tagged: Vec<_> = stream::iter(tagging).buffered(AT_ONCE).collect().await;
    let mut failed = tagged.into_iter().filter_map(|(set, tagged)| Some((set, tagged.err()?)));
    let Some((set, error)) = failed.next() else { return Vec::new() };
    let others = match failed.count() {
        0 => String::new(),
        count => format!(", and {count} others"),
    };
    vec![format!("set {}{others} could not be tagged for the bucket's lifecycle rules: {}", set.name, failure::in_a_line(&error))]
}

/// Tags the dump and the globals. The manifest and what stands beside it are read at each run, and stay where they are.
async fn tag_one(store: &Store, set: &Set, tags: Option<&Tags>) -> anyhow::Result<()> {
    let globals = matches!(set.manifest.globals, Globals::Object { .. }).then(|| set.globals_object());
    let mut has_changed = false;
    for object in [Some(&*set.manifest.dump.object), globals].into_iter().flatten() {
        has_changed |= store.tag(&set.name.key(object), tags).await?;
    }
    match tags {
        _ if !has_changed => {}
        Some(tags) => tracing::info!("{} is tagged for the bucket's lifecycle rules: {tags}", set.name),
        None => tracing::warn!("{} is no longer tagged for the bucket's lifecycle rules", set.name),
    }
    Ok(())
}

/// The tags that each set should have that stays: none where anything speaks against it, and none for the newest sets that are proved, which are what a
/// restore takes. Pure.
fn decide<'s>(sets: &'s [Set], decisions: &[Decision], verify: Verify, now: DateTime<Utc>) -> Vec<(&'s Set, Option<Tags>)> {
    let of_decision = |decision: &Decision| sets.iter().find(|set| set.name.to_string() == decision.name);
    let staying: Vec<(&Set, Option<&'static str>)> = decisions
        .iter()
        .filter(|decision| decision.keep)
        .filter_map(|decision| Some((of_decision(decision)?, decision.long_rule)))
        .collect();
    let newest = newest_proved(staying.iter().map(|(set, _)| *set));
    let tags = |set: &Set, rule: Option<&'static str>| {
        let keep = rule?;
        let proved = match set.verification.was_restored() {
            true => "restore",
            false if verify == Verify::Checksum => "checksum",
            false => return None,
        };
        let may_move = is_clear(set) && set.held(now).next().is_none() && !newest.contains(&&set.name);
        may_move.then_some(Tags { proved, keep })
    };
    staying.iter().map(|(set, rule)| (*set, tags(set, *rule))).collect()
}

/// The newest set that is intact, the newest that was restored, and the newest of each that nothing speaks against, of those with the same filters.
fn newest_proved<'s>(sets: impl Iterator<Item = &'s Set>) -> Vec<&'s super::set_name::SetName> {
    let mut newest: BTreeMap<(String, bool, bool), &Set> = BTreeMap::new();
    for set in sets.filter(|set| set.verification.verdict() == Bytes::Intact) {
        let Filters { schemas, exclude_tables, exclude_table_data } = &set.manifest.filters;
        let kind = format!("{schemas:?} {exclude_tables:?} {exclude_table_data:?}");
        let (was_restored, is_clear) = (set.verification.was_restored(), is_clear(set));
        for way in [(false, false), (true, false), (false, true), (true, true)] {
            if (way.0 && !was_restored) || (way.1 && !is_clear) {
                continue;
            }
            let newer = newest.entry((kind.clone(), way.0, way.1)).or_insert(set);
            if newer.name.taken_at < set.name.taken_at {
                *newer = set;
            }
        }
    }
    newest.values().map(|set| &set.name).collect()
}

/// Tells whether nothing speaks against a set: it is intact, no server has refused it, and its globals are whole.
fn is_clear(set: &Set) -> bool {
    set.verification.verdict() == Bytes::Intact
        && set.verification.restores.iter().all(|check| check.refusal.is_none())
        && set.listed.globals_problem.is_none()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::task::backup::manifest::tests::manifest;
    use crate::task::backup::markers::Hold;
    use crate::task::backup::restore_check::tests::{check, now};
    use crate::task::backup::verdict::{BytesCheck, Verification};

    /// Of that day: intact, and restored or refused.
    fn set(day: u32, restores: &[Option<bool>]) -> Set {
        let mut verification = Verification::default();
        verification.record_bytes(BytesCheck {
            verdict: Bytes::Intact,
            checked_at: now(),
            problems: vec![],
            elapsed_seconds: 0.0,
            not_decoded: None,
            pgtend_version: None,
        });
        for (minute, refused) in restores.iter().enumerate() {
            verification.record_restore(check(&format!("db{minute}"), minute as u32, *refused));
        }
        let name = format!("app/nightly/2026-10-{day:02}T02-00-00Z").parse().unwrap();
        Set { name, manifest: manifest(), verification, holds: vec![], listed: Default::default() }
    }

    fn stays(set: &Set, long_rule: Option<&'static str>) -> Decision {
        Decision { name: set.name.to_string(), keep: true, check_first: false, reasons: vec![], kept_until: None, long_rule }
    }

    #[test]
    fn only_proved_sets_are_tagged_that_nothing_speaks_against_and_that_are_not_the_newest() {
        let mut held = set(8, &[None]);
        held.holds.push(Hold {
            until: now() + chrono::TimeDelta::days(9),
            reason: "it".to_owned(),
            because_of: None,
            for_copy: false,
        });
        let mut damaged = set(9, &[None]);
        damaged.verification = Verification::default();
        let monthly = Some("monthly");
        let cases = [
            (set(1, &[None]), monthly, Some("restore"), Some("restore"), "restored"),
            (set(2, &[]), monthly, None, Some("checksum"), "read back"),
            (set(3, &[None]), None, None, None, "a rule for days keeps it"),
            (set(4, &[None, Some(true)]), monthly, None, None, "refused for its data"),
            (set(5, &[Some(false)]), monthly, None, None, "refused by a server that may be too old"),
            (held, monthly, None, None, "held"),
            (damaged, monthly, None, None, "not read back"),
            (set(20, &[None]), monthly, None, None, "the newest that was restored"),
            (set(21, &[]), monthly, None, None, "the newest that is intact"),
        ];
        let sets: Vec<Set> = cases.iter().map(|(set, ..)| set.clone()).collect();
        let decisions: Vec<Decision> = cases.iter().map(|(set, rule, ..)| stays(set, *rule)).collect();
        for (verify, number) in [(Verify::Restore, 2), (Verify::None, 2), (Verify::Checksum, 3)] {
            let found = decide(&sets, &decisions, verify, now());
            for ((_, tags), (_, rule, by_restore, by_checksum, why)) in found.iter().zip(&cases) {
                let proved = if number == 3 { by_checksum } else { by_restore };
                let expected = proved.map(|proved| Tags { proved, keep: rule.unwrap_or_default() });
                assert_eq!(*tags, expected, "{why} ({verify:?})");
            }
        }
        let gone: Vec<Decision> = decisions.into_iter().map(|decision| Decision { keep: false, ..decision }).collect();
        assert!(decide(&sets, &gone, Verify::Restore, now()).is_empty());
    }

    #[test]
    fn the_newest_set_that_nothing_speaks_against_is_not_tagged_though_newer_ones_were_refused() {
        let mut no_globals = set(22, &[None]);
        no_globals.listed.globals_problem = Some("damaged".to_owned());
        let sets = [
            set(1, &[None]),
            set(2, &[None]),
            set(3, &[]),
            set(4, &[]),
            set(20, &[None, Some(true)]),
            set(21, &[Some(true)]),
            no_globals,
        ];
        let decisions: Vec<Decision> = sets.iter().map(|set| stays(set, Some("monthly"))).collect();
        let tagged = decide(&sets, &decisions, Verify::Checksum, now());
        let tagged: Vec<u32> = tagged.iter().zip(1..).filter(|((_, tags), _)| tags.is_some()).map(|(_, number)| number).collect();
        assert_eq!(tagged, [1, 3], "2 is the newest that was restored and is clear, 4 the newest that is clear");
    }
}
