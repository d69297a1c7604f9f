//! Where a database is and how to connect: resolved once, by libpq's rules, and used by our own sessions and, through the
//! environment, by pg_dump and psql.

mod default_host;
mod tools;
mod written;

use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::str::FromStr as _;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use anyhow::Result;
use secrecy::{ExposeSecret, SecretString};
use sqlx::postgres::{PgConnectOptions, PgSslMode};

use super::parameters::{self, OWN_OPTIONS, Parameters};
use super::passfile;
use super::route::{Observed, Route};
use super::tls::{Root, Tls};
use crate::base::fault::{Fault, Kind};
use crate::base::network::is_this_machine;

pub use written::WrittenUrl;

/// This is longer than a TCP handshake over any line that is worth a backup.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(20);

/// How to reach a database. Its copies, also those for another database of the server, share the facts found about it.
#[derive(Clone, Debug)]
pub struct Settings {
    access: Arc<Access>,
    database: String,
    /// The facts that the last connection found.
    seen: Arc<Mutex<Observed>>,
}

/// Everything but the database's name.
#[derive(Clone, Debug)]
struct Access {
    hosts: Vec<Host>,
    user: String,
    password: Option<SecretString>,
    passfile: Option<PathBuf>,
    /// The file that has its service.
    service_file: Option<PathBuf>,
    tls: Tls,
    application_name: String,
    /// The options for client tools.
    options: Option<String>,
    /// The options for sqlx, which reads PGOPTIONS by itself.
    own_options: Option<String>,
    connect_timeout: Duration,
    target: String,
    /// The role that every session takes; "none" is the login's own.
    role: String,
    /// Variables for client tools only.
    variables: Vec<(&'static str, String)>,
}

/// One of the hosts of a URL.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Host {
    /// A name, an address, or the folder of a socket; may be empty beside an address.
    name: String,
    /// The address to connect to without resolving the name.
    address: Option<IpAddr>,
    port: u16,
}

impl Settings {
    /// Reads a URL. A service file, PG* variables and `.pgpass` supply what the URL leaves out.
    pub fn from_url(url: &str) -> Result<Self> {
        let variable = |name: &str| std::env::var(name).ok();
        let resolved = parameters::resolve(url, &variable).and_then(|found| Self::of(&found));
        resolved
            .map_err(|mistake| Fault::new(Kind::Configuration, format!("not a connection that can be made: {mistake}")).into())
    }

    /// Returns the settings for a server of our own, on the socket in `folder`. The environment does not matter.
    pub fn on_socket(folder: &Path, user: &str, password: &str, database: &str) -> Result<Self> {
        let found = Parameters::from([
            ("host", folder.display().to_string()),
            ("port", "5432".to_owned()),
            ("user", user.to_owned()),
            ("password", password.to_owned()),
            ("dbname", database.to_owned()),
            ("sslmode", "disable".to_owned()),
        ]);
        Self::of(&found).map_err(|mistake| {
            Fault::new(Kind::Configuration, format!("the folder {} cannot be used for a socket: {mistake}", folder.display()))
                .into()
        })
    }

    /// Explains what is wrong with a URL without repeating it: it may contain a password.
    pub fn check_url(url: &str) -> Result<(), String> {
        parameters::of_url(url).map(drop)
    }

    /// Returns whether the URL contains a password, anywhere in it.
    pub fn has_password(url: &str) -> bool {
        parameters::of_url(url).is_ok_and(|found| found.contains_key("password"))
    }

    /// Returns whether the URL itself, or its service, names a database.
    pub fn names_a_database(url: &str) -> bool {
        parameters::of_url(url).is_ok_and(|found| found.contains_key("dbname") || found.contains_key("service"))
    }

    /// Returns whether the URL, its service or the environment names a database: without that, its name is the user's.
    pub fn means_a_database(url: &str) -> bool {
        let variable = |name: &str| std::env::var(name).ok();
        parameters::resolve(url, &variable).is_ok_and(|found| found.contains_key("dbname"))
    }

    fn of(found: &Parameters) -> Result<Self, String> {
        let text = |key: &str| found.get(key).cloned();
        let user = match text("user") {
            Some(user) => user,
            None => os_user()?,
        };
        let home = std::env::home_dir();
        let timeout = found.get("connect_timeout").and_then(|seconds| seconds.parse().ok()).filter(|seconds| *seconds > 0);
        let access = Access {
            hosts: hosts(found)?,
            password: text("password").map(SecretString::from),
            passfile: text("passfile").map(PathBuf::from).or_else(|| home.as_deref().map(|home| home.join(".pgpass"))),
            service_file: text("service").and_then(|_| text("servicefile")).map(PathBuf::from),
            tls: Tls::of(found, home.as_deref())?,
            application_name: text("application_name")
                .or_else(|| text("fallback_application_name"))
                .unwrap_or_else(|| "pgtend".to_owned()),
            options: text("options"),
            own_options: text(OWN_OPTIONS),
            connect_timeout: timeout.map_or(CONNECT_TIMEOUT, Duration::from_secs),
            target: text("target_session_attrs").unwrap_or_else(|| "any".to_owned()),
            role: "none".to_owned(),
            variables: [
                ("PGCHANNELBINDING", "channel_binding"),
                ("PGSSLSNI", "sslsni"),
                ("PGSSLMINPROTOCOLVERSION", "ssl_min_protocol_version"),
                ("PGSSLMAXPROTOCOLVERSION", "ssl_max_protocol_version"),
            ]
            .into_iter()
            .filter_map(|(variable, key)| text(key).map(|value| (variable, value)))
            .collect(),
            user,
        };
        // Like libpq, the database's name defaults to the user's.
        let database = text("dbname").unwrap_or_else(|| access.user.clone());
        Ok(Self { access: Arc::new(access), database, seen: Arc::default() })
    }

    pub fn with_role(self, role: &str) -> Self {
        Self { access: Arc::new(Access { role: role.to_owned(), ..(*self.access).clone() }), ..self }
    }

    /// Returns the settings for another database of the same server.
    pub fn with_database(&self, name: &str) -> Self {
        Self { database: name.to_owned(), ..self.clone() }
    }

    pub fn database(&self) -> &str {
        &self.database
    }

    /// Returns the files that it reads, each with libpq's name for it. The password file need not be there.
    pub fn files(&self) -> impl Iterator<Item = (&'static str, &Path)> {
        let Access { passfile, service_file, tls, .. } = &*self.access;
        let root = match &tls.root {
            Root::File(file) => Some(file),
            Root::System | Root::Absent => None,
        };
        let key = tls.certificate.as_ref().map(|(_, key)| key);
        let files =
            [("passfile", passfile.as_ref()), ("servicefile", service_file.as_ref()), ("sslkey", key), ("sslrootcert", root)];
        files.into_iter().filter_map(|(name, file)| Some((name, file?.as_path())))
    }

    /// Returns `user@host:port/database`, for messages.
    pub fn display(&self) -> String {
        let hosts: Vec<String> = self.likely_hosts().iter().map(Host::display).collect();
        format!("{}@{}/{}", self.access.user, hosts.join(","), self.database)
    }

    /// Returns `host:port`, for messages.
    pub fn server(&self) -> String {
        self.likely_hosts().iter().map(Host::display).collect::<Vec<_>>().join(",")
    }

    /// Returns whether the server is certainly on this machine: a socket leads nowhere else.
    pub fn is_on_a_socket(&self) -> bool {
        self.likely_hosts().iter().all(|host| host.socket().is_some())
    }

    /// Returns the first host on another machine that may be used without TLS, and the sslmode that allows it.
    pub fn may_be_in_the_clear(&self) -> Option<(String, String)> {
        let host = self.access.hosts.iter().find(|host| !host.is_on_this_machine())?;
        let mode = &self.access.tls.mode;
        matches!(mode.as_str(), "disable" | "allow" | "prefer").then(|| (host.display(), mode.clone()))
    }

    pub(super) fn hosts(&self) -> &[Host] {
        &self.access.hosts
    }

    pub(super) fn target(&self) -> &str {
        &self.access.target
    }

    /// Returns the role that the configuration names, or "none".
    pub(super) fn role(&self) -> &str {
        &self.access.role
    }

    /// Returns whether the server's own default_transaction_read_only matters.
    pub(super) fn asks_whether_to_write(&self) -> bool {
        matches!(self.target(), "read-write" | "read-only")
    }

    pub(super) fn connect_timeout(&self) -> Duration {
        self.access.connect_timeout
    }

    pub(super) fn seen(&self) -> MutexGuard<'_, Observed> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns the host of the last connection, or all that may be tried.
    fn likely_hosts(&self) -> &[Host] {
        match &self.seen().route {
            Some(route) => &self.access.hosts[route.host..=route.host],
            None => &self.access.hosts,
        }
    }

    /// Returns the TLS modes for a host, in libpq's order.
    pub(super) fn modes(&self, host: &Host) -> Vec<PgSslMode> {
        match host.socket() {
            // libpq does not use TLS over a socket, whatever sslmode says.
            Some(_) => vec![PgSslMode::Disable],
            None => self.access.tls.modes(),
        }
    }

    /// Returns options for sqlx, which then reads nothing of its own but PGOPTIONS.
    pub(super) fn options(&self, route: Route) -> PgConnectOptions {
        let access = &*self.access;
        let host = &access.hosts[route.host];
        let none = || PgConnectOptions::new_without_pgpass();
        let options = match &access.own_options {
            None => none(),
            // There is no other way to pass options unchanged. With a password, sqlx reads no password file.
            Some(own) => {
                let own = percent_encoding::utf8_percent_encode(own, percent_encoding::NON_ALPHANUMERIC);
                PgConnectOptions::from_str(&format!("postgres://-:-@-/?options={own}")).unwrap_or_else(|_| none())
            }
        };
        let password = self.password(host);
        let mut options = options
            .port(host.port)
            .username(&access.user)
            .password(password.as_ref().map_or("", ExposeSecret::expose_secret))
            .database(&self.database)
            .ssl_mode(route.mode)
            .application_name(&access.application_name)
            // Poolers know no such startup parameter; the session's contract has it.
            .extra_float_digits(None);
        options = match (host.socket(), host.address) {
            (Some(socket), _) => options.socket(socket),
            (None, Some(address)) => options.host(&address.to_string()),
            (None, None) => options.host(&host.name),
        };
        options = match &access.tls.root {
            Root::File(file) => options.ssl_root_cert(file),
            Root::System => options.ssl_root_cert_from_pem(Vec::new()),
            Root::Absent => options,
        };
        match &access.tls.certificate {
            Some((certificate, key)) => options.ssl_client_cert(certificate).ssl_client_key(key),
            None => options,
        }
    }

    pub(super) fn has_a_password_for(&self, host: &Host) -> bool {
        self.password(host).is_some()
    }

    fn password(&self, host: &Host) -> Option<SecretString> {
        let access = &*self.access;
        access.password.clone().or_else(|| {
            let file = access.passfile.as_deref()?;
            passfile::look_up(file, &host.in_passfile(), host.port, &self.database, &access.user).map(SecretString::from)
        })
    }
}

impl Host {
    pub(super) fn display(&self) -> String {
        let name = match self.address {
            Some(address) if self.name.is_empty() => address.to_string(),
            _ => self.name.clone(),
        };
        if name.contains(':') { format!("[{name}]:{}", self.port) } else { format!("{name}:{}", self.port) }
    }

    fn socket(&self) -> Option<&str> {
        (self.address.is_none() && self.name.starts_with('/')).then_some(&self.name)
    }

    /// Returns what to do if no server answers.
    pub(super) fn advice(&self) -> Option<String> {
        default_host::advice(self.socket()?, self.port)
    }

    /// Returns whether the host is certainly this machine.
    fn is_on_this_machine(&self) -> bool {
        match self.address {
            Some(address) => address.to_canonical().is_loopback(),
            None => self.socket().is_some() || is_this_machine(&self.name),
        }
    }

    /// Returns its name in a password file.
    fn in_passfile(&self) -> String {
        match self.address {
            Some(address) if self.name.is_empty() => address.to_string(),
            _ if default_host::FOLDERS.contains(&self.name.as_str()) => "localhost".to_owned(),
            _ => self.name.clone(),
        }
    }
}

fn hosts(found: &Parameters) -> Result<Vec<Host>, String> {
    let list = |key: &str| -> Vec<String> {
        found.get(key).map(|text| text.split(',').map(str::to_owned).collect()).unwrap_or_default()
    };
    let (names, addresses, ports) = (list("host"), list("hostaddr"), list("port"));
    let count = addresses.len().max(names.len()).max(1);
    if !names.is_empty() && !addresses.is_empty() && names.len() != addresses.len() {
        return Err(format!("{} hosts in `host` and {} in `hostaddr`", names.len(), addresses.len()));
    }
    if ports.len() > 1 && ports.len() != count {
        return Err(format!("{} ports for {count} hosts: one for all, or one for each", ports.len()));
    }
    (0..count)
        .map(|at| {
            let port = ports.get(at).or_else(|| ports.first().filter(|_| ports.len() == 1)).filter(|port| !port.is_empty());
            let port = port.map_or(Ok(5432), |port| port.parse()).map_err(|_| "a port is not a number".to_owned())?;
            let address = match addresses.get(at).filter(|address| !address.is_empty()) {
                Some(address) => Some(address.parse().map_err(|_| "`hostaddr` is not an IP address".to_owned())?),
                None => None,
            };
            let name = names.get(at).cloned().unwrap_or_default();
            let name = if name.is_empty() && address.is_none() { default_host::folder(port)? } else { name };
            Ok(Host { name, address, port })
        })
        .collect()
}

/// Returns the process's effective user, as libpq does.
fn os_user() -> Result<String, String> {
    whoami::username().map_err(|_| {
        "no user is given, and this process's user has no name on this system: put the user into the URL or PGUSER".to_owned()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn environment(settings: &Settings) -> std::collections::HashMap<String, String> {
        let mut command = std::process::Command::new("pg_dump");
        settings.apply_to(&mut command);
        assert_eq!(command.get_args().count(), 0);
        command.get_envs().filter_map(|(key, value)| Some((key.to_str()?.to_owned(), value?.to_str()?.to_owned()))).collect()
    }

    #[test]
    fn a_tool_gets_the_same_server_by_environment_only() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path().join("ca.pem");
        std::fs::write(&root, "").unwrap();
        let url =
            format!("postgres://tend:s%40crt@db.example:6543/we%22ird%3B?sslmode=verify-full&sslrootcert={}", root.display());
        let settings = Settings::from_url(&url).unwrap();
        let environment = environment(&settings);
        assert_eq!(environment["PGHOST"], "db.example");
        assert_eq!(environment["PGPORT"], "6543");
        assert_eq!(environment["PGDATABASE"], "we\"ird;");
        assert_eq!(environment["PGPASSWORD"], "s@crt");
        assert_eq!(environment["PGSSLMODE"], "verify-full");
        assert_eq!(environment["PGSSLROOTCERT"], root.display().to_string());
        assert!(!settings.display().contains("crt"));
        assert!(!format!("{settings:?}").contains("s@crt"));
    }

    #[test]
    fn a_socket_folder_is_a_host() {
        let settings = Settings::from_url("postgres://postgres@%2Ftmp%2Fsock/demo").unwrap();
        assert_eq!(settings.display(), "postgres@/tmp/sock:5432/demo");
    }

    #[test]
    fn an_ipv6_address_has_brackets_for_people_only() {
        for url in ["postgres://u@[::1]:6543/app", "postgres://u@/app?host=::1&port=6543"] {
            let settings = Settings::from_url(url).unwrap();
            assert_eq!(settings.display(), "u@[::1]:6543/app");
            assert_eq!(environment(&settings)["PGHOST"], "::1");
            let route = Route { host: 0, mode: PgSslMode::Disable };
            assert_eq!((settings.options(route).get_host(), settings.options(route).get_port()), ("::1", 6543));
        }
    }

    #[test]
    fn several_hosts_are_all_given_until_one_has_answered() {
        let url = "postgres://u@h1,[::1]:5433/app?target_session_attrs=read-write";
        let settings = Settings::from_url(url).unwrap();
        assert_eq!(settings.display(), "u@h1:5432,[::1]:5433/app");
        let all = environment(&settings);
        assert_eq!((all["PGHOST"].as_str(), all["PGPORT"].as_str()), ("h1,::1", "5432,5433"));
        assert_eq!(all["PGTARGETSESSIONATTRS"], "read-write");
        settings.seen().route = Some(Route { host: 1, mode: PgSslMode::Disable });
        let one = environment(&settings.with_database("other"));
        assert_eq!((one["PGHOST"].as_str(), one["PGPORT"].as_str(), one["PGDATABASE"].as_str()), ("::1", "5433", "other"));
        for wrong in ["postgres://u@h1,h2/app?port=1,2,3", "postgres://u@h1,h2/app?hostaddr=::1", "postgres://u@h/a?hostaddr=h"] {
            assert!(Settings::from_url(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn options_reach_the_server_as_they_stand() {
        let settings = Settings::from_url("postgres://u@h/app?options=-c%20geqo%3Doff%20endpoint%3Dx").unwrap();
        let options = settings.options(Route { host: 0, mode: PgSslMode::Disable });
        assert_eq!(options.get_options(), Some("-c geqo=off endpoint=x"));
        assert_eq!((options.get_host(), options.get_username(), options.get_database()), ("h", "u", Some("app")));
        assert!(environment(&settings)["PGOPTIONS"].starts_with("-c geqo=off endpoint=x -c search_path=pg_catalog,\\ pg_temp "));
    }

    #[test]
    fn a_bad_url_is_named_without_repeating_it() {
        for url in ["mysql://root:hunter2@x/y", "postgres://root:hunter2@x:port/y", "hunter2"] {
            let error = format!("{:#}", Settings::from_url(url).unwrap_err());
            assert!(!error.contains("hunter2"), "{error}");
        }
    }
}
