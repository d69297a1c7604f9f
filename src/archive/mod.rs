//! Archives rows that left a table, as objects that stock tools restore: `gunzip -c OBJECT | psql`.
//!
//! A batch is `DATABASE/JOB/archive/TIME-TRANSACTION-RANDOM.sql.gz`; encrypted, its name ends with `.age`. It counts once its `.json` exists. Before the rows' transaction
//! commits there is only a `.pending.json`, which names that transaction: a process that finds a leftover one asks the server
//! whether it committed (pg_xact_status), so a kill at any moment neither loses rows nor keeps them twice.

mod back;
mod batch;
mod chosen;
mod claim;
mod copy;
pub mod filter;
mod known;
mod left_here;
mod listing;
mod look;
mod manifest;
mod never_left;
mod outcome;
mod primary_key;
mod proved;
mod recover;
mod restore;
mod restored;
mod sealed;
mod session;
mod target;
mod text;
mod write;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use anyhow::{Context as _, Result};
use batch::MANIFEST;
pub use batch::{BatchName, Exported, Source};
use chrono::{DateTime, Utc};
use proved::is_as_written;
use sqlx::PgConnection;
use uuid::Uuid;

use self::claim::Claim;
pub use self::copy::{NotAll, ensure_opens};
use self::known::Back;
pub use self::listing::{Broken, Listing, Pending, Replaced, list};
pub use self::manifest::{Identity, Manifest, Origin, SameTable};
pub use self::outcome::Recovered;
pub use self::restore::{Intent, Request, RestoreOutcome, prepare, restore};
pub use self::session::{Home, columns, prepare_session, transaction};
pub use self::target::target;
#[doc(hidden)]
pub use self::text::RowsOnly;
#[doc(hidden)]
pub use self::text::head;
use self::write::Lines;
use crate::base::progress::{Phase, Progress};
use crate::members::compress::DecodeError;
use crate::members::decode::decode_object;
use crate::pg;
use crate::store::{Store, key};

/// Hexadecimal, of the random part of a batch's name.
const RANDOM_DIGITS: usize = 8;

/// The archive for the rows of one job on one database.
#[derive(Clone, Debug)]
pub struct Archive {
    store: Store,
    /// The database's name in the configuration.
    database: String,
    /// The folder is `DATABASE/JOB/archive/`.
    folder: String,
    /// A part of the names of its batches that no other run has: two servers may have the same database name, job and store, and give out the same
    /// transaction number in the same second.
    random: String,
    /// Rows that came back, and are not archived again.
    back: Arc<Mutex<Back>>,
}

/// A batch that counts, with its manifest as it was read.
pub struct Batch {
    name: BatchName,
    manifest: Manifest,
}

impl Batch {
    /// Returns the schema and the name of the table whose rows it holds; None where only a key tells, which is not here.
    pub fn table(&self) -> Option<(&str, &str)> {
        (!self.manifest.names_are_sealed()).then_some((&self.manifest.schema, &self.manifest.table))
    }

    /// The same for people.
    pub fn table_in_words(&self) -> String {
        self.manifest.table_in_words()
    }

    /// Returns the database that it is of; `None` where it does not say.
    pub fn identity(&self) -> Option<Identity> {
        self.manifest.identity()
    }
}

impl Archive {
    pub fn new(store: Store, database: &str, job: &str) -> Self {
        let folder = format!("{}archive/", key::folder(database, job));
        let random = Uuid::new_v4().simple().to_string()[..RANDOM_DIGITS].to_owned();
        Self { store, database: database.to_owned(), folder, random, back: Arc::default() }
    }

    fn back(&self) -> MutexGuard<'_, Back> {
        self.back.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns whether the object of this batch has as many bytes as its manifest says.
    pub async fn is_there(&self, batch: &Batch) -> Result<bool> {
        Ok(self
            .store
            .stat(&batch.name.object(&batch.manifest.exported))
            .await?
            .is_some_and(|object| object.bytes == batch.manifest.exported.bytes))
    }

    /// Returns the batches of this archive that say they have the rows of this one.
    pub async fn replaced_by(&self, batch: &Batch) -> Result<Vec<BatchName>> {
        let listing = listing::list(&self.store, &self.folder).await?;
        let replaced = listing.replaced.into_iter().filter(|replaced| replaced.batch.0 == batch.name);
        Ok(replaced.flat_map(|replaced| replaced.by).map(|(name, _)| name).collect())
    }

    /// Reads every byte of the object again: its length and its SHA-256 must be those that were written.
    pub async fn is_whole(&self, batch: &Batch, phase: &Phase) -> Result<bool> {
        let key = &batch.name.object(&batch.manifest.exported);
        let is_whole = is_as_written(&self.store, key, &batch.manifest.exported, phase).await?;
        if !is_whole {
            tracing::warn!("{} differs from what was written, so it does not count", self.store.location(key));
        }
        Ok(is_whole)
    }

    /// Returns the batch of the object with this key as its manifest describes it, whether it counts or not, if that is in this database.
    pub async fn described(&self, key: &str) -> Result<Option<Batch>> {
        let Some(name) = BatchName::of_object(key).filter(|name| name.is_of_database(&self.database)) else { return Ok(None) };
        let read = sealed::read(&self.store, &format!("{name}{MANIFEST}")).await?;
        Ok(read.and_then(Result::ok).map(|(manifest, _)| Batch { name, manifest }))
    }

    /// Returns whether the batch holds rows of the table with this number in this database, whatever it was called then; `None` where its manifest does
    /// not say, or speaks of another server: pg_upgrade makes another one of it, and keeps these numbers.
    pub async fn is_of_table(connection: &mut PgConnection, batch: &Batch, table: i64) -> Result<Option<bool>> {
        let Some(origin) = &batch.manifest.origin else { return Ok(None) };
        let own = Origin::of(connection, table).await?;
        let is_here = batch.manifest.system_identifier == Some(session::system_identifier(connection).await?);
        Ok(is_here.then_some(*origin == own))
    }

    /// Returns the batch of the object with this key, if it counts: it is one of this database, and its manifest is ours. The key may come from a
    /// comment that the table's owner wrote, so that the caller asks which table the rows are of.
    pub async fn batch(&self, key: &str) -> Result<Option<Batch>> {
        // The store is not asked for objects in the folders of other databases.
        let Some(name) = BatchName::of_object(key).filter(|name| name.is_of_database(&self.database)) else {
            tracing::warn!("{key} is not an archive of {}, so it does not count", self.database);
            return Ok(None);
        };
        match sealed::read(&self.store, &format!("{name}{MANIFEST}")).await? {
            None => Ok(None),
            Some(Ok((manifest, _))) if !manifest.is_of(&name) => {
                let of = format!("{} of {}", manifest.table_in_words(), manifest.database);
                tracing::warn!("{} holds rows of {of}, as its manifest says, so it does not count", self.store.location(key));
                Ok(None)
            }
            Some(Ok((manifest, signature))) if signature.is_ours() => Ok(Some(Batch { name, manifest })),
            Some(Ok((_, signature))) => {
                tracing::warn!("{} does not count: {}", self.store.location(key), signature.in_words());
                Ok(None)
            }
            Some(Err(error)) => {
                tracing::warn!("{error:#}; it does not count");
                Ok(None)
            }
        }
    }

    /// Returns where a batch is that this archive writes now.
    pub fn location(&self, name: &BatchName) -> String {
        self.store.location(&name.object_in(self.store.encrypts()))
    }

    /// Returns a name for the batch of a transaction.
    pub fn name(&self, started_at: DateTime<Utc>, transaction: i64) -> BatchName {
        let time = started_at.format("%Y-%m-%dT%H-%M-%SZ");
        BatchName(format!("{}{time}-{transaction:010}-{}", self.folder, self.random))
    }

    /// Writes the rows of `source`, reads the object back, and compares. Rows that had come back, and are in another batch, are
    /// not written; the `rows` of the returned manifest are all that left. `connection` is in the transaction that takes the rows
    /// out of their table, and whose commit makes the batch count: until then a `.pending.json` names it, from before there is an
    /// object, so that no process takes that for a leftover. After an error the connection is unusable, and its transaction never
    /// commits.
    pub async fn export(
        &self,
        connection: &mut PgConnection,
        source: &Source,
        name: &BatchName,
        provisional: Manifest,
        phase: &Phase,
    ) -> Result<Manifest> {
        let mut manifest = provisional.decided_by(connection).await?;
        if self.store.encrypts() {
            let seals = self.store.age_keys().seals_manifests;
            manifest.format = if seals { manifest::SEALED_FORMAT } else { manifest::ENCRYPTED_FORMAT };
        }
        // Overwriting another batch would lose its rows.
        let mut claim = Claim::of(&self.store, name, &manifest).await?;
        // The lock is not held over an await: other exports do not wait for an upload.
        let mut back = std::mem::take(&mut *self.back());
        let key = name.object_in(self.store.encrypts());
        let written = write::write(connection, source, &manifest, &self.store, &key, phase, &mut back.known(&manifest)).await;
        *self.back() = back;
        (manifest.exported, manifest.came_from) = written?;
        manifest.came_back = manifest.came_from.iter().map(|from| from.rows).sum();
        self.read_back(name, &manifest, phase).await?;
        manifest.at(pg::wal::position_in_transaction(connection).await?);
        claim.renew(&self.store, &manifest).await?;
        // The caller counts all rows that left; complete() tells them apart again.
        manifest.exported.rows += manifest.came_back;
        Ok(manifest)
    }

    /// Checks that the object in the store is the one that was written: its bytes, its hash, and every row. Where this host has no key for what it
    /// encrypts, its bytes and its hash: the rows were read out of the members before these were encrypted.
    async fn read_back(&self, name: &BatchName, manifest: &Manifest, phase: &Phase) -> Result<()> {
        let written = &manifest.exported;
        let key = name.object(written);
        let location = self.store.location(&key);
        let reader = self.store.read(&key).await?.with_context(|| format!("{location} is gone"))?;
        // COPY's text format has one line for each row, with newlines in values escaped.
        let other_lines = memchr::memchr_iter(b'\n', head(manifest).as_bytes()).count() as u64 + 1;
        let decoded = decode_object(
            reader,
            written.coding(&self.store),
            phase,
            None,
            Lines::default(),
            |lines, bytes| {
                lines.feed(bytes);
                Ok(())
            },
            |_| (),
        )
        .await?;
        let as_stored = Exported { bytes: decoded.bytes, sha256: decoded.sha256, ..written.clone() };
        let (members, read) = match decoded.members {
            Ok(members) => {
                let rows = decoded.state.newlines.saturating_sub(other_lines);
                (members, Exported { rows, uncompressed_bytes: decoded.state.bytes, ..as_stored })
            }
            Err(DecodeError::Locked(_)) => (1, as_stored),
            Err(error) => anyhow::bail!("{location} cannot be decoded: {error}"),
        };
        anyhow::ensure!(
            members > 0 && read == *written,
            "{location} differs from what was written: {read:?} instead of {written:?}"
        );
        Ok(())
    }

    /// Must be called after the commit: the batch counts now. `manifest` is the result of [`Archive::export`].
    pub async fn complete(&self, name: &BatchName, manifest: &Manifest) -> Result<()> {
        let mut manifest = manifest.clone();
        manifest.exported.rows -= manifest.came_back.min(manifest.exported.rows);
        self.back().committed();
        self.ensure_is_there(name, &manifest).await?;
        self.make_count(name, &manifest).await
    }

    /// A manifest never counts without its object: every byte is read once more.
    async fn ensure_is_there(&self, name: &BatchName, manifest: &Manifest) -> Result<()> {
        if self.has_object(name, manifest).await? {
            return Ok(());
        }
        let found = self.bytes_of(name, manifest).await?;
        anyhow::bail!(
            "the rows of {} have left their table, and their object {} {}: somebody else works in this folder. A backup or a standby that is behind has them",
            self.location(name),
            name.object(&manifest.exported),
            match found {
                None => "is gone".to_owned(),
                Some(found) if found == manifest.exported.bytes => "is not the one that was written".to_owned(),
                Some(found) => format!("has {found} bytes in place of {}", manifest.exported.bytes),
            }
        );
    }

    /// Returns whether the object is the one that was written, by its length and its SHA-256; a batch without rows needs none.
    async fn has_object(&self, name: &BatchName, manifest: &Manifest) -> Result<bool> {
        let phase = Progress::logged().phase("read", None);
        let written = &manifest.exported;
        Ok(manifest.is_empty()
            || (written.bytes > 0 && is_as_written(&self.store, &name.object(written), written, &phase).await?))
    }

    /// Makes the batch count. A batch without rows, since all of them are in other batches, is removed. The pending file goes last: it says which rows
    /// of other batches left again.
    async fn make_count(&self, name: &BatchName, manifest: &Manifest) -> Result<()> {
        if !manifest.is_empty() {
            let counts = Manifest { came_from: Vec::new(), ..manifest.clone() };
            self.write_manifest(name, &counts).await?;
        }
        if !self.record_what_left_again(name, manifest).await {
            return Ok(());
        }
        match manifest.is_empty() {
            true => self.discard(name).await,
            false => self.store.delete(&name.pending()).await,
        }
    }

    /// Writes the manifest; where there is one, it must be of this batch: a process that cleans up may have written it.
    async fn write_manifest(&self, name: &BatchName, manifest: &Manifest) -> Result<()> {
        let key = format!("{name}{MANIFEST}");
        let content = self.store.to_json(&key, &sealed::as_written(manifest, self.store.age_keys())?)?;
        if self.store.put_new(&key, content).await? {
            return Ok(());
        }
        let there = listing::read(&self.store, name).await?;
        anyhow::ensure!(
            there.is_some_and(|(there, signature)| signature.is_ours() && there.is_of_the_batch_of(manifest)),
            "{} is of another batch, and is not overwritten: the rows that left are in {}, which {} describes",
            self.store.location(&key),
            self.location(name),
            name.pending()
        );
        Ok(())
    }

    /// Removes the batch after a rollback: the rows are still in their table.
    pub async fn discard(&self, name: &BatchName) -> Result<()> {
        for key in name.objects() {
            self.store.delete(&key).await?;
        }
        self.store.delete(&name.pending()).await
    }
}
