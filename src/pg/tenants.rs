//! The schemas of a database that hold what its users made: which there are, and which of them this role could not back up.

use std::time::Duration;

use anyhow::{Context as _, Result};

use super::Settings;
use super::databases::Listed;
use crate::base::fault::{Fault, Kind};

/// A catalog of 100,000 schemas is read in less than a second; a server that takes longer does not answer.
const PATIENCE: Duration = Duration::from_secs(5);

/// A database with more is no database of tenants that dumps one after another would reach in a night.
const MOST: i64 = 100_000;

/// The schema of the ledger. Another one of that name is left out by name: a ledger may come to this database.
const LEDGER: &str = "pgtend";

/// Asks the database for its schemas: not the system's, not those of extensions, and not the ledger's. An error is no list: it says nothing about any schema.
pub async fn list(settings: &Settings) -> Result<Listed> {
    let asking = async {
        let mut connection = settings.connect().await?;
        // As bytes: a database of encoding SQL_ASCII has names that are text in none.
        let rows: Vec<(Vec<u8>, bool)> = sqlx::query_as(
            "SELECT CASE WHEN pg_catalog.getdatabaseencoding() OPERATOR(pg_catalog.=) 'SQL_ASCII'
                         THEN pg_catalog.decode(pg_catalog.replace(n.nspname::pg_catalog.text, '\\', '\\\\'), 'escape')
                         ELSE pg_catalog.convert_to(n.nspname::pg_catalog.text, 'UTF8') END,
                    pg_catalog.has_schema_privilege(n.oid, 'USAGE')
             FROM pg_catalog.pg_namespace n
             WHERE NOT pg_catalog.starts_with(n.nspname::pg_catalog.text, 'pg_')
               AND n.nspname OPERATOR(pg_catalog.<>) 'information_schema'
               AND (n.nspname OPERATOR(pg_catalog.<>) 'pgtend'
                    OR NOT EXISTS (SELECT FROM pg_catalog.pg_class c
                                   WHERE c.relnamespace OPERATOR(pg_catalog.=) n.oid AND c.relname OPERATOR(pg_catalog.=) 'runs'))
               AND NOT EXISTS (SELECT FROM pg_catalog.pg_depend d
                               WHERE d.classid OPERATOR(pg_catalog.=) 'pg_catalog.pg_namespace'::pg_catalog.regclass
                                 AND d.objid OPERATOR(pg_catalog.=) n.oid AND d.deptype OPERATOR(pg_catalog.=) 'e')
             ORDER BY n.oid LIMIT $1",
        )
        .bind(MOST + 1)
        .fetch_all(&mut connection)
        .await
        .map_err(super::in_its_own_words)?;
        anyhow::ensure!(rows.len() as i64 <= MOST, "it has more than {MOST} schemas");
        Ok(sorted(rows))
    };
    let answered = tokio::time::timeout(PATIENCE, asking).await;
    let answered = answered
        .unwrap_or_else(|_| Err(Fault::new(Kind::Unreachable, format!("it did not answer in {} s", PATIENCE.as_secs())).into()));
    answered.with_context(|| format!("cannot ask {} for its schemas", settings.display()))
}

/// Tells those to work on from the others. Pure.
fn sorted(rows: Vec<(Vec<u8>, bool)>) -> Listed {
    let mut listed = Listed::default();
    for (bytes, may_use) in rows {
        match String::from_utf8(bytes) {
            Err(error) => listed.left_out.push((error.as_bytes().escape_ascii().to_string(), "its name is not UTF-8")),
            Ok(name) if name == LEDGER => {
                listed.left_out.push((name, "its name is that of the ledger's schema: rename it, or back up the whole database"))
            }
            Ok(name) if !may_use => listed.left_out.push((name, "the role may not use it: GRANT USAGE ON SCHEMA")),
            Ok(name) => listed.names.push(name),
        }
    }
    listed.names.sort_unstable();
    listed
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_schema_that_the_role_may_not_use_is_left_out_with_its_reason() {
        let listed = sorted(vec![
            (b"tenant_2".to_vec(), true),
            (b"secret".to_vec(), false),
            (vec![0xff], true),
            (b"pgtend".to_vec(), true),
            (b"tenant_1".to_vec(), true),
        ]);
        assert_eq!(listed.names, ["tenant_1", "tenant_2"]);
        let names: Vec<&str> = listed.left_out.iter().map(|(name, _)| name.as_str()).collect();
        assert_eq!(names, ["secret", "\\xff", "pgtend"]);
    }
}
