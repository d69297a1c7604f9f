//! Dumps, arbitrary and mutated: what the scanner counts, what the restore runs, and what `psql -f` would do with the same bytes.

#![no_main]

use libfuzzer_sys::fuzz_target;
use pgtend::task::backup::choices::Choices;
use pgtend::task::backup::scan::{Contents, Scanner};
use pgtend_fuzz::memory::most_held;
use pgtend_fuzz::{psql, restore};

const TRAILER: &[u8] = b" PostgreSQL database dump complete";

fuzz_target!(|dump: &[u8]| {
    let (contents, held) = most_held(|| scan(dump, dump.len().max(1)));
    assert!(held < (64 << 10) + 16 * dump.len(), "{held} bytes held for {} of a dump", dump.len());
    for piece in [1, 3, 7, 1000] {
        assert_eq!(scan(dump, piece), contents, "pieces of {piece}");
    }
    check_offsets(dump, &contents);

    let (restored, held) = most_held(|| restore::run(dump, 4096, &Choices::default()));
    assert!(held < (256 << 10) + 128 * dump.len(), "{held} bytes held to restore {}", dump.len());
    let in_bytes = restore::run(dump, 1, &Choices::default());
    assert_eq!((in_bytes.statements, in_bytes.is_refused), (restored.statements, restored.is_refused));
    if restored.is_refused {
        return;
    }
    assert_eq!(restored.copies as u64, contents.tables.iter().map(|table| table.copies).sum::<u64>());
    let psql = psql::read(dump);
    if contents.complete {
        assert_eq!(psql.commands, Vec::<Vec<u8>>::new(), "psql has commands that the restore does not see");
        assert!(!psql.is_open && !psql.is_ambiguous, "{psql:?}");
        assert!(psql.last_comments.iter().any(|comment| comment == TRAILER), "complete without its trailer: {psql:?}");
        assert_eq!(psql.statements, restored.statements);
        // Blocks of one table that follow one another are one entry.
        let mut rows = psql.copies.iter();
        let of_entries = contents.tables.iter().map(|table| rows.by_ref().take(table.copies as usize).sum::<u64>());
        assert!(of_entries.eq(contents.tables.iter().map(|table| table.rows)) && rows.next().is_none(), "{psql:?}");
    }
});

fn scan(dump: &[u8], piece: usize) -> Contents {
    let mut scanner = Scanner::default();
    dump.chunks(piece).for_each(|piece| scanner.feed(piece));
    scanner.finish()
}

/// Tables are apart, in order, from `COPY` to the line `\.`, with as many lines as rows.
fn check_offsets(dump: &[u8], contents: &Contents) {
    assert_eq!(contents.bytes, dump.len() as u64);
    let mut end = 0;
    for (at, table) in contents.tables.iter().enumerate() {
        assert!(table.offset >= end, "{table:?} begins before {end}");
        let is_whole = contents.complete || at + 1 < contents.tables.len();
        if !is_whole {
            continue;
        }
        end = table.offset + table.bytes;
        let block = &dump[table.offset as usize..end as usize];
        assert!(block.starts_with(b"C"), "{table:?}");
        assert!(block.ends_with(b"\n\\.\n") || block.ends_with(b"\n\\.\r\n"), "{table:?}");
    }
}
