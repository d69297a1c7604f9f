//! What a restore would do with a dump, and whether the server, as `server` reads it, would do the same.

use std::borrow::Cow;

use pgtend::task::backup::choices::{Choices, Object, Without};
use pgtend::task::backup::rewrite::{self, Fate, Server};
use pgtend::task::backup::script::{Script, Step};
use pgtend::task::backup::{own_bytes, pg_dumps};

use crate::server;

#[derive(Debug, Default)]
pub struct Restored {
    pub statements: usize,
    pub copies: usize,
    /// The dump holds what pg_dump never writes.
    pub is_refused: bool,
}

/// In pieces of one size. Panics where a statement gets through that is another one for the server.
pub fn run(dump: &[u8], piece: usize, choices: &Choices) -> Restored {
    let server = Server {
        settings: SETTINGS.iter().map(|name| (*name).to_owned()).collect(),
        is_superuser: !choices.for_scratch,
        owners: ["a".to_owned()].into(),
        ..Server::default()
    };
    let mut restored = Restored::default();
    let mut script = Script::default();
    let mut escapes = false;
    for piece in dump.chunks(piece) {
        let fed = script.feed(piece, |step| {
            if restored.is_refused {
                return;
            }
            match step {
                Step::Statement { text, .. } => {
                    restored.statements += 1;
                    restored.is_refused = !statement(text, choices, &server, &mut escapes);
                }
                Step::Copy { text, .. } => {
                    restored.copies += 1;
                    restored.is_refused = !copy(text);
                }
                Step::Rows(_) | Step::RowsEnd => {}
            }
        });
        restored.is_refused |= fed.is_err();
        if restored.is_refused {
            break;
        }
    }
    restored
}

const SETTINGS: [&str; 5] =
    ["standard_conforming_strings", "client_encoding", "lock_timeout", "default_tablespace", "check_function_bodies"];

/// Whether it is let through.
fn statement(text: Vec<u8>, choices: &Choices, server: &Server, escapes: &mut bool) -> bool {
    let text = own_bytes::text(text);
    rewrite::role_names(&text);
    let sent = match rewrite::fate(&text, choices, server) {
        Fate::Foreign => return false,
        // Kept for the superuser of a server of its own: this session does not send it.
        Fate::Pass(_) | Fate::LeftOut(_) | Fate::BySuperuser(_) => return true,
        Fate::Run(sql, _) => sql.into_owned(),
        Fate::Cut(sql, _) | Fate::NotValid(sql, _) => sql,
    };
    let query = own_bytes::query(&sent);
    let (bytes, is_executed) = match &query {
        Cow::Borrowed(text) => (text.as_bytes().to_vec(), false),
        // EXECUTE runs all statements that it is given.
        Cow::Owned(query) => (bytes_of(query), true),
    };
    let read = server::read(&bytes, *escapes);
    let shown = String::from_utf8_lossy(&bytes);
    assert!(read.statements == 1 || (!is_executed && read.statements > 0), "{} statements: {shown}", read.statements);
    if let Some(reason) = read.refusal() {
        panic!("{reason} is let through: {shown}");
    }
    if shown.starts_with("SET standard_conforming_strings") {
        *escapes = shown.ends_with("off");
    }
    true
}

fn copy(text: Vec<u8>) -> bool {
    let Ok(text) = String::from_utf8(text) else { return false };
    let is_let_through = pg_dumps::copies(&text);
    if is_let_through {
        assert!(server::read(text.as_bytes(), false).copies_into_a_users_table(), "{text}");
    }
    is_let_through
}

/// Out of `… decode(''6162'', ''hex'') …`.
fn bytes_of(query: &str) -> Vec<u8> {
    let hex = query.split("decode(''").nth(1).and_then(|rest| rest.split('\'').next()).unwrap_or_default();
    (0..hex.len() / 2).map(|at| u8::from_str_radix(&hex[2 * at..2 * at + 2], 16).unwrap_or_default()).collect()
}

/// By the bits of a number.
pub fn choices(bits: u8) -> Choices {
    let without = |kind: Object, name: &str| Without { kind, name: name.to_owned() };
    let is_set = |bit: u8| bits & (1 << bit) != 0;
    Choices {
        without: if is_set(0) {
            vec![without(Object::Constraint, "c"), without(Object::Index, "s.i"), without(Object::Extension, "e")]
        } else {
            Vec::new()
        },
        role_map: if is_set(1) {
            vec![("a".to_owned(), "b \"c".to_owned()), ("o".to_owned(), "p".to_owned())]
        } else {
            Vec::new()
        },
        search_path: is_set(2).then(|| "public, \"$user\"".to_owned()),
        no_owner: is_set(3),
        no_tablespaces: is_set(4),
        for_scratch: is_set(5),
        ..Choices::default()
    }
}
