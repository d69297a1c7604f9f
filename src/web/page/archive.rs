//! Rows that left a table: the batches of a job, and how they come back.

use chrono::{DateTime, Utc};
use maud::html;

use super::frame::{Frame, document, heading};
use super::links;
use super::words::{ago, shortened};
use crate::base::shell::word;
use crate::base::units::{bytes, count, plural};

/// The batches of one page, the newest first.
const SHOWN: usize = 200;

/// A batch in a store.
#[derive(Clone, Debug)]
pub struct Batch {
    pub store: String,
    pub name: String,
    /// None: sealed.
    pub table: Option<String>,
    pub rows: u64,
    pub bytes: u64,
    pub at: DateTime<Utc>,
    pub why: String,
}

/// `troubles` are files that are no batches, and stores that could not be read.
pub fn render(frame: &Frame, job: &str, database: &str, batches: &[Batch], troubles: &[String]) -> String {
    let mut shown: Vec<&Batch> = batches.iter().collect();
    shown.sort_by_key(|batch| std::cmp::Reverse(batch.at));
    let (rows, size) = batches.iter().fold((0, 0), |(rows, size): (u64, u64), batch| (rows + batch.rows, size + batch.bytes));
    let main = html! {
        (heading("Archive", &html! { (job) }, &html! { "of " (links::place(job, database)) }))
        p.lead { (plural(batches.len(), "batch")) ", " (plural(rows, "row")) ", " (bytes(size)) }
        @for trouble in troubles.iter().take(20) { p.warning { (shortened(trouble, 1000)) } }
        @if !shown.is_empty() {
            div.scroll tabindex="0" role="group" aria-label="Batches" { table.plain {
                thead { tr { @for title in ["Batch", "Store", "Table", "Rows", "Size", "Archived", "Why"] { th scope="col" { (title) } } } }
                tbody { @for batch in shown.iter().take(SHOWN) { tr {
                    th scope="row" { (batch.name) }
                    td { (batch.store) }
                    td { (batch.table.as_deref().unwrap_or("sealed")) }
                    td.num { (count(batch.rows)) }
                    td.num { (bytes(batch.bytes)) }
                    td { (ago(batch.at, frame.now)) }
                    td { (shortened(&batch.why, 200)) }
                } } }
            } }
            @if shown.len() > SHOWN { p.quiet { "and " (plural(shown.len() - SHOWN, "batch")) " before: " code { "pgtend archives list" } } }
            section aria-labelledby="restore" {
                h2 #restore { "Put rows back" }
                pre.command tabindex="0" { "pgtend archives restore --job " (word(job)) " --database " (word(database)) " --dry-run" }
            }
        }
    };
    document(frame, &format!("Archive of {job} on {database}"), "idle", None, &main)
}
