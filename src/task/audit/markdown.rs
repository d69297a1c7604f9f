//! Renders the report as Markdown: a summary by priority, then each finding with issue, impact, fix and priority. Names and definitions
//! from the database stay plain text.

use serde_json::Value;

use super::document::{Change, Document, Finding, Level, State};
use crate::base::{terminal, units};

pub fn render(document: &Document) -> String {
    let counts = document.counts();
    let mut text = format!("# Audit of {}\n\n", escaped(&document.database));
    text += &format!(
        "{}, PostgreSQL {}{}, {}. {}.\n\n",
        escaped(&document.server),
        escaped(&document.server_version),
        if document.in_recovery { " (a replica)" } else { "" },
        document.started_at.format("%Y-%m-%d %H:%M UTC"),
        escaped(&capitalized(&document.in_short()))
    );
    text += "## Summary\n\n| Priority | Findings |\n|---|---:|\n";
    for level in Level::ALL {
        text += &format!("| {} | {} |\n", capitalized(level.name()), counts.of_level(level));
    }
    text += "\n";
    if document.findings.iter().any(|finding| finding.waiver.is_none()) {
        text += "| Priority | Finding | Object | |\n|---|---|---|---|\n";
        for finding in document.open() {
            text += &format!(
                "| {} | {} | {} | {} |\n",
                capitalized(finding.level.name()),
                escaped(&finding.title),
                escaped(finding.name()),
                change(finding)
            );
        }
        text += "\n";
    }
    for note in &document.notes {
        text += &format!("- {}\n", escaped(note));
    }
    if !document.findings.is_empty() {
        text += "\n## Findings\n\n";
        for (index, finding) in document.open().enumerate() {
            text += &one(index + 1, finding);
        }
    }
    text += &waived(document);
    text += &list("Resolved since the last audit", &document.resolved);
    text += &list("Found last time, not checked this time", &document.not_seen);
    text += &top_queries(document);
    text += &checks(document);
    // A report is also read with `cat`.
    terminal::visible(&text).into_owned()
}

fn one(number: usize, finding: &Finding) -> String {
    let mut text = format!("### {number}. {}: {}\n\n", escaped(&finding.title), escaped(&finding.object));
    text += &format!("- **Issue**: {}\n", escaped(&finding.issue));
    text += &format!("- **Impact**: {}\n", escaped(&finding.impact));
    let evidence = evidence(finding);
    if !evidence.is_empty() {
        text += &format!("- **Evidence**: {}\n", escaped(&evidence));
    }
    text += &format!(
        "- **Priority**: {}{}\n",
        capitalized(finding.level.name()),
        match finding.change {
            Some(Change::New) => ", new".to_owned(),
            Some(Change::Unchanged) => format!(", since {}", finding.since.format("%Y-%m-%d")),
            None => String::new(),
        }
    );
    text += &format!("- **Lock**: {}\n", escaped(&finding.fix.lock));
    text += &format!("- **Key**: {}\n", code(&finding.key));
    text += &format!("- **Fix**: {}\n\n", escaped(&finding.fix.words));
    for (what, language, body) in fixes(finding) {
        text += &format!("{what}\n\n{}\n", fenced(language, body));
    }
    text
}

/// Returns the texts to apply, each with a heading.
pub(super) fn fixes(finding: &Finding) -> Vec<(&'static str, &'static str, &str)> {
    let fix = &finding.fix;
    [
        ("SQL:", "sql", &fix.sql),
        ("Add to the schema file:", "sql", &fix.file),
        ("On the command line:", "sh", &fix.command),
        ("As a job of pgtend, with `database` and `schedule` above it:", "toml", &fix.job),
    ]
    .into_iter()
    .filter_map(|(what, language, body)| Some((what, language, body.as_deref()?)))
    .collect()
}

fn waived(document: &Document) -> String {
    let mut text = String::new();
    for finding in &document.findings {
        if let Some(waiver) = &finding.waiver {
            text += &format!("- {} until {}: {}\n", code(&finding.key), waiver.until, escaped(&waiver.reason));
        }
    }
    if text.is_empty() { text } else { format!("## Waived\n\n{text}\n") }
}

fn list(title: &str, findings: &[Finding]) -> String {
    if findings.is_empty() {
        return String::new();
    }
    let lines: String = findings
        .iter()
        .map(|finding| format!("- {}: {} ({})\n", escaped(&finding.title), escaped(&finding.object), code(&finding.key)))
        .collect();
    format!("## {title}\n\n{lines}\n")
}

fn top_queries(document: &Document) -> String {
    if document.top_queries.is_empty() {
        return String::new();
    }
    let mut text =
        "## Statements that take most time\n\n| Total s | Calls | Mean ms | Statement |\n|---:|---:|---:|---|\n".to_owned();
    for query in &document.top_queries {
        text += &format!(
            "| {:.1} | {} | {:.2} | {} |\n",
            query.total_seconds,
            query.calls,
            query.mean_milliseconds,
            escaped(&query.query)
        );
    }
    text + "\n"
}

fn checks(document: &Document) -> String {
    let mut text = "## Checks\n\n| Check | | |\n|---|---|---|\n".to_owned();
    for outcome in &document.checks {
        let state = match outcome.state {
            State::Findings => units::plural(outcome.findings, "finding"),
            state => state.name().to_owned(),
        };
        text += &format!("| {} | {state} | {} |\n", outcome.check, escaped(&outcome.reasons.join("; ")));
    }
    text
}

pub(super) fn change(finding: &Finding) -> &'static str {
    if finding.change == Some(Change::New) { "new" } else { "" }
}

pub(super) fn capitalized(text: &str) -> String {
    let mut letters = text.chars();
    letters.next().map(|first| first.to_uppercase().chain(letters).collect()).unwrap_or_default()
}

/// Returns the numeric evidence: `rows 2,000, bytes 1.2 MB`.
pub(super) fn evidence(finding: &Finding) -> String {
    let shown = finding.evidence.iter().filter_map(|(name, value)| {
        let words = name.replace('_', " ");
        let value = match value {
            Value::Null => return None,
            Value::Number(number) if name.ends_with("bytes") => units::bytes(number.as_f64().unwrap_or_default().max(0.0) as u64),
            Value::Number(number) => number.as_u64().map(units::count).unwrap_or_else(|| number.to_string()),
            Value::String(text) => text.clone(),
            other => other.to_string(),
        };
        let words = if words.ends_with("bytes") { words.trim_end_matches("bytes").trim_end().to_owned() } else { words };
        Some(if words.is_empty() { value } else { format!("{words} {value}") })
    });
    shown.collect::<Vec<_>>().join(", ")
}

/// Escapes text so that Markdown does not interpret it, also in tables.
fn escaped(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for letter in text.chars() {
        match letter {
            '&' => escaped += "&amp;",
            '<' => escaped += "&lt;",
            '>' => escaped += "&gt;",
            letter if letter.is_control() => escaped.push(' '),
            '\\' | '`' | '*' | '_' | '[' | ']' | '#' | '|' | '~' => {
                escaped.push('\\');
                escaped.push(letter);
            }
            _ => escaped.push(letter),
        }
    }
    escaped
}

/// Returns a fence of as many backticks as the text needs.
fn fence(text: &str, least: usize) -> String {
    let longest = text.split(|letter| letter != '`').map(str::len).max().unwrap_or_default();
    "`".repeat(least.max(longest + 1))
}

fn code(text: &str) -> String {
    let fence = fence(text, 1);
    format!("{fence} {} {fence}", text.replace(char::is_control, " "))
}

fn fenced(language: &str, text: &str) -> String {
    let fence = fence(text, 3);
    format!("{fence}{language}\n{}\n{fence}\n", text.trim_end())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_others_wrote_stays_text() {
        assert_eq!(escaped("<script>a|b\n*c*_d_"), "&lt;script&gt;a\\|b \\*c\\*\\_d\\_");
        assert_eq!(code("a`b"), "`` a`b ``");
        assert_eq!(fenced("sql", "a ```` b"), "`````sql\na ```` b\n`````\n");
    }
}
