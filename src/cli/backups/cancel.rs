//! A command that a signal ends.

use crate::base::fault::{Fault, Kind};
use anyhow::Result;
use tokio_util::sync::CancellationToken;

/// `work`, or the error of a cancelled command as soon as it is one. `work` is dropped then, and its
/// sessions end with it; what must not stay, such as a scratch database, is dropped by whoever made it, who is told of `cancel`.
pub(super) async fn or_cancelled<T>(cancel: &CancellationToken, work: impl Future<Output = Result<T>>) -> Result<T> {
    match cancel.run_until_cancelled(work).await {
        Some(result) => result,
        None => Err(Fault::new(Kind::Cancelled, "cancelled by a signal").into()),
    }
}
