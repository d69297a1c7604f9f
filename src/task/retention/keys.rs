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
    /// This many of the newest rows of each `per` stay.
    pub keep_newest: Option<u32>,
    pub per: Option<String>,
    /// The newest rows that fit in this size stay.
    pub max_size: Option<Size>,
    pub epoch: Option<Epoch>,
    pub condition: Option<String>,
    pub archive: Option<String>,
    /// Tables whose rows go with the rows that they reference, as in SQL.
    pub cascade: Vec<String>,
    pub method: Method,
    pub sentinels: Sentinels,
    pub subscribers: Option<Subscribers>,
    pub vacuum: bool,
    /// True if `--yes` was given for this run.
    pub agreed: bool,
}

/// Rows are kept by one of these at least.
fn a_limit() -> serde_json::Value {
    serde_json::json!([{ "required": ["older_than"] }, { "required": ["max_size"] }, { "required": ["keep_newest"] }])
}

/// `[retention]` as written.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(extend("anyOf" = a_limit(), "dependentRequired" = { "keep_newest": ["per"], "per": ["keep_newest"] }))]
pub struct Written {
    /// The table, as in SQL: `public.execution_logs`, `"Odd Name"`.
    #[schemars(example = &"public.execution_logs")]
    pub table: String,
    /// The column with the row's time: timestamptz, timestamp, date, an integer with `epoch`, uuid (version 7) or text (ULIDs). Rows where
    /// it is NULL stay.
    #[schemars(example = &"created_at")]
    pub column: String,
    /// Rows are deleted at this age, by the server's clock. Set this, `keep_newest`, `max_size` or several: then only rows that exceed each
    /// of them are deleted.
    #[schemars(example = &"90d")]
    pub older_than: Option<Span>,
    /// Keep this many rows of each value of `per`, the newest by `column`; at least 1.
    #[schemars(with = "Option<u32>", range(min = 1), example = 10)]
    pub keep_newest: Option<Spanned<u32>>,
    /// The column for `keep_newest`; an index must begin with it. Rows where it is NULL stay.
    #[schemars(with = "Option<String>", example = &"user_id")]
    pub per: Option<Spanned<String>>,
    /// Keep the newest rows that fit in this size with their indexes and TOAST: "20GB". The size of the rows counts, not that of the files,
    /// which do not shrink.
    #[schemars(with = "Option<Size>", example = &"20GB")]
    pub max_size: Option<Spanned<Size>>,
    /// The unit of an integer column, counted since 1970: "seconds", "milliseconds" or "microseconds".
    pub epoch: Option<Epoch>,
    /// An SQL condition that rows must also meet: "status <> 'running'".
    #[schemars(example = &"status <> 'running'")]
    #[serde(rename = "where")]
    pub condition: Option<String>,
    /// The archive store: rows are written to it and read back before they are deleted.
    #[schemars(with = "Option<String>", example = &"local")]
    pub archive: Option<Spanned<String>>,
    /// Tables that reference the table, or another table listed here: their rows are deleted and archived first; rows that belong together
    /// go together or not at all.
    #[schemars(example = ["public.log_lines"])]
    #[serde(default)]
    pub cascade: Vec<String>,
    /// How rows are found: "auto" (default), "index" on the column, or "blocks", one part of the table after another.
    #[serde(default)]
    pub method: Method,
    /// Values before 1970-01-02 ('-infinity', 0001-01-01, 1970-01-01) mean "never" or "unknown": "keep" (default), or "delete".
    #[serde(default)]
    pub sentinels: Sentinels,
    /// Required for a partitioned table whose deletes are published: "delete" deletes rows one by one, so that subscribers delete them too;
    /// "keep" only drops whole partitions, and subscribers keep their rows. No default.
    pub subscribers: Option<Subscribers>,
    /// Run VACUUM (not FULL) on the table after rows were deleted; default false: autovacuum does it in time.
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

/// The treatment of rows whose time is before 1970-01-02.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Sentinels {
    #[default]
    Keep,
    Delete,
}

/// The effect on subscribers when whole partitions could be dropped.
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
                "[retention] does not say which rows to keep",
                "add older_than = \"90d\", max_size = \"20GB\", or keep_newest = 10 with per = \"a column\"",
            );
            return None;
        }
        (Some(keep), None) => {
            checker.problem(
                keep,
                "`keep_newest` without `per`",
                "set per = \"a column\": the newest rows of each of its values stay".to_owned(),
            );
            return None;
        }
        (None, Some(per)) => {
            checker.problem(per, "`per` without `keep_newest`", "keep_newest = 10".to_owned());
            return None;
        }
        (Some(keep), _) if *keep.get_ref() == 0 => {
            checker.problem(keep, "`keep_newest = 0`", "set 1 or more".to_owned());
            return None;
        }
        _ => {}
    }
    if let Some(none) = written.max_size.as_ref().filter(|size| size.get_ref().0 == 0) {
        checker.problem(none, "`max_size` is zero", "set the size that the newest rows may take: \"20GB\"".to_owned());
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
