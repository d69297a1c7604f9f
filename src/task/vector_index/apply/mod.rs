//! Applies the plan: leftovers of interrupted runs are dropped, the new index is built beside the old one, measured, and swapped in or
//! dropped.

mod build;
mod filters;
mod function;
mod measured;
mod swap;
mod wait;

use std::time::Duration;

use anyhow::Result;
use serde_json::json;

use super::built::Declined;
use super::candidates::{Spec, Tuning};
use super::curve::{Curve, Drawn};
use super::decide::{self, Action, Decision};
use super::found::Found;
use super::function::Installed;
use super::keys::VectorIndex;
use super::kind::Method;
use super::pairs::Pairs;
use super::plan::{self, Part, Plan};
use super::race::Tuner;
use super::setting;
use super::state::LeftoverKind;
use super::statements::{self, Uses};
use super::verdict::Verdict;
use crate::base::fault::Kind;
use crate::config::limits::Limits;
use crate::ledger::report::{Failure, Report, Unfinished};
use crate::live::concurrently::{self, Ended};
use crate::live::governor::{self, Go, Governor};
use crate::live::indexes;
use crate::pg::{self, failure, qualified};
use crate::work::RunContext;

/// The server's statistics of a session that has ended.
const STATISTICS_COME_LATE: Duration = Duration::from_millis(300);

pub async fn apply(job: &VectorIndex, run: &RunContext<'_>, plan: Plan) -> Result<Report> {
    let limits = &run.job.limits;
    let mut governor =
        run.or_cancelled(Governor::start(run, limits, plan.parts.first().map(|part| part.table.facts.oid))).await?;
    let mut report = Report::default();
    let (mut tables, mut summaries, mut failures) = (Vec::new(), Vec::new(), Vec::new());
    for part in plan.parts {
        let name = part.table.sql();
        if let Go::Stop(reason) = run.or_cancelled(governor.go()).await? {
            failures.push((Some(Kind::Deferred), format!("{name}: not started: {reason}")));
            break;
        }
        let is_partition = plan.is_partitioned;
        let mut worker = Worker {
            job,
            run,
            limits,
            governor: &mut governor,
            extension: &plan.extension,
            is_partition,
            part,
            found: None,
            new: None,
            report_values: ReportValues::default(),
        };
        let failure = match worker.work_with_filters().await {
            Ok(failure) => failure,
            Err(error) if failure::kind_of(&error) == Some(Kind::Cancelled) => return Err(error),
            // An error here does not affect the other partitions, and the report keeps what was done.
            Err(error) => {
                let error = governor::with_lock_holders(run, &name, error).await;
                Some((failure::kind_of(&error), failure::in_a_line(&error)))
            }
        };
        match worker.note_uses().await {
            Err(error) if failure::kind_of(&error) == Some(Kind::Cancelled) => return Err(error),
            Err(error) => tracing::warn!("how often {name} is searched was not noted: {}", failure::in_a_line(&error)),
            Ok(()) => {}
        }
        let sample = &worker.part.sample;
        let mut measured = if sample.is_asked { format!("; {}", sample.source.in_words()) } else { String::new() };
        if let Some(predicate) = &worker.part.table.searched.predicate {
            measured += &format!("; {} holds only the rows WHERE {predicate}", worker.part.table.index_name);
        }
        if let Some((kind, message)) = failure {
            failures.push((kind, format!("{name}: {message}{measured}")));
        } else {
            summaries.push(format!("{name}: {}{measured}", worker.report_values.summary));
        }
        report.warnings.append(&mut worker.part.warnings);
        report.warnings.append(&mut worker.report_values.warnings);
        tables.push(worker.json());
    }
    report.fact("tables", tables);
    governor.report(&mut report);
    report.summary = summaries.iter().chain(failures.iter().map(|(_, message)| message)).cloned().collect::<Vec<_>>().join("; ");
    Unfinished::of(&failures, report)
}

struct Worker<'a> {
    job: &'a VectorIndex,
    run: &'a RunContext<'a>,
    limits: &'a Limits,
    governor: &'a mut Governor,
    extension: &'a str,
    is_partition: bool,
    part: Part,
    /// The index that an interrupted run built, and this run continues with.
    found: Option<Spec>,
    /// The oid of the measured index: no other index takes the name.
    new: Option<i64>,
    report_values: ReportValues,
}

/// The values for the report.
#[derive(Default)]
struct ReportValues {
    summary: String,
    warnings: Vec<String>,
    tuning: Option<Tuning>,
    decision: Option<Decision>,
    built: Option<Spec>,
    /// A build that was no better than what is there.
    declined: Option<Declined>,
    dropped: Vec<String>,
    swapped: bool,
    is_proved_on_a_copy: bool,
    after: Option<Found>,
    after_at_todays_setting: Option<Found>,
    /// Of the new index.
    curve: Curve,
    /// Searches by the new index and by what was there, in turns.
    pairs: Option<Pairs>,
    setting_applied: Option<String>,
    /// Why the setting stays as it is, where others would lose by a higher one.
    not_set: Option<String>,
    planners_choice: Option<String>,
    filtered: Vec<Verdict>,
    way_applied: Option<String>,
    function: Option<Installed>,
}

/// The leftovers of an interrupted run, once they were cleared.
enum Leftovers {
    Dropped,
    /// One of them is a finished index, which this run measures.
    Built,
    /// One of them could not be dropped.
    Blocked(Failure),
}

impl Worker<'_> {
    async fn work(&mut self) -> Result<Option<Failure>> {
        // Two jobs may be about one index. The lock ends with its connection.
        let mut lock = self.run.or_cancelled(self.run.settings.connect()).await?;
        let name = format!("pgtend vector_index {}/{}", self.part.table.facts.oid, self.part.table.index_name);
        if !self.run.or_cancelled(pg::try_lock(&mut lock, &name)).await? {
            let who =
                pg::lock_holder(&mut lock, &name).await?.map_or_else(|| "another run".to_owned(), |holder| holder.to_string());
            return Ok(Some((Some(Kind::Deferred), format!("{who} is working on this index"))));
        }
        // An invalid index may still be building: then it is left alone.
        let is_invalid = self.part.table.index.as_ref().is_some_and(|index| !index.is_valid);
        if (is_invalid || !self.part.table.leftovers.is_empty())
            && let Some(who) = self.run.or_cancelled(concurrently::builder(&mut lock, self.part.table.facts.oid)).await?
        {
            let message = format!("{who} is building an index or vacuuming on the table: nothing was changed");
            return Ok(Some((Some(Kind::Deferred), message)));
        }
        let is_built = match self.clear().await? {
            Leftovers::Dropped => false,
            Leftovers::Built => true,
            Leftovers::Blocked(failure) => return Ok(Some(failure)),
        };
        let mut decision = self.part.decision.clone();
        if decision.action == Action::Tune && !is_built {
            let lists = self.lists_to_begin_with();
            let tuner = Tuner { lists, ..Tuner::of(self.run, self.job, &self.part, self.extension) };
            let tuning = tuner.tune(self.governor).await?;
            decision = decide::after_tuning(&self.part.request, &self.part.current, decision, &tuning);
            self.report_values.tuning = Some(tuning);
            if let Action::Build { spec: Spec::Hnsw { .. } } = decision.action {
                self.change_to_hnsw().await?;
            }
            if !matches!(decision.action, Action::Build { .. }) {
                self.keep_present().await?;
            }
        }
        self.report_values.decision = Some(decision.clone());
        let reasons = decision.reasons.join("; ");
        match decision.action {
            Action::Nothing => {
                self.report_values.summary = format!("nothing to do: {reasons}");
                self.note().await?;
                Ok(None)
            }
            Action::Set { .. } => {
                self.note().await?;
                self.set(&reasons).await
            }
            Action::GiveUp => Ok(Some((None, reasons))),
            Action::Tune | Action::Build { .. } => {
                let spec = match decision.action {
                    Action::Build { spec } => Some(spec),
                    _ => None,
                };
                let built = self.build(spec, is_built).await;
                if let Err(error) = &built
                    && failure::kind_of(error) == Some(Kind::Cancelled)
                {
                    self.clean_up().await;
                }
                built
            }
        }
    }

    /// Drops the leftovers of an interrupted run, but for a finished index that this run can measure.
    async fn clear(&mut self) -> Result<Leftovers> {
        let is_attached = self.part.table.index.as_ref().is_some_and(|index| index.is_attached);
        let is_wanted = matches!(self.part.decision.action, Action::Tune | Action::Build { .. }) && !is_attached;
        let mut is_built = false;
        for leftover in self.part.table.leftovers.clone() {
            if leftover.what == LeftoverKind::Built
                && is_wanted
                && let Some(spec) = self.fits(&leftover.name).await?
            {
                self.found = Some(spec);
                is_built = true;
                continue;
            }
            if let Some(who) = self.drop_index(&leftover.schema, &leftover.name).await? {
                let message = format!("cannot drop {}, which an interrupted run left: {who}", leftover.name);
                return Ok(Leftovers::Blocked((Some(Kind::Deferred), message)));
            }
        }
        if !is_built
            && !self.report_values.dropped.is_empty()
            && self.part.current.index.as_ref().is_some_and(|index| index.unmeasured.is_some())
        {
            // The leftover may have disturbed the measurement.
            let mut connection = self.run.or_cancelled(indexes::connect(self.run)).await?;
            let oid = self.part.table.facts.oid;
            let part = plan::part(&mut connection, self.job, self.run, oid, self.extension, self.is_partition);
            self.part = self.run.or_cancelled(part).await?;
        }
        Ok(if is_built { Leftovers::Built } else { Leftovers::Dropped })
    }

    /// Switches to hnsw, which was compared with ivfflat and is faster: the rest of the run is about it.
    async fn change_to_hnsw(&mut self) -> Result<()> {
        let table = &mut self.part.table;
        let Some(class) = table.operator_class_of_hnsw.take() else { return Ok(()) };
        (table.operator_class, table.method, self.part.request.method) = (class, Method::Hnsw, Method::Hnsw);
        let mut connection = self.run.or_cancelled(indexes::connect(self.run)).await?;
        let role = self.job.role();
        self.part.setting = self.run.or_cancelled(setting::current(&mut connection, Method::Hnsw, role, self.extension)).await?;
        let this = self.part.table.index.as_ref().map(|index| index.oid);
        if self.job.apply_setting.is_some() {
            let oid = self.part.table.facts.oid;
            let others = setting::of_others(&mut connection, (Method::Hnsw, role), oid, [this, None], self.extension);
            let others = self.run.or_cancelled(others).await?;
            self.part.request.others_setting = others.least();
            self.part.others = others;
        }
        Ok(())
    }

    /// Keeps the present index, whose method may be another one than the job asks for: the rest of the run is about it.
    async fn keep_present(&mut self) -> Result<()> {
        let Some(index) = self.part.current.index.as_ref().filter(|index| index.is_valid) else { return Ok(()) };
        let Some(method) = index.method.filter(|method| *method != self.part.request.method) else { return Ok(()) };
        self.part.request = decide::of_present(&self.part.request, index);
        let mut connection = self.run.or_cancelled(indexes::connect(self.run)).await?;
        let current = setting::current(&mut connection, method, self.job.role(), self.extension);
        self.part.setting = self.run.or_cancelled(current).await?;
        Ok(())
    }

    fn lists_to_begin_with(&self) -> Option<u32> {
        self.part.current.index.as_ref().filter(|index| index.is_valid).and_then(|index| index.lists_in_fact)
    }

    /// Returns the index that an interrupted run built, if this job would build the same.
    async fn fits(&self, name: &str) -> Result<Option<Spec>> {
        let mut connection = self.run.or_cancelled(indexes::connect(self.run)).await?;
        let found: Option<(String, String, Vec<String>)> = sqlx::query_as(
            "SELECT am.amname::text, o.opcname::text, coalesce(x.reloptions, '{}') FROM pg_index i JOIN pg_class x ON x.oid = i.indexrelid
             JOIN pg_am am ON am.oid = x.relam JOIN pg_opclass o ON o.oid = i.indclass[0]
             WHERE i.indrelid = $1::bigint::oid AND x.relname = $2 AND i.indisvalid",
        )
        .bind(self.part.table.facts.oid)
        .bind(name)
        .fetch_optional(&mut connection)
        .await?;
        let Some((method, class, options)) = found else { return Ok(None) };
        let option = |name: &str| {
            options.iter().filter_map(|option| option.split_once('=')).find(|(key, _)| *key == name)?.1.parse::<u32>().ok()
        };
        let spec = match Method::of(&method) {
            Some(Method::Ivfflat) => Spec::Ivfflat { lists: option("lists").unwrap_or(100) },
            Some(Method::Hnsw) => {
                Spec::Hnsw { m: option("m").unwrap_or(16), ef_construction: option("ef_construction").unwrap_or(64) }
            }
            None => return Ok(None),
        };
        let as_decided = match self.part.decision.action {
            Action::Build { spec: decided } => spec == decided,
            _ => true,
        };
        Ok((spec.method() == self.part.request.method && class == self.part.table.operator_class && as_decided).then_some(spec))
    }

    /// Drops the index. Returns the sessions that blocked it; None when it was dropped.
    async fn drop_index(&mut self, schema: &str, name: &str) -> Result<Option<String>> {
        let phase = self.run.progress.phase("drop", None);
        let statement = format!("DROP INDEX CONCURRENTLY IF EXISTS {}", qualified(schema, name));
        // DROP INDEX leaves nothing but the index itself.
        let leaves = concurrently::InvalidIndexes { table: self.part.table.facts.oid, is_ours: &|_| false };
        let work = concurrently::Work { statement, settings: Vec::new(), phase: &phase, expected_bytes: 0, leaves };
        match concurrently::run(self.run, self.limits, work).await? {
            Ended::Done => {
                phase.done(name);
                self.report_values.dropped.push(name.to_owned());
                Ok(None)
            }
            Ended::Blocked(who) => Ok(Some(who)),
        }
    }

    /// Notes how often the index is used, behind the searches of this run: the next one sees whether others have used it.
    async fn note_uses(&mut self) -> Result<()> {
        let Some(uses) = &mut self.part.uses else { return Ok(()) };
        let mut connection = self.run.or_cancelled(indexes::connect(self.run)).await?;
        // A session that has ended tells its scans within moments.
        let scans = async {
            tokio::time::sleep(STATISTICS_COME_LATE).await;
            let index = self.new.filter(|_| self.report_values.swapped).unwrap_or(uses.index);
            Ok((index, statements::scans(&mut connection, index).await?))
        };
        let (index, scans) = self.run.or_cancelled(scans).await?;
        *uses = Uses { index, scans: scans.unwrap_or_default(), calls: uses.calls };
        Ok(())
    }

    /// Returns recall against speed of the index that was there and of the new one, where they were measured.
    fn curves(&self) -> Vec<Drawn> {
        let before = self.part.current.index.as_ref().and_then(|index| Some(Drawn::of("before", index.method?, &index.curve)));
        let after = Drawn::of("after", self.part.request.method, &self.report_values.curve);
        before.into_iter().chain([after]).filter(|drawn| !drawn.points.is_empty()).collect()
    }

    fn json(&self) -> serde_json::Value {
        let report_values = &self.report_values;
        let current = self.part.current.index.as_ref();
        json!({
            "table": self.part.table.sql(),
            "index": self.part.table.index_name,
            "decision": report_values.decision,
            "before": current.and_then(|index| index.now.clone()),
            "tuning": report_values.tuning,
            "built": report_values.built,
            "swapped": report_values.swapped,
            "dropped": report_values.dropped,
            "after": report_values.after,
            "after_at_todays_setting": report_values.after_at_todays_setting,
            "recommended": report_values.after.as_ref().map(|after| json!({ self.part.request.method.setting(): after.setting })),
            "curves": self.curves(),
            "in_turns": report_values.pairs,
            "setting_applied": report_values.setting_applied,
            "planners_choice": report_values.planners_choice,
            "declined": report_values.declined,
            "queries": self.part.sample.source,
            "filters": report_values.filtered,
            "predicate": self.part.table.searched.predicate,
            "iterative_scan_applied": report_values.way_applied,
            "function": report_values.function,
            "uses": self.part.uses,
            "summary": report_values.summary,
        })
    }
}
