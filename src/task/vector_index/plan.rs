//! Reads and measures the current state, and decides what would be done about it.

use anyhow::{Context as _, Result};
use sqlx::PgConnection;

use super::candidates::Spec;
use super::current::{EXACT_SHARE, measure_current};
use super::decide::{self, Action, Current, Decision, Request};
use super::filtered;
use super::function::{CANDIDATES, Function};
use super::interval;
use super::keys::{ApplySetting, VectorIndex};
use super::kind::Method;
use super::measure::Sample;
use super::memory::{self, Memory};
use super::search;
use super::setting::Others;
use super::state::{self, Table};
use super::statements::Uses;
use super::verdict::Verdict;
use super::{left, read, setting, statements};
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
    /// The rows that they ask for.
    pub k: u32,
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
    /// How often the index was used before this run.
    pub uses: Option<Uses>,
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
    let Settings { mut setting, present, present_setting, mut others, others_of_present } =
        settings(connection, job, &table, extension).await?;
    refuse_too_little_memory(job, run, &table)?;
    // Before searches of ours count as uses of the index.
    let (mut warnings, uses) = statements::warnings(connection, job, run, &table).await?;
    let phase = run.progress.phase("measure", None);
    phase.say(&format!("{} by searches of the present index", table.sql()));
    let (current, sample) = measure_current(connection, job, run, &table, present_setting)
        .await
        .with_context(|| format!("measuring {}", table.sql()))?;
    phase.done(&units::plural(sample.len(), "query vector"));
    warnings.extend(too_few(&sample, job.recall.target));
    warnings.extend(endless(&sample));
    let planners_choice = match sample.vector() {
        Some(vector) => {
            search::as_an_application(connection, table.method, setting).await?;
            let rows = table.asked_of_the_index(job.recall.k, setting);
            search::applications_plan(connection, &table.searched, vector, rows).await?
        }
        None => None,
    };
    let mut request = Request {
        method: table.method,
        is_given: job.lists.is_some() || job.m.is_some() || job.ef_construction.is_some(),
        min_setting: table.method.min_setting(job.recall.k).max(if table.by_bits { CANDIDATES } else { 0 }),
        lists: job.lists,
        m: job.m,
        ef_construction: job.ef_construction,
        target: job.recall.target,
        exact_below: job.exact_below,
        sets_the_setting: job.apply_setting.is_some() || table.by_bits,
        others_setting: others.least(),
        others_of_present: others_of_present.least(),
        measure_ms: job.recall.time.0.as_secs_f64() * 1000.0 * EXACT_SHARE,
    };
    let mut decision = decide::decide(&request, &current);
    refuse_a_taken_name(&table, &decision)?;
    if let (Some(method), Action::Nothing | Action::Set { .. }) = (present, &decision.action)
        && table.index.as_ref().is_some_and(|index| index.is_valid)
    {
        // It stays, and the rest is about it.
        request = Request { method, others_setting: request.others_of_present, ..request };
        (setting, others) = (present_setting, others_of_present);
    }
    if let Action::Nothing | Action::Set { .. } = &decision.action
        && let Some((_, least)) = current.index.as_ref().and_then(|index| index.least.as_ref())
        && least.setting < others.least()
    {
        decision.reasons.extend(others.in_words(request.method.setting()));
    }
    if let Action::Set { setting } = decision.action
        && let Some(reason) = why_not_set(connection, job, &table, (request.method, setting), extension).await?
    {
        decision.action = Action::GiveUp;
        decision.reasons.push(reason);
    }
    let spec = match &decision.action {
        Action::Build { spec } => Some(*spec),
        Action::Tune if table.method == Method::Hnsw => Some(decide::hnsw(job.m, job.ef_construction)),
        Action::Tune => Some(Spec::Ivfflat { lists: decide::lists_by_rule(table.vectors()) }),
        _ => None,
    };
    let memory = spec.map(|spec| memory::check(&table, spec, &job.memory(), &run.settings));
    let has_iterative_scan = state::has_iterative_scan(connection).await?;
    let at = (current.index.as_ref().and_then(|index| index.method), present_setting);
    let filtered = filtered_today(connection, job, run, (&table, &sample), at, has_iterative_scan).await?;
    Ok(Part {
        table,
        request,
        setting,
        k: job.recall.k,
        others,
        current,
        decision,
        memory,
        sample,
        planners_choice,
        filtered,
        has_iterative_scan,
        warnings,
        uses,
    })
}

/// The settings that applications search with.
struct Settings {
    /// Of the method that the job asks for.
    setting: u32,
    /// The method of the present index, where it is another one.
    present: Option<Method>,
    present_setting: u32,
    others: Others,
    others_of_present: Others,
}

async fn settings(connection: &mut PgConnection, job: &VectorIndex, table: &Table, extension: &str) -> Result<Settings> {
    let role = job.role();
    let setting = match job.setting {
        Some(setting) => setting,
        None if table.by_bits => {
            setting::load(connection, extension).await?;
            Function::of(table).candidates(connection, table).await?.unwrap_or(CANDIDATES)
        }
        None => setting::current(connection, table.method, role, extension).await?,
    };
    // The keys of the job are for the method that it asks for.
    let present = table.index.as_ref().and_then(|index| Method::of(&index.method)).filter(|method| *method != table.method);
    let present_setting = match present {
        Some(method) => setting::current(connection, method, role, extension).await?,
        None => setting,
    };
    setting::load(connection, extension).await?;
    setting::as_applications(connection, role).await?;
    let this = [table.index.as_ref().map(|index| index.oid), None];
    let (mut others, mut others_of_present) = (Others::default(), Others::default());
    if let Some(place) = &job.apply_setting {
        setting::may_set(connection, place).await?;
        let oid = table.facts.oid;
        others = setting::of_others(connection, (table.method, role), oid, this, extension).await?;
        if let Some(method) = present {
            others_of_present = setting::of_others(connection, (method, role), oid, this, extension).await?;
        }
    }
    Ok(Settings { setting, present, present_setting, others, others_of_present })
}

/// Says why a higher value of the setting is not set where the job says, if others would lose by it.
async fn why_not_set(
    connection: &mut PgConnection,
    job: &VectorIndex,
    table: &Table,
    (method, setting): (Method, u32),
    extension: &str,
) -> Result<Option<String>> {
    if job.apply_setting.is_none() || table.by_bits {
        return Ok(None);
    }
    let today = setting::current(connection, method, job.role(), extension).await?;
    let this = [table.index.as_ref().map(|index| index.oid), None];
    let left = left::find(connection, method, (today, setting), job.recall.k, table.facts.oid, this).await?;
    Ok((!left.is_empty()).then(|| left::in_words(&left, method, setting)))
}

/// Measures searches with the job's filters, with the present index.
async fn filtered_today(
    connection: &mut PgConnection,
    job: &VectorIndex,
    run: &RunContext<'_>,
    (table, sample): (&Table, &Sample),
    (method, setting): (Option<Method>, u32),
    has_iterative_scan: bool,
) -> Result<Vec<Verdict>> {
    let is_there = table.index.as_ref().is_some_and(|index| index.is_valid);
    let Some(method) = method.filter(|_| is_there && sample.is_asked && !job.filters.all.is_empty()) else {
        return Ok(Vec::new());
    };
    let phase = run.progress.phase("measure", None);
    phase.say("searches with filters");
    let filtered = filtered::measure(connection, job, &table.searched, sample, (method, setting), has_iterative_scan).await?;
    phase.done(&units::plural(filtered.len(), "filter"));
    Ok(filtered)
}

/// Says that so few queries cannot show the target, if that is so: then all neighbours have to be found.
fn too_few(sample: &Sample, target: f64) -> Option<String> {
    let most = interval::most(sample.len());
    (sample.is_asked && most < target).then(|| {
        format!(
            "{} can show a recall of {most:.3} at most, by the lower end of the 95 % interval, and {target} takes {} of them (`queries` and `time` of `recall`)",
            units::plural(sample.len(), "query"),
            units::count(interval::needed(target))
        )
    })
}

/// Says how many queries tell nothing apart, if there are any.
fn endless(sample: &Sample) -> Option<String> {
    (sample.is_asked && sample.endless > 0).then(|| {
        format!(
            "{} left out: the distances to their neighbours are infinite or no numbers, because the values are too large",
            match sample.endless {
                1 => "1 query was".to_owned(),
                many => format!("{} queries were", units::count(many as u64)),
            }
        )
    })
}

fn refuse_a_taken_name(table: &Table, decision: &Decision) -> Result<()> {
    let (Some(taken), Action::Build { .. } | Action::Tune) = (&table.taken, &decision.action) else { return Ok(()) };
    Err(state::refused(format!(
        "{taken} already exists and is not an index of {} for {}: rename it, or choose another name for the new index with `index = \"NAME\"`",
        table.searched.column,
        table.metric.name()
    )))
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
