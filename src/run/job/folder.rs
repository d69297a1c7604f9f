//! Reads the folder of jobs: which files are jobs, which are broken, and in which order jobs run after each other. A file with
//! mistakes is skipped, and so are the jobs that run after it; the others go on.

use std::collections::HashMap;
use std::path::Path;

use toml::Spanned;

use super::Job;
use super::file::{Loaded, load_file};
use crate::base::toml_file::{Problem, did_you_mean, without_number};
use crate::base::units::plural;
use crate::config::Config;

/// The contents of a folder of jobs.
#[derive(Debug, Default)]
pub struct Folder {
    pub jobs: Vec<Job>,
    pub broken: Vec<Broken>,
    /// Files that look like jobs but are not read, each with advice.
    pub misnamed: Vec<String>,
    /// Other files and folders that are not read, and may have been meant as jobs.
    pub unread: Vec<String>,
    /// What jobs are allowed to say, and probably do not mean.
    pub notes: Vec<String>,
}

/// A job that is skipped.
#[derive(Clone, Debug)]
pub struct Broken {
    pub job: String,
    pub file: String,
    /// The problems of its file; empty for a job that only runs after a broken one.
    pub problems: Vec<Problem>,
    pub because_of: Option<String>,
    /// The job without the keys that have mistakes, where the file can be read so far.
    pub legible: Option<Box<Job>>,
}

impl Broken {
    /// Returns every reason, each on a line.
    pub fn reasons(&self) -> Vec<String> {
        let of_others =
            self.because_of.iter().map(|other| format!("{}: it runs after job `{other}`, which is skipped", self.file));
        self.problems.iter().map(Problem::in_a_line).chain(of_others).collect()
    }
}

impl Folder {
    /// Returns every mistake of every file.
    pub fn problems(&self) -> Vec<Problem> {
        self.broken.iter().flat_map(|broken| broken.problems.iter().cloned()).collect()
    }
}

/// A file of the folder.
struct Entry {
    name: String,
    file: String,
    loaded: Option<Loaded>,
    problems: Vec<Problem>,
    because_of: Option<String>,
}

impl Entry {
    fn is_broken(&self) -> bool {
        !self.problems.is_empty() || self.because_of.is_some() || self.loaded.is_none()
    }
}

/// A folder with more is no folder of jobs.
const FILES_LOOKED_AT: usize = 1000;

/// Reads every `*.toml` in `folder`, in the order of their names.
pub fn load_dir(folder: &Path, config: &Config) -> Result<Folder, Box<Problem>> {
    let files = std::fs::read_dir(folder).map_err(|error| {
        let hint = "name the folder with --jobs DIR".to_owned();
        Box::new(Problem::with_file(folder, format!("cannot read the folder of jobs: {}", without_number(&error)), Some(hint)))
    })?;
    let mut paths: Vec<_> = files.filter_map(|entry| entry.ok().map(|entry| entry.path())).collect();
    paths.sort();
    let unread = paths.iter().filter_map(|path| unread(path)).collect();
    let misnamed = paths.iter().filter_map(|path| misnamed(path)).collect();
    let mut entries: Vec<Entry> = paths
        .iter()
        .filter(|path| path.extension().is_some_and(|extension| extension == "toml"))
        .map(|path| {
            let mut problems = Vec::new();
            let loaded = load_file(path, config, &mut problems);
            let name = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
            Entry { name, file: path.display().to_string(), loaded, problems, because_of: None }
        })
        .collect();
    check_order(&mut entries);
    let notes = entries.iter().flat_map(|entry| entry.loaded.iter().flat_map(|loaded| loaded.notes.clone())).collect();
    let (broken, good): (Vec<_>, Vec<_>) = entries.into_iter().partition(Entry::is_broken);
    let broken = broken
        .into_iter()
        .map(|Entry { name, file, loaded, problems, because_of }| {
            let legible = loaded.map(|loaded| Box::new(loaded.job));
            Broken { job: name, file, problems, because_of, legible }
        })
        .collect();
    let mut jobs: Vec<Job> = good.into_iter().filter_map(|entry| entry.loaded.map(with_order)).collect();
    hand_down_schedules(&mut jobs);
    Ok(Folder { jobs, broken, misnamed, unread, notes })
}

/// Explains a file that was probably meant as a job: another spelling of `toml`, or another language for such files.
fn misnamed(path: &Path) -> Option<String> {
    let name = path.file_name()?.to_string_lossy();
    let extension = path.extension()?.to_string_lossy();
    let looks_like_one = ["toml", "tml", "yml", "yaml", "json", "conf"].iter().any(|known| extension.eq_ignore_ascii_case(known));
    if name.starts_with('.') || extension == "toml" || !looks_like_one {
        return None;
    }
    Some(format!("{} is not read: a job is a TOML file whose name ends in .toml, in lower case", path.display()))
}

/// Names a file that an editor or a person put aside, and a folder with files like jobs.
fn unread(path: &Path) -> Option<String> {
    let name = path.file_name()?.to_string_lossy();
    if name.starts_with('.') {
        return None;
    }
    if path.is_dir() {
        let is_job = |entry: &std::fs::DirEntry| {
            let name = entry.file_name().to_string_lossy().into_owned();
            name.ends_with(".toml") && !name.starts_with('.')
        };
        let count = std::fs::read_dir(path).ok()?.flatten().take(FILES_LOOKED_AT).filter(is_job).count();
        let files = plural(count, "file");
        return (count > 0 && !name.ends_with(".toml"))
            .then(|| format!("{} is a folder, and is not read: it has {files} in TOML", path.display()));
    }
    let is_aside =
        name.contains(".toml") && !name.ends_with(".toml") || path.extension().is_some_and(|extension| extension == "txt");
    (is_aside && misnamed(path).is_none()).then(|| format!("{} is not read: a job's name ends in .toml", path.display()))
}

/// Finds mistakes in `after`, and the jobs that are skipped because of another one.
fn check_order(entries: &mut [Entry]) {
    let names: Vec<String> = entries.iter().map(|entry| entry.name.clone()).collect();
    for Entry { name: own, loaded, problems, .. } in entries.iter_mut() {
        let Some(Loaded { after, source, .. }) = loaded else { continue };
        for name in after.iter().filter(|name| !names.contains(name.get_ref())) {
            let hint = did_you_mean(name.get_ref(), names.iter().map(String::as_str).filter(|other| other != own));
            let hint = hint.or_else(|| Some("a job is named after its file, without .toml".to_owned()));
            problems.push(source.problem(Some(name.span()), format!("there is no job `{}`", name.get_ref()), hint));
        }
    }
    let order: HashMap<String, Vec<String>> = entries
        .iter()
        .filter_map(|entry| {
            Some((entry.name.clone(), entry.loaded.as_ref()?.after.iter().map(|name| name.get_ref().clone()).collect()))
        })
        .collect();
    let mut circle: Option<String> = None;
    for entry in entries.iter_mut().filter(|entry| reaches(&order, &entry.name, &entry.name)) {
        // Each circle is reported once, at its first job.
        match &circle {
            Some(first) => entry.because_of = Some(first.clone()),
            None => {
                circle = Some(entry.name.clone());
                let message = format!("job `{}` waits for itself: its `after` leads back to it", entry.name);
                let hint = "take one of the jobs out of `after`".to_owned();
                entry.problems.push(Problem::with_file(Path::new(&entry.file), message, Some(hint)));
            }
        }
    }
    loop {
        let broken: Vec<String> = entries.iter().filter(|entry| entry.is_broken()).map(|entry| entry.name.clone()).collect();
        for entry in entries.iter_mut().filter(|entry| !entry.is_broken()) {
            let after = order.get(&entry.name).map(Vec::as_slice).unwrap_or_default();
            entry.because_of = after.iter().find(|name| broken.contains(name)).cloned();
        }
        if entries.iter().filter(|entry| entry.is_broken()).count() == broken.len() {
            return;
        }
    }
}

fn with_order(loaded: Loaded) -> Job {
    let Loaded { mut job, after, .. } = loaded;
    job.after = after.into_iter().map(Spanned::into_inner).collect();
    job
}

fn hand_down_schedules(jobs: &mut [Job]) {
    // There are no circles, so as many rounds as there are jobs reach the end of every chain.
    for _ in 0..jobs.len() {
        for index in 0..jobs.len() {
            let first = jobs[index].after.first().and_then(|first| jobs.iter().find(|job| job.name == *first));
            if let (None, Some(first)) = (&jobs[index].schedule, first)
                && first.schedule.is_some()
            {
                let (schedule, timezone) = (first.schedule.clone(), first.timezone);
                jobs[index].schedule = schedule;
                jobs[index].timezone = timezone;
            }
        }
    }
}

/// Returns whether `after`, followed from `from`, leads to `to`.
fn reaches(order: &HashMap<String, Vec<String>>, from: &str, to: &str) -> bool {
    let mut seen: Vec<&str> = Vec::new();
    let mut open: Vec<&str> = vec![from];
    while let Some(name) = open.pop() {
        for next in order.get(name).map(Vec::as_slice).unwrap_or_default() {
            if next == to {
                return true;
            }
            if !seen.contains(&next.as_str()) {
                seen.push(next);
                open.push(next);
            }
        }
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::toml_file::Source;

    #[test]
    fn files_that_were_meant_as_jobs_are_named() {
        for name in ["a.yml", "a.YAML", "a.TOML", "a.Toml", "a.json", "a.tml"] {
            assert!(misnamed(Path::new(name)).is_some_and(|said| said.starts_with(name)), "{name}");
        }
        for name in ["a.toml", ".hidden.yml", "schema.sql", "README.md", "toml", "a.toml~", ".toml"] {
            assert_eq!(misnamed(Path::new(name)), None, "{name}");
        }
    }

    #[test]
    fn what_runs_after_a_broken_job_is_left_out_and_the_others_go_on() {
        let entry = |name: &str, after: &[&str], is_broken: bool| {
            let order = after.iter().map(|name| Spanned::new(0..0, (*name).to_owned())).collect();
            let job = Job::for_tests(name, crate::task::sql::Sql::default().into());
            let problem = Problem::with_file(Path::new("x"), "x", None);
            Entry {
                name: name.to_owned(),
                file: format!("jobs/{name}.toml"),
                loaded: Some(Loaded { job, source: Source::from_text(""), after: order, notes: Vec::new() }),
                problems: if is_broken { vec![problem] } else { Vec::new() },
                because_of: None,
            }
        };
        let mut entries = [
            entry("bad", &[], true),
            entry("second", &["bad"], false),
            entry("third", &["second"], false),
            entry("round", &["trip"], false),
            entry("trip", &["round"], false),
            entry("well", &[], false),
        ];
        check_order(&mut entries);
        let left: Vec<&str> = entries.iter().filter(|entry| !entry.is_broken()).map(|entry| entry.name.as_str()).collect();
        assert_eq!(left, ["well"]);
        assert_eq!(entries[2].because_of.as_deref(), Some("second"));
        assert_eq!(entries.iter().map(|entry| entry.problems.len()).sum::<usize>(), 2, "the circle is told once");
    }
}
