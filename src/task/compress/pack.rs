//! Packs a value as gzip, and unpacks it.

use std::io::Read as _;

use anyhow::{Context as _, Result};
use sha2::{Digest as _, Sha256};

use super::keys::MAX_VALUE_BYTES;

/// Level 9 is slower than 6, and makes values smaller, so that readers have less to decode.
const LEVEL: i32 = 9;
/// A packed value above this share of the bytes that are stored now is not worth the slower reads.
const MAX_SHARE: f64 = 0.9;

/// A value in its new form.
pub struct Packed {
    pub gz: Vec<u8>,
    /// The SHA-256 of the text's bytes.
    pub hash: Vec<u8>,
}

/// Compresses a value with one library, decodes it with another, and compares every byte.
pub fn pack(value: &[u8]) -> Result<Packed> {
    let level = libdeflater::CompressionLvl::new(LEVEL).map_err(|_| anyhow::anyhow!("gzip has no level {LEVEL}"))?;
    let mut compressor = libdeflater::Compressor::new(level);
    let mut gz = vec![0; compressor.gzip_compress_bound(value.len())];
    let length = compressor.gzip_compress(value, &mut gz)?;
    gz.truncate(length);
    anyhow::ensure!(unpack(&gz)? == value, "a value of {} bytes did not come back from its compressed form", value.len());
    Ok(Packed { gz, hash: Sha256::digest(value).to_vec() })
}

/// Returns the bytes that it takes in place of `stored`, or None if that is not worth it.
pub fn kept(packed: &Packed, stored: u64) -> Option<u64> {
    let bytes = (packed.gz.len() + packed.hash.len()) as u64;
    (bytes as f64 <= stored as f64 * MAX_SHARE).then_some(bytes)
}

pub fn unpack(gz: &[u8]) -> Result<Vec<u8>> {
    unpack_below(MAX_VALUE_BYTES, gz)
}

fn unpack_below(max_bytes: u64, gz: &[u8]) -> Result<Vec<u8>> {
    let mut value = Vec::new();
    // A forged value may unpack to a thousand times its size.
    flate2::read::MultiGzDecoder::new(gz).take(max_bytes).read_to_end(&mut value).context("corrupt gzip data")?;
    anyhow::ensure!((value.len() as u64) < max_bytes, "its text would be larger than a field can hold");
    Ok(value)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn what_is_packed_comes_back(value in proptest::collection::vec(any::<u8>(), 0..5000)) {
            let packed = pack(&value).unwrap();
            prop_assert_eq!(unpack(&packed.gz).unwrap(), value);
        }
    }

    #[test]
    fn what_unpacks_to_more_than_a_field_holds_is_given_up_before_it_fills_the_memory() {
        let packed = pack(&vec![0; 100_000]).unwrap();
        assert_eq!(unpack_below(100_001, &packed.gz).unwrap().len(), 100_000);
        assert!(unpack_below(100_000, &packed.gz).unwrap_err().to_string().contains("larger than a field can hold"));
    }

    #[test]
    fn a_cut_or_flipped_form_does_not_come_back() {
        let packed = pack(&b"Get-ChildItem ".repeat(100)).unwrap();
        for end in 0..packed.gz.len() {
            assert!(unpack(&packed.gz[..end]).is_err() || end == 0, "{end}");
        }
        let mut flipped = packed.gz.clone();
        flipped[20] ^= 4;
        assert!(unpack(&flipped).is_err());
    }
}
