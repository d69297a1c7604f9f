//! `config.toml`: databases, stores and tools. What was written ([`Written`]) becomes what was resolved
//! ([`Config`]), once.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use schemars::JsonSchema;
use secrecy::SecretString;
use serde::Deserialize;
use toml::Spanned;

use crate::toml_file::{self, Problem, Source};
use crate::units::{Size, Span};

/// The resolved configuration.
#[derive(Clone, Debug)]
pub struct Config {
    pub path: PathBuf,
    pub databases: BTreeMap<String, Database>,
    pub stores: BTreeMap<String, Store>,
    pub tools: Tools,
}

/// How to reach a database; PG* variables and `.pgpass` fill what the URL leaves out.
#[derive(Clone, Debug, Default)]
pub struct Database {
    /// Read from `url`, `url_env` or `url_file`.
    pub url: Option<SecretString>,
}

#[derive(Clone, Debug)]
pub enum Store {
    Dir { path: PathBuf },
    S3(Box<S3>),
}

/// An S3 bucket; credentials come by the AWS default chain.
#[derive(Clone, Debug)]
pub struct S3 {
    pub bucket: String,
    /// Without slashes at its ends; empty for the whole bucket.
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
}

#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Tools {
    /// A folder with pg_dump, pg_dumpall and psql that is looked in first; relative to the configuration file.
    pub bin_dir: Option<PathBuf>,
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

/// config.toml as written.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(title = "pgtend configuration (config.toml)")]
pub struct Written {
    #[serde(default)]
    pub databases: BTreeMap<String, WrittenDatabase>,
    #[serde(default)]
    pub stores: BTreeMap<String, WrittenStore>,
    #[serde(default)]
    pub tools: Tools,
}

/// One of `url`, `url_env`, `url_file`, or none of them to use PGHOST, PGDATABASE and so on.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct WrittenDatabase {
    /// `postgres://user@host:port/database?sslmode=verify-full`
    #[schemars(with = "Option<String>")]
    pub url: Option<Spanned<String>>,
    /// The environment variable that holds the URL.
    #[schemars(with = "Option<String>")]
    pub url_env: Option<Spanned<String>>,
    /// The file that holds the URL: a mounted secret, a systemd credential.
    #[schemars(with = "Option<PathBuf>")]
    pub url_file: Option<Spanned<PathBuf>>,
}

/// A directory (`path`) or an S3 bucket (`bucket` and what follows it).
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct WrittenStore {
    /// A directory; relative to the configuration file.
    #[schemars(with = "Option<PathBuf>")]
    pub path: Option<Spanned<PathBuf>>,
    #[schemars(with = "Option<String>")]
    pub bucket: Option<Spanned<String>>,
    /// Put before every key.
    pub prefix: Option<String>,
    pub region: Option<String>,
    /// URL of an S3-compatible server; without it, AWS.
    #[schemars(with = "Option<String>")]
    pub endpoint: Option<Spanned<String>>,
    /// `endpoint/bucket/key` in place of `bucket.endpoint/key`; default true with an endpoint, else false.
    pub path_style: Option<bool>,
    pub server_side_encryption: Option<Encryption>,
    /// For SSE-KMS; the bucket's default key when left out.
    #[schemars(with = "Option<String>")]
    pub kms_key_id: Option<Spanned<String>>,
    /// `STANDARD_IA`, `GLACIER_IR`, …; the bucket's default when left out.
    pub storage_class: Option<String>,
    /// Limit of parts in one upload: 10,000 (AWS, most others) or 1,000 (Scaleway).
    #[schemars(with = "Option<u32>")]
    pub max_parts: Option<Spanned<u32>>,
    /// Parts uploaded at once; default 3.
    #[schemars(with = "Option<usize>")]
    pub parts_in_flight: Option<Spanned<usize>>,
    /// Most memory for parts being filled and uploaded; default 512 MiB, of which small databases use 32.
    #[schemars(with = "Option<String>")]
    pub upload_memory: Option<Spanned<Size>>,
    /// Longest time for one part; default 60 s and 1 s more for each 256 KiB.
    pub part_timeout: Option<Span>,
}

/// Reads the configuration. Mistakes go to `problems`; what was right comes back all the same.
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
    let databases = written
        .databases
        .into_iter()
        .map(|(name, database)| {
            let database = loader.database(&name, database);
            (name, database)
        })
        .collect();
    let mut stores = BTreeMap::new();
    for (name, store) in written.stores {
        if let Some(store) = loader.store(&name, store) {
            stores.insert(name, store);
        }
    }
    let tools = Tools { bin_dir: written.tools.bin_dir.map(|bin_dir| folder.join(bin_dir)) };
    Some(Config { path: path.to_owned(), databases, stores, tools })
}

/// So that a location that is printed means the same in every folder.
fn absolute(path: &Path) -> PathBuf {
    std::path::absolute(path).unwrap_or_else(|_| path.to_owned())
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

    fn database(&mut self, name: &str, written: WrittenDatabase) -> Database {
        let WrittenDatabase { url, url_env, url_file } = written;
        if let (Some(first), true) = (&url, url_env.is_some() || url_file.is_some()) {
            self.problem(first, "`url` stands beside `url_env` or `url_file`".to_owned(), "keep one of them");
        } else if let (Some(first), true) = (&url_env, url_file.is_some()) {
            self.problem(first, "`url_env` stands beside `url_file`".to_owned(), "keep one of them");
        }
        let text = if let Some(url) = &url {
            Some(url.get_ref().clone())
        } else if let Some(variable) = &url_env {
            let value = std::env::var(variable.get_ref()).ok();
            if value.is_none() {
                let message = format!("the environment has no variable `{}`", variable.get_ref());
                self.problem(variable, message, "set it for this process, or use `url` or `url_file`");
            }
            value
        } else if let Some(file) = &url_file {
            let path = self.folder.join(file.get_ref());
            match std::fs::read_to_string(&path) {
                Ok(text) => Some(text.trim().to_owned()),
                Err(error) => {
                    self.problem(file, format!("cannot read `{}`: {error}", path.display()), "it must hold the database's URL");
                    None
                }
            }
        } else {
            None
        };
        // A URL that does not parse is a mistake of the file, wherever the text came from.
        if let Some(Err(error)) = text.as_deref().map(crate::pg::Settings::check_url) {
            // Not the place of `url` itself: its line would be shown, and with it the password.
            let span = url_env.map(|at| at.span()).or(url_file.map(|at| at.span()));
            let hint = "write it like \"postgres://user@host:5432/database\"".to_owned();
            self.problems.push(self.source.problem(span, format!("database `{name}`: not a database URL: {error}"), Some(hint)));
        }
        Database { url: text.map(SecretString::from) }
    }

    fn store(&mut self, name: &str, written: WrittenStore) -> Option<Store> {
        match (&written.path, &written.bucket) {
            (Some(path), None) => Some(Store::Dir { path: absolute(&self.folder.join(path.get_ref())) }),
            (None, Some(bucket)) => {
                let bucket = bucket.get_ref().clone();
                Some(Store::S3(Box::new(self.s3(bucket, written))))
            }
            (Some(path), Some(_)) => {
                self.problem(
                    path,
                    format!("store `{name}` has a `path` and a `bucket`"),
                    "a store is one or the other: make two stores",
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

    fn s3(&mut self, bucket: String, written: WrittenStore) -> S3 {
        if let Some(endpoint) = &written.endpoint
            && !url::Url::parse(endpoint.get_ref()).is_ok_and(|url| matches!(url.scheme(), "http" | "https"))
        {
            self.problem(
                endpoint,
                format!("`{}` is not an endpoint", endpoint.get_ref()),
                "write it like \"https://s3.example.com\"",
            );
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
                "S3's smallest part is 5 MiB, and two are needed: 10MiB or more",
            );
        }
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
        }
    }
}
