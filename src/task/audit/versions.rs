//! Versions of the server and of extensions, compared with one dated list of what is known (`versions.toml`). What is not in the list is not known: nothing here says that a
//! version is safe.

use anyhow::{Context as _, Result};
use chrono::{DateTime, NaiveDate, Utc};
use serde::Deserialize;
use serde_json::json;
use sqlx::PgConnection;

use super::checks::Of;
use super::context::{self, AuditContext, CheckResult, Row};
use super::document::Level;
use crate::base::units;
use crate::pg::{self, Server};

/// Minor releases of PostgreSQL come out every three months: an older list lacks one.
const FRESH_DAYS: i64 = 92;
/// A smaller database is taken for a test.
const LEAST_BYTES: i64 = 100 << 20;

#[derive(Debug, Deserialize)]
struct Known {
    as_of: NaiveDate,
    postgres: Vec<Release>,
    extension: Vec<Vulnerable>,
}

#[derive(Debug, Deserialize)]
struct Release {
    major: u32,
    newest: u32,
    released: NaiveDate,
    mends: String,
    source: String,
    ends: NaiveDate,
}

#[derive(Debug, Deserialize)]
struct Vulnerable {
    name: String,
    first: String,
    mended: String,
    cve: String,
    what: String,
    source: String,
}

#[derive(Debug, sqlx::FromRow)]
struct Installed {
    name: String,
    quoted: String,
    version: String,
    /// The version of the server's package, if there is one.
    available: Option<String>,
    /// ALTER EXTENSION … UPDATE can lead there.
    has_way: bool,
}

const EXTENSIONS: &str = "SELECT e.extname::text AS name, quote_ident(e.extname) AS quoted, e.extversion AS version, a.default_version AS available,
        EXISTS (SELECT FROM pg_extension_update_paths(e.extname) p WHERE p.source = e.extversion AND p.target = a.default_version AND p.path IS NOT NULL) AS has_way
     FROM pg_extension e LEFT JOIN pg_available_extensions a ON a.name = e.extname ORDER BY 1";
const BYTES: &str = "SELECT (CASE WHEN has_database_privilege(current_database(), 'CONNECT') THEN pg_database_size(current_database()) END)::text";

pub async fn look(of: Of, context: &AuditContext<'_>, connection: &mut PgConnection) -> Result<CheckResult> {
    let known = known()?;
    if of == Of::Server {
        context::begin(connection, context).await?;
        let bytes = pg::fetch_text(connection, BYTES.to_owned()).await?.and_then(|bytes| bytes.parse().ok());
        let server = Server::of(connection).await?;
        context::end(connection).await?;
        return Ok(match bytes {
            Some(LEAST_BYTES..) => of_server(&known, server.version_num, context.now),
            _ => CheckResult::default(),
        });
    }
    context::begin(connection, context).await?;
    let installed = pg::fetch_all_as::<Installed>(connection, EXTENSIONS.to_owned()).await?;
    context::end(connection).await?;
    Ok(match of {
        Of::Packages => outdated(&known, &installed),
        Of::Server | Of::Extensions => vulnerable(&known, &installed, context.now),
    })
}

fn known() -> Result<Known> {
    toml::from_str(include_str!("versions.toml")).context("the list of known versions")
}

/// Why nothing that was not found is called well: the list is old.
fn stale(known: &Known, now: DateTime<Utc>) -> Option<String> {
    let days = (now.date_naive() - known.as_of).num_days();
    (days > FRESH_DAYS).then(|| {
        format!(
            "the list of known versions is of {}, {} old, and has nothing that came out since: a newer pgtend has a newer one",
            known.as_of,
            units::plural(days.unsigned_abs(), "day")
        )
    })
}

fn of_server(known: &Known, version_num: i32, now: DateTime<Utc>) -> CheckResult {
    let (major, minor) = (version_num.unsigned_abs() / 10_000, version_num.unsigned_abs() % 10_000);
    let Some(release) = known.postgres.iter().find(|release| release.major == major) else {
        return CheckResult::unknown(format!("the list of known versions, of {}, has no PostgreSQL {major}", known.as_of));
    };
    let mut rows = Vec::new();
    if minor < release.newest {
        let behind = units::plural(release.newest - minor, "minor release");
        rows.push(Row {
            issue: Some(format!(
                "PostgreSQL {major}.{minor} is {behind} behind {major}.{}, which came out on {} and mends {}.",
                release.newest, release.released, release.mends
            )),
            ..about(major, "minor", release, known)
        });
    }
    if release.ends <= now.date_naive() {
        rows.push(Row {
            level: Some(Level::Medium),
            issue: Some(format!(
                "PostgreSQL {major} has had its last minor release on {}: faults that are found now stay.",
                release.ends
            )),
            decide: Some(format!("when, and to which major version: PostgreSQL {major} itself gets no more releases.")),
            ..about(major, "support", release, known)
        });
    }
    CheckResult { rows, unknown: stale(known, now).into_iter().collect(), ..CheckResult::default() }
}

fn about(major: u32, what: &str, release: &Release, known: &Known) -> Row {
    let evidence = json!({ "newest": format!("{major}.{}", release.newest), "source": release.source, "list_of": known.as_of });
    Row {
        object: format!("PostgreSQL {major}"),
        identity: Some(what.to_owned()),
        evidence: evidence.as_object().cloned(),
        command: (what == "minor").then(|| {
            format!("# Debian and Ubuntu, on the host of the server; it restarts the server\napt-get update && apt-get install --only-upgrade postgresql-{major}")
        }),
        ..Row::default()
    }
}

fn vulnerable(known: &Known, installed: &[Installed], now: DateTime<Utc>) -> CheckResult {
    let mut rows = Vec::new();
    let mut unknown: Vec<String> = stale(known, now).into_iter().collect();
    for extension in installed {
        for fault in known.extension.iter().filter(|fault| fault.name == extension.name) {
            match fault.has(&extension.version) {
                Some(true) => rows.push(finding(extension, fault, known)),
                Some(false) => (),
                None => unknown.push(format!("{} {}: no version to compare with {}", fault.name, extension.version, fault.cve)),
            }
        }
    }
    CheckResult { rows, unknown, ..CheckResult::default() }
}

fn finding(extension: &Installed, fault: &Vulnerable, known: &Known) -> Row {
    let Installed { name, quoted, version, available, .. } = extension;
    let evidence = json!({
        "version": version, "affected": format!("{} to before {}", fault.first, fault.mended), "available": available, "source": fault.source, "list_of": known.as_of,
    });
    Row {
        object: format!("extension {quoted}"),
        identity: Some(format!("{quoted} {}", fault.cve)),
        issue: Some(format!("{name} {version} has {}: {}.", fault.cve, fault.what)),
        evidence: evidence.as_object().cloned(),
        fix: Some(format!(
            "-- once a package of {} or newer is installed on the server\nALTER EXTENSION {quoted} UPDATE;",
            fault.mended
        )),
        ..Row::default()
    }
}

/// Extensions that are older than their packages; not those of which [`vulnerable`] says so, with the same remedy.
fn outdated(known: &Known, installed: &[Installed]) -> CheckResult {
    let is_said = |extension: &Installed| {
        known.extension.iter().any(|fault| fault.name == extension.name && fault.has(&extension.version) == Some(true))
    };
    let rows = installed.iter().filter(|extension| extension.has_way && !is_said(extension)).filter_map(|extension| {
        let Installed { name, quoted, version, available, .. } = extension;
        let available = available.as_ref().filter(|available| *available != version)?;
        Some(Row {
            object: format!("extension {quoted}"),
            identity: Some(quoted.clone()),
            issue: Some(format!(
                "{name} is at version {version}, and the server has {available}: functions that are new or mended are not there."
            )),
            evidence: json!({ "version": version, "available": available }).as_object().cloned(),
            fix: Some(format!("-- read its release notes first: some updates need a REINDEX\nALTER EXTENSION {quoted} UPDATE;")),
            ..Row::default()
        })
    });
    CheckResult::of(rows.collect())
}

impl Vulnerable {
    /// Whether this version is vulnerable; None where it is no version.
    fn has(&self, version: &str) -> Option<bool> {
        let (version, first, mended) = (numbers(version)?, numbers(&self.first)?, numbers(&self.mended)?);
        Some(first <= version && version < mended)
    }
}

/// Returns the numbers of a version, without zeros at its end: 5.5 is 5.5.0.
fn numbers(version: &str) -> Option<Vec<u32>> {
    let mut numbers: Vec<u32> = version.split('.').map(|part| part.parse().ok()).collect::<Option<_>>()?;
    while numbers.last() == Some(&0) {
        numbers.pop();
    }
    Some(numbers)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn on(day: &str) -> DateTime<Utc> {
        format!("{day}T12:00:00Z").parse().unwrap()
    }

    fn installed(name: &str, version: &str) -> Installed {
        let (name, version) = (name.to_owned(), version.to_owned());
        Installed { quoted: name.clone(), name, version, available: None, has_way: false }
    }

    fn issues(result: &CheckResult) -> Vec<&str> {
        result.rows.iter().map(|row| row.issue.as_deref().unwrap()).collect()
    }

    #[test]
    fn the_list_has_a_page_for_each_entry_and_a_day_that_has_been() {
        let known = known().unwrap();
        let sources =
            known.postgres.iter().map(|release| &release.source).chain(known.extension.iter().map(|fault| &fault.source));
        for source in sources {
            assert!(source.starts_with("https://"), "{source}");
        }
        for fault in &known.extension {
            assert!(fault.cve.starts_with("CVE-") && numbers(&fault.first) < numbers(&fault.mended), "{fault:?}");
        }
        for release in &known.postgres {
            assert!(release.released <= known.as_of && release.ends.format("%m").to_string() == "11", "{release:?}");
        }
    }

    #[test]
    fn a_server_behind_its_newest_minor_release_or_without_any_more_is_found() {
        let known = known().unwrap();
        let found = |version_num, day| of_server(&known, version_num, on(day));
        let behind = found(180_004, "2026-12-01");
        assert!(issues(&behind)[0].starts_with(
            "PostgreSQL 18.4 is 3 minor releases behind 18.7, which came out on 2026-11-12 and mends CVE-2026-6460"
        ));
        assert!(found(180_007, "2026-12-01").rows.is_empty() && found(180_007, "2026-12-01").unknown.is_empty());
        assert!(found(180_009, "2026-12-01").rows.is_empty(), "newer than the list");
        let over = found(140_025, "2026-11-12");
        assert_eq!(
            issues(&over),
            ["PostgreSQL 14 has had its last minor release on 2026-11-12: faults that are found now stay."]
        );
        assert!(found(140_025, "2026-11-11").rows.is_empty());
        assert_eq!(found(130_001, "2026-12-01").unknown, ["the list of known versions, of 2026-11-20, has no PostgreSQL 13"]);
    }

    #[test]
    fn an_old_list_calls_nothing_well_and_says_how_old_it_is() {
        let known = known().unwrap();
        let fresh = vulnerable(&known, &[installed("vector", "0.8.6")], on("2027-02-20"));
        assert!(fresh.rows.is_empty() && fresh.unknown.is_empty(), "{fresh:?}");
        let old = vulnerable(&known, &[installed("vector", "0.8.6")], on("2027-02-21"));
        assert!(old.unknown[0].starts_with("the list of known versions is of 2026-11-20, 93 days old"), "{old:?}");
        assert!(of_server(&known, 180_007, on("2027-02-21")).unknown[0].contains("93 days old"));
    }

    #[test]
    fn vulnerable_versions_are_those_from_the_first_to_before_the_one_that_mends() {
        let known = known().unwrap();
        for (name, version, is_found) in [
            ("vector", "0.5.1", false),
            ("vector", "0.6.0", true),
            ("vector", "0.8.1", true),
            ("vector", "0.8.2", false),
            ("vector", "0.10.0", false),
            ("pg_partman", "5.4.3", true),
            ("pg_partman", "5.5", false),
            ("anon", "0.9", false),
            ("anon", "3.1.4", true),
            ("postgis", "0.0.1", false),
        ] {
            let found = vulnerable(&known, &[installed(name, version)], on("2026-12-01"));
            assert_eq!((found.rows.len(), found.unknown.len()), (usize::from(is_found), 0), "{name} {version}");
        }
        let odd = vulnerable(&known, &[installed("vector", "unpackaged")], on("2026-12-01"));
        assert_eq!((odd.rows.len(), odd.unknown.len()), (0, 1), "what is no version is not called well");
    }

    #[test]
    fn an_extension_that_is_vulnerable_is_not_called_outdated_besides() {
        let known = known().unwrap();
        let with = |name: &str, version: &str, available: &str| Installed {
            available: Some(available.to_owned()),
            has_way: true,
            ..installed(name, version)
        };
        let all = [
            with("vector", "0.8.0", "0.8.6"),
            with("vector", "0.8.2", "0.8.6"),
            with("pg_trgm", "1.5", "1.6"),
            with("hstore", "1.8", "1.8"),
        ];
        let names: Vec<String> = outdated(&known, &all).rows.into_iter().map(|row| row.issue.unwrap()).collect();
        assert_eq!(names.len(), 2, "{names:?}");
        assert!(names[0].starts_with("vector is at version 0.8.2") && names[1].starts_with("pg_trgm is at version 1.5"));
    }
}
