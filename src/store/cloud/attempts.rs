//! The attempts and timeouts of requests.

use std::time::Duration;

/// As for S3: the time to the answer of a request without a body of ours, and between two pieces of an answer.
pub const REQUEST_TIMEOUT: Duration = Duration::from_secs(60);

/// Further attempts for a request, with exponential backoff in between: some 10 s in all with a dead server.
pub const ATTEMPTS: u32 = 5;
