//! `[servers.NAME]`: a server whose databases are found. Each is known as SERVER.DATABASE, and that name says all that is needed to connect: a list of
//! what was found is only needed to know which there are.

use std::borrow::Cow;

use super::{Config, Database};
use crate::base::pattern::Pattern;
use crate::base::plain_name;

/// The most runs at once on a server, if it sets none.
pub const MAX_CONCURRENT: u32 = 2;

/// How to reach a server, and which of its databases count.
#[derive(Clone, Debug)]
pub struct Server {
    /// The login, and what holds for each of its databases.
    pub login: Database,
    /// One of them must match a name, and so on for the next two.
    pub databases: Vec<Pattern>,
    /// Empty: all.
    pub include: Vec<Pattern>,
    pub exclude: Vec<Pattern>,
}

impl Config {
    /// Returns a database by its name: that of its entry, or SERVER.DATABASE of a server. Whether the server has it shows when one connects.
    pub fn database(&self, name: &str) -> Option<Cow<'_, Database>> {
        if let Some(database) = self.databases.get(name) {
            return Some(Cow::Borrowed(database));
        }
        let (server, own) = parts(name)?;
        Some(Cow::Owned(self.servers.get(server)?.database(server, own)))
    }
}

impl Server {
    /// Returns whether a database of this name counts, if the server has it.
    pub fn takes(&self, own: &str) -> bool {
        let is_one = |patterns: &[Pattern]| patterns.iter().any(|pattern| pattern.matches(own));
        is_one(&self.databases) && (self.include.is_empty() || is_one(&self.include)) && !is_one(&self.exclude)
    }

    /// Returns a database of this server by its own name.
    fn database(&self, server: &str, own: String) -> Database {
        Database { on_server: Some(own), group: Some(format!("server {server}")), ..self.login.clone() }
    }
}

/// Returns whether a server may have this name: its end shows in SERVER.DATABASE.
pub fn is_a_name(name: &str) -> bool {
    !name.is_empty() && name.chars().all(|letter| letter.is_ascii_alphanumeric() || "-_".contains(letter))
}

/// Returns the name by which a found database is known. Its own name may have any character, and this one is safe everywhere: in paths, logs, and
/// a ledger of any encoding.
pub fn name_of(server: &str, own: &str) -> String {
    format!("{server}.{}", plain_name::encode(own))
}

/// Returns the server and the database's own name. A name in another spelling than that of [`name_of`] is none.
pub fn parts(name: &str) -> Option<(&str, String)> {
    let (server, encoded) = name.split_once('.')?;
    let own = plain_name::decode(encoded).filter(|own| !own.is_empty() && plain_name::encode(own) == encoded)?;
    is_a_name(server).then_some((server, own))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_leads_back_to_its_database_whatever_that_is_called() {
        for own in [
            "tenant_7",
            "a/b",
            "..",
            ".",
            "a.b",
            "new\nline",
            "q\"uote'",
            "a@b",
            "über",
            "100%",
            "%2E",
            "\u{202e}x",
            " ",
            "postgres://h/d",
        ] {
            let name = name_of("main", own);
            assert_eq!(parts(&name), Some(("main", own.to_owned())), "{name}");
            assert!(name.is_ascii() && !name.contains(['/', '@', '"', '\'', ' ', '\n', ':']), "{name}");
            assert!(name.len() <= "main.".len() + 3 * own.len());
        }
        assert_eq!(name_of("main", "tenant_7"), "main.tenant_7");
        assert_ne!(name_of("main", "a%2Fb"), name_of("main", "a/b"));
        for none in ["main", "main.", ".x", "main.a/b", "main.%2f", "main.%61", "main.%", "main.%FF", "ma in.x", "main.ü"] {
            assert_eq!(parts(none), None, "{none}");
        }
    }

    #[test]
    fn a_database_counts_where_every_list_of_patterns_lets_it() {
        let patterns = |texts: &[&str]| texts.iter().map(|text| Pattern::new(text)).collect::<Vec<_>>();
        let server = |databases, include, exclude| Server {
            login: Database::default(),
            databases: patterns(databases),
            include: patterns(include),
            exclude: patterns(exclude),
        };
        for (server, own, expected) in [
            (server(&["*"], &[], &[]), "anything", true),
            (server(&["tenant_*"], &[], &[]), "postgres", false),
            (server(&["tenant_*", "shop"], &[], &[]), "shop", true),
            (server(&["*"], &["tenant_*"], &[]), "tenant_1", true),
            (server(&["*"], &["tenant_*"], &[]), "shop", false),
            (server(&["*"], &["tenant_*"], &["*_test"]), "tenant_test", false),
            (server(&["*"], &[], &["postgres"]), "postgres", false),
            (server(&[], &[], &[]), "anything", false),
        ] {
            assert_eq!(server.takes(own), expected, "{own} {server:?}");
        }
    }
}
