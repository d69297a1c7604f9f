//! The rows that came back, for an export to skip. A row is recognized by its bytes in COPY's text; as many equal rows count as were put
//! back.

use std::collections::HashMap;

use sha2::{Digest as _, Sha256};

use super::batch::BatchName;
use super::manifest::Manifest;
use super::restored::Here;
use super::text::head;

/// The most rows in memory, 40 bytes each. Further rows that came back are archived again.
pub(super) const MAX_ROWS: usize = 2_000_000;

/// Half of a SHA-256.
pub(super) type Hash = [u8; 16];

/// The rows that came back, and the batch of each.
#[derive(Debug, Default)]
pub(super) struct Back {
    rows: HashMap<Hash, Row>,
    batches: Vec<(BatchName, Here)>,
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
    pub fn add(&mut self, name: BatchName, here: Here, hashes: Vec<Hash>) {
        let batch = self.batches.len();
        self.batches.push((name, here));
        for hash in hashes {
            self.rows.entry(hash).or_insert(Row { left: 0, batch }).left += 1;
        }
    }

    /// The transaction committed: returns by batch how many of its rows left again.
    pub fn committed(&mut self) -> Vec<(BatchName, Here, u64)> {
        let mut counts: HashMap<usize, u64> = HashMap::new();
        for hash in self.taken.drain(..) {
            if let Some(row) = self.rows.get(&hash) {
                *counts.entry(row.batch).or_default() += 1;
            }
        }
        let of = |(batch, count): (usize, u64)| {
            let (name, here) = self.batches.get(batch)?;
            Some((name.clone(), here.clone(), count))
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
