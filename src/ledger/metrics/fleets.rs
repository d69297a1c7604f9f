//! Metrics of jobs with patterns in `databases`: one set of series for each job, however many databases it has.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::facts::Known;

/// The values of each database, of which [`Fleets::sums`] makes those that are shown. Clones share them.
#[derive(Clone, Default)]
pub struct Fleets(Arc<Mutex<HashMap<String, Fleet>>>);

struct Fleet {
    /// The patterns: the label `database`.
    label: String,
    databases: HashMap<String, Values>,
    /// It is late because it has no database to run on.
    is_late_alone: bool,
}

/// What is known of a job on one database. Times are seconds since 1970.
#[derive(Clone, Debug, Default)]
pub struct Values {
    pub last_success: Option<f64>,
    pub next_run: Option<f64>,
    pub is_late: bool,
    pub has_failed: bool,
    pub known: Known,
}

/// What is shown of a job.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Sums {
    /// The oldest of the last successes; 0 if no database has one. One that is new has none yet: it waits, and is late when it has missed its tick.
    pub last_success: f64,
    /// The soonest; 0 if there is none.
    pub next_run: f64,
    /// How many databases are failed, late and not failed, well, and without a run that says which.
    pub failed: i64,
    pub late: i64,
    /// It has no database, and is late for that.
    pub is_late_alone: bool,
    pub well: i64,
    pub waiting: i64,
    pub known: Known,
}

impl Fleets {
    /// Says that the job has these patterns, or none. Returns the label of series that it had before and has no more.
    pub fn set(&self, job: &str, label: Option<&str>) -> Option<String> {
        let mut fleets = self.lock();
        let before = fleets.get(job).map(|fleet| fleet.label.clone());
        if before.as_deref() == label {
            return None;
        }
        match label {
            Some(label) => {
                let fleet = fleets.entry(job.to_owned()).or_insert_with(|| Fleet {
                    label: String::new(),
                    databases: HashMap::new(),
                    is_late_alone: false,
                });
                fleet.label = label.to_owned();
            }
            None => drop(fleets.remove(job)),
        }
        before
    }

    /// Returns the label of a job with patterns.
    pub fn label(&self, job: &str) -> Option<String> {
        self.lock().get(job).map(|fleet| fleet.label.clone())
    }

    /// Changes the values of a database; false if the job has no patterns.
    pub fn update(&self, job: &str, database: &str, change: impl FnOnce(&mut Values)) -> bool {
        let mut fleets = self.lock();
        let Some(fleet) = fleets.get_mut(job) else { return false };
        match fleet.databases.get_mut(database) {
            Some(values) => change(values),
            None => change(fleet.databases.entry(database.to_owned()).or_default()),
        }
        true
    }

    pub fn late_without_databases(&self, job: &str, is_late: bool) {
        if let Some(fleet) = self.lock().get_mut(job) {
            fleet.is_late_alone = is_late;
        }
    }

    /// Forgets a database; false if the job has no patterns.
    pub fn forget(&self, job: &str, database: &str) -> bool {
        let mut fleets = self.lock();
        let Some(fleet) = fleets.get_mut(job) else { return false };
        fleet.databases.remove(database);
        true
    }

    /// Returns the name, the label and the sums of each job with patterns.
    pub fn sums(&self) -> Vec<(String, String, Sums)> {
        let fleets = self.lock();
        fleets
            .iter()
            .map(|(job, fleet)| {
                (
                    job.clone(),
                    fleet.label.clone(),
                    Sums { is_late_alone: fleet.is_late_alone, ..Sums::of(fleet.databases.values()) },
                )
            })
            .collect()
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<String, Fleet>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Sums {
    fn of<'v>(databases: impl Iterator<Item = &'v Values> + Clone) -> Self {
        let all = || databases.clone();
        let least = |of: fn(&Values) -> Option<f64>| all().filter_map(of).filter(|at| *at > 0.0).min_by(f64::total_cmp);
        let mut sums = Self {
            last_success: least(|values| values.last_success).unwrap_or_default(),
            next_run: least(|values| values.next_run).unwrap_or_default(),
            known: Known::together(all().map(|values| (&values.known, values.has_failed || values.is_late))),
            ..Self::default()
        };
        for values in all() {
            *match values {
                Values { has_failed: true, .. } => &mut sums.failed,
                Values { is_late: true, .. } => &mut sums.late,
                Values { last_success: Some(_), .. } => &mut sums.well,
                Values { .. } => &mut sums.waiting,
            } += 1;
        }
        sums
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_job_on_many_databases_shows_their_worst_and_their_sums() {
        let fleets = Fleets::default();
        assert_eq!(fleets.set("nightly", Some("tenant_*")), None);
        assert!(!fleets.update("other", "a", |_| {}), "no job with patterns");
        let set = |database: &str, values: Values| fleets.update("nightly", database, |old| *old = values);
        let known = |stored_bytes, proved_at| Known { stored_bytes: Some(stored_bytes), proved_at, ..Known::default() };
        let of_a = Known { findings: [None, Some(2), None, None], ..known(1, Some(9.0)) };
        set("a", Values { last_success: Some(20.0), next_run: Some(50.0), known: of_a, ..Values::default() });
        let of_b = Known { findings: [None, Some(3), Some(1), None], ..known(2, Some(8.0)) };
        set("b", Values { last_success: Some(10.0), next_run: Some(40.0), is_late: true, known: of_b, ..Values::default() });
        let of_c = Known { restore_seconds: Some(3.0), proved_sets: Some(4), ..Known::default() };
        set("c", Values { last_success: Some(30.0), has_failed: true, is_late: true, known: of_c, ..Values::default() });
        let sums = || fleets.sums().remove(0).2;
        let expected = Sums {
            last_success: 10.0,
            next_run: 40.0,
            failed: 1,
            late: 1,
            is_late_alone: false,
            well: 1,
            waiting: 0,
            known: Known {
                restore_seconds: Some(3.0),
                proved_sets: Some(4),
                findings: [None, Some(5), Some(1), None],
                ..known(3, Some(8.0))
            },
        };
        assert_eq!(sums(), expected);
        set("d", Values::default());
        fleets.update("nightly", "d", |values| values.known.update(&Known::proved(None)));
        assert_eq!((sums().last_success, sums().known.proved_at, sums().waiting), (10.0, Some(8.0), 1), "a new one waits");
        assert!(fleets.forget("nightly", "d"));
        assert_eq!(sums(), expected);
        assert_eq!(fleets.set("nightly", None).as_deref(), Some("tenant_*"));
        assert!(fleets.sums().is_empty());
    }
}
