//! Deletes the sets that no rule keeps: only those of the own series, under a guard, each marked before it is deleted.

use anyhow::{Context as _, Result};
use chrono::{DateTime, Utc};

use super::copies::holds::{self, Elsewhere};
use super::copies::needs;
use super::guard::{Guard, Readers};
use super::markers::{self, COPY_HOLD, DELETING, DeletingMarker, HOLD, LOSS_HOLD, RUN};
use super::set::{self, ALL_GLOBALS, DUMPS, Listing, MANIFEST, Set, VERIFICATION};
use super::{of_store, proof, relock};
use crate::base::process_identity::ProcessIdentity;
use crate::base::progress::Progress;
use crate::store::Store;
use crate::task::backup::proof::check_one;
use crate::task::backup::rules::{Pruned, Rules, decide};

/// Lists again, since the plan may be outdated; reads up to `checks_most` unread sets, newest first; and deletes. What is `held` in another store stays. A
/// set that cannot be deleted is a warning.
pub async fn apply(
    store: &Store,
    folder: &str,
    rules: &Rules<'_>,
    held: &[Elsewhere],
    (guard, readers): (&mut Guard, &mut Readers),
    checks_most: usize,
    progress: &Progress,
) -> Result<Pruned> {
    let mut listing = set::list(store, folder).await?;
    if let Some(doubt) = listing.doubt() {
        anyhow::bail!(doubt);
    }
    holds::add(&mut listing, held);
    let mut pruned = Pruned::default();
    check_unknown(store, &mut listing, rules, checks_most, progress, &mut pruned).await?;
    pruned.decisions = proof::decide(store, &mut listing, rules, progress, &mut pruned).await?;
    pruned.warnings.extend(needs::warnings(&listing, rules, &store.location(folder)));
    for decision in pruned.decisions.iter().filter(|decision| !decision.keep && !decision.check_first) {
        let Some(set) = listing.sets.iter().find(|set| set.name.to_string() == decision.name) else { continue };
        guard.check().await.context("nothing more is deleted")?;
        // A restore that comes now waits for one deletion only, and then for none.
        readers.keep_out().await.context("nothing more is deleted")?;
        let deleted = delete(store, set, &decision.reasons, rules.now).await;
        readers.let_in().await?;
        match deleted {
            Ok(true) => pruned.sets.push(decision.name.clone()),
            Ok(false) => {}
            // A bucket that retains objects (Object Lock, credentials without DeleteObject) does not make the backup fail.
            Err(error) => {
                pruned.warnings.push(format!("set {} should be deleted but cannot be: {error:#}", decision.name));
            }
        }
    }
    pruned.warnings.extend(relock::extend(store, &listing, &pruned.decisions).await);
    let is_left = |set: &&Set| !pruned.sets.contains(&set.name.to_string());
    pruned.intact_sets = Some(of_store::intact(&listing, rules.series, rules.identity).filter(is_left).count());
    Ok(pruned)
}

/// Reads an unread set before it is deleted or passed over.
async fn check_unknown(
    store: &Store,
    listing: &mut Listing,
    rules: &Rules<'_>,
    checks_most: usize,
    progress: &Progress,
    pruned: &mut Pruned,
) -> Result<()> {
    let own = rules.own.map(ToString::to_string);
    let unknown: Vec<String> = decide(listing, rules, None)
        .into_iter()
        .filter(|decision| decision.check_first && own.as_ref() != Some(&decision.name))
        .map(|decision| decision.name)
        .collect();
    for name in unknown.iter().take(checks_most) {
        let Some(set) = listing.sets.iter_mut().find(|set| set.name.to_string() == *name) else { continue };
        check_one(store, set, progress, pruned).await;
    }
    if unknown.len() > checks_most {
        pruned.warnings.push(format!(
            "{} sets have not been read back since they were made: they stay and fill no place of `keep`; `pgtend backups prune` reads all of them",
            unknown.len() - checks_most
        ));
    }
    Ok(())
}

/// Marks the set for deletion; then deletes its dump, the manifest and the rest, the markers last. If the dump cannot be deleted (a legal
/// hold on it alone), all of the set stays. A kill in between leaves a set, or a marker without a dump, which the next sweep removes. False where it is held
/// now: the listing is as old as the reading of the unread sets, and whoever holds a set looks for the marker after that.
async fn delete(store: &Store, set: &Set, reasons: &[String], now: DateTime<Utc>) -> Result<bool> {
    let is_held = async || set::read_holds(store, &set.name).await.iter().any(|hold| hold.until > now);
    if is_held().await {
        return Ok(false);
    }
    let marker = DeletingMarker {
        process: ProcessIdentity::own(),
        identity: set.identity(),
        reasons: reasons.to_vec(),
        started_at: Utc::now(),
    };
    markers::write(store, &set.name, DELETING, &marker).await?;
    if is_held().await {
        store.delete(&set.name.key(DELETING)).await?;
        return Ok(false);
    }
    tracing::info!(set = %set.name, "pruned: {}", reasons.join(", "));
    if let Err(error) = store.delete(&set.name.key(&set.manifest.dump.object)).await {
        // With its dump it is still a set, whatever the marker says.
        if let Err(error) = store.delete(&set.name.key(DELETING)).await {
            tracing::debug!("{error:#}");
        }
        return Err(error.context("its dump cannot be deleted, so the whole set stays"));
    }
    // Also a plain dump and plain globals that a killed replacement left beside encrypted ones.
    let objects = [MANIFEST, VERIFICATION].into_iter().chain(DUMPS).chain(ALL_GLOBALS);
    for object in objects.chain([HOLD, LOSS_HOLD, COPY_HOLD, RUN, DELETING]) {
        store.delete(&set.name.key(object)).await?;
    }
    Ok(true)
}

#[cfg(test)]
mod tests {
    use chrono_tz::Tz;
    use proptest::prelude::*;

    use super::*;
    use crate::task::backup::identity::Identity;
    use crate::task::backup::keep::Keep;
    use crate::task::backup::latest::{self, Choice};
    use crate::task::backup::manifest::tests::manifest;
    use crate::task::backup::series::{Accepted, Series};
    use crate::task::backup::set_name::SetName;
    use crate::task::backup::verdict::{Bytes, BytesCheck, Verification};

    const HOSTS: [&str; 2] = ["7", "8"];

    /// One night of a history: on which host, how wrong its clock is, what comes of the set.
    #[derive(Clone, Debug)]
    struct Night {
        host: usize,
        clock_off_hours: i64,
        bytes: u8,
        by_hand: bool,
        is_partial: bool,
        /// The run is killed before it prunes.
        is_killed: bool,
        /// A person accepts the other host's sets before this night.
        accepts: bool,
    }

    fn night() -> impl Strategy<Value = Night> {
        (
            0..2_usize,
            prop_oneof![8 => Just(0_i64), 1 => -3000..3000_i64],
            0..4_u8,
            any::<bool>(),
            0..8_u8,
            any::<bool>(),
            0..12_u8,
        )
            .prop_map(|(host, clock_off_hours, bytes, by_hand, is_partial, is_killed, accepts)| Night {
                host,
                clock_off_hours,
                bytes,
                by_hand,
                is_partial: is_partial == 0,
                is_killed,
                accepts: accepts == 0,
            })
    }

    fn made(night: &Night, number: usize, at: DateTime<Utc>) -> Set {
        let mut manifest = manifest();
        manifest.server.system_identifier = Some(HOSTS[night.host].to_owned());
        manifest.by_hand = night.by_hand;
        if night.is_partial {
            manifest.filters.schemas.push("part".to_owned());
        }
        let verdict = [Bytes::Intact, Bytes::Intact, Bytes::Unknown, Bytes::Damaged][night.bytes as usize];
        let mut verification = Verification::default();
        verification.record_bytes(BytesCheck {
            verdict,
            checked_at: at,
            problems: vec![],
            elapsed_seconds: 0.0,
            not_decoded: None,
            pgtend_version: None,
        });
        let at = at + chrono::Duration::seconds(number as i64);
        Set { name: SetName::new("app", "nightly", at), manifest, verification, holds: vec![], listed: Default::default() }
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 200, ..ProptestConfig::default() })]

        /// Two hosts with one configuration, clocks that go wrong, kills, sets of every kind: whatever happened, no intact set
        /// goes that the rule names among those of its own host; nothing of a host that was not accepted goes; this run's own
        /// stays; and the latest is never older than the newest intact whole one without a word.
        #[test]
        fn over_any_history_nothing_goes_that_a_rule_names(
            nights in proptest::collection::vec(night(), 1..40), last in 1_u32..4, daily in 0_u32..4,
        ) {
            let keep = Keep { last, daily, ..Keep::default() };
            let mut listing = Listing::default();
            // One file for both hosts, as in a store.
            let mut series = Series::default();
            let start: DateTime<Utc> = "2026-01-01T02:00:00Z".parse().unwrap();
            for (number, night) in nights.iter().enumerate() {
                let true_now = start + chrono::Duration::days(number as i64);
                let now = true_now + chrono::Duration::hours(night.clock_off_hours);
                let identity_of = |host: usize| Identity { system_identifier: HOSTS[host].to_owned(), database: "app".to_owned(), stamp: Default::default() };
                if night.accepts {
                    // A set of the other host, or of itself, is accepted into its own series.
                    let identity = identity_of(if night.by_hand { night.host } else { 1 - night.host });
                    let theirs = listing.sets.iter().filter(|set| set.identity().as_ref() == Some(&identity));
                    let sets = theirs.map(|set| set.name.to_string()).collect();
                    series.accepted.push(Accepted { identity, into: identity_of(night.host), at: now, sets });
                }
                let set = made(night, number, now);
                let own = set.name.clone();
                listing.sets.push(set);
                listing.sets.sort_by_key(|set| set.name.taken_at);
                if night.is_killed {
                    continue;
                }
                let identity = identity_of(night.host);
                let rules = Rules {
                    keep: &keep,
                    zone: Tz::UTC,
                    now,
                    identity: Some(&identity),
                    series: &series,
                    own: Some(&own),
                    has_schedule: true,
                    needed: &[],
                };
                let gone: Vec<String> = decide(&listing, &rules, None)
                    .into_iter()
                    .filter(|decision| !decision.keep && !decision.check_first)
                    .map(|decision| decision.name)
                    .collect();
                let is_of_series = |set: &Set| {
                    let name = set.name.to_string();
                    let taken_by = series.accepted.iter().rev().find(|accepted| {
                        accepted.identity == set.identity().unwrap() && accepted.sets.contains(&name)
                    });
                    taken_by.map_or(set.identity().unwrap(), |accepted| accepted.into.clone()) == identity
                };
                for name in &gone {
                    let set = listing.sets.iter().find(|set| set.name.to_string() == *name).unwrap();
                    prop_assert!(is_of_series(set), "another host's");
                    prop_assert!(set.name != own && !set.is_from_the_future(now));
                    prop_assert!(set.verification.verdict() != Bytes::Unknown);
                    if set.verification.verdict() == Bytes::Intact {
                        let newer_that_count = listing.sets.iter().filter(|other| {
                            is_of_series(other)
                                && other.verification.verdict() == Bytes::Intact
                                && !other.manifest.by_hand
                                && !other.is_from_the_future(now)
                                && other.manifest.filters == set.manifest.filters
                                && other.name.taken_at > set.name.taken_at
                        });
                        // One that was made by hand goes for newer ones of its kind, too.
                        let enough = newer_that_count.count() >= last as usize;
                        prop_assert!(enough || set.manifest.by_hand);
                    }
                }
                listing.sets.retain(|set| !gone.contains(&set.name.to_string()));

                let ours: Vec<Set> = listing.sets.iter().filter(|set| is_of_series(set)).cloned().collect();
                let newest_intact = ours
                    .iter()
                    .filter(|set| set.verification.verdict() == Bytes::Intact && set.manifest.filters.are_none())
                    .filter(|set| !set.is_from_the_future(now))
                    .map(|set| set.name.taken_at)
                    .max();
                match latest::latest(&ours, &[], &Choice::default(), now) {
                    Ok((chosen, _)) => prop_assert!(newest_intact.is_none_or(|newest| chosen.name.taken_at >= newest)),
                    Err(reason) => prop_assert!(newest_intact.is_none() || reason.contains("--older-ok"), "{}", reason),
                }
            }
        }
    }
}
