//! Decides which partitions are dropped as a whole, and which are emptied row by row. A partition is dropped only where that has the same
//! effect as deleting its rows; whatever prevents this is known before it is tried, so that a refusal during the run is final.

use anyhow::Result;
use sqlx::PgConnection;

use super::conditions::never;
use super::facts::{Facts, refused};
use super::key::Key;
use super::keys::{Retention, Subscribers};
use super::references::Reference;
use crate::base::units::Span;
use crate::pg::identifier;
use crate::task::partition;
use crate::task::partition::plan::{RowsThatStay, Step};
use crate::work::{RunContext, Work as _};

/// The day of [`Key::floor`], as a bound is shown.
const FIRST_REAL_DAY: &str = "1970-01-02";

#[derive(Default)]
pub struct WholePartitions {
    pub plan: Option<partition::Plan>,
    /// True if rows of all other partitions stay, because subscribers are to keep them.
    pub nothing_else: bool,
    /// Notes for the plan.
    pub notes: Vec<String>,
}

/// `facts`: of the partitioned table. `floor`: the smallest value of the key that is a time, as SQL. `age`: the age at which a partition
/// goes; None: none does.
pub async fn choose(
    retention: &Retention,
    run: &RunContext<'_>,
    connection: &mut PgConnection,
    facts: &Facts,
    references: &[Reference],
    (key, floor, age): (Key, &str, Option<Span>),
) -> Result<WholePartitions> {
    let mut whole = WholePartitions::default();
    let table = facts.sql();
    let obstacle = match (&retention.condition, retention.newest()) {
        (Some(_), _) => Some("`where` selects only some of their rows".to_owned()),
        (None, Some(_)) => Some("`keep_newest` keeps some of their rows".to_owned()),
        (None, None) => obstacle(connection, retention, facts, references, key).await?,
    };
    if let Some(obstacle) = obstacle {
        if retention.subscribers == Some(Subscribers::Keep) && !facts.publications.is_empty() {
            return Err(refused(format!(
                "subscribers = \"keep\" needs whole partitions of {table} to be dropped, which is not possible: {obstacle}"
            )));
        }
        whole.notes.push(format!("rows of old partitions are also deleted one by one: {obstacle}"));
        return Ok(whole);
    }
    if !by_publications(retention, facts, &mut whole)? {
        return Ok(whole);
    }
    let Some(partitions) = retention.partitions(&table, age) else { return Ok(whole) };
    let mut plan = partitions.plan(run).await?;
    if !plan.refusals.is_empty() {
        return Err(refused(plan.refusals.join("; ")));
    }
    let mut stay = Vec::new();
    // Looked for here, and once more under the lock that the partition is dropped under.
    plan.rows_that_stay = never(retention, key, floor).map(|condition| RowsThatStay {
        condition,
        // A random uuid lies anywhere; what is no time in another type lies before all times.
        before: key.shape(&retention.column).is_none().then_some(FIRST_REAL_DAY),
    });
    for planned in &plan.steps {
        let Step::Retire { partition, mark, .. } = &planned.step else { continue };
        let leaf = Facts::read(connection, partition.oid, &retention.column).await?;
        let mut reasons: Vec<String> = leaf.on_delete.iter().map(|what| format!("{what} fires on DELETE")).collect();
        if leaf.hides_rows() {
            reasons.push("row security hides some of its rows from this role".to_owned());
        } else if let Some(rows) = plan.rows_that_stay.as_ref().filter(|rows| rows.may_be_in(mark))
            && partition::has_rows(connection, partition, &rows.condition).await?
        {
            reasons.push(format!("rows whose {} is not a time stay", identifier(&retention.column)));
        }
        if !reasons.is_empty() {
            let way = if whole.nothing_else { "stays" } else { "is emptied row by row" };
            whole.notes.push(format!("{partition} {way} and is not dropped: {}", reasons.join("; ")));
            stay.push(partition.oid);
        }
    }
    plan.steps.retain(|planned| !matches!(&planned.step, Step::Retire { partition, .. } if stay.contains(&partition.oid)));
    whole.plan = (!plan.steps.is_empty()).then_some(plan);
    Ok(whole)
}

/// Returns whether whole partitions may be dropped although the table is published with its deletes. Subscribers do not see that a
/// partition is dropped, so the job has to say what becomes of their rows.
fn by_publications(retention: &Retention, facts: &Facts, whole: &mut WholePartitions) -> Result<bool> {
    if facts.publications.is_empty() {
        return Ok(true);
    }
    let publications = facts.publications.join(", ");
    match retention.subscribers {
        None => Err(refused(format!(
            "{} is published with its deletes ({publications}), and dropping a partition deletes nothing at subscribers: set \
             subscribers = \"delete\" (rows are deleted one by one, here and there) or \"keep\" (partitions are dropped here, and subscribers \
             keep their rows)",
            facts.sql()
        ))),
        Some(Subscribers::Delete) => {
            whole.notes.push(format!(
                "rows of old partitions are also deleted one by one, so that subscribers of {publications} delete them"
            ));
            Ok(false)
        }
        Some(Subscribers::Keep) => {
            whole.nothing_else = true;
            whole.notes.push(format!(
                "only whole partitions are dropped, and subscribers of {publications} keep their rows (subscribers = \"keep\")"
            ));
            Ok(true)
        }
    }
}

/// Returns why partitions of the table cannot go as a whole; None when they can.
async fn obstacle(
    connection: &mut PgConnection,
    retention: &Retention,
    facts: &Facts,
    references: &[Reference],
    key: Key,
) -> Result<Option<String>> {
    if let Some(reference) = references.first() {
        return Ok(Some(format!(
            "foreign key {} of {} refers to {}",
            reference.name, reference.referencing, reference.referenced
        )));
    }
    let (is_by_column, by, is_owner, may_create): (bool, String, bool, bool) = sqlx::query_as(
        "SELECT p.partstrat = 'r' AND p.partnatts = 1
                AND coalesce((SELECT a.attname = $2 FROM pg_attribute a WHERE a.attrelid = c.oid AND a.attnum = p.partattrs[0]), false),
                pg_get_partkeydef(c.oid), pg_has_role(c.relowner, 'USAGE'), has_schema_privilege(c.relnamespace, 'CREATE')
         FROM pg_class c JOIN pg_partitioned_table p ON p.partrelid = c.oid WHERE c.oid = $1::bigint::oid",
    )
    .bind(facts.oid)
    .bind(&retention.column)
    .fetch_one(connection)
    .await?;
    Ok(if !is_by_column || key == Key::Ulid {
        Some(format!("the table is partitioned by {by}, and not by ranges of the time in {}", retention.column))
    } else if !is_owner {
        Some("only the owner of the table may detach partitions".to_owned())
    } else if !may_create {
        Some("the role may not create tables in its schema".to_owned())
    } else {
        None
    })
}
