//! Cuts the rows of a COPY block into chunks, each for a COPY of its own. Pure.

use bytes::Bytes;
use memchr::memchr_iter;

/// A chunk ends with the row that reaches this. A COPY of its own costs a server some hundred microseconds, and rows of this size some 100 ms.
pub const CHUNK_BYTES: usize = 4 << 20;

/// Where the rows of a block are cut, as they come in pieces of any size.
pub struct Cut {
    chunk_bytes: usize,
    /// The length of the chunk so far.
    bytes: usize,
    /// True if the bytes so far end in a backslash that takes the next byte with it: a line's end after it is one of the row's own.
    is_escaped: bool,
    /// Rows that have ended.
    rows: u64,
}

impl Cut {
    pub fn new(chunk_bytes: usize) -> Self {
        Self { chunk_bytes, bytes: 0, is_escaped: false, rows: 0 }
    }

    /// Rows of the block that have ended, up to where `take` has come.
    pub fn rows(&self) -> u64 {
        self.rows
    }

    /// Takes bytes up to the end of the chunk, or all of them; says whether it is the end. A row that is longer than a chunk is not cut.
    pub fn take(&mut self, bytes: &mut Bytes) -> (Bytes, bool) {
        let enough = self.chunk_bytes.saturating_sub(self.bytes + 1);
        let mut end = None;
        for at in memchr_iter(b'\n', bytes) {
            if self.is_escaped_at(bytes, at) {
                continue;
            }
            self.rows += 1;
            if at >= enough {
                end = Some(at + 1);
                break;
            }
        }
        let taken = bytes.split_to(end.unwrap_or(bytes.len()));
        self.is_escaped = end.is_none() && self.is_escaped_at(&taken, taken.len());
        self.bytes = if end.is_some() { 0 } else { self.bytes + taken.len() };
        (taken, end.is_some())
    }

    /// Returns whether an odd number of backslashes stands before `at`.
    fn is_escaped_at(&self, bytes: &[u8], at: usize) -> bool {
        let backslashes = bytes[..at].iter().rev().take_while(|byte| **byte == b'\\').count();
        let before = backslashes == at && self.is_escaped;
        (backslashes % 2 == 1) != before
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// The chunks of rows that come in pieces of `size`, and for each the number of rows before it.
    fn chunks(rows: &[u8], chunk_bytes: usize, size: usize) -> Vec<(u64, Vec<u8>)> {
        let mut cut = Cut::new(chunk_bytes);
        let mut chunks: Vec<(u64, Vec<u8>)> = Vec::new();
        let mut is_open = false;
        for piece in rows.chunks(size) {
            let mut rest = Bytes::copy_from_slice(piece);
            while !rest.is_empty() {
                if !is_open {
                    chunks.push((cut.rows(), Vec::new()));
                }
                let (taken, ends) = cut.take(&mut rest);
                chunks.last_mut().unwrap().1.extend_from_slice(&taken);
                is_open = !ends;
            }
        }
        chunks
    }

    #[test]
    fn chunks_end_with_the_row_that_fills_them() {
        for (rows, chunk_bytes, expected) in [
            ("a\nb\nc\n\\.\n", 1, &["a\n", "b\n", "c\n", "\\.\n"][..]),
            ("a\nb\nc\n\\.\n", 3, &["a\nb\n", "c\n\\.\n"]),
            ("a\nb\nc\n\\.\n", 100, &["a\nb\nc\n\\.\n"]),
            ("long row\nb\n", 2, &["long row\n", "b\n"]),
            // The first line's end is one of the row: a backslash is before it.
            ("a\\\nb\nc\n", 1, &["a\\\nb\n", "c\n"]),
            ("a\\\\\nb\nc\n", 1, &["a\\\\\n", "b\n", "c\n"]),
            ("a\\\\\\\nb\nc\n", 1, &["a\\\\\\\nb\n", "c\n"]),
            ("\\\n\\\\\nb\n", 1, &["\\\n\\\\\n", "b\n"]),
            ("no end", 1, &["no end"]),
        ] {
            for size in 1..8 {
                let found: Vec<String> = chunks(rows.as_bytes(), chunk_bytes, size)
                    .into_iter()
                    .map(|(_, chunk)| String::from_utf8(chunk).unwrap())
                    .collect();
                assert_eq!(found, expected, "{rows:?} in chunks of {chunk_bytes} and pieces of {size}");
            }
        }
    }

    proptest! {
        #[test]
        fn however_the_bytes_come_the_chunks_are_whole_rows(rows in "[a\\\\\n]{0,60}", chunk_bytes in 1..20_usize, size in 1..9_usize) {
            let whole = chunks(rows.as_bytes(), chunk_bytes, rows.len().max(1));
            prop_assert_eq!(&chunks(rows.as_bytes(), chunk_bytes, size), &whole);
            prop_assert_eq!(whole.iter().flat_map(|(_, chunk)| chunk.clone()).collect::<Vec<u8>>(), rows.as_bytes());
            for pair in whole.windows(2) {
                let chunk = &pair[0].1;
                prop_assert!(chunk.len() >= chunk_bytes && chunk.ends_with(b"\n"));
                let backslashes = chunk[..chunk.len() - 1].iter().rev().take_while(|byte| **byte == b'\\').count();
                prop_assert_eq!(backslashes % 2, 0);
                prop_assert!(pair[1].0 > pair[0].0);
            }
        }
    }
}
