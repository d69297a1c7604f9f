//! Records where the members of a dump start, to read a part of it by range, and the checksums between these places, to say which
//! part is damaged.

use serde::{Deserialize, Serialize};

/// With more points than this, the manifest would grow with the database, so every second one is removed.
const MAX_POINTS: usize = 16_384;

/// The number of members, and where every `every`-th one starts. Two neighbours give a member's length; its contents follow from
/// the tables' offsets in the uncompressed dump.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MemberIndex {
    pub count: u64,
    pub every: u64,
    /// Each point is `[offset in the object, offset in the uncompressed dump]`.
    pub points: Vec<[u64; 2]>,
    /// The CRC-32 of the object's bytes from each point to the next, or to the end. Empty in sets of the first release.
    #[serde(default)]
    pub crc32: Vec<u32>,
    #[serde(skip)]
    end: [u64; 2],
    /// The CRC of the bytes since the last point.
    #[serde(skip)]
    open: Crc,
}

/// crc32fast's hasher has neither equality nor a suitable default.
#[derive(Clone, Debug, Default)]
struct Crc(crc32fast::Hasher);

impl PartialEq for Crc {
    fn eq(&self, other: &Self) -> bool {
        self.0.clone().finalize() == other.0.clone().finalize()
    }
}

impl Eq for Crc {}

impl Default for MemberIndex {
    fn default() -> Self {
        Self { count: 0, every: 1, points: Vec::new(), crc32: Vec::new(), end: [0, 0], open: Crc::default() }
    }
}

impl MemberIndex {
    /// Adds a member that follows the ones before.
    pub fn push(&mut self, compressed: &[u8], uncompressed_bytes: u64) {
        if self.count.is_multiple_of(self.every) {
            self.close_segment();
            self.points.push(self.end);
        }
        self.open.0.update(compressed);
        self.count += 1;
        self.end[0] += compressed.len() as u64;
        self.end[1] += uncompressed_bytes;
        if self.points.len() > MAX_POINTS {
            self.halve();
        }
    }

    /// Must be called after the last member.
    pub fn finish(&mut self) {
        self.close_segment();
    }

    fn close_segment(&mut self) {
        if !self.points.is_empty() && self.crc32.len() < self.points.len() {
            self.crc32.push(std::mem::take(&mut self.open).0.finalize());
        }
    }

    /// Removes every second point; its segment becomes part of the one before.
    fn halve(&mut self) {
        self.every *= 2;
        let ends = self.points.iter().skip(1).map(|point| point[0]).chain([self.end[0]]);
        let lengths: Vec<u64> = self.points.iter().zip(ends).map(|(point, end)| end - point[0]).collect();
        // The last segment is still open: with an odd number of points before it, it continues from the last closed one.
        let closed = self.crc32.len();
        let mut joined = Vec::with_capacity(closed / 2);
        for pair in (0..closed).step_by(2) {
            let mut crc = crc32fast::Hasher::new_with_initial_len(self.crc32[pair], lengths[pair]);
            if pair + 1 < closed {
                crc.combine(&crc32fast::Hasher::new_with_initial_len(self.crc32[pair + 1], lengths[pair + 1]));
                joined.push(crc.finalize());
            } else {
                crc.combine(&self.open.0);
                self.open = Crc(crc);
            }
        }
        self.crc32 = joined;
        let mut index = 0;
        self.points.retain(|_| {
            index += 1;
            index % 2 == 1
        });
    }

    /// Compares an object with this index as its bytes pass.
    pub fn comparison(&self, total_bytes: u64) -> Comparison<'_> {
        Comparison { index: self, total_bytes, segment: 0, position: 0, crc: crc32fast::Hasher::new(), first: None }
    }
}

/// A part of an object that differs from what was written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Difference {
    /// The offset in the object, from its first byte.
    pub from: u64,
    pub to: u64,
    pub expected_crc32: u32,
    pub found_crc32: u32,
}

pub struct Comparison<'a> {
    index: &'a MemberIndex,
    total_bytes: u64,
    segment: usize,
    position: u64,
    crc: crc32fast::Hasher,
    first: Option<Difference>,
}

impl Comparison<'_> {
    pub fn feed(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() && self.segment < self.index.crc32.len() {
            let end = self.index.points.get(self.segment + 1).map_or(self.total_bytes, |point| point[0]);
            let count = bytes.len().min(end.saturating_sub(self.position) as usize);
            let (own, rest) = bytes.split_at(count);
            self.crc.update(own);
            self.position += count as u64;
            bytes = rest;
            // A manifest is input: if its points do not rise, each segment ends at once.
            if self.position >= end {
                self.close(end);
            }
        }
    }

    fn close(&mut self, end: u64) {
        let found = std::mem::take(&mut self.crc).finalize();
        let expected = self.index.crc32[self.segment];
        if found != expected && self.first.is_none() {
            let from = self.index.points.get(self.segment).map_or(0, |point| point[0]);
            self.first = Some(Difference { from, to: end, expected_crc32: expected, found_crc32: found });
        }
        self.segment += 1;
    }

    /// Returns the first part that differs, among those that were read completely.
    pub fn finish(self) -> Option<Difference> {
        self.first
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_made_up_index_ends_and_differs() {
        let index = MemberIndex { points: vec![[0, 0], [9, 9], [3, 3]], crc32: vec![1; 7], count: 3, ..MemberIndex::default() };
        let mut comparison = index.comparison(5);
        comparison.feed(&[0; 20]);
        assert!(comparison.finish().is_some());
    }

    #[test]
    fn offsets_add_up() {
        let mut index = MemberIndex::default();
        index.push(&[1; 10], 100);
        index.push(&[2; 20], 100);
        index.finish();
        assert_eq!((index.count, index.points), (2, vec![[0, 0], [10, 100]]));
        assert_eq!(index.crc32, [crc32fast::hash(&[1; 10]), crc32fast::hash(&[2; 20])]);
    }

    #[test]
    fn the_index_stays_small_however_long_the_dump() {
        for members in [16_384_u64, 16_385, 32_769, 100_000, 100_001] {
            let mut index = MemberIndex::default();
            let mut object = Vec::new();
            for number in 0..members {
                let member = [number as u8, (number >> 8) as u8, 7];
                index.push(&member, 7);
                object.extend_from_slice(&member);
            }
            index.finish();
            assert_eq!(index.count, members);
            assert!(index.points.len() <= MAX_POINTS);
            for (number, point) in index.points.iter().enumerate() {
                let member = number as u64 * index.every;
                assert_eq!(*point, [member * 3, member * 7]);
            }
            assert_eq!(index.crc32.len(), index.points.len());
            let mut comparison = index.comparison(object.len() as u64);
            object.chunks(1000).for_each(|chunk| comparison.feed(chunk));
            assert_eq!(comparison.finish(), None, "{members}");
        }
    }

    #[test]
    fn the_part_that_differs_is_named() {
        let mut index = MemberIndex::default();
        for number in 0..5_u8 {
            index.push(&[number; 100], 1000);
        }
        index.finish();
        let mut object: Vec<u8> = (0..5_u8).flat_map(|number| [number; 100]).collect();
        object[250] ^= 1;
        let mut comparison = index.comparison(500);
        object.chunks(33).for_each(|chunk| comparison.feed(chunk));
        let difference = comparison.finish().unwrap();
        assert_eq!((difference.from, difference.to), (200, 300));
        assert_eq!(difference.expected_crc32, crc32fast::hash(&[2; 100]));
    }
}
