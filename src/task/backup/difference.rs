//! Where the first byte of a dump is that is not as it was written, as closely as its manifest can tell: by the block whose SHA-256 differs, and by the
//! members whose CRC-32 does. What a decoder makes of such bytes says nothing about it, and differs from read to read. Pure.

use std::ops::Range;

use super::manifest::DumpObject;
use crate::members::index::Difference;

/// What one read of a dump has found.
#[derive(Clone, Debug, Default)]
pub struct Found {
    /// Some bytes are not as their SHA-256 says, or are missing.
    pub differs: bool,
    /// The first such block.
    pub block: Option<Range<u64>>,
    /// The first members whose CRC-32 differs. Encrypted, they have none.
    pub members: Option<Difference>,
}

impl Found {
    /// "the first difference is in bytes 628903 to 1041839 of dump.sql.gz, in member 3 of 8: CRC-32 … read, … written". None where the manifest does not
    /// tell parts apart, or all that were read to their end are as they were written.
    pub fn in_words(&self, dump: &DumpObject) -> Option<String> {
        let by_members = self.members.as_ref().map(|members| members.from..members.to);
        let bytes = match (&self.block, by_members) {
            (Some(block), Some(members)) if block.start.max(members.start) < block.end.min(members.end) => {
                block.start.max(members.start)..block.end.min(members.end)
            }
            (Some(block), _) => block.clone(),
            (None, members) => members?,
        };
        let how = match &self.members {
            Some(Difference { expected_crc32, found_crc32, .. }) => {
                format!("CRC-32 {found_crc32:08x} read, {expected_crc32:08x} written")
            }
            None => "its SHA-256 is another".to_owned(),
        };
        let last = bytes.end.saturating_sub(1);
        Some(format!(
            "the first difference is in bytes {} to {last} of {}{}: {how}",
            bytes.start,
            dump.object,
            members(dump, &bytes)
        ))
    }
}

/// ", in member 3 of 8": those that hold these bytes of the object.
fn members(dump: &DumpObject, bytes: &Range<u64>) -> String {
    let index = &dump.members;
    let start_of = |number: usize| {
        let start = index.points.get(number).map_or(dump.contents_bytes(), |point| point[0]);
        dump.stored(&(start..dump.contents_bytes().max(start))).start
    };
    let holding = |number: &usize| {
        start_of(*number) < bytes.end && (start_of(*number + 1) > bytes.start || *number + 1 == index.points.len())
    };
    let numbers: Vec<usize> = (0..index.points.len()).filter(holding).collect();
    let (Some(first), Some(last)) = (numbers.first(), numbers.last()) else { return String::new() };
    let first = (*first as u64).saturating_mul(index.every) + 1;
    let last = (*last as u64 + 1).saturating_mul(index.every).min(index.count);
    match first >= last {
        true => format!(", in member {first} of {}", index.count),
        false => format!(", in one of members {first} to {last} of {}", index.count),
    }
}

/// The place in the uncompressed dump up to which all members were decoded, where the one begins in which decoding ended after so many bytes.
pub fn decoded_up_to(dump: &DumpObject, decoded_bytes: u64) -> u64 {
    let points = &dump.members.points;
    let after = points.partition_point(|point| point[1] <= decoded_bytes);
    after.checked_sub(1).and_then(|at| points.get(at)).map_or(0, |point| point[1])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::members::index::MemberIndex;
    use crate::task::backup::manifest::tests::manifest;

    /// Eight members of 1,000 bytes, of which every second one has a point.
    fn dump() -> DumpObject {
        let mut members = MemberIndex::default();
        (members.count, members.every) = (8, 2);
        members.points = (0..4).map(|at| [at * 2000, at * 10_000]).collect();
        DumpObject { bytes: 8000, uncompressed_bytes: 40_000, members, ..manifest().dump }
    }

    #[test]
    fn the_closest_range_is_named_that_the_hashes_tell() {
        let crc = |from, to| Some(Difference { from, to, expected_crc32: 1, found_crc32: 2 });
        for (block, members, expected) in [
            (None, None, None),
            (Some(0..4096), None, Some("bytes 0 to 4095 of dump.sql.gz, in one of members 1 to 6 of 8: its SHA-256")),
            (Some(4096..8000), None, Some("bytes 4096 to 7999 of dump.sql.gz, in one of members 5 to 8 of 8: its SHA-256")),
            (
                None,
                crc(2000, 4000),
                Some("bytes 2000 to 3999 of dump.sql.gz, in one of members 3 to 4 of 8: CRC-32 00000002 read"),
            ),
            (Some(3000..5000), crc(2000, 4000), Some("bytes 3000 to 3999 of dump.sql.gz, in one of members 3 to 4 of 8: CRC-32")),
            // A made-up manifest may say what cannot be.
            (Some(3000..5000), crc(6000, 8000), Some("bytes 3000 to 4999 of dump.sql.gz, in one of members 3 to 6 of 8")),
        ] {
            let found = Found { differs: true, block, members }.in_words(&dump());
            assert_eq!(found.is_some(), expected.is_some(), "{found:?}");
            assert!(found.as_deref().unwrap_or_default().contains(expected.unwrap_or_default()), "{found:?} and {expected:?}");
        }
    }

    #[test]
    fn a_member_that_does_not_decode_is_said_to_end_where_it_begins() {
        for (decoded, expected) in [(0, 0), (9999, 0), (10_000, 10_000), (15_000, 10_000), (40_000, 30_000)] {
            assert_eq!(decoded_up_to(&dump(), decoded), expected, "{decoded}");
        }
    }
}
