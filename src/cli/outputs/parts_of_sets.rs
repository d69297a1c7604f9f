//! Rows and tables of sets: compared, written out, restored.

use schemars::JsonSchema;

use super::common::Described;

/// `backups diff`
#[derive(JsonSchema)]
pub struct Diff {
    before: String,
    after: String,
    tables: Vec<Change>,
}

#[derive(JsonSchema)]
struct Change {
    table: String,
    /// Rows; null where a set has no such table.
    before: Option<u64>,
    after: Option<u64>,
    /// `new`, `gone`, `emptied`, `halved`, `fewer rows` or `more rows`.
    change: String,
}

/// `backups fetch` with --output
#[derive(JsonSchema)]
pub struct Fetch {
    set: String,
    store: String,
    table: String,
    rows: u64,
    file: String,
    /// Of the object.
    read_bytes: u64,
    dump_bytes: u64,
}

/// `backups restore`
#[derive(JsonSchema)]
#[schemars(untagged)]
pub enum Restore {
    /// All of a set.
    Whole {
        set: String,
        store: String,
        into: String,
        tables: u64,
        rows: u64,
        /// With --check-rows: `tables` and `rows` whose values were compared, and `only_counted`.
        rows_hashed: Option<Described>,
        sessions: u64,
        rows_seconds: Option<f64>,
        after_rows_seconds: Option<f64>,
        notes: Vec<String>,
        not_carried: Vec<String>,
        failed: Vec<String>,
        failed_count: u64,
        elapsed_seconds: f64,
    },
    /// With --table or --schema.
    Parts {
        set: String,
        store: String,
        into: String,
        tables: Vec<TableRows>,
        rows: u64,
        notes: Vec<String>,
        read_bytes: u64,
        elapsed_seconds: f64,
    },
    /// With --merge.
    Merged {
        set: String,
        store: String,
        into: String,
        table: String,
        /// Then the counts are of what would be done.
        dry_run: bool,
        /// In the set.
        rows: u64,
        chosen: u64,
        inserted: u64,
        replaced: u64,
        left: u64,
        notes: Vec<String>,
        read_bytes: u64,
        elapsed_seconds: f64,
    },
}

#[derive(JsonSchema)]
pub struct TableRows {
    schema: String,
    name: String,
    rows: u64,
}
