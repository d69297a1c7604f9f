//! `[servers.NAME]`: a server whose databases are found. Each is known as SERVER.DATABASE, and that name says all that is needed to connect: a list of
//! what was found is only needed to know which there are.

use std::borrow::Cow;

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_decode_str, utf8_percent_encode};

use super::{Config, Database};
use crate::base::pattern::Pattern;

/// The characters that a database's own name keeps, besides letters and digits.
const PLAIN: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'_');

/// A folder of a store has at most 255 bytes; a database's own name takes up to three times 63.
const LONGEST_NAME: usize = 63;

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

/// A database that patterns may choose. Its own name is what its owner, or whoever may create databases, calls it: no pattern that is meant for a server
/// may know it by that.
#[derive(Clone, Debug)]
pub struct Candidate {
    /// Its name in the configuration.
    pub name: String,
    /// What patterns with a dot know it by: SERVER.DATABASE, and an entry's name.
    pub full: Vec<String>,
    /// What patterns without a dot know it by: its own name, and an entry's.
    pub plain: Vec<String>,
}

impl Candidate {
    /// Returns a database that is found on a server.
    pub fn found(server: &str, own: &str) -> Self {
        let name = name_of(server, own);
        Self { full: vec![name.clone()], plain: vec![own.to_owned()], name }
    }

    /// Returns whether a pattern stands for it. What is before the first dot of a pattern is of servers' names alone, and the rest of their databases', as
    /// SERVER.DATABASE spells them: a database that is called `prod.x` on another server is none of `prod.*`.
    pub fn is_meant_by(&self, pattern: &Pattern) -> bool {
        let Some((server, database)) = pattern.around_dot() else { return self.plain.iter().any(|name| pattern.matches(name)) };
        let is_it = |(of, own): (&str, &str)| server.matches(of) && database.matches(own);
        self.full.iter().filter_map(|name| name.split_once('.')).any(is_it)
    }
}

impl Config {
    /// Returns the databases that have an entry of their own. Patterns know each by the entry's name, by its own, and as SERVER.DATABASE, so that no job
    /// loses a database that gets an entry.
    pub fn entries(&self) -> Vec<Candidate> {
        let place = |server: &Server| Some(server.login.settings().ok()?.server());
        let servers: Vec<_> = self.servers.iter().filter_map(|(name, server)| Some((name, server, place(server)?))).collect();
        let entry = |(name, database): (&String, &Database)| {
            let (mut full, mut plain) = (vec![name.clone()], vec![name.clone()]);
            if let Ok(settings) = database.settings() {
                let own = settings.database();
                let of_it = servers.iter().filter(|(_, server, place)| *place == settings.server() && server.takes(own));
                full.extend(of_it.map(|(server, ..)| name_of(server, own)));
                plain.push(own.to_owned());
            }
            Candidate { name: name.clone(), full, plain }
        };
        self.databases.iter().map(entry).collect()
    }

    /// Returns a database by its name, as patterns know it if it is there: none where its server's patterns leave it out, and where an entry has its place.
    pub fn candidate(&self, name: &str) -> Option<Candidate> {
        if self.databases.contains_key(name) {
            return self.entries().into_iter().find(|entry| entry.name == name);
        }
        let (server_name, own) = parts(name)?;
        let server = self.servers.get(server_name).filter(|server| server.takes(&own))?;
        let place = server.login.settings().ok()?.server();
        let is_it = |entry: &Database| entry.settings().is_ok_and(|entry| entry.server() == place && entry.database() == own);
        (!self.databases.values().any(is_it)).then(|| Candidate::found(server_name, &own))
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
    let is_plain = name.chars().all(|letter| letter.is_ascii_alphanumeric() || "-_".contains(letter));
    is_plain && (1..=LONGEST_NAME).contains(&name.len())
}

/// Returns the name by which a found database is known: every byte of its own name that is no plain letter is a dot and two digits, so that `a/b` is `a.2Fb`.
/// That is safe everywhere: in paths, which keep it as it is, in logs, in a shell, and in a ledger of any encoding.
pub fn name_of(server: &str, own: &str) -> String {
    format!("{server}.{}", encode(own))
}

/// Returns the server and the database's own name. A name in another spelling than that of [`name_of`] is none.
pub fn parts(name: &str) -> Option<(&str, String)> {
    let (server, encoded) = name.split_once('.')?;
    let own = percent_decode_str(&encoded.replace('.', "%")).decode_utf8().ok()?.into_owned();
    (is_a_name(server) && !own.is_empty() && encode(&own) == encoded).then_some((server, own))
}

/// As in a URL, with a dot for the percent sign. No other dot and no percent sign is left then.
fn encode(own: &str) -> String {
    utf8_percent_encode(own, PLAIN).to_string().replace('%', ".")
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
            ".2E",
            "\u{202e}x",
            " ",
            "postgres://h/d",
        ] {
            let name = name_of("main", own);
            assert_eq!(parts(&name), Some(("main", own.to_owned())), "{name}");
            assert!(name.chars().all(|letter| letter.is_ascii_alphanumeric() || ".-_".contains(letter)), "{name}");
        }
        assert_eq!(name_of("main", "tenant_7"), "main.tenant_7");
        assert_eq!(name_of("main", "a/b"), "main.a.2Fb");
        assert_ne!(name_of("main", "a.2Fb"), name_of("main", "a/b"));
        assert_ne!(name_of("main", "Shop"), name_of("main", "shop"));
        for none in
            ["main", "main.", ".x", "main.a/b", "main..2f", "main..61", "main..", "main..FF", "main.a%2Fb", "ma in.x", "main.ü"]
        {
            assert_eq!(parts(none), None, "{none}");
        }
    }

    #[test]
    fn the_longest_names_fit_into_a_folder_of_a_store() {
        let (server, own) = ("s".repeat(LONGEST_NAME), "€".repeat(21));
        assert_eq!(own.len(), 63, "PostgreSQL's longest");
        let name = name_of(&server, &own);
        assert_eq!(parts(&name), Some((server.as_str(), own)));
        assert!(is_a_name(&server) && !is_a_name(&format!("{server}s")));
        assert!(name.len() <= 255, "{}", name.len());
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
