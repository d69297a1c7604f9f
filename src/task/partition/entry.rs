//! The entry of `[partition]` in the list of tasks.

use anyhow::Result;
use sqlx::PgConnection;

use super::{Partition, state};
use crate::config::Config;
use crate::pg;
use crate::work::{Does, Entry, Memberships, Touched};

impl Entry for Partition {
    async fn check(&self, connection: &mut PgConnection, _settings: &pg::Settings, _config: &Config) -> Result<String> {
        state::check(connection, self).await
    }

    async fn grants(&self, connection: &mut PgConnection, role: &str, memberships: &mut Memberships) -> Result<Vec<String>> {
        let mut lines = vec![
            "-- Only the owner may attach and detach partitions, and partitions are created in the table's schema:".to_owned(),
        ];
        lines.extend(memberships.in_owner_of(connection, &self.table, role).await?);
        Ok(lines)
    }

    /// Rows leave a default partition with its triggers disabled.
    fn touched(&self) -> Vec<Touched<'_>> {
        vec![Touched::new(&self.table, 0, &["4"], true)]
    }

    /// Consents to a run that retires most of the table.
    fn agree(&mut self) {
        self.agreed = true;
    }

    fn does(&self) -> Does {
        Does::Partition { table: self.table.clone() }
    }
}
