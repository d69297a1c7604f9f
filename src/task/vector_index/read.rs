//! Reads a table with its vectors: the column, the index that answers the job's searches, and the leftovers of interrupted builds.

use anyhow::{Context as _, Result};
use sqlx::PgConnection;

use super::indexed_by::{IndexedBy, others, refuse_beside_others};
use super::keys::VectorIndex;
use super::kind::{Method, Metric, ValueType};
use super::measure;
use super::state::{self, ColumnSample, Facts, Found, Leftover, LeftoverKind, Table, refused};
use super::target::SearchTarget;
use crate::base::fault::{Fault, Kind};
use crate::live::indexes::names::{self, NEW, OLD, base_of_reindex, is_beside, is_cut};
use crate::pg::{self, identifier, qualified};
use crate::task::bound::{self, Kind as Text};
use crate::task::remade;

/// This many rows are sampled for NULLs, zero vectors and duplicates.
const LOOK_AT: u32 = 2_000;

/// Reads the table `oid` with a sample of its rows. `extension`: the schema of pgvector. The job's `index` names the index of the whole table,
/// so that it does not count for a partition.
pub async fn table(
    connection: &mut PgConnection,
    job: &VectorIndex,
    oid: i64,
    extension: &str,
    is_partition: bool,
) -> Result<Table> {
    let mut table = catalog(connection, job, oid, extension, is_partition).await?;
    table.looks = sample(connection, &table.searched, table.facts.rows).await?;
    if table.facts.rows == 0.0 && table.looks.looked_at > 0 || table.searched.predicate.is_some() {
        // The table was never analyzed, or the index covers a part of the rows whose size the statistics do not know.
        table.facts.rows = count_rows(connection, &table.searched).await?;
    }
    Ok(table)
}

/// Reads what the catalog says of the table, without a query of the table itself.
pub async fn catalog(
    connection: &mut PgConnection,
    job: &VectorIndex,
    oid: i64,
    extension: &str,
    is_partition: bool,
) -> Result<Table> {
    let facts: Facts = sqlx::query_as(include_str!("facts.sql"))
        .bind(oid)
        .bind(&job.column)
        .fetch_optional(&mut *connection)
        .await?
        .context("the table was dropped just now")?;
    let (value, dimensions) = type_of_column(&facts, job, extension)?;
    refuse_heirs(&facts)?;
    refuse_hidden_rows(&facts)?;
    let found: Vec<Found> = sqlx::query_as(include_str!("indexes.sql")).bind(oid).fetch_all(&mut *connection).await?;
    let on = IndexedBy::choose(&facts, &found, job, extension, (value, dimensions), is_partition)?;
    let dimensions = on.dimensions;
    refuse_too_many_dimensions(&facts, job, on.value, dimensions)?;
    let like: Vec<&Found> = found.iter().filter(|index| on.is_of(index)).collect();
    let default_name = match job.quantize {
        Some(quantize) => names::default_name(&facts.name, &format!("{}_{}", job.column, quantize.value().name())),
        None => names::default_name(&facts.name, &job.column),
    };
    let candidates = without_leftovers(&like, &found, &facts, job, &default_name);
    let index = choose_index(&candidates, &facts, job, is_partition)?;
    refuse_others_names(connection, &facts, index.as_ref()).await?;
    let others = others(connection, &facts, &found, &on.column).await?;
    refuse_beside_others(&facts, job, index.is_some(), &others)?;
    let method = choose_method(job, index.as_ref(), on.value);
    let operator_class = on
        .value
        .operator_class(method, on.metric)
        .ok_or_else(|| refused(format!("pgvector has no {method} index of {} by {}", on.value.name(), on.metric.name())))?;
    let compared = if on.is_bits { value } else { on.value };
    refuse_others_operators(connection, extension, job.metric, &[value, compared]).await?;
    if on.is_bits {
        refuse_others_operators(connection, extension, on.metric, &[ValueType::Bit]).await?;
        refuse_bits_of_partitions(&facts, is_partition)?;
    }
    let index_name = match (&index, &job.index) {
        (Some(index), _) => index.name.clone(),
        (None, Some(name)) if !is_partition => name.clone(),
        _ => default_name,
    };
    let searched = searched(&facts, job, extension, (value, dimensions), &on, index.as_ref());
    let mut table = Table {
        facts,
        value,
        dimensions,
        by_halfvec: on.cast == Some(ValueType::Halfvec),
        is_cast: on.cast.is_some(),
        by_bits: on.is_bits,
        others,
        operator_class,
        method,
        metric: job.metric,
        operator_class_of_hnsw: on
            .value
            .operator_class(Method::Hnsw, on.metric)
            .filter(|_| job.compares_methods && method == Method::Ivfflat)
            .filter(|_| index.as_ref().is_none_or(|index| !index.is_attached)),
        looks: ColumnSample::default(),
        competing_indexes: competing_indexes(&candidates, index.as_ref()),
        index,
        index_name,
        taken: None,
        leftovers: Vec::new(),
        searched,
    };
    table.leftovers = leftovers(&table, &like);
    table.taken = taken_name(connection, &table).await?;
    Ok(table)
}

/// Returns the type of the column's values and their number of dimensions, if it has one. Refuses a column that pgvector cannot index.
fn type_of_column(facts: &Facts, job: &VectorIndex, extension: &str) -> Result<(ValueType, Option<u32>)> {
    let table = qualified(&facts.schema, &facts.name);
    let column = identifier(&job.column);
    let type_name = facts.type_name.as_deref().ok_or_else(|| refused(format!("{table} has no column {column}")))?;
    let value = ValueType::of(type_name).filter(|_| {
        let schema = facts.type_schema.as_deref();
        schema == Some(extension) || type_name == "bit" && schema == Some("pg_catalog")
    });
    let value = value.ok_or_else(|| {
        refused(format!("{table}.{column} is of type {type_name}: vector, halfvec, bit or sparsevec is needed"))
    })?;
    Ok((value, facts.dimensions.and_then(|number| u32::try_from(number).ok()).filter(|number| *number > 0)))
}

/// Refuses operators that pgvector does not have for these types: an older version lacks some, and then whoever may create one in its schema could put
/// their own there. Those that it has stay its own while it is in that schema (`state::proof`).
async fn refuse_others_operators(
    connection: &mut PgConnection,
    extension: &str,
    metric: Metric,
    values: &[ValueType],
) -> Result<()> {
    // A zero vector is recognized by its inner product.
    let metrics: &[Metric] = if metric == Metric::Cosine { &[Metric::Cosine, Metric::InnerProduct] } else { &[metric] };
    let operators: Vec<&str> = metrics.iter().map(|metric| metric.operator()).collect();
    let values: Vec<&str> = values.iter().map(|value| value.name()).collect();
    let missing: Option<String> = sqlx::query_scalar(
        "SELECT format('%s for %s', o.name, v.name) FROM unnest($1::text[]) o (name), unnest($2::text[]) v (name)
         WHERE NOT EXISTS (SELECT FROM pg_operator p JOIN pg_namespace n ON n.oid = p.oprnamespace JOIN pg_type t ON t.oid = p.oprleft
                           JOIN pg_depend d ON d.classid = 'pg_operator'::regclass AND d.objid = p.oid AND d.refclassid = 'pg_extension'::regclass AND d.deptype = 'e'
                           JOIN pg_extension e ON e.oid = d.refobjid
                           WHERE e.extname = 'vector' AND n.nspname = $3 AND p.oprname = o.name AND p.oprright = p.oprleft AND t.typname = v.name
                             AND t.typnamespace IN (e.extnamespace, 'pg_catalog'::regnamespace)) LIMIT 1",
    )
    .bind(operators)
    .bind(values)
    .bind(extension)
    .fetch_optional(connection)
    .await?;
    match missing {
        None => Ok(()),
        Some(missing) => {
            Err(refused(format!("this version of pgvector has no operator {missing}: ALTER EXTENSION vector UPDATE")))
        }
    }
}

/// Refuses a table of which the role cannot read all rows: the recall would be that of other rows.
fn refuse_hidden_rows(facts: &Facts) -> Result<()> {
    if facts.may_read && !facts.row_security {
        return Ok(());
    }
    let message = format!(
        "the role cannot read all rows of {}: connect as its owner, or give the role SELECT and BYPASSRLS",
        qualified(&facts.schema, &facts.name)
    );
    Err(Fault::new(Kind::Permission, message).into())
}

/// Refuses a table that others inherit from: queries of it find their rows, too, which its index does not hold, and which may be in the same place (ctid).
fn refuse_heirs(facts: &Facts) -> Result<()> {
    let Some(heir) = &facts.inherited_by else { return Ok(()) };
    Err(refused(format!(
        "{table} is inherited by {heir}: a search of {table} finds rows of both, and an index of {table} holds its own alone. Make a job for each of the tables that inherit, \
         and search these; or make {table} a partitioned table",
        table = qualified(&facts.schema, &facts.name)
    )))
}

fn refuse_too_many_dimensions(facts: &Facts, job: &VectorIndex, in_index: ValueType, dimensions: u32) -> Result<()> {
    let max_dimensions = in_index.max_dimensions();
    if dimensions <= max_dimensions {
        return Ok(());
    }
    Err(refused(format!(
        "{}.{} has {dimensions} dimensions, and pgvector cannot index a {} of more than {max_dimensions}: create an index on (binary_quantize(…)::bit({dimensions})) yourself, or shorten the vectors",
        qualified(&facts.schema, &facts.name),
        identifier(&job.column),
        in_index.name(),
    )))
}

/// Returns those of the indexes `like` the job's that neither pgtend nor REINDEX made beside another one.
fn without_leftovers<'a>(
    like: &[&'a Found],
    found: &[Found],
    facts: &Facts,
    job: &VectorIndex,
    default_name: &str,
) -> Vec<&'a Found> {
    let column = identifier(&job.column);
    let known: Vec<&str> =
        found.iter().map(|index| index.name.as_str()).chain(job.index.as_deref()).chain([default_name]).collect();
    let is_ours = |index: &Found| {
        is_beside(&index.name)
            && known.iter().any(|name| {
                [NEW, OLD].iter().any(|suffix| names::beside([&facts.schema, &facts.name, &column], name, suffix) == index.name)
            })
    };
    let is_reindexed = |index: &Found| !index.is_valid && base_of_reindex(&index.name).is_some();
    like.iter().copied().filter(|index| !is_ours(index) && !is_reindexed(index)).collect()
}

/// Chooses the index that the job is about: the one that it names, or the only one, of all rows if there is one. Refuses to guess among several.
fn choose_index(candidates: &[&Found], facts: &Facts, job: &VectorIndex, is_partition: bool) -> Result<Option<Found>> {
    // The job cannot name the index of a partition.
    let is_meant = |index: &Found| {
        let predicate = index.predicate.as_deref();
        is_partition || predicate.is_none_or(|predicate| job.filters.all.iter().any(|filter| filter.is_predicate(predicate)))
    };
    let meant: Vec<&Found> = candidates.iter().copied().filter(|index| is_meant(index)).collect();
    // Where there is no other, the first release took it, too; plan and report say which rows it holds.
    let meant = if meant.is_empty() { candidates.to_vec() } else { meant };
    let index = match (&job.index, meant.as_slice()) {
        (Some(name), _) if !is_partition => candidates.iter().copied().find(|index| index.name == *name),
        (_, []) => None,
        (_, [one]) => Some(*one),
        (_, several) => {
            let names: Vec<&str> = several.iter().map(|index| index.name.as_str()).collect();
            let advice = if is_partition { "drop all but one" } else { "choose one with `index = \"NAME\"`" };
            return Err(refused(format!(
                "{}.{} has several indexes for {}: {}; {advice}",
                qualified(&facts.schema, &facts.name),
                identifier(&job.column),
                job.metric.name(),
                names.join(", ")
            )));
        }
    };
    Ok(index.cloned())
}

/// Refuses the condition of a partial index whose names others can give another meaning, or that has another as text: it is read as text in each search, and in a new index.
async fn refuse_others_names(connection: &mut PgConnection, facts: &Facts, index: Option<&Found>) -> Result<()> {
    let Some(index) = index.filter(|index| index.predicate.is_some()) else { return Ok(()) };
    if let Some((_, why)) = remade::that_run_code(connection, facts.oid, &[index.oid], &[Text::Index]).await?.pop() {
        return Err(Fault::new(Kind::Permission, why).into());
    }
    match bound::names_its_operators(connection, index.oid).await? {
        true => Ok(()),
        false => Err(refused(format!(
            "the condition of {} compares by an operator that its text does not name (IS DISTINCT FROM, NULLIF and CASE x WHEN do not), so that no search could ask for \
             the same rows: write it with a named operator",
            identifier(&index.name)
        ))),
    }
}

/// Chooses the method: the job's, the present index's, or hnsw. Where methods are compared, the search for lists comes first, unless
/// only hnsw supports the metric.
fn choose_method(job: &VectorIndex, index: Option<&Found>, in_index: ValueType) -> Method {
    let present = index.and_then(|index| Method::of(&index.method));
    let compared =
        (job.compares_methods && in_index.operator_class(Method::Ivfflat, job.metric).is_some()).then_some(Method::Ivfflat);
    job.method.or(present).or(compared).unwrap_or(Method::Hnsw)
}

/// Returns the other indexes that can answer the same searches, by name.
fn competing_indexes(candidates: &[&Found], index: Option<&Found>) -> Vec<String> {
    let others = candidates.iter().filter(|one| Some(one.oid) != index.map(|index| index.oid));
    others.map(|one| one.name.clone()).collect()
}

/// Returns the relation and the column to search, as SQL.
fn searched(
    facts: &Facts,
    job: &VectorIndex,
    extension: &str,
    (value, dimensions): (ValueType, u32),
    on: &IndexedBy,
    index: Option<&Found>,
) -> SearchTarget {
    let schema = identifier(extension);
    let typed = |value: ValueType| match value {
        ValueType::Bit => format!("pg_catalog.bit({dimensions})"),
        _ => format!("{schema}.{}({dimensions})", value.name()),
    };
    let bits = || [format!("{schema}.binary_quantize("), format!(")::{}", typed(ValueType::Bit))];
    let (around, around_query) = match on.cast {
        _ if on.is_bits => {
            let [before, after] = bits();
            ([format!("({before}"), format!("{after})")], bits())
        }
        // A query vector has the column's type with the index's dimensions already.
        Some(cast) => {
            let after = if cast == value { String::new() } else { format!("::{}", typed(cast)) };
            (["(".to_owned(), format!("::{})", typed(cast))], [String::new(), after])
        }
        None => Default::default(),
    };
    SearchTarget {
        relation: qualified(&facts.schema, &facts.name),
        tid: "ctid",
        value,
        value_bytes: value.bytes(dimensions),
        index_bytes: on.value.bytes(dimensions),
        column_type: typed(value),
        around,
        around_query,
        operator: format!("OPERATOR({schema}.{})", job.metric.operator()),
        reranks: on.is_bits.then(|| format!("OPERATOR({schema}.{})", on.metric.operator())),
        inner_product: (job.metric == Metric::Cosine).then(|| format!("OPERATOR({schema}.<#>)")),
        predicate: index.and_then(|index| index.predicate.clone()),
        proof: state::proof(extension),
        column: identifier(&job.column),
    }
}

/// Refuses a function that would search one partition.
fn refuse_bits_of_partitions(facts: &Facts, is_partition: bool) -> Result<()> {
    match is_partition {
        true => Err(refused(format!(
            "{} is a partition, and `quantize = \"bit\"` is for tables without partitions: the function of each would find its own rows only",
            qualified(&facts.schema, &facts.name)
        ))),
        false => Ok(()),
    }
}

/// Counts NULLs, zero vectors and different values in a sample of the rows.
async fn sample(connection: &mut PgConnection, searched: &SearchTarget, rows: f64) -> Result<ColumnSample> {
    let share = (f64::from(LOOK_AT) * 110.0 / rows.max(1.0)).clamp(0.000_1, 100.0);
    let by = measure::sampled_by(rows);
    let column = &searched.column;
    let predicate = searched.predicate.as_ref().map(|predicate| format!(" WHERE ({predicate})")).unwrap_or_default();
    let direction = searched.is_nonzero("s").map_or("false".to_owned(), |has| format!("NOT ({has})"));
    let sql = format!(
        "SELECT count(*) AS looked_at, count(*) - count(s.{column}) AS nulls, count(*) FILTER (WHERE {direction}) AS without_direction,
                count(DISTINCT md5(s.{column}::text)) AS distinct_values
         FROM (SELECT t.{column} FROM {relation} t TABLESAMPLE {by} ({share}) REPEATABLE (11){predicate} LIMIT {LOOK_AT}) s",
        relation = searched.relation,
    );
    pg::execute(connection, searched.proof.clone()).await?;
    let row = pg::query(sql).fetch_one(connection).await.map_err(pg::in_its_own_words)?;
    Ok(sqlx::FromRow::from_row(&row)?)
}

/// Counts the rows of the table, or those that a partial index covers.
async fn count_rows(connection: &mut PgConnection, searched: &SearchTarget) -> Result<f64> {
    let predicate = searched.predicate.as_ref().map(|predicate| format!(" t WHERE ({predicate})")).unwrap_or_default();
    let sql = format!("SELECT (SELECT count(*) FROM {}{predicate})::text", searched.relation);
    Ok(pg::fetch_text(connection, sql).await?.and_then(|text| text.parse().ok()).unwrap_or(0.0))
}

/// Returns what interrupted runs left of those of the indexes that answer exactly the same searches.
fn leftovers(table: &Table, like: &[&Found]) -> Vec<Leftover> {
    let predicate = table.index.as_ref().map(|index| &index.predicate);
    let same = like.iter().filter(|one| predicate.is_none_or(|predicate| *predicate == one.predicate));
    same.filter_map(|one| leftover(table, one)).collect()
}

/// Classifies a leftover by its state, not only by its name: a valid index with a name like REINDEX's may be in use.
fn leftover(table: &Table, one: &Found) -> Option<Leftover> {
    let ours = table.index_name.as_str();
    let index_is_well = table.index.as_ref().is_some_and(|index| index.is_valid);
    let what = if one.name == table.new_name() {
        if one.is_valid { LeftoverKind::Built } else { LeftoverKind::Broken }
    } else if one.name == table.old_name() {
        // The old index counts as replaced only if another one answers in its place.
        index_is_well.then_some(LeftoverKind::Replaced)?
    } else if !one.is_valid && base_of_reindex(&one.name).is_some_and(|base| is_cut(base, ours)) {
        LeftoverKind::Broken
    } else {
        return None;
    };
    Some(Leftover { schema: one.schema.clone(), name: one.name.clone(), bytes: one.bytes, what })
}

/// Returns an object that has a name which a build would use, and is no leftover.
async fn taken_name(connection: &mut PgConnection, table: &Table) -> Result<Option<String>> {
    let first = if table.index.is_some() { table.old_name() } else { table.index_name.clone() };
    for name in [first, table.new_name()] {
        if table.leftovers.iter().any(|leftover| leftover.name == name) {
            continue;
        }
        let taken: Option<String> = sqlx::query_scalar("SELECT to_regclass($1)::text")
            .bind(qualified(&table.facts.schema, &name))
            .fetch_one(&mut *connection)
            .await?;
        if taken.is_some() {
            return Ok(taken);
        }
    }
    Ok(None)
}
