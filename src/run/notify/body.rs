//! The form that each service wants a message in: pure. Names and errors are others' text. In every form they stay text: they mention nobody, link to
//! nothing and end no field.

use serde_json::{Value, json};
use url::Url;

use super::event::Event;
use super::message::{Message, Severity};
use crate::config::notify::On;
use crate::ledger;

/// Slack splits texts that are longer (docs.slack.dev, chat.postMessage: "limit … to 4,000 characters"), and cuts them at 40,000.
const SLACK_LETTERS: usize = 4_000;
/// Discord refuses longer ones: title 256, description 4096 (Discord's developer documentation, "Embed Limits").
const DISCORD_TITLE_LETTERS: usize = 256;
const DISCORD_LETTERS: usize = 4_096;
/// Teams refuses messages of more than 28 KB (Microsoft Learn, "Create an Incoming Webhook"); what surrounds the text is less than 1 KB.
const TEAMS_BYTES: usize = 20_000;
/// Telegram: 1 to 4096 characters after its entities are parsed, which are UTF-16 units (core.telegram.org/bots/api#sendmessage).
const TELEGRAM_UNITS: usize = 4_096;
/// ntfy makes an attachment of a message that is longer (docs.ntfy.sh/publish, "Limitations": 4,096 bytes).
const NTFY_BYTES: usize = 4_000;

/// Returns the body of Slack's incoming webhooks. `&`, `<` and `>` begin all that is no text there: mentions as `<!channel>`, links.
pub fn slack(message: &Message) -> Value {
    let text = cut(&message.text(), SLACK_LETTERS, |letter| match letter {
        '&' => 5,
        '<' | '>' => 4,
        _ => 1,
    });
    json!({ "text": as_html(&text), "mrkdwn": false, "unfurl_links": false, "unfurl_media": false })
}

/// Returns the body of Discord's webhooks: an embed, whose text mentions nobody, and a ban on mentions besides.
pub fn discord(message: &Message) -> Value {
    let escaped_letters = |letter: char| if is_markdown(letter) { 2 } else { 1 };
    let title = cut(&format!("{} {}", message.severity.sign(), message.title), DISCORD_TITLE_LETTERS, escaped_letters);
    let text = cut(&message.lines.join("\n"), DISCORD_LETTERS, escaped_letters);
    let color = match message.severity {
        Severity::Good => 0x2e7d32,
        Severity::Warning => 0xf9a825,
        Severity::Bad => 0xc62828,
    };
    json!({
        "username": "pgtend",
        "embeds": [{ "title": without_markdown(&title), "description": without_markdown(&text), "color": color }],
        "allowed_mentions": { "parse": [] },
    })
}

/// Returns an adaptive card in a message, for webhooks of Teams (Workflows). A RichTextBlock has no Markdown; a TextBlock would.
pub fn teams(message: &Message) -> Value {
    let title = format!("{} {}", message.severity.sign(), message.title);
    let text = cut(&message.lines.join("\n"), TEAMS_BYTES, json_bytes);
    let block = |text: &str, size: &str, weight: &str| json!({ "type": "RichTextBlock", "inlines": [{ "type": "TextRun", "text": text, "size": size, "weight": weight }] });
    let lines = text.split('\n').filter(|line| !line.is_empty()).map(|line| block(line, "default", "default"));
    let body: Vec<Value> = std::iter::once(block(&title, "medium", "bolder")).chain(lines).collect();
    json!({
        "type": "message",
        "attachments": [{
            "contentType": "application/vnd.microsoft.card.adaptive",
            "contentUrl": null,
            "content": { "$schema": "http://adaptivecards.io/schemas/adaptive-card.json", "type": "AdaptiveCard", "version": "1.4", "body": body },
        }],
    })
}

/// Returns the body of Telegram's sendMessage. In `<pre>`, @names, /commands and links are text.
pub fn telegram(message: &Message, chat: &str) -> Value {
    let heading = heading(message.severity);
    let left = TELEGRAM_UNITS.saturating_sub(heading.encode_utf16().count() + 1);
    let text = cut(&format!("{}\n{}", message.title, message.lines.join("\n")), left, char::len_utf16);
    json!({
        "chat_id": chat,
        "text": format!("{heading}\n<pre>{}</pre>", as_html(text.trim_end())),
        "parse_mode": "HTML",
        "link_preview_options": { "is_disabled": true },
        "disable_notification": message.severity == Severity::Good,
    })
}

/// Returns the URL and the body by which ntfy takes JSON: the topic is in the body, and titles need no header. `None` if the URL has no topic.
pub fn ntfy(message: &Message, url: &Url) -> Option<(Url, Value)> {
    let topic = url.path_segments()?.rfind(|segment| !segment.is_empty())?.to_owned();
    let mut server = url.clone();
    server.path_segments_mut().ok()?.pop_if_empty().pop();
    let text = cut(&message.lines.join("\n"), NTFY_BYTES, char::len_utf8);
    let (priority, tag) = match message.severity {
        Severity::Good => (2, "white_check_mark"),
        Severity::Warning => (4, "warning"),
        Severity::Bad => (5, "rotating_light"),
    };
    Some((server, json!({ "topic": topic, "title": message.title, "message": text, "priority": priority, "tags": [tag] })))
}

/// Returns the document of `kind = "webhook"`: the message, and each event as `webhook_url` gets it.
pub fn webhook(message: &Message, events: &[Event]) -> Value {
    /// A receiver takes in a few hundred KB.
    const EVENTS_MOST: usize = 200;
    let listed: Vec<Value> =
        events.iter().filter(|event| event.on() != On::Digest).take(EVENTS_MOST).map(Event::document).collect();
    json!({
        "title": message.title,
        "severity": message.severity,
        "text": message.text(),
        "lines": message.lines,
        "events": listed,
        "events_left_out": events.len().saturating_sub(EVENTS_MOST),
        "host": ledger::host(),
        "version": env!("CARGO_PKG_VERSION"),
    })
}

/// Returns subject and text of a mail.
pub fn mail(message: &Message) -> (String, String) {
    let text = format!(
        "{}\n\n{}\n\n-- \npgtend {} on {}\n",
        message.title,
        message.lines.join("\n"),
        env!("CARGO_PKG_VERSION"),
        ledger::host()
    );
    (format!("pgtend: {}", message.title), text)
}

fn heading(severity: Severity) -> String {
    let word = match severity {
        Severity::Good => "pgtend: good news",
        Severity::Warning => "pgtend: a warning",
        Severity::Bad => "pgtend: a failure",
    };
    format!("{} <b>{word}</b>", severity.sign())
}

/// Cuts a text to a size that is the sum of its letters' sizes.
fn cut(text: &str, most: usize, size: impl Fn(char) -> usize) -> String {
    const END: &str = " …";
    if text.chars().map(&size).sum::<usize>() <= most {
        return text.to_owned();
    }
    let mut left = most.saturating_sub(END.chars().map(&size).sum());
    let mut kept = String::with_capacity(text.len().min(most));
    for letter in text.chars() {
        let Some(rest) = left.checked_sub(size(letter)) else { break };
        left = rest;
        kept.push(letter);
    }
    kept + END
}

fn as_html(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

/// The bytes of a letter in JSON.
fn json_bytes(letter: char) -> usize {
    match letter {
        '"' | '\\' | '\n' => 2,
        letter => letter.len_utf8(),
    }
}

/// Punctuation that has a meaning in Discord's Markdown, mentions and links.
fn is_markdown(letter: char) -> bool {
    matches!(letter, '\\' | '*' | '_' | '~' | '`' | '|' | '>' | '<' | '[' | ']' | '(' | ')' | '#' | '@' | ':' | '-')
}

fn without_markdown(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len() + 16);
    for letter in text.chars() {
        if is_markdown(letter) {
            escaped.push('\\');
        }
        escaped.push(letter);
    }
    escaped
}

#[cfg(test)]
#[path = "body_tests.rs"]
mod tests;
