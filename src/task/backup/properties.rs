//! The properties of a database that a plain dump leaves out: owner, grants, settings, comment. Each is applied separately, and one that
//! fails does not stop the others.

use sqlx::postgres::PgConnection;

use super::facts::{DatabaseFacts, Privilege};
use super::lacks;
use crate::pg::{self, failure, identifier, literal};

/// Settings whose value is a list of names, each stored with its quotes; as in pg_dump's dumputils.c.
const LISTS_OF_NAMES: [&str; 6] = [
    "local_preload_libraries",
    "search_path",
    "session_preload_libraries",
    "shared_preload_libraries",
    "temp_tablespaces",
    "unix_socket_directories",
];

/// A statement, and its purpose.
#[derive(Debug, PartialEq, Eq)]
struct Item {
    what: String,
    sql: String,
}

/// Gives database `name` the properties in `facts`. Returns the ones that failed, and why.
pub async fn carry(connection: &mut PgConnection, name: &str, facts: &DatabaseFacts) -> Vec<String> {
    let facts = in_words_of_session(connection, facts).await;
    let mut failed = Vec::new();
    for Item { what, sql } in items(name, &facts) {
        if let Err(error) = pg::execute(connection, sql).await {
            failed.push(format!("{what}: {}", failure::in_a_line(&error)));
        }
    }
    failed
}

/// The same statements, each with its purpose, for a transaction of the caller's.
pub async fn statements(connection: &mut PgConnection, name: &str, facts: &DatabaseFacts) -> Vec<(String, String)> {
    let facts = in_words_of_session(connection, facts).await;
    items(name, &facts).into_iter().map(|Item { what, sql }| (what, sql)).collect()
}

/// The same facts, with roles as this session must call them: the source may have another encoding.
async fn in_words_of_session(connection: &mut PgConnection, facts: &DatabaseFacts) -> DatabaseFacts {
    let mut facts = facts.clone();
    let encoding = facts.encoding.clone();
    let privileges = facts.privileges.iter_mut().flatten();
    let of_privileges = privileges.flat_map(|privilege| [&mut privilege.grantee, &mut privilege.grantor]).flatten();
    let of_settings = facts.role_settings.iter_mut().map(|settings| &mut settings.role);
    let roles: Vec<&mut String> = std::iter::once(&mut facts.owner).chain(of_privileges).chain(of_settings).collect();
    for role in roles {
        if !role.is_ascii() {
            *role = lacks::name_for(connection, role, &encoding).await;
        }
    }
    facts
}

/// The statements, in order: privileges to connect come first; a read-only default, which does not block ALTER DATABASE, among the last.
/// Pure.
fn items(name: &str, facts: &DatabaseFacts) -> Vec<Item> {
    let database = identifier(name);
    let mut items = Vec::new();
    let mut add = |what: String, sql: String| items.push(Item { what, sql });
    // The owner of an adopted set's database is not known.
    if !facts.owner.is_empty() {
        add(format!("owner {}", facts.owner), format!("ALTER DATABASE {database} OWNER TO {}", identifier(&facts.owner)));
    }
    for (what, sql) in access(&database, facts) {
        add(what, sql);
    }
    // The scratch database had its own limit.
    let limit = facts.connection_limit.unwrap_or(-1);
    add(format!("connection limit {limit}"), format!("ALTER DATABASE {database} CONNECTION LIMIT {limit}"));
    let comment = facts.comment.as_deref().map_or("NULL".to_owned(), literal);
    add("comment".to_owned(), format!("COMMENT ON DATABASE {database} IS {comment}"));
    for label in &facts.security_labels {
        let (provider, text) = (identifier(&label.provider), literal(&label.label));
        add(
            format!("security label of {}", label.provider),
            format!("SECURITY LABEL FOR {provider} ON DATABASE {database} IS {text}"),
        );
    }
    for setting in &facts.settings {
        if let Some((name, value)) = setting.split_once('=') {
            add(format!("setting {name}"), format!("ALTER DATABASE {database} SET {}", assignment(name, value)));
        }
    }
    for settings in &facts.role_settings {
        for setting in &settings.settings {
            if let Some((name, value)) = setting.split_once('=') {
                let role = identifier(&settings.role);
                add(
                    format!("setting {name} of role {}", settings.role),
                    format!("ALTER ROLE {role} IN DATABASE {database} SET {}", assignment(name, value)),
                );
            }
        }
    }
    if facts.is_template {
        add("is_template".to_owned(), format!("ALTER DATABASE {database} IS_TEMPLATE true"));
    }
    items
}

/// The statements for the access list. The default privileges of PUBLIC and of the owner are removed first, as they may have been revoked.
/// If nothing was ever granted, PUBLIC has its defaults, which the scratch database lacks.
fn access(database: &str, facts: &DatabaseFacts) -> Vec<(String, String)> {
    let old_manifest = || -> Option<Vec<Privilege>> {
        let grants = facts.grants.as_ref()?.iter();
        let parsed = grants.filter_map(|grant| {
            let (privilege, grantee) = grant.split_once(' ')?;
            let grantee = (!grantee.is_empty()).then(|| grantee.to_owned());
            Some(Privilege { privilege: privilege.to_owned(), grantee, grantor: None, grantable: false })
        });
        Some(parsed.collect())
    };
    let Some(privileges) = facts.privileges.clone().or_else(old_manifest) else {
        return vec![(
            "CONNECT and TEMPORARY of PUBLIC".to_owned(),
            format!("GRANT CONNECT, TEMPORARY ON DATABASE {database} TO PUBLIC"),
        )];
    };
    let owner = identifier(&facts.owner);
    let mut statements = vec![
        ("privileges of PUBLIC".to_owned(), format!("REVOKE ALL ON DATABASE {database} FROM PUBLIC")),
        (format!("privileges of the owner {}", facts.owner), format!("REVOKE ALL ON DATABASE {database} FROM {owner}")),
    ];
    for Privilege { privilege, grantee, grantor, grantable } in privileges {
        // The manifest may be forged by anyone with access to the store: no other word becomes SQL.
        if !matches!(privilege.as_str(), "CONNECT" | "CREATE" | "TEMPORARY") {
            continue;
        }
        let to = grantee.as_deref().map_or("PUBLIC".to_owned(), identifier);
        let option = if grantable { " WITH GRANT OPTION" } else { "" };
        let grant = format!("GRANT {privilege} ON DATABASE {database} TO {to}{option}");
        // Both are in one message, and so in one transaction: the role is set for the grant alone.
        let sql = match grantor.filter(|grantor| *grantor != facts.owner) {
            Some(grantor) => format!("SET LOCAL ROLE {}; {grant}", identifier(&grantor)),
            None => grant,
        };
        statements.push((format!("{privilege} of {}", grantee.as_deref().unwrap_or("PUBLIC")), sql));
    }
    statements
}

/// `name = value` for SET. In a list of names each element is a literal of its own, or `a, b` would become one name.
fn assignment(name: &str, value: &str) -> String {
    let value = if LISTS_OF_NAMES.contains(&name.to_ascii_lowercase().as_str()) {
        let names = names_of_list(value);
        if names.is_empty() { "''".to_owned() } else { names.iter().map(|name| literal(name)).collect::<Vec<_>>().join(", ") }
    } else {
        literal(value)
    };
    format!("{} = {value}", identifier(name))
}

/// The elements of `app, "we ird", public`, without their quotes.
fn names_of_list(list: &str) -> Vec<String> {
    let mut names = Vec::new();
    let mut name = String::new();
    let (mut quoted, mut seen) = (false, false);
    let mut characters = list.chars().peekable();
    while let Some(character) = characters.next() {
        match character {
            '"' if quoted && characters.peek() == Some(&'"') => {
                characters.next();
                name.push('"');
            }
            '"' => {
                quoted = !quoted;
                seen = true;
            }
            ',' if !quoted => {
                names.push(std::mem::take(&mut name));
                seen = false;
            }
            space if space.is_ascii_whitespace() && !quoted => {}
            other => {
                name.push(other);
                seen = true;
            }
        }
    }
    if seen {
        names.push(name);
    }
    names
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::task::backup::facts::RoleSettings;

    #[test]
    fn values_and_lists_of_names_are_written_as_they_were_set() {
        for (name, value, expected) in [
            ("work_mem", "7MB", "\"work_mem\" = E'7MB'"),
            ("my.setting", "it's \\ x", "\"my.setting\" = E'it''s \\\\ x'"),
            ("search_path", "app, \"we ird\", \"$user\"", "\"search_path\" = E'app', E'we ird', E'$user'"),
            ("search_path", "\"a, \"\"b\"", "\"search_path\" = E'a, \"b'"),
            ("search_path", "\"\"", "\"search_path\" = E''"),
            ("temp_tablespaces", "", "\"temp_tablespaces\" = ''"),
            ("DateStyle", "ISO, DMY", "\"DateStyle\" = E'ISO, DMY'"),
            ("log_line_prefix", "a, b", "\"log_line_prefix\" = E'a, b'"),
        ] {
            assert_eq!(assignment(name, value), expected);
        }
    }

    #[test]
    fn owner_and_access_come_first_and_settings_after_them() {
        let facts = DatabaseFacts {
            owner: "o".into(),
            settings: vec!["default_transaction_read_only=on".into(), "work_mem=7MB".into()],
            role_settings: vec![RoleSettings { role: "app".into(), settings: vec!["search_path=tenant1".into()] }],
            privileges: Some(vec![
                Privilege { privilege: "CONNECT".into(), grantee: Some("a".into()), grantor: Some("o".into()), grantable: true },
                Privilege { privilege: "CONNECT".into(), grantee: None, grantor: Some("a".into()), grantable: false },
                Privilege { privilege: "ALL; DROP".into(), grantee: None, grantor: None, grantable: false },
            ]),
            connection_limit: Some(7),
            is_template: true,
            comment: Some("c".into()),
            ..DatabaseFacts::default()
        };
        let sql: Vec<String> = items("d", &facts).into_iter().map(|item| item.sql).collect();
        assert_eq!(
            sql,
            [
                "ALTER DATABASE \"d\" OWNER TO \"o\"",
                "REVOKE ALL ON DATABASE \"d\" FROM PUBLIC",
                "REVOKE ALL ON DATABASE \"d\" FROM \"o\"",
                "GRANT CONNECT ON DATABASE \"d\" TO \"a\" WITH GRANT OPTION",
                "SET LOCAL ROLE \"a\"; GRANT CONNECT ON DATABASE \"d\" TO PUBLIC",
                "ALTER DATABASE \"d\" CONNECTION LIMIT 7",
                "COMMENT ON DATABASE \"d\" IS E'c'",
                "ALTER DATABASE \"d\" SET \"default_transaction_read_only\" = E'on'",
                "ALTER DATABASE \"d\" SET \"work_mem\" = E'7MB'",
                "ALTER ROLE \"app\" IN DATABASE \"d\" SET \"search_path\" = E'tenant1'",
                "ALTER DATABASE \"d\" IS_TEMPLATE true",
            ]
        );
    }

    #[test]
    fn a_manifest_of_the_first_release_still_says_who_may_connect() {
        let facts = DatabaseFacts { owner: "o".into(), grants: Some(vec!["CONNECT ".into()]), ..DatabaseFacts::default() };
        let sql: Vec<String> = items("d", &facts).into_iter().map(|item| item.sql).collect();
        assert!(sql.contains(&"GRANT CONNECT ON DATABASE \"d\" TO PUBLIC".to_owned()), "{sql:?}");
        assert!(sql.contains(&"ALTER DATABASE \"d\" CONNECTION LIMIT -1".to_owned()), "{sql:?}");
        assert!(!sql.iter().any(|sql| sql.contains("SET LOCAL")), "{sql:?}");
    }
}
