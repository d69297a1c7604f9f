//! `[stores.NAME]`: a directory, an S3 bucket, a container of Azure or a bucket of Google.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use secrecy::SecretString;
use toml::Spanned;

use super::{Loader, absolute};
use crate::config::secret::Secret;
use crate::config::written::WrittenStore;
use crate::config::{Cloud, Encryption, Lock, NamedFile, Provider, S3, Store};

/// S3 counts in days, and refuses what is longer.
const LOCKS: std::ops::RangeInclusive<Duration> = Duration::from_secs(86_400)..=Duration::from_secs(36_500 * 86_400);

/// Storage classes whose objects are not read at once.
const NEED_A_THAW: [&str; 3] = ["GLACIER", "DEEP_ARCHIVE", "Archive"];

const PARTS_IN_FLIGHT: usize = 3;
const UPLOAD_MEMORY_BYTES: u64 = 512 << 20;

/// This is the length of an HMAC-SHA256 hash (RFC 2104, 3): a shorter key is weaker than the hash.
const SIGN_KEY_BYTES: usize = 32;

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Dir,
    S3,
    Azure,
    Google,
}

impl Kind {
    fn article_and_name(self) -> &'static str {
        match self {
            Self::Dir => "a folder",
            Self::S3 => "an S3 bucket",
            Self::Azure => "an Azure container",
            Self::Google => "a Google bucket",
        }
    }
}

/// Says how to write the place that a URL means.
fn place_instead(text: &str, key: &str) -> String {
    let (scheme, rest) = text.split_once("://").unwrap_or((if key == "bucket" { "s3" } else { "" }, text));
    let (bucket, prefix) = rest.trim_end_matches('/').split_once('/').unwrap_or((rest, ""));
    let prefix = if prefix.is_empty() { String::new() } else { format!(" and prefix = {prefix:?}") };
    let is_plain = rest.chars().all(|letter| letter.is_ascii_alphanumeric() || "._-/".contains(letter));
    match scheme {
        "s3" | "s3a" if is_plain => format!("write bucket = {bucket:?}{prefix}"),
        "gs" | "gcs" if is_plain => format!("write gcs_bucket = {bucket:?}{prefix}"),
        "az" | "azure" | "abfs" if is_plain => format!("write container = {bucket:?}, account = \"NAME\"{prefix}"),
        "file" if is_plain => format!("write path = {rest:?}"),
        "http" | "https" => "write bucket = \"NAME\", with the server's URL as `endpoint`".to_owned(),
        _ => "path = \"/var/lib/pgtend/store\" or bucket = \"name\"".to_owned(),
    }
}

impl Loader<'_> {
    pub(super) fn store(&mut self, name: &str, mut written: WrittenStore) -> Option<Store> {
        let (env, file) = (written.sign_key_env.take(), written.sign_key_file.take());
        let sign_key = self.sign_key(&format!("store `{name}`"), env, file);
        let age = Arc::new(self.age_keys(name, &mut written));
        let kind = self.kind(name, &written)?;
        self.keys_of_other_kinds(name, kind, &written);
        Some(match kind {
            Kind::Dir => {
                let path = absolute(&self.folder.join(written.path?.get_ref()));
                Store::Dir { path, sign_key, age, max_upload: written.max_upload }
            }
            Kind::S3 => {
                let bucket = written.bucket.take()?.into_inner();
                Store::S3(Box::new(S3 { sign_key, age, ..self.s3(name, bucket, written) }))
            }
            Kind::Azure | Kind::Google => {
                let provider = self.provider(name, &mut written)?;
                Store::Cloud(Box::new(Cloud { sign_key, age, ..self.cloud(name, provider, written) }))
            }
        })
    }

    /// Tells the kind of a store by the one key that says where its objects are.
    fn kind(&mut self, name: &str, written: &WrittenStore) -> Option<Kind> {
        let places = [
            (Kind::Dir, "path", written.path.as_ref().map(Spanned::span)),
            (Kind::S3, "bucket", written.bucket.as_ref().map(Spanned::span)),
            (Kind::Azure, "container", written.container.as_ref().map(Spanned::span)),
            (Kind::Google, "gcs_bucket", written.gcs_bucket.as_ref().map(Spanned::span)),
        ];
        let mut named = places.into_iter().filter_map(|(kind, key, span)| Some((kind, key, span?)));
        let (message, hint, span) = match (named.next(), named.next()) {
            (Some((kind, ..)), None) => return self.is_no_url(name, written).then_some(kind),
            (Some((_, key, span)), Some((_, other, _))) => (
                format!("store `{name}` has a `{key}` and a `{other}`"),
                "a store has one of them: define two stores",
                Some(span),
            ),
            // The place may be one of the keys with mistakes.
            (None, _) if self.without.iter().any(|path| path.starts_with(&["stores".to_owned(), name.to_owned()])) => {
                return None;
            }
            (None, _) => {
                let message = format!("store `{name}` has neither `path` nor `bucket` nor `container` nor `gcs_bucket`");
                (message, "path = \"/var/lib/pgtend/store\" or bucket = \"name\"", None)
            }
        };
        self.problems.push(self.source.problem(span, message, Some(hint.to_owned())));
        None
    }

    /// A URL in place of a folder or of a bucket's name is a mistake: nobody has a folder `s3:`.
    fn is_no_url(&mut self, name: &str, written: &WrittenStore) -> bool {
        let path = written.path.as_ref().map(|path| (path.span(), path.get_ref().display().to_string(), "path"));
        let named = |key, text: &Option<Spanned<String>>| text.as_ref().map(|text| (text.span(), text.get_ref().clone(), key));
        let places = [
            path,
            named("bucket", &written.bucket),
            named("container", &written.container),
            named("gcs_bucket", &written.gcs_bucket),
        ];
        for (span, text, key) in places.into_iter().flatten() {
            let is_folder_in_bucket = key == "bucket" && text.contains('/') && !text.starts_with("arn:");
            if !text.contains("://") && !is_folder_in_bucket {
                continue;
            }
            let what = if key == "path" { "a folder of this host" } else { "a name, without URL and folders" };
            let message = format!("store `{name}`: `{key}` is {what}");
            self.problems.push(self.source.problem(Some(span), message, Some(place_instead(&text, key))));
            return false;
        }
        true
    }

    /// A key that this kind of store does not have would be ignored.
    fn keys_of_other_kinds(&mut self, name: &str, kind: Kind, written: &WrittenStore) {
        if let (true, Some(lock)) = (kind != Kind::S3, &written.lock) {
            let message = format!("store `{name}` is {}, which has no `lock`", kind.article_and_name());
            self.problem(lock, message, "only an S3 bucket with Object Lock has one");
        }
        let is_cloud = matches!(kind, Kind::Azure | Kind::Google);
        let of_s3 = [
            ("region", written.region.is_some()),
            ("path_style", written.path_style.is_some()),
            ("server_side_encryption", written.server_side_encryption.is_some()),
            ("kms_key_id", written.kms_key_id.is_some()),
            ("max_parts", written.max_parts.is_some()),
            ("checksums", written.checksums.is_some()),
        ];
        let of_one_kind = [
            ("account", written.account.is_some() && kind != Kind::Azure),
            ("credentials_env", written.credentials_env.is_some() && !is_cloud),
            ("credentials_file", written.credentials_file.is_some() && !is_cloud),
            ("tag_proved", written.tag_proved.is_some() && kind != Kind::S3),
        ];
        let of_s3 = of_s3.into_iter().map(|(key, is_set)| (key, is_set && is_cloud));
        for (key, _) in of_s3.chain(of_one_kind).filter(|(_, is_wrong)| *is_wrong) {
            let message = format!("store `{name}` is {}, which has no `{key}`", kind.article_and_name());
            let hint = "remove the key; which kind has which is in docs/reference/configuration.md".to_owned();
            self.problems.push(self.source.problem(None, message, Some(hint)));
        }
    }

    fn provider(&mut self, name: &str, written: &mut WrittenStore) -> Option<Provider> {
        if let Some(bucket) = written.gcs_bucket.take() {
            return Some(Provider::Google { bucket: bucket.into_inner() });
        }
        let container = written.container.take()?;
        let Some(account) = written.account.take() else {
            let hint = "account = \"NAME\": the storage account, as in https://NAME.blob.core.windows.net";
            self.problem(&container, format!("store `{name}` has a `container` and no `account`"), hint);
            return None;
        };
        Some(Provider::Azure { account: account.into_inner(), container: container.into_inner() })
    }

    fn sign_key(&mut self, of: &str, env: Option<Spanned<String>>, file: Option<Spanned<PathBuf>>) -> Option<SecretString> {
        let secret = Secret { key: "sign_key", of, literal: None, env, file };
        let (key, span) = self.secret(secret)?;
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
        self.files.push(NamedFile { key: format!("`ca_file` of {of}"), path: path.clone(), is_secret: false });
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
            self.problem(
                lock,
                format!("`lock` of {} is out of range", lock.get_ref()),
                "Object Lock takes 1 day to 100 years: \"30d\"",
            );
        }
        if let (None, Some(mode)) = (&written.lock, &written.lock_mode) {
            self.problem(mode, "`lock_mode` without `lock`".to_owned(), "say how long: lock = \"30d\"");
        }
        let mode = written.lock_mode.as_ref().map(|mode| *mode.get_ref()).unwrap_or_default();
        written.lock.as_ref().map(|lock| Lock { span: *lock.get_ref(), mode })
    }

    fn s3(&mut self, name: &str, bucket: String, mut written: WrittenStore) -> S3 {
        let hint = "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, a profile or a role instead";
        self.endpoint(name, &written, hint);
        self.upload(&written);
        self.storage_class(name, &written, "use GLACIER_IR, or let a lifecycle rule move older sets there");
        if let Some(key) = &written.kms_key_id
            && written.server_side_encryption != Some(Encryption::Kms)
        {
            self.problem(key, "`kms_key_id` without SSE-KMS".to_owned(), "add server_side_encryption = \"aws:kms\"");
        }
        if let Some(parts) = written.max_parts.as_ref().filter(|parts| !(1..=10_000).contains(parts.get_ref())) {
            self.problem(parts, format!("`max_parts = {}` is out of range", parts.get_ref()), "S3 allows 1 to 10,000");
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
            tag_proved: written.tag_proved.unwrap_or_default(),
            max_parts: written.max_parts.map_or(10_000, Spanned::into_inner),
            parts_in_flight: written.parts_in_flight.map_or(PARTS_IN_FLIGHT, Spanned::into_inner),
            upload_memory_bytes: written.upload_memory.map_or(UPLOAD_MEMORY_BYTES, |size| size.into_inner().0),
            part_timeout: written.part_timeout,
            max_upload: written.max_upload,
            lock,
            checksums: written.checksums,
            ca_file,
            sign_key: None,
            age: Arc::default(),
        }
    }

    fn cloud(&mut self, name: &str, provider: Provider, mut written: WrittenStore) -> Cloud {
        self.endpoint(name, &written, "use `credentials_file`, or what the environment or the machine provides");
        self.upload(&written);
        self.storage_class(name, &written, "use Cold, or let a lifecycle rule move older sets there");
        let of = format!("store `{name}`");
        let (env, file) = (written.credentials_env.take(), written.credentials_file.take());
        let secret = Secret { key: "credentials", of: &of, literal: None, env, file };
        let credentials = self.secret(secret).map(|(text, _)| SecretString::from(text));
        let ca_file = written.ca_file.take().and_then(|ca_file| self.ca_file(ca_file, &of));
        Cloud {
            provider,
            prefix: written.prefix.unwrap_or_default().trim_matches('/').to_owned(),
            endpoint: written.endpoint.map(|endpoint| endpoint.into_inner().trim_end_matches('/').to_owned()),
            credentials,
            storage_class: written.storage_class,
            parts_in_flight: written.parts_in_flight.map_or(PARTS_IN_FLIGHT, Spanned::into_inner),
            upload_memory_bytes: written.upload_memory.map_or(UPLOAD_MEMORY_BYTES, |size| size.into_inner().0),
            part_timeout: written.part_timeout,
            max_upload: written.max_upload,
            ca_file,
            sign_key: None,
            age: Arc::default(),
        }
    }

    /// Reports an endpoint that is none, or that holds credentials; `hint` says where those belong.
    fn endpoint(&mut self, name: &str, written: &WrittenStore, hint: &str) {
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
            self.problems.push(self.source.problem(None, message, Some(hint.to_owned())));
        }
    }

    /// Reports a class whose objects cannot be read at once; `hint` says what to use.
    fn storage_class(&mut self, name: &str, written: &WrittenStore, hint: &str) {
        if let Some(class) = written.storage_class.as_deref().filter(|class| NEED_A_THAW.contains(class)) {
            let message = format!(
                "store `{name}`: objects of storage class {class} are read only after a thaw of hours, and a run reads back what it writes"
            );
            self.problems.push(self.source.problem(None, message, Some(hint.to_owned())));
        }
    }

    fn upload(&mut self, written: &WrittenStore) {
        if let Some(parts) = written.parts_in_flight.as_ref().filter(|parts| !(1..=64).contains(parts.get_ref())) {
            self.problem(parts, format!("`parts_in_flight = {}` is out of range", parts.get_ref()), "1 to 64");
        }
        if let Some(memory) = written.upload_memory.as_ref().filter(|memory| memory.get_ref().0 < 10 << 20) {
            self.problem(
                memory,
                format!("`upload_memory` of {}", memory.get_ref()),
                "the smallest part is 5 MiB, and pgtend needs two: use 10MiB or more",
            );
        }
    }
}
