//! Whom a restore would give the rights of a superuser: with other owners than in the source, what a role wrote runs as another one.

use anyhow::Result;
use sqlx::postgres::PgConnection;

use super::choices::Choices;
use super::facts::ServerFacts;
use crate::base::fault::{Fault, Kind};

/// Refuses to make a superuser of the target the owner of what other roles of the source wrote. Functions that are SECURITY DEFINER, views, and
/// rules run with the rights of their owner, whoever uses them: an ordinary owner in the source would become a superuser here.
pub async fn refuse(connection: &mut PgConnection, source: &ServerFacts, choices: &Choices) -> Result<()> {
    let changes_owners = choices.no_owner || !choices.role_map.is_empty();
    if choices.trust_owners || !changes_owners {
        return Ok(());
    }
    let me: String = sqlx::query_scalar("SELECT current_user::pg_catalog.text").fetch_one(&mut *connection).await?;
    let superusers: Vec<String> = sqlx::query_scalar("SELECT rolname::pg_catalog.text FROM pg_catalog.pg_roles WHERE rolsuper")
        .fetch_all(connection)
        .await?;
    let gains = decide(&source.roles, &me, &superusers, choices);
    if gains.is_empty() {
        return Ok(());
    }
    let gains: Vec<String> = gains.iter().map(|(old, new)| format!("{old} (to {new})")).collect();
    let message = format!(
        "a superuser would become the owner of what other roles wrote: {}; their SECURITY DEFINER functions, views and rules would run with the rights of a \
         superuser. Restore as a role that is none, map them to ordinary roles (--role-map OLD=NEW), or accept it: --trust-owners",
        gains.join(", ")
    );
    Err(Fault::new(Kind::Permission, message).into())
}

/// Returns the roles of the source and the superusers who would own what is theirs. A role that keeps its name gains nothing by the options. Pure.
fn decide<'a>(roles: &'a [String], me: &'a str, superusers: &[String], choices: &'a Choices) -> Vec<(&'a str, &'a str)> {
    let new_owner = |role: &'a String| if choices.no_owner { me } else { choices.role(role) };
    let pairs = roles.iter().map(|role| (role.as_str(), new_owner(role)));
    pairs.filter(|(old, new)| old != new && superusers.iter().any(|superuser| superuser == new)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_superuser_who_takes_over_what_others_wrote_is_refused() {
        let roles = ["app".to_owned(), "postgres".to_owned(), "root".to_owned()];
        let superusers = ["postgres".to_owned(), "root".to_owned()];
        let no_owner = Choices { no_owner: true, ..Choices::default() };
        let map = |pairs: &[(&str, &str)]| {
            let role_map = pairs.iter().map(|(old, new)| ((*old).to_owned(), (*new).to_owned())).collect();
            Choices { role_map, ..Choices::default() }
        };
        for (me, choices, expected) in [
            ("postgres", no_owner.clone(), vec![("app", "postgres"), ("root", "postgres")]),
            ("restorer", no_owner, vec![]),
            ("postgres", map(&[("app", "postgres")]), vec![("app", "postgres")]),
            ("restorer", map(&[("app", "postgres")]), vec![("app", "postgres")]),
            ("postgres", map(&[("app", "staging"), ("root", "staging")]), vec![]),
            ("postgres", map(&[("other", "postgres")]), vec![]),
        ] {
            assert_eq!(decide(&roles, me, &superusers, &choices), expected, "{me}, {choices:?}");
        }
    }
}
