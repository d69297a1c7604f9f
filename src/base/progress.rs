//! Shows the progress of long work: a bar on a terminal, an occasional log line elsewhere.

use std::io::{IsTerminal as _, Write};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, LazyLock, Mutex, PoisonError};
use std::time::{Duration, Instant};

use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressStyle};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::base::story::Story;
use crate::base::{terminal, units};

/// The time between two log lines of one phase.
const LOG_EVERY: Duration = Duration::from_secs(15);

/// All bars draw here, and [`LogWriter`] writes past them.
static BARS: LazyLock<MultiProgress> = LazyLock::new(MultiProgress::new);

const OF_BYTES: &str =
    "{prefix:>10} {bar:30.cyan} {decimal_bytes:>10} of {decimal_total_bytes}  {decimal_bytes_per_sec:>12}  {elapsed}  {wide_msg}";
const BYTES: &str = "{prefix:>10} {spinner} {decimal_bytes:>10}  {decimal_bytes_per_sec:>12}  {elapsed}  {wide_msg}";
/// Used until there are bytes.
const IN_WORDS: &str = "{prefix:>10} {spinner} {elapsed}  {wide_msg}";

fn style(template: &str) -> ProgressStyle {
    // The templates are ours: if one did not parse, the default bar would do.
    ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar())
}

/// Sends a run's progress to the terminal or the log, and to callers of [`Progress::now`].
#[derive(Clone, Debug)]
pub struct Progress {
    shown: Shown,
    current: Arc<Mutex<Option<Current>>>,
    cursor: Arc<Mutex<Option<serde_json::Value>>>,
    story: Arc<Mutex<Story>>,
    began: Instant,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Shown {
    Bar,
    Log,
}

/// The state of a phase.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct PhaseState {
    pub phase: String,
    pub done_bytes: u64,
    pub total_bytes: Option<u64>,
    /// The current activity in words: "building index: loading tuples, 40 %, about 2 min left".
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub detail: Option<String>,
}

#[derive(Debug)]
struct Current {
    phase: String,
    total_bytes: Option<u64>,
    done_bytes: Arc<AtomicU64>,
    detail: Arc<Mutex<Option<String>>>,
}

impl Progress {
    /// Uses a bar when stderr is a terminal, except with JSON logs, which are for machines.
    pub fn detect(json_logs: bool) -> Self {
        Self::shown(if std::io::stderr().is_terminal() && !json_logs { Shown::Bar } else { Shown::Log })
    }

    /// Uses the log, for concurrent runs: their bars would mix.
    pub fn logged() -> Self {
        Self::shown(Shown::Log)
    }

    fn shown(shown: Shown) -> Self {
        Self { shown, current: Arc::default(), cursor: Arc::default(), story: Arc::default(), began: Instant::now() }
    }

    pub fn has_bars(&self) -> bool {
        self.shown == Shown::Bar
    }

    /// Returns progress of the same kind, for another run.
    pub fn for_a_run(&self) -> Self {
        Self::shown(self.shown)
    }

    /// Sets where the next run continues if this one ends here; `None` if it cannot continue.
    pub fn set_cursor(&self, cursor: Option<serde_json::Value>) {
        *self.cursor.lock().unwrap_or_else(PoisonError::into_inner) = cursor;
    }

    pub fn cursor(&self) -> Option<serde_json::Value> {
        self.cursor.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Keeps the plan of the run, as a dry run prints it.
    pub fn plan(&self, plan: &str) {
        self.story.lock().unwrap_or_else(PoisonError::into_inner).set_plan(plan);
    }

    /// Returns the plan and the steps up to now.
    pub fn story(&self) -> Story {
        self.story.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Returns the phase that was started last, and its state.
    pub fn now(&self) -> Option<PhaseState> {
        let current = self.current.lock().unwrap_or_else(PoisonError::into_inner);
        current.as_ref().map(|current| PhaseState {
            phase: current.phase.clone(),
            done_bytes: current.done_bytes.load(Ordering::Relaxed),
            total_bytes: current.total_bytes,
            detail: current.detail.lock().unwrap_or_else(PoisonError::into_inner).clone(),
        })
    }

    /// Starts a phase; `total_bytes` is its expected end, if known.
    pub fn phase(&self, name: &str, total_bytes: Option<u64>) -> Phase {
        let bar = self.has_bars().then(|| {
            let bar = BARS.add(ProgressBar::with_draw_target(total_bytes, ProgressDrawTarget::stderr()));
            let bar = bar.with_style(style(if total_bytes.is_some() { OF_BYTES } else { IN_WORDS }));
            bar.set_prefix(name.to_owned());
            bar.enable_steady_tick(Duration::from_millis(200));
            bar
        });
        if bar.is_none() {
            tracing::info!(phase = name, "started");
        }
        let bytes = Arc::new(AtomicU64::new(0));
        let detail = Arc::default();
        *self.current.lock().unwrap_or_else(PoisonError::into_inner) =
            Some(Current { phase: name.to_owned(), total_bytes, done_bytes: Arc::clone(&bytes), detail: Arc::clone(&detail) });
        let step = self.story.lock().unwrap_or_else(PoisonError::into_inner).begin(name, self.began);
        Phase(Arc::new(Inner {
            name: name.to_owned(),
            bar,
            started: Instant::now(),
            bytes,
            detail,
            logged_seconds: AtomicU64::new(0),
            story: Arc::clone(&self.story),
            step,
            ended: Mutex::default(),
        }))
    }
}

/// One step of a run, shared by the threads that work on it.
#[derive(Clone)]
pub struct Phase(Arc<Inner>);

struct Inner {
    name: String,
    bar: Option<ProgressBar>,
    started: Instant,
    bytes: Arc<AtomicU64>,
    detail: Arc<Mutex<Option<String>>>,
    logged_seconds: AtomicU64,
    story: Arc<Mutex<Story>>,
    /// Its number in the story.
    step: Option<usize>,
    /// How it ended.
    ended: Mutex<Option<String>>,
}

impl Phase {
    pub fn advance(&self, bytes: u64) {
        let done = self.0.bytes.fetch_add(bytes, Ordering::Relaxed) + bytes;
        match &self.0.bar {
            Some(bar) => {
                if done == bytes && bar.length().is_none() {
                    bar.set_style(style(BYTES));
                }
                bar.set_position(done);
            }
            None if self.is_to_be_logged() => {
                let elapsed = self.0.started.elapsed().as_secs();
                tracing::info!(phase = self.0.name, bytes = done, elapsed_seconds = elapsed, "running: {}", units::bytes(done));
            }
            None => {}
        }
    }

    /// Sets the current activity in words.
    pub fn say(&self, detail: &str) {
        *self.0.detail.lock().unwrap_or_else(PoisonError::into_inner) = Some(detail.to_owned());
        match &self.0.bar {
            Some(bar) => bar.set_message(terminal::visible(detail).into_owned()),
            None if self.is_to_be_logged() => {
                tracing::info!(phase = self.0.name, elapsed_seconds = self.0.started.elapsed().as_secs(), "running: {detail}");
            }
            None => {}
        }
    }

    /// Returns true from time to time.
    fn is_to_be_logged(&self) -> bool {
        let elapsed = self.0.started.elapsed().as_secs();
        let logged = self.0.logged_seconds.load(Ordering::Relaxed);
        elapsed >= logged + LOG_EVERY.as_secs()
            && self.0.logged_seconds.compare_exchange(logged, elapsed, Ordering::Relaxed, Ordering::Relaxed).is_ok()
    }

    pub fn elapsed(&self) -> Duration {
        self.0.started.elapsed()
    }

    /// Reports in one line how the phase ended.
    pub fn done(&self, what: &str) {
        *self.0.ended.lock().unwrap_or_else(PoisonError::into_inner) = Some(what.to_owned());
        let elapsed = units::duration(self.elapsed());
        match &self.0.bar {
            Some(bar) => {
                bar.finish_and_clear();
                // A terminal that has gone is no reason to fail.
                let _ = BARS.println(format!("{:>10}  {} in {elapsed}", self.0.name, terminal::visible(what)));
            }
            None => {
                tracing::info!(phase = self.0.name, elapsed_seconds = self.elapsed().as_secs_f64(), "done: {what} in {elapsed}")
            }
        }
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        if let Some(step) = self.step {
            let ended = self.ended.lock().unwrap_or_else(PoisonError::into_inner).take();
            let said = ended.or_else(|| self.detail.lock().unwrap_or_else(PoisonError::into_inner).clone());
            let mut story = self.story.lock().unwrap_or_else(PoisonError::into_inner);
            story.end(step, self.started.elapsed(), self.bytes.load(Ordering::Relaxed), said);
        }
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}

/// Is stderr for tracing: it removes the bars, writes, and draws them again. It makes control characters visible; when its output
/// has colours, tracing itself does that for messages and fields.
pub struct LogWriter {
    pub has_colours: bool,
}

impl Write for LogWriter {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        let Ok(text) = std::str::from_utf8(bytes) else { return BARS.suspend(|| std::io::stderr().write(bytes)) };
        let text = terminal::as_one_entry(text);
        let shown = if self.has_colours { text } else { terminal::visible(&text).into_owned().into() };
        BARS.suspend(|| std::io::stderr().write_all(shown.as_bytes())).map(|()| bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        std::io::stderr().flush()
    }
}
