//! What a service says in the body of an answer whose status is a success: some say there that they did not take the message.

use serde_json::Value;

/// Who answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answerer {
    /// Slack and what speaks as Slack does.
    Slack,
    /// Discord, Telegram, ntfy: JSON, or nothing.
    Json,
    Teams,
    /// Whatever listens at `webhook_url` or at a `[notify.NAME]` of kind webhook.
    Webhook,
    /// A monitor such as healthchecks.
    Monitor,
}

/// Returns whether the answer says that the message was not taken. Pure.
///
/// - Slack answers `ok`, and a word such as `invalid_payload` otherwise; Mattermost, Rocket.Chat and Slack's own API answer JSON with `ok` or `success`.
/// - Telegram answers JSON with `ok` (Bot API, "Making requests"); Discord nothing, or the message; ntfy the message.
/// - Teams passes on what failed behind it: "Webhook message delivery failed with error: … HTTP error 429".
/// - Healthchecks answers a ping of a check that it does not know with "OK (not found)", and one too many with "OK (rate limited)".
/// - A page of HTML is that of a login or a proxy, where a program should have answered.
pub fn denies(from: Answerer, answer: &str) -> bool {
    let answer = answer.trim();
    if let Ok(json @ Value::Object(_)) = serde_json::from_str(answer) {
        let is = |key: &str, value: bool| json.get(key) == Some(&Value::Bool(value));
        let has_error = json.get("error").is_some_and(|error| !matches!(error, Value::Null | Value::Bool(false)));
        return is("ok", false) || is("success", false) || (has_error && !is("ok", true) && !is("success", true));
    }
    let lower = answer.to_ascii_lowercase();
    let is_page = lower.starts_with("<!doctype") || lower.starts_with("<html");
    match from {
        Answerer::Slack => !answer.is_empty() && lower != "ok",
        Answerer::Json => is_page,
        Answerer::Teams => is_page || lower.contains("failed") || lower.contains("error"),
        Answerer::Webhook => false,
        Answerer::Monitor => lower.contains("(not found)") || lower.contains("(rate limited)"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_that_says_no_with_the_status_of_a_success_is_a_refusal() {
        for (from, answer, is_denied) in [
            (Answerer::Slack, "ok", false),
            (Answerer::Slack, " ok\n", false),
            (Answerer::Slack, "", false),
            (Answerer::Slack, r#"{"success":true}"#, false),
            (Answerer::Slack, r#"{"ok":true,"error":"a warning"}"#, false),
            (Answerer::Slack, "invalid_payload", true),
            (Answerer::Slack, r#"{"ok":false,"error":"not_authed"}"#, true),
            (Answerer::Slack, "<!DOCTYPE html><title>Sign in</title>", true),
            (Answerer::Json, r#"{"ok":true,"result":{"message_id":1}}"#, false),
            (Answerer::Json, r#"{"ok":false,"error_code":403,"description":"Forbidden: bot was kicked"}"#, true),
            (Answerer::Json, r#"{"id":"x","event":"message"}"#, false),
            (Answerer::Json, r#"{"code":40003,"error":"no"}"#, true),
            (Answerer::Json, "", false),
            (Answerer::Json, "\n<html><body>Sign in", true),
            (Answerer::Teams, "1", false),
            (Answerer::Teams, "", false),
            (
                Answerer::Teams,
                "Webhook message delivery failed with error: Microsoft Teams endpoint returned HTTP error 429",
                true,
            ),
            (Answerer::Webhook, "<html>thanks", false),
            (Answerer::Webhook, r#"{"ok":false}"#, true),
            (Answerer::Webhook, "no", false),
            (Answerer::Monitor, "OK", false),
            (Answerer::Monitor, "<html>pong", false),
            (Answerer::Monitor, r#"{"ok":false,"msg":"Monitor not found or not active."}"#, true),
            (Answerer::Monitor, "OK (not found)", true),
            (Answerer::Monitor, "OK (rate limited)", true),
        ] {
            assert_eq!(denies(from, answer), is_denied, "{from:?}: {answer}");
        }
    }
}
