//! The addresses of pages. Names are in queries and not in paths: a database may be called `..`.

use maud::{Markup, html};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};

/// All but what RFC 3986 calls unreserved.
pub(super) const RESERVED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

fn address(path: &str, values: &[(&str, &str)]) -> String {
    let set = values.iter().filter(|(_, value)| !value.is_empty());
    let pairs: Vec<String> = set.map(|(name, value)| format!("{name}={}", utf8_percent_encode(value, RESERVED))).collect();
    if pairs.is_empty() { path.to_owned() } else { format!("{path}?{}", pairs.join("&")) }
}

pub(super) fn job(job: &str, database: &str) -> String {
    address("/job", &[("name", job), ("database", database)])
}

pub(super) fn database(name: &str) -> String {
    address("/database", &[("name", name)])
}

pub(super) fn run(id: i64) -> String {
    format!("/runs/{id}")
}

pub(super) fn set(name: &str) -> String {
    address("/set", &[("name", name)])
}

pub(super) fn audit(job: &str, database: &str) -> String {
    address("/audit", &[("job", job), ("database", database)])
}

pub(super) fn archive(job: &str, database: &str) -> String {
    address("/archive", &[("job", job), ("database", database)])
}

/// Runs with these properties, below a number.
pub fn runs(job: &str, database: &str, outcome: &str, before: Option<i64>) -> String {
    let before = before.map(|id| id.to_string()).unwrap_or_default();
    address("/runs", &[("job", job), ("database", database), ("outcome", outcome), ("before", &before)])
}

/// The status page with a filter.
pub(super) fn jobs(q: &str, task: &str, state: &str, group: &str, page: usize) -> String {
    let page = if page > 1 { page.to_string() } else { String::new() };
    address("/", &[("q", q), ("task", task), ("state", state), ("group", group), ("page", &page)]) + "#jobs"
}

/// A job on a database, with links to both.
pub(super) fn place(of_job: &str, of_database: &str) -> Markup {
    html! {
        span.place { a href=(job(of_job, of_database)) { b { (of_job) } } " " span { "on " a href=(database(of_database)) { (of_database) } } }
    }
}
