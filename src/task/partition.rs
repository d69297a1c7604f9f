//! The partition task: partitions are there before their rows, and go when their time is over.
//!
//! What an interruption leaves behind, and what the next run makes of it: a detach in its second phase, which it finishes;
//! a partition that carries our mark, whose way out it takes up where it ended. A new partition is made, filled from the
//! default partition and attached in one transaction, so that none is half there.

pub mod calendar;
pub mod convert;
pub mod decide;
pub mod key;

mod archive;
mod create;
mod mark;
mod plan;
mod retire;
pub mod session;
mod state;

pub use calendar::{Every, Unit};
pub use create::privileges;
pub use decide::Plan;
pub use key::Epoch;
pub use state::{TableName, with_schema};

use std::time::Duration;

use anyhow::Result;
use chrono_tz::Tz;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use toml::Spanned;

use self::archive::Shelf;
use self::decide::Step;
use self::session::{Attempt, Session};
use self::state::State;
use crate::fault::{self, Kind};
use crate::governor::{Go, Governor};
use crate::job::Checker;
use crate::pg;
use crate::report::{Report, Unfinished};
use crate::schedule::Zone;
use crate::task::{RunContext, Work};
use crate::units::{self, Span};

/// Longer than any statement of an application that is well; shorter than its users' patience.
const LOCK_TIMEOUT: Span = Span(Duration::from_secs(2));
/// Through a long report or a slow autovacuum; not through the night.
const GIVE_UP_AFTER: Span = Span(Duration::from_secs(300));
const PREMAKE: u32 = 3;
/// A partition is a file per index and a lock per query that is not pruned: more than this is a mistake.
const PREMAKE_AT_MOST: u32 = 1000;
/// Time to notice that something is missing: GitLab keeps detached partitions for a week as well. Back is one ATTACH.
const GRACE: Duration = Duration::from_secs(7 * 86_400);

/// `[partition]`, resolved.
#[derive(Clone, Debug)]
pub struct Partition {
    /// As in SQL: `public.execution_logs`, `"Odd name".t`.
    pub table: String,
    pub column: String,
    pub every: Every,
    pub epoch: Option<Epoch>,
    /// Of the calendar; the job's when None.
    pub zone: Option<Tz>,
    pub premake: u32,
    pub retain: Option<Retain>,
    /// The store where rows go before their partition is dropped.
    pub archive: Option<String>,
    pub grace: Duration,
    pub default: bool,
    pub lock_timeout: Duration,
    /// So long a step is tried again while somebody holds a lock.
    pub give_up_after: Duration,
    /// Whole partitions that are too old go, and no others are made: [retention] of a partitioned table.
    pub only_retires: bool,
}

/// How much of the past stays.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(untagged)]
pub enum Retain {
    /// Partitions whose last row is older than that go.
    Age(Span),
    /// For number keys: partitions that end so many numbers below the highest go.
    Numbers(u32),
}

/// A length of time that may be none.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(try_from = "String")]
#[schemars(with = "String")]
pub struct Grace(Duration);

impl TryFrom<String> for Grace {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        match text.as_str() {
            "0" | "0s" => Ok(Self(Duration::ZERO)),
            _ => Span::try_from(text).map(|span| Self(span.0)),
        }
    }
}

/// `[partition]` as written.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Written {
    /// The partitioned table, as in SQL.
    #[schemars(with = "String")]
    pub table: Spanned<String>,
    /// Its partition key: one column.
    #[schemars(with = "String")]
    pub column: Spanned<String>,
    /// "hour", "day", "week", "month", "quarter", "year", or a number for number keys.
    #[schemars(with = "Every")]
    pub every: Spanned<Every>,
    /// What an integer key counts since 1970: "seconds", "milliseconds" or "microseconds".
    #[schemars(with = "Option<Epoch>")]
    pub epoch: Option<Spanned<Epoch>>,
    /// IANA name; default the job's.
    pub timezone: Option<Zone>,
    /// Partitions beyond the current one, 1 to 1000; default 3.
    #[schemars(with = "Option<u32>")]
    pub premake: Option<Spanned<u32>>,
    /// What stays: a length of time ("90d"), or a number for number keys; without it, everything.
    #[schemars(with = "Option<Retain>")]
    pub retain: Option<Spanned<Retain>>,
    /// A store: a partition's rows are written there and read back before it is dropped.
    #[schemars(with = "Option<String>")]
    pub archive: Option<Spanned<String>>,
    /// How long a detached partition stays before it is dropped; default 7d.
    pub grace: Option<Grace>,
    /// Make a default partition when there is none; default false.
    #[serde(default)]
    pub default: bool,
    /// Longest wait for one lock; default 2 s.
    pub lock_timeout: Option<Span>,
    /// How long a step is tried again while somebody holds a lock; default 5 min.
    pub give_up_after: Option<Span>,
}

pub fn resolve(written: Written, checker: &mut Checker<'_>) -> Option<Partition> {
    let is_number = matches!(written.every.get_ref(), Every::Step(_));
    if *written.every.get_ref() == Every::Step(0) {
        checker.problem(&written.every, "`every = 0`", "so many numbers as a partition is to hold: 1000000".to_owned());
    }
    if let Some(epoch) = written.epoch.as_ref().filter(|_| is_number) {
        checker.problem(
            epoch,
            "`epoch` beside a number in `every`",
            "every = \"day\" and the like for times in an integer".to_owned(),
        );
    }
    if let Some(premake) = written.premake.as_ref().filter(|premake| !(1..=PREMAKE_AT_MOST).contains(premake.get_ref())) {
        let message = format!("`premake = {}`", premake.get_ref());
        checker.problem(premake, message, format!("1 to {PREMAKE_AT_MOST}"));
    }
    if let Some(retain) = &written.retain {
        match (retain.get_ref(), is_number) {
            (Retain::Age(_), true) => checker.problem(
                retain,
                "`retain` is a length of time, and `every` a number",
                "retain = NUMBER: partitions that far below the highest key go".to_owned(),
            ),
            (Retain::Numbers(_), false) => {
                checker.problem(retain, "`retain` is a number, and `every` a length of time", "retain = \"90d\"".to_owned());
            }
            _ => {}
        }
    }
    if let Some(archive) = &written.archive {
        checker.known("store", archive);
    }
    Some(Partition {
        table: written.table.into_inner(),
        column: written.column.into_inner(),
        every: written.every.into_inner(),
        epoch: written.epoch.map(Spanned::into_inner),
        zone: written.timezone.map(|zone| zone.0),
        premake: written.premake.map_or(PREMAKE, Spanned::into_inner),
        retain: written.retain.map(Spanned::into_inner),
        archive: written.archive.map(Spanned::into_inner),
        grace: written.grace.map_or(GRACE, |grace| grace.0),
        default: written.default,
        lock_timeout: written.lock_timeout.unwrap_or(LOCK_TIMEOUT).0,
        give_up_after: written.give_up_after.unwrap_or(GIVE_UP_AFTER).0,
        only_retires: false,
    })
}

impl Partition {
    /// Whole partitions of `table` go when their last row is older than `older_than`.
    pub fn retiring(table: &str, column: &str, older_than: Span, archive: Option<String>) -> Self {
        Self {
            table: table.to_owned(),
            column: column.to_owned(),
            // Says how new ones would be cut; there are none.
            every: Every::Unit(Unit::Day),
            epoch: None,
            zone: None,
            premake: PREMAKE,
            retain: Some(Retain::Age(older_than)),
            archive,
            grace: Duration::ZERO,
            default: false,
            lock_timeout: LOCK_TIMEOUT.0,
            give_up_after: GIVE_UP_AFTER.0,
            only_retires: true,
        }
    }

    /// What `check --connect` tries.
    pub async fn check(&self, connection: &mut sqlx::PgConnection) -> Result<String> {
        state::check(connection, self).await
    }
}

impl Work for Partition {
    type Plan = Plan;

    async fn plan(&self, run: &RunContext<'_>) -> Result<Plan> {
        let mut session = Session::open(&run.settings, self.lock_timeout, self.give_up_after).await?;
        let state = State::read(self, run, &mut session).await?;
        Ok(decide::decide(state, self))
    }

    async fn apply(&self, run: &RunContext<'_>, plan: Plan) -> Result<Report> {
        let mut session = run.or_cancelled(Session::open(&run.settings, self.lock_timeout, self.give_up_after)).await?;
        let pid = session.pid;
        let result = run.or_cancelled(self.act(run, plan, &mut session)).await;
        if result.as_ref().is_err_and(|error| fault::kind_of(error) == Some(Kind::Cancelled)) {
            // Dropping the connection does not stop a statement that waits for a lock, and others behind it.
            if let Err(error) = pg::cancel_backend(&run.settings, pid).await {
                tracing::warn!("cannot cancel the statement of server process {pid}: {error:#}");
            }
        }
        result
    }
}

/// What a run has done so far, by kind of step, and what it could not do.
#[derive(Default)]
struct Progress {
    created: Vec<String>,
    finalised: Vec<String>,
    detached: Vec<String>,
    archived: Vec<String>,
    dropped: Vec<String>,
    rows_moved: u64,
    detach_is_pending: bool,
    /// Each with its reason: somebody held a lock.
    locked: Vec<String>,
    /// Each with its reason: as it is, it will never work.
    failed: Vec<String>,
}

impl Partition {
    async fn act(&self, run: &RunContext<'_>, plan: Plan, session: &mut Session) -> Result<Report> {
        let mut progress = Progress { failed: plan.refusals.clone(), ..Progress::default() };
        let shelf = match &self.archive {
            Some(store) => Some(Shelf::open(run, store, session).await),
            None => None,
        };
        // Rows that have nowhere to go stay attached; partitions ahead are made all the same.
        let has_no_shelf = shelf.as_ref().is_some_and(Result::is_err);
        let shelf = shelf.and_then(|opened| opened.map_err(|error| progress.failed.push(format!("archive: {error:#}"))).ok());
        let mut governor = Governor::start(run, &run.job.limits, Some(plan.table.oid)).await?;
        for planned in &plan.steps {
            let step = &planned.step;
            // What is needed ahead is made whatever the strain; what goes can wait.
            if !matches!(step, Step::Create(_) | Step::Finalise { .. })
                && let Go::Stop(reason) = governor.go().await?
            {
                progress.locked.push(format!("{step}: {reason}"));
                break;
            }
            if has_no_shelf
                && matches!(step, Step::Retire { .. } | Step::Confirm { .. } | Step::Archive { .. } | Step::Drop { .. })
            {
                progress.failed.push(format!("{step}: without its archive"));
                continue;
            }
            // A table has one pending detach at the most: the next one would only be refused.
            if progress.detach_is_pending && matches!(step, Step::Retire { .. }) {
                progress.locked.push(format!("{step}: comes after the detach that is pending"));
                continue;
            }
            tracing::info!("{step}: {}", planned.reason);
            // One partition that cannot be made or dropped does not stop the others (pg_partman#421), a lost server does.
            match self.take(step, &plan, shelf.as_ref(), session, &mut progress).await {
                Ok(None) => {}
                Ok(Some(who)) => {
                    progress.detach_is_pending |= matches!(step, Step::Finalise { .. });
                    progress.locked.push(format!("{step}: {who}"));
                }
                Err(error) if fault::kind_of(&error) == Some(Kind::Unreachable) => return Err(error),
                Err(error) => progress.failed.push(format!("{step}: {error:#}")),
            }
        }
        let after = decide::decide(State::read(self, run, session).await?, self);
        self.conclude(&plan, &after, progress, session.lock_waits, &governor)
    }

    /// Says who stood in the way, if somebody did.
    async fn take(
        &self,
        step: &Step,
        plan: &Plan,
        shelf: Option<&Shelf<'_>>,
        session: &mut Session,
        progress: &mut Progress,
    ) -> Result<Option<String>> {
        // A table that is detached now, and goes on to its archive and its end.
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
            Step::Keep { partition, mark } => return Ok(retire::keep(session, partition, mark).await?.locked()),
            // Looked for once more before it goes.
            Step::Drop { table, mark } if shelf.is_some() => (table, mark.clone()),
            Step::Drop { table, mark } => {
                let attempt = retire::drop_table(session, table, mark).await?;
                if matches!(attempt, Attempt::Done(())) {
                    progress.dropped.push(table.to_string());
                }
                return Ok(attempt.locked());
            }
            Step::Retire { partition, how, mark } => match retire::retire(session, plan, partition, *how, mark).await? {
                Attempt::Done(mark) => {
                    progress.detached.push(partition.to_string());
                    (partition, mark)
                }
                Attempt::Locked(who) => {
                    progress.detach_is_pending |= *how == decide::Detach::Concurrently;
                    return Ok(Some(who));
                }
            },
            Step::Confirm { table, mark } => match retire::confirm(session, plan, table, mark).await? {
                Attempt::Done(mark) => (table, mark),
                Attempt::Locked(who) => return Ok(Some(who)),
            },
            Step::Archive { table, mark } => (table, mark.clone()),
        };
        let is_new = match shelf {
            Some(shelf) => !shelf.holds(&mark).await?,
            None => false,
        };
        Ok(match retire::go_on(session, plan, shelf, table, mark).await? {
            Attempt::Done(is_dropped) => {
                if is_new {
                    progress.archived.push(table.to_string());
                }
                if is_dropped {
                    progress.dropped.push(table.to_string());
                }
                None
            }
            Attempt::Locked(who) => Some(who),
        })
    }

    fn conclude(&self, plan: &Plan, after: &Plan, progress: Progress, lock_waits: u64, governor: &Governor) -> Result<Report> {
        let covered =
            after.covered_until.clone().map_or("nothing is covered now".to_owned(), |until| format!("covered until {until}"));
        let mut did: Vec<String> = Vec::new();
        for (what, names) in [
            ("created", &progress.created),
            ("finished the detach of", &progress.finalised),
            ("detached", &progress.detached),
            ("archived", &progress.archived),
            ("dropped", &progress.dropped),
        ] {
            if !names.is_empty() {
                did.push(format!("{what} {}", units::plural(names.len(), "partition")));
            }
        }
        if progress.rows_moved > 0 {
            did.push(format!("moved {} out of the default partition", units::plural(progress.rows_moved as usize, "row")));
        }
        let did = if did.is_empty() { "nothing to do".to_owned() } else { did.join(", ") };
        let summary = match self.only_retires {
            true => format!("{}: {did}", plan.table),
            false => format!("{}: {did}; {covered}", plan.table),
        };

        let mut report = Report { summary: summary.clone(), warnings: after.notes.clone(), ..Report::default() };
        let until = after.covered_until_instant.map(|until| until.to_rfc3339_opts(chrono::SecondsFormat::Secs, true));
        match self.every {
            Every::Unit(_) => report.fact("covered_until", until),
            Every::Step(_) => report.fact("covered_until_number", after.covered_until.clone()),
        }
        report.fact("created", &*progress.created);
        report.fact("finalised", &*progress.finalised);
        report.fact("detached", &*progress.detached);
        report.fact("archived", &*progress.archived);
        report.fact("dropped", &*progress.dropped);
        report.fact("rows_moved", progress.rows_moved);
        report.fact("default_rows", after.default_rows);
        report.fact("partitions", after.partitions);
        report.fact("lock_waits", lock_waits);
        governor.report(&mut report);

        let failure = if !after.is_covered {
            let mut message = format!(
                "{summary}; that is less than one period ({}) ahead, and rows beyond it will be refused or go to the default partition",
                self.every
            );
            for reason in progress.locked.iter().chain(&progress.failed) {
                message += &format!("; {reason}");
            }
            Some((None, message))
        } else if !progress.failed.is_empty() {
            let reasons = progress.failed.iter().chain(&progress.locked).cloned().collect::<Vec<_>>().join("; ");
            let kind = plan.clocks_apart.then_some(Kind::Configuration);
            Some((kind, format!("{summary}; not done: {reasons}")))
        } else if !progress.locked.is_empty() {
            Some((Some(Kind::Busy), format!("{summary}; left for the next run: {}", progress.locked.join("; "))))
        } else {
            None
        };
        match failure {
            Some((kind, message)) => Err(Unfinished { kind, message, report }.into()),
            None => Ok(report),
        }
    }
}
