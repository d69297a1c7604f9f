//! The record `.restored.json` beside a batch: it says which rows went back where, so that they go back once.
//!
//! It is written before the rows' transaction commits, and names that transaction: a process that finds an entry without a
//! recorded commit asks the server.

use anyhow::{Context as _, Result};
use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use sqlx::PgConnection;

use super::batch::{BatchName, RESTORED};
use super::filter::Filter;
use super::session::{self, Fate};
use crate::base::bounds::{self, Bounded};
use crate::store::Store;
use crate::store::sign::Signature;

/// A record with more restores of one batch is invalid.
const MAX_RESTORES: usize = 10_000;

#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Record {
    pub times: Vec<Restored>,
}

/// Rows that went back.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Restored {
    #[serde(flatten)]
    pub place: Place,
    #[serde(default, skip_serializing_if = "Filter::is_all")]
    pub filter: Filter,
    pub at: DateTime<Utc>,
    pub rows: u64,
    /// The number of these rows that the job took out of the table again: only the batch has them now.
    #[serde(default)]
    pub left_again: u64,
    pub transaction: i64,
    pub server_started_at: String,
    pub is_committed: bool,
}

/// A table of a database of a server, by unique numbers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Place {
    pub system_identifier: String,
    pub database: i64,
    pub table: i64,
    /// The table's name, quoted, with its schema.
    pub name: String,
    /// The configured name of the database: a physical copy of a server has all those numbers, too.
    #[serde(default)]
    pub configured: String,
}

impl Place {
    /// Returns the place of a table, named as in SQL; `None` when there is none.
    pub async fn of(connection: &mut PgConnection, configured: &str, table: &str) -> Result<Option<Self>> {
        let system_identifier = session::system_identifier(connection).await?;
        let found: Option<(i64, i64, String)> = sqlx::query_as(
            "SELECT d.oid::bigint, c.oid::bigint, pg_catalog.format('%I.%I', n.nspname, c.relname)
             FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid OPERATOR(pg_catalog.=) c.relnamespace
             JOIN pg_catalog.pg_database d ON d.datname OPERATOR(pg_catalog.=) pg_catalog.current_database()
             WHERE c.oid OPERATOR(pg_catalog.=) pg_catalog.to_regclass($1)::pg_catalog.oid",
        )
        .bind(table)
        .fetch_optional(connection)
        .await
        .map_err(crate::pg::in_its_own_words)?;
        Ok(found.map(|(database, table, name)| Self {
            system_identifier,
            database,
            table,
            name,
            configured: configured.to_owned(),
        }))
    }

    fn is(&self, other: &Self) -> bool {
        let numbers = |place: &Self| (place.database, place.table);
        self.system_identifier == other.system_identifier
            && numbers(self) == numbers(other)
            && self.configured == other.configured
    }
}

impl Record {
    /// Returns the record; an empty one when no rows went back.
    pub async fn read(store: &Store, batch: &BatchName) -> Result<(Self, Signature)> {
        match store.get_json::<Self>(&format!("{batch}{RESTORED}")).await? {
            Some(read) => read,
            None => Ok((Self::default(), if store.has_sign_key() { Signature::Valid } else { Signature::NotAsked })),
        }
    }

    pub async fn write(&self, store: &Store, batch: &BatchName) -> Result<()> {
        store.put_json(&format!("{batch}{RESTORED}"), self).await.context("cannot record that rows went back")
    }

    pub fn at<'a>(&'a self, place: &'a Place) -> impl Iterator<Item = &'a Restored> {
        self.times.iter().filter(move |restored| restored.place.is(place))
    }

    /// Asks the server about transactions whose end was not recorded. Those without an answer stay in doubt.
    pub async fn resolve_pending(&mut self, connection: &mut PgConnection) -> Result<()> {
        if self.times.iter().all(|restored| restored.is_committed) {
            return Ok(());
        }
        let here = session::system_identifier(connection).await?;
        let mut settled = Vec::new();
        for mut restored in std::mem::take(&mut self.times) {
            if !restored.is_committed && restored.place.system_identifier == here {
                match session::fate(connection, restored.transaction, Some(&restored.server_started_at)).await? {
                    Fate::Committed => restored.is_committed = true,
                    Fate::Aborted => continue,
                    Fate::InProgress | Fate::MaybeCommitted | Fate::Forgotten => {}
                }
            }
            settled.push(restored);
        }
        self.times = settled;
        Ok(())
    }
}

impl Bounded for Record {
    fn check(&self) -> Result<()> {
        anyhow::ensure!(self.times.len() <= MAX_RESTORES, "it names {} restores", self.times.len());
        for restored in &self.times {
            bounds::time("at", restored.at)?;
            bounds::count("rows", restored.rows)?;
            bounds::count("left_again", restored.left_again)?;
            anyhow::ensure!(restored.transaction >= 0, "transaction is {}", restored.transaction);
            restored.filter.check()?;
        }
        Ok(())
    }
}
