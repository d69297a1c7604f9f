//! The certificate as one HTML document that needs no script and no other file.

use maud::{DOCTYPE, PreEscaped, html};

use super::Certificate;
use super::proved::moment;
use crate::base::terminal;

pub fn render(certificate: &Certificate) -> String {
    let page = html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width, initial-scale=1";
                meta name="color-scheme" content="light dark";
                title { "Certificate of " (certificate.set) }
                style { (PreEscaped(include_str!("certificate.css"))) }
            }
            body {
                header { h1 { "Certificate of a backup set" } }
                main {
                    table { tbody { @for (label, value) in &certificate.is {
                        tr { th scope="row" { (label) } td { (value) } }
                    } } }
                    @for (heading, sentences) in certificate.lists() {
                        section {
                            h2 { (heading) }
                            @if sentences.is_empty() { p { "Nothing." } }
                            ul { @for sentence in sentences { li { (sentence) } } }
                        }
                    }
                }
                footer {
                    "Issued on " (moment(certificate.issued_at)) " by pgtend " (certificate.pgtend_version)
                    ", from what is recorded beside the set; nothing was read or restored for it."
                }
            }
        }
    };
    // maud escapes what HTML interprets; this also removes what a terminal interprets.
    terminal::visible(&page.into_string()).into_owned()
}
