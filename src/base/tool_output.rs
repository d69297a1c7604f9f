//! The output of servers and client tools during a run: it is kept with the run.

use std::cell::RefCell;
use std::fmt;

use tracing::field::{Field, Visit};
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::Layer;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::layer::Context;
use tracing_subscriber::registry::LookupSpan;

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
}

#[derive(Clone, Debug)]
pub struct Notice {
    pub is_warning: bool,
    pub message: String,
}

tokio::task_local! {
    static TOOL_OUTPUT: RefCell<ToolOutput>;
    static NOTICES: RefCell<Vec<Notice>>;
}

/// Runs `work` and keeps what its tools print to stderr.
pub async fn capture<T>(work: impl Future<Output = T>) -> (T, ToolOutput) {
    TOOL_OUTPUT
        .scope(RefCell::default(), async {
            let result = work.await;
            (result, TOOL_OUTPUT.with(RefCell::take))
        })
        .await
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
        let kept = &mut captured.borrow_mut().stderr;
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

/// Returns the layer that catches notices for [`notices`].
pub fn layer<S: Subscriber + for<'a> LookupSpan<'a>>() -> impl Layer<S> {
    NoticeLayer.with_filter(Targets::new().with_target(NOTICE_TARGET, Level::TRACE))
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
}
