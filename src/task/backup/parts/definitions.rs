//! The statements of a dump that define objects: those before the rows and those after them, without the rows.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::ops::Range;
use std::sync::Arc;

use anyhow::Result;

use super::subject::{self, Mention, Role, Subject};
use crate::base::progress::Phase;
use crate::store::Store;
use crate::task::backup::manifest::Manifest;
use crate::task::backup::script::{Entry, Script, Step};
use crate::task::backup::set::Set;
use crate::task::backup::tokens::Statement;
use crate::task::backup::{own_bytes, part};

/// The most memory that definitions may take; 10,000 tables with indexes have some 20 MB.
const BYTES_MOST: usize = 256 << 20;

/// Between the rows of two tables, pg_dump writes comments and settings. A gap with more bytes than this may hold statements.
const GAP_BYTES: u64 = 4 << 10;

/// Statements of one object of the dump: a table with its owner, an index with its CLUSTER.
#[derive(Clone, Debug)]
pub struct Item {
    pub entry: Arc<Entry>,
    /// As the dump has them, without semicolons.
    pub statements: Vec<Vec<u8>>,
    pub subject: Subject,
    /// The names that the statements mention, without those of their objects.
    pub names: BTreeSet<Mention>,
    /// `SET default_tablespace = …` and the like that are in force.
    pub settings: Arc<Settings>,
    /// True if it comes after rows.
    pub is_after_rows: bool,
    /// True if each of its statements is about the same object, as pg_dump writes them.
    pub is_sound: bool,
}

/// The statement by which each setting is in force, by the setting's name.
pub type Settings = BTreeMap<String, Vec<u8>>;

impl Item {
    pub fn texts(&self) -> impl Iterator<Item = String> {
        self.statements.iter().map(|statement| own_bytes::text(statement.clone()))
    }

    /// In words, like `TYPE shop.state`.
    pub fn in_words(&self) -> String {
        let Entry { kind, name, schema, .. } = &*self.entry;
        match schema {
            Some(schema) => format!("{} {schema}.{name}", kind.to_lowercase()),
            None => format!("{} {name}", kind.to_lowercase()),
        }
    }
}

/// The statements of one object of the dump.
pub type OfObject = Vec<Vec<u8>>;

/// The definitions of a set.
#[derive(Debug)]
pub struct Definitions {
    pub items: Vec<Item>,
    /// Of objects that are no part of a table or a schema, or of several.
    pub others: Vec<OfObject>,
    /// The settings at the end of the dump's head, under which rows are read.
    pub head: Arc<Settings>,
    /// How many bytes of the object were read.
    pub read_bytes: u64,
}

/// Reads the definitions; no byte is used before it is proved, except of a set without hashes of parts, which the caller has proved.
pub async fn read(store: &Store, set: &Set, phase: &Phase) -> Result<Definitions> {
    let wanted = ranges(&set.manifest);
    let (read_bytes, reading) = part::read(store, set, wanted, phase, Reading::default(), Reading::feed).await?;
    let (items, others, settings) = reading.finish()?;
    let head = items.first().map_or(settings, |item| Arc::clone(&item.settings));
    Ok(Definitions { items, others, head, read_bytes })
}

/// What of the uncompressed dump is no row, except for short gaps between rows.
fn ranges(manifest: &Manifest) -> Vec<Range<u64>> {
    let mut rows: Vec<Range<u64>> = manifest.tables.iter().map(part::range).collect();
    rows.sort_by_key(|range| range.start);
    let (mut ranges, mut at) = (Vec::new(), 0);
    for range in rows {
        if range.start > at && (at == 0 || range.start - at > GAP_BYTES) {
            ranges.push(at..range.start);
        }
        at = at.max(range.end);
    }
    if at < manifest.dump.uncompressed_bytes {
        ranges.push(at..manifest.dump.uncompressed_bytes);
    }
    ranges
}

#[derive(Default)]
struct Reading {
    script: Script,
    items: Vec<Item>,
    others: Vec<OfObject>,
    /// The item whose statements come, with its entry, before it is known what it is about.
    open: Option<(Arc<Entry>, Vec<Vec<u8>>)>,
    settings: Arc<Settings>,
    bytes: usize,
    is_after_rows: bool,
}

impl Reading {
    fn feed(&mut self, bytes: &[u8]) -> io::Result<()> {
        let mut steps = Vec::new();
        self.script.feed(bytes, |step| steps.push(step))?;
        steps.into_iter().try_for_each(|step| self.step(step))
    }

    fn step(&mut self, step: Step) -> io::Result<()> {
        let Step::Statement { text, entry } = step else {
            return Err(io::Error::other("where the manifest says that the definitions are, the dump holds rows"));
        };
        if !self.open.as_ref().is_some_and(|(open, _)| Arc::ptr_eq(open, &entry)) {
            self.close();
        }
        if is_setting(&text) {
            self.close();
            let name = setting_name(&text);
            Arc::make_mut(&mut self.settings).insert(name, text);
            return Ok(());
        }
        // Large objects are no part of a table.
        if [&b"SELECT pg_catalog.lo"[..], b"BEGIN", b"COMMIT"].iter().any(|start| text.starts_with(start)) {
            return Ok(());
        }
        self.bytes = self.bytes.saturating_add(text.len() + size_of::<Item>());
        if self.bytes > BYTES_MOST {
            return Err(io::Error::other("the definitions of the set have more than 256 MiB: restore it as a whole"));
        }
        self.open.get_or_insert_with(|| (entry, Vec::new())).1.push(text);
        Ok(())
    }

    fn close(&mut self) {
        let Some((entry, statements)) = self.open.take() else { return };
        let texts: Vec<String> = statements.iter().map(|statement| own_bytes::text(statement.clone())).collect();
        let whole: Vec<Statement> = texts.iter().map(|text| Statement::whole(text)).collect();
        let Some(subject) = whole.iter().find_map(Subject::of) else {
            self.others.push(statements);
            return;
        };
        self.is_after_rows |= is_after_rows(&subject.role);
        let is_sound = whole.iter().all(|statement| is_about(statement, &subject));
        let names = whole.iter().flat_map(subject::mentions).collect();
        let is_after_rows = self.is_after_rows;
        let settings = Arc::clone(&self.settings);
        self.items.push(Item { entry, statements, subject, names, settings, is_after_rows, is_sound });
    }

    fn finish(mut self) -> Result<(Vec<Item>, Vec<OfObject>, Arc<Settings>)> {
        self.close();
        anyhow::ensure!(self.script.is_at_an_end(), "the definitions of the set end inside a statement");
        Ok((self.items, self.others, self.settings))
    }
}

/// What comes after rows, and nothing before rows comes after it. The comment above a statement does not decide it: a name in it may hold anything.
fn is_after_rows(role: &Role) -> bool {
    use Role::{ForeignKey, Index, Key, Policy, Refresh, RowSecurity, Rule, Statistics, Trigger, Value};
    matches!(role, Value | Index | Key | ForeignKey { .. } | Trigger | Rule | Policy | RowSecurity | Statistics | Refresh)
}

/// Returns whether the statement is about that object, or what is made beside it; a change of the session's role is about none.
fn is_about(statement: &Statement, subject: &Subject) -> bool {
    let changes_role =
        statement.says(0, &["SET", "SESSION", "AUTHORIZATION"]) || statement.says(0, &["RESET", "SESSION", "AUTHORIZATION"]);
    let is_of_it = |other: Subject| other.object() == subject.object() || subject.makes == Some(other.object());
    changes_role || Subject::of(statement).is_some_and(is_of_it)
}

fn is_setting(text: &[u8]) -> bool {
    text.starts_with(b"SET ") && !text.starts_with(b"SET SESSION AUTHORIZATION")
        || text.starts_with(b"SELECT pg_catalog.set_config(")
}

/// `SET name = value`, or the search_path of `SELECT pg_catalog.set_config`.
fn setting_name(text: &[u8]) -> String {
    let text = String::from_utf8_lossy(text);
    match text.strip_prefix("SET ") {
        Some(rest) => rest.split([' ', '=']).next().unwrap_or_default().to_ascii_lowercase(),
        None => "search_path".to_owned(),
    }
}
