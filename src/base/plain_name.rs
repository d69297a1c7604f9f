//! Names of others in plain ASCII, for places where not every character is safe: letters, digits, `-`, `_` and `.` stay, and every other byte is
//! percent-encoded.

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_decode_str, utf8_percent_encode};

/// The characters that names keep, besides letters and digits.
const PLAIN: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'_').remove(b'.');

pub fn encode(name: &str) -> String {
    utf8_percent_encode(name, PLAIN).to_string()
}

/// Returns the name that was encoded; `None` for bytes that are not UTF-8.
pub fn decode(encoded: &str) -> Option<String> {
    percent_decode_str(encoded).decode_utf8().ok().map(std::borrow::Cow::into_owned)
}
