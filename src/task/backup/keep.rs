//! Which sets to keep: pure, with reasons.
//!
//! Only **verified** sets count towards a rule. A set that nobody has checked, or that failed its check, neither
//! fills a place nor makes a good one go; that is how retention empties a store while backups fail
//! (pgbackweb#121) and how failed runs are counted as kept (Portabase#332).

use std::collections::BTreeSet;

use chrono::{DateTime, Datelike as _, Utc};
use chrono_tz::Tz;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// How many sets to keep: the newest `last`, and the newest of each of so many days, ISO weeks, months and
/// years that have one. Days without a set do not use up places.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Keep {
    pub last: u32,
    pub daily: u32,
    pub weekly: u32,
    pub monthly: u32,
    pub yearly: u32,
}

impl Keep {
    pub fn keeps_nothing(&self) -> bool {
        *self == Self::default()
    }
}

/// What is known of a set's contents.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Proof {
    Verified,
    /// Never checked, or the check could not be done.
    Unknown,
    /// Checked, and found not to be what the manifest says.
    Damaged,
}

/// A set as this decision sees it.
#[derive(Clone, Debug)]
pub struct Candidate {
    pub name: String,
    pub taken_at: DateTime<Utc>,
    pub proof: Proof,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Decision {
    pub name: String,
    pub keep: bool,
    /// "last 1 of 3", "daily 2026-11-23", …
    pub reasons: Vec<String>,
}

/// Decides for every candidate, newest first. Days, weeks and months are those of `zone`.
pub fn decide(candidates: &[Candidate], keep: &Keep, zone: Tz) -> Vec<Decision> {
    let mut sorted: Vec<&Candidate> = candidates.iter().collect();
    sorted.sort_by_key(|candidate| std::cmp::Reverse(candidate.taken_at));
    let newest_verified = sorted.iter().find(|candidate| candidate.proof == Proof::Verified).map(|candidate| candidate.taken_at);

    let mut rules = Rules::new(keep);
    sorted
        .into_iter()
        .map(|candidate| {
            let (keep, reasons) = match (candidate.proof, newest_verified) {
                (Proof::Verified, _) => {
                    let reasons = rules.reasons(candidate.taken_at.with_timezone(&zone));
                    if reasons.is_empty() { (false, vec!["no rule keeps it".to_owned()]) } else { (true, reasons) }
                }
                (_, None) => (true, vec!["no set is verified: nothing goes".to_owned()]),
                (_, Some(verified)) if candidate.taken_at > verified => {
                    (true, vec!["newer than the newest verified set".to_owned()])
                }
                // Unknown and older: it goes when a verified set of its age would go.
                (Proof::Unknown, Some(_)) if rules.last_is_filled() => {
                    (false, vec!["not verified, and newer verified sets fill `last`".to_owned()])
                }
                (Proof::Unknown, Some(_)) => (true, vec!["not verified, and `last` is not filled by verified ones".to_owned()]),
                (Proof::Damaged, Some(_)) => (false, vec!["damaged, and a newer set is verified".to_owned()]),
            };
            Decision { name: candidate.name.clone(), keep, reasons }
        })
        .collect()
}

struct Rules<'a> {
    keep: &'a Keep,
    seen: u32,
    days: BTreeSet<String>,
    weeks: BTreeSet<String>,
    months: BTreeSet<String>,
    years: BTreeSet<String>,
}

impl<'a> Rules<'a> {
    fn new(keep: &'a Keep) -> Self {
        Self { keep, seen: 0, days: BTreeSet::new(), weeks: BTreeSet::new(), months: BTreeSet::new(), years: BTreeSet::new() }
    }

    /// Why the next verified set, going back in time, is kept.
    fn reasons(&mut self, taken_at: DateTime<Tz>) -> Vec<String> {
        let mut reasons = Vec::new();
        self.seen += 1;
        if self.seen <= self.keep.last {
            reasons.push(format!("last {} of {}", self.seen, self.keep.last));
        }
        let week = taken_at.iso_week();
        for (rule, count, periods, period) in [
            ("daily", self.keep.daily, &mut self.days, taken_at.format("%Y-%m-%d").to_string()),
            ("weekly", self.keep.weekly, &mut self.weeks, format!("{}-W{:02}", week.year(), week.week())),
            ("monthly", self.keep.monthly, &mut self.months, taken_at.format("%Y-%m").to_string()),
            ("yearly", self.keep.yearly, &mut self.years, taken_at.format("%Y").to_string()),
        ] {
            if periods.len() < count as usize && periods.insert(period.clone()) {
                reasons.push(format!("{rule} {period}"));
            }
        }
        reasons
    }

    fn last_is_filled(&self) -> bool {
        self.seen >= self.keep.last.max(1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn at(text: &str) -> DateTime<Utc> {
        format!("{text}Z").parse().unwrap()
    }

    fn set(taken_at: &str, proof: Proof) -> Candidate {
        Candidate { name: taken_at.to_owned(), taken_at: at(taken_at), proof }
    }

    fn verified(days: &[&str]) -> Vec<Candidate> {
        days.iter().map(|day| set(&format!("{day}T02:00:00"), Proof::Verified)).collect()
    }

    fn kept(candidates: &[Candidate], keep: Keep) -> Vec<String> {
        let decisions = decide(candidates, &keep, Tz::UTC);
        decisions.into_iter().filter(|decision| decision.keep).map(|decision| decision.name[..10].to_owned()).collect()
    }

    #[test]
    fn last_and_the_newest_of_each_period_are_kept() {
        let sets = verified(&["2025-12-31", "2026-10-30", "2026-11-15", "2026-11-20", "2026-11-21", "2026-11-22", "2026-11-23"]);
        assert_eq!(kept(&sets, Keep { last: 2, ..Keep::default() }), ["2026-11-23", "2026-11-22"]);
        assert_eq!(kept(&sets, Keep { daily: 3, ..Keep::default() }), ["2026-11-23", "2026-11-22", "2026-11-21"]);
        assert_eq!(kept(&sets, Keep { weekly: 3, ..Keep::default() }), ["2026-11-23", "2026-11-22", "2026-11-15"]);
        assert_eq!(kept(&sets, Keep { monthly: 2, ..Keep::default() }), ["2026-11-23", "2026-10-30"]);
        assert_eq!(kept(&sets, Keep { yearly: 5, ..Keep::default() }), ["2026-11-23", "2025-12-31"]);
    }

    #[test]
    fn every_kept_set_says_why() {
        let sets = verified(&["2026-11-22", "2026-11-23"]);
        let decisions = decide(&sets, &Keep { last: 1, daily: 2, ..Keep::default() }, Tz::UTC);
        assert_eq!(decisions[0].reasons, ["last 1 of 1", "daily 2026-11-23"]);
        assert_eq!(decisions[1].reasons, ["daily 2026-11-22"]);
    }

    #[test]
    fn a_day_is_a_day_of_the_jobs_zone() {
        let sets = [set("2026-11-22T23:30:00", Proof::Verified), set("2026-11-22T22:30:00", Proof::Verified)];
        let keep = Keep { daily: 2, ..Keep::default() };
        assert_eq!(decide(&sets, &keep, Tz::UTC).iter().filter(|d| d.keep).count(), 1);
        assert_eq!(decide(&sets, &keep, Tz::Europe__Berlin).iter().filter(|d| d.keep).count(), 2);
    }

    #[test]
    fn when_backups_stop_or_fail_the_good_ones_stay() {
        let mut sets = verified(&["2026-11-01", "2026-11-02"]);
        sets.extend((3..=9).map(|day| set(&format!("2026-11-0{day}T02:00:00"), Proof::Damaged)));
        let keep = Keep { last: 2, ..Keep::default() };
        let kept = kept(&sets, keep);
        assert!(kept.contains(&"2026-11-01".to_owned()) && kept.contains(&"2026-11-02".to_owned()), "{kept:?}");
    }

    #[test]
    fn without_a_verified_set_nothing_goes() {
        let sets: Vec<_> = (1..=9).map(|day| set(&format!("2026-11-0{day}T02:00:00"), Proof::Unknown)).collect();
        assert_eq!(kept(&sets, Keep { last: 1, ..Keep::default() }).len(), 9);
    }

    #[test]
    fn unverified_sets_go_only_behind_enough_verified_ones() {
        let sets = [
            set("2026-11-05T02:00:00", Proof::Unknown),
            set("2026-11-04T02:00:00", Proof::Verified),
            set("2026-11-03T02:00:00", Proof::Unknown),
            set("2026-11-02T02:00:00", Proof::Verified),
            set("2026-11-01T02:00:00", Proof::Unknown),
        ];
        assert_eq!(kept(&sets, Keep { last: 2, ..Keep::default() }), ["2026-11-05", "2026-11-04", "2026-11-03", "2026-11-02"]);
    }

    proptest! {
        /// Invariant 2, over random histories: at least min(last, verified) verified sets stay, the newest verified
        /// one always, and adding damaged or unknown sets never makes a verified one go.
        #[test]
        fn prune_never_goes_below_the_configured_number_of_verified_sets(
            history in proptest::collection::vec((0_i64..2_000, 0_u8..3), 0..60),
            last in 0_u32..5, daily in 0_u32..5, weekly in 0_u32..4, monthly in 0_u32..4, yearly in 0_u32..3,
        ) {
            let keep = Keep { last, daily, weekly, monthly, yearly };
            prop_assume!(!keep.keeps_nothing());
            let start = at("2024-01-01T00:00:00");
            let sets: Vec<Candidate> = history.iter().enumerate().map(|(index, (hours, proof))| Candidate {
                name: index.to_string(),
                taken_at: start + chrono::Duration::hours(*hours * 7) + chrono::Duration::seconds(index as i64),
                proof: [Proof::Verified, Proof::Unknown, Proof::Damaged][*proof as usize],
            }).collect();
            let is_verified = |name: &str| sets.iter().any(|set| set.name == name && set.proof == Proof::Verified);
            let kept_verified = |sets: &[Candidate]| -> BTreeSet<String> {
                decide(sets, &keep, Tz::UTC).into_iter().filter(|d| d.keep && is_verified(&d.name)).map(|d| d.name).collect()
            };
            let kept = kept_verified(&sets);
            let verified: Vec<Candidate> = sets.iter().filter(|set| set.proof == Proof::Verified).cloned().collect();
            prop_assert!(kept.len() >= verified.len().min(last as usize));
            if let Some(newest) = verified.iter().max_by_key(|set| set.taken_at) {
                prop_assert!(kept.contains(&newest.name));
            }
            prop_assert_eq!(kept, kept_verified(&verified));
        }
    }
}
