//! The rows that came back, for an export to skip. A row is recognized by its bytes in COPY's text; as many equal rows count as were put
//! back.

use std::collections::{BTreeMap, HashMap};

use sha2::{Digest as _, Sha256};

use super::batch::BatchName;
use super::manifest::{CameFrom, Manifest};
use super::restored::Place;
use super::text::head;

/// The most rows in memory, 40 bytes each. Further rows that came back are archived again.
pub(super) const MAX_ROWS: usize = 2_000_000;

/// Half of a SHA-256.
pub(super) type Hash = [u8; 16];

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

/// The rows of one table, for one export to skip.
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

    pub fn has_room_for(&self, rows: usize) -> bool {
        self.rows.len() + rows <= MAX_ROWS
    }

    /// Adds the rows of a batch, by their hashes: they are back in the table.
    pub fn add(&mut self, name: BatchName, place: Place, hashes: Vec<Hash>) {
        let batch = self.batches.len();
        self.batches.push((name, place));
        for hash in hashes {
            self.rows.entry(hash).or_insert(Row { left: 0, batch }).left += 1;
        }
    }

    /// The transaction committed: the rows that it took have left.
    pub fn committed(&mut self) {
        self.taken.clear();
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

    /// Returns by batch how many of its rows this export took.
    pub fn came_from(&self) -> Vec<CameFrom> {
        let mut counts: BTreeMap<usize, u64> = BTreeMap::new();
        for hash in &self.back.taken[self.before..] {
            if let Some(row) = self.back.rows.get(hash) {
                *counts.entry(row.batch).or_default() += 1;
            }
        }
        let of = |(batch, rows): (usize, u64)| {
            let (name, place) = self.back.batches.get(batch)?;
            Some(CameFrom { batch: name.to_string(), rows, place: place.clone() })
        };
        counts.into_iter().filter_map(of).collect()
    }
}

/// Equal bytes mean equal rows only within one table, with the same columns, written in the same way.
pub(super) fn start(manifest: &Manifest) -> Sha256 {
    Sha256::new_with_prefix(head(manifest).as_bytes())
}

pub(super) fn hash(start: &Sha256, line: &[u8]) -> Hash {
    let digest = start.clone().chain_update(line).finalize();
    let mut half = Hash::default();
    half.copy_from_slice(&digest[..size_of::<Hash>()]);
    half
}
