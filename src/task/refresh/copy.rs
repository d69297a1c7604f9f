//! The new database beside the target: how it is made, and what becomes of it when the run fails.

use anyhow::{Context as _, Result};
use chrono::{DateTime, Utc};
use sqlx::postgres::PgConnection;

use super::keys::Refresh;
use super::mark::{self, Mark, What};
use super::state;
use crate::base::fault::Kind;
use crate::ledger::report::{Report, Unfinished};
use crate::pg::{self, Server, failure, identifier, literal};
use crate::task::backup::facts::DatabaseFacts;
use crate::task::backup::scratch::LocaleRefused;
use crate::task::backup::set::Set;
use crate::task::backup::{lacks, new_database, scratch};
use crate::work::RunContext;

/// A database that is being filled.
pub struct Fresh {
    pub name: String,
    pub oid: i64,
    pub settings: pg::Settings,
    /// True when all of the set is in it.
    pub is_restored: bool,
    /// The source's owner, while it may create objects in it.
    lent_to: Option<String>,
}

/// The properties of the copy at first: what cannot be changed later (encoding and locale) is the set's or the job's, the rest is the target's.
pub fn like(keys: &Refresh, set: &Set, target: &DatabaseFacts, owner: String) -> DatabaseFacts {
    let source = set.manifest.server.database.clone().with_locale(keys.encoding.as_deref(), keys.locale.as_deref());
    DatabaseFacts {
        owner,
        encoding: source.encoding,
        collate: source.collate,
        ctype: source.ctype,
        locale_provider: source.locale_provider,
        locale: source.locale,
        icu_rules: source.icu_rules,
        ..target.clone()
    }
}

/// Creates it, and marks it. While `server` lives, it is in use.
pub async fn make(
    server: &mut PgConnection,
    run: &RunContext<'_>,
    keys: &Refresh,
    set: &Set,
    target: &DatabaseFacts,
) -> Result<Fresh> {
    let clock = state::clock(server).await?;
    let name = mark::copy_name(run.settings.database(), clock);
    // Its owner could let itself in. The target's gets it with the name, when its rows are masked.
    let owner: String = sqlx::query_scalar("SELECT current_user::pg_catalog.text").fetch_one(&mut *server).await?;
    let made = async {
        let oid = scratch::create_scratch(server, &name, &like(keys, set, target, owner)).await?;
        comment(server, &name, &mark_of(run, keys, What::Copy, clock)).await?;
        let mut copy =
            Fresh { settings: run.settings.with_database(&name), name: name.clone(), oid, is_restored: false, lent_to: None };
        if !keys.no_owner {
            copy.lend(keys.choices().role(&set.manifest.server.database.owner)).await?;
        }
        anyhow::Ok(copy)
    };
    let made = made.await;
    match made {
        Ok(copy) => Ok(copy),
        Err(error) => {
            // It may exist, half made. The next run finds it.
            tracing::debug!("{name} was not made: {error:#}");
            let dropped = scratch::drop_scratch(server, &run.settings, &name, None).await;
            dropped.with_context(|| failure::in_a_line(&error))?;
            Err(match error.downcast_ref::<LocaleRefused>() {
                Some(_) => {
                    error.context("`encoding` and `locale` of the job choose others than the source's (locale = \"C.UTF-8\")")
                }
                None => error,
            })
        }
    }
}

pub fn mark_of(run: &RunContext<'_>, keys: &Refresh, what: What, at: DateTime<Utc>) -> Mark {
    Mark {
        what,
        target: run.settings.database().to_owned(),
        job: run.job.name.to_owned(),
        run: run.run_id,
        at,
        replaced_by: None,
        keep_seconds: (what != What::Copy).then_some(keys.keep_old.0.as_secs()),
        comment: None,
    }
}

pub async fn comment(server: &mut PgConnection, name: &str, mark: &Mark) -> Result<()> {
    let sql = format!("COMMENT ON DATABASE {} IS {}", identifier(name), literal(&mark.to_comment()));
    pg::execute(server, sql).await.with_context(|| format!("cannot mark the database {name}"))
}

impl Fresh {
    /// Lets the source's owner own objects in it, of a role that is no superuser: PostgreSQL wants the owner of a schema to have CREATE in the database, and
    /// since 15 that of a table in `public` to have it there. It gives nobody a way in. A role that is no member of the owner cannot restore its objects
    /// anyway, and the restore says so.
    async fn lend(&mut self, owner: &str) -> Result<()> {
        let mut inside = self.settings.connect().await?;
        let encoding: String =
            sqlx::query_scalar("SELECT pg_catalog.getdatabaseencoding()::pg_catalog.text").fetch_one(&mut inside).await?;
        let owner = lacks::name_for(&mut inside, owner, &encoding).await;
        let needs: bool = sqlx::query_scalar(
            "SELECT EXISTS (SELECT FROM pg_catalog.pg_roles me, pg_catalog.pg_roles r
                            WHERE me.rolname = current_user AND NOT me.rolsuper AND r.rolname = $1 AND r.oid <> me.oid
                              AND pg_catalog.pg_has_role(r.oid, 'USAGE'))",
        )
        .bind(&owner)
        .fetch_one(&mut inside)
        .await?;
        if !needs {
            return Ok(());
        }
        let (database, role) = (identifier(&self.name), identifier(&owner));
        pg::execute(&mut inside, format!("GRANT CREATE ON DATABASE {database} TO {role}")).await?;
        if Server::of(&mut inside).await?.major() >= 15 {
            pg::execute(&mut inside, format!("GRANT CREATE ON SCHEMA public TO {role}")).await?;
        }
        self.lent_to = Some(owner);
        Ok(())
    }

    /// Ends that. Where the dump itself grants the owner something in `public`, what the source's owner could do there anyway stays.
    pub async fn take_back(&mut self) -> Result<()> {
        let Some(owner) = self.lent_to.take() else { return Ok(()) };
        let mut inside = self.settings.connect().await?;
        let (database, role) = (identifier(&self.name), identifier(&owner));
        pg::execute(&mut inside, format!("REVOKE CREATE ON DATABASE {database} FROM {role}")).await?;
        let has_only_that: bool = sqlx::query_scalar(
            "SELECT coalesce((SELECT pg_catalog.array_agg(a.privilege_type) = ARRAY['CREATE']
                              FROM pg_catalog.pg_namespace n, pg_catalog.aclexplode(n.nspacl) a
                              WHERE n.nspname = 'public' AND pg_catalog.pg_get_userbyid(n.nspowner) = 'pg_database_owner'
                                AND pg_catalog.pg_get_userbyid(a.grantee) = $1), false)",
        )
        .bind(&owner)
        .fetch_one(&mut inside)
        .await?;
        if has_only_that {
            pg::execute(&mut inside, format!("REVOKE CREATE ON SCHEMA public FROM {role}")).await?;
        }
        Ok(())
    }

    /// Drops it. What stays, and why, is a warning.
    pub async fn drop(&self, run: &RunContext<'_>) -> Option<String> {
        scratch::drop_or_warn(&run.settings, &self.name, Some(self.oid)).await
    }

    /// Ends a run that failed: drops the copy, or keeps it where that was asked for. The session that made it has ended: its lock would keep another
    /// one from that. Returns the error of the run, with its report.
    pub async fn given_up(self, run: &RunContext<'_>, keys: &Refresh, error: anyhow::Error, mut report: Report) -> anyhow::Error {
        let kind = failure::kind_of(&error);
        let keeps = keys.keep_failed && self.is_restored && kind != Some(Kind::Cancelled);
        let kept = if keeps { Some(self.keep(run, keys).await) } else { None };
        let mut message = failure::in_a_line(&error);
        match kept {
            Some(Ok(())) => {
                message += &format!(
                    "; the copy stays as {name} for {}, closed to all, perhaps without all of `after`: ALTER DATABASE {} ALLOW_CONNECTIONS true opens it",
                    keys.keep_old,
                    identifier(&self.name),
                    name = self.name,
                );
                report.fact("kept_database", self.name);
            }
            Some(Err(error)) => {
                report.warnings.push(format!("{} could not be kept: {}", self.name, failure::in_a_line(&error)));
                report.warnings.extend(self.drop(run).await);
            }
            None => report.warnings.extend(self.drop(run).await),
        }
        match kind {
            Some(Kind::Cancelled) => error,
            kind => Unfinished::error(kind, message, report),
        }
    }

    /// Only superusers and this role, to whom it belongs, can open it: its rows may not be masked.
    async fn keep(&self, run: &RunContext<'_>, keys: &Refresh) -> Result<()> {
        let mut server = run.lasting_settings().connect().await?;
        anyhow::ensure!(state::oid(&mut server, &self.name).await? == Some(self.oid), "it is another database by now");
        new_database::close(&mut server, &self.name).await?;
        let at = state::clock(&mut server).await?;
        comment(&mut server, &self.name, &mark_of(run, keys, What::Failed, at)).await
    }
}
