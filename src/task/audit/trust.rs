//! Owners whose code a query of the audit's own would run with rights that they lack: it names a table, and the owner of the table, of its
//! schema, of a function in an index may put code there.
//!
//! A session with a superuser's rights reads no such table. Another one reads it, and says so, unless the job does not trust owners.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::Result;
use sqlx::PgConnection;

use crate::pg;

/// This many tables or owners are named; the rest are only counted.
const NAMED: usize = 3;
const STRANGERS: &str = concat!(
    "WITH RECURSIVE ",
    include_str!("../rights.sql"),
    // Roles that own nothing and count all the same: none.
    ", holders AS (SELECT NULL::oid AS oid WHERE false) ",
    "SELECT l.oid::bigint AS oid, pg_catalog.quote_ident(r.rolname) AS name FROM lesser l JOIN pg_catalog.pg_roles r ON r.oid = l.oid ORDER BY 2"
);

/// Names are quoted as in SQL.
#[derive(Debug, sqlx::FromRow)]
struct Login {
    name: String,
    power: Option<String>,
    is_a_superusers: bool,
    is_its_own: bool,
}

#[derive(Debug, sqlx::FromRow)]
struct ForeignObject {
    oid: i64,
    name: String,
}

/// The nearest object by which a query runs code that is not trusted.
#[derive(Clone, Debug, sqlx::FromRow)]
pub struct Code {
    object: String,
    owner: String,
    is_foreign: bool,
}

/// The rights of the session's login, and the roles that lack them.
#[derive(Debug)]
pub struct Trust {
    login: Login,
    strangers: Vec<ForeignObject>,
    trust_owners: bool,
    /// Owners whose code may have run in a query.
    lent: BTreeSet<String>,
}

impl Trust {
    pub async fn of(connection: &mut PgConnection, trust_owners: bool) -> Result<Self> {
        let login = sqlx::query_as(include_str!("login.sql")).fetch_one(&mut *connection).await.map_err(pg::in_its_own_words)?;
        let strangers = sqlx::query_as(STRANGERS).fetch_all(&mut *connection).await.map_err(pg::in_its_own_words)?;
        Ok(Self { login, strangers, trust_owners, lent: BTreeSet::new() })
    }

    /// Returns the code for which the relation, a table or a view, must not be read. Where it is read although its owner lacks rights of
    /// the login, that is noted.
    pub async fn refused(&mut self, connection: &mut PgConnection, relation: i64) -> Result<Option<Code>> {
        if self.login.power.is_none() && self.strangers.is_empty() {
            return Ok(None);
        }
        let strangers: Vec<i64> = self.strangers.iter().map(|stranger| stranger.oid).collect();
        let code: Option<Code> = sqlx::query_as(include_str!("code.sql"))
            .bind(relation)
            .bind(strangers)
            .fetch_optional(connection)
            .await
            .map_err(pg::in_its_own_words)?;
        if self.login.power.is_some() || !self.trust_owners {
            return Ok(code);
        }
        self.lent.extend(code.filter(|code| !code.is_foreign).map(|code| code.owner));
        Ok(None)
    }

    /// Says which relations are not read: a sentence for each owner, not for each relation.
    pub fn reasons(&self, refused: &[(String, Code)]) -> Vec<String> {
        let mut by_owner: BTreeMap<(bool, &str), Vec<&(String, Code)>> = BTreeMap::new();
        for one in refused {
            by_owner.entry((one.1.is_foreign, &one.1.owner)).or_default().push(one);
        }
        by_owner.into_values().map(|of_owner| self.reason(&of_owner)).collect()
    }

    fn reason(&self, refused: &[&(String, Code)]) -> String {
        let names: BTreeSet<&str> = refused.iter().map(|(name, _)| name.as_str()).collect();
        let are = if names.len() == 1 { "is" } else { "are" };
        let Code { object, owner, is_foreign } = &refused[0].1;
        let why = match is_foreign {
            true => format!("{object} is a foreign table, and code that its server reaches could run"),
            false => format!("{object} belongs to {owner}, whose code would run"),
        };
        let cure = match self.login.power {
            Some(_) => "give the audit another login (pgtend grants)",
            None => "trust_owners = false refuses that",
        };
        format!("{} {are} not read: {why} {}: {cure}", listed(names.into_iter()), self.as_whom("the owner lacks"))
    }

    fn as_whom(&self, lacking: &str) -> String {
        let Login { name, power, is_a_superusers, is_its_own } = &self.login;
        match power {
            Some(_) if *is_its_own => format!("as the superuser {name}"),
            Some(power) if *is_a_superusers => format!("as {name}, which can become the superuser {power}"),
            Some(power) => format!("as {name}, a member of {power}"),
            None => format!("as {name}, with rights that {lacking}"),
        }
    }

    /// Returns the warning of an audit that has read tables whose owners lack rights of its login.
    pub fn note(&self) -> Option<String> {
        (!self.lent.is_empty()).then(|| self.lends(self.lent.iter().map(String::as_str)))
    }

    /// Returns the warning before an audit.
    pub fn warning(&self) -> Option<String> {
        let owners = self.strangers.iter().map(|stranger| stranger.name.as_str());
        match (&self.login.power, self.trust_owners) {
            _ if self.strangers.is_empty() => None,
            (Some(_), _) => Some(format!(
                "the audit does not read tables in which code of {} would run {}: give it another login (pgtend grants)",
                listed(owners),
                self.as_whom("they lack")
            )),
            (None, true) => Some(self.lends(owners)),
            (None, false) => None,
        }
    }

    fn lends<'a>(&self, owners: impl Iterator<Item = &'a str>) -> String {
        format!(
            "code of {} may run {}, when the audit reads their tables (expressions of indexes): [limits] trust_owners = false leaves those out",
            listed(owners),
            self.as_whom("they lack")
        )
    }
}

/// Returns "a, b, c and 2 more".
fn listed<'a>(names: impl Iterator<Item = &'a str>) -> String {
    let names: Vec<&str> = names.collect();
    let named = names.iter().take(NAMED).copied().collect::<Vec<_>>().join(", ");
    match names.len().saturating_sub(NAMED) {
        0 => named,
        more => format!("{named} and {more} more"),
    }
}
