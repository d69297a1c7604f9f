//! Gives rows, indexes and constraints to the other sessions of a restore, and waits where the order of the dump matters: `way` says for each statement
//! where that is, and `alone` for rows. The first error of any session ends the restore.

use std::sync::Arc;
use std::time::Duration;

use anyhow::Result;
use tokio::sync::mpsc;
use tokio::time::timeout;

use super::Loader;
use super::alone::{self, Alone};
use super::beside::Waiting;
use super::crew::{Ended, Piece, Task, TaskKind, Worker};
use super::cut::{CHUNK_BYTES, Cut};
use super::said::{at_the_end, of_ours};
use super::way::{self, Build, Way};
use crate::pg::qualified;
use crate::task::backup::refusal::Refusal;
use crate::task::backup::rewrite::{self, Fate};
use crate::task::backup::script::{Entry, Steps};
use crate::task::backup::session::next_rows;
use crate::task::backup::sessions::scaled;
use crate::task::backup::tokens::copied_table;

/// The main session says something as often while it waits for the others: a firewall forgets connections that are silent for long.
const SPEAK_EVERY: Duration = Duration::from_secs(60);

impl Loader {
    /// Takes a statement that others run, or waits for what must be done before the main session may run it, and returns false.
    pub(super) async fn others_take(&mut self, text: &str, entry: &Arc<Entry>) -> Result<bool, Refusal> {
        if self.beside.is_none() {
            return Ok(false);
        }
        // Event triggers would fire in the other sessions.
        let may_build = !self.session.is_in_block() && !self.has_event_triggers;
        match way::of(text) {
            Way::Setting(_) | Way::Beside => return Ok(false),
            Way::Build(build) if may_build => {
                if self.beside.as_ref().is_some_and(|beside| beside.crew.has_rows()) {
                    self.all_is_done().await?;
                }
                if self.waits(&build, text, entry).await? {
                    return Ok(true);
                }
            }
            Way::Build(_) | Way::Alone => {}
        }
        self.all_is_done().await?;
        if let Some(beside) = &mut self.beside {
            beside.alone = None;
        }
        Ok(false)
    }

    /// Remembers what the main session has set.
    pub(super) fn others_set(&mut self, text: &str, sql: String) {
        if let Some(beside) = &mut self.beside
            && let Way::Setting(name) = way::of(text)
        {
            beside.set(name, sql);
        }
    }

    /// Puts an index or a constraint into the queue; false if the main session has to run it. What is in the queue begins when no more of them follow, or
    /// it is full: then the largest tables are known.
    async fn waits(&mut self, build: &Build, text: &str, entry: &Arc<Entry>) -> Result<bool, Refusal> {
        let Fate::Run(sql, None) = rewrite::fate(text, &self.choices, &self.session.server) else { return Ok(false) };
        let sql = sql.into_owned();
        let uses = alone::uses(&mut self.session.connection, build).await.map_err(|error| self.refusal_of(&error, entry))?;
        let Some(uses) = uses else { return Ok(false) };
        self.look_at_those_that_ended().await?;
        while self.beside.as_ref().is_some_and(|beside| beside.builds.is_full()) {
            self.builds_begin().await?;
            if self.beside.as_ref().is_some_and(|beside| beside.builds.is_full()) {
                self.one_ends().await?;
            }
        }
        if let Some(beside) = &mut self.beside {
            let task = Task { entry: Arc::clone(entry), text: text.to_owned(), kind: TaskKind::Build(0) };
            let (bytes, sets) = (beside.bytes(build), Arc::clone(&beside.sets));
            // Tables get indexes.
            beside.alone = None;
            beside.builds.push(Waiting { task, sql, sets, needs_memory: build.needs_memory }, uses, bytes);
        }
        Ok(true)
    }

    /// Lets as many begin as there are sessions.
    async fn builds_begin(&mut self) -> Result<(), Refusal> {
        self.look_at_those_that_ended().await?;
        while let Some(beside) = self.beside.as_mut().filter(|beside| beside.crew.has_free_session()) {
            let Some((number, Waiting { task, sql, sets, needs_memory })) = beside.builds.begin() else { break };
            let entry = Arc::clone(&task.entry);
            match beside.crew.take_idle().await {
                Ok(Some(worker)) => {
                    let task = Task { kind: TaskKind::Build(number), ..task };
                    beside.crew.run(worker, task, sets, sql, needs_memory);
                }
                Ok(None) => break,
                Err(error) => return Err(self.refusal_of(&error, &entry)),
            }
        }
        Ok(())
    }

    /// Waits until the other sessions have nothing to do, and nothing waits for them.
    pub(super) async fn all_is_done(&mut self) -> Result<(), Refusal> {
        loop {
            self.builds_begin().await?;
            match &self.beside {
                Some(beside) if !(beside.crew.is_idle() && beside.builds.is_idle()) => self.one_ends().await?,
                _ => return Ok(()),
            }
        }
    }

    /// Returns whether others may take the rows of a `COPY … FROM stdin`; else all before it is done.
    pub(super) async fn others_take_rows(&mut self, text: &str, entry: &Entry) -> Result<bool, Refusal> {
        let Some(beside) = &self.beside else { return Ok(false) };
        let may_take = beside.builds.is_idle() && !self.session.is_in_block() && !self.has_event_triggers;
        let table = copied_table(text.as_bytes()).filter(|_| may_take).map(|(schema, name)| qualified(&schema, &name));
        if let Some(table) = table
            && !self.is_alone(&table).await.map_err(|error| self.refusal_of(&error, entry))?
        {
            return Ok(true);
        }
        self.all_is_done().await?;
        Ok(false)
    }

    async fn is_alone(&mut self, table: &str) -> Result<bool> {
        let connection = &mut self.session.connection;
        let Some(beside) = &mut self.beside else { return Ok(true) };
        let alone = match &mut beside.alone {
            Some(alone) => alone,
            none => none.insert(Alone::read(connection).await?),
        };
        alone.has(connection, table).await
    }

    /// Gives the rows of a block to other sessions, in chunks.
    pub(super) async fn rows_by_others(&mut self, text: &str, entry: &Arc<Entry>, steps: &mut Steps) -> Result<(), Refusal> {
        let mut cut = Cut::new(scaled(CHUNK_BYTES as u64) as usize);
        let mut chunk: Option<mpsc::Sender<Piece>> = None;
        loop {
            let mut rows = match next_rows(steps).await {
                Some(Some(rows)) => rows,
                Some(None) => return self.end_chunk(chunk).await,
                // Where the dump was cut short, the reading side says why.
                None => return Ok(()),
            };
            while !rows.is_empty() {
                let sender = match chunk.take() {
                    Some(sender) => sender,
                    None => self.new_chunk(text, entry, cut.rows()).await?,
                };
                let (piece, ends) = cut.take(&mut rows);
                if sender.send(Piece::Rows(piece)).await.is_err() {
                    return Err(self.why_one_ended(entry).await);
                }
                match ends {
                    true => self.end_chunk(Some(sender)).await?,
                    false => chunk = Some(sender),
                }
            }
        }
    }

    async fn new_chunk(&mut self, text: &str, entry: &Arc<Entry>, rows_before: u64) -> Result<mpsc::Sender<Piece>, Refusal> {
        let worker = self.free_session(entry).await?;
        let Some(beside) = &mut self.beside else { return Err(ended_unexpectedly(entry)) };
        let task = Task { entry: Arc::clone(entry), text: text.to_owned(), kind: TaskKind::Rows { rows_before } };
        Ok(beside.crew.copy(worker, task, Arc::clone(&beside.sets)))
    }

    async fn end_chunk(&mut self, chunk: Option<mpsc::Sender<Piece>>) -> Result<(), Refusal> {
        let Some(sender) = chunk else { return Ok(()) };
        // A session that has stopped says why when it is asked.
        let _ = sender.send(Piece::End).await;
        self.look_at_those_that_ended().await
    }

    async fn free_session(&mut self, entry: &Entry) -> Result<Worker, Refusal> {
        loop {
            self.look_at_those_that_ended().await?;
            let Some(beside) = &mut self.beside else { return Err(ended_unexpectedly(entry)) };
            match beside.crew.take_idle().await {
                Ok(Some(worker)) => return Ok(worker),
                Ok(None) => self.one_ends().await?,
                Err(error) => return Err(self.refusal_of(&error, entry)),
            }
        }
    }

    /// The error of a session that takes no more rows.
    async fn why_one_ended(&mut self, entry: &Entry) -> Refusal {
        while self.beside.as_ref().is_some_and(|beside| !beside.crew.is_idle()) {
            if let Err(refusal) = self.one_ends().await {
                return refusal;
            }
        }
        ended_unexpectedly(entry)
    }

    async fn look_at_those_that_ended(&mut self) -> Result<(), Refusal> {
        while let Some(ended) = self.beside.as_mut().and_then(|beside| beside.crew.try_next()) {
            self.end(ended.map_err(|_| ended_unexpectedly(&at_the_end()))?).await?;
        }
        Ok(())
    }

    /// Waits for the next session that has done its work.
    async fn one_ends(&mut self) -> Result<(), Refusal> {
        loop {
            let Some(beside) = &mut self.beside else { return Ok(()) };
            match timeout(SPEAK_EVERY, beside.crew.next()).await {
                Ok(Some(ended)) => return self.end(ended.map_err(|_| ended_unexpectedly(&at_the_end()))?).await,
                Ok(None) => return Ok(()),
                Err(_) => {
                    let spoken = self.session.execute("SELECT 1").await;
                    spoken.map_err(|error| self.refusal(&error, &at_the_end(), ""))?;
                }
            }
        }
    }

    async fn end(&mut self, mut ended: Ended) -> Result<(), Refusal> {
        let warnings = std::mem::take(&mut ended.notices).into_iter().filter(|notice| notice.is_warning);
        self.notes.extend(warnings.map(|notice| format!("the server warned: {}", notice.message)));
        let Task { entry, text, kind } = ended.task.clone();
        match (kind, &ended.result) {
            (TaskKind::Rows { rows_before }, Err(error)) => return Err(self.refusal_of_rows(error, &entry, &text, rows_before)),
            (TaskKind::Build(_), Err(error)) => {
                self.refused(error, &text, &text, &entry).await?;
            }
            (TaskKind::Rows { .. }, Ok(())) => self.times.rows_end(),
            (TaskKind::Build(_), Ok(())) => {}
        }
        let Some(beside) = &mut self.beside else { return Ok(()) };
        if let TaskKind::Build(number) = kind {
            beside.builds.end(number);
        }
        beside.crew.put_back(ended);
        Ok(())
    }
}

fn ended_unexpectedly(entry: &Entry) -> Refusal {
    of_ours(&anyhow::anyhow!("a session of the restore ended unexpectedly, at {entry}"))
}
