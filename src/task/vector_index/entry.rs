//! The entry of `[vector_index]` in the list of tasks.

use anyhow::Result;
use sqlx::PgConnection;

use super::keys::{ApplySetting, Queries, VectorIndex};
use crate::config::Config;
use crate::pg::{self, Server, comment, identifier};
use crate::work::{Entry, Memberships, Touched, membership};

impl Entry for VectorIndex {
    async fn check(&self, connection: &mut PgConnection, _settings: &pg::Settings, _config: &Config) -> Result<String> {
        self.may_run(connection).await
    }

    async fn grants(&self, connection: &mut PgConnection, role: &str, memberships: &mut Memberships) -> Result<Vec<String>> {
        let mut lines = memberships.in_owner_of_indexes(connection, &self.table, role).await?;
        match &self.apply_setting {
            Some(ApplySetting::Database) => {
                lines.push("-- apply_setting = \"database\": only the owner of the database may set it".to_owned());
                lines.extend(memberships.in_database_owner(connection, role).await?);
            }
            Some(ApplySetting::Role(other)) if identifier(other) != role => {
                lines.extend(administers(connection, other, role).await?)
            }
            _ => {}
        }
        Ok(lines)
    }

    /// The index build runs as the owner; the searches that measure the index do not.
    fn touched(&self) -> Vec<Touched<'_>> {
        let mut tables = vec![Touched { extension: Some("vector"), ..Touched::new(&self.table, 0, &[], false) }];
        if let Some(Queries::Table { table, .. }) = &self.queries {
            tables.push(Touched::new(table, 0, &[], false));
        }
        tables
    }
}

/// Grants what ALTER ROLE `other` SET requires.
async fn administers(connection: &mut PgConnection, other: &str, role: &str) -> Result<Vec<String>> {
    let quoted = identifier(other);
    let Some(found) = membership::roles(connection, &[other.to_owned()]).await?.pop() else {
        return Ok(vec![comment(&format!("apply_setting = \"role:…\": there is no role {quoted}"))]);
    };
    if let Some(is_superuser) = found.is_superuser() {
        let line = format!(
            "apply_setting = \"role:…\": {quoted} {is_superuser}, and only a superuser may set its parameters: name another role, or use apply_setting = \"database\""
        );
        return Ok(vec![comment(&line)]);
    }
    let mut lines = found.warnings(role);
    lines.push(comment(&format!("apply_setting = \"role:…\": only a role that administers {quoted} may set it")));
    if Server::of(connection).await?.major() < 16 {
        lines.push(
            "-- Before PostgreSQL 16, CREATEROLE may alter every role but superusers, and become a member of it (pg_execute_server_program, too):"
                .to_owned(),
        );
    }
    lines.push(format!("ALTER ROLE {role} CREATEROLE;\nGRANT {quoted} TO {role} WITH ADMIN OPTION;"));
    Ok(lines)
}
