//! Grants memberships in owners, but never in a superuser: its members have all its rights, in the whole server.

use std::collections::BTreeSet;

use anyhow::Result;
use sqlx::PgConnection;

use crate::pg::table::with_schema;
use crate::pg::{self, identifier};

/// A role that jobs need to be a member of.
#[derive(Clone, Debug, sqlx::FromRow)]
pub struct Role {
    pub name: String,
    /// The superuser that it is, or that it is a member of: its members would have those rights, too.
    superuser: Option<String>,
    /// Predefined roles that it is a member of and that reach beyond the database.
    reaches: Vec<String>,
    /// An attribute that reaches objects of other roles (CREATEROLE and the like), in words; None without one.
    attribute: Option<String>,
}

/// The predefined role that no role can be made a member of.
const DATABASE_OWNER: &str = "pg_database_owner";

impl Role {
    /// Says why the role gets no members, if so.
    pub fn is_superuser(&self) -> Option<String> {
        let superuser = self.superuser.as_ref()?;
        Some(match *superuser == self.name {
            true => "is a superuser".to_owned(),
            false => format!("is a member of {}, which is a superuser", identifier(superuser)),
        })
    }

    /// Says what gives it the rights of a superuser, or of all owners together, if something does: it is a superuser, or a member of one; it reaches the
    /// server's host; it may make itself such a member, read or write everything, or pass over policies.
    pub fn power(&self) -> Option<String> {
        let group = || Some(format!("is a member of {}", self.groups()?));
        self.is_superuser().or_else(group).or_else(|| self.attribute.clone())
    }

    /// Returns the predefined roles that reach beyond the database, quoted; None without any.
    fn groups(&self) -> Option<String> {
        (!self.reaches.is_empty()).then(|| self.reaches.iter().map(|group| identifier(group)).collect::<Vec<_>>().join(", "))
    }
}

/// Collects the roles that the role becomes a member of, for the summary at the end.
#[derive(Default)]
pub struct Memberships(BTreeSet<String>);

impl Memberships {
    /// Grants membership in the owner of a table, and the privileges on its schema; or says why that cannot be.
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

    /// Grants membership in the owner of a table whose indexes a job creates: they belong to the owner, and are created in the table's schema.
    pub async fn in_owner_of_indexes(&mut self, connection: &mut PgConnection, table: &str, role: &str) -> Result<Vec<String>> {
        let mut lines = vec![
            "-- Only the owner may create, rename and drop a table's indexes, and they are created in its schema:".to_owned(),
        ];
        lines.extend(self.in_owner_of(connection, table, role).await?);
        Ok(lines)
    }

    /// Grants membership in every role that owns something in the database, and in the owner of the database.
    pub async fn in_all_owners(&mut self, connection: &mut PgConnection, role: &str) -> Result<Vec<String>> {
        // Nothing of extensions and of the ledger.
        let mut names: Vec<String> = sqlx::query_scalar(include_str!("owners.sql")).fetch_all(&mut *connection).await?;
        names.push(database_owner(connection).await?.name);
        let mut lines = Vec::new();
        names.retain(|name| name != DATABASE_OWNER);
        for owner in roles(connection, &names).await? {
            lines.extend(self.grant(&owner, role, "something here", "ALTER … OWNER TO, or REASSIGN OWNED"));
        }
        Ok(lines)
    }

    /// Grants membership in the owner of the database: ALTER DATABASE needs ownership, and no privilege replaces that.
    pub async fn in_database_owner(&mut self, connection: &mut PgConnection, role: &str) -> Result<Vec<String>> {
        let owner = database_owner(connection).await?;
        let remedy = "ALTER DATABASE … OWNER TO, or set apply_setting = \"role:…\"";
        Ok(self.grant(&owner, role, "the database", remedy).into_iter().collect())
    }

    fn grant(&mut self, owner: &Role, role: &str, what: &str, remedy: &str) -> Option<String> {
        let quoted = identifier(&owner.name);
        if let Some(is_superuser) = owner.is_superuser() {
            let line = format!("{quoted} owns {what} and {is_superuser}: give it to another owner first ({remedy})");
            return Some(pg::comment(&line));
        }
        if quoted == role {
            return None;
        }
        self.0.insert(quoted.clone());
        let warning = match owner.groups() {
            None => String::new(),
            Some(reaches) => {
                let line = format!(
                    "{quoted} is a member of {reaches}: {role} may then run programs on the database's host, or read and write its files, and so \
                     become a superuser. Take that from {quoted} first (REVOKE {reaches} FROM {quoted}), or give what it owns to another role"
                );
                pg::comment(&line) + "\n"
            }
        };
        Some(format!("{warning}GRANT {quoted} TO {role};"))
    }

    /// Returns the role to become a member of in the place of pg_database_owner: the database's owner, which is its only member.
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

    /// Says what the memberships amount to, for the person who is about to run the SQL.
    pub fn warning(&self, role: &str) -> Option<String> {
        let owners: Vec<&str> = self.0.iter().map(String::as_str).collect();
        let text = match owners[..] {
            [] => return None,
            [owner] => vec![format!(
                "This makes {role} a member of {owner}: it may read, change and drop everything that {owner} owns, in every database of the server."
            )],
            _ => vec![
                format!("This makes {role} a member of {} owners: {}.", owners.len(), owners.join(", ")),
                "It may read, change and drop everything that any of them owns, in every database of the server. And code that one of them wrote".to_owned(),
                "(triggers, CHECKs, index expressions) runs with the rights of all of them when a job changes the table. If they do".to_owned(),
                "not trust each other, create a role for each of them (--role NAME --database NAME), or set trust_owners = false.".to_owned(),
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

/// Returns those of the named roles that exist, each once, in order.
pub async fn roles(connection: &mut PgConnection, names: &[String]) -> Result<Vec<Role>> {
    Ok(sqlx::query_as(
        "SELECT o.rolname::text AS name,
                (SELECT s.rolname::text FROM pg_catalog.pg_roles s WHERE s.rolsuper AND pg_catalog.pg_has_role(o.oid, s.oid, 'MEMBER')
                 ORDER BY s.oid <> o.oid, s.rolname LIMIT 1) AS superuser,
                ARRAY(SELECT g.rolname::text FROM pg_catalog.pg_roles g WHERE g.rolname IN ('pg_execute_server_program', 'pg_read_server_files', 'pg_write_server_files')
                      AND pg_catalog.pg_has_role(o.oid, g.oid, 'MEMBER') ORDER BY 1) AS reaches,
                -- Before 16, CREATEROLE may grant membership in any role that is no superuser, those that reach the host among them.
                CASE WHEN o.rolcreaterole AND pg_catalog.current_setting('server_version_num')::int < 160000 THEN 'has CREATEROLE'
                     WHEN o.rolreplication THEN 'has REPLICATION'
                     WHEN o.rolbypassrls THEN 'has BYPASSRLS'
                     ELSE (SELECT 'is a member of ' || g.rolname FROM pg_catalog.pg_roles g WHERE g.rolname IN ('pg_read_all_data', 'pg_write_all_data', 'pg_maintain')
                           AND pg_catalog.pg_has_role(o.oid, g.oid, 'MEMBER') ORDER BY 1 LIMIT 1) END AS attribute
         FROM pg_catalog.pg_roles o WHERE o.rolname::text = ANY ($1) ORDER BY 1",
    )
    .bind(names)
    .fetch_all(connection)
    .await?)
}
