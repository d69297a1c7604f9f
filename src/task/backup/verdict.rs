//! `verification.json`: the two verdicts on a set. The state of its bytes, which only reading them shows; and the servers on which it was
//! restored, or why not there. A failed restore says nothing about the bytes.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::Result;
use chrono::{DateTime, TimeDelta, Utc};
use serde::{Deserialize, Serialize};

use super::how_proved::HowProved;
use crate::base::bounds::{self, Bounded};

/// This many servers are remembered; the one tried longest ago is dropped first.
const RESTORES_KEPT: usize = 20;

/// The verdict on a set's bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
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

#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct RestoreCheck {
    /// `host:port`, for people.
    pub server: String,
    pub version: String,
    pub checked_at: DateTime<Utc>,
    /// The reason why that server refused it; None when all of it was restored and counted.
    pub refusal: Option<String>,
    /// True where it was refused for what the set holds: its rows or statements, a query of `expect`, a finding of amcheck. False for rights,
    /// space and connections, and of earlier releases, which did not record it.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub refused_for_its_data: bool,
    pub sql_state: Option<String>,
    pub elapsed_seconds: f64,
    /// The time that the restore itself and its counts took; None in sets of the first release, and where the restore was not completed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub restore_seconds: Option<f64>,
    /// True where the set has vector indexes and they were not built.
    #[serde(default)]
    pub without_vector_indexes: bool,
    /// What the copy was asked; None where it was refused, and of earlier releases.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub how: Option<HowProved>,
    /// The store whose copy was restored, where that was not this one: this one has the same bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub copy_in: Option<String>,
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
}

#[derive(Deserialize)]
struct FirstCheck {
    checked_at: DateTime<Utc>,
    problems: Vec<String>,
    elapsed_seconds: f64,
}

impl From<Written> for Verification {
    fn from(written: Written) -> Self {
        let Written { mut bytes, mut restores, checks, sets_since_restore } = written;
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
        Self { bytes, restores, sets_since_restore }
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

    /// The latest restore that says something about the data, where it was refused for them.
    pub fn refused_for_its_data(&self) -> Option<&RestoreCheck> {
        let about_data = self.restores.iter().filter(|check| check.refusal.is_none() || check.refused_for_its_data);
        about_data.max_by_key(|check| check.checked_at).filter(|check| check.refused_for_its_data)
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

    /// Records what was proved of the copy in the store `of`, which has the same bytes.
    pub fn record_proof_of_copy(&mut self, proved: &Self, of: &str) {
        for check in proved.restores.iter().filter(|check| check.refusal.is_none()) {
            let has_its_own = |own: &&RestoreCheck| {
                (&own.server, &own.version, own.refusal.is_none()) == (&check.server, &check.version, true)
                    && own.copy_in.is_none()
            };
            if !self.restores.iter().any(|own| has_its_own(&own)) {
                let copy_in = Some(check.copy_in.clone().unwrap_or_else(|| of.to_owned()));
                self.record_restore(RestoreCheck { copy_in, ..check.clone() });
            }
        }
    }

    pub fn record_restore(&mut self, check: RestoreCheck) {
        // The last success and the last refusal of each are kept: a refusal today does not undo that the server restored the set once.
        let of = |check: &RestoreCheck| {
            (check.server.clone(), check.version.clone(), check.refusal.is_some(), check.without_vector_indexes)
        };
        self.restores.retain(|earlier| of(earlier) != of(&check));
        self.restores.push(check);
        let excess = self.restores.len().saturating_sub(RESTORES_KEPT);
        self.restores.drain(..excess);
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
    pub fn restored_in_words(&self) -> String {
        match self.restores.iter().rev().find(|restore| restore.refusal.is_none()).or(self.restores.last()) {
            None => "-".to_owned(),
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
        let of_restores = self.restores.iter().map(|check| (check.checked_at, check.elapsed_seconds));
        for (checked_at, elapsed_seconds) in of_bytes.chain(of_restores) {
            bounds::time("checked_at", checked_at)?;
            bounds::seconds("elapsed_seconds", elapsed_seconds)?;
        }
        self.restores.iter().filter_map(|check| check.how.as_ref()).try_for_each(Bounded::check)?;
        for seconds in self.restores.iter().filter_map(|check| check.restore_seconds) {
            bounds::seconds("restore_seconds", seconds)?;
        }
        Ok(())
    }
}

impl BytesCheck {
    fn began_at(&self) -> DateTime<Utc> {
        let elapsed = Duration::try_from_secs_f64(self.elapsed_seconds).unwrap_or_default();
        self.checked_at - TimeDelta::from_std(elapsed).unwrap_or_default()
    }
}

impl RestoreCheck {
    fn in_words(&self) -> String {
        let server = if self.version.is_empty() { self.server.clone() } else { format!("{} ({})", self.server, self.version) };
        match &self.refusal {
            None => {
                let copy = self.copy_in.as_ref().map(|store| format!(", as the copy in {store}")).unwrap_or_default();
                format!("restored on {server}{}{copy}", without(self.without_vector_indexes))
            }
            Some(refusal) => format!("not restored on {server}: {refusal}"),
        }
    }
}

/// What follows in words where vector indexes were not built.
fn without(vector_indexes: bool) -> &'static str {
    if vector_indexes { ", without vector indexes" } else { "" }
}

#[cfg(test)]
mod tests {
    use super::*;

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
        verification.record_restore(RestoreCheck {
            server: "db:5432".into(),
            version: "14.2".into(),
            checked_at: now,
            refusal: Some("syntax error".into()),
            refused_for_its_data: true,
            sql_state: Some("42601".into()),
            elapsed_seconds: 2.0,
            restore_seconds: None,
            without_vector_indexes: false,
            how: None,
            copy_in: None,
        });
        let again = read(&serde_json::to_string(&verification).unwrap());
        assert_eq!(again.verdict(), Bytes::Intact, "a refusal is the server's");
        assert!(!again.was_restored());
        assert_eq!(again.restored_in_words(), "not on 14.2 (42601)");
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
        let check = |refusal: Option<&str>| RestoreCheck {
            server: "db:5432".into(),
            version: "16.14".into(),
            checked_at: Utc::now(),
            refusal: refusal.map(str::to_owned),
            refused_for_its_data: false,
            sql_state: None,
            elapsed_seconds: 0.0,
            restore_seconds: None,
            without_vector_indexes: false,
            how: None,
            copy_in: None,
        };
        let mut verification = Verification::default();
        verification.record_restore(check(None));
        verification.record_restore(check(Some("no CREATEDB")));
        verification.record_restore(check(Some("no CREATEDB")));
        assert!(verification.was_restored());
        assert_eq!(verification.restores.len(), 2);
    }

    #[test]
    fn the_latest_restore_that_got_to_the_data_says_whether_they_are_refused() {
        let check = |minute: u32, refused: Option<bool>| RestoreCheck {
            server: format!("db{minute}:5432"),
            version: "18.4".into(),
            checked_at: format!("2026-11-23T02:{minute:02}:00Z").parse().unwrap(),
            refusal: refused.map(|_| "refused".to_owned()),
            refused_for_its_data: refused == Some(true),
            sql_state: None,
            elapsed_seconds: 0.0,
            restore_seconds: None,
            without_vector_indexes: false,
            how: None,
            copy_in: None,
        };
        let (good, by_data, by_rights) = (None, Some(true), Some(false));
        for (restores, expected) in [
            (vec![], false),
            (vec![good], false),
            (vec![by_rights], false),
            (vec![by_data], true),
            (vec![by_data, by_rights], true),
            (vec![good, by_data], true),
            (vec![by_data, good], false),
        ] {
            let mut verification = Verification::default();
            (0..).zip(restores.clone()).for_each(|(minute, refused)| verification.record_restore(check(minute, refused)));
            assert_eq!(verification.refused_for_its_data().is_some(), expected, "{restores:?}");
        }
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
        let check = |server: &str, refusal: Option<&str>| RestoreCheck {
            server: server.into(),
            version: "18.4".into(),
            checked_at: "2026-11-23T02:00:00Z".parse().unwrap(),
            refusal: refusal.map(str::to_owned),
            refused_for_its_data: false,
            sql_state: None,
            elapsed_seconds: 0.0,
            restore_seconds: None,
            without_vector_indexes: false,
            how: None,
            copy_in: None,
        };
        let mut there = Verification::default();
        there.record_restore(check("db:5432", None));
        there.record_restore(check("other:5432", Some("no CREATEDB")));
        let mut here = Verification::default();
        here.record_proof_of_copy(&there, "local");
        assert_eq!(here.restores.len(), 1, "a refusal there says nothing here");
        assert!(here.was_restored());
        assert_eq!(here.restored_in_words(), "on 18.4, 2026-11-23, as the copy in local");
        let mut third = Verification::default();
        third.record_proof_of_copy(&here, "offsite");
        assert_eq!(third.restores[0].copy_in.as_deref(), Some("local"), "the copy that was restored");
        here.record_restore(check("db:5432", None));
        here.record_proof_of_copy(&there, "local");
        assert_eq!(here.restored_in_words(), "on 18.4, 2026-11-23");
    }
}
