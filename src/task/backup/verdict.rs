//! `verification.json`: the two verdicts on a set. The state of its bytes, which only reading them shows; and the servers on which it was
//! restored, or why not there. A failed restore says nothing about the bytes.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::Result;
use chrono::{DateTime, TimeDelta, Utc};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

pub use super::restore_check::{Measured, RestoreCheck};
use super::restore_check::{forget_oldest, is_refuted_in, refusal_for_the_data, without};
use crate::base::bounds::{self, Bounded};

/// This many tries are remembered; the one longest ago is dropped first.
const RESTORES_KEPT: usize = 20;

/// The verdict on a set's bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Bytes {
    /// They were read back and match the manifest: length, SHA-256, members, last line, each table's rows; of an encrypted set without a key for
    /// it, length and SHA-256.
    Intact,
    /// Two independent reads have shown the same, and it differs from the manifest.
    Damaged,
    /// Never read back, or reading led to no result.
    #[default]
    Unknown,
}

impl Bytes {
    pub fn name(self) -> &'static str {
        match self {
            Self::Intact => "intact",
            Self::Damaged => "damaged",
            Self::Unknown => "unknown",
        }
    }
}

#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(from = "Written")]
pub struct Verification {
    /// None: the set has not been read back.
    pub bytes: Option<BytesCheck>,
    /// The last try on each server and version, the newest last.
    pub restores: Vec<RestoreCheck>,
    /// The number of sets that the job had made since the last restored one, including this one; 0 if this one's own run restored it. None:
    /// unknown.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sets_since_restore: Option<u32>,
    /// When the manifest was written in the store that this copy comes from, by that store's clock; recorded where the set began after that.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub written_at: Option<DateTime<Utc>>,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct BytesCheck {
    pub verdict: Bytes,
    pub checked_at: DateTime<Utc>,
    /// The differences, with offset, expected and found value; empty when intact.
    pub problems: Vec<String>,
    pub elapsed_seconds: f64,
    /// The reason why only length and SHA-256 were compared: the set is encrypted, and the host that read it has no key for it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub not_decoded: Option<String>,
    /// The release of pgtend that read them; None: an earlier one than those that record it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pgtend_version: Option<String>,
}

/// The file as stored: by this release, or by the first, whose `checks` did not separate bytes from servers.
#[derive(Deserialize)]
struct Written {
    bytes: Option<BytesCheck>,
    #[serde(default)]
    restores: Vec<RestoreCheck>,
    #[serde(default)]
    checks: BTreeMap<String, FirstCheck>,
    #[serde(default)]
    sets_since_restore: Option<u32>,
    #[serde(default)]
    written_at: Option<DateTime<Utc>>,
}

#[derive(Deserialize)]
struct FirstCheck {
    checked_at: DateTime<Utc>,
    problems: Vec<String>,
    elapsed_seconds: f64,
}

impl From<Written> for Verification {
    fn from(written: Written) -> Self {
        let Written { mut bytes, mut restores, checks, sets_since_restore, written_at } = written;
        for (kind, check) in checks {
            let is_well = check.problems.is_empty();
            if kind == "restore" {
                restores.push(RestoreCheck {
                    server: "a server that was not recorded".to_owned(),
                    version: String::new(),
                    checked_at: check.checked_at,
                    refusal: (!is_well).then(|| check.problems.join("; ")),
                    refused_for_its_data: false,
                    sql_state: None,
                    elapsed_seconds: check.elapsed_seconds,
                    restore_seconds: None,
                    without_vector_indexes: false,
                    how: None,
                    copy_in: None,
                });
            }
            // Both kinds read all bytes; but the first release called bytes damaged after one read, or after a server's refusal.
            if bytes.as_ref().is_none_or(|bytes| bytes.verdict != Bytes::Intact) {
                let verdict = if is_well { Bytes::Intact } else { Bytes::Unknown };
                let FirstCheck { checked_at, problems, elapsed_seconds } = check;
                bytes =
                    Some(BytesCheck { verdict, checked_at, problems, elapsed_seconds, not_decoded: None, pgtend_version: None });
            }
        }
        Self { bytes, restores, sets_since_restore, written_at }
    }
}

impl Verification {
    pub fn verdict(&self) -> Bytes {
        self.bytes.as_ref().map_or(Bytes::Unknown, |bytes| bytes.verdict)
    }

    /// Returns whether some server has restored all of it.
    pub fn was_restored(&self) -> bool {
        self.restores.iter().any(|restore| restore.refusal.is_none())
    }

    /// Returns whether some server has restored all of it and built its vector indexes, if it has some.
    pub fn was_restored_with_indexes(&self) -> bool {
        self.restores.iter().any(|restore| restore.refusal.is_none() && !restore.without_vector_indexes)
    }

    /// The time when a server last restored all of it.
    pub fn restored_at(&self) -> Option<DateTime<Utc>> {
        self.restores.iter().filter(|restore| restore.refusal.is_none()).map(|restore| restore.checked_at).max()
    }

    /// How long the last good restore took whose time was measured.
    pub fn restore_time(&self, now: DateTime<Utc>) -> Option<Measured> {
        let good = self.restores.iter().filter(|check| check.is_proof(now));
        let measured = good.filter_map(|check| Some(Measured { seconds: check.restore_seconds?, at: check.checked_at }));
        measured.max_by_key(|measured| measured.at)
    }

    /// The last recorded restore that says something about the data, where it was refused for them.
    pub fn refused_for_its_data(&self, now: DateTime<Utc>) -> Option<&RestoreCheck> {
        refusal_for_the_data(&self.restores, now)
    }

    /// The same without good restores that are dated ahead: a wrong clock made them.
    #[must_use]
    pub fn without_dated_ahead(&self, now: DateTime<Utc>) -> Self {
        let mut verification = self.clone();
        verification.restores.retain(|check| check.refusal.is_some() || check.is_proof(now));
        verification
    }

    /// The time when its bytes were found damaged.
    pub fn damaged_at(&self) -> Option<DateTime<Utc>> {
        self.bytes.as_ref().filter(|bytes| bytes.verdict == Bytes::Damaged).map(|bytes| bytes.checked_at)
    }

    /// Returns whether its bytes match, but nobody has looked what is in them.
    pub fn not_decoded(&self) -> Option<&str> {
        self.bytes.as_ref().filter(|check| check.verdict == Bytes::Intact)?.not_decoded.as_deref()
    }

    /// A verdict is not replaced by a read without a result, nor damage by a read that had begun before it was found, nor damage that decoding
    /// has found by a hash. What was decoded once, and is still as it was then, counts as decoded.
    pub fn record_bytes(&mut self, mut check: BytesCheck) {
        let was_decoded = self.bytes.as_ref().is_some_and(|earlier| earlier.not_decoded.is_none());
        if was_decoded && self.verdict() == check.verdict {
            check.not_decoded = None;
        }
        let is_damage_inside = was_decoded && self.verdict() == Bytes::Damaged;
        let is_damaged_since = |began_at| self.damaged_at().is_some_and(|damaged_at| damaged_at > began_at);
        match check.verdict {
            Bytes::Unknown if self.verdict() != Bytes::Unknown => {}
            Bytes::Intact if is_damaged_since(check.began_at()) => {}
            Bytes::Intact if is_damage_inside && check.not_decoded.is_some() => {}
            _ => self.bytes = Some(check),
        }
    }

    /// Returns whether that try is recorded here, too.
    pub fn knows(&self, check: &RestoreCheck) -> bool {
        self.restores.iter().any(|own| own.is_one_with(check))
    }

    /// Records what was proved of the copy in the store `of`, which has the same data, and that they were refused there. What is recorded here already
    /// stays in its place. What this copy was refused for stays the last word, unless the proof was recorded after that refusal there.
    pub fn record_proof_of_copy(&mut self, proved: &Self, of: &str, now: DateTime<Utc>) {
        self.written_at = self.written_at.or(proved.written_at);
        let of_copy = |check: &RestoreCheck| {
            let copy_in = Some(check.copy_in.clone().unwrap_or_else(|| of.to_owned()));
            RestoreCheck { copy_in, ..check.clone() }
        };
        for (at, check) in proved.restores.iter().enumerate().filter(|(_, check)| check.is_proof(now)) {
            if self.knows(check) {
                continue;
            }
            let refused = self.refused_for_its_data(now);
            let until_then = &proved.restores[..=at];
            let is_refuted = refused.is_some_and(|refusal| is_refuted_in(until_then, refusal, now));
            let has_its_own = self.restores.iter().any(|own| own.has_the_place_of(check) && own.copy_in.is_none());
            if is_refuted || !has_its_own {
                let is_doubted = refused.is_some() && !is_refuted;
                self.put(of_copy(check), is_doubted);
            }
        }
        if let Some(refusal) = proved.refused_for_its_data(now).filter(|refusal| !self.knows(refusal)) {
            self.put(of_copy(refusal), false);
        }
    }

    /// The last try of each kind is kept: a refusal today does not undo that the server restored the set once.
    pub fn record_restore(&mut self, check: RestoreCheck) {
        self.put(check, false);
    }

    /// Adds it as the last one, or before the last refusal for the data.
    fn put(&mut self, check: RestoreCheck, before_the_refusal: bool) {
        self.restores.retain(|earlier| !earlier.has_the_place_of(&check));
        let refusal = self.restores.iter().rposition(|check| check.refused_for_its_data).filter(|_| before_the_refusal);
        self.restores.insert(refusal.unwrap_or(self.restores.len()), check);
        forget_oldest(&mut self.restores, RESTORES_KEPT);
    }

    /// "intact, restored on db2:5432 (16.14)", for reports and listings.
    pub fn in_words(&self) -> String {
        let bytes = match self.not_decoded() {
            None => self.verdict().name(),
            Some(_) => "intact, not decoded",
        };
        match self.restores.last() {
            None => bytes.to_owned(),
            Some(restore) => format!("{bytes}, {}", restore.in_words()),
        }
    }

    /// "on 18.4, 2026-11-23", "not on 14.2 (42601)" or "-", for a column.
    pub fn restored_in_words(&self, now: DateTime<Utc>) -> String {
        match self.restores.iter().rev().find(|restore| restore.is_proof(now)).or(self.restores.last()) {
            None => "-".to_owned(),
            Some(ahead) if ahead.refusal.is_none() && ahead.is_dated_ahead(now) => {
                format!("dated in the future, {}", ahead.checked_at.format("%Y-%m-%d"))
            }
            Some(RestoreCheck { refusal: None, version, .. }) if version.is_empty() => "yes".to_owned(),
            Some(RestoreCheck { refusal: None, version, checked_at, without_vector_indexes, copy_in, .. }) => {
                let copy = copy_in.as_ref().map(|store| format!(", as the copy in {store}")).unwrap_or_default();
                format!("on {version}, {}{}{copy}", checked_at.format("%Y-%m-%d"), without(*without_vector_indexes))
            }
            Some(RestoreCheck { version, sql_state, .. }) => {
                let state = sql_state.as_ref().map(|state| format!(" ({state})")).unwrap_or_default();
                format!("not on {}{state}", if version.is_empty() { "a server" } else { version })
            }
        }
    }
}

impl Bounded for Verification {
    fn check(&self) -> Result<()> {
        let of_bytes = self.bytes.iter().map(|check| (check.checked_at, check.elapsed_seconds));
        for (checked_at, elapsed_seconds) in of_bytes {
            bounds::time("checked_at", checked_at)?;
            bounds::seconds("elapsed_seconds", elapsed_seconds)?;
        }
        self.written_at.map_or(Ok(()), |at| bounds::time("written_at", at))?;
        self.restores.iter().try_for_each(Bounded::check)
    }
}

impl BytesCheck {
    fn began_at(&self) -> DateTime<Utc> {
        let elapsed = Duration::try_from_secs_f64(self.elapsed_seconds).unwrap_or_default();
        self.checked_at - TimeDelta::from_std(elapsed).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::task::backup::restore_check::tests::{check, now};

    fn read(text: &str) -> Verification {
        serde_json::from_str(text).unwrap()
    }

    fn first_release(kind: &str, problems: &str) -> String {
        format!(
            r#"{{"checks":{{"{kind}":{{"checked_at":"2026-01-01T00:00:00Z","problems":[{problems}],"elapsed_seconds":1.0}}}}}}"#
        )
    }

    #[test]
    fn what_the_first_release_wrote_condemns_no_bytes() {
        for (kind, problems, verdict, restored) in [
            ("checksum", "", Bytes::Intact, false),
            ("restore", "", Bytes::Intact, true),
            ("checksum", "\"SHA-256 differs\"", Bytes::Unknown, false),
            ("restore", "\"it does not restore: ERROR\"", Bytes::Unknown, false),
        ] {
            let verification = read(&first_release(kind, problems));
            assert_eq!((verification.verdict(), verification.was_restored()), (verdict, restored), "{kind} {problems}");
        }
        assert_eq!(read("{}").verdict(), Bytes::Unknown);
    }

    #[test]
    fn both_verdicts_are_read_as_they_are_written() {
        let mut verification = Verification::default();
        let now = Utc::now();
        verification.record_bytes(BytesCheck {
            verdict: Bytes::Intact,
            checked_at: now,
            problems: vec![],
            elapsed_seconds: 1.0,
            not_decoded: None,
            pgtend_version: None,
        });
        let refused = RestoreCheck { version: "14.2".into(), sql_state: Some("42601".into()), ..check("db:5432", 0, Some(true)) };
        verification.record_restore(refused);
        let again = read(&serde_json::to_string(&verification).unwrap());
        assert_eq!(again.verdict(), Bytes::Intact, "a refusal is the server's");
        assert!(!again.was_restored());
        assert_eq!(again.restored_in_words(now), "not on 14.2 (42601)");
    }

    #[test]
    fn what_decoding_has_found_is_not_refuted_by_a_hash() {
        let check = |verdict, why: Option<&str>| BytesCheck {
            verdict,
            checked_at: Utc::now(),
            problems: vec![],
            elapsed_seconds: 0.0,
            not_decoded: why.map(str::to_owned),
            pgtend_version: None,
        };
        let mut verification = Verification::default();
        verification.record_bytes(check(Bytes::Intact, Some("no key")));
        assert_eq!(verification.in_words(), "intact, not decoded");
        verification.record_bytes(check(Bytes::Intact, None));
        assert_eq!(verification.in_words(), "intact");
        verification.record_bytes(check(Bytes::Intact, Some("no key")));
        assert_eq!(verification.in_words(), "intact");
        // A hash that differed may be refuted by one that does not.
        verification.record_bytes(check(Bytes::Damaged, Some("no key")));
        verification.record_bytes(check(Bytes::Intact, Some("no key")));
        assert_eq!(read(&serde_json::to_string(&verification).unwrap()).not_decoded(), Some("no key"));
        verification.record_bytes(check(Bytes::Damaged, None));
        for verdict in [Bytes::Intact, Bytes::Damaged, Bytes::Intact] {
            verification.record_bytes(check(verdict, Some("no key")));
            assert_eq!(verification.verdict(), Bytes::Damaged);
        }
        verification.record_bytes(check(Bytes::Intact, None));
        assert_eq!(verification.in_words(), "intact");
    }

    #[test]
    fn a_refusal_does_not_take_a_good_restore_back() {
        let mut verification = Verification::default();
        verification.record_restore(check("db:5432", 0, None));
        verification.record_restore(check("db:5432", 1, Some(false)));
        verification.record_restore(check("db:5432", 2, Some(false)));
        assert!(verification.was_restored());
        assert_eq!(verification.restores.len(), 2);
    }

    #[test]
    fn a_refusal_for_the_data_stays_when_the_same_server_refuses_for_rights() {
        let mut verification = Verification::default();
        verification.record_restore(check("db", 0, Some(true)));
        verification.record_restore(check("db", 1, Some(false)));
        assert_eq!(verification.restores.len(), 2);
        assert!(verification.refused_for_its_data(now()).is_some());
        verification.record_restore(check("db", 2, None));
        assert!(verification.refused_for_its_data(now()).is_none());
    }

    #[test]
    fn a_refusal_for_the_data_goes_along_with_a_copy_unless_the_copy_was_restored_since() {
        let of = |checks: &[RestoreCheck]| {
            let mut verification = Verification::default();
            checks.iter().for_each(|check| verification.record_restore(check.clone()));
            verification
        };
        let (good, refused) = (|minute| check("db", minute, None), |minute| check("db", minute, Some(true)));
        for (there, here, expected) in [
            (of(&[refused(1)]), of(&[]), true),
            (of(&[good(0), refused(1)]), of(&[]), true),
            (of(&[refused(1), good(2)]), of(&[]), false),
            (of(&[refused(3)]), of(&[refused(1), good(2)]), true),
            (of(&[refused(1)]), of(&[refused(1), good(2)]), false),
            (of(&[refused(1), good(2)]), of(&[refused(1)]), false),
            (of(&[refused(1), good(2)]), of(&[good(0), refused(1)]), false),
            // Which of the two came later is not known, whatever their times are.
            (of(&[refused(1)]), of(&[good(2)]), true),
            (of(&[good(1)]), of(&[refused(2)]), true),
            (of(&[good(3)]), of(&[refused(2)]), true),
            // It is dated before the proof, and was recorded after it.
            (of(&[good(3)]), of(&[good(3), refused(2)]), true),
            (of(&[good(3), refused(2)]), of(&[good(3)]), true),
        ] {
            let mut copy = here.clone();
            for _ in 0..2 {
                copy.record_proof_of_copy(&there, "local", now());
                let found = copy.refused_for_its_data(now());
                assert_eq!(found.is_some(), expected, "{:?} and {:?}", there.restores, here.restores);
            }
        }
        let mut copy = Verification::default();
        copy.record_proof_of_copy(&of(&[refused(1)]), "local", now());
        assert_eq!(copy.in_words(), "unknown, not restored on db (18.4), as the copy in local: refused");
    }

    #[test]
    fn a_read_without_result_takes_no_verdict_back() {
        let check = |verdict| BytesCheck {
            verdict,
            checked_at: Utc::now(),
            problems: vec![],
            elapsed_seconds: 0.0,
            not_decoded: None,
            pgtend_version: None,
        };
        let mut verification = Verification::default();
        verification.record_bytes(check(Bytes::Intact));
        verification.record_bytes(check(Bytes::Unknown));
        assert_eq!(verification.verdict(), Bytes::Intact);
        verification.record_bytes(check(Bytes::Damaged));
        assert_eq!(verification.verdict(), Bytes::Damaged);
    }

    #[test]
    fn damage_that_was_found_during_a_long_read_stays_whatever_that_read_says() {
        let check = |verdict, minute: u32, elapsed_seconds| BytesCheck {
            verdict,
            checked_at: format!("2026-11-01T00:{minute:02}:00Z").parse().unwrap(),
            problems: vec![],
            elapsed_seconds,
            not_decoded: None,
            pgtend_version: None,
        };
        let mut verification = Verification::default();
        verification.record_bytes(check(Bytes::Damaged, 10, 60.0));
        verification.record_bytes(check(Bytes::Intact, 20, 900.0));
        assert_eq!(verification.verdict(), Bytes::Damaged, "it began at minute 5");
        verification.record_bytes(check(Bytes::Intact, 40, 60.0));
        assert_eq!(verification.verdict(), Bytes::Intact);
    }

    #[test]
    fn a_proof_of_the_same_bytes_elsewhere_is_named_as_one_and_hides_none_of_its_own() {
        let mut there = Verification::default();
        there.record_restore(check("db:5432", 0, None));
        there.record_restore(check("other:5432", 1, Some(false)));
        let mut here = Verification::default();
        here.record_proof_of_copy(&there, "local", now());
        assert_eq!(here.restores.len(), 1, "a refusal for rights there says nothing here");
        assert!(here.was_restored());
        assert_eq!(here.restored_in_words(now()), "on 18.4, 2026-11-23, as the copy in local");
        let mut third = Verification::default();
        third.record_proof_of_copy(&here, "offsite", now());
        assert_eq!(third.restores[0].copy_in.as_deref(), Some("local"), "the copy that was restored");
        here.record_restore(check("db:5432", 2, None));
        here.record_proof_of_copy(&there, "local", now());
        assert_eq!(here.restored_in_words(now()), "on 18.4, 2026-11-23");
    }
}
