//! `checks = ["amcheck"]`: heaps and B-tree indexes of a copy in a server of its own.

use anyhow::{Context as _, Result};
use sqlx::postgres::PgConnection;

use super::refusal::Refusal;
use crate::base::fault::Kind;
use crate::pg::{self, failure, identifier};

const EXTENSION: &str = "amcheck";

/// At most this many findings are named.
const NAMED: usize = 10;

/// The tables and indexes that were checked, and the findings, each with its object.
#[derive(Debug, Default)]
pub struct Checked {
    pub tables: usize,
    pub indexes: usize,
    pub findings: Vec<String>,
}

impl Checked {
    pub fn refusal(&self) -> Option<Refusal> {
        if self.findings.is_empty() {
            return None;
        }
        let named = self.findings.iter().take(NAMED).cloned().collect::<Vec<_>>().join("; ");
        let more = self.findings.len().saturating_sub(NAMED);
        let more = if more == 0 { String::new() } else { format!("; and {more} more") };
        Some(Refusal {
            in_store: Some("amcheck finds damage in the restored copy".to_owned()),
            message: format!("amcheck finds damage in the restored copy: {named}{more}"),
            ..Refusal::default()
        })
    }
}

/// Creates the extension, in a schema that no dump has, and lets `role` call it. `superuser` is connected to the database, in which no code of the
/// dump has run yet: the extension may also be there as one of the dump's.
pub async fn prepare(superuser: &mut PgConnection, role: &str) -> Result<()> {
    let is_there: bool = sqlx::query_scalar("SELECT EXISTS (SELECT FROM pg_catalog.pg_extension WHERE extname = $1)")
        .bind(EXTENSION)
        .fetch_one(&mut *superuser)
        .await?;
    if !is_there {
        let schema = identifier(&format!("pgtend_{}", uuid::Uuid::new_v4().simple()));
        pg::execute(superuser, format!("CREATE SCHEMA {schema}")).await?;
        let create = format!("CREATE EXTENSION {} WITH SCHEMA {schema}", identifier(EXTENSION));
        pg::execute(superuser, create).await.context("cannot create the extension amcheck in the server of its own")?;
    }
    let grants: Vec<String> = sqlx::query_scalar(
        "SELECT pg_catalog.format('GRANT EXECUTE ON FUNCTION %s TO %I', p.oid::pg_catalog.regprocedure, $2)
         FROM pg_catalog.pg_extension e
         JOIN pg_catalog.pg_depend d ON d.refclassid = 'pg_catalog.pg_extension'::pg_catalog.regclass AND d.refobjid = e.oid AND d.deptype = 'e'
         JOIN pg_catalog.pg_proc p ON d.classid = 'pg_catalog.pg_proc'::pg_catalog.regclass AND p.oid = d.objid
         WHERE e.extname = $1
         UNION ALL
         SELECT pg_catalog.format('GRANT USAGE ON SCHEMA %I TO %I', n.nspname, $2)
         FROM pg_catalog.pg_extension e JOIN pg_catalog.pg_namespace n ON n.oid = e.extnamespace WHERE e.extname = $1",
    )
    .bind(EXTENSION)
    .bind(role)
    .fetch_all(&mut *superuser)
    .await?;
    for grant in grants {
        pg::execute(superuser, grant).await.context("cannot let the restoring role call amcheck")?;
    }
    Ok(())
}

/// Checks all tables and B-tree indexes as the role that restored them: comparisons and expressions of indexes call code of the dump.
pub async fn run(settings: &pg::Settings) -> Result<Checked> {
    let mut connection = settings.connect().await.context("cannot connect to the restored copy for amcheck")?;
    let schema: String = sqlx::query_scalar(
        "SELECT pg_catalog.quote_ident(n.nspname) FROM pg_catalog.pg_extension e JOIN pg_catalog.pg_namespace n ON n.oid = e.extnamespace
         WHERE e.extname = $1",
    )
    .bind(EXTENSION)
    .fetch_one(&mut connection)
    .await
    .context("amcheck is not there")?;
    // Sequences and TOAST tables are checked with their tables, or hold nothing to compare.
    let relations: Vec<(i64, String, bool)> = sqlx::query_as(
        "SELECT c.oid::pg_catalog.int8, pg_catalog.format('%I.%I', n.nspname, c.relname), c.relkind = 'i'
         FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
         LEFT JOIN pg_catalog.pg_am am ON am.oid = c.relam
         LEFT JOIN pg_catalog.pg_index i ON i.indexrelid = c.oid
         WHERE c.relpersistence <> 't' AND n.nspname <> 'information_schema' AND n.nspname NOT LIKE 'pg\\_%'
           AND (c.relkind IN ('r', 'm') AND am.amname = 'heap' OR c.relkind = 'i' AND am.amname = 'btree' AND i.indisvalid)
         ORDER BY 3, 2",
    )
    .fetch_all(&mut connection)
    .await?;
    let mut checked = Checked::default();
    for (oid, name, is_index) in relations {
        let finding = match is_index {
            true => {
                checked.indexes += 1;
                let sql =
                    format!("SELECT 'checked' FROM {schema}.bt_index_check({oid}::pg_catalog.oid::pg_catalog.regclass, true)");
                pg::fetch_text(&mut connection, sql).await.map(|_| None)
            }
            false => {
                checked.tables += 1;
                // All arguments, each of its type: a function of the dump with fewer ones would be preferred.
                let sql = format!(
                    "SELECT pg_catalog.format('block %s, line pointer %s: %s', blkno, offnum, msg)
                     FROM {schema}.verify_heapam({oid}::pg_catalog.oid::pg_catalog.regclass, false, true, 'none'::pg_catalog.text, NULL::bigint, NULL::bigint) LIMIT 1"
                );
                pg::fetch_text(&mut connection, sql).await
            }
        };
        match finding {
            Ok(None) => {}
            Ok(Some(finding)) => checked.findings.push(format!("{name}: {finding}")),
            Err(error) if failure::kind_of(&error) == Some(Kind::Unreachable) => return Err(error),
            Err(error) => checked.findings.push(format!("{name}: {}", failure::in_a_line(&error))),
        }
    }
    Ok(checked)
}
