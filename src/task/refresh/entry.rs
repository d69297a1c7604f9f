//! The entry of `[refresh]` in the list of tasks.

use anyhow::Result;
use sqlx::PgConnection;

use super::source::{source, stores_of};
use super::{Refresh, rights};
use crate::base::units;
use crate::config::Config;
use crate::pg;
use crate::work::{Entry, Memberships, Other};

impl Entry for Refresh {
    const HAS_LIMITS: bool = false;
    const RENAMES_DATABASE: bool = true;

    /// What restores the set runs code of its owners, and the statements after it run their triggers.
    fn has_trust(&self) -> bool {
        true
    }

    /// A run compares the databases themselves. Here the names are enough for mistakes of the files.
    fn will_refuse(&self, databases: &[String], jobs: &[Other]) -> Option<String> {
        if let Err(fault) = source(self, jobs) {
            return Some(fault.message);
        }
        let is_backed_up = |database: &&String| jobs.iter().any(|job| stores_of(job).is_some() && job.runs_on(database));
        let database = databases.iter().find(is_backed_up)?;
        Some(match self.swap {
            true => format!("`{database}` is backed up by a job, and no refresh replaces such a database"),
            false => {
                format!(
                    "`{database}` is backed up by a job, and a drill there is refused, too: name another database of the server that is to restore"
                )
            }
        })
    }

    async fn check(&self, connection: &mut PgConnection, settings: &pg::Settings, _config: &Config) -> Result<String> {
        let statements = self.statements()?.len();
        rights::ensure(connection, settings.database(), self).await?;
        let role: String = sqlx::query_scalar("SELECT current_user::pg_catalog.text").fetch_one(connection).await?;
        let what = if self.swap { format!("may replace {}", settings.database()) } else { "may restore beside it".to_owned() };
        Ok(format!("{what}; runs {} as {role}; what the set itself needs shows in a run", units::plural(statements, "statement")))
    }

    async fn grants(&self, connection: &mut PgConnection, role: &str, memberships: &mut Memberships) -> Result<Vec<String>> {
        let mut lines =
            vec!["-- a new database beside this one, which takes its name".to_owned(), format!("ALTER ROLE {role} CREATEDB;")];
        lines.push(
            "-- the new one and what is in it belong to the same owners. A set with other owners, or with what only a superuser"
                .to_owned(),
        );
        lines.push(
            "-- restores (extensions that are not trusted, event triggers), needs membership in them, or a superuser".to_owned(),
        );
        lines.extend(memberships.in_all_owners(connection, role).await?);
        if self.terminate {
            lines.push(
                "-- terminate = true: sessions of others in the database, of which it must be seen that none is of pgtend"
                    .to_owned(),
            );
            lines.push(format!("GRANT pg_signal_backend, pg_read_all_stats TO {role};"));
        }
        Ok(lines)
    }
}
