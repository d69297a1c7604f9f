//! The keys of config.toml as they are written, each with its meaning, for people and for editors.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::OnceLock;

use schemars::JsonSchema;
use serde::Deserialize;
use toml::Spanned;

use super::notify::WrittenNotify;
use super::{Checksums, Encryption, LockMode, Metrics, Names, Tools, habits};
use crate::base::toml_file::{Document, Known};
use crate::base::units::{Rate, Size, Span};

/// config.toml as written.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(title = "pgtend configuration (config.toml)")]
pub struct Written {
    /// The databases, each with a name of its own.
    #[serde(default)]
    pub databases: BTreeMap<String, WrittenDatabase>,
    /// Servers whose databases are found, each with a name of its own: a database is known as SERVER.DATABASE.
    #[serde(default)]
    pub servers: BTreeMap<String, WrittenServer>,
    /// The stores, each with a name of its own.
    #[serde(default)]
    pub stores: BTreeMap<String, WrittenStore>,
    /// The programs of PostgreSQL that pgtend calls.
    #[serde(default)]
    pub tools: Tools,
    /// The run history. `pgtend serve` needs it.
    pub ledger: Option<WrittenLedger>,
    /// `pgtend serve`.
    #[serde(default)]
    pub serve: WrittenServe,
    /// Who is told of what.
    #[serde(default)]
    pub notify: WrittenNotify,
    /// Metrics of `run-job`.
    #[serde(default)]
    pub metrics: Metrics,
    /// The throwaway server in which backups are proved.
    #[serde(default)]
    pub verify: WrittenVerify,
}

impl Document for Written {
    fn known() -> &'static Known {
        static KNOWN: OnceLock<Known> = OnceLock::new();
        KNOWN.get_or_init(|| Known::of::<Self>(habits::OF_CONFIG, habits::WORDS, "docs/reference/configuration.md"))
    }
}

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct WrittenLedger {
    /// The database, by its name here; pgtend creates and migrates the schema `pgtend` in it.
    #[schemars(with = "String", example = &"app")]
    pub database: Spanned<String>,
    /// Runs older than this are deleted; default 400 days.
    pub keep: Option<Span>,
    /// This many last runs of each job stay, however old; default 20, which is also the minimum.
    #[schemars(with = "Option<u32>", range(min = 20), example = 20)]
    pub keep_last: Option<Spanned<u32>>,
    /// Runs on databases that servers were found to have, older than this, are deleted but for the last three of each job and its last success;
    /// default 30 days.
    pub keep_found: Option<Span>,
}

/// The throwaway server in which backups are proved.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct WrittenVerify {
    /// The folder in which a throwaway server is created, with space for the database; relative to the configuration file. The
    /// default is the system's folder for temporary files.
    pub scratch_dir: Option<PathBuf>,
    /// The most memory that the restore uses in that server, in one process: with this limit, it has no parallel workers. Default: no limit.
    #[schemars(with = "Option<Size>", example = &"2GiB")]
    pub memory: Option<Spanned<Size>>,
}

#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct WrittenServe {
    /// Address of metrics, health checks and the status page; default 127.0.0.1:9187.
    #[schemars(with = "Option<String>", regex(pattern = r"^(\d+(\.\d+){3}|\[[0-9a-fA-F:.]+\]):\d+$"), example = &"127.0.0.1:9187")]
    pub listen: Option<Spanned<String>>,
    /// The environment variable that holds a bearer token; all pages but the health checks require it.
    #[schemars(with = "Option<String>")]
    pub token_env: Option<Spanned<String>>,
    /// The file that holds the token.
    #[schemars(with = "Option<PathBuf>")]
    pub token_file: Option<Spanned<PathBuf>>,
    /// The environment variable that holds another token, for those who may start jobs and hold and verify sets on the pages; without it nobody may.
    #[schemars(with = "Option<String>")]
    pub actions_token_env: Option<Spanned<String>>,
    /// The file that holds that token.
    #[schemars(with = "Option<PathBuf>")]
    pub actions_token_file: Option<Spanned<PathBuf>>,
    /// Host names for which the pages answer without a token, beside localhost and the address of `listen`. Other names get 421,
    /// because a site's page could make a browser read ours under a name of its own (DNS rebinding).
    #[schemars(with = "Vec<String>", example = ["db1.example.com"])]
    #[serde(default)]
    pub hosts: Vec<Spanned<String>>,
    /// The most runs at once in this process; default 4.
    #[schemars(with = "Option<usize>", range(min = 1, max = 1000), example = 4)]
    pub max_concurrent: Option<Spanned<usize>>,
    /// How long running jobs may go on after SIGTERM before they are cancelled; default 30 s.
    pub drain_timeout: Option<Span>,
}

/// More than one of the URLs, for the JSON Schema.
fn two_urls(urls: &[&str]) -> serde_json::Value {
    let both = |one: &str, other: &str| serde_json::json!({ "required": [one, other] });
    let pairs = urls.iter().flat_map(|url| {
        let (env, file) = (format!("{url}_env"), format!("{url}_file"));
        [both(url, &env), both(url, &file), both(&env, &file)]
    });
    serde_json::json!({ "anyOf": pairs.collect::<Vec<_>>() })
}

/// Set one of `url`, `url_env` and `url_file`, or none of them to use PGHOST, PGDATABASE and so on.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(extend("not" = two_urls(&["url", "owner_url"])))]
pub struct WrittenDatabase {
    /// `postgres://user@host:port/database?sslmode=verify-full`
    #[schemars(with = "Option<String>", regex(pattern = r"^postgres(ql)?://"), example = &"postgres://user@host:5432/database")]
    pub url: Option<Spanned<String>>,
    /// The environment variable that holds the URL.
    #[schemars(with = "Option<String>")]
    pub url_env: Option<Spanned<String>>,
    /// The file that holds the URL: a mounted secret, a systemd credential.
    #[schemars(with = "Option<PathBuf>")]
    pub url_file: Option<Spanned<PathBuf>>,
    /// The role that pgtend takes after login (SET ROLE). Without it, the login's own role, or the one of ALTER ROLE … SET role.
    pub role: Option<String>,
    /// The login of `[retention]`, `[partition]`, `[compress]` and `[vector_index]` on this database, and of `archives restore`:
    /// the owner of their tables, so that the owner's triggers and other code run with no more rights than the owner has. Without
    /// it, `url`.
    #[schemars(with = "Option<String>", regex(pattern = r"^postgres(ql)?://"), example = &"postgres://owner@host:5432/database")]
    pub owner_url: Option<Spanned<String>>,
    /// The environment variable that holds the owner's URL.
    #[schemars(with = "Option<String>")]
    pub owner_url_env: Option<Spanned<String>>,
    /// The file that holds the owner's URL.
    #[schemars(with = "Option<PathBuf>")]
    pub owner_url_file: Option<Spanned<PathBuf>>,
    /// The most sessions that a backup opens on this server at once: `sessions` of the job and what the run needs besides; 4 or more.
    /// No limit by default.
    #[schemars(with = "Option<u32>", range(min = 4, max = 262_143), example = 8)]
    pub max_sessions: Option<Spanned<u32>>,
    /// The most runs at once on this database, of all jobs and on all hosts that share the ledger; others wait. No limit by
    /// default.
    #[schemars(with = "Option<u32>", range(min = 1, max = 1000), example = 2)]
    pub max_concurrent: Option<Spanned<u32>>,
    /// Databases with the same group share `max_concurrent`: use one group for all databases of a server.
    #[schemars(with = "Option<String>")]
    pub group: Option<Spanned<String>>,
}

/// A server whose databases are found. Set one of `url`, `url_env` and `url_file`, or none of them to use PGHOST and so on.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(extend("not" = two_urls(&["url"])))]
pub struct WrittenServer {
    /// `postgres://user@host:port/postgres`: how to log in to each of its databases; the one that it names is asked which there are, else `postgres`.
    #[schemars(with = "Option<String>", regex(pattern = r"^postgres(ql)?://"), example = &"postgres://user@host:5432/postgres")]
    pub url: Option<Spanned<String>>,
    /// The environment variable that holds the URL.
    #[schemars(with = "Option<String>")]
    pub url_env: Option<Spanned<String>>,
    /// The file that holds the URL: a mounted secret, a systemd credential.
    #[schemars(with = "Option<PathBuf>")]
    pub url_file: Option<Spanned<PathBuf>>,
    /// The role that pgtend takes after login (SET ROLE). Without it, the login's own role, or the one of ALTER ROLE … SET role.
    pub role: Option<String>,
    /// Which of its databases count, by name: "*" (the default) is all, "tenant_*" those that begin so, and a list all that one of its texts stands for.
    #[schemars(with = "Option<Patterns>", example = &"*")]
    pub databases: Option<Spanned<Names>>,
    /// Of them, only those that one of these stands for; default all.
    #[schemars(with = "Option<Patterns>", example = ["tenant_*"])]
    pub include: Option<Spanned<Names>>,
    /// Of them, none that one of these stands for; default none.
    #[schemars(with = "Option<Patterns>", example = ["*_test"])]
    pub exclude: Option<Spanned<Names>>,
    /// The most sessions that a backup opens on this server at once, as of a database; 4 or more. No limit by default.
    #[schemars(with = "Option<u32>", range(min = 4, max = 262_143), example = 8)]
    pub max_sessions: Option<Spanned<u32>>,
    /// The most runs at once on all of its databases together, of all jobs and on all hosts that share the ledger; others wait. Default 2.
    #[schemars(with = "Option<u32>", range(min = 1, max = 1000), example = 2)]
    pub max_concurrent: Option<Spanned<u32>>,
}

/// Patterns of names, for the JSON Schema: one, or a list.
#[derive(JsonSchema)]
#[schemars(untagged)]
#[allow(dead_code, reason = "a schema alone")]
pub enum Patterns {
    One(#[schemars(length(min = 1))] String),
    Several(#[schemars(length(min = 1))] Vec<String>),
}

/// A store has one of these.
fn one_place() -> serde_json::Value {
    serde_json::json!(["path", "bucket", "container", "gcs_bucket"].map(|key| serde_json::json!({ "required": [key] })))
}

/// A directory (`path`), an S3 bucket (`bucket`), a container of Azure Blob Storage (`container`), or a bucket of Google Cloud Storage (`gcs_bucket`).
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(extend("oneOf" = one_place()))]
pub struct WrittenStore {
    /// A directory; relative to the configuration file.
    #[schemars(with = "Option<PathBuf>", extend("not" = { "pattern": "://" }), example = &"/var/lib/pgtend/store")]
    pub path: Option<Spanned<PathBuf>>,
    /// An S3 bucket, by its name alone.
    #[schemars(with = "Option<String>", extend("not" = { "pattern": "://" }), example = &"name")]
    pub bucket: Option<Spanned<String>>,
    /// A container of Azure Blob Storage, in the storage account `account`.
    #[schemars(with = "Option<String>")]
    pub container: Option<Spanned<String>>,
    /// The storage account of an Azure container.
    #[schemars(with = "Option<String>")]
    pub account: Option<Spanned<String>>,
    /// A bucket of Google Cloud Storage.
    #[schemars(with = "Option<String>")]
    pub gcs_bucket: Option<Spanned<String>>,
    /// The environment variable that holds the credentials of an Azure container (the account's key, or a SAS token) or of a Google bucket (the JSON
    /// of a service account's key); without it and `credentials_file`, those of the environment or of the machine.
    #[schemars(with = "Option<String>")]
    pub credentials_env: Option<Spanned<String>>,
    /// The file that holds them; relative to the configuration file.
    #[schemars(with = "Option<PathBuf>")]
    pub credentials_file: Option<Spanned<PathBuf>>,
    /// A prefix for every object key.
    pub prefix: Option<String>,
    /// The bucket's region; default: that of the environment or of the profile.
    pub region: Option<String>,
    /// URL of a server: an S3-compatible one, Azure in another cloud, an emulator; without it, that of AWS, Azure or Google.
    #[schemars(with = "Option<String>", regex(pattern = r"^[hH][tT][tT][pP][sS]?:"), example = &"https://s3.example.com")]
    pub endpoint: Option<Spanned<String>>,
    /// true uses `endpoint/bucket/key` instead of `bucket.endpoint/key`; default true with an endpoint, else false.
    pub path_style: Option<bool>,
    /// The server's own encryption: "AES256" or "aws:kms"; default: the bucket's.
    pub server_side_encryption: Option<Encryption>,
    /// The key for SSE-KMS; the bucket's default key when left out.
    #[schemars(with = "Option<String>")]
    pub kms_key_id: Option<Spanned<String>>,
    /// The storage class: `STANDARD_IA`, `GLACIER_IR`, … of S3, the access tier of Azure (`Cool`), the storage class of Google (`NEARLINE`); the default of
    /// bucket or account when left out.
    pub storage_class: Option<String>,
    /// Tags the dump and the globals of sets that were proved and that only a rule for weeks, months or years keeps, so that a lifecycle rule of the bucket
    /// moves them to a cheaper storage class; default false. Only of S3.
    pub tag_proved: Option<bool>,
    /// The most parts in one upload: 10,000 (AWS, most others) or 1,000 (Scaleway).
    #[schemars(with = "Option<u32>", range(min = 1, max = 10_000), example = 1000)]
    pub max_parts: Option<Spanned<u32>>,
    /// How long nobody may delete or replace a set's dump, globals and manifest, by S3 Object Lock, which the bucket must have; none by default.
    #[schemars(with = "Option<Span>", example = &"30d")]
    pub lock: Option<Spanned<Span>>,
    /// "governance" (the default), which some credentials may bypass, or "compliance", which nobody may.
    #[schemars(with = "Option<LockMode>")]
    pub lock_mode: Option<Spanned<LockMode>>,
    /// Parts uploaded at once; default 3.
    #[schemars(with = "Option<usize>", range(min = 1, max = 64), example = 3)]
    pub parts_in_flight: Option<Spanned<usize>>,
    /// The most memory for parts that are being filled and uploaded; default 512 MiB, of which small databases use 32.
    #[schemars(with = "Option<Size>", example = &"512MiB")]
    pub upload_memory: Option<Spanned<Size>>,
    /// The longest time for one part; default 60 s plus 1 s for each 256 KiB.
    pub part_timeout: Option<Span>,
    /// The most bytes that are written to it in a second, by all uploads of this process together: "50MB/s". No limit by default.
    pub max_upload: Option<Rate>,
    /// Checksums for writes: "when_required" by the server (the default with an endpoint), "always" (the default without; CRC32),
    /// or "md5" (Content-MD5).
    pub checksums: Option<Checksums>,
    /// A PEM file with the server's private CA, beside the system's CAs; relative to the configuration file.
    #[schemars(with = "Option<PathBuf>")]
    pub ca_file: Option<Spanned<PathBuf>>,
    /// The environment variable that holds a key of at least 32 bytes, which signs manifests: sets and archived rows without its
    /// signature are not restored, counted or deleted.
    #[schemars(with = "Option<String>")]
    pub sign_key_env: Option<Spanned<String>>,
    /// The file that holds the key; relative to the configuration file.
    #[schemars(with = "Option<PathBuf>")]
    pub sign_key_file: Option<Spanned<PathBuf>>,
    /// Encrypts what holds rows or passwords to these public keys of age (age1…) or OpenSSH (ssh-ed25519 …, ssh-rsa …). Each of the secret keys
    /// opens it alone: make one of them a key that lies somewhere safe.
    #[schemars(with = "Option<Vec<String>>")]
    pub encrypt_to: Option<Spanned<Vec<Spanned<String>>>>,
    /// A file with such public keys, one on each line; relative to the configuration file.
    #[schemars(with = "Option<PathBuf>")]
    pub encrypt_to_file: Option<Spanned<PathBuf>>,
    /// Also encrypts, in manifests, the names of tables, roles and the like, the numbers of rows and the warnings; default false. Without a secret key,
    /// `backups list` then shows sizes and times alone.
    #[schemars(with = "Option<bool>")]
    pub seal_manifest: Option<Spanned<bool>>,
    /// The file with the secret keys that open it, of `age-keygen` or OpenSSH, without a passphrase; relative to the configuration file. A host that
    /// only writes needs none.
    #[schemars(with = "Option<PathBuf>")]
    pub identity_file: Option<Spanned<PathBuf>>,
}
