//! Rows that `archives restore` put back, and that leave their table again: they are in their batch, and are not archived a second
//! time unless they were changed.

use anyhow::{Context as _, Result};
use chrono::Utc;
use sha2::Sha256;
use sqlx::PgConnection;

use super::batch::{BatchName, RESTORED};
use super::filter::Filter;
use super::known::{Back, Hash, ROWS_MOST, hash, start};
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
    /// Reads which rows of this archive are back in their tables, so that [`Archive::export`] passes them by. A batch that cannot be read
    /// says so, and its rows are archived again.
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
        anyhow::ensure!(signature.is_ours() && manifest_signature.is_ours(), "it is not ours");
        record.resolve_pending(connection).await?;
        let Some(place) = Place::of(connection, &manifest.database, &pg::qualified(&manifest.schema, &manifest.table)).await?
        else {
            return Ok(());
        };
        // Of a batch that went back in part, and in a table without a key, nobody knows which of equal rows it was: they are archived
        // again, and the batch stays marked as back.
        let is_back = record.at(&place).any(|restored| restored.filter.is_all() && restored.is_committed);
        if !is_back || !has_key(connection, &place).await? {
            return Ok(());
        }
        let rows = usize::try_from(manifest.exported.rows)?;
        anyhow::ensure!(back.has_room_for(rows), "more than {ROWS_MOST} rows came back");
        let phase = progress.phase("read", Some(manifest.exported.bytes));
        let hashes = self.hashes(name, &manifest, &phase).await?;
        phase.done(&format!("{} that came back", units::plural(hashes.len(), "row")));
        back.add(name.clone(), place, hashes);
        Ok(())
    }

    /// Of all its rows, from an object that was proved by that very read.
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
                    if reading.hashes.len() >= ROWS_MOST {
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
        anyhow::ensure!(is_right, "it is not what was written");
        Ok(decoded.state.hashes)
    }

    /// After the commit: what left again may come back again.
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
                    "{} of {}: rows left again, and `archives restore` takes them for back until it is told --again: {error:#}",
                    count,
                    self.location(&name)
                );
            }
        }
    }

    /// The rows of the object with this key are in their table again, by the transaction that `connection` is in: `archives restore` passes by
    /// them. `table` is quoted.
    pub async fn is_back(&self, connection: &mut PgConnection, configured: &str, table: &str, key: &str) -> Result<()> {
        let Some(name) = BatchName::of_object(key) else { return Ok(()) };
        // Without a manifest of ours it counts for nothing.
        let Some((manifest, signature)) = listing::read(&self.store, &name).await? else { return Ok(()) };
        if !signature.is_ours() {
            return Ok(());
        }
        let place = Place::of(connection, configured, table).await?.with_context(|| format!("there is no table {table}"))?;
        let (mut record, signature) = Record::read(&self.store, &name).await?;
        anyhow::ensure!(signature.is_ours(), "the record of what went back of {} is not ours", self.location(&name));
        record.resolve_pending(connection).await?;
        if record.at(&place).any(|restored| restored.filter.is_all() && restored.is_committed) {
            return Ok(());
        }
        record.times.push(Restored {
            place,
            filter: Filter::default(),
            at: Utc::now(),
            rows: manifest.exported.rows,
            left_again: 0,
            transaction: session::transaction(connection).await?,
            server_started_at: session::server_started_at(connection).await?,
            is_committed: false,
        });
        record.write(&self.store, &name).await
    }

    /// After the commit of that transaction. Without this the next restore asks the server.
    pub async fn is_back_for_good(&self, key: &str) {
        let Some(name) = BatchName::of_object(key) else { return };
        let settled = async {
            let (mut record, signature) = Record::read(&self.store, &name).await?;
            if record.times.is_empty() || !signature.is_ours() {
                return Ok(());
            }
            record.times.iter_mut().for_each(|restored| restored.is_committed = true);
            record.write(&self.store, &name).await
        };
        if let Err(error) = settled.await {
            tracing::warn!("{}: {error:#}", self.location(&name));
        }
    }
}
