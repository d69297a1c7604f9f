//! The sessions beside the main one of a restore. Each runs one piece of work at a time: rows, or an index or a constraint.

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use bytes::Bytes;
use sqlx::Connection as _;
use sqlx::postgres::PgConnection;
use tokio::sync::mpsc;
use tokio::task::{JoinError, JoinSet};

use crate::base::subtask::in_span;
use crate::base::tool_output::{self, Notice};
use crate::pg;
use crate::task::backup::manifest::Manifest;
use crate::task::backup::own_bytes;
use crate::task::backup::script::Entry;
use crate::task::backup::session::{self, Silence};
use crate::task::backup::sessions::scaled;

/// Pieces of rows on their way to one session: of 256 KiB at most each, so that a chunk has room.
const QUEUED_PIECES: usize = 17;

/// A session that had nothing to do for longer is opened anew: a firewall may have forgotten it.
const IDLE_AT_MOST_MILLISECONDS: u64 = 60_000;

/// A session that was closed is counted out within this time.
const COUNTED_OUT: Duration = Duration::from_secs(10);

/// Settings by their names, each with the statement that sets it.
pub type Sets = Arc<Vec<(String, String)>>;

/// How sessions are opened.
struct Opening {
    settings: pg::Settings,
    manifest: Manifest,
    silence: Silence,
    count: usize,
}

/// Dropping it ends all its sessions.
pub struct Crew {
    opening: Opening,
    idle: Vec<Worker>,
    working: JoinSet<Ended>,
    /// How many of those at work have rows.
    with_rows: usize,
}

pub struct Worker {
    connection: PgConnection,
    sets: Vec<(String, String)>,
    since: Instant,
}

/// What a session is at, for its error.
#[derive(Clone, Debug)]
pub struct Task {
    pub entry: Arc<Entry>,
    /// As in the dump.
    pub text: String,
    pub kind: TaskKind,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TaskKind {
    /// Rows of a block, after so many others.
    Rows { rows_before: u64 },
    /// By its number in the queue.
    Build(u64),
}

/// A piece of work that has ended.
pub struct Ended {
    worker: Worker,
    pub task: Task,
    pub result: Result<(), sqlx::Error>,
    pub notices: Vec<Notice>,
}

/// What is sent to a session that has rows. Without an end, the rows are cut short, and none of them stay.
pub enum Piece {
    Rows(Bytes),
    End,
}

impl Crew {
    /// Opens `count` sessions like the main one, which has this silence.
    pub async fn open(settings: &pg::Settings, manifest: &Manifest, silence: Silence, count: usize) -> Result<Self> {
        let opening = Opening { settings: settings.clone(), manifest: manifest.clone(), silence, count };
        let mut idle = Vec::new();
        for number in 1..=count {
            let which = || format!("session {number} of the {count} of the restore (`sessions`), beside the main one");
            idle.push(opening.open().await.with_context(which)?);
        }
        Ok(Self { opening, idle, working: JoinSet::new(), with_rows: 0 })
    }

    pub fn sessions(&self) -> usize {
        self.opening.count
    }

    pub fn is_idle(&self) -> bool {
        self.working.is_empty()
    }

    pub fn has_rows(&self) -> bool {
        self.with_rows > 0
    }

    pub fn has_free_session(&self) -> bool {
        !self.idle.is_empty()
    }

    /// A session that has nothing to do; None if there is none.
    pub async fn take_idle(&mut self) -> Result<Option<Worker>> {
        match self.idle.pop() {
            Some(worker) if worker.since.elapsed() > Duration::from_millis(scaled(IDLE_AT_MOST_MILLISECONDS)) => {
                // The target may have no room for one more.
                let _ = worker.connection.close().await;
                Ok(Some(self.opening.open_again().await?))
            }
            idle => Ok(idle),
        }
    }

    /// Begins a COPY of the rows that are sent.
    pub fn copy(&mut self, worker: Worker, task: Task, sets: Sets) -> mpsc::Sender<Piece> {
        let (sender, pieces) = mpsc::channel(QUEUED_PIECES);
        self.with_rows += 1;
        self.working.spawn(in_span(work(worker, task, sets, Work::Rows(pieces))));
        sender
    }

    /// Begins to run `sql`. With `needs_memory`, it gets what a restore by one session would have.
    pub fn run(&mut self, worker: Worker, task: Task, sets: Sets, sql: String, needs_memory: bool) {
        self.working.spawn(in_span(work(worker, task, sets, Work::Build { sql, needs_memory })));
    }

    /// Waits for the next that ends; None if none is at work. Nothing is lost when the future is dropped.
    pub async fn next(&mut self) -> Option<Result<Ended, JoinError>> {
        self.working.join_next().await
    }

    /// Does the same without waiting.
    pub fn try_next(&mut self) -> Option<Result<Ended, JoinError>> {
        self.working.try_join_next()
    }

    /// Ends the sessions in peace: none is at work.
    pub async fn close(self) {
        for worker in self.idle {
            let _ = worker.connection.close().await;
        }
    }

    /// Takes a session back.
    pub fn put_back(&mut self, ended: Ended) {
        self.with_rows -= usize::from(matches!(ended.task.kind, TaskKind::Rows { .. }));
        self.idle.push(Worker { since: Instant::now(), ..ended.worker });
    }
}

impl Opening {
    async fn open(&self) -> Result<Worker> {
        let connection = session::open_beside(&self.settings, &self.manifest, self.silence, self.count).await?;
        Ok(Worker { connection, sets: Vec::new(), since: Instant::now() })
    }

    /// Opens a session in place of one that was just closed: the server may take a moment to count it out.
    async fn open_again(&self) -> Result<Worker> {
        let started = Instant::now();
        loop {
            match self.open().await {
                Err(error) if is_full(&error) && started.elapsed() < COUNTED_OUT => {
                    tokio::time::sleep(Duration::from_millis(100)).await
                }
                opened => return opened.context("a session of the restore, in place of one that had nothing to do for a minute"),
            }
        }
    }
}

/// Returns whether no more sessions are allowed: to the server, to the database, or for the role.
fn is_full(error: &anyhow::Error) -> bool {
    pg::sql_state(error).as_deref() == Some("53300")
}

enum Work {
    Rows(mpsc::Receiver<Piece>),
    Build { sql: String, needs_memory: bool },
}

async fn work(mut worker: Worker, task: Task, sets: Sets, work: Work) -> Ended {
    let doing = async {
        worker.set(&sets).await?;
        match work {
            Work::Rows(pieces) => copy(&mut worker.connection, &task.text, pieces).await,
            Work::Build { sql, needs_memory: false } => pg::execute_single(&mut worker.connection, sql).await,
            Work::Build { sql, needs_memory: true } => session::with_all_memory(&mut worker.connection, sql).await,
        }
    };
    let (result, notices) = tool_output::notices(doing).await;
    Ended { worker, task, result, notices }
}

impl Worker {
    /// Makes the session's settings those that the main one had when the work came.
    async fn set(&mut self, sets: &[(String, String)]) -> Result<(), sqlx::Error> {
        for set in sets {
            if self.sets.contains(set) {
                continue;
            }
            pg::execute_single(&mut self.connection, own_bytes::query(&set.1).into_owned()).await?;
            self.sets.retain(|(name, _)| *name != set.0);
            self.sets.push(set.clone());
        }
        Ok(())
    }
}

async fn copy(connection: &mut PgConnection, statement: &str, mut pieces: mpsc::Receiver<Piece>) -> Result<(), sqlx::Error> {
    let mut into = pg::copy_in_by(connection, statement).await?;
    loop {
        match pieces.recv().await {
            Some(Piece::Rows(rows)) => {
                // It has the server's own words. The session is not used again.
                into.send(rows).await?;
            }
            Some(Piece::End) => return into.finish().await.map(drop),
            None => {
                let _ = into.abort("the dump ends here").await;
                return Ok(());
            }
        }
    }
}
