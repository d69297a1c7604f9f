//! The certificate for a terminal or a mail. Its lines are its own: a value that came from a dump, a person or a server takes one, whatever is in it.

use super::Certificate;
use super::proved::moment;
use crate::base::terminal;

pub fn render(certificate: &Certificate) -> String {
    let mut text = "CERTIFICATE OF A BACKUP SET\n\n".to_owned();
    for (label, value) in &certificate.is {
        text += &format!("{label:<12} {}\n", terminal::in_one_line(value));
    }
    for (heading, sentences) in certificate.lists() {
        text += &format!("\n{heading}:\n");
        if sentences.is_empty() {
            text += "  nothing\n";
        }
        for sentence in sentences {
            text += &format!("  - {}\n", terminal::in_one_line(sentence));
        }
    }
    let (at, version) = (moment(certificate.issued_at), &certificate.pgtend_version);
    text += &format!(
        "\nIssued on {at} by pgtend {version}, from what is recorded beside the set; nothing was read or restored for it.\n"
    );
    terminal::visible(&text).into_owned()
}
