//! The output of servers and client tools during a run, and the lines that pgtend logs: they are kept with the run.

use std::cell::RefCell;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tracing::field::{Field, Visit};
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::Layer;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::layer::Context;
use tracing_subscriber::registry::LookupSpan;

use super::story::{self, Line};

/// The bytes that are kept: an error is in the last lines of stderr.
const STDERR_KEPT_BYTES: usize = 16 << 10;
/// These are more notices than anyone reads.
const NOTICES_KEPT: usize = 200;

/// sqlx writes a server's notices only to the log, under this target (sqlx-postgres, connection/stream.rs).
const NOTICE_TARGET: &str = "sqlx::postgres::notice";

#[derive(Debug, Default)]
pub struct ToolOutput {
    /// The last 16 KiB of stderr.
    pub stderr: String,
    /// The last lines of the log.
    pub lines: Vec<Line>,
}

#[derive(Clone, Debug)]
pub struct Notice {
    pub is_warning: bool,
    pub message: String,
}

tokio::task_local! {
    /// Subtasks and threads of the run share it (`subtask`).
    static TOOL_OUTPUT: Arc<Mutex<ToolOutput>>;
    static NOTICES: RefCell<Vec<Notice>>;
}

/// Runs `work` and keeps what its tools print to stderr, and what it logs itself.
pub async fn capture<T>(work: impl Future<Output = T>) -> (T, ToolOutput) {
    let captured = Arc::<Mutex<ToolOutput>>::default();
    let result = TOOL_OUTPUT.scope(Arc::clone(&captured), work).await;
    let captured = std::mem::take(&mut *lock(&captured));
    (result, captured)
}

/// Returns work whose output is that of the present run, wherever it is polled.
pub fn shared<F: Future>(work: F) -> impl Future<Output = F::Output> {
    TOOL_OUTPUT.scope(of_this_run(), work)
}

/// The same for work of a thread.
pub fn shared_on_thread<T>(work: impl FnOnce() -> T) -> impl FnOnce() -> T {
    let captured = of_this_run();
    move || TOOL_OUTPUT.sync_scope(captured, work)
}

/// Outside of a run, nobody reads it.
fn of_this_run() -> Arc<Mutex<ToolOutput>> {
    TOOL_OUTPUT.try_with(Arc::clone).unwrap_or_default()
}

fn lock(captured: &Mutex<ToolOutput>) -> MutexGuard<'_, ToolOutput> {
    captured.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Runs `work` and keeps the first 200 of the server's notices and warnings, whose number has no limit.
pub async fn notices<T>(work: impl Future<Output = T>) -> (T, Vec<Notice>) {
    NOTICES
        .scope(RefCell::default(), async {
            let result = work.await;
            (result, NOTICES.with(RefCell::take))
        })
        .await
}

/// Adds a tool's stderr to the current run, if there is one.
pub fn stderr(text: &str) {
    let _ = TOOL_OUTPUT.try_with(|captured| {
        let kept = &mut lock(captured).stderr;
        if !kept.is_empty() && !text.is_empty() {
            kept.push('\n');
        }
        kept.push_str(text);
        let mut start = kept.len().saturating_sub(STDERR_KEPT_BYTES);
        while !kept.is_char_boundary(start) {
            start += 1;
        }
        kept.drain(..start);
    });
}

/// Returns the layer that catches notices for [`notices`], and lines of the log for [`capture`].
pub fn layer<S: Subscriber + for<'a> LookupSpan<'a>>() -> impl Layer<S> {
    let notices = NoticeLayer.with_filter(Targets::new().with_target(NOTICE_TARGET, Level::TRACE));
    notices.and_then(LineLayer.with_filter(Targets::new().with_target("pgtend", Level::INFO)))
}

struct LineLayer;

impl<S: Subscriber> Layer<S> for LineLayer {
    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        let _ = TOOL_OUTPUT.try_with(|captured| {
            // A value may log while it is written, so that nothing is locked meanwhile.
            let mut text = Text::default();
            event.record(&mut text);
            story::add_line(&mut lock(captured).lines, event.metadata().level().as_str(), &(text.message + &text.fields));
        });
    }
}

/// A message, and the other fields behind it.
#[derive(Default)]
struct Text {
    message: String,
    fields: String,
}

impl Visit for Text {
    fn record_str(&mut self, field: &Field, value: &str) {
        self.record_debug(field, &format_args!("{value}"));
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        match field.name() {
            "message" => self.message = format!("{value:?}"),
            name => self.fields += &format!(" {name}={value:?}"),
        }
    }
}

struct NoticeLayer;

impl<S: Subscriber> Layer<S> for NoticeLayer {
    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        let _ = NOTICES.try_with(|notices| {
            let mut message = Message(String::new());
            event.record(&mut message);
            let notices = &mut *notices.borrow_mut();
            if notices.len() < NOTICES_KEPT {
                notices.push(Notice { is_warning: *event.metadata().level() <= Level::WARN, message: message.0 });
            }
        });
    }
}

struct Message(String);

impl Visit for Message {
    fn record_str(&mut self, field: &Field, value: &str) {
        if field.name() == "message" {
            self.0 = value.to_owned();
        }
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        if field.name() == "message" {
            self.0 = format!("{value:?}");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn stderr_is_kept_to_its_last_bytes_at_a_characters_start() {
        let ((), captured) = capture(async {
            stderr("first");
            stderr(&"ü".repeat(STDERR_KEPT_BYTES));
        })
        .await;
        assert!(captured.stderr.len() <= STDERR_KEPT_BYTES && captured.stderr.chars().all(|c| c == 'ü'));
        stderr("of no run: it is not kept");
    }

    #[tokio::test]
    async fn what_a_run_logs_is_kept_with_it_and_nothing_else() {
        use tracing_subscriber::layer::SubscriberExt as _;
        let _guard = tracing::subscriber::set_default(tracing_subscriber::registry().with(layer()));
        tracing::info!("before");
        let ((), captured) = capture(async {
            tracing::info!(phase = "dump", bytes = 7, "done: {}", "1 table");
            tracing::debug!("a detail");
            tracing::warn!(target: "sqlx", "of a library");
        })
        .await;
        let lines: Vec<_> = captured.lines.iter().map(|line| (line.level.as_str(), line.text.as_str())).collect();
        assert_eq!(lines, [("INFO", "done: 1 table phase=dump bytes=7")]);
    }
}
