//! The names under which the pages answer. A page of another site can make a browser send us requests under a name that the site
//! points to this host (DNS rebinding), and may then read the answer. A token prevents that: the browser has none for that name.
//! Without a token, the name must be one of ours.

use std::net::IpAddr;

use axum::http::uri::Authority;
use axum::http::{HeaderMap, Uri, header};

/// The names under which requests without a token are answered.
#[derive(Clone, Debug)]
pub struct Hosts {
    listen: IpAddr,
    /// The lower-case names from `[serve] hosts`.
    configured: Vec<String>,
}

impl Hosts {
    pub fn new(listen: IpAddr, configured: Vec<String>) -> Self {
        Self { listen, configured }
    }

    /// Checks that each name in the request's target and in its Host is one of ours. The error is the first other name.
    pub fn check(&self, uri: &Uri, headers: &HeaderMap) -> Result<(), String> {
        let in_headers = headers.get_all(header::HOST).iter().map(|host| String::from_utf8_lossy(host.as_bytes()).into_owned());
        let names: Vec<String> = uri.authority().map(Authority::to_string).into_iter().chain(in_headers).collect();
        if names.is_empty() {
            return Err(String::new());
        }
        names.into_iter().find(|name| !self.is_ours(name)).map_or(Ok(()), Err)
    }

    /// Checks `name` or `name:port`.
    fn is_ours(&self, name: &str) -> bool {
        let Ok(authority) = name.parse::<Authority>() else { return false };
        if name.contains('@') {
            return false;
        }
        let host = authority.host().trim_end_matches('.').to_ascii_lowercase();
        if let Ok(address) = host.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>() {
            // An address in a URL cannot be made to point elsewhere, so any address of this host is accepted.
            return address.is_loopback() || self.listen.is_unspecified() || address == self.listen;
        }
        host == "localhost" || host.ends_with(".localhost") || self.configured.contains(&host)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answered(hosts: &Hosts, host: &str) -> bool {
        let mut headers = HeaderMap::new();
        headers.insert(header::HOST, host.parse().unwrap());
        hosts.check(&Uri::from_static("/"), &headers).is_ok()
    }

    #[test]
    fn localhost_the_listening_address_and_configured_names_are_ours_and_nothing_else() {
        let hosts = Hosts::new("10.1.2.3".parse().unwrap(), vec!["db1.example.com".to_owned()]);
        for ours in ["localhost", "LocalHost:9187", "pgtend.localhost", "127.0.0.1:80", "127.9.9.9", "[::1]:9187", "10.1.2.3:1"] {
            assert!(answered(&hosts, ours), "{ours}");
        }
        for ours in ["db1.example.com", "DB1.example.com.:9187"] {
            assert!(answered(&hosts, ours), "{ours}");
        }
        for other in ["", "evil.example", "localhost.evil.example", "127.0.0.1.evil.example", "10.1.2.4", "x.db1.example.com"] {
            assert!(!answered(&hosts, other), "{other}");
        }
        for other in ["localhost@evil.example", "evil.example@localhost", "a b", "local_host:x", "[::2]", "0.0.0.0"] {
            assert!(!answered(&hosts, other), "{other}");
        }
        let open = Hosts::new("0.0.0.0".parse().unwrap(), Vec::new());
        assert!(answered(&open, "10.1.2.4:9187") && answered(&open, "[fe80::1]") && !answered(&open, "db1"));
    }

    #[test]
    fn a_request_with_two_names_needs_both_to_be_ours_and_one_without_is_refused() {
        let hosts = Hosts::new("127.0.0.1".parse().unwrap(), Vec::new());
        let mut headers = HeaderMap::new();
        assert_eq!(hosts.check(&Uri::from_static("/"), &headers), Err(String::new()));
        headers.append(header::HOST, "localhost".parse().unwrap());
        assert!(hosts.check(&Uri::from_static("http://localhost:9187/"), &headers).is_ok());
        assert_eq!(hosts.check(&Uri::from_static("http://evil.example/"), &headers), Err("evil.example".to_owned()));
        headers.append(header::HOST, "evil.example".parse().unwrap());
        assert_eq!(hosts.check(&Uri::from_static("/"), &headers), Err("evil.example".to_owned()));
    }
}
