//! Talking to PostgreSQL: where a server is, connections, quoting, and what its errors mean.
//!
//! The only file with `AssertSqlSafe`: identifiers reach SQL through [`identifier`], literals of utility
//! statements (which take no bound values) through [`literal`], all other values are bound.

use std::str::FromStr;
use std::time::Duration;

use anyhow::{Context as _, Result};
use bytes::Bytes;
use futures_util::TryStreamExt as _;
use futures_util::stream::BoxStream;
use secrecy::{ExposeSecret, SecretString};
use sqlx::postgres::{PgArguments, PgConnectOptions, PgConnection, PgCopyIn, PgDatabaseError, PgPool, PgPoolOptions, PgSslMode};
use sqlx::query::Query;
use sqlx::{AssertSqlSafe, ConnectOptions as _, Executor as _, Postgres};

use crate::config;
use crate::fault::{Fault, Kind};

/// Longer than a TCP handshake over any line that is worth a backup.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(20);

/// Where a database is and how to get in: resolved once, used by our own connections and, through the
/// environment, by pg_dump and psql.
#[derive(Clone, Debug)]
pub struct Settings {
    options: PgConnectOptions,
    /// A password of the URL. One of PGPASSWORD or `.pgpass` is found by libpq itself.
    password: Option<SecretString>,
    /// PGSSLROOTCERT and the like, where the URL says them.
    tls_files: Vec<(&'static str, String)>,
}

impl Settings {
    /// From the configuration; PG* variables and `.pgpass` fill what it leaves out.
    pub fn resolve(database: &config::Database) -> Result<Self> {
        let url = database.url.as_ref().map(ExposeSecret::expose_secret).unwrap_or("postgres://");
        Self::from_url(url)
    }

    pub fn from_url(url: &str) -> Result<Self> {
        Self::check_url(url)?;
        let options = PgConnectOptions::from_str(url).context("not a database URL")?;
        let options = match options.get_application_name() {
            Some(_) => options,
            None => options.application_name("pgtend"),
        };
        let parsed = url::Url::parse(url).context("not a database URL")?;
        let query = |name: &str| parsed.query_pairs().find(|(key, _)| key == name).map(|(_, value)| value.into_owned());
        let in_authority =
            parsed.password().map(|text| percent_encoding::percent_decode_str(text).decode_utf8_lossy().into_owned());
        let password = query("password").or(in_authority).map(SecretString::from);
        let tls_files = [("PGSSLROOTCERT", "sslrootcert"), ("PGSSLCERT", "sslcert"), ("PGSSLKEY", "sslkey")]
            .into_iter()
            .filter_map(|(variable, key)| query(key).map(|value| (variable, value)))
            .collect();
        Ok(Self { options, password, tls_files })
    }

    /// Says what is wrong with a URL without repeating it: it may hold a password.
    pub fn check_url(url: &str) -> Result<()> {
        let parsed = url::Url::parse(url)?;
        anyhow::ensure!(
            matches!(parsed.scheme(), "postgres" | "postgresql"),
            "it starts with neither postgres:// nor postgresql://"
        );
        PgConnectOptions::from_str(url)?;
        Ok(())
    }

    /// The same server, another database.
    pub fn with_database(&self, name: &str) -> Self {
        Self { options: self.options.clone().database(name), ..self.clone() }
    }

    pub fn database(&self) -> &str {
        // As libpq: the database's name defaults to the user's.
        self.options.get_database().unwrap_or_else(|| self.options.get_username())
    }

    /// `user@host:port/database`, for messages.
    pub fn display(&self) -> String {
        format!("{}@{}:{}/{}", self.options.get_username(), self.host(), self.options.get_port(), self.database())
    }

    /// `host:port`.
    pub fn server(&self) -> String {
        format!("{}:{}", self.host(), self.options.get_port())
    }

    /// The server is on this machine, for certain: a socket leads nowhere else.
    pub fn is_on_a_socket(&self) -> bool {
        self.options.get_socket().is_some()
    }

    fn host(&self) -> String {
        match self.options.get_socket() {
            Some(socket) => socket.display().to_string(),
            None => self.options.get_host().to_owned(),
        }
    }

    /// libpq's variables for a client tool. Everything goes this way and nothing by argument: arguments are
    /// readable by every user of the host, and a database named `a=b` would be taken for a connection string.
    pub fn apply_to(&self, command: &mut std::process::Command) {
        for inherited in ["PGHOSTADDR", "PGSERVICE", "PGSERVICEFILE"] {
            command.env_remove(inherited);
        }
        let ssl_mode = match self.options.get_ssl_mode() {
            PgSslMode::Disable => "disable",
            PgSslMode::Allow => "allow",
            PgSslMode::Prefer => "prefer",
            PgSslMode::Require => "require",
            PgSslMode::VerifyCa => "verify-ca",
            PgSslMode::VerifyFull => "verify-full",
        };
        command
            .env("PGHOST", self.host())
            .env("PGPORT", self.options.get_port().to_string())
            .env("PGUSER", self.options.get_username())
            .env("PGDATABASE", self.database())
            .env("PGSSLMODE", ssl_mode)
            .env("PGAPPNAME", "pgtend")
            .env("PGCONNECT_TIMEOUT", CONNECT_TIMEOUT.as_secs().to_string())
            .env("PGCLIENTENCODING", "UTF8")
            .envs(self.tls_files.iter().cloned());
        if let Some(options) = self.options.get_options() {
            command.env("PGOPTIONS", options);
        }
        if let Some(password) = &self.password {
            command.env("PGPASSWORD", password.expose_secret());
        }
    }

    /// Several connections that are opened when they are needed.
    pub fn pool(&self, max_connections: u32) -> PgPool {
        PgPoolOptions::new()
            .max_connections(max_connections)
            .min_connections(0)
            .acquire_timeout(CONNECT_TIMEOUT)
            .idle_timeout(Duration::from_secs(60))
            .connect_lazy_with(self.options.clone().disable_statement_logging())
    }

    /// A connection of its own. Errors name the server, and carry their [`Kind`].
    pub async fn connect(&self) -> Result<PgConnection> {
        let options = self.options.clone().disable_statement_logging();
        let connected = match tokio::time::timeout(CONNECT_TIMEOUT, options.connect()).await {
            Ok(connected) => connected.map_err(in_its_own_words),
            Err(_) => Err(Fault::new(Kind::Unreachable, format!("no answer in {} s", CONNECT_TIMEOUT.as_secs())).into()),
        };
        let mut connection = connected.with_context(|| format!("cannot connect to {}", self.display()))?;
        // A lock, or a scratch database to be dropped, waits for hours while pg_dump and psql work. And the server is
        // to notice within a minute that our host is gone: else a lock stays for two hours (tcp_keepalive_time).
        sqlx::query(
            "SELECT set_config(name, '0', false), set_config('tcp_keepalives_idle', '20', false),
                    set_config('tcp_keepalives_interval', '10', false), set_config('tcp_keepalives_count', '3', false),
                    set_config('tcp_user_timeout', '50000', false)
             FROM pg_settings WHERE name IN ('idle_session_timeout', 'idle_in_transaction_session_timeout', 'transaction_timeout',
                                            'statement_timeout')",
        )
        .execute(&mut connection)
        .await?;
        // What a killed process asked for ends with it, not when it is done, or the next run would meet it. Servers
        // on systems without such a check (not Linux, macOS, BSD) refuse the value.
        let _ = sqlx::query("SELECT set_config('client_connection_check_interval', '2s', false)").execute(&mut connection).await;
        Ok(connection)
    }
}

/// A quoted identifier, whatever is in the name. PostgreSQL itself allows all but NUL, which cannot occur in a
/// catalog; one that comes from elsewhere is dropped rather than let through.
pub fn identifier(name: &str) -> String {
    format!("\"{}\"", name.replace('\0', "").replace('"', "\"\""))
}

/// `"schema"."name"`.
pub fn qualified(schema: &str, name: &str) -> String {
    format!("{}.{}", identifier(schema), identifier(name))
}

/// A string literal for a statement that takes no bound values (CREATE DATABASE). `E''` makes it independent
/// of standard_conforming_strings.
pub fn literal(text: &str) -> String {
    format!("E'{}'", text.replace('\0', "").replace('\\', "\\\\").replace('\'', "''"))
}

/// Runs a statement made by [`identifier`] and [`literal`].
pub async fn execute(connection: &mut PgConnection, sql: String) -> Result<()> {
    connection.execute(AssertSqlSafe(sql)).await?;
    Ok(())
}

/// The same, with the number of rows it touched, and with an error whose SQLSTATE the caller reads.
pub async fn execute_counting(connection: &mut PgConnection, sql: String) -> Result<u64, sqlx::Error> {
    Ok(connection.execute(AssertSqlSafe(sql)).await?.rows_affected())
}

/// The first row of a query made by [`identifier`] and [`literal`]; its one column is text.
pub async fn fetch_text(connection: &mut PgConnection, sql: String) -> Result<Option<String>> {
    let text: Option<Option<String>> =
        sqlx::query_scalar(AssertSqlSafe(sql)).fetch_optional(connection).await.map_err(in_its_own_words)?;
    Ok(text.flatten())
}

/// All rows of a query made by [`identifier`] and [`literal`].
pub async fn fetch_all_as<T>(connection: &mut PgConnection, sql: String) -> Result<Vec<T>>
where
    T: for<'r> sqlx::FromRow<'r, sqlx::postgres::PgRow> + Send + Unpin,
{
    sqlx::query_as(AssertSqlSafe(sql)).fetch_all(connection).await.map_err(in_its_own_words)
}

/// A statement made by [`identifier`], for values to be bound to.
pub fn query<'q>(sql: String) -> Query<'q, Postgres, PgArguments> {
    sqlx::query(AssertSqlSafe(sql))
}

/// Runs somebody's own SQL as it stands. Returns the number of rows by the server's count: affected, or returned
/// and thrown away.
pub async fn execute_script(connection: &mut PgConnection, sql: &str) -> Result<u64> {
    let mut rows = 0;
    let mut results = connection.fetch_many(AssertSqlSafe(sql));
    while let Some(result) = results.try_next().await.map_err(in_its_own_words)? {
        if let sqlx::Either::Left(done) = result {
            rows += done.rows_affected();
        }
    }
    Ok(rows)
}

/// The rows of a query in COPY's text format. To be read to its end, or its connection is of no use any more.
pub async fn copy_out<'c>(connection: &'c mut PgConnection, query: &str) -> Result<BoxStream<'c, sqlx::Result<Bytes>>> {
    connection.copy_out_raw(&format!("COPY ({query}) TO STDOUT")).await.map_err(in_its_own_words)
}

/// Rows in COPY's text format, to be sent to a table.
pub async fn copy_in<'c>(connection: &'c mut PgConnection, table: &str, columns: &str) -> Result<PgCopyIn<&'c mut PgConnection>> {
    connection.copy_in_raw(&format!("COPY {table} {columns} FROM STDIN")).await.map_err(in_its_own_words)
}

/// The SQLSTATE of a server's refusal, where there is one.
pub fn sql_state(error: &anyhow::Error) -> Option<String> {
    error.chain().find_map(|cause| match (cause.downcast_ref::<sqlx::Error>(), cause.downcast_ref::<Said>()) {
        (Some(sqlx::Error::Database(said)), _) => said.code().map(std::borrow::Cow::into_owned),
        (_, Some(said)) => said.sql_state.clone(),
        _ => None,
    })
}

/// Stops what another connection of ours is doing: a server does not notice that its client went away before
/// it has something to say.
pub async fn cancel_backend(settings: &Settings, pid: i32) -> Result<()> {
    let mut connection = settings.connect().await?;
    sqlx::query("SELECT pg_cancel_backend($1)").bind(pid).execute(&mut connection).await?;
    Ok(())
}

pub async fn backend_pid(connection: &mut PgConnection) -> Result<i32> {
    Ok(sqlx::query_scalar("SELECT pg_backend_pid()").fetch_one(connection).await?)
}

/// Sets a parameter of the session.
pub async fn set(connection: &mut PgConnection, name: &str, value: &str) -> Result<()> {
    sqlx::query("SELECT set_config($1, $2, false)").bind(name).bind(value).execute(connection).await?;
    Ok(())
}

/// What a server says about itself.
#[derive(Clone, Debug)]
pub struct Server {
    /// As in `server_version_num`: 180004 is 18.4.
    pub version_num: i32,
    pub version: String,
}

impl Server {
    pub async fn of(connection: &mut PgConnection) -> Result<Self> {
        let (number, version): (String, String) =
            sqlx::query_as("SELECT current_setting('server_version_num'), current_setting('server_version')")
                .fetch_one(connection)
                .await?;
        // Debian adds its package's name: "15.18 (Debian 15.18-0+deb12u1)".
        let version = version.split(' ').next().unwrap_or_default().to_owned();
        Ok(Self { version_num: number.parse().context("server_version_num is not a number")?, version })
    }

    pub fn major(&self) -> u32 {
        self.version_num as u32 / 10_000
    }
}

/// Takes the session lock of a job on a database: true when nobody else holds it. It is let go when the
/// connection ends, however it ends.
pub async fn try_lock(connection: &mut PgConnection, name: &str) -> Result<bool> {
    let locked =
        sqlx::query_scalar("SELECT pg_try_advisory_lock(hashtextextended($1, 0))").bind(name).fetch_one(connection).await?;
    Ok(locked)
}

/// Who holds that lock: "pid 123 (application pgtend, from 10.0.0.1, since 02:00)".
pub async fn lock_holder(connection: &mut PgConnection, name: &str) -> Result<Option<String>> {
    let holder = sqlx::query_scalar(
        "SELECT format('server process %s (%s, from %s, connected since %s)', a.pid, a.application_name,
                       coalesce(a.client_addr::text, 'local'), to_char(a.backend_start, 'YYYY-MM-DD HH24:MI:SSOF'))
         FROM pg_locks l JOIN pg_stat_activity a USING (pid)
         WHERE l.locktype = 'advisory' AND l.granted AND l.objsubid = 1
           AND l.database = (SELECT oid FROM pg_database WHERE datname = current_database())
           AND ((l.classid::bigint << 32) | l.objid::bigint) = hashtextextended($1, 0)",
    )
    .bind(name)
    .fetch_optional(connection)
    .await?;
    Ok(holder)
}

/// Who holds locks on these tables, the oldest transaction first; empty when nobody does.
pub async fn lock_holders(connection: &mut PgConnection, tables: &[i64]) -> Result<String> {
    let holders: Vec<String> = sqlx::query_scalar(
        "SELECT DISTINCT ON (a.xact_start, a.pid) format('server process %s (%s, %s) has %s on %s since %s', a.pid, a.usename,
                coalesce(nullif(a.application_name, ''), a.backend_type), l.mode, l.relation::regclass,
                to_char(a.xact_start AT TIME ZONE 'UTC', 'YYYY-MM-DD HH24:MI:SS') || 'Z')
         FROM pg_locks l JOIN pg_stat_activity a USING (pid)
         WHERE l.locktype = 'relation' AND l.granted AND l.relation::bigint = ANY($1) AND a.pid <> pg_backend_pid()
           AND l.database = (SELECT oid FROM pg_database WHERE datname = current_database())
         ORDER BY a.xact_start, a.pid, l.mode LIMIT 3",
    )
    .bind(tables)
    .fetch_all(connection)
    .await?;
    Ok(holders.join("; "))
}

/// An error as the server said it, with its kind.
pub fn in_its_own_words(error: sqlx::Error) -> anyhow::Error {
    match (&error, kind_of(&error)) {
        (sqlx::Error::Database(_), Some(kind)) => Fault::new(kind, words_of(&error)).into(),
        (sqlx::Error::Database(said), None) => {
            Said { words: words_of(&error), sql_state: said.code().map(std::borrow::Cow::into_owned) }.into()
        }
        _ => error.into(),
    }
}

/// A server's refusal in its own words.
#[derive(Debug, thiserror::Error)]
#[error("{words}")]
struct Said {
    words: String,
    sql_state: Option<String>,
}

/// What the server said, with what explains it, and without the line of its source that sqlx adds.
pub fn words_of(error: &sqlx::Error) -> String {
    let sqlx::Error::Database(said) = error else { return error.to_string() };
    let mut text = said.message().to_owned();
    if let Some(said) = said.try_downcast_ref::<PgDatabaseError>() {
        for (what, more) in [("detail", said.detail()), ("hint", said.hint())] {
            if let Some(more) = more {
                text += &format!("; {what}: {more}");
            }
        }
        if kind_of(error).is_none() {
            text += &format!(" (SQLSTATE {})", said.code());
        }
    }
    text
}

/// The kind of a failure by its SQLSTATE class (PostgreSQL manual, appendix A) or by its transport.
pub fn kind_of(error: &sqlx::Error) -> Option<Kind> {
    match error {
        sqlx::Error::Io(_) | sqlx::Error::Tls(_) | sqlx::Error::PoolTimedOut => Some(Kind::Unreachable),
        sqlx::Error::Database(error) => match error.code()?.as_ref() {
            "42501" | "28000" | "28P01" => Some(Kind::Permission),
            "3D000" => Some(Kind::Configuration),
            "57P01" | "57P02" | "57P03" | "53300" => Some(Kind::Unreachable),
            // 08P01 is a statement that takes other parameters than it is given: the connection is well.
            code if code.starts_with("08") && code != "08P01" => Some(Kind::Unreachable),
            _ => None,
        },
        _ => None,
    }
}

/// The kind of a failure that a client tool reported on its stderr.
pub fn kind_of_message(stderr: &str) -> Option<Kind> {
    let says = |texts: &[&str]| texts.iter().any(|text| stderr.contains(text));
    if says(&[
        "permission denied",
        "password authentication failed",
        "no password supplied",
        "query would be affected by row-level security",
        "must be member of role",
        "must be able to SET ROLE",
        "must be superuser",
        "must be owner of",
    ]) {
        Some(Kind::Permission)
    } else if says(&["could not connect", "connection to server", "server closed the connection", "terminating connection"]) {
        Some(Kind::Unreachable)
    } else {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hostile_names_stay_names() {
        assert_eq!(identifier("we\"ird; drop"), "\"we\"\"ird; drop\"");
        assert_eq!(qualified("Ö", "a.b"), "\"Ö\".\"a.b\"");
        assert_eq!(literal("it's \\ x"), "E'it''s \\\\ x'");
    }

    #[test]
    fn a_tool_gets_the_same_server_by_environment_only() {
        let settings =
            Settings::from_url("postgres://tend:s%40crt@db.example:6543/we%22ird%3B?sslmode=verify-full&sslrootcert=%2Fca.pem")
                .unwrap();
        let mut command = std::process::Command::new("pg_dump");
        settings.apply_to(&mut command);
        let environment: std::collections::HashMap<_, _> =
            command.get_envs().filter_map(|(key, value)| Some((key.to_str()?.to_owned(), value?.to_str()?.to_owned()))).collect();
        assert_eq!(environment["PGHOST"], "db.example");
        assert_eq!(environment["PGPORT"], "6543");
        assert_eq!(environment["PGDATABASE"], "we\"ird;");
        assert_eq!(environment["PGPASSWORD"], "s@crt");
        assert_eq!(environment["PGSSLMODE"], "verify-full");
        assert_eq!(environment["PGSSLROOTCERT"], "/ca.pem");
        assert_eq!(command.get_args().count(), 0);
        assert!(!settings.display().contains("crt"));
        assert!(!format!("{:?}", settings.password).contains("crt"));
    }

    #[test]
    fn a_socket_folder_is_a_host() {
        let settings = Settings::from_url("postgres://postgres@%2Ftmp%2Fsock/demo").unwrap();
        assert_eq!(settings.display(), "postgres@/tmp/sock:5432/demo");
    }

    #[test]
    fn a_bad_url_is_named_without_repeating_it() {
        for url in ["mysql://root:hunter2@x/y", "postgres://root:hunter2@x:port/y", "hunter2"] {
            let error = format!("{:#}", Settings::from_url(url).unwrap_err());
            assert!(!error.contains("hunter2"), "{error}");
        }
    }
}
