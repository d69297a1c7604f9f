//! `config.toml`: databases, stores, tools, and how pgtend itself runs. The keys as written ([`Written`]) become resolved ones
//! ([`Config`]) once.

pub mod checker;
pub mod limits;
mod written;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Result;
use schemars::JsonSchema;
use secrecy::{ExposeSecret as _, SecretString};
use serde::Deserialize;
use toml::Spanned;
pub use written::{Written, WrittenDatabase, WrittenLedger, WrittenNotify, WrittenServe, WrittenStore};

use crate::base::toml_file::{self, Problem, Source, did_you_mean};
use crate::base::units::Span;
use crate::pg;

/// This is more than a year, so that a yearly review finds last year's runs.
const LEDGER_KEEP: Duration = Duration::from_secs(400 * 24 * 3600);
const LEDGER_KEEP_LAST: u32 = 20;

/// This is the length of an HMAC-SHA256 hash (RFC 2104, 3): a shorter key is weaker than the hash.
const SIGN_KEY_BYTES: usize = 32;

/// The resolved configuration.
#[derive(Clone, Debug)]
pub struct Config {
    pub path: PathBuf,
    pub databases: BTreeMap<String, Database>,
    pub stores: BTreeMap<String, Store>,
    pub tools: Tools,
    pub ledger: Option<Ledger>,
    pub serve: Serve,
    pub notify: Notify,
    pub metrics: Metrics,
    pub verify: Verify,
}

/// Where the run history is, and how long it is kept.
#[derive(Clone, Debug)]
pub struct Ledger {
    /// The database's name in `databases`.
    pub database: String,
    pub keep: Duration,
    /// This many runs of each job on each database stay, however old they are.
    pub keep_last: u32,
}

/// `pgtend serve`.
#[derive(Clone, Debug)]
pub struct Serve {
    pub listen: SocketAddr,
    /// The token that every page but the health checks requires.
    pub token: Option<SecretString>,
    /// Host names in lower case for which the pages answer without a token, beside localhost and the address.
    pub hosts: Vec<String>,
    /// The most runs at once in this process.
    pub max_concurrent: usize,
    /// The time that running jobs have after SIGTERM to end by themselves.
    pub drain_timeout: Duration,
}

#[derive(Clone, Debug, Default)]
pub struct Notify {
    pub webhook_url: Option<SecretString>,
    /// A PEM file of private CAs, for webhook and pings.
    pub ca_file: Option<PathBuf>,
}

#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Metrics {
    /// The folder of node_exporter's textfile collector; `run-job` writes a file for its job there.
    pub textfile_dir: Option<PathBuf>,
}

/// How to reach a database; PG* variables and `.pgpass` fill what the URL leaves out.
#[derive(Clone, Debug, Default)]
pub struct Database {
    /// The URL, read from `url`, `url_env` or `url_file`.
    pub url: Option<SecretString>,
    /// The role that every session takes.
    pub role: Option<String>,
    /// The login of jobs that change a table's rows, used instead of `url`: it has no more rights than the table's owner.
    pub owner_url: Option<SecretString>,
    /// The most runs at once on it, of all jobs and all runners that share the ledger.
    pub max_concurrent: Option<u32>,
    /// Databases of one group share `max_concurrent`.
    pub group: Option<String>,
}

impl Database {
    /// Returns how to connect; libpq's variables, a service file and `.pgpass` supply what the configuration leaves out.
    pub fn settings(&self) -> Result<pg::Settings> {
        let url = self.url.as_ref().map(|url| url.expose_secret()).unwrap_or("postgres://");
        let settings = pg::Settings::from_url(url)?;
        Ok(match &self.role {
            Some(role) => settings.with_role(role),
            None => settings,
        })
    }

    /// Returns the login of jobs that change rows: `owner_url` if set, else `url`.
    pub fn owner_settings(&self) -> Result<pg::Settings> {
        match &self.owner_url {
            Some(url) => pg::Settings::from_url(url.expose_secret()),
            None => self.settings(),
        }
    }
}

#[derive(Clone, Debug)]
pub enum Store {
    Dir {
        path: PathBuf,
        /// The key that signs manifests and the records beside them: at least [`SIGN_KEY_BYTES`] long.
        sign_key: Option<SecretString>,
    },
    S3(Box<S3>),
}

/// An S3 bucket; credentials come by the AWS default chain.
#[derive(Clone, Debug)]
pub struct S3 {
    pub bucket: String,
    /// The prefix has no slashes at its ends; it is empty for the whole bucket.
    pub prefix: String,
    pub region: Option<String>,
    pub endpoint: Option<String>,
    pub path_style: bool,
    pub server_side_encryption: Option<Encryption>,
    pub kms_key_id: Option<String>,
    pub storage_class: Option<String>,
    /// The provider's limit on parts of one multipart upload.
    pub max_parts: u32,
    pub parts_in_flight: usize,
    pub upload_memory_bytes: u64,
    pub part_timeout: Option<Span>,
    /// `None` means always on AWS, and elsewhere only when the server requires one.
    pub checksums: Option<Checksums>,
    /// A PEM file of private CAs that count beside the system's.
    pub ca_file: Option<PathBuf>,
    /// The signing key, as for a directory.
    pub sign_key: Option<SecretString>,
}

/// Says which writes carry a checksum.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Checksums {
    /// Only writes that the server refused without one.
    WhenRequired,
    /// All writes, as x-amz-checksum-crc32.
    Always,
    /// All writes, as Content-MD5, which older servers know.
    Md5,
}

#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Tools {
    /// A folder with pg_dump, pg_dumpall and psql that is searched first; relative to the configuration file.
    pub bin_dir: Option<PathBuf>,
    /// A folder with initdb and postgres that is searched first, for verify = "restore" in a server of its own; relative to the
    /// configuration file.
    pub server_bin_dir: Option<PathBuf>,
    /// The user who runs that server if pgtend runs as root; default `nobody`, if no other program runs as `nobody`. The user should own
    /// nothing and run nothing else.
    pub run_as: Option<String>,
}

/// Where backups are restored for their proof.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Verify {
    /// The folder in which a server of its own is created, with space for the database; relative to the configuration file. The
    /// default is the system's folder for temporary files.
    pub scratch_dir: Option<PathBuf>,
}

impl Verify {
    /// Returns the folder in which throwaway servers are created.
    pub fn throwaway_parent(&self) -> PathBuf {
        self.scratch_dir.clone().unwrap_or_else(std::env::temp_dir)
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
pub enum Encryption {
    /// SSE-S3
    #[serde(rename = "AES256")]
    S3,
    /// SSE-KMS
    #[serde(rename = "aws:kms")]
    Kms,
}

/// Reads the configuration. Mistakes go to `problems`; the valid part is returned all the same.
pub fn load(path: &Path, problems: &mut Vec<Problem>) -> Option<Config> {
    let source = match Source::read(path) {
        Ok(source) => source,
        Err(error) => {
            let hint = "name the file with --config FILE; `config.toml` in pgtend's repository is an example".to_owned();
            problems.push(Problem::with_file(path, format!("cannot read the configuration: {error}"), Some(hint)));
            return None;
        }
    };
    let written: Written = toml_file::parse(&source, problems)?;
    let folder = path.parent().unwrap_or(Path::new("."));
    let mut loader = Loader { source: &source, folder, problems };
    let has_ledger = written.ledger.is_some();
    let databases: BTreeMap<String, Database> = written
        .databases
        .into_iter()
        .map(|(name, database)| {
            let database = loader.database(&name, database, has_ledger);
            (name, database)
        })
        .collect();
    let mut stores = BTreeMap::new();
    for (name, store) in written.stores {
        if let Some(store) = loader.store(&name, store) {
            stores.insert(name, store);
        }
    }
    let ledger = written.ledger.map(|ledger| loader.ledger(ledger, &databases));
    let serve = loader.serve(written.serve);
    let WrittenNotify { webhook_url, webhook_url_env, webhook_url_file, ca_file } = written.notify;
    let ca_file = ca_file.and_then(|ca_file| loader.ca_file(ca_file, "[notify]"));
    let webhook_url =
        Secret { key: "webhook_url", of: "[notify]", literal: webhook_url, env: webhook_url_env, file: webhook_url_file }.read(
            loader.source,
            folder,
            loader.problems,
        );
    let webhook_url = webhook_url.and_then(|(url, span)| checked_http_url(url, span, "[notify]", &source, problems));
    let notify = Notify { webhook_url, ca_file };
    let tools = Tools {
        bin_dir: written.tools.bin_dir.map(|bin_dir| folder.join(bin_dir)),
        server_bin_dir: written.tools.server_bin_dir.map(|bin_dir| absolute(&folder.join(bin_dir))),
        run_as: written.tools.run_as,
    };
    let verify = Verify { scratch_dir: written.verify.scratch_dir.map(|scratch_dir| absolute(&folder.join(scratch_dir))) };
    let metrics = Metrics { textfile_dir: written.metrics.textfile_dir.map(|textfile_dir| folder.join(textfile_dir)) };
    Some(Config { path: path.to_owned(), databases, stores, tools, ledger, serve, notify, metrics, verify })
}

/// Makes a path absolute, so that a printed location means the same in every folder.
fn absolute(path: &Path) -> PathBuf {
    std::path::absolute(path).unwrap_or_else(|_| path.to_owned())
}

/// A value that may be in the file itself (`KEY`), in the environment (`KEY_env`) or in a file of its own (`KEY_file`).
pub struct Secret<'a> {
    pub key: &'a str,
    /// The name of its owner, for messages.
    pub of: &'a str,
    pub literal: Option<Spanned<String>>,
    pub env: Option<Spanned<String>>,
    pub file: Option<Spanned<PathBuf>>,
}

/// A place in a file that may be shown to the user.
type Place = Option<std::ops::Range<usize>>;

impl Secret<'_> {
    /// Returns the value, and the place that names its variable or file: never the place of a literal, whose line would be shown.
    pub fn read(self, source: &Source, folder: &Path, problems: &mut Vec<Problem>) -> Option<(String, Place)> {
        let Self { key, of, literal, env, file } = self;
        let mut problem = |span: std::ops::Range<usize>, message: String, hint: String| {
            problems.push(source.problem(Some(span), message, Some(hint)));
        };
        let other = env.as_ref().map(Spanned::span).or_else(|| file.as_ref().map(Spanned::span));
        if let (Some(_), Some(other)) = (&literal, other) {
            // The problem does not point at the literal, whose line would be shown.
            problem(other, format!("both `{key}` and `{key}_env` or `{key}_file` are set"), "keep one of them".to_owned());
        } else if let (Some(first), true) = (&env, file.is_some()) {
            problem(first.span(), format!("both `{key}_env` and `{key}_file` are set"), "keep one of them".to_owned());
        }
        if let Some(literal) = literal {
            return Some((literal.into_inner(), None));
        }
        if let Some(variable) = env {
            let value = std::env::var(variable.get_ref()).ok();
            if value.is_none() {
                let message = format!("the environment has no variable `{}`", variable.get_ref());
                problem(variable.span(), message, format!("set it for this process, or use `{key}_file`"));
            }
            return value.map(|value| (value, Some(variable.span())));
        }
        let file = file?;
        let path = folder.join(file.get_ref());
        match std::fs::read_to_string(&path) {
            Ok(text) => Some((text.trim().to_owned(), Some(file.span()))),
            Err(error) => {
                let message = format!("cannot read `{}`: {error}", path.display());
                problem(file.span(), message, format!("it must contain the `{key}` of {of}"));
                None
            }
        }
    }
}

/// Checks an HTTP URL that is a secret: messages about mistakes do not contain it.
pub fn checked_http_url(
    url: String,
    span: Place,
    of: &str,
    source: &Source,
    problems: &mut Vec<Problem>,
) -> Option<SecretString> {
    if url::Url::parse(&url).is_ok_and(|url| matches!(url.scheme(), "http" | "https")) {
        return Some(SecretString::from(url));
    }
    let hint = "write it like \"https://monitor.example.com/ping/ID\"".to_owned();
    problems.push(source.problem(span, format!("{of}: not an HTTP URL"), Some(hint)));
    None
}

struct Loader<'a> {
    source: &'a Source,
    folder: &'a Path,
    problems: &'a mut Vec<Problem>,
}

impl Loader<'_> {
    fn problem<T>(&mut self, at: &Spanned<T>, message: String, hint: &str) {
        self.problems.push(self.source.problem(Some(at.span()), message, Some(hint.to_owned())));
    }

    fn database(&mut self, name: &str, written: WrittenDatabase, has_ledger: bool) -> Database {
        let WrittenDatabase { url, url_env, url_file, role, owner_url, owner_url_env, owner_url_file, max_concurrent, group } =
            written;
        if let Some(limit) = max_concurrent.as_ref().filter(|limit| !(1..=1000).contains(limit.get_ref())) {
            self.problem(limit, format!("`max_concurrent = {}`", limit.get_ref()), "1 to 1000");
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
        Database { url, role, owner_url: self.connection(&of, owner), max_concurrent, group }
    }

    /// A URL that does not parse is a mistake of the file, wherever the text came from.
    fn connection(&mut self, of: &str, secret: Secret<'_>) -> Option<SecretString> {
        let (url, span) = secret.read(self.source, self.folder, self.problems)?;
        if let Err(error) = crate::pg::Settings::check_url(&url) {
            let hint = "write it like \"postgres://user@host:5432/database\"".to_owned();
            self.problems.push(self.source.problem(
                span,
                format!("{of}: not a URL that pgtend can connect with: {error}"),
                Some(hint),
            ));
        }
        Some(SecretString::from(url))
    }

    fn ledger(&mut self, written: WrittenLedger, databases: &BTreeMap<String, Database>) -> Ledger {
        let name = written.database.get_ref();
        if !databases.contains_key(name) {
            let hint =
                did_you_mean(name, databases.keys().map(String::as_str)).unwrap_or_else(|| format!("add [databases.{name}]"));
            self.problem(&written.database, format!("the ledger's database `{name}` is not configured"), &hint);
        }
        if let Some(keep) = written.keep_last.as_ref().filter(|keep| *keep.get_ref() < LEDGER_KEEP_LAST) {
            self.problem(keep, format!("`keep_last = {}`", keep.get_ref()), "20 or more: pgtend reads its own history");
        }
        Ledger {
            database: written.database.into_inner(),
            keep: written.keep.map_or(LEDGER_KEEP, |keep| keep.0),
            keep_last: written.keep_last.map_or(LEDGER_KEEP_LAST, Spanned::into_inner),
        }
    }

    fn serve(&mut self, written: WrittenServe) -> Serve {
        let listen = written.listen.as_ref().and_then(|listen| match listen.get_ref().parse() {
            Ok(address) => Some(address),
            Err(_) => {
                let message = format!("`{}` is not an address to listen on", listen.get_ref());
                self.problem(listen, message, "an IP address and a port: \"127.0.0.1:9187\", \"[::]:9187\"");
                None
            }
        });
        if let Some(count) = written.max_concurrent.as_ref().filter(|count| !(1..=1000).contains(count.get_ref())) {
            self.problem(count, format!("`max_concurrent = {}`", count.get_ref()), "1 to 1000");
        }
        let secret = Secret { key: "token", of: "[serve]", literal: None, env: written.token_env, file: written.token_file };
        let token = secret.read(self.source, self.folder, self.problems).map(|(token, span)| {
            if token.is_empty() {
                let hint = Some("use a long random text: `openssl rand -hex 32`".to_owned());
                self.problems.push(self.source.problem(span, "the token of [serve] is empty", hint));
            }
            SecretString::from(token)
        });
        let hosts = written.hosts.into_iter().filter_map(|host| self.host(host)).collect();
        Serve {
            listen: listen.unwrap_or_else(|| SocketAddr::from(([127, 0, 0, 1], 9187))),
            token,
            hosts,
            max_concurrent: written.max_concurrent.map_or(4, Spanned::into_inner).clamp(1, 1000),
            drain_timeout: written.drain_timeout.map_or(Duration::from_secs(30), |timeout| timeout.0),
        }
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

    fn store(&mut self, name: &str, mut written: WrittenStore) -> Option<Store> {
        let (env, file) = (written.sign_key_env.take(), written.sign_key_file.take());
        let sign_key = self.sign_key(&format!("store `{name}`"), env, file);
        match (&written.path, &written.bucket) {
            (Some(path), None) => Some(Store::Dir { path: absolute(&self.folder.join(path.get_ref())), sign_key }),
            (None, Some(bucket)) => {
                let bucket = bucket.get_ref().clone();
                Some(Store::S3(Box::new(S3 { sign_key, ..self.s3(name, bucket, written) })))
            }
            (Some(path), Some(_)) => {
                self.problem(
                    path,
                    format!("store `{name}` has a `path` and a `bucket`"),
                    "a store has one of them: define two stores",
                );
                None
            }
            (None, None) => {
                let message = format!("store `{name}` has neither a `path` nor a `bucket`");
                let hint = "path = \"/var/lib/pgtend/store\" or bucket = \"name\"".to_owned();
                self.problems.push(self.source.problem(None, message, Some(hint)));
                None
            }
        }
    }

    fn sign_key(&mut self, of: &str, env: Option<Spanned<String>>, file: Option<Spanned<PathBuf>>) -> Option<SecretString> {
        let secret = Secret { key: "sign_key", of, literal: None, env, file };
        let (key, span) = secret.read(self.source, self.folder, self.problems)?;
        let key = key.trim();
        if key.len() < SIGN_KEY_BYTES {
            let message = format!("the `sign_key` of {of} has {} bytes; it needs at least {SIGN_KEY_BYTES}", key.len());
            let hint = Some("use a random text: `openssl rand -hex 32`".to_owned());
            self.problems.push(self.source.problem(span, message, hint));
        }
        Some(SecretString::from(key))
    }

    /// Returns the file if it contains certificates.
    fn ca_file(&mut self, written: Spanned<PathBuf>, of: &str) -> Option<PathBuf> {
        let path = absolute(&self.folder.join(written.get_ref()));
        match crate::base::ca_file::read(&path) {
            Ok(_) => Some(path),
            Err(why) => {
                let hint = "a file with the CA's certificate as PEM, from the server's operator";
                self.problem(&written, format!("`ca_file` of {of}: {why}"), hint);
                None
            }
        }
    }

    fn s3(&mut self, name: &str, bucket: String, mut written: WrittenStore) -> S3 {
        if let Some(endpoint) = &written.endpoint
            && !url::Url::parse(endpoint.get_ref()).is_ok_and(|url| matches!(url.scheme(), "http" | "https"))
        {
            self.problem(
                endpoint,
                format!("`{}` is not an endpoint", endpoint.get_ref()),
                "write it like \"https://s3.example.com\"",
            );
        }
        if let Some(endpoint) = &written.endpoint
            && url::Url::parse(endpoint.get_ref()).is_ok_and(|url| !url.username().is_empty() || url.password().is_some())
        {
            // The problem does not point at the endpoint, whose line would be shown.
            let message = format!("store `{name}`: its endpoint holds credentials, which would reach logs");
            let hint = "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, a profile or a role instead".to_owned();
            self.problems.push(self.source.problem(None, message, Some(hint)));
        }
        if let Some(key) = &written.kms_key_id
            && written.server_side_encryption != Some(Encryption::Kms)
        {
            self.problem(key, "`kms_key_id` without SSE-KMS".to_owned(), "add server_side_encryption = \"aws:kms\"");
        }
        if let Some(parts) = written.max_parts.as_ref().filter(|parts| !(1..=10_000).contains(parts.get_ref())) {
            self.problem(parts, format!("`max_parts = {}`", parts.get_ref()), "S3 allows 1 to 10,000");
        }
        if let Some(parts) = written.parts_in_flight.as_ref().filter(|parts| !(1..=64).contains(parts.get_ref())) {
            self.problem(parts, format!("`parts_in_flight = {}`", parts.get_ref()), "1 to 64");
        }
        if let Some(memory) = written.upload_memory.as_ref().filter(|memory| memory.get_ref().0 < 10 << 20) {
            self.problem(
                memory,
                format!("`upload_memory` of {}", memory.get_ref()),
                "S3's smallest part is 5 MiB, and pgtend needs two: use 10MiB or more",
            );
        }
        let ca_file = written.ca_file.take().and_then(|ca_file| self.ca_file(ca_file, &format!("store `{name}`")));
        S3 {
            bucket,
            prefix: written.prefix.unwrap_or_default().trim_matches('/').to_owned(),
            region: written.region,
            path_style: written.path_style.unwrap_or(written.endpoint.is_some()),
            endpoint: written.endpoint.map(Spanned::into_inner),
            server_side_encryption: written.server_side_encryption,
            kms_key_id: written.kms_key_id.map(Spanned::into_inner),
            storage_class: written.storage_class,
            max_parts: written.max_parts.map_or(10_000, Spanned::into_inner),
            parts_in_flight: written.parts_in_flight.map_or(3, Spanned::into_inner),
            upload_memory_bytes: written.upload_memory.map_or(512 << 20, |size| size.into_inner().0),
            part_timeout: written.part_timeout,
            checksums: written.checksums,
            ca_file,
            sign_key: None,
        }
    }
}
