//! `config.toml`: databases, stores, tools, and how pgtend itself runs. The keys as written ([`Written`]) become resolved ones
//! ([`Config`]) once.

pub mod checker;
pub mod habits;
pub mod limits;
mod load;
mod names;
pub mod notify;
pub mod places;
mod secret;
pub mod servers;
pub mod sessions;
mod url_instead;
mod written;

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Result;
pub use load::load;
pub use names::Names;
pub use notify::{Notify, WrittenNotify};
use schemars::JsonSchema;
use secrecy::{ExposeSecret as _, SecretString};
pub use secret::{Secret, checked_http_url, is_of_a_variable};
use serde::Deserialize;
pub use servers::Server;
pub use written::{Patterns, Written, WrittenDatabase, WrittenLedger, WrittenServe, WrittenServer, WrittenStore, WrittenVerify};

use crate::base::age_keys::AgeKeys;
use crate::base::units::{Rate, Span};
use crate::pg;

/// The resolved configuration.
#[derive(Clone, Debug)]
pub struct Config {
    pub path: PathBuf,
    /// The databases that have an entry of their own; [`Config::database`] knows those of `servers`, too.
    pub databases: BTreeMap<String, Database>,
    /// Servers whose databases are found.
    pub servers: BTreeMap<String, Server>,
    pub stores: BTreeMap<String, Store>,
    pub tools: Tools,
    pub ledger: Option<Ledger>,
    pub serve: Serve,
    pub notify: Notify,
    pub metrics: Metrics,
    pub verify: Verify,
    /// `databases.NAME`, `stores.NAME` and `notify.NAME` with mistakes, or `databases`, `stores` and `notify` as a whole: what names them makes no mistake of its own.
    pub mistaken: BTreeSet<String>,
    /// What is allowed, and probably not meant.
    pub notes: Vec<String>,
    /// The files that its keys name.
    pub files: Vec<NamedFile>,
}

/// A file that a key of the configuration or of a job names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NamedFile {
    /// The key, and whose it is, in words.
    pub key: String,
    pub path: PathBuf,
    /// It holds a password, a key or a token. Else it says what pgtend runs, or whom it trusts.
    pub is_secret: bool,
}

impl Config {
    /// Returns whether a store, database or place for messages (`notify`) of this name is not there because of a mistake in the configuration.
    pub fn may_have(&self, kind: &str, name: &str) -> bool {
        let table = if kind == "notify" { kind.to_owned() } else { format!("{kind}s") };
        self.mistaken.contains(&format!("{table}.{name}")) || self.mistaken.contains(&table)
    }
}

/// Where the run history is, and how long it is kept.
#[derive(Clone, Debug)]
pub struct Ledger {
    /// The database's name in `databases`.
    pub database: String,
    pub keep: Duration,
    /// This many runs of each job on each database stay, however old they are.
    pub keep_last: u32,
    /// The same as `keep`, for runs on databases that were found on servers.
    pub keep_found: Duration,
}

/// `pgtend serve`.
#[derive(Clone, Debug)]
pub struct Serve {
    pub listen: SocketAddr,
    /// The token that every page but the health checks requires.
    pub token: Option<SecretString>,
    /// Another token, for those who may start jobs and hold and verify sets on the pages.
    pub actions_token: Option<SecretString>,
    /// Host names in lower case for which the pages answer without a token, beside localhost and the address.
    pub hosts: Vec<String>,
    /// The most runs at once in this process.
    pub max_concurrent: usize,
    /// The time that running jobs have after SIGTERM to end by themselves.
    pub drain_timeout: Duration,
}

impl Serve {
    /// Returns whether everybody who reaches its address may read the pages.
    pub fn is_open_to_others(&self) -> bool {
        self.token.is_none() && !self.listen.ip().to_canonical().is_loopback()
    }
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
    /// The most sessions that a backup opens on its server at once.
    pub max_sessions: Option<u32>,
    /// The most runs at once on it, of all jobs and all runners that share the ledger.
    pub max_concurrent: Option<u32>,
    /// Databases of one group share `max_concurrent`.
    pub group: Option<String>,
    /// Its own name, where `url` leads to another database of its server.
    pub on_server: Option<String>,
    /// The one schema of it that is meant, where it stands for a place ([`Config::place`]).
    pub schema: Option<String>,
}

impl Database {
    /// Returns how to connect; libpq's variables, a service file and `.pgpass` supply what the configuration leaves out.
    pub fn settings(&self) -> Result<pg::Settings> {
        let url = self.url.as_ref().map(|url| url.expose_secret()).unwrap_or("postgres://");
        let settings = pg::Settings::from_url(url)?;
        let settings = match &self.on_server {
            Some(own) => settings.with_database(own),
            None => settings,
        };
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
        /// The key that signs manifests and the records beside them: 32 bytes or longer.
        sign_key: Option<SecretString>,
        /// What rows are encrypted to, and what opens them.
        age: Arc<AgeKeys>,
        /// The most bytes that are written to it in a second.
        max_upload: Option<Rate>,
    },
    S3(Box<S3>),
    Cloud(Box<Cloud>),
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
    /// Older sets that were proved are tagged for lifecycle rules.
    pub tag_proved: bool,
    /// The provider's limit on parts of one multipart upload.
    pub max_parts: u32,
    pub parts_in_flight: usize,
    pub upload_memory_bytes: u64,
    pub part_timeout: Option<Span>,
    pub max_upload: Option<Rate>,
    /// The Object Lock of what stays as it is.
    pub lock: Option<Lock>,
    /// `None` means always on AWS, and elsewhere only when the server requires one.
    pub checksums: Option<Checksums>,
    /// A PEM file of private CAs that count beside the system's.
    pub ca_file: Option<PathBuf>,
    /// The signing key, as for a directory.
    pub sign_key: Option<SecretString>,
    /// The keys of age, as for a directory.
    pub age: Arc<AgeKeys>,
}

/// A container of Azure Blob Storage or a bucket of Google Cloud Storage.
#[derive(Clone, Debug)]
pub struct Cloud {
    pub provider: Provider,
    /// As for S3.
    pub prefix: String,
    pub endpoint: Option<String>,
    /// `None` means those of the environment, or of the machine.
    pub credentials: Option<SecretString>,
    /// The access tier of Azure, or the storage class of Google.
    pub storage_class: Option<String>,
    pub parts_in_flight: usize,
    pub upload_memory_bytes: u64,
    pub part_timeout: Option<Span>,
    pub max_upload: Option<Rate>,
    pub ca_file: Option<PathBuf>,
    pub sign_key: Option<SecretString>,
    pub age: Arc<AgeKeys>,
}

/// Whose cloud it is, and where in it the objects are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Provider {
    Azure { account: String, container: String },
    Google { bucket: String },
}

impl Store {
    pub fn age_keys(&self) -> &AgeKeys {
        match self {
            Self::Dir { age, .. } => age,
            Self::S3(s3) => &s3.age,
            Self::Cloud(cloud) => &cloud.age,
        }
    }
}

/// S3 Object Lock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lock {
    pub span: Span,
    pub mode: LockMode,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum LockMode {
    /// Credentials with s3:BypassGovernanceRetention may shorten it.
    #[default]
    Governance,
    /// Nobody may.
    Compliance,
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
    /// A folder with initdb and postgres that is searched first, for verify = "restore" in a throwaway server; relative to the
    /// configuration file.
    pub server_bin_dir: Option<PathBuf>,
    /// The user who runs that server if pgtend runs as root; default `nobody`, if no other program runs as `nobody`. The user should own
    /// nothing and run nothing else.
    pub run_as: Option<String>,
}

/// Where backups are restored for their proof.
#[derive(Clone, Debug, Default)]
pub struct Verify {
    pub scratch_dir: Option<PathBuf>,
    /// The limit for the memory of the process that restores in a throwaway server.
    pub memory_bytes: Option<u64>,
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
