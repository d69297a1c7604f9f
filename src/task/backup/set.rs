//! A set in a store: `DATABASE/JOB/2026-11-23T02-00-00Z/{dump.sql.gz, globals.sql.gz, manifest.json}`. The manifest
//! is written last, and only a manifest makes a set. `verification.json` beside it says what checks have found.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use anyhow::{Context as _, Result};
use chrono::{DateTime, NaiveDateTime, SubsecRound as _, Utc};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_decode_str, utf8_percent_encode};
use serde::{Deserialize, Serialize};

use super::compress::Compression;
use super::facts::ServerFacts;
use super::keep::{Candidate, Proof};
use super::members::MemberIndex;
use super::scan::TableData;
use crate::store::{Object, Store};

pub const MANIFEST: &str = "manifest.json";
pub const VERIFICATION: &str = "verification.json";
pub const GLOBALS: &str = "globals.sql.gz";
/// Of the manifest. A program that meets a newer one refuses it rather than guess.
pub const FORMAT: u32 = 1;

const TIME: &str = "%Y-%m-%dT%H-%M-%SZ";

/// What names keep in a key; all else is percent-encoded, so that no name can leave its place.
const PLAIN: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'_').remove(b'.');

/// Where a set is. Its text form is `DATABASE/JOB/TIME`, as in the store.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct SetName {
    pub database: String,
    pub job: String,
    /// Whole seconds.
    pub taken_at: DateTime<Utc>,
}

impl SetName {
    pub fn new(database: &str, job: &str, taken_at: DateTime<Utc>) -> Self {
        Self { database: database.to_owned(), job: job.to_owned(), taken_at: taken_at.trunc_subsecs(0) }
    }

    /// The key of one of its objects.
    pub fn key(&self, object: &str) -> String {
        format!("{}{}/{object}", folder(&self.database, &self.job), self.taken_at.format(TIME))
    }
}

impl fmt::Display for SetName {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        write!(f, "{}/{}/{}", encode(&self.database), encode(&self.job), self.taken_at.format(TIME))
    }
}

impl FromStr for SetName {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> Result<Self> {
        let parts: Vec<&str> = text.split('/').collect();
        let [database, job, time] = parts[..] else { anyhow::bail!("`{text}` is not DATABASE/JOB/TIME") };
        let taken_at = parse_time(time).with_context(|| format!("`{time}` is not a set's time, like 2026-11-23T02-00-00Z"))?;
        Ok(Self { database: decode(database)?, job: decode(job)?, taken_at })
    }
}

/// The folder of a job's sets on one database: `DATABASE/JOB/`.
pub fn folder(database: &str, job: &str) -> String {
    format!("{}/{}/", encode(database), encode(job))
}

pub fn parse_time(text: &str) -> Option<DateTime<Utc>> {
    NaiveDateTime::parse_from_str(text, TIME).ok().map(|time| time.and_utc())
}

fn encode(name: &str) -> String {
    let encoded = utf8_percent_encode(name, PLAIN).to_string();
    // `.` and `..` would be folders of another meaning.
    if encoded.starts_with('.') { encoded.replacen('.', "%2E", 1) } else { encoded }
}

fn decode(name: &str) -> Result<String> {
    Ok(percent_decode_str(name).decode_utf8().context("a name in a key is not UTF-8")?.into_owned())
}

/// All that is known of a set when it is made.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Manifest {
    pub format: u32,
    pub pgtend_version: String,
    pub job: String,
    /// Its name in the configuration.
    pub database: String,
    pub started_at: DateTime<Utc>,
    pub finished_at: DateTime<Utc>,
    pub server: ServerFacts,
    /// `pg_dump (PostgreSQL) 18.4`
    pub pg_dump_version: String,
    pub dump: DumpObject,
    pub globals: Globals,
    /// In the dump's order; rows as of its snapshot.
    pub tables: Vec<TableData>,
    pub large_objects: u64,
    /// What the job left out on purpose.
    pub filters: Filters,
    pub warnings: Vec<String>,
}

impl Manifest {
    pub fn rows(&self) -> u64 {
        self.tables.iter().map(|table| table.rows).sum()
    }
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct DumpObject {
    /// `dump.sql.gz`, beside the manifest.
    pub object: String,
    pub compression: Compression,
    pub bytes: u64,
    /// Of the object, in hexadecimal.
    pub sha256: String,
    pub uncompressed_bytes: u64,
    pub members: MemberIndex,
    pub elapsed_seconds: f64,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Globals {
    /// `globals.sql.gz`; without role passwords where they may not be read.
    Object { bytes: u64, sha256: String, role_passwords: bool },
    /// Why there is none.
    Absent { reason: String },
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Filters {
    pub schemas: Vec<String>,
    pub exclude_tables: Vec<String>,
    pub exclude_table_data: Vec<String>,
}

impl Filters {
    /// The set holds the whole database.
    pub fn are_none(&self) -> bool {
        self.schemas.is_empty() && self.exclude_tables.is_empty() && self.exclude_table_data.is_empty()
    }
}

/// `verification.json`: the last result of each kind of check.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Verification {
    #[serde(default)]
    pub checks: BTreeMap<String, Check>,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Check {
    pub checked_at: DateTime<Utc>,
    /// Empty when all is well.
    pub problems: Vec<String>,
    pub elapsed_seconds: f64,
}

impl Verification {
    pub fn proof(&self) -> Proof {
        if self.checks.values().any(|check| !check.problems.is_empty()) {
            Proof::Damaged
        } else if self.checks.is_empty() {
            Proof::Unknown
        } else {
            Proof::Verified
        }
    }

    /// "restore", "checksum", "damaged (restore)" or "no", for listings.
    pub fn in_words(&self) -> String {
        if let Some((kind, _)) = self.checks.iter().find(|(_, check)| !check.problems.is_empty()) {
            return format!("damaged ({kind})");
        }
        match (self.checks.contains_key("restore"), self.checks.contains_key("checksum")) {
            (true, _) => "restored".to_owned(),
            (false, true) => "checksum".to_owned(),
            _ => "no".to_owned(),
        }
    }
}

/// A set as a store has it.
#[derive(Clone, Debug)]
pub struct Set {
    pub name: SetName,
    pub manifest: Manifest,
    pub verification: Verification,
}

impl Set {
    pub fn candidate(&self) -> Candidate {
        Candidate { name: self.name.to_string(), taken_at: self.name.taken_at, proof: self.verification.proof() }
    }
}

/// What stands in a folder of sets.
#[derive(Clone, Debug, Default)]
pub struct Listing {
    /// Oldest first.
    pub sets: Vec<Set>,
    /// Sets without a manifest: what a killed run left. With the objects they have.
    pub incomplete: Vec<(SetName, Vec<String>)>,
    /// Manifests that cannot be read, with the reason. Nothing touches these.
    pub unreadable: Vec<(SetName, String)>,
}

/// Reads all sets whose keys start with `folder` (empty: the whole store).
pub async fn list(store: &Store, folder: &str) -> Result<Listing> {
    let mut objects: BTreeMap<SetName, Vec<Object>> = BTreeMap::new();
    for object in store.list(folder).await? {
        // Other things in the bucket are not ours.
        let Some((path, _)) = object.key.rsplit_once('/') else { continue };
        if let Ok(name) = path.parse::<SetName>() {
            objects.entry(name).or_default().push(object);
        }
    }
    let mut listing = Listing::default();
    for (name, objects) in objects {
        if !objects.iter().any(|object| object.key == name.key(MANIFEST)) {
            listing.incomplete.push((name, objects.into_iter().map(|object| object.key).collect()));
            continue;
        }
        match read(store, &name).await {
            Ok(set) => {
                let dump = objects.iter().find(|object| object.key == name.key(&set.manifest.dump.object));
                match dump {
                    Some(dump) if dump.bytes == set.manifest.dump.bytes => listing.sets.push(set),
                    Some(dump) => {
                        let reason =
                            format!("its dump has {} bytes and the manifest says {}", dump.bytes, set.manifest.dump.bytes);
                        listing.unreadable.push((name, reason));
                    }
                    None => listing.unreadable.push((name, format!("its {} is gone", set.manifest.dump.object))),
                }
            }
            Err(error) => listing.unreadable.push((name, format!("{error:#}"))),
        }
    }
    Ok(listing)
}

pub async fn read(store: &Store, name: &SetName) -> Result<Set> {
    let key = name.key(MANIFEST);
    let bytes = store.get(&key).await?.with_context(|| format!("there is no {}", store.location(&key)))?;
    #[derive(Deserialize)]
    struct FormatOnly {
        format: u32,
    }
    let FormatOnly { format } =
        serde_json::from_slice(&bytes).with_context(|| format!("{} is not a manifest", store.location(&key)))?;
    anyhow::ensure!(
        format <= FORMAT,
        "{} has format {format}, and this pgtend reads up to {FORMAT}: use a newer one",
        store.location(&key)
    );
    let manifest = serde_json::from_slice(&bytes).with_context(|| format!("{} is not a manifest", store.location(&key)))?;
    let verification = match store.get(&name.key(VERIFICATION)).await? {
        // A result that cannot be read is no result.
        Some(bytes) => serde_json::from_slice(&bytes).unwrap_or_default(),
        None => Verification::default(),
    };
    Ok(Set { name: name.clone(), manifest, verification })
}

pub async fn write_manifest(store: &Store, name: &SetName, manifest: &Manifest) -> Result<()> {
    store.put(&name.key(MANIFEST), serde_json::to_vec_pretty(manifest)?).await
}

/// Adds a check's result to what earlier ones found.
pub async fn record_check(store: &Store, set: &mut Set, kind: &str, check: Check) -> Result<()> {
    set.verification.checks.insert(kind.to_owned(), check);
    store.put(&set.name.key(VERIFICATION), serde_json::to_vec_pretty(&set.verification)?).await
}

/// Deletes a set, its manifest first: what is left by a kill in between is no set, and the next sweep takes it.
pub async fn delete(store: &Store, set: &Set) -> Result<()> {
    for object in [MANIFEST, VERIFICATION, GLOBALS, &set.manifest.dump.object] {
        store.delete(&set.name.key(object)).await?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_read_as_they_are_written() {
        let taken_at = "2026-11-23T02:00:00.7Z".parse().unwrap();
        for (database, job) in [("psscript", "backup-nightly"), ("we\"ird; drop/ä", ".."), (".", "a b")] {
            let name = SetName::new(database, job, taken_at);
            assert_eq!(name.to_string().parse::<SetName>().unwrap(), name);
            assert_eq!(name.key("x").matches('/').count(), 3);
            assert!(!name.key("x").split('/').any(|part| part == ".." || part == "."), "{}", name.key("x"));
        }
        assert_eq!(SetName::new("a", "b", taken_at).key(MANIFEST), "a/b/2026-11-23T02-00-00Z/manifest.json");
    }

    #[test]
    fn other_keys_are_not_sets() {
        for text in ["a/b", "a/b/c", "a/b/2026-11-23", "a/b/2026-11-23T02-00-00Z/x"] {
            assert!(text.parse::<SetName>().is_err(), "{text}");
        }
    }

    #[test]
    fn one_failed_check_outweighs_a_good_one() {
        let check = |problems: &[&str]| Check {
            checked_at: Utc::now(),
            problems: problems.iter().map(|p| (*p).to_owned()).collect(),
            elapsed_seconds: 0.0,
        };
        let mut verification = Verification::default();
        assert_eq!(verification.proof(), Proof::Unknown);
        verification.checks.insert("restore".into(), check(&[]));
        assert_eq!(verification.proof(), Proof::Verified);
        verification.checks.insert("checksum".into(), check(&["flipped"]));
        assert_eq!(verification.proof(), Proof::Damaged);
    }
}
