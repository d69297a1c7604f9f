//! The tokens of SQL, as PostgreSQL 16 and newer take them apart (src/backend/parser/scan.l), and psql with them (psqlscan.l).

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Unquoted; `text` is in small letters.
    Word,
    Quoted,
    String,
    Number,
    Symbol(u8),
    /// To the end of the line; where the scanner is psql's.
    Command,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Token {
    pub kind: Kind,
    pub text: Vec<u8>,
    /// Nothing but white space is between the token before and this one.
    pub follows: bool,
    pub end: usize,
}

pub struct Scanner<'a> {
    pub text: &'a [u8],
    pub at: usize,
    /// Backslashes escape in plain strings: standard_conforming_strings is off.
    pub escapes: bool,
    /// It ended inside a quote or a block comment.
    pub is_open: bool,
    /// It holds what servers of different versions take apart in different ways.
    pub is_ambiguous: bool,
    /// Backslashes outside quotes are psql's.
    pub for_psql: bool,
}

impl<'a> Scanner<'a> {
    pub fn new(text: &'a [u8], for_psql: bool) -> Self {
        Self { text, at: 0, escapes: false, is_open: false, is_ambiguous: false, for_psql }
    }

    fn peek(&self, ahead: usize) -> u8 {
        self.text.get(self.at + ahead).copied().unwrap_or(0)
    }

    /// The next token; None at the end.
    pub fn next(&mut self) -> Option<Token> {
        let follows = self.skip_blanks();
        let start = self.at;
        let first = *self.text.get(start)?;
        let kind = match first {
            b'\'' => self.string(0, self.escapes),
            b'e' | b'E' if self.peek(1) == b'\'' => self.string(1, true),
            b'b' | b'B' | b'x' | b'X' if self.peek(1) == b'\'' => self.string(1, false),
            b'n' | b'N' if self.peek(1) == b'\'' => self.string(1, self.escapes),
            b'u' | b'U' if self.peek(1) == b'&' && self.peek(2) == b'\'' => self.string(2, false),
            b'u' | b'U' if self.peek(1) == b'&' && self.peek(2) == b'"' => self.identifier(2),
            b'"' => self.identifier(0),
            b'$' => self.dollar(),
            b'0'..=b'9' => self.number(),
            b'\\' if self.for_psql => {
                while self.at < self.text.len() && self.text[self.at] != b'\n' {
                    self.at += 1;
                }
                Kind::Command
            }
            _ if starts_word(first) => {
                while self.at < self.text.len() && continues_word(self.text[self.at]) {
                    self.at += 1;
                }
                Kind::Word
            }
            _ => {
                self.at += 1;
                Kind::Symbol(first)
            }
        };
        let text = &self.text[start..self.at];
        let text = if kind == Kind::Word { text.to_ascii_lowercase() } else { text.to_vec() };
        Some(Token { kind, text, follows, end: self.at })
    }

    /// Whether there was no comment among them.
    fn skip_blanks(&mut self) -> bool {
        let mut no_comment = true;
        loop {
            match (self.peek(0), self.peek(1)) {
                (b' ' | b'\t' | b'\n' | b'\r' | 0x0b | 0x0c, _) if self.at < self.text.len() => self.at += 1,
                (b'-', b'-') => {
                    self.skip_line_comment();
                    no_comment = false;
                }
                (b'/', b'*') => {
                    self.skip_block_comment();
                    no_comment = false;
                }
                _ => return no_comment,
            }
        }
    }

    fn skip_line_comment(&mut self) {
        while self.at < self.text.len() && !matches!(self.text[self.at], b'\n' | b'\r') {
            self.at += 1;
        }
    }

    fn skip_block_comment(&mut self) {
        let mut depth = 0;
        while self.at < self.text.len() {
            match (self.peek(0), self.peek(1)) {
                (b'/', b'*') => (depth, self.at) = (depth + 1, self.at + 2),
                (b'*', b'/') => (depth, self.at) = (depth - 1, self.at + 2),
                _ => self.at += 1,
            }
            if depth == 0 {
                return;
            }
        }
        self.is_open = true;
    }

    fn string(&mut self, prefix: usize, escapes: bool) -> Kind {
        self.at += prefix;
        loop {
            self.at += 1;
            loop {
                match self.text.get(self.at) {
                    None => {
                        self.is_open = true;
                        return Kind::String;
                    }
                    Some(b'\\') if escapes => self.at = (self.at + 2).min(self.text.len()),
                    Some(b'\'') if self.peek(1) == b'\'' => self.at += 2,
                    Some(b'\'') => break,
                    Some(_) => self.at += 1,
                }
            }
            self.at += 1;
            match self.continuation() {
                Some(next) => self.at = next,
                None => return Kind::String,
            }
        }
    }

    /// `{quote}{whitespace_with_newline}{quote}`: where the next part's quote is.
    fn continuation(&self) -> Option<usize> {
        let (mut at, mut has_line_end) = (self.at, false);
        loop {
            match self.text.get(at)? {
                b'\n' | b'\r' => (at, has_line_end) = (at + 1, true),
                b' ' | b'\t' | 0x0b | 0x0c => at += 1,
                b'-' if self.text.get(at + 1) == Some(&b'-') => {
                    while !matches!(self.text.get(at)?, b'\n' | b'\r') {
                        at += 1;
                    }
                }
                b'\'' if has_line_end => return Some(at),
                _ => return None,
            }
        }
    }

    fn identifier(&mut self, prefix: usize) -> Kind {
        self.at += prefix + 1;
        loop {
            match self.text.get(self.at) {
                None => {
                    self.is_open = true;
                    return Kind::Quoted;
                }
                Some(b'"') if self.peek(1) == b'"' => self.at += 2,
                Some(b'"') => {
                    self.at += 1;
                    return Kind::Quoted;
                }
                Some(_) => self.at += 1,
            }
        }
    }

    fn dollar(&mut self) -> Kind {
        let mut end = self.at + 1;
        if self.text.get(end).is_some_and(|byte| starts_word(*byte)) {
            while self.text.get(end).is_some_and(|byte| continues_word(*byte) && *byte != b'$') {
                end += 1;
            }
        }
        if self.text.get(end) != Some(&b'$') {
            self.at += 1;
            if self.peek(0).is_ascii_digit() {
                return self.number();
            }
            return Kind::Symbol(b'$');
        }
        let tag = &self.text[self.at..=end];
        self.is_ambiguous |= tag.len() > 1000;
        let mut body = end + 1;
        loop {
            if body + tag.len() > self.text.len() {
                self.is_open = true;
                self.at = self.text.len();
                return Kind::String;
            }
            if self.text[body..].starts_with(tag) {
                self.at = body + tag.len();
                return Kind::String;
            }
            body += 1;
        }
    }

    /// With what follows it at once: `1e5`, `0x1f`, `1_000`, and the junk that some versions take.
    fn number(&mut self) -> Kind {
        while self.at < self.text.len() && (self.text[self.at].is_ascii_digit() || starts_word(self.text[self.at])) {
            self.at += 1;
        }
        self.is_ambiguous |= matches!(self.peek(0), b'$' | b'\'');
        Kind::Number
    }
}

fn starts_word(byte: u8) -> bool {
    byte.is_ascii_alphabetic() || byte == b'_' || byte >= 0x80
}

fn continues_word(byte: u8) -> bool {
    starts_word(byte) || byte.is_ascii_digit() || byte == b'$'
}
