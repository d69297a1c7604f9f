//! Fits text to a ledger whose database has another encoding than UTF-8: characters that it cannot hold are replaced, and the row
//! says so. Otherwise a run's end could not be written at all, and a success would be reported as a crash.

use serde_json::Value;

use crate::pg;

/// How much of a text is replaced; the steps are tried in order until the server accepts it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fit {
    AsItIs,
    /// Punctuation of our own sentences is replaced; letters of names stay.
    Signs,
    /// Everything but ASCII is replaced.
    Ascii,
}

pub const ALL: [Fit; 3] = [Fit::AsItIs, Fit::Signs, Fit::Ascii];

/// Recognizes untranslatable_character and character_not_in_repertoire: the encoding lacks a character.
pub fn does_not_fit(error: &anyhow::Error) -> bool {
    pg::sql_state(error).is_some_and(|state| matches!(state.as_str(), "22P05" | "22021"))
}

impl Fit {
    pub fn text(self, text: &str) -> String {
        if self == Self::AsItIs || text.is_ascii() {
            return text.to_owned();
        }
        text.chars().map(|letter| self.letter(letter)).collect()
    }

    fn letter(self, letter: char) -> String {
        let sign = match letter {
            '…' => "...",
            '–' | '—' | '−' => "-",
            '→' => "->",
            '±' => "+-",
            '×' => "x",
            '·' => ".",
            '‘' | '’' | '‹' | '›' => "'",
            '“' | '”' | '„' | '«' | '»' => "\"",
            '\u{a0}' | '\u{202f}' | '\u{2009}' => " ",
            letter if letter.is_ascii() || self == Self::Signs => return letter.to_string(),
            letter => return letter.escape_unicode().to_string(),
        };
        sign.to_owned()
    }

    /// Fits all text in it, including names of fields.
    pub fn json(self, value: &Value) -> Value {
        match value {
            Value::String(text) => Value::String(self.text(text)),
            Value::Array(values) => values.iter().map(|value| self.json(value)).collect(),
            Value::Object(fields) => fields.iter().map(|(name, value)| (self.text(name), self.json(value))).collect(),
            other => other.clone(),
        }
    }

    /// Returns a warning for readers of the row.
    pub fn warning(self) -> Option<&'static str> {
        (self != Self::AsItIs)
            .then_some("the encoding of the ledger's database lacks some of these characters: they were replaced")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_an_encoding_lacks_is_written_in_letters_that_it_has() {
        let text = "10 rows → “é” … ± Ж";
        assert_eq!(Fit::AsItIs.text(text), text);
        assert_eq!(Fit::Signs.text(text), "10 rows -> \"é\" ... +- Ж");
        assert_eq!(Fit::Ascii.text(text), "10 rows -> \"\\u{e9}\" ... +- \\u{416}");
        let json = serde_json::json!({ "é": ["…", 1, null] });
        assert_eq!(Fit::Ascii.json(&json), serde_json::json!({ "\\u{e9}": ["...", 1, null] }));
    }
}
