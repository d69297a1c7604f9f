//! Handles signals that end a command and its work.

use anyhow::Result;
use tokio_util::sync::CancellationToken;

use crate::base::fault::{Fault, Kind};

/// Says whether the process was started with the signal ignored. If that cannot be known, it is not ignored.
fn is_ignored(signal: tokio::signal::unix::SignalKind) -> bool {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:")).map(str::trim);
    let mask = mask.and_then(|mask| u64::from_str_radix(mask, 16).ok()).unwrap_or_default();
    mask >> (signal.as_raw_value() - 1) & 1 == 1
}

/// Returns a token that the first SIGTERM, SIGINT or SIGHUP cancels; the second ends the process at once.
pub(super) fn cancelled_by_signals() -> Result<CancellationToken> {
    use tokio::signal::unix::{SignalKind, signal};
    let cancel = CancellationToken::new();
    let token = cancel.clone();
    let (mut terminate, mut interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    // A terminal that closes sends SIGHUP; under nohup it stays ignored.
    let mut hangup = if is_ignored(SignalKind::hangup()) { None } else { Some(signal(SignalKind::hangup())?) };
    tokio::spawn(async move {
        for number in 1..=2 {
            let hung_up = async {
                match &mut hangup {
                    Some(hangup) => hangup.recv().await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                _ = terminate.recv() => {}
                _ = interrupt.recv() => {}
                _ = hung_up => {}
            }
            if number == 2 {
                std::process::exit(143);
            }
            tracing::warn!("stopping and cleaning up; a second signal ends pgtend at once");
            token.cancel();
        }
    });
    Ok(cancel)
}

/// Waits for `work`, or returns the error of a cancelled command as soon as it is cancelled. `work` is dropped then, and its
/// sessions end with it; things that must not stay, such as a scratch database, are dropped by their creator, who watches
/// `cancel`.
pub(super) async fn or_cancelled<T>(cancel: &CancellationToken, work: impl Future<Output = Result<T>>) -> Result<T> {
    match cancel.run_until_cancelled(work).await {
        Some(result) => result,
        None => Err(Fault::new(Kind::Cancelled, "cancelled by a signal").into()),
    }
}
