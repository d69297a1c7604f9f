//! Indexes that are only proposed: hypopg lets the planner see one that is not built. The statement is ours, on one table, with the condition of the index: what an
//! application has sent is text of others, and is not planned.

use anyhow::{Context as _, Result};
use serde_json::{Value, json};
use sqlx::PgConnection;

use super::context::{AuditContext, CheckResult, Row, Trial, begin_one_of, end};
use super::probe::{Way, lock, out_of_time, reason_of_one};
use super::trust::{Code, Trust};
use crate::pg;

/// The limit of indexes that are tried for one check.
const MAX_TRIED: usize = 100;
/// An index that makes the statement less than twice as cheap is not worth what it costs each write.
const LEAST_GAIN: f64 = 2.0;
const NOT_THERE: &str = "hypopg is not installed";

/// The schema of hypopg, quoted, if its functions are there: those of the extension, which are in C.
const HYPOPG: &str = "SELECT pg_catalog.quote_ident(n.nspname) FROM pg_catalog.pg_extension e
     JOIN pg_catalog.pg_depend d ON d.refclassid = 'pg_catalog.pg_extension'::pg_catalog.regclass AND d.refobjid = e.oid AND d.deptype = 'e' AND d.classid = 'pg_catalog.pg_proc'::pg_catalog.regclass
     JOIN pg_catalog.pg_proc p ON p.oid = d.objid AND p.proname IN ('hypopg_create_index', 'hypopg_reset') JOIN pg_catalog.pg_language l ON l.oid = p.prolang AND l.lanname = 'c'
     JOIN pg_catalog.pg_namespace n ON n.oid = p.pronamespace
     WHERE e.extname = 'hypopg' AND pg_catalog.has_schema_privilege(n.oid, 'USAGE') AND pg_catalog.has_function_privilege(p.oid, 'EXECUTE')
     GROUP BY n.nspname HAVING pg_catalog.count(*) = 2";

enum Answer {
    /// What the statement costs without the index and with it, in the planner's units.
    Uses { before: f64, with: f64 },
    /// Not, or to little avail.
    UsesNot,
    /// The table is no longer there.
    Gone,
    /// Not tried, for this reason.
    Untried(String),
}

/// Drops the proposals that the planner would not use, and says of the others what it thinks of them, or why they were not tried.
pub async fn ask(
    connection: &mut PgConnection,
    context: &AuditContext<'_>,
    trust: &mut Trust,
    seen: &mut CheckResult,
) -> Result<()> {
    let number = seen.rows.iter().filter(|row| row.trial.is_some()).count();
    if number == 0 {
        return Ok(());
    }
    let schema = pg::fetch_text(connection, HYPOPG.to_owned()).await?;
    let (mut kept, mut refused, mut tried) = (Vec::new(), Vec::new(), 0);
    for mut row in std::mem::take(&mut seen.rows) {
        let Some(trial) = row.trial.take() else {
            kept.push(row);
            continue;
        };
        tried += 1;
        let answer = match &schema {
            None => Answer::Untried(NOT_THERE.to_owned()),
            Some(_) if !trial.is_readable => Answer::Untried("no privilege to read the table".to_owned()),
            Some(_) if tried > MAX_TRIED => Answer::Untried(format!("at most {MAX_TRIED} are")),
            Some(_) if context.left().is_zero() => Answer::Untried(out_of_time(context)),
            Some(schema) => {
                begin_one_of(connection, context, number.min(MAX_TRIED) + 1 - tried).await?;
                let answer = compare(connection, trust, schema, &trial, &mut refused).await;
                end(connection).await?;
                told(answer, context, &trial)?
            }
        };
        kept.extend(judge(row, answer));
    }
    if let Some(schema) = &schema {
        // What the planner shall see no longer outlives a transaction.
        pg::fetch_text(connection, format!("SELECT {schema}.hypopg_reset()::pg_catalog.text")).await?;
    }
    seen.rows = kept;
    seen.unknown.extend(trust.reasons(&refused));
    Ok(())
}

/// An error of one table says nothing about the others.
fn told(answer: Result<Answer>, context: &AuditContext<'_>, trial: &Trial) -> Result<Answer> {
    answer.or_else(|error| {
        let reason = reason_of_one(error, context, || format!("while trying an index of {}", trial.reads))?;
        Ok(Answer::Untried(reason))
    })
}

async fn compare(
    connection: &mut PgConnection,
    trust: &mut Trust,
    schema: &str,
    trial: &Trial,
    refused: &mut Vec<(String, Code)>,
) -> Result<Answer> {
    match lock(connection, trust, &trial.reads, trial.reads_oid).await? {
        Way::Open => (),
        Way::Gone => return Ok(Answer::Gone),
        Way::Refused(code) => {
            refused.push((trial.reads.clone(), code));
            return Ok(Answer::Untried("the planner may run code that is not trusted".to_owned()));
        }
    }
    pg::fetch_text(connection, format!("SELECT {schema}.hypopg_reset()::pg_catalog.text")).await?;
    let before = plan(connection, &trial.query).await?;
    let create = format!("SELECT indexname FROM {schema}.hypopg_create_index({})", pg::literal(&trial.index));
    let name = pg::fetch_text(connection, create).await?.context("hypopg made no index")?;
    let with = plan(connection, &trial.query).await?;
    Ok(match names_index(&with, &name) && cost(&before) >= LEAST_GAIN * cost(&with) {
        true => Answer::Uses { before: cost(&before), with: cost(&with) },
        false => Answer::UsesNot,
    })
}

async fn plan(connection: &mut PgConnection, query: &str) -> Result<Value> {
    let row = pg::query(format!("EXPLAIN (FORMAT JSON) {query}"))
        .persistent(false)
        .fetch_one(&mut *connection)
        .await
        .map_err(pg::in_its_own_words)?;
    sqlx::Row::try_get(&row, 0).context("EXPLAIN did not answer in JSON")
}

fn cost(plan: &Value) -> f64 {
    plan[0]["Plan"]["Total Cost"].as_f64().unwrap_or_default()
}

/// Whether the index stands anywhere in the plan.
fn names_index(plan: &Value, name: &str) -> bool {
    match plan {
        Value::Array(parts) => parts.iter().any(|part| names_index(part, name)),
        Value::Object(fields) => {
            fields.get("Index Name").and_then(Value::as_str) == Some(name)
                || fields.values().any(|value| names_index(value, name))
        }
        _ => false,
    }
}

/// Turns an answer into a finding, or none.
fn judge(mut row: Row, answer: Answer) -> Option<Row> {
    let issue = row.issue.take().unwrap_or_default();
    let (said, tried) = match answer {
        Answer::UsesNot | Answer::Gone => return None,
        Answer::Uses { before, with } => (
            format!("Tried with hypopg: the planner uses the index, at a cost of {with:.0} where it was {before:.0}."),
            json!({ "cost": before, "cost_with_the_index": with }),
        ),
        Answer::Untried(reason) => (
            format!("Not tried ({reason}): it is judged by the rows that meet the condition, in the sample of ANALYZE."),
            json!(false),
        ),
    };
    row.issue = Some(format!("{issue} {said}"));
    row.evidence.get_or_insert_default().insert("tried".to_owned(), tried);
    Some(row)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_proposal_that_the_planner_does_not_use_is_none_and_one_that_was_not_tried_says_so() {
        let row = || Row { issue: Some("Few rows.".to_owned()), ..Row::default() };
        assert!(judge(row(), Answer::UsesNot).is_none());
        assert!(judge(row(), Answer::Gone).is_none());
        let used = judge(row(), Answer::Uses { before: 345.2, with: 12.0 }).unwrap();
        assert_eq!(
            used.issue.as_deref(),
            Some("Few rows. Tried with hypopg: the planner uses the index, at a cost of 12 where it was 345.")
        );
        let untried = judge(row(), Answer::Untried(NOT_THERE.to_owned())).unwrap();
        assert!(untried.issue.unwrap().starts_with("Few rows. Not tried (hypopg is not installed)"));
        assert_eq!(untried.evidence.unwrap()["tried"], false);
    }

    #[test]
    fn an_index_is_found_wherever_it_stands_in_a_plan() {
        let plan = json!([{ "Plan": { "Node Type": "Bitmap Heap Scan", "Total Cost": 7.5, "Plans": [{ "Node Type": "Bitmap Index Scan", "Index Name": "<1>btree_t" }] } }]);
        assert!(names_index(&plan, "<1>btree_t") && !names_index(&plan, "t_pkey"));
        assert_eq!(cost(&plan), 7.5);
    }
}
