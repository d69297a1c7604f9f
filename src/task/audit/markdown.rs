//! Renders the report as Markdown: a summary by priority, then each finding with issue, impact, fix and priority. Names and definitions
//! from the database stay plain text.

use serde_json::Value;

use super::document::{Change, Document, Finding, Level, State};
use super::groups::{self, Group};
use crate::base::{shell, terminal, units};

/// The lines of a report that is read; one of a single check has no limit, and the JSON has everything.
const MAX_LINES: usize = 499;

/// How much of a group is shown.
struct Limits {
    /// Findings with all their parts: of critical and high groups, of medium ones, of low ones and conventions.
    detailed: [usize; 3],
    /// Findings that are a line each.
    listed: usize,
    /// Lines of SQL, or of a job.
    code: usize,
}

const NO_LIMITS: Limits = Limits { detailed: [usize::MAX; 3], listed: usize::MAX, code: usize::MAX };

/// The first that leaves the report short enough is taken.
const LIMITS: [Limits; 6] = [
    Limits { detailed: [40, 20, 10], listed: 60, code: 40 },
    Limits { detailed: [20, 10, 3], listed: 30, code: 20 },
    Limits { detailed: [10, 5, 1], listed: 15, code: 12 },
    Limits { detailed: [5, 2, 1], listed: 8, code: 8 },
    Limits { detailed: [2, 1, 0], listed: 4, code: 6 },
    Limits { detailed: [1, 0, 0], listed: 2, code: 4 },
];

pub fn render(document: &Document) -> String {
    let is_short = |text: &String| text.lines().count() <= MAX_LINES;
    let text = match document.checks.len() {
        1 => report(document, &NO_LIMITS),
        _ => LIMITS.iter().map(|limits| report(document, limits)).find(is_short).unwrap_or_else(|| cut(document)),
    };
    // A report is also read with `cat`.
    terminal::visible(&text).into_owned()
}

/// The shortest report, without its end.
fn cut(document: &Document) -> String {
    let text = LIMITS.last().map(|limits| report(document, limits)).unwrap_or_default();
    let kept: Vec<&str> = text.lines().take(MAX_LINES - 2).collect();
    format!("{}\n\nThe rest is left out: `--format json` has everything.\n", kept.join("\n"))
}

fn report(document: &Document, limits: &Limits) -> String {
    let counts = document.counts();
    let groups = groups::of(document);
    let mut text = format!("# Audit of {}\n\n", escaped(&document.database));
    for line in groups::summary(document) {
        text += &format!("- {}\n", escaped(&line));
    }
    text += "\n## Summary\n\n| Priority | Findings |\n|---|---:|\n";
    for level in Level::ALL {
        text += &format!("| {} | {} |\n", capitalized(level.name()), counts.of_level(level));
    }
    text += "\n";
    if !groups.is_empty() {
        text += "| | Priority | Findings | New | What |\n|---:|---|---:|---:|---|\n";
        for (index, group) in groups.iter().enumerate() {
            let (level, what) = (capitalized(group.level.name()), escaped(&group.line()));
            text += &format!("| {} | {level} | {} | {} | {what} |\n", index + 1, group.findings.len(), group.newly_found());
        }
        text += "\n";
    }
    for note in &document.notes {
        text += &format!("- {}\n", escaped(note));
    }
    if !groups.is_empty() {
        text += "\n## Findings\n\n";
        for (index, one) in groups.iter().enumerate() {
            text += &group(index + 1, one, document, limits);
        }
    }
    text += &waived(document, limits);
    text += &list("Resolved since the last audit", &document.resolved, limits);
    text += &list("Found last time, not checked this time", &document.not_seen, limits);
    text += &baseline(document);
    text += &top_queries(document);
    text + &checks(document)
}

/// What the findings of a group share, the first of them in full, and the others in a line each.
fn group(number: usize, group: &Group<'_>, document: &Document, limits: &Limits) -> String {
    let first = group.findings[0];
    let mut text = format!("### {number}. {}\n\n", escaped(&group.heading()));
    text += &format!("- **Priority**: {}\n- **Check**: `{}`\n", capitalized(group.level.name()), group.check);
    text += &format!("- **Impact**: {}\n- **Fix**: {}\n\n", escaped(&first.impact), escaped(&first.fix.words));
    let detailed = match (group.convention, group.level) {
        (None, Level::Critical | Level::High) => limits.detailed[0],
        (None, Level::Medium) => limits.detailed[1],
        (None, Level::Low) | (Some(_), _) => limits.detailed[2],
    };
    let (shown, others) = group.findings.split_at(detailed.min(group.findings.len()));
    for finding in shown {
        text += &one(finding, limits);
    }
    for finding in others.iter().take(limits.listed) {
        let new = if finding.change == Some(Change::New) { " (new)" } else { "" };
        text += &format!("- {}{new}\n", escaped(finding.name()));
    }
    if let Some(more) = others.len().checked_sub(limits.listed).filter(|more| *more > 0) {
        let command = format!("pgtend audit --database {} --check {}", shell::word(&document.database), group.check);
        text += &format!("- and {more} more: {}\n", code(&command));
    }
    if others.is_empty() { text } else { text + "\n" }
}

fn one(finding: &Finding, limits: &Limits) -> String {
    let mut text = format!("#### {}\n\n- **Issue**: {}\n", escaped(finding.name()), escaped(&finding.issue));
    let evidence = evidence(finding);
    if !evidence.is_empty() {
        text += &format!("- **Evidence**: {}\n", escaped(&evidence));
    }
    match finding.change {
        Some(Change::New) => text += "- **New**\n",
        Some(Change::Unchanged) => text += &format!("- **Since**: {}\n", finding.since.format("%Y-%m-%d")),
        None => (),
    }
    if let Some(decide) = &finding.fix.decide {
        text += &format!("- **Decide**: {}\n", escaped(decide));
    }
    text += &format!("- **Lock**: {}\n- **Key**: {}\n\n", escaped(&finding.fix.lock), code(&finding.key));
    for (what, language, body) in fixes(finding) {
        text += &format!("{what}\n\n{}\n", fenced(language, &shortened(body, language, limits.code)));
    }
    text
}

/// Returns the first lines of a text, and says how many are left out.
fn shortened(text: &str, language: &str, lines: usize) -> String {
    let text = text.trim_end();
    let all = text.lines().count();
    if all <= lines {
        return text.to_owned();
    }
    let comment = if language == "sql" { "--" } else { "#" };
    let kept: Vec<&str> = text.lines().take(lines).collect();
    format!("{}\n{comment} and {} more lines: --format json", kept.join("\n"), all - lines)
}

/// Returns the texts to apply, each with a heading.
pub(super) fn fixes(finding: &Finding) -> Vec<(&'static str, &'static str, &str)> {
    let fix = &finding.fix;
    [
        ("SQL:", "sql", &fix.sql),
        ("SQL, once that is decided:", "sql", &fix.draft),
        ("Add to the schema file:", "sql", &fix.file),
        ("On the command line:", "sh", &fix.command),
        ("As a job of pgtend, with `database` and `schedule` above it:", "toml", &fix.job),
    ]
    .into_iter()
    .filter_map(|(what, language, body)| Some((what, language, body.as_deref()?)))
    .collect()
}

fn waived(document: &Document, limits: &Limits) -> String {
    let lines = document.findings.iter().filter_map(|finding| {
        let waiver = finding.waiver.as_ref()?;
        Some(format!("- {} until {}: {}", code(&finding.key), waiver.until, escaped(&waiver.reason)))
    });
    section("Waived", lines.collect(), limits)
}

fn list(title: &str, findings: &[Finding], limits: &Limits) -> String {
    let line =
        |finding: &Finding| format!("- {}: {} ({})", escaped(&finding.title), escaped(&finding.object), code(&finding.key));
    section(title, findings.iter().map(line).collect(), limits)
}

fn section(title: &str, lines: Vec<String>, limits: &Limits) -> String {
    if lines.is_empty() {
        return String::new();
    }
    let more = match lines.len().checked_sub(limits.listed).filter(|more| *more > 0) {
        Some(more) => format!("\n- and {more} more"),
        None => String::new(),
    };
    let shown: Vec<&str> = lines.iter().take(limits.listed).map(String::as_str).collect();
    format!("## {title}\n\n{}{more}\n\n", shown.join("\n"))
}

fn baseline(document: &Document) -> String {
    let Some(baseline) = &document.baseline else { return String::new() };
    let lines = baseline.lines().into_iter().map(|(name, value)| format!("| {} | {} |\n", escaped(name), escaped(&value)));
    format!("## Baseline\n\n| Numbers, no findings | |\n|---|---|\n{}\n", lines.collect::<String>())
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
    if !document.turned_off.is_empty() {
        text += &format!("\nTurned off by the job: {}.\n", escaped(&document.turned_off.join(", ")));
    }
    text
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
    use super::super::document::Outcome;
    use super::super::document::tests::{document, finding};
    use super::*;

    #[test]
    fn what_others_wrote_stays_text() {
        assert_eq!(escaped("<script>a|b\n*c*_d_"), "&lt;script&gt;a\\|b \\*c\\*\\_d\\_");
        assert_eq!(code("a`b"), "`` a`b ``");
        assert_eq!(fenced("sql", "a ```` b"), "`````sql\na ```` b\n`````\n");
    }

    #[test]
    fn a_report_stays_below_five_hundred_lines_unless_one_check_is_asked_for() {
        let finding = |index: usize| {
            let level = Level::ALL[index % 4];
            let mut finding = finding(&format!("check{}:public.table_{index}", index % 41), level);
            finding.fix.sql = Some("ALTER TABLE x;\n".repeat(index % 300));
            finding
        };
        for number in [0, 1, 41, 690, 4148] {
            let mut document = document((0..number).map(finding).collect());
            document.resolved = (0..number).map(finding).collect();
            let text = render(&document);
            assert!(text.lines().count() < 500, "{number}: {}", text.lines().count());
            if number == 690 {
                document.checks = vec![Outcome {
                    check: "check1".to_owned(),
                    state: State::Findings,
                    reasons: Vec::new(),
                    findings: number,
                    elapsed_seconds: 0.0,
                    cut: None,
                }];
                assert_eq!(render(&document).matches("**Key**").count(), number, "all of them");
            }
        }
    }
}
