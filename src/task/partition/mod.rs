//! The partition task: creates partitions ahead of time, retires expired ones, and converts a live table.
//!
//! An interruption leaves a detach in its second phase, which the next run finishes, or a partition with our mark, whose retirement the
//! next run continues. A new partition is created, filled from the default partition and attached in one transaction, so it is never half
//! done.

pub mod calendar;
mod chain;
pub mod convert;
pub mod decide;
pub mod key;

mod archive;
mod column_settings;
mod conclude;
mod consent;
mod create;
mod entry;
mod guard;
mod keys;
mod mark;
pub mod plan;
mod retire;
mod rights;
mod runway;
mod skipped;
mod state;

use std::time::{Duration, Instant};

use anyhow::Result;
pub use calendar::{Every, Unit};
pub use key::Epoch;
pub use keys::{Grace, Like, Partition, Retain, Written, resolve};
pub use plan::Plan;
pub use rights::privileges;
pub use state::has_rows;

use self::archive::PartitionArchive;
use self::conclude::Progress;
use self::keys::{GIVE_UP_AFTER, LOCK_TIMEOUT, PREMAKE};
use self::plan::Step;
use self::skipped::SkippedTable;
use crate::base::fault::Kind;
use crate::base::units::Span;
use crate::ledger::report::{Report, Unfinished};
use crate::live::governor::{Go, Governor};
use crate::live::session::{self, Attempt, Session};
use crate::pg::failure;
pub use crate::pg::table::TableName;
use crate::task::partition::state::found::State;
use crate::work::{RunContext, Work};

impl Partition {
    /// Returns a job that retires whole partitions of `table` when their last row is older than `older_than`.
    pub fn retiring(table: &str, column: &str, older_than: Span, archive: Option<String>) -> Self {
        Self {
            table: table.to_owned(),
            column: column.to_owned(),
            // The size of new partitions; none are created.
            every: Every::Unit(Unit::Day),
            epoch: None,
            zone: None,
            premake: PREMAKE,
            retain: Some(Retain::Age(older_than)),
            archive,
            grace: Duration::ZERO,
            default: false,
            like: Like::Parent,
            lock_timeout: LOCK_TIMEOUT.0,
            give_up_after: GIVE_UP_AFTER.0,
            only_retires: true,
            agreed: false,
        }
    }
}

impl Work for Partition {
    type Plan = Plan;

    async fn plan(&self, run: &RunContext<'_>) -> Result<Plan> {
        let mut session = Session::open(run, self.lock_timeout, self.give_up_after).await?;
        let parents = state::parents(&mut session.connection, self).await?;
        if !self.only_retires {
            run.is_checked_by_name(&mut session.connection, &self.table).await?;
        }
        let is_alone = parents.len() == 1;
        let job = self.with_consent(run).await;
        let (mut plans, mut left) = (Vec::new(), Vec::new());
        for parent in parents {
            let each = job.of(&parent);
            match State::read(&each, run, &mut session).await {
                Ok(state) => plans.push(decide::decide(state, &each)),
                Err(error) => {
                    let error = skipped::with_lock_holders(&mut session, &parent, error).await;
                    // [retention] must know everything that keeps it from dropping whole partitions.
                    if self.only_retires {
                        return Err(error);
                    }
                    let runway = each.runway(run, &mut session).await;
                    let runway = runway.filter(|runway| !runway.is_covered);
                    match (runway, is_alone) {
                        (None, true) => return Err(error),
                        (None, false) => left.push(SkippedTable::of(parent, error)?),
                        (Some(runway), true) => {
                            return Err(SkippedTable::of(parent, error)?.without_runway(&runway, self.every).error());
                        }
                        (Some(runway), false) => left.push(SkippedTable::of(parent, error)?.without_runway(&runway, self.every)),
                    }
                }
            }
        }
        if plans.is_empty() {
            return Err(SkippedTable::all(&left));
        }
        let mut plan = plans.remove(0);
        if self.only_retires {
            plan.refusals.extend(plans.iter().flat_map(|other| other.refusals.clone()));
        }
        plan.others = plans;
        plan.left = left;
        Ok(plan)
    }

    fn refusal(&self, _run: &RunContext<'_>, plan: &Plan) -> Option<anyhow::Error> {
        plan.failure()
    }

    async fn apply(&self, run: &RunContext<'_>, plan: Plan) -> Result<Report> {
        let mut session = run.or_cancelled(Session::open(run, self.lock_timeout, self.give_up_after)).await?;
        let pid = session.pid;
        let result = run.or_cancelled(self.act(run, plan, &mut session)).await;
        if result.is_err() {
            run.stop_if_cancelled(pid).await;
        }
        result
    }
}

impl Partition {
    /// Returns the same job for one of the tables below its own.
    fn of(&self, table: &TableName) -> Self {
        Self { table: table.sql(), ..self.clone() }
    }

    /// Reads from catalogs alone the runway of a table that could not be read. Returns None if they do not tell (number keys without a
    /// sequence), or if the table is not supported.
    async fn runway(&self, run: &RunContext<'_>, session: &mut Session) -> Option<runway::Runway> {
        let state = State::read_catalogs(self, run, session).await.ok()?;
        let is_known = match self.every {
            Every::Unit(_) => true,
            Every::Step(_) => state.now > 0,
        };
        is_known.then(|| decide::runway(&state))
    }

    async fn act(&self, run: &RunContext<'_>, mut plan: Plan, session: &mut Session) -> Result<Report> {
        let consent = self.consent(run).await;
        if let Some(consent) = &consent {
            consent.note(run).await?;
        }
        let job = Self { agreed: consent.as_ref().is_some_and(|consent| consent.is_given), ..self.clone() };
        let mut left = std::mem::take(&mut plan.left);
        let others = std::mem::take(&mut plan.others);
        let is_alone = others.is_empty() && left.is_empty();
        let plans = self.exclude_other_jobs(std::iter::once(plan).chain(others), &mut left, is_alone, session).await?;
        let Some(first) = plans.first() else { return Err(SkippedTable::all(&left)) };
        let mut governor = Governor::start(run, run.job.limits, Some(first.table.oid)).await?;
        let archives = match &self.archive {
            Some(store) => Some(PartitionArchive::open(run, store, session).await),
            None => None,
        };
        let mut concluded = Vec::new();
        for plan in plans {
            let each = job.of(&plan.table);
            let done = async {
                let progress = each.act_on(&plan, archives.as_ref(), session, &mut governor).await?;
                let after = decide::decide(State::read(&each, run, session).await?, &each);
                anyhow::Ok(each.conclude(&plan, &after, progress))
            };
            match done.await {
                Ok(done) => concluded.push(done),
                Err(error) if is_alone => return Err(error),
                Err(error) => {
                    let error = skipped::with_lock_holders(session, &plan.table, error).await;
                    let runway = each.runway(run, session).await.filter(|runway| !runway.is_covered && !self.only_retires);
                    let found = SkippedTable::of(plan.table, error)?;
                    left.push(match runway {
                        Some(runway) => found.without_runway(&runway, self.every),
                        None => found,
                    });
                }
            }
        }
        concluded.extend(left.into_iter().map(conclude::TableResult::from));
        let told = |report: &mut Report| {
            report.fact("lock_waits", session.lock_waits);
            governor.report(report);
            consent.iter().for_each(|consent| consent.report(report));
        };
        match conclude::merged(concluded) {
            Ok(mut report) => {
                told(&mut report);
                Ok(report)
            }
            Err(mut error) => {
                if let Some(unfinished) = error.downcast_mut::<Unfinished>() {
                    told(&mut unfinished.report);
                }
                Err(error)
            }
        }
    }

    /// Excludes other jobs from the tables, and returns the plans of those where that succeeded. The others are added to `left`, or are the
    /// error if there is only one table.
    async fn exclude_other_jobs(
        &self,
        plans: impl Iterator<Item = Plan>,
        left: &mut Vec<SkippedTable>,
        is_alone: bool,
        session: &mut Session,
    ) -> Result<Vec<Plan>> {
        let mut held = Vec::new();
        for plan in plans {
            match session::exclude_other_jobs(&mut session.connection, &plan.table).await {
                Ok(()) => held.push(plan),
                // The job that holds the table may create its partitions; until then new rows have none.
                Err(error) if !self.only_retires && plan.covered_until.is_none() => {
                    let found = SkippedTable::of(plan.table.clone(), error)?.without_runway(&plan.runway(), self.every);
                    match is_alone {
                        true => return Err(found.error()),
                        false => left.push(found),
                    }
                }
                Err(error) if is_alone => return Err(error),
                Err(error) => left.push(SkippedTable::of(plan.table, error)?),
            }
        }
        Ok(held)
    }

    /// Runs all steps of one table.
    async fn act_on(
        &self,
        plan: &Plan,
        archives: Option<&Result<PartitionArchive<'_>>>,
        session: &mut Session,
        governor: &mut Governor,
    ) -> Result<Progress> {
        let mut progress = Progress { failed: plan.refusals.clone(), ..Progress::default() };
        // Without the archive, partitions stay attached; those ahead are created all the same.
        if let Some(Err(error)) = archives {
            progress.failed.push(format!("cannot open the archive: {error:#}"));
        }
        let has_no_archive = archives.is_some_and(Result::is_err);
        let archives = archives.and_then(|opened| opened.as_ref().ok());
        let mut strain = None;
        for planned in &plan.steps {
            let step = &planned.step;
            // Partitions ahead are created however strained the server is. Retiring can wait, and so can moving rows of the past.
            let moves_rows = matches!(step, Step::Create(new) if new.moves_rows);
            let is_past = |new: &plan::New| moves_rows && new.range.is_some_and(|range| range.to <= plan.now);
            if !matches!(step, Step::Create(new) if !is_past(new)) && !matches!(step, Step::Finalise { .. }) {
                // The run waits once, not for each step.
                if strain.is_none()
                    && let Go::Stop(reason) = governor.go().await?
                {
                    progress.locked.push(format!("{step}: {reason}"));
                    strain = Some(reason);
                }
                if strain.is_some() {
                    continue;
                }
            }
            if has_no_archive
                && matches!(step, Step::Retire { .. } | Step::Confirm { .. } | Step::Archive { .. } | Step::Drop { .. })
            {
                progress.failed.push(format!("{step}: the archive is not available"));
                continue;
            }
            // A table can have only one pending detach: another one would be refused.
            if progress.detach_is_pending && matches!(step, Step::Retire { .. }) {
                progress.locked.push(format!("{step}: waits for the pending detach"));
                continue;
            }
            tracing::info!("{step}: {}", planned.reason);
            // A partition that cannot be created or dropped does not stop the others (pg_partman#421); a lost server does.
            let (began, pid) = (Instant::now(), session.pid);
            let taken = self.take(step, plan, archives, session, &mut progress);
            let taken = if moves_rows { governor.watch(pid, taken).await.0 } else { taken.await };
            if moves_rows {
                let elapsed = began.elapsed();
                tokio::time::sleep(governor.pause_after(elapsed, elapsed)).await;
            }
            match taken {
                Ok(None) => {}
                Ok(Some(who)) => {
                    progress.detach_is_pending |= matches!(step, Step::Finalise { .. });
                    progress.locked.push(format!("{step}: {who}"));
                }
                Err(error) if failure::kind_of(&error) == Some(Kind::Unreachable) => return Err(error),
                Err(error) => progress.failed.push(format!("{step}: {error:#}")),
            }
        }
        Ok(progress)
    }

    /// Runs one step. Returns who holds the lock if it could not be taken.
    async fn take(
        &self,
        step: &Step,
        plan: &Plan,
        archives: Option<&PartitionArchive<'_>>,
        session: &mut Session,
        progress: &mut Progress,
    ) -> Result<Option<String>> {
        // The table is detached now; it is archived and dropped next.
        let (table, mark) = match step {
            Step::Create(new) => {
                return Ok(match create::create(session, plan, new).await? {
                    Attempt::Done(rows_moved) => {
                        progress.created.push(new.name.clone());
                        progress.rows_moved += rows_moved;
                        None
                    }
                    Attempt::Locked(who) => Some(who),
                });
            }
            Step::Finalise { partition } => {
                let attempt = retire::finalise(session, plan, partition).await?;
                if matches!(attempt, Attempt::Done(())) {
                    progress.finalised.push(partition.to_string());
                }
                return Ok(attempt.locked());
            }
            Step::Keep { partition, mark } => return Ok(retire::keep(session, plan, archives, partition, mark).await?.locked()),
            // Its archive is checked again before the drop.
            Step::Drop { table, mark } => (table, mark.clone()),
            Step::Retire { partition, how, mark } => {
                if let Some(archives) = archives {
                    archives.can_read(session, plan, partition).await?;
                }
                match retire::retire(session, plan, partition, *how, mark).await? {
                    Attempt::Done(mark) => {
                        progress.detached.push(partition.to_string());
                        (partition, mark)
                    }
                    Attempt::Locked(who) => {
                        progress.detach_is_pending |= *how == plan::Detach::Concurrently;
                        return Ok(Some(who));
                    }
                }
            }
            Step::Confirm { table, mark } => match retire::confirm(session, plan, table, mark).await? {
                Attempt::Done(mark) => (table, mark),
                Attempt::Locked(who) => return Ok(Some(who)),
            },
            Step::Archive { table, mark } => (table, mark.clone()),
        };
        Ok(match retire::continue_retiring(session, plan, archives, table, mark).await? {
            Attempt::Done(retired) => {
                progress.archived_rows += retired.archived_rows;
                for (is_so, names) in [
                    (retired.archived, &mut progress.archived),
                    (retired.was_changed, &mut progress.changed),
                    (retired.dropped, &mut progress.dropped),
                    (retired.attached_again, &mut progress.attached_again),
                ] {
                    if is_so {
                        names.push(table.to_string());
                    }
                }
                None
            }
            Attempt::Locked(who) => Some(who),
        })
    }
}
