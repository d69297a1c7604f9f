//! Which jobs a page shows: those that match its filter, some at a time; without one, the many databases of a job are folded into a line. Pure.

use std::collections::BTreeMap;

use chrono::{DateTime, Utc};
use serde::Deserialize;

use crate::ledger::Key;
use crate::web::status::{JobStatus, group};
use crate::web::trouble::{never_ran, rank, trouble};

/// A group of more rows than this is folded into one line; rows in trouble stay outside.
const FOLD_ROWS: usize = 8;

/// The rows of one page; each has the strip of its last runs.
pub const ROWS: usize = 60;

/// The folded groups of one page.
const FOLDS: usize = 60;

/// A search of more characters is cut.
const MAX_SEARCH: usize = 200;

/// The filter of the status page, as its address has it.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Filter {
    /// Part of a job's name, a database's name or a description.
    pub q: String,
    /// A kind of task.
    pub task: String,
    pub state: String,
    /// The jobs of this name, and those of a fleet that are made from it.
    pub group: String,
    /// From 1.
    pub page: usize,
    /// Anything: the page reloads by itself. Without it a page stands still, for people who read slowly.
    pub live: String,
}

/// The states that one can ask for, each with its words.
pub const STATES: [(&str, &str); 6] = [
    ("trouble", "needs attention"),
    ("running", "running"),
    ("warnings", "with warnings"),
    ("well", "well"),
    ("never", "not run yet"),
    ("disabled", "disabled"),
];

impl Filter {
    /// Returns whether it leaves anything out.
    pub fn is_set(&self) -> bool {
        [&self.q, &self.task, &self.state, &self.group].into_iter().any(|text| !text.is_empty())
    }

    /// Returns whether a name contains what is searched for.
    pub fn matches_name(&self, name: &str) -> bool {
        let wanted: String = self.q.trim().chars().take(MAX_SEARCH).collect();
        wanted.is_empty() || name.to_lowercase().contains(&wanted.to_lowercase())
    }

    fn matches(&self, job: &JobStatus) -> bool {
        let names = [Some(&job.job), Some(&job.database), job.description.as_ref()];
        let is_named = names.into_iter().flatten().any(|name| self.matches_name(name));
        is_named && (self.task.is_empty() || job.task == self.task) && self.matches_group(job) && self.matches_state(job)
    }

    fn matches_group(&self, job: &JobStatus) -> bool {
        self.group.is_empty() || job.job == self.group || group(&job.job) == self.group
    }

    fn matches_state(&self, job: &JobStatus) -> bool {
        match self.state.as_str() {
            "trouble" => trouble(job).is_some(),
            "running" => job.running.is_some(),
            "warnings" => job.history.last().is_some_and(|run| !run.warnings.is_empty()),
            "well" => rank(job) == 2 && !never_ran(job),
            "never" => never_ran(job),
            "disabled" => !job.enabled,
            _ => true,
        }
    }
}

/// What one page shows of the jobs.
#[derive(Clone, Debug, Default)]
pub struct Choice {
    /// The rows, those in trouble first.
    pub rows: Vec<JobStatus>,
    pub folds: Vec<Fold>,
    /// The jobs on databases that match, on all pages.
    pub matching: usize,
    /// From 1.
    pub page: usize,
    pub pages: usize,
}

/// The rows of a group in one line.
#[derive(Clone, Debug)]
pub struct Fold {
    pub name: String,
    /// It has several jobs, and not one job on several databases.
    pub is_fleet: bool,
    /// These are the databases of a job with patterns that are under way or in trouble: they say nothing of how many are well.
    pub is_part: bool,
    pub running: usize,
    pub total: usize,
    pub well: usize,
    pub bad: usize,
    pub size_bytes: u64,
    pub next_at: Option<DateTime<Utc>>,
}

impl Choice {
    pub fn of(jobs: &[JobStatus], filter: &Filter) -> Self {
        let mut matching: Vec<&JobStatus> = jobs.iter().filter(|job| filter.matches(job)).collect();
        matching.sort_by_key(|job| rank(job));
        let mut groups: BTreeMap<&str, Vec<&JobStatus>> = BTreeMap::new();
        for job in &matching {
            groups.entry(group(&job.job)).or_default().push(job);
        }
        let is_folded = |job: &JobStatus| !filter.is_set() && groups[group(&job.job)].len() > FOLD_ROWS;
        let rows: Vec<&JobStatus> = matching.iter().filter(|job| !is_folded(job) || trouble(job).is_some()).copied().collect();
        let folds: Vec<&str> = groups.keys().filter(|name| is_folded(groups[*name][0])).copied().collect();
        let pages = rows.len().div_ceil(ROWS).max(folds.len().div_ceil(FOLDS)).max(1);
        let page = filter.page.clamp(1, pages);
        Self {
            rows: rows.into_iter().skip((page - 1) * ROWS).take(ROWS).cloned().collect(),
            folds: folds.into_iter().skip((page - 1) * FOLDS).take(FOLDS).map(|name| Fold::of(name, &groups[name])).collect(),
            matching: matching.len(),
            page,
            pages,
        }
    }

    /// The jobs whose last runs are to be read.
    pub fn keys(&self) -> Vec<Key> {
        self.rows.iter().map(|job| (job.job.clone(), job.database.clone())).collect()
    }
}

impl Fold {
    fn of(name: &str, rows: &[&JobStatus]) -> Self {
        Self {
            name: name.to_owned(),
            is_fleet: rows.iter().any(|job| job.job != rows[0].job),
            is_part: rows.iter().any(|job| job.is_of_fleet),
            running: rows.iter().filter(|job| job.running.is_some()).count(),
            total: rows.len(),
            well: rows.iter().filter(|job| rank(job) == 2 && !never_ran(job)).count(),
            bad: rows.iter().filter(|job| trouble(job).is_some()).count(),
            size_bytes: rows.iter().filter_map(|job| job.history.iter().rev().find_map(|run| run.size_bytes)).sum(),
            next_at: rows.iter().filter_map(|job| job.next_run_at.as_ref()).map(|next| next.to_utc()).min(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ledger::report::Outcome;
    use crate::web::status::tests::{job, run, well};

    #[test]
    fn a_filter_shows_what_matches_all_of_it_and_some_at_a_time() {
        let mut jobs: Vec<JobStatus> =
            (0..150).map(|number| job("nightly", &format!("tenant_{number}"), &[Outcome::Succeeded])).collect();
        jobs.push(job("nightly", "broken", &[Outcome::Failed]));
        jobs.push(JobStatus { task: "sql", enabled: false, ..well("Refresh") });
        let of = |filter: Filter| Choice::of(&jobs, &filter);
        let all = of(Filter::default());
        assert_eq!((all.rows.len(), all.folds.len(), all.matching), (2, 1, 152), "the broken one, and the other job");
        assert_eq!((all.folds[0].total, all.folds[0].well, all.folds[0].bad), (151, 150, 1));
        let group = |page| of(Filter { group: "nightly".to_owned(), page, ..Filter::default() });
        assert_eq!((group(0).rows.len(), group(0).pages, group(3).rows.len(), group(99).page), (ROWS, 3, 31, 3));
        assert_eq!(group(0).rows[0].database, "broken", "those in trouble come first");
        let names = |q: &str, task: &str, state: &str| {
            let found = of(Filter { q: q.to_owned(), task: task.to_owned(), state: state.to_owned(), ..Filter::default() });
            found.rows.iter().map(|job| job.database.clone()).collect::<Vec<_>>()
        };
        assert_eq!(
            names(" TENANT_14 ", "", ""),
            [
                "tenant_14",
                "tenant_140",
                "tenant_141",
                "tenant_142",
                "tenant_143",
                "tenant_144",
                "tenant_145",
                "tenant_146",
                "tenant_147",
                "tenant_148",
                "tenant_149"
            ]
        );
        assert_eq!(names("", "", "trouble"), ["broken"]);
        assert_eq!(names("refresh", "sql", "disabled"), ["app"]);
        assert!(names("refresh", "backup", "").is_empty() && names("nightly", "", "never").is_empty());
    }

    #[test]
    fn databases_of_patterns_that_are_under_way_are_not_counted_as_well() {
        let running = |number: i64, outcome| {
            let shown = job("nightly", &format!("main.t{number}"), &[outcome]);
            JobStatus { is_of_fleet: true, running: Some(run(1000 + number, "nightly", "x", Outcome::Failed)), ..shown }
        };
        let mut jobs: Vec<JobStatus> = (0..20).map(|number| running(number, Outcome::Succeeded)).collect();
        jobs.push(running(20, Outcome::Failed));
        jobs.push(JobStatus { late: true, ..running(21, Outcome::Succeeded) });
        let all = Choice::of(&jobs, &Filter::default());
        let fold = &all.folds[0];
        assert_eq!((fold.is_part, fold.running, fold.bad), (true, 22, 2));
        let rows: Vec<&str> = all.rows.iter().map(|job| job.database.as_str()).collect();
        assert_eq!(rows, ["main.t20", "main.t21"], "the last finished run failed, and no success for the last tick");
    }

    #[test]
    fn the_jobs_of_a_fleet_stand_under_the_name_that_they_are_made_from() {
        let jobs: Vec<JobStatus> = (0..300).map(|number| well(&format!("nightly@tenant_{number}"))).collect();
        let all = Choice::of(&jobs, &Filter::default());
        assert_eq!((all.rows.len(), all.folds.len()), (0, 1));
        assert!(all.folds[0].is_fleet && all.folds[0].name == "nightly" && all.folds[0].total == 300);
    }
}
