//! The manifest of a batch: its `.json`.

use anyhow::Result;
use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use sqlx::PgConnection;

use super::batch::{BatchName, Exported, Source};
use super::session::{self, server_started_at, system_identifier, transaction};
use crate::base::bounds::{self, Bounded};
use crate::store::key;

/// Format 2 has `preamble`; format 3, an `encoding` besides SQL_ASCII, which older programs would take for UTF-8. A program refuses a format newer
/// than its own.
pub const FORMAT: u32 = 3;

/// The format of a manifest that older programs read as it is meant.
const FORMAT_2: u32 = 2;

/// The preamble has statements before the rows: four settings and a search_path.
const MAX_PREAMBLE_BYTES: usize = 64 << 10;

/// PostgreSQL allows no more (MaxHeapAttributeNumber).
const MAX_COLUMNS: usize = 1600;

/// The manifest of a batch.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Manifest {
    pub format: u32,
    pub pgtend_version: String,
    pub job: String,
    pub database: String,
    pub schema: String,
    pub table: String,
    pub columns: Vec<String>,
    /// The reason why the rows left: "created_at < 2026-08-25 …", "partition execution_logs_p2026_08".
    pub reason: String,
    pub archived_at: DateTime<Utc>,
    /// The transaction, on this system, that took the rows out of the table.
    pub transaction: Option<i64>,
    pub system_identifier: Option<String>,
    /// When that server was started: after a crash it may give the transaction's number to another one.
    #[serde(default)]
    pub server_started_at: Option<String>,
    /// The encoding of the rows' bytes where that is not UTF-8: the database's. SQL_ASCII says nothing about them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub encoding: Option<String>,
    /// The text in the object before its COPY.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub preamble: Option<String>,
    /// The column that says how old a row is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub time_column: Option<String>,
    /// Another batch, which had these rows before they were changed, or whose object is damaged: it no longer counts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub replaces: Option<String>,
    /// The table's numbers, which it keeps when it is renamed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub origin: Option<Origin>,
    /// The number of rows of the same transaction that had come back from other batches, and are in those.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub came_back: u64,
    #[serde(flatten)]
    pub exported: Exported,
}

/// The numbers (oid) of a database and of a table in it, on the server that the manifest names.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Origin {
    pub database: i64,
    pub table: i64,
}

impl Origin {
    pub async fn of(connection: &mut PgConnection, table: i64) -> Result<Self> {
        let sql =
            "SELECT oid::bigint FROM pg_catalog.pg_database WHERE datname OPERATOR(pg_catalog.=) pg_catalog.current_database()";
        Ok(Self { database: sqlx::query_scalar(sql).fetch_one(connection).await?, table })
    }
}

fn is_zero(number: &u64) -> bool {
    *number == 0
}

impl Manifest {
    /// Returns whether the batch is in the folder of the job and database that the manifest names.
    pub(super) fn is_of(&self, name: &BatchName) -> bool {
        name.0.starts_with(&format!("{}archive/", key::folder(&self.database, &self.job)))
    }

    /// Returns the manifest of a batch that is about to be written.
    pub fn new(job: &str, database: &str, source: &Source, reason: &str) -> Self {
        Self {
            format: FORMAT_2,
            pgtend_version: env!("CARGO_PKG_VERSION").to_owned(),
            job: job.to_owned(),
            database: database.to_owned(),
            schema: source.schema.clone(),
            table: source.table.clone(),
            columns: source.columns.clone(),
            reason: reason.to_owned(),
            archived_at: Utc::now(),
            transaction: None,
            system_identifier: None,
            server_started_at: None,
            encoding: None,
            preamble: None,
            time_column: None,
            replaces: None,
            origin: None,
            came_back: 0,
            exported: Exported::default(),
        }
    }

    /// Sets the column by which `archives restore --time` selects.
    pub fn by_time(self, column: &str) -> Self {
        Self { time_column: Some(column.to_owned()), ..self }
    }

    /// Records the current transaction of `connection`, which decides whether the batch counts.
    pub(super) async fn decided_by(mut self, connection: &mut PgConnection) -> Result<Self> {
        self.transaction = Some(transaction(connection).await?);
        self.system_identifier = Some(system_identifier(connection).await?);
        self.server_started_at = Some(server_started_at(connection).await?);
        let (encoding, preamble) = session::preamble(connection).await?;
        if encoding.as_deref().is_some_and(|encoding| encoding != session::SQL_ASCII) {
            self.format = FORMAT;
        }
        self.encoding = encoding;
        self.preamble = Some(preamble);
        Ok(self)
    }
}

impl Bounded for Manifest {
    fn check(&self) -> Result<()> {
        anyhow::ensure!(self.format <= FORMAT, "it has format {}, made by a newer pgtend", self.format);
        bounds::time("archived_at", self.archived_at)?;
        bounds::catalog_name("schema", &self.schema)?;
        bounds::catalog_name("table", &self.table)?;
        anyhow::ensure!(self.columns.len() <= MAX_COLUMNS, "it has {} columns, more than any table can have", self.columns.len());
        self.columns.iter().try_for_each(|column| bounds::catalog_name("a column", column))?;
        if let Some(column) = &self.time_column {
            bounds::catalog_name("time_column", column)?;
        }
        if let Some(encoding) = &self.encoding {
            bounds::catalog_name("encoding", encoding)?;
        }
        let preamble = self.preamble.as_ref().map_or(0, String::len);
        anyhow::ensure!(preamble <= MAX_PREAMBLE_BYTES, "its preamble has {preamble} bytes");
        bounds::count("came_back", self.came_back)?;
        let transaction = self.transaction.unwrap_or_default();
        anyhow::ensure!(transaction >= 0, "transaction is {transaction}");
        let Exported { rows, bytes, uncompressed_bytes, sha256 } = &self.exported;
        bounds::count("bytes", *bytes)?;
        bounds::count("uncompressed_bytes", *uncompressed_bytes)?;
        // Each row has a newline.
        anyhow::ensure!(rows <= uncompressed_bytes, "it has {rows} rows in {uncompressed_bytes} bytes");
        // Before the object is written there is nothing to hash.
        if *bytes > 0 { bounds::sha256("sha256", sha256) } else { Ok(()) }
    }
}
