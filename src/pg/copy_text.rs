//! The text format of COPY, as a server writes it.

use std::borrow::Cow;
use std::io;

/// Checks that rows have only what a server's COPY TO writes (CopyAttributeOutText). Others read the rest in ways of their own: to psql a zero byte ends
/// a line, and a server takes a carriage return for the end of a row. The rows come in pieces of any size, and end with the line `\.`.
#[derive(Debug, Default)]
pub struct Written(At);

#[derive(Clone, Copy, Debug, Default)]
enum At {
    #[default]
    LineStart,
    Within,
    /// After a backslash, which may have begun the line.
    Escape {
        begins: bool,
    },
    /// After `\.`, with which a line began.
    End,
}

impl Written {
    pub fn feed(&mut self, rows: &[u8]) -> io::Result<()> {
        for byte in rows {
            self.0 = match (self.0, byte) {
                (At::LineStart, b'\\') => At::Escape { begins: true },
                (At::Within, b'\\') => At::Escape { begins: false },
                (At::Escape { begins: true }, b'.') => At::End,
                (At::Escape { .. }, b'b' | b'f' | b'n' | b'r' | b't' | b'v' | b'N' | b'\\') => At::Within,
                (At::Escape { .. }, _) => return Err(not_written("a backslash before a character")),
                (At::LineStart | At::Within | At::End, b'\n') => At::LineStart,
                (At::End, _) => return Err(not_written("more on the line that ends them")),
                // Each of these but the first, which no value has, is written as an escape.
                (At::LineStart | At::Within, 0 | 0x08 | 0x0b | 0x0c | b'\r') => return Err(not_written("a control character")),
                (At::LineStart | At::Within, _) => At::Within,
            };
        }
        Ok(())
    }
}

fn not_written(what: &str) -> io::Error {
    io::Error::other(format!("the rows have {what} that PostgreSQL does not write: somebody changed the set"))
}

/// Returns a field's value. A server's COPY TO escapes with these letters only (CopyAttributeOutText); any other
/// character after a backslash stands for itself.
pub fn unescaped(field: &[u8]) -> Cow<'_, [u8]> {
    if memchr::memchr(b'\\', field).is_none() {
        return Cow::Borrowed(field);
    }
    let mut value = Vec::with_capacity(field.len());
    let mut bytes = field.iter().copied();
    while let Some(byte) = bytes.next() {
        if byte != b'\\' {
            value.push(byte);
            continue;
        }
        value.push(match bytes.next() {
            Some(b'b') => 0x08,
            Some(b'f') => 0x0c,
            Some(b'n') => b'\n',
            Some(b'r') => b'\r',
            Some(b't') => b'\t',
            Some(b'v') => 0x0b,
            other => other.unwrap_or(b'\\'),
        });
    }
    Cow::Owned(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_that_a_server_writes_pass_and_others_do_not() {
        let passes = |rows: &str, size: usize| {
            let mut written = Written::default();
            rows.as_bytes().chunks(size).all(|piece| written.feed(piece).is_ok())
        };
        for size in [1, 2, 100] {
            for rows in ["\\.\n", "1\t\\N\t\t\u{1b}ä\n\n\\\\.\n.\n\\b\\f\\n\\r\\t\\v\\\\\n\\.\n"] {
                assert!(passes(rows, size), "{rows:?}");
            }
            for rows in [
                "\0\n", "a\rb\n", "a\r\n", "\\.\r\n", "\\.x\n", "a\\.\n", "\\x41\n", "\\a\n", "a\u{8}\n", "\u{b}\n", "\u{c}\n",
                "a\\\n",
            ] {
                assert!(!passes(rows, size), "{rows:?}");
            }
        }
    }
}
