//! Finds the set that is meant: by its name, by its time, or as `latest`. Pure.

use chrono::{DateTime, Utc};

use super::identity::Identity;
use super::set::Set;
use super::verdict::Bytes;

/// The options of a person about it.
#[derive(Clone, Debug, Default)]
pub struct Choice {
    /// `--from`: the identity whose sets are meant.
    pub from: Option<String>,
    /// `--any`: also sets that are dated in the future.
    pub any: bool,
    /// `--older-ok`: also when newer sets are skipped.
    pub older_ok: bool,
    /// `--unsigned-ok`: also a set without a signature, although the store has a key.
    pub unsigned_ok: bool,
    /// The set is for verification, not for a restore: the newest, whatever is known about it.
    pub to_verify: bool,
}

/// The newest set that can be the latest, with notes; or the reason why there is none, and the option that helps. `sets` are of one
/// `DATABASE/JOB`; `unreadable` are names and reasons.
pub fn latest<'a>(
    sets: &'a [Set],
    unreadable: &[(DateTime<Utc>, String)],
    choice: &Choice,
    now: DateTime<Utc>,
) -> Result<(&'a Set, Vec<String>), String> {
    let mut newest_first: Vec<&Set> = sets.iter().collect();
    newest_first.sort_by_key(|set| std::cmp::Reverse(set.name.taken_at));
    let some_whole =
        !choice.to_verify && newest_first.iter().any(|set| set.manifest.filters.are_none() && passes(set, choice, now).is_ok());

    let mut passed = Vec::new();
    let mut chosen = None;
    for set in newest_first {
        let reason = match passes(set, choice, now) {
            Ok(()) if some_whole && !set.manifest.filters.are_none() => "it holds a part of the database".to_owned(),
            Ok(()) => {
                chosen = Some(set);
                break;
            }
            Err(reason) => reason,
        };
        passed.push((set.name.taken_at, format!("{} ({reason})", set.name)));
    }
    let Some(chosen) = chosen else {
        return Err(match passed.is_empty() && unreadable.is_empty() {
            true => "there is no set".to_owned(),
            false => format!("no set can be the latest: {}", join(&passed, unreadable)),
        });
    };
    let after = chosen.name.taken_at;
    let newer_unreadable: Vec<_> = unreadable.iter().filter(|(at, _)| *at > after).cloned().collect();
    if (!passed.is_empty() || !newer_unreadable.is_empty()) && !choice.older_ok {
        return Err(format!(
            "the newest usable set is {}; newer ones were skipped: {}. Use --older-ok to take it all the same",
            chosen.name,
            join(&passed, &newer_unreadable)
        ));
    }
    let mut notes: Vec<String> = passed.iter().map(|(_, said)| format!("skipped: {said}")).collect();
    notes.extend(newer_unreadable.iter().map(|(_, said)| format!("skipped: {said}")));
    if !chosen.manifest.filters.are_none() {
        notes.push(format!("{} holds a part of the database: its job has filters", chosen.name));
    }
    Ok((chosen, notes))
}

fn passes(set: &Set, choice: &Choice, now: DateTime<Utc>) -> Result<(), String> {
    if set.is_from_the_future(now) && !choice.any {
        let now = now.format("%Y-%m-%d %H:%M");
        return Err(format!(
            "it is dated in the future: after {now} UTC, this host's current time, or after its server's clock; --any takes it"
        ));
    }
    if choice.to_verify {
        return Ok(());
    }
    match set.verification.verdict() {
        Bytes::Damaged => Err("its bytes are damaged".to_owned()),
        Bytes::Intact | Bytes::Unknown => Ok(()),
    }
}

fn join(passed: &[(DateTime<Utc>, String)], unreadable: &[(DateTime<Utc>, String)]) -> String {
    passed.iter().chain(unreadable).map(|(_, said)| said.as_str()).collect::<Vec<_>>().join("; ")
}

/// The identities in a folder that no person has declared to be one, newest proved set first; `identity_of` says which series a set belongs
/// to.
pub fn identities(sets: &[Set], identity_of: impl Fn(&Set) -> Option<Identity>) -> Vec<Identity> {
    let mut sorted: Vec<&Set> = sets.iter().collect();
    sorted.sort_by_key(|set| (set.verification.verdict() != Bytes::Intact, std::cmp::Reverse(set.name.taken_at)));
    let mut identities: Vec<Identity> = Vec::new();
    for identity in sorted.into_iter().filter_map(identity_of) {
        if !identities.contains(&identity) {
            identities.push(identity);
        }
    }
    identities
}
