//! The properties of a task that the rest of pgtend asks for.

use anyhow::Result;
use sqlx::PgConnection;

use super::Work;
use super::membership::Memberships;
use super::others::{Does, Other};
use super::touched::Touched;
use crate::config::Config;
use crate::pg;

/// The server on which a task restores what it dumps.
#[derive(Clone, Debug)]
pub enum RestoresOn {
    /// A server that is removed afterwards, where code in the dump has no rights; or none.
    OwnServer,
    /// The database's own server; `why` says why not on a throwaway server, if the job leaves the choice to pgtend.
    Source { why: Option<String> },
    /// Another server.
    Elsewhere(pg::Settings),
}

/// The properties of a task, which it states in the file `entry.rs` of its folder: only `task/list.rs` knows which task is asked.
pub trait Entry: Work + Sized {
    /// `[limits]` of a job bound what the task asks of the server. False: a job that has them is refused.
    const HAS_LIMITS: bool = true;
    /// Its reports have facts for metrics: a scheduler that starts reads those of the last runs.
    const HAS_METRICS: bool = true;
    /// A job of it may have `schemas`: then it has a run for each, of [`Entry::of_schema`].
    const HAS_SCHEMAS: bool = false;
    /// It has the metrics of dumps.
    const MAKES_DUMPS: bool = false;

    /// It renames the database of its job, which no session may be in then: sessions that last as long as the run are in another one of the server
    /// ([`super::RunContext::lasting_settings`]).
    const RENAMES_DATABASE: bool = false;

    /// Says what the role of the connection may do, or which privilege it lacks: for `check --connect`.
    fn check(
        &self,
        connection: &mut PgConnection,
        settings: &pg::Settings,
        config: &Config,
    ) -> impl Future<Output = Result<String>>;

    /// Returns lines of SQL and comments by which a superuser lets `role` (quoted) run it: for `grants`.
    fn grants(
        &self,
        connection: &mut PgConnection,
        role: &str,
        memberships: &mut Memberships,
    ) -> impl Future<Output = Result<Vec<String>>>;

    /// The tables whose owners' code it meets. Empty if the task touches no table, if the server itself switches to the owner (REINDEX), or
    /// if only a person knows what it touches.
    fn touched(&self) -> Vec<Touched<'_>> {
        Vec::new()
    }

    /// Returns whether it restores what it dumps, so that code of every owner in the database runs.
    fn restores(&self) -> bool {
        false
    }

    /// Returns whether a job may have `[limits]` with `trust_owners` alone, whatever [`Entry::HAS_LIMITS`] says.
    fn has_trust(&self) -> bool {
        self.restores()
    }

    /// Warns of owners to whom the task lends rights of the connection's login, other than by the tables of [`Entry::touched`] and by restores:
    /// for `check --connect`.
    fn lends(&self, _connection: &mut PgConnection, _trust_owners: bool) -> impl Future<Output = Result<Option<String>>> {
        async { Ok(None) }
    }

    /// Returns where it restores. Its plan may look again, and must not take a place with more rights than this one.
    fn restores_on(&self, _settings: &pg::Settings, _config: &Config) -> impl Future<Output = Result<RestoresOn>> {
        async { Ok(RestoresOn::Source { why: None }) }
    }

    /// Returns whether a run whose process died midway may be repeated: all tasks of pgtend look at the current state and go on.
    fn is_repeatable(&self) -> bool {
        true
    }

    /// Returns the properties of the task that other parts of pgtend ask about.
    fn does(&self) -> Does {
        Does::Else
    }

    /// Says what a run will refuse because of the other jobs, or of one that is not there: for `check`. `databases` are those of its job.
    fn will_refuse(&self, _databases: &[String], _jobs: &[Other]) -> Option<String> {
        None
    }

    /// Returns the task for one schema of a database, which need not be there; `None` where it is about whole databases.
    fn of_schema(&self, _schema: &str) -> Option<Self> {
        None
    }

    /// A person said `--yes` to this run.
    fn agree(&mut self) {}
}
