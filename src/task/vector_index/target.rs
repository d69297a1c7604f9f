//! What is searched, and the statements that search it: pure.

use super::kind::ValueType;

/// The relation and column to search, as SQL.
#[derive(Clone, Debug)]
pub struct SearchTarget {
    /// Quoted.
    pub relation: String,
    /// The column, quoted: distances are those of its values.
    pub column: String,
    /// The row's identity: `ctid`, or the column of a copy that holds the original one.
    pub tid: &'static str,
    pub value: ValueType,
    /// Bytes of a value of the column, and of one in the index.
    pub value_bytes: u64,
    pub index_bytes: u64,
    /// The column's type: `"public".vector(1536)`.
    pub column_type: String,
    /// What stands around the column in the indexed expression: `(` and `::"public".halfvec(3000))`.
    pub around: [String; 2],
    /// What stands around a query vector that is compared with it.
    pub around_query: [String; 2],
    /// `OPERATOR("public".<=>)`
    pub operator: String,
    /// The index orders by another operator, on bits: what it finds is ordered by the vectors themselves.
    pub reranks: Option<String>,
    /// For cosine: the operator that recognizes a zero vector.
    pub inner_product: Option<String>,
    /// The predicate of a partial index.
    pub predicate: Option<String>,
    /// A statement that fails if the names above mean something else than pgvector's by now.
    pub proof: String,
}

impl SearchTarget {
    /// Returns the SQL condition that the vector is not a zero vector, where that matters.
    pub fn is_nonzero(&self, alias: &str) -> Option<String> {
        let operator = self.inner_product.as_ref()?;
        Some(format!("({alias}.{column} {operator} {alias}.{column}) <> 0", column = self.column))
    }

    /// Distances that differ by less than a millionth of this are equal: a cosine distance is one minus a number near one, others are as
    /// small as their vectors.
    pub fn unit(&self) -> f64 {
        if self.inner_product.is_some() { 1.0 } else { 0.0 }
    }

    /// Returns the condition that a row is indexed.
    pub fn rows_that_count(&self) -> String {
        let mut conditions = vec![format!("t.{} IS NOT NULL", self.column)];
        conditions.extend(self.predicate.as_ref().map(|predicate| format!("({predicate})")));
        conditions.join(" AND ")
    }

    /// Returns the indexed expression. `alias`: `t.`, or nothing.
    pub fn key(&self, alias: &str) -> String {
        let [before, after] = &self.around;
        format!("{before}{alias}{}{after}", self.column)
    }

    /// Returns what the index orders by. `alias`: `t.`; `vector`: SQL of a query vector.
    pub fn order(&self, alias: &str, vector: &str) -> String {
        let [before, after] = &self.around_query;
        format!("{} {} {before}{vector}{after}", self.key(alias), self.reranks.as_ref().unwrap_or(&self.operator))
    }

    /// Returns what is searched in a copy, with columns `tid` and `v`, the latter of `column_type`. `is_around`: the index on it has the same expression.
    pub fn copied(&self, relation: &str, is_around: bool) -> Self {
        Self {
            relation: relation.to_owned(),
            column: "v".to_owned(),
            tid: "tid",
            around: if is_around { self.around.clone() } else { Default::default() },
            predicate: None,
            ..self.clone()
        }
    }

    /// Returns the search of all rows, for each of some vectors with the rows that they were made from, or NULL.
    pub fn exact_statement(&self, k: u32) -> String {
        let found = format!(
            "SELECT t.{tid} AS tid, t.{column} AS c FROM {relation} t WHERE {rows} AND (q.tid IS NULL OR t.{tid} <> q.tid) ORDER BY t.{column} {operator} q.v LIMIT {k}",
            tid = self.tid,
            column = self.column,
            relation = self.relation,
            rows = self.rows_that_count(),
            operator = self.operator,
        );
        self.of_each(&found)
    }

    /// Returns the query, as an application writes it, for each of some vectors with the rows that they were made from, or NULL. `setting`: so many
    /// rows are found by bits, where they are.
    pub fn statement(&self, k: u32, setting: u32) -> String {
        let predicate = self.predicate.as_ref().map(|predicate| format!(" WHERE ({predicate})")).unwrap_or_default();
        let found = format!(
            "SELECT t.{tid} AS tid, t.{column} AS c FROM {relation} t{predicate} ORDER BY {order}",
            tid = self.tid,
            column = self.column,
            relation = self.relation,
            order = self.order("t.", "q.v"),
        );
        // The query's own row is found, too.
        let more = k + 1;
        self.of_each(&match self.reranks {
            None => format!("{found} LIMIT {more}"),
            Some(_) => {
                let operator = &self.operator;
                format!("SELECT r.tid, r.c FROM ({found} LIMIT {setting}) r ORDER BY r.c {operator} q.v LIMIT {more}")
            }
        })
    }

    fn of_each(&self, found: &str) -> String {
        format!(
            "WITH q AS MATERIALIZED (SELECT n, v::{column_type} AS v, tid::tid AS tid FROM unnest($1::text[], $2::text[]) WITH ORDINALITY u(v, tid, n))
             SELECT ARRAY(SELECT CASE WHEN q.tid IS NULL OR f.tid <> q.tid THEN (f.c {operator} q.v)::float8 END FROM ({found}) f) FROM q ORDER BY n",
            column_type = self.column_type,
            operator = self.operator,
        )
    }

    /// Returns one search with a condition, as an application writes it: the distances that it finds, NULL for the row that the query was made
    /// from. All but `condition` is quoted.
    pub fn filtered_statement(&self, vector: &str, own: Option<&str>, condition: &str, k: u32, exactly: bool) -> String {
        let Self { tid, column, relation, operator, column_type, .. } = self;
        let predicate = match exactly {
            true => self.rows_that_count(),
            false => self.predicate.as_ref().map_or_else(|| "true".to_owned(), |predicate| format!("({predicate})")),
        };
        // An application does not leave its own row out: a row more is asked for.
        let (without_own, limit) = match own {
            Some(own) if exactly => (format!(" AND t.{tid} <> {own}::tid"), k),
            Some(_) => (String::new(), k + 1),
            None => (String::new(), k),
        };
        let vector = format!("{vector}::{column_type}");
        let distance = format!("(t.{column} {operator} {vector})::float8");
        let distance = match own {
            Some(own) if !exactly => format!("CASE WHEN t.{tid} <> {own}::tid THEN {distance} END"),
            _ => distance,
        };
        let order = match exactly {
            true => format!("t.{column} {operator} {vector}"),
            false => self.order("t.", &vector),
        };
        format!(
            "SELECT {distance} FROM {relation} t WHERE {predicate} AND ({condition}){without_own} ORDER BY {order} LIMIT {limit}"
        )
    }
}
