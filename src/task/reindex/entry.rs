//! The entry of `[reindex]` in the list of tasks.

use anyhow::Result;
use sqlx::PgConnection;

use super::{Reindex, Scope};
use crate::config::Config;
use crate::pg;
use crate::work::{Entry, Memberships};

impl Entry for Reindex {
    async fn check(&self, connection: &mut PgConnection, _settings: &pg::Settings, _config: &Config) -> Result<String> {
        self.may_run(connection).await
    }

    async fn grants(&self, connection: &mut PgConnection, role: &str, memberships: &mut Memberships) -> Result<Vec<String>> {
        match &self.scope {
            Scope::Table(table) => memberships.in_owner_of_indexes(connection, table, role).await,
            Scope::Collations => memberships.in_all_owners(connection, role).await,
        }
    }
}
