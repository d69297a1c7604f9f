//! A dump as `psql -f` reads it: where statements end, what is COPY data, and where its own commands are.

use crate::scan::{Kind, Scanner};

#[derive(Debug, Default, PartialEq, Eq)]
pub struct Reading {
    /// Without COPYs, and without empty ones.
    pub statements: usize,
    /// `COPY … FROM stdin`, with the rows of each.
    pub copies: Vec<u64>,
    /// Commands that are neither `\restrict TOKEN` nor `\unrestrict TOKEN`.
    pub commands: Vec<Vec<u8>>,
    /// It ends inside a statement, a quote or COPY data.
    pub is_open: bool,
    /// Versions of psql read it in different ways.
    pub is_ambiguous: bool,
    /// Those after the last statement and the last rows.
    pub last_comments: Vec<Vec<u8>>,
}

/// Other than psql 18, a column called `begin` opens no block here: BEGIN ATOMIC does (src/task/backup/psql_reads.rs says why).
pub fn read(dump: &[u8]) -> Reading {
    let mut reading = Reading::default();
    let mut scanner = Scanner::new(dump, true);
    let mut words: Vec<Vec<u8>> = Vec::new();
    let (mut parentheses, mut blocks) = (0_u32, 0_u32);
    // After `FROM stdin;`, the rows come after this line.
    let mut copy_after_line = false;
    let mut comments: Vec<Vec<u8>> = Vec::new();
    loop {
        let before = scanner.at;
        let state = (scanner.is_open, scanner.is_ambiguous);
        let token = scanner.next();
        let token_start = token.as_ref().map_or(scanner.at, |token| token.end - token.text.len());
        if copy_after_line && let Some(end) = line_end(dump, before).filter(|end| *end <= token_start) {
            copy_after_line = false;
            // What was taken for a token are rows.
            (scanner.is_open, scanner.is_ambiguous) = state;
            let (rows, after) = rows(dump, end);
            reading.copies.push(rows);
            match after {
                Some(after) => scanner.at = after,
                None => {
                    reading.is_open = true;
                    return reading;
                }
            }
            continue;
        }
        // Comments stand before the token.
        comments.extend(line_comments(&dump[before..token_start]));
        let Some(token) = token else { break };
        match &token.kind {
            Kind::Command => {
                let command = dump[token_start + 1..token.end].to_vec();
                if !restricts(&command) || !words.is_empty() || token.end == dump.len() {
                    reading.commands.push(command);
                }
                continue;
            }
            Kind::Symbol(b';') if parentheses == 0 && blocks == 0 => {
                if words.first().is_some_and(|word| word == b"copy") && words.ends_with(&[b"from".to_vec(), b"stdin".to_vec()]) {
                    copy_after_line = true;
                } else if !words.is_empty() {
                    reading.statements += 1;
                }
                if !words.is_empty() {
                    comments.clear();
                }
                words.clear();
                continue;
            }
            Kind::Symbol(b'(') => parentheses += 1,
            Kind::Symbol(b')') => parentheses = parentheses.saturating_sub(1),
            Kind::Word if parentheses == 0 && is_routine(&words) => match token.text.as_slice() {
                b"atomic" if token.follows && words.last().is_some_and(|word| word == b"begin") => blocks += 1,
                b"case" if blocks > 0 => blocks += 1,
                b"end" if blocks > 0 => blocks -= 1,
                _ => {}
            },
            _ => {}
        }
        words.push(match token.kind {
            Kind::Word => token.text,
            _ => b"?".to_vec(),
        });
        // COPY is read as standard_conforming_strings says; a SET of it is exact, or refused.
        if let [set, name, is, value] = words.as_slice()
            && set == b"set"
            && name == b"standard_conforming_strings"
            && is == b"?"
        {
            scanner.escapes = value == b"off";
        }
    }
    reading.is_open |= scanner.is_open || !words.is_empty() || copy_after_line;
    reading.is_ambiguous = scanner.is_ambiguous;
    reading.last_comments = comments;
    reading
}

fn is_routine(words: &[Vec<u8>]) -> bool {
    let words: Vec<&[u8]> = words.iter().take(4).map(Vec::as_slice).collect();
    matches!(
        words.as_slice(),
        [b"create", b"function" | b"procedure", ..] | [b"create", b"or", b"replace", b"function" | b"procedure"]
    )
}

fn restricts(command: &[u8]) -> bool {
    let token = command.strip_prefix(b"restrict ").or_else(|| command.strip_prefix(b"unrestrict "));
    token.is_some_and(|token| !token.is_empty() && token.len() <= 1000 && token.iter().all(u8::is_ascii_alphanumeric))
}

/// After the newline.
fn line_end(dump: &[u8], from: usize) -> Option<usize> {
    dump[from..].iter().position(|byte| *byte == b'\n').map(|at| from + at + 1)
}

/// How many rows there are from here, and where the line after `\.` is.
fn rows(dump: &[u8], mut at: usize) -> (u64, Option<usize>) {
    let mut rows = 0;
    loop {
        let Some(end) = line_end(dump, at) else { return (rows, None) };
        match &dump[at..end] {
            b"\\.\n" | b"\\.\r\n" => return (rows, Some(end)),
            _ => (rows, at) = (rows + 1, end),
        }
    }
}

/// The line comments in what is only white space and comments.
fn line_comments(blanks: &[u8]) -> Vec<Vec<u8>> {
    let mut comments = Vec::new();
    let mut at = 0;
    while at < blanks.len() {
        if blanks[at..].starts_with(b"--") {
            let end = blanks[at..].iter().position(|byte| matches!(byte, b'\n' | b'\r')).map(|end| at + end);
            // Without its line's end it may go on.
            let Some(end) = end else { break };
            comments.push(blanks[at + 2..end].to_vec());
            at = end;
        } else if blanks[at..].starts_with(b"/*") {
            let mut depth = 0;
            while at < blanks.len() {
                if blanks[at..].starts_with(b"/*") {
                    (depth, at) = (depth + 1, at + 2);
                } else if blanks[at..].starts_with(b"*/") {
                    (depth, at) = (depth - 1, at + 2);
                } else {
                    at += 1;
                }
                if depth == 0 {
                    break;
                }
            }
        } else {
            at += 1;
        }
    }
    comments
}
