//! The trigger functions: one on the view that passes a write on to the table, and one on the table for direct writes.
//!
//! They run with the writer's own search_path, as the table's other triggers must: so each name is qualified, and rows are
//! compared as images, which needs no operator of a type.

use super::table::{Column, Table};
use crate::pg::{identifier, literal};

/// The number of attempts to write a row that others write to. A batch of ours changes it once.
const ATTEMPTS: u32 = 10;

/// Returns the function of the table's own triggers. A text that is set replaces the compressed form; if the same statement also sets
/// a compressed form, the constraint refuses the row. A text that is set to NULL where there is a compressed form was NULL before:
/// a statement that wrote `content || 'x'`, or wrote back what it had read, did not see the text. The triggers call it in these two
/// cases only.
pub fn guard(table: &Table) -> String {
    let (gz, hash) = (table.gz(), table.hash());
    let body = format!(
        "BEGIN
    IF NOT ROW(NEW.{gz}, NEW.{hash})::pg_catalog.record OPERATOR(pg_catalog.*=) ROW(OLD.{gz}, OLD.{hash})::pg_catalog.record THEN
        RETURN NEW;
    END IF;
    IF NEW.{content} IS NULL THEN
        RAISE EXCEPTION 'column % of %.% is NULL in this row as its text is compressed: nothing was written', {said}, TG_TABLE_SCHEMA, TG_TABLE_NAME
            USING ERRCODE = 'object_not_in_prerequisite_state',
                  HINT = {hint};
    END IF;
    NEW.{gz} := NULL;
    NEW.{hash} := NULL;
    RETURN NEW;
END",
        content = table.content(),
        said = literal(&table.text_column.name),
        hint = literal(&format!(
            "Update {}, which shows the text; or leave the column out; or, to delete the text, set {gz} and {hash} to NULL, too.",
            table.view_sql()
        )),
    );
    format!("CREATE OR REPLACE FUNCTION {}() RETURNS trigger LANGUAGE plpgsql AS {}", table.function("guard"), literal(&body))
}

/// Returns the function of the view's trigger. A view's row is as old as its statement: for a plain table the server looks again at a
/// row that was changed meanwhile, and a trigger cannot. Where it would write over such a change, it fails as a transaction of a
/// stricter isolation level would.
///
/// It takes no lock on a row before it writes: a lock needs UPDATE, and passes by the policies for DELETE. It writes only to the
/// version that it has compared; if that is gone, it looks again, because a batch of ours may have replaced it.
///
/// It calls no function but those of pg_catalog, and writes to no table but the one that the view reads: it looks in each attempt, and again at what was
/// written.
pub fn write(table: &Table, stored: &str) -> String {
    format!(
        "CREATE OR REPLACE FUNCTION {}() RETURNS trigger LANGUAGE plpgsql AS {}",
        table.function("write"),
        literal(&write_source(table, stored))
    )
}

/// Returns what the server has as the source of that function.
pub fn write_source(table: &Table, stored: &str) -> String {
    let content = table.content();
    let visible: Vec<&Column> = table.visible().collect();
    let others: Vec<&Column> = visible.iter().copied().filter(|column| column.name != table.text_column.name).collect();
    let keys = table.key.as_ref().map(|key| key.columns.clone()).unwrap_or_default();
    let same_key: Vec<String> = keys.iter().map(|key| format!("b.{0} OPERATOR(pg_catalog.=) OLD.{0}", identifier(key))).collect();
    let set: Vec<String> = others
        .iter()
        .filter(|column| !column.is_generated && column.identity != "a")
        .map(|column| format!("{0} = NEW.{0}", identifier(&column.name)))
        .collect();
    let set_text = [&set[..], &[format!("{content} = NEW.{content}, {} = NULL, {} = NULL", table.gz(), table.hash())]].concat();
    // Naming the text would be writing it (guard).
    let set_others = if set.is_empty() { vec![format!("{0} = b.{0}", table.gz())] } else { set };
    let body = format!(
        include_str!("write.sql"),
        inserts = insert(table, stored),
        attempts = ATTEMPTS,
        same_key = same_key.join(" AND "),
        // By its place: should the key be dropped one day, no other row with that key is touched. And by its writer: if another
        // session changes it while this one waits for that, the server compares again, and finds another writer.
        this = "b.ctid OPERATOR(pg_catalog.=) stored.pgtend_ctid AND b.xmin OPERATOR(pg_catalog.=) stored.pgtend_xmin",
        stored = stored,
        stored_name = literal(stored),
        stored_others = names(&others, "stored."),
        old_others = names(&others, "OLD."),
        content = content,
        gz = table.gz(),
        hash = table.hash(),
        old_bytes = table.bytes_of(&format!("OLD.{content}")),
        always = refuse_generated_always(&visible),
        set_others = set_others.join(", "),
        set_text = set_text.join(", "),
        returned_others = returned(table, "pgtend_text"),
        returned_text = returned(table, &format!("b.{content}")),
        into = names(&visible, "NEW."),
    );
    body.trim_end().to_owned()
}

/// Returns the statements of an INSERT. An identity column without a value is left to the table's sequence.
fn insert(table: &Table, stored: &str) -> String {
    let visible: Vec<&Column> = table.visible().collect();
    let into = names(&visible, "NEW.");
    let returned = returned(table, &format!("b.{}", table.content()));
    let insert = |columns: &[&Column]| {
        let values = match columns.is_empty() {
            true => "DEFAULT VALUES".to_owned(),
            false => format!("({}) VALUES ({})", names(columns, ""), names(columns, "NEW.")),
        };
        format!("INSERT INTO {stored} AS b {values} RETURNING {returned}, b.tableoid INTO {into}, written;")
    };
    let given: Vec<&Column> = visible.iter().copied().filter(|column| !column.is_generated).collect();
    match visible.iter().find(|column| !column.identity.is_empty()) {
        None => insert(&given),
        Some(identity) => {
            let without: Vec<&Column> = given.iter().copied().filter(|column| column.name != identity.name).collect();
            format!("IF NEW.{} IS NULL THEN {} ELSE {} END IF;", identifier(&identity.name), insert(&without), insert(&given))
        }
    }
}

/// Returns a statement that refuses, as a table does, another value for a GENERATED ALWAYS identity column; empty without one.
fn refuse_generated_always(columns: &[&Column]) -> String {
    let identity = columns.iter().find(|column| !column.identity.is_empty()).filter(|column| column.identity == "a");
    let Some(identity) = identity else { return String::new() };
    let (name, said) = (identifier(&identity.name), literal(&identity.name));
    format!(
        "IF ROW(NEW.{name})::pg_catalog.record OPERATOR(pg_catalog.*<>) ROW(OLD.{name})::pg_catalog.record THEN
            RAISE EXCEPTION 'column % can only be updated to DEFAULT', {said} USING ERRCODE = 'generated_always';
        END IF;"
    )
}

fn names(columns: &[&Column], of: &str) -> String {
    columns.iter().map(|column| format!("{of}{}", identifier(&column.name))).collect::<Vec<_>>().join(", ")
}

/// Returns the columns of RETURNING in the order of the view's, with `text` for the compressed one.
fn returned(table: &Table, text: &str) -> String {
    let columns = table.visible().map(|column| match column.name == table.text_column.name {
        true => text.to_owned(),
        false => format!("b.{}", identifier(&column.name)),
    });
    columns.collect::<Vec<_>>().join(", ")
}
