//! Reads passwords from `~/.pgpass` or PGPASSFILE, as libpq does (PostgreSQL manual, 32.16).

use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

/// Returns the password for a connection, or `None` when the file has none or does not exist. Like libpq, it does not use a file
/// that others may read; a warning says so once.
pub fn look_up(file: &Path, host: &str, port: u16, database: &str, user: &str) -> Option<String> {
    let metadata = std::fs::metadata(file).ok()?;
    if !metadata.is_file() {
        return None;
    }
    if metadata.permissions().mode() & 0o077 != 0 {
        static SAID: std::sync::Once = std::sync::Once::new();
        SAID.call_once(|| tracing::warn!("{} is not used, because others may read it: run chmod 600 on it", file.display()));
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
                "line {number} of {} does not match the host {host}: write a backslash before each colon of an address, {}",
                file.display(),
                escaped(host)
            );
        });
    }
    found
}

/// Returns the number of the first line that begins with an unescaped IPv6 address, whose colons end the field. This is pure.
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

/// Returns the fifth field of the first line whose first four fields match or are `*`. This is pure.
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

/// Returns the text up to the next unescaped colon, without its escapes, and the rest.
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
