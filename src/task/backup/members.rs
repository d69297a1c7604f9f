//! Where the members of a dump start, for reading a part of it by range.

use serde::{Deserialize, Serialize};

/// More points than this would make the manifest grow with the database; then every second one goes.
const POINTS_MOST: usize = 16_384;

/// How many members there are, and where every `every`-th one starts. Two neighbours tell a member's length; what
/// is in it follows from the tables' offsets in the uncompressed dump.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MemberIndex {
    pub count: u64,
    pub every: u64,
    /// `[offset in the object, offset in the uncompressed dump]`
    pub points: Vec<[u64; 2]>,
    #[serde(skip)]
    end: [u64; 2],
}

impl Default for MemberIndex {
    fn default() -> Self {
        Self { count: 0, every: 1, points: Vec::new(), end: [0, 0] }
    }
}

impl MemberIndex {
    /// Adds a member that follows the ones before.
    pub fn push(&mut self, compressed_bytes: u64, uncompressed_bytes: u64) {
        if self.count.is_multiple_of(self.every) {
            self.points.push(self.end);
        }
        self.count += 1;
        self.end[0] += compressed_bytes;
        self.end[1] += uncompressed_bytes;
        if self.points.len() > POINTS_MOST {
            self.every *= 2;
            let mut index = 0;
            self.points.retain(|_| {
                index += 1;
                index % 2 == 1
            });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn offsets_add_up() {
        let mut index = MemberIndex::default();
        index.push(10, 100);
        index.push(20, 100);
        assert_eq!((index.count, index.points), (2, vec![[0, 0], [10, 100]]));
    }

    #[test]
    fn the_index_stays_small_however_long_the_dump() {
        let mut index = MemberIndex::default();
        for _ in 0..100_000 {
            index.push(3, 7);
        }
        assert_eq!(index.count, 100_000);
        assert!(index.points.len() <= POINTS_MOST);
        for (number, point) in index.points.iter().enumerate() {
            let member = number as u64 * index.every;
            assert_eq!(*point, [member * 3, member * 7]);
        }
    }
}
