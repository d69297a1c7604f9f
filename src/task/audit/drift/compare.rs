//! Compares the objects of two schemas, both ways: pure.

use std::collections::{BTreeMap, HashSet};

use serde_json::{Map, Value, json};

use super::super::context::Row;
use super::super::document::Level;
use super::object::{ORDER, Object, Scope, add_labels, entries, granting};

/// These own others, whose absence their own absence explains.
const PARENTS: [&str; 6] = ["table", "partition", "foreign table", "view", "materialized view", "type"];
/// A change of their definition drops them and creates them again.
const REPLACED: [&str; 7] = ["constraint", "index", "trigger", "rule", "policy", "statistics", "event trigger"];
/// They change nothing that a query returns, nor who may ask it: but `SELECT *`, by its order.
const HARMLESS: [&str; 7] = ["comment", "comments of checks", "statistics", "target", "storage", "compression", ORDER];
/// What keeps rows from being seen, or from being wrong.
const GUARDS: [&str; 4] = ["row security", "forced row security", "enabled", "triggers"];
const LONGEST: usize = 160;
const SQL_OF_PARTITIONS: usize = 50;

/// Lists objects that are only in the file, only in the database, or different. A missing table is one finding that includes everything
/// that belongs to it; missing partitions of one table are one.
pub fn compare(file: &[Object], database: &[Object], path: &str, scope: &Scope) -> Vec<Row> {
    let (in_file, in_database) = (by_name(file, scope), by_name(database, scope));
    let (file_parents, database_parents) = (parents(file), parents(database));
    let is_of_another = |object: &Object, there: &HashSet<&str>| {
        let parent = object.parent.as_deref();
        parent
            .is_some_and(|parent| (file_parents.contains(parent) || database_parents.contains(parent)) && !there.contains(parent))
    };
    let mut rows = Vec::new();
    let mut missing = Vec::new();
    let mut unknown = Vec::new();
    for (key, wanted) in &in_file {
        match in_database.get(key) {
            Some(found) => rows.extend(difference(wanted, found, path, scope)),
            None if wanted.is_inner || scope.is_made_by_job(wanted) || is_of_another(wanted, &database_parents) => {}
            None => missing.push(*wanted),
        }
    }
    for (key, found) in &in_database {
        let is_explained = found.is_inner || scope.is_made_by_job(found) || is_of_another(found, &file_parents);
        if !in_file.contains_key(key) && !is_explained {
            unknown.push(*found);
        }
    }
    for together in grouped(missing) {
        let fix = whole(&together, file, scope);
        rows.push(Row {
            issue: Some(sentence(&together, &format!("in {path} and not in the database"))),
            fix,
            ..about(&together)
        });
    }
    for together in grouped(unknown) {
        let lacks = whole(&together, database, scope);
        let issue = sentence(&together, &format!("in the database and not in {path}"));
        rows.push(Row { issue: Some(issue), file: lacks, level: Some(Level::Medium), ..about(&together) });
    }
    rows
}

/// Within a kind, a name occurs once.
fn by_name<'a>(objects: &'a [Object], scope: &Scope) -> BTreeMap<(u32, String), &'a Object> {
    let compared = objects.iter().filter(|object| scope.has_object(object));
    compared.map(|object| ((object.rank, format!("{} {}", object.kind, object.name)), object)).collect()
}

fn parents(objects: &[Object]) -> HashSet<&str> {
    objects.iter().filter(|object| PARENTS.contains(&object.kind.as_str())).map(|object| object.name.as_str()).collect()
}

/// Puts partitions of one table together; every other object stands alone.
fn grouped(objects: Vec<&Object>) -> Vec<Vec<&Object>> {
    let mut groups: Vec<Vec<&Object>> = Vec::new();
    let mut of_root: BTreeMap<&str, usize> = BTreeMap::new();
    for object in objects {
        let root = object.parent.as_deref().filter(|_| object.kind == "partition");
        match root.and_then(|root| of_root.get(root)) {
            Some(place) => groups[*place].push(object),
            None => {
                of_root.extend(root.map(|root| (root, groups.len())));
                groups.push(vec![object]);
            }
        }
    }
    groups
}

fn sentence(together: &[&Object], which: &str) -> String {
    let first = together[0];
    match (together, &first.parent) {
        ([_, _, ..], Some(root)) => {
            let names: Vec<&str> = together.iter().take(5).map(|object| object.name.as_str()).collect();
            let more = if together.len() > names.len() { ", …" } else { "" };
            format!("{} partitions of {root} are {which}: {}{more}.", together.len(), names.join(", "))
        }
        _ => format!("The {} {} is {which}.", first.kind, first.name),
    }
}

fn about(together: &[&Object]) -> Row {
    let first = together[0];
    let identity = match (together, &first.parent) {
        ([_, _, ..], Some(root)) => format!("partitions of {root}"),
        _ => format!("{} {}", first.kind, first.name),
    };
    Row {
        object: first.parent.clone().unwrap_or_else(|| first.name.clone()),
        identity: Some(identity),
        evidence: json!({ "kind": first.kind, "objects": together.len() }).as_object().cloned(),
        ..Row::default()
    }
}

/// Returns the statements for objects with all that belongs to them; None where a person has to write one.
fn whole(together: &[&Object], objects: &[Object], scope: &Scope) -> Option<String> {
    let mut statements = Vec::new();
    for object in together.iter().take(SQL_OF_PARTITIONS) {
        if !PARENTS.contains(&object.kind.as_str()) {
            statements.push(object.creating(scope)?);
            continue;
        }
        let is_of_it = |other: &&Object| {
            let is_itself = other.name == object.name && other.kind == object.kind;
            is_itself || other.parent.as_ref() == Some(&object.name)
        };
        let parts: Vec<&Object> = objects.iter().filter(is_of_it).collect();
        object.create.as_ref()?;
        let is_made = |part: &&&Object| part.kind != "column" && !part.is_inner;
        statements.extend(parts.iter().filter(is_made).filter_map(|part| part.create.clone()));
        statements.extend(parts.iter().flat_map(|part| part.setting(scope)));
    }
    if together.len() > SQL_OF_PARTITIONS {
        statements.push(format!("-- and so on, for {} more", together.len() - SQL_OF_PARTITIONS));
    }
    Some(statements.join("\n"))
}

fn difference(wanted: &Object, found: &Object, path: &str, scope: &Scope) -> Option<Row> {
    let facts = wanted.differing(found, scope);
    if facts.is_empty() {
        return None;
    }
    let said: Vec<String> = facts.iter().map(|fact| said(fact, wanted.fact(fact), found.fact(fact), path)).collect();
    let differs: Map<String, Value> = facts
        .iter()
        .map(|fact| {
            let (file, database) = excerpts(&shown(wanted.fact(fact)), &shown(found.fact(fact)));
            ((*fact).to_owned(), json!({ "file": file, "database": database }))
        })
        .collect();
    let mut row = about(&[wanted]);
    row.evidence = json!({ "kind": wanted.kind, "differs": differs }).as_object().cloned();
    row.issue = Some(format!("The {} {} is different: {}.", wanted.kind, wanted.name, said.join("; ")));
    row.level = Some(level(&wanted.kind, &facts, found));
    row.fix = change(wanted, found, &facts, scope);
    if facts == [ORDER] {
        row.fix = None;
        row.decide = Some(
            "whether anything takes columns by their place: SELECT *, INSERT or COPY without a list of columns. No statement changes their order. \
             If nothing does, write it in the file as it is here; if something does, the table has to be made again."
                .to_owned(),
        );
    }
    Some(row)
}

fn level(kind: &str, facts: &[&str], found: &Object) -> Level {
    let is_guard = |fact: &&str| GUARDS.contains(fact) || *fact == "unlogged" && *found.fact(fact) == json!(true);
    if facts.iter().all(|fact| HARMLESS.contains(fact)) {
        Level::Low
    } else if kind == "policy" || facts.iter().any(is_guard) {
        Level::High
    } else {
        Level::Medium
    }
}

/// Returns statements that change the database's object into that of the file; None where a person has to decide.
fn change(wanted: &Object, found: &Object, facts: &[&str], scope: &Scope) -> Option<String> {
    let mut statements: Vec<String> = Vec::new();
    for fact in facts.iter().filter(|fact| **fact != ORDER) {
        let more = match (*fact, &wanted.granted) {
            ("grants", Some(granted)) => granting(granted, &entries(wanted.fact(fact)), &entries(found.fact(fact)))?,
            ("labels", _) => vec![add_labels(wanted, found)?],
            _ => vec![wanted.sets.get(*fact)?.clone()?],
        };
        statements.extend(more);
    }
    let is_replaced = REPLACED.contains(&wanted.kind.as_str())
        && (facts.contains(&"definition") || wanted.kind == "policy" && facts.iter().any(|fact| *fact != "comment"));
    if is_replaced {
        statements.extend(wanted.sets.get("enabled").cloned().flatten());
        statements.extend(wanted.setting(scope));
    }
    let mut seen = HashSet::new();
    statements.retain(|statement| seen.insert(statement.clone()));
    Some(statements.join("\n"))
}

/// Says what differs in one fact.
fn said(fact: &str, wanted: &Value, found: &Value, path: &str) -> String {
    if fact == "grants" {
        let (wanted, found) = (entries(wanted), entries(found));
        let only = |these: &[&str], those: &[&str]| -> String {
            these.iter().filter(|entry| !those.contains(entry)).copied().collect::<Vec<_>>().join(", ")
        };
        let (lacks, more) = (only(&wanted, &found), only(&found, &wanted));
        let lacks = (!lacks.is_empty()).then(|| format!("{lacks} is only in {path}"));
        let more = (!more.is_empty()).then(|| format!("{more} is only in the database"));
        return lacks.into_iter().chain(more).collect::<Vec<_>>().join(", ");
    }
    let (wanted, found) = match (wanted.as_object(), found.as_object()) {
        (Some(wanted), Some(found)) => (only_different(wanted, found), only_different(found, wanted)),
        _ => (shown(wanted), shown(found)),
    };
    let (wanted, found) = excerpts(&wanted, &found);
    format!("{fact}: {wanted} in {path}, {found} in the database")
}

fn only_different(these: &Map<String, Value>, those: &Map<String, Value>) -> String {
    let different = these.iter().filter(|(name, value)| those.get(*name) != Some(value));
    different.map(|(name, value)| format!("{name} {}", shown(value))).collect::<Vec<_>>().join(", ")
}

fn shown(value: &Value) -> String {
    match value {
        Value::Null => "none".to_owned(),
        Value::String(text) => text.split_whitespace().collect::<Vec<_>>().join(" "),
        Value::Array(list) => list.iter().map(shown).collect::<Vec<_>>().join(", "),
        other => other.to_string(),
    }
}

/// Shortens two long texts to the places where they differ.
fn excerpts(one: &str, other: &str) -> (String, String) {
    let same = one.chars().zip(other.chars()).take_while(|(a, b)| a == b).count();
    let skipped = if one.chars().count().max(other.chars().count()) > LONGEST { same.saturating_sub(LONGEST / 4) } else { 0 };
    let cut = |text: &str| {
        let rest: String = text.chars().skip(skipped).take(LONGEST).collect();
        let before = if skipped > 0 { "…" } else { "" };
        let after = if text.chars().count() > skipped + LONGEST { "…" } else { "" };
        format!("{before}{rest}{after}")
    };
    (cut(one), cut(other))
}

#[cfg(test)]
mod tests {
    use std::sync::LazyLock;

    use super::*;

    static ALL: LazyLock<Scope> = LazyLock::new(|| Scope { owners: true, grants: true, ..Scope::default() });

    fn object(kind: &str, name: &str, parent: Option<&str>, facts: Value) -> Object {
        Object {
            rank: 1,
            kind: kind.to_owned(),
            name: name.to_owned(),
            parent: parent.map(str::to_owned),
            facts: facts.as_object().unwrap().clone().into_iter().collect(),
            create: Some(format!("CREATE {kind} {name};")),
            ..Object::default()
        }
    }

    fn identities(rows: &[Row]) -> Vec<&str> {
        rows.iter().map(|row| row.identity.as_deref().unwrap()).collect()
    }

    #[test]
    fn a_missing_table_is_one_finding_in_either_direction() {
        let of_a = |kind: &str, name: &str| object(kind, name, Some("a"), json!({}));
        let table = [object("table", "a", None, json!({})), of_a("column", "a.x"), of_a("index", "a_x")];
        let rows = compare(&table, &[], "schema.sql", &ALL);
        assert_eq!(rows.len(), 1);
        assert_eq!(rows[0].fix.as_deref(), Some("CREATE table a;\nCREATE index a_x;"));
        let rows = compare(&[], &table, "schema.sql", &ALL);
        assert_eq!(rows.len(), 1);
        assert!(rows[0].fix.is_none() && rows[0].file.is_some(), "nothing is dropped");
    }

    #[test]
    fn equal_schemas_have_no_drift_and_a_column_can_be_missing_on_either_side() {
        let with = |columns: &[&str]| -> Vec<Object> {
            let columns = columns.iter().map(|name| object("column", name, Some("a"), json!({ "type": "int" })));
            std::iter::once(object("table", "a", None, json!({}))).chain(columns).collect()
        };
        assert!(compare(&with(&["a.x"]), &with(&["a.x"]), "f", &ALL).is_empty());
        let rows = compare(&with(&["a.x", "a.y"]), &with(&["a.x", "a.z"]), "f", &ALL);
        assert_eq!(identities(&rows), ["column a.y", "column a.z"]);
    }

    #[test]
    fn partitions_of_one_table_are_one_finding_and_none_where_a_job_makes_them() {
        let partition = |name: &str| object("partition", name, Some("logs"), json!({ "bound": name }));
        let table = object("table", "logs", None, json!({}));
        let (file, database) = ([table.clone(), partition("a")], [table, partition("b"), partition("c")]);
        let rows = compare(&file, &database, "f", &ALL);
        assert_eq!(identities(&rows), ["partition a", "partitions of logs"]);
        let by_job = Scope { partitioned_by_jobs: HashSet::from(["logs".to_owned()]), ..Scope::default() };
        assert!(compare(&file, &database, "f", &by_job).is_empty());
    }

    #[test]
    fn what_comes_with_another_object_is_compared_and_never_missing() {
        let inner = |value: &str| Object { is_inner: true, ..object("trigger", "t", None, json!({ "enabled": value })) };
        assert!(compare(&[inner("ENABLE")], &[], "f", &ALL).is_empty());
        let rows = compare(&[inner("ENABLE")], &[inner("DISABLE")], "f", &ALL);
        assert_eq!((identities(&rows), rows[0].level), (vec!["trigger t"], Some(Level::High)));
    }

    #[test]
    fn the_level_is_that_of_the_worst_fact() {
        for (kind, before, after, level) in [
            ("table", json!({ "comment": "a" }), json!({ "comment": "b" }), Level::Low),
            ("table", json!({ "row security": true }), json!({ "row security": false }), Level::High),
            ("table", json!({ "unlogged": false }), json!({ "unlogged": true }), Level::High),
            ("table", json!({ "unlogged": true }), json!({ "unlogged": false }), Level::Medium),
            ("policy", json!({ "USING": "x" }), json!({ "USING": "y" }), Level::High),
            ("column", json!({ "storage": "MAIN", "type": "text" }), json!({ "type": "int" }), Level::Medium),
        ] {
            let rows = compare(&[object(kind, "x", None, before)], &[object(kind, "x", None, after.clone())], "f", &ALL);
            assert_eq!(rows[0].level, Some(level), "{kind} {after}");
        }
    }

    #[test]
    fn owners_and_rights_are_compared_where_the_file_has_some() {
        let with = |owner: &str, grants: Value| [object("table", "a", None, json!({ "owner": owner, "grants": grants }))];
        let (file, database) = (with("me", json!([])), with("app", json!(["SELECT TO x"])));
        assert!(compare(&file, &database, "f", &Scope::default()).is_empty());
        let rows = compare(&file, &database, "f", &ALL);
        let issue = rows[0].issue.as_deref().unwrap();
        assert!(issue.contains("SELECT TO x is only in the database; owner: me in f, app in the database"), "{issue}");
    }

    #[test]
    fn long_texts_are_shown_where_they_differ() {
        let long = |end: &str| format!("{}{end}", "x ".repeat(300));
        let (one, other) = excerpts(&long("here"), &long("there"));
        assert!(one.ends_with("here") && other.ends_with("there") && one.starts_with('…') && one.len() < 200, "{one}");
    }
}
