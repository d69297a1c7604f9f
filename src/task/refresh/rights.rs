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
    .fetch_one(connection)
    .await?;
    let mut lacks = Vec::new();
    if !creates {
        lacks.push(format!("it may not create databases: ALTER ROLE {} CREATEDB", identifier(&role)));
    }
    if keys.swap && !owns {
        let (owner, member) = (identifier(&owner), identifier(&role));
        lacks.push(format!("it may not act as the owner of {target}: GRANT {owner} TO {member}"));
    }
    if lacks.is_empty() {
        return Ok(());
    }
    Err(Fault::new(Kind::Permission, format!("{role} may not do that: {}", lacks.join("; "))).into())
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
