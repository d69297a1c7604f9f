//! Takes secrets out of what services and libraries say: servers repeat what they were sent, also encoded.

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD_NO_PAD, URL_SAFE_NO_PAD};
use percent_encoding::percent_decode_str;
use secrecy::{ExposeSecret as _, SecretString};
use url::Url;

use crate::config::notify::{Mail, Service};

/// A part of a URL with fewer letters is no key: "api", "v1", "hook".
const KEY_LETTERS: usize = 6;

/// What an answer must not repeat, in every form in which it may come back.
#[derive(Clone, Default)]
pub struct Secrets(Vec<String>);

impl Secrets {
    pub fn of(service: &Service) -> Self {
        match service {
            Service::Slack { url } | Service::Discord { url } | Service::Teams { url } | Service::Webhook { url } => {
                Self::of_url(url)
            }
            // The topic is the secret where the server asks for no token, however short it is.
            Service::Ntfy { url, token } => {
                let topic = Url::parse(url.expose_secret()).ok().and_then(|url| {
                    let segments = url.path_segments()?;
                    segments.rev().find(|segment| !segment.is_empty()).map(str::to_owned)
                });
                let token = token.iter().map(|token| token.expose_secret().to_owned());
                Self::of_url(url).with(topic.into_iter().chain(token).flat_map(|secret| forms(&secret)))
            }
            Service::Telegram { token, .. } => {
                let token = token.expose_secret();
                // "ID:KEY", of which the key alone is enough for those who know the bot.
                let key = token.split_once(':').map(|(_, key)| key);
                Self::default().with(std::iter::once(token).chain(key).flat_map(forms))
            }
            Service::Mail(mail) => Self::of_login(mail),
        }
    }

    pub fn of_url(url: &SecretString) -> Self {
        let written = Self::default().with(forms(url.expose_secret()));
        Url::parse(url.expose_secret()).map_or(written.clone(), |parsed| written.with(parts(&parsed)))
    }

    /// AUTH PLAIN sends both in one (RFC 4616), LOGIN each alone.
    fn of_login(mail: &Mail) -> Self {
        let Some((user, password)) = &mail.login else { return Self::default() };
        let password = password.expose_secret();
        let plain = [format!("\0{user}\0{password}"), format!("{user}\0{user}\0{password}")];
        Self::default().with(plain.iter().flat_map(|plain| in_base64(plain)).chain(forms(password)).chain(in_base64(user)))
    }

    fn with(mut self, more: impl IntoIterator<Item = String>) -> Self {
        self.0.extend(more.into_iter().filter(|secret| !secret.is_empty()));
        // What contains another one goes first.
        self.0.sort_by(|a, b| b.len().cmp(&a.len()).then_with(|| a.cmp(b)));
        self.0.dedup();
        self
    }

    /// Returns the text without them. Upper and lower case are one: `%2b` is `%2B`; and so are `+` and the `\u002B` that some write for it in JSON.
    pub fn masked(&self, text: &str) -> String {
        self.0.iter().fold(unescaped(text), |text, secret| without(&text, secret))
    }
}

/// Returns the secret as it is, encoded and decoded for URLs, and in base64.
fn forms(secret: &str) -> Vec<String> {
    let decoded = percent_decode_str(secret).decode_utf8_lossy().into_owned();
    let of_form = percent_decode_str(&secret.replace('+', " ")).decode_utf8_lossy().into_owned();
    let encoded: String = url::form_urlencoded::byte_serialize(secret.as_bytes()).collect();
    let with_spaces = encoded.replace('+', "%20");
    let mut forms: Vec<String> = [secret, decoded.as_str()].into_iter().flat_map(in_base64).collect();
    forms.extend([secret.to_owned(), decoded, of_form, encoded, with_spaces]);
    forms
}

/// Without padding, which some leave out.
fn in_base64(text: &str) -> Vec<String> {
    vec![STANDARD_NO_PAD.encode(text), URL_SAFE_NO_PAD.encode(text)]
}

/// Returns the secret parts of a URL: the whole, path and query, those that are long enough to be a key, and its login, which is sent as Basic.
fn parts(url: &Url) -> Vec<String> {
    let query = url.query().unwrap_or_default();
    let values = query.split('&').filter_map(|pair| pair.split_once('=').map(|(_, value)| value));
    let keys = url.path_segments().into_iter().flatten().chain(values).filter(|part| part.len() >= KEY_LETTERS);
    let (user, password) = (url.username(), url.password().unwrap_or_default());
    let decoded = |text: &str| percent_decode_str(text).decode_utf8_lossy().into_owned();
    let basic = format!("{}:{}", decoded(user), decoded(password));
    let path = Some(url.path()).filter(|path| path.len() > 1);
    let whole = [url.as_str(), query].into_iter().chain(path).map(str::to_owned);
    let login = if user.is_empty() && password.is_empty() { Vec::new() } else { in_base64(&basic) };
    whole.chain(keys.chain([user, password]).flat_map(forms)).chain(login).collect()
}

/// Returns the text with the printable letters of ASCII that it has as escapes of JSON, whatever else of JSON it has.
fn unescaped(text: &str) -> String {
    let mut parts = text.split("\\u00");
    let mut plain = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let letter = part.get(..2).and_then(|digits| u8::from_str_radix(digits, 16).ok()).filter(u8::is_ascii_graphic);
        match letter {
            Some(letter) => {
                plain.push(char::from(letter));
                plain += &part[2..];
            }
            None => plain = plain + "\\u00" + part,
        }
    }
    plain
}

fn without(text: &str, secret: &str) -> String {
    // ASCII letters have one byte in either case, so places are the same.
    let (lower, secret) = (text.to_ascii_lowercase(), secret.to_ascii_lowercase());
    let mut kept = String::with_capacity(text.len());
    let mut from = 0;
    for (at, found) in lower.match_indices(&secret) {
        kept.push_str(&text[from..at]);
        kept.push('…');
        from = at + found.len();
    }
    kept + &text[from..]
}

#[cfg(test)]
mod tests {
    use base64::engine::general_purpose::STANDARD;

    use super::*;
    use crate::config::notify::MailTls;

    fn secret(text: &str) -> SecretString {
        SecretString::from(text)
    }

    #[test]
    fn a_url_is_masked_as_it_was_sent_decoded_and_as_a_login() {
        let url = secret("http://us%20er:pa%2Bss@host/workflows/abcdef?api=1&sig=ab%2Bcd%2FSECRETSIG%3D");
        let secrets = Secrets::of(&Service::Teams { url });
        let basic = STANDARD.encode("us er:pa+ss");
        let said = format!(
            "denied: POST /workflows/abcdef?api=1&sig=ab%2bcd%2fSECRETSIG%3D auth=Basic {basic} sig ab+cd/SECRETSIG= for us er pa+ss"
        );
        let masked = secrets.masked(&said);
        for part in ["abcdef", "SECRETSIG", "ab%2b", "ab+cd", basic.trim_end_matches('='), "us er", "pa+ss"] {
            assert!(!masked.contains(part), "{part}: {masked}");
        }
        assert!(masked.starts_with("denied: POST …") && masked.contains("auth=Basic …"), "{masked}");
    }

    #[test]
    fn a_password_is_masked_in_each_form_of_a_login_by_smtp() {
        let mail = Mail {
            host: "localhost".to_owned(),
            port: 587,
            tls: MailTls::Starttls,
            login: Some(("pgtend".to_owned(), secret("hunter2"))),
            from: "a@b.example".to_owned(),
            to: Vec::new(),
        };
        let secrets = Secrets::of(&Service::Mail(mail));
        for sent in ["\0pgtend\0hunter2", "hunter2", "pgtend"] {
            let line = format!("535 not you: AUTH {}", STANDARD.encode(sent));
            assert!(!secrets.masked(&line).contains(STANDARD.encode(sent).trim_end_matches('=')), "{sent}");
        }
        assert_eq!(secrets.masked("535 hunter2 is not the password of pgtend"), "535 … is not the password of pgtend");
    }

    #[test]
    fn a_token_is_masked_without_its_prefix_and_a_topic_however_short_it_is() {
        let token = || secret("123456:AAtoken");
        let telegram = Service::Telegram { server: "http://host".to_owned(), token: token(), chat: "1".to_owned() };
        let masked = Secrets::of(&telegram).masked("token 123456:AAtoken, /bot123456%3AAAtoken, AAtoken");
        assert!(!masked.contains("AAtoken"), "{masked}");
        let ntfy = Service::Ntfy { url: secret("https://ntfy.sh/k7Qx2"), token: Some(token()) };
        assert_eq!(Secrets::of(&ntfy).masked(r#"{"topic":"k7Qx2"} 123456:AAtoken"#), r#"{"topic":"…"} …"#);
        let slack = Service::Slack { url: secret("https://hooks.example.com/hook/T0/c0ffee1") };
        assert_eq!(Secrets::of(&slack).masked("no hook T0: c0ffee1"), "no hook T0: …", "short words are no keys");
        let with_signs = Service::Slack { url: secret("https://hooks.example.com/hook?sig=c0+ff/ee1=") };
        let masked = Secrets::of(&with_signs).masked(r#"{"sig":"c0\u002Bff\u002Fee1\u003d","\u00e9":"\u00"}"#);
        assert_eq!(masked, r#"{"sig":"…","\u00e9":"\u00"}"#);
    }
}
