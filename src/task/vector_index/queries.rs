//! The queries of a measurement: the application's own where the job says where they are, else rows of the table that are moved away from it.
//! Rows as they are find more than questions do: 0.988 against 0.919 on 20,391 chunks of text.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use sqlx::postgres::PgRow;
use sqlx::{PgConnection, Row as _};

use super::disturb;
use super::effort::Effort;
use super::keys::{Queries, VectorIndex};
use super::kind::{Metric, ValueType};
use super::measure::{self, Sample};
use super::source::Source;
use super::state::refused;
use super::target::SearchTarget;
use crate::base::fault::{Fault, Kind};
use crate::pg::table::with_schema;
use crate::pg::{self, identifier, qualified};
use crate::work::RunContext;

/// Exact searches for one step of finding the strength of the noise, at most.
const TRIED: usize = 20;
const STEPS: usize = 3;
/// What an error of the user's own statement is about.
const OF_SQL: &str = "[vector_index.queries]: `sql`";
/// The user's own statement may take this long.
const TIME_FOR_SQL: Duration = Duration::from_secs(30);

/// Returns queries whose true neighbours are known, as many as there is `time` for. `searched`: the table, or a copy, which has no columns for filters;
/// `rows`: its number of vectors.
pub async fn asked(
    connection: &mut PgConnection,
    job: &VectorIndex,
    run: &RunContext<'_>,
    searched: &SearchTarget,
    rows: f64,
    time: Duration,
) -> Result<Sample> {
    let wanted = job.recall.queries as usize;
    let count = Effort::of(searched, rows).exact_searches(wanted, time);
    let mut sample = match &job.queries {
        Some(queries) => from_log(connection, job, run, searched, queries).await?,
        None => {
            let is_copy = searched.tid != "ctid";
            let columns = job.filters.columns.iter().filter(|_| !is_copy);
            let columns: Vec<String> = columns.map(|column| format!("t.{}", identifier(column))).collect();
            let drawn = measure::sample(connection, searched, &columns, count as u32, rows).await?;
            let source = strength(connection, job, searched, &drawn, time / 4).await?;
            moved(drawn, searched.value, source)
        }
    };
    sample.truncate(count);
    sample.is_asked = true;
    measure::find_truth(connection, searched, &mut sample, job.recall.k, time).await?;
    if sample.endless > 0 && sample.len() < measure::MIN_QUERIES {
        return Err(refused(format!(
            "{} of the queries have infinite distances to their neighbours, or distances that are no numbers, and only {} tell anything: \
             leave out vectors with such large values",
            sample.endless,
            sample.len()
        )));
    }
    measure::time_exact(connection, searched, &mut sample, job.recall.k).await?;
    Ok(sample)
}

/// Moves each row by the difference of two others of the sample. Rows that cannot be moved stay as they are.
fn moved(mut sample: Sample, value: ValueType, source: Source) -> Sample {
    if let Source::Disturbed { strength, .. } = source {
        let rows = std::mem::take(&mut sample.vectors);
        let other = |number: usize| rows[number % rows.len()].as_str();
        sample.vectors = (0..rows.len())
            .map(|number| {
                let three = (other(number), other(number + rows.len() / 3), other(number + 2 * rows.len() / 3));
                disturb::disturbed(value, three, strength, number).unwrap_or_else(|| rows[number].clone())
            })
            .collect();
    }
    sample.source = source;
    sample
}

/// Finds how far rows have to be moved: until their k-th neighbour is `FARTHER` times as far away.
async fn strength(
    connection: &mut PgConnection,
    job: &VectorIndex,
    searched: &SearchTarget,
    drawn: &Sample,
    time: Duration,
) -> Result<Source> {
    if drawn.vectors.len() < 3 {
        return Ok(Source::Rows);
    }
    let (k, deadline) = (job.recall.k, Instant::now() + time);
    let mut strength = disturb::DEFAULT_STRENGTH;
    let mut distances = None;
    let mut near = None;
    for step in 0..=STEPS {
        let source = if step == 0 { Source::Rows } else { Source::Disturbed { strength, distances: None } };
        let mut tried = moved(drawn.clone(), searched.value, source);
        tried.truncate(TRIED);
        let left = deadline.saturating_duration_since(Instant::now()) / (STEPS - step + 1) as u32;
        measure::find_truth(connection, searched, &mut tried, k, left).await?;
        let farthest: Vec<f64> = tried.truth.iter().filter_map(|near| near.last().copied()).collect();
        if farthest.len() < TRIED.min(drawn.vectors.len()) {
            // There is no time for it.
            break;
        }
        let measured = farthest.iter().sum::<f64>() / farthest.len() as f64;
        let Some(near) = near else {
            near = Some(measured);
            continue;
        };
        distances = Some((near, measured));
        if step == STEPS || (measured - disturb::goal(near)).abs() <= 0.05 * (disturb::goal(near) - near).abs() {
            break;
        }
        strength = disturb::next_strength(strength, near, measured, job.metric == Metric::L2);
    }
    Ok(Source::Disturbed { strength, distances })
}

/// Reads questions of the application.
async fn from_log(
    connection: &mut PgConnection,
    job: &VectorIndex,
    run: &RunContext<'_>,
    searched: &SearchTarget,
    queries: &Queries,
) -> Result<Sample> {
    let (from, found) = match queries {
        Queries::Table { table, column, newest_by } => {
            run.is_checked_by_name(connection, table).await?;
            (format!("{table}.{column}"), of_table(connection, job, table, column, newest_by.as_deref()).await?)
        }
        Queries::Sql(sql) => ("the job's own statement".to_owned(), of_sql(job, run, sql).await?),
    };
    let asked = found.len();
    let mut sample = Sample::default();
    // Each once, in the order in which it comes first.
    let mut places: HashMap<Question, usize> = HashMap::new();
    for question in found {
        match places.get(&question) {
            Some(place) => sample.times[*place] += 1.0,
            None => {
                sample.vectors.push(question.0.clone());
                sample.values.push(question.1.clone());
                sample.times.push(1.0);
                places.insert(question, sample.vectors.len() - 1);
            }
        }
    }
    sample.source = Source::Log { from: from.clone(), asked, different: sample.vectors.len() };
    let fits = fits(connection, searched, &sample).await.with_context(|| format!("the questions of {from}"))?;
    let keep = |number: usize| fits.get(number).copied().unwrap_or(false);
    let mut number = 0..;
    sample.vectors.retain(|_| keep(number.next().unwrap_or_default()));
    let mut number = 0..;
    sample.values.retain(|_| keep(number.next().unwrap_or_default()));
    let mut number = 0..;
    sample.times.retain(|_| keep(number.next().unwrap_or_default()));
    sample.tids = vec![None; sample.vectors.len()];
    sample.xmins = vec![None; sample.vectors.len()];
    if sample.vectors.len() < measure::MIN_QUERIES {
        return Err(refused(format!(
            "{from} has {} {}questions with a vector, and {} are needed: let the application log more of them, or remove [vector_index.queries]",
            sample.vectors.len(),
            if sample.vectors.len() < asked { "different " } else { "" },
            measure::MIN_QUERIES
        )));
    }
    Ok(sample)
}

/// Returns which of the vectors have a direction, where that matters. An error if one of them is of another type or number of dimensions.
async fn fits(connection: &mut PgConnection, searched: &SearchTarget, sample: &Sample) -> Result<Vec<bool>> {
    let Some(operator) = &searched.inner_product else { return Ok(vec![true; sample.vectors.len()]) };
    let sql = format!(
        "SELECT (v::{of} {operator} v::{of}) <> 0 FROM unnest($1::text[]) WITH ORDINALITY u(v, n) ORDER BY n",
        of = searched.column_type
    );
    pg::execute(connection, searched.proof.clone()).await?;
    let rows = pg::query(sql).bind(&sample.vectors).fetch_all(connection).await.map_err(pg::in_its_own_words)?;
    rows.iter().map(|row| Ok(row.try_get(0)?)).collect()
}

/// A vector, and the values of the columns that the job's filters compare.
type Question = (String, Vec<Option<String>>);

/// A table in which an application keeps its questions.
struct LogTable {
    /// Quoted.
    relation: String,
    is_partitioned: bool,
    rows: f64,
    columns: Vec<String>,
}

/// Reads the newest questions of a table, or some of all.
async fn of_table(
    connection: &mut PgConnection,
    job: &VectorIndex,
    table: &str,
    column: &str,
    newest_by: Option<&str>,
) -> Result<Vec<Question>> {
    let log = log_table(connection, table, column, newest_by).await?;
    let value = |column: &String| match log.columns.contains(column) {
        true => format!(", l.{}::text", identifier(column)),
        false => ", NULL::text".to_owned(),
    };
    let values: String = job.filters.columns.iter().map(value).collect();
    let (count, column) = (job.recall.queries, identifier(column));
    let share = (f64::from(count) * 150.0 / log.rows.max(1.0)).clamp(0.000_1, 100.0);
    // Where few rows have a vector, a part of them has too few: then all are read.
    let shares = if newest_by.is_some() || log.is_partitioned || share >= 100.0 { vec![100.0] } else { vec![share, 100.0] };
    let mut rows = Vec::new();
    for share in shares {
        let (sampled, order) = match newest_by {
            Some(newest_by) => (String::new(), format!("l.{} DESC NULLS LAST", identifier(newest_by))),
            None => {
                let by = measure::sampled_by(log.rows);
                (format!(" TABLESAMPLE {by} ({share}) REPEATABLE (7)"), "hashtext(l.ctid::text)".to_owned())
            }
        };
        let sql = format!(
            "SELECT l.{column}::text{values} FROM {} l{sampled} WHERE l.{column} IS NOT NULL ORDER BY {order} LIMIT {count}",
            log.relation
        );
        pg::set(connection, "statement_timeout", &job.recall.time.0.as_millis().to_string()).await?;
        let found = pg::query(sql).fetch_all(&mut *connection).await.map_err(pg::in_its_own_words);
        pg::set(connection, "statement_timeout", "0").await?;
        rows = found.with_context(|| format!("reading questions of {table}"))?;
        if rows.len() >= count as usize {
            break;
        }
    }
    rows.iter().filter_map(|row| question(row, job).transpose()).collect()
}

/// Returns the vector of a row and the values of its other columns; None where the vector is NULL.
fn question(row: &PgRow, job: &VectorIndex) -> Result<Option<Question>> {
    let values = (0..job.filters.columns.len()).map(|at| row.try_get(1 + at)).collect::<Result<_, sqlx::Error>>()?;
    Ok(row.try_get::<Option<String>, _>(0)?.map(|vector| (vector, values)))
}

/// Finds the table and its columns, without a query of its rows.
async fn log_table(connection: &mut PgConnection, table: &str, column: &str, newest_by: Option<&str>) -> Result<LogTable> {
    let found: Option<(String, String, String, f64, bool, Vec<String>)> = sqlx::query_as(
        "SELECT n.nspname::text, c.relname::text, c.relkind::text, c.reltuples::float8, has_table_privilege(c.oid, 'SELECT') AND NOT row_security_active(c.oid),
                ARRAY(SELECT a.attname::text FROM pg_attribute a WHERE a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped)
         FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace WHERE c.oid = to_regclass($1)",
    )
    .bind(with_schema(table))
    .fetch_optional(connection)
    .await
    .map_err(pg::in_its_own_words)?;
    let Some((schema, name, kind, rows, may_read, columns)) = found else {
        return Err(refused(format!("[vector_index.queries]: there is no table {table}")));
    };
    if !matches!(kind.as_str(), "r" | "p" | "m") {
        return Err(refused(format!(
            "[vector_index.queries]: {table} is not a table; functions of a view would run with the login's rights: use `sql`"
        )));
    }
    if !may_read {
        let message =
            format!("[vector_index.queries]: the role cannot read all rows of {table}: GRANT SELECT ON {table} TO the role");
        return Err(Fault::new(Kind::Permission, message).into());
    }
    for wanted in [Some(column), newest_by].into_iter().flatten() {
        if !columns.iter().any(|column| column == wanted) {
            return Err(refused(format!("[vector_index.queries]: {table} has no column {}", identifier(wanted))));
        }
    }
    Ok(LogTable { relation: qualified(&schema, &name), is_partitioned: kind == "p", rows, columns })
}

/// Runs the user's own statement, which finds names as the application does, and changes nothing: in a transaction that is read only.
async fn of_sql(job: &VectorIndex, run: &RunContext<'_>, sql: &str) -> Result<Vec<Question>> {
    let mut connection = run.settings.connect_for(pg::Purpose::Application).await?;
    pg::set(&mut connection, "statement_timeout", &TIME_FOR_SQL.as_millis().to_string()).await?;
    pg::set(&mut connection, "lock_timeout", &run.job.limits.lock_timeout.0.as_millis().to_string()).await?;
    sqlx::query("BEGIN READ ONLY").execute(&mut connection).await?;
    let text = sql.trim().trim_end_matches(';');
    // The line's end: the statement may end with a comment.
    let columns = pg::columns_of(&mut connection, format!("SELECT * FROM ({text}\n) q")).await.context(OF_SQL)?;
    // Alone, the column may have any name.
    let is_there = |name: &str| columns.iter().find(|column| *column == name);
    let vector = is_there(&job.column).or(if columns.len() == 1 { columns.first() } else { is_there("embedding") });
    let vector = vector.ok_or_else(|| {
        refused(format!("[vector_index.queries]: `sql` returns no column {}: name one so", identifier(&job.column)))
    })?;
    // As the server writes values of their types: a filter's condition reads them so.
    let as_text = |name: &String| format!("q.{}::pg_catalog.text", identifier(name));
    let values =
        job.filters.columns.iter().map(|column| is_there(column).map_or_else(|| "NULL::pg_catalog.text".to_owned(), as_text));
    let selected: Vec<String> = std::iter::once(as_text(vector)).chain(values).collect();
    let limited = format!("SELECT {} FROM ({text}\n) q LIMIT {}", selected.join(", "), job.recall.queries);
    let rows = pg::query(limited).persistent(false).fetch_all(&mut connection).await.map_err(pg::in_its_own_words);
    rows.context(OF_SQL)?.iter().filter_map(|row| question(row, job).transpose()).collect()
}

/// Checks that the role may read the questions, for `check --connect`: without a query of their rows, which would run code of the table's owner.
pub async fn may_read(connection: &mut PgConnection, job: &VectorIndex) -> Result<()> {
    match &job.queries {
        Some(Queries::Table { table, column, newest_by }) => {
            log_table(connection, table, column, newest_by.as_deref()).await.map(drop)
        }
        _ => Ok(()),
    }
}
