//! Archived rows: what comes before them and after them, whatever the names of table and columns are and however the bytes come.

#![no_main]

use libfuzzer_sys::fuzz_target;
use pgtend::archive::{Manifest, RowsOnly, Source, head};
use pgtend_fuzz::psql;

const TAIL: &[u8] = b"\\.\n";

fuzz_target!(|input: &[u8]| {
    let [piece, flipped, rest @ ..] = input else { return };
    let mut parts = rest.splitn(3, |byte| *byte == 0xff);
    let (names, rows, other) = (parts.next().unwrap_or_default(), parts.next().unwrap_or_default(), parts.next());
    let names = String::from_utf8_lossy(names).replace('\0', "");
    let mut names = names.split('\u{1}').map(str::to_owned);
    let (schema, table) = (names.next().unwrap_or_default(), names.next().unwrap_or_default());
    let columns: Vec<String> = names.collect();
    let source = Source { schema, table, columns, queries: Vec::new(), steps: None };
    let manifest = Manifest::new("job", "database", &source, "old");
    let head = head(&manifest);
    let piece = usize::from(*piece) + 1;

    // As stock tools read it.
    let whole = psql::read(&[head.as_bytes(), TAIL].concat());
    assert_eq!((whole.statements, whole.copies.as_slice(), whole.is_open), (3, &[0][..], false), "{head}");
    assert_eq!(whole.commands, Vec::<Vec<u8>>::new(), "{head}");

    let mut object = [head.as_bytes(), rows, TAIL].concat();
    let taken = take(&manifest, &object, piece).expect("it is as it was written");
    assert_eq!(taken, rows);
    let at = usize::from(*flipped) * 31 % (head.len() + TAIL.len());
    let at = if at < head.len() { at } else { at + rows.len() };
    object[at] ^= 1;
    assert_eq!(take(&manifest, &object, piece), None, "byte {at} was flipped");

    let object = [head.as_bytes(), other.unwrap_or(rest)].concat();
    if let Some(taken) = take(&manifest, &object, piece) {
        assert_eq!([head.as_bytes(), &taken, TAIL].concat(), object);
    }
});

/// The rows, if the object is of that table and whole.
fn take(manifest: &Manifest, object: &[u8], piece: usize) -> Option<Vec<u8>> {
    let mut rows_only = RowsOnly::of(manifest);
    let mut rows = Vec::new();
    for piece in object.chunks(piece) {
        rows.extend_from_slice(&rows_only.feed(piece).ok()?);
    }
    rows_only.check().is_ok().then_some(rows)
}
