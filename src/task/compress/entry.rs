//! The entry of `[compress]` in the list of tasks.

use anyhow::Result;
use sqlx::PgConnection;

use super::Compress;
use crate::config::Config;
use crate::pg::{self, comment};
use crate::work::touched::UPDATE;
use crate::work::{Does, Entry, Memberships, Touched};

impl Entry for Compress {
    async fn check(&self, connection: &mut PgConnection, _settings: &pg::Settings, _config: &Config) -> Result<String> {
        self.may_run(connection).await
    }

    async fn grants(&self, connection: &mut PgConnection, role: &str, memberships: &mut Memberships) -> Result<Vec<String>> {
        let mut lines =
            vec!["-- Only the owner may put a view in the table's place, change its compression and VACUUM it:".to_owned()];
        lines.extend(memberships.in_owner_of(connection, &self.table, role).await?);
        lines.push(format!(
            "-- to see replication and WAL archiving, so that it can slow down for them\nGRANT pg_monitor TO {role};"
        ));
        // A role with this privilege can bypass foreign keys and triggers anywhere, so a person should decide on it.
        lines.push(
            "-- PostgreSQL 15 and later, if the table's triggers (updated_at, audits) should not fire when rows are compressed:"
                .to_owned(),
        );
        lines.push(comment(&format!("GRANT SET ON PARAMETER session_replication_role TO {role};")));
        Ok(lines)
    }

    fn touched(&self) -> Vec<Touched<'_>> {
        vec![Touched { silences_triggers: true, ..Touched::new(&self.table, UPDATE, &["2"], true) }]
    }

    fn does(&self) -> Does {
        Does::Compress { table: self.table.clone(), column: self.column.clone() }
    }
}
