//! Finds the right pg_dump: the server's own major version, else the nearest newer one. pg_dump refuses servers
//! newer than itself, so an older one is refused here, before anything has started.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::Result;

use crate::base::child;
use crate::base::fault::{Fault, Kind};
use crate::pg;

/// A folder with pg_dump, pg_dumpall and psql of one version.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tools {
    pub folder: PathBuf,
    pub major: u32,
    /// `pg_dump (PostgreSQL) 18.4`.
    pub version: String,
}

impl Tools {
    pub fn command(&self, tool: &str) -> Command {
        Command::new(self.folder.join(tool))
    }

    /// Returns the first version of the same major whose pg_dump reads no view that an owner puts in the place of a table meanwhile, if this
    /// one does: it would run that owner's code with the rights of the login.
    pub fn needs_update_to(&self) -> Option<String> {
        replaced_relations_fixed_in(self.major, minor_of(&self.version)?)
    }
}

/// The first minor of this major with CVE-2024-7348 fixed, where this minor lacks it. The fix is in pg_dump and in the server, whose setting
/// `restrict_nonsystem_relation_kind` it needs: postgresql.org/support/security/CVE-2024-7348. Pure.
pub fn replaced_relations_fixed_in(major: u32, minor: u32) -> Option<String> {
    let fixed = [(12, 20), (13, 16), (14, 13), (15, 8), (16, 4)];
    let (_, first) = fixed.into_iter().find(|(of, first)| *of == major && minor < *first)?;
    Some(format!("{major}.{first}"))
}

/// Returns the tools for a server of `server_major`. `bin_dir` is searched first.
pub async fn find(bin_dir: Option<&Path>, server_major: u32) -> Result<Tools> {
    let mut found = Vec::new();
    for folder in folders(bin_dir) {
        if let Some(tools) = inspect(&folder).await {
            // The server's own version is best, and folders come in order of preference.
            if tools.major == server_major {
                return Ok(tools);
            }
            found.push(tools);
        }
    }
    choose(&found, server_major).map_err(|reason| Fault::new(Kind::Configuration, reason).into())
}

/// Returns the tools for a restore into such a server. psql works with newer servers, too, so the newest one is used.
pub async fn find_for_restore(bin_dir: Option<&Path>, server_major: u32) -> Result<Tools> {
    let mut found = Vec::new();
    for folder in folders(bin_dir) {
        found.extend(inspect(&folder).await);
    }
    let newest = found.iter().max_by_key(|tools| tools.major).cloned();
    match choose(&found, server_major) {
        Ok(tools) => Ok(tools),
        Err(reason) => newest.ok_or_else(|| Fault::new(Kind::Configuration, reason).into()),
    }
}

/// Returns the newest tools: pg_restore reads the archives of all older versions.
pub async fn newest(bin_dir: Option<&Path>) -> Result<Tools> {
    let mut newest: Option<Tools> = None;
    for folder in folders(bin_dir) {
        let found = inspect(&folder).await.filter(|found| newest.as_ref().is_none_or(|newest| newest.major < found.major));
        newest = found.or(newest);
    }
    newest.ok_or_else(|| {
        let message = "no client tools of PostgreSQL were found: install them (Debian: postgresql-client), or set tools.bin_dir in the configuration";
        Fault::new(Kind::Configuration, message).into()
    })
}

/// Connects as pg_dump would, in the same environment: psql uses the same library. The returned text is for people.
pub async fn try_connection(tools: &Tools, settings: &pg::Settings) -> Result<String> {
    let mut command = tools.command("psql");
    settings.apply_to(&mut command);
    command.args(["--no-psqlrc", "--no-password", "--tuples-only", "--no-align"]);
    command
        .args(["--command", "SELECT coalesce((SELECT version FROM pg_catalog.pg_stat_ssl WHERE pid OPERATOR(pg_catalog.=) pg_catalog.pg_backend_pid() AND ssl), 'no TLS')"]);
    match child::output(command).await {
        Ok(tls) => Ok(format!("connects ({})", tls.trim())),
        Err(error) => {
            Err(error
                .context(Fault::new(Kind::Configuration, "pg_dump and psql cannot connect with this database's configuration")))
        }
    }
}

/// Chooses the same major version, else the nearest newer one. This is pure.
fn choose(found: &[Tools], server_major: u32) -> Result<Tools, String> {
    if let Some(tools) = found.iter().filter(|tools| tools.major >= server_major).min_by_key(|tools| tools.major) {
        return Ok(tools.clone());
    }
    let seen = match found.iter().max_by_key(|tools| tools.major) {
        Some(newest) => format!("the newest pg_dump here is {} in {}", newest.major, newest.folder.display()),
        None => "no pg_dump was found".to_owned(),
    };
    Err(format!(
        "the server is PostgreSQL {server_major} and {seen}, which cannot dump it: install postgresql-client-{server_major} \
         (Debian, Ubuntu) or postgresql{server_major} (Red Hat), or set tools.bin_dir in the configuration"
    ))
}

/// Lists the folders with client tools: `bin_dir`, the folders of packages, then PATH.
fn folders(bin_dir: Option<&Path>) -> Vec<PathBuf> {
    let mut folders: Vec<PathBuf> = bin_dir.map(Path::to_owned).into_iter().chain(packaged_folders()).collect();
    let path = std::env::var_os("PATH").unwrap_or_default();
    folders.extend(std::env::split_paths(&path).filter(|folder| !folder.as_os_str().is_empty()));
    folders.retain(|folder| folder.join("pg_dump").is_file());
    folders.dedup();
    folders
}

/// Lists the folders where packages put programs: Debian and Ubuntu, Red Hat's PGDG packages, Homebrew.
pub(super) fn packaged_folders() -> Vec<PathBuf> {
    let mut folders = Vec::new();
    for (parent, prefix, suffix) in [
        ("/usr/lib/postgresql", "", "bin"),
        ("/usr", "pgsql-", "bin"),
        ("/opt/homebrew/opt", "postgresql@", "bin"),
        ("/usr/local/opt", "postgresql@", "bin"),
    ] {
        let Ok(entries) = std::fs::read_dir(parent) else { continue };
        let mut versions: Vec<(u32, PathBuf)> = entries
            .flatten()
            .filter_map(|entry| {
                let major = entry.file_name().to_str()?.strip_prefix(prefix)?.parse().ok()?;
                Some((major, entry.path().join(suffix)))
            })
            .collect();
        versions.sort();
        folders.extend(versions.into_iter().map(|(_, path)| path));
    }
    folders
}

async fn inspect(folder: &Path) -> Option<Tools> {
    let mut command = Command::new(folder.join("pg_dump"));
    command.arg("--version");
    let version = child::output(command).await.ok()?.trim().to_owned();
    Some(Tools { folder: folder.to_owned(), major: major_of(&version)?, version })
}

/// Returns the major version: 15 for `pg_dump (PostgreSQL) 15.18 (Debian …)`, 18 for `18beta1`.
pub(super) fn major_of(version: &str) -> Option<u32> {
    let number = version.split(") ").nth(1)?;
    let digits: String = number.chars().take_while(char::is_ascii_digit).collect();
    digits.parse().ok()
}

/// Returns the minor version: 18 for `pg_dump (PostgreSQL) 15.18 (Debian …)`; None for `18beta1`.
fn minor_of(version: &str) -> Option<u32> {
    let number = version.split(") ").nth(1)?.split(' ').next()?;
    number.split_once('.')?.1.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pg_dump_that_reads_replaced_relations_is_known_by_its_version() {
        for (version, update) in [
            ("pg_dump (PostgreSQL) 15.7 (Debian 15.7-0+deb12u1)", Some("15.8")),
            ("pg_dump (PostgreSQL) 15.8", None),
            ("pg_dump (PostgreSQL) 14.12", Some("14.13")),
            ("pg_dump (PostgreSQL) 16.3", Some("16.4")),
            ("pg_dump (PostgreSQL) 16.14", None),
            ("pg_dump (PostgreSQL) 17.0", None),
            ("pg_dump (PostgreSQL) 18beta1", None),
        ] {
            let tools = Tools { folder: PathBuf::new(), major: major_of(version).unwrap(), version: version.to_owned() };
            assert_eq!(tools.needs_update_to().as_deref(), update, "{version}");
        }
    }

    fn tools(majors: &[u32]) -> Vec<Tools> {
        majors
            .iter()
            .map(|major| Tools { folder: format!("/pg/{major}").into(), major: *major, version: String::new() })
            .collect()
    }

    #[test]
    fn the_same_major_wins_then_the_nearest_newer() {
        assert_eq!(choose(&tools(&[14, 16, 18]), 16).unwrap().major, 16);
        assert_eq!(choose(&tools(&[14, 17, 18]), 16).unwrap().major, 17);
    }

    #[test]
    fn an_older_pg_dump_is_refused_with_the_package_to_install() {
        let reason = choose(&tools(&[14, 15]), 18).unwrap_err();
        assert!(reason.contains("postgresql-client-18") && reason.contains("15 in /pg/15"), "{reason}");
        assert!(choose(&[], 18).unwrap_err().contains("no pg_dump was found"));
    }

    #[test]
    fn versions_are_read_as_packagers_write_them() {
        assert_eq!(major_of("pg_dump (PostgreSQL) 15.18 (Debian 15.18-0+deb12u1)"), Some(15));
        assert_eq!(major_of("pg_dump (PostgreSQL) 18beta1"), Some(18));
        assert_eq!(major_of("something else"), None);
    }
}
