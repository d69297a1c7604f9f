//! `[notify]` and each `[notify.NAME]`.

use std::collections::BTreeSet;
use std::ops::Range;

use secrecy::SecretString;
use toml::Spanned;

use super::Loader;
use crate::base::network::is_this_machine;
use crate::base::schedule::Schedule;
use crate::config::notify::{Kind, Mail, MailTls, Notify, On, SECRETS, Service, Target, WEBHOOK, WrittenNotify, WrittenTarget};
use crate::config::secret::{Secret, checked_http_url};

const TELEGRAM: &str = "https://api.telegram.org";
/// Monday at 8.
const DIGEST: &str = "0 8 * * 1";
const ON: [On; 3] = [On::Failure, On::Recovery, On::Late];

impl Loader<'_> {
    /// The places with mistakes are left out, and their names go to `mistaken`.
    pub(super) fn notify(&mut self, written: WrittenNotify, mistaken: &mut BTreeSet<String>) -> Notify {
        let WrittenNotify { webhook_url, webhook_url_env, webhook_url_file, ca_file, targets } = written;
        let ca_file = ca_file.and_then(|ca_file| self.ca_file(ca_file, "[notify]"));
        let secret =
            Secret { key: "webhook_url", of: "[notify]", literal: webhook_url, env: webhook_url_env, file: webhook_url_file };
        let webhook_url = self.secret(secret);
        let webhook_url = webhook_url.and_then(|(url, span)| checked_http_url(url, span, "[notify]", self.source, self.problems));
        if let (Some(target), true) = (targets.get(WEBHOOK), webhook_url.is_some()) {
            let message = "`webhook_url` has the name `webhook` already".to_owned();
            self.problem(&target.kind, message, "give [notify.webhook] another name");
        }
        let mut resolved = Vec::new();
        for (name, target) in targets {
            match self.target(name.clone(), target) {
                Some(target) => resolved.push(target),
                None => drop(mistaken.insert(format!("notify.{name}"))),
            }
        }
        Notify { webhook_url, ca_file, targets: resolved }
    }

    fn target(&mut self, name: String, mut written: WrittenTarget) -> Option<Target> {
        let kind = *written.kind.get_ref();
        let before = self.problems.len();
        let of = format!("[notify.{name}]");
        // A key that is missing may be one with a mistake.
        if self.without.iter().any(|path| path.starts_with(&["notify".to_owned(), name.clone()])) {
            return None;
        }
        self.keys_of_kind(&of, kind, &written);
        let timezone = written.timezone.take().map_or(chrono_tz::Tz::UTC, |zone| zone.into_inner().0);
        let digest = written.digest.take().map(Spanned::into_inner).or_else(|| Schedule::try_from(DIGEST.to_owned()).ok())?;
        let on = written.on.take().map_or(ON.to_vec(), Spanned::into_inner);
        if self.problems.len() > before {
            return None;
        }
        let service = self.service(&of, kind, written)?;
        Some(Target { name, service, on, digest, timezone })
    }

    /// A key that the kind needs, and one that it does not have and would ignore.
    fn keys_of_kind(&mut self, of: &str, kind: Kind, written: &WrittenTarget) {
        let (needed, possible) = kind.keys();
        let name = kind.name();
        for (key, span) in keys_there(written) {
            if !needed.contains(&key) && !possible.contains(&key) {
                let hint = format!("it has {}", listed(needed.iter().chain(possible)));
                self.mistake_at(span, format!("{of} is of kind \"{name}\", which has no {}", listed([&key])), hint);
            }
        }
        let there: Vec<&str> = keys_there(written).into_iter().map(|(key, _)| key).collect();
        let missing: Vec<&&str> = needed.iter().filter(|key| !there.contains(*key)).collect();
        if !missing.is_empty() {
            let hint = format!("add {}", missing.iter().map(|key| example(key)).collect::<Vec<_>>().join(", "));
            let message = format!("{of} has no {}", listed(missing.into_iter()));
            self.mistake_at(written.kind.span(), message, hint);
        }
        if let Some(on) = written.on.as_ref().filter(|on| on.get_ref().is_empty()) {
            let message = format!("`on` of {of} is empty, so nothing is told there");
            self.problem(on, message, "write on = [\"failure\", \"recovery\", \"late\"]");
        }
    }

    fn mistake_at(&mut self, span: Range<usize>, message: String, hint: String) {
        if !self.problems.iter().any(|problem| problem.is_within(&span)) {
            self.problems.push(self.source.problem(Some(span), message, Some(hint)));
        }
    }

    fn service(&mut self, of: &str, kind: Kind, mut written: WrittenTarget) -> Option<Service> {
        let token = Secret { key: "token", of, literal: None, env: written.token_env.take(), file: written.token_file.take() };
        Some(match kind {
            Kind::Slack => Service::Slack { url: self.url(of, &mut written)? },
            Kind::Discord => Service::Discord { url: self.url(of, &mut written)? },
            Kind::Teams => Service::Teams { url: self.url(of, &mut written)? },
            Kind::Webhook => Service::Webhook { url: self.url(of, &mut written)? },
            Kind::Ntfy => {
                let url = self.url(of, &mut written)?;
                Service::Ntfy { url, token: self.text(token) }
            }
            Kind::Telegram => {
                let token = self.text(token)?;
                let server = self.telegrams_server(of, written.server)?;
                Service::Telegram { server, token, chat: written.chat?.into_inner() }
            }
            Kind::Mail => Service::Mail(self.mail(of, written)?),
        })
    }

    /// The server of Telegram's API, without `/` at its end.
    fn telegrams_server(&mut self, of: &str, written: Option<Spanned<String>>) -> Option<String> {
        let Some(written) = written else { return Some(TELEGRAM.to_owned()) };
        let is_http = url::Url::parse(written.get_ref()).is_ok_and(|url| matches!(url.scheme(), "http" | "https"));
        if !is_http {
            self.problem(
                &written,
                format!("`server` of {of} is not an HTTP URL"),
                "write it like server = \"http://127.0.0.1:8081\"",
            );
        }
        is_http.then(|| written.get_ref().trim_end_matches('/').to_owned())
    }

    fn url(&mut self, of: &str, written: &mut WrittenTarget) -> Option<SecretString> {
        let secret = Secret { key: "url", of, literal: None, env: written.url_env.take(), file: written.url_file.take() };
        let (url, span) = self.secret(secret)?;
        checked_http_url(url, span, &format!("the URL of {of}"), self.source, self.problems)
    }

    /// A secret that is not empty and fits in a line.
    fn text(&mut self, secret: Secret<'_>) -> Option<SecretString> {
        let (key, of) = (secret.key, secret.of);
        let (text, span) = self.secret(secret)?;
        if text.is_empty() || text.chars().any(char::is_control) {
            let message = format!("the `{key}` of {of} is empty, or has more than one line");
            self.problems.push(self.source.problem(span, message, Some("write it in one line".to_owned())));
            return None;
        }
        Some(SecretString::from(text))
    }

    fn mail(&mut self, of: &str, written: WrittenTarget) -> Option<Mail> {
        let WrittenTarget { host, port, tls, user, password_env, password_file, from, to, .. } = written;
        let (host, from, to) = (host?, from?, to?);
        if !is_host(host.get_ref()) {
            let message = format!("`host` of {of} is not the name or the address of a server");
            self.problem(&host, message, "write host = \"mail.example.com\" alone, and its port as port = 587");
        }
        if to.get_ref().is_empty() {
            let message = format!("`to` of {of} is empty, so nobody gets the mail");
            self.problem(&to, message, "write to = [\"dba@example.com\"]");
        }
        let has_password = password_env.is_some() || password_file.is_some();
        if let (Some(user), false) = (&user, has_password) {
            self.problem(
                user,
                format!("{of} has a `user` and no password"),
                "add password_file = \"/path\" or password_env = \"NAME\"",
            );
        }
        let password_key = password_env.as_ref().map(Spanned::span).or_else(|| password_file.as_ref().map(Spanned::span));
        if let (None, Some(span)) = (&user, password_key) {
            self.mistake_at(span, format!("{of} has a password and no `user`"), "add user = \"NAME\"".to_owned());
        }
        let is_plain = tls.as_ref().is_some_and(|tls| *tls.get_ref() == MailTls::None);
        if let (true, Some(tls)) = (is_plain && !is_this_machine(host.get_ref()), &tls) {
            let message = format!("{of}: tls = \"none\" to {}, which is not this host", host.get_ref());
            self.problem(tls, message, "use \"starttls\" or \"tls\": others could read the mail and the password");
        }
        let port = match port {
            Some(port) => Some(self.port(&port)?),
            None => None,
        };
        let tls = tls.map_or(MailTls::default(), Spanned::into_inner);
        let from = self.address(from);
        let to: Vec<String> = to.into_inner().into_iter().filter_map(|to| self.address(to)).collect();
        let password = Secret { key: "password", of, literal: None, env: password_env, file: password_file };
        let login = user.map(Spanned::into_inner).zip(if has_password { self.text(password) } else { None });
        let usual = match tls {
            MailTls::Starttls => 587,
            MailTls::Tls => 465,
            MailTls::None => 25,
        };
        Some(Mail { host: host.into_inner(), port: port.unwrap_or(usual), tls, login, from: from?, to })
    }

    /// No server listens on port 0.
    fn port(&mut self, written: &Spanned<u64>) -> Option<u16> {
        let port = u16::try_from(*written.get_ref()).ok().filter(|port| *port > 0);
        if port.is_none() {
            self.problem(written, format!("`port = {}` is out of range", written.get_ref()), "1 to 65535: port = 587");
        }
        port
    }

    fn address(&mut self, written: Spanned<String>) -> Option<String> {
        match written.get_ref().parse::<lettre::message::Mailbox>() {
            Ok(_) => Some(written.into_inner()),
            Err(_) => {
                let message = format!("`{}` is not a mail address", written.get_ref());
                self.problem(&written, message, "write it like \"dba@example.com\" or \"The DBAs <dba@example.com>\"");
                None
            }
        }
    }
}

/// Returns whether it is a name or an address: a URL, or a port beside it, would fail when the first mail is sent.
fn is_host(text: &str) -> bool {
    let is_name = !text.is_empty() && !text.contains([':', '/', '@', ' ']);
    is_name || text.parse::<std::net::Ipv6Addr>().is_ok()
}

/// The keys of a kind that the table has, with their places; a secret by its key without `_env` and `_file`.
fn keys_there(written: &WrittenTarget) -> Vec<(&'static str, Range<usize>)> {
    fn span<T>(key: &Option<Spanned<T>>) -> Option<Range<usize>> {
        key.as_ref().map(Spanned::span)
    }
    let keys = [
        ("url", span(&written.url_env).or_else(|| span(&written.url_file))),
        ("token", span(&written.token_env).or_else(|| span(&written.token_file))),
        ("chat", span(&written.chat)),
        ("server", span(&written.server)),
        ("host", span(&written.host)),
        ("port", span(&written.port)),
        ("tls", span(&written.tls)),
        ("user", span(&written.user)),
        ("password", span(&written.password_env).or_else(|| span(&written.password_file))),
        ("from", span(&written.from)),
        ("to", span(&written.to)),
    ];
    keys.into_iter().filter_map(|(key, span)| Some((key, span?))).collect()
}

fn listed<'a>(keys: impl IntoIterator<Item = &'a &'static str>) -> String {
    let name = |key: &&str| if SECRETS.contains(key) { format!("`{key}_file`") } else { format!("`{key}`") };
    keys.into_iter().map(name).collect::<Vec<_>>().join(", ")
}

fn example(key: &str) -> String {
    match key {
        "url" => "url_file = \"/path\" (or url_env = \"NAME\")".to_owned(),
        "token" => "token_file = \"/path\" (or token_env = \"NAME\")".to_owned(),
        "chat" => "chat = \"-1001234567890\"".to_owned(),
        "to" => "to = [\"dba@example.com\"]".to_owned(),
        "from" => "from = \"pgtend@example.com\"".to_owned(),
        key => format!("{key} = \"mail.example.com\""),
    }
}
