//! Hashes an object with SHA-256 in blocks, so that a reader can prove each part before using it. The hash of the whole is only
//! known at the end, when a restore has run everything.

use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering::Relaxed;

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

/// The unit that is hashed as bytes; larger blocks are hashed from the hashes of these.
const LEAF_BYTES: u64 = 1 << 20;

/// With more blocks, the manifest would grow with the database, so each block becomes twice as long. A reader must hold one
/// block: 64 MiB of a dump of 1 TiB.
const MAX_BLOCKS: usize = 16_384;

type Hash = [u8; 32];

/// The blocks of an object, from its first byte. The hash of a block of 1 MiB is that of its bytes; the hash of a block of twice
/// the length is that of the hashes of its two halves, or the hash of the first half if there is no second.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Blocks {
    /// The length of all blocks but the last, which may be shorter: 1 MiB times a power of two.
    pub block_bytes: u64,
    /// The hashes in hexadecimal.
    pub sha256: Vec<String>,
}

impl Blocks {
    /// Returns whether a writer of an object of that length makes such blocks. A block is held in memory: a longer one is not ours.
    fn are_sound(&self, max_blocks: usize, total_bytes: u64) -> bool {
        let mut longest = LEAF_BYTES;
        while total_bytes.div_ceil(longest) > max_blocks as u64 {
            longest *= 2;
        }
        (LEAF_BYTES..=longest).contains(&self.block_bytes)
            && (self.block_bytes / LEAF_BYTES).is_power_of_two()
            && self.block_bytes.is_multiple_of(LEAF_BYTES)
            && self.sha256.len() as u64 == total_bytes.div_ceil(self.block_bytes)
    }
}

/// Takes the bytes of an object in order.
#[derive(Default)]
pub struct Hasher(Leaves);

impl Hasher {
    pub fn push(&mut self, bytes: &[u8]) {
        self.0.push(bytes);
    }

    pub fn finish(self) -> Blocks {
        self.into_blocks(MAX_BLOCKS)
    }

    fn into_blocks(self, max_blocks: usize) -> Blocks {
        let mut hashes = self.0.finish();
        let mut block_bytes = LEAF_BYTES;
        while hashes.len() > max_blocks.max(1) {
            hashes = halved(&hashes);
            block_bytes *= 2;
        }
        Blocks { block_bytes, sha256: hashes.iter().map(hex::encode).collect() }
    }
}

#[derive(Default)]
struct Leaves {
    done: Vec<Hash>,
    open: Sha256,
    open_bytes: u64,
}

impl Leaves {
    fn push(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            let count = bytes.len().min((LEAF_BYTES - self.open_bytes) as usize);
            let (own, rest) = bytes.split_at(count);
            self.open.update(own);
            self.open_bytes += count as u64;
            bytes = rest;
            if self.open_bytes == LEAF_BYTES {
                self.close();
            }
        }
    }

    fn close(&mut self) {
        self.done.push(std::mem::take(&mut self.open).finalize().into());
        self.open_bytes = 0;
    }

    fn finish(mut self) -> Vec<Hash> {
        if self.open_bytes > 0 {
            self.close();
        }
        self.done
    }

    /// Returns the hash of everything that was pushed, as of one block.
    fn root(self) -> Option<Hash> {
        let mut hashes = self.finish();
        while hashes.len() > 1 {
            hashes = halved(&hashes);
        }
        hashes.pop()
    }
}

/// Replaces every two hashes by one.
fn halved(hashes: &[Hash]) -> Vec<Hash> {
    let of_pair = |pair: &[Hash]| match pair {
        [first, second] => Sha256::new().chain_update(first).chain_update(second).finalize().into(),
        alone => alone.first().copied().unwrap_or_default(),
    };
    hashes.chunks(2).map(of_pair).collect()
}

/// Compares an object with its blocks as its bytes pass.
pub struct Proof {
    blocks: Blocks,
    total_bytes: u64,
    leaves: Leaves,
    /// The number of bytes that passed.
    position: u64,
    /// The number of bytes, from the first, that are proved right.
    proved: u64,
    differs: Arc<AtomicBool>,
    /// The first block that was read and differs.
    first: Option<Range<u64>>,
}

impl Proof {
    /// `differs` is set before any differing byte is let through.
    pub fn new(blocks: Blocks, total_bytes: u64, differs: Arc<AtomicBool>) -> Self {
        Self::with_max_blocks(MAX_BLOCKS, blocks, total_bytes, differs)
    }

    fn with_max_blocks(max_blocks: usize, blocks: Blocks, total_bytes: u64, differs: Arc<AtomicBool>) -> Self {
        differs.store(!blocks.are_sound(max_blocks, total_bytes), Relaxed);
        Self { blocks, total_bytes, leaves: Leaves::default(), position: 0, proved: 0, differs, first: None }
    }

    /// Compares the blocks that hold a part of the object; their range is returned, too. The bytes that pass are only those.
    pub fn of_part(blocks: &Blocks, total_bytes: u64, part: &Range<u64>, differs: Arc<AtomicBool>) -> (Range<u64>, Self) {
        if !blocks.are_sound(MAX_BLOCKS, total_bytes) || part.end > total_bytes || part.is_empty() {
            let nothing = Self::new(blocks.clone(), 0, Arc::clone(&differs));
            differs.store(true, Relaxed);
            return (part.clone(), nothing);
        }
        let numbers = (part.start / blocks.block_bytes) as usize..part.end.div_ceil(blocks.block_bytes) as usize;
        let range = numbers.start as u64 * blocks.block_bytes..(numbers.end as u64 * blocks.block_bytes).min(total_bytes);
        let own = Blocks { block_bytes: blocks.block_bytes, sha256: blocks.sha256[numbers].to_vec() };
        let total_bytes = range.end - range.start;
        (range, Self { blocks: own, total_bytes, leaves: Leaves::default(), position: 0, proved: 0, differs, first: None })
    }

    /// Returns how many bytes, from the first, may be let through: those that are proved, or all once some are known to differ.
    pub fn feed(&mut self, mut bytes: &[u8]) -> u64 {
        while !bytes.is_empty() && !self.differs.load(Relaxed) {
            let end = (self.proved + self.blocks.block_bytes).min(self.total_bytes);
            let count = bytes.len().min((end - self.position) as usize);
            let (own, rest) = bytes.split_at(count);
            self.leaves.push(own);
            self.position += count as u64;
            bytes = rest;
            if self.position < end {
                break;
            }
            // After the last block there is nothing to compare further bytes with.
            let expected = self.blocks.sha256.get((self.proved / self.blocks.block_bytes) as usize);
            let found = std::mem::take(&mut self.leaves).root().map(hex::encode);
            if expected.is_none() || expected != found.as_ref() {
                self.differs.store(true, Relaxed);
                self.first = expected.map(|_| self.proved..end);
            }
            self.proved = end;
        }
        self.may_pass()
    }

    /// Ends the input. Bytes that are not proved by now never are.
    pub fn finish(&mut self) -> u64 {
        if self.proved != self.total_bytes {
            self.differs.store(true, Relaxed);
        }
        self.may_pass()
    }

    /// The first block that differs, of those that were read to their end: from the first byte that the proof is of.
    pub fn first_difference(&self) -> Option<Range<u64>> {
        self.first.clone()
    }

    fn may_pass(&self) -> u64 {
        if self.differs.load(Relaxed) { u64::MAX } else { self.proved }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn object(bytes: usize) -> Vec<u8> {
        (0..bytes).map(|at| (at * 31 % 251) as u8).collect()
    }

    fn blocks(object: &[u8], max_blocks: usize) -> Blocks {
        let mut hasher = Hasher::default();
        object.chunks(300_001).for_each(|piece| hasher.push(piece));
        hasher.into_blocks(max_blocks)
    }

    /// Returns how many bytes passed before a difference was known, and whether there was one.
    fn read(max_blocks: usize, object: &[u8], blocks: &Blocks, total_bytes: u64, piece: usize) -> (u64, bool) {
        let differs = Arc::new(AtomicBool::new(false));
        let mut proof = Proof::with_max_blocks(max_blocks, blocks.clone(), total_bytes, Arc::clone(&differs));
        let mut passed = 0;
        for piece in object.chunks(piece) {
            let may_pass = proof.feed(piece);
            if may_pass != u64::MAX {
                passed = may_pass;
            }
        }
        proof.finish();
        (passed, differs.load(Relaxed))
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 40, ..ProptestConfig::default() })]

        #[test]
        fn what_was_written_passes_and_one_other_byte_never_does(
            bytes in 0_usize..6_000_000, max_blocks in 1_usize..8, piece in 1000_usize..3_000_000, at in any::<proptest::sample::Index>(),
        ) {
            let mut object = object(bytes);
            let blocks = blocks(&object, max_blocks);
            prop_assert!(blocks.sha256.len() <= max_blocks);
            prop_assert_eq!(read(max_blocks, &object, &blocks, bytes as u64, piece), (bytes as u64, false));
            if bytes > 0 {
                let at = at.index(bytes);
                object[at] ^= 1;
                let (passed, differs) = read(max_blocks, &object, &blocks, bytes as u64, piece);
                prop_assert!(differs && passed <= at as u64, "{passed} of {at}");
            }
        }
    }

    #[test]
    fn objects_that_are_longer_or_shorter_and_made_up_blocks_differ() {
        let object = object(2_500_000);
        let right = blocks(&object, 8);
        let total = object.len() as u64;
        assert_eq!(right.sha256.len(), 3);
        let longer = [&object[..], b"x"].concat();
        for (object, blocks, total) in [
            (&longer[..], right.clone(), total),
            (&object[..2_000_000], right.clone(), total),
            (&object[..], Blocks { block_bytes: 0, ..right.clone() }, total),
            (&object[..], Blocks { block_bytes: 3 << 20, ..right.clone() }, total),
            (&object[..], Blocks { block_bytes: u64::MAX, ..right.clone() }, total),
            (&object[..], Blocks { sha256: vec![], ..right.clone() }, total),
            (&object[..], right.clone(), u64::MAX / 4),
            (&object[..], Blocks { block_bytes: 4 << 20, sha256: vec![right.sha256[0].clone()] }, total),
        ] {
            assert!(read(8, object, &blocks, total, 100_000).1, "{blocks:?}");
        }
        assert_eq!(read(8, b"", &blocks_of_nothing(), 0, 1), (0, false));
    }

    #[test]
    fn a_part_is_proved_by_the_blocks_that_hold_it_and_by_no_others() {
        let object = object(5_300_000);
        let (right, total) = (blocks(&object, 8), 5_300_000);
        for (part, expected) in [
            (1_500_000..1_600_000, 1 << 20..2 << 20),
            ((1 << 20) - 1..(2 << 20) + 1, 0..3 << 20),
            (5_299_999..5_300_000, 5 << 20..5_300_000),
            (0..5_300_000, 0..5_300_000),
        ] {
            let differs = Arc::new(AtomicBool::new(false));
            let (range, mut proof) = Proof::of_part(&right, total, &part, Arc::clone(&differs));
            assert_eq!(range, expected);
            let bytes = &object[range.start as usize..range.end as usize];
            assert_eq!(proof.feed(bytes), range.end - range.start);
            proof.finish();
            assert!(!differs.load(Relaxed), "{part:?}");
            let (_, mut proof) = Proof::of_part(&right, total, &part, Arc::clone(&differs));
            let mut flipped = bytes.to_vec();
            flipped[7] ^= 1;
            proof.feed(&flipped);
            assert!(differs.load(Relaxed), "{part:?}");
        }
        for (blocks, part) in [(&right, 0..total + 1), (&Blocks { block_bytes: 0, sha256: vec![] }, 0..1)] {
            let differs = Arc::new(AtomicBool::new(false));
            let _ = Proof::of_part(blocks, total, &part, Arc::clone(&differs));
            assert!(differs.load(Relaxed), "{part:?}");
        }
    }

    fn blocks_of_nothing() -> Blocks {
        Hasher::default().finish()
    }
}
