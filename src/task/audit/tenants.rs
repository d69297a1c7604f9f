//! The same finding in many schemas, one for each tenant, is one: pure.

use std::collections::BTreeMap;

use serde_json::json;

use super::context::Row;
use super::document::{Level, Weight};

/// This many schemas with the same finding are tenants.
const SCHEMAS_TO_FOLD: usize = 10;
const SQL_OF_FOLDED: usize = 50;

/// Merges the same finding in many schemas (one for each tenant) into one: its identity has `*` for the schema, and its SQL covers all. A row stays by
/// itself where `stays` says so of its identity and of the one that all would have.
pub fn fold(check: &str, rows: Vec<Row>, stays: impl Fn(&str, &str) -> bool) -> Vec<Row> {
    let mut folded: BTreeMap<(Option<Level>, String), Vec<Row>> = BTreeMap::new();
    let mut kept = Vec::new();
    for row in rows {
        let identity = row.identity();
        let rest = match check {
            "comments-missing" => Some(""), // its object is the schema
            _ => after_schema(identity),
        };
        match rest.filter(|rest| !stays(identity, &format!("*{rest}"))).map(str::to_owned) {
            Some(rest) => folded.entry((row.level, rest)).or_default().push(row),
            None => kept.push(row),
        }
    }
    for ((_, rest), mut same) in folded {
        if same.len() < SCHEMAS_TO_FOLD {
            kept.append(&mut same);
            continue;
        }
        same.sort_by(|a, b| a.object.cmp(&b.object));
        let count = same.len();
        let all = |of: fn(&Row) -> Option<&str>| {
            let parts: Vec<&str> = same.iter().filter_map(of).take(SQL_OF_FOLDED).collect();
            let more =
                if count > SQL_OF_FOLDED { format!("\n-- and so on, in {} more", count - SQL_OF_FOLDED) } else { String::new() };
            (!parts.is_empty()).then(|| parts.join("\n") + &more)
        };
        let fix = all(|row| row.fix.as_deref());
        let draft = all(|row| row.draft.as_deref());
        let weight = same.iter().filter_map(|row| row.weight).reduce(sum);
        let schemas: Vec<String> = same.iter().map(|row| row.object.clone()).take(SQL_OF_FOLDED).collect();
        let mut first = same.swap_remove(0);
        first.issue = Some(format!("{} The same holds in {} other schemas.", first.issue.unwrap_or_default(), count - 1));
        first.evidence.get_or_insert_default().insert("in".to_owned(), json!(schemas));
        first.fix = fix;
        first.draft = draft;
        first.weight = weight;
        first.identity = Some(format!("*{rest}"));
        first.object = format!("*{}", after_schema(&first.object).unwrap_or_default());
        kept.push(first);
    }
    kept
}

fn sum(one: Weight, other: Weight) -> Weight {
    Weight {
        bytes: one.bytes.saturating_add(other.bytes),
        rows: one.rows.saturating_add(other.rows),
        calls: one.calls.saturating_add(other.calls),
    }
}

/// Returns the part after the schema in `schema.table…`, with its dot; a quoted schema may contain dots. None where there is no schema.
pub fn after_schema(name: &str) -> Option<&str> {
    let end = match name.strip_prefix('"') {
        None => name.find('.')?,
        Some(quoted) => 2 + quoted.replace("\"\"", "..").find('"')?,
    };
    let is_name = name[..end].chars().all(|letter| letter != ' ' && letter != '(') || name.starts_with('"');
    name.get(end..).filter(|rest| is_name && rest.starts_with('.'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_follows_the_schema_is_found_in_plain_and_quoted_names() {
        assert_eq!(after_schema("public.orders(user_id)"), Some(".orders(user_id)"));
        assert_eq!(after_schema(r#""a.""b".orders"#), Some(".orders"));
        for without in ["server", "role x.y", "max_connections", r#""open"#, "f(a.b)"] {
            assert_eq!(after_schema(without), None, "{without}");
        }
    }

    #[test]
    fn the_same_finding_in_ten_schemas_is_one_with_the_sql_of_all() {
        let row = |schema: usize, table: &str| Row {
            object: format!("t{schema:02}.{table}"),
            issue: Some("It.".to_owned()),
            fix: Some(format!("FIX {schema};")),
            ..Row::default()
        };
        let nine: Vec<Row> = (0..9).map(|schema| row(schema, "users")).collect();
        assert_eq!(fold("c", nine, |_, _| false).len(), 9);
        let rows = (0..10).map(|schema| row(schema, "users")).chain([row(0, "docs")]).collect();
        let folded = fold("c", rows, |_, _| false);
        let identities: Vec<_> = folded.iter().map(Row::identity).collect();
        assert_eq!(identities, ["t00.docs", "*.users"]);
        assert_eq!(folded[1].fix.as_deref().unwrap().lines().count(), 10);
        assert!(folded[1].issue.as_deref().unwrap().contains("9 other schemas"));
        let eleven = (0..11).map(|schema| row(schema, "users")).collect();
        let folded = fold("c", eleven, |identity, folded| identity == "t03.users" && folded == "*.users");
        let identities: Vec<_> = folded.iter().map(Row::identity).collect();
        assert_eq!(identities, ["t03.users", "*.users"], "one stays by itself");
    }
}
