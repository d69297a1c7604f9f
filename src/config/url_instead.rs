//! The URL to write in place of a text that is none: a connection string of libpq, a URL of JDBC, a host and a database. Never a password.

const LIKE: &str = "write it like \"postgres://user@host:5432/database\"";

/// Returns what to write.
pub fn instead(text: &str) -> String {
    let text = text.trim();
    if let Some(url) = text.strip_prefix("jdbc:postgresql://") {
        let (place, query) = url.split_once('?').unwrap_or((url, ""));
        let user = query.split('&').find_map(|pair| pair.strip_prefix("user="));
        return of_parts(user, place)
            .map_or_else(|| LIKE.to_owned(), |url| format!("write {url:?}, without jdbc:{}", password(query)));
    }
    if let Some((scheme, _)) = text.split_once("://").filter(|(scheme, _)| !matches!(*scheme, "postgres" | "postgresql")) {
        let is_other = ["mysql", "mariadb", "mongodb", "sqlserver", "oracle", "sqlite", "redis"].contains(&scheme);
        return if is_other { format!("pgtend tends PostgreSQL alone; {LIKE}") } else { LIKE.to_owned() };
    }
    if text.contains("://") {
        return LIKE.to_owned();
    }
    if text.contains('=') {
        return of_key_values(text).unwrap_or_else(|| LIKE.to_owned());
    }
    of_parts(None, text).filter(|_| text.contains('/')).map_or_else(|| LIKE.to_owned(), |url| format!("write {url:?}"))
}

/// `host=h dbname=d user=u`, where every word is one of libpq's.
fn of_key_values(text: &str) -> Option<String> {
    let pairs: Vec<(&str, &str)> = text.split_whitespace().map(|word| word.split_once('=')).collect::<Option<_>>()?;
    let value = |key: &str| pairs.iter().find(|(known, _)| *known == key).map(|(_, value)| *value);
    let is_known = |key: &str| matches!(key, "host" | "port" | "dbname" | "user" | "password" | "sslmode");
    if !pairs.iter().all(|(key, value)| is_known(key) && !value.contains(['\'', '"', '\\'])) {
        return None;
    }
    let port = value("port").map(|port| format!(":{port}")).unwrap_or_default();
    let place = format!("{}{port}/{}", value("host").unwrap_or_default(), value("dbname").unwrap_or_default());
    let tls = value("sslmode").map(|mode| format!("?sslmode={mode}")).unwrap_or_default();
    let url = of_parts(value("user"), &place)?;
    Some(format!("write {:?}{}", format!("{url}{tls}"), password(text)))
}

fn of_parts(user: Option<&str>, place: &str) -> Option<String> {
    let is_plain = |text: &str| text.chars().all(|letter| letter.is_ascii_alphanumeric() || "._-:/[]".contains(letter));
    let user = user.map(|user| format!("{user}@")).unwrap_or_default();
    // A host that is a folder of a socket does not fit between the slashes.
    let fits = is_plain(place) && is_plain(user.trim_end_matches('@')) && !place.starts_with('/');
    fits.then(|| format!("postgres://{user}{place}"))
}

fn password(text: &str) -> &'static str {
    if text.contains("password=") {
        "; the password belongs in ~/.pgpass, or url_file names a file with the whole URL"
    } else {
        ""
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_in_another_form_is_answered_with_its_url_and_never_with_a_password() {
        for (text, expected) in [
            ("host=db dbname=app", "write \"postgres://db/app\""),
            (
                "host=db port=5433 dbname=app user=u password=hunter2 sslmode=require",
                "write \"postgres://u@db:5433/app?sslmode=require\"; the password",
            ),
            ("host=db password='hun ter2'", LIKE),
            (
                "jdbc:postgresql://db:5433/app?user=u&password=hunter2",
                "write \"postgres://u@db:5433/app\", without jdbc:; the password",
            ),
            ("localhost/app", "write \"postgres://localhost/app\""),
            ("u:hunter2@db/app", LIKE),
            ("mysql://u:hunter2@db/app", "pgtend tends PostgreSQL alone"),
            ("postgres://u:hunter2@db:99999999/app", LIKE),
            ("hunter2", LIKE),
            ("host=/run/postgresql dbname=app", LIKE),
        ] {
            let said = instead(text);
            assert!(said.contains(expected) && !said.contains("hunter2") && !said.contains("ter2'"), "{text}: {said}");
        }
    }
}
