//! Backup sets: listed, shown, proved, copied, deleted.

use chrono::{DateTime, Utc};
use schemars::JsonSchema;
use serde::Serialize;

use super::common::{Described, UnreadStore};
use crate::members::encryption::Encryption;
use crate::store::sign::Signature;
use crate::task::backup::adopted::Adopted;
use crate::task::backup::copies::copy_plan;
use crate::task::backup::copies::together::RefusedBeside;
use crate::task::backup::facts::Extension;
use crate::task::backup::gate::{NotAsked, Seen};
use crate::task::backup::keep;
use crate::task::backup::manifest::{Filters, Globals};
use crate::task::backup::markers::Hold;
use crate::task::backup::verdict::{Bytes, Verification};

/// `backups list`
#[derive(Serialize, JsonSchema)]
pub struct List<'a> {
    pub sets: Vec<Set<'a>>,
    pub unrestorable: Vec<Unrestorable<'a>>,
    /// Without a valid signature.
    pub not_ours: Vec<NotOurs<'a>>,
    pub not_looked_into: Vec<NotLookedInto<'a>>,
    pub unread_stores: Vec<UnreadStore<'a>>,
}

/// A set, with what is true of the copy that a restore takes first.
#[derive(Serialize, JsonSchema)]
pub struct Set<'a> {
    pub set: String,
    pub database: &'a str,
    pub job: &'a str,
    pub taken_at: DateTime<Utc>,
    #[serde(flatten)]
    pub first: SetCopy<'a>,
    pub uncompressed_bytes: u64,
    /// Nobody here knows `tables` and `rows`.
    pub sealed: bool,
    pub tables: Option<usize>,
    pub rows: Option<u64>,
    pub server_version: &'a str,
    /// SYSTEM_IDENTIFIER/DATABASE, as `--from` and `backups accept --identity` take it.
    pub identity: Option<String>,
    /// Tells the database from others that have had its name.
    pub oid: Option<i64>,
    /// The same of the schema that alone is in the set.
    pub schema_oid: Option<i64>,
    pub filtered: bool,
    pub by_hand: bool,
    /// As in the manifest.
    #[schemars(with = "Option<Described>")]
    pub adopted: Option<&'a Adopted>,
    pub globals_problem: Option<&'a str>,
    pub refused_for_its_data: Option<RefusedBeside<'a>>,
    pub from_the_future: bool,
    pub warnings: &'a [String],
    pub copies: Vec<SetCopy<'a>>,
}

#[derive(Serialize, JsonSchema)]
pub struct SetCopy<'a> {
    pub store: &'a str,
    pub location: &'a str,
    pub dump_bytes: u64,
    pub sha256: &'a str,
    pub encrypted: bool,
    /// As docs/reference/formats.md has it.
    #[schemars(with = "Described")]
    pub verification: &'a Verification,
    /// What was read back of the bytes.
    pub bytes: Bytes,
    pub restored: bool,
    #[schemars(with = "Vec<Described>")]
    pub held: Vec<&'a Hold>,
    pub signature: Signature,
    /// The storage class that needs a thaw.
    pub archived: Option<&'a str>,
    /// Objects beside an encrypted set that are not.
    pub in_the_clear: &'a [&'static str],
}

#[derive(Serialize, JsonSchema)]
pub struct Unrestorable<'a> {
    pub store: &'a str,
    pub set: String,
    pub reason: &'a str,
}

#[derive(Serialize, JsonSchema)]
pub struct NotOurs<'a> {
    pub store: &'a str,
    pub set: String,
    pub signature: Signature,
}

#[derive(Serialize, JsonSchema)]
pub struct NotLookedInto<'a> {
    pub location: &'a str,
    pub reason: &'a str,
}

/// `backups show`
#[derive(Serialize, JsonSchema)]
pub struct Show<'a> {
    pub set: String,
    pub copies: Vec<ShownCopy<'a>>,
    pub store: &'a str,
    pub location: String,
    pub format: u32,
    pub started_at: DateTime<Utc>,
    pub finished_at: DateTime<Utc>,
    pub server_version: &'a str,
    pub pg_dump_version: &'a str,
    pub database: &'a str,
    /// SYSTEM_IDENTIFIER/DATABASE.
    pub identity: Option<String>,
    /// Tells the database from others that have had its name.
    pub oid: Option<i64>,
    /// The same of the schema that alone is in the set.
    pub schema_oid: Option<i64>,
    pub encoding: &'a str,
    pub dump_bytes: u64,
    pub uncompressed_bytes: u64,
    pub members: u64,
    #[schemars(with = "Option<Described>")]
    pub encryption: Option<&'a Encryption>,
    pub sealed: bool,
    pub rows: Option<u64>,
    pub tables: Option<&'a [Table]>,
    pub large_objects: u64,
    #[schemars(with = "Vec<Described>")]
    pub extensions: &'a [Extension],
    #[schemars(with = "Described")]
    pub globals: &'a Globals,
    #[schemars(with = "Described")]
    pub filters: &'a Filters,
    #[schemars(with = "Described")]
    pub verification: &'a Verification,
    pub bytes: Bytes,
    pub refused_for_its_data: Option<RefusedBeside<'a>>,
    pub unread_stores: Vec<UnreadStore<'a>>,
    #[schemars(with = "Option<Described>")]
    pub adopted: Option<&'a Adopted>,
    pub warnings: &'a [String],
}

#[derive(Serialize, JsonSchema)]
pub struct ShownCopy<'a> {
    pub store: &'a str,
    pub location: String,
    pub archived: Option<&'a str>,
    #[schemars(with = "Described")]
    pub verification: &'a Verification,
    pub bytes: Bytes,
}

/// A table of a set, with all blocks of its rows.
#[derive(Default, Serialize, JsonSchema)]
pub struct Table {
    pub schema: String,
    pub name: String,
    pub rows: u64,
    /// In the uncompressed dump.
    pub bytes: u64,
    /// That hold some of it.
    pub members: u64,
    /// In the object.
    pub member_bytes: u64,
}

/// `backups verify`
#[derive(Serialize, JsonSchema)]
pub struct Verify<'a> {
    pub set: String,
    pub store: &'a str,
    /// Why this host could not decode an encrypted set.
    pub not_decoded: Option<&'a str>,
    #[schemars(with = "Described")]
    pub verification: &'a Verification,
    pub bytes: Bytes,
}

/// `backups adopt`
#[derive(Serialize, JsonSchema)]
pub struct Adopt<'a> {
    pub set: String,
    pub store: &'a str,
    /// Of the original.
    pub sha256: &'a str,
    #[schemars(with = "Option<Described>")]
    pub adopted: Option<&'a Adopted>,
    pub server_version: &'a str,
    pub pg_dump_version: &'a str,
    pub tables: usize,
    pub rows: u64,
    pub dump_bytes: u64,
}

/// `backups certificate`, with the signature that a store's key gives.
#[derive(JsonSchema)]
#[expect(dead_code, reason = "it is signed as the text that it is printed as")]
pub struct Certificate {
    #[schemars(flatten)]
    certificate: crate::task::backup::certificate::Certificate,
    /// Where the store has a key.
    #[schemars(skip_serializing_if = "Option::is_none")]
    signature: Option<String>,
}

/// `backups copy`
#[derive(Serialize, JsonSchema)]
#[serde(untagged)]
pub enum Copy<'a> {
    Copied(Copied<'a>),
    /// With --dry-run.
    Plan(&'a copy_plan::Plan),
}

#[derive(Serialize, JsonSchema)]
pub struct Copied<'a> {
    pub set: &'a str,
    pub from: &'a str,
    pub to: &'a str,
    pub was_there: bool,
    pub sent_bytes: u64,
    /// That were there with the right bytes.
    pub kept_objects: &'a [String],
    /// Empty where it is not encrypted.
    pub recipients: &'a [String],
    #[schemars(with = "Option<Described>")]
    pub verification: Option<&'a Verification>,
}

/// `backups prune`
#[derive(Serialize, JsonSchema)]
pub struct Prune<'a> {
    pub dry_run: bool,
    pub sets: Vec<Decision<'a>>,
    pub refused: Vec<NotPruned<'a>>,
    pub failed: Vec<NotPruned<'a>>,
}

#[derive(Serialize, JsonSchema)]
pub struct Decision<'a> {
    #[serde(flatten)]
    pub decision: &'a keep::Decision,
    pub store: &'a str,
}

#[derive(Serialize, JsonSchema)]
pub struct NotPruned<'a> {
    pub database: &'a str,
    pub job: &'a str,
    pub store: &'a str,
    pub reason: String,
}

/// `backups hold`
#[derive(Serialize, JsonSchema)]
pub struct Held<'a> {
    pub set: String,
    pub until: DateTime<Utc>,
    pub reason: &'a str,
    /// With a copy that is held now.
    pub stores: &'a [String],
}

/// `backups release`
#[derive(Serialize, JsonSchema)]
pub struct Released {
    pub set: String,
    pub copies: Vec<ReleasedCopy>,
}

#[derive(Serialize, JsonSchema)]
pub struct ReleasedCopy {
    pub store: String,
    /// Of the holds that ended; empty where there was none.
    pub reasons: Vec<String>,
}

/// `backups accept`: a set that lost something, or with --identity a server.
#[derive(Serialize, JsonSchema)]
#[serde(untagged)]
pub enum Accept {
    Loss {
        /// What was held because of that set.
        released: Vec<NoLongerHeld>,
    },
    Identity {
        series: Vec<Series>,
    },
}

#[derive(Serialize, JsonSchema)]
pub struct NoLongerHeld {
    pub set: String,
    pub store: String,
}

/// The series of a job, with the sets that belong to it now.
#[derive(Serialize, JsonSchema)]
pub struct Series {
    pub database: String,
    pub job: String,
    pub store: String,
    pub identity: String,
    /// That of the configured database.
    pub into: String,
    pub by_name: bool,
    pub sets: Vec<String>,
    /// Of other databases that had this name before, or whose server is not recorded: they stay as they are.
    pub left: Vec<String>,
    /// Those of `sets` that have what the newest set of the database's own lacks.
    pub held: Vec<HeldAfterLoss>,
}

/// A set that is held for 30 days, or until `backups accept` of the set that lacks something of it.
#[derive(Serialize, JsonSchema)]
pub struct HeldAfterLoss {
    pub set: String,
    pub because_of: String,
    /// What that one lacks, in words.
    pub lost: String,
}

/// `backups require`
#[derive(Serialize, JsonSchema)]
pub struct Require<'a> {
    pub database: &'a str,
    pub within_seconds: f64,
    /// Was asked for.
    pub restored: bool,
    pub met: bool,
    pub newest: Option<Newest<'a>>,
    /// Newer sets that do not count.
    pub passed_over: &'a [Seen],
    pub unread_stores: &'a [NotAsked],
    pub reason: &'a str,
}

#[derive(Serialize, JsonSchema)]
pub struct Newest<'a> {
    pub set: &'a str,
    pub store: &'a str,
    pub began_at: DateTime<Utc>,
    pub age_seconds: u64,
    pub restored_at: Option<DateTime<Utc>>,
}
