//! A partitioned table in one job, by `method = "toast"`: each partition is rewritten by itself, closed ones first, and the table's own setting is
//! what new partitions get.

use std::fmt;
use std::time::{Duration, Instant};

use anyhow::Result;
use serde::Serialize;
use serde_json::{Value, json};
use sqlx::PgConnection;

use super::decide::{Target, Verdict};
use super::keys::{Compress, Method, Toast};
use super::plan::{self, Look, Plan};
use super::table::Table;
use super::{find, toast};
use crate::base::fault::{Fault, Kind};
use crate::base::units::{self, Span};
use crate::config::limits::Limits;
use crate::ledger::report::{Failure, Report, Unfinished};
use crate::live::session::{Attempt, Session};
use crate::pg::table::with_schema;
use crate::pg::{self, failure, qualified};
use crate::work::RunContext;

/// All partitions together are looked at as much as this number of tables, at most.
const LOOKS: f64 = 4.0;
/// The facts of the partitions' reports that are added up.
const SUMMED: [&str; 12] = [
    "rows_compressed",
    "bytes_before",
    "bytes_after",
    "raw_bytes",
    "batches",
    "rows_changed_meanwhile",
    "rows_not_smaller",
    "lock_waits",
    "vacuums",
    "elapsed_seconds",
    "table_bytes",
    "rewrite_returns_bytes",
];

/// A partitioned table.
#[derive(Debug)]
pub struct Parent {
    pub oid: i64,
    schema: String,
    name: String,
    /// The partitioned tables of its tree: itself, and those among its partitions.
    nodes: Vec<Node>,
    /// Its partitions with rows, closed ones first.
    leaves: Vec<i64>,
}

/// A partitioned table, whose setting its new partitions get.
#[derive(Debug, sqlx::FromRow)]
struct Node {
    oid: i64,
    schema: String,
    name: String,
    compression: String,
    storage: String,
}

/// The plan for all partitions.
#[derive(Debug, Serialize)]
pub struct Parted {
    pub table: String,
    /// Statements for new partitions, which run first.
    pub settings: Vec<String>,
    pub partitions: Vec<Plan>,
    /// The partitioned tables that the statements change.
    #[serde(skip)]
    nodes: Vec<i64>,
    limits: Limits,
}

/// Finds the job's table if it is partitioned, and the job is for partitions; None otherwise.
pub async fn find(compress: &Compress, connection: &mut PgConnection) -> Result<Option<Parent>> {
    if compress.method == Method::Gzip {
        return Ok(None);
    }
    let found: Option<(i64, String, String)> = sqlx::query_as(
        "SELECT c.oid::bigint, n.nspname::text, c.relname::text FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
         WHERE c.oid = to_regclass($1) AND c.relkind = 'p'",
    )
    .bind(with_schema(&compress.table))
    .fetch_optional(&mut *connection)
    .await
    .map_err(pg::in_its_own_words)?;
    let Some((oid, schema, name)) = found else { return Ok(None) };
    let nodes: Vec<Node> = sqlx::query_as(
        "SELECT c.oid::bigint AS oid, n.nspname::text AS schema, c.relname::text AS name, a.attcompression::text AS compression,
                a.attstorage::text AS storage
         FROM pg_partition_tree($1::bigint::oid::regclass) t JOIN pg_class c ON c.oid = t.relid AND c.relkind = 'p'
         JOIN pg_namespace n ON n.oid = c.relnamespace
         JOIN pg_attribute a ON a.attrelid = c.oid AND a.attname = $2 AND a.attnum > 0 AND NOT a.attisdropped
         ORDER BY t.level, 2, 3",
    )
    .bind(oid)
    .bind(&compress.column)
    .fetch_all(&mut *connection)
    .await?;
    if nodes.is_empty() {
        let message = format!("{} has no column {}", compress.table, pg::identifier(&compress.column));
        return Err(Fault::new(Kind::Configuration, message).into());
    }
    let leaves = leaves(connection, oid).await?;
    Ok(Some(Parent { oid, schema, name, nodes, leaves }))
}

/// Returns the partitions with rows in the order of their upper bounds: those of time that are closed come before the one that is written to, and
/// the default partition comes last.
async fn leaves(connection: &mut PgConnection, oid: i64) -> Result<Vec<i64>> {
    // Bounds are shown in ISO style, in which times sort as texts do.
    super::table::prepare(connection).await?;
    Ok(sqlx::query_scalar(
        "WITH RECURSIVE tree (oid, place) AS (
             SELECT $1::bigint::oid, ARRAY[]::text[] COLLATE \"C\"
             UNION ALL
             SELECT i.inhrelid, t.place || (CASE WHEN b.bound = 'DEFAULT' THEN '3' WHEN b.upper = 'MAXVALUE' THEN '2'
                                                WHEN b.upper ~ '^[0-9]+$' THEN '1' || lpad(b.upper, 40, '0') ELSE '1' || coalesce(b.upper, '') END) COLLATE \"C\"
             FROM tree t JOIN pg_inherits i ON i.inhparent = t.oid JOIN pg_class c ON c.oid = i.inhrelid,
             LATERAL (SELECT pg_get_expr(c.relpartbound, c.oid) AS bound) e,
             LATERAL (SELECT e.bound, substring(e.bound from ' TO \\(''?([^'',)]*)') AS upper) b)
         SELECT t.oid::bigint FROM tree t JOIN pg_class c ON c.oid = t.oid AND c.relkind = 'r'
         ORDER BY t.place, c.relname COLLATE \"C\"",
    )
    .bind(oid)
    .fetch_all(connection)
    .await?)
}

/// Plans the work on all partitions: one form for all of them, the one that saves most.
pub async fn make(compress: &Compress, run: &RunContext<'_>, connection: &mut PgConnection, parent: Parent) -> Result<Parted> {
    run.is_checked(parent.oid)?;
    let mut tables = Vec::new();
    for leaf in &parent.leaves {
        tables.push(find::partition(compress, connection, *leaf).await?.with_code_of(run));
    }
    let share = (LOOKS / tables.len().max(1) as f64).min(1.0);
    let mut best: Option<(Target, Vec<Look>)> = None;
    let saves = |looks: &[Look]| looks.iter().map(Look::saves).sum::<u64>();
    for target in plan::targets(compress, parent.form()) {
        let mut looks = Vec::new();
        for table in &tables {
            looks.push(Look::at(connection, compress, run, table, target, share).await?);
        }
        if best.as_ref().is_none_or(|(_, other)| saves(&looks) > saves(other)) {
            best = Some((target, looks));
        }
    }
    let (target, looks) = best.unwrap_or((Target::Toast(Toast::Pglz), Vec::new()));
    let is_wanted = looks.iter().any(|look| look.verdict.saved_share().is_some());
    let mut partitions = Vec::new();
    for (table, look) in tables.into_iter().zip(looks) {
        partitions.push(plan::of(connection, compress, run, table, look).await?);
    }
    let settings = match target {
        Target::Toast(form) if is_wanted => parent.settings(&compress.column, form),
        _ => Vec::new(),
    };
    Ok(Parted {
        table: qualified(&parent.schema, &parent.name),
        settings,
        partitions,
        nodes: parent.nodes.iter().map(|node| node.oid).collect(),
        limits: run.job.limits.clone(),
    })
}

impl Parent {
    /// Returns the form that new partitions get, which an earlier run or a person has chosen; None without one.
    fn form(&self) -> Option<Toast> {
        self.nodes.first().and_then(|node| toast::form_of(&node.compression))
    }

    fn settings(&self, column: &str, form: Toast) -> Vec<String> {
        let of = |node: &Node| {
            toast::settings_of(&qualified(&node.schema, &node.name), column, (&node.compression, &node.storage), form)
        };
        self.nodes.iter().flat_map(of).collect()
    }

    /// Returns the partitions as tables.
    pub async fn tables(&self, compress: &Compress, connection: &mut PgConnection) -> Result<Vec<Table>> {
        let mut tables = Vec::new();
        for leaf in &self.leaves {
            tables.push(find::partition(compress, connection, *leaf).await?);
        }
        Ok(tables)
    }
}

impl Parted {
    /// Returns why this run may not act, and what to do; None if it may.
    pub fn not_ready(&self, compress: &Compress, job: &str) -> Option<String> {
        let of = |plan: &Plan| Some(format!("{}: {}", plan.table.sql(), plan.not_ready(compress, job)?));
        let reasons: Vec<String> = self.partitions.iter().filter_map(of).collect();
        (!reasons.is_empty()).then(|| reasons.join("; "))
    }
}

/// Works on one partition after the other. One that fails, or is locked, does not keep the others from being done.
pub async fn compress(compress: &Compress, run: &RunContext<'_>, parted: Parted) -> Result<Report> {
    set(run, &parted).await?;
    let mut whole = Whole::default();
    let mut failures: Vec<Failure> = Vec::new();
    let all = parted.partitions.len();
    let started = Instant::now();
    for plan in parted.partitions {
        let table = plan.table.sql();
        // The time of the run is that of all partitions together.
        let run_for = run.job.limits.run_for.map(|all| Span(all.0.saturating_sub(started.elapsed())));
        if let (Some(Span(Duration::ZERO)), Some(all)) = (run_for, run.job.limits.run_for) {
            whole.report.fact("stopped", format!("run_for ({all}) is over"));
            break;
        }
        let limits = Limits { run_for, ..run.job.limits.clone() };
        match compress.one_table(run, plan, &limits).await {
            Ok(report) => {
                let is_over = report.facts.contains_key("stopped");
                whole.add(&table, report);
                if is_over {
                    break;
                }
            }
            Err(error) => {
                let kind = failure::kind_of(&error);
                if matches!(kind, Some(Kind::Cancelled | Kind::TimedOut | Kind::Unreachable)) {
                    return Err(error);
                }
                failures.push((kind, format!("{table}: {error:#}")));
                if kind == Some(Kind::Deferred) {
                    break;
                }
            }
        }
    }
    Unfinished::of(&failures, whole.report(&parted.table, all))
}

/// Sets what new partitions get.
async fn set(run: &RunContext<'_>, parted: &Parted) -> Result<()> {
    let limits = &run.job.limits;
    for statement in &parted.settings {
        let mut session = run.or_cancelled(Session::open(run, limits.lock_timeout.0, limits.max_wait.0)).await?;
        let done = run.or_cancelled(session.transaction(std::slice::from_ref(statement), &parted.nodes)).await;
        run.stop_if_cancelled(session.pid).await;
        if let Attempt::Locked(who) = done? {
            return Err(Fault::new(Kind::Busy, format!("{} is locked: {who}", parted.table)).into());
        }
    }
    Ok(())
}

/// The reports of the partitions, added up.
#[derive(Default)]
struct Whole {
    report: Report,
    done: Vec<Value>,
    rows: u64,
}

impl Whole {
    fn add(&mut self, table: &str, report: Report) {
        for name in SUMMED {
            let Some(more) = report.facts.get(name) else { continue };
            let sum = match (self.report.facts.get(name), more.as_u64()) {
                (None, _) => more.clone(),
                (Some(before), Some(more)) if before.is_u64() => json!(before.as_u64().unwrap_or_default() + more),
                (Some(before), _) => json!(before.as_f64().unwrap_or_default() + more.as_f64().unwrap_or_default()),
            };
            self.report.facts.insert(name.to_owned(), sum);
        }
        let rows = report.facts.get("rows_compressed").and_then(Value::as_u64).unwrap_or_default();
        if rows > 0 {
            self.rows += rows;
            self.done.push(json!({ "table": table, "rows_compressed": rows, "bytes_before": report.facts.get("bytes_before"),
                                   "bytes_after": report.facts.get("bytes_after") }));
        }
        if let Some(stopped) = report.facts.get("stopped") {
            self.report.fact("stopped", stopped.clone());
        }
        self.report.warnings.extend(report.warnings.into_iter().map(|warning| format!("{table}: {warning}")));
    }

    fn report(mut self, table: &str, all: usize) -> Report {
        let bytes = |name: &str| units::bytes(self.report.facts.get(name).and_then(Value::as_u64).unwrap_or_default());
        let mut summary = match self.rows {
            0 => format!("nothing compressed in the {} of {table}", units::plural(all, "partition")),
            rows => format!(
                "{} in {} of the {} of {table} rewritten: {} stored became {}",
                units::plural(rows, "value"),
                units::count(self.done.len() as u64),
                units::plural(all, "partition"),
                bytes("bytes_before"),
                bytes("bytes_after")
            ),
        };
        if let Some(reason) = self.report.facts.get("stopped").and_then(Value::as_str) {
            summary += &format!("; stopped for now: {reason}");
        }
        self.report.summary = summary;
        self.report.fact("partitions", self.done);
        self.report
    }
}

impl fmt::Display for Parted {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        writeln!(f, "Partitions of {}, closed ones first:", self.table)?;
        for plan in &self.partitions {
            let candidates = &plan.candidates;
            writeln!(
                f,
                "  {}: {} above larger_than, {} to compress; {}",
                plan.table.sql(),
                units::count(candidates.above),
                units::count(candidates.rows),
                plan.verdict
            )?;
            for refusal in &plan.dependants.refusals {
                writeln!(f, "    refused: {refusal}")?;
            }
            let is_chosen = matches!(plan.verdict, Verdict::Toast { .. });
            for note in plan.settings.iter().map(|statement| format!("first: {statement}")).filter(|_| is_chosen) {
                writeln!(f, "    {note}")?;
            }
            plan.dependants.notes.iter().try_for_each(|note| writeln!(f, "    {note}"))?;
        }
        for statement in &self.settings {
            writeln!(f, "  for new partitions: {statement}")?;
        }
        let chosen = self.partitions.iter().filter(|plan| plan.verdict.saved_share().is_some());
        let saved = chosen.clone().map(|plan| plan.forecast.saved_bytes).sum();
        let disk = chosen.map(|plan| plan.forecast.disk_bytes).max().unwrap_or_default();
        writeln!(
            f,
            "  forecast: {} less stored in all; until VACUUM of each {} more on disk at most",
            units::bytes(saved),
            units::bytes(disk)
        )?;
        writeln!(f, "  {}", self.limits)
    }
}
