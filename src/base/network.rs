//! Knows which hosts are this machine, and explains failed HTTP requests: libraries bury the cause under their own errors.

use std::error::Error;
use std::io::{self, ErrorKind};
use std::net::IpAddr;

use rustls::CertificateError;

/// Messages that name no cause.
const EMPTY: [&str; 9] = [
    "dispatch failure",
    "service error",
    "unhandled error",
    "io error",
    "other",
    "error sending request",
    "client error (connect)",
    "client error (sendrequest)",
    "connection error",
];

/// Returns whether a name or an address can only be this machine. Its other addresses are unknown.
pub fn is_this_machine(host: &str) -> bool {
    let host = host.trim_start_matches('[').trim_end_matches(']').trim_end_matches('.').to_ascii_lowercase();
    match host.parse::<IpAddr>() {
        Ok(address) => address.to_canonical().is_loopback(),
        Err(_) => host == "localhost" || host.ends_with(".localhost"),
    }
}

/// Returns why a request got no answer, and what to do. `ca_key` is the key that would name a private CA.
pub fn cause_of(error: &(dyn Error + 'static), ca_key: &str) -> String {
    let causes = causes(error);
    for cause in &causes {
        if let Some(tls) = cause.downcast_ref::<rustls::Error>() {
            return tls_cause(tls, ca_key);
        }
    }
    let words: Vec<String> = causes.iter().map(ToString::to_string).collect();
    let says = |what: &str| words.iter().any(|words| words.contains(what));
    if says("dns error") || says("failed to lookup address") {
        return "its name is unknown (DNS): check its spelling, and whether this host can resolve names".to_owned();
    }
    for cause in causes.iter().rev() {
        match cause.downcast_ref::<io::Error>().map(io::Error::kind) {
            Some(ErrorKind::ConnectionRefused) => {
                return "the connection was refused: nothing listens there, or a firewall blocks it".to_owned();
            }
            Some(ErrorKind::HostUnreachable | ErrorKind::NetworkUnreachable) => {
                return "there is no route to it: check whether the network is up".to_owned();
            }
            Some(ErrorKind::TimedOut) => return timed_out(),
            Some(
                ErrorKind::ConnectionReset | ErrorKind::BrokenPipe | ErrorKind::ConnectionAborted | ErrorKind::UnexpectedEof,
            ) => {
                return "the connection was closed before an answer came".to_owned();
            }
            _ => {}
        }
    }
    if ["invalid HTTP version", "invalid HTTP status", "unexpected message from connection"].into_iter().any(says) {
        return "the server does not speak HTTP: try `https://`, or another port".to_owned();
    }
    if says("closed before message completed") {
        return "the connection was closed before an answer came".to_owned();
    }
    if says("timed out") || says("timeout") {
        return timed_out();
    }
    let mut said: Vec<&str> = Vec::new();
    for words in &words {
        let is_empty = EMPTY.contains(&words.to_ascii_lowercase().as_str());
        if !is_empty && !said.iter().any(|before| before.contains(words.as_str())) {
            said.push(words);
        }
    }
    if said.is_empty() { "no reason was given".to_owned() } else { said.join(": ") }
}

fn timed_out() -> String {
    "it did not answer in time: a firewall may block it".to_owned()
}

fn tls_cause(error: &rustls::Error, ca_key: &str) -> String {
    match error {
        rustls::Error::InvalidCertificate(CertificateError::UnknownIssuer) => {
            format!("its certificate is signed by a CA that this host does not know: name the CA's PEM file with {ca_key}")
        }
        rustls::Error::InvalidCertificate(
            error @ (CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. }),
        ) => format!("its certificate is for another name ({error}): use the name that the certificate has"),
        rustls::Error::InvalidCertificate(
            error @ (CertificateError::Expired
            | CertificateError::ExpiredContext { .. }
            | CertificateError::NotValidYet
            | CertificateError::NotValidYetContext { .. }),
        ) => format!("its certificate is not valid at this time ({error}): renew it, or set this host's clock"),
        rustls::Error::InvalidMessage(_) => "the server does not speak TLS: try `http://`, or another port".to_owned(),
        error => format!("no TLS connection: {error}"),
    }
}

/// Returns the error and its causes. The `source` of an I/O error skips the error that it was made of.
fn causes<'a>(error: &'a (dyn Error + 'static)) -> Vec<&'a (dyn Error + 'static)> {
    let mut causes = vec![error];
    let mut last = error;
    while causes.len() < 32 {
        let inner = last.downcast_ref::<io::Error>().and_then(io::Error::get_ref).map(|inner| inner as &'a (dyn Error + 'static));
        let Some(next) = inner.or_else(|| last.source()) else { break };
        causes.push(next);
        last = next;
    }
    causes
}
