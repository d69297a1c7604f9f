//! One set: its copies, its tables, what changed since the set before, and how to restore it.

use std::collections::BTreeMap;

use chrono::{DateTime, Utc};
use maud::{Markup, html};
use percent_encoding::utf8_percent_encode;

use super::frame::{Frame, document, heading};
use super::words::{ago, exact, shortened};
use super::{actions, links, safe};
use crate::base::shell::word;
use crate::base::units::{bytes, count, plural};
use crate::members::decrypt::recipients_in_words;
use crate::task::backup::change::{self, Change};
use crate::task::backup::manifest::Manifest;
use crate::task::backup::set::Set;
use crate::task::backup::set_name::SetName;

/// The tables of one page, the largest first.
const TABLES: usize = 500;
const CHANGES: usize = 200;

/// A set as the stores have it.
pub struct SetSeen {
    pub name: SetName,
    /// Each copy, with the name of its store.
    pub copies: Vec<(String, Set)>,
    /// The set before it, in the store of the first copy.
    pub before: Option<Set>,
    /// Why a store could not say whether it has a copy.
    pub unread: Vec<(String, String)>,
}

pub fn render(frame: &Frame, seen: &SetSeen) -> String {
    let name = seen.name.to_string();
    let way = html! { "of " (links::place(&seen.name.job, &seen.name.database)) };
    let main = html! {
        (heading("Set", &html! { (name) }, &way))
        @match seen.copies.first() {
            None => p { "No store that answers has a set of this name: it may have been pruned." },
            Some((store, set)) => {
                (about_set(set, frame.now))
                (copies(seen, frame.now))
                (restore(seen, store, set))
                @if frame.has_actions {
                    (actions::on_set(&seen.name, &seen.copies.iter().map(|(store, _)| store.as_str()).collect::<Vec<_>>()))
                }
                (changes(seen, set))
                (tables(&set.manifest))
            }
        }
        @for (store, why) in &seen.unread { p.warning { "Store " (store) " could not be read: " (shortened(why, 1000)) } }
    };
    document(frame, &format!("Set {name}"), "idle", None, &main)
}

fn about_set(set: &Set, now: DateTime<Utc>) -> Markup {
    let manifest = &set.manifest;
    let verification = &set.verification;
    let problems = verification.bytes.iter().flat_map(|check| &check.problems);
    html! {
        dl.facts {
            div { dt { "Began" } dd { (exact(manifest.started_at)) " (" (ago(manifest.started_at, now)) ")" } }
            div { dt { "Of" } dd { "database " (manifest.server.database.name) ", PostgreSQL " (manifest.server.version) } }
            div { dt { "Dump" } dd { (bytes(manifest.dump.bytes)) small { (bytes(manifest.dump.uncompressed_bytes)) " uncompressed, " (manifest.holds_in_words()) } } }
            div { dt { "Encryption" } dd { @match &manifest.dump.encryption { Some(encryption) => { "age, to " (recipients_in_words(&encryption.recipients)) }, None => { "none" } } } }
            div { dt { "Restore took" } dd { (safe::took(verification.restore_time(now), now)) } }
        }
        @for problem in problems.take(20) { p.bad { (shortened(problem, 1000)) } }
        @if !manifest.warnings.is_empty() {
            section aria-labelledby="warnings" {
                h2 #warnings { (plural(manifest.warnings.len(), "warning")) }
                ul.warnings { @for warning in &manifest.warnings { li { (shortened(warning, 4000)) } } }
            }
        }
    }
}

fn copies(seen: &SetSeen, now: DateTime<Utc>) -> Markup {
    html! {
        section aria-labelledby="copies" {
            h2 #copies { "Copies" }
            div.scroll tabindex="0" role="group" aria-label="Copies" { table.plain {
                thead { tr { @for title in ["Store", "Bytes", "Restored", "Held"] { th scope="col" { (title) } } } }
                tbody { @for (store, set) in &seen.copies { tr {
                    th scope="row" { (store) }
                    td { (set.verification.verdict().name()) @if let Some(check) = &set.verification.bytes { small { "read back " (ago(check.checked_at, now)) } } }
                    td { (shortened(&set.verification.restored_in_words(now), 300)) }
                    td { @for hold in set.held(now) { "until " (hold.until.format("%Y-%m-%d")) small { (shortened(&hold.reason, 300)) } } }
                } } }
            } }
        }
    }
}

/// Commands to copy. The new database's name is a proposal.
fn restore(seen: &SetSeen, store: &str, set: &Set) -> Markup {
    let name = word(&seen.name.to_string());
    // A sealed manifest does not say it.
    let own = Some(&set.manifest.server.database.name).filter(|name| !name.is_empty()).unwrap_or(&seen.name.database);
    let new = format!("{own}_restored");
    let from = if seen.copies.len() > 1 { format!(" --store {}", word(store)) } else { String::new() };
    let url = format!("postgres://localhost/{}", utf8_percent_encode(&new, links::RESERVED));
    html! {
        section aria-labelledby="restore" {
            h2 #restore { "Restore it" }
            p { "Into a new database " code { (new) } "; another server or role is another " code { "--into" } ":" }
            pre.command tabindex="0" { "pgtend backups restore " (name) (from) " --into " (word(&url)) " --create" }
            p { "One table of it into the database in use, nothing written over:" }
            pre.command tabindex="0" { "pgtend backups restore " (name) (from) " --into " (word(&seen.name.database)) " --table SCHEMA.TABLE --dry-run" }
            p { "Read its bytes back:" }
            pre.command tabindex="0" { "pgtend backups verify " (name) (from) }
        }
    }
}

fn changes(seen: &SetSeen, set: &Set) -> Markup {
    let Some(before) = &seen.before else { return html! {} };
    let is_sealed = before.manifest.names_are_sealed() || set.manifest.names_are_sealed();
    let changes = if is_sealed { Vec::new() } else { change::changes(&before.manifest, &set.manifest) };
    let rows = |rows: Option<u64>| rows.map_or("–".to_owned(), count);
    html! {
        section aria-labelledby="changes" {
            h2 #changes { "Changed since the set before" }
            p.meta { a href=(links::set(&before.name.to_string())) { (before.name) } }
            @if is_sealed { p { "The tables are sealed: a host with an identity for one of the recipients shows them." } }
            @else if before.manifest.filters != set.manifest.filters { p.warning { "The two sets were made with different filters." } }
            @if !is_sealed && changes.is_empty() { p { "Every table has as many rows in one as in the other." } }
            @if !changes.is_empty() {
                div.scroll tabindex="0" role="group" aria-label="Changed tables" { table.plain {
                    thead { tr { @for title in ["Table", "Rows before", "Rows now", "Change"] { th scope="col" { (title) } } } }
                    tbody { @for Change { table, before, now } in changes.iter().take(CHANGES) { tr {
                        th scope="row" { (shortened(table, 200)) } td.num { (rows(*before)) } td.num { (rows(*now)) }
                        td { (Change { table: String::new(), before: *before, now: *now }.in_a_word()) }
                    } } }
                } }
                @if changes.len() > CHANGES { p.quiet { "and " (plural(changes.len() - CHANGES, "table")) " more" } }
            }
        }
    }
}

fn tables(manifest: &Manifest) -> Markup {
    let mut sums: BTreeMap<(&str, &str), (u64, u64)> = BTreeMap::new();
    for table in &manifest.tables {
        let sum = sums.entry((&table.schema, &table.name)).or_default();
        *sum = (sum.0 + table.rows, sum.1 + table.bytes);
    }
    let mut tables: Vec<_> = sums.into_iter().collect();
    tables.sort_by_key(|(_, (_, bytes))| std::cmp::Reverse(*bytes));
    html! {
        section aria-labelledby="tables" {
            h2 #tables { "Tables" span.count { (count(tables.len() as u64)) } }
            @if manifest.names_are_sealed() { p { "Its tables are sealed: a host with an identity for one of its recipients shows them." } }
            @else if tables.is_empty() { p { "It has no table data." } }
            @else {
                div.scroll tabindex="0" role="group" aria-label="Tables" { table.plain {
                    thead { tr { @for title in ["Table", "Rows", "Uncompressed"] { th scope="col" { (title) } } } }
                    tbody { @for ((schema, name), (rows, size)) in tables.iter().take(TABLES) { tr {
                        th scope="row" { (schema) "." (name) } td.num { (count(*rows)) } td.num { (bytes(*size)) }
                    } } }
                } }
                @if tables.len() > TABLES { p.quiet { "and " (plural(tables.len() - TABLES, "table")) " more; " code { "pgtend backups show" } " has all of them" } }
            }
        }
    }
}
