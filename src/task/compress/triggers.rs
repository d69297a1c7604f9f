//! What writers meet: triggers on the view that pass a write on to the table, and one on the table for those who go there.
//!
//! They run with the writer's own search_path, as the table's other triggers have to: so each name is spelled out, and rows
//! are compared as images, which asks for no operator of a type.

use super::table::{Column, Table};
use crate::pg::{identifier, literal};

/// On the table: text that is set takes the place of a compressed form. Its trigger asks for it only where both are there. A
/// form that was set in the same statement contradicts it, and is left for the constraint to refuse.
pub fn guard(table: &Table) -> String {
    let (gz, hash) = (table.gz(), table.hash());
    let body = format!(
        "BEGIN
    IF ROW(NEW.{gz}, NEW.{hash})::pg_catalog.record OPERATOR(pg_catalog.*=) ROW(OLD.{gz}, OLD.{hash})::pg_catalog.record THEN
        NEW.{gz} := NULL;
        NEW.{hash} := NULL;
    END IF;
    RETURN NEW;
END"
    );
    format!("CREATE OR REPLACE FUNCTION {}() RETURNS trigger LANGUAGE plpgsql AS {}", table.function("guard"), literal(&body))
}

/// On the view. A view's row is as old as its statement: plain tables look again at a row that somebody changed meanwhile, a
/// trigger cannot. Where it would write over that change, it fails as a transaction of a stricter isolation level would.
pub fn write(table: &Table, stored: &str) -> String {
    let content = table.content();
    let visible: Vec<&Column> = table.visible().collect();
    let names = |columns: &[&Column], of: &str| {
        columns.iter().map(|column| format!("{of}{}", identifier(&column.name))).collect::<Vec<_>>().join(", ")
    };
    let others: Vec<&Column> = visible.iter().copied().filter(|column| column.name != table.body.name).collect();
    let given: Vec<&Column> = visible.iter().copied().filter(|column| !column.is_generated).collect();
    let settable: Vec<&Column> = others.iter().copied().filter(|column| !column.is_generated && column.identity != "a").collect();
    let identity = visible.iter().copied().find(|column| !column.identity.is_empty());
    let keys = table.key.as_ref().map(|key| key.columns.clone()).unwrap_or_default();
    let same_key = |of: &str| {
        keys.iter().map(|key| format!("b.{0} OPERATOR(pg_catalog.=) {of}.{0}", identifier(key))).collect::<Vec<_>>().join(" AND ")
    };
    let returned = |body: &str| {
        let columns = visible.iter().map(|column| match column.name == table.body.name {
            true => body.to_owned(),
            false => format!("b.{}", identifier(&column.name)),
        });
        columns.collect::<Vec<_>>().join(", ")
    };
    let into = names(&visible, "NEW.");

    let insert = |columns: &[&Column]| {
        let values = match columns.is_empty() {
            true => "DEFAULT VALUES".to_owned(),
            false => format!("({}) VALUES ({})", names(columns, ""), names(columns, "NEW.")),
        };
        format!("INSERT INTO {stored} AS b {values} RETURNING {} INTO {into};", returned(&format!("b.{content}")))
    };
    let inserts = match identity {
        None => insert(&given),
        Some(identity) => {
            let without: Vec<&Column> = given.iter().copied().filter(|column| column.name != identity.name).collect();
            format!("IF NEW.{} IS NULL THEN {} ELSE {} END IF;", identifier(&identity.name), insert(&without), insert(&given))
        }
    };
    let always = match identity.filter(|identity| identity.identity == "a") {
        Some(identity) => {
            let (name, said) = (identifier(&identity.name), literal(&identity.name));
            format!(
                "IF ROW(NEW.{name})::pg_catalog.record OPERATOR(pg_catalog.*<>) ROW(OLD.{name})::pg_catalog.record THEN
            RAISE EXCEPTION 'column %% can only be updated to DEFAULT', {said} USING ERRCODE = 'generated_always';
        END IF;"
            )
            .replace("%%", "%")
        }
        None => String::new(),
    };
    let set: Vec<String> = settable.iter().map(|column| format!("{0} = NEW.{0}", identifier(&column.name))).collect();
    let set_text = [&set[..], &[format!("{content} = NEW.{content}, {} = NULL, {} = NULL", table.gz(), table.hash())]].concat();
    let set_others = if set.is_empty() { vec![format!("{content} = b.{content}")] } else { set };
    let body = format!(
        "#variable_conflict use_variable
DECLARE
    stored record;
    same boolean;
    pgtend_text text;
BEGIN
    IF TG_OP = 'INSERT' THEN
        {inserts}
        IF NOT FOUND THEN RETURN NULL; END IF;
        RETURN NEW;
    END IF;

    IF TG_OP = 'DELETE' THEN
        SELECT b.*, b.xmin AS pgtend_xmin, b.ctid AS pgtend_ctid INTO stored FROM ONLY {stored} b WHERE {same_key} FOR UPDATE;
    ELSE
        SELECT b.*, b.xmin AS pgtend_xmin, b.ctid AS pgtend_ctid INTO stored FROM ONLY {stored} b WHERE {same_key} FOR NO KEY UPDATE;
    END IF;
    -- Somebody deleted it meanwhile.
    IF NOT FOUND THEN RETURN NULL; END IF;
    same := ROW({stored_others})::pg_catalog.record OPERATOR(pg_catalog.*=) ROW({old_others})::pg_catalog.record;
    IF stored.{gz} IS NULL THEN
        same := same AND ROW(stored.{content})::pg_catalog.record OPERATOR(pg_catalog.*=) ROW(OLD.{content})::pg_catalog.record;
    ELSE
        same := same AND OLD.{content} IS NOT NULL AND ROW(pg_catalog.sha256({old_bytes}))::pg_catalog.record OPERATOR(pg_catalog.*=) ROW(stored.{hash})::pg_catalog.record;
    END IF;
    IF NOT same THEN
        -- By this very statement: then once is enough, as with a table.
        IF ROW(stored.pgtend_xmin)::pg_catalog.record OPERATOR(pg_catalog.*=) ROW(pg_catalog.pg_current_xact_id_if_assigned()::pg_catalog.xid)::pg_catalog.record THEN
            RETURN NULL;
        END IF;
        RAISE EXCEPTION 'could not serialize access: the row of view %.% was changed by another transaction meanwhile', TG_TABLE_SCHEMA, TG_TABLE_NAME
            USING ERRCODE = 'serialization_failure', HINT = 'Try the transaction again.';
    END IF;

    IF TG_OP = 'DELETE' THEN
        DELETE FROM ONLY {stored} b WHERE {this};
        IF NOT FOUND THEN RETURN NULL; END IF;
        RETURN OLD;
    END IF;
    {always}
    IF ROW(NEW.{content})::pg_catalog.record OPERATOR(pg_catalog.*=) ROW(OLD.{content})::pg_catalog.record THEN
        -- By itself: in RETURNING, NEW is another one since PostgreSQL 18.
        pgtend_text := NEW.{content};
        UPDATE ONLY {stored} b SET {set_others} WHERE {this} RETURNING {returned_others} INTO {into};
    ELSE
        UPDATE ONLY {stored} b SET {set_text} WHERE {this} RETURNING {returned_text} INTO {into};
    END IF;
    IF NOT FOUND THEN RETURN NULL; END IF;
    RETURN NEW;
END",
        same_key = same_key("OLD"),
        // By its place: should the key be gone one day, no other row with that key is touched.
        this = "b.ctid OPERATOR(pg_catalog.=) stored.pgtend_ctid",
        stored_others = names(&others, "stored."),
        old_others = names(&others, "OLD."),
        gz = table.gz(),
        hash = table.hash(),
        old_bytes = table.bytes_of(&format!("OLD.{content}")),
        set_others = set_others.join(", "),
        set_text = set_text.join(", "),
        returned_others = returned("pgtend_text"),
        returned_text = returned(&format!("b.{content}")),
    );
    format!("CREATE OR REPLACE FUNCTION {}() RETURNS trigger LANGUAGE plpgsql AS {}", table.function("write"), literal(&body))
}
