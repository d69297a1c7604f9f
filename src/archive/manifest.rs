//! The manifest of a batch: its `.json`.

use anyhow::Result;
use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use sqlx::PgConnection;

use super::batch::{BatchName, Exported, Source};
use super::restored::Place;
use super::session::{self, server_started_at, system_identifier, transaction};
use crate::base::bounds::{self, Bounded};
use crate::members::sealed::Sealed;
use crate::pg;
use crate::pg::wal::{Position, parse_lsn};
use crate::store::key;

/// Format 2 has `preamble`; format 3, an `encoding` besides SQL_ASCII, which older programs would take for UTF-8; format 4 is of an encrypted object; format 5 is sealed.
/// A program refuses a format newer than its own.
pub const FORMAT: u32 = SEALED_FORMAT;

pub const ENCRYPTED_FORMAT: u32 = 4;
pub const SEALED_FORMAT: u32 = 5;

/// The format of a manifest that older programs read as it is meant.
const FORMAT_2: u32 = 2;

const FORMAT_3: u32 = 3;

/// The preamble has statements before the rows: four settings and a search_path.
const MAX_PREAMBLE_BYTES: usize = 64 << 10;

/// PostgreSQL allows no more (MaxHeapAttributeNumber).
const MAX_COLUMNS: usize = 1600;

/// A batch whose rows came back from more batches is invalid.
const MAX_SOURCES: usize = 10_000;

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
    /// The timeline on which that server wrote, and where in it, shortly before the commit; absent where the server does not say, and in those of earlier releases.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeline: Option<i64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lsn: Option<String>,
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
    /// The batches that they are in; only in a pending manifest.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub came_from: Vec<CameFrom>,
    /// The database's own name, which the configuration may call otherwise.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub database_name: Option<String>,
    #[serde(flatten)]
    pub exported: Exported,
    /// Names and the reason, which only a key opens; None: they stand in the open.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sealed: Option<Sealed>,
    /// A key of this host has opened what is sealed: it stands in the other fields.
    #[serde(skip)]
    pub is_opened: bool,
}

/// The numbers (oid) of a database and of a table in it, on the server that the manifest names.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Origin {
    pub database: i64,
    pub table: i64,
}

/// Whether two batches are of one table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SameTable {
    Yes,
    No,
    /// One of them does not say which database it is of, as those of earlier releases; or they name two servers and the same numbers, which pg_upgrade
    /// keeps, and a server can have by chance.
    Unknown,
}

/// Rows that had come back from another batch, and left again.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct CameFrom {
    pub batch: String,
    pub rows: u64,
    pub place: Place,
}

/// The database that a batch is of: two configurations may call two databases the same.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Identity {
    pub system_identifier: String,
    /// The number (oid) and the name of the database; earlier releases did not write them for most batches.
    pub database: Option<(i64, Option<String>)>,
}

impl Identity {
    /// Returns whether both may be one database: what one does not say, it does not deny.
    pub fn may_be(&self, other: &Self) -> bool {
        let numbers = |identity: &Self| identity.database.as_ref().map(|(oid, _)| *oid);
        self.system_identifier == other.system_identifier
            && numbers(self).zip(numbers(other)).is_none_or(|(own, other)| own == other)
    }

    /// Returns whether a person means it: by both parts, or by the server alone.
    pub fn is_meant(&self, text: &str) -> bool {
        text == self.system_identifier
            || text == self.to_string()
            || (self.database.is_none() && text.split('/').next() == Some(&self.system_identifier))
    }
}

/// Writes SYSTEM_IDENTIFIER/DATABASE, as for sets.
impl std::fmt::Display for Identity {
    fn fmt(&self, f: &mut std::fmt::Formatter) -> std::fmt::Result {
        f.write_str(&self.system_identifier)?;
        match &self.database {
            Some((_, Some(name))) => write!(f, "/{name}"),
            Some((oid, None)) => write!(f, "/{oid}"),
            None => Ok(()),
        }
    }
}

impl Origin {
    /// Returns the numbers of the table with this name, if there is one.
    async fn named(connection: &mut PgConnection, schema: &str, table: &str) -> Result<Option<Self>> {
        let sql = "SELECT pg_catalog.to_regclass($1)::pg_catalog.oid::bigint";
        let oid: Option<i64> = sqlx::query_scalar(sql).bind(pg::qualified(schema, table)).fetch_one(&mut *connection).await?;
        match oid {
            Some(oid) => Self::of(connection, oid).await.map(Some),
            None => Ok(None),
        }
    }

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
            timeline: None,
            lsn: None,
            encoding: None,
            preamble: None,
            time_column: None,
            replaces: None,
            origin: None,
            came_back: 0,
            came_from: Vec::new(),
            database_name: None,
            exported: Exported::default(),
            sealed: None,
            is_opened: false,
        }
    }

    /// Returns whether it is sealed, and no key of this host has opened it: nothing in it names the table.
    pub fn names_are_sealed(&self) -> bool {
        self.sealed.is_some() && !self.is_opened
    }

    /// The table that its rows left, for people.
    pub fn table_in_words(&self) -> String {
        match self.names_are_sealed() {
            true => "a table whose name is sealed".to_owned(),
            false => format!("{}.{}", self.schema, self.table),
        }
    }

    /// The table that its rows left, by its name in SQL; of a sealed one, the table with its number on that server, if it is there.
    pub(super) async fn table_here(&self, connection: &mut PgConnection) -> Result<Option<String>> {
        if !self.names_are_sealed() {
            return Ok(Some(pg::qualified(&self.schema, &self.table)));
        }
        let Some(origin) = self.origin else { return Ok(None) };
        let sql = "SELECT pg_catalog.format('%I.%I', n.nspname, c.relname)
                   FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid OPERATOR(pg_catalog.=) c.relnamespace
                   WHERE c.oid OPERATOR(pg_catalog.=) $1::bigint::pg_catalog.oid";
        let is_here = self.system_identifier == Some(system_identifier(connection).await?);
        let named: Option<String> = sqlx::query_scalar(sql).bind(origin.table).fetch_optional(&mut *connection).await?;
        Ok(named.filter(|_| is_here))
    }

    /// Returns whether all rows of the transaction are in other batches.
    pub(super) fn is_empty(&self) -> bool {
        self.exported.rows == 0 && self.came_back > 0
    }

    /// Returns the database that it is of; `None` where it does not say.
    pub fn identity(&self) -> Option<Identity> {
        let database = self.origin.map(|origin| (origin.database, self.database_name.clone()));
        Some(Identity { system_identifier: self.system_identifier.clone()?, database })
    }

    /// Compares the tables of two batches, by numbers: their names and the numbers of the tables alone are alike in copies of a database (CREATE DATABASE …
    /// TEMPLATE). Pure.
    pub fn same_table(&self, other: &Self) -> SameTable {
        let is_same_server =
            self.system_identifier.as_ref().zip(other.system_identifier.as_ref()).map(|(own, other)| own == other);
        match (self.origin.zip(other.origin).map(|(own, other)| own == other), is_same_server) {
            (Some(false), _) => SameTable::No,
            (Some(true), Some(true)) => SameTable::Yes,
            (Some(true) | None, _) => SameTable::Unknown,
        }
    }

    /// Records where the server is in its log.
    pub(super) fn at(&mut self, position: Option<Position>) {
        (self.timeline, self.lsn) = position.map(|position| (position.timeline, position.lsn)).unzip();
    }

    /// Returns whether both were written by one transaction, of one object.
    pub(super) fn is_of_the_batch_of(&self, other: &Self) -> bool {
        let decided_by = |manifest: &Self| {
            let Self { transaction, system_identifier, server_started_at, .. } = manifest;
            (*transaction, system_identifier.clone(), server_started_at.clone())
        };
        decided_by(self) == decided_by(other)
            && (self.exported.bytes, &self.exported.sha256) == (other.exported.bytes, &other.exported.sha256)
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
        self.database_name = Some(session::database_name(connection).await?);
        if self.origin.is_none() {
            self.origin = Origin::named(connection, &self.schema, &self.table).await?;
        }
        let (encoding, preamble) = session::preamble(connection).await?;
        if encoding.as_deref().is_some_and(|encoding| encoding != session::SQL_ASCII) {
            self.format = FORMAT_3;
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
        anyhow::ensure!(
            self.sealed.is_none() || self.format >= SEALED_FORMAT,
            "it has format {}, which knows no sealed part",
            self.format
        );
        if !self.names_are_sealed() {
            bounds::catalog_name("schema", &self.schema)?;
            bounds::catalog_name("table", &self.table)?;
        }
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
        anyhow::ensure!(self.came_from.len() <= MAX_SOURCES, "it names {} batches", self.came_from.len());
        self.came_from.iter().try_for_each(|from| bounds::count("rows", from.rows))?;
        if let Some(name) = &self.database_name {
            bounds::catalog_name("database_name", name)?;
        }
        if let Some(timeline) = self.timeline {
            anyhow::ensure!((1..=i64::from(u32::MAX)).contains(&timeline), "timeline is {timeline}");
        }
        if let Some(lsn) = &self.lsn {
            anyhow::ensure!(parse_lsn(lsn).is_some(), "lsn is {}", bounds::shortened(lsn));
        }
        let transaction = self.transaction.unwrap_or_default();
        anyhow::ensure!(transaction >= 0, "transaction is {transaction}");
        let Exported { rows, bytes, uncompressed_bytes, sha256, encryption } = &self.exported;
        if let Some(encryption) = encryption {
            encryption.check(*bytes)?;
            anyhow::ensure!(self.format >= ENCRYPTED_FORMAT, "it has format {}, which knows no encryption", self.format);
        }
        bounds::count("bytes", *bytes)?;
        bounds::count("uncompressed_bytes", *uncompressed_bytes)?;
        // Each row has a newline.
        anyhow::ensure!(rows <= uncompressed_bytes, "it has {rows} rows in {uncompressed_bytes} bytes");
        // Before the object is written there is nothing to hash.
        if *bytes > 0 { bounds::sha256("sha256", sha256) } else { Ok(()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn batches_are_of_one_table_where_both_say_the_same_server_database_and_table() {
        let source = Source {
            schema: "public".to_owned(),
            table: "logs".to_owned(),
            columns: Vec::new(),
            queries: Vec::new(),
            steps: None,
        };
        let of = |server: Option<&str>, origin: Option<(i64, i64)>| Manifest {
            system_identifier: server.map(str::to_owned),
            origin: origin.map(|(database, table)| Origin { database, table }),
            ..Manifest::new("job", "app", &source, "")
        };
        for (one, other, expected) in [
            (of(Some("1"), Some((5, 9))), of(Some("1"), Some((5, 9))), SameTable::Yes),
            // A copy by CREATE DATABASE … TEMPLATE.
            (of(Some("1"), Some((5, 9))), of(Some("1"), Some((6, 9))), SameTable::No),
            (of(Some("1"), Some((5, 9))), of(Some("1"), Some((5, 8))), SameTable::No),
            (of(Some("1"), Some((5, 9))), of(Some("2"), Some((6, 9))), SameTable::No),
            // pg_upgrade, or chance.
            (of(Some("1"), Some((5, 9))), of(Some("2"), Some((5, 9))), SameTable::Unknown),
            // Of earlier releases.
            (of(Some("1"), None), of(Some("1"), Some((5, 9))), SameTable::Unknown),
            (of(Some("1"), None), of(Some("1"), None), SameTable::Unknown),
            (of(None, Some((5, 9))), of(Some("1"), Some((5, 9))), SameTable::Unknown),
            (of(None, None), of(None, None), SameTable::Unknown),
        ] {
            assert_eq!(one.same_table(&other), expected, "{one:?} {other:?}");
            assert_eq!(other.same_table(&one), expected, "{one:?} {other:?}");
        }
    }
}
