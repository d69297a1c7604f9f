//! Rows that `archives restore` put back, and that leave their table again: they are in their batch, and are not archived a
//! second time unless they were changed. A row is recognized by its bytes in COPY's text; as many equal ones count as went back.

use anyhow::{Context as _, Result};
use chrono::Utc;
use sha2::Sha256;
use sqlx::PgConnection;

use super::batch::{BatchName, RESTORED};
use super::filter::Filter;
use super::known::{Back, Hash, MAX_ROWS, hash, start};
use super::manifest::Manifest;
use super::restored::{Place, Record, Restored};
use super::text::RowsOnly;
use super::{Archive, listing, session};
use crate::base::progress::{Phase, Progress};
use crate::base::units;
use crate::members::compress::Compression;
use crate::members::decode::decode_object;
use crate::pg;

async fn has_key(connection: &mut PgConnection, place: &Place) -> Result<bool> {
    let sql = "SELECT EXISTS (SELECT FROM pg_catalog.pg_index WHERE indrelid OPERATOR(pg_catalog.=) $1::bigint::pg_catalog.oid AND indisprimary)";
    Ok(sqlx::query_scalar(sql).bind(place.table).fetch_one(connection).await?)
}

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
        let (mut record, signature) = Record::read(&self.store, name).await?;
        let Some((manifest, manifest_signature)) = listing::read(&self.store, name).await? else { return Ok(()) };
        anyhow::ensure!(signature.is_ours() && manifest_signature.is_ours(), "it is not signed with the store's key");
        record.resolve_pending(connection).await?;
        let Some(place) = Place::of(connection, &manifest.database, &pg::qualified(&manifest.schema, &manifest.table)).await?
        else {
            return Ok(());
        };
        // After a partial restore, or in a table without a key, it is unknown which of equal rows it was: they are archived
        // again, and the batch stays marked as back.
        let is_back = record.at(&place).any(|restored| restored.filter.is_all() && restored.is_committed);
        if !is_back || !has_key(connection, &place).await? {
            return Ok(());
        }
        let rows = usize::try_from(manifest.exported.rows)?;
        anyhow::ensure!(back.has_room_for(rows), "more than {MAX_ROWS} rows came back");
        let phase = progress.phase("read", Some(manifest.exported.bytes));
        let hashes = self.hashes(name, &manifest, &phase).await?;
        phase.done(&format!("{} that came back", units::plural(hashes.len(), "row")));
        back.add(name.clone(), place, hashes);
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
        let Some(reader) = self.store.read(&name.object()).await? else { anyhow::bail!("its object is gone") };
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
        let decoded = decode_object(reader, Compression::Gzip, phase, None, reading, feed, |_| ()).await?;
        decoded.members.map_err(|error| anyhow::anyhow!("it does not decode: {error:?}"))?;
        decoded.state.rows_only.check()?;
        let is_right = decoded.sha256 == manifest.exported.sha256 && decoded.state.hashes.len() as u64 == manifest.exported.rows;
        anyhow::ensure!(is_right, "it differs from what was written");
        Ok(decoded.state.hashes)
    }

    /// Must be called after the commit: rows that left again may come back again.
    pub(super) async fn record_what_left_again(&self) {
        let counts = self.back().committed();
        for (name, place, count) in counts {
            let recorded = async {
                let (mut record, _) = Record::read(&self.store, &name).await?;
                for restored in &mut record.times {
                    if restored.place == place && restored.filter.is_all() {
                        restored.is_committed = true;
                        restored.left_again += count;
                    }
                }
                record.times.retain(|restored| restored.left_again < restored.rows);
                record.write(&self.store, &name).await
            };
            if let Err(error) = recorded.await {
                tracing::warn!(
                    "{} of {}: rows left again, but `archives restore` counts them as back; use --again for them: {error:#}",
                    count,
                    self.location(&name)
                );
            }
        }
    }

    /// Records that the rows of the object with this key are in their table again, by the transaction that `connection` is in: `archives restore`
    /// skips them. Returns the number of that transaction for [`Archive::is_back_for_good`], and None where the key names no rows of this table
    /// (by the name that it had then, `archived_as`): it may come from a comment that the table's owner wrote.
    pub async fn is_back(
        &self,
        connection: &mut PgConnection,
        table: (&str, &str),
        archived_as: (&str, &str),
        key: &str,
    ) -> Result<Option<i64>> {
        let Some(manifest) = self.counting(key, archived_as).await? else { return Ok(None) };
        let Some(name) = BatchName::of_object(key) else { return Ok(None) };
        let table = pg::qualified(table.0, table.1);
        let place = Place::of(connection, &self.database, &table).await?.with_context(|| format!("there is no table {table}"))?;
        let (mut record, signature) = Record::read(&self.store, &name).await?;
        anyhow::ensure!(
            signature.is_ours(),
            "the record of restored rows of {} is not signed with the store's key",
            self.location(&name)
        );
        record.resolve_pending(connection).await?;
        if record.at(&place).any(|restored| restored.filter.is_all() && restored.is_committed) {
            return Ok(None);
        }
        let transaction = session::transaction(connection).await?;
        record.times.push(Restored {
            place,
            filter: Filter::default(),
            at: Utc::now(),
            rows: manifest.exported.rows,
            left_again: 0,
            transaction,
            server_started_at: session::server_started_at(connection).await?,
            is_committed: false,
        });
        record.write(&self.store, &name).await?;
        Ok(Some(transaction))
    }

    /// Records that this transaction has committed. Without this the next restore asks the server.
    pub async fn is_back_for_good(&self, key: &str, transaction: i64) {
        let Some(name) = BatchName::of_object(key) else { return };
        let settled = async {
            let (mut record, signature) = Record::read(&self.store, &name).await?;
            if record.times.is_empty() || !signature.is_ours() {
                return Ok(());
            }
            for restored in record.times.iter_mut().filter(|restored| restored.transaction == transaction) {
                restored.is_committed = true;
            }
            record.write(&self.store, &name).await
        };
        if let Err(error) = settled.await {
            tracing::warn!("{}: {error:#}", self.location(&name));
        }
    }
}
