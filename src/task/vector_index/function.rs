//! The function by which applications search an index on bits: it finds rows by their bits, and orders them by the vectors themselves.

use anyhow::Result;
use serde::Serialize;
use sqlx::PgConnection;

use super::kind::Method;
use super::state::{Table, refused};
use crate::live::indexes::names;
use crate::pg::{literal, qualified};

/// Rows that are found by bits before it is measured how many are needed. Of 20,391 chunks of text and 700 questions, the ten nearest were among the
/// nearest 200 by bits to 0.969.
pub const CANDIDATES: u32 = 200;
/// The first words of its comment, by which pgtend knows it.
const MARK: &str = "pgtend: ";

/// The function as it was installed.
#[derive(Clone, Debug, Serialize)]
pub struct Installed {
    pub name: String,
    /// Rows that it finds by bits.
    pub candidates: u32,
    /// Milliseconds of a search by it.
    pub ms: f64,
    /// The statement for applications.
    pub statement: String,
}

/// `"public"."pgtend_search_items"`, which takes a vector and a number of rows.
pub struct Function {
    /// Quoted, with its schema.
    pub name: String,
    /// The type of its first argument: `"public".vector`.
    vector: String,
    schema: String,
    unquoted: String,
}

impl Function {
    pub fn of(table: &Table) -> Self {
        let schema = table.facts.schema.clone();
        let unquoted = names::fitting(&format!("pgtend_search_{}", table.facts.name));
        let typed = table.searched.column_type.as_str();
        let vector = typed.rsplit_once('(').map_or(typed, |(vector, _)| vector).to_owned();
        Self { name: qualified(&schema, &unquoted), vector, schema, unquoted }
    }

    /// Returns the statement that makes it. `candidates`: so many rows are found by bits.
    pub fn definition(&self, table: &Table, candidates: u32) -> String {
        let searched = &table.searched;
        let query = format!("$1::{}", searched.column_type);
        let predicate = searched.predicate.as_ref().map(|predicate| format!(" WHERE ({predicate})")).unwrap_or_default();
        let body = format!(
            "SELECT r.* FROM (SELECT t.* FROM {relation} t{predicate} ORDER BY {order} LIMIT {candidates}) r ORDER BY r.{column} {operator} {query} LIMIT $2",
            relation = searched.relation,
            order = searched.order("t.", &query),
            column = searched.column,
            operator = searched.operator,
        );
        format!(
            "CREATE OR REPLACE FUNCTION {} (query {}, k pg_catalog.int4) RETURNS SETOF {} LANGUAGE sql STABLE PARALLEL RESTRICTED ROWS 10
             SET search_path = pg_catalog, pg_temp SET {} = {candidates} AS {}",
            self.name,
            self.vector,
            searched.relation,
            Method::Hnsw.setting(),
            literal(&body)
        )
    }

    /// Returns it as in COMMENT ON FUNCTION.
    pub fn signature(&self) -> String {
        format!("{} ({}, pg_catalog.int4)", self.name, self.vector)
    }

    pub fn comment(&self, index: &str, candidates: u32) -> String {
        let text =
            format!("{MARK}finds {candidates} rows by the bits of index {index}, and orders them by the vectors themselves");
        format!("COMMENT ON FUNCTION {} IS {}", self.signature(), literal(&text))
    }

    /// Returns the statement for applications.
    pub fn statement(&self, k: u32) -> String {
        format!("SELECT * FROM {}($1, {k})", self.name)
    }

    /// Returns the distances that it finds for each of some vectors, as SQL.
    pub fn distances(&self, table: &Table, k: u32) -> String {
        let searched = &table.searched;
        format!(
            "WITH q AS MATERIALIZED (SELECT n, v::{column_type} AS v FROM unnest($1::text[]) WITH ORDINALITY u(v, n))
             SELECT ARRAY(SELECT (f.{column} {operator} q.v)::float8 FROM {name}(q.v, {k}) f) FROM q ORDER BY n",
            column_type = searched.column_type,
            column = searched.column,
            operator = searched.operator,
            name = self.name,
        )
    }

    /// Returns the number of candidates of the function that is there. Refuses one that pgtend did not make, or that belongs to a role that neither owns
    /// the table nor may do everything: what it does is theirs to change, and applications call it.
    pub async fn candidates(&self, connection: &mut PgConnection, table: &Table) -> Result<Option<u32>> {
        let found: Option<(Option<String>, bool, Option<Vec<String>>)> = sqlx::query_as(
            "SELECT obj_description(p.oid, 'pg_proc'), o.rolsuper OR o.rolname = current_user OR p.proowner = c.relowner, p.proconfig
             FROM pg_proc p JOIN pg_namespace n ON n.oid = p.pronamespace JOIN pg_roles o ON o.oid = p.proowner JOIN pg_class c ON c.oid = $4::bigint::oid
             WHERE n.nspname = $1 AND p.proname = $2 AND p.pronargs = 2 AND p.proargtypes[0] = to_regtype($3) AND p.proargtypes[1] = 'int4'::regtype",
        )
        .bind(&self.schema)
        .bind(&self.unquoted)
        .bind(&self.vector)
        .bind(table.facts.oid)
        .fetch_optional(connection)
        .await?;
        let Some((comment, is_trusted, settings)) = found else { return Ok(None) };
        let is_ours = comment.is_some_and(|comment| comment.starts_with(MARK));
        if !is_ours || !is_trusted {
            let why = if is_ours { "belongs to a role that does not own the table" } else { "is not pgtend's" };
            return Err(refused(format!("there is a function {} already, and it {why}: rename or drop it", self.signature())));
        }
        let value = |setting: &String| setting.strip_prefix(Method::Hnsw.setting())?.strip_prefix('=')?.parse().ok();
        Ok(settings.unwrap_or_default().iter().find_map(value))
    }
}
