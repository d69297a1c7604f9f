//! Views and triggers of a table whose name another relation takes: they are made again from their texts, and then belong to what has the name.
//!
//! Reading a text again runs code (remade.sql says which), as the login. Anybody may make a view over a table, without any right on it, so that no owner of
//! the table need have trusted its author: `trust_owners` does not cover that, and such a text is refused whatever the job says. What was made is compared with
//! what there was by [`super::bound`].

use anyhow::Result;
use sqlx::PgConnection;

use super::bound::{self, Bound, Kind as Text};
use crate::base::fault::{Fault, Kind};
use crate::pg::{self, literal};

const SEARCH: &str =
    concat!("WITH RECURSIVE ", include_str!("rights.sql"), ", ", include_str!("texts.sql"), include_str!("remade.sql"));

/// Whether a text has a literal of another type than PostgreSQL's own, or of none, or is run: most have not, and need no search while others wait.
const IS_WORTH_IT: &str = concat!(
    "WITH ",
    include_str!("texts.sql"),
    "SELECT EXISTS (SELECT FROM texts x WHERE x.is_run) OR EXISTS (
         SELECT FROM texts x, LATERAL pg_catalog.regexp_matches(x.tree, ':consttype ([0-9]+)', 'g') AS m(found) WHERE m.found[1]::bigint = 705 OR m.found[1]::bigint >= 16384)"
);

/// The views on a relation. A view refers to its relation by oid. Recreated from its text, in which the session's empty search_path spells out all names, it
/// reads the relation that has the name now; its privileges, rules and triggers stay.
#[derive(Debug, Default)]
pub struct Views {
    /// Statements that lock the views, without changing them and without reading their texts: each view is moved to the schema that it is in. LOCK TABLE would
    /// also lock everything that the views read.
    pub locks: Vec<String>,
    /// Statements that make the views again.
    pub statements: Vec<String>,
    /// What the views, and the relation's own objects of the kinds that were asked for, are bound to.
    pub bound: Bound,
}

/// A view, with what keeps this session from making it again; or why it must not make a text again.
#[derive(sqlx::FromRow)]
struct Found {
    lock: Option<String>,
    statement: Option<String>,
    of_another_session: Option<String>,
    refused: Option<String>,
}

/// Reads the views on a relation. An error if making one of `texts` again would run code of a role with fewer rights than the login, or if a view is temporary
/// and another session's. A view's text and what it calls are read in one snapshot: a view that is changed afterwards is made again from the text that was
/// looked at. `same`: further relations that stand for it ([`bound::read`]).
pub async fn views(connection: &mut PgConnection, relation: i64, same: &[i64], texts: &[Text]) -> Result<Views> {
    let bound = bound::read(connection, relation, same, texts).await?;
    // Since 16, the number in pg_temp_3 is that of pg_stat_get_backend_pid().
    let sql = search(relation, texts)
        + "SELECT pg_catalog.format('ALTER VIEW %1$I.%2$I SET SCHEMA %1$I', v.nspname, v.relname) AS lock,
                  pg_catalog.format('CREATE OR REPLACE VIEW %I.%I%s AS %s', v.nspname, v.relname,
                      ' WITH (' || pg_catalog.array_to_string(v.reloptions, ', ') || ')', pg_catalog.rtrim(pg_catalog.pg_get_viewdef(v.oid), ';')) AS statement,
                  CASE WHEN pg_catalog.pg_is_other_temp_schema(v.relnamespace) THEN
                      pg_catalog.format('%I, a temporary view of %I, reads the table, and only the session that made it can make it again: drop it there, or end that session%s',
                          v.relname, pg_catalog.pg_get_userbyid(v.relowner),
                          CASE WHEN pg_catalog.current_setting('server_version_num')::int >= 160000 THEN
                              ' (SELECT pg_terminate_backend(' || pg_catalog.pg_stat_get_backend_pid(pg_catalog.substring(v.nspname::text, '[0-9]+$')::int) || '))' END)
                  END AS of_another_session, NULL AS refused
           FROM views v
           UNION ALL SELECT NULL, NULL, NULL, r.sentence FROM refused r ORDER BY 1, 4";
    let found: Vec<Found> = pg::fetch_all_as(connection, sql).await?;
    let all = |of: fn(&Found) -> Option<&String>| -> Vec<String> { found.iter().filter_map(of).cloned().collect() };
    for (kind, why) in
        [(Kind::Permission, all(|found| found.refused.as_ref())), (Kind::Busy, all(|found| found.of_another_session.as_ref()))]
    {
        if !why.is_empty() {
            return Err(Fault::new(kind, why.join("; ")).into());
        }
    }
    Ok(Views { locks: all(|found| found.lock.as_ref()), statements: all(|found| found.statement.as_ref()), bound })
}

/// Returns a statement that fails where making these texts again would run code of a role with fewer rights by now. It belongs behind the locks: the types that
/// a text names may have been changed since it was read.
pub fn proof(relation: i64, texts: &[Text]) -> String {
    let body = format!(
        "-- Fails if the text of a view or trigger calls code of a role with fewer rights by now.
         DECLARE said text;
         BEGIN
             IF (
{is_worth_it}) THEN
                 said := (
{search}SELECT pg_catalog.string_agg(r.sentence, '; ') FROM refused r);
                 IF said IS NOT NULL THEN RAISE EXCEPTION USING MESSAGE = said, ERRCODE = 'insufficient_privilege'; END IF;
             END IF;
         END",
        is_worth_it = of(IS_WORTH_IT, relation, texts),
        search = search(relation, texts),
    );
    format!("DO {}", literal(&body))
}

/// Returns a sentence for each of the relation's objects `of` (their oids) whose text may run code of a role with fewer rights than the login where it is part of
/// a query, or of an object whose constants are computed when it is made: another may make a function that fits better beside one that it calls.
pub async fn that_run_code(
    connection: &mut PgConnection,
    relation: i64,
    of: &[i64],
    texts: &[Text],
) -> Result<Vec<(i64, String)>> {
    let oids: Vec<String> = of.iter().map(i64::to_string).collect();
    let sql = search(relation, texts)
        + &format!(
            "SELECT r.of::bigint, r.sentence FROM refused r WHERE r.of = ANY (ARRAY[{}]::pg_catalog.oid[]) ORDER BY 1",
            oids.join(", ")
        );
    pg::fetch_all_as(connection, sql).await
}

fn search(relation: i64, texts: &[Text]) -> String {
    of(SEARCH, relation, texts)
}

fn of(sql: &str, relation: i64, texts: &[Text]) -> String {
    sql.replace("{table}", &relation.to_string()).replace("{kinds}", &bound::names(texts))
}
