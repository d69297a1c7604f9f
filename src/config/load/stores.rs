//! `[stores.NAME]`: a directory or an S3 bucket.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use secrecy::SecretString;
use toml::Spanned;

use super::{Loader, absolute};
use crate::config::secret::Secret;
use crate::config::written::WrittenStore;
use crate::config::{Encryption, Lock, S3, Store};

/// S3 counts in days, and refuses what is longer.
const LOCKS: std::ops::RangeInclusive<Duration> = Duration::from_secs(86_400)..=Duration::from_secs(36_500 * 86_400);

/// Storage classes whose objects are not read at once.
const NEED_A_THAW: [&str; 2] = ["GLACIER", "DEEP_ARCHIVE"];

/// This is the length of an HMAC-SHA256 hash (RFC 2104, 3): a shorter key is weaker than the hash.
const SIGN_KEY_BYTES: usize = 32;

impl Loader<'_> {
    pub(super) fn store(&mut self, name: &str, mut written: WrittenStore) -> Option<Store> {
        let (env, file) = (written.sign_key_env.take(), written.sign_key_file.take());
        let sign_key = self.sign_key(&format!("store `{name}`"), env, file);
        let age = Arc::new(self.age_keys(name, &mut written));
        match (&written.path, &written.bucket) {
            (Some(_), None) if written.lock.is_some() => {
                if let Some(lock) = &written.lock {
                    self.problem(
                        lock,
                        format!("store `{name}` is a folder, which has no `lock`"),
                        "only an S3 bucket with Object Lock has one",
                    );
                }
                None
            }
            (Some(path), None) => Some(Store::Dir { path: absolute(&self.folder.join(path.get_ref())), sign_key, age }),
            (None, Some(bucket)) => {
                let bucket = bucket.get_ref().clone();
                Some(Store::S3(Box::new(S3 { sign_key, age, ..self.s3(name, bucket, written) })))
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
    pub(super) fn ca_file(&mut self, written: Spanned<PathBuf>, of: &str) -> Option<PathBuf> {
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

    fn lock(&mut self, written: &WrittenStore) -> Option<Lock> {
        if let Some(lock) = written.lock.as_ref().filter(|lock| !LOCKS.contains(&lock.get_ref().0)) {
            self.problem(lock, format!("`lock` of {}", lock.get_ref()), "Object Lock takes 1 day to 100 years: \"30d\"");
        }
        if let (None, Some(mode)) = (&written.lock, &written.lock_mode) {
            self.problem(mode, "`lock_mode` without `lock`".to_owned(), "say how long: lock = \"30d\"");
        }
        let mode = written.lock_mode.as_ref().map(|mode| *mode.get_ref()).unwrap_or_default();
        written.lock.as_ref().map(|lock| Lock { span: *lock.get_ref(), mode })
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
        if let Some(class) = written.storage_class.as_deref().filter(|class| NEED_A_THAW.contains(class)) {
            let message = format!(
                "store `{name}`: objects of storage class {class} are read only after a thaw of hours, and a run reads back what it writes"
            );
            let hint = "use GLACIER_IR, or let a lifecycle rule move older sets there".to_owned();
            self.problems.push(self.source.problem(None, message, Some(hint)));
        }
        let lock = self.lock(&written);
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
            lock,
            checksums: written.checksums,
            ca_file,
            sign_key: None,
            age: Arc::default(),
        }
    }
}
