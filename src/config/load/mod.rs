//! Reads `config.toml`: every key is checked, and every mistake is reported with its place.

mod age_keys;
mod notify;
mod servers;
mod stores;

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::num::IntErrorKind;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::time::Duration;

use secrecy::{ExposeSecret as _, SecretString};
use toml::Spanned;

use super::secret::Secret;
use super::written::{Written, WrittenDatabase, WrittenLedger, WrittenServe, WrittenVerify};
use super::{Config, Database, Ledger, Metrics, NamedFile, Serve, Server, Tools, Verify, sessions};
use crate::base::toml_file::{self, Problem, Source, did_you_mean, without_number};

/// This is more than a year, so that a yearly review finds last year's runs.
const LEDGER_KEEP: Duration = Duration::from_secs(400 * 24 * 3600);
const LEDGER_KEEP_LAST: u32 = 20;
/// 10,000 databases with three jobs a day have 900,000 rows in it.
const LEDGER_KEEP_FOUND: Duration = Duration::from_secs(30 * 24 * 3600);

/// A shorter token can be guessed.
const MIN_ACTIONS_TOKEN_BYTES: usize = 16;

/// More connections no server has.
const MAX_SESSIONS_MOST: u32 = 262_143;

/// A process of PostgreSQL has 250 MB of address space before it does anything, and index builds of a restore use 512 MiB.
const MIN_VERIFY_MEMORY_BYTES: u64 = 1 << 30;

/// Reads the configuration. Mistakes go to `problems`; the valid part is returned all the same.
pub fn load(path: &Path, problems: &mut Vec<Problem>) -> Option<Config> {
    let source = match Source::read(path) {
        Ok(source) => source,
        Err(error) => {
            let hint = "name the file with --config FILE; `config.toml` in pgtend's repository is an example".to_owned();
            problems.push(Problem::with_file(
                path,
                format!("cannot read the configuration: {}", without_number(&error)),
                Some(hint),
            ));
            return None;
        }
    };
    let toml_file::Read { value: written, without, notes } = toml_file::parse::<Written>(&source, problems)?;
    let mut mistaken = mistaken(&without);
    let folder = path.parent().unwrap_or(Path::new("."));
    let mut loader = Loader { source: &source, folder, without: &without, problems, files: Vec::new() };
    let has_ledger = written.ledger.is_some();
    let max_sessions: Vec<(String, Spanned<u32>)> =
        written.databases.iter().filter_map(|(name, database)| Some((name.clone(), database.max_sessions.clone()?))).collect();
    let databases: BTreeMap<String, Database> = written
        .databases
        .into_iter()
        .map(|(name, database)| {
            let database = loader.database(&name, database, has_ledger);
            (name, database)
        })
        .collect();
    let servers = written.servers.into_iter().map(|(name, server)| {
        let server = loader.server(&name, server);
        (name, server)
    });
    let servers: BTreeMap<String, Server> = servers.collect();
    let mut stores = BTreeMap::new();
    for (name, store) in written.stores {
        match loader.store(&name, store) {
            Some(store) => {
                stores.insert(name, store);
            }
            None => {
                mistaken.insert(format!("stores.{name}"));
            }
        }
    }
    let ledger = written.ledger.map(|ledger| loader.ledger(ledger, &databases, &mistaken));
    let serve = loader.serve(written.serve);
    let notify = loader.notify(written.notify, &mut mistaken);
    let tools = Tools {
        bin_dir: written.tools.bin_dir.map(|bin_dir| folder.join(bin_dir)),
        server_bin_dir: written.tools.server_bin_dir.map(|bin_dir| absolute(&folder.join(bin_dir))),
        run_as: written.tools.run_as,
    };
    let verify = loader.verify(written.verify);
    let metrics = Metrics { textfile_dir: written.metrics.textfile_dir.map(|textfile_dir| folder.join(textfile_dir)) };
    let config = Config {
        path: path.to_owned(),
        databases,
        servers,
        stores,
        tools,
        ledger,
        serve,
        notify,
        metrics,
        verify,
        mistaken,
        notes,
        files: std::mem::take(&mut loader.files),
    };
    for (database, limit) in &max_sessions {
        loader.max_sessions(database, limit, &config);
    }
    loader.ambiguous_names(&config);
    loader.one_server_twice(&config);
    Some(config)
}

/// Names the databases, servers, stores and places for messages that were left out, as they have mistakes.
fn mistaken(without: &[Vec<String>]) -> BTreeSet<String> {
    const KINDS: [&str; 4] = ["databases", "servers", "stores", "notify"];
    let near = |key: &str| KINDS.into_iter().filter(|kind| did_you_mean(key, [*kind]).is_some()).map(str::to_owned).collect();
    let of = |path: &Vec<String>| -> Vec<String> {
        match path.as_slice() {
            [kind, name] if KINDS.contains(&kind.as_str()) => vec![format!("{kind}.{name}")],
            [kind] => near(kind),
            _ => Vec::new(),
        }
    };
    without.iter().flat_map(of).collect()
}

struct Loader<'a> {
    source: &'a Source,
    folder: &'a Path,
    /// The keys that have mistakes already.
    without: &'a [Vec<String>],
    problems: &'a mut Vec<Problem>,
    /// The files that keys have named so far.
    files: Vec<NamedFile>,
}

impl Loader<'_> {
    fn problem<T>(&mut self, at: &Spanned<T>, message: String, hint: &str) {
        if !self.problems.iter().any(|problem| problem.is_within(&at.span())) {
            self.problems.push(self.source.problem(Some(at.span()), message, Some(hint.to_owned())));
        }
    }

    /// Reads a secret, and notes the file that holds it. Returns it with the place that names it.
    fn secret(&mut self, secret: Secret<'_>) -> Option<(String, Option<Range<usize>>)> {
        self.files.extend(secret.named_file(self.folder));
        secret.read(self.source, self.folder, self.problems)
    }

    fn database(&mut self, name: &str, written: WrittenDatabase, has_ledger: bool) -> Database {
        let WrittenDatabase {
            url,
            url_env,
            url_file,
            role,
            owner_url,
            owner_url_env,
            owner_url_file,
            max_sessions,
            max_concurrent,
            group,
        } = written;
        let max_sessions = max_sessions.map(Spanned::into_inner);
        if let Some(limit) = max_concurrent.as_ref().filter(|limit| !(1..=1000).contains(limit.get_ref())) {
            self.problem(limit, format!("`max_concurrent = {}` is out of range", limit.get_ref()), "1 to 1000");
        }
        if let (Some(limit), false) = (&max_concurrent, has_ledger) {
            let message = "`max_concurrent` of a database needs a [ledger], where runners see each other".to_owned();
            self.problem(limit, message, "add [ledger] with database = \"NAME\"");
        }
        if let (Some(group), None) = (&group, &max_concurrent) {
            self.problem(
                group,
                "`group` without `max_concurrent`".to_owned(),
                "databases of a group share that number: set it for each of them",
            );
        }
        let (max_concurrent, group) = (max_concurrent.map(Spanned::into_inner), group.map(Spanned::into_inner));
        let of = format!("database `{name}`");
        let url = self.connection(&of, Secret { key: "url", of: &of, literal: url, env: url_env, file: url_file });
        let owner = Secret { key: "owner_url", of: &of, literal: owner_url, env: owner_url_env, file: owner_url_file };
        let owner_url = self.connection(&of, owner);
        Database { url, role, owner_url, max_sessions, max_concurrent, group, on_server: None, schema: None }
    }

    fn max_sessions(&mut self, database: &str, limit: &Spanned<u32>, config: &Config) {
        let has_ledger = config.has_ledger_on_the_server_of(database);
        let least = sessions::least(has_ledger);
        if (least..=MAX_SESSIONS_MOST).contains(limit.get_ref()) {
            return;
        }
        let of_ledger = if has_ledger { ", and 2 for the ledger, which is on the same server" } else { "" };
        let hint = format!(
            "{least} to {MAX_SESSIONS_MOST}: a backup opens one session for its lock, one for pg_dump, one that looks for others who wait behind \
             the dump, and one that asks why, if it fails{of_ledger}"
        );
        self.problem(limit, format!("`max_sessions = {}` is out of range", limit.get_ref()), &hint);
    }

    /// A URL that does not parse is a mistake of the file, wherever the text came from.
    fn connection(&mut self, of: &str, secret: Secret<'_>) -> Option<SecretString> {
        let (url, span) = self.secret(secret)?;
        if let Err(error) = crate::pg::Settings::check_url(&url) {
            let hint = super::url_instead::instead(&url);
            self.problems.push(self.source.problem(
                span,
                format!("{of}: not a URL that pgtend can connect with: {error}"),
                Some(hint),
            ));
        }
        Some(SecretString::from(url))
    }

    fn ledger(&mut self, written: WrittenLedger, databases: &BTreeMap<String, Database>, mistaken: &BTreeSet<String>) -> Ledger {
        let name = written.database.get_ref();
        let may_be_there = mistaken.contains("databases") || mistaken.contains(&format!("databases.{name}"));
        if !databases.contains_key(name) && !may_be_there {
            // A URL or a login in the place of a name is not repeated.
            let is_private = name.contains("://") || name.contains('@');
            let near = did_you_mean(name, databases.keys().map(String::as_str)).filter(|_| !is_private);
            let add = if is_private { "name one of [databases.NAME]".to_owned() } else { format!("add [databases.{name}]") };
            let shown = if is_private { "…" } else { name };
            let message = format!("the ledger's database `{shown}` is not configured");
            self.problem(&written.database, message, &near.unwrap_or(add));
        }
        if let Some(keep) = written.keep_last.as_ref().filter(|keep| *keep.get_ref() < LEDGER_KEEP_LAST) {
            self.problem(
                keep,
                format!("`keep_last = {}` is out of range", keep.get_ref()),
                "20 or more: pgtend reads its own history",
            );
        }
        Ledger {
            database: written.database.into_inner(),
            keep: written.keep.map_or(LEDGER_KEEP, |keep| keep.0),
            keep_last: written.keep_last.map_or(LEDGER_KEEP_LAST, Spanned::into_inner),
            keep_found: written.keep_found.map_or(LEDGER_KEEP_FOUND, |keep| keep.0),
        }
    }

    fn serve(&mut self, written: WrittenServe) -> Serve {
        let listen = written.listen.as_ref().and_then(|listen| match listen.get_ref().parse() {
            Ok(address) => Some(address),
            Err(_) => {
                let message = format!("`{}` is not an address to listen on", listen.get_ref());
                let written = listen.get_ref().rsplit(':').next().unwrap_or_default();
                let (port, range) = match written.parse::<u16>() {
                    Ok(_) => (written, ""),
                    Err(error) if *error.kind() == IntErrorKind::PosOverflow => ("9187", " from 1 to 65535"),
                    Err(_) => ("9187", ""),
                };
                let hint = format!(
                    "an IP address and a port{range}: \"127.0.0.1:{port}\" for this host alone, \"0.0.0.0:{port}\" for all of its addresses"
                );
                self.problem(listen, message, &hint);
                None
            }
        });
        if let Some(count) = written.max_concurrent.as_ref().filter(|count| !(1..=1000).contains(count.get_ref())) {
            self.problem(count, format!("`max_concurrent = {}` is out of range", count.get_ref()), "1 to 1000");
        }
        let secret = Secret { key: "token", of: "[serve]", literal: None, env: written.token_env, file: written.token_file };
        let token = self.secret(secret).map(|(token, span)| {
            if token.is_empty() {
                let hint = Some("use a long random text: `openssl rand -hex 32`".to_owned());
                self.problems.push(self.source.problem(span, "the token of [serve] is empty", hint));
            }
            SecretString::from(token)
        });
        let actions_token = self.actions_token(written.actions_token_env, written.actions_token_file, token.as_ref());
        let hosts = written.hosts.into_iter().filter_map(|host| self.host(host)).collect();
        Serve {
            listen: listen.unwrap_or_else(|| SocketAddr::from(([127, 0, 0, 1], 9187))),
            token,
            actions_token,
            hosts,
            max_concurrent: written.max_concurrent.map_or(4, Spanned::into_inner).clamp(1, 1000),
            drain_timeout: written.drain_timeout.map_or(Duration::from_secs(30), |timeout| timeout.0),
        }
    }

    /// Whoever may read the pages may not yet act on them, so it is a token of its own.
    fn actions_token(
        &mut self,
        env: Option<Spanned<String>>,
        file: Option<Spanned<PathBuf>>,
        token: Option<&SecretString>,
    ) -> Option<SecretString> {
        let secret = Secret { key: "actions_token", of: "[serve]", literal: None, env, file };
        let (actions_token, span) = self.secret(secret)?;
        let hint = Some("use a long random text of its own: `openssl rand -hex 32`".to_owned());
        if actions_token.len() < MIN_ACTIONS_TOKEN_BYTES {
            let message = format!("the actions_token of [serve] has fewer than {MIN_ACTIONS_TOKEN_BYTES} characters");
            self.problems.push(self.source.problem(span, &message, hint));
        } else if token.is_some_and(|token| token.expose_secret() == actions_token) {
            self.problems.push(self.source.problem(span, "the actions_token of [serve] is its token, too", hint));
        }
        Some(SecretString::from(actions_token))
    }

    /// Takes a plain name: one with a port or a scheme would never match.
    fn host(&mut self, written: Spanned<String>) -> Option<String> {
        let host = written.get_ref().trim_end_matches('.').to_ascii_lowercase();
        let is_name = |letter: char| letter.is_ascii_alphanumeric() || matches!(letter, '.' | '-' | '_');
        if !host.is_empty() && host.chars().all(is_name) {
            return Some(host);
        }
        let message = format!("`{}` is not a host name", written.get_ref());
        self.problem(&written, message, "write the name without scheme and port: \"db1.example.com\"");
        None
    }

    fn verify(&mut self, written: WrittenVerify) -> Verify {
        if let Some(memory) = written.memory.as_ref().filter(|memory| memory.get_ref().0 < MIN_VERIFY_MEMORY_BYTES) {
            let hint = "use 1GiB or more: index builds take 512 MiB of it, and PostgreSQL itself a quarter";
            self.problem(memory, format!("`memory` of {} is too little", memory.get_ref()), hint);
        }
        Verify {
            scratch_dir: written.scratch_dir.map(|scratch_dir| absolute(&self.folder.join(scratch_dir))),
            memory_bytes: written.memory.map(|memory| memory.into_inner().0),
        }
    }
}

/// Makes a path absolute, so that a printed location means the same in every folder.
fn absolute(path: &Path) -> PathBuf {
    std::path::absolute(path).unwrap_or_else(|_| path.to_owned())
}

#[cfg(test)]
impl Config {
    /// Returns the configuration of this text, which has no mistakes.
    pub fn for_tests(text: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("config.toml");
        std::fs::write(&path, text).unwrap();
        let mut problems = Vec::new();
        let config = load(&path, &mut problems).unwrap();
        assert!(problems.is_empty(), "{problems:?}");
        config
    }
}
