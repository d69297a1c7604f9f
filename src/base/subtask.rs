//! Subtasks and threads of a run: what they log stands in the run's span, and is kept with the run, like what its own task logs. tokio hands neither on.

use tokio::task::JoinHandle;
use tracing::{Instrument as _, Span};

use super::tool_output;

/// Starts a task that logs as the present one does.
pub fn spawn_in_span<T: Send + 'static>(work: impl Future<Output = T> + Send + 'static) -> JoinHandle<T> {
    tokio::spawn(in_span(work))
}

/// Starts work that blocks on a thread of tokio's pool.
pub fn spawn_blocking_in_span<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> JoinHandle<T> {
    tokio::task::spawn_blocking(on_thread(work))
}

/// Returns work that logs as the present task does, wherever it is polled: for a `JoinSet`.
pub fn in_span<F: Future>(work: F) -> impl Future<Output = F::Output> {
    tool_output::shared(work).in_current_span()
}

/// The same for work of a thread.
pub fn on_thread<T>(work: impl FnOnce() -> T) -> impl FnOnce() -> T {
    let (span, work) = (Span::current(), tool_output::shared_on_thread(work));
    move || span.in_scope(work)
}

#[cfg(test)]
mod tests {
    use tokio::task::JoinSet;
    use tracing_subscriber::layer::SubscriberExt as _;

    use super::*;
    use crate::base::thread;

    #[tokio::test]
    async fn what_a_subtask_or_a_thread_logs_is_kept_with_the_run_that_started_it() {
        let subscriber = tracing_subscriber::registry().with(tool_output::layer());
        let _guard = tracing::subscriber::set_default(subscriber);
        let span = tracing::info_span!("run");
        let id = span.id();
        let is_in_span = move || Span::current().id() == id;
        let ((), captured) = tool_output::capture(
            async {
                let say = is_in_span.clone();
                spawn_in_span(async move { tracing::info!(is_in_span = say(), "a task") }).await.unwrap();
                let say = is_in_span.clone();
                // A thread has a subscriber of its own, unless there is one for the process.
                let dispatch = tracing::dispatcher::get_default(Clone::clone);
                let logs = move || tracing::dispatcher::with_default(&dispatch, || tracing::info!(is_in_span = say(), "a pool"));
                spawn_blocking_in_span(logs).await.unwrap();
                let say = is_in_span.clone();
                let mut set = JoinSet::new();
                set.spawn(in_span(async move { tracing::warn!(is_in_span = say(), "a set") }));
                set.join_all().await;
                let (sender, ended) = tokio::sync::oneshot::channel();
                let dispatch = tracing::dispatcher::get_default(Clone::clone);
                let logs = move || {
                    tracing::dispatcher::with_default(&dispatch, || tracing::error!(is_in_span = is_in_span(), "a thread"));
                    let _ = sender.send(());
                };
                thread::spawn("logs", logs).unwrap();
                ended.await.unwrap();
            }
            .instrument(span),
        )
        .await;
        let lines: Vec<_> = captured.lines.iter().map(|line| (line.level.as_str(), line.text.as_str())).collect();
        let expected = ["a task", "a pool", "a set", "a thread"].map(|who| format!("{who} is_in_span=true"));
        let levels = ["INFO", "INFO", "WARN", "ERROR"];
        assert_eq!(lines, levels.iter().zip(&expected).map(|(level, text)| (*level, text.as_str())).collect::<Vec<_>>());
        // Of no run: it is kept nowhere, and is no fault.
        spawn_in_span(async { tracing::info!("alone") }).await.unwrap();
    }
}
