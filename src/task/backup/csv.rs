//! Converts rows in COPY's text format to CSV as PostgreSQL writes it (CopyAttributeOutCSV in copyto.c): a NULL is nothing, and an empty
//! string is `""`.

use std::io::{self, Write};

use crate::pg::copy_text::unescaped;

/// Takes rows in pieces of any size. It holds one row in memory.
pub struct CsvRows {
    columns: usize,
    /// The start of a row whose end is still to come.
    row: Vec<u8>,
    out: Vec<u8>,
}

impl CsvRows {
    pub fn new(columns: usize) -> Self {
        Self { columns, row: Vec::new(), out: Vec::new() }
    }

    /// Passes on the rows that end in these bytes, which do not include the line `\.` after the last one.
    pub fn feed(&mut self, mut bytes: &[u8], into: &mut dyn Write) -> io::Result<()> {
        while let Some(at) = memchr::memchr(b'\n', bytes) {
            let (line, rest) = (&bytes[..at], &bytes[at + 1..]);
            if self.row.is_empty() {
                self.line(line);
            } else {
                self.row.extend_from_slice(line);
                let row = std::mem::take(&mut self.row);
                self.line(&row);
            }
            bytes = rest;
        }
        self.row.extend_from_slice(bytes);
        into.write_all(&self.out)?;
        self.out.clear();
        Ok(())
    }

    fn line(&mut self, line: &[u8]) {
        if line.strip_suffix(b"\r").unwrap_or(line) != br"\." {
            row(line, self.columns, &mut self.out);
        }
    }
}

/// Writes the names of the columns as a line.
pub fn header(columns: &[String]) -> Vec<u8> {
    let mut out = Vec::new();
    for (number, column) in columns.iter().enumerate() {
        if number > 0 {
            out.push(b',');
        }
        value(column.as_bytes(), columns.len() == 1, &mut out);
    }
    out.push(b'\n');
    out
}

fn row(line: &[u8], columns: usize, out: &mut Vec<u8>) {
    // A table without columns has rows of no values.
    let fields = line.split(|byte| *byte == b'\t').take(columns);
    for (number, field) in fields.enumerate() {
        if number > 0 {
            out.push(b',');
        }
        if field != br"\N" {
            value(&unescaped(field), columns == 1, out);
        }
    }
    out.push(b'\n');
}

fn value(value: &[u8], is_alone: bool, out: &mut Vec<u8>) {
    let is_special = |byte: &u8| matches!(byte, b',' | b'"' | b'\n' | b'\r');
    // Alone on a line, `\.` would end the rows.
    let is_quoted = value.is_empty() || value.iter().any(is_special) || is_alone && value == br"\.";
    if !is_quoted {
        out.extend_from_slice(value);
        return;
    }
    out.push(b'"');
    for byte in value {
        if *byte == b'"' {
            out.push(b'"');
        }
        out.push(*byte);
    }
    out.push(b'"');
}

#[cfg(test)]
mod tests {
    use super::*;

    fn converted(rows: &str, columns: usize, size: usize) -> String {
        let mut csv = CsvRows::new(columns);
        let mut out = Vec::new();
        rows.as_bytes().chunks(size).for_each(|piece| csv.feed(piece, &mut out).unwrap());
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn null_is_nothing_and_an_empty_string_is_quoted() {
        for size in [1, 2, 3, 100] {
            assert_eq!(converted("1\t\\N\t\n\\N\tx\t\\\\N\n\\.\n", 3, size), "1,,\"\"\n,x,\\N\n");
        }
    }

    #[test]
    fn what_csv_gives_a_meaning_is_quoted_and_nothing_else() {
        let text = "a,b\tsay \"x\"\tl1\\nl2\tc\\rd\t tab\\tin \t\\\\.\t\\b\\f\\v\n";
        assert_eq!(converted(text, 7, 5), "\"a,b\",\"say \"\"x\"\"\",\"l1\nl2\",\"c\rd\", tab\tin ,\\.,\u{8}\u{c}\u{b}\n");
    }

    #[test]
    fn the_end_of_the_rows_is_no_row_and_a_value_like_it_is_one() {
        assert_eq!(converted("\\\\.\n\\N\nx\n\\.\n", 1, 2), "\"\\.\"\n\nx\n");
        assert_eq!(converted("\n\n\\.\n", 0, 3), "\n\n", "rows without columns");
    }

    #[test]
    fn the_header_is_a_line_of_values() {
        let names = ["a", "b c", "d,e", "f\"g"].map(str::to_owned);
        assert_eq!(String::from_utf8(header(&names)).unwrap(), "a,b c,\"d,e\",\"f\"\"g\"\n");
        assert_eq!(header(&[]), b"\n");
    }
}
