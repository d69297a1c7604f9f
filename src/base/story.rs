//! What a run did in which order: its plan and its steps, for people who look at it later.

use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

/// A plan is kept up to this length.
const MAX_PLAN_CHARS: usize = 20_000;

/// A run of more steps keeps the first ones.
const MAX_STEPS: usize = 200;

/// The plan of a run, and its steps in order.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Story {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub plan: Option<String>,
    pub steps: Vec<Step>,
}

/// A phase of a run.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Step {
    pub phase: String,
    /// Since the run began.
    pub after_seconds: f64,
    /// None: the run ended first.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub elapsed_seconds: Option<f64>,
    pub bytes: u64,
    /// How it ended, or what it did last, in words.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub said: Option<String>,
}

impl Story {
    pub fn is_empty(&self) -> bool {
        self.plan.is_none() && self.steps.is_empty()
    }

    pub fn set_plan(&mut self, plan: &str) {
        let plan = without_nul(plan.trim_end());
        let cut = plan.char_indices().nth(MAX_PLAN_CHARS).map(|(end, _)| format!("{}…", &plan[..end]));
        self.plan = Some(cut.unwrap_or(plan));
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
        let read: Story = serde_json::from_str(&serde_json::to_string(&story).unwrap()).unwrap();
        assert_eq!((read.steps[1].elapsed_seconds, read.steps[1].bytes, &read), (Some(1.5), 7, &story));
        assert_eq!(read.steps[1].said.as_deref(), Some("1 table"));
    }
}
