//! A restore in a throwaway server: the role that restores owns the database and is not a superuser. A superuser creates the extensions
//! beforehand, and runs the statements that only a superuser may run (`by_superuser`), none of which executes code of the dump.

use anyhow::{Context as _, Result};
use sqlx::postgres::PgConnection;

use super::amcheck;
use super::choices::Choices;
use super::facts::DatabaseFacts;
use super::keys::Check;
use super::manifest::Manifest;
use super::new_database;
use super::scratch::create_scratch;
use super::set::Set;
use crate::pg::throwaway::{Role, Server};
use crate::pg::{self, identifier};

const DATABASE: &str = "pgtend_proof";

/// The parts of a dump that are not restored there. These owners must be superusers, and no role of the dump is one there.
pub const NOT_TRIED: [&str; 3] = ["owners of event triggers", "owners of foreign-data wrappers", "subscriptions"];

/// A database to restore into.
pub struct Prepared {
    pub settings: pg::Settings,
    /// The same database as its superuser.
    pub superuser: pg::Settings,
    pub choices: Choices,
    /// The version of the server.
    pub version: String,
}

/// The names of the dump's roles, which no role of ours may have.
pub fn role_names(manifest: &Manifest) -> Vec<String> {
    let mut names = manifest.server.roles.clone();
    names.extend(manifest.server.database.roles());
    names
}

/// Creates the dump's roles, without login and rights, the role that restores, its database and the extensions.
pub async fn prepare(server: &Server, set: &Set, checks: &[Check]) -> Result<Prepared> {
    let manifest = &set.manifest;
    let extensions = if manifest.filters.schemas.is_empty() { manifest.server.extensions.clone() } else { Vec::new() };
    let choices = Choices::for_own_server(extensions);
    let role = server.make_role(&role_names(manifest)).await?;
    let mut connection = server.as_superuser("postgres")?.connect().await?;
    let version = pg::Server::of(&mut connection).await?;
    new_database::prepare_server(&mut connection, set, &choices, true, Some(&manifest.server.database)).await?;
    let like = DatabaseFacts { tablespace: None, ..manifest.server.database.clone() };
    create_scratch(&mut connection, DATABASE, &like).await?;
    // Only a server with other users needs what `create_scratch` does to keep out all but superusers.
    let database = identifier(DATABASE);
    pg::execute(&mut connection, format!("ALTER DATABASE {database} OWNER TO {}", identifier(&role.name))).await?;
    pg::execute(&mut connection, format!("ALTER DATABASE {database} CONNECTION LIMIT -1")).await?;
    let superuser = server.as_superuser(DATABASE)?;
    let mut inside = superuser.connect().await?;
    make_extensions(&mut inside, &role, &choices).await?;
    if checks.contains(&Check::Amcheck) {
        amcheck::prepare(&mut inside, &role.name).await?;
    }
    give_what_is_the_owners(&mut inside, &role, version.major()).await?;
    Ok(Prepared { settings: server.as_role(&role, DATABASE)?, superuser, choices, version: version.version })
}

async fn make_extensions(connection: &mut PgConnection, role: &Role, choices: &Choices) -> Result<()> {
    let mut waiting: Vec<_> = choices.made_before.iter().filter(|extension| extension.name != "plpgsql").collect();
    for extension in &waiting {
        // The dump's own CREATE SCHEMA is skipped: the schema belongs to the role, like everything else of the dump.
        if let Some(schema) = extension.schema.as_ref().filter(|schema| !schema.starts_with("pg_")) {
            let sql = format!("CREATE SCHEMA IF NOT EXISTS {} AUTHORIZATION {}", identifier(schema), identifier(&role.name));
            pg::execute(connection, sql).await.with_context(|| format!("cannot create the schema {schema}"))?;
        }
    }
    // One may need another: those that were refused are tried again after the others.
    while !waiting.is_empty() {
        let mut refused = Vec::new();
        let mut reason = None;
        for extension in &waiting {
            let schema =
                extension.schema.as_ref().map(|schema| format!(" WITH SCHEMA {}", identifier(schema))).unwrap_or_default();
            let sql = format!("CREATE EXTENSION IF NOT EXISTS {}{schema}", identifier(&extension.name));
            if let Err(error) = pg::execute(connection, sql).await {
                reason.get_or_insert(error.context(format!("cannot create the extension {}", extension.name)));
                refused.push(*extension);
            }
        }
        match reason {
            Some(reason) if refused.len() == waiting.len() => return Err(reason),
            _ => waiting = refused,
        }
    }
    Ok(())
}

/// Grants what the owner of the source's objects has: access to the tables of extensions whose rows are dumped, to schemas and wrappers
/// that extensions created, and before PostgreSQL 15 ownership of the schema public.
async fn give_what_is_the_owners(connection: &mut PgConnection, role: &Role, major: u32) -> Result<()> {
    let mut statements: Vec<String> = sqlx::query_scalar(
        "SELECT pg_catalog.format('GRANT ALL ON %s %s TO %I', CASE c.relkind WHEN 'S' THEN 'SEQUENCE' ELSE 'TABLE' END,
                                  c.oid::pg_catalog.regclass, $1::pg_catalog.text)
         FROM pg_catalog.pg_extension e, pg_catalog.unnest(e.extconfig) config (oid)
         JOIN pg_catalog.pg_class c ON c.oid = config.oid
         UNION ALL
         SELECT pg_catalog.format('GRANT USAGE, CREATE ON SCHEMA %I TO %I', n.nspname, $1::pg_catalog.text)
         FROM pg_catalog.pg_depend d JOIN pg_catalog.pg_namespace n ON n.oid = d.objid
         WHERE d.classid = 'pg_catalog.pg_namespace'::pg_catalog.regclass AND d.deptype = 'e'
         UNION ALL
         SELECT pg_catalog.format('GRANT USAGE ON FOREIGN DATA WRAPPER %I TO %I', fdwname, $1::pg_catalog.text)
         FROM pg_catalog.pg_foreign_data_wrapper",
    )
    .bind(&role.name)
    .fetch_all(&mut *connection)
    .await?;
    if major < 15 {
        statements.push(format!("ALTER SCHEMA public OWNER TO {}", identifier(&role.name)));
    }
    for sql in statements {
        pg::execute(connection, sql).await.context("cannot give the restoring role the privileges of an owner")?;
    }
    Ok(())
}
