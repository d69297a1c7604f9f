//! What `init` reads of a server and of its databases.

use schemars::JsonSchema;
use serde::Serialize;
use sqlx::FromRow;

use crate::pg::table::TableName;

/// The server, as one of its databases shows it.
#[derive(Clone, Debug)]
pub struct Server {
    pub version: String,
    pub major: u32,
    /// `user@host:port`.
    pub place: String,
    pub is_standby: bool,
    /// What keeps its WAL, where the role may see that.
    pub archiving: Option<String>,
    /// The databases that the role may connect to, by name, behind those that were asked for: at most some more than `look::MOST_DATABASES`.
    pub databases: Vec<Listed>,
    /// The others but PostgreSQL's own templates, each with the reason.
    pub left_out: Vec<(String, &'static str)>,
}

/// A database in the list of its server.
#[derive(Clone, Debug, FromRow)]
pub struct Listed {
    pub name: String,
    /// None where nobody knows: it is being dropped.
    pub size_bytes: Option<i64>,
    /// The role may create a schema in it: that of the ledger.
    pub may_create: bool,
}

/// What is in one database.
#[derive(Clone, Debug, Default)]
pub struct Contents {
    /// Names with versions.
    pub extensions: Vec<String>,
    /// It has something of its own besides a run history, by the measure that tells databases without a backup job.
    pub has_objects: bool,
    pub timed: Vec<Timed>,
    pub partitioned: Vec<Partitioned>,
    pub vectors: Vec<Vector>,
    pub texts: Vec<Text>,
    /// Schedules and commands of pg_cron; None where it is installed and the role may not read them.
    pub cron: Option<Vec<CronJob>>,
    /// Parent tables that pg_partman keeps; None where it is installed and the role may not read them.
    pub partman: Option<Vec<String>>,
}

/// A database as it is told of.
#[derive(Debug, Serialize, JsonSchema)]
pub struct ShownDatabase {
    pub name: String,
    pub size_bytes: Option<u64>,
    pub extensions: Vec<String>,
}

impl ShownDatabase {
    pub fn of(name: &str, listed: &Listed, contents: &Contents) -> Self {
        Self {
            name: name.to_owned(),
            size_bytes: listed.size_bytes.map(i64::unsigned_abs),
            extensions: contents.extensions.clone(),
        }
    }
}

/// A table with a column that holds a time.
#[derive(Clone, Debug, Default, FromRow)]
pub struct Timed {
    pub schema: String,
    pub name: String,
    pub column: String,
    pub oid: i64,
    /// An estimate; below 0 for a table that was never analyzed.
    pub rows: f64,
    pub size_bytes: i64,
    pub is_indexed: bool,
}

#[derive(Clone, Debug, Default, FromRow)]
pub struct Partitioned {
    pub schema: String,
    pub name: String,
    /// None for an expression.
    pub column: Option<String>,
    pub oid: i64,
    /// As in pg_partitioned_table: r, l or h.
    pub strategy: String,
    pub columns: i32,
    #[sqlx(rename = "type")]
    pub data_type: Option<String>,
    /// `FOR VALUES FROM ('2026-01-01') TO ('2026-02-01')`, the newest partition first.
    pub bounds: Option<Vec<String>>,
}

#[derive(Clone, Debug, Default, FromRow)]
pub struct Vector {
    pub schema: String,
    pub name: String,
    pub column: String,
    pub oid: i64,
    pub rows: f64,
    pub method: Option<String>,
    pub opclass: Option<String>,
}

/// A text column of a table with a large TOAST table.
#[derive(Clone, Debug, Default, FromRow)]
pub struct Text {
    pub schema: String,
    pub name: String,
    pub column: String,
    pub oid: i64,
    pub size_bytes: i64,
}

#[derive(Clone, Debug, PartialEq, Eq, FromRow)]
pub struct CronJob {
    pub schedule: String,
    pub command: String,
}

/// Returns a table's name as jobs have it.
pub fn table(oid: i64, schema: &str, name: &str) -> String {
    TableName { oid, schema: schema.to_owned(), name: name.to_owned() }.to_string()
}
