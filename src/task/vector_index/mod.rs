//! `[vector_index]`: tunes an index of pgvector by measurement and rebuilds it beside the one in use.
//!
//! An interruption leaves an index `…_pgtend_new_HASH`, invalid or not yet measured, or `…_pgtend_old_HASH`, replaced and not yet dropped.
//! The next run drops the invalid and the replaced one, and continues with the one that was built.

pub mod document;
mod keys;
pub mod kind;

mod apply;
mod budget;
mod built;
mod candidates;
mod current;
mod curve;
mod decide;
mod disturb;
mod effort;
mod entry;
mod explained;
mod filter;
mod filtered;
mod found;
mod function;
mod indexed_by;
mod interval;
mod left;
mod measure;
mod memory;
mod pairs;
mod partial;
mod plan;
mod proposals;
mod queries;
mod race;
mod read;
mod resolve;
mod search;
mod setting;
mod shown;
mod source;
mod spec;
mod state;
mod statements;
mod target;
mod tune;
mod verdict;
mod ways;

use anyhow::Result;
pub use keys::{
    Auto, Budget, Lists, OneOrSeveral, Queries, Recall, VectorIndex, Written, WrittenBudget, WrittenMethod, WrittenQueries,
    WrittenRecall,
};
pub use plan::Plan;
pub use resolve::resolve;
use sqlx::PgConnection;

use crate::ledger::report::Report;
use crate::live::{governor, indexes};
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
        plan.why_unreachable().map(anyhow::Error::msg)
    }

    async fn apply(&self, run: &RunContext<'_>, plan: Plan) -> Result<Report> {
        apply::apply(self, run, plan).await
    }
}

impl VectorIndex {
    /// Checks whether the role has the privileges that the job needs, for `check --connect`.
    async fn may_run(&self, connection: &mut PgConnection) -> Result<String> {
        indexes::check_owner(connection, &self.table).await?;
        let extension = state::pgvector(connection).await?;
        if let Some(place) = &self.apply_setting {
            setting::may_set(connection, place).await?;
        }
        self.check_tables(connection, &extension).await?;
        queries::may_read(connection, self).await?;
        Ok(format!("owns {} and may build indexes on it", self.table))
    }

    async fn check_tables(&self, connection: &mut PgConnection, extension: &str) -> Result<()> {
        let (tables, is_partitioned) = indexes::tables(connection, &self.table).await?;
        for oid in tables {
            // Without its rows: planning a query of them runs code of the table's owner, and `check` only says what a run would do.
            plan::refuse(&read::catalog(connection, self, oid, extension, is_partitioned).await?)?;
        }
        Ok(())
    }
}
