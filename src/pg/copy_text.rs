//! The text format of COPY, as a server writes it.

use std::borrow::Cow;

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
