//! Which databases, and which of their schemas, the patterns of a job stand for.

use std::collections::BTreeSet;
use std::fmt;

use crate::base::pattern::Pattern;
use crate::config::servers::Candidate;
use crate::config::{Config, places};

/// A job with patterns in `databases`, or with `schemas`, has the places that they stand for now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Chosen {
    /// The databases that the file names beside the patterns.
    pub named: Vec<String>,
    pub patterns: Vec<Pattern>,
    /// Which schemas of each database; empty: its runs are on whole databases.
    pub schemas: Vec<Pattern>,
}

impl Chosen {
    /// `None` for a job that names all of its databases, and has no `schemas`.
    pub fn by(named: &[String], patterns: Vec<Pattern>, schemas: Vec<Pattern>) -> Option<Self> {
        (!patterns.is_empty() || !schemas.is_empty()).then(|| Self { named: named.to_vec(), patterns, schemas })
    }

    pub fn has_schemas(&self) -> bool {
        !self.schemas.is_empty()
    }

    /// Returns whether it is only known which schemas are meant once databases said which they have.
    pub fn has_patterns_of_schemas(&self) -> bool {
        self.schemas.iter().any(|schema| Pattern::is_one(schema.as_str()))
    }

    /// Returns the databases that the file names, and those of the candidates that a pattern stands for, in the order of their names.
    pub fn of<'c>(&self, candidates: impl IntoIterator<Item = &'c Candidate>) -> Vec<String> {
        let taken = candidates.into_iter().filter(|candidate| self.takes_database(candidate));
        let all: BTreeSet<&String> = self.named.iter().chain(taken.map(|candidate| &candidate.name)).collect();
        all.into_iter().cloned().collect()
    }

    /// Returns the places on one database: itself, or those of its schemas that patterns stand for, and those that the file names, whether it has them or
    /// not. In the order of their names.
    pub fn places_on(&self, database: &str, schemas: &[String]) -> Vec<String> {
        if !self.has_schemas() {
            return vec![database.to_owned()];
        }
        let named = self.schemas.iter().map(Pattern::as_str).filter(|text| !Pattern::is_one(text));
        let found = schemas.iter().map(String::as_str).filter(|schema| self.takes_schema(schema));
        let all: BTreeSet<String> = named.chain(found).map(|schema| places::name_of(database, schema)).collect();
        all.into_iter().collect()
    }

    /// Returns the places on these databases, in the order of their names. `schemas_of` says which schemas a database has.
    pub fn places<'s>(&self, databases: Vec<String>, schemas_of: impl Fn(&str) -> &'s [String]) -> Vec<String> {
        if !self.has_schemas() {
            return databases;
        }
        let mut places: Vec<String> =
            databases.iter().flat_map(|database| self.places_on(database, schemas_of(database))).collect();
        places.sort_unstable();
        places
    }

    /// Returns whether a pattern may stand for a database of this server.
    pub fn may_be_of(&self, server: &str) -> bool {
        let is_of_it = |pattern: &Pattern| pattern.around_dot().is_none_or(|(before, _)| before.matches(server));
        self.patterns.iter().any(is_of_it)
    }

    /// Returns the patterns that stand for nothing as long as the configuration stays as it is: those with a dot that name no server and no entry.
    pub fn of_nothing(&self, config: &Config) -> Vec<&Pattern> {
        let entries = config.entries();
        let is_of_nothing = |pattern: &&Pattern| {
            let before = pattern.around_dot().map(|(before, _)| before);
            before.is_some_and(|before| !config.servers.keys().any(|server| before.matches(server)))
                && !entries.iter().any(|entry| entry.is_meant_by(pattern))
        };
        self.patterns.iter().filter(is_of_nothing).collect()
    }

    /// Returns whether a place of this name is one of the job's, if it is there.
    pub fn takes(&self, place: &str, config: &Config) -> bool {
        let database = config.database_of(place);
        let is_of_schemas = match places::parts(place).filter(|_| database != place) {
            Some((_, schema)) => self.takes_schema(&schema),
            None => !self.has_schemas(),
        };
        let is_named = || self.named.iter().any(|named| named == database);
        let is_taken = || config.candidate(database).is_some_and(|candidate| self.takes_database(&candidate));
        is_of_schemas && (is_named() || is_taken())
    }

    fn takes_database(&self, candidate: &Candidate) -> bool {
        self.patterns.iter().any(|pattern| candidate.is_meant_by(pattern))
    }

    fn takes_schema(&self, schema: &str) -> bool {
        self.schemas.iter().any(|pattern| pattern.matches(schema))
    }
}

impl fmt::Display for Chosen {
    /// Writes what stands in the file: `tenant_*, shop`; with `schemas`, each database with each: `app:tenant_*`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let databases = || self.patterns.iter().map(Pattern::as_str).chain(self.named.iter().map(String::as_str));
        if !self.has_schemas() {
            return f.write_str(&databases().collect::<Vec<_>>().join(", "));
        }
        let schemas = || self.schemas.iter().map(Pattern::as_str);
        let places = databases().flat_map(|database| schemas().map(move |schema| format!("{database}:{schema}")));
        f.write_str(&places.collect::<Vec<_>>().join(", "))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chosen(named: &[&str], patterns: &[&str], schemas: &[&str]) -> Chosen {
        let pattern = |texts: &[&str]| texts.iter().map(|text| Pattern::new(text)).collect();
        let named: Vec<String> = named.iter().map(|name| (*name).to_owned()).collect();
        Chosen::by(&named, pattern(patterns), pattern(schemas)).unwrap()
    }

    #[test]
    fn schemas_stand_for_those_that_are_there_and_names_for_themselves() {
        let there = ["public", "tenant_1", "tenant_2", "T*", "other"].map(str::to_owned);
        for (schemas, expected) in [
            (&["*"][..], &["app:T.2A", "app:other", "app:public", "app:tenant_1", "app:tenant_2"][..]),
            (&["tenant_*"], &["app:tenant_1", "app:tenant_2"]),
            (&["tenant_*", "tenant_1", "tenant_9"], &["app:tenant_1", "app:tenant_2", "app:tenant_9"]),
            (&["nothing_*"], &[]),
        ] {
            assert_eq!(chosen(&["app"], &[], schemas).places_on("app", &there), expected, "{schemas:?}");
        }
        assert_eq!(chosen(&[], &["*"], &[]).places_on("app", &there), ["app"], "whole databases");
        assert_eq!(chosen(&["app"], &[], &["a", "b_*"]).places_on("app", &[]), ["app:a"], "nothing was found yet");
    }

    const CONFIG: &str = "
[databases.app]
url = \"postgres://me@db1/app\"
[databases.shop]
url = \"postgres://me@db1/shop\"
[servers.main]
url = \"postgres://me@db2\"
";

    #[test]
    fn whether_a_place_is_one_of_the_job_s_is_known_without_any_list() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("config.toml");
        std::fs::write(&path, CONFIG).unwrap();
        let config = crate::config::load(&path, &mut Vec::new()).unwrap();
        for (job, place, expected) in [
            (chosen(&["app"], &[], &["tenant_*"]), "app:tenant_1", true),
            (chosen(&["app"], &[], &["tenant_*"]), "app:other", false),
            (chosen(&["app"], &[], &["tenant_*"]), "app", false),
            (chosen(&["app"], &[], &["tenant_*"]), "shop:tenant_1", false),
            (chosen(&[], &["shop_*"], &["*"]), "main.shop_1:a.2Fb", true),
            (chosen(&[], &["shop_*"], &["*"]), "main.app:x", false),
            (chosen(&[], &["*"], &[]), "main.app", true),
            (chosen(&[], &["app*"], &[]), "app:x", false),
            (chosen(&[], &["*"], &["*"]), "app", false),
            (chosen(&[], &["main.*"], &["*"]), "main.shop_1:x", true),
            (chosen(&[], &["other.*"], &["*"]), "main.shop_1:x", false),
            (chosen(&[], &["*"], &["*"]), "nowhere.shop_1:x", false),
        ] {
            assert_eq!(job.takes(place, &config), expected, "{job} {place}");
        }
    }

    #[test]
    fn it_reads_as_it_stands_in_the_file() {
        assert_eq!(chosen(&["shop"], &["tenant_*"], &[]).to_string(), "tenant_*, shop");
        assert_eq!(chosen(&["app"], &[], &["*"]).to_string(), "app:*");
        assert_eq!(chosen(&["b"], &["a*"], &["x", "y_*"]).to_string(), "a*:x, a*:y_*, b:x, b:y_*");
    }
}
