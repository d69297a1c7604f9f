//! `[servers.NAME]`.

use toml::Spanned;

use super::{Loader, MAX_SESSIONS_MOST};
use crate::base::pattern::Pattern;
use crate::config::names::Names;
use crate::config::secret::Secret;
use crate::config::servers::{self, MAX_CONCURRENT, Server};
use crate::config::written::WrittenServer;
use crate::config::{Config, Database, sessions};

/// The database to ask, where `url` names none: every server has it.
const MAINTENANCE: &str = "postgres";

impl Loader<'_> {
    pub(super) fn server(&mut self, name: &str, written: WrittenServer) -> Server {
        let WrittenServer { url, url_env, url_file, role, databases, include, exclude, max_sessions, max_concurrent } = written;
        if !servers::is_a_name(name) {
            let message = format!("`{}` cannot be a server's name", name.escape_default());
            let hint = "up to 63 letters, digits, `-` and `_`: its databases are known as SERVER.DATABASE".to_owned();
            self.problems.push(self.source.problem(None, message, Some(hint)));
        }
        if let Some(limit) = max_concurrent.as_ref().filter(|limit| !(1..=1000).contains(limit.get_ref())) {
            self.problem(limit, format!("`max_concurrent = {}` is out of range", limit.get_ref()), "1 to 1000");
        }
        if let Some(limit) =
            max_sessions.as_ref().filter(|limit| !(sessions::least(false)..=MAX_SESSIONS_MOST).contains(limit.get_ref()))
        {
            self.problem(limit, format!("`max_sessions = {}` is out of range", limit.get_ref()), "4 or more, as of a database");
        }
        let of = format!("server `{name}`");
        let url = self.connection(&of, Secret { key: "url", of: &of, literal: url, env: url_env, file: url_file });
        let names_a_database =
            url.as_ref().is_some_and(|url| crate::pg::Settings::names_a_database(secrecy::ExposeSecret::expose_secret(url)));
        Server {
            login: Database {
                url,
                role,
                max_sessions: max_sessions.map(Spanned::into_inner),
                max_concurrent: Some(max_concurrent.map_or(MAX_CONCURRENT, Spanned::into_inner)),
                on_server: (!names_a_database).then(|| MAINTENANCE.to_owned()),
                ..Database::default()
            },
            databases: databases.map_or_else(|| vec![Pattern::new("*")], |databases| self.patterns(databases)),
            include: include.map(|include| self.patterns(include)).unwrap_or_default(),
            exclude: exclude.map(|exclude| self.patterns(exclude)).unwrap_or_default(),
        }
    }

    /// A list without a pattern would let nothing pass, which nobody means.
    fn patterns(&mut self, names: Spanned<Names>) -> Vec<Pattern> {
        let patterns: Vec<Pattern> = names.get_ref().texts().into_iter().map(Pattern::new).collect();
        if patterns.is_empty() || patterns.iter().any(|pattern| pattern.as_str().is_empty()) {
            let hint = "name databases or patterns of names: [\"tenant_*\", \"shop\"]; \"*\" stands for all";
            self.problem(&names, "a list of patterns is empty, or one of them is".to_owned(), hint);
        }
        patterns
    }

    /// A database under two names would have two series of sets, and each job twice.
    pub(super) fn one_server_twice(&mut self, config: &Config) {
        let place = |server: &Server| Some(server.login.settings().ok()?.server());
        let places: Vec<(&String, String)> =
            config.servers.iter().filter_map(|(name, server)| Some((name, place(server)?))).collect();
        for (number, (name, place)) in places.iter().enumerate() {
            let Some((first, _)) = places[..number].iter().find(|(_, earlier)| earlier == place) else { continue };
            let hint = Some(format!("name one of the two, with all patterns: databases = [\"…\", \"…\"] in [servers.{first}]"));
            let message = format!("[servers.{first}] and [servers.{name}] are one server, {place}");
            self.problems.push(self.source.problem(None, message, hint));
        }
    }

    /// Two databases under one name would share their sets.
    pub(super) fn ambiguous_names(&mut self, config: &Config) {
        let is_of_server = |name: &&String| servers::parts(name).is_some_and(|(server, _)| config.servers.contains_key(server));
        for name in config.databases.keys().filter(is_of_server) {
            let hint = Some("give the entry another name, without the server's and a dot".to_owned());
            let message = format!("[databases.\"{name}\"] has a name that a database of its server may have");
            self.problems.push(self.source.problem(None, message, hint));
        }
    }
}
