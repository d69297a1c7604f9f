//! Files that others or a group could change or read: the configuration, the jobs, what they name, what libpq and the clients of clouds read, and the
//! folders of all of these, up to the root.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use secrecy::{ExposeSecret as _, SecretString};

use super::above;
use super::finding::{Finding, State};
use super::modes::{Access, Use};
use crate::base::units;
use crate::config::{Config, NamedFile, Provider, Store};
use crate::pg::Settings;
use crate::run::job::Job;

/// Secrets that may stand in the configuration itself.
const PASSWORD: &str = "a password";
const WEBHOOK: &str = "the webhook's URL";

/// A file or folder that is looked at.
#[derive(Debug)]
struct Looked {
    path: PathBuf,
    used: Use,
    /// What it is, where its path does not say that: the key that names it, or the secret in it.
    is: Option<String>,
}

/// Looks at who may change or read what pgtend relies on.
pub fn of_others(config: &Config, jobs: &[Job], jobs_dir: &Path) -> Vec<Finding> {
    let mut looked = vec![configuration(config)];
    looked.extend(std::iter::once(jobs_dir).chain(jobs.iter().map(|job| job.path.as_path())).map(relied));
    looked.extend(named(config, jobs));
    looked.extend(of_libpq(config));
    looked.extend(of_clouds(config));
    looked.retain(|file| file.path.exists());
    let mut seen = BTreeSet::new();
    looked.retain(|file| seen.insert(file.path.clone()));
    let mut findings: Vec<Finding> = looked.iter().filter_map(of_file).collect();
    let paths: Vec<&Path> = looked.iter().map(|file| file.path.as_path()).collect();
    findings.extend(above::of_folders(&paths));
    findings.extend(above::of_owners(&paths));
    findings.extend(config.stores.iter().filter_map(|(name, store)| of_dumps(name, store)));
    if findings.is_empty() {
        findings.push(Finding::new(State::Fine, "files", all_is_well(&looked)));
    }
    findings
}

fn configuration(config: &Config) -> Looked {
    let is = secret_in(config).map(str::to_owned);
    Looked { path: config.path.clone(), used: if is.is_some() { Use::Secret } else { Use::Relied }, is }
}

fn relied(path: &Path) -> Looked {
    Looked { path: path.to_owned(), used: Use::Relied, is: None }
}

/// The files that keys of the configuration and of jobs name.
fn named(config: &Config, jobs: &[Job]) -> Vec<Looked> {
    let looked = |file: &NamedFile, of: &str| {
        let used = if file.is_secret { Use::Secret } else { Use::Relied };
        let of = if of.is_empty() { String::new() } else { format!(", job {of}") };
        Looked { path: file.path.clone(), used, is: Some(format!("{}{of}", file.key)) }
    };
    let of_jobs = jobs.iter().flat_map(|job| job.files.iter().map(move |file| looked(file, &job.name)));
    config.files.iter().map(|file| looked(file, "")).chain(of_jobs).collect()
}

/// What libpq reads: passwords, services, client keys and certificates.
fn of_libpq(config: &Config) -> Vec<Looked> {
    let both = config.databases.values().flat_map(|database| [database.settings(), database.owner_settings()]);
    let mut looked = Vec::new();
    for settings in both.flatten() {
        looked.extend(settings.files().map(|(name, path)| {
            let used = match name {
                "passfile" => Use::Passwords,
                "sslkey" => Use::Key,
                "servicefile" if has_a_password(path) => Use::Secret,
                _ => Use::Relied,
            };
            Looked { path: path.to_owned(), used, is: Some(format!("libpq's {name}")) }
        }));
    }
    looked
}

/// Returns whether a service has one. A file that cannot be read is taken for one that has.
fn has_a_password(services: &Path) -> bool {
    let is_password = |line: &str| line.trim_start().starts_with("password");
    std::fs::read_to_string(services).map_or(true, |text| text.lines().any(is_password))
}

/// The files where clients of clouds keep credentials, for the stores that may use them.
fn of_clouds(config: &Config) -> Vec<Looked> {
    let home = std::env::home_dir().unwrap_or_default();
    let file = |variable: &str, of_home: &str| {
        let path = std::env::var_os(variable).filter(|path| !path.is_empty()).map_or_else(|| home.join(of_home), PathBuf::from);
        Looked { path, used: Use::Secret, is: Some("credentials of stores".to_owned()) }
    };
    let of_store = |store: &Store| match store {
        Store::S3(_) => Some(file("AWS_SHARED_CREDENTIALS_FILE", ".aws/credentials")),
        Store::Cloud(cloud) if cloud.credentials.is_none() && matches!(cloud.provider, Provider::Google { .. }) => {
            Some(file("GOOGLE_APPLICATION_CREDENTIALS", ".config/gcloud/application_default_credentials.json"))
        }
        Store::Cloud(_) | Store::Dir { .. } => None,
    };
    config.stores.values().filter_map(of_store).collect()
}

/// Says which secret stands in the configuration itself.
fn secret_in(config: &Config) -> Option<&'static str> {
    let text = std::fs::read_to_string(&config.path).ok()?;
<<<<<<< HEAD
    let stands_there = |url: &str| Settings::has_password(url) && text.contains(url);
    let logins = config.databases.values().chain(config.servers.values().map(|server| &server.login));
    let urls = logins.flat_map(|database| [&database.url, &database.owner_url]).flatten();
    let has_one = urls.into_iter().any(|url| stands_there(url.expose_secret()));
    (is_open && has_one).then(|| {
        let shown = config.path.display();
        let said = format!(
            "{shown} holds a password and others may read it: move it to ~/.pgpass, url_file or url_env, or chmod 600 {shown}"
        );
        Finding::new(State::Warning, "files", said)
    })
=======
    let stands_there = |secret: &SecretString| text.contains(secret.expose_secret());
    let mut urls = config.databases.values().flat_map(|database| [&database.url, &database.owner_url]).flatten();
    if urls.any(|url| Settings::has_password(url.expose_secret()) && stands_there(url)) {
        return Some(PASSWORD);
    }
    config.notify.webhook_url.as_ref().is_some_and(stands_there).then_some(WEBHOOK)
>>>>>>> bst2
}

fn of_file(file: &Looked) -> Option<Finding> {
    let (may, remedy) = too_much(&file.path, file.used)?;
    let path = file.path.display();
    let is = file.is.as_ref().map(|is| format!(" ({is})")).unwrap_or_default();
    let said = match file.used {
        Use::Secret if matches!(file.is.as_deref(), Some(PASSWORD | WEBHOOK)) => {
            let what = file.is.as_deref().unwrap_or_default();
            format!("{path} holds {what} and {may}: move it to a file of its own or to the environment, or {remedy}")
        }
        Use::Secret | Use::Key => format!("{path}{is} holds a secret, and {may}: {remedy}"),
        Use::Passwords => format!("{path} is not used for passwords, because {may}: {remedy}"),
        Use::Relied | Use::Dumps { .. } | Use::Above => format!("pgtend relies on {path}{is}, and {may}: {remedy}"),
    };
    Some(Finding::new(State::Warning, "files", said))
}

/// A folder with dumps. The folders above it were no concern of pgtend's when it was made, and are not looked at.
fn of_dumps(name: &str, store: &Store) -> Option<Finding> {
    let Store::Dir { path, age, .. } = store else { return None };
    let (may, remedy) = too_much(path, Use::Dumps { are_encrypted: !age.recipients.is_empty() })?;
    let said = format!("dumps in {} hold all data, and {may}: {remedy}", path.display());
    Some(Finding::new(State::Warning, format!("store {name}"), said))
}

/// Says who may do what, and which command ends that; nothing where all is well.
fn too_much(path: &Path, used: Use) -> Option<(String, String)> {
    let access = Access::of(path)?;
    let too_much = access.too_much(used);
    Some((access.in_words(too_much)?, access.remedy(used, too_much, &path.display().to_string())))
}

fn all_is_well(looked: &[Looked]) -> String {
    let are = |of: fn(&Looked) -> bool| looked.iter().filter(|file| of(file)).count();
    let secrets = are(|file| !matches!(file.used, Use::Relied));
    format!(
        "nobody else may change what pgtend relies on ({}: the configuration, the jobs and their folder, what they and libpq name, and the folders above), \
         read what holds a secret ({secrets} of them), or enter the folders of stores. Access lists, programs in `bin_dir` and what is in stores were not \
         looked at",
        units::plural(looked.len(), "file"),
    )
}
