//! Sends HTTP requests to monitors and chat services: bounded in time and tries. URLs are secrets, and appear in no message.

use std::path::Path;
use std::time::Duration;

use anyhow::Result;
use chrono::{DateTime, Utc};
use reqwest::header::{HeaderMap, LOCATION, RETRY_AFTER};
use reqwest::redirect::{Action, Attempt, Policy};
use reqwest::{RequestBuilder, Response, StatusCode};
use serde_json::Value;

use super::answer::{self, Answerer};
use super::secrets::Secrets;
use crate::base::{ca_file, network};

/// The time for one try, in total.
const TIMEOUT: Duration = Duration::from_secs(10);
/// The pauses between tries: there are three tries.
const PAUSES: [Duration; 2] = [Duration::from_secs(1), Duration::from_secs(4)];
/// A server that wants a longer pause than this gets the message later.
const LONGEST_PAUSE: Duration = Duration::from_secs(20);
/// What a server may ask for at most.
const LONGEST_DELAY: Duration = Duration::from_secs(3600);
/// The number of redirects that are followed.
const REDIRECTS: usize = 3;
/// An answer is read up to this size.
const ANSWER_BYTES: usize = 2_000;

/// Why a message has not arrived.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NotSent {
    pub why: String,
    /// Another try has a chance now.
    pub may_pass: bool,
    /// Not before this time: the server asked for it.
    pub not_before: Option<Duration>,
}

/// The redirects that are followed.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Redirects {
    /// Every redirect: pings are GETs, and stay GETs.
    All,
    /// Only 307 and 308, which repeat a POST with its message. The others would turn it into a GET, which reports nothing but
    /// looks delivered.
    RepeatsAlone,
}

pub fn client(ca_file: Option<&Path>, redirects: Redirects) -> Option<reqwest::Client> {
    // reqwest takes the process's provider, and chooses none itself (feature rustls-no-provider).
    let _ = rustls::crypto::ring::default_provider().install_default();
    match build(ca_file, redirects) {
        Ok(client) => Some(client),
        Err(error) => {
            tracing::error!("cannot create an HTTP client, so no pings and no messages are sent: {error:#}");
            None
        }
    }
}

/// Trusts the system's CAs (or those of SSL_CERT_FILE) and those of the file.
fn build(ca_file: Option<&Path>, redirects: Redirects) -> Result<reqwest::Client> {
    let agent = concat!("pgtend/", env!("CARGO_PKG_VERSION"));
    let mut builder = reqwest::Client::builder().user_agent(agent).timeout(TIMEOUT);
    builder = builder.redirect(Policy::custom(move |attempt| redirected(attempt, redirects)));
    if let Some(path) = ca_file {
        let pem = ca_file::read(path).map_err(|why| anyhow::anyhow!("`ca_file` of [notify]: {why}"))?;
        let certificates: Result<Vec<_>, _> = pem.certificates.iter().map(|der| reqwest::Certificate::from_der(der)).collect();
        builder = builder.tls_certs_merge(certificates?);
    }
    Ok(builder.build()?)
}

/// Follows a redirect on one server, at most from `http` to `https`: the URL is a secret of that server, and the posted message
/// is for it alone.
fn redirected(attempt: Attempt<'_>, redirects: Redirects) -> Action {
    let to = attempt.url();
    let is_same_server = attempt.previous().first().is_some_and(|asked| {
        let is_same_port = asked.scheme() == to.scheme() && asked.port_or_known_default() == to.port_or_known_default();
        let is_upgrade = asked.scheme() == "http" && to.scheme() == "https";
        asked.host() == to.host() && (is_same_port || is_upgrade)
    });
    let repeats = matches!(attempt.status(), StatusCode::TEMPORARY_REDIRECT | StatusCode::PERMANENT_REDIRECT);
    let is_allowed = is_same_server && (repeats || redirects == Redirects::All) && attempt.previous().len() <= REDIRECTS;
    if is_allowed { attempt.follow() } else { attempt.stop() }
}

/// Makes an attempt, up to three while another one has a chance. Returns what the server answered.
pub async fn deliver<T, F: Future<Output = Result<T, NotSent>>>(mut attempt: impl FnMut() -> F) -> Result<T, NotSent> {
    let mut failed = 0;
    loop {
        let not_sent = match attempt().await {
            Ok(answer) => return Ok(answer),
            Err(not_sent) => not_sent,
        };
        let Some(pause) = pause_after(&not_sent, failed) else { return Err(not_sent) };
        failed += 1;
        tokio::time::sleep(pause).await;
    }
}

/// Returns the pause before another attempt; none if that has no chance, or not soon. `failed` counts the attempts before this one.
fn pause_after(not_sent: &NotSent, failed: usize) -> Option<Duration> {
    let asked_for = not_sent.not_before.unwrap_or_default();
    let pause = PAUSES.get(failed).filter(|_| not_sent.may_pass && asked_for <= LONGEST_PAUSE)?;
    Some(asked_for.max(*pause))
}

/// Sends a request once. Returns status and answer in words, without `secrets`.
pub async fn once(request: RequestBuilder, from: Answerer, secrets: &Secrets) -> Result<String, NotSent> {
    let mut response = match request.send().await {
        Ok(response) => response,
        Err(error) => {
            // Anyone who knows the URL can write there.
            let error = error.without_url();
            let why = if error.is_timeout() { "no answer in time".to_owned() } else { secrets.masked(&cause(&error)) };
            return Err(NotSent { why, may_pass: true, not_before: None });
        }
    };
    let status = response.status();
    if status.is_redirection() {
        return Err(NotSent { why: redirected_in_words(&response), may_pass: false, not_before: None });
    }
    let headers = response.headers().clone();
    let answer = start_of(&mut response).await;
    let said = super::message::shortened(secrets.masked(&answer).trim(), 200);
    let in_words = if said.is_empty() { format!("HTTP {status}") } else { format!("HTTP {status}: {said}") };
    if status.is_success() {
        return match answer::denies(from, &answer) {
            // It may be a limit of a moment: what came too early is sent again, and what is wrong for good is told once more.
            true => Err(NotSent { why: format!("it did not take the message: {in_words}"), may_pass: true, not_before: None }),
            false => Ok(in_words),
        };
    }
    let may_pass = status.is_server_error() || matches!(status, StatusCode::TOO_MANY_REQUESTS | StatusCode::REQUEST_TIMEOUT);
    Err(NotSent { why: in_words, may_pass, not_before: wanted_pause(&headers, &answer, Utc::now()) })
}

fn cause(error: &reqwest::Error) -> String {
    network::cause_of(error, "`ca_file` of [notify], or in SSL_CERT_FILE")
}

/// Reads the beginning of an answer: it may be endless.
async fn start_of(response: &mut Response) -> String {
    let mut read = Vec::new();
    while read.len() < ANSWER_BYTES {
        match response.chunk().await {
            Ok(Some(chunk)) => read.extend_from_slice(&chunk),
            Ok(None) | Err(_) => break,
        }
    }
    read.truncate(ANSWER_BYTES);
    String::from_utf8_lossy(&read).into_owned()
}

/// Returns the pause that the server asks for: the header Retry-After, in seconds or as a date (RFC 9110, 10.2.3), or `retry_after` in the answers of
/// Discord and Telegram.
fn wanted_pause(headers: &HeaderMap, answer: &str, now: DateTime<Utc>) -> Option<Duration> {
    let header = headers.get(RETRY_AFTER).and_then(|header| header.to_str().ok());
    let seconds = header.and_then(|header| match header.trim().parse::<u64>() {
        Ok(seconds) => Some(seconds as f64),
        Err(_) => DateTime::parse_from_rfc2822(header.trim()).ok().map(|at| (at.to_utc() - now).num_seconds() as f64),
    });
    let of_json = || {
        let json: Value = serde_json::from_str(answer).ok()?;
        ["/retry_after", "/parameters/retry_after"].into_iter().find_map(|place| json.pointer(place)?.as_f64())
    };
    let seconds = seconds.or_else(of_json).filter(|seconds| *seconds > 0.0)?;
    Some(Duration::from_secs_f64(seconds.min(LONGEST_DELAY.as_secs_f64())))
}

/// Describes the redirect without its path, which may be a secret.
fn redirected_in_words(response: &Response) -> String {
    let location = response.headers().get(LOCATION).and_then(|location| location.to_str().ok());
    let to = location.and_then(|location| response.url().join(location).ok()).map(|to| to.origin().ascii_serialization());
    let to = to.unwrap_or_else(|| "nowhere".to_owned());
    format!("HTTP {}: it redirects to {to}, which is not followed: configure the final URL", response.status().as_u16())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_pause_that_a_server_asks_for_is_read_in_each_form_and_bounded() {
        let now = "2026-11-30T12:00:00Z".parse().unwrap();
        let pause = |header: Option<&str>, answer: &str| {
            let mut headers = HeaderMap::new();
            if let Some(header) = header {
                headers.insert(RETRY_AFTER, header.parse().unwrap());
            }
            wanted_pause(&headers, answer, now).map(|pause| pause.as_secs_f64())
        };
        for (header, answer, expected) in [
            (None, "", None),
            (Some("7"), "", Some(7.0)),
            (Some("Mon, 30 Nov 2026 12:01:00 GMT"), "", Some(60.0)),
            (Some("Mon, 30 Nov 2026 11:00:00 GMT"), "", None),
            (Some("soon"), "", None),
            (Some("-5"), "", None),
            (Some("99999999999"), "", Some(3600.0)),
            (None, r#"{"retry_after": 0.5, "global": false}"#, Some(0.5)),
            (None, r#"{"ok": false, "parameters": {"retry_after": 31}}"#, Some(31.0)),
            (None, r#"{"retry_after": 1e300}"#, Some(3600.0)),
            (None, r#"{"retry_after": "x"}"#, None),
        ] {
            assert_eq!(pause(header, answer), expected, "{header:?} {answer}");
        }
    }

    #[test]
    fn a_refusal_is_not_repeated_and_what_may_pass_is_tried_three_times() {
        for (may_pass, not_before, pauses) in
            [(false, None, vec![]), (true, None, vec![1, 4]), (true, Some(3), vec![3, 4]), (true, Some(600), vec![])]
        {
            let not_sent = NotSent { why: "no".to_owned(), may_pass, not_before: not_before.map(Duration::from_secs) };
            let made: Vec<u64> = (0..9).map_while(|failed| Some(pause_after(&not_sent, failed)?.as_secs())).collect();
            assert_eq!(made, pauses, "{not_sent:?}");
        }
    }
}
