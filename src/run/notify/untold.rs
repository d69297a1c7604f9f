//! Messages that nobody got, in words, with what to do. Pure.

use chrono::{DateTime, Utc};
use schemars::JsonSchema;
use serde::Serialize;

use crate::base::units::plural;
use crate::ledger::Untold;

/// What it is about: "messages to ops".
pub fn about(untold: &Untold) -> String {
    format!("messages to {}", untold.target)
}

pub fn in_words(untold: &Untold) -> String {
    let Untold { target, is_configured, is_given_up, messages, since, error } = untold;
    let count = plural(usize::try_from(*messages).unwrap_or_default(), "message");
    let since = since.format("%Y-%m-%d %H:%M UTC");
    let (was, waits) = if *messages == 1 { ("was", "waits") } else { ("were", "wait") };
    let without = format!("the configuration has no [notify.{target}]");
    let why = error.as_ref().map_or(String::new(), |error| format!(": {error}"));
    match (is_given_up, is_configured) {
        (true, true) => format!(
            "{count} since {since} {was} given up{why}: `pgtend notify test {target}` says whether the service takes messages now, and `pgtend runs` what \
             nobody was told"
        ),
        (true, false) => {
            format!("{count} since {since} {was} given up, as {without}{why}: `pgtend runs` says what nobody was told")
        }
        (false, _) => format!(
            "{count} since {since} {waits}, and {without}{why}: if it has another name now, write it once more under the old one until they are sent; \
             a week after they came they are given up"
        ),
    }
}

/// As `pgtend` and `/api/jobs` show it.
#[derive(Serialize, JsonSchema)]
#[schemars(rename = "Untold")]
pub struct Shown<'u> {
    /// The name of [notify.NAME].
    place: &'u str,
    /// The configuration has it.
    configured: bool,
    /// false: they wait for a place that the configuration does not have.
    given_up: bool,
    messages: u64,
    /// When the first of them came.
    since: DateTime<Utc>,
    /// Why the last try failed.
    error: Option<&'u str>,
    /// All of it in words, with what to do.
    said: String,
}

impl<'u> From<&'u Untold> for Shown<'u> {
    fn from(untold: &'u Untold) -> Self {
        Self {
            place: &untold.target,
            configured: untold.is_configured,
            given_up: untold.is_given_up,
            messages: untold.messages.unsigned_abs(),
            since: untold.since,
            error: untold.error.as_deref(),
            said: in_words(untold),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_nobody_got_is_said_with_since_when_how_many_why_and_what_to_do() {
        let untold = |is_configured, is_given_up, messages, error: Option<&str>| Untold {
            target: "ops".to_owned(),
            is_configured,
            is_given_up,
            messages,
            since: "2026-11-29T02:00:00Z".parse().unwrap(),
            error: error.map(str::to_owned),
        };
        for (untold, says) in [
            (
                untold(true, true, 3, Some("HTTP 404 Not Found: gone")),
                "3 messages since 2026-11-29 02:00 UTC were given up: HTTP 404 Not Found: gone: `pgtend notify test ops` says",
            ),
            (
                untold(false, true, 1, None),
                "1 message since 2026-11-29 02:00 UTC was given up, as the configuration has no [notify.ops]: `pgtend runs`",
            ),
            (
                untold(false, false, 1, None),
                "1 message since 2026-11-29 02:00 UTC waits, and the configuration has no [notify.ops]: if it has another name",
            ),
            (
                untold(false, false, 2, Some("HTTP 500")),
                "2 messages since 2026-11-29 02:00 UTC wait, and the configuration has no [notify.ops]: HTTP 500: if",
            ),
        ] {
            assert!(in_words(&untold).starts_with(says), "{}", in_words(&untold));
        }
    }
}
