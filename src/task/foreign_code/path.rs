//! Who can shape where sessions for rows find names: triggers, defaults and conditions call the functions and operators that they find there first.

use anyhow::Result;

use super::found::ForeignCode;
use crate::pg::{self, Purpose, Settings};

const SEARCH: &str =
    concat!("WITH RECURSIVE ", include_str!("../rights.sql"), include_str!("path.sql"), include_str!("owners.sql"));

/// Returns the roles with fewer rights than the login that set the search_path of its sessions for rows, own a schema in it, or may create in one.
pub async fn search(settings: &Settings) -> Result<Vec<ForeignCode>> {
    let mut application = settings.connect_for(Purpose::Rows).await?;
    let shown = pg::fetch_text(&mut application, "SHOW search_path".to_owned()).await?.unwrap_or_default();
    let (source, user, there): (String, String, Vec<String>) = sqlx::query_as(
        "SELECT source, session_user::pg_catalog.text, pg_catalog.current_schemas(false)::pg_catalog.text[]
         FROM pg_catalog.pg_settings WHERE name OPERATOR(pg_catalog.=) 'search_path'",
    )
    .fetch_one(&mut application)
    .await?;
    drop(application);
    let names = names(&shown, &user);
    let missing: Vec<String> = names.into_iter().filter(|name| !there.contains(name) && !name.starts_with("pg_")).collect();
    // ALTER ROLE … SET, with or without IN DATABASE, and options of the connection come before ALTER DATABASE … SET.
    let is_of_login = matches!(source.as_str(), "user" | "database user" | "client" | "session");
    let mut connection = settings.connect().await?;
    sqlx::query_as(SEARCH)
        .bind(&there)
        .bind(&missing)
        .bind(!is_of_login)
        .fetch_all(&mut connection)
        .await
        .map_err(pg::in_its_own_words)
}

/// The names in a search_path as SHOW writes it.
fn names(shown: &str, user: &str) -> Vec<String> {
    let (mut names, mut is_quoted) = (vec![String::new()], false);
    let mut letters = shown.chars().peekable();
    while let Some(letter) = letters.next() {
        match (letter, names.last_mut()) {
            ('"', Some(name)) if is_quoted && letters.peek() == Some(&'"') => {
                letters.next();
                name.push('"');
            }
            ('"', _) => is_quoted = !is_quoted,
            (',', _) if !is_quoted => names.push(String::new()),
            (' ', _) if !is_quoted => {}
            (letter, Some(name)) => name.push(letter),
            (_, None) => {}
        }
    }
    names.retain(|name| !name.is_empty());
    names.iter_mut().filter(|name| *name == "$user").for_each(|name| user.clone_into(name));
    names
}

#[cfg(test)]
mod tests {
    #[test]
    fn a_search_path_is_read_as_it_is_shown() {
        let names = |shown: &str| super::names(shown, "me");
        assert_eq!(names("\"$user\", public"), ["me", "public"]);
        assert_eq!(names("\"a, \"\"b\"\"\",pg_catalog"), ["a, \"b\"", "pg_catalog"]);
        assert!(names("").is_empty() && names("\"\"").is_empty());
    }
}
