//! Jobs that cannot run, as their files have mistakes: whether they are late by the schedule with which they last could. Pure.

use std::time::Duration;

use chrono::{DateTime, Utc};
use chrono_tz::Tz;

use super::planner;
use crate::base::schedule::Schedule;
use crate::base::units;
use crate::config::Config;
use crate::ledger::LastKnown;
use crate::run::job::{Broken, Job, LATE_AFTER};

/// How a job that cannot run stands on a database; it is never well.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stands {
    pub job: String,
    /// Empty where the ledger knows nothing of the job.
    pub database: String,
    pub last_success_at: Option<DateTime<Utc>>,
    pub how: How,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum How {
    /// A success is overdue for this tick.
    Late { tick: DateTime<Utc> },
    /// It is not late yet, and will be.
    InTime,
    /// It ran by hand alone.
    ByHand,
    /// The ledger has no schedule of it.
    NotKnown,
}

/// Writes a schedule as the ledger keeps it.
pub fn written(schedule: &Schedule, timezone: Tz) -> String {
    format!("{schedule} {timezone}")
}

/// What the ledger keeps of a job that no tick runs.
pub const NO_SCHEDULE: &str = "none";

/// Says how each stands, by what the ledger last knew of it on the databases that the configuration knows.
pub fn stands(broken: &[&Broken], known: &[LastKnown], config: &Config, now: DateTime<Utc>) -> Vec<Stands> {
    let of_one = |broken: &&Broken| {
        let counts = |place: &str| config.place(place).is_some() && may_run_on(broken, place, config);
        let is_of_it = |known: &&LastKnown| known.job == broken.job && counts(&known.database);
        let mut stands: Vec<Stands> = known.iter().filter(is_of_it).map(|known| stand(broken, known, now)).collect();
        if stands.is_empty() {
            stands.push(Stands { job: broken.job.clone(), database: String::new(), last_success_at: None, how: How::NotKnown });
        }
        stands
    };
    broken.iter().flat_map(of_one).collect()
}

/// A file may have been broken by the edit that took a database away.
fn may_run_on(broken: &Broken, place: &str, config: &Config) -> bool {
    let names = |job: &Job| !job.databases.is_empty() || job.chosen.is_some();
    broken.legible.as_ref().filter(|job| names(job)).is_none_or(|job| job.would_run_on(place, config))
}

fn stand(broken: &Broken, known: &LastKnown, now: DateTime<Utc>) -> Stands {
    let how = match (known.schedule.as_deref(), known.known_since) {
        _ if broken.legible.as_ref().is_some_and(|job| !job.enabled) => How::ByHand,
        (Some(NO_SCHEDULE), _) => How::ByHand,
        (Some(text), Some(since)) => match read(text) {
            Some((schedule, timezone)) => {
                let grace = grace(broken.legible.as_deref(), &known.database);
                let tick = planner::overdue(&schedule, timezone, grace, since, known.last_success_at, now);
                tick.map_or(How::InTime, |tick| How::Late { tick })
            }
            None => How::NotKnown,
        },
        _ => How::NotKnown,
    };
    Stands { job: known.job.clone(), database: known.database.clone(), last_success_at: known.last_success_at, how }
}

fn read(text: &str) -> Option<(Schedule, Tz)> {
    let (schedule, timezone) = text.rsplit_once(' ')?;
    Some((Schedule::try_from(schedule.to_owned()).ok()?, timezone.parse().ok()?))
}

/// How long after a tick its success is not overdue, as far as the file can be read.
fn grace(legible: Option<&Job>, database: &str) -> Duration {
    legible.map_or(LATE_AFTER, |job| planner::jitter(job, database) + job.late_after)
}

impl Stands {
    /// Says how it stands in a sentence; nothing of one that never ran by itself.
    pub fn in_words(&self, now: DateTime<Utc>) -> Option<String> {
        let on = if self.database.is_empty() { String::new() } else { format!(" on {}", self.database) };
        let success = self.last_success_at;
        Some(match self.how {
            How::Late { tick } => {
                let last = success
                    .map_or("it never succeeded".to_owned(), |at| format!("its last success was {} ago", units::age(at, now)));
                format!("it is late{on}: no success for its tick of {}; {last}", tick.format("%Y-%m-%d %H:%M UTC"))
            }
            How::InTime => {
                let last = success
                    .map_or("it never succeeded".to_owned(), |at| format!("its last success was {} ago", units::age(at, now)));
                format!("{last}{on}, and it does not run until its file is mended")
            }
            How::NotKnown => match success {
                Some(at) => {
                    format!("whether it is late{on} is not known since {}, its last success", at.format("%Y-%m-%d %H:%M UTC"))
                }
                None => format!("whether it is late{on} is not known: the ledger has neither its schedule nor a success of it"),
            },
            How::ByHand => return None,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::pattern::Pattern;
    use crate::run::job::Chosen;

    fn at(text: &str) -> DateTime<Utc> {
        format!("2026-11-{text}:00Z").parse().unwrap()
    }

    fn broken(legible: Option<Job>) -> Broken {
        let (job, file) = ("nightly".to_owned(), "jobs/nightly.toml".to_owned());
        Broken { job, file, problems: Vec::new(), because_of: None, legible: legible.map(Box::new) }
    }

    fn known(schedule: Option<&str>, last_success_at: Option<&str>) -> LastKnown {
        LastKnown {
            job: "nightly".to_owned(),
            database: "app".to_owned(),
            schedule: schedule.map(str::to_owned),
            known_since: schedule.map(|_| at("01T00:00")),
            last_success_at: last_success_at.map(at),
        }
    }

    fn job() -> Job {
        Job::for_tests("nightly", crate::task::sql::Sql::default().into())
    }

    /// A configuration with these databases, and with a server `main`.
    fn config(databases: &[&str]) -> Config {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("config.toml");
        let entries: String =
            databases.iter().map(|name| format!("[databases.{name}]\nurl = \"postgres://me@db1/{name}\"\n")).collect();
        std::fs::write(&path, entries + "[servers.main]\nurl = \"postgres://me@db2\"\n").unwrap();
        crate::config::load(&path, &mut Vec::new()).unwrap()
    }

    #[test]
    fn a_broken_job_is_late_by_the_schedule_that_it_had_and_never_well() {
        let two = Some("0 2 * * * UTC");
        let slow = || Job { late_after: Duration::from_secs(5 * 3600), ..job() };
        for (legible, known, now, expected) in [
            (
                None,
                known(two, Some("20T02:10")),
                "20T12:00",
                "its last success was 9 h 50 min ago on app, and it does not run until",
            ),
            (None, known(two, Some("20T02:10")), "21T02:30", "its last success was 24 h 20 min ago on app, and"),
            (
                None,
                known(two, Some("20T02:10")),
                "21T03:30",
                "it is late on app: no success for its tick of 2026-11-21 02:00 UTC; its last success was 25 h 20 min ago",
            ),
            (Some(slow()), known(two, Some("20T02:10")), "21T03:30", "its last success was"),
            (Some(slow()), known(two, Some("20T02:10")), "21T07:30", "it is late on app"),
            (
                None,
                known(two, None),
                "21T03:30",
                "it is late on app: no success for its tick of 2026-11-21 02:00 UTC; it never succeeded",
            ),
            (
                None,
                known(Some("0 2 * * * Europe/Berlin"), Some("20T02:10")),
                "21T02:30",
                "it is late on app: no success for its tick of 2026-11-21 01:00 UTC",
            ),
            (
                None,
                known(Some("gibberish"), Some("20T02:10")),
                "21T03:30",
                "whether it is late on app is not known since 2026-11-20 02:10 UTC",
            ),
            (
                None,
                known(None, Some("20T02:10")),
                "21T03:30",
                "whether it is late on app is not known since 2026-11-20 02:10 UTC",
            ),
            (None, known(None, None), "21T03:30", "whether it is late on app is not known: "),
        ] {
            let stands = stands(&[&broken(legible)], &[known], &config(&["app"]), at(now));
            let said = stands[0].in_words(at(now)).unwrap();
            assert!(said.starts_with(expected), "{said} / {expected}");
        }
        for (legible, known) in
            [(None, known(Some(NO_SCHEDULE), None)), (Some(Job { enabled: false, ..job() }), known(two, None))]
        {
            let stands = stands(&[&broken(legible)], &[known], &config(&["app"]), at("21T03:30"));
            assert_eq!(stands[0].in_words(at("21T03:30")), None);
        }
    }

    #[test]
    fn databases_that_do_not_count_are_left_out_and_a_job_of_which_nothing_is_known_is_said() {
        let two = Some("0 2 * * * UTC");
        let rows = [known(two, None), LastKnown { database: "other".to_owned(), ..known(two, None) }];
        let of = |legible: Option<Job>, rows: &[LastKnown], databases: &[&str]| {
            let stands = stands(&[&broken(legible)], rows, &config(databases), at("21T03:30"));
            stands.into_iter().map(|stands| stands.database).collect::<Vec<_>>()
        };
        let both = ["app", "other"];
        assert_eq!(of(None, &rows, &both), both);
        assert_eq!(of(None, &rows, &["app"]), ["app"]);
        assert_eq!(of(Some(Job { databases: vec!["other".to_owned()], ..job() }), &rows, &both), ["other"]);
        let without = Job { databases: Vec::new(), ..job() };
        assert_eq!(of(Some(without.clone()), &rows, &both), both, "its `databases` are the mistake");
        assert_eq!(of(None, &rows, &[]), [""]);
        // Nobody has found those of servers, and the schemas, when a file is read.
        let on = |name: &str| LastKnown { database: name.to_owned(), ..known(two, None) };
        let rows = ["main.tenant_1", "main.shop", "main.tenant_1:a", "app:a", "app:b"].map(on);
        let chosen = |named: &[String], patterns: &[&str], schemas: &[&str]| {
            let of = |texts: &[&str]| texts.iter().map(|text| Pattern::new(text)).collect();
            Job { chosen: Chosen::by(named, of(patterns), of(schemas)), ..without.clone() }
        };
        assert_eq!(of(Some(chosen(&[], &["tenant_*"], &[])), &rows, &both), ["main.tenant_1"]);
        assert_eq!(of(Some(chosen(&["app".to_owned()], &["tenant_*"], &["a"])), &rows, &both), ["main.tenant_1:a", "app:a"]);
    }
}
