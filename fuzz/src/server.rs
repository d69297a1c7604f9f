//! One statement as the server reads it: what it is, in a few words.

use crate::scan::{Kind, Scanner, Token};

pub struct Reading {
    pub tokens: Vec<Token>,
    /// Parts between semicolons outside parentheses that are not empty: for more than one, the server has more than one statement.
    pub statements: usize,
}

pub fn read(statement: &[u8], escapes: bool) -> Reading {
    let mut scanner = Scanner::new(statement, false);
    scanner.escapes = escapes;
    let mut tokens = Vec::new();
    while let Some(token) = scanner.next() {
        tokens.push(token);
    }
    let (mut depth, mut statements, mut is_empty) = (0_u32, 0, true);
    for token in &tokens {
        match token.kind {
            Kind::Symbol(b'(') => depth += 1,
            Kind::Symbol(b')') => depth = depth.saturating_sub(1),
            Kind::Symbol(b';') if depth == 0 => is_empty = true,
            _ => {}
        }
        if token.kind != Kind::Symbol(b';') && is_empty {
            (statements, is_empty) = (statements + 1, false);
        }
    }
    Reading { tokens, statements }
}

/// Objects of the whole server, and what is none of a dump's.
const OF_THE_SERVER: [&str; 8] = ["role", "user", "group", "database", "system", "tablespace", "parameter", "current_user"];

impl Reading {
    fn word(&self, at: usize) -> &str {
        let token = self.tokens.get(at).filter(|token| token.kind == Kind::Word);
        token.and_then(|token| std::str::from_utf8(&token.text).ok()).unwrap_or("")
    }

    /// Where a word stands outside parentheses.
    fn find(&self, word: &str) -> Option<usize> {
        let mut depth = 0_u32;
        for (at, token) in self.tokens.iter().enumerate() {
            match token.kind {
                Kind::Symbol(b'(') => depth += 1,
                Kind::Symbol(b')') => depth = depth.saturating_sub(1),
                Kind::Word if depth == 0 && self.word(at) == word => return Some(at),
                _ => {}
            }
        }
        None
    }

    /// Why no dump of a database has it; None when one may.
    pub fn refusal(&self) -> Option<String> {
        let words = [0, 1, 2, 3].map(|at| self.word(at));
        let of_the_server = |at: usize| OF_THE_SERVER.contains(&self.word(at)).then(|| format!("of {}", self.word(at)));
        match words {
            ["set", "session", "authorization", _] => None,
            ["set", name, ..] => {
                let sets_right = matches!(self.tokens.get(2).map(|token| &token.kind), Some(Kind::Symbol(b'=')));
                let bad = ["role", "session", "local", "session_replication_role", "event_triggers", "search_path"];
                (!sets_right || bad.contains(&name)).then(|| format!("SET {name}"))
            }
            ["reset", "session", "authorization", _] | ["begin" | "commit", "", ..] => None,
            ["create", "user", "mapping", "for"] => None,
            ["create", "or", "replace", _] => of_the_server(3),
            ["create", ..] if self.find("as").is_some() && words[1] == "table" => Some("CREATE TABLE AS".to_owned()),
            ["create" | "alter", ..] => of_the_server(1),
            ["comment", "on", ..] => of_the_server(2),
            ["security", "label", "for", _] if self.word(4) == "on" => of_the_server(5),
            ["grant" | "revoke", ..] => match self.find("on") {
                None => Some("membership in a role".to_owned()),
                Some(on) => of_the_server(on + 1),
            },
            ["refresh", "materialized", "view", _] => None,
            ["select", ..] => self.calls_more(),
            _ => Some(format!("{words:?}")),
        }
    }

    /// A function that a dump never calls by itself.
    fn calls_more(&self) -> Option<String> {
        const CALLED: [&str; 9] = [
            "setval",
            "lo_create",
            "lo_open",
            "lowrite",
            "lo_close",
            "pg_restore_relation_stats",
            "pg_restore_attribute_stats",
            "pg_restore_extended_stats",
            "set_config",
        ];
        for (at, token) in self.tokens.iter().enumerate() {
            if token.kind != Kind::Symbol(b'(') || at == 0 {
                continue;
            }
            let name = self.word(at - 1);
            let is_qualified = at >= 3 && self.word(at - 3) == "pg_catalog" && self.tokens[at - 2].kind == Kind::Symbol(b'.');
            let is_call = matches!(self.tokens[at - 1].kind, Kind::Word | Kind::Quoted);
            // `FROM (VALUES ('1'), ('2')) AS t (loid)`
            let is_syntax = ["from", "values", "t"].contains(&name);
            if is_call && !is_syntax && !(is_qualified && CALLED.contains(&name)) {
                return Some(format!("a call of {:?}", String::from_utf8_lossy(&self.tokens[at - 1].text)));
            }
        }
        None
    }

    /// `COPY schema.table (…) FROM stdin`, of no system schema.
    pub fn copies_into_a_users_table(&self) -> bool {
        let is_name =
            |at: usize| matches!(self.tokens.get(at).map(|token| &token.kind), Some(Kind::Word | Kind::Quoted | Kind::Number));
        let schema = self.tokens.get(1).map(|token| String::from_utf8_lossy(&token.text).trim_matches('"').to_owned());
        let last = self.tokens.len().saturating_sub(1);
        let is_of_list = |at: usize| is_name(at) || matches!(self.tokens[at].kind, Kind::Symbol(b'(' | b',' | b')'));
        self.word(0) == "copy"
            && is_name(1)
            && is_name(3)
            && schema.is_some_and(|schema| !schema.starts_with("pg_") && schema != "information_schema")
            && self.tokens.len() >= 6
            && self.word(last) == "stdin"
            && self.word(last - 1) == "from"
            && (4..last - 1).all(is_of_list)
            && self.statements == 1
    }
}
