//! Rows that `archives restore` has put back and that leave their table again: they are in their batch, and are not archived a second time
//! unless they were changed. A row is recognized by its bytes in COPY's text; as many equal rows count as were put back.

use anyhow::{Context as _, Result};
use chrono::Utc;
use sha2::Sha256;
use sqlx::PgConnection;

use super::batch::{BatchName, RESTORED};
use super::filter::Filter;
use super::known::{Back, Hash, MAX_ROWS, hash, start};
use super::manifest::{CameFrom, Manifest};
use super::primary_key::same_key;
use super::restored::{Accepts, Here, Record, Restored};
use super::text::RowsOnly;
use super::{Archive, Batch, listing, session};
use crate::base::progress::{Phase, Progress};
use crate::base::units;
use crate::members::decode::decode_object;
use crate::pg;

impl Archive {
    /// Reads which rows of this archive are back in their tables, so that [`Archive::export`] skips them. For a batch that cannot
    /// be read, a warning says so, and its rows are archived again.
    pub async fn look_for_what_came_back(&self, connection: &mut PgConnection, progress: &Progress) -> Result<()> {
        let objects = self.store.list_readable(&self.folder).await?.objects;
        let mut back = Back::default();
        for name in objects.iter().filter_map(|object| object.key.strip_suffix(RESTORED)) {
            let name = BatchName(name.to_owned());
            if let Err(error) = self.take_up(connection, &mut back, &name, progress).await {
                tracing::warn!("rows of {} that came back are archived again: {error:#}", self.location(&name));
            }
        }
        *self.back() = back;
        Ok(())
    }

    async fn take_up(&self, connection: &mut PgConnection, back: &mut Back, name: &BatchName, progress: &Progress) -> Result<()> {
        let mut record = Record::read(&self.store, name, Accepts::default()).await?;
        let Some((manifest, signature)) = listing::read(&self.store, name).await? else { return Ok(()) };
        anyhow::ensure!(signature.is_ours(), "it is not signed with the store's key");
        let Some(table) = manifest.table_here(connection).await? else { return Ok(()) };
        let Some(here) = Here::of(connection, &manifest.database, &table).await? else { return Ok(()) };
        let ends = record.resolve(connection, &here).await?;
        if !ends.is_empty() {
            Record::change(&self.store, name, Accepts::default(), |record| record.end(&ends)).await?;
        }
        // After a partial restore, or in a table without a key, it is unknown which of the equal rows were put back: they are archived
        // again, and the batch stays marked as back.
        if record.whole(&here).is_none() {
            return Ok(());
        }
        anyhow::ensure!(!manifest.names_are_sealed(), "it is encrypted, and cannot be opened here: its manifest is sealed");
        if same_key(connection, &here.place, &manifest.columns).await?.is_none() {
            return Ok(());
        }
        let rows = usize::try_from(manifest.exported.rows)?;
        anyhow::ensure!(back.has_room_for(rows), "more than {MAX_ROWS} rows came back");
        let phase = progress.phase("read", Some(manifest.exported.bytes));
        let hashes = self.hashes(name, &manifest, &phase).await?;
        phase.done(&format!("{} that came back", units::plural(hashes.len(), "row")));
        back.add(name.clone(), here.place, hashes);
        Ok(())
    }

    /// Hashes all its rows, from an object that the same read proves.
    async fn hashes(&self, name: &BatchName, manifest: &Manifest, phase: &Phase) -> Result<Vec<Hash>> {
        struct Reading {
            rows_only: RowsOnly,
            start: Sha256,
            line: Vec<u8>,
            hashes: Vec<Hash>,
        }
        let Some(reader) = self.store.read(&name.object(&manifest.exported)).await? else { anyhow::bail!("its object is gone") };
        let reading = Reading { rows_only: RowsOnly::of(manifest), start: start(manifest), line: Vec::new(), hashes: Vec::new() };
        let feed = |reading: &mut Reading, bytes: &[u8]| {
            for piece in reading.rows_only.feed(bytes)?.split_inclusive(|byte| *byte == b'\n') {
                reading.line.extend_from_slice(piece);
                if reading.line.ends_with(b"\n") {
                    if reading.hashes.len() >= MAX_ROWS {
                        return Err(std::io::Error::other("it has more rows than its manifest says"));
                    }
                    reading.hashes.push(hash(&reading.start, &reading.line));
                    reading.line.clear();
                }
            }
            Ok(())
        };
        let decoded = decode_object(reader, manifest.exported.coding(&self.store), phase, None, reading, feed, |_| ()).await?;
        decoded.members.map_err(|error| anyhow::anyhow!("it cannot be decoded: {error}"))?;
        decoded.state.rows_only.check()?;
        let is_right = decoded.sha256 == manifest.exported.sha256 && decoded.state.hashes.len() as u64 == manifest.exported.rows;
        anyhow::ensure!(is_right, "it differs from what was written");
        Ok(decoded.state.hashes)
    }

    /// Records that rows of other batches left again with this one, so that they may come back again. Returns false if that could not be recorded:
    /// then the pending file stays, which says it, and the next run or restore records it.
    pub(super) async fn record_what_left_again(&self, name: &BatchName, manifest: &Manifest) -> bool {
        let mut is_recorded = true;
        for CameFrom { batch, rows, place } in &manifest.came_from {
            // The name is read from a store.
            if !batch.starts_with(&self.folder) {
                continue;
            }
            let server_started_at = manifest.server_started_at.clone().unwrap_or_default();
            let here = Here { place: place.clone(), server_started_at };
            let leaving = (name.to_string(), manifest.transaction.unwrap_or_default());
            let source = BatchName(batch.clone());
            let recorded =
                Record::change(&self.store, &source, Accepts::default(), |record| record.leave_again(&here, *rows, &leaving));
            if let Err(error) = recorded.await {
                is_recorded = false;
                tracing::warn!(
                    "cannot record that {rows} rows of {} left their table again; the next run does: {error:#}",
                    self.location(&source)
                );
            }
        }
        is_recorded
    }

    /// Records that the rows of the object with this key are in their table again, by the transaction that `connection` is in: `archives restore`
    /// skips them. Returns the number of that transaction for [`Archive::confirm_back`], and None if that is recorded already. The
    /// caller has checked that the batch holds rows of this table.
    pub async fn is_back(&self, connection: &mut PgConnection, table: (&str, &str), batch: &Batch) -> Result<Option<i64>> {
        let Batch { name, manifest } = batch;
        let table = pg::qualified(table.0, table.1);
        let here = Here::of(connection, &self.database, &table).await?.with_context(|| format!("there is no table {table}"))?;
        let read = Record::read(&self.store, name, Accepts::default()).await;
        let mut record = read.with_context(|| self.location(name))?;
        let ends = record.resolve(connection, &here).await?;
        if record.whole(&here).is_some() {
            return Ok(None);
        }
        let transaction = session::transaction(connection).await?;
        let restored = Restored {
            place: here.place,
            filter: Filter::default(),
            at: Utc::now(),
            rows: manifest.exported.rows,
            left_again: 0,
            transaction,
            server_started_at: here.server_started_at,
            is_committed: false,
            never_left: false,
            left_with: Vec::new(),
            is_elsewhere: false,
        };
        let changed = Record::change(&self.store, name, Accepts::default(), |record| {
            record.end(&ends);
            record.times.push(restored.clone());
        });
        changed.await?;
        Ok(Some(transaction))
    }

    /// Records that this transaction has committed. Without this the next restore asks the server.
    pub async fn confirm_back(&self, key: &str, transaction: i64) {
        let Some(name) = BatchName::of_object(key) else { return };
        let settled = Record::change(&self.store, &name, Accepts::default(), |record| {
            let started_at = record.times.iter().find(|restored| restored.transaction == transaction && !restored.is_committed);
            if let Some(started_at) = started_at.map(|restored| restored.server_started_at.clone()) {
                record.commit(transaction, &started_at);
            }
        });
        if let Err(error) = settled.await {
            tracing::warn!("{}: {error:#}", self.location(&name));
        }
    }
}
