//! Checks certificates by libpq's rules, chooses those that the client shows, and explains TLS errors.

use std::path::{Path, PathBuf};

use sqlx::postgres::PgSslMode;

use super::parameters::Parameters;

/// The bundles of trusted certificates of Debian, Red Hat, SUSE, and of Alpine and the BSDs.
const BUNDLES: [&str; 4] =
    ["/etc/ssl/certs/ca-certificates.crt", "/etc/pki/tls/certs/ca-bundle.crt", "/etc/ssl/ca-bundle.pem", "/etc/ssl/cert.pem"];

#[derive(Clone, Debug)]
pub struct Tls {
    /// libpq's sslmode.
    pub mode: String,
    pub root: Root,
    /// The client's certificate and its key.
    pub certificate: Option<(PathBuf, PathBuf)>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Root {
    Absent,
    File(PathBuf),
    /// The certificates that this system trusts.
    System,
}

impl Tls {
    /// Reads parameters and the files in `~/.postgresql`.
    pub fn of(found: &Parameters, home: Option<&Path>) -> Result<Self, String> {
        let of_home = |name: &str| home.map(|home| home.join(".postgresql").join(name)).filter(|file| file.exists());
        let mode = found.get("sslmode").map(String::as_str);
        let root = match found.get("sslrootcert").map(String::as_str) {
            Some("system") => Root::System,
            Some(file) => Root::File(file.into()),
            None => match of_home("root.crt") {
                Some(file) => Root::File(file),
                // libpq refuses that, and points to what is done here for both.
                None if mode == Some("verify-full") => Root::System,
                None => Root::Absent,
            },
        };
        let mode = match (mode, &root) {
            (None, Root::System) => "verify-full",
            (Some(mode), Root::System) if mode != "verify-full" => {
                return Err(
                    "sslrootcert=system with a weaker sslmode than verify-full: anyone with a certificate of any public \
                            authority could answer; use sslmode=verify-full"
                        .to_owned(),
                );
            }
            (Some("verify-ca"), Root::Absent) => {
                return Err("sslmode=verify-ca has no certificates to trust: name their file with sslrootcert, or put it at \
                            ~/.postgresql/root.crt"
                    .to_owned());
            }
            (Some("verify-ca" | "verify-full"), Root::File(file)) if !file.is_file() => {
                return Err(format!("sslrootcert: there is no file {}", file.display()));
            }
            (mode, _) => mode.unwrap_or("prefer"),
        };
        if mode == "verify-full" && found.contains_key("hostaddr") {
            return Err(
                "`hostaddr` with sslmode=verify-full: pgtend's own sessions verify the name that they connect to; leave \
                        `hostaddr` out (an entry in /etc/hosts does the same)"
                    .to_owned(),
            );
        }
        let certificate = found.get("sslcert").map(PathBuf::from).or_else(|| of_home("postgresql.crt"));
        let key = found.get("sslkey").map(PathBuf::from).or_else(|| of_home("postgresql.key"));
        let certificate = match (certificate, key) {
            (Some(certificate), Some(key)) => Some((certificate, key)),
            (Some(certificate), None) => {
                return Err(format!("the client certificate {} has no key: name its file with sslkey", certificate.display()));
            }
            (None, _) => None,
        };
        Ok(Self { mode: mode.to_owned(), root, certificate })
    }

    /// Returns the TLS modes over TCP, in libpq's order.
    pub fn modes(&self) -> Vec<PgSslMode> {
        // With certificates to trust, libpq verifies in each mode.
        let verified = |mode| match &self.root {
            Root::File(file) if file.is_file() => PgSslMode::VerifyCa,
            _ => mode,
        };
        match self.mode.as_str() {
            "disable" => vec![PgSslMode::Disable],
            "allow" => vec![PgSslMode::Disable, verified(PgSslMode::Require)],
            "require" => vec![verified(PgSslMode::Require)],
            "verify-ca" => vec![PgSslMode::VerifyCa],
            "verify-full" => vec![PgSslMode::VerifyFull],
            _ => vec![verified(PgSslMode::Prefer), PgSslMode::Disable],
        }
    }
}

/// Returns the file of the certificates that this system trusts; rustls reads the same file.
pub fn bundle() -> Option<PathBuf> {
    let named = std::env::var_os("SSL_CERT_FILE").map(PathBuf::from);
    named.into_iter().chain(BUNDLES.map(PathBuf::from)).find(|file| file.is_file())
}

/// Explains a failed handshake; `None` when it was another error.
pub fn hint(error: &sqlx::Error) -> Option<String> {
    use rustls::{AlertDescription, CertificateError as Wrong, Error};
    let error = match error {
        sqlx::Error::Io(error) => error.get_ref()?.downcast_ref::<Error>()?,
        _ => return None,
    };
    let hint = match error {
        Error::InvalidCertificate(Wrong::UnknownIssuer) => {
            "no trusted certificate has signed it: sslrootcert must name the certificate of its authority"
        }
        Error::InvalidCertificate(Wrong::NotValidForName | Wrong::NotValidForNameContext { .. }) => {
            "it is not for the host of the URL (only names in subjectAltName count, not CN)"
        }
        Error::InvalidCertificate(Wrong::Expired | Wrong::ExpiredContext { .. }) => {
            "it has expired, or the clock of this host is ahead"
        }
        Error::InvalidCertificate(Wrong::NotValidYet | Wrong::NotValidYetContext { .. }) => {
            "it is not valid yet, or the clock of this host is behind"
        }
        // psql accepts such certificates; the TLS of our own sessions (webpki) does not.
        Error::InvalidCertificate(_) if error.to_string().contains("CaUsedAsEndEntity") => {
            "it is an authority's own (CA:TRUE): use a server certificate with CA:FALSE that this authority has signed"
        }
        Error::InvalidCertificate(_) if error.to_string().contains("UnsupportedCertVersion") => {
            "it is of X.509 version 1: create one of version 3, with subjectAltName"
        }
        Error::AlertReceived(AlertDescription::CertificateRequired | AlertDescription::HandshakeFailure) => {
            "the server asks for a client certificate: name it with sslcert and sslkey"
        }
        Error::AlertReceived(AlertDescription::UnknownCA | AlertDescription::BadCertificate) => {
            "the server does not trust the client certificate of sslcert"
        }
        _ => return Some(error.to_string()),
    };
    Some(format!("{error}: {hint}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(parameters: &[(&'static str, &str)], home: &Path) -> Result<Tls, String> {
        Tls::of(&parameters.iter().map(|(key, value)| (*key, (*value).to_owned())).collect(), Some(home))
    }

    #[test]
    fn certificates_are_asked_for_as_libpq_asks() {
        use PgSslMode::{Disable, Prefer, Require, VerifyCa, VerifyFull};
        let home = tempfile::tempdir().unwrap();
        let modes = |parameters: &[(&'static str, &str)]| {
            of(parameters, home.path()).unwrap().modes().iter().map(|mode| format!("{mode:?}")).collect::<Vec<_>>()
        };
        let expect = |modes: &[PgSslMode]| modes.iter().map(|mode| format!("{mode:?}")).collect::<Vec<_>>();
        assert_eq!(modes(&[]), expect(&[Prefer, Disable]));
        assert_eq!(modes(&[("sslmode", "allow")]), expect(&[Disable, Require]));
        assert_eq!(modes(&[("sslmode", "require")]), expect(&[Require]));
        assert_eq!(modes(&[("sslmode", "verify-full")]), expect(&[VerifyFull]));
        assert_eq!(modes(&[("sslrootcert", "system")]), expect(&[VerifyFull]));
        assert_eq!(of(&[("sslmode", "verify-full")], home.path()).unwrap().root, Root::System);
        for (parameters, says) in [
            (&[("sslmode", "verify-ca")][..], "sslrootcert"),
            (&[("sslmode", "require"), ("sslrootcert", "system")], "verify-full"),
            (&[("sslmode", "verify-full"), ("sslrootcert", "/nowhere")], "there is no file /nowhere"),
            (&[("sslmode", "verify-full"), ("hostaddr", "::1")], "hostaddr"),
            (&[("sslcert", "/c")], "sslkey"),
        ] {
            let error = of(parameters, home.path()).unwrap_err();
            assert!(error.contains(says), "{error}");
        }
        // Files in ~/.postgresql count without being named.
        let folder = home.path().join(".postgresql");
        std::fs::create_dir(&folder).unwrap();
        for file in ["root.crt", "postgresql.crt", "postgresql.key"] {
            std::fs::write(folder.join(file), "").unwrap();
        }
        assert_eq!(modes(&[("sslmode", "require")]), expect(&[VerifyCa]));
        assert_eq!(modes(&[]), expect(&[VerifyCa, Disable]));
        let found = of(&[], home.path()).unwrap();
        assert_eq!(found.certificate.unwrap(), (folder.join("postgresql.crt"), folder.join("postgresql.key")));
        assert_eq!(found.root, Root::File(folder.join("root.crt")));
    }
}
