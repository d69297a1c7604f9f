//! Restores a part: its statements and rows run in one transaction of a session of their own, and are counted before it is committed.

use std::collections::BTreeSet;
use std::io;

use anyhow::{Context as _, Result};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::beside::Renamed;
use super::commit::{self, NotKnown};
use super::names::Name;
use super::planned::Plan;
use super::statements::Statements;
use crate::base::fault::{Fault, Kind};
use crate::base::progress::Phase;
use crate::pg;
use crate::store::Store;
use crate::task::backup::choices::Choices;
use crate::task::backup::load::{Loader, Target};
use crate::task::backup::restore::{self, QUEUED_BATCHES, Refusal, Restored};
use crate::task::backup::scan::TableData;
use crate::task::backup::script::{Script, Step, Steps};
use crate::task::backup::set::Set;
use crate::task::backup::tokens::copied_table;
use crate::task::backup::{own_bytes, part, pg_dumps};

/// Does what the plan says, or nothing. Returns also how many bytes of the object were read for the rows. An error comes from the store, from this
/// host, or from the connection; a damaged part is one, too. With [`NotKnown`], it may have been done.
pub async fn put(
    store: &Store,
    set: &Set,
    plan: &Plan,
    (settings, choices): (&pg::Settings, &Choices),
    phase: &Phase,
    cancel: &CancellationToken,
) -> Result<(Restored, u64)> {
    let cancelled = || Fault::new(Kind::Cancelled, "cancelled by a signal: nothing was restored");
    let choices = Choices { of_part: Some(plan.schemas.clone()), ..choices.clone() };
    let target = Target { settings, choices: &choices, in_transaction: true, superuser: None, sessions: 1 };
    let loaded = cancel.run_until_cancelled(load(store, set, plan, &target, phase)).await.ok_or_else(cancelled)??;
    let Loaded { mut loader, mut refusal, read_bytes } = loaded;
    if refusal.is_none() {
        refusal = loader.commit().await.err();
        if let Some(refusal) =
            refusal.take_if(|refusal| loader.has_sent_commit() && !commit::is_refused(refusal.sql_state.as_deref()))
        {
            return Err(anyhow::Error::from(refusal).context(not_known(set, settings, plan)));
        }
    }
    let notes = std::mem::take(&mut loader.notes);
    Ok((Restored { refusal, notes, ..Restored::default() }, read_bytes))
}

fn not_known(set: &Set, settings: &pg::Settings, plan: &Plan) -> NotKnown {
    let tables: Vec<String> = plan.tables().keys().take(5).map(Name::to_string).collect();
    let which = if tables.is_empty() { "what it makes".to_owned() } else { tables.join(", ") };
    NotKnown(format!("the part of {} was restored into {}", set.name, settings.display()), which)
}

/// All is restored and counted, except for the commit; or the server refused.
struct Loaded {
    loader: Box<Loader>,
    refusal: Option<Refusal>,
    read_bytes: u64,
}

async fn load(store: &Store, set: &Set, plan: &Plan, target: &Target<'_>, phase: &Phase) -> Result<Loaded> {
    let loader = Loader::open(target, &plan.part.manifest).await?;
    let (sender, steps) = mpsc::channel(QUEUED_BATCHES);
    let mut loading = restore::on_a_task(loader, Steps::of(steps));
    let (fed, loaded) = tokio::join!(feed(store, set, plan, sender, phase), loading.join_next());
    let (mut loader, loaded) = loaded.context("the restore's task ended unexpectedly")??;
    let (read_bytes, refusal) = match (fed, loaded) {
        // The session has stopped, and then there was nobody to take steps.
        (Err(error), Err(refusal)) if has_lost_its_reader(&error) => (0, Some(refusal)),
        (Err(error), _) => return Err(error),
        (Ok(read_bytes), Err(refusal)) => (read_bytes, Some(refusal)),
        (Ok(read_bytes), Ok(())) => (read_bytes, loader.prove().await.err()),
    };
    Ok(Loaded { loader: Box::new(loader), refusal, read_bytes })
}

fn has_lost_its_reader(error: &anyhow::Error) -> bool {
    error.chain().any(|cause| cause.downcast_ref::<io::Error>().is_some_and(|error| error.kind() == io::ErrorKind::BrokenPipe))
}

/// Passes all steps on: statements, rows as they come out of the store, and statements.
async fn feed(store: &Store, set: &Set, plan: &Plan, sender: mpsc::Sender<Vec<Step>>, phase: &Phase) -> Result<u64> {
    send(&sender, &plan.before).await?;
    let mut read_bytes = 0;
    for tables in plan.rows.iter().filter(|tables| !tables.is_empty()) {
        let rows = Rows::new(tables, plan.renamed.clone(), sender.clone());
        let (bytes, rows) = part::read(store, set, tables.iter().map(part::range), phase, rows, Rows::feed).await?;
        anyhow::ensure!(rows.is_at_an_end(), "the rows of the set end inside a row");
        read_bytes += bytes;
    }
    send(&sender, &plan.after).await?;
    Ok(read_bytes)
}

async fn send(sender: &mpsc::Sender<Vec<Step>>, statements: &Statements) -> Result<()> {
    let steps = statements.iter().map(|(text, entry)| Step::Statement { text: text.clone(), entry: entry.clone() });
    sender.send(steps.collect()).await.map_err(|_| io::Error::from(io::ErrorKind::BrokenPipe).into())
}

/// Passes the rows of these tables on, and nothing else.
pub struct Rows {
    tables: BTreeSet<Name>,
    renamed: Option<Renamed>,
    script: Script,
    is_open: bool,
    sender: mpsc::Sender<Vec<Step>>,
}

impl Rows {
    pub fn new(tables: &[TableData], renamed: Option<Renamed>, sender: mpsc::Sender<Vec<Step>>) -> Self {
        let tables = tables.iter().map(|table| Name::new(&table.schema, &table.name)).collect();
        Self { tables, renamed, script: Script::default(), is_open: false, sender }
    }

    /// Returns whether no rows are open.
    pub fn is_at_an_end(&self) -> bool {
        !self.is_open && self.script.is_at_an_end()
    }

    pub fn feed(&mut self, bytes: &[u8]) -> io::Result<()> {
        let mut steps = Vec::new();
        self.script.feed(bytes, |step| steps.push(step))?;
        let steps = steps.into_iter().map(|step| self.step(step)).collect::<io::Result<Vec<Step>>>()?;
        // Where the session has stopped, its refusal says why.
        self.sender.blocking_send(steps).map_err(|_| io::ErrorKind::BrokenPipe.into())
    }

    fn step(&mut self, step: Step) -> io::Result<Step> {
        let other = || io::Error::other("where the manifest says that the rows of the table are, the dump holds something else");
        match step {
            Step::Copy { text, entry } => {
                let table = copied_table(&text).map(|(schema, name)| Name { schema, name });
                let statement = own_bytes::text(text.clone());
                if !table.is_some_and(|table| self.tables.contains(&table)) || !pg_dumps::copies(&statement) {
                    return Err(other());
                }
                self.is_open = true;
                let text = self.renamed.as_ref().map_or(text, |renamed| own_bytes::bytes(&renamed.statement(&statement)));
                Ok(Step::Copy { text, entry })
            }
            Step::RowsEnd => {
                self.is_open = false;
                Ok(Step::RowsEnd)
            }
            Step::Rows(rows) => Ok(Step::Rows(rows)),
            Step::Statement { .. } => Err(other()),
        }
    }
}
