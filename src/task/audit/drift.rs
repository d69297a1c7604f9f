//! Compares the database with its schema file: the file is loaded into a scratch database, and the two are compared object by object.
//!
//! An interruption leaves the scratch database, which the job's next run drops.

use std::collections::{BTreeMap, HashSet};

use anyhow::{Context as _, Result};
use serde::Deserialize;
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};
use sqlx::PgConnection;

use super::context;
use super::context::{AuditContext, CheckResult, Row};
use super::document::Level;
use crate::base::child::Child;
use crate::pg::{self, Server};
use crate::task::backup::{facts, scratch};

/// Long enough for a schema of thousands of tables.
const LOAD_TIMEOUT: std::time::Duration = std::time::Duration::from_secs(300);

#[derive(Clone, Debug, Deserialize)]
struct Object {
    rank: u32,
    kind: String,
    name: String,
    /// The table that it belongs to: a finding about the table covers it.
    parent: Option<String>,
    definition: String,
    create: String,
    parts: Option<Value>,
}

pub async fn look(context: &AuditContext<'_>, connection: &mut PgConnection, in_recovery: bool) -> Result<CheckResult> {
    let Some(file) = &context.audit.schema_file else { return Ok(CheckResult::unknown("no schema_file is configured")) };
    if in_recovery && context.audit.scratch.is_none() {
        return Ok(CheckResult::unknown(
            "a replica cannot create a scratch database: set the job's `scratch` to a [databases] entry on another server",
        ));
    }
    if !file.is_file() {
        return Ok(CheckResult::unknown(format!("schema_file {} does not exist", file.display())));
    }
    let here = objects(connection, context).await?;
    let mut like = facts::server(connection, context.settings).await?;
    like.database.tablespace = None;
    // The login owns the scratch database. The database's owner could let itself in there, and the file's SQL runs with the login's rights.
    like.database.owner = String::new();
    let target = match &context.audit.scratch {
        Some(name) => context.config.databases.get(name).context("`scratch` is configured")?.settings()?,
        None => context.settings.clone(),
    };
    let mut maintenance = scratch::maintenance_connection(&target).await.context("for the scratch database")?;
    // A manual audit takes no lock, so an existing scratch database may belong to a run under way.
    let who = if context.is_manual { format!("by hand {}", std::process::id()) } else { context.job.to_owned() };
    let digest = hex::encode(Sha256::digest(format!("{}/{who}/{}", context.database, like.database.name)));
    let prefix = format!("pgtend_audit_{}_", &digest[..12]);
    for leftover in scratch::scratch_leftovers(&mut maintenance, &prefix).await? {
        if let Some(left) = scratch::drop_or_warn(&target, &leftover, None).await {
            tracing::warn!("{left}");
        }
    }
    let name = format!("{prefix}{}", std::process::id());
    let scratch_settings = target.with_database(&name);
    let loading = load(context, &scratch_settings, file);
    let (there, left) = scratch::with_scratch(&target, &name, &like.database, context.cancel, loading).await;
    if let Some(left) = left {
        tracing::warn!("{left}");
    }
    let there = there?;
    Ok(match there {
        Loaded::Objects(there) => CheckResult { rows: compare(&there, &here, &file.display().to_string()), unknown: Vec::new() },
        Loaded::Refused(reason) => CheckResult::unknown(reason),
    })
}

/// The result of loading a file.
enum Loaded {
    /// The objects that the file creates.
    Objects(Vec<Object>),
    /// The reason why it cannot be loaded.
    Refused(String),
}

async fn load(context: &AuditContext<'_>, scratch: &pg::Settings, file: &std::path::Path) -> Result<Loaded> {
    let mut connection = scratch.connect().await?;
    let major = Server::of(&mut connection).await?.major();
    let tools = crate::pg::client_tools::find_for_restore(context.config.tools.bin_dir.as_deref(), major).await?;
    let mut command = tools.command("psql");
    // The file is the user's own SQL: names resolve as they do in psql.
    scratch.apply_for(pg::Purpose::Application, &mut command);
    command.args(["-X", "-q", "-w", "-v", "ON_ERROR_STOP=1", "-o", "/dev/null", "-f"]).arg(file);
    let mut psql = Child::spawn(command)?;
    drop(psql.take_stdin()?);
    let ended = tokio::time::timeout(LOAD_TIMEOUT, psql.wait()).await;
    let Ok(ended) = ended else {
        return Ok(Loaded::Refused(format!("{} takes more than {} s to load", file.display(), LOAD_TIMEOUT.as_secs())));
    };
    let ended = ended?;
    if !ended.status.success() {
        let said = ended.stderr.lines().find(|line| line.contains("ERROR") || line.contains("error:")).unwrap_or(&ended.stderr);
        return Ok(Loaded::Refused(format!("{} does not load into an empty database: {said}", file.display())));
    }
    Ok(Loaded::Objects(objects(&mut connection, context).await?))
}

async fn objects(connection: &mut PgConnection, context: &AuditContext<'_>) -> Result<Vec<Object>> {
    context::begin(connection, context).await?;
    let sql = format!("SELECT to_jsonb(o) FROM (\n{}\n) o", include_str!("drift.sql"));
    let rows = pg::query(sql).fetch_all(&mut *connection).await.map_err(pg::in_its_own_words)?;
    context::end(connection).await?;
    let values: Result<Vec<Value>, sqlx::Error> = rows.iter().map(|row| sqlx::Row::try_get(row, 0)).collect();
    values?.into_iter().map(|value| serde_json::from_value(value).context("drift.sql returned unexpected columns")).collect()
}

/// Lists objects that are only in the file, only in the database, or different. A missing table is one finding that includes everything
/// that belongs to it.
fn compare(file: &[Object], database: &[Object], path: &str) -> Vec<Row> {
    let by_name = |objects: &[Object]| -> BTreeMap<(u32, String), Object> {
        // Constraints have several ranks; within a kind, a name occurs once.
        objects.iter().map(|object| ((object.rank, format!("{} {}", object.kind, object.name)), object.clone())).collect()
    };
    let names = |objects: &[Object]| -> HashSet<String> {
        objects.iter().filter(|object| object.kind == "table").map(|object| object.name.clone()).collect()
    };
    let (in_file, in_database) = (by_name(file), by_name(database));
    let (file_tables, database_tables) = (names(file), names(database));
    let is_of_another = |object: &Object, tables: &HashSet<String>| {
        object
            .parent
            .as_ref()
            .is_some_and(|parent| (file_tables.contains(parent) || database_tables.contains(parent)) && !tables.contains(parent))
    };
    let mut rows = Vec::new();
    for (key, wanted) in &in_file {
        match in_database.get(key) {
            None if is_of_another(wanted, &database_tables) => {}
            None => rows.push(Row {
                issue: Some(format!("The {} {} is in {path} and not in the database.", wanted.kind, wanted.name)),
                fix: Some(whole(wanted, file)),
                ..about(wanted)
            }),
            Some(found) if found.definition != wanted.definition => rows.push(Row {
                issue: Some(format!(
                    "The {} {} is different: {} in {path}, {} in the database.",
                    wanted.kind,
                    wanted.name,
                    shortened(&wanted.definition),
                    shortened(&found.definition)
                )),
                fix: change(wanted, found),
                level: Some(Level::Medium),
                ..about(wanted)
            }),
            Some(_) => {}
        }
    }
    for (key, found) in &in_database {
        if !in_file.contains_key(key) && !is_of_another(found, &file_tables) {
            rows.push(Row {
                issue: Some(format!("The {} {} is in the database and not in {path}.", found.kind, found.name)),
                file: Some(whole(found, database)),
                level: Some(Level::Medium),
                ..about(found)
            });
        }
    }
    rows
}

fn about(object: &Object) -> Row {
    Row {
        object: object.parent.clone().unwrap_or_else(|| object.name.clone()),
        identity: Some(format!("{} {}", object.kind, object.name)),
        evidence: json!({ "kind": object.kind, "definition": shortened(&object.definition) }).as_object().cloned(),
        ..Row::default()
    }
}

/// Returns a table with its sequences, constraints, indexes and triggers; any other object by itself.
fn whole(object: &Object, objects: &[Object]) -> String {
    if object.kind != "table" {
        return object.create.clone();
    }
    let is_of_it = |other: &&Object| {
        other.name == object.name && other.kind == "table"
            || other.parent.as_ref() == Some(&object.name) && other.kind != "column"
    };
    objects.iter().filter(is_of_it).map(|object| object.create.as_str()).collect::<Vec<_>>().join("\n")
}

/// Returns statements that change the database's object into that of the file; None where a person has to decide.
fn change(wanted: &Object, found: &Object) -> Option<String> {
    match wanted.kind.as_str() {
        "column" => change_column(wanted.parts.as_ref()?, found.parts.as_ref()?),
        "type" => add_labels(wanted, found),
        "function" | "view" => Some(wanted.create.clone()),
        "constraint" | "index" | "trigger" | "policy" | "materialized view" => {
            let drop = found.parts.as_ref()?.get("drop")?.as_str()?;
            Some(format!("{drop}\n{}", wanted.create))
        }
        _ => None,
    }
}

fn change_column(wanted: &Value, found: &Value) -> Option<String> {
    if wanted["plain"] != json!(true) || found["plain"] != json!(true) {
        return None;
    }
    let alter = format!("ALTER TABLE {} ALTER COLUMN {}", wanted["table"].as_str()?, wanted["column"].as_str()?);
    let mut statements = Vec::new();
    if wanted["type"] != found["type"] {
        statements.push(format!("{alter} TYPE {};", wanted["type"].as_str()?));
    }
    if wanted["default"] != found["default"] {
        statements.push(match wanted["default"].as_str() {
            Some(value) => format!("{alter} SET DEFAULT {value};"),
            None => format!("{alter} DROP DEFAULT;"),
        });
    }
    if wanted["not_null"] != found["not_null"] {
        statements.push(format!("{alter} {} NOT NULL;", if wanted["not_null"] == json!(true) { "SET" } else { "DROP" }));
    }
    (!statements.is_empty()).then(|| statements.join("\n"))
}

/// Labels of an enum can be added, not taken away.
fn add_labels(wanted: &Object, found: &Object) -> Option<String> {
    let labels =
        |object: &Object| -> Option<Vec<String>> { serde_json::from_value(object.parts.as_ref()?.get("labels")?.clone()).ok() };
    let (wanted_labels, found_labels) = (labels(wanted)?, labels(found)?);
    let kept: Vec<&String> = wanted_labels.iter().filter(|label| found_labels.contains(label)).collect();
    if kept.len() < found_labels.len() || !kept.iter().zip(&found_labels).all(|(a, b)| *a == b) {
        return None;
    }
    let mut statements = Vec::new();
    for (index, label) in wanted_labels.iter().enumerate().filter(|(_, label)| !found_labels.contains(label)) {
        let place = match index.checked_sub(1) {
            Some(before) => format!("AFTER {}", pg::literal(&wanted_labels[before])),
            None => match found_labels.first() {
                Some(first) => format!("BEFORE {}", pg::literal(first)),
                None => String::new(),
            },
        };
        statements.push(format!("ALTER TYPE {} ADD VALUE {} {place};", wanted.name, pg::literal(label)));
    }
    Some(statements.join("\n"))
}

fn shortened(definition: &str) -> String {
    let line = definition.split_whitespace().collect::<Vec<_>>().join(" ");
    match line.char_indices().nth(160) {
        Some((end, _)) => format!("{}…", &line[..end]),
        None => line,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn object(kind: &str, name: &str, parent: Option<&str>, definition: &str) -> Object {
        Object {
            rank: 1,
            kind: kind.to_owned(),
            name: name.to_owned(),
            parent: parent.map(str::to_owned),
            definition: definition.to_owned(),
            create: format!("CREATE {kind} {name};"),
            parts: None,
        }
    }

    #[test]
    fn a_missing_table_is_one_finding_in_either_direction() {
        let table =
            [object("table", "a", None, ""), object("column", "a.x", Some("a"), "int"), object("index", "a_x", Some("a"), "x")];
        let rows = compare(&table, &[], "schema.sql");
        assert_eq!(rows.len(), 1);
        assert_eq!(rows[0].fix.as_deref(), Some("CREATE table a;\nCREATE index a_x;"));
        let rows = compare(&[], &table, "schema.sql");
        assert_eq!(rows.len(), 1);
        assert!(rows[0].fix.is_none() && rows[0].file.is_some(), "nothing is dropped");
    }

    #[test]
    fn equal_schemas_have_no_drift_and_a_column_can_be_missing_on_either_side() {
        let table = object("table", "a", None, "");
        let with = |columns: &[&str]| -> Vec<Object> {
            std::iter::once(table.clone()).chain(columns.iter().map(|name| object("column", name, Some("a"), "int"))).collect()
        };
        assert!(compare(&with(&["a.x"]), &with(&["a.x"]), "f").is_empty());
        let rows = compare(&with(&["a.x", "a.y"]), &with(&["a.x", "a.z"]), "f");
        let identities: Vec<_> = rows.iter().map(|row| row.identity.clone().unwrap()).collect();
        assert_eq!(identities, ["column a.y", "column a.z"]);
    }

    #[test]
    fn labels_are_added_at_their_place_and_never_taken_away() {
        let labels = |labels: &[&str]| Object {
            parts: Some(json!({ "labels": labels })),
            ..object("type", "mood", None, &labels.join(","))
        };
        let added = add_labels(&labels(&["sad", "ok", "glad"]), &labels(&["sad", "glad"]));
        assert_eq!(added.as_deref(), Some("ALTER TYPE mood ADD VALUE E'ok' AFTER E'sad';"));
        assert_eq!(add_labels(&labels(&["sad"]), &labels(&["sad", "glad"])), None);
    }
}
