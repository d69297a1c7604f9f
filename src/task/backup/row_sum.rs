//! The sum of a table's rows: the same for the same rows, in whatever order they come.
//!
//! Each row is a line of COPY's text format. XXH3 makes 128 bits of it, and the sum is that of all rows, modulo 2^128. A row that has another value, that
//! is lost or comes twice changes the sum, but for a chance of 1 to 2^128. That is a proof against accidents. It is none against a person who chooses rows:
//! sums of such hashes can be made to meet. What a person has changed in a set is seen by the SHA-256 of its parts.

use std::fmt;

use memchr::memchr_iter;
use serde::{Deserialize, Serialize};
use twox_hash::XxHash3_128;

/// Rows, and the sum of their hashes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RowSum {
    pub rows: u64,
    pub hash: RowsHash,
}

/// The sum of the hashes of rows; 32 hexadecimal digits as text.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub struct RowsHash(u128);

impl RowSum {
    /// Adds a row, without the end of its line.
    pub fn add_row(&mut self, row: &[u8]) {
        self.add_hash(XxHash3_128::oneshot(row));
    }

    pub fn add(&mut self, other: Self) {
        self.rows = self.rows.saturating_add(other.rows);
        self.hash = self.hash.plus(other.hash);
    }

    fn add_hash(&mut self, hash: u128) {
        self.add(Self { rows: 1, hash: RowsHash(hash) });
    }
}

impl RowsHash {
    pub fn plus(self, other: Self) -> Self {
        Self(self.0.wrapping_add(other.0))
    }
}

impl fmt::Display for RowsHash {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}

impl From<RowsHash> for String {
    fn from(hash: RowsHash) -> Self {
        hash.to_string()
    }
}

impl TryFrom<String> for RowsHash {
    type Error = &'static str;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        let is_hex = text.len() == 32 && text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
        let hash = u128::from_str_radix(&text, 16).ok().filter(|_| is_hex);
        hash.map(Self).ok_or("a hash of rows has 32 hexadecimal digits")
    }
}

/// Adds up the rows of one COPY block, which come in pieces of any size. It holds no row: one may be a gigabyte long.
#[derive(Default)]
pub struct RowLines {
    sum: RowSum,
    /// The hash of the last line, which may turn out to be the end of the rows.
    last: Option<u128>,
    /// The line that an earlier piece has begun.
    begun: Option<Box<XxHash3_128>>,
}

impl RowLines {
    pub fn feed(&mut self, bytes: &[u8]) {
        let mut start = 0;
        for end in memchr_iter(b'\n', bytes) {
            let hash = self.end_of_line(&bytes[start..end]);
            if let Some(before) = self.last.replace(hash) {
                self.sum.add_hash(before);
            }
            start = end + 1;
        }
        if start < bytes.len() {
            self.begun.get_or_insert_with(|| Box::new(XxHash3_128::new())).write(&bytes[start..]);
        }
    }

    /// The sum of all lines but the last, which is `\.`.
    pub fn end(self) -> RowSum {
        self.sum
    }

    fn end_of_line(&mut self, bytes: &[u8]) -> u128 {
        match self.begun.take() {
            None => XxHash3_128::oneshot(bytes),
            Some(mut line) => {
                line.write(bytes);
                line.finish_128()
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn of(rows: &[&str]) -> RowSum {
        let mut sum = RowSum::default();
        rows.iter().for_each(|row| sum.add_row(row.as_bytes()));
        sum
    }

    #[test]
    fn rows_in_another_order_have_the_same_sum_and_no_other_rows_have_it() {
        let sum = of(&["1\ta", "2\tb", "3\t\\N", ""]);
        assert_eq!(sum, of(&["", "3\t\\N", "1\ta", "2\tb"]));
        for other in [
            &["1\ta", "2\tb", "3\t", ""][..],
            // Values that changed places.
            &["1\tb", "2\ta", "3\t\\N", ""],
            // One row is lost, and another one comes twice.
            &["1\ta", "1\ta", "3\t\\N", ""],
            &["2\tb", "2\tb", "3\t\\N", ""],
            &["1\ta", "2\tb", "3\t\\N"],
            // Two that are the same: by XOR they would be none.
            &["1\ta", "2\tb", "3\t\\N", "", "x", "x"],
        ] {
            assert_ne!(of(other), sum, "{other:?}");
        }
        assert_ne!(of(&["x", "x"]).hash, of(&["y", "y"]).hash);
    }

    #[test]
    fn the_sum_is_the_same_in_every_release() {
        // XXH3's own test vector for no bytes, and twice of it.
        assert_eq!(of(&[""]).hash.to_string(), "99aa06d3014798d86001c324468d497f");
        assert_eq!(of(&["", ""]).hash.to_string(), "33540da6028f31b0c00386488d1a92fe");
        assert_eq!(RowSum::default().hash.to_string(), "0".repeat(32));
    }

    #[test]
    fn a_hash_is_read_as_it_is_written_and_nothing_else_is() {
        let hash = of(&["a"]).hash;
        let text = serde_json::to_string(&hash).unwrap();
        assert_eq!(serde_json::from_str::<RowsHash>(&text).unwrap(), hash);
        for wrong in ["", "+0000000000000000000000000000001", "0", &"g".repeat(32), &"0".repeat(33), &"A".repeat(32)] {
            assert!(RowsHash::try_from(wrong.to_owned()).is_err(), "{wrong}");
        }
    }

    proptest! {
        #[test]
        fn however_the_lines_are_cut_into_pieces_the_sum_is_that_of_the_rows(lines in proptest::collection::vec("[a-c\\\\\t]{0,300}", 0..20), size in 1_usize..400) {
            let text: String = lines.iter().map(|line| format!("{line}\n")).collect::<String>() + "\\.\n";
            let mut pieces = RowLines::default();
            text.as_bytes().chunks(size).for_each(|piece| pieces.feed(piece));
            let rows: Vec<&str> = lines.iter().map(String::as_str).collect();
            prop_assert_eq!(pieces.end(), of(&rows));
        }
    }
}
