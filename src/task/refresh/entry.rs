//! The entry of `[refresh]` in the list of tasks.

use anyhow::Result;
use sqlx::PgConnection;

use super::Refresh;
use super::source::{source, store_of};
use crate::base::fault::{Fault, Kind};
use crate::base::units;
use crate::config::Config;
use crate::pg::{self, Server, identifier};
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
        let is_backed_up = |database: &&String| jobs.iter().any(|job| store_of(job).is_some() && job.runs_on(database));
        let database = databases.iter().find(is_backed_up)?;
        Some(format!("`{database}` is backed up by a job, and no refresh replaces such a database"))
    }

    async fn check(&self, connection: &mut PgConnection, settings: &pg::Settings, _config: &Config) -> Result<String> {
        let statements = self.statements()?.len();
        // Since 16, membership has a separate right to SET ROLE, which ALTER DATABASE … OWNER TO needs.
        let membership = if Server::of(connection).await?.major() >= 16 { "SET" } else { "MEMBER" };
        let (role, creates, owner, owns): (String, bool, String, bool) = sqlx::query_as(
            "SELECT r.rolname::pg_catalog.text, r.rolsuper OR r.rolcreatedb, pg_catalog.pg_get_userbyid(d.datdba)::pg_catalog.text,
                    pg_catalog.pg_has_role(d.datdba, 'USAGE') AND pg_catalog.pg_has_role(d.datdba, $1)
             FROM pg_catalog.pg_roles r, pg_catalog.pg_database d
             WHERE r.rolname = current_user AND d.datname = pg_catalog.current_database()",
        )
        .bind(membership)
        .fetch_one(connection)
        .await?;
        let mut lacks = Vec::new();
        if !creates {
            lacks.push(format!("it may not create databases: ALTER ROLE {} CREATEDB", identifier(&role)));
        }
        if self.swap && !owns {
            lacks.push(format!(
                "it may not act as the owner of {}: GRANT {} TO {}",
                settings.database(),
                identifier(&owner),
                identifier(&role)
            ));
        }
        if !lacks.is_empty() {
            return Err(Fault::new(Kind::Permission, format!("{role} may not do that: {}", lacks.join("; "))).into());
        }
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
            lines.push("-- terminate = true: sessions of others in the database".to_owned());
            lines.push(format!("GRANT pg_signal_backend TO {role};"));
        }
        Ok(lines)
    }
}
