//! How an object of members is encrypted, and where its bytes are then: age's format (age-encryption.org/v1) has a header, a nonce, and the
//! contents in chunks of 64 KiB, each with a tag of its own, so that a part of it is opened without the rest.

use std::ops::Range;

use anyhow::Result;
use serde::{Deserialize, Serialize};

use crate::base::age_keys::{MAX_RECIPIENTS, RECIPIENT_BYTES};
use crate::base::bounds;

/// The ending of an encrypted object's name, after that of its contents: `dump.sql.gz.age`.
pub const ENDING: &str = ".age";

/// Of the contents in each chunk but the last, which may be shorter.
pub const CHUNK_BYTES: u64 = 64 << 10;

/// A chunk as it is stored: with its tag.
const STORED_CHUNK_BYTES: u64 = CHUNK_BYTES + TAG_BYTES;

const TAG_BYTES: u64 = 16;

/// Between the header and the first chunk.
const NONCE_BYTES: u64 = 16;

/// The header of [`MAX_RECIPIENTS`] RSA keys of 4,096 bits has some 15,000 bytes. age's parser takes the square of it.
pub const HEADER_LONGEST_BYTES: u64 = 16 << 10;

/// As a manifest says it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Encryption {
    pub format: Format,
    /// The length of age's header, which ends before the nonce.
    pub header_bytes: u64,
    /// The length of what is inside: the compressed members.
    pub contents_bytes: u64,
    /// The recipients as they were configured. Each opens the object alone.
    pub recipients: Vec<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Format {
    Age,
}

impl Encryption {
    /// Finds out how an object of `bytes` is encrypted, of which no manifest says it, by its start; None: it is no file of age. For whom it is encrypted is
    /// not told by it.
    pub fn of_object(start: &[u8], bytes: u64) -> Option<Self> {
        let mac = memchr::memmem::find(start, b"\n--- ")? + 1;
        let header_bytes = (mac + memchr::memchr(b'\n', &start[mac..])? + 1) as u64;
        let payload = bytes.checked_sub(header_bytes + NONCE_BYTES)?;
        let contents_bytes = payload.checked_sub(payload.div_ceil(STORED_CHUNK_BYTES) * TAG_BYTES)?;
        let found = Self { format: Format::Age, header_bytes, contents_bytes, recipients: Vec::new() };
        (found.stored_bytes() == bytes).then_some(found)
    }

    /// Returns the length of the whole object.
    pub fn stored_bytes(&self) -> u64 {
        // Nothing has one chunk, too.
        let chunks = self.contents_bytes.div_ceil(CHUNK_BYTES).max(1);
        self.payload_start() + self.contents_bytes + chunks * TAG_BYTES
    }

    /// Returns what a reader of a part needs first, to find the key: the header and the nonce.
    pub fn head(&self) -> Range<u64> {
        0..self.payload_start()
    }

    /// Returns the bytes of the object that hold the chunks with these bytes of the contents.
    pub fn stored(&self, contents: &Range<u64>) -> Range<u64> {
        let chunks = contents.start / CHUNK_BYTES..contents.end.div_ceil(CHUNK_BYTES);
        let at = |chunk: u64| self.payload_start().saturating_add(chunk.saturating_mul(STORED_CHUNK_BYTES));
        at(chunks.start)..at(chunks.end).min(self.stored_bytes())
    }

    /// Returns where the chunk with this byte of the contents begins in the object.
    pub fn chunk_start(&self, position: u64) -> u64 {
        self.stored(&(position..position)).start
    }

    fn payload_start(&self) -> u64 {
        self.header_bytes + NONCE_BYTES
    }

    /// Checks what a manifest says of an object of `bytes`.
    pub fn check(&self, bytes: u64) -> Result<()> {
        bounds::count("encryption.contents_bytes", self.contents_bytes)?;
        anyhow::ensure!(self.header_bytes <= HEADER_LONGEST_BYTES, "encryption.header_bytes is {}", self.header_bytes);
        anyhow::ensure!(
            self.stored_bytes() == bytes,
            "encryption is of an object of {} bytes in place of {bytes}",
            self.stored_bytes()
        );
        anyhow::ensure!(self.recipients.len() <= MAX_RECIPIENTS, "encryption has {} recipients", self.recipients.len());
        let longest = self.recipients.iter().map(String::len).max().unwrap_or_default();
        anyhow::ensure!(longest <= RECIPIENT_BYTES, "a recipient of encryption has {longest} bytes");
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(contents_bytes: u64) -> Encryption {
        Encryption { format: Format::Age, header_bytes: 200, contents_bytes, recipients: vec!["age1x".to_owned()] }
    }

    #[test]
    fn an_object_is_as_long_as_its_header_its_contents_and_a_tag_for_each_chunk() {
        for (contents, stored) in [
            (0, 216 + 16),
            (1, 216 + 17),
            (CHUNK_BYTES - 1, 216 + CHUNK_BYTES + 15),
            (CHUNK_BYTES, 216 + CHUNK_BYTES + 16),
            (CHUNK_BYTES + 1, 216 + CHUNK_BYTES + 1 + 32),
            (10 * CHUNK_BYTES, 216 + 10 * 65_552),
        ] {
            assert_eq!(of(contents).stored_bytes(), stored, "{contents}");
            assert!(of(contents).check(stored).is_ok() && of(contents).check(stored + 1).is_err());
        }
    }

    #[test]
    fn what_no_manifest_says_is_found_out_by_the_header() {
        let header = b"age-encryption.org/v1\n-> X25519 abc\nbody\n--- mac\n";
        for contents in [0, 1, CHUNK_BYTES - 1, CHUNK_BYTES, CHUNK_BYTES + 1, 5 * CHUNK_BYTES] {
            let expected = Encryption { header_bytes: header.len() as u64, recipients: vec![], ..of(contents) };
            let start = [&header[..], &[7; 40]].concat();
            assert_eq!(Encryption::of_object(&start, expected.stored_bytes()), Some(expected), "{contents}");
        }
        for (start, bytes) in
            [(&b"plain"[..], 500), (header, 20), (&header[..30], 500), (header, header.len() as u64 + 16 + 65_552 + 3)]
        {
            assert_eq!(Encryption::of_object(start, bytes), None);
        }
    }

    #[test]
    fn a_part_of_the_contents_is_in_the_chunks_that_it_reaches_into() {
        let encryption = of(3 * CHUNK_BYTES + 100);
        let end = 216 + 3 * 65_552 + 116;
        for (contents, stored) in [
            (0..1, 216..216 + 65_552),
            (0..CHUNK_BYTES, 216..216 + 65_552),
            (CHUNK_BYTES - 1..CHUNK_BYTES + 1, 216..216 + 2 * 65_552),
            (CHUNK_BYTES..2 * CHUNK_BYTES, 216 + 65_552..216 + 2 * 65_552),
            (3 * CHUNK_BYTES..3 * CHUNK_BYTES + 100, 216 + 3 * 65_552..end),
            (2 * CHUNK_BYTES + 7..3 * CHUNK_BYTES + 1, 216 + 2 * 65_552..end),
            (0..3 * CHUNK_BYTES + 100, 216..end),
        ] {
            assert_eq!(encryption.stored(&contents), stored, "{contents:?}");
        }
        assert_eq!(encryption.head(), 0..216);
        assert_eq!(encryption.chunk_start(2 * CHUNK_BYTES + 7), 216 + 2 * 65_552);
    }

    #[test]
    fn what_nobody_wrote_is_refused_and_does_not_overflow() {
        for made_up in [
            Encryption { header_bytes: u64::MAX, ..of(100) },
            Encryption { contents_bytes: u64::MAX - 1, ..of(100) },
            Encryption { recipients: vec![String::new(); MAX_RECIPIENTS + 1], ..of(100) },
            Encryption { recipients: vec!["x".repeat(RECIPIENT_BYTES + 1)], ..of(100) },
        ] {
            assert!(made_up.check(332).is_err(), "{made_up:?}");
        }
    }
}
