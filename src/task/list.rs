//! The list of tasks: the name of each, how its keys are read, and the one way to drive each: plan, decide, apply.

use anyhow::Result;
use toml::Spanned;

use super::foreign_code::{self, Touched};
use super::{audit, backup, compress, partition, reindex, retention, sql, vector_index};
use crate::config::checker::Checker;
use crate::config::limits::{self, Limits};
use crate::ledger::report::Unfinished;
use crate::work::{Does, Driven, Mode, RunContext, Work};
use crate::{config, pg};

#[derive(Clone, Debug)]
pub enum Task {
    Audit(audit::Audit),
    Backup(backup::Backup),
    Compress(compress::Compress),
    Partition(partition::Partition),
    Reindex(reindex::Reindex),
    Retention(retention::Retention),
    Sql(sql::Sql),
    VectorIndex(vector_index::VectorIndex),
}

/// The tables of a job's file that name its task.
#[derive(Debug, Default)]
pub struct Written {
    pub audit: Option<audit::Written>,
    pub backup: Option<backup::Written>,
    pub compress: Option<compress::Written>,
    pub partition: Option<partition::Written>,
    pub reindex: Option<reindex::Written>,
    pub retention: Option<retention::Written>,
    pub sql: Option<sql::Written>,
    pub vector_index: Option<vector_index::Written>,
}

impl Task {
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Audit(_) => "audit",
            Self::Backup(_) => "backup",
            Self::Compress(_) => "compress",
            Self::Partition(_) => "partition",
            Self::Reindex(_) => "reindex",
            Self::Retention(_) => "retention",
            Self::Sql(_) => "sql",
            Self::VectorIndex(_) => "vector_index",
        }
    }

    /// The one task among the tables of the file.
    pub fn resolve(written: Written, checker: &mut Checker<'_>) -> Option<Self> {
        let Written { audit, backup, compress, partition, reindex, retention, sql, vector_index } = written;
        let named: Vec<&str> = [
            ("[audit]", audit.is_some()),
            ("[backup]", backup.is_some()),
            ("[compress]", compress.is_some()),
            ("[partition]", partition.is_some()),
            ("[reindex]", reindex.is_some()),
            ("[retention]", retention.is_some()),
            ("[sql]", sql.is_some()),
            ("[vector_index]", vector_index.is_some()),
        ]
        .into_iter()
        .filter_map(|(name, is_there)| is_there.then_some(name))
        .collect();
        match named.len() {
            0 => checker.missing(
                "no task",
                "add a table that says what to do: [audit], [backup], [compress], [partition], [reindex], [retention], [sql] or [vector_index]",
            ),
            1 => {}
            _ => checker.missing(&format!("more than one task: {}", named.join(" and ")), "keep one task in each file"),
        }
        let audit = audit.map(|written| audit::resolve(written, checker).map(Self::Audit));
        let backup = backup.map(|written| backup::resolve(written, checker).map(Self::Backup));
        let compress = compress.map(|written| compress::resolve(written, checker).map(Self::Compress));
        let partition = partition.map(|written| partition::resolve(written, checker).map(Self::Partition));
        let reindex = reindex.map(|written| reindex::resolve(written, checker).map(Self::Reindex));
        let retention = retention.map(|written| retention::resolve(written, checker).map(Self::Retention));
        let sql = sql.map(|written| sql::resolve(written, checker).map(Self::Sql));
        let vector_index = vector_index.map(|written| vector_index::resolve(written, checker).map(Self::VectorIndex));
        audit.or(backup).or(compress).or(partition).or(reindex).or(retention).or(sql).or(vector_index)?
    }

    /// `[limits]` of its job.
    pub fn limits(task: Option<&Self>, written: Option<Spanned<limits::Written>>, checker: &mut Checker<'_>) -> Limits {
        if let (Some(written), Some(Self::Audit(_) | Self::Backup(_) | Self::Sql(_))) = (&written, task) {
            checker.problem(
                written,
                "[limits] does not apply to this task",
                "it limits the load that [compress], [partition], [reindex], [retention] and [vector_index] put on the server"
                    .to_owned(),
            );
        }
        let written = written.map(Spanned::into_inner).unwrap_or_default();
        if let Some(most) =
            written.max_slowdown.as_ref().filter(|most| *most.get_ref() != 0.0 && !(1.0..=1000.0).contains(most.get_ref()))
        {
            let hint =
                "set 1 or more (commits may take this many times as long as without the run), or 0 to turn it off".to_owned();
            checker.problem(most, format!("`max_slowdown = {}`", most.get_ref()), hint);
        }
        written.into()
    }

    /// Empty if the task touches no table, if the server itself switches to the owner (REINDEX), or if only a person knows what it touches.
    pub fn touched(&self) -> Vec<Touched<'_>> {
        match self {
            Self::Retention(retention) => {
                let tables = std::iter::once(&retention.table).chain(&retention.cascade);
                tables.map(|table| Touched::new(table, foreign_code::DELETE, &["4"], false)).collect()
            }
            // Rows leave a default partition with its triggers disabled.
            Self::Partition(partition) => vec![Touched::new(&partition.table, 0, &["4"], true)],
            Self::Compress(compress) => {
                vec![Touched { silences_triggers: true, ..Touched::new(&compress.table, foreign_code::UPDATE, &["2"], true) }]
            }
            // The index build runs as the owner; the searches that measure the index do not.
            Self::VectorIndex(vector_index) => vec![Touched::new(&vector_index.table, 0, &[], false)],
            Self::Audit(_) | Self::Backup(_) | Self::Reindex(_) | Self::Sql(_) => Vec::new(),
        }
    }

    /// Whether code of a table's owner runs in a job of this task.
    pub fn meets_owners(&self) -> bool {
        !self.touched().is_empty()
    }

    /// How a job of this task connects: by `owner_url` where it meets code of a table's owner.
    pub fn settings(&self, database: &config::Database) -> Result<pg::Settings> {
        if self.meets_owners() { database.owner_settings() } else { database.settings() }
    }

    /// Whether a run whose process died midway may be repeated: all tasks of pgtend look at the current state and go on. For SQL statements
    /// the job decides.
    pub fn is_repeatable(&self) -> bool {
        !matches!(self, Self::Sql(sql) if !sql.is_repeatable())
    }

    /// The properties of the task that other parts of pgtend ask about.
    pub fn does(&self) -> Does {
        match self {
            Self::Backup(backup) => Does::Backup { store: backup.store.clone() },
            Self::Compress(compress) => Does::Compress { table: compress.table.clone(), column: compress.column.clone() },
            Self::Partition(partition) => Does::Partition { table: partition.table.clone() },
            Self::Retention(retention) => Does::Retention { table: retention.table.clone() },
            Self::Audit(_) | Self::Reindex(_) | Self::Sql(_) | Self::VectorIndex(_) => Does::Else,
        }
    }
}

/// Work that the runner runs: a job's task, or a command on behalf of the job.
pub trait Drive {
    /// The value of the ledger's column `task`.
    fn kind(&self) -> &'static str;

    fn drive(&self, run: &RunContext, mode: Mode) -> impl Future<Output = Result<Driven>>;
}

impl Drive for Task {
    fn kind(&self) -> &'static str {
        self.kind()
    }

    /// Boxed: a task's future holds all that it does, and would be copied from stack to stack as often as it is passed
    /// on. Without this, an unoptimized build overflows a worker's 2 MiB.
    async fn drive(&self, run: &RunContext<'_>, mode: Mode) -> Result<Driven> {
        // Tests use this switch to check how a defect of one job affects the others; release builds have no such switch.
        if cfg!(debug_assertions) && std::env::var("PGTEND_TEST_PANIC").is_ok_and(|job| job == run.job.name) {
            panic!("asked for by PGTEND_TEST_PANIC");
        }
        match self {
            Self::Audit(audit) => Box::pin(drive_work(self, audit, run, mode)).await,
            Self::Backup(backup) => Box::pin(drive_work(self, backup, run, mode)).await,
            Self::Compress(compress) => Box::pin(drive_work(self, compress, run, mode)).await,
            Self::Partition(partition) => Box::pin(drive_work(self, partition, run, mode)).await,
            Self::Reindex(reindex) => Box::pin(drive_work(self, reindex, run, mode)).await,
            Self::Retention(retention) => Box::pin(drive_work(self, retention, run, mode)).await,
            Self::Sql(sql) => Box::pin(drive_work(self, sql, run, mode)).await,
            Self::VectorIndex(vector_index) => Box::pin(drive_work(self, vector_index, run, mode)).await,
        }
    }
}

/// A command's work. `command` is "partition convert" and the like: with a space, so that the ledger tells it from the
/// runs of the job itself.
pub struct Manual<W> {
    pub command: &'static str,
    /// The job's own task.
    pub task: Task,
    pub work: W,
}

impl<W: Work> Drive for Manual<W> {
    fn kind(&self) -> &'static str {
        self.command
    }

    async fn drive(&self, run: &RunContext<'_>, mode: Mode) -> Result<Driven> {
        Box::pin(drive_work(&self.task, &self.work, run, mode)).await
    }
}

/// Drives the work. This is the only place where a dry run differs from a real one.
async fn drive_work<W: Work>(task: &Task, work: &W, run: &RunContext<'_>, mode: Mode) -> Result<Driven> {
    // The search comes before the plan, whose queries may already execute such code.
    let foreign_code = run.or_cancelled(warnings(task, run)).await?;
    let plan = run.or_cancelled(work.plan(run)).await?;
    match mode {
        Mode::DryRun => {
            let (mut text, mut json) = (plan.to_string(), serde_json::to_value(&plan)?);
            if !foreign_code.is_empty() {
                text.extend(foreign_code.iter().map(|line| format!("  WARNING: {line}\n")));
                if let Some(fields) = json.as_object_mut() {
                    fields.insert("foreign_code".to_owned(), foreign_code.into());
                }
            }
            Ok(Driven::Planned { text, json, refusal: work.refusal(run, &plan) })
        }
        Mode::Apply => {
            tracing::debug!("plan:\n{plan}");
            let mut applied = work.apply(run, plan).await;
            match &mut applied {
                Ok(report) => report.warnings.extend(foreign_code),
                Err(error) => {
                    if let Some(unfinished) = error.downcast_mut::<Unfinished>() {
                        unfinished.report.warnings.extend(foreign_code);
                    }
                }
            }
            Ok(Driven::Applied(applied?))
        }
    }
}

/// Warnings about code of table owners that the run executes.
async fn warnings(task: &Task, run: &RunContext<'_>) -> Result<Vec<String>> {
    foreign_code::warnings(&run.settings, &task.touched(), run.job.limits.trust_owners).await
}
