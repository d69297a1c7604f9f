//! Gives pg_dump and psql the server of our own sessions, through libpq's variables.

use std::path::PathBuf;
use std::process::Command;

use secrecy::ExposeSecret as _;

use super::{Host, Settings};
use crate::pg::contract::{self, Purpose};
use crate::pg::parameters;
use crate::pg::tls::{self, Root};

impl Settings {
    /// Sets libpq's variables for a client tool. Nothing goes by argument: every user of the host can read arguments, and a
    /// database named `a=b` would be taken for a connection string.
    pub fn apply_to(&self, command: &mut Command) {
        self.apply_for(Purpose::Own, command);
    }

    /// Does the same with more settings of the session, as SHOW shows them; also with another search_path, for a tool whose own queries do not depend on it.
    pub fn apply_with(&self, more: &[(&str, &str)], command: &mut Command) {
        self.apply(Purpose::Own, more, command);
    }

    /// Does the same for a given purpose.
    pub fn apply_for(&self, purpose: Purpose, command: &mut Command) {
        self.apply(purpose, &[], command);
    }

    fn apply(&self, purpose: Purpose, more: &[(&str, &str)], command: &mut Command) {
        let access = &*self.access;
        for inherited in ["PGHOSTADDR", "PGSERVICE", "PGSERVICEFILE", "PGSSLROOTCERT", "PGSSLCERT", "PGSSLKEY", "PGOPTIONS"] {
            command.env_remove(inherited);
        }
        // This is the server of our own sessions, if there are any.
        let hosts = self.likely_hosts();
        let list = |of: &dyn Fn(&Host) -> String| hosts.iter().map(of).collect::<Vec<_>>().join(",");
        command
            .env("PGHOST", list(&|host| host.name.clone()))
            .env("PGPORT", list(&|host| host.port.to_string()))
            .env("PGUSER", &access.user)
            .env("PGDATABASE", &self.database)
            .env("PGSSLMODE", &access.tls.mode)
            .env("PGGSSENCMODE", "disable")
            .env("PGTARGETSESSIONATTRS", &access.target)
            .env("PGAPPNAME", &access.application_name)
            .env("PGCONNECT_TIMEOUT", access.connect_timeout.as_secs().to_string())
            .env("PGCLIENTENCODING", "UTF8")
            .envs(access.variables.iter().cloned());
        if hosts.iter().any(|host| host.address.is_some()) {
            command.env("PGHOSTADDR", list(&|host| host.address.map(|address| address.to_string()).unwrap_or_default()));
        }
        match &access.tls.root {
            Root::File(file) => drop(command.env("PGSSLROOTCERT", file)),
            // "system" is known since libpq 16: the file means the same to all versions.
            Root::System => drop(command.env("PGSSLROOTCERT", tls::bundle().unwrap_or_else(|| PathBuf::from("system")))),
            Root::Absent => {}
        }
        if let Some((certificate, key)) = &access.tls.certificate {
            command.env("PGSSLCERT", certificate).env("PGSSLKEY", key);
        }
        if let Some(options) = self.tool_options(purpose, more) {
            command.env("PGOPTIONS", options);
        }
        match hosts {
            // libpq finds it in the file by the same rules, but for the socket folder that was built into it.
            [host] => {
                if let Some(password) = self.password(host) {
                    command.env("PGPASSWORD", password.expose_secret());
                }
            }
            _ => {
                if let Some(password) = &access.password {
                    command.env("PGPASSWORD", password.expose_secret());
                }
                if let Some(file) = &access.passfile {
                    command.env("PGPASSFILE", file);
                }
            }
        }
    }

    /// Returns whether sessions of client tools have the settings of the contract: a pooler in between may refuse or drop them.
    pub fn tools_keep_contract(&self) -> bool {
        let seen = self.seen();
        !(seen.refuses_options || seen.pooled.contains(&self.database))
    }

    /// Returns the session's contract after the user's own options. If a pooler in between refuses options, only the user's own
    /// stay.
    fn tool_options(&self, purpose: Purpose, more: &[(&str, &str)]) -> Option<String> {
        let own = self.access.options.clone();
        if !self.tools_keep_contract() {
            return own;
        }
        let seen = self.seen();
        let role = seen.stored_role.as_deref().unwrap_or(self.role());
        let mut settings: Vec<(&str, &str)> = contract::startup(purpose, self.asks_whether_to_write()).collect();
        settings.extend(seen.may_set_messages.then_some(("lc_messages", "C")));
        settings.push(("role", role));
        settings.extend_from_slice(more);
        let settings = settings.into_iter().map(|(name, value)| format!("-c {name}={}", parameters::escaped(value)));
        Some(own.into_iter().chain(settings).collect::<Vec<_>>().join(" "))
    }
}
