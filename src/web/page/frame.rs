//! What all pages have around them: the head, the way back, the foot.

use chrono::{DateTime, Utc};
use maud::{Markup, html};

use super::drawing;
use super::words::moment;
use crate::base::html_page;
use crate::base::units::age;

/// What a page says of the process that shows it.
#[derive(Clone, Debug)]
pub struct Frame {
    pub host: String,
    pub version: &'static str,
    pub started_at: DateTime<Utc>,
    pub now: DateTime<Utc>,
    /// Why less is shown than there may be.
    pub note: Option<String>,
    /// Whether pages have forms for those who may act.
    pub has_actions: bool,
}

/// A whole page. `mood` is the colour of the mark in the tab; without `refresh_seconds` it does not reload by itself.
pub(super) fn document(frame: &Frame, title: &str, mood: &str, refresh_seconds: Option<u32>, main: &Markup) -> String {
    let head = html! {
        @if let Some(seconds) = refresh_seconds { meta http-equiv="refresh" content=(seconds); }
        link rel="icon" href=(drawing::favicon(mood));
    };
    let body = html! {
        a.skip href="#main" { "Skip to the content" }
        header.top {
            p.brand { a href="/" { "pgtend" } span { "on " (frame.host) } }
            nav aria-label="Pages" { a href="/" { "Overview" } " " a href="/runs" { "Runs" } }
            p { (moment(frame.now, &frame.now.format("%-d %b %Y, %H:%M UTC").to_string())) }
        }
        main #main tabindex="-1" {
            @if let Some(note) = &frame.note { section.banner role="status" { h2 { "The ledger cannot be read" } pre { (note) } } }
            (main)
        }
        footer {
            p { "pgtend " (frame.version) ", up for " (age(frame.started_at, frame.now)) }
            @if let Some(seconds) = refresh_seconds { p { "This page reloads every " (seconds) " seconds." } }
        }
    };
    html_page::render(&format!("{title} – pgtend on {}", frame.host), include_str!("page.css"), &head, &body)
}

/// The heading of a page about one thing, and the way to what it belongs to.
pub(super) fn heading(kind: &str, name: &Markup, way: &Markup) -> Markup {
    html! {
        div.heading {
            p.way { (way) }
            h1 { span.kind { (kind) } " " (name) }
        }
    }
}

/// A page that says why there is no other.
pub fn sorry(frame: &Frame, what: &str, why: &str) -> String {
    let main = html! {
        div.heading { h1 { (what) } }
        p { (why) }
        p { a href="/" { "Back to the overview" } }
    };
    document(frame, what, "idle", None, &main)
}
