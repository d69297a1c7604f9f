//! Finds the connections that others on the network could read or answer: `check` warns of them.

use secrecy::{ExposeSecret as _, SecretString};
use url::Url;

use crate::base::network::is_this_machine;
use crate::base::telemetry;
use crate::config::notify::Service;
use crate::config::{Config, Store};
use crate::run::job::Job;

/// The variables that give AWS's default chain an endpoint when a store names none.
const ENDPOINTS_OF_STORES: [&str; 2] = ["AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL"];

/// Returns one sentence for each such connection.
pub fn warnings(config: &Config, jobs: &[Job]) -> Vec<String> {
    let mut warnings = Vec::new();
    let databases = config.databases.iter().map(|(name, database)| (format!("database `{name}`"), database));
    let servers = config.servers.iter().map(|(name, server)| (format!("server `{name}`"), &server.login));
    for (what, database) in databases.chain(servers) {
        // Another part reports what is wrong with the database's settings.
        let Some((host, mode)) = database.settings().ok().and_then(|settings| settings.may_be_in_the_clear()) else {
            continue;
        };
        let risk = match mode.as_str() {
            "disable" => "rows travel in the clear",
            _ => "if the server has no TLS, or someone is in between, rows travel in the clear",
        };
        warnings.push(format!(
            "{what}: sslmode={mode} to {host}: {risk}. sslmode=verify-full keeps others out (docs/connections.md#tls)"
        ));
    }
    for (name, store) in &config.stores {
        let variable = |name: &&str| std::env::var(name).ok().filter(|value| !value.is_empty());
        let endpoint = match store {
            Store::Dir { .. } => None,
            Store::S3(s3) => s3.endpoint.clone().or_else(|| ENDPOINTS_OF_STORES.iter().find_map(variable)),
            Store::Cloud(cloud) => cloud.endpoint.clone(),
        };
        if let Some(host) = endpoint.as_deref().and_then(plain_http_to) {
            warnings
                .push(format!("store `{name}`: its endpoint is http:// to {host}: backups travel in the clear. Use https://"));
        }
    }
    if let Some(host) = config.notify.webhook_url.as_ref().and_then(|url| plain_http_to(url.expose_secret())) {
        let reader = "anyone in between can read the URL, which is a secret, and what failed";
        warnings.push(format!("webhook of [notify]: it is http:// to {host}: {reader}. Use https://"));
    }
    for target in &config.notify.targets {
        if let Some(host) = url_of(&target.service).and_then(|url| plain_http_to(url.expose_secret())) {
            let reader = "anyone in between can read what is sent there, and its secret";
            warnings.push(format!("[notify.{}]: it is http:// to {host}: {reader}. Use https://", target.name));
        }
    }
    for job in jobs {
        if let Some(host) = job.ping_url.as_ref().and_then(|url| plain_http_to(url.expose_secret())) {
            let reader = "anyone in between can report a success in its place";
            warnings.push(format!("job `{}`: its ping is http:// to {host}: {reader}. Use https://", job.name));
        }
    }
    for name in telemetry::ASKED_FOR_BY {
        if let Some(host) = std::env::var(name).ok().as_deref().and_then(plain_http_to) {
            warnings
                .push(format!("{name}: it is http:// to {host}: spans, with their errors, travel in the clear. Use https://"));
        }
    }
    warnings
}

fn url_of(service: &Service) -> Option<SecretString> {
    match service {
        Service::Slack { url } | Service::Discord { url } | Service::Teams { url } | Service::Webhook { url } => {
            Some(url.clone())
        }
        Service::Ntfy { url, .. } => Some(url.clone()),
        Service::Telegram { server, .. } => Some(SecretString::from(server.clone())),
        Service::Mail(_) => None,
    }
}

/// Returns the host of a URL that leads to another host without TLS.
fn plain_http_to(url: &str) -> Option<String> {
    let url = Url::parse(url).ok().filter(|url| url.scheme() == "http")?;
    let host = url.host_str()?;
    (!is_this_machine(host)).then(|| host.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_plain_http_to_another_machine_is_warned_of() {
        for quiet in ["https://s3.example.com", "http://localhost:9000", "http://127.0.0.1", "http://[::1]:1/x", "not a URL", ""]
        {
            assert_eq!(plain_http_to(quiet), None, "{quiet}");
        }
        for (url, host) in [("http://s3.example.com:9000/x", "s3.example.com"), ("http://10.0.0.1", "10.0.0.1")] {
            assert_eq!(plain_http_to(url).as_deref(), Some(host));
        }
    }
}
