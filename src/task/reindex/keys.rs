//! `[reindex]`: the keys of a job, as written and resolved.

use schemars::JsonSchema;
use serde::Deserialize;
use toml::Spanned;

use crate::base::units::Size;
use crate::config::checker::Checker;

/// A b-tree that is filled in random order settles at about 70 % full: with a threshold below this, a rebuild would soon be undone.
const BLOAT_ABOVE: f64 = 0.4;

const LARGER_THAN: Size = Size(10 << 20);

/// `[reindex]`, resolved.
#[derive(Clone, Debug)]
pub struct Reindex {
    pub(super) scope: Scope,
    pub(super) indexes: Vec<String>,
    pub(super) bloat_above: f64,
    pub(super) larger_than: Size,
    pub(super) maintenance_work_mem: Option<Size>,
    pub(super) parallel_workers: Option<u32>,
}

/// Whose indexes are rebuilt.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Scope {
    Table(String),
    /// All whose order another version of a collation may have changed.
    Collations,
}

/// `[reindex]` as written.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Written {
    /// The table, as in SQL: `public.execution_logs`, `"Odd Name"`. For a partitioned table, all its partitions are covered.
    #[schemars(with = "Option<String>", example = &"public.execution_logs")]
    pub table: Option<Spanned<String>>,
    /// In the place of `table`: all indexes of the database whose order another version of a collation (of the C library, of ICU) may have changed; then the
    /// recorded versions are refreshed.
    #[schemars(with = "Option<bool>")]
    pub collations: Option<Spanned<bool>>,
    /// Only these indexes, by name; default: all of the table.
    #[schemars(example = ["execution_logs_pkey"])]
    #[serde(default)]
    pub indexes: Vec<String>,
    /// Rebuild a b-tree when more than this share of it is empty beyond its fill factor, by estimate; default 0.4.
    #[schemars(with = "Option<f64>", range(min = 0), extend("exclusiveMaximum" = 1), example = 0.4)]
    pub bloat_above: Option<Spanned<f64>>,
    /// Smaller indexes are rebuilt only when they are invalid; default 10 MiB.
    pub larger_than: Option<Size>,
    /// maintenance_work_mem of the session that builds; default: the server's.
    pub maintenance_work_mem: Option<Size>,
    /// max_parallel_maintenance_workers of the session that builds; default: the server's.
    pub parallel_workers: Option<u32>,
}

pub fn resolve(written: Written, checker: &mut Checker<'_>) -> Option<Reindex> {
    if let Some(share) = written.bloat_above.as_ref().filter(|share| !(0.0..1.0).contains(share.get_ref())) {
        checker.problem(
            share,
            format!("`bloat_above = {}` is out of range", share.get_ref()),
            "a share from 0 to below 1: 0.4 is 40 %".to_owned(),
        );
    }
    let scope = match (written.table, written.collations.filter(|collations| *collations.get_ref())) {
        (Some(table), None) => Scope::Table(table.into_inner()),
        (None, Some(_)) if written.indexes.is_empty() && written.bloat_above.is_none() && written.larger_than.is_none() => {
            Scope::Collations
        }
        (None, Some(collations)) => {
            let hint =
                "leave out indexes, bloat_above and larger_than: one index that stays as it was would make the new version a lie";
            checker.problem(&collations, "`collations = true` rebuilds all indexes that the change touched", hint.to_owned());
            return None;
        }
        (Some(_), Some(collations)) => {
            let hint = "leave out one of the two: a version is refreshed only when no index of the database is old";
            checker.problem(
                &collations,
                "`collations = true` is for the whole database, and `table` for one table",
                hint.to_owned(),
            );
            return None;
        }
        (None, None) => {
            checker.missing("[reindex] has no table", "add table = \"SCHEMA.TABLE\", or collations = true");
            return None;
        }
    };
    Some(Reindex {
        scope,
        indexes: written.indexes,
        bloat_above: written.bloat_above.map_or(BLOAT_ABOVE, Spanned::into_inner),
        larger_than: written.larger_than.unwrap_or(LARGER_THAN),
        maintenance_work_mem: written.maintenance_work_mem,
        parallel_workers: written.parallel_workers,
    })
}
