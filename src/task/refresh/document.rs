//! The report of a run as one HTML document, for auditors: what was restored, when, by whom, how long it took, and what was asked of it.

use maud::{Markup, html};
use serde_json::{Map, Value};

use crate::base::{html_page, units};
use crate::ledger::Row;
use crate::ledger::report::Outcome;

/// The name of the task in the ledger.
const TASK: &str = "refresh";

/// None for a run of another task.
pub fn render(row: &Row) -> Option<String> {
    if row.task != TASK {
        return None;
    }
    let none = Map::new();
    let facts = row.report.as_ref().map_or(&none, |report| &report.facts);
    let heading = match facts.get("swapped") {
        Some(Value::Bool(true)) => format!("Refresh of {}", row.database),
        _ => "Drill of a restore".to_owned(),
    };
    let body = html! {
        header { h1 { (heading) } p { (outcome(row)) } }
        main {
            (section("The run", &the_run(row, facts)))
            (section("The set", &the_set(facts)))
            (section("What was measured", &measured(facts)))
            (answers("What was asked in the copy", "query", facts.get("expectations")))
            (answers("What was run in the copy", "statement", facts.get("after")))
            (notes(row))
        }
        footer { "Run " (row.id) " of pgtend " (row.version) ", as the ledger has it. Values in quotes are not shown." }
    };
    Some(html_page::render(&format!("{heading}, run {}", row.id), html_page::DOCUMENT_STYLE, &html_page::nothing(), &body))
}

fn outcome(row: &Row) -> String {
    let outcome = row.outcome.0.map_or("running".to_owned(), Outcome::in_words);
    match &row.error {
        Some(error) => format!("{outcome}: {error}"),
        None => outcome,
    }
}

type Lines = Vec<(&'static str, Option<String>)>;

fn the_run(row: &Row, facts: &Map<String, Value>) -> Lines {
    let at = |at: chrono::DateTime<chrono::Utc>| at.format("%Y-%m-%d %H:%M:%S UTC").to_string();
    vec![
        ("Job", Some(row.job.clone())),
        ("Into", text(facts, "target")),
        ("PostgreSQL", text(facts, "server_version")),
        ("From", text(facts, "source")),
        ("Began", Some(at(row.started_at))),
        ("Ended", row.finished_at.map(at)),
        ("Started by", Some(row.trigger.clone())),
        ("On", Some(format!("{}, by pgtend {}", row.host, row.version))),
    ]
}

fn the_set(facts: &Map<String, Value>) -> Lines {
    vec![
        ("Set", text(facts, "set")),
        ("Taken at", text(facts, "set_taken_at")),
        ("Age", seconds(facts, "set_age_seconds")),
        ("Proved before", text(facts, "set_state")),
        ("Dump", number(facts, "set_dump_bytes").map(|bytes| units::bytes(bytes as u64))),
        ("SHA-256", text(facts, "set_sha256")),
        ("Made by", text(facts, "set_pgtend_version").map(|version| format!("pgtend {version}"))),
    ]
}

fn measured(facts: &Map<String, Value>) -> Lines {
    let count = |key| number(facts, key).map(|count| units::count(count as u64));
    vec![
        ("Restored in", seconds(facts, "restore_seconds")),
        ("By", number(facts, "restore_sessions").map(|sessions| units::plural(sessions as u64, "session"))),
        ("Tables", count("tables").map(|tables| format!("{tables}, each counted"))),
        ("Rows", count("rows")),
        ("In all", seconds(facts, "elapsed_seconds")),
    ]
}

fn section(heading: &str, lines: &Lines) -> Markup {
    html! {
        section {
            h2 { (heading) }
            table { tbody { @for (label, value) in lines {
                @if let Some(value) = value { tr { th scope="row" { (label) } td { (value) } } }
            } } }
        }
    }
}

/// The queries of `expect` with their answers, or the statements of `after` with the rows that they changed.
fn answers(heading: &str, asked: &str, answers: Option<&Value>) -> Markup {
    let answers = answers.and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
    html! {
        section {
            h2 { (heading) }
            @if answers.is_empty() { p { "Nothing." } }
            table { tbody { @for answer in answers {
                tr { td { (answer[asked].as_str().unwrap_or_default()) } td { (said(answer)) } }
            } } }
        }
    }
}

fn said(answer: &Value) -> String {
    match (answer.get("is_true"), answer.get("rows")) {
        (Some(Value::Bool(true)), _) => "true".to_owned(),
        (Some(_), _) => "NOT TRUE".to_owned(),
        (None, Some(rows)) => units::plural(rows.as_u64().unwrap_or_default(), "row"),
        (None, None) => String::new(),
    }
}

fn notes(row: &Row) -> Markup {
    let warnings = row.report.as_ref().map(|report| report.warnings.as_slice()).unwrap_or_default();
    html! {
        @if !warnings.is_empty() {
            section { h2 { "Notes" } ul { @for warning in warnings { li { (warning) } } } }
        }
    }
}

fn text(facts: &Map<String, Value>, key: &str) -> Option<String> {
    facts.get(key)?.as_str().map(str::to_owned)
}

fn number(facts: &Map<String, Value>, key: &str) -> Option<f64> {
    facts.get(key)?.as_f64()
}

fn seconds(facts: &Map<String, Value>, key: &str) -> Option<String> {
    let duration = std::time::Duration::try_from_secs_f64(number(facts, key)?).ok()?;
    Some(units::duration(duration))
}
