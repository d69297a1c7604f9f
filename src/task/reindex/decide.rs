//! Decides which indexes are rebuilt, and why: pure.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::keys::Reindex;
use crate::base::units;
use crate::live::indexes::names::{base_of_reindex, is_beside, is_cut};
use crate::pg::qualified;

/// An index that grew by less than this since it was built is not rebuilt, whatever the estimate says.
const GROWN: f64 = 1.3;

#[derive(Clone, Debug, Serialize, sqlx::FromRow)]
pub struct Index {
    pub(super) oid: i64,
    pub(super) schema: String,
    pub(super) name: String,
    pub(super) method: String,
    pub(super) is_valid: bool,
    pub(super) is_exclusion: bool,
    pub(super) bytes: i64,
    pub(super) rows: f64,
    pub(super) expected_bytes: Option<f64>,
}

impl Index {
    pub(super) fn sql(&self) -> String {
        qualified(&self.schema, &self.name)
    }

    pub(super) fn bloat(&self) -> Option<f64> {
        Some((1.0 - self.expected_bytes? / self.bytes.max(1) as f64).clamp(0.0, 1.0))
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Action {
    Rebuild,
    /// The index was left by a stopped REINDEX.
    Drop,
    Leave,
}

#[derive(Debug, Serialize)]
pub struct Step {
    #[serde(flatten)]
    pub(super) index: Index,
    pub(super) table_oid: i64,
    pub(super) action: Action,
    pub(super) reason: String,
    /// The versions of collations that it has after a rebuild, and the start of the server that has them.
    #[serde(skip)]
    pub(super) version: Option<String>,
}

/// Known from the last run.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
pub(super) struct Known {
    /// The size in bytes of an index when it was new, by its qualified name.
    pub(super) when_new: BTreeMap<String, i64>,
    /// The versions of collations with which an index was rebuilt, and where, by its oid, as long as they are not refreshed. A name would be that of
    /// another index after a restore or a rename.
    #[serde(default)]
    pub(super) rebuilt: BTreeMap<i64, String>,
}

/// Returns the action for one index, and the reason. Pure.
pub(super) fn decide(job: &Reindex, index: &Index, names: &[String], when_new: Option<i64>) -> (Action, String) {
    let leave = |reason: String| (Action::Leave, reason);
    if let (false, Some(base)) = (index.is_valid, base_of_reindex(&index.name)) {
        return match names.iter().any(|name| is_cut(base, name)) {
            true => (Action::Drop, format!("left by an interrupted REINDEX of {base}")),
            false => leave("invalid, but it does not belong to an index of this table".to_owned()),
        };
    }
    if !index.is_valid && is_beside(&index.name) {
        return leave("an unfinished rebuild of a [vector_index] job, whose next run handles it".to_owned());
    }
    if !job.indexes.is_empty() && !job.indexes.contains(&index.name) {
        return leave("not listed in `indexes`".to_owned());
    }
    if index.is_exclusion {
        return leave("PostgreSQL cannot rebuild the index of an exclusion constraint concurrently".to_owned());
    }
    if !index.is_valid {
        return (Action::Rebuild, "invalid: no query uses it, and every insert maintains it".to_owned());
    }
    let Some(bloat) = index.bloat() else {
        return leave(match index.method.as_str() {
            "btree" => "its bloat is unknown: run ANALYZE on the table".to_owned(),
            method => format!("bloat of {method} indexes cannot be estimated"),
        });
    };
    let share = format!("an estimated {:.0} % of {} is empty", bloat * 100.0, units::bytes(index.bytes.max(0) as u64));
    if bloat <= job.bloat_above {
        return leave(format!("{share}, not above {:.0} %", job.bloat_above * 100.0));
    }
    if (index.bytes.max(0) as u64) < job.larger_than.0 {
        return leave(format!("{share}, but it is small (larger_than {})", job.larger_than));
    }
    if let Some(when_new) = when_new.filter(|when_new| (index.bytes as f64) < *when_new as f64 * GROWN) {
        return leave(format!("{share}, but it was as large when it was new ({})", units::bytes(when_new.max(0) as u64)));
    }
    (Action::Rebuild, share)
}
