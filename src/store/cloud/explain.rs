//! Explains errors of Azure and Google: their meaning, and what to do.

use std::error::Error;

use chrono::TimeDelta;

use super::Cloud;
use super::answer::Answer;
use super::http_client::{NoToken, Silent};
use crate::base::fault::{Fault, Kind};
use crate::base::network;
use crate::config::Provider;
use crate::store::object::Locked;

/// Azure accepts requests that are signed within a quarter of an hour of its own time (REST API, "Authorize with Shared Key").
const CLOCK_TOLERANCE: TimeDelta = TimeDelta::minutes(14);

/// What messages call the place, and what it takes to use it.
struct Words {
    /// "container `a` of account `b`", "bucket `a`".
    place: String,
    /// Where credentials come from.
    credentials: &'static str,
    /// The least role that suffices.
    role: &'static str,
}

impl Cloud {
    /// Turns an error into one with its kind, which names the server and says what to do.
    pub(super) fn explain(&self, error: &(dyn Error + 'static)) -> anyhow::Error {
        let (words, at) = (self.words(), &self.at);
        if let Some(no_token) = find::<NoToken>(error) {
            let cause = no_token.answer.clone().unwrap_or_else(|| network::cause_of(no_token, "`ca_file` of its store"));
            let message = format!("no credentials for {} ({}: {cause}): {}", words.place, no_token.host, words.credentials);
            return Fault::new(Kind::Permission, message).into();
        }
        let (kind, message) = match Answer::of(error) {
            Some(answer) => meaning(answer, &words, at),
            None if find::<Silent>(error).is_some() => (Kind::Unreachable, format!("{at} did not answer in time")),
            None if is_of_the_network(error) => {
                let cause = network::cause_of(error, "`ca_file` of its store, or in SSL_CERT_FILE");
                (Kind::Unreachable, format!("cannot reach {at}: {cause}"))
            }
            None => (Kind::Unreachable, format!("{at} answered unlike a server of {}: {error}; check its address", self.name())),
        };
        Fault::new(kind, message).into()
    }

    /// Returns an error that is a [`Locked`] when a policy keeps the object.
    pub(super) fn explain_delete(&self, key: &str, error: &(dyn Error + 'static)) -> anyhow::Error {
        let (location, words) = (self.location(key), self.words());
        match Answer::of(error) {
            Some(answer) if keeps(answer) => {
                let message = format!("{location} is kept by a policy of the provider, until an unknown time: {answer}");
                anyhow::Error::new(Locked { until: None }).context(Fault::new(Kind::Permission, message))
            }
            Some(answer) if answer.status == 403 => {
                let message = format!(
                    "the credentials for {} at {} may not delete {location}: give them the role {}, or let another host prune",
                    words.place, self.at, words.role
                );
                self.explain(error).context(Fault::new(Kind::Permission, message))
            }
            _ => self.explain(error),
        }
    }

    fn words(&self) -> Words {
        match &self.configured.provider {
            Provider::Azure { account, container } => Words {
                place: format!("container `{container}` of account `{account}`"),
                credentials: "set AZURE_STORAGE_ACCOUNT_KEY or AZURE_STORAGE_SAS_TOKEN, name a `credentials_file`, or give this machine an identity",
                role: "Storage Blob Data Contributor",
            },
            Provider::Google { bucket } => Words {
                place: format!("bucket `{bucket}`"),
                credentials: "set GOOGLE_APPLICATION_CREDENTIALS, name a `credentials_file`, or give this machine a service account",
                role: "Storage Object User (roles/storage.objectUser)",
            },
        }
    }

    fn name(&self) -> &'static str {
        match self.configured.provider {
            Provider::Azure { .. } => "Azure Blob Storage",
            Provider::Google { .. } => "Google Cloud Storage",
        }
    }
}

fn meaning(answer: &Answer, words: &Words, at: &str) -> (Kind, String) {
    let Words { place, credentials, role } = words;
    if let Some(message) = clock(answer, at) {
        return (Kind::Configuration, message);
    }
    if keeps(answer) {
        return (Kind::Permission, format!("{place} at {at}: a policy keeps the object as it is ({answer})"));
    }
    match (answer.status, answer.code.as_str()) {
        (_, "ContainerNotFound" | "NoSuchBucket" | "ContainerBeingDeleted") => {
            (Kind::Configuration, format!("there is no {place} at {at} (HTTP {})", answer.status))
        }
        (401, _) | (_, "AuthenticationFailed" | "InvalidAuthenticationInfo" | "KeyBasedAuthenticationNotPermitted") => {
            (Kind::Permission, format!("{place} at {at} refuses the credentials ({answer}): {credentials}"))
        }
        // Azurite's AuthorizationFailure is what Azure calls AuthenticationFailed.
        (403, _) if answer.message.contains("failed to authenticate") => {
            (Kind::Permission, format!("{place} at {at} refuses the credentials ({answer}): {credentials}"))
        }
        (403, _) => {
            (Kind::Permission, format!("{place} at {at} refuses the request ({answer}): the credentials need the role {role}"))
        }
        (409, "BlobArchived") => (
            Kind::Configuration,
            format!("{place} at {at}: the blob is in the archive tier, and cannot be read before it is rehydrated ({answer})"),
        ),
        (400, "InvalidBlockList") => (
            Kind::Busy,
            format!(
                "{place} at {at}: another upload of the same blob was completed, and Azure dropped what this one had sent ({answer})"
            ),
        ),
        (300..=399, _) => (
            Kind::Configuration,
            format!("{at} leads elsewhere for {place} ({answer}), and is not followed: set the right `endpoint`"),
        ),
        (400 | 404 | 405 | 409 | 411 | 412 | 416, _) => (
            Kind::Configuration,
            format!("{at} refuses the request for {place} ({answer}): check its address and its store's keys"),
        ),
        (429 | 503, _) => (Kind::Unreachable, format!("{at} is too busy for {place} ({answer})")),
        _ => (Kind::Unreachable, format!("{at} answered for {place}: {answer}")),
    }
}

/// Immutability policies and legal holds of Azure; retention policies and holds of Google.
fn keeps(answer: &Answer) -> bool {
    matches!(
        answer.code.as_str(),
        "BlobImmutableDueToPolicy" | "BlobImmutableDueToLegalHold" | "RetentionPolicyNotMet" | "ObjectUnderActiveHold"
    ) || (answer.status == 403 && answer.message.contains("retention policy"))
}

/// Returns the error of a host whose clock is off, if that is what the answer is about.
fn clock(answer: &Answer, at: &str) -> Option<String> {
    let ahead = answer.clock_is_ahead.filter(|ahead| ahead.abs() >= CLOCK_TOLERANCE)?;
    if !matches!(answer.status, 400 | 401 | 403) {
        return None;
    }
    let by = match ahead > TimeDelta::zero() {
        true => format!("{} min ahead of", ahead.num_minutes()),
        false => format!("{} min behind", ahead.num_minutes().abs()),
    };
    Some(format!("this host's clock is {by} that of {at} ({answer}): set it, and let NTP keep it"))
}

/// Whether there was no whole answer.
fn is_of_the_network(error: &(dyn Error + 'static)) -> bool {
    find::<reqwest::Error>(error).is_some() || find::<std::io::Error>(error).is_some()
}

fn find<'a, E: Error + 'static>(error: &'a (dyn Error + 'static)) -> Option<&'a E> {
    let mut next = Some(error);
    for _ in 0..32 {
        let error = next?;
        if let Some(found) = error.downcast_ref::<E>() {
            return Some(found);
        }
        next = error.source();
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_told_with_the_server_the_status_and_what_to_do() {
        let words = Words { place: "container `c` of account `a`".to_owned(), credentials: "set a key", role: "Contributor" };
        let minutes = |minutes| Some(TimeDelta::minutes(minutes));
        for (status, code, clock_is_ahead, kind, said) in [
            (403, "AuthenticationFailed", minutes(20), Kind::Configuration, "clock is 20 min ahead of that of https://a"),
            (403, "AuthenticationFailed", minutes(-20), Kind::Configuration, "clock is 20 min behind that of https://a"),
            (403, "AuthenticationFailed", minutes(2), Kind::Permission, "HTTP 403 AuthenticationFailed): set a key"),
            (403, "AuthorizationPermissionMismatch", None, Kind::Permission, "the role Contributor"),
            (404, "ContainerNotFound", None, Kind::Configuration, "there is no container `c` of account `a` at https://a"),
            (409, "BlobImmutableDueToPolicy", None, Kind::Permission, "a policy keeps the object"),
            (409, "BlobArchived", None, Kind::Configuration, "archive tier"),
            (400, "InvalidHeaderValue", None, Kind::Configuration, "HTTP 400 InvalidHeaderValue"),
            (503, "ServerBusy", None, Kind::Unreachable, "too busy"),
            (500, "InternalError", None, Kind::Unreachable, "HTTP 500 InternalError"),
        ] {
            let answer = Answer { status, code: code.to_owned(), message: String::new(), clock_is_ahead };
            let (found, message) = meaning(&answer, &words, "https://a");
            assert_eq!(found, kind, "{message}");
            assert!(message.contains(said) && message.contains("https://a"), "{message}");
        }
    }
}
