//! The keys of `[partition]`, as written, and how they become a job.

use std::time::Duration;

use chrono_tz::Tz;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use toml::Spanned;

use super::calendar::Every;
use super::key::Epoch;
use crate::base::schedule::Zone;
use crate::base::units::Span;
use crate::config::checker::Checker;

/// Longer than the statements of a healthy application; shorter than its users would wait.
pub(super) const LOCK_TIMEOUT: Span = Span(Duration::from_secs(2));
/// Long enough for a long report or a slow autovacuum, but not for a whole night.
pub(super) const GIVE_UP_AFTER: Span = Span(Duration::from_secs(300));
pub(super) const PREMAKE: u32 = 3;
/// Each partition costs a file per index, and a lock for each query that is not pruned: more than this is a mistake.
const MAX_PREMAKE: u32 = 1000;
/// Enough time to notice that something is missing: GitLab also keeps detached partitions for a week. One ATTACH brings them back.
const GRACE: Duration = Duration::from_secs(7 * 86_400);

/// The data to keep.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(untagged)]
pub enum Retain {
    /// Partitions that ended this long ago are retired.
    Age(Span),
    /// For number keys: partitions that end this far below the highest key are retired.
    Numbers(u32),
}

/// The model of new partitions.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Like {
    #[default]
    Parent,
    Newest,
}

/// Zero, or numbers with units.
const SPAN_PATTERN_OR_ZERO: &str = r"^(0|(\s*\d+(\.\d+)?\s*[a-zµM]+)+\s*)$";

/// A length of time that may be zero.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(try_from = "String")]
#[schemars(with = "String", extend("format" = "span", "pattern" = SPAN_PATTERN_OR_ZERO, "examples" = ["7d", "0s"]))]
pub struct Grace(Duration);

impl TryFrom<String> for Grace {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        match text.as_str() {
            "0" | "0s" => Ok(Self(Duration::ZERO)),
            _ => Span::try_from(text).map(|span| Self(span.0)),
        }
    }
}

/// `[partition]` as written.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Written {
    /// The partitioned table, as in SQL.
    #[schemars(with = "String", example = &"public.execution_logs")]
    pub table: Spanned<String>,
    /// Its partition key: one column.
    #[schemars(with = "String", example = &"created_at")]
    pub column: Spanned<String>,
    /// "hour", "day", "week", "month", "quarter", "year", or a number for number keys.
    #[schemars(with = "Every", example = &"month")]
    pub every: Spanned<Every>,
    /// The unit of an integer key, counted since 1970: "seconds", "milliseconds" or "microseconds".
    #[schemars(with = "Option<Epoch>")]
    pub epoch: Option<Spanned<Epoch>>,
    /// IANA name; default the job's.
    pub timezone: Option<Zone>,
    /// Partitions beyond the current one, 1 to 1000; default 3.
    #[schemars(with = "Option<u32>", range(min = 1, max = MAX_PREMAKE), example = 3)]
    pub premake: Option<Spanned<u32>>,
    /// The data to keep: a length of time ("90d"), or a number for number keys; without it, everything.
    #[schemars(with = "Option<Retain>", example = &"90d")]
    pub retain: Option<Spanned<Retain>>,
    /// A store: a partition's rows are written there and read back before it is dropped.
    #[schemars(with = "Option<String>", example = &"local")]
    pub archive: Option<Spanned<String>>,
    /// How long a detached partition stays before it is dropped; default 7d.
    pub grace: Option<Grace>,
    /// Create a default partition if there is none; default false.
    #[serde(default)]
    pub default: bool,
    /// The model of new partitions: "parent" (default), or "newest": the newest partition, where it has keys, indexes and constraints that
    /// its parent lacks.
    #[serde(default)]
    pub like: Like,
    /// Longest wait for one lock; default 2 s.
    pub lock_timeout: Option<Span>,
    /// How long a step is retried while other sessions hold a lock; default 5 min.
    pub give_up_after: Option<Span>,
}

pub fn resolve(written: Written, checker: &mut Checker<'_>) -> Option<Partition> {
    let is_number = matches!(written.every.get_ref(), Every::Step(_));
    if *written.every.get_ref() == Every::Step(0) {
        checker.problem(
            &written.every,
            "`every = 0` is out of range",
            "set how many numbers a partition covers: 1000000".to_owned(),
        );
    }
    if let Some(epoch) = written.epoch.as_ref().filter(|_| is_number) {
        checker.problem(
            epoch,
            "`epoch` together with a number in `every`",
            "set every = \"day\" or another unit of time for times in an integer".to_owned(),
        );
    }
    if let Some(premake) = written.premake.as_ref().filter(|premake| !(1..=MAX_PREMAKE).contains(premake.get_ref())) {
        let message = format!("`premake = {}` is out of range", premake.get_ref());
        checker.problem(premake, message, format!("1 to {MAX_PREMAKE}: premake = 3"));
    }
    if let Some(retain) = &written.retain {
        match (retain.get_ref(), is_number) {
            (Retain::Age(_), true) => checker.problem(
                retain,
                "`retain` is a length of time, but `every` is a number",
                "set retain = NUMBER: partitions that end this far below the highest key are retired".to_owned(),
            ),
            (Retain::Numbers(_), false) => {
                checker.problem(retain, "`retain` is a number, but `every` is a length of time", "retain = \"90d\"".to_owned());
            }
            _ => {}
        }
    }
    if let Some(archive) = &written.archive {
        checker.known("store", archive);
    }
    Some(Partition {
        table: written.table.into_inner(),
        column: written.column.into_inner(),
        every: written.every.into_inner(),
        epoch: written.epoch.map(Spanned::into_inner),
        zone: written.timezone.map(|zone| zone.0),
        premake: written.premake.map_or(PREMAKE, Spanned::into_inner),
        retain: written.retain.map(Spanned::into_inner),
        archive: written.archive.map(Spanned::into_inner),
        grace: written.grace.map_or(GRACE, |grace| grace.0),
        default: written.default,
        like: written.like,
        lock_timeout: written.lock_timeout.unwrap_or(LOCK_TIMEOUT).0,
        give_up_after: written.give_up_after.unwrap_or(GIVE_UP_AFTER).0,
        only_retires: false,
        agreed: false,
    })
}

/// `[partition]`, resolved.
#[derive(Clone, Debug)]
pub struct Partition {
    /// The table as in SQL: `public.execution_logs`, `"Odd name".t`.
    pub table: String,
    pub column: String,
    pub every: Every,
    pub epoch: Option<Epoch>,
    /// The calendar's time zone; the job's when None.
    pub zone: Option<Tz>,
    pub premake: u32,
    pub retain: Option<Retain>,
    /// The store that a partition's rows are archived to before it is dropped.
    pub archive: Option<String>,
    pub grace: Duration,
    pub default: bool,
    pub like: Like,
    pub lock_timeout: Duration,
    /// A step is retried for this long while other sessions hold a lock.
    pub give_up_after: Duration,
    /// True for [retention] of a partitioned table: expired partitions are dropped whole, and none are created.
    pub only_retires: bool,
    /// True if `--yes` was given for this run.
    pub agreed: bool,
}
