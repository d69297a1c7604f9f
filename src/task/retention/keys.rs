//! `[retention]`: the keys of a job, as written and resolved.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use toml::Spanned;

use crate::base::units::{Size, Span};
use crate::config::checker::Checker;
use crate::task::partition::Epoch;

/// `[retention]`, resolved.
#[derive(Clone, Debug)]
pub struct Retention {
    pub table: String,
    pub column: String,
    pub older_than: Option<Span>,
    /// So many rows of each `per` stay, the newest.
    pub keep_newest: Option<u32>,
    pub per: Option<String>,
    /// The newest rows that fit in this stay.
    pub max_size: Option<Size>,
    pub epoch: Option<Epoch>,
    pub condition: Option<String>,
    pub archive: Option<String>,
    /// Tables whose rows go with those that they refer to, as in SQL.
    pub cascade: Vec<String>,
    pub method: Method,
    pub sentinels: Sentinels,
    pub subscribers: Option<Subscribers>,
    pub vacuum: bool,
    /// A person has said `--yes` to this run.
    pub agreed: bool,
}

/// `[retention]` as written.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Written {
    /// As in SQL: `public.execution_logs`, `"Odd Name"`.
    pub table: String,
    /// Its time: timestamptz, timestamp, date, an integer with `epoch`, uuid (version 7) or text (ULIDs). Rows where it is NULL stay.
    pub column: String,
    /// Rows leave at this age, by the server's clock. This, `keep_newest`, `max_size`, or several: then rows go that go by each of them.
    pub older_than: Option<Span>,
    /// So many rows of each value of `per` stay, the newest by `column`; from 1.
    #[schemars(with = "Option<u32>")]
    pub keep_newest: Option<Spanned<u32>>,
    /// A column that an index begins with. Rows where it is NULL stay.
    #[schemars(with = "Option<String>")]
    pub per: Option<Spanned<String>>,
    /// The newest rows that fit in this, with their indexes and TOAST, stay: "20GB". What rows take counts, not what files have, which do not
    /// shrink.
    #[schemars(with = "Option<Size>")]
    pub max_size: Option<Spanned<Size>>,
    /// What an integer column counts since 1970: "seconds", "milliseconds" or "microseconds".
    pub epoch: Option<Epoch>,
    /// An SQL condition that rows must meet besides: "status <> 'running'".
    #[serde(rename = "where")]
    pub condition: Option<String>,
    /// Rows are written there, and read back, before they are deleted.
    #[schemars(with = "Option<String>")]
    pub archive: Option<Spanned<String>>,
    /// Tables that refer to the table, or to another one here: their rows go first, archived as well, all that hang together or none.
    #[serde(default)]
    pub cascade: Vec<String>,
    /// How rows are found: "auto" (default), "index" on the column, or "blocks", one part of the table after another.
    #[serde(default)]
    pub method: Method,
    /// Values before 1970-01-02 ('-infinity', 0001-01-01, 1970-01-01) mean "never" or "unknown": "keep" (default), or "delete".
    #[serde(default)]
    pub sentinels: Sentinels,
    /// Of a published, partitioned table: "delete" deletes rows one by one, so that subscribers do, too; "keep" drops whole partitions only, whose
    /// rows subscribers keep. No default.
    pub subscribers: Option<Subscribers>,
    /// VACUUM the table (not FULL) when rows were deleted; default false: autovacuum comes by itself.
    #[serde(default)]
    pub vacuum: bool,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Method {
    #[default]
    Auto,
    Index,
    Blocks,
}

/// What happens to rows whose time is before 1970-01-02.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Sentinels {
    #[default]
    Keep,
    Delete,
}

/// What happens at subscribers when whole partitions could go.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Subscribers {
    Delete,
    Keep,
}

pub fn resolve(written: Written, checker: &mut Checker<'_>) -> Option<Retention> {
    if let Some(store) = &written.archive
        && !checker.known("store", store)
    {
        return None;
    }
    match (&written.keep_newest, &written.per) {
        (None, None) if written.older_than.is_none() && written.max_size.is_none() => {
            checker.missing(
                "[retention] does not say what goes",
                "older_than = \"90d\", max_size = \"20GB\", or keep_newest = 10 with per = \"a column\"",
            );
            return None;
        }
        (Some(keep), None) => {
            checker.problem(
                keep,
                "`keep_newest` without `per`",
                "per = \"a column\": so many rows of each of its values stay".to_owned(),
            );
            return None;
        }
        (None, Some(per)) => {
            checker.problem(per, "`per` without `keep_newest`", "keep_newest = 10".to_owned());
            return None;
        }
        (Some(keep), _) if *keep.get_ref() == 0 => {
            checker.problem(keep, "`keep_newest = 0`", "1 or more".to_owned());
            return None;
        }
        _ => {}
    }
    if let Some(none) = written.max_size.as_ref().filter(|size| size.get_ref().0 == 0) {
        checker.problem(none, "`max_size` of nothing", "the size that the newest rows may have: \"20GB\"".to_owned());
        return None;
    }
    Some(Retention {
        table: written.table,
        column: written.column,
        older_than: written.older_than,
        keep_newest: written.keep_newest.map(Spanned::into_inner),
        per: written.per.map(Spanned::into_inner),
        max_size: written.max_size.map(Spanned::into_inner),
        epoch: written.epoch,
        condition: written.condition,
        archive: written.archive.map(Spanned::into_inner),
        cascade: written.cascade,
        method: written.method,
        sentinels: written.sentinels,
        subscribers: written.subscribers,
        vacuum: written.vacuum,
        agreed: false,
    })
}
