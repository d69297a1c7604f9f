//! The session that a restore runs in: how it is prepared, and what may fail in it without ending its transaction.

use anyhow::{Context as _, Result};
use bytes::Bytes;
use sqlx::postgres::PgConnection;

use super::facts;
use super::rewrite::Server;
use super::script::{Step, Steps};
use crate::pg;

/// Index builds of the restore's own session. An ivfflat index over 11,000 vectors of 1,536 dimensions refuses the
/// server's default of 64 MB ("memory required is 65 MB"); a larger setting stays.
const BUILD_MEMORY: &str = "SELECT pg_catalog.set_config('maintenance_work_mem', '512MB', false) WHERE pg_catalog.pg_size_bytes(pg_catalog.current_setting('maintenance_work_mem')) OPERATOR(pg_catalog.<) 536870912";

/// Around a statement whose failure must not end the transaction that it stands in.
const SAVEPOINT: &str = "SAVEPOINT pgtend";
const BACK: &str = "ROLLBACK TO SAVEPOINT pgtend";
const RELEASE: &str = "RELEASE SAVEPOINT pgtend";

pub struct Session {
    pub connection: PgConnection,
    pub server: Server,
    pub silence: Silence,
    /// Of ours, around everything, with the number that the server gave it.
    transaction: Option<String>,
    /// Inside a `BEGIN; … COMMIT;` of the dump.
    in_block: bool,
}

/// How event triggers can be kept from firing for what a restore itself does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Silence {
    /// `event_triggers = off`, from the start: 17 and newer, for superusers.
    Off,
    /// `session_replication_role = replica`, once the dump makes the first one: for superusers.
    Replica,
    No,
}

/// Settings of the source's database under which its generated columns, indexes and checks were computed, as they are for
/// `pg_dump --create | psql`. The rest of them is carried when all is there; most would only get in the way before.
fn computes(setting: &str) -> bool {
    const NAMES: [&str; 8] = [
        "default_text_search_config",
        "lc_monetary",
        "lc_numeric",
        "lc_time",
        "timezone",
        "array_nulls",
        "xmloption",
        "xmlbinary",
    ];
    setting.contains('.') || NAMES.contains(&setting.to_ascii_lowercase().as_str())
}

/// How a block of rows ended.
pub enum Copied {
    All,
    /// The dump ended before the block did.
    CutShort,
    Not(sqlx::Error),
}

impl Session {
    /// Connects, and prepares the session. An error is the target's or the network's.
    pub async fn open(settings: &pg::Settings, in_transaction: bool, of_source: &[String]) -> Result<Self> {
        let mut connection = settings.connect_for(pg::Purpose::Restore).await?;
        for (name, value) in of_source.iter().filter_map(|setting| setting.split_once('=')).filter(|(name, _)| computes(name)) {
            if let Err(error) = pg::set(&mut connection, name, value).await {
                tracing::debug!("the restore's session goes without {name}: {error:#}");
            }
        }
        pg::execute(&mut connection, BUILD_MEMORY.to_owned()).await?;
        let known = facts::setting_names(&mut connection).await?;
        let tablespaces: Vec<String> = sqlx::query_scalar(
            "SELECT spcname::pg_catalog.text FROM pg_catalog.pg_tablespace
             WHERE pg_catalog.has_tablespace_privilege(oid, 'CREATE')
                OR oid = (SELECT dattablespace FROM pg_catalog.pg_database WHERE datname = pg_catalog.current_database())",
        )
        .fetch_all(&mut connection)
        .await?;
        let silence = silence(&mut connection, known.contains("event_triggers")).await?;
        let mut transaction = None;
        if in_transaction {
            pg::execute(&mut connection, "BEGIN".to_owned()).await?;
            transaction = Some(transaction_number(&mut connection).await?);
        }
        let server = Server { settings: known, tablespaces: tablespaces.into_iter().collect() };
        Ok(Self { connection, server, silence, transaction, in_block: false })
    }

    /// In one of ours, around everything.
    pub fn is_one_transaction(&self) -> bool {
        self.transaction.is_some()
    }

    pub async fn execute(&mut self, sql: &str) -> Result<(), sqlx::Error> {
        pg::execute_counting(&mut self.connection, sql.to_owned()).await.map(|_| ())
    }

    /// The same; what fails leaves the transaction that it stands in as it was.
    pub async fn execute_guarded(&mut self, sql: &str) -> Result<(), sqlx::Error> {
        self.save().await?;
        let done = self.execute(sql).await;
        self.settle(&done).await?;
        done
    }

    /// The number that a query has as its only result; guarded, too.
    pub async fn number_guarded(&mut self, sql: String) -> Option<u64> {
        self.save().await.ok()?;
        let rows = pg::fetch_all_as::<(i64,)>(&mut self.connection, sql).await;
        if self.is_in_transaction() {
            self.execute(if rows.is_ok() { RELEASE } else { BACK }).await.ok()?;
        }
        rows.ok()?.first().map(|(rows,)| *rows as u64)
    }

    /// BEGIN or COMMIT of the dump, which are taken out of a transaction of ours: they would end it.
    pub async fn transaction_of_dump(&mut self, text: &str) -> Result<(), sqlx::Error> {
        if self.transaction.is_none() {
            self.execute(text).await?;
            self.in_block = text == "BEGIN";
        }
        Ok(())
    }

    /// Takes the steps up to the end of the block, whatever the server says. When it does not take the rows, they are
    /// thrown away here.
    pub async fn copy(&mut self, statement: &str, steps: &mut Steps, is_guarded: bool) -> Result<Copied, sqlx::Error> {
        if is_guarded {
            self.save().await?;
        }
        let copied = copy(&mut self.connection, statement, steps).await;
        match &copied {
            Copied::All if is_guarded => self.settle(&Ok(())).await?,
            Copied::Not(sqlx::Error::Database(_)) if is_guarded && self.is_in_transaction() => self.execute(BACK).await?,
            _ => {}
        }
        Ok(copied)
    }

    /// The last act. False when the transaction is not the one that was begun: what came before is not in it.
    pub async fn commit(&mut self) -> Result<bool> {
        let Some(begun) = self.transaction.take() else { return Ok(true) };
        if transaction_number(&mut self.connection).await? != begun {
            return Ok(false);
        }
        self.execute("COMMIT").await?;
        Ok(true)
    }

    fn is_in_transaction(&self) -> bool {
        self.transaction.is_some() || self.in_block
    }

    async fn save(&mut self) -> Result<(), sqlx::Error> {
        if self.is_in_transaction() { self.execute(SAVEPOINT).await } else { Ok(()) }
    }

    /// A connection that broke has nothing to go back to.
    async fn settle(&mut self, done: &Result<(), sqlx::Error>) -> Result<(), sqlx::Error> {
        match done {
            Ok(()) if self.is_in_transaction() => self.execute(RELEASE).await,
            Err(sqlx::Error::Database(_)) if self.is_in_transaction() => self.execute(BACK).await,
            _ => Ok(()),
        }
    }
}

/// Switches event triggers off where the role may, and says how.
async fn silence(connection: &mut PgConnection, has_setting: bool) -> Result<Silence> {
    let setting = if has_setting { "event_triggers" } else { "session_replication_role" };
    // has_parameter_privilege came with 15. Tried without being asked, it would be an error in the server's log at each restore.
    let may = match pg::Server::of(connection).await?.major() {
        15.. => format!("pg_catalog.has_parameter_privilege({}, 'SET') OR", pg::literal(setting)),
        _ => String::new(),
    };
    let may =
        pg::fetch_text(connection, format!("SELECT ({may} pg_catalog.current_setting('is_superuser') = 'on')::pg_catalog.text"))
            .await?;
    Ok(match (may.as_deref() == Some("true"), has_setting) {
        (false, _) => Silence::No,
        (true, true) => {
            pg::set(connection, "event_triggers", "off").await?;
            Silence::Off
        }
        (true, false) => Silence::Replica,
    })
}

async fn copy(connection: &mut PgConnection, statement: &str, steps: &mut Steps) -> Copied {
    let mut failed = None;
    match pg::copy_in_by(connection, statement).await {
        Ok(mut into) => {
            while let Some(rows) = next_rows(steps).await {
                match rows {
                    // A server that has refused a row reads the rest and forgets it.
                    Some(rows) if failed.is_none() => failed = into.send(rows).await.err(),
                    Some(_) => {}
                    None => {
                        return match (failed, into.finish().await) {
                            (Some(error), _) | (None, Err(error)) => Copied::Not(error),
                            (None, Ok(_)) => Copied::All,
                        };
                    }
                }
            }
            let _ = into.abort("the dump ends here").await;
            Copied::CutShort
        }
        Err(error) => {
            failed = Some(error);
            while let Some(rows) = next_rows(steps).await {
                if rows.is_none() {
                    break;
                }
            }
            failed.map_or(Copied::CutShort, Copied::Not)
        }
    }
}

/// `Some(None)` at the end of the block, None at the end of the dump.
async fn next_rows(steps: &mut Steps) -> Option<Option<Bytes>> {
    match steps.next().await? {
        Step::Rows(rows) => Some(Some(rows)),
        Step::RowsEnd => Some(None),
        // Never inside a block.
        Step::Statement { .. } | Step::Copy { .. } => None,
    }
}

async fn transaction_number(connection: &mut PgConnection) -> Result<String> {
    let number = sqlx::query_scalar("SELECT pg_catalog.pg_current_xact_id()::pg_catalog.text").fetch_one(connection).await;
    number.context("cannot read the transaction's number")
}
