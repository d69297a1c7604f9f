//! Extends the locks of what stays for longer than it is locked: of the sets that `keep` keeps, as `lock` of a store is for the shortest rule and a longer
//! one takes some sets later; and of objects that a copy keeps. No lock is ever shortened.

use anyhow::Result;
use chrono::{DateTime, TimeDelta, Utc};
use futures_util::{StreamExt as _, stream};

use super::keep::Decision;
use super::manifest::Globals;
use super::set::{Listing, MANIFEST, Set};
use super::verdict::Bytes;
use crate::pg::failure;
use crate::store::Store;

/// Sets whose locks are read at once.
const AT_ONCE: usize = 8;

/// Sets that a warning names.
const SETS_NAMED: usize = 10;

/// Locks the sets that stay. Returns warnings: a set whose lock cannot be extended stays as it is.
pub async fn extend(store: &Store, listing: &Listing, decisions: &[Decision]) -> Vec<String> {
    let Some(span) = store.lock_span() else { return Vec::new() };
    let now = match store.now().await {
        Ok(now) => now,
        Err(error) => return vec![format!("no lock is extended: {}", failure::in_a_line(&error))],
    };
    let mut extending = Vec::new();
    for decision in decisions.iter().filter(|decision| decision.keep) {
        let set = listing.sets.iter().find(|set| set.name.to_string() == decision.name);
        // One that is not read yet stays until it is, and may be intact.
        let Some(set) = set.filter(|set| set.verification.verdict() != Bytes::Damaged) else { continue };
        extending.push(async move { (set, extend_one(store, set, decision.kept_until, now, span).await) });
    }
    let extended: Vec<_> = stream::iter(extending).buffered(AT_ONCE).collect().await;
    let failed: Vec<(&Set, anyhow::Error)> =
        extended.into_iter().filter_map(|(set, extended)| Some((set, extended.err()?))).collect();
    let Some((first, error)) = failed.first() else { return Vec::new() };
    let others = match failed.len() - 1 {
        0 => String::new(),
        count => format!(" and of {count} others"),
    };
    let named: Vec<String> = failed.iter().take(SETS_NAMED).map(|(set, _)| set.name.to_string()).collect();
    let more = if failed.len() > named.len() { ", …" } else { "" };
    let sets = if failed.len() > 1 { format!(" ({}{more})", named.join(", ")) } else { String::new() };
    let problem =
        first.listed.globals_problem.as_ref().map(|why| format!(" ({why}; the rest of it is locked)")).unwrap_or_default();
    vec![format!(
        "the locks of set {}{others} that `keep` keeps could not all be extended: {}{problem}{sets}",
        first.name,
        failure::in_a_line(error)
    )]
}

/// Locks a copy that is there as a whole already, as a prune locks what stays.
pub async fn renew(store: &Store, set: &Set) -> Result<()> {
    let Some(span) = store.lock_span() else { return Ok(()) };
    extend_one(store, set, None, store.now().await?, span).await
}

/// Locks objects that a copy keeps for as long as those that it writes.
pub async fn as_new(store: &Store, keys: &[String]) -> Result<()> {
    let Some(span) = store.lock_span().filter(|_| !keys.is_empty()) else { return Ok(()) };
    let until = store.now().await? + span;
    for key in keys {
        store.lock_until(key, until).await?;
    }
    Ok(())
}

/// All objects of a set are locked alike; the one whose lock ends first decides, since one that was there before a copy was mended has an older lock. One that
/// cannot be locked keeps no other from it: the error is of the first such.
async fn extend_one(
    store: &Store,
    set: &Set,
    kept_until: Option<DateTime<Utc>>,
    now: DateTime<Utc>,
    span: TimeDelta,
) -> Result<()> {
    let globals = matches!(set.manifest.globals, Globals::Object { .. }).then(|| set.globals_object());
    let objects = [Some(&*set.manifest.dump.object), globals, Some(MANIFEST)].into_iter().flatten();
    let keys: Vec<String> = objects.map(|object| set.name.key(object)).collect();
    let (mut locks, mut failed) = (Vec::new(), None);
    for key in &keys {
        match store.locked_until(key).await {
            Ok(locked_until) => locks.push((key, locked_until)),
            Err(error) => failed = failed.or(Some(error)),
        }
    }
    // No lock ends before any time.
    let first = locks.iter().map(|(_, locked_until)| *locked_until).min();
    let until = first.and_then(|first| wanted(first, kept_until, now, span));
    let mut has_changed = false;
    if let Some(until) = until {
        for (key, _) in &locks {
            match store.lock_until(key, until).await {
                Ok(changed) => has_changed |= changed,
                Err(error) => failed = failed.or(Some(error)),
            }
        }
        if has_changed {
            tracing::info!("{} is locked until {}", set.name, until.format("%Y-%m-%d %H:%M UTC"));
        }
    }
    failed.map_or(Ok(()), Err)
}

/// Until when a set that stays is to be locked: until the rules let it go, or for another `span` where they do not say when. None while more than half of
/// the span is left, so that a set which a newer one replaces soon is not locked for longer. Pure.
fn wanted(
    locked_until: Option<DateTime<Utc>>,
    kept_until: Option<DateTime<Utc>>,
    now: DateTime<Utc>,
    span: TimeDelta,
) -> Option<DateTime<Utc>> {
    if locked_until.is_some_and(|locked_until| locked_until - now > span / 2) {
        return None;
    }
    let until = kept_until.filter(|until| *until > now).unwrap_or(now + span);
    locked_until.is_none_or(|locked_until| until > locked_until).then_some(until)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lock_is_extended_in_its_second_half_and_never_shortened() {
        let now: DateTime<Utc> = "2026-11-30T00:00:00Z".parse().unwrap();
        let days = |days: i64| Some(now + TimeDelta::days(days));
        for (locked_until, kept_until, expected, why) in [
            (days(5), days(200), None, "more than half of it is left"),
            (days(3), days(200), days(200), "a longer rule took it"),
            (days(3), days(2), None, "the rule that keeps it ends before the lock"),
            (days(3), None, days(7), "nobody knows for how long it stays"),
            (days(-1), days(-3), days(7), "its rule counts periods with sets, and it stays for longer than the calendar says"),
            (None, days(20), days(20), "it was made before the store had `lock`"),
        ] {
            assert_eq!(wanted(locked_until, kept_until, now, TimeDelta::days(7)), expected, "{why}");
        }
    }
}
