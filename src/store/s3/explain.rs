//! Explains errors of S3 servers: their meaning, and what to do.

use aws_sdk_s3::config::http::HttpResponse;
use aws_sdk_s3::error::{ProvideErrorMetadata, SdkError};
use chrono::{TimeDelta, Utc};

use super::S3;
use super::request::{date, status};
use crate::base::fault::{Fault, Kind};
use crate::base::network;

/// S3 accepts requests that are signed within a quarter of an hour of its own time.
const CLOCK_TOLERANCE: TimeDelta = TimeDelta::minutes(15);

/// A server's answer.
struct Answer<'a> {
    status: u16,
    code: &'a str,
    message: &'a str,
    /// The host's clock minus the server's.
    clock_is_ahead: Option<TimeDelta>,
}

impl S3 {
    /// Turns an SDK error into one with its kind, which names the server and says what to do.
    pub(super) fn explain<E>(&self, error: SdkError<E, HttpResponse>) -> anyhow::Error
    where
        E: ProvideErrorMetadata + std::error::Error + Send + Sync + 'static,
    {
        let (bucket, at) = (&self.configured.bucket, &self.at);
        let cause = || network::cause_of(&error, "`ca_file` of its store, or in AWS_CA_BUNDLE or SSL_CERT_FILE");
        let (kind, message) = match &error {
            SdkError::TimeoutError(_) => (Kind::Unreachable, format!("{at} did not answer in time")),
            SdkError::ServiceError(_) => {
                let answer = Answer {
                    status: status(&error).unwrap_or_default(),
                    code: error.code().unwrap_or_default(),
                    message: error.message().unwrap_or_default(),
                    clock_is_ahead: clock_is_ahead(&error),
                };
                meaning(&answer, bucket, at)
            }
            SdkError::ResponseError(_) => {
                let status = status(&error).unwrap_or_default();
                let message = format!("{at} answered (HTTP {status}) unlike an S3 server: {}; check its address", cause());
                (Kind::Unreachable, message)
            }
            _ => {
                let cause = cause();
                if cause.contains("redential") {
                    let message = format!(
                        "no credentials for bucket `{bucket}` ({cause}): set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, a profile, or a role"
                    );
                    (Kind::Permission, message)
                } else {
                    (Kind::Unreachable, format!("cannot reach {at}: {cause}"))
                }
            }
        };
        Fault::new(kind, message).into()
    }
}

fn meaning(answer: &Answer<'_>, bucket: &str, at: &str) -> (Kind, String) {
    let Answer { status, code, message, .. } = answer;
    let words: Vec<&str> = [*code, *message].into_iter().filter(|said| !said.is_empty()).collect();
    let said = format!("HTTP {status} {}", words.join(": "));
    let said = said.trim_end();
    if let Some(message) = clock(answer, at, said) {
        return (Kind::Configuration, message);
    }
    match (*status, *code) {
        (_, "NoSuchBucket") => (Kind::Configuration, format!("there is no bucket `{bucket}` at {at} (HTTP {status})")),
        (301 | 307, _)
        | (
            _,
            "AuthorizationHeaderMalformed" | "PermanentRedirect" | "TemporaryRedirect" | "IllegalLocationConstraintException",
        ) => {
            let message =
                format!("bucket `{bucket}` cannot be reached at {at} ({said}): set its store's `region`, or `endpoint`");
            (Kind::Configuration, message)
        }
        (_, "InvalidObjectState") => {
            let message = format!(
                "it is in a storage class whose objects must be thawed before they can be read ({said}): `restore`, `fetch` and `verify` of \
                 `pgtend backups` start that with --thaw"
            );
            (Kind::Deferred, message)
        }
        (401 | 403, _)
        | (
            _,
            "AccessDenied"
            | "InvalidAccessKeyId"
            | "SignatureDoesNotMatch"
            | "ExpiredToken"
            | "InvalidToken"
            | "NotSignedUp"
            | "TokenRefreshRequired"
            | "AllAccessDisabled",
        ) => {
            let what = match *code {
                "InvalidAccessKeyId" | "SignatureDoesNotMatch" => "check the key and its secret",
                "ExpiredToken" | "InvalidToken" | "TokenRefreshRequired" => "get a new session token",
                _ => "see \"What the bucket's policy must allow\" in docs/operations.md",
            };
            (Kind::Permission, format!("bucket `{bucket}` at {at} refuses the credentials ({said}): {what}"))
        }
        (405 | 501, _) | (_, "NotImplemented" | "MethodNotAllowed") => (
            Kind::Configuration,
            format!("{at} does not have the requested object ({said}): check whether this is the address of an S3 server"),
        ),
        (
            400,
            "InvalidRequest"
            | "InvalidArgument"
            | "InvalidBucketName"
            | "InvalidStorageClass"
            | "MissingContentMD5"
            | "EntityTooLarge",
        ) => {
            let hint = match message.to_ascii_lowercase() {
                words if words.contains("content-md5") || words.contains("x-amz-checksum") => {
                    ": set `checksums` of its store to \"md5\" or \"always\""
                }
                _ => "",
            };
            (Kind::Configuration, format!("{at} refuses the request for bucket `{bucket}` ({said}){hint}"))
        }
        (429 | 503, _) | (_, "SlowDown") => (Kind::Unreachable, format!("{at} is too busy for bucket `{bucket}` ({said})")),
        _ => (Kind::Unreachable, format!("{at} answered for bucket `{bucket}`: {said}")),
    }
}

/// Returns the error of a host whose clock is off, if that is what the answer is about.
fn clock(answer: &Answer<'_>, at: &str, said: &str) -> Option<String> {
    let Answer { status, code, clock_is_ahead, .. } = answer;
    // An answer to HEAD has no code: then only the Date of the answer shows that a clock is off.
    let is_off = clock_is_ahead.is_some_and(|ahead| ahead.abs() >= CLOCK_TOLERANCE - TimeDelta::minutes(1));
    if *code != "RequestTimeTooSkewed" && !(matches!(status, 400 | 403) && is_off) {
        return None;
    }
    let by = match clock_is_ahead {
        Some(ahead) if *ahead > TimeDelta::zero() => format!("{} min ahead of", ahead.num_minutes()),
        Some(behind) => format!("{} min behind", behind.num_minutes().abs()),
        None => "more than 15 min off".to_owned(),
    };
    Some(format!("this host's clock is {by} that of {at} ({said}): set it, and let NTP keep it"))
}

fn clock_is_ahead<E>(error: &SdkError<E, HttpResponse>) -> Option<TimeDelta> {
    Some(Utc::now() - date(error)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_told_with_the_server_the_status_and_what_to_do() {
        let minutes = |minutes| Some(TimeDelta::minutes(minutes));
        for (status, code, message, clock_is_ahead, kind, words) in [
            (
                403,
                "RequestTimeTooSkewed",
                "too large",
                minutes(20),
                Kind::Configuration,
                "clock is 20 min ahead of that of https://s3",
            ),
            (403, "", "", minutes(-21), Kind::Configuration, "clock is 21 min behind that of https://s3"),
            (403, "RequestTimeTooSkewed", "too large", None, Kind::Configuration, "more than 15 min off"),
            (403, "AccessDenied", "no", minutes(2), Kind::Permission, "HTTP 403 AccessDenied: no"),
            (403, "SignatureDoesNotMatch", "", None, Kind::Permission, "check the key and its secret"),
            (403, "", "", None, Kind::Permission, "refuses the credentials (HTTP 403)"),
            (403, "InvalidObjectState", "not valid", None, Kind::Deferred, "start that with --thaw"),
            (400, "ExpiredToken", "expired", None, Kind::Permission, "new session token"),
            (404, "NoSuchBucket", "", None, Kind::Configuration, "no bucket `b` at https://s3"),
            (301, "PermanentRedirect", "", None, Kind::Configuration, "`region`"),
            (400, "AuthorizationHeaderMalformed", "expecting 'eu-west-1'", None, Kind::Configuration, "expecting 'eu-west-1'"),
            (405, "", "", None, Kind::Configuration, "HTTP 405"),
            (400, "InvalidRequest", "Content-MD5 is required", None, Kind::Configuration, "set `checksums`"),
            (503, "SlowDown", "Reduce your rate", None, Kind::Unreachable, "too busy"),
            (500, "InternalError", "We", None, Kind::Unreachable, "HTTP 500 InternalError: We"),
            (502, "", "", None, Kind::Unreachable, "HTTP 502"),
        ] {
            let answer = Answer { status, code, message, clock_is_ahead };
            let (found, said) = meaning(&answer, "b", "https://s3");
            assert_eq!(found, kind, "{said}");
            let names_the_server = said.contains("https://s3") || code == "InvalidObjectState";
            assert!(said.contains(words) && names_the_server, "{said}");
        }
    }
}
