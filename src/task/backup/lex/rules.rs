//! The meaning of a byte, given the bytes before it, by scan.l of PostgreSQL.

use crate::task::backup::rows_end::RowsEnd;

/// The construct that the bytes are in.
#[derive(Debug, PartialEq)]
pub enum State {
    Sql,
    LineComment,
    BlockComment {
        depth: u32,
        previous: u8,
    },
    String {
        escapes: bool,
        escaped: bool,
    },
    Identifier,
    DollarTag {
        tag: Vec<u8>,
    },
    DollarBody {
        closing: Vec<u8>,
        matched: usize,
    },
    /// A psql command: `\restrict …`.
    Command,
    /// After `FROM stdin;`, to the end of the line.
    CopyHeader,
    Copy {
        end: RowsEnd,
    },
    /// Text that pg_dump never writes and whose end cannot be determined.
    Lost,
}

/// The characters after the end of a string: a string that follows at once, or after a line's end, continues it, with its escapes.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum AfterString {
    /// Something else.
    Other,
    Nothing,
    Space,
    LineEnd,
}

impl AfterString {
    pub fn then(self, byte: u8) -> Self {
        match (self, byte) {
            (Self::Other, _) => Self::Other,
            (_, b'\n' | b'\r') => Self::LineEnd,
            (Self::LineEnd, _) if is_space(byte) => Self::LineEnd,
            _ if is_space(byte) => Self::Space,
            _ => Self::Other,
        }
    }
}

/// Returns depth and previous byte of a block comment after `byte`.
pub fn in_block_comment(depth: u32, previous: u8, byte: u8) -> (u32, u8) {
    match (previous, byte) {
        // A byte that ended one delimiter starts no other: `/*/` is not a whole comment.
        (b'*', b'/') => (depth - 1, 0),
        (b'/', b'*') => (depth + 1, 0),
        _ => (depth, byte),
    }
}

/// Since PostgreSQL 16 a vertical tab is a space, too.
pub fn is_space(byte: u8) -> bool {
    byte.is_ascii_whitespace() || byte == 0x0b
}

pub fn is_word_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'_' || byte >= 0x80
}

pub fn creates_a_routine(statement: &[u8]) -> bool {
    let start = String::from_utf8_lossy(&statement[..statement.len().min(40)]).to_ascii_lowercase();
    let mut words = start.split_ascii_whitespace();
    let mut next = || words.next().unwrap_or_default();
    next() == "create"
        && match next() {
            "function" | "procedure" => true,
            "or" => next() == "replace" && matches!(next(), "function" | "procedure"),
            _ => false,
        }
}
