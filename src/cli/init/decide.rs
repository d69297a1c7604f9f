//! Which jobs fit a database, and why: pure.

use schemars::JsonSchema;
use serde::Serialize;

use super::facts::{Contents, Partitioned, Text, Timed, Vector, table};
use crate::base::units;

/// Of each kind, this many tables of a database get a job: the largest. More is for a person to choose from.
const MOST_OF_A_KIND: usize = 5;

/// Below this, no table is worth a view in its place.
const LARGE_TEXT_BYTES: i64 = 64 << 20;

/// The default of `exact_below`: with fewer vectors no index is built.
const FEW_VECTORS: f64 = 2000.0;

/// What a job does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Does {
    Backup {
        /// Restored and counted; otherwise only read back.
        restores: bool,
    },
    Audit,
    Retention {
        table: String,
        column: String,
    },
    Partition {
        table: String,
        column: String,
        every: &'static str,
    },
    VectorIndex {
        table: String,
        column: String,
        metric: Option<&'static str>,
    },
    Compress {
        table: String,
        column: String,
    },
}

impl Does {
    /// Returns the task's name in files.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Backup { .. } => "backup",
            Self::Audit => "audit",
            Self::Retention { .. } => "retention",
            Self::Partition { .. } => "partition",
            Self::VectorIndex { .. } => "vector_index",
            Self::Compress { .. } => "compress",
        }
    }

    pub fn table(&self) -> Option<&str> {
        match self {
            Self::Backup { .. } | Self::Audit => None,
            Self::Retention { table, .. }
            | Self::Partition { table, .. }
            | Self::VectorIndex { table, .. }
            | Self::Compress { table, .. } => Some(table),
        }
    }

    /// Only what reads the database runs by itself: everything else waits for a person who has seen its plan.
    pub fn is_enabled(&self) -> bool {
        matches!(self, Self::Backup { .. } | Self::Audit)
    }
}

/// A job that fits.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Proposal {
    pub does: Does,
    /// The names of its file: of the table and the kind of work.
    pub name: String,
    /// Names in the configuration.
    pub databases: Vec<String>,
    pub why: String,
}

/// What looked like work for a job, and is none.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, JsonSchema)]
pub struct LeftOut {
    pub what: String,
    pub why: String,
}

/// Returns the jobs for the tables of one database.
pub fn for_tables(database: &str, contents: &Contents) -> (Vec<Proposal>, Vec<LeftOut>) {
    let mut decided = Decided { database, proposals: Vec::new(), left_out: Vec::new() };
    decided.logs(&contents.timed);
    decided.partitions(contents);
    decided.vectors(&contents.vectors);
    decided.texts(&contents.texts);
    (decided.proposals, decided.left_out)
}

struct Decided<'a> {
    database: &'a str,
    proposals: Vec<Proposal>,
    left_out: Vec<LeftOut>,
}

impl Decided<'_> {
    fn propose(&mut self, does: Does, name: String, why: String) {
        let of_this_kind = |proposal: &&Proposal| proposal.does.kind() == does.kind();
        if self.proposals.iter().filter(of_this_kind).count() >= MOST_OF_A_KIND {
            let what = format!("[{}] of {}", does.kind(), does.table().unwrap_or_default());
            return self.leave_out(what, format!("{MOST_OF_A_KIND} larger tables have such a job: write this one like theirs"));
        }
        self.proposals.push(Proposal { does, name, databases: vec![self.database.to_owned()], why });
    }

    fn leave_out(&mut self, what: String, why: String) {
        self.left_out.push(LeftOut { what: format!("{what} in {}", self.database), why });
    }

    fn logs(&mut self, timed: &[Timed]) {
        // The columns of a table stand together.
        for columns in timed.chunk_by(|one, other| one.oid == other.oid) {
            let best = columns.iter().filter_map(|one| Some((rank(&one.column)?, one))).min_by_key(|(rank, _)| *rank);
            let Some((_, Timed { schema, name, column, oid, rows, size_bytes, is_indexed })) = best else { continue };
            if !is_a_log(name) {
                continue;
            }
            let (table, column) = (table(*oid, schema, name), column.clone());
            let without = if *is_indexed { "" } else { ", which no index begins with: the job reads the table block by block" };
            let why = format!("{table} is named like a log: {}, with its time in {column}{without}", size(*rows, *size_bytes));
            self.propose(Does::Retention { table, column }, format!("{name}-retention"), why);
        }
    }

    fn partitions(&mut self, contents: &Contents) {
        for found in &contents.partitioned {
            let Partitioned { schema, name, column, oid, strategy, columns, data_type, bounds } = found;
            let table = table(*oid, schema, name);
            let what = format!("[partition] of {table}");
            let is_a_time =
                matches!(data_type.as_deref(), Some("timestamp with time zone" | "timestamp without time zone" | "date"));
            let bounds = bounds.as_deref().unwrap_or_default();
            match (column, every(bounds)) {
                _ if strategy != "r" => {}
                _ if contents.partman.is_none() => {
                    self.leave_out(
                        what,
                        "pg_partman is installed, and its table part_config cannot be read: it may keep them".to_owned(),
                    );
                }
                _ if contents.partman.iter().flatten().any(|kept| same_table(kept, schema, name)) => {
                    self.leave_out(what, "pg_partman keeps its partitions".to_owned());
                }
                (Some(_), _) if *columns > 1 => self.leave_out(what, "its key has several columns".to_owned()),
                (None, _) => self.leave_out(what, "its key is an expression".to_owned()),
                (Some(column), _) if !is_a_time => {
                    self.leave_out(what, format!("its key {column} is no time; write the job by hand where it counts up"));
                }
                (_, None) if !bounds.is_empty() => {
                    self.leave_out(
                        what,
                        "its partitions have no common length of an hour, day, week, month, quarter or year".to_owned(),
                    );
                }
                (Some(column), found) => {
                    let (every, why) = match found {
                        Some(every) => (every, format!("{table} has a partition for each {every} of {column}")),
                        None => ("month", format!("{table} is partitioned by {column} and has no partition yet")),
                    };
                    let does = Does::Partition { table, column: column.clone(), every };
                    self.propose(does, format!("{name}-partitions"), why);
                }
            }
        }
    }

    fn vectors(&mut self, vectors: &[Vector]) {
        for Vector { schema, name, column, oid, rows, method, opclass } in vectors {
            let table = table(*oid, schema, name);
            let Some(method) = method else {
                if *rows < FEW_VECTORS {
                    let why = "with so few rows an exact search is quick enough".to_owned();
                    self.leave_out(format!("[vector_index] of {table}, {column}"), why);
                    continue;
                }
                let why = format!("{table}.{column} has vectors ({}) and no index", estimate(*rows));
                let does = Does::VectorIndex { table, column: column.clone(), metric: None };
                self.propose(does, format!("{name}-{column}-index"), why);
                continue;
            };
            let Some(metric) = opclass.as_deref().and_then(metric) else { continue };
            let why = format!("{table}.{column} has vectors ({}) and an index of method {method}", estimate(*rows));
            let does = Does::VectorIndex { table, column: column.clone(), metric: Some(metric) };
            self.propose(does, format!("{name}-{column}-index"), why);
        }
    }

    fn texts(&mut self, texts: &[Text]) {
        for columns in texts.chunk_by(|one, other| one.oid == other.oid) {
            let Text { schema, name, column, oid, size_bytes } = &columns[0];
            if *size_bytes < LARGE_TEXT_BYTES {
                continue;
            }
            let table = table(*oid, schema, name);
            let others = if columns.len() > 1 { ", most of it probably" } else { "" };
            let large = units::bytes(size_bytes.unsigned_abs());
            let why = format!("{table} keeps {large} of large values outside of its rows{others} in {column}");
            self.propose(Does::Compress { table, column: column.clone() }, format!("{name}-{column}-compress"), why);
        }
    }
}

/// Compares a name as pg_partman keeps it, which is quoted only where someone did so.
fn same_table(kept: &str, schema: &str, name: &str) -> bool {
    kept.replace('"', "") == format!("{schema}.{name}").replace('"', "")
}

fn size(rows: f64, size_bytes: i64) -> String {
    format!("{}, {}", estimate(rows), units::bytes(size_bytes.unsigned_abs()))
}

fn estimate(rows: f64) -> String {
    if rows < 0.0 { "never analyzed".to_owned() } else { format!("about {}", units::plural(rows as u64, "row")) }
}

/// Returns the words of a name: of `execution_logs`, `ExecutionLogs` and `execution logs`.
fn words(name: &str) -> Vec<String> {
    let mut words = vec![String::new()];
    let mut was_lower = false;
    for letter in name.chars() {
        if !letter.is_alphabetic() || (letter.is_uppercase() && was_lower) {
            words.push(String::new());
        }
        if let Some(word) = words.last_mut().filter(|_| letter.is_alphabetic()) {
            word.extend(letter.to_lowercase());
        }
        was_lower = letter.is_lowercase();
    }
    words.retain(|word| !word.is_empty());
    words
}

/// Tables whose rows tell what happened, and are worth less with time. `history` is not among the words: that of chats and prices is data.
fn is_a_log(name: &str) -> bool {
    const WORDS: [&str; 18] = [
        "log",
        "logs",
        "logging",
        "event",
        "events",
        "audit",
        "audits",
        "activity",
        "activities",
        "metric",
        "metrics",
        "trace",
        "traces",
        "telemetry",
        "impressions",
        "clicks",
        "pageviews",
        "heartbeats",
    ];
    const NO_LOGS: [&str; 5] = ["catalog", "blog", "dialog", "backlog", "changelog"];
    words(name).iter().any(|word| {
        let singular = word.strip_suffix('s').unwrap_or(word);
        WORDS.contains(&word.as_str()) || (singular.ends_with("log") && !NO_LOGS.iter().any(|no_log| singular.ends_with(no_log)))
    })
}

/// Ranks a column as the time of its row: 0 is best. None for a time that is changed later, or that is no row's own.
fn rank(column: &str) -> Option<usize> {
    const BEST: [&str; 15] = [
        "createdat",
        "loggedat",
        "occurredat",
        "insertedat",
        "recordedat",
        "receivedat",
        "eventtime",
        "eventat",
        "timestamp",
        "ts",
        "created",
        "logtime",
        "time",
        "date",
        "at",
    ];
    const OTHER: [&str; 9] = ["update", "modif", "delet", "expir", "until", "valid", "next", "birth", "due"];
    let plain = words(column).concat();
    if OTHER.iter().any(|other| plain.contains(other)) {
        return None;
    }
    Some(BEST.iter().position(|best| *best == plain).unwrap_or(BEST.len()))
}

fn metric(opclass: &str) -> Option<&'static str> {
    [("_l2_ops", "l2"), ("_ip_ops", "inner_product"), ("_cosine_ops", "cosine"), ("_l1_ops", "l1")]
        .into_iter()
        .find_map(|(ending, metric)| opclass.ends_with(ending).then_some(metric))
}

/// Returns how much time each partition covers, if all bounds agree.
fn every(bounds: &[String]) -> Option<&'static str> {
    let mut lengths = bounds.iter().filter_map(|bound| length(bound));
    let first = lengths.next()??;
    lengths.all(|length| length == Some(first)).then_some(first)
}

/// Returns the unit of one partition's bounds; the inner None for another length, the outer for bounds without two times (DEFAULT, MINVALUE).
fn length(bound: &str) -> Option<Option<&'static str>> {
    let mut times = bound.split('\'').skip(1).step_by(2).map(minutes);
    let (from, to) = (times.next()?, times.next()?);
    let minutes = to? - from?;
    // Clocks change by an hour twice a year.
    const DAY: i64 = 24 * 60;
    let units = [
        (60, 60, "hour"),
        (DAY - 60, DAY + 60, "day"),
        (7 * DAY - 60, 7 * DAY + 60, "week"),
        (28 * DAY - 60, 31 * DAY + 60, "month"),
        (90 * DAY - 60, 92 * DAY + 60, "quarter"),
        (365 * DAY - 60, 366 * DAY + 60, "year"),
    ];
    Some(units.into_iter().find_map(|(least, most, unit)| (least..=most).contains(&minutes).then_some(unit)))
}

/// Reads `2026-01-01` or `2026-01-01 00:00:00+01`, in minutes; zones are left out, as they differ by an hour at most within a table.
fn minutes(time: &str) -> Option<i64> {
    let date = chrono::NaiveDate::parse_from_str(time.get(..10)?, "%Y-%m-%d").ok()?;
    let of_day = match time.get(11..16) {
        Some(clock) => chrono::NaiveTime::parse_from_str(clock, "%H:%M").ok()?,
        None => chrono::NaiveTime::MIN,
    };
    Some(date.and_time(of_day).and_utc().timestamp() / 60)
}

#[cfg(test)]
#[path = "decide_tests.rs"]
mod tests;
