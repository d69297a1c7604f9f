//! Reads and measures the current state, and says what would be done about it.

use std::fmt;

use anyhow::{Context as _, Result};
use serde::Serialize;
use serde_json::json;
use sqlx::PgConnection;

use super::candidates::Spec;
use super::current::{EXACT_SHARE, measure_current};
use super::decide::{self, Action, Current, Decision, Index, Request};
use super::filtered::{self, Verdict};
use super::keys::{ApplySetting, VectorIndex};
use super::kind::Method;
use super::measure::Sample;
use super::memory::{self, Memory};
use super::search;
use super::setting::Others;
use super::state::{self, Found, LeftoverKind, Table};
use super::{read, setting, statements};
use crate::base::fault::{Fault, Kind};
use crate::base::units;
use crate::live::indexes;
use crate::work::RunContext;

pub struct Plan {
    pub parts: Vec<Part>,
    /// pgvector's schema.
    pub extension: String,
    pub is_partitioned: bool,
}

/// One table: the whole one, or a partition.
pub struct Part {
    pub table: Table,
    pub request: Request,
    /// The setting that applications search with.
    pub setting: u32,
    pub current: Current,
    pub decision: Decision,
    /// Memory for the build that is decided; for the rule's number of lists, where the number is still to be found.
    pub memory: Option<Memory>,
    pub sample: Sample,
    /// The scan that applications' searches use today.
    pub planners_choice: Option<String>,
    /// The index that needs the highest value of the shared setting.
    pub others: Others,
    /// Searches with the job's filters, with the present index.
    pub filtered: Vec<Verdict>,
    /// True since pgvector 0.8.
    pub has_iterative_scan: bool,
    /// What applications' statements show.
    pub warnings: Vec<String>,
}

pub async fn make(job: &VectorIndex, run: &RunContext<'_>) -> Result<Plan> {
    let mut connection = indexes::connect(run).await?;
    let extension = state::pgvector(&mut connection).await?;
    let (tables, is_partitioned) = indexes::tables(&mut connection, &job.table).await?;
    run.is_checked_by_name(&mut connection, &job.table).await?;
    let mut parts = Vec::new();
    for oid in tables {
        parts.push(part(&mut connection, job, run, oid, &extension, is_partitioned).await?);
    }
    Ok(Plan { parts, extension, is_partitioned })
}

pub async fn part(
    connection: &mut PgConnection,
    job: &VectorIndex,
    run: &RunContext<'_>,
    oid: i64,
    extension: &str,
    is_partitioned: bool,
) -> Result<Part> {
    let table = read::table(connection, job, oid, extension, is_partitioned).await?;
    refuse(&table)?;
    let role = job.role();
    let setting = match job.setting {
        Some(setting) => setting,
        None => setting::current(connection, table.method, role, extension).await?,
    };
    // The keys of the job are for the method that it asks for.
    let present = table.index.as_ref().and_then(|index| Method::of(&index.method)).filter(|method| *method != table.method);
    let present_setting = match present {
        Some(method) => setting::current(connection, method, role, extension).await?,
        None => setting,
    };
    let this = [table.index.as_ref().map(|index| index.oid), None];
    let (mut others, mut others_of_present) = (Others::default(), Others::default());
    if let Some(place) = &job.apply_setting {
        setting::may_set(connection, place).await?;
        others = setting::of_others(connection, table.method, this).await?;
        if let Some(method) = present {
            others_of_present = setting::of_others(connection, method, this).await?;
        }
    }
    refuse_too_little_memory(job, run, &table)?;
    let phase = run.progress.phase("measure", None);
    phase.say(&format!("{} by searches of the present index", table.sql()));
    let (current, sample) = measure_current(connection, job, run, &table, present_setting)
        .await
        .with_context(|| format!("measuring {}", table.sql()))?;
    phase.done(&units::plural(sample.len(), "query vector"));
    let planners_choice = match sample.vector() {
        Some(vector) => {
            search::as_an_application(connection, table.method, setting).await?;
            search::applications_plan(connection, &table.searched, vector, job.recall.k).await?
        }
        None => None,
    };
    let mut request = Request {
        method: table.method,
        is_given: job.lists.is_some() || job.m.is_some() || job.ef_construction.is_some(),
        min_setting: table.method.min_setting(job.recall.k),
        lists: job.lists,
        m: job.m,
        ef_construction: job.ef_construction,
        target: job.recall.target,
        exact_below: job.exact_below,
        sets_the_setting: job.apply_setting.is_some(),
        others_setting: others.setting,
        others_of_present: others_of_present.setting,
        measure_ms: job.recall.time.0.as_secs_f64() * 1000.0 * EXACT_SHARE,
    };
    let decision = decide::decide(&request, &current);
    if let (Some(taken), Action::Build { .. } | Action::Tune) = (&table.taken, &decision.action) {
        let message = format!(
            "{taken} already exists and is not an index of {} for {}: rename it, or choose another name for the new index with `index = \"NAME\"`",
            table.searched.column,
            table.metric.name()
        );
        return Err(state::refused(message));
    }
    let mut setting = setting;
    if let (Some(method), Action::Nothing | Action::Set { .. }) = (present, &decision.action)
        && table.index.as_ref().is_some_and(|index| index.is_valid)
    {
        // It stays, and the rest is about it.
        request = Request { method, others_setting: request.others_of_present, ..request };
        (setting, others) = (present_setting, others_of_present);
    }
    let spec = match &decision.action {
        Action::Build { spec } => Some(*spec),
        Action::Tune if table.method == Method::Hnsw => Some(decide::hnsw(job.m, job.ef_construction)),
        Action::Tune => Some(Spec::Ivfflat { lists: decide::lists_by_rule(table.vectors()) }),
        _ => None,
    };
    let memory = spec.map(|spec| memory::check(&table, spec, &job.memory(), &run.settings));
    let has_iterative_scan = state::has_iterative_scan(connection).await?;
    let mut filtered = Vec::new();
    if let Some(index) = current.index.as_ref().filter(|index| index.is_valid && sample.is_asked)
        && let Some(method) = index.method
    {
        let phase = run.progress.phase("measure", None);
        phase.say("searches with filters");
        let at = (method, present_setting);
        filtered = filtered::measure(connection, job, &table.searched, &sample, at, has_iterative_scan).await?;
        phase.done(&units::plural(filtered.len(), "filter"));
    }
    let warnings = statements::warnings(connection, job, &table).await?;
    Ok(Part {
        table,
        request,
        setting,
        others,
        current,
        decision,
        memory,
        sample,
        planners_choice,
        filtered,
        has_iterative_scan,
        warnings,
    })
}

/// Refuses a build of the job's own number of lists that would fail, before anything is measured for it.
fn refuse_too_little_memory(job: &VectorIndex, run: &RunContext<'_>, table: &Table) -> Result<()> {
    let Some(lists) = job.lists.filter(|_| table.vectors() >= job.exact_below as f64) else { return Ok(()) };
    let is_there = table.index.as_ref().is_some_and(|index| {
        index.is_valid && index.method == Method::Ivfflat.name() && index.option("lists").unwrap_or(100) == lists
    });
    let memory = memory::check(table, Spec::Ivfflat { lists }, &job.memory(), &run.settings);
    match memory.refusal {
        Some(refusal) if !is_there => Err(state::refused(refusal)),
        _ => Ok(()),
    }
}

impl VectorIndex {
    /// Returns the role whose setting applies.
    pub fn role(&self) -> Option<&str> {
        match &self.apply_setting {
            Some(ApplySetting::Role(role)) => Some(role),
            _ => None,
        }
    }

    pub fn memory(&self) -> memory::BuildSettings {
        memory::BuildSettings {
            maintenance_work_mem: self.maintenance_work_mem.map(|size| size.0),
            parallel_workers: self.parallel_workers,
        }
    }
}

impl Plan {
    /// Returns the reason why nothing that the job allows reaches its target, for each index where that is known before anything is built.
    pub fn why_unreachable(&self) -> Option<String> {
        let given_up = self.parts.iter().filter(|part| part.decision.action == Action::GiveUp);
        let reasons: Vec<String> = given_up.map(|part| part.decision.reasons.join("; ")).collect();
        (!reasons.is_empty()).then(|| reasons.join("; "))
    }
}

pub fn refuse(table: &Table) -> Result<()> {
    let name = table.sql();
    if table.facts.is_temporary {
        return Err(state::refused(format!("{name} is a temporary table")));
    }
    if !table.facts.is_owner {
        let message = format!("only the owner of {name} may change its indexes: GRANT the owner's role TO the role");
        return Err(Fault::new(Kind::Permission, message).into());
    }
    if !table.facts.may_copy {
        let message = "the job copies vectors to a temporary table: GRANT TEMPORARY ON the database TO the role";
        return Err(Fault::new(Kind::Permission, message).into());
    }
    if !table.facts.may_create {
        let schema = crate::pg::identifier(&table.facts.schema);
        let message = format!("an index of {name} is created in its schema: GRANT CREATE ON SCHEMA {schema} TO the role");
        return Err(Fault::new(Kind::Permission, message).into());
    }
    Ok(())
}

impl Part {
    fn lines(&self) -> Vec<String> {
        let table = &self.table;
        let looks = &table.looks;
        let mut lines = Vec::new();
        lines.push(format!(
            "about {}, {}; {} by {}; in a sample of {}: {} NULL, {} zero vectors, {} distinct",
            units::plural(table.facts.rows as i64, "row"),
            units::bytes(table.facts.bytes.max(0) as u64),
            units::plural(table.dimensions, "dimension"),
            table.metric.name(),
            units::count(looks.looked_at as u64),
            looks.nulls,
            looks.without_direction,
            units::count(looks.distinct_values as u64),
        ));
        match (&table.index, &self.current.index) {
            (Some(index), Some(current)) => lines.extend(self.index_lines(index, current)),
            _ => lines.push(format!("no index; an exact search takes {:.1} ms", self.current.exact_ms)),
        }
        if !table.competing_indexes.is_empty() {
            lines.push(format!(
                "other indexes answer the same searches, and the planner may prefer them: {}",
                table.competing_indexes.join(", ")
            ));
        }
        lines.extend(table.others.iter().map(|(name, on)| format!("index {name}, which is {on}, is left alone")));
        for leftover in &table.leftovers {
            let what = match leftover.what {
                LeftoverKind::Broken => "left by an interrupted build: dropped first",
                LeftoverKind::Built => "built by an interrupted run: measured, then swapped in or dropped",
                LeftoverKind::Replaced => "replaced by an interrupted run: dropped first",
            };
            lines.push(format!("index {} ({}) is {what}", leftover.name, units::bytes(leftover.bytes.max(0) as u64)));
        }
        if self.sample.is_asked {
            lines.push(self.sample.source.in_words());
        }
        lines.extend(self.warnings.iter().map(|warning| format!("WARNING: {warning}")));
        lines.push(format!("-> {}", self.in_words()));
        lines.extend(self.decision.reasons.iter().map(|reason| format!("   because {reason}")));
        if let Some(memory) = &self.memory {
            lines.push(format!(
                "   memory: about {} of {} (maintenance_work_mem), {}; index and WAL: about {} each",
                units::bytes(memory.needed_bytes),
                units::bytes(memory.maintenance_work_mem_bytes),
                units::plural(memory.parallel_workers as usize, "parallel worker"),
                units::bytes(table.index_bytes()),
            ));
            lines.extend(memory.notes.iter().chain(&memory.refusal).map(|note| format!("   {note}")));
        }
        if table.is_cast {
            let value = if table.by_halfvec { "halfvec" } else { "a cast of the column" };
            lines.push(format!("   the index is on {value}: the application has to use ORDER BY {}", table.order_by()));
        }
        lines
    }

    fn index_lines(&self, index: &Found, current: &Index) -> Vec<String> {
        let mut parameters = match current.method {
            Some(Method::Ivfflat) => match (current.lists_in_catalog, current.lists_in_fact) {
                (Some(catalog), Some(fact)) if catalog != fact => format!("{fact} lists ({catalog} in the catalog)"),
                (Some(catalog), None) => format!("{catalog} lists in the catalog"),
                (_, fact) => format!("{} lists", fact.unwrap_or_default()),
            },
            _ => {
                let in_catalog = [index.option("m").unwrap_or(16), index.option("ef_construction").unwrap_or(64)];
                let differs = in_catalog != [current.m, current.ef_construction];
                let catalog =
                    if differs { format!(" ({} and {} in the catalog)", in_catalog[0], in_catalog[1]) } else { String::new() };
                format!("m = {}, ef_construction = {}{catalog}", current.m, current.ef_construction)
            }
        };
        parameters += &format!(", {}, {}", index.operator_class, units::bytes(index.bytes.max(0) as u64));
        parameters += &match index.built().and_then(|built| Some((built.built_at?, built.rows))) {
            Some((at, rows)) => format!(", built {} with {}", at.format("%Y-%m-%d"), units::plural(rows, "vector")),
            None => ", of unknown age".to_owned(),
        };
        let mut lines = vec![format!(
            "index {}: {} with {parameters}{}",
            index.name,
            index.method,
            if index.is_valid { "" } else { ", INVALID" }
        )];
        let setting = current.method.map_or("", Method::setting);
        for (what, found) in [("now", current.now.as_ref()), ("least", current.least.as_ref().map(|(_, least)| least))] {
            let Some(found) = found else { continue };
            let cost =
                found.cost.map_or(String::new(), |cost| format!(", {:.2} ms and {:.0} pages a search", cost.ms, cost.pages));
            let from = units::plural(found.queries, "query vector");
            lines.push(format!(
                "  {what}: {setting} = {}: recall {:.3} ± {:.3} (95 %, {from}){cost}",
                found.setting, found.recall, found.margin
            ));
        }
        if let Some(skew) = current.skew {
            lines.push(format!("  lists: a search of one reads up to {skew:.1} times the pages of an average one"));
        }
        match &self.planners_choice {
            Some(choice) if *choice != index.name => {
                lines.push(format!("  the planner uses {choice} instead of this index for ORDER BY {}", self.table.order_by()));
            }
            _ => {}
        }
        lines.push(format!("  an exact search takes {:.1} ms", self.current.exact_ms));
        if self.request.others_setting > 0 {
            lines.push(format!(
                "  other indexes of the database need {} = {}: it will not be set lower ({})",
                self.request.method.setting(),
                self.request.others_setting,
                self.others.whose
            ));
        }
        lines.extend(
            self.filtered
                .iter()
                .flat_map(|verdict| verdict.lines(current.method.unwrap_or(self.request.method)))
                .map(|line| format!("  {line}")),
        );
        lines
    }

    fn in_words(&self) -> String {
        let name = &self.table.index_name;
        let beside =
            if self.table.index.is_some() { " beside the present one, measure it, swap them" } else { ", measure it, keep it" };
        match &self.decision.action {
            Action::Nothing => "nothing to do".to_owned(),
            Action::Set { setting } if self.request.sets_the_setting => {
                format!("set {} = {setting}", self.request.method.setting())
            }
            Action::Set { setting } => {
                format!("advise {} = {setting} (apply_setting would set it)", self.request.method.setting())
            }
            Action::Tune if self.table.method == Method::Hnsw => format!("try graphs on a copy, then build {name}{beside}"),
            Action::Tune => {
                let hnsw = if self.table.operator_class_of_hnsw.is_some() { " and hnsw" } else { "" };
                format!("try numbers of lists{hnsw} on a copy, then build {name}{beside}")
            }
            Action::Build { spec } => format!("build {name} as {spec}{beside}"),
            Action::GiveUp => "nothing that the job allows reaches the target".to_owned(),
        }
    }

    pub fn json(&self) -> serde_json::Value {
        let current = self.current.index.as_ref();
        json!({
            "table": self.table.sql(),
            "index": self.table.index.as_ref().map(|index| &index.name),
            "rows": self.table.facts.rows,
            "dimensions": self.table.dimensions,
            "looks": self.table.looks,
            "lists_in_catalog": current.and_then(|index| index.lists_in_catalog),
            "lists_in_fact": current.and_then(|index| index.lists_in_fact),
            "skew": current.and_then(|index| index.skew),
            "setting": self.setting,
            "now": current.and_then(|index| index.now.clone()),
            "least": current.and_then(|index| index.least.clone()).map(|(reached, found)| json!({ "reached": reached, "found": found })),
            "exact_ms": self.current.exact_ms,
            "planners_choice": self.planners_choice,
            "leftovers": self.table.leftovers,
            "decision": self.decision,
            "memory": self.memory,
            "sample": self.sample.tids,
            "queries": self.sample.source,
            "filters": self.filtered,
            "warnings": self.warnings,
        })
    }
}

impl Serialize for Plan {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        json!({ "tables": self.parts.iter().map(Part::json).collect::<Vec<_>>() }).serialize(serializer)
    }
}

impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        if self.parts.is_empty() {
            writeln!(f, "The table is partitioned and has no partition.")?;
        }
        for part in &self.parts {
            writeln!(f, "{} {}", part.table.sql(), part.table.searched.column)?;
            for line in part.lines() {
                writeln!(f, "  {line}")?;
            }
        }
        if self.is_partitioned {
            writeln!(f, "Partitions are handled one by one; a partition added later gets its index in the next run.")?;
        }
        Ok(())
    }
}
