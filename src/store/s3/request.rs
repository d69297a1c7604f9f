//! The attempts and timeouts of requests.

use std::time::Duration;

use aws_sdk_s3::config::http::HttpResponse;
use aws_sdk_s3::error::{ProvideErrorMetadata, SdkError};
use chrono::{DateTime, Utc};

/// Attempts per request, with the SDK's exponential backoff in between: about 15 s in all with a dead server.
pub(super) const ATTEMPTS: u32 = 5;

/// The timeout of requests without a body of ours.
pub(super) const REQUEST_TIMEOUT: Duration = Duration::from_secs(60);

pub(super) fn time(time: &aws_sdk_s3::primitives::DateTime) -> Option<DateTime<Utc>> {
    DateTime::<Utc>::from_timestamp(time.secs(), time.subsec_nanos())
}

/// When the server answered, by its clock.
pub(super) fn date<E>(error: &SdkError<E, HttpResponse>) -> Option<DateTime<Utc>> {
    let date = error.raw_response()?.headers().get("date")?;
    Some(DateTime::parse_from_rfc2822(date).ok()?.with_timezone(&Utc))
}

pub(super) fn status<E>(error: &SdkError<E, HttpResponse>) -> Option<u16> {
    error.raw_response().map(|response| response.status().as_u16())
}

/// Returns true when the server answers, in whatever form, that it lacks this operation.
pub(super) fn has_no_such_operation<E: ProvideErrorMetadata>(error: &SdkError<E, HttpResponse>) -> bool {
    let code = error.code().unwrap_or_default();
    match status(error) {
        Some(405 | 501) => true,
        Some(404) => code != "NoSuchBucket",
        Some(400) => matches!(
            code,
            "" | "InvalidRequest"
                | "InvalidArgument"
                | "NotImplemented"
                | "MethodNotAllowed"
                | "UnsupportedOperation"
                | "BadRequest"
        ),
        _ => matches!(code, "NotImplemented" | "MethodNotAllowed"),
    }
}
