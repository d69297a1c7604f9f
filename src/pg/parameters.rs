//! Combines the connection parameters of a URL, a service file and the environment as libpq does: the first of them that sets one
//! counts. Every existing parameter is used, ignored or refused here, by name.

use std::collections::BTreeMap;
use std::path::PathBuf;

use super::{service, url};
use crate::base::toml_file::did_you_mean;

/// libpq's keywords with their values.
pub type Parameters = BTreeMap<&'static str, String>;

/// `options` without those of PGOPTIONS, which sqlx prepends by itself.
pub const OWN_OPTIONS: &str = "own_options";

/// The treatment of a parameter.
enum Treatment {
    /// Used by pgtend and by client tools; with libpq's variable, or "" if it has none.
    Both(&'static str),
    /// Has no effect that matters here.
    Ignored,
    /// Refused, with the reason and advice.
    Refused(&'static str),
}

const ENCRYPTED_KEY: &str = "pgtend's own sessions cannot read an encrypted client key: leave a decrypted one to its owner alone (chmod 600) and name it in sslkey";
const REVOCATION: &str = "pgtend's own sessions cannot read revocation lists, and would accept what pg_dump refuses";
const AUTHENTICATION: &str = "pgtend's own sessions cannot promise it; the server's pg_hba.conf can";
const KERBEROS: &str = "pgtend's own sessions know neither GSSAPI nor Kerberos: use a password or a client certificate";

/// libpq's parameters (PostgreSQL manual, 32.1.2 and 32.15), then those that libraries of applications put into the same URL.
const KNOWN: &[(&str, Treatment)] = &[
    ("host", Treatment::Both("PGHOST")),
    ("hostaddr", Treatment::Both("PGHOSTADDR")),
    ("port", Treatment::Both("PGPORT")),
    ("dbname", Treatment::Both("PGDATABASE")),
    ("user", Treatment::Both("PGUSER")),
    ("password", Treatment::Both("PGPASSWORD")),
    ("passfile", Treatment::Both("PGPASSFILE")),
    ("service", Treatment::Both("PGSERVICE")),
    ("servicefile", Treatment::Both("PGSERVICEFILE")),
    ("options", Treatment::Both("PGOPTIONS")),
    ("application_name", Treatment::Both("PGAPPNAME")),
    ("fallback_application_name", Treatment::Both("")),
    ("connect_timeout", Treatment::Both("PGCONNECT_TIMEOUT")),
    ("target_session_attrs", Treatment::Both("PGTARGETSESSIONATTRS")),
    ("sslmode", Treatment::Both("PGSSLMODE")),
    ("sslrootcert", Treatment::Both("PGSSLROOTCERT")),
    ("sslcert", Treatment::Both("PGSSLCERT")),
    ("sslkey", Treatment::Both("PGSSLKEY")),
    ("channel_binding", Treatment::Both("PGCHANNELBINDING")),
    ("sslsni", Treatment::Both("PGSSLSNI")),
    ("ssl_min_protocol_version", Treatment::Both("PGSSLMINPROTOCOLVERSION")),
    ("ssl_max_protocol_version", Treatment::Both("PGSSLMAXPROTOCOLVERSION")),
    ("sslcertmode", Treatment::Both("PGSSLCERTMODE")),
    ("sslnegotiation", Treatment::Both("PGSSLNEGOTIATION")),
    ("gssencmode", Treatment::Both("PGGSSENCMODE")),
    ("client_encoding", Treatment::Ignored),
    ("keepalives", Treatment::Ignored),
    ("keepalives_idle", Treatment::Ignored),
    ("keepalives_interval", Treatment::Ignored),
    ("keepalives_count", Treatment::Ignored),
    ("tcp_user_timeout", Treatment::Ignored),
    ("sslcompression", Treatment::Ignored),
    ("load_balance_hosts", Treatment::Ignored),
    ("min_protocol_version", Treatment::Ignored),
    ("max_protocol_version", Treatment::Ignored),
    ("sslpassword", Treatment::Refused(ENCRYPTED_KEY)),
    ("sslcrl", Treatment::Refused(REVOCATION)),
    ("sslcrldir", Treatment::Refused(REVOCATION)),
    ("require_auth", Treatment::Refused(AUTHENTICATION)),
    ("requirepeer", Treatment::Refused(AUTHENTICATION)),
    ("krbsrvname", Treatment::Refused(KERBEROS)),
    ("gsslib", Treatment::Refused(KERBEROS)),
    ("gssdelegation", Treatment::Refused(KERBEROS)),
    ("replication", Treatment::Refused("pgtend does not use replication connections")),
    ("sslkeylogfile", Treatment::Refused("it would write the keys of every session to a file")),
    // Prisma.
    ("schema", Treatment::Ignored),
    ("connection_limit", Treatment::Ignored),
    ("pool_timeout", Treatment::Ignored),
    ("socket_timeout", Treatment::Ignored),
    ("statement_cache_size", Treatment::Ignored),
    ("pgbouncer", Treatment::Refused("")),
    // sqlx, node-postgres, pgx, Supabase on Vercel.
    ("statement-cache-capacity", Treatment::Ignored),
    ("uselibpqcompat", Treatment::Ignored),
    ("pool_max_conns", Treatment::Ignored),
    ("pool_min_conns", Treatment::Ignored),
    ("supa", Treatment::Ignored),
];

/// libpq's own variables for refused parameters: client tools would obey them, and our sessions would not.
const REFUSED_VARIABLES: &[(&str, &str)] =
    &[("PGSSLCRL", "sslcrl"), ("PGSSLCRLDIR", "sslcrldir"), ("PGREQUIREAUTH", "require_auth"), ("PGREQUIREPEER", "requirepeer")];

/// sqlx's names for them, which were accepted before.
const ALIASES: &[(&str, &str)] = &[
    ("ssl-mode", "sslmode"),
    ("ssl-root-cert", "sslrootcert"),
    ("ssl-ca", "sslrootcert"),
    ("ssl-cert", "sslcert"),
    ("ssl-key", "sslkey"),
];

/// A server refuses a startup packet above MAX_STARTUP_PACKET_LENGTH, 10,000 bytes; our contract takes 2 kB of it.
const MAX_OPTIONS_BYTES: usize = 4096;

const TARGETS: &[&str] = &["any", "read-write", "read-only", "primary", "standby", "prefer-standby"];
const SSL_MODES: &[&str] = &["disable", "allow", "prefer", "require", "verify-ca", "verify-full"];

/// The parameters that allow only certain words.
const CHOICES: &[(&str, &[&str])] = &[
    ("sslmode", SSL_MODES),
    ("target_session_attrs", TARGETS),
    ("channel_binding", &["disable", "prefer", "require"]),
    ("sslsni", &["0", "1"]),
    // Our TLS is 1.2 or 1.3, whatever the server prefers.
    ("ssl_min_protocol_version", &["TLSv1", "TLSv1.1", "TLSv1.2"]),
    ("ssl_max_protocol_version", &["TLSv1.3"]),
    ("sslcertmode", &["allow"]),
    ("sslnegotiation", &["postgres"]),
    ("gssencmode", &["disable", "prefer"]),
];

/// Returns the parameters of the URL itself. Messages about mistakes name parameters, never values.
pub fn of_url(text: &str) -> Result<Parameters, String> {
    collect(url::parse(text)?, "")
}

/// Returns all parameters of a connection: of the URL, of the service that it or the environment names, and of the environment.
pub fn resolve(text: &str, variable: &dyn Fn(&str) -> Option<String>) -> Result<Parameters, String> {
    let mut found = of_url(text)?;
    let variable = |name: &str| variable(name).filter(|value| !value.is_empty());
    if let Some((name, key)) = REFUSED_VARIABLES.iter().find(|(name, _)| variable(name).is_some()) {
        return Err(format!("the environment has {name}: {}", refusal(key, "").unwrap_or_default()));
    }
    if let Some(name) = found.get("service").cloned().or_else(|| variable("PGSERVICE")) {
        let file = found.get("servicefile").cloned().or_else(|| variable("PGSERVICEFILE")).map(PathBuf::from);
        let (file, of_service) = service::read(&name, file, variable("PGSYSCONFDIR").map(PathBuf::from))?;
        found.insert("servicefile", file.display().to_string());
        for (key, value) in collect(of_service, &format!("service `{name}`: "))? {
            found.entry(key).or_insert(value);
        }
    }
    let own_options = found.get("options").cloned();
    for (key, name) in KNOWN.iter().filter_map(|(key, used)| match used {
        Treatment::Both(name) if !name.is_empty() => Some((*key, *name)),
        _ => None,
    }) {
        if let Some(value) = variable(name).filter(|_| !found.contains_key(key)) {
            check(key, &value).map_err(|mistake| format!("the environment's {name}: {mistake}"))?;
            found.insert(key, value);
        }
    }
    // sqlx reads PGOPTIONS by itself and offers no way to leave it out, so client tools get it before the others, too.
    if let Some(own) = own_options {
        if let Some(inherited) = variable("PGOPTIONS") {
            found.insert("options", format!("{inherited} {own}"));
        }
        found.insert(OWN_OPTIONS, own);
    }
    Ok(found)
}

/// Checks each parameter, and describes the first wrong one.
fn collect(pairs: Vec<(String, String)>, of: &str) -> Result<Parameters, String> {
    let mut found = Parameters::new();
    for (key, value) in pairs {
        if let Some(name) = key.strip_prefix("options[").and_then(|rest| rest.strip_suffix(']')) {
            let options = found.entry("options").or_default();
            *options = format!("{options} -c {}={}", escaped(name), escaped(&value)).trim_start().to_owned();
            continue;
        }
        let name = ALIASES.iter().find(|(alias, _)| *alias == key).map_or(key.as_str(), |(_, name)| name);
        let Some((known, used)) = KNOWN.iter().find(|(known, _)| *known == name) else {
            return Err(format!("{of}{}", unknown(&key)));
        };
        if let Some(reason) = refusal(known, &value) {
            return Err(format!("{of}{reason}"));
        }
        check(known, &value).map_err(|mistake| format!("{of}{mistake}"))?;
        if matches!(used, Treatment::Both(_)) {
            found.insert(known, value);
        }
    }
    Ok(found)
}

fn unknown(key: &str) -> String {
    // A name that could be a piece of something else is not shown.
    let is_a_name = key.len() <= 40 && key.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-' | b'.'));
    if !is_a_name {
        return "it has a parameter that PostgreSQL does not know".to_owned();
    }
    let names = KNOWN.iter().map(|(name, _)| *name);
    let hint = did_you_mean(key, names).unwrap_or_else(|| "leave it out, or spell it as PostgreSQL does".to_owned());
    format!("PostgreSQL knows no parameter `{key}`: {hint}")
}

fn refusal(key: &str, value: &str) -> Option<String> {
    if key == "pgbouncer" {
        let on = value.eq_ignore_ascii_case("true");
        return on.then(|| {
            "`pgbouncer=true` says that the address is a connection pooler's in transaction mode, where locks, settings and \
             pg_dump do not work: give pgtend the server's own address and port (with Prisma: that of DIRECT_URL)"
                .to_owned()
        });
    }
    match KNOWN.iter().find(|(known, _)| *known == key)? {
        (_, Treatment::Refused(reason)) => Some(format!("`{key}` is not supported: {reason}")),
        _ => None,
    }
}

fn check(key: &str, value: &str) -> Result<(), String> {
    if let Some((_, choices)) = CHOICES.iter().find(|(choice, _)| *choice == key)
        && !choices.contains(&value)
    {
        return Err(format!("the value of `{key}` is not supported; supported: {}", choices.join(", ")));
    }
    if key == "port" && !value.split(',').all(|port| port.is_empty() || port.parse::<u16>().is_ok_and(|port| port > 0)) {
        return Err("its port is not a number from 1 to 65535".to_owned());
    }
    if key == "connect_timeout" && value.parse::<i32>().is_err() {
        return Err("`connect_timeout` is not a number of seconds".to_owned());
    }
    if key == "options" && value.len() > MAX_OPTIONS_BYTES {
        return Err(format!("`options` has more than {MAX_OPTIONS_BYTES} bytes: a server takes 10,000 with what pgtend adds"));
    }
    if key == "host" && value.split(',').any(|host| host.starts_with('@')) {
        return Err("sockets in the abstract namespace (a host with `@`) are not supported".to_owned());
    }
    Ok(())
}

/// Escapes a word as a server splits its options.
pub fn escaped(text: &str) -> String {
    let is_special = |letter: char| matches!(letter, '\\' | ' ' | '\t' | '\n' | '\x0b' | '\x0c' | '\r');
    let letters = text.chars().flat_map(|letter| is_special(letter).then_some('\\').into_iter().chain([letter]));
    letters.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn resolved(url: &str, variables: &[(&str, &str)]) -> Result<Parameters, String> {
        resolve(url, &|name| variables.iter().find(|(known, _)| *known == name).map(|(_, value)| (*value).to_owned()))
    }

    #[test]
    fn what_applications_add_to_their_url_is_ignored_and_what_matters_is_not() {
        let prisma = "postgres://u@h/d?schema=public&connection_limit=5&pool_timeout=1&socket_timeout=1&statement_cache_size=0&pgbouncer=false";
        assert_eq!(of_url(prisma).unwrap().keys().copied().collect::<Vec<_>>(), ["dbname", "host", "user"]);
        let neon = "postgres://u@h/d?sslmode=require&channel_binding=require&options=endpoint%3Dep-1";
        let neon = of_url(neon).unwrap();
        assert_eq!((neon["options"].as_str(), neon["channel_binding"].as_str()), ("endpoint=ep-1", "require"));
        let sqlx = of_url("postgres://h/d?ssl-mode=verify-ca&ssl-ca=ca.pem&options[geqo]=off&options[a.b]=c%20d").unwrap();
        assert_eq!((sqlx["sslmode"].as_str(), sqlx["sslrootcert"].as_str()), ("verify-ca", "ca.pem"));
        assert_eq!(sqlx["options"], "-c geqo=off -c a.b=c\\ d");
    }

    #[test]
    fn what_is_refused_is_named_with_its_reason_and_without_its_value() {
        for (url, says) in [
            ("postgres://h/d?sslpassword=hunter2", "`sslpassword` is not supported: pgtend's own sessions cannot read"),
            ("postgres://h/d?sslmod=hunter2", "did you mean `sslmode`"),
            ("postgres://h/d?apikey=hunter2", "PostgreSQL knows no parameter `apikey`"),
            ("postgres://h/d?hunter2%20x=1", "a parameter that PostgreSQL does not know"),
            ("postgres://h/d?sslmode=hunter2", "`sslmode` is not supported"),
            ("postgres://h/d?target_session_attrs=hunter2", "read-write"),
            ("postgres://h/d?pgbouncer=true", "DIRECT_URL"),
            ("postgres://u:p@h:hunter2/d", "port"),
            ("postgres://h:0/d", "port"),
            ("postgres://h/d?connect_timeout=hunter2", "connect_timeout"),
            ("postgres://h/d?sslcrl=hunter2", "revocation"),
            ("postgres://h/d?require_auth=hunter2", "pg_hba.conf"),
            ("postgres://h/d?gssencmode=require", "gssencmode"),
            ("postgres://%40abstract/d", "abstract"),
        ] {
            let error = of_url(url).expect_err(url);
            assert!(error.contains(says) && !error.contains("hunter2"), "{url}: {error}");
        }
        let error = resolved("postgres://h/d", &[("PGSSLCRL", "hunter2")]).unwrap_err();
        assert!(error.contains("PGSSLCRL") && error.contains("revocation") && !error.contains("hunter2"), "{error}");
        let error = resolved("postgres://h/d", &[("PGSSLMODE", "hunter2")]).unwrap_err();
        assert!(error.contains("PGSSLMODE") && !error.contains("hunter2"), "{error}");
    }

    #[test]
    fn the_url_counts_before_the_service_and_the_service_before_the_environment() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("services");
        std::fs::write(
            &file,
            "# mine\n[other]\nhost=o\n[app]\nhost=s\nport=5433\nuser=service\nsslmode=require\n[app2]\nuser=x\n",
        )
        .unwrap();
        let file = file.display().to_string();
        let variables =
            [("PGSERVICE", "app"), ("PGSERVICEFILE", &file), ("PGUSER", "env"), ("PGPORT", "1"), ("PGSSLROOTCERT", "/ca")];
        let found = resolved("postgres://url@/d", &variables).unwrap();
        assert_eq!(found["user"], "url");
        assert_eq!((found["host"].as_str(), found["port"].as_str(), found["sslmode"].as_str()), ("s", "5433", "require"));
        assert_eq!(found["sslrootcert"], "/ca");
        let found = resolved(&format!("postgres:///d?service=app2&servicefile={file}"), &[("PGUSER", "env")]).unwrap();
        assert_eq!(found["user"], "x");
        assert!(resolved("postgres:///d?service=none", &variables).unwrap_err().contains("a service `none`"));
    }

    #[test]
    fn options_of_the_environment_come_before_those_of_the_url() {
        let both = resolved("postgres://h/d?options=-c%20geqo=off", &[("PGOPTIONS", "-c jit=off")]).unwrap();
        assert_eq!((both["options"].as_str(), both[OWN_OPTIONS].as_str()), ("-c jit=off -c geqo=off", "-c geqo=off"));
        let inherited = resolved("postgres://h/d", &[("PGOPTIONS", "-c jit=off")]).unwrap();
        assert_eq!((inherited["options"].as_str(), inherited.get(OWN_OPTIONS)), ("-c jit=off", None));
        let own = resolved("postgres://h/d?options=-c%20geqo=off", &[]).unwrap();
        assert_eq!((own["options"].as_str(), own[OWN_OPTIONS].as_str()), ("-c geqo=off", "-c geqo=off"));
    }
}
