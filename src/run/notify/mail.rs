//! Sends mail over SMTP, by default with STARTTLS and a certificate that is checked.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, Result};
use lettre::address::Envelope;
use lettre::message::Mailbox;
use lettre::message::header::{ContentType, HeaderName, HeaderValue};
use lettre::transport::smtp::authentication::Credentials;
use lettre::transport::smtp::client::{Certificate, Tls, TlsParameters};
use lettre::transport::smtp::extension::ClientId;
use lettre::{Address, AsyncSmtpTransport, AsyncTransport as _, Tokio1Executor};
use secrecy::ExposeSecret as _;
use uuid::Uuid;

use super::body;
use super::message::{Message, shortened};
use super::request::NotSent;
use super::secrets::Secrets;
use crate::base::{ca_file, network};
use crate::config::notify::{Mail, MailTls};

/// For each command of SMTP.
const TIMEOUT: Duration = Duration::from_secs(10);
/// For a mail, in all.
const TIMEOUT_IN_ALL: Duration = Duration::from_secs(30);

/// Sends the message once. Returns what the server answered, without secrets: some repeat the line of the login. A server that does not take one of several
/// addresses takes none of the mail, which then goes to each of them by itself: it has arrived where it has for one.
pub async fn send(to: &Mail, ca_file: Option<&Path>, message: &Message, secrets: &Secrets) -> Result<String, NotSent> {
    let prepared = || {
        let (mail, transport) = (written(to, message)?, transport(to, ca_file)?);
        let each: Vec<Envelope> = mail.envelope().to().iter().map(|address| envelope(&mail, address)).collect::<Result<_>>()?;
        anyhow::Ok((mail.envelope().clone(), each, mail.formatted(), transport))
    };
    let (envelope, each, mail, transport) =
        prepared().map_err(|error| NotSent { why: format!("{error:#}"), may_pass: false, not_before: None })?;
    let refused = match attempt(&transport, &envelope, &mail, secrets).await {
        Err(not_sent) if !not_sent.may_pass && each.len() > 1 => not_sent,
        sent => return sent,
    };
    let (mut answer, mut untold) = (None, Vec::new());
    for envelope in &each {
        match attempt(&transport, envelope, &mail, secrets).await {
            Ok(said) => answer = Some(said),
            Err(not_sent) => untold.extend(envelope.to().iter().map(|address| format!("not to {address}: {}", not_sent.why))),
        }
    }
    let answer = answer.ok_or(refused)?;
    let untold = untold.join("; ");
    tracing::warn!("a mail has reached some of its addresses alone: {untold}");
    Ok(format!("{answer}; {untold}"))
}

async fn attempt(
    transport: &AsyncSmtpTransport<Tokio1Executor>,
    envelope: &Envelope,
    mail: &[u8],
    secrets: &Secrets,
) -> Result<String, NotSent> {
    match tokio::time::timeout(TIMEOUT_IN_ALL, transport.send_raw(envelope, mail)).await {
        Ok(Ok(response)) => {
            let said = response.message().collect::<Vec<_>>().join(" ");
            Ok(format!("SMTP {}: {}", response.code(), shortened(&secrets.masked(&said), 200)))
        }
        Ok(Err(error)) => Err(NotSent { why: why(&error, secrets), may_pass: !error.is_permanent(), not_before: None }),
        Err(_) => Err(NotSent { why: "no answer in time".to_owned(), may_pass: true, not_before: None }),
    }
}

fn envelope(mail: &lettre::Message, address: &Address) -> Result<Envelope> {
    Ok(Envelope::new(mail.envelope().from().cloned(), vec![address.clone()])?)
}

fn written(to: &Mail, message: &Message) -> Result<lettre::Message> {
    let from: Mailbox = to.from.parse().context("the address of `from`")?;
    let (subject, text) = body::mail(message);
    let id = format!("<{}@{}>", Uuid::new_v4(), from.email.domain());
    let mut mail = lettre::Message::builder().from(from).subject(subject).message_id(Some(id)).date_now();
    for address in &to.to {
        mail = mail.to(address.parse().context("an address of `to`")?);
    }
    // RFC 3834: programs that answer mail by themselves leave it alone.
    let automatic = HeaderValue::new(HeaderName::new_from_ascii_str("Auto-Submitted"), "auto-generated".to_owned());
    Ok(mail.raw_header(automatic).header(ContentType::TEXT_PLAIN).body(text)?)
}

fn transport(to: &Mail, ca_file: Option<&Path>) -> Result<AsyncSmtpTransport<Tokio1Executor>> {
    let tls = match to.tls {
        MailTls::Starttls => Tls::Required(parameters(&to.host, ca_file)?),
        MailTls::Tls => Tls::Wrapper(parameters(&to.host, ca_file)?),
        MailTls::None => Tls::None,
    };
    let name = gethostname::gethostname().to_string_lossy().into_owned();
    let is_name = !name.is_empty() && name.chars().all(|letter| letter.is_ascii_alphanumeric() || ".-".contains(letter));
    let mut builder =
        AsyncSmtpTransport::<Tokio1Executor>::builder_dangerous(&to.host).port(to.port).tls(tls).timeout(Some(TIMEOUT));
    if is_name {
        builder = builder.hello_name(ClientId::Domain(name));
    }
    if let Some((user, password)) = &to.login {
        builder = builder.credentials(Credentials::new(user.clone(), password.expose_secret().to_owned()));
    }
    Ok(builder.build())
}

/// Trusts the system's CAs and those of the file.
fn parameters(host: &str, ca_file: Option<&Path>) -> Result<TlsParameters> {
    let mut builder = TlsParameters::builder(host.to_owned());
    if let Some(path) = ca_file {
        let pem = ca_file::read(path).map_err(|why| anyhow::anyhow!("`ca_file` of [notify]: {why}"))?;
        for certificate in pem.certificates {
            builder = builder.add_root_certificate(Certificate::from_der(certificate.to_vec())?);
        }
    }
    Ok(builder.build()?)
}

fn why(error: &lettre::transport::smtp::Error, secrets: &Secrets) -> String {
    match error.status() {
        Some(_) => shortened(&secrets.masked(&with_causes(error)), 200),
        None if error.is_timeout() => "no answer in time".to_owned(),
        None => shortened(&secrets.masked(&network::cause_of(error, "`ca_file` of [notify], or in SSL_CERT_FILE")), 300),
    }
}

/// An error of the server has its text as its cause.
fn with_causes(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        let said = cause.to_string();
        if !text.contains(&said) {
            text += &format!(": {said}");
        }
        next = cause.source();
    }
    text
}
