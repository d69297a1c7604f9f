//! The parts of an upload: their size, and their memory.

use anyhow::{Context as _, Result};
use memmap2::MmapMut;

use crate::base::fault::{Fault, Kind};

/// A few parts of this size keep a fast line busy; smaller ones cost requests.
const PART_BYTES_USUAL: u64 = 8 << 20;

/// What the provider and the configuration allow.
pub struct Limits {
    pub min_part_bytes: u64,
    pub max_part_bytes: u64,
    pub max_parts: u32,
    pub parts_in_flight: usize,
    pub upload_memory_bytes: u64,
}

/// Returns the size of all parts but the last: large enough for the object to fit into the provider's number of parts, with one
/// part being filled while the others are in flight, within the configured memory.
pub fn part_bytes(expected_bytes: u64, limits: &Limits) -> Result<u64> {
    // The expectation is a guess from the database's size, so this leaves room for half as much again.
    let needed = (expected_bytes + expected_bytes / 2).div_ceil(u64::from(limits.max_parts));
    // The size is in whole MiB: some clones want part sizes that divide evenly.
    let part = needed.clamp(PART_BYTES_USUAL, limits.max_part_bytes).next_multiple_of(1 << 20);
    let affordable = limits.upload_memory_bytes / (limits.parts_in_flight as u64 + 1);
    if part <= affordable {
        return Ok(part);
    }
    let least = needed.max(limits.min_part_bytes).next_multiple_of(1 << 20);
    anyhow::ensure!(
        least <= affordable,
        Fault::new(
            Kind::Configuration,
            format!(
                "an object of about {} in at most {} parts needs {} × {} of memory, but upload_memory allows {}: raise upload_memory, or lower parts_in_flight",
                crate::base::units::bytes(expected_bytes),
                limits.max_parts,
                limits.parts_in_flight + 1,
                crate::base::units::bytes(least),
                crate::base::units::bytes(limits.upload_memory_bytes)
            )
        )
    );
    Ok(affordable / (1 << 20) * (1 << 20))
}

/// The bytes of a part. Their memory goes back to the kernel at once when the part is sent; glibc would keep it in its heaps, and from then on all
/// smaller buffers, too (mallopt(3), M_MMAP_THRESHOLD): the peak RSS of a backup to S3 was 21 MiB higher.
#[derive(Default)]
pub struct Part {
    memory: Option<MmapMut>,
    bytes: usize,
}

impl Part {
    pub fn filled(&self) -> usize {
        self.bytes
    }

    /// Adds as many of the bytes as a part of this size has room for, and returns their number.
    pub fn add(&mut self, bytes: &[u8], part_bytes: usize) -> Result<usize> {
        let memory = match &mut self.memory {
            Some(memory) => memory,
            none => none.insert(MmapMut::map_anon(part_bytes).context("no memory for a part of an upload")?),
        };
        let count = bytes.len().min(part_bytes - self.bytes);
        memory[self.bytes..self.bytes + count].copy_from_slice(&bytes[..count]);
        self.bytes += count;
        Ok(count)
    }
}

impl AsRef<[u8]> for Part {
    fn as_ref(&self) -> &[u8] {
        self.memory.as_ref().map_or(&[], |memory| &memory[..self.bytes])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn limits(max_parts: u32, upload_memory_bytes: u64) -> Limits {
        Limits { min_part_bytes: 5 << 20, max_part_bytes: 5 << 30, max_parts, parts_in_flight: 3, upload_memory_bytes }
    }

    #[test]
    fn parts_grow_with_the_object_so_that_their_number_suffices() {
        const GIB: u64 = 1 << 30;
        for (expected, max_parts, part_mib) in [(0, 10_000, 8), (GIB, 10_000, 8), (200 * GIB, 10_000, 31), (20 * GIB, 1_000, 31)]
        {
            let part = part_bytes(expected, &limits(max_parts, 512 << 20)).unwrap();
            assert_eq!(part >> 20, part_mib, "{expected} in {max_parts}");
            assert!(part * u64::from(max_parts) >= expected + expected / 2);
        }
    }

    #[test]
    fn memory_is_a_limit_that_is_refused_and_not_passed() {
        let error = part_bytes(4 << 40, &limits(10_000, 512 << 20)).unwrap_err();
        assert!(error.to_string().contains("raise upload_memory"), "{error}");
        assert_eq!(part_bytes(1 << 30, &limits(10_000, 24 << 20)).unwrap(), 6 << 20, "smaller parts before a refusal");
    }
}
