//! The current state: the table, its vectors, its indexes, and the leftovers of interrupted builds.

use anyhow::Result;
use serde::Serialize;
use sqlx::PgConnection;

use super::built::Built;
use super::kind::{Method, Metric, ValueType};
use super::target::SearchTarget;
use crate::base::fault::{Fault, Kind};
use crate::live::indexes::names::{self, NEW, OLD};
use crate::pg::{identifier, literal, qualified};

#[derive(Clone, Debug, Default, sqlx::FromRow)]
pub struct Facts {
    pub oid: i64,
    pub schema: String,
    pub name: String,
    pub rows: f64,
    pub pages: i64,
    pub bytes: i64,
    pub type_name: Option<String>,
    pub type_schema: Option<String>,
    pub dimensions: Option<i32>,
    pub attnum: Option<i16>,
    pub is_owner: bool,
    pub may_create: bool,
    pub may_copy: bool,
    pub may_read: bool,
    pub is_superuser: bool,
    pub row_security: bool,
    pub is_temporary: bool,
    /// A table that inherits from it and is no partition, quoted.
    pub inherited_by: Option<String>,
    pub maintenance_work_mem: i64,
    pub parallel_workers: i32,
    pub shared_memory: String,
}

/// An index whose method is one of pgvector's.
#[derive(Clone, Debug, sqlx::FromRow)]
pub struct Found {
    pub oid: i64,
    pub schema: String,
    pub name: String,
    pub method: String,
    pub operator_class: String,
    attribute: i32,
    pub expression: Option<String>,
    pub predicate: Option<String>,
    pub is_valid: bool,
    pub options: Vec<String>,
    pub bytes: i64,
    pub tablespace: Option<String>,
    pub comment: Option<String>,
    pub is_attached: bool,
    /// Numbers of the columns that its key or its predicate read.
    columns: Vec<i32>,
    /// False: its operator class has the name of one of pgvector's at most.
    pub is_by_pgvector: bool,
}

impl Found {
    pub fn sql(&self) -> String {
        qualified(&self.schema, &self.name)
    }

    pub fn option(&self, name: &str) -> Option<u32> {
        self.options.iter().filter_map(|option| option.split_once('=')).find(|(key, _)| *key == name)?.1.parse().ok()
    }

    pub fn built(&self) -> Option<Built> {
        Built::read(self.comment.as_deref()?)
    }

    /// Returns whether the column itself is indexed.
    pub fn is_on_column(&self, attnum: i16) -> bool {
        i32::from(attnum) == self.attribute && self.expression.is_none()
    }

    /// Returns whether it depends on the column, and on no other one but those of its predicate.
    pub fn depends_on(&self, attnum: i16) -> bool {
        let column = i32::from(attnum);
        self.columns.contains(&column) && (self.predicate.is_some() || self.columns.len() == 1)
    }
}

/// A table with its vectors: the whole one, or one partition.
#[derive(Clone, Debug)]
pub struct Table {
    pub facts: Facts,
    pub value: ValueType,
    pub dimensions: u32,
    /// True if the column exceeds pgvector's limit for a vector, so that the index is on `column::halfvec(n)`.
    pub by_halfvec: bool,
    /// True if the index is on a cast of the column.
    pub is_cast: bool,
    /// True if the index is on the signs of the column's values: a function finds rows by them, and orders them by the vectors.
    pub by_bits: bool,
    /// Other indexes of the column, which are left alone, with what they are on.
    pub others: Vec<(String, String)>,
    pub operator_class: String,
    pub method: Method,
    pub metric: Metric,
    /// The operator class of hnsw, where hnsw is to be compared with ivfflat and may replace it.
    pub operator_class_of_hnsw: Option<String>,
    /// Properties of the column's values.
    pub looks: ColumnSample,
    pub index: Option<Found>,
    /// The name that the index has, or will have.
    pub index_name: String,
    /// An object that already has a name which a build would use.
    pub taken: Option<String>,
    /// Other indexes that can answer the same searches.
    pub competing_indexes: Vec<String>,
    pub leftovers: Vec<Leftover>,
    pub searched: SearchTarget,
}

/// Properties of a sample of the column.
#[derive(Clone, Debug, Default, Serialize, sqlx::FromRow)]
pub struct ColumnSample {
    pub looked_at: i64,
    pub nulls: i64,
    pub without_direction: i64,
    pub distinct_values: i64,
}

/// A leftover of an interrupted build, or an index that an interrupted swap had still to drop.
#[derive(Clone, Debug, Serialize)]
pub struct Leftover {
    pub schema: String,
    pub name: String,
    pub bytes: i64,
    pub what: LeftoverKind,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum LeftoverKind {
    /// An invalid index, which is dropped.
    Broken,
    /// An index whose build finished before the run was interrupted: it is measured, then swapped in or dropped.
    Built,
    /// An index that was swapped out, which is dropped.
    Replaced,
}

impl Table {
    pub fn sql(&self) -> String {
        qualified(&self.facts.schema, &self.facts.name)
    }

    /// Returns the number of rows that the index holds: with a vector, and for cosine a vector other than zero. Estimated from the statistics and
    /// the sample.
    pub fn vectors(&self) -> f64 {
        let ColumnSample { looked_at, nulls, without_direction, .. } = self.looks;
        let indexed = (looked_at - nulls - without_direction).max(0);
        if looked_at == 0 { self.facts.rows } else { self.facts.rows * indexed as f64 / looked_at as f64 }
    }

    pub fn value_bytes(&self) -> u64 {
        let value = match (self.by_bits, self.by_halfvec) {
            (true, _) => ValueType::Bit,
            (false, true) => ValueType::Halfvec,
            (false, false) => self.value,
        };
        value.bytes(self.dimensions)
    }

    /// Returns the approximate size in bytes of an index of these vectors.
    pub fn index_bytes(&self) -> u64 {
        let per_row = match self.method {
            Method::Ivfflat => self.value_bytes() + 12,
            Method::Hnsw => self.value_bytes() + 200 + 32 * 16,
        };
        // A page holds only whole tuples.
        let per_page = (8168 / per_row.clamp(1, 8168)).max(1);
        (self.vectors() / per_page as f64).ceil() as u64 * 8192
    }

    /// Returns the names that we use beside the index: while it is built, and after it is replaced.
    pub fn new_name(&self) -> String {
        names::beside([&self.facts.schema, &self.facts.name, &self.searched.column], &self.index_name, NEW)
    }

    pub fn old_name(&self) -> String {
        names::beside([&self.facts.schema, &self.facts.name, &self.searched.column], &self.index_name, OLD)
    }

    /// Returns the number of rows that a search for `k` rows asks of the index.
    pub fn asked_of_the_index(&self, k: u32, setting: u32) -> u32 {
        if self.by_bits { setting } else { k }
    }

    /// Returns the ORDER BY expression, as an application writes it.
    pub fn order_by(&self) -> String {
        let column = &self.searched.column;
        if self.by_bits {
            let bits = |vector: &str| format!("binary_quantize({vector})::bit({})", self.dimensions);
            return format!("{} {} {}", bits(column), Metric::Hamming.operator(), bits("$1"));
        }
        if self.is_cast {
            let value = if self.by_halfvec { ValueType::Halfvec } else { self.value };
            format!("({column}::{0}({1})) {2} $1::{0}({1})", value.name(), self.dimensions, self.metric.operator())
        } else {
            format!("{column} {} $1", self.metric.operator())
        }
    }
}

pub fn refused(message: String) -> anyhow::Error {
    Fault::new(Kind::Configuration, message).into()
}

/// Returns whether this pgvector goes on searching until a filter leaves enough rows: since 0.8.
pub async fn has_iterative_scan(connection: &mut PgConnection) -> Result<bool> {
    let sql = "SELECT EXISTS (SELECT FROM pg_settings WHERE name = 'hnsw.iterative_scan')";
    Ok(sqlx::query_scalar(sql).fetch_one(connection).await?)
}

/// Returns the schema of pgvector.
pub async fn pgvector(connection: &mut PgConnection) -> Result<String> {
    let found: Option<String> = sqlx::query_scalar(
        "SELECT n.nspname::text FROM pg_extension e JOIN pg_namespace n ON n.oid = e.extnamespace WHERE e.extname = 'vector'",
    )
    .fetch_optional(connection)
    .await?;
    found.ok_or_else(|| refused("the database has no pgvector: CREATE EXTENSION vector".to_owned()))
}

/// Returns a statement that fails where pgvector is not in this schema any more. Operators, types and operator classes go by the schema's name, and its
/// owner may rename it and put operators of their own into another one of that name. It belongs directly before each statement that names them:
/// PostgreSQL has no lock on the name of a schema.
pub fn proof(schema: &str) -> String {
    let of = literal(schema);
    let message =
        literal(&format!("pgvector is not in the schema {} any more: nothing more is searched or built", identifier(schema)));
    let body = format!(
        "BEGIN IF NOT EXISTS (
           SELECT FROM pg_catalog.pg_extension e JOIN pg_catalog.pg_namespace n ON n.oid OPERATOR(pg_catalog.=) e.extnamespace
             JOIN pg_catalog.pg_type t ON t.typnamespace OPERATOR(pg_catalog.=) n.oid AND t.typname OPERATOR(pg_catalog.=) 'vector'::pg_catalog.name
             JOIN pg_catalog.pg_depend d ON d.classid OPERATOR(pg_catalog.=) 'pg_catalog.pg_type'::pg_catalog.regclass::pg_catalog.oid AND d.objid OPERATOR(pg_catalog.=) t.oid
              AND d.refclassid OPERATOR(pg_catalog.=) 'pg_catalog.pg_extension'::pg_catalog.regclass::pg_catalog.oid AND d.refobjid OPERATOR(pg_catalog.=) e.oid
           WHERE e.extname OPERATOR(pg_catalog.=) 'vector'::pg_catalog.name AND n.nspname OPERATOR(pg_catalog.=) {of}::pg_catalog.name
         ) THEN RAISE USING MESSAGE = {message}; END IF; END"
    );
    format!("DO {}", literal(&body))
}
