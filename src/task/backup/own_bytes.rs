//! Converts statements whose bytes are not UTF-8 to text and back. A database in SQL_ASCII accepts any bytes in names and values, while
//! queries that we send, and all code that looks at a statement, use text.

use std::borrow::Cow;

/// Byte `b` stands in text as the character `FIRST + b`: private-use ones at the very end of Unicode.
const FIRST: u32 = 0x10_FF00;

/// Text that [`query`] turns back into exactly these bytes. UTF-8 stays as it is, so that names and keywords are found in it; each other
/// byte becomes one character.
pub fn text(bytes: Vec<u8>) -> String {
    match String::from_utf8(bytes) {
        Ok(text) if !text.chars().any(stands_for_a_byte) => text,
        Ok(text) => escaped(text.as_bytes()),
        Err(error) => escaped(error.as_bytes()),
    }
}

/// Returns whether [`query`] lets the server build the statement from its bytes.
pub fn has_some(text: &str) -> bool {
    text.chars().any(stands_for_a_byte)
}

/// The statement that runs `text`: itself, or one that makes the server build it from its bytes. Unlike the protocol of the former, EXECUTE
/// runs several statements: `pg_dumps::writes` lets none through.
pub fn query(text: &str) -> Cow<'_, str> {
    if !has_some(text) {
        return Cow::Borrowed(text);
    }
    Cow::Owned(format!(
        // No backslash: the dump may have set standard_conforming_strings off.
        "DO 'BEGIN EXECUTE pg_catalog.convert_from(pg_catalog.decode(''{}'', ''hex''), pg_catalog.pg_client_encoding()); END'",
        hex::encode(bytes(text))
    ))
}

fn escaped(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len() + 64);
    for chunk in bytes.utf8_chunks() {
        for character in chunk.valid().chars() {
            if stands_for_a_byte(character) {
                let mut buffer = [0; 4];
                text.extend(character.encode_utf8(&mut buffer).bytes().map(character_for));
            } else {
                text.push(character);
            }
        }
        text.extend(chunk.invalid().iter().copied().map(character_for));
    }
    text
}

/// The bytes that [`text`] made this of.
pub fn bytes(text: &str) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(text.len());
    for character in text.chars() {
        let mut buffer = [0; 4];
        match stands_for_a_byte(character) {
            true => bytes.push((character as u32 - FIRST) as u8),
            false => bytes.extend(character.encode_utf8(&mut buffer).bytes()),
        }
    }
    bytes
}

fn character_for(byte: u8) -> char {
    // All of the range are characters.
    char::from_u32(FIRST + u32::from(byte)).unwrap_or(char::REPLACEMENT_CHARACTER)
}

fn stands_for_a_byte(character: char) -> bool {
    character as u32 >= FIRST
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn any_bytes_come_back_as_they_were(given in proptest::collection::vec(any::<u8>(), 0..64), end in 0..3_usize) {
            let mut given = given;
            given.extend(["", "\u{10FFFF}", "\u{10FF00}x"][end].as_bytes());
            prop_assert_eq!(bytes(&text(given.clone())), given);
        }
    }

    #[test]
    fn only_what_is_not_utf_8_is_sent_in_another_way() {
        assert_eq!(query(&text("COMMENT ON TABLE é IS 'x'".into())), "COMMENT ON TABLE é IS 'x'");
        let odd = text(b"ALTER TABLE s.\xe9 OWNER TO \xc3\xa9".to_vec());
        assert!(odd.starts_with("ALTER TABLE s.") && odd.ends_with("OWNER TO é"));
        assert!(query(&odd).contains("732ee9204f574e455220544f20c3a9"), "{}", query(&odd));
    }
}
