//! The entry of `[backup]` in the list of tasks.

use anyhow::Result;
use sqlx::PgConnection;

use super::keys::{Backup, Scratch, Verify};
use super::manifest::Filters;
use super::{choose, facts, readiness};
use crate::base::units;
use crate::config::Config;
use crate::pg::{self, Server, comment, identifier};
use crate::work::{Does, Entry, Memberships, RestoresOn};

impl Entry for Backup {
    const HAS_LIMITS: bool = false;
    const HAS_SCHEMAS: bool = true;
    const MAKES_DUMPS: bool = true;

    async fn check(&self, connection: &mut PgConnection, settings: &pg::Settings, config: &Config) -> Result<String> {
        let source = facts::place(connection, settings, self.schema.as_deref()).await?;
        let place = choose::place(self, config, &source, connection).await?;
        let found = readiness::look(connection, self, settings, &source, &place).await?;
        readiness::refuse(&found.lacks)?;
        let encrypts = self.stores().filter_map(|kept| config.stores.get(&kept.store)).any(|store| {
            let keys = store.age_keys();
            !keys.recipients.is_empty() && !keys.seals_manifests
        });
        let readable = source.database.readable_values().filter(|_| encrypts);
        let notes: String =
            found.notes.iter().chain(&place.note()).chain(&readable).map(|note| format!("; NOTE: {note}")).collect();
        Ok(format!("can read everything the job dumps{notes}"))
    }

    async fn grants(&self, connection: &mut PgConnection, role: &str, _memberships: &mut Memberships) -> Result<Vec<String>> {
        let mut lines = vec![format!("GRANT pg_read_all_data TO {role};")];
        lines.push(
            "-- If you like: with this, a database that got another owner or was altered is not taken for another one of its"
                .to_owned(),
        );
        lines.push(
            "-- name, whose sets stay uncounted until a person says that they are of one. It shows sizes and times of files:"
                .to_owned(),
        );
        lines.push(format!("-- GRANT EXECUTE ON FUNCTION pg_catalog.pg_stat_file(text, boolean) TO {role};"));
        if has_row_security(connection).await? {
            lines.push("-- Some tables have row security, which would hide rows from the dump:".to_owned());
            lines.push(format!("ALTER ROLE {role} BYPASSRLS;"));
        }
        if self.verify == Verify::Restore && matches!(self.scratch, Scratch::Auto | Scratch::Same) {
            lines.push(match self.scratch {
                Scratch::Same => "-- verify = \"restore\": a scratch database".to_owned(),
                _ => "-- verify = \"restore\": a scratch database, where pgtend's host has no server programs".to_owned(),
            });
            lines.push(format!("ALTER ROLE {role} CREATEDB;"));
            if self.filters.schemas.is_empty() {
                lines.extend(for_superusers(connection).await?);
            }
        }
        // With `schemas`, pg_dump dumps no large objects.
        if self.filters.schemas.is_empty() {
            lines.extend(large_objects(connection, role).await?);
        }
        Ok(lines)
    }

    fn of_schema(&self, schema: &str) -> Option<Self> {
        let schemas = Filters::of_schema(schema).schemas;
        Some(Self { schema: Some(schema.to_owned()), filters: Filters { schemas, ..self.filters.clone() }, ..self.clone() })
    }

    fn restores(&self) -> bool {
        self.verify == Verify::Restore
    }

    async fn restores_on(&self, settings: &pg::Settings, config: &Config) -> Result<RestoresOn> {
        let mut connection = settings.connect().await?;
        let source = facts::server(&mut connection, settings).await?;
        Ok(choose::place(self, config, &source, &mut connection).await?.restores_on())
    }

    fn does(&self) -> Does {
        Does::Backup { stores: self.stores().map(|kept| kept.store.clone()).collect() }
    }
}

async fn has_row_security(connection: &mut PgConnection) -> Result<bool> {
    Ok(sqlx::query_scalar("SELECT EXISTS (SELECT FROM pg_class WHERE relrowsecurity)").fetch_one(connection).await?)
}

/// Names what a role cannot create whatever it is granted, so that it cannot restore a dump of it.
async fn for_superusers(connection: &mut PgConnection) -> Result<Vec<String>> {
    let extensions: Vec<String> =
        sqlx::query_scalar("SELECT extname::text FROM pg_extension").fetch_all(&mut *connection).await?;
    let untrusted = readiness::untrusted_extensions(connection, &extensions).await?;
    let mut whats: Vec<String> =
        untrusted.iter().map(|name| format!("extension {} is not trusted, so", identifier(name))).collect();
    whats.extend(readiness::of_superusers(connection, false).await?.iter().map(|what| format!("{what}:")));
    Ok(whats
        .iter()
        .map(|what| {
            format!(
                "{}\n-- [databases] entry that connects as a superuser to a server for that, or use verify = \"checksum\"",
                comment(&format!("{what} only a superuser restores it: set `scratch` of the job to a"))
            )
        })
        .collect())
}

/// pg_read_all_data covers no large objects before PostgreSQL 19 (seen with 14 to 18).
async fn large_objects(connection: &mut PgConnection, role: &str) -> Result<Vec<String>> {
    if Server::of(connection).await?.major() >= 19 {
        return Ok(Vec::new());
    }
    let (count, database): (i64, String) = sqlx::query_as(
        "SELECT count(*), pg_catalog.quote_ident(pg_catalog.current_database()) FROM pg_catalog.pg_largeobject_metadata",
    )
    .fetch_one(connection)
    .await?;
    Ok(match count {
        0 => Vec::new(),
        _ => vec![
            format!(
                "-- {}, which pg_read_all_data does not cover before PostgreSQL 19. With this",
                units::plural(count, "large object")
            ),
            "-- setting the role may read and write every one in this database; otherwise make it a member of their owners:"
                .to_owned(),
            format!("ALTER ROLE {role} IN DATABASE {database} SET lo_compat_privileges = on;"),
        ],
    })
}
