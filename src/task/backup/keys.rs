//! `[backup]`: the keys of a job, as written and resolved.

use std::collections::BTreeMap;
use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::json;
use toml::Spanned;

use super::choices::RowCheck;
use super::keep::Keep;
use super::manifest;
use super::often::{HowOften, Often};
use super::sessions::SESSIONS_MOST;
use crate::base::toml_file::did_you_mean;
use crate::base::units::Span;
use crate::config::checker::Checker;
use crate::members::compress::Compression;

/// How a proof by restore compares rows, if nothing else is said.
pub const OF_A_PROOF: RowCheck = RowCheck::Hash;

/// `[backup]`, resolved.
#[derive(Clone, Debug)]
pub struct Backup {
    /// The store of its sets. It is the nearest of several, and the one in which they are proved by a restore.
    pub first: InStore,
    /// The stores of their copies.
    pub copies: Vec<InStore>,
    /// The strongest verification that the job does; `how_often` says when it is due.
    pub verify: Verify,
    pub how_often: HowOften,
    /// False: a proof by restore does not build them.
    pub vector_indexes: bool,
    /// How a proof by restore compares the rows of the copy with the set.
    pub rows: RowCheck,
    pub scratch: Scratch,
    /// The queries that must be true in a restored copy.
    pub expect: Vec<String>,
    /// The checks of a copy in a server of its own.
    pub checks: Vec<Check>,
    pub compression: Compression,
    pub level: i32,
    pub threads: usize,
    /// The sessions that read the rows of large tables; 1: pg_dump reads them.
    pub sessions: usize,
    /// The sessions that restore a set for its proof; None: by default.
    pub restore_sessions: Option<usize>,
    pub filters: manifest::Filters,
    /// The schema of a run that is of one schema, which the filters choose.
    pub schema: Option<String>,
    pub lock_wait_timeout: Span,
    /// True if the dump ends when a session has to wait behind its locks.
    pub give_way: bool,
}

/// A store that a job writes its sets to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InStore {
    /// Its name in the configuration.
    pub store: String,
    /// The sets to keep there; None: all.
    pub keep: Option<Keep>,
}

impl Backup {
    /// All stores of its sets, the nearest first.
    pub fn stores(&self) -> impl Iterator<Item = &InStore> {
        [&self.first].into_iter().chain(&self.copies)
    }
}

/// `[backup]` as written.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Written {
    /// The store, by its name in the configuration; or several, as ["local", "offsite"], the nearest first: one dump is written to all of them.
    #[schemars(with = "WrittenStores", example = &"local")]
    pub store: Option<Spanned<WrittenStores>>,
    /// The sets to keep in each store; without it, all of them.
    #[schemars(with = "Option<Keep>", example = json!({ "last": 3, "daily": 7, "weekly": 4, "monthly": 12 }))]
    pub keep: Option<Spanned<Keep>>,
    /// The sets to keep in single stores, by name, in place of `keep`: { offsite = { last = 7, monthly = 12 } }.
    #[schemars(with = "BTreeMap<String, Keep>", example = json!({ "offsite": { "last": 7, "monthly": 12 } }))]
    #[serde(default)]
    pub keep_in: BTreeMap<String, Spanned<Keep>>,
    /// "checksum" (the default), "restore", "none", or the frequency of each: { checksum = "always", restore = "weekly" }; there,
    /// vector_indexes = false restores without building them, and rows = "count" counts the rows of the copy without hashing them.
    #[schemars(with = "Option<WrittenVerify>", example = &"restore", example = json!({ "checksum": "always", "restore": "weekly" }))]
    pub verify: Option<Spanned<WrittenVerify>>,
    /// With verify = "restore": where a set is restored. "throwaway" is a PostgreSQL server of its own on this host; "same" is a scratch
    /// database on the database's own server; any other text is the database of the configuration on whose server the scratch database is
    /// created. The default is "throwaway" where that is possible, else "same".
    #[schemars(with = "Option<String>", example = &"throwaway")]
    pub scratch: Option<Spanned<String>>,
    /// Queries of one value, which must be true in the restored copy.
    #[schemars(with = "Vec<String>", example = ["SELECT count(*) > 0 FROM public.users"])]
    #[serde(default)]
    pub expect: Vec<Spanned<String>>,
    /// Checks of the copy in a server of its own: "amcheck" reads all heaps and B-tree indexes.
    #[schemars(with = "Vec<Check>", example = ["amcheck"])]
    #[serde(default)]
    pub checks: Vec<Spanned<Check>>,
    /// "gzip" (default), which `gunzip` reads, or "zstd", which is faster and smaller.
    #[serde(default)]
    pub compression: Compression,
    /// Compression level: gzip 1 to 12, default 4; zstd 1 to 19, default 3.
    #[schemars(with = "Option<i32>", range(min = 1, max = 19), example = 4)]
    pub level: Option<Spanned<i32>>,
    /// Number of compressing threads; default: the processors of the host, at most 4.
    #[schemars(with = "Option<usize>", range(min = 1, max = 64), example = 4)]
    pub threads: Option<Spanned<usize>>,
    /// Number of sessions that read the rows of tables above 8 MiB, all from one snapshot; default 1: pg_dump reads them. With
    /// verify = "restore", as many restore; default there: the processors of the host, at most 4.
    #[schemars(with = "Option<usize>", range(min = 1, max = SESSIONS_MOST), example = 4)]
    pub sessions: Option<Spanned<usize>>,
    /// Dump only these schemas (pg_dump's patterns), in one set. A set for each schema: `schemas` above [backup].
    #[schemars(example = ["public"])]
    #[serde(default)]
    pub schemas: Vec<String>,
    /// Tables to leave out (pg_dump's patterns).
    #[schemars(example = ["public.logs"])]
    #[serde(default)]
    pub exclude_tables: Vec<String>,
    /// Tables that are dumped without their rows (pg_dump's patterns).
    #[schemars(example = ["public.sessions"])]
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
    let stores = stores_of(&written, checker);
    for keep in written.keep.iter().chain(written.keep_in.values()).filter(|keep| keep.get_ref().keeps_nothing()) {
        checker.problem(
            keep,
            "`keep` keeps nothing",
            "keep at least one set, as in keep = { last = 3, daily = 7 }, or remove `keep` to keep all".to_owned(),
        );
    }
    let (verify, how_often) = verify_of(written.verify.as_ref(), checker);
    let vector_indexes = vector_indexes_of(written.verify.as_ref(), verify, checker);
    let rows = rows_of(written.verify.as_ref(), verify, checker);
    let scratch = scratch_of(written.scratch.as_ref(), checker);
    if let Some(scratch) = written.scratch.as_ref().filter(|_| verify != Verify::Restore) {
        checker.problem(scratch, "`scratch` without verify = \"restore\"", "only a restore needs a scratch database".to_owned());
    }
    if let Some(check) = written.checks.first() {
        let hint = match (verify, &scratch) {
            (Verify::Restore, Scratch::Auto | Scratch::Throwaway) => None,
            (Verify::Restore, _) => Some("say scratch = \"throwaway\", or leave `scratch` out"),
            _ => Some("say verify = \"restore\" and scratch = \"throwaway\""),
        };
        if let Some(hint) = hint {
            checker.problem(check, "`checks` without a server of its own, where they are made", hint.to_owned());
        }
    }
    for statement in &written.expect {
        if verify != Verify::Restore {
            checker.problem(
                statement,
                "`expect` without verify = \"restore\"",
                "its queries run in the restored copy".to_owned(),
            );
        } else if statement.get_ref().trim().trim_end_matches(';').trim().is_empty() {
            checker.problem(
                statement,
                "an empty statement in `expect`",
                "write a query of one value: \"SELECT count(*) > 0 FROM t\"".to_owned(),
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
        checker.problem(threads, format!("`threads = {}` is out of range", threads.get_ref()), "set 1 to 64".to_owned());
    }
    if let Some(sessions) = written.sessions.as_ref().filter(|sessions| !(1..=SESSIONS_MOST).contains(sessions.get_ref())) {
        checker.problem(
            sessions,
            format!("`sessions = {}` is out of range", sessions.get_ref()),
            format!("set 1 to {SESSIONS_MOST}"),
        );
    }
    let processors = std::thread::available_parallelism().map_or(1, usize::from);
    let mut stores = stores.into_iter();
    Some(Backup {
        first: stores.next()?,
        copies: stores.collect(),
        verify,
        how_often,
        vector_indexes,
        rows,
        scratch,
        checks: written.checks.into_iter().map(Spanned::into_inner).collect(),
        expect: written.expect.into_iter().map(Spanned::into_inner).collect(),
        compression: written.compression,
        level: written.level.map_or(written.compression.default_level(), Spanned::into_inner),
        threads: written.threads.map_or(processors.min(4), Spanned::into_inner),
        sessions: written.sessions.as_ref().map_or(1, |sessions| *sessions.get_ref()),
        restore_sessions: written.sessions.map(Spanned::into_inner),
        filters: manifest::Filters {
            schemas: written.schemas,
            exclude_tables: written.exclude_tables,
            exclude_table_data: written.exclude_table_data,
        },
        schema: None,
        lock_wait_timeout: written.lock_wait_timeout.unwrap_or(Span(Duration::from_secs(60))),
        give_way: written.give_way,
    })
}

/// Resolves `store`, `keep` and `keep_in`. Empty when a mistake was found.
fn stores_of(written: &Written, checker: &mut Checker<'_>) -> Vec<InStore> {
    let Some(place) = &written.store else {
        checker.missing("[backup] has no `store`", "add store = \"NAME\", with [stores.NAME] in the configuration");
        return Vec::new();
    };
    let names = match place.get_ref() {
        WrittenStores::One(name) => vec![name.clone()],
        WrittenStores::Several(names) => names.clone(),
    };
    if names.is_empty() {
        checker.problem(place, "`store` is empty", "name at least one store".to_owned());
    }
    let mut stores: Vec<InStore> = Vec::new();
    let mut are_known = true;
    for name in names {
        are_known &= checker.known("store", &Spanned::new(place.span(), name.clone()));
        if stores.iter().any(|known| known.store == name) {
            checker.problem(place, format!("store `{name}` is named twice"), "name each store once".to_owned());
            continue;
        }
        let keep = written.keep_in.get(&name).or(written.keep.as_ref()).map(|keep| *keep.get_ref());
        stores.push(InStore { store: name, keep });
    }
    for (name, keep) in written.keep_in.iter().filter(|(name, _)| stores.iter().all(|known| known.store != **name)) {
        let known: Vec<&str> = stores.iter().map(|known| known.store.as_str()).collect();
        let hint = did_you_mean(name, known.iter().copied()).or_else(|| Some(format!("its stores are: {}", known.join(", "))));
        checker.problem(keep, format!("`keep_in` names `{name}`, which is no store of this job"), hint);
    }
    if are_known { stores } else { Vec::new() }
}

/// Resolves `verify`: a text alone applies to every set.
fn verify_of(written: Option<&Spanned<WrittenVerify>>, checker: &mut Checker<'_>) -> (Verify, HowOften) {
    let Some(place) = written else { return (Verify::Checksum, HowOften::default()) };
    match place.get_ref() {
        WrittenVerify::All(verify @ Verify::Restore) => (*verify, HowOften { checksum: Often::Always, restore: Often::Always }),
        WrittenVerify::All(verify @ Verify::Checksum) => (*verify, HowOften::default()),
        WrittenVerify::All(verify @ Verify::None) => (*verify, HowOften { checksum: Often::Never, restore: Often::Never }),
        WrittenVerify::Each(WrittenHowOften { checksum, restore, vector_indexes: _, rows: _ }) => {
            if !matches!(checksum, None | Some(Often::Always | Often::Never)) {
                checker.problem(
                    place,
                    "`checksum` of `verify` must be \"always\" or \"never\"",
                    "only `restore` can be less frequent".to_owned(),
                );
            }
            let how_often = HowOften { checksum: checksum.unwrap_or(Often::Always), restore: restore.unwrap_or(Often::Never) };
            let verify = match (how_often.restore, how_often.checksum) {
                (Often::Never, Often::Never) => Verify::None,
                (Often::Never, _) => Verify::Checksum,
                _ => Verify::Restore,
            };
            (verify, how_often)
        }
    }
}

/// Returns whether a proof by restore builds vector indexes.
fn vector_indexes_of(written: Option<&Spanned<WrittenVerify>>, verify: Verify, checker: &mut Checker<'_>) -> bool {
    let Some(place) = written else { return true };
    let WrittenVerify::Each(WrittenHowOften { vector_indexes: Some(are_built), .. }) = place.get_ref() else { return true };
    if verify != Verify::Restore {
        checker.problem(place, "`vector_indexes` of `verify` without `restore`", "only a restore builds indexes".to_owned());
    }
    *are_built
}

/// Returns how a proof by restore compares rows.
fn rows_of(written: Option<&Spanned<WrittenVerify>>, verify: Verify, checker: &mut Checker<'_>) -> RowCheck {
    let Some(place) = written else { return OF_A_PROOF };
    let WrittenVerify::Each(WrittenHowOften { rows: Some(rows), .. }) = place.get_ref() else { return OF_A_PROOF };
    if verify != Verify::Restore {
        checker.problem(place, "`rows` of `verify` without `restore`", "only a restored copy has rows to compare".to_owned());
    }
    *rows
}

/// Resolves `scratch`. A database of the configuration may be called "throwaway" or "same": then the text means that database, as in the
/// first release.
fn scratch_of(written: Option<&Spanned<String>>, checker: &mut Checker<'_>) -> Scratch {
    let Some(scratch) = written else { return Scratch::Auto };
    match scratch.get_ref().as_str() {
        name if checker.config.database(name).is_some() => Scratch::Database(name.to_owned()),
        "throwaway" => Scratch::Throwaway,
        "same" => Scratch::Same,
        name => {
            checker.known("database", scratch);
            Scratch::Database(name.to_owned())
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(untagged, expecting = "`store` is the name of a store, or a list of names: [\"local\", \"offsite\"]")]
pub enum WrittenStores {
    One(String),
    Several(Vec<String>),
}

/// A check of a copy in a server of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Check {
    /// Heaps and B-tree indexes, by PostgreSQL's extension amcheck.
    Amcheck,
}

/// The place where a set is restored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Scratch {
    /// `Throwaway` where that is possible, else `Same`.
    Auto,
    /// A PostgreSQL server of its own.
    Throwaway,
    /// A scratch database on the source's server.
    Same,
    /// A scratch database on the server of that database of the configuration.
    Database(String),
}

#[derive(Clone, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(
    untagged,
    expecting = "`verify` is \"checksum\", \"restore\", \"none\", or the frequency of each: { checksum = \"always\", restore = \"weekly\" }, where `restore` is \"always\", \"never\", \"daily\", \"weekly\", \"monthly\" or \"every 7th\""
)]
pub enum WrittenVerify {
    All(Verify),
    Each(WrittenHowOften),
}

#[derive(Clone, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct WrittenHowOften {
    /// "always" (the default) or "never".
    #[schemars(with = "Option<String>", extend("enum" = ["always", "never"]))]
    checksum: Option<Often>,
    /// "always", "never" (the default), "daily", "weekly", "monthly", or "every 7th" set.
    #[schemars(with = "Option<String>", regex(pattern = r"^(always|never|daily|weekly|monthly|every [1-9]\d*[a-z]*)$"), example = &"weekly")]
    restore: Option<Often>,
    /// false: a restore makes indexes by hnsw and ivfflat over no row, as they may take hours; default true.
    vector_indexes: Option<bool>,
    /// How the rows of a restored copy are compared with the set: "hash" (the default: counted and hashed, so that values are compared) or "count".
    rows: Option<RowCheck>,
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

#[cfg(test)]
impl Backup {
    /// All of each database to the store `local`, read back.
    pub fn for_tests() -> Self {
        Self {
            first: InStore { store: "local".into(), keep: None },
            copies: Vec::new(),
            verify: Verify::Checksum,
            scratch: Scratch::Auto,
            checks: Vec::new(),
            expect: Vec::new(),
            how_often: Default::default(),
            compression: Default::default(),
            level: 1,
            threads: 1,
            filters: Default::default(),
            schema: None,
            lock_wait_timeout: Span(Duration::from_secs(60)),
            give_way: false,
            sessions: 1,
            vector_indexes: true,
            rows: RowCheck::Hash,
            restore_sessions: None,
        }
    }
}
