//! `pgtend render kubernetes` prints a CronJob for each scheduled job and database, for clusters that run jobs one by one instead
//! of `pgtend serve`. Volumes and security settings are those of kubernetes/base/deployment.yaml.

use std::collections::BTreeMap;

use super::cron::{self, Fields, Part};

pub struct CronJob<'a> {
    pub job: &'a str,
    pub database: &'a str,
    /// True when the job has just this database.
    pub only_database: bool,
    /// True when `database` is what the job's patterns are: a run finds out which databases they stand for.
    pub has_patterns: bool,
    /// The schedule has five fields, six with seconds, or is `@daily` and the like.
    pub schedule: &'a str,
    pub timezone: &'a str,
    pub timeout_seconds: Option<u64>,
    pub description: Option<&'a str>,
    pub enabled: bool,
    pub catch_up_within_seconds: u64,
    /// True when another pod may follow one that failed.
    pub may_run_again: bool,
}

pub struct Options<'a> {
    pub image: &'a str,
    pub namespace: Option<&'a str>,
}

/// Killing children, aborting an upload and dropping a scratch database take 60 s at most.
const CLEAN_UP_SECONDS: u64 = 90;

/// Kubernetes looks for due CronJobs every 10 s, and forgets one whose deadline is shorter than that.
const MIN_STARTING_DEADLINE_SECONDS: u64 = 60;

/// A CronJob's name may have 52 characters: its Jobs get 11 more.
const LONGEST_NAME: usize = 52;

/// Returns YAML documents.
pub fn kubernetes(jobs: &[CronJob], options: &Options) -> Result<String, String> {
    let mut names = BTreeMap::new();
    let mut documents = String::new();
    for job in jobs {
        let name = name(job);
        if let Some(other) = names.insert(name.clone(), (job.job, job.database)) {
            return Err(format!("jobs {} and {} would both become CronJob {name}: rename one of them", job.job, other.0));
        }
        documents += &document(job, &name, options)?;
    }
    Ok(documents)
}

fn document(job: &CronJob, name: &str, options: &Options) -> Result<String, String> {
    let schedule = five_fields(job.schedule)
        .map_err(|reason| format!("job {}: `{}` cannot become a CronJob: {reason}", job.job, job.schedule))?;
    let namespace = options.namespace.map(|name| format!("  namespace: {}\n", quote(name))).unwrap_or_default();
    let description = job.description.map(|text| format!("    pgtend/description: {}\n", quote(text))).unwrap_or_default();
    // The deadline covers all tries together: a run that used up its time is not tried again.
    let deadline = match job.timeout_seconds {
        Some(seconds) => format!("      activeDeadlineSeconds: {}\n", seconds.saturating_add(CLEAN_UP_SECONDS)),
        None => String::new(),
    };
    Ok(format!(
        include_str!("cronjob.yaml"),
        name = name,
        namespace = namespace,
        description = description,
        deadline = deadline,
        clean_up_seconds = CLEAN_UP_SECONDS,
        job_name = quote(job.job),
        database = quote(job.database),
        schedule = quote(&schedule),
        timezone = quote(job.timezone),
        suspend = !job.enabled,
        retries = u8::from(job.may_run_again),
        starting_deadline = job.catch_up_within_seconds.max(MIN_STARTING_DEADLINE_SECONDS),
        image = quote(options.image),
        job_argument = argument(job.job),
        // This is one argument, since a database's name may begin with a dash.
        database_argument =
            if job.has_patterns { String::new() } else { format!(", {}", argument(&format!("--database={}", job.database))) },
    ))
}

/// Returns `pgtend-JOB`, or `pgtend-JOB-DATABASE-HASH` when the job has several databases. A name that is not a DNS label, is too
/// long, or looks like one with a hash gets the hash, so that each name stands for one job and database.
fn name(job: &CronJob) -> String {
    let readable = if job.only_database { job.job.to_owned() } else { format!("{}-{}", job.job, job.database) };
    let label: String = readable.chars().map(|c| if c.is_ascii_alphanumeric() { c.to_ascii_lowercase() } else { '-' }).collect();
    let plain = format!("pgtend-{label}");
    let looks_hashed =
        label.rsplit_once('-').is_some_and(|(_, end)| end.len() == 8 && end.chars().all(|c| c.is_ascii_hexdigit()));
    if job.only_database && label == job.job && !label.ends_with('-') && !looks_hashed && plain.len() <= LONGEST_NAME {
        return plain;
    }
    // A job with one database keeps its name when that database changes.
    let database = if job.only_database { None } else { Some(job.database) };
    let hash = hash(job.job, database);
    let kept = plain[..plain.len().min(LONGEST_NAME - 9)].trim_end_matches('-');
    format!("{kept}-{hash:08x}")
}

/// Returns FNV-1a, folded to 32 bits: the same in every release, which the standard library's hash is not.
fn hash(job: &str, database: Option<&str>) -> u32 {
    // No name has a zero byte, so "a", "bc" and "ab", "c" differ.
    let database = database.into_iter().flat_map(|name| [0].into_iter().chain(name.bytes()));
    let hash = job
        .bytes()
        .chain(database)
        .fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3));
    (hash >> 32) as u32 ^ hash as u32
}

/// Writes numbers only: Kubernetes knows neither seconds, nor 7 for Sunday, nor a range across Sunday.
fn five_fields(schedule: &str) -> Result<String, String> {
    let Fields { seconds, minutes, hours, days, months, weekdays, day_and_weekday } = cron::fields(schedule)?;
    if seconds != [0] {
        return Err("Kubernetes starts jobs on full minutes only: set the seconds to 0".to_owned());
    }
    if day_and_weekday && days.is_some() && weekdays.is_some() {
        return Err("Kubernetes cannot require both a day and a weekday".to_owned());
    }
    Ok([
        numbers(&minutes, 0, 59),
        numbers(&hours, 0, 23),
        days.map_or("*".to_owned(), |days| either(&days, 1, 31)),
        numbers(&months, 1, 12),
        weekdays.map_or("*".to_owned(), |days| either(&days, 0, 6)),
    ]
    .join(" "))
}

/// Names every day instead of writing `*`: with `*`, the other day field alone decides.
fn either(days: &[u16], min: u16, max: u16) -> String {
    let text = numbers(days, min, max);
    if text == "*" { format!("{min}-{max}") } else { text }
}

fn numbers(numbers: &[u16], min: u16, max: u16) -> String {
    if numbers.len() == usize::from(max - min) + 1 {
        return "*".to_owned();
    }
    let part = |part| match part {
        Part::One(number) => number.to_string(),
        Part::Range { first, last } => format!("{first}-{last}"),
        Part::Step { first, last, step } if first == min && last + step > max => format!("*/{step}"),
        Part::Step { first, last, step } => format!("{first}-{last}/{step}"),
    };
    cron::parts(numbers).into_iter().map(part).collect::<Vec<_>>().join(",")
}

/// Kubernetes takes `$(NAME)` in arguments for a variable, and `$$` for a dollar.
fn argument(text: &str) -> String {
    quote(&text.replace('$', "$$"))
}

/// Quotes any text as a YAML scalar.
fn quote(text: &str) -> String {
    let mut quoted = String::from("\"");
    for c in text.chars() {
        match c {
            '"' | '\\' => quoted.extend(['\\', c]),
            // These are line ends and characters that YAML forbids; all of them are in the first plane.
            _ if c.is_control() || matches!(c, '\u{2028}' | '\u{2029}' | '\u{feff}' | '\u{fffe}' | '\u{ffff}') => {
                quoted += &format!("\\u{:04x}", u32::from(c));
            }
            _ => quoted.push(c),
        }
    }
    quoted.push('"');
    quoted
}

#[cfg(test)]
#[path = "kubernetes_tests.rs"]
mod tests;
