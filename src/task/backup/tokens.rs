//! Splits a statement into tokens: enough to find names in text that pg_dump writes.

use std::ops::Range;

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Unquoted: a keyword, a name in lower case, a number.
    Word,
    /// `"we""ird"`.
    Quoted,
    /// Any form of a string.
    String,
    Symbol(u8),
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Token {
    pub kind: Kind,
    /// The token's bytes in the statement.
    pub at: Range<usize>,
    /// The number of open parentheses around it.
    pub depth: usize,
}

/// At most this many tokens of a statement are kept; a dump is untrusted input, and a statement may be a gigabyte long.
const TOKENS_MOST: usize = 4 << 20;

/// The longest tag that pg_dump can make: it appends letters to `$_$` until the body does not contain it.
const LONGEST_TAG: usize = 1 << 10;

/// The tokens of [`Statement::of`] are inside at most this many parentheses.
const DEEPEST: usize = 2;

/// A statement with its tokens, except those inside three or more parentheses.
pub struct Statement<'a> {
    pub text: &'a str,
    pub tokens: Vec<Token>,
    /// True if it has more tokens than are kept.
    pub is_cut: bool,
}

impl<'a> Statement<'a> {
    pub fn of(text: &'a str) -> Self {
        let (tokens, is_cut) = tokens(text, DEEPEST);
        Self { text, tokens, is_cut }
    }

    /// The same with the tokens inside of any number of parentheses.
    pub fn whole(text: &'a str) -> Self {
        let (tokens, is_cut) = tokens(text, usize::MAX);
        Self { text, tokens, is_cut }
    }

    /// Returns whether the words from `index` on are these, given in capitals.
    pub fn says(&self, index: usize, words: &[&str]) -> bool {
        words.iter().enumerate().all(|(offset, word)| {
            self.tokens
                .get(index + offset)
                .is_some_and(|token| token.kind == Kind::Word && self.raw(token).eq_ignore_ascii_case(word))
        })
    }

    /// The same with pg_dump's spelling: exactly these letters, each word after one space.
    pub fn spells(&self, index: usize, words: &[&str]) -> bool {
        let is_after_one_space = |at: usize| at == 0 || self.text[self.tokens[at - 1].at.end..self.tokens[at].at.start] == *" ";
        self.says(index, words)
            && words
                .iter()
                .enumerate()
                .all(|(offset, word)| self.raw(&self.tokens[index + offset]) == *word && is_after_one_space(index + offset))
    }

    /// The position where these words first occur, outside parentheses.
    pub fn find(&self, words: &[&str]) -> Option<usize> {
        (0..self.tokens.len()).find(|index| self.tokens[*index].depth == 0 && self.says(*index, words))
    }

    /// The same for the last occurrence.
    pub fn find_last(&self, words: &[&str]) -> Option<usize> {
        (0..self.tokens.len()).rev().find(|index| self.tokens[*index].depth == 0 && self.says(*index, words))
    }

    pub fn raw(&self, token: &Token) -> &'a str {
        &self.text[token.at.clone()]
    }

    pub fn is_symbol(&self, index: usize, symbol: u8) -> bool {
        self.tokens.get(index).is_some_and(|token| token.kind == Kind::Symbol(symbol))
    }

    /// The name at `index`, without its quotes.
    pub fn name(&self, index: usize) -> Option<String> {
        let token = self.tokens.get(index)?;
        let raw = self.raw(token);
        match token.kind {
            // Lower case as the server does it: a Kelvin sign does not become a k.
            Kind::Word => Some(raw.to_ascii_lowercase()),
            Kind::Quoted => Some(raw.strip_prefix('"')?.strip_suffix('"')?.replace("\"\"", "\"")),
            Kind::String | Kind::Symbol(_) => None,
        }
    }

    /// `schema.name` or `name` at `index`, and the index after it.
    pub fn qualified(&self, index: usize) -> Option<(Option<String>, String, usize)> {
        let first = self.name(index)?;
        if !self.is_symbol(index + 1, b'.') {
            return Some((None, first, index + 1));
        }
        Some((Some(first), self.name(index + 2)?, index + 3))
    }
}

/// Tokens deeper than `deepest` are left out.
fn tokens(text: &str, deepest: usize) -> (Vec<Token>, bool) {
    let bytes = text.as_bytes();
    let mut tokens: Vec<Token> = Vec::new();
    let (mut at, mut depth) = (0, 0_usize);
    // The position where the last string ended, unless it was a dollar quote, and whether backslashes escape in it.
    let mut string = (usize::MAX, false);
    while at < bytes.len() {
        let start = at;
        let byte = bytes[at];
        let kind = match byte {
            _ if byte.is_ascii_whitespace() => {
                at += 1;
                continue;
            }
            b'"' => {
                at = after_quote(bytes, at, b'"', false);
                Kind::Quoted
            }
            // After a line's end, the same string continues.
            b'\'' if string.0 < at && is_line_end(&bytes[string.0..at]) => {
                at = after_quote(bytes, at, b'\'', string.1);
                if let Some(last) = tokens.last_mut().filter(|last| last.at.end == string.0) {
                    last.at.end = at;
                }
                string.0 = at;
                continue;
            }
            b'\'' => {
                at = after_quote(bytes, at, b'\'', false);
                string = (at, false);
                Kind::String
            }
            b'e' | b'E' if bytes.get(at + 1) == Some(&b'\'') => {
                at = after_quote(bytes, at + 1, b'\'', true);
                string = (at, true);
                Kind::String
            }
            b'$' => match dollar_quoted(text, at) {
                Dollar::Quoted(end) => {
                    at = end;
                    Kind::String
                }
                // A statement that was read to its end has no open quote; each would be searched for up to that end.
                Dollar::Open => return (tokens, true),
                Dollar::Sign => {
                    at += 1;
                    Kind::Symbol(byte)
                }
            },
            _ if is_word_byte(byte) => {
                // A number ends at a dollar.
                while at < bytes.len() && (is_word_byte(bytes[at]) || (bytes[at] == b'$' && !byte.is_ascii_digit())) {
                    at += 1;
                }
                Kind::Word
            }
            _ => {
                at += 1;
                Kind::Symbol(byte)
            }
        };
        if kind == Kind::Symbol(b')') {
            depth = depth.saturating_sub(1);
        }
        let opens = kind == Kind::Symbol(b'(');
        if tokens.len() == TOKENS_MOST {
            return (tokens, true);
        }
        if depth <= deepest {
            tokens.push(Token { kind, at: start..at, depth });
        }
        depth += usize::from(opens);
    }
    (tokens, false)
}

/// White space with a line's end in it.
fn is_line_end(bytes: &[u8]) -> bool {
    let is_space = |byte: &u8| byte.is_ascii_whitespace() || *byte == 0x0b;
    bytes.iter().all(is_space) && bytes.iter().any(|byte| matches!(byte, b'\n' | b'\r'))
}

/// The end of a quoted part. A doubled quote starts the next part, which only matters for the token's end.
fn after_quote(bytes: &[u8], opening: usize, quote: u8, escapes: bool) -> usize {
    let mut at = opening + 1;
    while at < bytes.len() {
        match bytes[at] {
            b'\\' if escapes => at += 2,
            byte if byte == quote && bytes.get(at + 1) == Some(&quote) => at += 2,
            byte if byte == quote => return at + 1,
            _ => at += 1,
        }
    }
    bytes.len()
}

enum Dollar {
    /// The quote ends here.
    Quoted(usize),
    /// The quote is opened and never closed.
    Open,
    Sign,
}

fn dollar_quoted(text: &str, at: usize) -> Dollar {
    let letters = text.as_bytes()[at + 1..].iter().take(LONGEST_TAG).take_while(|byte| is_word_byte(**byte)).count();
    let end = at + letters + 2;
    let opens = text.as_bytes().get(end - 1) == Some(&b'$') && !text[at + 1..].starts_with(|first: char| first.is_ascii_digit());
    if !opens {
        return Dollar::Sign;
    }
    match text[end..].find(&text[at..end]) {
        Some(body) => Dollar::Quoted(end + body + end - at),
        None => Dollar::Open,
    }
}

/// Schema and name out of pg_dump's `COPY public."we""ird" (a, b) FROM stdin`; a table without columns has no
/// list. None for anything else.
pub fn copied_table(statement: &[u8]) -> Option<(String, String)> {
    let text = statement.strip_prefix(b"COPY ")?.strip_suffix(b" FROM stdin")?;
    // Names in a database in SQL_ASCII may hold any bytes.
    let text = String::from_utf8_lossy(text);
    let (schema, rest) = unquote(&text)?;
    let (name, rest) = unquote(rest.strip_prefix('.')?)?;
    (rest.starts_with(' ') || rest.is_empty()).then_some((schema, name))
}

/// `a` and `b c` of `COPY s.t (a, "b c") FROM stdin`.
pub fn columns_of(copy: &str) -> Vec<String> {
    let statement = Statement::of(copy);
    let Some((_, _, list)) = statement.qualified(1).filter(|(_, _, list)| statement.is_symbol(*list, b'(')) else {
        return Vec::new();
    };
    let mut columns = Vec::new();
    let mut at = list + 1;
    while let Some(name) = statement.name(at) {
        columns.push(name);
        if !statement.is_symbol(at + 1, b',') {
            break;
        }
        at += 2;
    }
    columns
}

/// One identifier at the start of `text`, without its quotes, and what follows it.
fn unquote(text: &str) -> Option<(String, &str)> {
    let Some(mut rest) = text.strip_prefix('"') else {
        let end = text.find(['.', ' ']).unwrap_or(text.len());
        return (end > 0).then(|| (text[..end].to_owned(), &text[end..]));
    };
    let mut name = String::new();
    loop {
        let (before, after) = rest.split_once('"')?;
        name += before;
        match after.strip_prefix('"') {
            Some(more) => {
                name.push('"');
                rest = more;
            }
            None => return Some((name, after)),
        }
    }
}

fn is_word_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'_' || byte >= 0x80
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_found_among_what_only_looks_like_them() {
        let statement =
            Statement::of("COMMENT ON INDEX \"S.x\".\"we\"\"ird TO\" IS E'it''s \\' TO y' || $a$ TO $$ z $a$ || f(TO)");
        assert_eq!(statement.qualified(3), Some((Some("S.x".into()), "we\"ird TO".into(), 6)));
        assert_eq!(statement.find(&["TO"]), None);
        assert!(statement.says(0, &["COMMENT", "ON"]));
    }

    #[test]
    fn columns_are_read_from_a_copy() {
        assert_eq!(columns_of("COPY public.t (a, \"b \"\" c\", \"D\") FROM stdin"), ["a", "b \" c", "D"]);
        assert_eq!(columns_of("COPY public.t  FROM stdin"), [""; 0]);
        assert_eq!(columns_of("COPY public.t () FROM stdin"), [""; 0]);
        assert_eq!(columns_of("COPY public.\"t(\" (x) FROM stdin"), ["x"]);
    }

    #[test]
    fn strings_and_numbers_end_where_they_end_for_the_server() {
        for (text, tokens) in [
            ("E'a'\n'\\'' x", 2),
            ("E'a' '\\' x", 3),
            ("'a'\n'\\' x", 2),
            ("1$$ x $$ y", 3),
            ("a$$ x $$ y $$", 3),
            ("$1$$ x $$ y", 4),
        ] {
            assert_eq!(Statement::of(text).tokens.len(), tokens, "{text}: {:?}", Statement::of(text).tokens);
        }
        assert_eq!(Statement::of("loc\u{212a}").name(0).as_deref(), Some("loc\u{212a}"));
    }

    #[test]
    fn statements_that_end_inside_a_quote_end_there() {
        for text in ["SELECT 'abc", "SELECT \"abc", "SELECT $a$ abc", "SELECT E'abc\\", "$", "$1 $"] {
            assert!(Statement::of(text).tokens.iter().all(|token| token.at.end <= text.len()), "{text}");
        }
    }
}
