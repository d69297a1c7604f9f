//! Parses a connection URL by libpq's rules. It is pure and looks nothing up. A message about a mistake never contains a piece of
//! the URL but the names of parameters: everything else may be a password.

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_decode_str, utf8_percent_encode};

/// What stays as it is in every part of a URL (RFC 3986, 2.3).
const ENCODED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

/// Returns libpq's keywords with their values, in order, each once: of two with one name the later counts, even if it is empty.
/// Empty values are left out.
pub fn parse(url: &str) -> Result<Vec<(String, String)>, String> {
    let rest = ["postgres://", "postgresql://"].iter().find_map(|scheme| url.strip_prefix(scheme));
    let rest = rest.ok_or("it starts with neither postgres:// nor postgresql://")?;
    let (authority, path, query) = parts(rest)?;

    let mut found = Vec::new();
    let (user_info, hosts) = authority.rsplit_once('@').map_or((None, authority), |(user, hosts)| (Some(user), hosts));
    if let Some(user_info) = user_info {
        // Like libpq: only the first colon separates.
        let (user, password) = user_info.split_once(':').map_or((user_info, None), |(user, password)| (user, Some(password)));
        found.push(("user".to_owned(), decoded(user)?));
        found.push(("password".to_owned(), decoded(password.unwrap_or_default())?));
    }
    let (hosts, ports) = hosts_and_ports(hosts)?;
    found.push(("host".to_owned(), hosts));
    found.push(("port".to_owned(), ports));
    found.push(("dbname".to_owned(), decoded(path)?));
    for pair in query.split('&').filter(|pair| !pair.is_empty()) {
        let (key, value) = pair.split_once('=').ok_or("a parameter has no `=`: write ?KEY=VALUE&KEY=VALUE")?;
        let (key, value) = (decoded(key)?, decoded(value)?);
        // This is JDBC's parameter, which libpq knows, too.
        if key == "ssl" && value == "true" {
            found.push(("sslmode".to_owned(), "require".to_owned()));
        } else {
            found.push((key, value));
        }
    }
    Ok(last_of_each(found))
}

/// Writes a URL that [`parse`] reads as these parameters: user, one host by name with its port, and the database before the `?`, all others after it.
pub fn format<'p>(parameters: impl Iterator<Item = (&'p str, &'p str)>) -> String {
    let encoded = |text: &str| utf8_percent_encode(text, ENCODED).to_string();
    let parameters: Vec<(&str, &str)> = parameters.collect();
    let of = |key: &str| parameters.iter().find(|(name, _)| *name == key).map(|(_, value)| *value);
    let is_plain = |host: &&str| host.chars().all(|letter| letter.is_ascii_alphanumeric() || matches!(letter, '.' | '-' | '_'));
    let host = of("host").filter(is_plain).filter(|host| !host.is_empty());
    let port = host.and(of("port")).filter(|port| !port.contains(','));
    let mut url = "postgres://".to_owned();
    if let Some(user) = of("user") {
        url += &encoded(user);
        url.push('@');
    }
    url += host.unwrap_or_default();
    if let Some(port) = port {
        url.push(':');
        url += &encoded(port);
    }
    url.push('/');
    url += &encoded(of("dbname").unwrap_or_default());
    let is_said = |key: &str| match key {
        "user" | "dbname" => true,
        "host" => host.is_some(),
        "port" => port.is_some(),
        _ => false,
    };
    for (number, (key, value)) in parameters.iter().filter(|(key, _)| !is_said(key)).enumerate() {
        url.push(if number == 0 { '?' } else { '&' });
        url += &format!("{}={}", encoded(key), encoded(value));
    }
    url
}

/// An empty value cancels the one before it.
fn last_of_each(found: Vec<(String, String)>) -> Vec<(String, String)> {
    let is_last = |at: usize| found[at + 1..].iter().all(|(key, _)| *key != found[at].0);
    let kept: Vec<bool> = (0..found.len()).map(|at| is_last(at) && !found[at].1.is_empty()).collect();
    found.into_iter().zip(kept).filter_map(|(pair, kept)| kept.then_some(pair)).collect()
}

/// Splits authority, path and query. If a character of a password ends one of them too early, the `@` after it shows that.
fn parts(rest: &str) -> Result<(&str, &str, &str), String> {
    if rest.contains('#') {
        // libpq takes it for a letter, most other programs for the end of the address.
        return Err("a `#` must be written as %23, also in a password".to_owned());
    }
    if rest.contains(|letter: char| letter.is_whitespace() || letter.is_control()) {
        return Err("a space or a control character in it must be percent-encoded: a space is %20".to_owned());
    }
    let end = rest.find(['/', '?']).unwrap_or(rest.len());
    let (authority, tail) = rest.split_at(end);
    let (path, query) = tail.split_once('?').unwrap_or((tail, ""));
    let path = path.strip_prefix('/').unwrap_or(path);
    if authority.matches('@').count() > 1 {
        return Err("it has more than one `@` before the host: one that belongs to the password or to the user's name must be \
                    written as %40"
            .to_owned());
    }
    if path.contains('@') {
        return Err("an `@` comes after a `/`: a `/` in the password must be written as %2F, an `@` in the password or in the \
                    database's name as %40"
            .to_owned());
    }
    if query.contains('@') {
        return Err("an `@` comes after a `?`: a `?` in the password must be written as %3F, an `@` in the password or in a \
                    parameter as %40"
            .to_owned());
    }
    Ok((authority, path, query))
}

/// Splits `h1:5432,[::1]:5433,h3` into libpq's two lists, which are empty when they would mean nothing.
fn hosts_and_ports(text: &str) -> Result<(String, String), String> {
    let (mut hosts, mut ports) = (Vec::new(), Vec::new());
    for one in text.split(',') {
        let (host, port) = match one.strip_prefix('[') {
            Some(literal) => {
                let (address, after) = literal.split_once(']').ok_or("an IPv6 address has no closing `]`")?;
                let before_zone = address.split_once('%').map_or(address, |(before, _)| before);
                if before_zone.parse::<std::net::Ipv6Addr>().is_err() {
                    return Err("the text between `[` and `]` is not an IPv6 address".to_owned());
                }
                let port = match after {
                    "" => "",
                    _ => after.strip_prefix(':').ok_or("only `:PORT` may come after the `]` of an IPv6 address")?,
                };
                (address, port)
            }
            None if one.matches(':').count() > 1 => {
                return Err("a host has more than one `:`: an IPv6 address must be in brackets, as in [::1]:5432; a `:` in the \
                            user's name must be written as %3A"
                    .to_owned());
            }
            None => one.split_once(':').unwrap_or((one, "")),
        };
        // An IPv6 zone (fe80::1%eth0) is not percent-encoded.
        let is_zoned = one.starts_with('[') && host.contains('%') && !host.contains("%25");
        hosts.push(if is_zoned { host.to_owned() } else { decoded(host)? });
        ports.push(decoded(port)?);
    }
    let join = |list: Vec<String>| if list.iter().all(String::is_empty) { String::new() } else { list.join(",") };
    Ok((join(hosts), join(ports)))
}

fn decoded(text: &str) -> Result<String, String> {
    for (at, _) in text.match_indices('%') {
        let code = text.get(at + 1..at + 3).filter(|code| code.bytes().all(|byte| byte.is_ascii_hexdigit()));
        match code {
            None => return Err("a `%` that does not begin a percent-encoding must be written as %25".to_owned()),
            Some("00") => return Err("%00 is not allowed in names and passwords".to_owned()),
            Some(_) => {}
        }
    }
    let text = percent_decode_str(text).decode_utf8().map_err(|_| "its percent-encoded text is not UTF-8".to_owned())?;
    Ok(text.into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Returns the parameters as libpq prints them: `keyword=value`, in order.
    fn parsed(url: &str) -> String {
        let found = parse(url).unwrap_or_else(|error| panic!("{url}: {error}"));
        found.iter().map(|(key, value)| format!("{key}={value}")).collect::<Vec<_>>().join(" ")
    }

    /// src/interfaces/libpq/t/001_uri.pl of PostgreSQL, as far as it concerns what is a URL for us, and more.
    #[test]
    fn urls_are_read_as_libpq_reads_them() {
        for (url, expected) in [
            ("postgresql://uri-user:secret@host:12345/db", "user=uri-user password=secret host=host port=12345 dbname=db"),
            ("postgresql://uri-user@host:12345/db", "user=uri-user host=host port=12345 dbname=db"),
            ("postgresql://host:12345/db", "host=host port=12345 dbname=db"),
            ("postgresql://host/db", "host=host dbname=db"),
            ("postgresql://host:12345", "host=host port=12345"),
            ("postgresql://", ""),
            ("postgresql://?hostaddr=127.0.0.1", "hostaddr=127.0.0.1"),
            ("postgresql://example.com?hostaddr=63.1.2.4", "host=example.com hostaddr=63.1.2.4"),
            ("postgresql://%68ost/", "host=host"),
            ("postgresql://host/db?u%73er=uri-user", "host=host dbname=db user=uri-user"),
            ("postgresql://host:12345?user=uri-user", "host=host port=12345 user=uri-user"),
            ("postgresql://[::1]:12345/db", "host=::1 port=12345 dbname=db"),
            ("postgresql://u@[2001:db8::1234]/", "user=u host=2001:db8::1234"),
            ("postgresql://[fe80::1%eth0]:1/", "host=fe80::1%eth0 port=1"),
            ("postgresql:///db?host=::1", "dbname=db host=::1"),
            ("postgres://u@%2Fvar%2Frun%2Fpostgresql/app", "user=u host=/var/run/postgresql dbname=app"),
            ("postgres:///db?host=/path/to/socket", "dbname=db host=/path/to/socket"),
            (
                "postgres://u@h1,h2:5433/app?target_session_attrs=any",
                "user=u host=h1,h2 port=,5433 dbname=app target_session_attrs=any",
            ),
            ("postgres://h1:1,[::1]:2,h3/app", "host=h1,::1,h3 port=1,2, dbname=app"),
            ("postgres://u:a:b@h/", "user=u password=a:b host=h"),
            ("postgres://u:p%23%40%2F%3F%25@h/", "user=u password=p#@/?% host=h"),
            ("postgres://u%40corp:p@h/my%20db", "user=u@corp password=p host=h dbname=my db"),
            ("postgres://h/d?options=endpoint%3Dep-1", "host=h dbname=d options=endpoint=ep-1"),
            ("postgres://h/d?options=-c%20geqo=off", "host=h dbname=d options=-c geqo=off"),
            ("postgres://h/d?ssl=true", "host=h dbname=d sslmode=require"),
            ("postgres://h/d?a+b=c+d", "host=h dbname=d a+b=c+d"),
            ("postgres://h/a/b", "host=h dbname=a/b"),
            // Found with fuzz/, beside libpq itself.
            ("postgres://h/d?host=", "dbname=d"),
            ("postgres://u:p@h/d?password=&host=x", "user=u dbname=d host=x"),
        ] {
            assert_eq!(parsed(url), expected, "{url}");
        }
    }

    #[test]
    fn a_url_that_is_written_is_read_as_the_same_parameters() {
        for url in [
            "postgresql://uri-user:s%40:cret@host:12345/db",
            "postgresql://[::1]:12345/db",
            "postgresql://u@[fe80::1%eth0]:1/d",
            "postgres://u@%2Fvar%2Frun%2Fpostgresql/app",
            "postgres://u@h1,h2:5433/app?target_session_attrs=any",
            "postgres://u%40corp@h:5433/my%20db%2F%22'%0A%E2%9C%93?options=-c%20geqo%3Doff&sslmode=require",
            "postgres:///a%3Fb%23c%26d?service=x%26y",
        ] {
            let mut expected = parse(url).unwrap();
            let written = format(expected.iter().map(|(key, value)| (key.as_str(), value.as_str())));
            let mut found = parse(&written).unwrap_or_else(|error| panic!("{url}: {written}: {error}"));
            expected.sort();
            found.sort();
            assert_eq!(found, expected, "{url}: {written}");
        }
    }

    #[test]
    fn what_must_be_encoded_is_named_and_nothing_of_the_url_is() {
        for (url, says) in [
            ("postgres://u:pa#hunter2@db.example/app", "%23"),
            ("postgres://u:hunter2#@db.example/app", "%23"),
            ("postgres://u:pa@hunter2@db.example/app", "%40"),
            ("postgres://u:pa/hunter2@db.example/app", "%2F"),
            ("postgres://u:12/hunter2@db.example/app", "%2F"),
            ("postgres://u:pa/hunter2@x@db.example/app", "%2F"),
            ("postgres://u:pa@hunter2/x@db.example/app", "%2F"),
            ("postgres://u:pa?hunter2@db.example/app", "%3F"),
            ("postgres://u:12?hunter2=1@db.example/app", "%3F"),
            ("postgres://u:hunter2%zz@db.example/app", "%25"),
            ("postgres://u:hunter2%@db.example/app", "%25"),
            ("postgres://u:hunter2 x@db.example/app", "%20"),
            ("postgres://u:hunter2%ff@db.example/app", "UTF-8"),
            ("postgres://u:hunter2%00@db.example/app", "%00"),
            ("postgres://u@[hunter2]/app", "IPv6"),
            ("postgres://u@[hunter2%20x]/app", "IPv6"),
            ("postgres://u@[::1/app", "`]`"),
            ("postgres://u@[::1]hunter2/app", ":PORT"),
            ("postgres://u@::1/app", "brackets"),
            ("postgres://u@h/app?hunter2", "`=`"),
            ("mysql://root:hunter2@h/y", "postgres://"),
            ("hunter2", "postgres://"),
        ] {
            let error = parse(url).expect_err(url);
            assert!(error.contains(says) && !error.contains("hunter2") && !error.contains("db.example"), "{url}: {error}");
        }
    }
}
