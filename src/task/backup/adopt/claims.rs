//! What an adopted dump says of itself and names: claims of whoever wrote it, from its head and its statements. Pure.

use std::collections::BTreeSet;

use crate::base::units;
use crate::store::SMALL_OBJECT_BYTES;
use crate::task::backup::adopted::UNKNOWN;
use crate::task::backup::facts::Extension;
use crate::task::backup::named::role_names;
use crate::task::backup::own_bytes;
use crate::task::backup::tokens::Statement;

/// A dump that names more of one kind was not made by pg_dump, or is of no server that could be restored.
const NAMES_MOST: usize = 10_000;

/// PostgreSQL's limit for a name (NAMEDATALEN - 1), in bytes.
const NAME_BYTES_MOST: usize = 63;

/// The least that a table takes in a manifest besides its names.
const TABLE_BYTES_LEAST: u64 = 100;

/// A version with all that packagers add to it.
const VERSION_LETTERS_MOST: usize = 60;

#[derive(Clone, Debug, Default)]
pub struct Claims {
    /// `16.2 (Debian 16.2-1)`
    pub server_version: Option<String>,
    dumped_by: Option<String>,
    pub client_encoding: Option<String>,
    /// Owners and grantees.
    pub roles: BTreeSet<String>,
    pub extensions: Vec<Extension>,
    pub tablespaces: BTreeSet<String>,
    last_table: Option<(String, String)>,
    /// The least that the tables so far take in a manifest.
    tables_bytes: u64,
}

impl Claims {
    /// Takes the lines at the head of the dump, up to its first statement.
    pub fn of_head(&mut self, head: &[u8]) {
        for line in head.split(|byte| *byte == b'\n') {
            let line = String::from_utf8_lossy(line);
            let version = |start: &str| {
                let text = line.strip_prefix(start)?.trim();
                Some(text.chars().filter(|letter| !letter.is_control()).take(VERSION_LETTERS_MOST).collect::<String>())
            };
            self.server_version = self.server_version.take().or_else(|| version("-- Dumped from database version "));
            self.dumped_by = self.dumped_by.take().or_else(|| version("-- Dumped by pg_dump version "));
        }
    }

    /// Takes what a restore of the statement needs. An error where there is more than any dump has.
    pub fn of_statement(&mut self, statement: &Statement<'_>) -> Result<(), String> {
        let roles = role_names(statement.text);
        roles.iter().try_for_each(|name| is_a_name(name))?;
        self.roles.extend(roles);
        if statement.says(0, &["CREATE", "EXTENSION"])
            && let Some(extension) = extension(statement)
        {
            [Some(&extension.name), extension.schema.as_ref()].into_iter().flatten().try_for_each(|name| is_a_name(name))?;
            self.extensions.push(extension);
        }
        if statement.says(0, &["SET"]) && statement.is_symbol(2, b'=') {
            match statement.name(1).as_deref() {
                Some("default_tablespace") => {
                    let name = statement.name(3).filter(|name| !name.is_empty());
                    name.iter().try_for_each(|name| is_a_name(name))?;
                    self.tablespaces.extend(name);
                }
                Some("client_encoding") => {
                    let value = statement.tokens.get(3).map(|token| statement.raw(token).trim_matches('\'').to_owned());
                    self.client_encoding = value;
                }
                _ => {}
            }
        }
        let most = self.roles.len().max(self.extensions.len()).max(self.tablespaces.len());
        if most > NAMES_MOST { Err(format!("it names more than {NAMES_MOST} roles, extensions or tablespaces")) } else { Ok(()) }
    }

    /// Takes the table of a COPY. An error where there are more than a manifest could list.
    pub fn of_copy(&mut self, statement: &Statement<'_>) -> Result<(), String> {
        let Some((Some(schema), table, _)) = statement.qualified(1) else { return Ok(()) };
        is_a_name(&schema)?;
        is_a_name(&table)?;
        let name = (schema, table);
        if self.last_table.as_ref() == Some(&name) {
            return Ok(());
        }
        self.tables_bytes += TABLE_BYTES_LEAST + (name.0.len() + name.1.len()) as u64;
        self.last_table = Some(name);
        if self.tables_bytes > SMALL_OBJECT_BYTES {
            return Err(format!(
                "it has more tables than a manifest of {} can list. Dump it in parts, by schemas",
                units::bytes(SMALL_OBJECT_BYTES)
            ));
        }
        Ok(())
    }

    /// In the form in which pg_dump itself says it.
    pub fn pg_dump_version(&self) -> String {
        self.dumped_by.as_ref().map_or(UNKNOWN.to_owned(), |version| format!("pg_dump (PostgreSQL) {version}"))
    }

    /// 160002 of `16.2`, 90624 of `9.6.24`; 0 where it is not known.
    pub fn version_num(&self) -> i32 {
        let word = self.server_version.as_deref().unwrap_or_default().split(' ').next().unwrap_or_default();
        let digits = |part: &str| part.chars().take_while(char::is_ascii_digit).take(4).collect::<String>().parse().unwrap_or(0);
        let parts: Vec<i32> = word.split('.').take(3).map(digits).collect();
        match parts[..] {
            [major @ ..10, minor, patch] => major * 10_000 + minor * 100 + patch,
            [major, minor, ..] => major * 10_000 + minor,
            [major] => major * 10_000,
            [] => 0,
        }
    }
}

/// Counts the bytes as they stand in the dump, whose encoding may be another than UTF-8.
fn is_a_name(name: &str) -> Result<(), String> {
    let bytes = own_bytes::bytes(name);
    if bytes.len() <= NAME_BYTES_MOST {
        return Ok(());
    }
    let start: String = String::from_utf8_lossy(&bytes).chars().take(20).collect();
    Err(format!("it has a name of {} bytes, {start}…, and PostgreSQL's have at most {NAME_BYTES_MOST}", bytes.len()))
}

fn extension(statement: &Statement<'_>) -> Option<Extension> {
    let at = if statement.says(2, &["IF", "NOT", "EXISTS"]) { 5 } else { 2 };
    let schema = statement.find(&["WITH", "SCHEMA"]).and_then(|found| statement.name(found + 2));
    Some(Extension { name: statement.name(at)?, version: UNKNOWN.to_owned(), schema })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_head_says_the_versions_or_they_stay_unknown() {
        let mut claims = Claims::default();
        claims.of_head(b"--\n-- PostgreSQL database dump\n--\n\n-- Dumped from database version 16.2 (Debian 16.2-1)\n-- Dumped by pg_dump version 17.0\n");
        assert_eq!((claims.version_num(), claims.pg_dump_version()), (160_002, "pg_dump (PostgreSQL) 17.0".to_owned()));
        let none = Claims::default();
        assert_eq!((none.version_num(), none.pg_dump_version()), (0, "unknown".to_owned()));
        for (version, number) in [("9.6.24", 90_624), ("18beta1", 180_000), ("99999999999.1", 99_990_001), ("x", 0), ("", 0)] {
            let claims = Claims { server_version: Some(version.to_owned()), ..Claims::default() };
            assert_eq!(claims.version_num(), number, "{version}");
        }
    }

    #[test]
    fn more_tables_than_a_manifest_lists_are_refused_in_bounded_memory() {
        let mut claims = Claims::default();
        let name = "x".repeat(50);
        let copy = |number: u32| format!("COPY public.{name}{number} (i) FROM stdin");
        let refused =
            (0..1_000_000).find_map(|number| claims.of_copy(&Statement::of(&copy(number))).err().map(|why| (number, why)));
        let (number, why) = refused.unwrap();
        assert!((300_000..450_000).contains(&number) && why.contains("more tables than a manifest"), "{number}: {why}");
        let mut claims = Claims::default();
        (0..1000).for_each(|_| claims.of_copy(&Statement::of(&copy(0))).unwrap());
        assert!(claims.tables_bytes < 200, "blocks of one table");
    }

    #[test]
    fn a_name_is_as_long_as_its_bytes_in_the_encoding_of_the_dump() {
        for (bytes, is_one) in [(vec![b'x'; 63], true), (vec![b'x'; 64], false), (vec![0xfc; 63], true), (vec![0xfc; 64], false)]
        {
            let mut claims = Claims::default();
            let text = own_bytes::text([b"COPY public.\"", &bytes[..], b"\" (i) FROM stdin"].concat());
            assert_eq!(claims.of_copy(&Statement::of(&text)).is_ok(), is_one, "{bytes:?}");
            let text = own_bytes::text([b"ALTER TABLE public.t OWNER TO \"", &bytes[..], b"\""].concat());
            assert_eq!(claims.of_statement(&Statement::of(&text)).is_ok(), is_one, "{bytes:?}");
        }
    }

    #[test]
    fn a_statement_says_which_roles_extensions_and_tablespaces_it_needs() {
        let mut claims = Claims::default();
        for text in [
            "ALTER TABLE public.t OWNER TO \"An Owner\"",
            "GRANT SELECT ON TABLE public.t TO reader",
            "REVOKE ALL ON SCHEMA public FROM PUBLIC",
            "CREATE EXTENSION IF NOT EXISTS citext WITH SCHEMA \"Ext\"",
            "SET default_tablespace = fast",
            "SET default_tablespace = ''",
            "SET client_encoding = 'LATIN1'",
        ] {
            claims.of_statement(&Statement::of(text)).unwrap();
        }
        assert_eq!(claims.roles.iter().map(String::as_str).collect::<Vec<_>>(), ["An Owner", "reader"]);
        assert_eq!(claims.tablespaces.iter().map(String::as_str).collect::<Vec<_>>(), ["fast"]);
        assert_eq!(claims.client_encoding.as_deref(), Some("LATIN1"));
        let [extension] = &claims.extensions[..] else { panic!("{:?}", claims.extensions) };
        assert_eq!((extension.name.as_str(), extension.schema.as_deref()), ("citext", Some("Ext")));
    }
}
