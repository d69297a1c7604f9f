//! Rows and tables of sets: compared, written out, restored.

use schemars::JsonSchema;
use serde::Serialize;

use crate::task::backup::how_proved::Hashed;

/// `backups diff`
#[derive(Serialize, JsonSchema)]
pub struct Diff<'a> {
    pub before: String,
    pub after: String,
    pub tables: Vec<Change<'a>>,
}

#[derive(Serialize, JsonSchema)]
pub struct Change<'a> {
    pub table: &'a str,
    /// Rows; null where a set has no such table.
    pub before: Option<u64>,
    pub after: Option<u64>,
    /// `new`, `gone`, `emptied`, `halved`, `fewer rows` or `more rows`.
    pub change: &'static str,
}

/// `backups fetch` with --output
#[derive(Serialize, JsonSchema)]
pub struct Fetch<'a> {
    pub set: &'a str,
    pub store: &'a str,
    pub table: &'a str,
    pub rows: u64,
    pub file: String,
    /// Of the object.
    pub read_bytes: u64,
    pub dump_bytes: u64,
}

/// `backups restore`
#[derive(Serialize, JsonSchema)]
#[serde(untagged)]
pub enum Restore<'a> {
    Whole(Whole<'a>),
    Parts(Parts<'a>),
    Merged(Merged<'a>),
}

/// All of a set.
#[derive(Serialize, JsonSchema)]
pub struct Whole<'a> {
    pub set: String,
    pub store: &'a str,
    pub into: &'a str,
    pub tables: u64,
    pub rows: u64,
    /// With --check-rows.
    pub rows_hashed: Option<&'a Hashed>,
    /// null where an earlier call had restored it; so are the two numbers of seconds, also without rows.
    pub sessions: Option<usize>,
    pub rows_seconds: Option<f64>,
    pub after_rows_seconds: Option<f64>,
    pub notes: &'a [String],
    pub not_carried: &'a [String],
    /// The first 100.
    pub failed: &'a [String],
    pub failed_count: u64,
    pub elapsed_seconds: f64,
}

/// With --table or --schema.
#[derive(Serialize, JsonSchema)]
pub struct Parts<'a> {
    pub set: &'a str,
    pub store: &'a str,
    pub into: &'a str,
    pub tables: Vec<TableRows<'a>>,
    pub rows: u64,
    pub notes: Vec<&'a String>,
    pub read_bytes: u64,
    pub elapsed_seconds: f64,
}

#[derive(Serialize, JsonSchema)]
pub struct TableRows<'a> {
    pub schema: &'a str,
    pub name: &'a str,
    pub rows: u64,
}

/// With --merge.
#[derive(Serialize, JsonSchema)]
pub struct Merged<'a> {
    pub set: &'a str,
    pub store: &'a str,
    pub into: &'a str,
    pub table: &'a str,
    /// Then the counts are of what would be done.
    pub dry_run: bool,
    /// In the set.
    pub rows: u64,
    pub chosen: u64,
    pub inserted: u64,
    pub replaced: u64,
    pub left: u64,
    pub notes: &'a [String],
    pub read_bytes: u64,
    pub elapsed_seconds: f64,
}
