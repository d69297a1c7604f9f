//! The record `.restored.json` beside a batch: it says which rows went back where, so that they go back once.
//!
//! It is written before the rows' transaction commits, and names that transaction: a process that finds an entry without a
//! recorded commit asks the server.

use std::sync::Arc;

use anyhow::{Context as _, Result};
use chrono::{DateTime, TimeDelta, Utc};
use serde::{Deserialize, Serialize};
use sqlx::PgConnection;

use super::batch::{BatchName, RESTORED};
use super::filter::Filter;
use super::session::{self, Fate};
use crate::base::age_keys::AgeKeys;
use crate::base::bounds::{self, Bounded};
use crate::store::Store;
use crate::store::sign::Signature;

/// A record with more restores of one batch is invalid.
const MAX_RESTORES: usize = 10_000;

/// The most batches in `left_with`: only the last one may be counted a second time, by a run that cleans up.
const MAX_LEFT_WITH: usize = 100;

/// pgtend refuses to work on a server whose clock differs from the host's by more than a minute.
const CLOCKS_DIFFER: TimeDelta = TimeDelta::minutes(2);

#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Record {
    pub times: Vec<Restored>,
    /// The rows never left with the batch's own transaction, but with a later one: that decides nothing any more.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub left_later: bool,
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
    /// The rows never left, so that they did not come back either: the server was set back to a state before the batch.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub never_left: bool,
    /// The last batches with which rows of this one left again: none is counted twice.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub left_with: Vec<String>,
    /// This server knows nothing of the transaction: the entry is of a physical copy of it.
    #[serde(skip)]
    pub is_elsewhere: bool,
}

/// A table of a database of a server, by unique numbers.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Place {
    pub system_identifier: String,
    pub database: i64,
    pub table: i64,
    /// The table's name, quoted, with its schema; empty in a record that is sealed.
    pub name: String,
    /// The configured name of the database: a physical copy of a server has all those numbers, too.
    #[serde(default)]
    pub configured: String,
}

/// A place as a session sees it, with the start of its server, which tells that from a physical copy.
#[derive(Clone, Debug)]
pub struct Here {
    pub place: Place,
    pub server_started_at: String,
}

impl Here {
    /// Returns the place of a table, named as in SQL; `None` when there is none.
    pub async fn of(connection: &mut PgConnection, configured: &str, table: &str) -> Result<Option<Self>> {
        let system_identifier = session::system_identifier(connection).await?;
        let server_started_at = session::server_started_at(connection).await?;
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
        Ok(found.map(|(database, table, name)| {
            let place = Place { system_identifier, database, table, name, configured: configured.to_owned() };
            Self { place, server_started_at }
        }))
    }
}

impl Here {
    /// Returns whether this server ran already when one with another start did something at `at`: then they are two.
    pub fn ran_already(&self, at: DateTime<Utc>, their_start: &str) -> bool {
        ran_already(&self.server_started_at, at, their_start)
    }
}

/// Returns whether a server with the start `own_start` ran already when one with another start did something at `at`.
pub(super) fn ran_already(own_start: &str, at: DateTime<Utc>, their_start: &str) -> bool {
    let start = |text: &str| DateTime::parse_from_rfc3339(text).ok();
    start(own_start).is_some_and(|own| own + CLOCKS_DIFFER < at || start(their_start).is_some_and(|theirs| own < theirs))
}

/// Says whether an entry was made at the place of this session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum At {
    Here,
    Elsewhere,
    /// This server or a physical copy of it; nothing tells which.
    Either,
}

impl Restored {
    /// Compares the server of the entry with this one. Another configured name may be a new name of the same database, or that of a
    /// physical copy. A copy has another start; and where this server ran already when the rows went back, another server took them.
    fn server(&self, here: &Here) -> At {
        if self.place.system_identifier != here.place.system_identifier {
            return At::Elsewhere;
        }
        if self.place.configured == here.place.configured || self.server_started_at == here.server_started_at {
            return At::Here;
        }
        if here.ran_already(self.at, &self.server_started_at) { At::Elsewhere } else { At::Either }
    }

    fn place(&self, here: &Here) -> At {
        let numbers = |place: &Place| (place.database, place.table);
        if self.is_elsewhere || numbers(&self.place) != numbers(&here.place) {
            return At::Elsewhere;
        }
        self.server(here)
    }

    /// Returns whether the server was started after the rows came back.
    pub fn is_before_the_start(&self, here: &Here) -> bool {
        self.server_started_at != here.server_started_at
    }

    fn is_by(&self, transaction: i64, server_started_at: &str) -> bool {
        self.transaction == transaction && self.server_started_at == server_started_at
    }
}

/// Says which records of restored rows count.
#[derive(Clone, Copy, Debug, Default)]
pub struct Accepts {
    /// True if records without a signature of the store's key count, too.
    pub unsigned: bool,
    /// True if a record that does not count is replaced.
    pub replaces: bool,
}

impl Accepts {
    fn take(self, there: Option<Result<(Record, Signature)>>) -> Result<Record> {
        match there {
            None => Ok(Record::default()),
            Some(Ok((record, signature))) if signature.is_ours() || self.unsigned => Ok(record),
            Some(_) if self.replaces => Ok(Record::default()),
            Some(Ok((_, signature))) => anyhow::bail!(
                "the record of restored rows is not accepted ({}): --again puts rows back regardless of it",
                signature.in_words()
            ),
            Some(Err(error)) => {
                Err(error.context("cannot read the record of restored rows; --again puts rows back regardless of it"))
            }
        }
    }
}

/// The ends of transactions, by their numbers and the start of their server: whether each committed.
#[derive(Clone, Debug, Default)]
pub struct Ends(Vec<(i64, String, bool)>);

impl Ends {
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

fn key(batch: &BatchName) -> String {
    format!("{batch}{RESTORED}")
}

impl Record {
    /// Returns the record; an empty one when no rows went back.
    pub async fn read(store: &Store, batch: &BatchName, accepts: Accepts) -> Result<Self> {
        match store.get_json::<Self>(&key(batch)).await {
            Ok(read) => accepts.take(read)?.opened(store.age_keys()),
            Err(_) if accepts.replaces => Ok(Self::default()),
            Err(error) => Err(error.context("cannot read the record of restored rows; --again puts rows back regardless of it")),
        }
    }

    /// Changes the record as it is now in the store: restores into other places, and runs of the job, write it in the meantime. `change` touches
    /// only the entries of its own place, and may be called several times.
    pub async fn change(store: &Store, batch: &BatchName, accepts: Accepts, mut change: impl FnMut(&mut Self)) -> Result<()> {
        let key = key(batch);
        let changed = store.change_json(&key, |there| {
            let mut record = accepts.take(there)?.opened(store.age_keys())?;
            change(&mut record);
            record.into_written(store.age_keys())
        });
        changed.await.map(drop).context("cannot record that rows went back")
    }

    /// Opens the filters of what went back, where a key of this host does.
    fn opened(mut self, keys: &Arc<AgeKeys>) -> Result<Self> {
        for restored in &mut self.times {
            restored.filter = std::mem::take(&mut restored.filter).opened(keys)?;
        }
        Ok(self)
    }

    /// The record as it is written to a store with these keys: where that seals, without names and values.
    fn into_written(mut self, keys: &AgeKeys) -> Result<Self> {
        for restored in &mut self.times {
            restored.filter = std::mem::take(&mut restored.filter).into_written(keys)?;
            if keys.seals_manifests {
                restored.place.name.clear();
            }
        }
        Ok(self)
    }

    pub fn at<'a>(&'a self, here: &Here) -> impl Iterator<Item = &'a Restored> {
        self.times.iter().filter(move |restored| restored.place(here) == At::Here)
    }

    /// Returns an entry of this place or of a copy of it.
    pub fn in_doubt(&self, here: &Here) -> Option<&Restored> {
        self.times.iter().find(|restored| restored.place(here) == At::Either)
    }

    /// Returns whether the batch's own transaction decides whether its rows have left this place.
    pub fn may_never_have_left(&self, here: &Here) -> bool {
        !self.left_later && self.at(here).next().is_none()
    }

    /// Returns what was noted elsewhere: that the rows never left that table.
    pub fn never_left_elsewhere<'a>(&'a self, here: &Here) -> impl Iterator<Item = &'a Restored> {
        let never_left = self.times.iter().filter(|restored| restored.never_left && restored.left_again == 0);
        never_left.filter(move |restored| restored.place(here) == At::Elsewhere)
    }

    /// Forgets what another server noted: this one knows that the rows left.
    pub fn forget_what_never_left(&mut self, here: &Here) {
        self.times.retain(|restored| !restored.never_left || restored.place(here) != At::Here);
    }

    /// Returns the last entry of the whole batch in this place: earlier ones do not count.
    pub fn whole(&self, here: &Here) -> Option<&Restored> {
        self.at(here).filter(|restored| restored.filter.is_all() && restored.is_committed).last()
    }

    /// Counts rows of the whole batch that left this place again, with a batch and its transaction; once, and only if they did after they had come
    /// back. When all have left, nothing of the batch is there.
    pub fn leave_again(&mut self, here: &Here, rows: u64, (batch, transaction): &(String, i64)) {
        let is_whole =
            |restored: &Restored| restored.place(here) == At::Here && restored.filter.is_all() && restored.is_committed;
        let Some(whole) = self.times.iter_mut().rfind(|restored| is_whole(restored)) else { return };
        if whole.transaction > *transaction || whole.left_with.contains(batch) {
            return;
        }
        whole.left_again += rows;
        whole.left_with.push(batch.clone());
        let too_many = whole.left_with.len().saturating_sub(MAX_LEFT_WITH);
        whole.left_with.drain(..too_many);
        if whole.left_again >= whole.rows {
            self.left_later |= whole.never_left;
            self.times.retain(|restored| restored.place(here) != At::Here);
        }
    }

    /// The transaction has committed. Where it put the whole batch, earlier entries of the same place do not count any more.
    pub fn commit(&mut self, transaction: i64, server_started_at: &str) {
        let Some(done) = self.times.iter_mut().find(|restored| restored.is_by(transaction, server_started_at)) else { return };
        done.is_committed = true;
        if !done.filter.is_all() {
            return;
        }
        let numbers = |place: &Place| (place.system_identifier.clone(), place.configured.clone(), place.database, place.table);
        let own = numbers(&done.place);
        self.left_later |= self.times.iter().any(|restored| restored.never_left && numbers(&restored.place) == own);
        self.times.retain(|restored| {
            restored.is_by(transaction, server_started_at) || !restored.is_committed || numbers(&restored.place) != own
        });
    }

    /// Asks the server about transactions whose end was not recorded, and returns its answers, for [`Record::end`]. Those without an answer
    /// stay in doubt.
    pub async fn resolve(&mut self, connection: &mut PgConnection, here: &Here) -> Result<Ends> {
        let mut ends = Ends::default();
        for restored in &mut self.times {
            let is_asked = match restored.is_committed {
                // A server that was restarted may have been set back to a state before the rows came back.
                true if restored.place(here) == At::Here => !restored.never_left && restored.is_before_the_start(here),
                true => restored.place(here) == At::Either,
                false => restored.server(here) != At::Elsewhere,
            };
            if !is_asked {
                continue;
            }
            let end = match session::fate(connection, restored.transaction, Some(&restored.server_started_at)).await? {
                Fate::Committed => true,
                Fate::Aborted => false,
                Fate::Undone if restored.is_committed => false,
                // This may be a copy of the server where it commits: its entry stays, and a person decides.
                Fate::Undone | Fate::InProgress | Fate::MaybeCommitted | Fate::Forgotten => continue,
            };
            if restored.is_committed {
                // It committed, and not on this server, or not in its present history.
                restored.is_elsewhere = !end;
            } else {
                ends.0.push((restored.transaction, restored.server_started_at.clone(), end));
            }
        }
        self.end(&ends);
        Ok(ends)
    }

    /// Records these ends in the entries.
    pub fn end(&mut self, ends: &Ends) {
        for (transaction, server_started_at, committed) in &ends.0 {
            if *committed {
                self.commit(*transaction, server_started_at);
            } else {
                self.times.retain(|restored| restored.is_committed || !restored.is_by(*transaction, server_started_at));
            }
        }
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
            anyhow::ensure!(restored.left_with.len() <= MAX_LEFT_WITH, "it names {} batches", restored.left_with.len());
            restored.filter.check()?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn here(configured: &str, server_started_at: &str) -> Here {
        let (system_identifier, name) = ("7".to_owned(), "public.logs".to_owned());
        let place = Place { system_identifier, database: 1, table: 2, name, configured: configured.to_owned() };
        Here { place, server_started_at: server_started_at.to_owned() }
    }

    fn entry(here: &Here, transaction: i64, rows: u64, keys: &[&str]) -> Restored {
        let values = keys.iter().map(|value| (*value).to_owned()).collect();
        let key = crate::archive::filter::Key { column: "id".to_owned(), values };
        Restored {
            place: here.place.clone(),
            filter: Filter { keys: if keys.is_empty() { vec![] } else { vec![key] }, ..Filter::default() },
            at: "2026-11-10T00:00:00Z".parse().unwrap(),
            rows,
            left_again: 0,
            transaction,
            server_started_at: here.server_started_at.clone(),
            is_committed: false,
            never_left: false,
            left_with: Vec::new(),
            is_elsewhere: false,
        }
    }

    #[test]
    fn another_name_of_the_same_server_is_the_same_place_and_a_copy_is_another() {
        let made = entry(&here("app", "2026-11-01T00:00:00.5+00:00"), 5, 1, &[]);
        for (configured, started_at, expected) in [
            ("app", "2026-11-20T00:00:00+00:00", At::Here),
            ("shop", "2026-11-01T00:00:00.5+00:00", At::Here),
            ("shop", "2026-11-01T00:00:00+00:00", At::Elsewhere),
            ("shop", "2026-11-02T00:00:00+00:00", At::Elsewhere),
            ("shop", "2026-11-09T23:59:30+00:00", At::Either),
            ("shop", "2026-11-20T00:00:00+00:00", At::Either),
        ] {
            assert_eq!(made.place(&here(configured, started_at)), expected, "{configured} {started_at}");
        }
    }

    #[test]
    fn the_whole_batch_takes_the_place_of_its_parts_once_it_has_committed() {
        let (here, mut other) = (here("app", "x"), here("app2", "x"));
        other.place.database = 9;
        let mut record = Record { times: vec![entry(&here, 1, 2, &["7", "8"]), entry(&other, 2, 100, &[])], left_later: false };
        record.commit(1, "x");
        record.times.push(entry(&here, 3, 100, &[]));
        assert!(record.whole(&here).is_none(), "not before it commits");
        assert_eq!(record.at(&here).count(), 2, "an abort leaves what was there");
        record.commit(3, "x");
        assert_eq!(record.at(&here).map(|restored| restored.transaction).collect::<Vec<_>>(), [3]);
        for _ in 0..2 {
            record.leave_again(&here, 60, &("first".to_owned(), 4));
        }
        record.leave_again(&here, 40, &("before".to_owned(), 2));
        assert_eq!(record.whole(&here).unwrap().left_again, 60, "once, and not before they came back");
        record.leave_again(&here, 40, &("second".to_owned(), 5));
        assert_eq!(record.at(&here).count(), 0, "all have left");
        assert_eq!(record.times.len(), 1, "other places are not touched");
    }
}
