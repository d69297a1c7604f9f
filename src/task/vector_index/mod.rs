//! `[vector_index]`: tunes an index of pgvector by measurement and rebuilds it beside the one in use.
//!
//! An interruption leaves an index `…_pgtend_new_HASH`, invalid or not yet measured, or `…_pgtend_old_HASH`, replaced and not yet dropped.
//! The next run drops the invalid and the replaced one, and continues with the one that was built.

mod keys;
pub mod kind;

mod apply;
mod candidates;
mod decide;
mod measure;
mod memory;
pub mod names;
mod plan;
mod search;
mod setting;
pub mod state;
mod tune;

use anyhow::Result;
pub use keys::{
    ApplySetting, Auto, Budget, Lists, Recall, VectorIndex, Written, WrittenBudget, WrittenMethod, WrittenRecall, resolve,
};
pub use plan::Plan;
use sqlx::PgConnection;

use crate::base::fault::{Fault, Kind};
use crate::ledger::report::Report;
use crate::live::governor;
use crate::pg::table::with_schema;
use crate::work::{RunContext, Work};

impl Work for VectorIndex {
    type Plan = Plan;

    async fn plan(&self, run: &RunContext<'_>) -> Result<Plan> {
        match plan::make(self, run).await {
            Err(error) => Err(governor::with_lock_holders(run, &self.table, error).await),
            plan => plan,
        }
    }

    fn refusal(&self, _run: &RunContext<'_>, plan: &Plan) -> Option<anyhow::Error> {
        plan.gives_up().map(anyhow::Error::msg)
    }

    async fn apply(&self, run: &RunContext<'_>, plan: Plan) -> Result<Report> {
        apply::apply(self, run, plan).await
    }
}

impl VectorIndex {
    /// Checks whether the role has the privileges that the job needs, for `check --connect`.
    pub async fn check(&self, connection: &mut PgConnection) -> Result<String> {
        check_owner(connection, &self.table).await?;
        let extension = state::pgvector(connection).await?;
        if let Some(place) = &self.apply_setting {
            setting::may_set(connection, place).await?;
        }
        self.check_tables(connection, &extension).await?;
        Ok(format!("owns {} and may build indexes on it", self.table))
    }
}

impl VectorIndex {
    async fn check_tables(&self, connection: &mut PgConnection, extension: &str) -> Result<()> {
        let (tables, is_partitioned) = state::tables(connection, &self.table).await?;
        for oid in tables {
            plan::refuse(&state::read(connection, self, oid, extension, is_partitioned).await?)?;
        }
        Ok(())
    }
}

/// Checks the owner: only the owner may create, rename and drop a table's indexes.
pub async fn check_owner(connection: &mut PgConnection, table: &str) -> Result<()> {
    let found: Option<(bool, bool)> = sqlx::query_as(
        "SELECT pg_has_role(c.relowner, 'USAGE'), has_schema_privilege(c.relnamespace, 'CREATE') FROM pg_class c WHERE c.oid = to_regclass($1)",
    )
    .bind(with_schema(table))
    .fetch_optional(connection)
    .await?;
    match found {
        Some((true, true)) => Ok(()),
        Some((false, _)) => {
            let message = format!("only the owner of {table} may change its indexes: GRANT the owner's role TO the role");
            Err(Fault::new(Kind::Permission, message).into())
        }
        Some((true, false)) => {
            let message = format!("the index is created in the schema of {table}: GRANT CREATE ON SCHEMA … TO the role");
            Err(Fault::new(Kind::Permission, message).into())
        }
        None => Err(state::refused(format!("there is no table {table}"))),
    }
}
