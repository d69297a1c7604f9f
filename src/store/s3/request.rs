//! The attempts and timeouts of requests.

use std::time::Duration;

use aws_sdk_s3::config::http::HttpResponse;
use aws_sdk_s3::error::SdkError;
use chrono::{DateTime, Utc};

/// Attempts per request, with the SDK's exponential backoff in between: about 15 s in all with a dead server.
pub(super) const ATTEMPTS: u32 = 5;

/// The timeout of requests without a body of ours.
pub(super) const REQUEST_TIMEOUT: Duration = Duration::from_secs(60);

pub(super) fn time(time: &aws_sdk_s3::primitives::DateTime) -> Option<DateTime<Utc>> {
    DateTime::<Utc>::from_timestamp(time.secs(), time.subsec_nanos())
}

pub(super) fn status<E>(error: &SdkError<E, HttpResponse>) -> Option<u16> {
    error.raw_response().map(|response| response.status().as_u16())
}
