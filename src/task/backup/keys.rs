//! `[backup]`: the keys of a job, as written and resolved.

use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use toml::Spanned;

use super::keep::Keep;
use super::manifest;
use crate::base::units::Span;
use crate::config::checker::Checker;
use crate::members::compress::Compression;

/// `[backup]`, resolved.
#[derive(Clone, Debug)]
pub struct Backup {
    pub store: String,
    pub keep: Option<Keep>,
    pub verify: Verify,
    /// The server for scratch databases; the source's own when None.
    pub scratch: Option<String>,
    pub compression: Compression,
    pub level: i32,
    pub threads: usize,
    pub filters: manifest::Filters,
    pub lock_wait_timeout: Span,
    /// True if the dump ends when a session has to wait behind its locks.
    pub give_way: bool,
}

/// `[backup]` as written.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Written {
    /// The store, by its name in the configuration.
    #[schemars(with = "String")]
    pub store: Option<Spanned<String>>,
    /// The sets to keep; without it, all of them.
    #[schemars(with = "Option<Keep>")]
    pub keep: Option<Spanned<Keep>>,
    #[serde(default)]
    pub verify: Verify,
    /// With verify = "restore": the database of the configuration on whose server the scratch database is created.
    #[schemars(with = "Option<String>")]
    pub scratch: Option<Spanned<String>>,
    #[serde(default)]
    pub compression: Compression,
    /// Compression level: gzip 1 to 12, default 4; zstd 1 to 19, default 3.
    #[schemars(with = "Option<i32>")]
    pub level: Option<Spanned<i32>>,
    /// Number of compressing threads; default: the processors of the host, at most 4.
    #[schemars(with = "Option<usize>")]
    pub threads: Option<Spanned<usize>>,
    /// Dump only these schemas (pg_dump's patterns).
    #[serde(default)]
    pub schemas: Vec<String>,
    /// Tables to leave out (pg_dump's patterns).
    #[serde(default)]
    pub exclude_tables: Vec<String>,
    /// Tables of which only the definition is dumped (pg_dump's patterns).
    #[serde(default)]
    pub exclude_table_data: Vec<String>,
    /// How long pg_dump waits for a table that another session has locked; default 60s.
    pub lock_wait_timeout: Option<Span>,
    /// true: the dump ends, as skipped, when a session (such as a migration) has waited behind its locks for more than 5 s; default false:
    /// a warning names the session.
    #[serde(default)]
    pub give_way: bool,
}

/// Resolves the names and limits of a job's `[backup]`.
pub fn resolve(written: Written, checker: &mut Checker<'_>) -> Option<Backup> {
    let store = match &written.store {
        Some(store) => checker.known("store", store).then(|| store.get_ref().clone()),
        None => {
            checker.missing("[backup] has no store", "add store = \"NAME\", with [stores.NAME] in the configuration");
            None
        }
    };
    if let Some(keep) = written.keep.as_ref().filter(|keep| keep.get_ref().keeps_nothing()) {
        checker.problem(keep, "`keep` keeps nothing", "keep at least one set, or remove `keep` to keep all".to_owned());
    }
    if let Some(scratch) = &written.scratch {
        checker.known("database", scratch);
        if written.verify != Verify::Restore {
            checker.problem(
                scratch,
                "`scratch` without verify = \"restore\"",
                "only a restore needs a scratch database".to_owned(),
            );
        }
    }
    let highest = written.compression.highest_level();
    if let Some(level) = written.level.as_ref().filter(|level| !(1..=highest).contains(level.get_ref())) {
        checker.problem(
            level,
            format!("level {} does not exist", level.get_ref()),
            format!("set 1 to {highest} for this compression"),
        );
    }
    if let Some(threads) = written.threads.as_ref().filter(|threads| !(1..=64).contains(threads.get_ref())) {
        checker.problem(threads, format!("`threads = {}`", threads.get_ref()), "set 1 to 64".to_owned());
    }
    let processors = std::thread::available_parallelism().map_or(1, usize::from);
    Some(Backup {
        store: store?,
        keep: written.keep.map(Spanned::into_inner),
        verify: written.verify,
        scratch: written.scratch.map(Spanned::into_inner),
        compression: written.compression,
        level: written.level.map_or(written.compression.default_level(), Spanned::into_inner),
        threads: written.threads.map_or(processors.min(4), Spanned::into_inner),
        filters: manifest::Filters {
            schemas: written.schemas,
            exclude_tables: written.exclude_tables,
            exclude_table_data: written.exclude_table_data,
        },
        lock_wait_timeout: written.lock_wait_timeout.unwrap_or(Span(Duration::from_secs(60))),
        give_way: written.give_way,
    })
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Verify {
    /// Every byte is read back, hashed, decoded and counted.
    #[default]
    Checksum,
    /// All of that, and a restore into a scratch database with every table counted.
    Restore,
    /// No verification: `backups verify` runs elsewhere. An unread set fills no place of `keep`.
    None,
}
