//! What the role of a refresh must be allowed to do on the target's server.

use anyhow::Result;
use sqlx::postgres::PgConnection;

use super::keys::Refresh;
use crate::base::fault::{Fault, Kind};
use crate::pg::{Server, identifier};

/// Fails with what the role lacks, and how to give it: to create a database, and to act as the owner of the target.
pub async fn ensure(connection: &mut PgConnection, target: &str, keys: &Refresh) -> Result<()> {
    // Since 16, membership has a separate right to SET ROLE, which ALTER DATABASE … OWNER TO needs.
    let membership = if Server::of(connection).await?.major() >= 16 { "SET" } else { "MEMBER" };
    let (role, creates, owner, owns): (String, bool, String, bool) = sqlx::query_as(
        "SELECT r.rolname::pg_catalog.text, r.rolsuper OR r.rolcreatedb, pg_catalog.pg_get_userbyid(d.datdba)::pg_catalog.text,
                pg_catalog.pg_has_role(d.datdba, 'USAGE') AND pg_catalog.pg_has_role(d.datdba, $1)
         FROM pg_catalog.pg_roles r, pg_catalog.pg_database d
         WHERE r.rolname = current_user AND d.datname = $2",
    )
    .bind(membership)
    .bind(target)
    .fetch_one(&mut *connection)
    .await?;
    let mut lacks = Vec::new();
    if !creates {
        lacks.push(format!("it may not create databases: ALTER ROLE {} CREATEDB", identifier(&role)));
    }
    if keys.swap && !owns {
        let (owner, member) = (identifier(&owner), identifier(&role));
        lacks.push(format!("it may not act as the owner of {target}: GRANT {owner} TO {member}"));
    }
    if keys.swap && owns {
        lacks.extend(of_properties(connection, target, &role).await?);
    }
    if lacks.is_empty() {
        return Ok(());
    }
    Err(Fault::new(Kind::Permission, format!("{role} may not do that: {}", lacks.join("; "))).into())
}

/// What the role may not give to the new database of what the target has: settings and grants that others have made. Returns sentences.
async fn of_properties(connection: &mut PgConnection, target: &str, role: &str) -> Result<Vec<String>> {
    let major = Server::of(connection).await?.major();
    let (database, member) = (identifier(target), identifier(role));
    let mut lacks = Vec::new();
    for setting in settings_of_superusers(connection, target, major).await? {
        lacks.push(format!(
            "it may not set {setting}, which {target} has: {}ALTER DATABASE {database} RESET {}, with the settings of roles in it",
            if major >= 15 { format!("GRANT SET ON PARAMETER {} TO {member}, or ", identifier(&setting)) } else { String::new() },
            identifier(&setting)
        ));
    }
    let roles: Vec<String> = sqlx::query_scalar(
        "SELECT DISTINCT r.rolname::pg_catalog.text
         FROM pg_catalog.pg_db_role_setting s JOIN pg_catalog.pg_database d ON d.oid = s.setdatabase
              JOIN pg_catalog.pg_roles r ON r.oid = s.setrole JOIN pg_catalog.pg_roles me ON me.rolname = current_user
         WHERE d.datname = $1 AND NOT me.rolsuper AND r.oid <> me.oid
           AND (r.rolsuper OR NOT me.rolcreaterole OR $2 AND NOT pg_catalog.pg_has_role(r.oid, 'MEMBER WITH ADMIN OPTION'))
         ORDER BY 1",
    )
    .bind(target)
    .bind(major >= 16)
    .fetch_all(&mut *connection)
    .await?;
    for other in roles {
        let with_admin =
            if major >= 16 { format!("; GRANT {} TO {member} WITH ADMIN OPTION", identifier(&other)) } else { String::new() };
        lacks.push(format!(
            "it may not set what {other} has in {target}: ALTER ROLE {member} CREATEROLE{with_admin}, or ALTER ROLE {} IN DATABASE {database} RESET ALL",
            identifier(&other)
        ));
    }
    // As in `ensure`: SET LOCAL ROLE comes before such a grant.
    let membership = if major >= 16 { "SET" } else { "MEMBER" };
    let grantors: Vec<String> = sqlx::query_scalar(
        "SELECT DISTINCT pg_catalog.pg_get_userbyid(a.grantor)::pg_catalog.text
         FROM pg_catalog.pg_database d, pg_catalog.aclexplode(d.datacl) a
         WHERE d.datname = $1 AND a.grantor <> d.datdba AND NOT pg_catalog.pg_has_role(a.grantor, $2)
         ORDER BY 1",
    )
    .bind(target)
    .bind(membership)
    .fetch_all(connection)
    .await?;
    for grantor in grantors {
        lacks.push(format!(
            "it may not grant what {grantor} has granted on {target}: GRANT {} TO {member}, or let the owner grant it",
            identifier(&grantor)
        ));
    }
    Ok(lacks)
}

/// The settings of the database, and of roles in it, that this role may not set. One that no session knows only a superuser sets (guc.c,
/// validate_option_array_item); three that everyone may set are not in pg_settings.
async fn settings_of_superusers(connection: &mut PgConnection, target: &str, major: u32) -> Result<Vec<String>> {
    let settings: Vec<String> = sqlx::query_scalar(
        "SELECT DISTINCT n.name
         FROM pg_catalog.pg_db_role_setting s JOIN pg_catalog.pg_database d ON d.oid = s.setdatabase
              CROSS JOIN LATERAL pg_catalog.unnest(s.setconfig) setting
              CROSS JOIN LATERAL (SELECT pg_catalog.split_part(setting, '=', 1) AS name) n
              LEFT JOIN pg_catalog.pg_settings p ON pg_catalog.lower(p.name) = pg_catalog.lower(n.name)
         WHERE d.datname = $1 AND (p.name IS NULL OR p.context <> 'user')
           AND pg_catalog.lower(n.name) NOT IN ('role', 'seed', 'session_authorization')
           AND NOT (SELECT me.rolsuper FROM pg_catalog.pg_roles me WHERE me.rolname = current_user)
         ORDER BY 1",
    )
    .bind(target)
    .fetch_all(&mut *connection)
    .await?;
    if major < 15 || settings.is_empty() {
        return Ok(settings);
    }
    let may_not = sqlx::query_scalar(
        "SELECT name FROM pg_catalog.unnest($1::pg_catalog.text[]) name WHERE NOT pg_catalog.has_parameter_privilege(name, 'SET') ORDER BY 1",
    );
    Ok(may_not.bind(settings).fetch_all(connection).await?)
}

/// Fails if there are roles to create, and this role may not.
pub async fn ensure_creates_roles(connection: &mut PgConnection, roles: &[String]) -> Result<()> {
    let (role, creates): (String, bool) = sqlx::query_as(
        "SELECT rolname::pg_catalog.text, rolsuper OR rolcreaterole FROM pg_catalog.pg_roles WHERE rolname = current_user",
    )
    .fetch_one(connection)
    .await?;
    if creates || roles.is_empty() {
        return Ok(());
    }
    let message = format!(
        "{role} may not create the roles that the server lacks: {}. ALTER ROLE {} CREATEROLE, or create them",
        roles.join(", "),
        identifier(&role)
    );
    Err(Fault::new(Kind::Permission, message).into())
}
