//! Acts on the plan: what a stopped run left goes, the new index is built beside the old one, measured, and swapped in or dropped.

use std::time::Instant;

use anyhow::{Context as _, Result};
use serde_json::json;
use sqlx::PgConnection;

use super::decide::{self, Action, Decision, Spec, Tuning, recall_in_words};
use super::kind::Method;
use super::measure::{self, Found, Sample, Searcher, Stopped};
use super::plan::{Part, Plan};
use super::state::{self, Built, Remains};
use super::tune::Tuner;
use super::{ApplySetting, VectorIndex, memory};
use crate::concurrently::{self, Ended};
use crate::fault::{self, Kind};
use crate::governor::{Go, Governor, Limits};
use crate::pg::{self, identifier, literal, qualified};
use crate::report::{Report, Unfinished};
use crate::task::RunContext;
use crate::task::partition::session::{Attempt, Session};
use crate::units;

/// For dropping what a cancelled build left, while somebody waits for the end of the program.
const CLEAN_MILLISECONDS: &str = "5000";

pub async fn apply(job: &VectorIndex, run: &RunContext<'_>, plan: Plan) -> Result<Report> {
    let limits = &run.job.limits;
    let mut governor =
        run.or_cancelled(Governor::start(run, limits, plan.parts.first().map(|part| part.table.facts.oid))).await?;
    let mut report = Report::default();
    let (mut tables, mut summaries, mut failures) = (Vec::new(), Vec::new(), Vec::new());
    for part in plan.parts {
        let name = part.table.sql();
        if let Go::Stop(reason) = run.or_cancelled(governor.go()).await? {
            failures.push((Some(Kind::NotNow), format!("{name}: not begun: {reason}")));
            break;
        }
        let mut worker = Worker { job, run, limits, extension: &plan.extension, part, told: Told::default() };
        let failure = worker.work().await?;
        if let Some((kind, message)) = failure {
            failures.push((kind, format!("{name}: {message}")));
        } else {
            summaries.push(format!("{name}: {}", worker.told.summary));
        }
        report.warnings.append(&mut worker.told.warnings);
        tables.push(worker.json());
    }
    report.fact("tables", tables);
    governor.report(&mut report);
    report.summary = summaries.iter().chain(failures.iter().map(|(_, message)| message)).cloned().collect::<Vec<_>>().join("; ");
    if failures.is_empty() {
        return Ok(report);
    }
    // What fails for good weighs more than what may be better next time.
    let kind = failures.iter().map(|(kind, _)| *kind).find(|kind| *kind != Some(Kind::NotNow)).unwrap_or(Some(Kind::NotNow));
    let message = failures.into_iter().map(|(_, message)| message).collect::<Vec<_>>().join("; ");
    Err(Unfinished { kind, message, report }.into())
}

/// A reason not to have succeeded.
type Failure = (Option<Kind>, String);

struct Worker<'a> {
    job: &'a VectorIndex,
    run: &'a RunContext<'a>,
    limits: &'a Limits,
    extension: &'a str,
    part: Part,
    told: Told,
}

/// For the report.
#[derive(Default)]
struct Told {
    summary: String,
    warnings: Vec<String>,
    tuning: Option<Tuning>,
    decision: Option<Decision>,
    built: Option<Spec>,
    dropped: Vec<String>,
    swapped: bool,
    after: Option<Found>,
    after_at_todays_setting: Option<Found>,
    setting_applied: Option<String>,
    planners_choice: Option<String>,
}

impl Worker<'_> {
    async fn work(&mut self) -> Result<Option<Failure>> {
        let table = &self.part.table;
        if !table.leftovers.is_empty() {
            let mut connection = self.run.or_cancelled(self.run.settings.connect()).await?;
            if let Some(who) = self.run.or_cancelled(concurrently::builder(&mut connection, table.facts.oid)).await? {
                return Ok(Some((
                    Some(Kind::NotNow),
                    format!("{who} is building or vacuuming there: nothing is touched meanwhile"),
                )));
            }
        }
        let mut is_built = false;
        for leftover in table.leftovers.clone() {
            let is_wanted = matches!(self.part.decision.action, Action::Tune | Action::Build { .. });
            if leftover.what == Remains::Built && is_wanted && self.fits(&leftover.name).await? {
                is_built = true;
                continue;
            }
            if let Some(who) = self.drop_index(&leftover.schema, &leftover.name).await? {
                return Ok(Some((Some(Kind::NotNow), format!("cannot drop what a stopped run left, {}: {who}", leftover.name))));
            }
        }
        let mut decision = self.part.decision.clone();
        if decision.action == Action::Tune && !is_built {
            let tuner = Tuner {
                run: self.run,
                job: self.job,
                table: &self.part.table,
                extension: self.extension,
                setting: self.part.setting,
                lists: self.lists_to_begin_with(),
                only_one: false,
                sample: &self.part.sample,
            };
            let tuning = tuner.tune().await?;
            decision = decide::after_tuning(&self.part.wanted, &self.part.today, decision, &tuning);
            self.told.tuning = Some(tuning);
        }
        self.told.decision = Some(decision.clone());
        let reasons = decision.reasons.join("; ");
        match decision.action {
            Action::Nothing => {
                self.told.summary = format!("nothing to do: {reasons}");
                self.note_tuning().await?;
                Ok(None)
            }
            Action::Set { setting } => {
                self.note_tuning().await?;
                self.set(setting, &reasons).await
            }
            Action::GiveUp => Ok(Some((None, reasons))),
            Action::Tune | Action::Build { .. } => {
                let spec = match decision.action {
                    Action::Build { spec } => Some(spec),
                    _ => None,
                };
                let built = self.build(spec, is_built).await;
                if let Err(error) = &built
                    && fault::kind_of(error) == Some(Kind::Cancelled)
                {
                    self.clean_up().await;
                }
                built
            }
        }
    }

    fn lists_to_begin_with(&self) -> Option<u32> {
        self.part.today.index.as_ref().filter(|index| index.is_valid).and_then(|index| index.lists_in_fact)
    }

    /// Whether an index that a stopped run built is one that this job would build.
    async fn fits(&self, name: &str) -> Result<bool> {
        let mut connection = self.run.or_cancelled(state::connect(&self.run.settings)).await?;
        let options: Option<(String, String, Vec<String>)> = sqlx::query_as(
            "SELECT am.amname::text, o.opcname::text, coalesce(x.reloptions, '{}') FROM pg_index i JOIN pg_class x ON x.oid = i.indexrelid
             JOIN pg_am am ON am.oid = x.relam JOIN pg_opclass o ON o.oid = i.indclass[0]
             WHERE i.indrelid = $1::bigint::oid AND x.relname = $2 AND i.indisvalid",
        )
        .bind(self.part.table.facts.oid)
        .bind(name)
        .fetch_optional(&mut connection)
        .await?;
        let Some((method, class, options)) = options else { return Ok(false) };
        let has = |wanted: &str| {
            let mut has: Vec<&str> = options.iter().map(String::as_str).collect();
            has.sort_unstable();
            let wanted = wanted.replace(" = ", "=");
            let mut wanted: Vec<&str> = wanted.split(", ").collect();
            wanted.sort_unstable();
            has == wanted
        };
        let as_decided = match &self.part.decision.action {
            Action::Build { spec } => has(&spec.options()),
            _ => true,
        };
        Ok(method == self.part.wanted.method.name() && class == self.part.table.operator_class && as_decided)
    }

    async fn build(&mut self, spec: Option<Spec>, is_built: bool) -> Result<Option<Failure>> {
        let in_place = self.part.table.index.as_ref().filter(|index| index.is_attached).cloned();
        if let Some(spec) = spec.filter(|_| !is_built) {
            let memory = memory::check(&self.part.table, spec, &self.job.memory(), &self.run.settings);
            self.told.warnings.extend(memory.notes.iter().filter(|note| !note.contains("unknown")).cloned());
            if let Some(refusal) = memory.refusal {
                return Ok(Some((Some(Kind::Configuration), refusal)));
            }
            let statement = match &in_place {
                Some(index) => match self.alter_in_place(index, spec).await? {
                    Ok(statement) => statement,
                    Err(failure) => return Ok(Some(failure)),
                },
                None => self.create(spec),
            };
            let expected_bytes = self.part.table.index_bytes();
            let phase = self.run.progress.phase("build", Some(expected_bytes));
            let settings = vec![
                ("maintenance_work_mem", format!("{}kB", memory.maintenance_work_mem_bytes / 1024)),
                ("max_parallel_maintenance_workers", memory.parallel_workers.to_string()),
            ];
            let ended = concurrently::run(
                self.run,
                self.limits,
                concurrently::Work { statement, settings, phase: &phase, expected_bytes },
            )
            .await;
            match ended {
                Ok(Ended::Done) => phase.done(&spec.to_string()),
                Ok(Ended::Blocked(who)) => {
                    self.clean_up().await;
                    return Ok(Some((
                        Some(Kind::NotNow),
                        format!("the build was given up, and what there was still serves: {who}"),
                    )));
                }
                Err(error) => {
                    if fault::kind_of(&error) != Some(Kind::Cancelled) {
                        self.clean_up().await;
                    }
                    return Err(error);
                }
            }
            self.told.built = Some(spec);
        }
        let name = in_place.as_ref().map_or_else(|| self.part.table.new_name(), |index| index.name.clone());
        let measured = self.run.or_cancelled(self.measure_new(&name, in_place.is_none())).await;
        let measured = match measured {
            Ok(measured) => measured,
            Err(error) if error.downcast_ref::<Stopped>().is_some() => Err(format!("it cannot be measured: {error}")),
            Err(error) => return Err(error),
        };
        let verdict = measured.and_then(|(reached, found, at_todays)| {
            let verdict = decide::accept(&self.part.wanted, &self.part.today, reached, &found, &at_todays);
            self.told.after = Some(found.clone());
            self.told.after_at_todays_setting = Some(at_todays);
            verdict.map(|()| found)
        });
        match (verdict, in_place) {
            (Ok(found), None) => self.swap(found).await,
            (Ok(found), Some(index)) => {
                self.comment(&index.schema, &index.name, index.comment.as_deref(), &found, true).await?;
                self.finish(found).await
            }
            (Err(reason), None) => {
                let new = self.part.table.new_name();
                let schema = self.part.table.facts.schema.clone();
                let left = self.drop_index(&schema, &new).await?;
                let left = left.map(|who| format!("; it could not be dropped ({who}), the next run does")).unwrap_or_default();
                Ok(Some((
                    None,
                    format!("the new index was built and dropped again, and what there was still serves: {reason}{left}"),
                )))
            }
            (Err(reason), Some(_)) => Ok(Some((None, format!("rebuilt in place, as the index of a partition is: {reason}")))),
        }
    }

    fn create(&self, spec: Spec) -> String {
        let table = &self.part.table;
        let key = table.searched.key.replacen("t.", "", 1);
        let space = table.index.as_ref().and_then(|index| index.tablespace.as_ref());
        let space = space.map(|space| format!(" TABLESPACE {}", identifier(space))).unwrap_or_default();
        let predicate = table.searched.predicate.as_ref().map(|predicate| format!(" WHERE {predicate}")).unwrap_or_default();
        format!(
            "CREATE INDEX CONCURRENTLY {} ON {} USING {} ({key} {}) WITH ({}){space}{predicate}",
            identifier(&table.new_name()),
            table.sql(),
            spec.method(),
            qualified(self.extension, &table.operator_class),
            spec.options(),
        )
    }

    /// An index that belongs to one of the partitioned table can neither be dropped nor have another attached in its place.
    async fn alter_in_place(&self, index: &state::Found, spec: Spec) -> Result<Result<String, Failure>> {
        if index.method != spec.method().name() {
            let message = format!(
                "{} belongs to the index of the partitioned table and cannot become {}: make that index anew by hand",
                index.name,
                spec.method()
            );
            return Ok(Err((Some(Kind::Configuration), message)));
        }
        // Fresh: in a session that has pgvector loaded, ALTER INDEX … SET asks for ACCESS EXCLUSIVE.
        let mut session =
            self.run.or_cancelled(Session::open(&self.run.settings, self.limits.lock_timeout.0, self.limits.max_wait.0)).await?;
        let statement = format!("ALTER INDEX {} SET ({})", index.sql(), spec.options());
        match self.run.or_cancelled(session.transaction(&[statement], &[self.part.table.facts.oid, index.oid])).await? {
            Attempt::Done(_) => Ok(Ok(format!("REINDEX INDEX CONCURRENTLY {}", index.sql()))),
            Attempt::Locked(who) => Ok(Err((Some(Kind::NotNow), who))),
        }
    }

    /// The new index answers to a connection that may not see the old one: (reached, at the least setting, at today's).
    async fn measure_new(&mut self, name: &str, is_beside: bool) -> Result<Result<(bool, Found, Found), String>> {
        let mut connection = state::connect(&self.run.settings).await?;
        let phase = self.run.progress.phase("measure", None);
        phase.say("searches of the new index");
        let table = &self.part.table;
        let started = Instant::now();
        let mut sample = measure::sample(&mut connection, &table.searched, self.job.recall.queries, table.vectors()).await?;
        let drawn = sample.tids.len();
        let time = self.job.recall.time.0;
        measure::find_truth(&mut connection, &table.searched, &mut sample, self.job.recall.k, started + time * 2 / 3).await?;
        if drawn == 0 || sample.len() < measure::QUERIES_AT_LEAST.min(drawn) {
            return Ok(Err(format!(
                "it cannot be measured: only {} exact searches were done in {}",
                sample.len(),
                self.job.recall.time
            )));
        }
        let old = table.index.as_ref().filter(|index| is_beside && index.is_valid).map(|index| index.oid);
        let first = self.search_new(&mut connection, name, &sample, started + time).await;
        let measured = match (first, old) {
            (Err(error), Some(old)) if matches!(error.downcast_ref(), Some(Stopped::OtherPlan(_))) => {
                if table.facts.is_superuser {
                    // Nobody else sees this, and it is never committed.
                    sqlx::query("BEGIN").execute(&mut connection).await?;
                    sqlx::query("UPDATE pg_index SET indisvalid = false WHERE indexrelid = $1::bigint::oid")
                        .bind(old)
                        .execute(&mut connection)
                        .await?;
                    let measured = self.search_new(&mut connection, name, &sample, started + time).await;
                    sqlx::query("ROLLBACK").execute(&mut connection).await?;
                    measured?
                } else {
                    return self.measure_on_a_copy().await;
                }
            }
            (measured, _) => measured?,
        };
        phase.done(&recall_in_words(&measured.1));
        Ok(Ok(measured))
    }

    async fn search_new(
        &self,
        connection: &mut PgConnection,
        name: &str,
        sample: &Sample,
        deadline: Instant,
    ) -> Result<(bool, Found, Found)> {
        let method = self.part.wanted.method;
        let mut searcher = Searcher {
            connection,
            searched: &self.part.table.searched,
            sample,
            k: self.job.recall.k,
            parameter: method.setting(),
            index: name.to_owned(),
            deadline,
            searches: 0,
            searches_at_most: u64::MAX,
        };
        let most = match (method, self.told.built) {
            (_, Some(spec)) => spec.most(),
            (Method::Ivfflat, None) => searcher.lists().await?.unwrap_or(32_768),
            (Method::Hnsw, None) => 1000,
        };
        let at_todays = searcher.recall(self.part.setting.min(most)).await?;
        let tuned = self.told.tuning.as_ref().and_then(Tuning::best).map(|best| best.found.setting);
        let start = tuned.unwrap_or(self.part.setting);
        let (reached, found) = searcher.least(self.job.recall.target, start, most).await?;
        Ok((reached, found, at_todays))
    }

    /// Where the planner prefers the old index (it has more lists) and the role may not hide it: the same build on a copy of
    /// all vectors is the proof.
    async fn measure_on_a_copy(&mut self) -> Result<Result<(bool, Found, Found), String>> {
        let Some(Spec::Ivfflat { lists }) = self.told.built else {
            return Ok(Err(
                "the planner prefers the old index, and only a superuser can measure the new one beside it: run the job as one, or drop the old index first".to_owned(),
            ));
        };
        let known = self.told.tuning.as_ref().filter(|tuning| tuning.share >= 1.0);
        let known = known.and_then(|tuning| tuning.candidates.iter().find(|one| one.lists == lists).cloned());
        let candidate = match known {
            Some(candidate) => candidate,
            None => {
                let tuner = Tuner {
                    run: self.run,
                    job: self.job,
                    table: &self.part.table,
                    extension: self.extension,
                    setting: self.part.setting,
                    lists: Some(lists),
                    only_one: true,
                    sample: &self.part.sample,
                };
                let tuning = tuner.tune().await?;
                match tuning.candidates.into_iter().next() {
                    Some(candidate) if tuning.share >= 1.0 => candidate,
                    _ => {
                        let message = "the planner prefers the old index, and the table is too large to be measured as a copy: run the job as a superuser, or give `budget` more `sample`";
                        return Ok(Err(message.to_owned()));
                    }
                }
            }
        };
        self.told.warnings.push(
            "the planner preferred the old index, which only a superuser can hide: the recall is that of the same build on a copy of all vectors".to_owned(),
        );
        let at_todays = candidate.at_todays_setting.clone().unwrap_or_else(|| candidate.found.clone());
        Ok(Ok((candidate.reached, candidate.found, at_todays)))
    }

    async fn swap(&mut self, found: Found) -> Result<Option<Failure>> {
        // More is never worse: first, where the new index needs more; afterwards, where less is enough.
        if found.setting > self.part.setting {
            self.apply_setting(found.setting).await?;
        }
        let table = &self.part.table;
        let (new, old_name) = (table.new_name(), table.old_name());
        let schema = table.facts.schema.clone();
        let (name, old) = (table.index_name.clone(), table.index.clone());
        let mut session =
            self.run.or_cancelled(Session::open(&self.run.settings, self.limits.lock_timeout.0, self.limits.max_wait.0)).await?;
        let mut statements = Vec::new();
        if let Some(old) = &old {
            statements.push(format!("ALTER INDEX {} RENAME TO {}", old.sql(), identifier(&old_name)));
        }
        statements.push(format!("ALTER INDEX {} RENAME TO {}", qualified(&schema, &new), identifier(&name)));
        let comment = self.built(&found, true).beside(old.as_ref().and_then(|old| old.comment.as_deref()));
        statements.push(format!("COMMENT ON INDEX {} IS {}", qualified(&schema, &name), literal(&comment)));
        let oids: Vec<i64> = [Some(self.part.table.facts.oid), old.as_ref().map(|old| old.oid)].into_iter().flatten().collect();
        if let Attempt::Locked(who) = self.run.or_cancelled(session.transaction(&statements, &oids)).await? {
            let message =
                format!("the new index is built, and its name could not be changed: {who}; the next run goes on from there");
            return Ok(Some((Some(Kind::NotNow), message)));
        }
        self.told.swapped = true;
        if old.is_some()
            && let Some(who) = self.drop_index(&schema, &old_name).await?
        {
            self.told.warnings.push(format!("the old index could not be dropped, and the next run does that: {who}"));
        }
        self.finish(found).await
    }

    /// The setting, where it is to be set; whether the application's own query uses the index; and the words for it.
    async fn finish(&mut self, found: Found) -> Result<Option<Failure>> {
        let mut connection = self.run.or_cancelled(state::connect(&self.run.settings)).await?;
        let table = &self.part.table;
        let method = self.part.wanted.method;
        let name = table.index_name.clone();
        let built = self.told.built.map_or_else(|| "built by a run that was stopped".to_owned(), |spec| spec.to_string());
        let before = self.part.today.index.as_ref().and_then(|index| index.now.as_ref());
        let before = before
            .map_or(String::new(), |now| format!("; before: {} at {}{}", recall_in_words(now), now.setting, cost_in_words(now)));
        self.told.summary = format!(
            "{name} is {built}: {} at {} = {}{}{before}",
            recall_in_words(&found),
            method.setting(),
            found.setting,
            cost_in_words(&found)
        );
        let failure = self.settle(&found).await?;
        // As the application asks, with what it is told to search with.
        let setting = if self.told.setting_applied.is_some() { found.setting } else { self.part.setting };
        let table = &self.part.table;
        let sample = measure::sample(&mut connection, &table.searched, 1, table.vectors()).await?;
        state::setting(&mut connection, method, None, self.extension).await?;
        pg::set(&mut connection, method.setting(), &setting.to_string()).await?;
        if let Some(vector) = sample.vector() {
            self.told.planners_choice =
                measure::applications_plan(&mut connection, &table.searched, vector, self.job.recall.k).await?;
        }
        if let Some(choice) = self.told.planners_choice.as_ref().filter(|choice| **choice != name) {
            self.told.warnings.push(format!(
                "the planner answers ORDER BY {} LIMIT {} at {} = {setting} with {choice}, not with {name}",
                table.order_by(),
                self.job.recall.k,
                method.setting()
            ));
        }
        Ok(failure)
    }

    /// Applications search with the setting from now on, or the run says that they do not.
    async fn settle(&mut self, found: &Found) -> Result<Option<Failure>> {
        let (name, target) = (self.part.wanted.method.setting(), self.job.recall.target);
        if self.job.apply_setting.is_some() {
            self.apply_setting(found.setting).await?;
            return Ok(None);
        }
        if found.setting == self.part.setting {
            return Ok(None);
        }
        let advice = format!("{name} = {} is enough for {target}", found.setting);
        let at_todays = self.told.after_at_todays_setting.as_ref().filter(|at_todays| at_todays.recall < target);
        let Some(at_todays) = at_todays else {
            self.told.warnings.push(format!("{advice}, and applications search with {}", self.part.setting));
            return Ok(None);
        };
        let message = format!(
            "{}; but applications search with {name} = {}, where {}: {advice}. Set it in the application and say so in the job, or say apply_setting = \"database\"",
            self.told.summary,
            self.part.setting,
            recall_in_words(at_todays),
        );
        Ok(Some((None, message)))
    }

    /// Only the setting is not as it should be.
    async fn set(&mut self, setting: u32, reasons: &str) -> Result<Option<Failure>> {
        let index = self.part.today.index.as_ref();
        self.told.after_at_todays_setting = index.and_then(|index| index.now.clone());
        let least =
            index.and_then(|index| index.least.as_ref()).map(|(_, least)| least.clone()).filter(|least| least.setting == setting);
        let least = least.context("the setting was measured")?;
        self.told.summary = format!("{}: {reasons}", self.part.table.index_name);
        self.told.after = Some(least.clone());
        self.settle(&least).await
    }

    async fn apply_setting(&mut self, setting: u32) -> Result<()> {
        let Some(place) = &self.job.apply_setting else { return Ok(()) };
        let name = self.part.wanted.method.setting();
        let mut connection = self.run.or_cancelled(state::connect(&self.run.settings)).await?;
        // Known to the server once pgvector is loaded, and set by whoever may.
        self.run.or_cancelled(state::setting(&mut connection, self.part.wanted.method, None, self.extension)).await?;
        let database = identifier(self.run.settings.database());
        let whose = match place {
            ApplySetting::Database => format!("DATABASE {database}"),
            ApplySetting::Role(role) => format!("ROLE {} IN DATABASE {database}", identifier(role)),
        };
        let sql = format!("ALTER {whose} SET {name} = {setting}");
        pg::execute_counting(&mut connection, sql.clone()).await.map_err(pg::in_its_own_words).with_context(|| sql.clone())?;
        self.told.setting_applied = Some(format!("{sql}; sessions that are connected keep theirs"));
        Ok(())
    }

    fn built(&self, found: &Found, now: bool) -> Built {
        let before = self.part.table.index.as_ref().and_then(state::Found::built);
        Built {
            built_at: if now { Some(self.run.now) } else { before.as_ref().and_then(|before| before.built_at) },
            measured_at: self.run.now,
            rows: match before.filter(|_| !now) {
                Some(before) => before.rows,
                None => self.part.table.vectors() as u64,
            },
            setting: found.setting,
            recall: (found.recall * 10_000.0).round() / 10_000.0,
            tuned: self.told.tuning.is_some() || self.part.today.index.as_ref().is_some_and(|index| index.tuned),
        }
    }

    /// That other numbers of lists were tried, and the present one stays: else every run would try again.
    async fn note_tuning(&mut self) -> Result<()> {
        let least = self.part.today.index.as_ref().and_then(|index| index.least.clone());
        let (Some(_), Some(index), Some((_, least))) = (&self.told.tuning, self.part.table.index.clone(), least) else {
            return Ok(());
        };
        self.comment(&index.schema, &index.name, index.comment.as_deref(), &least, false).await
    }

    async fn comment(&mut self, schema: &str, name: &str, before: Option<&str>, found: &Found, now: bool) -> Result<()> {
        let comment = self.built(found, now).beside(before);
        let mut session =
            self.run.or_cancelled(Session::open(&self.run.settings, self.limits.lock_timeout.0, self.limits.max_wait.0)).await?;
        let statement = format!("COMMENT ON INDEX {} IS {}", qualified(schema, name), literal(&comment));
        if let Attempt::Locked(who) =
            self.run.or_cancelled(session.transaction(&[statement], &[self.part.table.facts.oid])).await?
        {
            self.told.warnings.push(format!("what was measured could not be noted down in the index's comment: {who}"));
        }
        Ok(())
    }

    /// None: it is gone. Else who stood in the way.
    async fn drop_index(&mut self, schema: &str, name: &str) -> Result<Option<String>> {
        let phase = self.run.progress.phase("drop", None);
        let statement = format!("DROP INDEX CONCURRENTLY IF EXISTS {}", qualified(schema, name));
        let work = concurrently::Work { statement, settings: Vec::new(), phase: &phase, expected_bytes: 0 };
        match concurrently::run(self.run, self.limits, work).await? {
            Ended::Done => {
                phase.done(name);
                self.told.dropped.push(name.to_owned());
                Ok(None)
            }
            Ended::Blocked(who) => Ok(Some(who)),
        }
    }

    /// After a build that did not come to its end: within the time that a cancelled run has. What cannot be dropped now is
    /// dropped by the next run.
    async fn clean_up(&mut self) {
        let new = qualified(&self.part.table.facts.schema, &self.part.table.new_name());
        let cleaned = async {
            let mut connection = self.run.settings.connect().await?;
            let is_broken: bool = sqlx::query_scalar(
                "SELECT EXISTS (SELECT FROM pg_index i JOIN pg_class x ON x.oid = i.indexrelid
                                WHERE i.indrelid = $1::bigint::oid AND x.relname = $2 AND NOT i.indisvalid)",
            )
            .bind(self.part.table.facts.oid)
            .bind(self.part.table.new_name())
            .fetch_one(&mut connection)
            .await?;
            if !is_broken {
                return Ok(false);
            }
            pg::set(&mut connection, "statement_timeout", CLEAN_MILLISECONDS).await?;
            pg::execute(&mut connection, format!("DROP INDEX CONCURRENTLY IF EXISTS {new}")).await?;
            anyhow::Ok(true)
        };
        match cleaned.await {
            Ok(true) => self.told.dropped.push(self.part.table.new_name()),
            Ok(false) => {}
            Err(error) => tracing::warn!("{new} is left for the next run to drop: {}", fault::in_a_line(&error)),
        }
    }

    fn json(&self) -> serde_json::Value {
        let told = &self.told;
        let today = self.part.today.index.as_ref();
        json!({
            "table": self.part.table.sql(),
            "index": self.part.table.index_name,
            "decision": told.decision,
            "before": today.and_then(|index| index.now.clone()),
            "tuning": told.tuning,
            "built": told.built,
            "swapped": told.swapped,
            "dropped": told.dropped,
            "after": told.after,
            "after_at_todays_setting": told.after_at_todays_setting,
            "recommended": told.after.as_ref().map(|after| json!({ self.part.wanted.method.setting(): after.setting })),
            "setting_applied": told.setting_applied,
            "planners_choice": told.planners_choice,
            "summary": told.summary,
        })
    }
}

fn cost_in_words(found: &Found) -> String {
    found.cost.map_or(String::new(), |cost| format!(", {:.2} ms and {} pages a search", cost.ms, units::count(cost.pages as u64)))
}
