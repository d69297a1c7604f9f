//! Reads the current state: the table, its vectors, its indexes, and the leftovers of interrupted builds.

use anyhow::{Context as _, Result};
use serde::Serialize;
use sqlx::PgConnection;

use super::built::Built;
use super::keys::VectorIndex;
use super::kind::{Method, Metric, ValueType};
use super::measure::{self, Searched};
use crate::base::fault::{Fault, Kind};
use crate::live::indexes::names::{self, NEW, OLD, base_of_reindex, is_beside, is_cut};
use crate::pg::{self, identifier, qualified};

/// This many rows are sampled for NULLs, zero vectors and duplicates.
const LOOK_AT: u32 = 2_000;

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
    expression: Option<String>,
    pub predicate: Option<String>,
    pub is_valid: bool,
    pub options: Vec<String>,
    pub bytes: i64,
    pub tablespace: Option<String>,
    pub comment: Option<String>,
    pub is_attached: bool,
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
}

/// A table with its vectors: the whole one, or one partition.
#[derive(Clone, Debug)]
pub struct Table {
    pub facts: Facts,
    pub value: ValueType,
    pub dimensions: u32,
    /// Whether the column exceeds pgvector's limit for a vector, so that the index is on `column::halfvec(n)`.
    pub by_halfvec: bool,
    pub operator_class: String,
    pub method: Method,
    pub metric: Metric,
    /// The operator class of hnsw, where hnsw is to be compared with ivfflat and may replace it.
    pub operator_class_of_hnsw: Option<String>,
    /// Properties of the column's values.
    pub looks: Looks,
    pub index: Option<Found>,
    /// The name that the index has, or will have.
    pub index_name: String,
    /// An object that already has a name which a build would use.
    pub taken: Option<String>,
    /// Other indexes that can answer the same searches.
    pub rivals: Vec<String>,
    pub leftovers: Vec<Leftover>,
    pub searched: Searched,
}

/// Properties of a sample of the column.
#[derive(Clone, Debug, Default, Serialize, sqlx::FromRow)]
pub struct Looks {
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
    pub what: Remains,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Remains {
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

    /// The number of rows that the index holds: with a vector, and for cosine a vector other than zero. Estimated from the statistics and
    /// the sample.
    pub fn vectors(&self) -> f64 {
        let Looks { looked_at, nulls, without_direction, .. } = self.looks;
        let indexed = (looked_at - nulls - without_direction).max(0);
        if looked_at == 0 { self.facts.rows } else { self.facts.rows * indexed as f64 / looked_at as f64 }
    }

    pub fn value_bytes(&self) -> u64 {
        let value = if self.by_halfvec { ValueType::Halfvec } else { self.value };
        value.bytes(self.dimensions)
    }

    /// The approximate size in bytes of an index of these vectors.
    pub fn index_bytes(&self) -> u64 {
        let per_row = match self.method {
            Method::Ivfflat => self.value_bytes() + 12,
            Method::Hnsw => self.value_bytes() + 200 + 32 * 16,
        };
        // A page holds only whole tuples.
        let per_page = (8168 / per_row.clamp(1, 8168)).max(1);
        (self.vectors() / per_page as f64).ceil() as u64 * 8192
    }

    /// The names that we use beside the index: while it is built, and after it is replaced.
    pub fn new_name(&self) -> String {
        names::beside([&self.facts.schema, &self.facts.name, &self.searched.column], &self.index_name, NEW)
    }

    pub fn old_name(&self) -> String {
        names::beside([&self.facts.schema, &self.facts.name, &self.searched.column], &self.index_name, OLD)
    }

    /// The ORDER BY expression, as an application writes it.
    pub fn order_by(&self) -> String {
        let column = &self.searched.column;
        if self.by_halfvec {
            format!("({column}::halfvec({0})) {1} $1::halfvec({0})", self.dimensions, self.metric.operator())
        } else {
            format!("{column} {} $1", self.metric.operator())
        }
    }
}

pub fn refused(message: String) -> anyhow::Error {
    Fault::new(Kind::Configuration, message).into()
}

/// The schema of pgvector.
pub async fn pgvector(connection: &mut PgConnection) -> Result<String> {
    let found: Option<String> = sqlx::query_scalar(
        "SELECT n.nspname::text FROM pg_extension e JOIN pg_namespace n ON n.oid = e.extnamespace WHERE e.extname = 'vector'",
    )
    .fetch_optional(connection)
    .await?;
    found.ok_or_else(|| refused("the database has no pgvector: CREATE EXTENSION vector".to_owned()))
}

pub async fn read(
    connection: &mut PgConnection,
    job: &VectorIndex,
    oid: i64,
    extension: &str,
    is_partition: bool,
) -> Result<Table> {
    let mut facts: Facts = sqlx::query_as(include_str!("facts.sql"))
        .bind(oid)
        .bind(&job.column)
        .fetch_optional(&mut *connection)
        .await?
        .context("the table was dropped just now")?;
    let table = qualified(&facts.schema, &facts.name);
    let type_name =
        facts.type_name.clone().ok_or_else(|| refused(format!("{table} has no column {}", identifier(&job.column))))?;
    let value = ValueType::of(&type_name).filter(|_| {
        let schema = facts.type_schema.as_deref();
        schema == Some(extension) || type_name == "bit" && schema == Some("pg_catalog")
    });
    let value = value.ok_or_else(|| {
        refused(format!(
            "{table}.{} is of type {type_name}: vector, halfvec, bit or sparsevec is needed",
            identifier(&job.column)
        ))
    })?;
    let dimensions = facts.dimensions.and_then(|number| u32::try_from(number).ok()).filter(|number| *number > 0);
    let dimensions = dimensions.ok_or_else(|| {
        refused(format!(
            "{table}.{column} is {type_name} without a number of dimensions and cannot be indexed: ALTER TABLE {table} ALTER {column} TYPE {type_name}(N)",
            column = identifier(&job.column)
        ))
    })?;
    if !facts.may_read || facts.row_security {
        let message =
            format!("the role cannot read all rows of {table}: connect as its owner, or give the role SELECT and BYPASSRLS");
        return Err(Fault::new(Kind::Permission, message).into());
    }
    let found: Vec<Found> = sqlx::query_as(include_str!("indexes.sql")).bind(oid).fetch_all(&mut *connection).await?;
    let typed = |value: ValueType| match value {
        ValueType::Bit => format!("pg_catalog.bit({dimensions})"),
        _ => format!("{}.{}({dimensions})", identifier(extension), value.name()),
    };
    let column = identifier(&job.column);
    let halfvec = sqlx::query_scalar::<_, String>("SELECT format('(%I)::%I.halfvec(%s)', $1::text, $2::text, $3::int8)")
        .bind(&job.column)
        .bind(extension)
        .bind(i64::from(dimensions))
        .fetch_one(&mut *connection)
        .await?;
    // pg_get_expr omits the parentheses around a plain column.
    let plain = |text: &str| text.replace(['(', ')', ' ', '"'], "");
    let is_on_halfvec = |index: &Found| index.expression.as_deref().is_some_and(|found| plain(found) == plain(&halfvec));
    let is_on_column =
        |index: &Found| i32::from(facts.attnum.unwrap_or_default()) == index.attribute && index.expression.is_none();
    let is_by = |index: &Found, kind: ValueType| {
        let class = Method::of(&index.method).and_then(|method| kind.operator_class(method, job.metric));
        class.as_ref() == Some(&index.operator_class)
    };
    // The index uses half precision where the vector exceeds the limit for an index, or where the existing index does.
    let by_halfvec = value == ValueType::Vector
        && (dimensions > ValueType::Vector.dimensions_at_most()
            || found.iter().any(|index| is_on_halfvec(index) && is_by(index, ValueType::Halfvec))
                && !found.iter().any(|index| is_on_column(index) && is_by(index, value)));
    let in_index = if by_halfvec { ValueType::Halfvec } else { value };
    if dimensions > in_index.dimensions_at_most() {
        return Err(refused(format!(
            "{table}.{} has {dimensions} dimensions, and pgvector cannot index a {} of more than {}: create an index on (binary_quantize(…)::bit({dimensions})) yourself, or shorten the vectors",
            identifier(&job.column),
            in_index.name(),
            in_index.dimensions_at_most()
        )));
    }
    let on_our_key = |index: &Found| if by_halfvec { is_on_halfvec(index) } else { is_on_column(index) };
    let same_metric = |index: &Found| is_by(index, in_index);
    let default_name = names::default_name(&facts.name, &job.column);
    let known: Vec<&str> =
        found.iter().map(|index| index.name.as_str()).chain(job.index.as_deref()).chain([default_name.as_str()]).collect();
    let is_ours = |index: &Found| {
        is_beside(&index.name)
            && known.iter().any(|name| {
                [NEW, OLD].iter().any(|suffix| names::beside([&facts.schema, &facts.name, &column], name, suffix) == index.name)
            })
    };
    let is_reindexed = |index: &Found| !index.is_valid && base_of_reindex(&index.name).is_some();
    let candidates: Vec<&Found> =
        found.iter().filter(|index| on_our_key(index) && same_metric(index) && !is_ours(index) && !is_reindexed(index)).collect();
    let index: Option<&Found> = match (&job.index, candidates.as_slice()) {
        (Some(name), _) if !is_partition => candidates.iter().find(|index| index.name == *name).copied(),
        (_, []) => None,
        (_, [one]) => Some(*one),
        (_, several) => {
            let names: Vec<&str> = several.iter().map(|index| index.name.as_str()).collect();
            let advice = if is_partition { "drop all but one" } else { "choose one with `index = \"NAME\"`" };
            let (metric, names) = (job.metric.name(), names.join(", "));
            return Err(refused(format!("{table}.{column} has several indexes for {metric}: {names}; {advice}")));
        }
    };
    let index = index.cloned();
    // An index that answers exactly the same searches.
    let like_ours: Vec<Found> = found
        .iter()
        .filter(|one| on_our_key(one) && same_metric(one))
        .filter(|one| index.as_ref().is_none_or(|index| index.predicate == one.predicate))
        .cloned()
        .collect();
    let rivals = candidates
        .iter()
        .filter(|one| Some(one.oid) != index.as_ref().map(|index| index.oid))
        .map(|one| one.name.clone())
        .collect();
    let present = index.as_ref().and_then(|index| Method::of(&index.method));
    // Where methods are compared, the search for lists comes first; some metrics are supported by hnsw only.
    let compared =
        (job.compares_methods && in_index.operator_class(Method::Ivfflat, job.metric).is_some()).then_some(Method::Ivfflat);
    let method = job.method.or(present).or(compared).unwrap_or(Method::Hnsw);
    let operator_class = in_index
        .operator_class(method, job.metric)
        .ok_or_else(|| refused(format!("pgvector has no {method} index of {} by {}", in_index.name(), job.metric.name())))?;
    let index_name = match (&index, &job.index) {
        (Some(index), _) => index.name.clone(),
        (None, Some(name)) if !is_partition => name.clone(),
        _ => default_name,
    };
    let operator = format!("OPERATOR({}.{})", identifier(extension), job.metric.operator());
    let key = if by_halfvec { format!("(t.{column}::{})", typed(ValueType::Halfvec)) } else { format!("t.{column}") };
    let searched = Searched {
        relation: table.clone(),
        tid: "ctid",
        column_type: typed(value),
        key,
        key_cast: if by_halfvec { format!("::{}", typed(ValueType::Halfvec)) } else { String::new() },
        operator,
        inner_product: (job.metric == Metric::Cosine).then(|| format!("OPERATOR({}.<#>)", identifier(extension))),
        predicate: index.as_ref().and_then(|index| index.predicate.clone()),
        column,
    };
    let looks = look(connection, &searched, facts.rows).await?;
    if facts.rows == 0.0 && looks.looked_at > 0 || searched.predicate.is_some() {
        // The table was never analyzed, or the index covers a part of the rows whose size the statistics do not know.
        let predicate = searched.predicate.as_ref().map(|predicate| format!(" t WHERE ({predicate})")).unwrap_or_default();
        let sql = format!("SELECT count(*) FROM {table}{predicate}");
        facts.rows =
            pg::fetch_text(connection, format!("SELECT ({sql})::text")).await?.and_then(|text| text.parse().ok()).unwrap_or(0.0);
    }
    let mut table = Table {
        facts,
        value,
        dimensions,
        by_halfvec,
        operator_class,
        method,
        metric: job.metric,
        operator_class_of_hnsw: in_index
            .operator_class(Method::Hnsw, job.metric)
            .filter(|_| job.compares_methods && method == Method::Ivfflat)
            .filter(|_| index.as_ref().is_none_or(|index| !index.is_attached)),
        looks,
        index,
        index_name,
        taken: None,
        rivals,
        leftovers: Vec::new(),
        searched,
    };
    table.leftovers = like_ours.iter().filter_map(|one| leftover(&table, one)).collect();
    let wanted = if table.index.is_some() { table.old_name() } else { table.index_name.clone() };
    for name in [wanted, table.new_name()] {
        if !table.leftovers.iter().any(|leftover| leftover.name == name) {
            let sql = "SELECT to_regclass($1)::text";
            let taken: Option<String> =
                sqlx::query_scalar(sql).bind(qualified(&table.facts.schema, &name)).fetch_one(&mut *connection).await?;
            table.taken = table.taken.or(taken);
        }
    }
    Ok(table)
}

/// Classifies a leftover by its state, not only by its name: a valid index with a name like REINDEX's may be in use.
fn leftover(table: &Table, one: &Found) -> Option<Leftover> {
    let ours = table.index_name.as_str();
    let index_is_well = table.index.as_ref().is_some_and(|index| index.is_valid);
    let what = if one.name == table.new_name() {
        if one.is_valid { Remains::Built } else { Remains::Broken }
    } else if one.name == table.old_name() {
        // The old index counts as replaced only if another one answers in its place.
        index_is_well.then_some(Remains::Replaced)?
    } else if !one.is_valid && base_of_reindex(&one.name).is_some_and(|base| is_cut(base, ours)) {
        Remains::Broken
    } else {
        return None;
    };
    Some(Leftover { schema: one.schema.clone(), name: one.name.clone(), bytes: one.bytes, what })
}

async fn look(connection: &mut PgConnection, searched: &Searched, rows: f64) -> Result<Looks> {
    let share = (f64::from(LOOK_AT) * 110.0 / rows.max(1.0)).clamp(0.000_1, 100.0);
    let by = measure::sampled_by(rows);
    let column = &searched.column;
    let predicate = searched.predicate.as_ref().map(|predicate| format!(" WHERE ({predicate})")).unwrap_or_default();
    let direction = searched.has_direction("s").map_or("false".to_owned(), |has| format!("NOT ({has})"));
    let sql = format!(
        "SELECT count(*) AS looked_at, count(*) - count(s.{column}) AS nulls, count(*) FILTER (WHERE {direction}) AS without_direction,
                count(DISTINCT md5(s.{column}::text)) AS distinct_values
         FROM (SELECT t.{column} FROM {relation} t TABLESAMPLE {by} ({share}) REPEATABLE (11){predicate} LIMIT {LOOK_AT}) s",
        relation = searched.relation,
    );
    let row = pg::query(sql).fetch_one(connection).await.map_err(pg::in_its_own_words)?;
    Ok(sqlx::FromRow::from_row(&row)?)
}
