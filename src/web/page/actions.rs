//! Forms for those who may act. Each asks for the token, which no browser sends by itself.

use maud::{Markup, html};

use crate::task::backup::set_name::SetName;

/// How long a set is held unless another number is written.
const HOLD_DAYS: u16 = 30;

pub(super) fn run_now(job: &str, database: &str) -> Markup {
    let fields = html! { (hidden("job", job)) (hidden("database", database)) };
    html! {
        section.act aria-labelledby="act" {
            h2 #act { "Run it now" }
            (form("/actions/run", "Run now", &fields))
            (note())
        }
    }
}

pub(super) fn on_set(name: &SetName, stores: &[&str]) -> Markup {
    let set = hidden("set", &name.to_string());
    let days = html! { (set) label { "Days " input type="number" name="days" min="1" max="3650" value=(HOLD_DAYS) required; } };
    let copy =
        html! { (set) label { "Copy in " select name="store" { @for store in stores { option value=(store) { (store) } } } } };
    html! {
        section.act aria-labelledby="act" {
            h2 #act { "Hold or verify it" }
            p { "No rule deletes a set while it is held:" }
            (form("/actions/hold", "Hold", &days))
            p { "A copy is verified by reading it back:" }
            (form("/actions/verify", "Verify", &copy))
            (note())
        }
    }
}

fn form(action: &str, button: &str, fields: &Markup) -> Markup {
    html! {
        form.filter method="post" action=(action) aria-label=(button) {
            (fields)
            label { "Your name " input name="who" maxlength="100" autocomplete="name" required; }
            label { "Token " input type="password" name="token" autocomplete="current-password" required; }
            button { (button) }
        }
    }
}

fn hidden(name: &str, value: &str) -> Markup {
    html! { input type="hidden" name=(name) value=(value); }
}

fn note() -> Markup {
    html! { p.meta { "The token is that of " code { "[serve] actions_token_file" } ". The ledger keeps your name." } }
}
