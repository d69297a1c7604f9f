//! URLs for a configuration file: complete, so that they mean the same in every environment, and without a password.

use super::super::{parameters, url};
use super::Settings;

/// What the environment may add to a URL that is written to a file: where the server is and who connects. Passwords stay where they are.
const FROM_ENVIRONMENT: [(&str, &str); 6] = [
    ("host", "PGHOST"),
    ("hostaddr", "PGHOSTADDR"),
    ("port", "PGPORT"),
    ("user", "PGUSER"),
    ("sslmode", "PGSSLMODE"),
    ("sslrootcert", "PGSSLROOTCERT"),
];

/// Files that a URL may name: beside whoever writes it, and not beside whoever reads it.
const FILES: [&str; 5] = ["servicefile", "passfile", "sslrootcert", "sslcert", "sslkey"];

/// A URL that may be written to a file.
#[derive(Debug, PartialEq, Eq)]
pub struct WrittenUrl {
    pub text: String,
    /// The URL that was given had a password, which `text` lacks.
    pub had_password: bool,
    /// The service that it names, of the URL or of the environment, with the file that is to have it.
    pub service: Option<String>,
}

impl Settings {
    /// Returns the URL of another database of the same server, as it may be written to a file.
    pub fn written(given: &str, database: &str) -> Result<WrittenUrl, String> {
        written(given, database, &|name| std::env::var(name).ok())
    }

    /// Returns the line of a password file that fits the first host, without the password itself.
    pub fn passfile_line(&self, database: &str) -> String {
        let escaped = |text: &str| text.replace('\\', "\\\\").replace(':', "\\:");
        let host = &self.hosts()[0];
        // libpq compares a socket's folder, or `localhost` where it is the default one.
        let name = if host.socket().is_some() { "*".to_owned() } else { escaped(&host.name) };
        format!("{name}:{}:{}:{}:PASSWORD", host.port, escaped(database), escaped(&self.access.user))
    }
}

fn written(given: &str, database: &str, variable: &dyn Fn(&str) -> Option<String>) -> Result<WrittenUrl, String> {
    let mut found = parameters::of_url(given)?;
    let had_password = found.remove("password").is_some();
    let variable = |name: &str| variable(name).filter(|value| !value.is_empty());
    if let Some(service) = variable("PGSERVICE").filter(|_| !found.contains_key("service")) {
        found.insert("service", service);
    }
    let service = found.get("service").cloned();
    if let Some(file) = variable("PGSERVICEFILE").filter(|_| service.is_some() && !found.contains_key("servicefile")) {
        found.insert("servicefile", file);
    }
    for key in FILES {
        if let Some(file) = found.get_mut(key).filter(|file| *file != "system") {
            *file = std::path::absolute(&*file).map_or_else(|_| file.clone(), |path| path.display().to_string());
        }
    }
    // A service says all of that, and so does a host with its port.
    let says_where = found.contains_key("host") || found.contains_key("hostaddr");
    if !found.contains_key("service") {
        for (key, name) in FROM_ENVIRONMENT {
            let is_a_place = matches!(key, "host" | "hostaddr");
            if let Some(value) = variable(name).filter(|_| !(found.contains_key(key) || (is_a_place && says_where))) {
                found.insert(key, value);
            }
        }
    }
    found.insert("dbname", database.to_owned());
    let of_file = found.get("servicefile").map(|file| format!(" of {file}")).unwrap_or_default();
    let service = service.map(|name| format!("`{name}`{of_file}"));
    Ok(WrittenUrl { text: url::format(found.iter().map(|(key, value)| (*key, value.as_str()))), had_password, service })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_for_a_file_is_complete_and_has_no_password() {
        let environment = |name: &str| match name {
            "PGHOST" => Some("db.example".to_owned()),
            "PGPORT" => Some("5433".to_owned()),
            "PGPASSWORD" => Some("hunter2".to_owned()),
            _ => None,
        };
        let service = |name: &str| match name {
            "PGSERVICE" => Some("prod".to_owned()),
            "PGSERVICEFILE" => Some("/etc/services".to_owned()),
            name => environment(name),
        };
        let nothing = |_: &str| None;
        for (given, variable, expected, had_password) in [
            ("postgres:///app", &nothing as &dyn Fn(&str) -> Option<String>, "postgres:///app", false),
            ("postgres://", &nothing, "postgres:///app", false),
            ("postgres://", &environment, "postgres://db.example:5433/app", false),
            ("postgres://u:hunter2@h/other", &nothing, "postgres://u@h/app", true),
            ("postgres://u@h/other?password=hunter2&sslmode=require", &nothing, "postgres://u@h/app?sslmode=require", true),
            ("postgres://?service=prod", &environment, "postgres:///app?service=prod", false),
            ("postgres://", &service, "postgres:///app?service=prod&servicefile=%2Fetc%2Fservices", false),
            ("postgres://?service=x&servicefile=%2Fmine", &service, "postgres:///app?service=x&servicefile=%2Fmine", false),
            ("postgres://u@%2Frun%2Fpg:5433/x", &nothing, "postgres://u@/app?host=%2Frun%2Fpg&port=5433", false),
        ] {
            let found = written(given, "app", variable).unwrap();
            assert_eq!((found.text.as_str(), found.had_password), (expected, had_password), "{given}");
        }
        assert_eq!(written("postgres://", "app", &service).unwrap().service.unwrap(), "`prod` of /etc/services");
        // A name of a file is one for whoever runs pgtend, wherever that is.
        let found = written("postgres://h/?sslrootcert=ca.pem", "app", &nothing).unwrap();
        let here = std::env::current_dir().unwrap().join("ca.pem").display().to_string().replace('/', "%2F");
        assert_eq!(found.text, format!("postgres://h/app?sslrootcert={here}"));
        let system = "postgres://h/app?sslmode=verify-full&sslrootcert=system";
        assert_eq!(written(system, "app", &nothing).unwrap().text, system);
    }
}
