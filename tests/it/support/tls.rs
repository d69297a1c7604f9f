//! A server with TLS, and the certificates that go with it.

use std::path::{Path, PathBuf};
use std::process::Command;

use tempfile::TempDir;

use super::postgres::{Different, Server};
use super::serve::free_port;

/// Debian's PostgreSQL 15 on 127.0.0.1 and ::1, over TLS alone (and on its socket, as any server of the tests). Its certificate
/// is for `localhost` and 127.0.0.1, not for ::1. Roles: `postgres` needs nothing more, `by_password` its password
/// [`PASSWORD`], `by_certificate` a client certificate.
pub struct TlsServer {
    pub server: Server,
    pub port: u16,
    certificates: TempDir,
}

pub const PASSWORD: &str = "pass word#@:/?%";

/// Of `client_encrypted.key`.
pub const KEY_PASSWORD: &str = "open-sesame";

const MAKE_CERTIFICATES: &str = r#"
set -e
ca() { openssl req -x509 -newkey rsa:2048 -nodes -days 30 -keyout "$1.key" -out "$1.crt" -subj "/CN=$1" -addext basicConstraints=critical,CA:TRUE; }
signed() { openssl req -newkey rsa:2048 -nodes -keyout "$1.key" -out "$1.csr" -subj "/CN=$2"
    printf '%s\n' "$3" >extensions
    openssl x509 -req -in "$1.csr" -CA ca.crt -CAkey ca.key -CAcreateserial -days 30 -extfile extensions -out "$1.crt"; }
ca ca
ca other_ca
signed server localhost 'subjectAltName=DNS:localhost,IP:127.0.0.1'
signed client by_certificate 'extendedKeyUsage=clientAuth'
openssl rsa -aes256 -in client.key -passout "pass:$1" -out client_encrypted.key
chmod 600 *.key
"#;

const HBA: &str = "\
local all all trust
hostssl all by_certificate samehost cert
hostssl all by_password samehost scram-sha-256
hostssl all postgres samehost trust
";

impl TlsServer {
    pub fn start() -> Self {
        let certificates = TempDir::new().unwrap();
        let made = Command::new("sh")
            .args(["-c", MAKE_CERTIFICATES, "sh", KEY_PASSWORD])
            .current_dir(certificates.path())
            .output()
            .expect("openssl is installed (scripts/setup)");
        assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
        let prepare = |folder: &Path| {
            for name in ["server.crt", "server.key", "ca.crt"] {
                std::fs::copy(certificates.path().join(name), folder.join(name)).unwrap();
            }
            std::fs::write(folder.join("pg_hba.conf"), HBA).unwrap();
        };
        let port = free_port();
        // Certificates are looked for from its data folder, this one from where it starts.
        let settings = [
            "listen_addresses=127.0.0.1,::1",
            "ssl=on",
            "ssl_cert_file=../server.crt",
            "ssl_key_file=../server.key",
            "ssl_ca_file=../ca.crt",
            "hba_file=pg_hba.conf",
        ];
        let settings = settings.map(str::to_owned).to_vec();
        let server =
            Server::start_different(15, Different { settings, port: Some(port), prepare: Some(&prepare), primary: None });
        server.sql(
            "postgres",
            &format!("CREATE ROLE by_certificate LOGIN SUPERUSER; CREATE ROLE by_password LOGIN SUPERUSER PASSWORD '{PASSWORD}'"),
        );
        Self { server, port, certificates }
    }

    /// `ca.crt`, `other_ca.crt` (nobody's), `client.crt` with `client.key` and `client_encrypted.key`.
    pub fn file(&self, name: &str) -> PathBuf {
        self.certificates.path().join(name)
    }

    /// Over TLS, with what of libpq's parameters a test wants: `sslmode=verify-full`.
    pub fn url(&self, user: &str, host: &str, database: &str, parameters: &str) -> String {
        format!("postgres://{user}@{host}:{}/{database}?{parameters}", self.port)
    }

    /// As `by_certificate`, with everything that verify-full wants.
    pub fn verified_url(&self, database: &str) -> String {
        let path = |name| self.file(name).display().to_string();
        let (ca, certificate, key) = (path("ca.crt"), path("client.crt"), path("client.key"));
        let parameters = format!("sslmode=verify-full&sslrootcert={ca}&sslcert={certificate}&sslkey={key}");
        self.url("by_certificate", "localhost", database, &parameters)
    }
}

const MAKE_CERTIFICATES_OF_A_COMPANY: &str = r#"
set -e
openssl req -x509 -newkey rsa:2048 -nodes -days 30 -keyout ca.key -out ca.pem -subj "/CN=Company CA" -addext basicConstraints=critical,CA:TRUE
signed() { openssl req -newkey rsa:2048 -nodes -keyout "$1.key" -out "$1.csr" -subj "/CN=$1"
    echo "subjectAltName=DNS:$1" >extensions
    openssl x509 -req -in "$1.csr" -CA ca.pem -CAkey ca.key -CAcreateserial -days 30 -extfile extensions -out "$1.pem"; }
signed localhost
signed elsewhere
"#;

/// `ca.pem` of a company, and certificates (`NAME.pem`, `NAME.key`) that it signed for `localhost` and `elsewhere`.
pub struct Certificates(TempDir);

impl Certificates {
    pub fn make() -> Self {
        let folder = TempDir::new().unwrap();
        let made = Command::new("sh").args(["-c", MAKE_CERTIFICATES_OF_A_COMPANY]).current_dir(folder.path()).output().unwrap();
        assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
        Self(folder)
    }

    pub fn path(&self, name: &str) -> String {
        self.0.path().join(name).display().to_string()
    }
}
