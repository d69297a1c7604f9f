//! The certificate as one HTML document that needs no script and no other file.

use maud::html;

use super::Certificate;
use super::proved::moment;
use crate::base::html_page;

pub fn render(certificate: &Certificate) -> String {
    let body = html! {
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
    };
    let title = format!("Certificate of {}", certificate.set);
    html_page::render(&title, html_page::DOCUMENT_STYLE, &html_page::nothing(), &body)
}
