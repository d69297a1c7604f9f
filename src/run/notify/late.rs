//! Late jobs, as they are told: each alone, but the databases of a job with patterns together, as hundreds become late at once.

use std::collections::BTreeMap;

use chrono::{DateTime, Utc};

use crate::base::units;
use crate::ledger::Key;

/// More names in one message would hide what it says.
const NAMED: usize = 5;

/// A job on a database, and how late it is.
#[derive(Clone, Debug)]
pub struct Late {
    /// The job, and the database's name; in what is told, the latter may say in words how many they are.
    pub key: Key,
    /// The databases of its job are chosen by patterns.
    pub is_of_fleet: bool,
    /// The places that its file names.
    pub notify: Option<Vec<String>>,
    /// The tick for which a success is overdue, if it is late.
    pub due_at: Option<DateTime<Utc>>,
    pub last_success_at: Option<DateTime<Utc>>,
    /// Why no run may come, where that is known.
    pub why: Option<String>,
}

/// Returns one for each job with patterns, however many of its databases are among them. Pure.
pub fn in_one(all: Vec<Late>) -> Vec<Late> {
    let (of_fleets, mut told): (Vec<Late>, Vec<Late>) = all.into_iter().partition(|late| late.is_of_fleet);
    let mut by_job: BTreeMap<String, Vec<Late>> = BTreeMap::new();
    for late in of_fleets {
        by_job.entry(late.key.0.clone()).or_default().push(late);
    }
    told.extend(by_job.into_values().filter_map(together));
    told
}

fn together(of_job: Vec<Late>) -> Option<Late> {
    let names: Vec<&str> = of_job.iter().take(NAMED).map(|late| late.key.1.as_str()).collect();
    let (count, more) = (of_job.len(), of_job.len() - names.len());
    let names = names.join(", ") + &if more > 0 { format!(" and {more} more") } else { String::new() };
    let database = if count == 1 { names } else { format!("{}: {names}", units::plural(count, "database")) };
    // The one that waits longest for a success; one without any waits longer than all.
    let oldest = of_job.into_iter().min_by_key(|late| late.last_success_at)?;
    Some(Late { key: (oldest.key.0.clone(), database), ..oldest })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hundreds_of_databases_of_a_job_with_patterns_are_told_in_one_and_other_jobs_alone() {
        let at = |second: i64| DateTime::from_timestamp(second, 0);
        let late = |job: &str, database: &str, is_of_fleet, last_success_at| Late {
            key: (job.to_owned(), database.to_owned()),
            is_of_fleet,
            notify: None,
            due_at: at(100),
            last_success_at,
            why: None,
        };
        let mut all = vec![late("alone", "a", false, None), late("alone", "b", false, None), late("one", "x", true, at(3))];
        all.extend((0..300).map(|number| late("nightly", &format!("main.t{number}"), true, at(50 - i64::from(number == 7)))));
        let told = in_one(all);
        let shown: Vec<(&str, &str)> = told.iter().map(|late| (late.key.0.as_str(), late.key.1.as_str())).collect();
        let many = "300 databases: main.t0, main.t1, main.t2, main.t3, main.t4 and 295 more";
        assert_eq!(shown, [("alone", "a"), ("alone", "b"), ("nightly", many), ("one", "x")]);
        assert_eq!(told[2].last_success_at, at(49), "the oldest success");
    }
}
