//! Decides which sets to keep: pure, with reasons.
//!
//! Only **intact** sets fill places: their bytes were read back. An unread set fills no place, and is not deleted before it has been read;
//! otherwise retention empties a store while backups fail (pgbackweb#121) and failed runs count as kept (Portabase#332).

use std::fmt;

use chrono::{DateTime, TimeDelta, Utc};
use chrono_tz::Tz;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

pub use super::rule_places::Keep;
use super::rule_places::{self, Rules};
use super::verdict::Bytes;
use crate::base::terminal;

/// A damaged set may still hold data that is needed, and there must be time to find out why it is damaged.
const DAMAGED_KEPT: TimeDelta = TimeDelta::days(30);

/// A set as this decision sees it.
#[derive(Clone, Debug)]
pub struct Candidate {
    pub name: String,
    pub taken_at: DateTime<Utc>,
    pub bytes: Bytes,
    /// The time when it was found damaged.
    pub damaged_at: Option<DateTime<Utc>>,
    /// True if some server has restored all of it.
    pub was_restored: bool,
    /// False for sets outside the rules: manual ones, and sets dated in the future.
    pub fills: bool,
    /// Reasons to keep it whatever the rules say: held, this run's own, dated in the future.
    pub pinned: Vec<String>,
}

#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
pub struct Decision {
    pub name: String,
    pub keep: bool,
    /// True if its bytes must be read before a decision; it is kept until then.
    pub check_first: bool,
    /// "last 1 of 3", "daily 2026-11-23", …
    pub reasons: Vec<String>,
    /// How long the rules keep it by the calendar, where that is certain: the periods that it stands for are over, and no newer set takes its places.
    #[serde(skip)]
    pub kept_until: Option<DateTime<Utc>>,
    /// The longest rule that keeps it, "weekly", "monthly" or "yearly", where no shorter one does and that is as certain.
    #[serde(skip)]
    pub long_rule: Option<&'static str>,
}

/// "keep     app/nightly/… (last 1 of 3)".
impl fmt::Display for Decision {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        let verb = match (self.keep, self.check_first) {
            (_, true) => "check",
            (true, false) => "keep",
            (false, false) => "delete",
        };
        write!(f, "{verb:<8} {}  ({})", self.name, terminal::in_one_line(&self.reasons.join(", ")))
    }
}

/// Decides for every candidate, newest first. Days, weeks and months are those of `zone`.
pub fn decide(candidates: &[Candidate], keep: &Keep, zone: Tz, now: DateTime<Utc>) -> Vec<Decision> {
    let mut sorted: Vec<&Candidate> = candidates.iter().collect();
    sorted.sort_by(|a, b| (b.taken_at, &b.name).cmp(&(a.taken_at, &a.name)));
    let some_intact = sorted.iter().any(|candidate| candidate.bytes == Bytes::Intact);
    let newest_restored = sorted
        .iter()
        .find(|candidate| candidate.bytes == Bytes::Intact && candidate.was_restored)
        .map(|candidate| candidate.name.as_str());

    let mut rules = Rules::new(keep);
    // Sets that fill no place of the rules compete among themselves for the free places.
    let mut beside = Rules::new(keep);
    sorted
        .into_iter()
        .map(|candidate| {
            let at = candidate.taken_at.with_timezone(&zone);
            let mut reasons = Vec::new();
            let (mut check_first, mut kept_until, mut long_rule) = (false, None, None);
            match candidate.bytes {
                Bytes::Intact => {
                    if candidate.fills {
                        let places = rules.fill(at);
                        long_rule = rule_places::long_rule(&places, at, now);
                        kept_until = places.iter().filter_map(|place| place.kept_until(at, now)).max();
                        reasons.extend(places.into_iter().map(|place| place.reason));
                    } else if !rules.would_fill(at).is_empty() {
                        let of_its_kind: Vec<String> = beside.fill(at).into_iter().map(|place| place.reason).collect();
                        if !of_its_kind.is_empty() {
                            reasons.push(format!("fills no place; of its kind: {}", of_its_kind.join(", ")));
                        }
                    }
                    if newest_restored == Some(candidate.name.as_str()) && reasons.is_empty() {
                        reasons.push("the newest set that was restored".to_owned());
                    }
                }
                Bytes::Unknown => {
                    check_first = true;
                    let would = rules.would_fill(at);
                    if !would.is_empty() {
                        reasons.push(format!("{}, if its bytes are intact", would.join(", ")));
                    }
                }
                Bytes::Damaged => match candidate.damaged_at {
                    Some(at) if now - at > DAMAGED_KEPT => {}
                    Some(at) => {
                        reasons.push(format!("damaged, kept for inspection until {}", (at + DAMAGED_KEPT).format("%Y-%m-%d")))
                    }
                    None => reasons.push("damaged, at an unknown time".to_owned()),
                },
            }
            reasons.extend(candidate.pinned.iter().cloned());
            if !some_intact && reasons.is_empty() {
                reasons.push("no set is intact: nothing is deleted".to_owned());
            }
            let keep = !reasons.is_empty() || check_first;
            if reasons.is_empty() {
                reasons.push(
                    match candidate.bytes {
                        Bytes::Intact => "no rule keeps it",
                        Bytes::Unknown => "no rule would keep it; its bytes are read before it is deleted",
                        Bytes::Damaged => "damaged for more than 30 days",
                    }
                    .to_owned(),
                );
            }
            Decision { name: candidate.name.clone(), keep, check_first, reasons, kept_until, long_rule }
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use std::collections::BTreeSet;

    use super::*;

    fn at(text: &str) -> DateTime<Utc> {
        format!("{text}Z").parse().unwrap()
    }

    /// After all sets of these tests.
    fn now() -> DateTime<Utc> {
        at("2026-12-01T00:00:00")
    }

    fn set(taken_at: &str, bytes: Bytes) -> Candidate {
        let damaged_at = (bytes == Bytes::Damaged).then(|| at(taken_at));
        Candidate {
            name: taken_at.to_owned(),
            taken_at: at(taken_at),
            bytes,
            damaged_at,
            was_restored: false,
            fills: true,
            pinned: vec![],
        }
    }

    fn intact(days: &[&str]) -> Vec<Candidate> {
        days.iter().map(|day| set(&format!("{day}T02:00:00"), Bytes::Intact)).collect()
    }

    fn kept(candidates: &[Candidate], keep: Keep) -> Vec<String> {
        let decisions = decide(candidates, &keep, Tz::UTC, now());
        decisions.into_iter().filter(|decision| decision.keep).map(|decision| decision.name[..10].to_owned()).collect()
    }

    #[test]
    fn last_and_the_newest_of_each_period_are_kept() {
        let sets = intact(&["2025-12-31", "2026-10-30", "2026-11-15", "2026-11-20", "2026-11-21", "2026-11-22", "2026-11-23"]);
        assert_eq!(kept(&sets, Keep { last: 2, ..Keep::default() }), ["2026-11-23", "2026-11-22"]);
        assert_eq!(kept(&sets, Keep { daily: 3, ..Keep::default() }), ["2026-11-23", "2026-11-22", "2026-11-21"]);
        assert_eq!(kept(&sets, Keep { weekly: 3, ..Keep::default() }), ["2026-11-23", "2026-11-22", "2026-11-15"]);
        assert_eq!(kept(&sets, Keep { monthly: 2, ..Keep::default() }), ["2026-11-23", "2026-10-30"]);
        assert_eq!(kept(&sets, Keep { yearly: 5, ..Keep::default() }), ["2026-11-23", "2025-12-31"]);
    }

    #[test]
    fn a_long_rule_is_that_of_a_set_which_no_shorter_one_keeps_and_no_newer_one_replaces() {
        let sets = intact(&["2025-12-30", "2026-10-20", "2026-10-30", "2026-11-20", "2026-11-28", "2026-11-29"]);
        let keep = Keep { last: 1, daily: 2, weekly: 3, monthly: 3, yearly: 2 };
        let decisions = decide(&sets, &keep, Tz::UTC, at("2026-11-30T12:00:00"));
        let rules: Vec<_> = decisions.iter().map(|decision| (&decision.name[..10], decision.long_rule)).collect();
        assert_eq!(
            rules,
            [
                // Of this month and this year, and `last` and `daily` keep it.
                ("2026-11-29", None),
                ("2026-11-28", None),
                ("2026-11-20", Some("weekly")),
                ("2026-10-30", Some("monthly")),
                ("2026-10-20", None),
                ("2025-12-30", Some("yearly")),
            ]
        );
    }

    #[test]
    fn every_kept_set_says_why() {
        let sets = intact(&["2026-11-22", "2026-11-23"]);
        let decisions = decide(&sets, &Keep { last: 1, daily: 2, ..Keep::default() }, Tz::UTC, now());
        assert_eq!(decisions[0].reasons, ["last 1 of 1", "daily 2026-11-23"]);
        assert_eq!(decisions[1].reasons, ["daily 2026-11-22"]);
    }

    #[test]
    fn a_day_is_a_day_of_the_jobs_zone() {
        let sets = [set("2026-11-22T23:30:00", Bytes::Intact), set("2026-11-22T22:30:00", Bytes::Intact)];
        let keep = Keep { daily: 2, ..Keep::default() };
        assert_eq!(decide(&sets, &keep, Tz::UTC, now()).iter().filter(|d| d.keep).count(), 1);
        assert_eq!(decide(&sets, &keep, Tz::Europe__Berlin, now()).iter().filter(|d| d.keep).count(), 2);
    }

    #[test]
    fn damaged_sets_fill_no_place_and_go_after_thirty_days() {
        let mut sets = intact(&["2026-11-01", "2026-11-02"]);
        sets.extend((3..=9).map(|day| set(&format!("2026-11-0{day}T02:00:00"), Bytes::Damaged)));
        sets.push(set("2026-10-05T02:00:00", Bytes::Damaged));
        let kept = kept(&sets, Keep { last: 2, ..Keep::default() });
        assert!(kept.contains(&"2026-11-01".to_owned()) && kept.contains(&"2026-11-02".to_owned()), "{kept:?}");
        assert!(kept.contains(&"2026-11-09".to_owned()), "it is kept so that people can find out why: {kept:?}");
        assert!(!kept.contains(&"2026-10-05".to_owned()), "{kept:?}");
    }

    #[test]
    fn without_an_intact_set_nothing_goes() {
        let sets: Vec<_> = (1..=9).map(|day| set(&format!("2026-11-0{day}T02:00:00"), Bytes::Unknown)).collect();
        assert_eq!(kept(&sets, Keep { last: 1, ..Keep::default() }).len(), 9);
        let damaged: Vec<_> = (1..=9).map(|day| set(&format!("2026-01-0{day}T02:00:00"), Bytes::Damaged)).collect();
        assert_eq!(kept(&damaged, Keep { last: 1, ..Keep::default() }).len(), 9);
    }

    #[test]
    fn thirteen_sets_that_nobody_read_stay_when_the_newest_is_verified_by_hand() {
        let mut sets: Vec<_> = (1..=13).map(|day| set(&format!("2026-11-{day:02}T02:00:00"), Bytes::Unknown)).collect();
        sets[12].bytes = Bytes::Intact;
        let keep = Keep { last: 1, ..Keep::default() };
        let decisions = decide(&sets, &keep, Tz::UTC, now());
        assert!(decisions.iter().all(|decision| decision.keep), "{decisions:?}");
        assert_eq!(decisions.iter().filter(|decision| decision.check_first).count(), 12, "each is read before it goes");
    }

    #[test]
    fn the_newest_restored_set_stays_beside_the_rules() {
        let mut sets = intact(&["2026-11-01", "2026-11-02", "2026-11-03", "2026-11-04"]);
        sets[0].was_restored = true;
        sets[1].was_restored = true;
        assert_eq!(kept(&sets, Keep { last: 1, ..Keep::default() }), ["2026-11-04", "2026-11-02"]);
    }

    #[test]
    fn sets_made_by_hand_and_sets_from_after_now_fill_no_place() {
        let mut sets = intact(&["2026-11-01", "2026-11-02", "2026-11-03", "2026-11-04", "2027-05-01"]);
        sets[3].fills = false;
        sets[4].fills = false;
        sets[4].pinned = vec!["dated in the future".into()];
        assert_eq!(kept(&sets, Keep { last: 2, ..Keep::default() }), ["2027-05-01", "2026-11-04", "2026-11-03", "2026-11-02"]);
    }

    #[test]
    fn sets_made_by_hand_alone_are_as_many_as_the_rule_says() {
        let mut sets = intact(&["2026-11-01", "2026-11-02", "2026-11-03", "2026-11-04"]);
        sets.iter_mut().for_each(|set| set.fills = false);
        assert_eq!(kept(&sets, Keep { last: 2, ..Keep::default() }), ["2026-11-04", "2026-11-03"]);
        let keep = Keep { last: 2, daily: 7, monthly: 1, ..Keep::default() };
        let newest = &decide(&sets, &keep, Tz::UTC, now())[0];
        assert_eq!(newest.reasons, ["fills no place; of its kind: last 1 of 2, daily 2026-11-04, monthly 2026-11"]);
    }

    #[test]
    fn a_held_set_stays_and_fills_its_place() {
        let mut sets = intact(&["2026-11-01", "2026-11-02", "2026-11-03"]);
        sets[0].pinned = vec!["held".into()];
        assert_eq!(kept(&sets, Keep { last: 1, ..Keep::default() }), ["2026-11-03", "2026-11-01"]);
    }

    proptest! {
        /// Invariant 2, over random histories: no intact set that a rule names goes, nor the newest restored one, nor one that is
        /// pinned, nor one that was never read; and sets that fill no place never make an intact one go.
        #[test]
        fn prune_never_goes_below_the_configured_number_of_intact_sets(
            history in proptest::collection::vec((0_i64..2_000, 0_u8..3, any::<bool>(), any::<bool>(), 0_u8..10), 0..60),
            last in 0_u32..5, daily in 0_u32..5, weekly in 0_u32..4, monthly in 0_u32..4, yearly in 0_u32..3,
        ) {
            let keep = Keep { last, daily, weekly, monthly, yearly };
            prop_assume!(!keep.keeps_nothing());
            let start = at("2024-01-01T00:00:00");
            let sets: Vec<Candidate> = history.iter().enumerate().map(|(index, (hours, bytes, restored, fills, pinned))| {
                let taken_at = start + chrono::Duration::hours(*hours * 7) + chrono::Duration::seconds(index as i64);
                let bytes = [Bytes::Intact, Bytes::Unknown, Bytes::Damaged][*bytes as usize];
                Candidate {
                    name: index.to_string(),
                    taken_at,
                    bytes,
                    damaged_at: (bytes == Bytes::Damaged).then_some(taken_at),
                    was_restored: *restored,
                    fills: *fills,
                    pinned: if *pinned == 0 { vec!["held".to_owned()] } else { vec![] },
                }
            }).collect();
            let of = |name: &str| sets.iter().find(|set| set.name == name).unwrap();
            let decisions = decide(&sets, &keep, Tz::UTC, now());
            prop_assert_eq!(decisions.len(), sets.len());
            for gone in decisions.iter().filter(|decision| !decision.keep) {
                let set = of(&gone.name);
                prop_assert!(set.pinned.is_empty());
                prop_assert!(set.bytes != Bytes::Unknown);
                if set.bytes == Bytes::Intact && set.fills {
                    // So many intact ones that count are newer, and each period that has it has a newer one.
                    let newer: Vec<_> = sets.iter()
                        .filter(|other| other.bytes == Bytes::Intact && other.fills && other.taken_at > set.taken_at).collect();
                    prop_assert!(newer.len() >= last as usize);
                    let days: BTreeSet<_> = newer.iter().map(|other| other.taken_at.date_naive()).collect();
                    prop_assert!(days.len() >= daily as usize || days.contains(&set.taken_at.date_naive()));
                    prop_assert!(!set.was_restored || sets.iter().any(|other|
                        other.bytes == Bytes::Intact && other.was_restored && other.taken_at > set.taken_at));
                }
            }
            // Others never make one go that counts.
            let counting: Vec<Candidate> =
                sets.iter().filter(|set| set.bytes == Bytes::Intact && set.fills).cloned().collect();
            let alone = decide(&counting, &keep, Tz::UTC, now());
            for decision in alone.iter().filter(|decision| decision.keep && !decision.reasons[0].starts_with("the newest")) {
                prop_assert!(decisions.iter().any(|with| with.name == decision.name && with.keep));
            }
        }
    }
}
