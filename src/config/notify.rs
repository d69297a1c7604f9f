//! `[notify]`: the keys as written, each place for messages among them, and what they become.

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;

use chrono_tz::Tz;
use schemars::JsonSchema;
use secrecy::SecretString;
use serde::de::{Deserializer, MapAccess, Visitor};
use serde::{Deserialize, Serialize};
use toml::Spanned;

use crate::base::schedule::{Schedule, Zone};

/// The name of the place that `webhook_url` is: for `notify` of a job and for `pgtend notify test`.
pub const WEBHOOK: &str = "webhook";

/// Who is told of what: set at most one of the three URLs; each table [notify.NAME] is a further place for messages.
#[derive(Debug, Default, JsonSchema)]
pub struct WrittenNotify {
    /// Gets a JSON document by POST when a job fails, recovers or is late.
    #[schemars(with = "Option<String>", regex(pattern = r"^https?://"), example = &"https://monitor.example.com/hook")]
    pub webhook_url: Option<Spanned<String>>,
    /// The environment variable that holds the URL.
    #[schemars(with = "Option<String>")]
    pub webhook_url_env: Option<Spanned<String>>,
    /// The file that holds the URL.
    #[schemars(with = "Option<PathBuf>")]
    pub webhook_url_file: Option<Spanned<PathBuf>>,
    /// A PEM file with the private CA of webhook, pings and messages, beside the system's CAs; relative to the configuration file.
    #[schemars(with = "Option<PathBuf>")]
    pub ca_file: Option<Spanned<PathBuf>>,
    /// The places for messages, each with a name of its own.
    #[schemars(flatten)]
    pub targets: BTreeMap<String, WrittenTarget>,
}

/// By hand: what serde flattens has lost its places in the file.
impl<'de> Deserialize<'de> for WrittenNotify {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Keys;

        impl<'de> Visitor<'de> for Keys {
            type Value = WrittenNotify;

            fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
                f.write_str("a table of keys")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<WrittenNotify, A::Error> {
                let mut written = WrittenNotify::default();
                while let Some(key) = map.next_key::<String>()? {
                    match key.as_str() {
                        "webhook_url" => written.webhook_url = Some(map.next_value()?),
                        "webhook_url_env" => written.webhook_url_env = Some(map.next_value()?),
                        "webhook_url_file" => written.webhook_url_file = Some(map.next_value()?),
                        "ca_file" => written.ca_file = Some(map.next_value()?),
                        _ => drop(written.targets.insert(key, map.next_value()?)),
                    }
                }
                Ok(written)
            }
        }
        deserializer.deserialize_map(Keys)
    }
}

/// A place for messages: a chat, a phone, a mailbox, a program.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(extend("oneOf" = keys_of_kinds()))]
pub struct WrittenTarget {
    /// The service: each has its own form of messages.
    #[schemars(with = "Kind", example = &"slack")]
    pub kind: Spanned<Kind>,
    /// What is told there; default failure, recovery and late.
    #[schemars(with = "Option<Vec<On>>", length(min = 1), extend("uniqueItems" = true), example = ["failure", "recovery", "late", "digest"])]
    pub on: Option<Spanned<Vec<On>>>,
    /// The environment variable that holds the service's URL, which is a secret: whoever knows it may write there.
    #[schemars(with = "Option<String>", example = &"SLACK_URL")]
    pub url_env: Option<Spanned<String>>,
    /// The file that holds the URL; relative to the configuration file.
    #[schemars(with = "Option<PathBuf>", example = &"/run/secrets/slack-url")]
    pub url_file: Option<Spanned<PathBuf>>,
    /// The environment variable that holds the token of a Telegram bot, or of ntfy.
    #[schemars(with = "Option<String>")]
    pub token_env: Option<Spanned<String>>,
    /// The file that holds the token; relative to the configuration file.
    #[schemars(with = "Option<PathBuf>")]
    pub token_file: Option<Spanned<PathBuf>>,
    /// The chat of Telegram: its number, or @NAME of a public channel.
    #[schemars(with = "Option<String>", example = &"-1001234567890")]
    pub chat: Option<Spanned<String>>,
    /// The server of Telegram's Bot API, if it is one of your own; default https://api.telegram.org.
    #[schemars(with = "Option<String>", regex(pattern = r"^https?://"), example = &"http://127.0.0.1:8081")]
    pub server: Option<Spanned<String>>,
    /// The mail server.
    #[schemars(with = "Option<String>", regex(pattern = r"^([^:/@ ]+|[0-9A-Fa-f.]*:[0-9A-Fa-f.]*:[0-9A-Fa-f.:]*)$"), example = &"mail.example.com")]
    pub host: Option<Spanned<String>>,
    /// Its port; default 587, 465 with tls = "tls", and 25 with tls = "none".
    #[schemars(with = "Option<u16>", range(min = 1, max = 65_535), example = 587)]
    pub port: Option<Spanned<u64>>,
    /// "starttls" (the default; a server without it gets no mail), "tls" from the first byte, or "none" for a server on this host.
    #[schemars(with = "Option<MailTls>")]
    pub tls: Option<Spanned<MailTls>>,
    /// The name for the login at the mail server; without it, there is no login.
    #[schemars(with = "Option<String>")]
    pub user: Option<Spanned<String>>,
    /// The environment variable that holds the password of the login.
    #[schemars(with = "Option<String>")]
    pub password_env: Option<Spanned<String>>,
    /// The file that holds the password; relative to the configuration file.
    #[schemars(with = "Option<PathBuf>")]
    pub password_file: Option<Spanned<PathBuf>>,
    /// The sender's address.
    #[schemars(with = "Option<String>", regex(pattern = "@"), example = &"pgtend <pgtend@example.com>")]
    pub from: Option<Spanned<String>>,
    /// The addresses that get the mail.
    #[schemars(with = "Option<Vec<String>>", length(min = 1), inner(regex(pattern = "@")), example = ["dba@example.com"])]
    pub to: Option<Spanned<Vec<Spanned<String>>>>,
    /// When the digest is sent; default "0 8 * * 1", Monday at 8.
    #[schemars(with = "Option<Schedule>", example = &"0 8 * * 1")]
    pub digest: Option<Spanned<Schedule>>,
    /// The time zone of `digest`; default UTC.
    #[schemars(with = "Option<Zone>")]
    pub timezone: Option<Spanned<Zone>>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    Slack,
    Discord,
    Teams,
    Telegram,
    Ntfy,
    Mail,
    Webhook,
}

impl Kind {
    pub const ALL: [Self; 7] = [Self::Slack, Self::Discord, Self::Teams, Self::Telegram, Self::Ntfy, Self::Mail, Self::Webhook];

    pub fn name(self) -> &'static str {
        match self {
            Self::Slack => "slack",
            Self::Discord => "discord",
            Self::Teams => "teams",
            Self::Telegram => "telegram",
            Self::Ntfy => "ntfy",
            Self::Mail => "mail",
            Self::Webhook => "webhook",
        }
    }

    /// Returns the keys that it must have, then those that it may have; `url` stands for `url_env` or `url_file`, and so do the other secrets.
    pub fn keys(self) -> (&'static [&'static str], &'static [&'static str]) {
        match self {
            Self::Slack | Self::Discord | Self::Teams | Self::Webhook => (&["url"], &[]),
            Self::Telegram => (&["token", "chat"], &["server"]),
            Self::Ntfy => (&["url"], &["token"]),
            Self::Mail => (&["host", "from", "to"], &["port", "tls", "user", "password"]),
        }
    }
}

/// The keys that depend on the kind.
const OF_KINDS: [&str; 11] = ["url", "token", "chat", "server", "host", "port", "tls", "user", "password", "from", "to"];

/// The keys whose value stands elsewhere.
pub const SECRETS: [&str; 3] = ["url", "token", "password"];

/// The events that a place for messages can be told.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum On {
    /// A run that did not succeed, after its last attempt.
    Failure,
    /// The first success after a failure, or of a job that was late.
    Recovery,
    /// The last success is older than the schedule allows; told once.
    Late,
    /// Every other success.
    Success,
    /// What is safe and what is not, once a week.
    Digest,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum MailTls {
    #[default]
    Starttls,
    Tls,
    None,
}

/// Each kind with the keys that it needs and without those of others, for the JSON Schema.
fn keys_of_kinds() -> serde_json::Value {
    use serde_json::json;
    let written = |key: &str| match SECRETS.contains(&key) {
        true => vec![format!("{key}_env"), format!("{key}_file")],
        false => vec![key.to_owned()],
    };
    let one_of = |key: &str| json!({ "oneOf": written(key).iter().map(|key| json!({ "required": [key] })).collect::<Vec<_>>() });
    let without = |schema: serde_json::Value| json!({ "not": schema });
    let both_or_none = |one: &str, other: &str| json!({ "anyOf": [{ "allOf": [one_of(one), one_of(other)] }, { "allOf": [without(one_of(one)), without(one_of(other))] }] });
    let of_kind = |kind: Kind| {
        let (needed, possible) = kind.keys();
        let is_of_others = |key: &&str| !needed.contains(key) && !possible.contains(key);
        let others: Vec<_> = OF_KINDS.into_iter().filter(is_of_others).flat_map(written).collect();
        let others: Vec<_> = others.iter().map(|key| json!({ "required": [key] })).collect();
        let mut needs: Vec<_> = needed.iter().map(|key| one_of(key)).collect();
        if kind == Kind::Mail {
            needs.push(both_or_none("user", "password"));
        }
        let name = json!({ "const": kind.name(), "description": "The service." });
        json!({ "properties": { "kind": name }, "allOf": needs, "not": { "anyOf": others } })
    };
    serde_json::Value::Array(Kind::ALL.into_iter().map(of_kind).collect())
}

/// `[notify]`, resolved.
#[derive(Clone, Debug, Default)]
pub struct Notify {
    pub webhook_url: Option<SecretString>,
    /// A PEM file of private CAs, for webhook, pings and messages.
    pub ca_file: Option<PathBuf>,
    pub targets: Vec<Target>,
}

impl Notify {
    /// Returns the names of all places for messages.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.webhook_url.iter().map(|_| WEBHOOK).chain(self.targets.iter().map(|target| target.name.as_str()))
    }

    pub fn has(&self, name: &str) -> bool {
        self.names().any(|known| known == name)
    }
}

/// A place for messages, by its name in the configuration.
#[derive(Clone, Debug)]
pub struct Target {
    pub name: String,
    pub service: Service,
    pub on: Vec<On>,
    pub digest: Schedule,
    pub timezone: Tz,
}

#[derive(Clone, Debug)]
pub enum Service {
    Slack {
        url: SecretString,
    },
    Discord {
        url: SecretString,
    },
    Teams {
        url: SecretString,
    },
    Telegram {
        server: String,
        token: SecretString,
        chat: String,
    },
    /// The URL of a topic, whose name is the secret where the server asks for no token.
    Ntfy {
        url: SecretString,
        token: Option<SecretString>,
    },
    Webhook {
        url: SecretString,
    },
    Mail(Mail),
}

#[derive(Clone, Debug)]
pub struct Mail {
    pub host: String,
    pub port: u16,
    pub tls: MailTls,
    /// Name and password.
    pub login: Option<(String, SecretString)>,
    pub from: String,
    pub to: Vec<String>,
}
