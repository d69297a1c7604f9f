//! Reads parts of a set's dump: only the members that hold them, by range, and no byte is used before it is proved.

use std::io;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering::Relaxed;

use anyhow::{Context as _, Result};
use bytes::Bytes;

use super::locked;
use super::manifest::DumpObject;
use super::read_back::Differs;
use super::scan::TableData;
use super::set::Set;
use crate::base::progress::Phase;
use crate::base::units;
use crate::members::blocks::Proof;
use crate::members::compress::DecodeError;
use crate::members::decode::decode_part;
use crate::members::decrypt::Coding;
use crate::store::Store;

/// Neighbouring members of a dump that hold parts of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Extent {
    /// Their bytes in the object; in an encrypted one, among its contents.
    pub members: Range<u64>,
    /// What they decode to: bytes of the uncompressed dump.
    pub decoded: Range<u64>,
    /// The parts, in the uncompressed dump: of a table, its COPY statements with their rows.
    pub wanted: Vec<Range<u64>>,
}

/// The members that hold this part of the dump, as far as the manifest tells members apart.
pub fn extent(dump: &DumpObject, wanted: Range<u64>) -> Extent {
    let points = &dump.members.points;
    let first = points.partition_point(|point| point[1] <= wanted.start);
    let after = first + points[first..].partition_point(|point| point[1] < wanted.end);
    let [from, decoded_from] = first.checked_sub(1).map_or([0, 0], |at| points[at]);
    let [to, decoded_to] = points.get(after).copied().unwrap_or([dump.contents_bytes(), dump.uncompressed_bytes]);
    Extent { members: from..to, decoded: decoded_from..decoded_to, wanted: vec![wanted] }
}

/// How many members these are; a number of `every` where the manifest does not record each.
pub fn count(dump: &DumpObject, extent: &Extent) -> u64 {
    let points = dump.members.points.iter().filter(|point| extent.members.contains(&point[0])).count() as u64;
    points.saturating_mul(dump.members.every).min(dump.members.count)
}

/// Where the rows of an entry of the manifest are, in the uncompressed dump.
pub fn range(table: &TableData) -> Range<u64> {
    table.offset..table.offset + table.bytes
}

/// What is read of a dump for these parts of it. Without hashes of parts (sets of the first release), it is read as a whole.
pub fn extents(dump: &DumpObject, wanted: impl IntoIterator<Item = Range<u64>>) -> Vec<Extent> {
    let mut found: Vec<Extent> = Vec::new();
    let mut sorted: Vec<Extent> = wanted.into_iter().map(|wanted| extent(dump, wanted)).collect();
    sorted.sort_by_key(|extent| extent.wanted[0].start);
    let block_bytes = dump.blocks.as_ref().map_or(u64::MAX, |blocks| blocks.block_bytes.max(1));
    for extent in sorted {
        match found.last_mut() {
            // The blocks that prove one of them reach to those of the other.
            Some(last)
                if dump.stored(&extent.members).start / block_bytes <= dump.stored(&last.members).end.div_ceil(block_bytes) =>
            {
                last.members.end = last.members.end.max(extent.members.end);
                last.decoded.end = last.decoded.end.max(extent.decoded.end);
                last.wanted.extend(extent.wanted);
            }
            _ => found.push(extent),
        }
    }
    if dump.blocks.is_none() {
        for whole in &mut found {
            (whole.members, whole.decoded) = (0..dump.contents_bytes(), 0..dump.uncompressed_bytes);
        }
    }
    found
}

/// Passes these parts of the dump to `feed`, in their order, with `state`. Returns how many bytes of the object were read. After an error, what `feed`
/// has got is not all.
pub async fn read<S: Send + 'static>(
    store: &Store,
    set: &Set,
    wanted: impl IntoIterator<Item = Range<u64>>,
    phase: &Phase,
    mut state: S,
    feed: fn(&mut S, &[u8]) -> io::Result<()>,
) -> Result<(u64, S)> {
    let head = locked::head(store, set).await?;
    let mut read_bytes = head.len() as u64;
    for extent in extents(&set.manifest.dump, wanted) {
        let (bytes, back) = read_extent(store, set, (extent, &head), phase, state, feed).await?;
        read_bytes += bytes;
        state = back;
    }
    Ok((read_bytes, state))
}

async fn read_extent<S: Send + 'static>(
    store: &Store,
    set: &Set,
    (extent, head): (Extent, &Bytes),
    phase: &Phase,
    state: S,
    take: fn(&mut S, &[u8]) -> io::Result<()>,
) -> Result<(u64, S)> {
    let dump = &set.manifest.dump;
    let key = set.name.key(&dump.object);
    let differs = Arc::new(AtomicBool::new(false));
    let stored = dump.stored(&extent.members);
    let (range, proof) = match &dump.blocks {
        Some(blocks) => {
            let (range, proof) = Proof::of_part(blocks, dump.bytes, &stored, Arc::clone(&differs));
            (range, Some(proof))
        }
        None => (0..dump.bytes, None),
    };
    let members = stored.start - range.start..stored.end - range.start;
    let coding = Coding::new(dump.compression, dump.encryption.as_ref(), store.age_keys()).of_part(head, &extent.members);
    let reader = store.read_range(&key, range.clone()).await?.with_context(|| format!("{} is gone", store.location(&key)))?;
    let is_refused = Arc::clone(&differs);
    let end = extent.decoded.end;
    let cut = Cut { position: extent.decoded.start, end, wanted: extent.wanted, next: 0, state, take };
    let feed = move |cut: &mut Cut<S>, bytes: &[u8]| match is_refused.load(Relaxed) {
        true => Err(io::Error::other("they differ from the manifest")),
        false => cut.take(bytes),
    };
    let decoded = decode_part(reader, coding, phase, (proof, members), cut, feed, |_| ()).await?;

    let is_as_written = !differs.load(Relaxed) && (dump.blocks.is_some() || decoded.sha256 == dump.sha256);
    let differing = decoded.differing.map_or_else(|| range.clone(), |block| range.start + block.start..range.start + block.end);
    anyhow::ensure!(
        is_as_written && decoded.bytes == range.end - range.start,
        Differs(format!(
            "{} differs from its manifest in bytes {} to {}, by their SHA-256 ({} were read): try again, and if it stays, `pgtend backups verify` says \
             whether the set is damaged",
            store.location(&key),
            differing.start,
            differing.end.saturating_sub(1),
            units::bytes(decoded.bytes)
        ))
    );
    match decoded.members {
        Ok(_) => {}
        Err(DecodeError::Sink(error)) => return Err(error.into()),
        Err(DecodeError::Source(error)) => return Err(anyhow::Error::new(error).context("the members do not decode")),
        Err(DecodeError::Locked(why)) => return Err(locked::refusal(store, set, &why)),
    }
    let cut = decoded.state;
    anyhow::ensure!(cut.position == end, "the members decode to {} bytes less than the manifest says", end - cut.position);
    Ok((decoded.bytes, cut.state))
}

/// Cuts the wanted parts out of decoded bytes.
struct Cut<S> {
    /// In the uncompressed dump, like `end` and `wanted`.
    position: u64,
    end: u64,
    wanted: Vec<Range<u64>>,
    /// The first of `wanted` that has not ended.
    next: usize,
    state: S,
    take: fn(&mut S, &[u8]) -> io::Result<()>,
}

impl<S> Cut<S> {
    fn take(&mut self, bytes: &[u8]) -> io::Result<()> {
        let here = self.position..self.position + bytes.len() as u64;
        if here.end > self.end {
            return Err(io::Error::other("the members decode to more than the manifest says"));
        }
        while let Some(range) = self.wanted.get(self.next) {
            let (from, to) = (range.start.max(here.start), range.end.min(here.end));
            if from < to {
                (self.take)(&mut self.state, &bytes[(from - here.start) as usize..(to - here.start) as usize])?;
            }
            if range.end > here.end {
                break;
            }
            self.next += 1;
        }
        self.position = here.end;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::members::blocks::Blocks;
    use crate::members::index::MemberIndex;
    use crate::task::backup::manifest::tests::manifest;

    /// Ten members of 1,000 bytes, which decode to 5,000 bytes each.
    fn dump(block_bytes: Option<u64>) -> DumpObject {
        let mut members = MemberIndex::default();
        (members.count, members.points) = (10, (0..10).map(|number| [number * 1000, number * 5000]).collect());
        DumpObject {
            bytes: 10_000,
            uncompressed_bytes: 50_000,
            members,
            blocks: block_bytes.map(|block_bytes| Blocks { block_bytes, sha256: Vec::new() }),
            ..manifest().dump
        }
    }

    #[test]
    fn a_table_is_in_the_members_that_its_bytes_reach_into() {
        let dump = dump(Some(1000));
        for (offset, bytes, members) in [
            (0, 1, 0..1000),
            (4999, 1, 0..1000),
            (4999, 2, 0..2000),
            (5000, 5000, 1000..2000),
            (12_000, 20_000, 2000..7000),
            (49_999, 1, 9000..10_000),
        ] {
            let found = extent(&dump, offset..offset + bytes);
            assert_eq!((&found.members, &found.decoded), (&members, &(members.start * 5..members.end * 5)), "{offset} {bytes}");
            assert_eq!(count(&dump, &found), (members.end - members.start) / 1000);
        }
    }

    #[test]
    fn parts_that_share_blocks_are_read_together_and_others_are_not() {
        let (first, near, far) = (0..10, 10_000..10_010, 45_000..45_010);
        let of = |block_bytes| {
            let found = extents(&dump(block_bytes), [far.clone(), near.clone(), first.clone()]);
            found.into_iter().map(|extent| (extent.members, extent.wanted.len())).collect::<Vec<_>>()
        };
        assert_eq!(of(Some(1000)), [(0..1000, 1), (2000..3000, 1), (9000..10_000, 1)]);
        assert_eq!(of(Some(2000)), [(0..3000, 2), (9000..10_000, 1)]);
        assert_eq!(of(None), [(0..10_000, 3)], "a set of the first release is read as a whole");
    }

    #[test]
    fn points_that_nobody_wrote_lead_to_no_other_part_of_the_object() {
        let mut dump = dump(Some(1000));
        dump.members.points = vec![[7000, 30_000]];
        assert_eq!(extent(&dump, 10..30).members, 0..7000);
        dump.members.points.clear();
        assert_eq!(extent(&dump, 10..30).members, 0..10_000);
    }
}
