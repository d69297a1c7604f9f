//! What a restore by several sessions has beside its main session.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Instant;

use anyhow::Result;

use super::alone::Alone;
use super::crew::{Crew, Sets, Task};
use super::queue::Queue;
use super::way::Build;
use crate::pg::{self, qualified};
use crate::task::backup::manifest::Manifest;
use crate::task::backup::session::Silence;

pub struct Beside {
    pub crew: Crew,
    /// The settings of the dump so far, which every session has when it begins its next piece of work.
    pub sets: Sets,
    /// Indexes and constraints that wait.
    pub builds: Queue<Waiting>,
    /// None until it is read, and again when definitions may have changed.
    pub alone: Option<Alone>,
    /// The bytes of tables' rows in the dump, by their names as SQL has them.
    sizes: HashMap<String, u64>,
}

/// An index or a constraint that waits for a session.
pub struct Waiting {
    pub task: Task,
    pub sql: String,
    pub sets: Sets,
    pub needs_memory: bool,
}

impl Beside {
    pub async fn open(settings: &pg::Settings, manifest: &Manifest, silence: Silence, sessions: usize) -> Result<Self> {
        let mut sizes: HashMap<String, u64> = HashMap::new();
        for table in &manifest.tables {
            let bytes = sizes.entry(qualified(&table.schema, &table.name)).or_default();
            *bytes = bytes.saturating_add(table.bytes);
        }
        let crew = Crew::open(settings, manifest, silence, sessions).await?;
        Ok(Self { crew, sets: Arc::default(), builds: Queue::default(), alone: None, sizes })
    }

    /// Remembers a setting, in the order in which they were last set.
    pub fn set(&mut self, name: String, sql: String) {
        let sets = Arc::make_mut(&mut self.sets);
        sets.retain(|(other, _)| *other != name);
        sets.push((name, sql));
    }

    /// The bytes of the largest of a statement's tables.
    pub fn bytes(&self, build: &Build) -> u64 {
        build.tables.iter().filter_map(|table| self.sizes.get(table)).copied().max().unwrap_or_default()
    }
}

/// When the rows of a restore came, and when what comes after them.
#[derive(Clone, Copy, Debug, Default)]
pub struct Times {
    rows_began: Option<Instant>,
    rows_ended: Option<Instant>,
    ended: Option<Instant>,
}

impl Times {
    pub fn rows_begin(&mut self) {
        self.rows_began.get_or_insert_with(Instant::now);
    }

    /// Called when all rows so far are in.
    pub fn rows_end(&mut self) {
        self.rows_ended = Some(Instant::now());
    }

    pub fn ended(&mut self) {
        self.ended = Some(Instant::now());
    }

    /// The seconds in which rows came, and those from then to the last statement; None for a dump without rows.
    pub fn seconds(&self) -> Option<(f64, f64)> {
        let (began, rows_ended, ended) = (self.rows_began?, self.rows_ended?, self.ended?);
        Some(((rows_ended - began).as_secs_f64(), (ended - rows_ended).as_secs_f64()))
    }
}
