//! The end of a COPY block's rows: a line `\.`, as psql and the server know it.

use memchr::memmem;

/// The marker with the end of the line before it.
const START: &[u8] = b"\n\\.";

/// How much of `\n\.\r\n` the bytes so far end with. psql also ends the rows at `\.` with a carriage return, and runs what comes after
/// (handleCopyIn in copy.c).
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct RowsEnd(usize);

impl RowsEnd {
    /// The state after the header's line.
    pub fn after_header() -> Self {
        Self(1)
    }

    /// Takes bytes up to the end of the rows, or all of them; says how many, and whether it is the end.
    pub fn find(&mut self, bytes: &[u8]) -> (usize, bool) {
        let mut used = 0;
        while used < bytes.len() {
            if self.0 == 0 {
                let rest = &bytes[used..];
                let Some(at) = memmem::find(rest, START) else {
                    self.0 = (1..START.len()).rev().find(|length| rest.ends_with(&START[..*length])).unwrap_or(0);
                    return (bytes.len(), false);
                };
                used += at + START.len();
                self.0 = START.len();
                continue;
            }
            let byte = bytes[used];
            used += 1;
            self.0 = match (self.0, byte) {
                (1, b'\\') => 2,
                (2, b'.') => 3,
                (3, b'\r') => 4,
                (3 | 4, b'\n') => return (used, true),
                (_, b'\n') => 1,
                _ => 0,
            };
        }
        (used, false)
    }
}
