//! What a run did in which order: its plan, its steps and its log lines, for people who look at it later.

use std::time::{Duration, Instant};

use chrono::{DateTime, Utc};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// A plan is kept up to this length.
const MAX_PLAN_CHARS: usize = 20_000;

/// A run of more steps keeps the first ones.
const MAX_STEPS: usize = 200;

/// A run of more lines keeps the last ones, in which the reason of a failure is.
const MAX_LINES: usize = 200;

/// A line is kept up to this length.
const MAX_LINE_CHARS: usize = 2000;

/// The plan of a run, and its steps and log lines in order.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct Story {
    /// Who asked for the run on a page.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub asked_by: Option<String>,
    /// As a dry run prints it. The statements of [sql] are not kept.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub plan: Option<String>,
    pub steps: Vec<Step>,
    /// The last lines that it logged.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub lines: Vec<Line>,
}

/// A line of the log.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Line {
    pub at: DateTime<Utc>,
    /// `ERROR`, `WARN` or `INFO`.
    pub level: String,
    pub text: String,
}

/// Adds a line; where there are too many, the first one goes.
pub fn add_line(lines: &mut Vec<Line>, level: &str, text: &str) {
    if lines.len() == MAX_LINES {
        lines.remove(0);
    }
    lines.push(Line { at: Utc::now(), level: level.to_owned(), text: cut(&without_nul(text), MAX_LINE_CHARS) });
}

/// A phase of a run.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct Step {
    pub phase: String,
    /// Since the run began.
    pub after_seconds: f64,
    /// Absent where the run ended first.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub elapsed_seconds: Option<f64>,
    pub bytes: u64,
    /// How it ended, or what it did last, in words.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub said: Option<String>,
}

impl Story {
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    pub fn set_plan(&mut self, plan: &str) {
        self.plan = Some(cut(&without_nul(plan.trim_end()), MAX_PLAN_CHARS));
    }

    /// Returns the number of the step; None where there are too many.
    pub fn begin(&mut self, phase: &str, began: Instant) -> Option<usize> {
        let step = Step { phase: phase.to_owned(), after_seconds: rounded(began.elapsed()), ..Step::default() };
        (self.steps.len() < MAX_STEPS).then(|| {
            self.steps.push(step);
            self.steps.len() - 1
        })
    }

    pub fn end(&mut self, number: usize, elapsed: Duration, bytes: u64, said: Option<String>) {
        if let Some(step) = self.steps.get_mut(number) {
            (step.elapsed_seconds, step.bytes, step.said) = (Some(rounded(elapsed)), bytes, said.as_deref().map(without_nul));
        }
    }
}

fn cut(text: &str, max_chars: usize) -> String {
    match text.char_indices().nth(max_chars) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}

/// A jsonb cannot hold it.
fn without_nul(text: &str) -> String {
    text.replace('\0', "")
}

fn rounded(time: Duration) -> f64 {
    time.as_millis() as f64 / 1000.0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_story_of_any_length_stays_short() {
        let mut story = Story::default();
        assert!(story.is_empty());
        story.set_plan(&"ä".repeat(MAX_PLAN_CHARS + 1));
        assert_eq!(story.plan.as_ref().map(|plan| plan.chars().count()), Some(MAX_PLAN_CHARS + 1));
        let numbers: Vec<_> = (0..MAX_STEPS + 5).map(|_| story.begin("dump", Instant::now())).collect();
        assert_eq!((story.steps.len(), numbers[MAX_STEPS - 1], numbers[MAX_STEPS]), (MAX_STEPS, Some(MAX_STEPS - 1), None));
        story.end(1, Duration::from_millis(1500), 7, Some("1 \0table".to_owned()));
        story.end(MAX_STEPS + 1, Duration::ZERO, 0, None);
        (0..MAX_LINES + 5)
            .for_each(|number| add_line(&mut story.lines, "INFO", &format!("{number}\0{}", "ü".repeat(MAX_LINE_CHARS))));
        assert_eq!((story.lines.len(), story.lines[0].text.chars().count()), (MAX_LINES, MAX_LINE_CHARS + 1));
        assert!(story.lines[0].text.starts_with("5ü"), "the first five are gone");
        let read: Story = serde_json::from_str(&serde_json::to_string(&story).unwrap()).unwrap();
        assert_eq!((read.steps[1].elapsed_seconds, read.steps[1].bytes, &read), (Some(1.5), 7, &story));
        assert_eq!(read.steps[1].said.as_deref(), Some("1 table"));
    }
}
