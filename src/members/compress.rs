//! Makes compressed members: each is an independent gzip member or zstd frame of about 1 MiB of input, so that several threads
//! can make them; one after another, they are one ordinary `.gz` or `.zst` file.

use std::io::{self, BufRead, Read};

use anyhow::Result;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// The input of one member. Smaller ones compress worse, larger ones cost memory: at 1 MiB the loss against one stream is under 1
/// %.
pub const MEMBER_BYTES: usize = 1 << 20;

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Compression {
    #[default]
    Gzip,
    Zstd,
}

impl Compression {
    /// Returns gzip level 4 of libdeflate: its output is smaller than that of `gzip -6` at a fifth of the CPU time (docs/benchmarks.md).
    pub fn default_level(self) -> i32 {
        match self {
            Self::Gzip => 4,
            Self::Zstd => 3,
        }
    }

    /// Returns the highest level: libdeflate's, and zstd's without its `--ultra` memory.
    pub fn highest_level(self) -> i32 {
        match self {
            Self::Gzip => 12,
            Self::Zstd => 19,
        }
    }

    /// Returns the object's name, such as `dump.sql.gz`.
    pub const fn dump_object(self) -> &'static str {
        match self {
            Self::Gzip => "dump.sql.gz",
            Self::Zstd => "dump.sql.zst",
        }
    }

    /// Returns its name when it is encrypted.
    pub const fn encrypted_dump_object(self) -> &'static str {
        match self {
            Self::Gzip => "dump.sql.gz.age",
            Self::Zstd => "dump.sql.zst.age",
        }
    }
}

/// The compressor of one thread, with a buffer for the longest output: members that wait for their turn are no longer than they have to be.
pub struct Compressor {
    of: Library,
    output: Vec<u8>,
}

enum Library {
    Gzip(libdeflater::Compressor),
    Zstd(zstd::bulk::Compressor<'static>),
}

impl Compressor {
    pub fn new(compression: Compression, level: i32) -> Result<Self> {
        let of = match compression {
            Compression::Gzip => {
                let level = libdeflater::CompressionLvl::new(level).map_err(|_| anyhow::anyhow!("gzip has no level {level}"))?;
                Library::Gzip(libdeflater::Compressor::new(level))
            }
            Compression::Zstd => {
                let mut compressor = zstd::bulk::Compressor::new(level)?;
                compressor.include_checksum(true)?;
                Library::Zstd(compressor)
            }
        };
        Ok(Self { of, output: Vec::new() })
    }

    /// Compresses `input` into one complete member.
    pub fn member(&mut self, input: &[u8]) -> Result<Vec<u8>> {
        let most = match &mut self.of {
            Library::Gzip(compressor) => compressor.gzip_compress_bound(input.len()),
            Library::Zstd(_) => zstd::zstd_safe::compress_bound(input.len()),
        };
        if self.output.len() < most {
            self.output.resize(most, 0);
        }
        let length = match &mut self.of {
            Library::Gzip(compressor) => compressor.gzip_compress(input, &mut self.output)?,
            Library::Zstd(compressor) => compressor.compress_to_buffer(input, self.output.as_mut_slice())?,
        };
        Ok(self.output[..length].to_vec())
    }
}

/// Decodes all members of `source` into `sink`, in pieces; returns how many there were. The decoders check their checksums. The
/// error says on which side it happened.
pub fn decode(
    compression: Compression,
    mut source: impl BufRead,
    mut sink: impl FnMut(&[u8]) -> io::Result<()>,
) -> Result<u64, DecodeError> {
    let mut buffer = vec![0; 256 << 10];
    let mut members = 0;
    while !source.fill_buf().map_err(DecodeError::Source)?.is_empty() {
        source = match compression {
            Compression::Gzip => {
                let mut decoder = flate2::bufread::GzDecoder::new(source);
                drain(&mut decoder, &mut buffer, &mut sink)?;
                decoder.into_inner()
            }
            Compression::Zstd => {
                let mut decoder = zstd::stream::read::Decoder::with_buffer(source).map_err(DecodeError::Source)?.single_frame();
                drain(&mut decoder, &mut buffer, &mut sink)?;
                decoder.finish()
            }
        };
        members += 1;
    }
    Ok(members)
}

#[derive(Debug, thiserror::Error)]
pub enum DecodeError {
    /// The bytes read are not those that were written.
    #[error("{0}")]
    Source(io::Error),
    /// The receiver of the decoded bytes failed.
    #[error("{0}")]
    Sink(io::Error),
    /// They are encrypted, and cannot be opened here, for this reason. That says nothing against them.
    #[error("it is encrypted, and cannot be opened here: {0}")]
    Locked(String),
}

fn drain(decoder: &mut impl Read, buffer: &mut [u8], sink: &mut impl FnMut(&[u8]) -> io::Result<()>) -> Result<(), DecodeError> {
    loop {
        match decoder.read(buffer) {
            Ok(0) => return Ok(()),
            Ok(count) => sink(&buffer[..count]).map_err(DecodeError::Sink)?,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(DecodeError::Source(error)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn members(compression: Compression, parts: &[&[u8]]) -> Vec<u8> {
        let mut compressor = Compressor::new(compression, compression.default_level()).unwrap();
        parts.iter().flat_map(|part| compressor.member(part).unwrap()).collect()
    }

    fn decoded(compression: Compression, bytes: &[u8]) -> Result<(Vec<u8>, u64), DecodeError> {
        let mut out = Vec::new();
        let count = decode(compression, bytes, |piece| {
            out.extend_from_slice(piece);
            Ok(())
        })?;
        Ok((out, count))
    }

    #[test]
    fn members_in_a_row_are_one_stream_and_are_counted() {
        for compression in [Compression::Gzip, Compression::Zstd] {
            let bytes = members(compression, &[b"one ", b"two ", b"", b"three"]);
            assert_eq!(decoded(compression, &bytes).unwrap(), (b"one two three".to_vec(), 4), "{compression:?}");
        }
    }

    #[test]
    fn a_cut_or_flipped_member_is_an_error() {
        for compression in [Compression::Gzip, Compression::Zstd] {
            let bytes = members(compression, &[&[7; 5000], b"second member"]);
            assert!(decoded(compression, &bytes[..bytes.len() - 1]).is_err(), "{compression:?}");
            for at in [12, bytes.len() / 2, bytes.len() - 6] {
                let mut flipped = bytes.clone();
                flipped[at] ^= 0x10;
                let result = decoded(compression, &flipped);
                assert!(
                    result.is_err() || result.unwrap().0 != [[7; 5000].as_slice(), b"second member"].concat(),
                    "{compression:?} at {at}"
                );
            }
        }
    }

    #[test]
    fn a_cut_at_a_member_boundary_decodes_and_only_the_count_tells() {
        let first = members(Compression::Gzip, &[b"first"]);
        assert_eq!(decoded(Compression::Gzip, &first).unwrap().1, 1);
    }

    #[test]
    fn stock_gzip_and_zstd_levels_exist() {
        for compression in [Compression::Gzip, Compression::Zstd] {
            for level in 1..=compression.highest_level() {
                assert!(Compressor::new(compression, level).is_ok());
            }
        }
        assert!(Compressor::new(Compression::Gzip, 13).is_err());
    }
}
