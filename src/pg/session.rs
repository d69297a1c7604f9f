//! Sessions: which host answers, whether it is the server itself that does, and what every session of ours gets.

use std::time::Duration;

use anyhow::{Context as _, Result};
use sqlx::postgres::{PgConnectOptions, PgConnection, PgPool, PgPoolOptions, PgSslMode};
use sqlx::{ConnectOptions as _, Row as _};

use super::settings::{Host, Settings};
use super::{in_its_own_words, pooler, sql_state, tls};
use crate::fault::{Fault, Kind, kind_of};

/// One way into a server: the number of a host, and how it is asked for TLS.
#[derive(Clone, Copy, Debug)]
pub struct Way {
    pub host: usize,
    pub mode: PgSslMode,
}

/// What connections showed. A run stays with the host that it began on: its locks are there.
#[derive(Debug, Default)]
pub struct Seen {
    pub way: Option<Way>,
    /// Databases that are reached through a pooler which gives a session for the whole connection.
    pub pooled: Vec<String>,
    /// The role may set lc_messages, and nothing in between refuses options.
    pub may_set_messages: bool,
}

/// Why a host is not the one.
struct No {
    error: anyhow::Error,
    /// libpq would ask the next.
    next: bool,
    /// The server wants TLS, or none, or the handshake failed: with sslmode "allow" and "prefer" the other is tried.
    about_tls: bool,
}

impl No {
    fn new(error: anyhow::Error, next: bool) -> Self {
        Self { error, next, about_tls: false }
    }
}

impl Settings {
    /// A connection of its own. Errors name the server, and carry their [`Kind`]. A pooler in transaction mode is
    /// refused before anything is set.
    pub async fn connect(&self) -> Result<PgConnection> {
        let opened = self.open().await;
        if opened.as_ref().is_err_and(|error| kind_of(error) == Some(Kind::Unreachable)) {
            // The next one looks for a host anew.
            *self.seen() = Seen::default();
        }
        let mut connection = opened.with_context(|| format!("cannot connect to {}", self.display()))?;
        let may_set_messages = contract(&mut connection).await?;
        let mut seen = self.seen();
        seen.may_set_messages = may_set_messages && !seen.pooled.iter().any(|database| database == self.database());
        drop(seen);
        Ok(connection)
    }

    /// Several connections that are opened when they are needed, to the host of the last [`Settings::connect`].
    pub fn pool(&self, max_connections: u32) -> PgPool {
        PgPoolOptions::new()
            .max_connections(max_connections)
            .min_connections(0)
            .acquire_timeout(self.connect_timeout())
            .idle_timeout(Duration::from_secs(60))
            .after_connect(|connection, _| Box::pin(async move { contract(connection).await.map(drop) }))
            .connect_lazy_with(self.quiet_options(self.ways()[0]))
    }

    /// From now on the pool's new connections go where the last [`Settings::connect`] went.
    pub fn point(&self, pool: &PgPool) {
        let way = self.seen().way;
        if let Some(way) = way {
            pool.set_connect_options(self.quiet_options(way));
        }
    }

    fn quiet_options(&self, way: Way) -> PgConnectOptions {
        self.options(way).disable_statement_logging()
    }

    /// All ways, or the one that was taken before.
    fn ways(&self) -> Vec<Way> {
        if let Some(way) = self.seen().way {
            return vec![way];
        }
        let of = |host: usize| self.modes(&self.hosts()[host]).into_iter().map(move |mode| Way { host, mode });
        (0..self.hosts().len()).flat_map(of).collect()
    }

    async fn open(&self) -> Result<PgConnection> {
        let ways = self.ways();
        // As libpq: "prefer-standby" takes any when there is no standby.
        let rounds: &[&str] = if self.target() == "prefer-standby" { &["standby", "any"] } else { &[self.target()] };
        let mut failures: Vec<(usize, anyhow::Error)> = Vec::new();
        for target in rounds {
            failures.clear();
            let mut at = 0;
            while let Some(way) = ways.get(at).copied() {
                let further_modes = ways[at + 1..].iter().take_while(|next| next.host == way.host).count();
                match self.open_way(way, target).await {
                    Ok(connection) => {
                        self.seen().way = Some(way);
                        return Ok(connection);
                    }
                    // The same host without TLS, or with it.
                    Err(No { about_tls: true, .. }) if further_modes > 0 => at += 1,
                    Err(No { error, next: true, .. }) => {
                        failures.push((way.host, error));
                        at += 1 + further_modes;
                    }
                    Err(No { error, next: false, .. }) => return Err(self.naming(way.host, error)),
                }
            }
        }
        match failures.len() {
            1 => Err(failures.remove(0).1),
            _ => {
                let all: Vec<String> =
                    failures.iter().map(|(host, error)| format!("{}: {error:#}", self.hosts()[*host].display())).collect();
                Err(Fault::new(Kind::Unreachable, format!("no host is to be had: {}", all.join("; "))).into())
            }
        }
    }

    fn naming(&self, host: usize, error: anyhow::Error) -> anyhow::Error {
        if self.hosts().len() > 1 { error.context(Host::display(&self.hosts()[host])) } else { error }
    }

    async fn open_way(&self, way: Way, target: &str) -> Result<PgConnection, No> {
        let limit = self.connect_timeout();
        match tokio::time::timeout(limit, self.ask(way, target)).await {
            Ok(Ok((connection, is_direct))) if is_direct => Ok(connection),
            Ok(Ok((connection, _))) => self.behind_a_pooler(connection, way).await,
            Ok(Err(no)) => Err(no),
            Err(_) => {
                let error = Fault::new(Kind::Unreachable, format!("no answer in {} s", limit.as_secs())).into();
                Err(No::new(error, true))
            }
        }
    }

    /// Connects, and asks what is needed to know: one question. Whether it is the server itself that answers is the
    /// second of the pair.
    async fn ask(&self, way: Way, target: &str) -> Result<(PgConnection, bool), No> {
        let options = self.quiet_options(way);
        let is_known = self.seen().pooled.iter().any(|database| database == self.database());
        let token = (!is_known).then(pooler::token);
        let mut connection = match &token {
            Some(token) => match pooler::with_token(options.clone(), token).connect().await {
                Err(error) if pooler::takes_no_options(&error) => options.connect().await,
                connected => connected,
            },
            None => options.connect().await,
        }
        .map_err(|error| self.with_missing_password(way.host, refused(error)))?;
        let answer = pooler::ask(&mut connection).await.map_err(refused)?;
        let is_fit = match target {
            "read-write" => !answer.in_recovery && !answer.read_only,
            "read-only" => answer.in_recovery || answer.read_only,
            "primary" => !answer.in_recovery,
            "standby" => answer.in_recovery,
            _ => true,
        };
        if !is_fit {
            let is = match (answer.in_recovery, answer.read_only) {
                (true, _) => "a standby",
                (false, true) => "read-only by default_transaction_read_only",
                (false, false) => "a primary that may be written to",
            };
            let message = format!("it is {is}, and target_session_attrs asks for {target}");
            return Err(No::new(Fault::new(Kind::Unreachable, message).into(), true));
        }
        let is_direct = is_known || token.is_some_and(|token| answer.token.as_deref() == Some(&*token));
        Ok((connection, is_direct))
    }

    /// The server's refusal of a password speaks of a wrong one where none was given, too.
    fn with_missing_password(&self, host: usize, no: No) -> No {
        let is_of_a_password = sql_state(&no.error).as_deref() == Some("28P01");
        if !is_of_a_password || self.has_a_password_for(&self.hosts()[host]) {
            return no;
        }
        let message = "the server asks for a password and none was given: put it into the URL (url_env, url_file), PGPASSWORD or \
                       ~/.pgpass";
        No { error: no.error.context(Fault::new(Kind::Permission, message)), ..no }
    }

    /// Something does not pass startup parameters on. It may give each connection a server process of its own.
    async fn behind_a_pooler(&self, mut connection: PgConnection, way: Way) -> Result<PgConnection, No> {
        let shares = pooler::shares_sessions(&mut connection, &self.quiet_options(way)).await;
        match shares {
            Ok(false) => {
                self.seen().pooled.push(self.database().to_owned());
                Ok(connection)
            }
            Ok(true) => {
                let message = "it is a connection pooler in transaction mode: statements of one connection go to different \
                               server processes, so that locks and settings would be others', and pg_dump would leave its \
                               search_path to the application. Give pgtend the server's own address and port, or one of the \
                               pooler in session mode (PgBouncer: pool_mode = session for this database)";
                Err(No::new(Fault::new(Kind::Configuration, message).into(), false))
            }
            Err(error) => Err(No::new(error, false)),
        }
    }
}

fn refused(error: sqlx::Error) -> No {
    // What libpq asks the next host after: no connection, or a server that is starting up.
    let next = match &error {
        sqlx::Error::Io(_) => tls::hint(&error).is_none(),
        sqlx::Error::Database(said) => said.code().as_deref() == Some("57P03"),
        _ => false,
    };
    let hint = tls::hint(&error);
    let about_tls = match &error {
        sqlx::Error::Tls(_) => true,
        sqlx::Error::Io(error) => hint.is_some() || error.kind() == std::io::ErrorKind::UnexpectedEof,
        // "no pg_hba.conf entry for …, no encryption"
        sqlx::Error::Database(said) => said.code().as_deref() == Some("28000"),
        _ => false,
    };
    let error = match hint {
        Some(hint) => Fault::new(Kind::Configuration, hint).into(),
        None => in_its_own_words(error),
    };
    No { error, next, about_tls }
}

/// What every session of ours gets, with one question; whether lc_messages may be set is what comes back.
///
/// A lock, or a scratch database to be dropped, waits for hours while pg_dump and psql work. And the server is to
/// notice within a minute that our host is gone: else a lock stays for two hours (tcp_keepalive_time). Numbers are
/// written in full, and messages are English where the role may choose.
async fn contract(connection: &mut PgConnection) -> sqlx::Result<bool> {
    // has_parameter_privilege came with 15.
    let may = match connection.server_version_num() {
        Some(150_000..) => "current_setting('is_superuser') = 'on' OR has_parameter_privilege('lc_messages', 'SET')",
        _ => "current_setting('is_superuser') = 'on'",
    };
    let sql = format!(
        "SELECT bool_or(wanted.name = 'lc_messages'), count(set_config(wanted.name, wanted.value, false))
         FROM (VALUES ('idle_session_timeout', '0'), ('idle_in_transaction_session_timeout', '0'), ('transaction_timeout', '0'),
                      ('statement_timeout', '0'), ('tcp_keepalives_idle', '20'), ('tcp_keepalives_interval', '10'),
                      ('tcp_keepalives_count', '3'), ('tcp_user_timeout', '50000'), ('extra_float_digits', '2'),
                      ('lc_messages', 'C')) AS wanted (name, value)
         JOIN pg_settings ON pg_settings.name = wanted.name
         WHERE wanted.name <> 'lc_messages' OR {may}"
    );
    let row = super::query(sql).fetch_one(&mut *connection).await?;
    // What a killed process asked for ends with it, not when it is done, or the next run would meet it. Servers
    // on systems without such a check (not Linux, macOS, BSD) refuse the value.
    let _ = sqlx::query("SELECT set_config('client_connection_check_interval', '2s', false)").execute(&mut *connection).await;
    row.try_get(0)
}
