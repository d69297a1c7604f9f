//! Opens sessions: finds the host, checks whether the server itself answers, and makes every session keep the contract.

use std::time::Duration;

use anyhow::{Context as _, Result};
use sqlx::postgres::{PgConnectOptions, PgConnection, PgPool, PgPoolOptions};
use sqlx::{ConnectOptions as _, Executor as _, Row as _};

use super::contract::{self, Purpose};
use super::failure::{in_its_own_words, kind_of, sql_state};
use super::pooler::Answer;
use super::route::{Observed, Route};
use super::settings::{Host, Settings};
use super::{identifier, pooler, tls};
use crate::base::fault::{Fault, Kind};

/// SET ROLE's word for the login's own role.
const NO_ROLE: &str = "none";

/// The reason why a host was not taken.
struct Rejection {
    error: anyhow::Error,
    /// True when libpq would try the next host.
    next: bool,
    /// The server requires or refuses TLS, or the handshake failed: with sslmode "allow" and "prefer" the other mode is tried.
    about_tls: bool,
}

impl Rejection {
    fn new(error: anyhow::Error, next: bool) -> Self {
        Self { error, next, about_tls: false }
    }
}

impl Settings {
    /// Opens a connection for statements of our own, under the whole [`contract`]. Errors name the server, and carry their
    /// [`Kind`]. A pooler in transaction mode is refused before anything is set.
    pub async fn connect(&self) -> Result<PgConnection> {
        self.connect_for(Purpose::Own).await
    }

    /// Does the same for a given purpose.
    pub async fn connect_for(&self, purpose: Purpose) -> Result<PgConnection> {
        let opened = self.open(purpose).await;
        if opened.as_ref().is_err_and(|error| kind_of(error) == Some(Kind::Unreachable)) {
            // The next attempt chooses a host again.
            *self.seen() = Observed::default();
        }
        let (mut connection, answer) = opened.with_context(|| format!("cannot connect to {}", self.display()))?;
        self.keep_contract(&mut connection, purpose, &answer).await.map_err(in_its_own_words)?;
        let mut seen = self.seen();
        seen.may_set_messages = answer.may_set_messages && !seen.pooled.iter().any(|database| database == self.database());
        Ok(connection)
    }

    /// Returns a pool that opens connections when they are needed, to the host of the last [`Settings::connect`].
    pub fn pool(&self, max_connections: u32) -> PgPool {
        let settings = self.clone();
        PgPoolOptions::new()
            .max_connections(max_connections)
            .min_connections(0)
            .acquire_timeout(self.connect_timeout())
            .idle_timeout(Duration::from_secs(60))
            .after_connect(move |connection, _| {
                let settings = settings.clone();
                Box::pin(async move {
                    let answer = pooler::ask(connection).await?;
                    settings.keep_contract(connection, Purpose::Own, &answer).await
                })
            })
            .connect_lazy_with(self.contract_options(self.routes()[0], Purpose::Own))
    }

    /// Directs the pool's new connections to the host of the last [`Settings::connect`].
    pub fn point(&self, pool: &PgPool) {
        let route = self.seen().route;
        if let Some(route) = route {
            pool.set_connect_options(self.contract_options(route, Purpose::Own));
        }
    }

    fn quiet_options(&self, route: Route) -> PgConnectOptions {
        self.options(route).disable_statement_logging()
    }

    /// Returns the contract's part of the startup packet, after the URL's own options: of two values, the last counts.
    fn contract_options(&self, route: Route, purpose: Purpose) -> PgConnectOptions {
        let options = self.quiet_options(route);
        if self.seen().refuses_options {
            return options;
        }
        options.options(contract::startup(purpose, self.asks_whether_to_write())).options([("role", self.role())])
    }

    /// Sets what the startup packet could not carry, or did not.
    async fn keep_contract(&self, connection: &mut PgConnection, purpose: Purpose, answer: &Answer) -> sqlx::Result<()> {
        let version_num = connection.server_version_num().unwrap_or_default();
        let arrived = answer.role.as_deref() == Some(self.role())
            && (matches!(purpose, Purpose::Application | Purpose::Rows)
                || answer.search_path.as_deref() == Some(contract::SEARCH_PATH));
        let sets = contract::statements(purpose, self.asks_whether_to_write(), !arrived, version_num, answer.rights());
        super::execute_plain(connection, sets).await?;
        let _ = super::execute_plain(connection, contract::CONNECTION_CHECK.to_owned()).await;
        if !arrived {
            let role = if self.role() == NO_ROLE { NO_ROLE.to_owned() } else { identifier(self.role()) };
            super::execute_plain(connection, format!("SET ROLE {role}")).await?;
        }
        // A role's own default, which a database's owner cannot set. It comes last, since the role may have fewer rights.
        let stored = answer.stored_role.clone().filter(|role| self.role() == NO_ROLE && role != NO_ROLE);
        if let Some(stored) = &stored {
            super::execute_plain(connection, format!("SET ROLE {}", identifier(stored))).await?;
            if self.seen().stored_role.as_ref() != Some(stored) {
                tracing::info!("{}: sessions run as {stored}, by ALTER ROLE … SET role", self.display());
            }
        }
        let has_changed_its_role = stored.is_some() || !arrived;
        self.seen().stored_role = stored;
        if has_changed_its_role && is_superuser(connection).await? {
            super::execute_plain(connection, contract::as_a_superuser(purpose, version_num)).await?;
        }
        Ok(())
    }

    /// Returns all ways, or the one that was taken before.
    fn routes(&self) -> Vec<Route> {
        if let Some(route) = self.seen().route {
            return vec![route];
        }
        let of = |host: usize| self.modes(&self.hosts()[host]).into_iter().map(move |mode| Route { host, mode });
        (0..self.hosts().len()).flat_map(of).collect()
    }

    async fn open(&self, purpose: Purpose) -> Result<(PgConnection, Answer)> {
        let routes = self.routes();
        // Like libpq, "prefer-standby" accepts any server when there is no standby.
        let rounds: &[&str] = if self.target() == "prefer-standby" { &["standby", "any"] } else { &[self.target()] };
        let mut failures: Vec<(usize, anyhow::Error)> = Vec::new();
        for target in rounds {
            failures.clear();
            let mut at = 0;
            while let Some(route) = routes.get(at).copied() {
                let further_modes = routes[at + 1..].iter().take_while(|next| next.host == route.host).count();
                match self.open_route(route, target, purpose).await {
                    Ok(opened) => {
                        self.seen().route = Some(route);
                        return Ok(opened);
                    }
                    // The same host is tried without TLS, or with it.
                    Err(Rejection { about_tls: true, .. }) if further_modes > 0 => at += 1,
                    Err(Rejection { error, next: true, .. }) => {
                        failures.push((route.host, error));
                        at += 1 + further_modes;
                    }
                    Err(Rejection { error, next: false, .. }) => return Err(self.naming(route.host, error)),
                }
            }
        }
        match failures.len() {
            1 => {
                let (host, error) = failures.remove(0);
                Err(match self.hosts()[host].advice() {
                    Some(advice) => error.context(advice),
                    None => error,
                })
            }
            _ => {
                let all: Vec<String> =
                    failures.iter().map(|(host, error)| format!("{}: {error:#}", self.hosts()[*host].display())).collect();
                Err(Fault::new(Kind::Unreachable, format!("no host accepts connections: {}", all.join("; "))).into())
            }
        }
    }

    fn naming(&self, host: usize, error: anyhow::Error) -> anyhow::Error {
        if self.hosts().len() > 1 { error.context(Host::display(&self.hosts()[host])) } else { error }
    }

    async fn open_route(&self, route: Route, target: &str, purpose: Purpose) -> Result<(PgConnection, Answer), Rejection> {
        let limit = self.connect_timeout();
        match tokio::time::timeout(limit, self.ask(route, target, purpose)).await {
            Ok(Ok((connection, answer, is_direct))) if is_direct => Ok((connection, answer)),
            Ok(Ok((connection, answer, _))) => Ok((self.behind_a_pooler(connection, route).await?, answer)),
            Ok(Err(no)) => Err(no),
            Err(_) => {
                let error = Fault::new(Kind::Unreachable, format!("no answer in {} s", limit.as_secs())).into();
                Err(Rejection::new(error, true))
            }
        }
    }

    /// Connects, and reads the facts in one query. The last of the three tells whether the server itself answers.
    async fn ask(&self, route: Route, target: &str, purpose: Purpose) -> Result<(PgConnection, Answer, bool), Rejection> {
        let options = self.contract_options(route, purpose);
        let (is_known, refuses_options) = {
            let seen = self.seen();
            (seen.pooled.iter().any(|database| database == self.database()), seen.refuses_options)
        };
        let token = (!is_known && !refuses_options).then(pooler::token);
        let with_token = token.iter().fold(options, |options, token| pooler::with_token(options, token));
        let mut connection = match with_token.connect().await {
            Err(error) if !refuses_options && pooler::takes_no_options(&error) => {
                self.seen().refuses_options = true;
                self.quiet_options(route).connect().await
            }
            connected => connected,
        }
        .map_err(|error| self.with_missing_password(route.host, refused(error)))?;
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
            return Err(Rejection::new(Fault::new(Kind::Unreachable, message).into(), true));
        }
        let is_direct = is_known || token.is_some_and(|token| answer.token.as_deref() == Some(&*token));
        Ok((connection, answer, is_direct))
    }

    /// The server complains about a wrong password even when none was given.
    fn with_missing_password(&self, host: usize, no: Rejection) -> Rejection {
        let is_of_a_password = sql_state(&no.error).as_deref() == Some("28P01");
        if !is_of_a_password || self.has_a_password_for(&self.hosts()[host]) {
            return no;
        }
        let message = "the server asks for a password and none was given: put it into the URL (url_env, url_file), PGPASSWORD or \
                       ~/.pgpass";
        Rejection { error: no.error.context(Fault::new(Kind::Permission, message)), ..no }
    }

    /// Something does not pass startup parameters on. It may give each connection a server process of its own.
    async fn behind_a_pooler(&self, mut connection: PgConnection, route: Route) -> Result<PgConnection, Rejection> {
        let shares = pooler::shares_sessions(&mut connection, &self.quiet_options(route)).await;
        match shares {
            Ok(false) => {
                self.seen().pooled.push(self.database().to_owned());
                Ok(connection)
            }
            Ok(true) => {
                let message = format!(
                    "{}: statements of one connection go to different server processes, so locks and settings would belong to other clients, \
                     and pg_dump would leave its search_path to the application. Give pgtend the server's own address and port, or one \
                     of the pooler in session mode (PgBouncer: pool_mode = session for this database)",
                    pooler::TRANSACTION_POOLER
                );
                Err(Rejection::new(Fault::new(Kind::Configuration, message).into(), false))
            }
            Err(error) => Err(Rejection::new(error, false)),
        }
    }
}

/// Returns whether the session now runs as a superuser.
async fn is_superuser(connection: &mut PgConnection) -> sqlx::Result<bool> {
    let row = connection.fetch_one("SELECT pg_catalog.current_setting('is_superuser')").await?;
    Ok(row.try_get::<String, _>(0)? == "on")
}

fn refused(error: sqlx::Error) -> Rejection {
    // libpq tries the next host after these: no connection, or a server that is starting up.
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
    Rejection { error, next, about_tls }
}
