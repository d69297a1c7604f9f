//! Chooses the size of an upload's parts.

use anyhow::Result;

use crate::base::fault::{Fault, Kind};
use crate::config;

/// S3's limits (Amazon S3 User Guide, "Multipart upload limits").
const MIN_PART_BYTES: u64 = 5 << 20;
const MAX_PART_BYTES: u64 = 5 << 30;
/// A few parts of this size keep a fast line busy; smaller ones cost requests.
const PART_BYTES_USUAL: u64 = 8 << 20;

/// Returns the size of all parts but the last: large enough for the object to fit into the provider's number of parts, with one
/// part being filled while the others are in flight, within the configured memory.
pub fn part_bytes(expected_bytes: u64, configured: &config::S3) -> Result<u64> {
    // The expectation is a guess from the database's size, so this leaves room for half as much again.
    let needed = (expected_bytes + expected_bytes / 2).div_ceil(u64::from(configured.max_parts));
    // The size is in whole MiB: some clones want part sizes that divide evenly.
    let part = needed.clamp(PART_BYTES_USUAL, MAX_PART_BYTES).next_multiple_of(1 << 20);
    let affordable = configured.upload_memory_bytes / (configured.parts_in_flight as u64 + 1);
    if part <= affordable {
        return Ok(part);
    }
    let least = needed.max(MIN_PART_BYTES).next_multiple_of(1 << 20);
    anyhow::ensure!(
        least <= affordable,
        Fault::new(
            Kind::Configuration,
            format!(
                "an object of about {} in at most {} parts needs {} × {} of memory, but upload_memory allows {}: raise upload_memory, or lower parts_in_flight",
                crate::base::units::bytes(expected_bytes),
                configured.max_parts,
                configured.parts_in_flight + 1,
                crate::base::units::bytes(least),
                crate::base::units::bytes(configured.upload_memory_bytes)
            )
        )
    );
    Ok(affordable / (1 << 20) * (1 << 20))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn configured(max_parts: u32, upload_memory_bytes: u64) -> config::S3 {
        config::S3 {
            bucket: "b".into(),
            prefix: String::new(),
            region: None,
            endpoint: None,
            path_style: false,
            server_side_encryption: None,
            kms_key_id: None,
            storage_class: None,
            max_parts,
            parts_in_flight: 3,
            upload_memory_bytes,
            part_timeout: None,
            lock: None,
            checksums: None,
            ca_file: None,
            sign_key: None,
            age: std::sync::Arc::default(),
        }
    }

    #[test]
    fn parts_grow_with_the_object_so_that_their_number_suffices() {
        const GIB: u64 = 1 << 30;
        for (expected, max_parts, part_mib) in [(0, 10_000, 8), (GIB, 10_000, 8), (200 * GIB, 10_000, 31), (20 * GIB, 1_000, 31)]
        {
            let part = part_bytes(expected, &configured(max_parts, 512 << 20)).unwrap();
            assert_eq!(part >> 20, part_mib, "{expected} in {max_parts}");
            assert!(part * u64::from(max_parts) >= expected + expected / 2);
        }
    }

    #[test]
    fn memory_is_a_limit_that_is_refused_and_not_passed() {
        let error = part_bytes(4 << 40, &configured(10_000, 512 << 20)).unwrap_err();
        assert!(error.to_string().contains("raise upload_memory"), "{error}");
        assert_eq!(part_bytes(1 << 30, &configured(10_000, 24 << 20)).unwrap(), 6 << 20, "smaller parts before a refusal");
    }
}
