//! Packs a value, and unpacks it: as gzip, or as a deflate stream whose window begins with a dictionary.
//!
//! The second form is a byte 1, the stream, the dictionary's key, and the length of the value in 4 bytes, the lowest first, which is where
//! gzip has it, too.

use std::io::Read as _;

use anyhow::{Context as _, Result};
use flate2::{Compress, Compression, FlushCompress, Status};
use sha2::{Digest as _, Sha256};

use super::dictionary::{Dictionary, Key};
use super::keys::MAX_VALUE_BYTES;

/// Level 9 is slower than 6, and makes values smaller, so that readers have less to decode.
const LEVEL: u32 = 9;
/// A packed value above this share of the bytes that are stored now is not worth the slower reads.
const MAX_SHARE: f64 = 0.9;
/// The first byte of the form with a dictionary; gzip's is 31.
const WITH_DICTIONARY: u8 = 1;
const LENGTH_BYTES: usize = 4;
pub const TRAILER_BYTES: usize = size_of::<Key>() + LENGTH_BYTES;

/// A value in its new form.
pub struct Packed {
    pub gz: Vec<u8>,
    /// The SHA-256 of the text's bytes.
    pub hash: Vec<u8>,
}

/// Compresses a value with one library, decodes it with another, and compares every byte.
pub fn pack(value: &[u8], dictionary: Option<&Dictionary>) -> Result<Packed> {
    let (gz, again) = match dictionary {
        None => {
            let gz = gzip(value)?;
            let again = unzip(MAX_VALUE_BYTES, &gz)?;
            (gz, again)
        }
        Some(dictionary) => {
            let gz = deflate(value, dictionary)?;
            let mut again = vec![0; dictionary.bytes().len() + value.len()];
            let length = libdeflater::Decompressor::new().deflate_decompress(&after(dictionary, stream_of(&gz)), &mut again)?;
            again.truncate(length);
            (gz, again.split_off(dictionary.bytes().len().min(length)))
        }
    };
    anyhow::ensure!(again == value, "a value of {} bytes did not come back from its compressed form", value.len());
    Ok(Packed { gz, hash: Sha256::digest(value).to_vec() })
}

/// Returns the bytes that it takes in place of `stored`, or None if that is not worth it.
pub fn kept(packed: &Packed, stored: u64) -> Option<u64> {
    let bytes = (packed.gz.len() + packed.hash.len()) as u64;
    (bytes as f64 <= stored as f64 * MAX_SHARE).then_some(bytes)
}

/// Returns the key of the dictionary that a packed value names; None for gzip.
pub fn key_of(gz: &[u8]) -> Option<Key> {
    let has_key = gz.first() == Some(&WITH_DICTIONARY) && gz.len() > TRAILER_BYTES;
    has_key.then(|| gz[gz.len() - TRAILER_BYTES..][..size_of::<Key>()].try_into().ok())?
}

/// Unpacks a value. `dictionary`: the one that it names.
pub fn unpack(gz: &[u8], dictionary: Option<&Dictionary>) -> Result<Vec<u8>> {
    unpack_below(MAX_VALUE_BYTES, gz, dictionary)
}

fn unpack_below(max_bytes: u64, gz: &[u8], dictionary: Option<&Dictionary>) -> Result<Vec<u8>> {
    let Some(key) = key_of(gz) else { return unzip(max_bytes, gz) };
    let dictionary = dictionary.filter(|dictionary| dictionary.key() == key).context("its dictionary is missing")?;
    let stream = after(dictionary, stream_of(gz));
    let start = dictionary.bytes().len();
    let mut value = read_below(max_bytes + start as u64, flate2::read::DeflateDecoder::new(&stream[..]), "corrupt deflate data")?;
    let value = value.split_off(start.min(value.len()));
    anyhow::ensure!(gz.ends_with(&(value.len() as u32).to_le_bytes()), "corrupt deflate data: its length is another one");
    Ok(value)
}

fn unzip(max_bytes: u64, gz: &[u8]) -> Result<Vec<u8>> {
    read_below(max_bytes, flate2::read::MultiGzDecoder::new(gz), "corrupt gzip data")
}

fn read_below(max_bytes: u64, decoder: impl std::io::Read, otherwise: &'static str) -> Result<Vec<u8>> {
    let mut value = Vec::new();
    // A forged value may unpack to a thousand times its size.
    decoder.take(max_bytes).read_to_end(&mut value).context(otherwise)?;
    anyhow::ensure!((value.len() as u64) < max_bytes, "its text would be larger than a field can hold");
    Ok(value)
}

fn gzip(value: &[u8]) -> Result<Vec<u8>> {
    let level = libdeflater::CompressionLvl::new(LEVEL as i32).map_err(|_| anyhow::anyhow!("gzip has no level {LEVEL}"))?;
    let mut compressor = libdeflater::Compressor::new(level);
    let mut gz = vec![0; compressor.gzip_compress_bound(value.len())];
    let length = compressor.gzip_compress(value, &mut gz)?;
    gz.truncate(length);
    Ok(gz)
}

fn deflate(value: &[u8], dictionary: &Dictionary) -> Result<Vec<u8>> {
    let mut compress = Compress::new(Compression::new(LEVEL), false);
    compress.set_dictionary(dictionary.bytes())?;
    // What cannot be compressed grows by 5 bytes in some 16 kB, and a little.
    let mut gz = Vec::with_capacity(value.len() + value.len() / 1_000 + 100 + TRAILER_BYTES);
    gz.push(WITH_DICTIONARY);
    let status = compress.compress_vec(value, &mut gz, FlushCompress::Finish)?;
    anyhow::ensure!(
        status == Status::StreamEnd,
        "a value of {} bytes grew beyond all measure when it was compressed",
        value.len()
    );
    gz.extend(dictionary.key());
    gz.extend(u32::try_from(value.len())?.to_le_bytes());
    gz.shrink_to_fit();
    Ok(gz)
}

fn stream_of(gz: &[u8]) -> &[u8] {
    &gz[1..gz.len() - TRAILER_BYTES]
}

/// Returns a stream whose text is the dictionary and then that of `stream`: a stored block comes first, as a library knows no window that
/// begins with something.
fn after(dictionary: &Dictionary, stream: &[u8]) -> Vec<u8> {
    // A dictionary is smaller than 64 KiB.
    let length = dictionary.bytes().len() as u16;
    [&[0], &length.to_le_bytes()[..], &(!length).to_le_bytes(), dictionary.bytes(), stream].concat()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn dictionary() -> Dictionary {
        let values: Vec<String> = (0..60)
            .map(|value| (0..60).map(|line| format!("Get-ChildItem -Path {} | Sort-Object Name\n", value * line % 71)).collect())
            .collect();
        Dictionary::learn(&values.iter().map(String::as_bytes).collect::<Vec<_>>()).unwrap()
    }

    proptest! {
        #[test]
        fn what_is_packed_comes_back(value in proptest::collection::vec(any::<u8>(), 0..5000)) {
            let packed = pack(&value, None).unwrap();
            prop_assert_eq!(unpack(&packed.gz, None).unwrap(), value);
        }
    }

    #[test]
    fn what_is_packed_with_a_dictionary_comes_back_with_it_and_with_no_other() {
        let (one, other) = (dictionary(), dictionary());
        let noise: Vec<u8> = (0..200_000_u64).map(|number| (number.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 40) as u8).collect();
        for value in
            [&b""[..], b"x", b"Get-ChildItem -Path 5 | Sort-Object Name\n", &b"Get-Item ".repeat(30_000), &noise, one.bytes()]
        {
            let packed = pack(value, Some(&one)).unwrap();
            assert_eq!(key_of(&packed.gz), Some(one.key()));
            assert_eq!(unpack(&packed.gz, Some(&one)).unwrap(), value);
            assert!(unpack(&packed.gz, Some(&other)).unwrap_err().to_string().contains("its dictionary is missing"));
            assert!(unpack(&packed.gz, None).is_err());
        }
        let line = b"Get-ChildItem -Path 5 | Sort-Object Name\n";
        assert!(pack(line, Some(&one)).unwrap().gz.len() < 35, "a line that it has takes a few bytes");
        assert_eq!(key_of(&pack(line, None).unwrap().gz), None);
    }

    #[test]
    fn what_unpacks_to_more_than_a_field_holds_is_given_up_before_it_fills_the_memory() {
        let dictionary = dictionary();
        for dictionary in [None, Some(&dictionary)] {
            let packed = pack(&vec![0; 100_000], dictionary).unwrap();
            assert_eq!(unpack_below(100_001, &packed.gz, dictionary).unwrap().len(), 100_000);
            let error = unpack_below(100_000, &packed.gz, dictionary).unwrap_err();
            assert!(error.to_string().contains("larger than a field can hold"));
        }
    }

    #[test]
    fn a_cut_or_flipped_form_does_not_come_back() {
        let packed = pack(&b"Get-ChildItem ".repeat(100), None).unwrap();
        for end in 0..packed.gz.len() {
            assert!(unpack(&packed.gz[..end], None).is_err() || end == 0, "{end}");
        }
        let mut flipped = packed.gz.clone();
        flipped[20] ^= 4;
        assert!(unpack(&flipped, None).is_err());
    }

    #[test]
    fn a_cut_form_with_a_dictionary_does_not_come_back() {
        let dictionary = dictionary();
        let packed = pack(&b"Get-ChildItem ".repeat(100), Some(&dictionary)).unwrap();
        for end in 0..packed.gz.len() {
            assert!(unpack(&packed.gz[..end], Some(&dictionary)).is_err() || end == 0, "{end}");
        }
    }
}
