//! The entry of `[audit]` in the list of tasks.

use anyhow::Result;
use sqlx::PgConnection;

use super::trust::Trust;
use super::{Audit, drift};
use crate::config::Config;
use crate::pg;
use crate::work::{Entry, Memberships};

impl Entry for Audit {
    const HAS_LIMITS: bool = false;

    fn has_trust(&self) -> bool {
        true
    }

    async fn lends(&self, connection: &mut PgConnection, trust_owners: bool) -> Result<Option<String>> {
        Ok(Trust::of(connection, trust_owners).await?.warning())
    }

    async fn check(&self, connection: &mut PgConnection, _settings: &pg::Settings, config: &Config) -> Result<String> {
        let mut said = self.may_run(connection).await?;
        said.extend(drift::try_sources(self, connection, config).await?);
        Ok(said.join("; "))
    }

    async fn grants(&self, _connection: &mut PgConnection, role: &str, _memberships: &mut Memberships) -> Result<Vec<String>> {
        let mut lines = vec![
            "-- the audit reports as unknown what the role may not read; it needs no privilege to write".to_owned(),
            "-- pg_read_all_data reads all rows of all owners. Code that an owner put into expressions of indexes may use that when the audit reads".to_owned(),
            "-- the table: trust_owners = false in the job's [limits] leaves tables of such owners out".to_owned(),
            format!("GRANT pg_monitor, pg_read_all_data TO {role};"),
        ];
        if self.schema_file.is_some() && self.scratch.is_none() {
            lines.push("-- schema_file: a scratch database".to_owned());
            lines.push(format!("ALTER ROLE {role} CREATEDB;"));
        }
        Ok(lines)
    }
}
