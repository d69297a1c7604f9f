//! The entry of `[reindex]` in the list of tasks.

use anyhow::Result;
use sqlx::PgConnection;

use super::Reindex;
use crate::config::Config;
use crate::pg;
use crate::work::{Entry, Memberships};

impl Entry for Reindex {
    async fn check(&self, connection: &mut PgConnection, _settings: &pg::Settings, _config: &Config) -> Result<String> {
        self.may_run(connection).await
    }

    async fn grants(&self, connection: &mut PgConnection, role: &str, memberships: &mut Memberships) -> Result<Vec<String>> {
        memberships.in_owner_of_indexes(connection, &self.table, role).await
    }
}
