//! Statements: whatever the lists of what pg_dump writes let through, is for the server what it is for us. By each choice of a restore.

#![no_main]

use libfuzzer_sys::fuzz_target;
use pgtend::task::backup::rewrite::{self, Server};
use pgtend::task::backup::tokens::Statement;
use pgtend_fuzz::memory::most_held;
use pgtend_fuzz::restore;

fuzz_target!(|input: &[u8]| {
    let Some((bits, text)) = input.split_first() else { return };
    let choices = restore::choices(*bits);
    let dump = [text, b";\n"].concat();
    restore::run(&dump, dump.len(), &choices);

    // As the lexer would never hand it on: with comments, and with quotes that do not end.
    let text = String::from_utf8_lossy(text);
    let (_, held) = most_held(|| {
        let statement = Statement::of(&text);
        let mut end = 0;
        for token in &statement.tokens {
            assert!(token.at.start >= end && token.at.end > token.at.start, "{token:?} after {end}");
            end = token.at.end;
            assert!(!statement.raw(token).is_empty());
        }
        assert!(end <= text.len());
        rewrite::fate(&text, &choices, &Server::default());
    });
    assert!(held < (64 << 10) + 128 * text.len(), "{held} bytes held for {}", text.len());
});
