//! The list of tasks, and the one way to drive each: plan, decide, apply.

use std::any::Any;

use anyhow::Result;
use sqlx::PgConnection;
use toml::Spanned;

use super::{audit, backup, compress, foreign_code, partition, refresh, reindex, retention, sql, vector_index};
use crate::config::checker::Checker;
use crate::config::limits::{self, Limits};
use crate::config::{self, Config};
use crate::ledger::report::Unfinished;
use crate::pg;
use crate::pg::table::Checked;
use crate::work::{Does, Driven, Entry, Memberships, Mode, Other, RestoresOn, RunContext, Touched, Work};

/// The tasks: the name of each in files and in the ledger, which is its folder's as well, and its resolved keys.
macro_rules! each_task {
    ($then:ident) => {
        $then! {
            audit: Audit,
            backup: Backup,
            compress: Compress,
            partition: Partition,
            refresh: Refresh,
            reindex: Reindex,
            retention: Retention,
            sql: Sql,
            vector_index: VectorIndex,
        }
    };
}
pub(crate) use each_task;

/// The only place that tells the tasks apart. Everything else asks a `Task`, which asks the [`Entry`] of the one that it is.
macro_rules! tasks {
    ($($kind:ident: $Task:ident,)+) => {
        /// A task of a job.
        #[derive(Clone, Debug)]
        pub enum Task {
            $($Task($kind::$Task),)+
        }

        /// The tables of a job's file that name its task.
        #[derive(Debug, Default)]
        pub struct Written {
            $(pub $kind: Option<$kind::Written>,)+
        }

        /// All kinds.
        const KINDS: &[&str] = &[$(stringify!($kind),)+];
        /// The kinds whose jobs may have `[limits]`.
        const KINDS_WITH_LIMITS: &[Option<&str>] =
            &[$(if $kind::$Task::HAS_LIMITS { Some(stringify!($kind)) } else { None },)+];

        impl Written {
            /// Returns the kinds whose tables are in the file.
            fn kinds(&self) -> Vec<&'static str> {
                [$((stringify!($kind), self.$kind.is_some()),)+]
                    .into_iter()
                    .filter_map(|(kind, is_there)| is_there.then_some(kind))
                    .collect()
            }

            /// All tables are checked, so that every mistake is found at once; the first is the task.
            fn resolve(self, checker: &mut Checker<'_>) -> Option<Task> {
                let resolved = [$(self.$kind.map(|written| $kind::resolve(written, checker).map(Task::$Task)),)+];
                resolved.into_iter().flatten().next()?
            }
        }

        impl Task {
            /// Returns its name in files and in the ledger.
            pub fn kind(&self) -> &'static str {
                match self { $(Self::$Task(_) => stringify!($kind),)+ }
            }

            /// Returns the task as what it is, where it is a `T`.
            pub fn as_a<T: 'static>(&self) -> Option<&T> {
                let task: &dyn Any = match self { $(Self::$Task(task) => task,)+ };
                task.downcast_ref()
            }

            fn has_limits(&self) -> bool {
                match self { $(Self::$Task(_) => $kind::$Task::HAS_LIMITS,)+ }
            }

            /// See [`Entry::HAS_METRICS`].
            pub fn has_metrics(&self) -> bool {
                match self { $(Self::$Task(_) => $kind::$Task::HAS_METRICS,)+ }
            }

            /// See [`Entry::MAKES_DUMPS`].
            pub fn makes_dumps(&self) -> bool {
                match self { $(Self::$Task(_) => $kind::$Task::MAKES_DUMPS,)+ }
            }

            /// See [`Entry::HAS_SCHEMAS`].
            pub fn has_schemas(&self) -> bool {
                match self { $(Self::$Task(_) => $kind::$Task::HAS_SCHEMAS,)+ }
            }

            /// See [`Entry::of_schema`].
            pub fn of_schema(&self, schema: &str) -> Option<Self> {
                match self { $(Self::$Task(task) => task.of_schema(schema).map(Self::$Task),)+ }
            }

            /// See [`Entry::RENAMES_DATABASE`].
            pub fn renames_database(&self) -> bool {
                match self { $(Self::$Task(_) => $kind::$Task::RENAMES_DATABASE,)+ }
            }

            /// See [`Entry::touched`].
            pub fn touched(&self) -> Vec<Touched<'_>> {
                match self { $(Self::$Task(task) => task.touched(),)+ }
            }

            /// See [`Entry::restores`].
            fn restores(&self) -> bool {
                match self { $(Self::$Task(task) => task.restores(),)+ }
            }

            /// See [`Entry::has_trust`].
            fn has_trust(&self) -> bool {
                match self { $(Self::$Task(task) => task.has_trust(),)+ }
            }

            /// See [`Entry::lends`].
            pub async fn lends(&self, connection: &mut PgConnection, trust_owners: bool) -> Result<Option<String>> {
                match self { $(Self::$Task(task) => Box::pin(task.lends(connection, trust_owners)).await,)+ }
            }

            /// See [`Entry::restores_on`].
            async fn restores_on(&self, settings: &pg::Settings, config: &Config) -> Result<RestoresOn> {
                match self { $(Self::$Task(task) => Box::pin(task.restores_on(settings, config)).await,)+ }
            }

            /// See [`Entry::is_repeatable`].
            pub fn is_repeatable(&self) -> bool {
                match self { $(Self::$Task(task) => task.is_repeatable(),)+ }
            }

            /// See [`Entry::does`].
            pub fn does(&self) -> Does {
                match self { $(Self::$Task(task) => task.does(),)+ }
            }

            /// See [`Entry::will_refuse`].
            pub fn will_refuse(&self, databases: &[String], jobs: &[Other]) -> Option<String> {
                match self { $(Self::$Task(task) => task.will_refuse(databases, jobs),)+ }
            }

            /// See [`Entry::agree`].
            pub fn agree(&mut self) {
                match self { $(Self::$Task(task) => task.agree(),)+ }
            }

            /// See [`Entry::check`].
            pub async fn check(
                &self,
                connection: &mut PgConnection,
                settings: &pg::Settings,
                config: &Config,
            ) -> Result<String> {
                match self { $(Self::$Task(task) => Box::pin(task.check(connection, settings, config)).await,)+ }
            }

            /// See [`Entry::grants`].
            pub async fn grants(
                &self,
                connection: &mut PgConnection,
                role: &str,
                memberships: &mut Memberships,
            ) -> Result<Vec<String>> {
                match self { $(Self::$Task(task) => Box::pin(task.grants(connection, role, memberships)).await,)+ }
            }

            /// Boxed: a task's future holds all that it does, and would be copied from stack to stack as often as it is passed
            /// on. Without this, an unoptimized build overflows a worker's 2 MiB.
            async fn drive_as_what_it_is(&self, foreign_code: Vec<String>, run: &RunContext<'_>, mode: Mode) -> Result<Driven> {
                match self { $(Self::$Task(task) => Box::pin(drive_work(foreign_code, task, run, mode)).await,)+ }
            }
        }

        $(
            impl From<$kind::$Task> for Task {
                fn from(task: $kind::$Task) -> Self {
                    Self::$Task(task)
                }
            }
        )+
    };
}

each_task!(tasks);

impl Task {
    /// The one task among the tables of the file.
    pub fn resolve(written: Written, checker: &mut Checker<'_>) -> Option<Self> {
        let kinds: Vec<String> = written.kinds().iter().map(|kind| format!("[{kind}]")).collect();
        match kinds.len() {
            0 => {
                let hint = format!("add a table that says what to do: {}", in_words(KINDS.iter().copied(), "or"));
                checker.missing("no task", &hint);
            }
            1 => {}
            _ => checker.missing(
                &format!("more than one task: {}", kinds.join(" and ")),
                "keep one of them here, and give the others files of their own: jobs/NAME.toml",
            ),
        }
        written.resolve(checker)
    }

    /// `[limits]` of its job.
    pub fn limits(task: Option<&Self>, written: Option<Spanned<limits::Written>>, checker: &mut Checker<'_>) -> Limits {
        if let Some(written) = &written
            && task.is_some_and(|task| !(task.has_limits() || task.has_trust() && written.get_ref().is_about_trust_alone()))
        {
            let kinds = in_words(KINDS_WITH_LIMITS.iter().flatten().copied(), "and");
            checker.problem(
                written,
                "[limits] does not apply to this task",
                format!(
                    "it limits the load that {kinds} put on the server; `trust_owners` applies to [audit], [refresh], and [backup] with verify = \"restore\", too"
                ),
            );
        }
        let written = written.map(Spanned::into_inner).unwrap_or_default();
        if let Some(most) =
            written.max_slowdown.as_ref().filter(|most| *most.get_ref() != 0.0 && !(1.0..=1000.0).contains(most.get_ref()))
        {
            let hint =
                "set 1 or more (commits may take this many times as long as without the run), or 0 to turn it off".to_owned();
            checker.problem(most, format!("`max_slowdown = {}` is out of range", most.get_ref()), hint);
        }
        written.into()
    }

    /// Returns the other owners' code that a job of this task executes with more rights than the owners have, each in a sentence, and the tables that
    /// were looked at. An error where the job refuses such code.
    pub async fn foreign_code(
        &self,
        settings: &pg::Settings,
        config: &Config,
        limits: &Limits,
    ) -> Result<(Vec<String>, Vec<Checked>)> {
        if self.restores() {
            let on = self.restores_on(settings, config).await?;
            return Ok((foreign_code::check_restore_before_a_dump(settings, &on, limits.trust_owners).await?, Vec::new()));
        }
        foreign_code::check(settings, &self.touched(), limits.trust_owners).await
    }

    /// Returns whether code of a table's owner runs in a job of this task.
    pub fn meets_owners(&self) -> bool {
        !self.touched().is_empty()
    }

    /// Returns the settings by which a job of this task connects: `owner_url` where it meets code of a table's owner.
    pub fn settings(&self, database: &config::Database) -> Result<pg::Settings> {
        if self.meets_owners() { database.owner_settings() } else { database.settings() }
    }
}

/// Returns "[a], [b] or [c]".
fn in_words(kinds: impl Iterator<Item = &'static str>, last: &str) -> String {
    let mut kinds: Vec<String> = kinds.map(|kind| format!("[{kind}]")).collect();
    let end = kinds.pop().unwrap_or_default();
    if kinds.is_empty() { end } else { format!("{} {last} {end}", kinds.join(", ")) }
}

/// Work that the runner runs: a job's task, or a command on behalf of the job.
pub trait Drive {
    /// Returns the value of the ledger's column `task`.
    fn kind(&self) -> &'static str;

    fn drive(&self, run: &RunContext, mode: Mode) -> impl Future<Output = Result<Driven>>;
}

impl Drive for Task {
    fn kind(&self) -> &'static str {
        self.kind()
    }

    async fn drive(&self, run: &RunContext<'_>, mode: Mode) -> Result<Driven> {
        // Tests use this switch to check how a defect of one job affects the others; release builds have no such switch.
        if cfg!(debug_assertions) && std::env::var("PGTEND_TEST_PANIC").is_ok_and(|job| job == run.job.name) {
            panic!("asked for by PGTEND_TEST_PANIC");
        }
        let found = run.or_cancelled(Box::pin(self.foreign_code(&run.settings, run.config, run.job.limits))).await?;
        self.drive_as_what_it_is(checked(run, found), run, mode).await
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
        // It works on the tables of the job, and restores no dump, though the job may.
        let touched = self.task.touched();
        let found = Box::pin(foreign_code::check(&run.settings, &touched, run.job.limits.trust_owners));
        let found = run.or_cancelled(found).await?;
        Box::pin(drive_work(checked(run, found), &self.work, run, mode)).await
    }
}

/// Drives the work. This is the only place where a dry run differs from a real one. The search for `foreign_code`, warnings about code of table
/// owners that the run executes, comes before: the queries of the plan may already execute such code.
async fn drive_work<W: Work>(foreign_code: Vec<String>, work: &W, run: &RunContext<'_>, mode: Mode) -> Result<Driven> {
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
            if W::PLAN_IS_KEPT {
                run.progress.plan(&plan.to_string());
            }
            let mut applied = work.apply(run, plan).await;
            match &mut applied {
                Ok(report) => add(&mut report.warnings, foreign_code),
                Err(error) => {
                    if let Some(unfinished) = error.downcast_mut::<Unfinished>() {
                        add(&mut unfinished.report.warnings, foreign_code);
                    }
                }
            }
            Ok(Driven::Applied(applied?))
        }
    }
}

/// The task itself may have looked again, and found the same.
fn add(warnings: &mut Vec<String>, foreign_code: Vec<String>) {
    warnings.retain(|warning| !foreign_code.contains(warning));
    warnings.extend(foreign_code);
}

/// Returns the warnings of a search for foreign code. From here on the run works on the tables that were looked at, and on no others.
fn checked(run: &RunContext<'_>, (warnings, tables): (Vec<String>, Vec<Checked>)) -> Vec<String> {
    run.checked.get_or_init(|| tables);
    warnings
}
