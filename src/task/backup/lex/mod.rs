//! Finds where statements, comments and COPY data of a plain dump begin and end, as psql does: strings, identifiers, dollar quotes,
//! parentheses and the bodies of SQL functions may hold anything, including what looks like an end.

mod rules;

use memchr::{memchr, memchr2};

use self::rules::{AfterString, State, creates_a_routine, in_block_comment, is_space, is_word_byte};
use super::rows_end::RowsEnd;
use super::tokens::copied_table;

/// A COPY of 1,600 columns with names of 63 quoted characters; a longer one is not pg_dump's.
const COPY_KEPT_BYTES: usize = 1 << 20;
/// Enough of any other statement to tell what it is.
const START_KEPT_BYTES: usize = 64;
/// A header names a function with its arguments: 100 of them, with qualified types.
const COMMENT_KEPT_BYTES: usize = 16 << 10;
/// pg_dump's dollar quotes have a few letters, and PostgreSQL's names are no longer than this. A dump is untrusted input: a longer tag
/// would be kept in memory and searched for, however long.
const TAG_LONGEST_BYTES: usize = 63;
/// PostgreSQL accepts no longer statement.
pub const STATEMENT_LONGEST_BYTES: usize = 1 << 30;

/// The end that the bytes just taken have reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    None,
    /// A statement ended with its semicolon, which is not part of [`Lexer::statement`].
    Statement,
    /// A line `-- …` ended; its text is [`Lexer::comment`].
    Comment,
    /// A psql command ended, from a backslash to the line's end; its text is [`Lexer::comment`]. It may stand inside a statement.
    Command,
    /// The header's line of a COPY ended: rows follow. The text after the semicolon is [`Lexer::comment`].
    CopyBegins,
    /// The rows ended with the line `\.`, which was also taken.
    CopyEnds,
}

pub struct Lexer {
    state: State,
    keep_all: bool,
    statement: Vec<u8>,
    comment: Vec<u8>,
    /// The first bytes of the unquoted word that the last byte belongs to, in lower case.
    word: Vec<u8>,
    previous: u8,
    /// True if backslashes escape in the last string, for one that continues it.
    escapes: bool,
    after_string: AfterString,
    /// The state before the last byte, which may be the first of a comment.
    was_after_string: AfterString,
    /// The position in the statement where a string began whose backslashes escape without an E.
    unmarked: Option<usize>,
    backslash_escapes: bool,
    parentheses: u32,
    /// `BEGIN ATOMIC … END` of an SQL function, and CASE inside it.
    blocks: u32,
    /// True if the last word was `begin`.
    after_begin: bool,
    copied: Option<(String, String)>,
}

impl Lexer {
    /// Keeps each statement whole, for a caller that runs it.
    pub fn keeping_statements() -> Self {
        Self { keep_all: true, ..Self::keeping_starts() }
    }

    /// Keeps COPY statements whole, and only the start of any other.
    pub fn keeping_starts() -> Self {
        Self {
            state: State::Sql,
            keep_all: false,
            statement: Vec::new(),
            comment: Vec::new(),
            word: Vec::new(),
            previous: b'\n',
            escapes: false,
            after_string: AfterString::Other,
            was_after_string: AfterString::Other,
            unmarked: None,
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
            State::Copy { end } => self.copy(bytes, *end),
            State::Lost => (bytes.len(), Event::None),
            State::String { escaped: false, escapes } => (self.string(bytes, *escapes), Event::None),
            State::DollarBody { matched: 0, .. } => (self.body(bytes), Event::None),
            _ => (1, self.byte(bytes[0])),
        };
        self.previous = bytes[used - 1];
        (used, event)
    }

    /// The statement so far, without comments. With standard_conforming_strings off, strings with backslashes have got an E, so that every
    /// reader interprets them alike.
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

    /// Returns whether the lexer is between statements, where a dump may end. That excludes the inside of a command, which psql also runs
    /// without a line's end.
    pub fn is_between_statements(&self) -> bool {
        matches!(self.state, State::Sql | State::LineComment) && self.statement.is_empty()
    }

    /// The memory in bytes that it holds: some kilobytes besides a statement that is kept.
    pub fn held_bytes(&self) -> usize {
        let of_state = match &self.state {
            State::DollarTag { tag } => tag.len(),
            State::DollarBody { closing, .. } => closing.len(),
            _ => 0,
        };
        self.statement.len() + self.comment.len() + self.word.len() + of_state
    }

    pub fn is_in_rows(&self) -> bool {
        matches!(self.state, State::Copy { .. })
    }

    /// Bytes of a COPY block up to its end or the end of `bytes`.
    fn copy(&mut self, bytes: &[u8], mut end: RowsEnd) -> (usize, Event) {
        let (used, has_ended) = end.find(bytes);
        self.state = if has_ended { State::Sql } else { State::Copy { end } };
        (used, if has_ended { Event::CopyEnds } else { Event::None })
    }

    /// Inside a string: skips to the next byte that may end it. Large objects are strings of megabytes.
    fn string(&mut self, bytes: &[u8], escapes: bool) -> usize {
        let next = if escapes { memchr2(b'\'', b'\\', bytes) } else { memchr(b'\'', bytes) };
        let used = match next {
            Some(at) if bytes[at] == b'\'' => {
                self.state = State::Sql;
                self.escapes = escapes;
                self.after_string = AfterString::Nothing;
                at + 1
            }
            Some(at) => {
                self.state = State::String { escapes, escaped: true };
                self.mark_escapes();
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

    /// Any state but those that skip several bytes at once.
    fn byte(&mut self, byte: u8) -> Event {
        match &mut self.state {
            State::Sql => return self.top(byte),
            // psql and the server also end a comment at a carriage return (non_newline in scan.l), but a command only at the line's end.
            State::LineComment if matches!(byte, b'\n' | b'\r') => {
                self.state = State::Sql;
                self.after_string = self.after_string.then(byte);
                self.blank(b'\n');
                return Event::Comment;
            }
            State::Command if byte == b'\n' => {
                self.state = State::Sql;
                self.blank(b'\n');
                return Event::Command;
            }
            State::LineComment | State::Command => {
                if self.comment.len() < COMMENT_KEPT_BYTES {
                    self.comment.push(byte);
                }
            }
            State::BlockComment { depth, previous } => {
                (*depth, *previous) = in_block_comment(*depth, *previous, byte);
                if *depth == 0 {
                    self.state = State::Sql;
                    self.blank(b' ');
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
            State::DollarTag { .. } => return self.dollar_tag(byte),
            State::DollarBody { closing, matched } => {
                // There is no dollar inside a tag, so after a mismatch a match can only begin at a dollar.
                *matched = if byte == closing[*matched] { *matched + 1 } else { usize::from(byte == b'$') };
                if *matched == closing.len() {
                    self.state = State::Sql;
                }
                self.keep_slice(&[byte]);
            }
            State::CopyHeader => {
                if byte == b'\n' {
                    self.state = State::Copy { end: RowsEnd::after_header() };
                    return Event::CopyBegins;
                }
                if self.comment.len() < COMMENT_KEPT_BYTES {
                    self.comment.push(byte);
                }
            }
            // Taken by `step`.
            State::Copy { .. } | State::Lost => {}
        }
        Event::None
    }

    /// Inside `$tag$`, after its first dollar.
    fn dollar_tag(&mut self, byte: u8) -> Event {
        let State::DollarTag { tag } = &mut self.state else { return Event::None };
        let continues = is_word_byte(byte) && !(tag.is_empty() && byte.is_ascii_digit());
        if byte == b'$' {
            let closing = [b"$", tag.as_slice(), b"$"].concat();
            self.state = State::DollarBody { closing, matched: 0 };
            self.keep(byte);
        } else if continues && tag.len() == TAG_LONGEST_BYTES {
            self.state = State::Lost;
        } else if continues {
            tag.push(byte);
            self.keep(byte);
        } else {
            // `$1`, or a stray dollar: what follows it is a word of its own.
            self.word = tag.to_ascii_lowercase();
            self.word.truncate(START_KEPT_BYTES);
            self.state = State::Sql;
            return self.top(byte);
        }
        Event::None
    }

    /// Outside strings, quoted names and comments.
    fn top(&mut self, byte: u8) -> Event {
        let (before_that, after_string) = (self.was_after_string, self.after_string);
        (self.was_after_string, self.after_string) = (after_string, after_string.then(byte));
        if self.statement.is_empty() && is_space(byte) {
            return Event::None;
        }
        // A number is not a word that may contain a dollar.
        let is_in_word = self.word.first().is_some_and(|first| !first.is_ascii_digit());
        if is_word_byte(byte) || (byte == b'$' && is_in_word) {
            if self.word.len() <= START_KEPT_BYTES {
                self.word.push(byte.to_ascii_lowercase());
            }
            self.keep(byte);
            return Event::None;
        }
        // Servers and psql of different versions read `1e'` and `1$$` differently; pg_dump writes neither.
        if !self.word.is_empty() && !is_in_word && matches!(byte, b'$' | b'\'') {
            self.state = State::Lost;
            return Event::None;
        }
        let word = std::mem::take(&mut self.word);
        self.count_blocks(&word);
        self.after_begin &= is_space(byte);
        match byte {
            b'\\' => {
                self.comment.clear();
                self.state = State::Command;
                return Event::None;
            }
            b'-' if self.previous == b'-' && self.statement.last() == Some(&b'-') => {
                self.statement.pop();
                self.comment.clear();
                self.state = State::LineComment;
                self.after_string = before_that;
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
            b'\'' => self.begin_string(after_string, &word),
            b'"' => self.state = State::Identifier,
            b'$' => self.state = State::DollarTag { tag: Vec::new() },
            _ => {}
        }
        self.keep(byte);
        Event::None
    }

    /// Counts blocks: the semicolons in `CREATE FUNCTION … BEGIN ATOMIC …; END` end no statement. Unlike psql 18, it does not take a column
    /// or a function called `begin` for a block, because everything after it, with rows, would be one statement.
    fn count_blocks(&mut self, word: &[u8]) {
        if word.is_empty() {
            return;
        }
        // Inside parentheses it is an argument called `begin`.
        let opens = word == b"atomic" && self.after_begin && self.parentheses == 0;
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

    /// Keeps a byte of the statement, and always the last two, as they decide about the next.
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

    /// Writes a blank in place of a comment inside a statement.
    fn blank(&mut self, byte: u8) {
        if !self.statement.is_empty() {
            self.keep(byte);
        }
    }

    fn begin_string(&mut self, after_string: AfterString, word: &[u8]) {
        let goes_on = matches!(after_string, AfterString::Nothing | AfterString::LineEnd);
        let is_marked = word == b"e";
        if !goes_on {
            // Bits, b'' and x'', know no escapes.
            self.escapes = is_marked || (self.backslash_escapes && !matches!(word, b"b" | b"x"));
            self.unmarked = (self.escapes && !is_marked).then_some(self.statement.len());
        }
        self.state = State::String { escapes: self.escapes, escaped: false };
    }

    /// Called at the first backslash of a string.
    fn mark_escapes(&mut self) {
        if let Some(at) = self.unmarked.take().filter(|_| self.keep_all) {
            self.statement.splice(at..at, *b" E");
        }
    }

    /// Keeps bytes inside quotes: they do not affect what follows.
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
            self.comment.clear();
            self.state = State::CopyHeader;
        } else if self.statement.starts_with(b"SET standard_conforming_strings = ") {
            self.backslash_escapes = self.statement.ends_with(b" off");
        }
        Event::Statement
    }
}
