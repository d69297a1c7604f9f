//! Reads the value of a string constant, in each form that PostgreSQL's lexer accepts where a grammar wants a plain string.

use crate::task::backup::tokens::{Kind, Statement, Token};

/// Returns the value of the string constant at token `index`, or None where there is none.
///
/// Constants without a prefix are read as with `standard_conforming_strings = on`, the default since PostgreSQL 9.1.
pub fn value_at(statement: &Statement<'_>, index: usize) -> Option<String> {
    let token = statement.tokens.get(index)?;
    if statement.says(index, &["U"]) && statement.is_symbol(index + 1, b'&') {
        let body = string(statement, index + 2)?;
        let escape = match statement.says(index + 3, &["UESCAPE"]) {
            true => unquoted(string(statement, index + 4)?).chars().next()?,
            false => '\\',
        };
        return Some(with_code_points(&unquoted(body), escape));
    }
    let raw = string(statement, index)?;
    Some(match raw.as_bytes().first()? {
        b'e' | b'E' => escaped(&raw[1..]),
        b'\'' => unquoted(raw),
        _ => dollar_quoted(raw).unwrap_or_else(|| statement.raw(token).to_owned()),
    })
}

fn string<'a>(statement: &Statement<'a>, index: usize) -> Option<&'a str> {
    let is_string = |token: &&Token| token.kind == Kind::String;
    statement.tokens.get(index).filter(is_string).map(|token| statement.raw(token))
}

/// Reads a constant `$tag$…$tag$`.
fn dollar_quoted(raw: &str) -> Option<String> {
    let body = raw.splitn(3, '$').nth(2)?;
    body.rsplitn(3, '$').nth(2).map(str::to_owned)
}

/// Returns the text inside the quotes. A constant may go on in the next line, in quotes again: `'a'` and `'b'` on two lines are `ab`.
fn unquoted(raw: &str) -> String {
    let (mut value, mut is_inside) = (String::new(), false);
    let mut letters = raw.chars().peekable();
    while let Some(letter) = letters.next() {
        match (is_inside, letter) {
            (true, '\'') if letters.next_if_eq(&'\'').is_some() => value.push('\''),
            (_, '\'') => is_inside = !is_inside,
            (true, letter) => value.push(letter),
            (false, _) => {}
        }
    }
    value
}

/// Reads the value of `E'…'`. `\x` and `\101` name bytes, and several of them may be one character.
fn escaped(raw: &str) -> String {
    let (mut value, mut is_inside) = (Vec::new(), false);
    let mut units = Units::default();
    let mut letters = raw.chars().peekable();
    let push = |value: &mut Vec<u8>, letter: char| value.extend(letter.encode_utf8(&mut [0; 4]).bytes());
    while let Some(letter) = letters.next() {
        match (is_inside, letter) {
            (true, '\'') if letters.next_if_eq(&'\'').is_some() => value.push(b'\''),
            (_, '\'') => is_inside = !is_inside,
            (true, '\\') => match letters.next() {
                Some('b') => value.push(8),
                Some('f') => value.push(12),
                Some('n') => value.push(b'\n'),
                Some('r') => value.push(b'\r'),
                Some('t') => value.push(b'\t'),
                Some('x') => match digits(&mut letters, 16, 2) {
                    (0, _) => value.push(b'x'),
                    (_, byte) => value.push(byte as u8),
                },
                Some(kind @ ('u' | 'U')) => {
                    let (_, unit) = digits(&mut letters, 16, if kind == 'u' { 4 } else { 8 });
                    if let Some(letter) = units.next(unit) {
                        push(&mut value, letter);
                    }
                }
                Some(first) if first.is_digit(8) => {
                    let (more, rest) = digits(&mut letters, 8, 2);
                    let first = first.to_digit(8).unwrap_or_default();
                    value.push((first * 8_u32.pow(more) + rest) as u8);
                }
                Some(letter) => push(&mut value, letter),
                None => {}
            },
            (true, letter) => push(&mut value, letter),
            (false, _) => {}
        }
    }
    String::from_utf8_lossy(&value).into_owned()
}

/// `\0061` and `\+000061` name code points, with the escape character that UESCAPE names.
fn with_code_points(text: &str, escape: char) -> String {
    let (mut value, mut units) = (String::new(), Units::default());
    let mut letters = text.chars().peekable();
    while let Some(letter) = letters.next() {
        if letter != escape {
            value.push(letter);
        } else if letters.next_if_eq(&escape).is_some() {
            value.push(escape);
        } else {
            let count = if letters.next_if_eq(&'+').is_some() { 6 } else { 4 };
            value.extend(units.next(digits(&mut letters, 16, count).1));
        }
    }
    value
}

/// Reads at most `most` digits. Returns how many there were, and their value.
fn digits(letters: &mut std::iter::Peekable<std::str::Chars<'_>>, radix: u32, max_digits: u32) -> (u32, u32) {
    let (mut count, mut value) = (0, 0_u32);
    while count < max_digits
        && let Some(letter) = letters.next_if(|letter| letter.is_digit(radix))
    {
        value = value.wrapping_mul(radix).wrapping_add(letter.to_digit(radix).unwrap_or_default());
        count += 1;
    }
    (count, value)
}

/// Joins the two halves of a character beyond U+FFFF that is written as a surrogate pair.
#[derive(Default)]
struct Units {
    high: Option<u32>,
}

impl Units {
    fn next(&mut self, unit: u32) -> Option<char> {
        match (self.high.take(), unit) {
            (_, 0xD800..=0xDBFF) => {
                self.high = Some(unit);
                None
            }
            (Some(high), 0xDC00..=0xDFFF) => char::from_u32(0x10000 + ((high - 0xD800) << 10) + (unit - 0xDC00)),
            _ => char::from_u32(unit),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn constants_have_the_value_that_the_server_reads() {
        for (text, value) in [
            ("'x'", "x"),
            ("'it''s'", "it's"),
            (r"'a\b'", r"a\b"),
            ("'a b' -- c", "a b"),
            ("'a'\n  'b''c'", "ab'c"),
            ("$$x$$", "x"),
            ("$a$x$b$ y$a$", "x$b$ y"),
            ("E'x'", "x"),
            (r"e'it\'s ''so''\\'", r"it's 'so'\"),
            (r"E'a\x62\143\u0064\U00000065\t\q'", "abcde\tq"),
            (r"E'\xc3\xa9 \303\251 \ud83d\ude00'", "é é 😀"),
            ("E'a\\n'\n'\\x62'", "a\nb"),
            (r"U&'d\0061t\+000061'", "data"),
            (r"u&'it''s \\ \D83D\DE00'", r"it's \ 😀"),
            (r"U&'d!0061t!!\' UESCAPE '!'", r"dat!\"),
        ] {
            assert_eq!(value_at(&Statement::of(text), 0).as_deref(), Some(value), "{text}");
        }
        for text in ["x", "U & 1", "", "U&"] {
            assert_eq!(value_at(&Statement::of(text), 0), None, "{text}");
        }
    }
}
