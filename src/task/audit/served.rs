//! Whether an index serves a foreign key. The catalog says which indexes a column of the key leads, and the planner whether it uses one of them
//! for the check that the server makes when a referenced row is deleted or its key changes: it alone can prove what the condition of a
//! partial index leaves out, and which operators an index supports.

use anyhow::{Context as _, Result};
use serde_json::Value;
use sqlx::PgConnection;

use super::context::{AuditContext, CheckResult, ForeignKey, KeyTable, Row, begin_one_of, end};
use super::probe::{Way, lock, out_of_time, reason_of_one};
use super::trust::{Code, Trust};
use crate::pg;

/// The limit of tables for which the planner is asked.
const MAX_ASKED: usize = 500;
/// This many partitions are named; the rest are only counted.
const NAMED: usize = 5;

/// The settings of the questions: without sequential scans the planner takes any index that it can use. The plan is generic (begin_one_of): it knows no values, as
/// that of the server's own check.
const SETTINGS: &str = "SELECT pg_catalog.string_agg(pg_catalog.format('SET LOCAL %I = %s', name, CASE name WHEN 'enable_seqscan' THEN 'off' ELSE 'on' END), '; ')
     FROM pg_catalog.pg_settings WHERE name LIKE 'enable\\_%' AND vartype = 'bool'";

enum Answer {
    Served,
    Unserved,
    /// The planner was not asked, for this reason: the catalog alone judges.
    Unasked(String),
}

/// A table without an index for the key.
struct Unserved {
    name: String,
    create: String,
    /// The reason why the planner was not asked.
    by_catalog: Option<String>,
}

/// Keeps the foreign keys that no index serves. What the catalog alone judges is said, in the finding and as a reason.
pub async fn ask(
    connection: &mut PgConnection,
    context: &AuditContext<'_>,
    trust: &mut Trust,
    seen: &mut CheckResult,
) -> Result<()> {
    let (mut kept, mut refused, mut asked) = (Vec::new(), Vec::new(), 0);
    let questions = |key: &ForeignKey| key.open.iter().filter(|table| !table.leading.is_empty()).count();
    let all: usize = seen.rows.iter().filter_map(|row| row.foreign_key.as_ref()).map(questions).sum();
    let settings = match all {
        0 => String::new(),
        _ => pg::fetch_text(connection, SETTINGS.to_owned()).await?.unwrap_or_default(),
    };
    for mut row in std::mem::take(&mut seen.rows) {
        let Some(key) = row.foreign_key.take() else {
            kept.push(row);
            continue;
        };
        let mut unserved = Vec::new();
        for table in key.open {
            asked += usize::from(!table.leading.is_empty());
            let answer = match table.leading.is_empty() {
                true => Answer::Unserved,
                false if asked > MAX_ASKED => Answer::Unasked(format!("there are more than {MAX_ASKED} tables to ask about")),
                false if context.left().is_zero() => Answer::Unasked(out_of_time(context)),
                false => {
                    let question = Question { table: &table, number: asked, of: all.min(MAX_ASKED), settings: &settings };
                    answer(connection, context, trust, question, &mut refused).await?
                }
            };
            let by_catalog = match answer {
                Answer::Served => continue,
                Answer::Unserved => None,
                Answer::Unasked(reason) => Some(reason),
            };
            if let Some(reason) = &by_catalog {
                seen.unknown.push(format!("{} was judged by the catalog alone: {reason}", table.reads));
                if table.serves_by_catalog {
                    continue;
                }
            }
            unserved.push(Unserved { name: table.reads, create: table.create, by_catalog });
        }
        kept.extend(judge(row, key.tables, unserved));
    }
    seen.rows = kept;
    seen.unknown.extend(trust.reasons(&refused));
    Ok(())
}

/// Turns the tables without an index into a finding, if there are any. Where only some partitions have none, the fix builds those indexes.
fn judge(mut row: Row, tables: usize, unserved: Vec<Unserved>) -> Option<Row> {
    if unserved.is_empty() {
        return None;
    }
    let mut issue = row.issue.take().unwrap_or_default();
    if unserved.len() < tables {
        let names: Vec<&str> = unserved.iter().take(NAMED).map(|table| table.name.as_str()).collect();
        let more = if unserved.len() > NAMED { ", …" } else { "" };
        issue += &format!(" {} of {tables} partitions have none: {}{more}.", unserved.len(), names.join(", "));
        row.fix = row.fix.map(|_| unserved.iter().map(|table| table.create.as_str()).collect::<Vec<_>>().join("\n"));
        row.lock = None;
    }
    if let Some(reason) = unserved.iter().find_map(|table| table.by_catalog.as_ref()) {
        issue += &format!(" The catalog alone says so: {reason}.");
    }
    row.issue = Some(issue);
    Some(row)
}

/// Whether an index of this table serves the key: so many are asked about.
struct Question<'a> {
    table: &'a KeyTable,
    number: usize,
    of: usize,
    settings: &'a str,
}

async fn answer(
    connection: &mut PgConnection,
    context: &AuditContext<'_>,
    trust: &mut Trust,
    question: Question<'_>,
    refused: &mut Vec<(String, Code)>,
) -> Result<Answer> {
    let table = question.table;
    if !table.is_readable {
        return Ok(Answer::Unasked("no privilege to read it".to_owned()));
    }
    begin_one_of(connection, context, question.of + 1 - question.number).await?;
    let planned = plan(connection, trust, &question).await;
    end(connection).await?;
    match planned {
        Ok(Planned::Uses(indexes)) if indexes.iter().any(|index| table.leading.contains(index)) => Ok(Answer::Served),
        Ok(Planned::Uses(_)) => Ok(Answer::Unserved),
        Ok(Planned::Gone) => Ok(Answer::Served),
        Ok(Planned::Refused(code)) => {
            refused.push((table.reads.clone(), code));
            Ok(Answer::Unasked("the planner may run code that is not trusted".to_owned()))
        }
        Err(error) => {
            let reason = reason_of_one(error, context, || format!("while asking the planner about {}", table.reads))?;
            Ok(Answer::Unasked(reason))
        }
    }
}

enum Planned {
    /// The indexes in the plan.
    Uses(Vec<String>),
    /// The table is no longer there.
    Gone,
    Refused(Code),
}

async fn plan(connection: &mut PgConnection, trust: &mut Trust, question: &Question<'_>) -> Result<Planned> {
    let table = question.table;
    match lock(connection, trust, &table.reads, table.reads_oid).await? {
        Way::Open => (),
        Way::Gone => return Ok(Planned::Gone),
        Way::Refused(code) => return Ok(Planned::Refused(code)),
    }
    pg::execute(connection, question.settings.to_owned()).await?;
    // A name of its own for each: a transaction that fails leaves its statement behind.
    let name = format!("pgtend_foreign_key_{}", question.number);
    pg::execute(connection, format!("PREPARE {name} ({}) AS {}", table.types, table.check)).await?;
    let nulls = vec!["NULL"; table.parameters].join(", ");
    let row = pg::query(format!("EXPLAIN (COSTS OFF, FORMAT JSON) EXECUTE {name} ({nulls})"))
        .persistent(false)
        .fetch_one(&mut *connection)
        .await
        .map_err(pg::in_its_own_words)?;
    pg::execute(connection, format!("DEALLOCATE {name}")).await?;
    let plan: Value = sqlx::Row::try_get(&row, 0).context("EXPLAIN did not answer in JSON")?;
    let mut indexes = Vec::new();
    collect_indexes(&plan, &mut indexes);
    Ok(Planned::Uses(indexes))
}

/// Collects the indexes that a plan searches, wherever they stand in it.
fn collect_indexes(plan: &Value, indexes: &mut Vec<String>) {
    match plan {
        Value::Array(parts) => parts.iter().for_each(|part| collect_indexes(part, indexes)),
        Value::Object(fields) => {
            // Without a condition it reads the whole index, only because it must not read the table.
            let is_searched = fields.contains_key("Index Cond");
            indexes.extend(fields.get("Index Name").filter(|_| is_searched).and_then(Value::as_str).map(str::to_owned));
            fields.values().for_each(|value| collect_indexes(value, indexes));
        }
        _ => (),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn row() -> Row {
        Row {
            issue: Some("No index.".to_owned()),
            fix: Some("ROOT;".to_owned()),
            lock: Some("SHARE".to_owned()),
            ..Row::default()
        }
    }

    fn unserved(name: &str, by_catalog: Option<&str>) -> Unserved {
        Unserved { name: name.to_owned(), create: format!("ON {name};"), by_catalog: by_catalog.map(str::to_owned) }
    }

    #[test]
    fn a_key_is_a_finding_where_a_table_has_no_index_and_the_fix_builds_what_is_missing() {
        assert!(judge(row(), 3, Vec::new()).is_none());
        for (tables, without, issue, fix, lock) in [
            (1, vec![unserved("a", None)], "No index.", "ROOT;", Some("SHARE")),
            (2, vec![unserved("a", None), unserved("b", None)], "No index.", "ROOT;", Some("SHARE")),
            (3, vec![unserved("b", None)], "No index. 1 of 3 partitions have none: b.", "ON b;", None),
            (
                1,
                vec![unserved("a", Some("no privilege"))],
                "No index. The catalog alone says so: no privilege.",
                "ROOT;",
                Some("SHARE"),
            ),
        ] {
            let found = judge(row(), tables, without).unwrap();
            assert_eq!(found.issue.as_deref(), Some(issue));
            assert_eq!((found.fix.as_deref(), found.lock.as_deref()), (Some(fix), lock), "{issue}");
        }
    }

    #[test]
    fn indexes_that_are_searched_are_found_wherever_they_stand_in_a_plan() {
        let plan = json!([{ "Plan": { "Node Type": "Bitmap Heap Scan", "Alias": "x", "Plans": [
            { "Node Type": "BitmapAnd", "Plans": [
                { "Node Type": "Bitmap Index Scan", "Index Name": "a", "Index Cond": "(x = $1)" },
                { "Node Type": "Bitmap Index Scan", "Index Name": "b c", "Index Cond": "(y = $2)" },
                { "Node Type": "Bitmap Index Scan", "Index Name": "read whole" }
            ] }
        ] } }]);
        let mut indexes = Vec::new();
        collect_indexes(&plan, &mut indexes);
        assert_eq!(indexes, ["a", "b c"]);
        let mut none = Vec::new();
        collect_indexes(&json!([{ "Plan": { "Node Type": "Seq Scan", "Alias": "x", "Disabled": true } }]), &mut none);
        assert!(none.is_empty());
    }
}
