//! What a dump says of objects that are no part of a table or a schema: default privileges of a schema come along with it, and what else is about objects of
//! the part is left out, and said.

use std::collections::BTreeSet;
use std::sync::Arc;

use anyhow::Result;
use sqlx::postgres::PgConnection;

use super::definitions::OfObject;
use super::names::Name;
use super::statements::Statements;
use super::subject::{self, Class, Object};
use crate::task::backup::choices::Choices;
use crate::task::backup::script::Entry;
use crate::task::backup::shown::shown;
use crate::task::backup::tokens::Statement;
use crate::task::backup::{own_bytes, rewrite};

/// At most so many notes are written.
const NOTED: usize = 20;

/// What comes along, and what is left out.
#[derive(Debug, Default)]
pub struct Others {
    pub statements: Statements,
    pub notes: Vec<String>,
}

/// `made`: the objects of the part.
pub async fn of_part(
    connection: &mut PgConnection,
    others: &[OfObject],
    made: &BTreeSet<Object>,
    choices: &Choices,
) -> Result<Others> {
    let mut found = Others::default();
    let entry = Arc::new(Entry { kind: "DEFAULT ACL".to_owned(), ..Entry::default() });
    for statements in others {
        let texts: Vec<String> = statements.iter().map(|statement| own_bytes::text(statement.clone())).collect();
        let of_schema =
            |text: &String| schema_of_default_privileges(text).is_some_and(|schema| made.contains(&Object::schema(&schema)));
        if texts.iter().all(of_schema) {
            for (statement, text) in statements.iter().zip(&texts) {
                match missing_role(connection, text, choices).await? {
                    None => found.statements.push((statement.clone(), Arc::clone(&entry))),
                    Some(role) => found
                        .notes
                        .push(format!("left out, as there is no role {role}, or this login is no member of it: {}", shown(text))),
                }
            }
        } else if let Some(text) = texts.first().filter(|text| is_about(text, made)) {
            found.notes.push(format!("left out: {}", shown(text)));
        }
    }
    if found.notes.len() > NOTED {
        found.notes.truncate(NOTED);
        found.notes.push("and more of the kind".to_owned());
    }
    Ok(found)
}

/// The one schema of `ALTER DEFAULT PRIVILEGES FOR ROLE app IN SCHEMA s GRANT …`, as pg_dump writes it.
fn schema_of_default_privileges(text: &str) -> Option<String> {
    let statement = Statement::whole(text);
    let is_it = statement.spells(0, &["ALTER", "DEFAULT", "PRIVILEGES", "FOR", "ROLE"])
        && statement.spells(6, &["IN", "SCHEMA"])
        && (statement.spells(9, &["GRANT"]) || statement.spells(9, &["REVOKE"]));
    if is_it && !statement.is_cut { statement.name(8) } else { None }
}

/// The first role in it that is not there; of the one that it is for, this login has to be a member.
async fn missing_role(connection: &mut PgConnection, text: &str, choices: &Choices) -> Result<Option<String>> {
    let here = |role: String| choices.role(&role).to_owned();
    let roles: Vec<String> = rewrite::role_names(text).into_iter().map(here).collect();
    let of_others = Statement::of(text).name(5).map(here);
    let missing = sqlx::query_scalar(
        "SELECT name FROM unnest($1::text[]) name WHERE NOT EXISTS (
             SELECT FROM pg_roles r WHERE r.rolname = name AND (name IS DISTINCT FROM $2::text OR pg_has_role(r.oid, 'USAGE'))) LIMIT 1",
    );
    Ok(missing.bind(roles).bind(of_others).fetch_optional(connection).await?)
}

/// Returns whether a statement makes something about objects of the part, like a cast of its types, or in its schema.
fn is_about(text: &str, made: &BTreeSet<Object>) -> bool {
    let statement = Statement::whole(text);
    let makes = |name: &Name| {
        let classes = [Class::Relation, Class::Type, Class::Routine, Class::Operator, Class::Other];
        classes.into_iter().any(|class| made.contains(&Object { class, name: name.clone() }))
    };
    let in_schema = |name: &Name| made.contains(&Object::schema(&name.schema));
    let conversion = statement.find(&["CONVERSION"]).filter(|at| *at <= 2).and_then(|at| statement.qualified(at + 1));
    let conversion = conversion.and_then(|(schema, name, _)| Some(Name::new(schema?, name)));
    let names = subject::mentions(&statement).into_iter().map(|mention| mention.name).chain(conversion);
    statement.says(0, &["CREATE"]) && names.into_iter().any(|name| makes(&name) || in_schema(&name))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn default_privileges_are_those_of_one_schema() {
        for (text, schema) in [
            ("ALTER DEFAULT PRIVILEGES FOR ROLE \"a b\" IN SCHEMA \"S\" GRANT SELECT ON TABLES TO PUBLIC", Some("S")),
            ("ALTER DEFAULT PRIVILEGES FOR ROLE a IN SCHEMA s REVOKE ALL ON TABLES FROM a", Some("s")),
            ("ALTER DEFAULT PRIVILEGES FOR ROLE a IN SCHEMA s, public GRANT SELECT ON TABLES TO PUBLIC", None),
            ("ALTER DEFAULT PRIVILEGES FOR ROLE a, b IN SCHEMA s GRANT SELECT ON TABLES TO PUBLIC", None),
            ("ALTER DEFAULT PRIVILEGES FOR ROLE a GRANT SELECT ON TABLES TO PUBLIC", None),
            ("GRANT SELECT ON ALL TABLES IN SCHEMA s TO a", None),
        ] {
            assert_eq!(schema_of_default_privileges(text).as_deref(), schema, "{text}");
        }
    }
}
