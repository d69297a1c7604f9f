//! A restore of a set that was tried on a server, and what several of them say together, in the order in which they were recorded beside one copy: that
//! order no clock can change. Pure.

use anyhow::Result;
use chrono::{DateTime, TimeDelta, Utc};
use serde::{Deserialize, Serialize};

use super::how_proved::HowProved;
use crate::base::bounds::{self, Bounded};

/// Clocks of hosts that synchronize their time differ by less.
pub const CLOCKS_DIFFER: TimeDelta = TimeDelta::minutes(5);

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
    /// The store whose copy was restored, where that was not this one: this one has the same data.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub copy_in: Option<String>,
}

/// The time that a restore took, and when that was.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Measured {
    pub seconds: f64,
    pub at: DateTime<Utc>,
}

impl RestoreCheck {
    /// Returns whether it is a good restore at a time that has come: one that is dated ahead was made by a wrong clock.
    pub fn is_proof(&self, now: DateTime<Utc>) -> bool {
        self.refusal.is_none() && !self.is_dated_ahead(now)
    }

    pub fn is_dated_ahead(&self, now: DateTime<Utc>) -> bool {
        self.checked_at - now > CLOCKS_DIFFER
    }

    /// Returns whether a later one takes its place. A refusal for rights says nothing about the data, so it takes the place of none for them.
    pub fn has_the_place_of(&self, other: &Self) -> bool {
        let place = |check: &Self| (check.refusal.is_some(), check.refused_for_its_data, check.without_vector_indexes);
        (&self.server, &self.version, place(self)) == (&other.server, &other.version, place(other))
    }

    /// Returns whether both are records of one try: copies of a set have them of each other.
    pub fn is_one_with(&self, other: &Self) -> bool {
        let about = |check: &Self| (check.checked_at, check.refusal.is_some(), check.refused_for_its_data);
        (&self.server, &self.version, about(self)) == (&other.server, &other.version, about(other))
    }

    pub fn in_words(&self) -> String {
        let server = if self.version.is_empty() { self.server.clone() } else { format!("{} ({})", self.server, self.version) };
        let copy = self.copy_in.as_ref().map(|store| format!(", as the copy in {store}")).unwrap_or_default();
        match &self.refusal {
            None => format!("restored on {server}{}{copy}", without(self.without_vector_indexes)),
            Some(refusal) => format!("not restored on {server}{copy}: {refusal}"),
        }
    }
}

/// What follows in words where vector indexes were not built.
pub fn without(vector_indexes: bool) -> &'static str {
    if vector_indexes { ", without vector indexes" } else { "" }
}

/// The refusal for the data that no good restore was recorded after.
pub fn refusal_for_the_data(restores: &[RestoreCheck], now: DateTime<Utc>) -> Option<&RestoreCheck> {
    let about_data = |check: &&RestoreCheck| check.refused_for_its_data || check.is_proof(now);
    restores.iter().rev().find(about_data).filter(|check| check.refused_for_its_data)
}

/// What is recorded beside one copy.
#[derive(Clone, Copy, Debug)]
pub struct Beside<'a> {
    pub restores: &'a [RestoreCheck],
    /// The key of its store has signed it.
    pub is_signed: bool,
}

/// The same for the copies of one set, each with its own restores, and the number of the copy that it stands beside: what one was refused for holds for all.
/// A good restore refutes it that was recorded after it beside a copy where both stand. Of two that stand apart nobody knows which came later: clocks of
/// two hosts do not say it, so the doubt stays. What is recorded without a key refutes nothing that is recorded with one: anybody may have written it.
pub fn refusal_of_copies<'a>(copies: &[Beside<'a>], now: DateTime<Utc>) -> Option<(usize, &'a RestoreCheck)> {
    copies.iter().enumerate().find_map(|(number, beside)| {
        let refusal = refusal_for_the_data(beside.restores, now)?;
        let vouch = copies.iter().filter(|other| other.is_signed || !beside.is_signed);
        let is_refuted = vouch.into_iter().any(|other| is_refuted_in(other.restores, refusal, now));
        (!is_refuted).then_some((number, refusal))
    })
}

/// Returns whether that refusal stands there, and a good restore was recorded after it.
pub fn is_refuted_in(restores: &[RestoreCheck], refusal: &RestoreCheck, now: DateTime<Utc>) -> bool {
    let at = restores.iter().rposition(|check| check.is_one_with(refusal));
    at.is_some_and(|at| restores[at..].iter().any(|check| check.is_proof(now)))
}

/// The last restore, where it failed: for whatever reason.
pub fn last_failed(restores: &[RestoreCheck]) -> Option<&RestoreCheck> {
    restores.last().filter(|check| check.refusal.is_some())
}

/// Leaves as many as `most`: those tried last, and besides the last good one and the last that was refused for the data.
pub fn forget_oldest(restores: &mut Vec<RestoreCheck>, most: usize) {
    while restores.len() > most {
        let good = restores.iter().rposition(|check| check.refusal.is_none());
        let refused = restores.iter().rposition(|check| check.refused_for_its_data);
        let Some(oldest) = (0..restores.len()).find(|at| Some(*at) != good && Some(*at) != refused) else { return };
        restores.remove(oldest);
    }
}

impl Bounded for RestoreCheck {
    fn check(&self) -> Result<()> {
        bounds::time("checked_at", self.checked_at)?;
        bounds::seconds("elapsed_seconds", self.elapsed_seconds)?;
        self.how.iter().try_for_each(Bounded::check)?;
        self.restore_seconds.map_or(Ok(()), |seconds| bounds::seconds("restore_seconds", seconds))
    }
}

#[cfg(test)]
pub mod tests {
    use super::*;

    /// One that ended at this minute: restored, or refused for the data, or for rights.
    pub fn check(server: &str, minute: u32, refused_for_its_data: Option<bool>) -> RestoreCheck {
        RestoreCheck {
            server: server.to_owned(),
            version: "18.4".to_owned(),
            checked_at: format!("2026-11-23T02:{minute:02}:00Z").parse().unwrap(),
            refusal: refused_for_its_data.map(|_| "refused".to_owned()),
            refused_for_its_data: refused_for_its_data == Some(true),
            sql_state: None,
            elapsed_seconds: 0.0,
            restore_seconds: None,
            without_vector_indexes: false,
            how: None,
            copy_in: None,
        }
    }

    pub fn now() -> DateTime<Utc> {
        "2026-11-23T03:00:00Z".parse().unwrap()
    }

    const GOOD: Option<bool> = None;
    const BY_DATA: Option<bool> = Some(true);
    const BY_RIGHTS: Option<bool> = Some(false);

    #[test]
    fn the_last_recorded_restore_that_got_to_the_data_says_whether_they_are_refused() {
        for (restores, expected) in [
            (vec![], false),
            (vec![GOOD], false),
            (vec![BY_RIGHTS], false),
            (vec![BY_DATA], true),
            (vec![BY_DATA, BY_RIGHTS], true),
            (vec![GOOD, BY_DATA], true),
            (vec![BY_DATA, GOOD], false),
        ] {
            let checks: Vec<_> = (0..).zip(&restores).map(|(minute, refused)| check("db", minute, *refused)).collect();
            assert_eq!(refusal_for_the_data(&checks, now()).is_some(), expected, "{restores:?}");
        }
    }

    #[test]
    fn a_good_restore_that_is_dated_ahead_refutes_no_refusal() {
        let mut ahead = check("db", 0, GOOD);
        ahead.checked_at = now() + TimeDelta::days(1);
        let refused = check("db", 1, BY_DATA);
        for at in [now(), now() + TimeDelta::days(2)] {
            assert!(refusal_for_the_data(&[ahead.clone(), refused.clone()], at).is_some(), "it was recorded before, {at}");
        }
        let after = [refused, ahead];
        assert!(refusal_for_the_data(&after, now()).is_some() && !after[1].is_proof(now()));
        assert!(refusal_for_the_data(&after, now() + TimeDelta::days(2)).is_none());
    }

    #[test]
    fn what_one_copy_was_refused_for_holds_for_all_until_a_restore_is_recorded_after_it() {
        let (good, refused) = (|minute| vec![check("db", minute, GOOD)], |minute| vec![check("db", minute, BY_DATA)]);
        let healed = vec![check("db", 2, BY_DATA), check("other", 3, GOOD)];
        // The refusal was recorded after the good restore, and is dated before it.
        let dated_behind = vec![check("db", 5, GOOD), check("db", 3, BY_DATA)];
        for (copies, expected) in [
            (vec![vec![], refused(1)], Some(1)),
            (vec![good(0), refused(1)], Some(1)),
            (vec![good(5), dated_behind.clone()], Some(1)),
            (vec![dated_behind, vec![check("db", 3, BY_DATA), check("db", 2, GOOD)]], None),
            // Nobody knows which came later.
            (vec![refused(1), good(2)], Some(0)),
            (vec![refused(2), healed.clone()], None),
            (vec![refused(4), healed], Some(0)),
            (vec![good(1), vec![]], None),
        ] {
            let beside: Vec<Beside<'_>> = copies.iter().map(|restores| Beside { restores, is_signed: false }).collect();
            assert_eq!(refusal_of_copies(&beside, now()).map(|(copy, _)| copy), expected, "{copies:?}");
        }
    }

    #[test]
    fn a_proof_that_no_key_has_signed_refutes_no_refusal_that_one_has() {
        let refused = [check("db", 1, BY_DATA)];
        let healed = [check("db", 1, BY_DATA), check("db", 2, GOOD)];
        for (is_signed, other_is_signed, expected) in
            [(true, false, Some(0)), (true, true, None), (false, false, None), (false, true, None)]
        {
            let beside = [Beside { restores: &refused, is_signed }, Beside { restores: &healed, is_signed: other_is_signed }];
            assert_eq!(refusal_of_copies(&beside, now()).map(|(copy, _)| copy), expected, "{is_signed}, {other_is_signed}");
        }
    }

    #[test]
    fn a_refusal_for_the_data_is_not_forgotten_among_many_for_rights() {
        let mut restores = vec![check("first", 0, BY_DATA)];
        for number in 0..30 {
            restores.push(check(&format!("db{number}"), number, BY_RIGHTS));
            forget_oldest(&mut restores, 20);
        }
        assert_eq!((restores.len(), restores[1].server.as_str()), (20, "db11"));
        assert!(refusal_for_the_data(&restores, now()).is_some());
        // Nor is the good one that refutes it.
        restores.push(check("good", 30, GOOD));
        for number in 31..59 {
            restores.push(check(&format!("db{number}"), number, BY_RIGHTS));
            forget_oldest(&mut restores, 20);
        }
        assert!(restores.len() == 20 && refusal_for_the_data(&restores, now()).is_none());
    }
}
