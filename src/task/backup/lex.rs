//! Where statements, comments and COPY data of a plain dump begin and end, as psql reads it: strings, identifiers, dollar
//! quotes, parentheses and the bodies of SQL functions may hold anything, also what looks like an end.

use memchr::{memchr, memchr2, memmem};

use super::tokens::copied_table;

const COPY_END: &[u8] = b"\n\\.\n";
/// A COPY of 1,600 columns with names of 63 quoted characters; a longer one is not pg_dump's.
const COPY_KEPT_BYTES: usize = 1 << 20;
/// Enough of any other statement to tell what it is.
const START_KEPT_BYTES: usize = 64;
/// A header names a function with its arguments: 100 of them, with qualified types.
const COMMENT_KEPT_BYTES: usize = 16 << 10;
/// PostgreSQL takes no longer statement.
pub const STATEMENT_LONGEST_BYTES: usize = 1 << 30;

/// What the bytes that were just taken have ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    None,
    /// At its semicolon, which is not part of [`Lexer::statement`].
    Statement,
    /// A line `-- …`; its text is [`Lexer::comment`].
    Comment,
    /// A line `\…` of psql's own; its text is [`Lexer::comment`].
    Command,
    /// The header's line: rows follow.
    CopyBegins,
    /// With the line `\.`, which was taken too.
    CopyEnds,
}

pub struct Lexer {
    state: State,
    keep_all: bool,
    statement: Vec<u8>,
    comment: Vec<u8>,
    /// The unquoted word that the last byte belongs to, in small letters, its first bytes.
    word: Vec<u8>,
    previous: u8,
    /// Of the last string, for the one that a doubled quote starts.
    escapes: bool,
    backslash_escapes: bool,
    parentheses: u32,
    /// `BEGIN ATOMIC … END` of an SQL function, and CASE inside it.
    blocks: u32,
    /// The last word was `begin`.
    after_begin: bool,
    copied: Option<(String, String)>,
}

#[derive(Debug, PartialEq)]
enum State {
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
    /// `matched`: how much of `\n\.\n` the bytes so far end with.
    Copy {
        matched: usize,
    },
}

impl Lexer {
    /// Keeps all of each statement, for whoever runs it.
    pub fn keeping_statements() -> Self {
        Self { keep_all: true, ..Self::keeping_starts() }
    }

    /// Keeps all of a COPY, and the start of any other statement.
    pub fn keeping_starts() -> Self {
        Self {
            state: State::Sql,
            keep_all: false,
            statement: Vec::new(),
            comment: Vec::new(),
            word: Vec::new(),
            previous: b'\n',
            escapes: false,
            backslash_escapes: false,
            parentheses: 0,
            blocks: 0,
            after_begin: false,
            copied: None,
        }
    }

    /// Takes bytes up to the next event or to their end; returns how many. `bytes` must not be empty.
    pub fn step(&mut self, bytes: &[u8]) -> (usize, Event) {
        let (used, event) = match &self.state {
            State::Copy { matched } => self.copy(bytes, *matched),
            State::String { escaped: false, escapes } => (self.string(bytes, *escapes), Event::None),
            State::DollarBody { matched: 0, .. } => (self.body(bytes), Event::None),
            _ => (1, self.byte(bytes[0])),
        };
        self.previous = bytes[used - 1];
        (used, event)
    }

    /// The statement so far, comments left out.
    pub fn statement(&self) -> &[u8] {
        &self.statement
    }

    /// After [`Event::Statement`]: makes room for the next.
    pub fn take_statement(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.statement)
    }

    pub fn comment(&self) -> &[u8] {
        &self.comment
    }

    /// After [`Event::Statement`]: schema and table of a COPY whose rows follow.
    pub fn copied(&self) -> Option<&(String, String)> {
        self.copied.as_ref()
    }

    /// Between statements: a dump may end here.
    pub fn is_between_statements(&self) -> bool {
        matches!(self.state, State::Sql | State::LineComment | State::Command) && self.statement.is_empty()
    }

    pub fn is_in_rows(&self) -> bool {
        matches!(self.state, State::Copy { .. })
    }

    /// Bytes of a COPY block up to its end or the end of `bytes`.
    fn copy(&mut self, bytes: &[u8], mut matched: usize) -> (usize, Event) {
        let mut used = 0;
        // Across the border of two pieces, byte by byte.
        while matched > 0 && matched < COPY_END.len() && used < bytes.len() {
            let byte = bytes[used];
            matched = if byte == COPY_END[matched] { matched + 1 } else { usize::from(byte == b'\n') };
            used += 1;
            if used > 1 && matched == 1 {
                break;
            }
        }
        if matched < COPY_END.len() && used < bytes.len() {
            // The newline just taken may be the first byte of the end.
            let from = used - usize::from(matched == 1 && used > 0);
            let rest = &bytes[from..];
            match memmem::find(rest, COPY_END) {
                Some(at) => {
                    used = from + at + COPY_END.len();
                    matched = COPY_END.len();
                }
                None => {
                    matched = (1..COPY_END.len()).rev().find(|length| rest.ends_with(&COPY_END[..*length])).unwrap_or(0);
                    used = bytes.len();
                }
            }
        }
        if matched == COPY_END.len() {
            self.state = State::Sql;
            return (used, Event::CopyEnds);
        }
        self.state = State::Copy { matched };
        (used, Event::None)
    }

    /// Inside a string: skips to what may end it. Large objects are strings of megabytes.
    fn string(&mut self, bytes: &[u8], escapes: bool) -> usize {
        let next = if escapes { memchr2(b'\'', b'\\', bytes) } else { memchr(b'\'', bytes) };
        let used = match next {
            Some(at) if bytes[at] == b'\'' => {
                self.state = State::Sql;
                self.escapes = escapes;
                at + 1
            }
            Some(at) => {
                self.state = State::String { escapes, escaped: true };
                at + 1
            }
            None => bytes.len(),
        };
        self.keep_slice(&bytes[..used]);
        used
    }

    /// Inside a dollar quote: skips to the next dollar.
    fn body(&mut self, bytes: &[u8]) -> usize {
        let used = memchr(b'$', bytes).map_or(bytes.len(), |at| at + 1);
        self.keep_slice(&bytes[..used]);
        if let State::DollarBody { matched, .. } = &mut self.state {
            *matched = usize::from(bytes[used - 1] == b'$');
        }
        used
    }

    fn byte(&mut self, byte: u8) -> Event {
        match &mut self.state {
            State::Sql => return self.top(byte),
            State::LineComment | State::Command if byte == b'\n' => {
                let event = if self.state == State::LineComment { Event::Comment } else { Event::Command };
                self.state = State::Sql;
                self.space();
                return event;
            }
            State::LineComment | State::Command => {
                if self.comment.len() < COMMENT_KEPT_BYTES {
                    self.comment.push(byte);
                }
            }
            State::BlockComment { depth, previous } => {
                let delimiter = match (*previous, byte) {
                    (b'*', b'/') => Some(*depth - 1),
                    (b'/', b'*') => Some(*depth + 1),
                    _ => None,
                };
                // A byte that ended one delimiter starts no other: `/*/` is not a whole comment.
                *previous = if delimiter.is_some() { 0 } else { byte };
                *depth = delimiter.unwrap_or(*depth);
                if *depth == 0 {
                    self.state = State::Sql;
                    self.space();
                }
            }
            State::String { escaped, .. } => {
                *escaped = false;
                self.keep_slice(&[byte]);
            }
            State::Identifier => {
                if byte == b'"' {
                    self.state = State::Sql;
                }
                self.keep(byte);
            }
            State::DollarTag { tag } => {
                let continues = is_word_byte(byte) && !(tag.is_empty() && byte.is_ascii_digit());
                if byte == b'$' {
                    let closing = [b"$", tag.as_slice(), b"$"].concat();
                    self.state = State::DollarBody { closing, matched: 0 };
                    self.keep(byte);
                } else if continues {
                    tag.push(byte);
                    self.keep(byte);
                } else {
                    // `$1`, or a stray dollar.
                    self.state = State::Sql;
                    return self.top(byte);
                }
            }
            State::DollarBody { closing, matched } => {
                // No dollar inside a tag, so a mismatch can only start anew at a dollar.
                *matched = if byte == closing[*matched] { *matched + 1 } else { usize::from(byte == b'$') };
                if *matched == closing.len() {
                    self.state = State::Sql;
                }
                self.keep_slice(&[byte]);
            }
            State::CopyHeader => {
                if byte == b'\n' {
                    self.state = State::Copy { matched: 1 };
                    return Event::CopyBegins;
                }
            }
            // Taken by `copy`.
            State::Copy { .. } => {}
        }
        Event::None
    }

    fn top(&mut self, byte: u8) -> Event {
        if self.statement.is_empty() {
            if byte.is_ascii_whitespace() {
                return Event::None;
            }
            if byte == b'\\' {
                self.comment.clear();
                self.state = State::Command;
                return Event::None;
            }
        }
        if is_word_byte(byte) || (byte == b'$' && !self.word.is_empty()) {
            if self.word.len() <= START_KEPT_BYTES {
                self.word.push(byte.to_ascii_lowercase());
            }
            self.keep(byte);
            return Event::None;
        }
        let word = std::mem::take(&mut self.word);
        self.count_blocks(&word);
        match byte {
            b'-' if self.previous == b'-' && self.statement.last() == Some(&b'-') => {
                self.statement.pop();
                self.comment.clear();
                self.state = State::LineComment;
                return Event::None;
            }
            b'*' if self.previous == b'/' && self.statement.last() == Some(&b'/') => {
                self.statement.pop();
                self.state = State::BlockComment { depth: 1, previous: 0 };
                return Event::None;
            }
            b';' if self.parentheses == 0 && self.blocks == 0 => return self.end_statement(),
            b'(' => self.parentheses += 1,
            b')' => self.parentheses = self.parentheses.saturating_sub(1),
            b'\'' => {
                // A doubled quote: one string goes on.
                let escapes = if self.previous == b'\'' { self.escapes } else { word == b"e" || self.backslash_escapes };
                self.state = State::String { escapes, escaped: false };
            }
            b'"' => self.state = State::Identifier,
            b'$' => self.state = State::DollarTag { tag: Vec::new() },
            _ => {}
        }
        self.keep(byte);
        Event::None
    }

    /// The semicolons in `CREATE FUNCTION … BEGIN ATOMIC …; END` end no statement. Other than psql 18, this one does not take a column
    /// or a function called `begin` for a block: what follows would all be one statement, rows and all.
    fn count_blocks(&mut self, word: &[u8]) {
        if word.is_empty() {
            return;
        }
        let opens = word == b"atomic" && std::mem::take(&mut self.after_begin);
        self.after_begin = word == b"begin";
        if !opens && (self.blocks == 0 || self.parentheses > 0) || !creates_a_routine(&self.statement) {
            return;
        }
        match word {
            b"atomic" if opens => self.blocks += 1,
            b"case" => self.blocks += 1,
            b"end" => self.blocks = self.blocks.saturating_sub(1),
            _ => {}
        }
    }

    /// Keeps a byte of the statement: always its last two, for what they say of the next.
    fn keep(&mut self, byte: u8) {
        if !self.keep_all {
            let limit = if self.statement.starts_with(b"COPY ") { COPY_KEPT_BYTES } else { START_KEPT_BYTES };
            if self.statement.len() >= limit {
                let length = self.statement.len();
                self.statement.swap(length - 2, length - 1);
                self.statement.pop();
            }
        } else if self.statement.len() >= STATEMENT_LONGEST_BYTES {
            return;
        }
        self.statement.push(byte);
    }

    /// In the place of a comment inside a statement.
    fn space(&mut self) {
        if !self.statement.is_empty() {
            self.keep(b' ');
        }
    }

    /// Inside quotes: nothing there says anything of what follows.
    fn keep_slice(&mut self, bytes: &[u8]) {
        if self.keep_all && self.statement.len() < STATEMENT_LONGEST_BYTES {
            self.statement.extend_from_slice(bytes);
        }
    }

    fn end_statement(&mut self) -> Event {
        if self.statement.is_empty() {
            return Event::None;
        }
        self.copied = copied_table(&self.statement);
        if self.copied.is_some() {
            self.state = State::CopyHeader;
        } else if self.statement.starts_with(b"SET standard_conforming_strings = ") {
            self.backslash_escapes = self.statement.ends_with(b" off");
        }
        Event::Statement
    }
}

fn is_word_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'_' || byte >= 0x80
}

fn creates_a_routine(statement: &[u8]) -> bool {
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
