//! Backup sets: listed, shown, proved, copied, deleted.

use schemars::JsonSchema;
use serde_json::Value;

use super::common::{Described, Moment, UnreadStore};

/// `backups list`
#[derive(JsonSchema)]
pub struct List {
    sets: Vec<Set>,
    unrestorable: Vec<Unrestorable>,
    /// Without a valid signature.
    not_ours: Vec<NotOurs>,
    not_looked_into: Vec<NotLookedInto>,
    unread_stores: Vec<UnreadStore>,
}

/// A set, with what is true of the copy that a restore takes first.
#[derive(JsonSchema)]
struct Set {
    set: String,
    store: String,
    database: String,
    job: String,
    taken_at: Moment,
    location: String,
    dump_bytes: u64,
    uncompressed_bytes: u64,
    sha256: String,
    encrypted: bool,
    /// Nobody here knows `tables` and `rows`.
    sealed: bool,
    tables: Option<u64>,
    rows: Option<u64>,
    /// The storage class that needs a thaw.
    archived: Option<String>,
    server_version: String,
    /// As docs/reference/formats.md has it.
    verification: Described,
    bytes: Bytes,
    restored: bool,
    /// SYSTEM_IDENTIFIER/DATABASE, as `--from` and `backups accept --identity` take it.
    identity: Option<String>,
    /// Tells the database from others that have had its name.
    oid: Option<i64>,
    filtered: bool,
    by_hand: bool,
    /// As in the manifest.
    adopted: Option<Described>,
    held: Vec<Described>,
    globals_problem: Option<String>,
    /// Objects beside an encrypted set that are not.
    in_the_clear: Vec<String>,
    refused_for_its_data: Option<Refused>,
    from_the_future: bool,
    signature: String,
    warnings: Vec<String>,
    copies: Vec<SetCopy>,
}

/// What was read back of the bytes.
#[derive(JsonSchema)]
#[schemars(rename_all = "snake_case")]
enum Bytes {
    Intact,
    Damaged,
    Unknown,
}

/// The restore of a copy that was refused for what all copies hold.
#[derive(JsonSchema)]
struct Refused {
    copy_in: Option<String>,
    server: String,
    version: String,
    checked_at: Moment,
    refusal: String,
    sql_state: Option<String>,
}

#[derive(JsonSchema)]
struct SetCopy {
    store: String,
    location: String,
    dump_bytes: u64,
    sha256: String,
    encrypted: bool,
    verification: Described,
    bytes: Bytes,
    restored: bool,
    held: Vec<Described>,
    signature: String,
    archived: Option<String>,
    in_the_clear: Vec<String>,
}

#[derive(JsonSchema)]
struct Unrestorable {
    store: String,
    set: String,
    reason: String,
}

#[derive(JsonSchema)]
struct NotOurs {
    store: String,
    set: String,
    signature: String,
}

#[derive(JsonSchema)]
struct NotLookedInto {
    location: String,
    reason: String,
}

/// `backups show`
#[derive(JsonSchema)]
pub struct Show {
    set: String,
    copies: Vec<ShownCopy>,
    store: String,
    location: String,
    format: u32,
    started_at: Moment,
    finished_at: Moment,
    server_version: String,
    pg_dump_version: String,
    database: String,
    /// SYSTEM_IDENTIFIER/DATABASE.
    identity: Option<String>,
    /// Tells the database from others that have had its name.
    oid: Option<i64>,
    encoding: String,
    dump_bytes: u64,
    uncompressed_bytes: u64,
    members: u64,
    encryption: Option<Described>,
    sealed: bool,
    rows: Option<u64>,
    tables: Option<Vec<Table>>,
    large_objects: u64,
    extensions: Vec<Value>,
    globals: Value,
    filters: Described,
    verification: Described,
    bytes: Bytes,
    refused_for_its_data: Option<Refused>,
    unread_stores: Vec<UnreadStore>,
    adopted: Option<Described>,
    warnings: Vec<String>,
}

#[derive(JsonSchema)]
struct ShownCopy {
    store: String,
    location: String,
    archived: Option<String>,
    verification: Described,
    bytes: Bytes,
}

#[derive(JsonSchema)]
struct Table {
    schema: String,
    name: String,
    rows: u64,
    /// In the uncompressed dump.
    bytes: u64,
    /// That hold some of it.
    members: u64,
    /// In the object.
    member_bytes: u64,
}

/// `backups verify`
#[derive(JsonSchema)]
pub struct Verify {
    set: String,
    store: String,
    /// Why this host could not decode an encrypted set.
    not_decoded: Option<String>,
    verification: Described,
    bytes: Bytes,
}

/// `backups adopt`
#[derive(JsonSchema)]
pub struct Adopt {
    set: String,
    store: String,
    /// Of the original.
    sha256: String,
    adopted: Option<Described>,
    server_version: String,
    pg_dump_version: String,
    tables: u64,
    rows: u64,
    dump_bytes: u64,
}

/// `backups certificate`
#[derive(JsonSchema)]
pub struct Certificate {
    /// The number of its form.
    certificate: u32,
    set: String,
    issued_at: Moment,
    pgtend_version: String,
    /// Labels and values.
    is: Vec<(String, String)>,
    proved: Vec<String>,
    not_proved: Vec<String>,
    kept: Vec<String>,
    facts: Described,
    /// Where the store has a key.
    #[schemars(skip_serializing_if = "Option::is_none")]
    signature: Option<String>,
}

/// `backups copy`
#[derive(JsonSchema)]
#[schemars(untagged)]
pub enum Copy {
    Copied {
        set: String,
        from: String,
        to: String,
        was_there: bool,
        sent_bytes: u64,
        /// That were there with the right bytes.
        kept_objects: Vec<String>,
        /// Empty where it is not encrypted.
        recipients: Vec<String>,
        verification: Option<Described>,
    },
    /// With --dry-run.
    Plan {
        set: String,
        from: String,
        to: String,
        objects: Vec<PlannedObject>,
        is_there: bool,
        /// A copy for others.
        replaces: bool,
        encrypts: bool,
        recipients: Vec<String>,
        notes: Vec<String>,
    },
}

#[derive(JsonSchema)]
pub struct PlannedObject {
    object: String,
    bytes: u64,
    is_there: bool,
}

/// `backups prune`
#[derive(JsonSchema)]
pub struct Prune {
    dry_run: bool,
    sets: Vec<Decision>,
    refused: Vec<NotPruned>,
    failed: Vec<NotPruned>,
}

#[derive(JsonSchema)]
struct Decision {
    name: String,
    store: String,
    keep: bool,
    /// Its bytes must be read first; it is kept until then.
    check_first: bool,
    reasons: Vec<String>,
}

#[derive(JsonSchema)]
struct NotPruned {
    database: String,
    job: String,
    store: String,
    reason: String,
}

/// `backups require`
#[derive(JsonSchema)]
pub struct Require {
    database: String,
    within_seconds: f64,
    /// Was asked for.
    restored: bool,
    met: bool,
    newest: Option<Newest>,
    /// Newer sets that do not count.
    passed_over: Vec<PassedOver>,
    unread_stores: Vec<UnreadStore>,
    reason: String,
}

#[derive(JsonSchema)]
struct Newest {
    set: String,
    store: String,
    began_at: Moment,
    age_seconds: u64,
    restored_at: Option<Moment>,
}

#[derive(JsonSchema)]
struct PassedOver {
    set: String,
    store: String,
    began_at: Moment,
    restored_at: Option<Moment>,
    #[schemars(skip_serializing_if = "Option::is_none")]
    why_not: Option<String>,
}
