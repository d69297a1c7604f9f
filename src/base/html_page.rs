//! The frame of our HTML documents: each needs no script and no other file.

use maud::{DOCTYPE, Markup, PreEscaped, html};

use super::terminal;

/// Of documents that are read once and printed.
pub const DOCUMENT_STYLE: &str = include_str!("document.css");

/// A whole document. `style` is our own CSS, and `more` what else stands in its head.
pub fn render(title: &str, style: &str, more: &Markup, body: &Markup) -> String {
    let page = html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width, initial-scale=1";
                meta name="color-scheme" content="light dark";
                (more)
                title { (title) }
                style { (PreEscaped(style)) }
            }
            body { (body) }
        }
    };
    // maud escapes what HTML interprets; this also removes what a terminal interprets, for readers with curl.
    terminal::visible(&page.into_string()).into_owned()
}

/// What most documents add to the head: nothing.
pub fn nothing() -> Markup {
    html! {}
}
