//! Sends a message to a service, in its form.

use std::path::Path;

use anyhow::Result;
use secrecy::{ExposeSecret as _, SecretString};
use serde_json::Value;
use url::Url;

use super::answer::Answerer;
use super::event::Event;
use super::message::Message;
use super::request::{NotSent, once};
use super::secrets::Secrets;
use super::{body, mail};
use crate::config::notify::Service;

/// Sends the message once. Returns what the service answered, in words and without secrets.
pub async fn send(
    client: &reqwest::Client,
    ca_file: Option<&Path>,
    service: &Service,
    message: &Message,
    events: &[Event],
) -> Result<String, NotSent> {
    let secrets = Secrets::of(service);
    let post = |from: Answerer, url: &SecretString, body: Value| {
        let url = parsed(url);
        let secrets = &secrets;
        async move { once(client.post(url?).json(&body), from, secrets).await }
    };
    match service {
        Service::Slack { url } => post(Answerer::Slack, url, body::slack(message)).await,
        Service::Discord { url } => post(Answerer::Json, url, body::discord(message)).await,
        Service::Teams { url } => post(Answerer::Teams, url, body::teams(message)).await,
        Service::Webhook { url } => post(Answerer::Webhook, url, body::webhook(message, events)).await,
        Service::Telegram { server, token, chat } => {
            let url = format!("{server}/bot{}/sendMessage", token.expose_secret());
            post(Answerer::Json, &SecretString::from(url), body::telegram(message, chat)).await
        }
        Service::Ntfy { url, token } => {
            let Some((server, body)) = body::ntfy(message, &parsed(url)?) else {
                return Err(refused("its URL has no topic: write it like https://ntfy.example.com/TOPIC"));
            };
            let mut request = client.post(server).json(&body);
            if let Some(token) = token {
                request = request.bearer_auth(token.expose_secret());
            }
            once(request, Answerer::Json, &secrets).await
        }
        Service::Mail(to) => mail::send(to, ca_file, message, &secrets).await,
    }
}

fn parsed(url: &SecretString) -> Result<Url, NotSent> {
    Url::parse(url.expose_secret()).map_err(|_| refused("its URL cannot be read"))
}

fn refused(why: &str) -> NotSent {
    NotSent { why: why.to_owned(), may_pass: false, not_before: None }
}
