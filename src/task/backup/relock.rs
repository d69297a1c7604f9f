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
    let mut failed = extended.into_iter().filter_map(|(set, extended)| Some((set, extended.err()?)));
    let Some((set, error)) = failed.next() else { return Vec::new() };
    let others = match failed.count() {
        0 => String::new(),
        count => format!(", and those of {count} other sets that `keep` keeps"),
    };
    vec![format!("the lock of set {}{others} could not be extended: {}", set.name, failure::in_a_line(&error))]
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

/// All objects of a set are locked alike; the one whose lock ends first decides, since one that was there before a copy was mended has an older lock.
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
    let mut locks = Vec::new();
    for key in &keys {
        locks.push(store.locked_until(key).await?);
    }
    // No lock ends before any time.
    let Some(until) = wanted(locks.into_iter().min().flatten(), kept_until, now, span) else { return Ok(()) };
    let mut has_changed = false;
    for key in &keys {
        has_changed |= store.lock_until(key, until).await?;
    }
    if has_changed {
        tracing::info!("{} is locked until {}", set.name, until.format("%Y-%m-%d %H:%M UTC"));
    }
    Ok(())
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
