//! Passwords of `~/.pgpass` or PGPASSFILE, found as libpq finds them (PostgreSQL manual, 32.16).

use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

/// The password for a connection, None when the file has none or is not there. A file that others may read is not
/// used, as libpq has it; that is said once.
pub fn look_up(file: &Path, host: &str, port: u16, database: &str, user: &str) -> Option<String> {
    let metadata = std::fs::metadata(file).ok()?;
    if !metadata.is_file() {
        return None;
    }
    if metadata.permissions().mode() & 0o077 != 0 {
        static SAID: std::sync::Once = std::sync::Once::new();
        SAID.call_once(|| tracing::warn!("{} is not used: others may read it; chmod 600 it", file.display()));
        return None;
    }
    let text = std::fs::read(file).ok()?;
    let text = String::from_utf8_lossy(&text);
    let found = find(&text, &[host, &port.to_string(), database, user]);
    if found.is_none()
        && let Some(number) = unescaped_line(&text, host)
    {
        static SAID: std::sync::Once = std::sync::Once::new();
        SAID.call_once(|| {
            tracing::warn!(
                "line {number} of {} does not mean the host {host}: a colon in an address is written with a backslash before it, {}",
                file.display(),
                escaped(host)
            );
        });
    }
    found
}

/// Pure: the number of the first line that begins with an IPv6 address as it is written elsewhere, whose colons end the field.
fn unescaped_line(text: &str, host: &str) -> Option<usize> {
    if !host.contains(':') {
        return None;
    }
    let starts = [format!("{host}:"), format!("[{host}]:")];
    text.lines().position(|line| starts.iter().any(|start| line.starts_with(start))).map(|at| at + 1)
}

fn escaped(host: &str) -> String {
    host.replace(':', "\\:")
}

/// Pure: the fifth field of the first line whose four fields are these, or `*`.
fn find(text: &str, wanted: &[&str; 4]) -> Option<String> {
    text.lines().filter(|line| !line.starts_with('#')).find_map(|line| {
        let mut rest = line.trim_end_matches('\r');
        for wanted in wanted {
            let (field, after) = field(rest)?;
            if field != *wanted && !rest.starts_with("*:") {
                return None;
            }
            rest = after;
        }
        Some(unescaped(rest))
    })
}

/// Up to the next colon that no backslash stands before; without its escapes, and what comes after.
fn field(text: &str) -> Option<(String, &str)> {
    let mut escaped = false;
    for (at, letter) in text.char_indices() {
        match letter {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            ':' => return Some((unescaped(&text[..at]), &text[at + 1..])),
            _ => {}
        }
    }
    None
}

fn unescaped(text: &str) -> String {
    let mut letters = text.chars();
    let mut plain = String::new();
    while let Some(letter) = letters.next() {
        plain.extend(if letter == '\\' { letters.next() } else { Some(letter) });
    }
    plain
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_ipv6_address_without_backslashes_is_found() {
        for (text, line) in [
            ("h:1:d:u:x\n::1:5432:d:u:x", Some(2)),
            ("[::1]:5432:d:u:x", Some(1)),
            ("\\:\\:1:5432:d:u:x", None),
            ("# ::1:5432", None),
            ("::11:5432:d:u:x", None),
        ] {
            assert_eq!(unescaped_line(text, "::1"), line, "{text}");
        }
        assert_eq!((unescaped_line("h:1:d:u:x", "h"), escaped("::1").as_str()), (None, "\\:\\:1"));
    }

    #[test]
    fn the_first_line_that_fits_has_the_password() {
        let text = "# h:1:d:u:comment\nh:1:d:other:no\nh:1:d:u:first\n*:*:*:u:any\\:\\\\one\n\\:\\:1:5432:a\\:b:u:six\nbroken\n";
        assert_eq!(find(text, &["h", "1", "d", "u"]).as_deref(), Some("first"));
        assert_eq!(find(text, &["h", "2", "d", "u"]).as_deref(), Some("any:\\one"));
        assert_eq!(find(text, &["h", "2", "d", "nobody"]), None);
        assert_eq!(find("\\:\\:1:5432:a\\:b:u:six", &["::1", "5432", "a:b", "u"]).as_deref(), Some("six"));
        assert_eq!(find("\\*:1:d:u:literal", &["h", "1", "d", "u"]), None);
    }
}
