//! Reads the rows of large tables by several sessions, and writes them as COPY statements.

use std::collections::VecDeque;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::{Context as _, Result};
use futures_util::TryStreamExt as _;
use sqlx::Connection as _;
use sqlx::postgres::PgConnection;
use tokio::task::JoinSet;

use super::proof;
use super::tables::{Part, Table};
use crate::base::subtask::in_span;
use crate::pg;
use crate::task::backup::sessions::scaled;
use crate::task::backup::stream::Pieces;

/// Rows of one COPY statement, about: it ends with the row that reaches this.
const ROWS_BYTES: u64 = 2 << 20;

/// Reads all tables, the largest first, part by part: neighbours in the dump are of one table, apart from where one follows another.
pub async fn copy(sessions: Vec<PgConnection>, tables: Vec<Table>, locked: Vec<i64>, pieces: &Pieces) -> Result<()> {
    let parts = tables.iter().enumerate().flat_map(|(number, table)| table.parts().into_iter().map(move |part| (number, part)));
    let work = Arc::new(Work {
        parts: Mutex::new(parts.collect()),
        is_written: tables.iter().map(|_| AtomicBool::new(false)).collect(),
        pieces: pieces.clone(),
        tables,
        locked,
    });
    // The first that fails ends the others: a JoinSet that is dropped ends its tasks.
    let mut working = JoinSet::new();
    for session in sessions {
        working.spawn(in_span(copy_parts(session, Arc::clone(&work))));
    }
    while let Some(done) = working.join_next().await {
        done.context("a session's task ended unexpectedly")??;
    }
    // The dump names every table, also one without rows.
    for (table, _) in work.tables.iter().zip(&work.is_written).filter(|(_, is_written)| !is_written.load(Relaxed)) {
        work.pieces.add(ended(table.head().into_bytes())).await?;
    }
    Ok(())
}

/// What the sessions share.
struct Work {
    tables: Vec<Table>,
    locked: Vec<i64>,
    /// Parts of tables, each with its table's index.
    parts: Mutex<VecDeque<(usize, Part)>>,
    /// True for each table of which the dump has a COPY statement.
    is_written: Vec<AtomicBool>,
    pieces: Pieces,
}

async fn copy_parts(mut session: PgConnection, work: Arc<Work>) -> Result<()> {
    loop {
        let part = work.parts.lock().unwrap_or_else(PoisonError::into_inner).pop_front();
        let Some((number, part)) = part else { break };
        let table = &work.tables[number];
        copy_part(&mut session, table, &part, &work, number)
            .await
            .with_context(|| format!("cannot read the rows of {}", table.sql()))?;
    }
    proof::has_read_nothing_else(&mut session, &work.locked).await?;
    // All rows are read: how the session ends does not matter.
    let _ = session.close().await;
    Ok(())
}

async fn copy_part(session: &mut PgConnection, table: &Table, part: &Part, work: &Work, number: usize) -> Result<()> {
    // Before a query is planned: of another table the planner might run code.
    proof::is_the_locked(session, table).await?;
    let mut rows = match part {
        Part::Whole => pg::copy_table_out(session, &table.sql(), &table.column_list()).await?,
        Part::Slice(query) => pg::copy_out(session, query).await?,
    };
    let rows_bytes = scaled(ROWS_BYTES) as usize;
    let mut text = Vec::new();
    loop {
        // The server sends each row as one message.
        let row = rows.try_next().await.map_err(pg::in_its_own_words)?;
        if let Some(row) = &row {
            if text.is_empty() {
                text = work.pieces.buffer(rows_bytes + (64 << 10));
                text.extend_from_slice(table.head().as_bytes());
            }
            text.extend_from_slice(row);
        }
        if !text.is_empty() && (row.is_none() || text.len() >= rows_bytes) {
            anyhow::ensure!(text.ends_with(b"\n"), "the server's last row is incomplete");
            work.is_written[number].store(true, Relaxed);
            work.pieces.add(ended(std::mem::take(&mut text))).await?;
        }
        if row.is_none() {
            return Ok(());
        }
    }
}

fn ended(mut rows: Vec<u8>) -> Vec<u8> {
    rows.extend_from_slice(b"\\.\n\n\n");
    rows
}
