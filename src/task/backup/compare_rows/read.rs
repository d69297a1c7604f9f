//! Reads the rows of a copy back as text, by as many sessions as restored it.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::{Context as _, Result};
use futures_util::TryStreamExt as _;
use sqlx::Connection as _;
use sqlx::postgres::PgConnection;
use tokio::task::JoinSet;

use super::readable::ToRead;
use crate::base::subtask::in_span;
use crate::pg;
use crate::task::backup::row_sum::RowSum;

/// Who reads.
#[derive(Clone, Copy)]
pub enum Readers<'a> {
    /// The main session: the rows are in its transaction, and nobody else sees them.
    InTransaction,
    /// So many sessions of their own; the main one where none can be opened: the server may have no room, and code of the dump may have changed the
    /// password of the role.
    Sessions(&'a pg::Settings, usize),
}

/// A COPY that waits for a session.
struct Waiting {
    /// Of the tables that are read together.
    number: usize,
    name: String,
    query: String,
    bytes: u64,
}

/// The sums of what is read, in its order. The dump's rows are text in `encoding`.
pub async fn read(main: &mut PgConnection, encoding: &str, readers: Readers<'_>, to_read: &[ToRead<'_>]) -> Result<Vec<RowSum>> {
    let of = |(number, reading): (usize, &ToRead<'_>)| {
        let name = reading.group.name.clone();
        let waiting = reading.parts.iter().map(move |part| Waiting {
            number,
            name: name.clone(),
            query: part.query.clone(),
            bytes: part.bytes,
        });
        waiting.collect::<Vec<_>>()
    };
    let mut waiting: Vec<Waiting> = to_read.iter().enumerate().flat_map(of).collect();
    // The largest first: at the end no session has to wait for one that has a large one.
    waiting.sort_by_key(|waiting| std::cmp::Reverse(waiting.bytes));
    let sessions = match readers {
        Readers::InTransaction => Vec::new(),
        Readers::Sessions(settings, count) => open(settings, encoding, count.min(waiting.len())).await,
    };
    let read = match sessions.is_empty() {
        true => by_main(main, encoding, matches!(readers, Readers::InTransaction), &waiting).await?,
        false => by_sessions(sessions, waiting).await?,
    };
    let mut sums = vec![RowSum::default(); to_read.len()];
    for (number, sum) in read {
        sums[number].add(sum);
    }
    Ok(sums)
}

/// The settings of the session are afterwards what they were.
async fn by_main(
    main: &mut PgConnection,
    encoding: &str,
    is_in_transaction: bool,
    waiting: &[Waiting],
) -> Result<Vec<(usize, RowSum)>> {
    let (begin, end) = match is_in_transaction {
        true => ("SAVEPOINT pgtend_rows", "ROLLBACK TO SAVEPOINT pgtend_rows; RELEASE SAVEPOINT pgtend_rows"),
        false => ("BEGIN READ ONLY", "ROLLBACK"),
    };
    pg::execute(main, begin.to_owned()).await?;
    pg::execute(main, as_text(encoding)).await?;
    let mut sums = Vec::new();
    for part in waiting {
        sums.push((part.number, part.read(main).await?));
    }
    pg::execute(main, end.to_owned()).await?;
    Ok(sums)
}

async fn by_sessions(sessions: Vec<PgConnection>, waiting: Vec<Waiting>) -> Result<Vec<(usize, RowSum)>> {
    let queue = Arc::new(Mutex::new(VecDeque::from(waiting)));
    // The first that fails ends the others: a JoinSet that is dropped ends its tasks.
    let mut working = JoinSet::new();
    for session in sessions {
        working.spawn(in_span(read_parts(session, Arc::clone(&queue))));
    }
    let mut sums = Vec::new();
    while let Some(done) = working.join_next().await {
        sums.extend(done.context("a session's task ended unexpectedly")??);
    }
    Ok(sums)
}

async fn read_parts(mut session: PgConnection, queue: Arc<Mutex<VecDeque<Waiting>>>) -> Result<Vec<(usize, RowSum)>> {
    let mut sums = Vec::new();
    loop {
        let next = queue.lock().unwrap_or_else(PoisonError::into_inner).pop_front();
        let Some(part) = next else { break };
        sums.push((part.number, part.read(&mut session).await?));
    }
    // All is read: how the session ends does not matter.
    let _ = session.close().await;
    Ok(sums)
}

impl Waiting {
    async fn read(&self, session: &mut PgConnection) -> Result<RowSum> {
        let reading = async {
            let mut rows = pg::copy_out(session, &self.query).await?;
            let mut sum = RowSum::default();
            // The server sends each row as one message.
            while let Some(row) = rows.try_next().await.map_err(pg::in_its_own_words)? {
                sum.add_row(row.strip_suffix(b"\n").unwrap_or(&row));
            }
            anyhow::Ok(sum)
        };
        reading.await.with_context(|| format!("cannot read the restored rows of {} back", self.name))
    }
}

/// Opens sessions that have the settings under which a dump is written, at most `count`: as many as there is room for.
async fn open(settings: &pg::Settings, encoding: &str, count: usize) -> Vec<PgConnection> {
    let mut sessions = Vec::new();
    while sessions.len() < count {
        let opening = async {
            let mut session = settings.connect().await?;
            pg::execute(&mut session, as_text(encoding)).await?;
            anyhow::Ok(session)
        };
        match opening.await {
            Ok(session) => sessions.push(session),
            Err(error) => {
                tracing::debug!("{} read the restored rows back, and not {count}: {error:#}", sessions.len());
                break;
            }
        }
    }
    sessions
}

fn as_text(encoding: &str) -> String {
    format!("{}; SET search_path = ''; SET client_encoding = {}", pg::text_settings(), pg::literal(encoding))
}
