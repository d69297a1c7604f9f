//! Memberships in owners. None in a superuser: whoever is a member of one has all its rights, in the whole server.

use std::collections::BTreeSet;

use anyhow::Result;
use sqlx::PgConnection;

use crate::pg::table::with_schema;
use crate::pg::{self, identifier};
use crate::task::backup::readiness;

/// A role that jobs need to be a member of.
#[derive(Clone, Debug, sqlx::FromRow)]
pub struct Role {
    pub name: String,
    /// Itself, or a superuser that it is a member of: its members would be that, too.
    superuser: Option<String>,
    /// Groups of PostgreSQL's that it is a member of, and that lead out of the database.
    reaches: Vec<String>,
}

/// Of which nobody can be made a member.
const DATABASE_OWNER: &str = "pg_database_owner";

impl Role {
    /// Why nobody is made a member of it.
    pub fn is_superuser(&self) -> Option<String> {
        let superuser = self.superuser.as_ref()?;
        Some(match *superuser == self.name {
            true => "is a superuser".to_owned(),
            false => format!("is a member of {}, which is a superuser", identifier(superuser)),
        })
    }
}

/// Collects whom the role is made a member of, for what is said of it in the end.
#[derive(Default)]
pub struct Memberships(BTreeSet<String>);

impl Memberships {
    /// Membership in the owner of a table, and what its schema asks for; or why that cannot be.
    pub async fn in_owner_of(&mut self, connection: &mut PgConnection, table: &str, role: &str) -> Result<Vec<String>> {
        let found: Option<(String, String, String)> = sqlx::query_as(
            "SELECT pg_catalog.pg_get_userbyid(c.relowner)::text, n.nspname::text, c.relname::text
             FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace WHERE c.oid = pg_catalog.to_regclass($1)",
        )
        .bind(with_schema(table))
        .fetch_optional(&mut *connection)
        .await?;
        let Some((owner, schema, name)) = found else {
            return Ok(vec![pg::comment(&format!("there is no table {table}"))]);
        };
        let table = pg::qualified(&schema, &name);
        let (owner, mut lines) = self.in_place_of_the_group(connection, owner, &table).await?;
        for owner in roles(connection, &[owner]).await? {
            lines.extend(self.grant(&owner, role, &table, &format!("ALTER TABLE {table} OWNER TO …")));
            if owner.is_superuser().is_none() {
                lines.push(format!("GRANT USAGE, CREATE ON SCHEMA {} TO {role};", identifier(&schema)));
            }
        }
        Ok(lines)
    }

    /// In every role that owns something in the database, and in the database's own.
    pub async fn in_all_owners(&mut self, connection: &mut PgConnection, role: &str) -> Result<Vec<String>> {
        let mut names: Vec<String> = readiness::owners(connection).await?.into_iter().map(|owner| owner.name).collect();
        names.push(database_owner(connection).await?.name);
        let mut lines = Vec::new();
        names.retain(|name| name != DATABASE_OWNER);
        for owner in roles(connection, &names).await? {
            lines.extend(self.grant(&owner, role, "something here", "ALTER … OWNER TO, or REASSIGN OWNED"));
        }
        Ok(lines)
    }

    /// In the owner of the database: there is no privilege for ALTER DATABASE but to own it.
    pub async fn in_database_owner(&mut self, connection: &mut PgConnection, role: &str) -> Result<Vec<String>> {
        let owner = database_owner(connection).await?;
        let way_out = "ALTER DATABASE … OWNER TO, or say apply_setting = \"role:…\"";
        Ok(self.grant(&owner, role, "the database", way_out).into_iter().collect())
    }

    fn grant(&mut self, owner: &Role, role: &str, what: &str, way_out: &str) -> Option<String> {
        let quoted = identifier(&owner.name);
        if let Some(is_superuser) = owner.is_superuser() {
            let line = format!("{quoted} owns {what} and {is_superuser}: give that to another role first ({way_out})");
            return Some(pg::comment(&line));
        }
        if quoted == role {
            return None;
        }
        self.0.insert(quoted.clone());
        let reaches = owner.reaches.iter().map(|group| identifier(group)).collect::<Vec<_>>().join(", ");
        let warning = match reaches.is_empty() {
            true => String::new(),
            false => {
                let line = format!(
                    "{quoted} is a member of {reaches}: {role} may then run programs on the database's host, or read and write its files, and so \
                     become a superuser. Take that from {quoted} first (REVOKE {reaches} FROM {quoted}), or give what it owns to another role"
                );
                pg::comment(&line) + "\n"
            }
        };
        Some(format!("{warning}GRANT {quoted} TO {role};"))
    }

    /// What belongs to pg_database_owner is the database's owner's, its only member: nobody else can be made one.
    async fn in_place_of_the_group(
        &self,
        connection: &mut PgConnection,
        owner: String,
        table: &str,
    ) -> Result<(String, Vec<String>)> {
        if owner != DATABASE_OWNER {
            return Ok((owner, Vec::new()));
        }
        let owner = database_owner(connection).await?.name;
        let line =
            format!("{table} belongs to {DATABASE_OWNER}, whose only member is the database's owner, {}", identifier(&owner));
        Ok((owner, vec![pg::comment(&line)]))
    }

    /// What they amount to, for who is about to run the SQL.
    pub fn amount_to(&self, role: &str) -> Option<String> {
        let owners: Vec<&str> = self.0.iter().map(String::as_str).collect();
        let text = match owners[..] {
            [] => return None,
            [owner] => vec![format!(
                "{role} is a member of {owner} then: it may read, change and drop whatever {owner} owns, in every database of the server."
            )],
            _ => vec![
                format!("{role} is a member of {} owners then: {}.", owners.len(), owners.join(", ")),
                "It may read, change and drop whatever any of them owns, in every database of the server. And code that one of them wrote".to_owned(),
                "(triggers, CHECKs, expressions of indexes) runs with the rights of all of them when a job changes the table: where they do".to_owned(),
                "not trust each other, make a role for each of them (--role NAME --database NAME), or set trust_owners = false.".to_owned(),
            ],
        };
        Some(text.iter().map(|line| pg::comment(line) + "\n").collect())
    }
}

async fn database_owner(connection: &mut PgConnection) -> Result<Role> {
    let name: String = sqlx::query_scalar(
        "SELECT pg_catalog.pg_get_userbyid(datdba)::text FROM pg_catalog.pg_database WHERE datname = pg_catalog.current_database()",
    )
    .fetch_one(&mut *connection)
    .await?;
    let mut found = roles(connection, std::slice::from_ref(&name)).await?;
    found.pop().ok_or_else(|| anyhow::anyhow!("there is no role {name}"))
}

/// Those of the names that are there, once each, in order.
pub async fn roles(connection: &mut PgConnection, names: &[String]) -> Result<Vec<Role>> {
    Ok(sqlx::query_as(
        "SELECT o.rolname::text AS name,
                (SELECT s.rolname::text FROM pg_catalog.pg_roles s WHERE s.rolsuper AND pg_catalog.pg_has_role(o.oid, s.oid, 'MEMBER')
                 ORDER BY s.oid <> o.oid, s.rolname LIMIT 1) AS superuser,
                ARRAY(SELECT g.rolname::text FROM pg_catalog.pg_roles g WHERE g.rolname IN ('pg_execute_server_program', 'pg_read_server_files', 'pg_write_server_files')
                      AND pg_catalog.pg_has_role(o.oid, g.oid, 'MEMBER') ORDER BY 1) AS reaches
         FROM pg_catalog.pg_roles o WHERE o.rolname::text = ANY ($1) ORDER BY 1",
    )
    .bind(names)
    .fetch_all(connection)
    .await?)
}
