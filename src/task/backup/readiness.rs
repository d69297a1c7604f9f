//! Checks beforehand, as far as possible, whether a dump of this database by this role will work, and its restore where the job asks for
//! one: for `check --connect`, for a dry run, and for advice after a failure.

use anyhow::{Context as _, Result};
use sqlx::postgres::PgConnection;

use super::facts::ServerFacts;
use super::keys::Backup;
use super::patterns::Patterns;
use super::place::Place;
use super::search_path::SearchPath;
use super::{lacks, psql_reads, scratch, standby};
use crate::base::fault::{Fault, Kind};
use crate::base::units;
use crate::pg::{self, failure, identifier};

/// A factor above what a dump needs, so that the application has some locks of its own.
const LOCKS_SPARE: f64 = 1.25;

/// This many names of a longer list are given.
const NAMES_SAID: usize = 5;

#[derive(Clone, Debug, Default, sqlx::FromRow)]
pub struct Readiness {
    /// Quoted as in SQL, like `database`.
    pub role: String,
    pub database: String,
    pub version_num: i32,
    /// Tables and sequences.
    pub unreadable: Vec<String>,
    /// Tables of which this role would see only some rows.
    pub row_security: Vec<String>,
    pub unreadable_large_objects: i64,
    pub a_large_object: Option<i64>,
    /// Quoted as in SQL; superusers are left out.
    pub large_object_owners: Vec<String>,
    pub locks_needed: i64,
    pub locks_per_transaction: i64,
    pub lock_holders: i64,
    /// The numbers, from 1, of the patterns in `schemas` without a match.
    pub schemas_without_match: Vec<i64>,
    pub has_pg_cron: bool,
}

/// A missing requirement of a run, with the remedy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lack {
    pub kind: Kind,
    pub message: String,
}

/// Everything that was found beforehand.
#[derive(Clone, Debug, Default)]
pub struct Found {
    pub lacks: Vec<Lack>,
    /// Notes that do not make a run fail.
    pub notes: Vec<String>,
}

pub async fn read(connection: &mut PgConnection, backup: &Backup, settings: &pg::Settings) -> Result<Readiness> {
    let patterns = Patterns::of(&backup.filters);
    let found_by_name = SearchPath::schemas_for(&patterns, settings).await?;
    let Patterns { schemas, without, without_rows } = patterns;
    let query = sqlx::query_as(include_str!("readiness.sql"))
        .bind(&schemas)
        .bind(without.schemas)
        .bind(without.names)
        .bind(without_rows.schemas)
        .bind(without_rows.names)
        // With `schemas`, pg_dump dumps no large objects.
        .bind(schemas.is_empty())
        .bind(found_by_name);
    Ok(query.fetch_one(connection).await?)
}

/// Finds everything that would make the job's runs fail. `place` is where its sets are restored.
pub async fn look(
    connection: &mut PgConnection,
    backup: &Backup,
    settings: &pg::Settings,
    source: &ServerFacts,
    place: &Place,
) -> Result<Found> {
    let mut found = Found::default();
    let ready = match read(connection, backup, settings).await {
        Ok(ready) => ready,
        // 2201B: it is not a regular expression.
        Err(error) if pg::sql_state(&error).as_deref() == Some("2201B") => {
            let message = format!(
                "a pattern of `schemas`, `exclude_tables` or `exclude_table_data` is invalid: {}",
                failure::in_a_line(&error)
            );
            found.lacks.push(Lack { kind: Kind::Configuration, message });
            return Ok(found);
        }
        Err(error) => return Err(error),
    };
    found.lacks.extend(ready.lacks(backup));
    if let Err(error) = standby::check(place, connection).await {
        let kind = failure::kind_of(&error).unwrap_or(Kind::Configuration);
        found.lacks.push(Lack { kind, message: failure::in_a_line(&error) });
    } else {
        match place {
            Place::NotAsked | Place::OwnServer(_) => {}
            Place::Nowhere { kind, message } => found.lacks.push(Lack { kind: *kind, message: message.clone() }),
            Place::Source { .. } => found.lacks.extend(lacks_of_restore(connection, backup, source, &ready, None).await?),
            Place::Elsewhere(settings) => {
                found.lacks.extend(lacks_of_restore(connection, backup, source, &ready, Some(settings)).await?);
            }
        }
    }
    let misread = psql_reads::misread(connection).await?;
    if !misread.is_empty() {
        found.notes.push(format!(
            "psql misreads {} of a dump of this database ({}) and loses everything after it: \"gunzip | psql\" alone does not restore it, and \
             `pgtend backups restore` does; rename what is called \"begin\" there",
            units::plural(misread.len(), "function"),
            some(&misread)
        ));
    }
    Ok(found)
}

/// One error for all missing requirements.
pub fn refuse(lacks: &[Lack]) -> Result<()> {
    let Some(first) = lacks.first() else { return Ok(()) };
    let message = match lacks {
        [only] => only.message.clone(),
        _ => lacks.iter().enumerate().map(|(at, lack)| format!("({}) {}", at + 1, lack.message)).collect::<Vec<_>>().join("; "),
    };
    Err(Fault::new(first.kind, message).into())
}

/// Objects that only a superuser may restore, in words; not those of extensions, and `in_own_server` not those that a superuser restores there.
pub async fn of_superusers(connection: &mut PgConnection, in_own_server: bool) -> Result<Vec<String>> {
    let sql = concat!("WITH ", include_str!("support_functions.sql"), ", ", include_str!("superusers.sql"));
    Ok(sqlx::query_scalar(sql).bind(None::<Vec<i64>>).bind(in_own_server).fetch_all(connection).await?)
}

/// The `extensions` that no grant lets a role create on this server.
pub async fn untrusted_extensions(connection: &mut PgConnection, extensions: &[String]) -> Result<Vec<String>> {
    let names = sqlx::query_scalar(
        "SELECT e.name::text FROM pg_catalog.pg_available_extensions e
         JOIN pg_catalog.pg_available_extension_versions v ON v.name = e.name AND v.version = e.default_version
         WHERE v.superuser AND NOT v.trusted AND e.name = ANY ($1) ORDER BY 1",
    );
    Ok(names.bind(extensions).fetch_all(connection).await?)
}

/// The missing requirements of the scratch database for verify = "restore".
async fn lacks_of_restore(
    connection: &mut PgConnection,
    backup: &Backup,
    source: &ServerFacts,
    ready: &Readiness,
    scratch: Option<&pg::Settings>,
) -> Result<Vec<Lack>> {
    let mut lacks = Vec::new();
    let is_filtered = !backup.filters.schemas.is_empty();
    if ready.has_pg_cron && !is_filtered {
        let message = "verify = \"restore\" cannot work: pg_cron can be only in the database that cron.database_name names, \
                       and the scratch database is another one; use verify = \"checksum\", or restore manually with --without EXTENSION pg_cron";
        lacks.push(Lack { kind: Kind::Configuration, message: message.to_owned() });
    }
    let of_superusers = if is_filtered { Vec::new() } else { of_superusers(connection, false).await? };
    let mut other;
    let (target, place, way_out) = match scratch {
        None => (connection, "", "name another server with `scratch`, or use verify = \"checksum\""),
        Some(settings) => {
            other = match scratch::maintenance_connection(settings).await.context("cannot query the server for scratch databases")
            {
                Ok(connection) => connection,
                Err(error) => {
                    let kind = failure::kind_of(&error).unwrap_or(Kind::Unreachable);
                    lacks.push(Lack { kind, message: failure::in_a_line(&error) });
                    return Ok(lacks);
                }
            };
            (
                &mut other,
                " on the server for scratch databases",
                "let `scratch` connect as a superuser, or use verify = \"checksum\"",
            )
        }
    };
    let extensions: Vec<String> = match is_filtered {
        true => Vec::new(),
        false => source.extensions.iter().map(|extension| extension.name.clone()).filter(|name| name != "pg_cron").collect(),
    };
    if scratch.is_some() {
        lacks.extend(missing_there(target, source, &extensions, is_filtered, place).await?);
    }
    lacks.extend(lacks_of_role(target, &extensions, &of_superusers, place, way_out).await?);
    Ok(lacks)
}

/// The extensions and roles of the dump that the server for scratch databases lacks.
async fn missing_there(
    target: &mut PgConnection,
    source: &ServerFacts,
    extensions: &[String],
    is_filtered: bool,
    place: &str,
) -> Result<Vec<Lack>> {
    let configuration = |message: String| Lack { kind: Kind::Configuration, message };
    let missing = lacks::lacks(target, source, &source.roles, &source.database.encoding).await?;
    let missing_extensions: Vec<String> = missing.extensions.into_iter().filter(|name| extensions.contains(name)).collect();
    let mut lacks = Vec::new();
    if !missing_extensions.is_empty() {
        lacks.push(configuration(format!(
            "extensions of the dump are missing{place}: {}: install their packages there",
            missing_extensions.join(", ")
        )));
    }
    if !missing.roles.is_empty() && !is_filtered {
        let roles: Vec<String> = missing.roles.iter().map(|role| format!("CREATE ROLE {} NOLOGIN", identifier(role))).collect();
        lacks.push(configuration(format!("roles of the dump are missing{place}: {}", roles.join("; "))));
    }
    Ok(lacks)
}

/// The rights that the restoring role lacks.
async fn lacks_of_role(
    target: &mut PgConnection,
    extensions: &[String],
    of_superusers: &[String],
    place: &str,
    way_out: &str,
) -> Result<Vec<Lack>> {
    let (role, is_superuser, may_create_databases): (String, bool, bool) = sqlx::query_as(
        "SELECT pg_catalog.quote_ident(rolname), rolsuper, rolcreatedb FROM pg_catalog.pg_roles WHERE rolname = current_user",
    )
    .fetch_one(&mut *target)
    .await?;
    if is_superuser {
        return Ok(Vec::new());
    }
    let mut messages = Vec::new();
    if !may_create_databases {
        messages.push(format!("verify = \"restore\" creates a scratch database{place}: ALTER ROLE {role} CREATEDB, {way_out}"));
    }
    let untrusted = untrusted_extensions(target, extensions).await?;
    if !untrusted.is_empty() {
        messages.push(format!(
            "verify = \"restore\" creates the extensions again, and {role} may not create {}{place}, as only a superuser may; {way_out}",
            untrusted.iter().map(|name| identifier(name)).collect::<Vec<_>>().join(", ")
        ));
    }
    if !of_superusers.is_empty() {
        messages.push(format!(
            "verify = \"restore\" creates everything again, and {role} may not create {}{place}, as only a superuser may; {way_out}",
            some(of_superusers)
        ));
    }
    Ok(messages.into_iter().map(|message| Lack { kind: Kind::Permission, message }).collect())
}

impl Readiness {
    /// The missing requirements of the dump itself.
    fn lacks(&self, backup: &Backup) -> Vec<Lack> {
        let lack = |kind: Kind| move |message: String| Lack { kind, message };
        let permission = [self.unreadable_in_words(), self.row_security_in_words(), self.large_objects_in_words()];
        let configuration = [self.schemas_in_words(backup), self.locks_in_words()];
        let permission = permission.into_iter().flatten().map(lack(Kind::Permission));
        permission.chain(configuration.into_iter().flatten().map(lack(Kind::Configuration))).collect()
    }

    pub fn unreadable_in_words(&self) -> Option<String> {
        let role = &self.role;
        (!self.unreadable.is_empty()).then(|| {
            let relations = units::plural(self.unreadable.len(), "relation");
            format!("the role {role} cannot read {relations} ({}): GRANT pg_read_all_data TO {role}", some(&self.unreadable))
        })
    }

    pub fn row_security_in_words(&self) -> Option<String> {
        let role = &self.role;
        (!self.row_security.is_empty()).then(|| {
            let tables = units::plural(self.row_security.len(), "table");
            format!(
                "row security hides rows of {tables} ({}) from the role {role}, and pg_dump refuses to dump only some rows: ALTER ROLE {role} BYPASSRLS",
                some(&self.row_security)
            )
        })
    }

    pub fn large_objects_in_words(&self) -> Option<String> {
        let one = self.a_large_object.filter(|_| self.unreadable_large_objects > 0)?;
        let (role, objects) = (&self.role, units::plural(self.unreadable_large_objects, "large object"));
        let what = format!("the role {role} cannot read {objects} (such as {one})");
        if self.version_num >= 190_000 {
            return Some(format!("{what}: GRANT pg_read_all_data TO {role}"));
        }
        Some(format!(
            "{what}, which pg_read_all_data covers since PostgreSQL 19 only: {}",
            large_objects_readable(role, &self.database, &self.large_object_owners).join(", or ")
        ))
    }

    fn schemas_in_words(&self, backup: &Backup) -> Option<String> {
        let written = &backup.filters.schemas;
        let without: Vec<String> = self
            .schemas_without_match
            .iter()
            .filter_map(|number| written.get(usize::try_from(*number).ok()?.checked_sub(1)?).cloned())
            .collect();
        if let (Some(schema), false) = (&backup.schema, without.is_empty()) {
            return Some(lacks_schema(schema));
        }
        (!without.is_empty()).then(|| {
            format!(
                "`schemas` of the job has patterns without a matching schema: {}: correct them, as pg_dump refuses them",
                some(&without)
            )
        })
    }

    pub fn locks_in_words(&self) -> Option<String> {
        let holds = self.locks_per_transaction * self.lock_holders;
        (self.locks_needed > holds).then(|| {
            format!(
                "the server's lock table holds {}, and a dump needs {}, one for each table and sequence: set \
                 max_locks_per_transaction = {} and restart the server",
                units::plural(holds, "lock"),
                units::count(self.locks_needed as u64),
                self.locks_per_transaction_to_set()
            )
        })
    }

    fn locks_per_transaction_to_set(&self) -> i64 {
        let wanted = (self.locks_needed as f64 * LOCKS_SPARE / self.lock_holders.max(1) as f64).ceil() as i64;
        wanted.max(self.locks_per_transaction * 2)
    }
}

/// What a run on one schema says that is not there: of `schemas = "*"`, the next look for schemas ends its runs.
pub fn lacks_schema(schema: &str) -> String {
    format!(
        "the database has no schema {}: it was dropped or renamed, or never was there; its earlier sets stay",
        identifier(schema)
    )
}

/// The ways to let `role` read all large objects up to PostgreSQL 18, in SQL: tested with 14 and 18. A grant on each one does not help, as
/// the application's next one lacks it.
pub fn large_objects_readable(role: &str, database: &str, owners: &[String]) -> Vec<String> {
    let member = (!owners.is_empty()).then(|| format!("GRANT {} TO {role}", owners.join(", ")));
    let compatible = format!(
        "as a superuser: ALTER ROLE {role} IN DATABASE {database} SET lo_compat_privileges = on (it may then read and write every large object there)"
    );
    member.into_iter().chain([compatible]).collect()
}

fn some(names: &[String]) -> String {
    let more = if names.len() > NAMES_SAID { ", …" } else { "" };
    names.iter().take(NAMES_SAID).cloned().collect::<Vec<_>>().join(", ") + more
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_lock_table_is_compared_with_what_a_dump_needs() {
        let ready =
            |needed: i64| Readiness { locks_needed: needed, locks_per_transaction: 10, lock_holders: 32, ..Readiness::default() };
        assert_eq!(ready(320).locks_in_words(), None);
        let message = ready(3000).locks_in_words().unwrap();
        assert!(message.contains("holds 320 locks") && message.contains("needs 3,000"), "{message}");
        assert!(message.contains("max_locks_per_transaction = 118 "), "{message}");
    }
}
