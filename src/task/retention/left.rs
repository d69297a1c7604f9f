//! Counts the rows that are still there after a run, and says why.

use anyhow::Result;
use serde_json::{Map, Value};
use sqlx::{PgConnection, Row as _};

use super::estimate::estimate;
use super::keys::Method;
use super::plan::{Part, Plan};
use crate::base::units;
use crate::ledger::report::Report;
use crate::pg::{self, identifier};

/// Rows whose value is not a time are counted for the plan within this time, or not at all.
const COUNT_TIMEOUT_MILLISECONDS: u32 = 5_000;

/// This many values are listed; the rest are only counted.
const NAMED: i64 = 3;

/// Rows that are older than the limit and did not go.
#[derive(Debug, Default)]
pub struct RemainingRows {
    /// Rows that should have gone: locked by others, referenced, kept by a trigger, or added during the run.
    pub rows: u64,
    /// The part of `rows` that each foreign key keeps.
    referred: Vec<(String, u64)>,
    /// Rows whose value is not a time.
    sentinels: u64,
    /// The most frequent of these values.
    named: Vec<(String, u64)>,
}

impl RemainingRows {
    /// Counts the rows; None when that takes longer than a batch may, or when another session has locked the table.
    pub async fn count(connection: &mut PgConnection, plan: &Plan) -> Result<Option<Self>> {
        let mut left = Self::default();
        match left.look(connection, plan).await {
            Ok(()) => Ok(Some(left)),
            Err(error) if pg::sql_state(&error).is_some_and(|state| state == "57014" || state == "55P03") => Ok(None),
            Err(error) => Err(error),
        }
    }

    async fn look(&mut self, connection: &mut PgConnection, plan: &Plan) -> Result<()> {
        for part in &plan.parts {
            let (expired, stays) = match &part.conditions.never {
                Some(never) => (format!("FILTER (WHERE NOT ({never}))"), format!("FILTER (WHERE {never})")),
                None => (String::new(), "FILTER (WHERE false)".to_owned()),
            };
            let sql = format!(
                "SELECT pg_catalog.count(*) {expired}, pg_catalog.count(*) {stays} FROM ONLY {} WHERE {}",
                part.name, part.conditions.old
            );
            let row = pg::query(sql).fetch_one(&mut *connection).await.map_err(pg::in_its_own_words)?;
            let (rows, sentinels): (i64, i64) = (row.try_get(0)?, row.try_get(1)?);
            self.rows += rows as u64;
            self.sentinels += sentinels as u64;
            if rows > 0 && part.kept.check_visible().is_ok() {
                for (key, rows) in part.kept.count(connection, &part.name, &part.conditions.expired).await? {
                    add(&mut self.referred, key, rows);
                }
            }
            if let (Some(never), true) = (&part.conditions.never, sentinels > 0) {
                for (value, rows) in values(connection, plan, part, never).await? {
                    add(&mut self.named, value, rows);
                }
            }
        }
        self.named.sort_by_key(|(_, rows)| std::cmp::Reverse(*rows));
        self.named.truncate(NAMED as usize);
        Ok(())
    }

    pub fn report(&self, report: &mut Report, plan: &Plan) {
        report.fact("rows_left", self.rows);
        if !self.referred.is_empty() {
            let by_key: Map<String, Value> = self.referred.iter().map(|(key, rows)| (key.clone(), (*rows).into())).collect();
            report.fact("rows_left_by_foreign_key", by_key);
            let keys = self.referred.iter().map(|(key, rows)| format!("{} by {key}", units::plural(*rows, "row")));
            report.warnings.push(format!(
                "rows of {} stay because other rows reference them: {}",
                plan.table,
                keys.collect::<Vec<_>>().join(", ")
            ));
        }
        if self.sentinels > 0 {
            report.fact("sentinels_left", self.sentinels);
            let values: Map<String, Value> = self.named.iter().map(|(value, rows)| (value.clone(), (*rows).into())).collect();
            report.fact("sentinel_values", values);
        }
    }

    /// Describes it for the summary; empty when nothing is left.
    pub fn in_words(&self, column: &str) -> String {
        let mut words = String::new();
        let referred: u64 = self.referred.iter().map(|(_, rows)| rows).sum();
        if referred > 0 {
            let keys: Vec<&str> = self.referred.iter().map(|(key, _)| key.as_str()).collect();
            words += &format!(
                "; {} stay because they are referenced by {}",
                units::plural(referred.min(self.rows), "row"),
                keys.join(", ")
            );
        }
        if self.rows > referred {
            words += &format!(
                "; {} left for the next run: locked by others, or kept by a trigger",
                units::plural(self.rows - referred, "row")
            );
        }
        if self.sentinels > 0 {
            let values: Vec<&str> = self.named.iter().map(|(value, _)| value.as_str()).collect();
            words += &format!(
                "; {} stay because their {} is not a time: {}",
                units::plural(self.sentinels, "row"),
                identifier(column),
                values.join(", ")
            );
        }
        words
    }
}

fn add(to: &mut Vec<(String, u64)>, name: String, rows: u64) {
    match to.iter_mut().find(|(known, _)| *known == name) {
        Some((_, sum)) => *sum += rows,
        None => to.push((name, rows)),
    }
}

/// Returns the most frequent values that are not times, with their numbers of rows.
pub async fn values(connection: &mut PgConnection, plan: &Plan, part: &Part, never: &str) -> Result<Vec<(String, u64)>> {
    let column = identifier(&plan.column);
    let sql = format!(
        "SELECT {column}::pg_catalog.text, pg_catalog.count(*) FROM ONLY {} WHERE {} AND ({never})
         GROUP BY 1 ORDER BY 2 DESC, 1 LIMIT {NAMED}",
        part.name, part.conditions.old
    );
    let rows: Vec<(String, i64)> = pg::fetch_all_as(connection, sql).await?;
    Ok(rows.into_iter().map(|(value, rows)| (value, rows as u64)).collect())
}

impl Plan {
    /// Notes rows that look old and stay, where an index or the statistics suggest that there are some.
    pub(super) async fn note_sentinels(&mut self, connection: &mut PgConnection) -> Result<()> {
        // With `keep_newest` each row needs a count of newer ones: the query would take as long as the run.
        if self.cutoff.is_none() {
            return Ok(());
        }
        pg::set(connection, "statement_timeout", &COUNT_TIMEOUT_MILLISECONDS.to_string()).await?;
        let mut notes = Vec::new();
        for part in self.parts.iter().filter(|part| part.rows > 0 || part.blocks > 0) {
            let Some(never) = &part.conditions.never else { continue };
            let condition = format!("{} AND ({never})", part.conditions.old);
            // The planner never estimates less than one row.
            if part.method == Method::Blocks && estimate(connection, &part.name, &condition).await? <= 1 {
                continue;
            }
            match values(connection, self, part, never).await {
                Ok(values) if values.is_empty() => {}
                Ok(values) => {
                    let values: Vec<String> =
                        values.iter().map(|(value, rows)| format!("{value} ({})", units::plural(*rows, "row"))).collect();
                    notes.push(format!(
                        "rows of {} stay because their {} is not a time: {}; sentinels = \"delete\" deletes all rows before 1970-01-02",
                        part.name,
                        identifier(&self.column),
                        values.join(", ")
                    ));
                }
                Err(error) if pg::sql_state(&error).as_deref() == Some("57014") => {}
                Err(error) => return Err(error),
            }
        }
        self.notes.append(&mut notes);
        Ok(())
    }
}
