//! Certificates that the key of their store signs, in each of their forms: the JSON as all signed JSON of a store, the others by their last line.

use anyhow::{Context as _, Result};

use super::Certificate;
use crate::base::terminal;
use crate::store::Store;
use crate::store::sign::Signature;

/// What a certificate is called in its signature: no object of a store has that name.
const NAME: &str = "certificate";

const IN_TEXT: (&str, &str) = ("Signature: ", "\n");
const IN_HTML: (&str, &str) = ("<!-- Signature: ", " -->\n");

/// The JSON, signed if the store has a key.
pub fn as_json(certificate: &Certificate, store: &Store) -> Result<String> {
    let json = format!("{:#}", serde_json::to_value(certificate)?);
    // What a terminal interprets is signed as it is printed.
    let json = terminal::visible(&json);
    let open = json.strip_suffix("\n}").context("a certificate is a JSON object")?;
    Ok(format!("{}\n}}\n", store.sign(NAME, open)?))
}

/// The text with its signature on a last line, if the store has a key.
pub fn as_text(text: String, store: &Store) -> Result<String> {
    with_last_line(text, store, IN_TEXT)
}

/// The HTML with its signature in a comment on a last line, if the store has a key.
pub fn as_html(html: String, store: &Store) -> Result<String> {
    with_last_line(html, store, IN_HTML)
}

fn with_last_line(mut document: String, store: &Store, (before, after): (&str, &str)) -> Result<String> {
    if !document.ends_with('\n') {
        document.push('\n');
    }
    let signature = store.signature_of(NAME, document.as_bytes())?;
    Ok(match signature {
        Some(signature) => format!("{document}{before}{signature}{after}"),
        None => document,
    })
}

/// Returns whether the document carries the signature of the store's key. None where it carries none at all.
pub fn check(document: &[u8], store: &Store) -> Result<Option<bool>> {
    if let Some(open) = document.trim_ascii_end().strip_suffix(b"\n}").filter(|_| document.trim_ascii_start().starts_with(b"{")) {
        return Ok(match store.signature(NAME, open)? {
            Signature::Valid => Some(true),
            Signature::Wrong => Some(false),
            Signature::Missing | Signature::NotAsked => None,
        });
    }
    let Ok(text) = std::str::from_utf8(document) else { return Ok(None) };
    for (before, after) in [IN_TEXT, IN_HTML] {
        let Some((body, signature)) = text.rsplit_once(before) else { continue };
        let Some(signature) = signature.strip_suffix(after).filter(|_| body.ends_with('\n')) else { continue };
        return store.has_signed(NAME, body.as_bytes(), signature).map(Some);
    }
    Ok(None)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::dir::Dir;
    use crate::store::sign::SignKey;

    fn store(key: Option<&str>) -> Store {
        Store::Dir(Dir::new("/nowhere".as_ref()).signed(key.map(|key| SignKey::new(key.to_owned().into()))))
    }

    #[test]
    fn a_changed_letter_of_a_signed_certificate_is_seen_in_each_form() {
        let (ours, theirs) = (store(Some(&"k".repeat(32))), store(Some(&"l".repeat(32))));
        let text = as_text("CERTIFICATE\nSet  a\n".to_owned(), &ours).unwrap();
        let html = as_html("<!DOCTYPE html><p>a</p>".to_owned(), &ours).unwrap();
        for document in [text, html] {
            assert_eq!(check(document.as_bytes(), &ours).unwrap(), Some(true), "{document}");
            assert_eq!(check(document.as_bytes(), &theirs).unwrap(), Some(false));
            let changed = document.replacen(" a", " b", 1).replacen("<p>a", "<p>b", 1);
            assert_eq!(check(changed.as_bytes(), &ours).unwrap(), Some(false), "{changed}");
        }
        let unsigned = as_text("CERTIFICATE\n".to_owned(), &store(None)).unwrap();
        assert_eq!(check(unsigned.as_bytes(), &ours).unwrap(), None);
    }
}
