//! `collations = true`: all indexes whose order another version of a collation may have changed, and then the version that is recorded.
//!
//! The order matters: a version that is refreshed while one index is old would end the warning, and leave the fault.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::Result;
use serde::Serialize;
use sqlx::PgConnection;

use super::decide::{Action, Index, Known, Step};
use crate::live::indexes::names::{base_of_reindex, is_cut};
use crate::pg;

/// A collation whose recorded version is not the library's. Names are quoted as in SQL.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Refresh {
    pub(super) what: String,
    pub(super) recorded: String,
    pub(super) actual: String,
    #[serde(skip)]
    statement: String,
    /// Why the version stays as it is, although the other indexes are rebuilt.
    pub(super) stays: Option<String>,
}

#[derive(Clone, Debug, sqlx::FromRow)]
struct Found {
    what: String,
    recorded: String,
    actual: String,
    refresh: String,
    is_own: bool,
    /// Partitioned tables whose rows its order divides, quoted.
    in_ranges: Option<String>,
    /// None: no index has its order.
    oid: Option<i64>,
    schema: Option<String>,
    name: Option<String>,
    method: Option<String>,
    is_valid: Option<bool>,
    is_exclusion: Option<bool>,
    bytes: Option<i64>,
    rows: Option<f64>,
    table_oid: Option<i64>,
    is_index_own: Option<bool>,
    /// The database and the start of its server.
    place: String,
}

impl Found {
    fn index(&self) -> Option<Index> {
        Some(Index {
            oid: self.oid?,
            schema: self.schema.clone()?,
            name: self.name.clone()?,
            method: self.method.clone()?,
            is_valid: self.is_valid?,
            is_exclusion: self.is_exclusion?,
            bytes: self.bytes?,
            rows: self.rows?,
            expected_bytes: None,
        })
    }
}

/// Returns what is to be rebuilt, and what is to be refreshed when that is done.
pub(super) async fn plan(connection: &mut PgConnection, known: &Known) -> Result<(Vec<Step>, Vec<Refresh>)> {
    let found = sqlx::query_as(concat!(include_str!("../collated.sql"), include_str!("collations.sql")))
        .fetch_all(connection)
        .await
        .map_err(pg::in_its_own_words)?;
    Ok(decide(&found, known))
}

fn decide(found: &[Found], known: &Known) -> (Vec<Step>, Vec<Refresh>) {
    let names: Vec<(i64, &str)> = found.iter().filter_map(|one| Some((one.table_oid?, one.name.as_deref()?))).collect();
    let mut versions: BTreeMap<i64, BTreeSet<String>> = BTreeMap::new();
    for one in found {
        versions.entry(one.oid.unwrap_or_default()).or_default().insert(format!("{} {}", one.what, one.actual));
    }
    let (mut steps, mut refreshes): (Vec<Step>, Vec<Refresh>) = (Vec::new(), Vec::new());
    for one in found {
        if !refreshes.iter().any(|refresh| refresh.what == one.what) {
            let (what, recorded, actual) = (one.what.clone(), one.recorded.clone(), one.actual.clone());
            refreshes.push(Refresh { what, recorded, actual, statement: one.refresh.clone(), stays: stays(one) });
        }
        let (Some(index), Some(table_oid)) = (one.index(), one.table_oid) else { continue };
        let version = format!("{} in {}", versions[&index.oid].iter().cloned().collect::<Vec<_>>().join(", "), one.place);
        let siblings: Vec<&str> = names.iter().filter(|(of, _)| *of == table_oid).map(|(_, name)| *name).collect();
        let (action, reason, keeps) = of_index(one, &index, &siblings, known.rebuilt.get(&index.oid) == Some(&version));
        if keeps {
            let refresh = refreshes.iter_mut().find(|refresh| refresh.what == one.what);
            refresh.into_iter().for_each(|refresh| {
                refresh.stays = refresh.stays.take().or(Some(format!("{} is not rebuilt: {reason}", index.sql())))
            });
        }
        if !steps.iter().any(|step| step.index.oid == index.oid) {
            steps.push(Step { index, table_oid, action, reason, version: Some(version) });
        }
    }
    (steps, refreshes)
}

/// Returns why the version stays whatever becomes of the indexes.
fn stays(one: &Found) -> Option<String> {
    let of_owner = || format!("only its owner may refresh it: {}", one.refresh);
    let of_ranges = |tables: &String| {
        format!(
            "its order divides the rows of {tables}, and no rebuild moves a row that belongs into another partition now: look for such rows \
             (docs/reference/tasks/reindex.md), then {}",
            one.refresh
        )
    };
    one.in_ranges.as_ref().map(of_ranges).or_else(|| (!one.is_own).then(of_owner))
}

/// Returns the action for an index, why, and whether it keeps its collation from being refreshed.
fn of_index(one: &Found, index: &Index, siblings: &[&str], is_rebuilt: bool) -> (Action, String, bool) {
    let leftover = base_of_reindex(&index.name).filter(|base| !index.is_valid && siblings.iter().any(|name| is_cut(base, name)));
    if let Some(base) = leftover {
        if one.is_index_own == Some(false) {
            let reason = format!("left by an interrupted REINDEX of {base}, and only the owner of its table may drop it");
            return (Action::Leave, reason, false);
        }
        return (Action::Drop, format!("left by an interrupted REINDEX of {base}"), false);
    }
    if is_rebuilt {
        return (Action::Leave, format!("was rebuilt with version {} since the server started", one.actual), false);
    }
    if one.is_index_own == Some(false) {
        return (Action::Leave, "only the owner of its table may rebuild it".to_owned(), true);
    }
    if index.is_exclusion {
        let reason = "PostgreSQL cannot rebuild the index of an exclusion constraint concurrently: REINDEX INDEX blocks writes";
        return (Action::Leave, reason.to_owned(), true);
    }
    (
        Action::Rebuild,
        format!("was built with version {} of {}, and the server has {}", one.recorded, one.what, one.actual),
        false,
    )
}

/// Refreshes the versions, after all indexes were rebuilt. Returns what was refreshed, and what was not and why.
pub(super) async fn refresh(
    connection: &mut PgConnection,
    planned: &[Refresh],
    known: &Known,
) -> Result<(Vec<String>, Vec<String>)> {
    // Once more: the library may have been updated meanwhile.
    let (steps, now) = plan(connection, known).await?;
    let (mut refreshed, mut left) = (Vec::new(), Vec::new());
    for refresh in planned {
        let Some(now) = now.iter().find(|now| now.what == refresh.what) else { continue };
        let stays = match &now.stays {
            Some(why) => Some(why.clone()),
            None if now.actual != refresh.actual => {
                Some(format!("the server has version {} by now: run the job again", now.actual))
            }
            None => steps
                .iter()
                .find(|step| step.action == Action::Rebuild)
                .map(|step| format!("{} {}", step.index.sql(), step.reason)),
        };
        match stays {
            Some(why) => left.push(format!("the version of {} was not refreshed: {why}", refresh.what)),
            None => {
                pg::execute(connection, now.statement.clone()).await?;
                refreshed.push(now);
            }
        }
    }
    let still = if refreshed.is_empty() { Vec::new() } else { plan(connection, known).await?.1 };
    let (same, done): (Vec<&Refresh>, Vec<_>) =
        refreshed.into_iter().partition(|one| still.iter().any(|now| now.what == one.what));
    left.extend(same.iter().map(|one| format!("the version of {} is {} still, after {}", one.what, one.recorded, one.statement)));
    Ok((done.iter().map(|one| format!("{} from {} to {}", one.what, one.recorded, one.actual)).collect(), left))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(what: &str, oid: i64, name: &str) -> Found {
        Found {
            what: what.to_owned(),
            recorded: "1".to_owned(),
            actual: "2".to_owned(),
            refresh: "ALTER".to_owned(),
            is_own: true,
            in_ranges: None,
            oid: Some(oid),
            schema: Some("public".to_owned()),
            name: Some(name.to_owned()),
            method: Some("btree".to_owned()),
            is_valid: Some(true),
            is_exclusion: Some(false),
            bytes: Some(8192),
            rows: Some(1.0),
            table_oid: Some(7),
            is_index_own: Some(true),
            place: "database 5".to_owned(),
        }
    }

    #[test]
    fn an_index_of_two_collations_is_rebuilt_once_and_one_that_cannot_be_keeps_its_own() {
        let exclusion = Found { is_exclusion: Some(true), ..found("b", 2, "excluding") };
        let leftover = Found { is_valid: Some(false), ..found("a", 3, "i_ccnew") };
        let others = Found { is_index_own: Some(false), ..leftover.clone() };
        assert_eq!(
            decide(&[found("a", 1, "i"), others], &Known::default()).0[1].action,
            Action::Leave,
            "only its owner may drop it"
        );
        let ranged = Found { in_ranges: Some("public.t".to_owned()), ..found("a", 1, "i") };
        assert!(decide(&[ranged], &Known::default()).1[0].stays.as_ref().is_some_and(|why| why.contains("public.t")));
        let all = [found("a", 1, "i"), found("b", 1, "i"), exclusion, leftover];
        let (steps, refreshes) = decide(&all, &Known::default());
        let actions: Vec<(&str, Action)> = steps.iter().map(|step| (step.index.name.as_str(), step.action)).collect();
        assert_eq!(actions, [("i", Action::Rebuild), ("excluding", Action::Leave), ("i_ccnew", Action::Drop)]);
        assert_eq!(refreshes.iter().map(|refresh| refresh.stays.is_some()).collect::<Vec<_>>(), [false, true]);
        let mut known = Known::default();
        known.rebuilt.insert(1, steps[0].version.clone().unwrap());
        assert_eq!(decide(&all, &known).0[0].action, Action::Leave, "an earlier run did it");
        let elsewhere: Vec<Found> = all.iter().map(|one| Found { place: "database 6".to_owned(), ..one.clone() }).collect();
        assert_eq!(decide(&elsewhere, &known).0[0].action, Action::Rebuild, "but in another database");
        let newer: Vec<Found> = all.into_iter().map(|one| Found { actual: "3".to_owned(), ..one }).collect();
        assert_eq!(decide(&newer, &known).0[0].action, Action::Rebuild, "but for another version");
    }
}
