//! Waits for others to end, and says for whom.

use std::time::{Duration, Instant};

use anyhow::Result;

use crate::base::progress::Phase;
use crate::work::RunContext;

const LOOK_EVERY: Duration = Duration::from_millis(500);
/// A shorter wait is not worth a warning.
const WORTH_SAYING: Duration = Duration::from_secs(1);

/// A wait of `max_wait` at most, between looks at who is still there.
pub struct Waiting<'a> {
    run: &'a RunContext<'a>,
    phase: &'a Phase,
    max_wait: Duration,
    started: Instant,
    /// Those who were named in the log last.
    named: String,
}

impl<'a> Waiting<'a> {
    pub fn new(run: &'a RunContext<'a>, phase: &'a Phase, max_wait: Duration) -> Self {
        Self { run, phase, max_wait, started: Instant::now(), named: String::new() }
    }

    /// Waits for a moment, unless the time is over: then it returns false. `who`: they were there at the last look.
    pub async fn goes_on(&mut self, who: &str) -> Result<bool> {
        if self.started.elapsed() >= self.max_wait {
            return Ok(false);
        }
        self.phase.say(&format!("waiting for {who}"));
        if self.started.elapsed() > WORTH_SAYING && self.named != who {
            tracing::warn!("waiting for {who}");
            self.named = who.to_owned();
        }
        let pause = async {
            tokio::time::sleep(LOOK_EVERY).await;
            Ok(())
        };
        self.run.or_cancelled(pause).await?;
        Ok(true)
    }

    pub fn elapsed(&self) -> Duration {
        self.started.elapsed()
    }
}
