//! Indexes that share a setting, and that the planner would leave at a higher value of it: it expects each search to cost more then, and beyond some
//! value to read the whole table for less. Asked of the planner itself, which only explains the searches.

use anyhow::Result;
use serde_json::Value;
use sqlx::{PgConnection, Row as _};

use super::explained::node_with_index;
use super::kind::Method;
use super::setting::some_of;
use crate::pg::{self, identifier, qualified};
use crate::task::bound::Kind as Text;
use crate::task::{foreign_code, remade};

/// Indexes that are asked about; more share a setting only where each of many partitions has one.
const ASKED: i64 = 500;

const EXTENSION: &str = "vector";

/// A search by an index of another table or column, as SQL has it.
#[derive(sqlx::FromRow)]
struct Search {
    table_oid: i64,
    index_oid: i64,
    /// It is on an expression, or on some rows only.
    has_text: bool,
    schema: String,
    table: String,
    index: String,
    /// What the index orders by, and the operator.
    key: String,
    operator_schema: String,
    operator: String,
    predicate: Option<String>,
}

/// Returns the other indexes that the planner uses at the setting `from`, and would not use at `to`, each with its table. `k`: the rows that a search asks for;
/// `table`: of the job, whose other partitions are its own affair; `but`: indexes to ignore. Only tables count whose owner the login obeys anyway, as in
/// [`super::setting::of_others`], and which it may read. Planning a search computes what is constant in all expressions of its table, as the login: a table is left out
/// where that may be code of somebody whose code the job's own table does not run already. pgvector has to be loaded.
pub async fn find(
    connection: &mut PgConnection,
    method: Method,
    (from, to): (u32, u32),
    k: u32,
    table: i64,
    but: [Option<i64>; 2],
) -> Result<Vec<String>> {
    let mut left = Vec::new();
    if to <= from {
        return Ok(left);
    }
    for search in searches(connection, method, table, but).await? {
        if search.is_by_index(connection, method, from, k).await? && !search.is_by_index(connection, method, to, k).await? {
            left.push(format!("{} of {}", identifier(&search.index), qualified(&search.schema, &search.table)));
        }
    }
    pg::execute(connection, format!("RESET {}", method.setting())).await?;
    Ok(left)
}

/// Says why the setting stays as it is.
pub fn in_words(left: &[String], method: Method, setting: u32) -> String {
    let name = method.setting();
    format!(
        "{name} = {setting} is not set: the planner would leave {} and read the whole table for each search; set it for the role that searches this table \
         (apply_setting = \"role:NAME\"), or in the application",
        some_of(left)
    )
}

async fn searches(connection: &mut PgConnection, method: Method, table: i64, but: [Option<i64>; 2]) -> Result<Vec<Search>> {
    let found: Vec<Search> = sqlx::query_as(
        "SELECT c.oid::bigint AS table_oid, x.oid::bigint AS index_oid, num_nonnulls(i.indexprs, i.indpred) > 0 AS has_text, n.nspname::text AS schema, c.relname::text AS table, x.relname::text AS index, pg_get_indexdef(x.oid, 1, false) AS key,
                pg_get_expr(i.indpred, i.indrelid) AS predicate, o.oprname::text AS operator, s.nspname::text AS operator_schema
         FROM pg_class x JOIN pg_am am ON am.oid = x.relam JOIN pg_index i ON i.indexrelid = x.oid JOIN pg_roles r ON r.oid = x.relowner
           JOIN pg_class c ON c.oid = i.indrelid JOIN pg_namespace n ON n.oid = c.relnamespace JOIN pg_opclass opc ON opc.oid = i.indclass[0]
           JOIN pg_amop amop ON amop.amopfamily = opc.opcfamily AND amop.amoppurpose = 'o' AND amop.amoplefttype = opc.opcintype
           JOIN pg_operator o ON o.oid = amop.amopopr JOIN pg_namespace s ON s.oid = o.oprnamespace
         WHERE am.amname = $1 AND x.relkind = 'i' AND x.relpersistence <> 't' AND i.indisvalid AND x.oid::bigint <> ALL (array_remove($2::bigint[], NULL))
           AND (i.indrelid::bigint <> $3 AND pg_partition_root(i.indrelid) = pg_partition_root($3::bigint::oid)) IS NOT TRUE
           AND has_table_privilege(c.oid, 'SELECT') AND has_schema_privilege(n.oid, 'USAGE')
           AND (r.rolsuper OR x.relowner IN ((SELECT oid FROM pg_roles WHERE rolname = current_user), (SELECT datdba FROM pg_database WHERE datname = current_database()),
                                             (SELECT relowner FROM pg_class WHERE oid = $3::bigint::oid)))
         ORDER BY x.oid LIMIT $4",
    )
    .bind(method.name())
    .bind(but.to_vec())
    .bind(table)
    .bind(ASKED)
    .fetch_all(&mut *connection)
    .await?;
    let runs_already = match found.is_empty() {
        true => foreign_code::Queried::default(),
        false => foreign_code::queried(connection, table, EXTENSION).await?,
    };
    let mut searches: Vec<Search> = Vec::new();
    for search in found {
        let of_others = foreign_code::queried(connection, search.table_oid, EXTENSION).await?;
        // Nothing is known of a table that would run code of others, nor of a search whose text they could give another meaning.
        if of_others.is_within(&runs_already) && search.means_the_same(connection).await? {
            searches.push(search);
        }
    }
    Ok(searches)
}

impl Search {
    async fn means_the_same(&self, connection: &mut PgConnection) -> Result<bool> {
        let of_others = match self.has_text {
            true => remade::that_run_code(connection, self.table_oid, &[self.index_oid], &[Text::Index]).await?,
            false => Vec::new(),
        };
        Ok(of_others.is_empty())
    }

    async fn is_by_index(&self, connection: &mut PgConnection, method: Method, setting: u32, k: u32) -> Result<bool> {
        pg::set(connection, method.setting(), &setting.to_string()).await?;
        let row = match pg::query(self.explained(k)).fetch_one(connection).await.map_err(pg::in_its_own_words) {
            Ok(row) => row,
            // As with row security, which the login may not pass over: nothing is known of such a search.
            Err(error) if pg::sql_state(&error).is_some() => return Ok(false),
            Err(error) => return Err(error),
        };
        let plan: Value = row.try_get(0)?;
        Ok(node_with_index(&plan[0]["Plan"], &self.index).is_some())
    }

    /// Costs do not depend on the vector that is searched for: one of the table stands for all, and nothing reads it.
    fn explained(&self, k: u32) -> String {
        let Self { key, predicate, .. } = self;
        let table = qualified(&self.schema, &self.table);
        let operator = format!("OPERATOR({}.{})", identifier(&self.operator_schema), self.operator);
        let rows = predicate.as_ref().map(|predicate| format!(" WHERE ({predicate})")).unwrap_or_default();
        format!(
            "EXPLAIN (FORMAT JSON) SELECT 1 FROM {table}{rows} ORDER BY {key} {operator} (SELECT {key} FROM {table} WHERE {key} IS NOT NULL LIMIT 1) LIMIT {k}"
        )
    }
}
