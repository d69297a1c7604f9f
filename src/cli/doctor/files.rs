//! Files that others could change or read.

use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::Path;

use rustix::process::geteuid;
use secrecy::ExposeSecret as _;

use super::finding::{Finding, State};
use crate::config::{Config, Store};
use crate::pg::Settings;
use crate::run::job::Job;

/// Looks at the configuration, the jobs, and the folders of stores.
pub fn of_others(config: &Config, jobs: &[Job]) -> Vec<Finding> {
    let paths = std::iter::once(config.path.as_path()).chain(jobs.iter().map(|job| job.path.as_path()));
    let mut findings: Vec<Finding> = paths.filter_map(changeable).collect();
    findings.extend(password(config));
    findings.extend(config.stores.iter().filter_map(|(name, store)| readable(name, store)));
    if findings.is_empty() {
        findings.push(Finding::new(
            State::Fine,
            "files",
            "the files of the configuration and the jobs are not open to all, nor are the folders of stores. Folders above them, groups, and files with \
             secrets were not looked at",
        ));
    }
    findings
}

/// A file that decides what pgtend does, and that others may write.
fn changeable(path: &Path) -> Option<Finding> {
    let shown = path.display();
    let found = path.metadata().ok()?;
    let owner = found.uid();
    if owner != geteuid().as_raw() && owner != 0 {
        let said = format!(
            "{shown} belongs to user {owner}, who can make pgtend run other statements: chown it to the user of pgtend, or to root"
        );
        return Some(Finding::new(State::Warning, "files", said));
    }
    let is_open = found.permissions().mode() & 0o002 != 0;
    is_open.then(|| {
        Finding::new(
            State::Warning,
            "files",
            format!("others may write to {shown}, and make pgtend run other statements: chmod o-w {shown}"),
        )
    })
}

/// A password in a configuration that others may read.
fn password(config: &Config) -> Option<Finding> {
    let is_open = config.path.metadata().is_ok_and(|found| found.permissions().mode() & 0o004 != 0);
    let text = std::fs::read_to_string(&config.path).ok()?;
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
}

/// A folder with dumps that others may read.
fn readable(name: &str, store: &Store) -> Option<Finding> {
    let Store::Dir { path, age, .. } = store else { return None };
    let mode = path.metadata().ok()?.permissions().mode();
    let is_open = mode & 0o002 != 0 || (mode & 0o005 == 0o005 && age.recipients.is_empty());
    is_open.then(|| {
        let shown = path.display();
        let said = format!("others may enter {shown}, where dumps hold all data: chmod 700 {shown}");
        Finding::new(State::Warning, format!("store {name}"), said)
    })
}
