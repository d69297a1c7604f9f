//! Whom a restore would give the rights of a superuser, or of all owners: with other owners than in the source, what a role wrote runs as another one.

use std::collections::BTreeMap;

use anyhow::Result;
use sqlx::postgres::PgConnection;

use super::choices::Choices;
use super::facts::ServerFacts;
use super::set::Set;
use crate::base::fault::{Fault, Kind};
use crate::pg::identifier;
use crate::work::membership::{self, Role};

/// Refuses to make a role with rights over others the owner of what other roles of the source wrote: a superuser of the target, a member of one, a role that
/// reaches the server's host, or all rows, or that is a member of any role that the other is not ([`membership::Role::gain`]). Functions that are SECURITY DEFINER, views, and rules run with the rights of their owner,
/// whoever uses them: an ordinary owner in the source would get these rights here.
pub async fn refuse(connection: &mut PgConnection, source: &ServerFacts, choices: &Choices) -> Result<()> {
    let changes_owners = choices.no_owner || !choices.role_map.is_empty();
    if choices.trust_owners || !changes_owners {
        return Ok(());
    }
    let me: String = sqlx::query_scalar("SELECT current_user::pg_catalog.text").fetch_one(&mut *connection).await?;
    let changes = changes(&source.roles, &me, choices);
    let names: Vec<String> = changes.iter().flat_map(|(old, new)| [(*old).to_owned(), (*new).to_owned()]).collect();
    let found = membership::roles(connection, &names).await?;
    let found: BTreeMap<&str, &Role> = found.iter().map(|role| (role.name.as_str(), role)).collect();
    let gains = decide(&changes, |old, new| found.get(new)?.gain(old, found.get(old).copied()));
    if gains.is_empty() {
        return Ok(());
    }
    let message = format!(
        "a role with rights over others would become the owner of what other roles wrote: {}; their SECURITY DEFINER functions, views and \
         rules would run with those rights. Restore as a role without them, map them to ordinary roles (--role-map OLD=NEW), or accept it: \
         --trust-owners",
        gains.join(", ")
    );
    Err(Fault::new(Kind::Permission, message).into())
}

/// Refuses to restore an adopted set as a role with rights over others: nobody knows who wrote what is in it, and its CHECKs, expressions of indexes and
/// functions run as the role that restores. A role without such rights restores it, with a warning.
pub async fn refuse_adopted(connection: &mut PgConnection, set: &Set, trusts: bool) -> Result<()> {
    if !set.is_adopted() {
        return Ok(());
    }
    let me: String = sqlx::query_scalar("SELECT current_user::pg_catalog.text").fetch_one(&mut *connection).await?;
    let login: String = sqlx::query_scalar("SELECT session_user::pg_catalog.text").fetch_one(&mut *connection).await?;
    let found = membership::roles(connection, &[me.clone(), login]).await?;
    let power = found.iter().find_map(|role| Some(format!("{}, which {}", identifier(&role.name), role.power()?)));
    let what = format!(
        "{} was adopted, and nobody knows who wrote what is in it: its CHECKs, expressions of indexes and functions",
        set.name
    );
    match power {
        Some(power) if !trusts => {
            let message = format!(
                "{what} would run as {power}. Restore it as a role without rights over others, on a server that holds nothing else, or accept it: --trust-owners"
            );
            Err(Fault::new(Kind::Permission, message).into())
        }
        Some(power) => {
            tracing::warn!("{what} run as {power}");
            Ok(())
        }
        None => {
            tracing::warn!("{what} run as {}", identifier(&me));
            Ok(())
        }
    }
}

/// Returns the roles of the source, each with who would own what is theirs. A role that keeps its name gains nothing by the options. Pure.
fn changes<'a>(roles: &'a [String], me: &'a str, choices: &'a Choices) -> Vec<(&'a str, &'a str)> {
    let new_owner = |role: &'a String| if choices.no_owner { me } else { choices.role(role) };
    roles.iter().map(|role| (role.as_str(), new_owner(role))).filter(|(old, new)| old != new).collect()
}

/// Returns in words who would gain what; `gains`: what gives the second role of the target rights that the first lacks. Pure.
fn decide(changes: &[(&str, &str)], gains: impl Fn(&str, &str) -> Option<String>) -> Vec<String> {
    let gain = |(old, new): &(&str, &str)| Some(format!("{old} (to {new}, which {})", gains(old, new)?));
    changes.iter().filter_map(gain).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_role_with_power_that_takes_over_what_others_wrote_is_refused() {
        let roles = ["app".to_owned(), "postgres".to_owned(), "root".to_owned()];
        let powers: BTreeMap<String, String> =
            ["postgres", "root"].map(|name| (name.to_owned(), "is a superuser".to_owned())).into();
        let no_owner = Choices { no_owner: true, ..Choices::default() };
        let map = |pairs: &[(&str, &str)]| {
            let role_map = pairs.iter().map(|(old, new)| ((*old).to_owned(), (*new).to_owned())).collect();
            Choices { role_map, ..Choices::default() }
        };
        for (me, choices, expected) in [
            (
                "postgres",
                no_owner.clone(),
                vec!["app (to postgres, which is a superuser)", "root (to postgres, which is a superuser)"],
            ),
            ("restorer", no_owner, vec![]),
            ("postgres", map(&[("app", "postgres")]), vec!["app (to postgres, which is a superuser)"]),
            ("restorer", map(&[("app", "postgres")]), vec!["app (to postgres, which is a superuser)"]),
            ("postgres", map(&[("app", "staging"), ("root", "staging")]), vec![]),
            ("postgres", map(&[("other", "postgres")]), vec![]),
        ] {
            assert_eq!(decide(&changes(&roles, me, &choices), |_, new| powers.get(new).cloned()), expected, "{me}, {choices:?}");
        }
    }
}
