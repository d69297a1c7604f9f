//! Rows that `archives restore` put back, and that leave their table again: they are in their batch, and are not archived a
//! second time unless they were changed. A row is recognized by its bytes in COPY's text; as many equal ones count as went back.

use std::collections::HashMap;

use anyhow::Result;
use sha2::{Digest as _, Sha256};
use sqlx::PgConnection;

use super::batch::{BatchName, RESTORED};
use super::manifest::Manifest;
use super::restore::RowsOnly;
use super::restored::{Place, Record};
use super::write::head;
use super::{Archive, listing};
use crate::base::progress::{Phase, Progress};
use crate::base::units;
use crate::members::compress::Compression;
use crate::members::decode::decode_object;
use crate::pg;

/// The most rows in memory, 40 bytes each. Further rows that came back are archived again.
const MAX_ROWS: usize = 2_000_000;

/// Half of a SHA-256.
type Hash = [u8; 16];

/// The rows that came back, and the batch of each.
#[derive(Debug, Default)]
pub(super) struct Back {
    rows: HashMap<Hash, Row>,
    batches: Vec<(BatchName, Place)>,
    /// The rows taken by the current transaction.
    taken: Vec<Hash>,
    transaction: Option<i64>,
}

#[derive(Debug)]
struct Row {
    left: u32,
    batch: usize,
}

/// The rows of one table, as one export asks for them.
pub(super) struct Known<'a> {
    back: &'a mut Back,
    start: Sha256,
    /// The rows taken by other exports of the same transaction.
    before: usize,
}

impl Back {
    /// Rows taken by an earlier transaction that did not commit are available again.
    pub fn known(&mut self, manifest: &Manifest) -> Known<'_> {
        if self.transaction != manifest.transaction {
            for hash in self.taken.drain(..) {
                if let Some(row) = self.rows.get_mut(&hash) {
                    row.left += 1;
                }
            }
            self.transaction = manifest.transaction;
        }
        Known { before: self.taken.len(), back: self, start: start(manifest) }
    }

    /// The transaction committed: returns by batch how many of its rows left again.
    fn committed(&mut self) -> Vec<(BatchName, Place, u64)> {
        let mut counts: HashMap<usize, u64> = HashMap::new();
        for hash in self.taken.drain(..) {
            if let Some(row) = self.rows.get(&hash) {
                *counts.entry(row.batch).or_default() += 1;
            }
        }
        let of = |(batch, count): (usize, u64)| {
            let (name, place) = self.batches.get(batch)?;
            Some((name.clone(), place.clone(), count))
        };
        counts.into_iter().filter_map(of).collect()
    }
}

impl Known<'_> {
    pub fn is_empty(&self) -> bool {
        self.back.rows.is_empty()
    }

    /// Returns whether a batch has this line of COPY that has not left again yet.
    pub fn has(&mut self, line: &[u8]) -> bool {
        let hash = hash(&self.start, line);
        match self.back.rows.get_mut(&hash) {
            Some(row) if row.left > 0 => {
                row.left -= 1;
                self.back.taken.push(hash);
                true
            }
            _ => false,
        }
    }

    pub fn taken(&self) -> u64 {
        (self.back.taken.len() - self.before) as u64
    }
}

async fn has_key(connection: &mut PgConnection, place: &Place) -> Result<bool> {
    let sql = "SELECT EXISTS (SELECT FROM pg_catalog.pg_index WHERE indrelid OPERATOR(pg_catalog.=) $1::bigint::pg_catalog.oid AND indisprimary)";
    Ok(sqlx::query_scalar(sql).bind(place.table).fetch_one(connection).await?)
}

/// Equal bytes mean equal rows only within one table, with the same columns, written in the same way.
fn start(manifest: &Manifest) -> Sha256 {
    Sha256::new_with_prefix(head(manifest).as_bytes())
}

fn hash(start: &Sha256, line: &[u8]) -> Hash {
    let digest = start.clone().chain_update(line).finalize();
    let mut half = Hash::default();
    half.copy_from_slice(&digest[..size_of::<Hash>()]);
    half
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
        anyhow::ensure!(back.rows.len() + rows <= MAX_ROWS, "more than {MAX_ROWS} rows came back");
        let phase = progress.phase("read", Some(manifest.exported.bytes));
        let hashes = self.hashes(name, &manifest, &phase).await?;
        phase.done(&format!("{} that came back", units::plural(hashes.len(), "row")));
        back.batches.push((name.clone(), place));
        for hash in hashes {
            let batch = back.batches.len() - 1;
            back.rows.entry(hash).or_insert(Row { left: 0, batch }).left += 1;
        }
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
}
