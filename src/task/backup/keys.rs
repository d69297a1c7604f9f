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
    /// The dump ends when somebody has to wait behind its locks.
    pub give_way: bool,
}

/// `[backup]` as written.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Written {
    /// A store of the configuration.
    #[schemars(with = "String")]
    pub store: Option<Spanned<String>>,
    /// Which sets stay; without it, all of them.
    #[schemars(with = "Option<Keep>")]
    pub keep: Option<Spanned<Keep>>,
    #[serde(default)]
    pub verify: Verify,
    /// With verify = "restore": the database of the configuration on whose server the scratch database is made.
    #[schemars(with = "Option<String>")]
    pub scratch: Option<Spanned<String>>,
    #[serde(default)]
    pub compression: Compression,
    /// gzip 1 to 12, default 4; zstd 1 to 19, default 3.
    #[schemars(with = "Option<i32>")]
    pub level: Option<Spanned<i32>>,
    /// Compressing threads; default: the processors of the host, 4 at the most.
    #[schemars(with = "Option<usize>")]
    pub threads: Option<Spanned<usize>>,
    /// Only these schemas (pg_dump's patterns).
    #[serde(default)]
    pub schemas: Vec<String>,
    /// Tables left out (pg_dump's patterns).
    #[serde(default)]
    pub exclude_tables: Vec<String>,
    /// Tables of which only the definition is dumped (pg_dump's patterns).
    #[serde(default)]
    pub exclude_table_data: Vec<String>,
    /// How long pg_dump waits for a table that somebody has locked; default 60s.
    pub lock_wait_timeout: Option<Span>,
    /// true ends the dump, as skipped, when a session waits for more than 5 s behind its locks, as a migration does; default false: a
    /// warning names it.
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
        checker.problem(keep, "`keep` keeps nothing", "keep at least one set, or leave `keep` out to keep all".to_owned());
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
            format!("1 to {highest} for this compression"),
        );
    }
    if let Some(threads) = written.threads.as_ref().filter(|threads| !(1..=64).contains(threads.get_ref())) {
        checker.problem(threads, format!("`threads = {}`", threads.get_ref()), "1 to 64".to_owned());
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
    /// That, and a restore into a scratch database with every table counted.
    Restore,
    /// Nothing: `backups verify` is run elsewhere. A set that nobody has read fills no place of `keep`.
    None,
}
