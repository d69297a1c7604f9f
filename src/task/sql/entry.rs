//! The entry of `[sql]` in the list of tasks.

use anyhow::Result;
use sqlx::PgConnection;

use super::{Sql, views};
use crate::base::units;
use crate::config::Config;
use crate::pg::{self, Server, comment};
use crate::work::{Entry, Memberships};

impl Entry for Sql {
    const HAS_LIMITS: bool = false;
    const HAS_METRICS: bool = false;

    async fn check(&self, connection: &mut PgConnection, _settings: &pg::Settings, _config: &Config) -> Result<String> {
        if let Some(refresh) = &self.refresh {
            let statements = views::statements(connection, refresh, self.concurrently).await?;
            return Ok(format!("refreshes {}", units::plural(statements.len(), "materialized view")));
        }
        let role: String = sqlx::query_scalar("SELECT current_user::text").fetch_one(connection).await?;
        Ok(format!("its statements run as {role}; pgtend cannot tell which privileges they need"))
    }

    async fn grants(&self, connection: &mut PgConnection, role: &str, memberships: &mut Memberships) -> Result<Vec<String>> {
        let server = Server::of(connection).await?;
        let statements = match &self.refresh {
            Some(refresh) => views::statements(connection, refresh, self.concurrently).await?,
            None => self.statements.clone(),
        };
        let mut lines: Vec<String> = statements.iter().map(|statement| comment(&format!("runs: {statement}"))).collect();
        if statements.iter().any(|statement| is_maintenance(statement)) {
            if server.major() >= 17 {
                lines.push(format!("GRANT pg_maintain TO {role};"));
            } else {
                lines.push(comment(&format!("Before PostgreSQL 17, only owners may do that (this is {}):", server.version)));
                lines.extend(memberships.in_all_owners(connection, role).await?);
            }
        } else {
            lines.push("-- pgtend cannot tell which privileges these statements need".to_owned());
        }
        Ok(lines)
    }

    /// The job's key `repeatable` decides this. A view may be refreshed twice.
    fn is_repeatable(&self) -> bool {
        self.repeatable || self.refresh.is_some()
    }
}

fn is_maintenance(statement: &str) -> bool {
    let first = statement.split_whitespace().next().unwrap_or_default().to_ascii_uppercase();
    matches!(first.as_str(), "VACUUM" | "ANALYZE" | "REINDEX" | "REFRESH" | "CLUSTER")
}
