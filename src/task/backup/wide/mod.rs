//! A dump by several sessions, which read one snapshot. pg_dump writes the definitions; sessions of ours read the rows of the large tables, in
//! slices where no code of others can run ([`whole`]); a second pg_dump writes all other rows, and what comes after rows (indexes, keys,
//! triggers). Each piece of the sessions is a COPY statement of its own, so that they can come in any order.

mod keeper;
mod proof;
mod rows;
pub mod tables;
pub mod whole;

use std::io::{Cursor, Read};

use anyhow::{Context as _, Result};
use sqlx::postgres::PgConnection;
use tokio::sync::oneshot;

use self::keeper::{InTheWay, Keeper, lock};
use self::proof::Another;
use self::tables::Table;
use super::keys::Backup;
use super::patterns::Patterns;
use super::pg_dump::{self, Share};
use super::plan::Plan;
use super::search_path::SearchPath;
use super::stream::Pieces;
use crate::base::child::{Child, Ended};
use crate::base::{thread, units};
use crate::pg;

/// Tables may be dropped while they are locked, and somebody may ask for a table when not all sessions have it: so often the dump starts.
const ATTEMPTS: usize = 3;

/// The sessions, which have one snapshot, and a lock on each of the tables; and the pg_dumps with the same snapshot, which have all locks.
pub struct Wide {
    sessions: Vec<PgConnection>,
    keeper: Keeper,
    tables: Vec<Table>,
    /// The tables that each of the sessions has locked, by their oids.
    locked: Vec<i64>,
    definitions: Dumping,
    rest: Dumping,
}

/// A pg_dump that has all its locks.
struct Dumping {
    child: Child,
    output: Box<dyn Read + Send>,
}

impl Wide {
    /// None where there is nothing for several sessions: no large table.
    pub async fn start(settings: &pg::Settings, plan: &Plan, backup: &Backup) -> Result<Option<Self>> {
        if plan.sessions == 1 || plan.server.database.has_no_way_to_utf8() {
            return Ok(None);
        }
        let (mut attempt, mut of_dropped_tables) = (1, 0);
        loop {
            // Where tables come and go all the time, those that are small are not locked before the snapshot.
            let locks_all = of_dropped_tables < ATTEMPTS - 1;
            match Self::start_once(settings, plan, backup, locks_all).await {
                Err(error) if attempt < ATTEMPTS && may_pass(&error) => {
                    tracing::info!("the dump gives its locks back and starts anew: {error:#}");
                    attempt += 1;
                    of_dropped_tables += usize::from(is_of_a_dropped_table(&error));
                }
                started => return started,
            }
        }
    }

    async fn start_once(settings: &pg::Settings, plan: &Plan, backup: &Backup, locks_all: bool) -> Result<Option<Self>> {
        let mut sessions = open_sessions(settings, plan.sessions, backup).await?;
        let keeper = sessions.pop().context("a dump has a session that keeps its tables")?;
        let mut keeper = Keeper::new(keeper, &mut sessions).await?;
        let (first, others) = sessions.split_first_mut().context("a dump has a session")?;
        let found_by_name = SearchPath::schemas_for(&Patterns::of(&backup.filters), settings).await?;
        // The server opens a table to say how large it is.
        let found = tables::read(keeper.connection(), &backup.filters, &found_by_name, None).await;
        let found = why_not_locked(found, settings).await?;
        if found.is_empty() {
            return Ok(None);
        }
        let kept = keeper.lock(&found, locks_all, backup, &found_by_name).await;
        why_not_locked(kept, settings).await?;
        let begun = begin(first, backup, found, &found_by_name).await;
        let Some(Begun { tables, locked, snapshot }) = or_in_the_way(begun, settings).await? else { return Ok(None) };
        for session in others {
            or_in_the_way(join(session, &tables, &locked, &snapshot).await, settings).await?;
        }
        let bytes = tables.iter().map(|table| table.bytes.max(0) as u64).sum();
        let count = units::plural(tables.len(), "table");
        let how = whole::in_words(&tables).map(|how| format!(": {how}")).unwrap_or_default();
        tracing::info!("{} sessions read the rows of {count} of {}{how}", sessions.len(), units::bytes(bytes));
        let names: Vec<String> = tables.iter().map(Table::sql).collect();
        let share = |sections| Share { sections, snapshot: Some(&snapshot), without_rows: &names };
        // Both now: each locks all tables, and a migration may come at any time.
        let definitions = pg_dump::start(settings, plan, backup, &share(&["pre-data"])).await?;
        let rest = pg_dump::start(settings, plan, backup, &share(&["data", "post-data"])).await?;
        let starting = async {
            let has_locks = |child| Dumping::new(child, settings, plan, backup);
            tokio::try_join!(has_locks(definitions), has_locks(rest))
        };
        let (definitions, rest) = tokio::select! {
            started = starting => started?,
            in_the_way = keeper.sees_somebody_between(settings) => return Err(in_the_way?.into()),
        };
        keeper.release(&tables[0]).await?;
        Ok(Some(Self { sessions, keeper, tables, locked, definitions, rest }))
    }

    /// Writes all of the dump. Returns the end of the last pg_dump, whose last lines are those of the dump, and what both said on stderr.
    pub async fn write(self, pieces: Pieces, settings: &pg::Settings, plan: &Plan, backup: &Backup) -> Result<Ended> {
        let Self { sessions, mut keeper, tables, locked, mut definitions, mut rest } = self;
        let written = async {
            pieces.read(definitions.output, plan.known_settings.clone()).await?;
            let defined = definitions.child.wait().await?;
            pg_dump::check(&defined, pieces.are_complete().await, settings, plan, backup).await?;
            rows::copy(sessions, tables, locked, &pieces).await?;
            anyhow::Ok(defined)
        };
        let defined = tokio::select! {
            written = written => written?,
            has_failed = is_lost(&mut rest.child, &mut keeper) => {
                if has_failed? {
                    pg_dump::check(&rest.child.wait().await?, false, settings, plan, backup).await?;
                }
                anyhow::bail!(
                    "the session of the second pg_dump ended on the server while the other sessions read their rows: the server's log says why"
                );
            }
        };
        pieces.read(rest.output, plan.known_settings.clone()).await?;
        let mut ended = rest.child.wait().await?;
        ended.stderr = [defined.stderr, ended.stderr].into_iter().filter(|said| !said.is_empty()).collect::<Vec<_>>().join("\n");
        Ok(ended)
    }
}

impl Dumping {
    /// Waits for the first output: before it, pg_dump takes all its locks.
    async fn new(mut child: Child, settings: &pg::Settings, plan: &Plan, backup: &Backup) -> Result<Self> {
        if let Some(output) = after_first_output(child.take_stdout()?).await? {
            return Ok(Self { child, output: Box::new(output) });
        }
        let ended = child.wait().await?;
        pg_dump::check(&ended, false, settings, plan, backup).await?;
        anyhow::bail!("pg_dump ended without a word")
    }
}

/// Ends when the pg_dump that waits for the sessions cannot go on. True: it has failed. False: it has no session on the server any more, which it does
/// not notice while nobody reads its output.
async fn is_lost(waiting: &mut Child, keeper: &mut Keeper) -> Result<bool> {
    tokio::select! {
        biased;
        status = waiting.exit() => match status?.success() {
            true => std::future::pending().await,
            false => Ok(true),
        },
        () = keeper.sees_no_pg_dump() => Ok(false),
    }
}

/// The sessions that read, and the one that keeps the tables: all before the first lock, so that little time passes between the locks.
async fn open_sessions(settings: &pg::Settings, count: usize, backup: &Backup) -> Result<Vec<PgConnection>> {
    let mut sessions = Vec::new();
    for number in 1..=count + 1 {
        let which = || {
            format!("session {number} of the {} of the dump (one more than `sessions` of the job, which may be lower)", count + 1)
        };
        let mut session = settings.connect().await.with_context(which)?;
        // As pg_dump has it; and a store that takes no bytes for a minute does not end the session.
        let sets = format!(
            "SET search_path = ''; SET tcp_user_timeout = 0; SET max_parallel_workers_per_gather = 0; SET lock_timeout = {}",
            backup.lock_wait_timeout.0.as_millis()
        );
        let sets = pg::tables_alone(&session).into_iter().chain([sets]).collect::<Vec<_>>().join("; ");
        pg::execute(&mut session, sets).await.with_context(which)?;
        sessions.push(session);
    }
    Ok(sessions)
}

const BEGIN: &str = "BEGIN ISOLATION LEVEL REPEATABLE READ, READ ONLY";

/// What the first session found.
struct Begun {
    tables: Vec<Table>,
    /// The oids of all tables that it has locked; some of them may be none of `tables`.
    locked: Vec<i64>,
    snapshot: String,
}

/// Locks the large tables, then takes the snapshot: one that was rewritten after the snapshot would be empty in it.
async fn begin(
    session: &mut PgConnection,
    backup: &Backup,
    found: Vec<Table>,
    found_by_name: &[String],
) -> Result<Option<Begun>> {
    pg::execute(session, BEGIN.to_owned()).await?;
    pg::execute(session, lock_now(&found)).await?;
    let locked: Vec<i64> = found.iter().map(|table| table.oid).collect();
    proof::has_read_nothing_else(session, &locked).await?;
    let mut tables = tables::read(session, &backup.filters, found_by_name, Some(&locked)).await?;
    // One that was renamed meanwhile is not the one that is locked.
    tables.retain(|table| found.iter().any(|one| (one.oid, &one.schema, &one.name) == (table.oid, &table.schema, &table.name)));
    if tables.is_empty() {
        return Ok(None);
    }
    whole::decide(session, &mut tables).await?;
    let snapshot = pg::fetch_text(session, "SELECT pg_catalog.pg_export_snapshot()".to_owned()).await?;
    Ok(Some(Begun { tables, locked, snapshot: snapshot.context("the server exported no snapshot")? }))
}

async fn join(session: &mut PgConnection, tables: &[Table], locked: &[i64], snapshot: &str) -> Result<()> {
    pg::execute(session, BEGIN.to_owned()).await?;
    pg::execute(session, format!("SET TRANSACTION SNAPSHOT {}", pg::literal(snapshot))).await?;
    pg::execute(session, lock_now(tables)).await?;
    proof::has_read_nothing_else(session, locked).await
}

/// A session that waited for a lock behind somebody who waits for the keeper would wait for ever, and no server sees that.
fn lock_now(tables: &[Table]) -> String {
    lock(&tables.iter().map(Table::sql).collect::<Vec<_>>()) + " NOWAIT"
}

/// Returns whether another attempt may succeed.
fn may_pass(error: &anyhow::Error) -> bool {
    is_of_a_dropped_table(error) || error.is::<Another>() || error.is::<InTheWay>()
}

fn is_of_a_dropped_table(error: &anyhow::Error) -> bool {
    matches!(pg::sql_state(error).as_deref(), Some("42P01" | "3F000"))
}

/// Names who holds or awaits the lock for which the keeper waited in vain.
async fn why_not_locked<T>(locked: Result<T>, settings: &pg::Settings) -> Result<T> {
    match locked {
        Err(error) if is_not_available(&error) => {
            let who = InTheWay::now(settings).await.to_string();
            Err(error.context(who))
        }
        other => other,
    }
}

/// The same for a lock that was there a moment ago: another attempt may get it.
async fn or_in_the_way<T>(locked: Result<T>, settings: &pg::Settings) -> Result<T> {
    match locked {
        Err(error) if is_not_available(&error) => Err(InTheWay::now(settings).await.into()),
        other => other,
    }
}

fn is_not_available(error: &anyhow::Error) -> bool {
    pg::sql_state(error).as_deref() == Some("55P03")
}

/// Waits until a pg_dump has written something; None when it ends without.
async fn after_first_output(mut output: std::fs::File) -> Result<Option<impl Read + Send + 'static>> {
    let (sender, receiver) = oneshot::channel();
    thread::spawn("dump-waiter", move || {
        let mut first = vec![0];
        let read = output.read(&mut first).map(|count| (count > 0).then(|| Cursor::new(first).chain(output)));
        let _ = sender.send(read);
    })?;
    receiver.await.context("the waiting thread ended")?.context("cannot read the dump")
}
