//! What writers meet: triggers on the view that pass a write on to the table, and one on the table for those who go there.
//!
//! They run with the writer's own search_path, as the table's other triggers have to: so each name is spelled out, and rows
//! are compared as images, which asks for no operator of a type.

use super::table::{Column, Table};
use crate::pg::{identifier, literal};

/// Of writing to a row that others write to. A batch of ours changes it once.
const ATTEMPTS: u32 = 10;

/// On the table: text that is set takes the place of a compressed form. A form that was set in the same statement contradicts it,
/// and is left for the constraint to refuse. And text that is set to NULL where there is a compressed form was NULL before:
/// whoever wrote `content || 'x'`, or wrote back what he had read, did not see the text. Its triggers ask for it in these two
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
        said = literal(&table.body.name),
        hint = literal(&format!(
            "Update {}, which shows the text; or leave the column out; or, to delete the text, set {gz} and {hash} to NULL, too.",
            table.view_sql()
        )),
    );
    format!("CREATE OR REPLACE FUNCTION {}() RETURNS trigger LANGUAGE plpgsql AS {}", table.function("guard"), literal(&body))
}

/// Whether a row was written by the transaction that asks. A savepoint, or a block with EXCEPTION, has a number of its own, which
/// comes after the transaction's; and rows of others that are under way are not seen.
pub fn own(table: &Table) -> String {
    let body = "DECLARE
    own CONSTANT bigint := pg_current_xact_id_if_assigned()::text::bigint;
    -- Rows have the lower 32 bits.
    ahead CONSTANT bigint := (seen::text::bigint - own % 4294967296 + 4294967296) % 4294967296;
BEGIN
    RETURN coalesce(ahead < 2147483648 AND pg_xact_status((own + ahead)::text::xid8) = 'in progress', false);
EXCEPTION
    -- A row of billions of transactions ago: its number is to come again.
    WHEN invalid_parameter_value THEN RETURN false;
END";
    format!(
        "CREATE OR REPLACE FUNCTION {}(seen xid) RETURNS boolean LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS {}",
        table.function("own"),
        literal(body)
    )
}

/// On the view. A view's row is as old as its statement: plain tables look again at a row that somebody changed meanwhile, a
/// trigger cannot. Where it would write over that change, it fails as a transaction of a stricter isolation level would.
///
/// It asks for no lock on a row before it writes: a lock needs UPDATE, and passes by the policies for DELETE. What it writes to
/// is the version that it has compared, or nothing; then it looks again, as that may have been a batch of ours.
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
    // Naming the text would be writing it (guard).
    let set_others = if set.is_empty() { vec![format!("{0} = b.{0}", table.gz())] } else { set };
    let body = format!(
        "#variable_conflict use_variable
DECLARE
    given CONSTANT pg_catalog.record := NEW;
    stored pg_catalog.record;
    seen pg_catalog.tid;
    same pg_catalog.bool;
    pgtend_text pg_catalog.text;
BEGIN
    IF TG_OP OPERATOR(pg_catalog.=) 'INSERT' THEN
        {inserts}
        IF NOT FOUND THEN RETURN NULL; END IF;
        RETURN NEW;
    END IF;

    FOR attempt IN 1..{ATTEMPTS} LOOP
        SELECT b.*, b.xmin AS pgtend_xmin, b.ctid AS pgtend_ctid INTO stored FROM ONLY {stored} b WHERE {same_key};
        IF NOT FOUND THEN
            -- Somebody deleted it meanwhile. Or gave it another key, for which a table would have looked.
            EXIT WHEN TG_OP OPERATOR(pg_catalog.=) 'UPDATE' AND attempt OPERATOR(pg_catalog.>) 1;
            RETURN NULL;
        END IF;
        -- It is as it was, and was not written: a policy or a trigger of the table's own says no, without a word as ever.
        IF ROW(stored.pgtend_ctid)::pg_catalog.record OPERATOR(pg_catalog.*=) ROW(seen)::pg_catalog.record THEN
            RETURN NULL;
        END IF;
        seen := stored.pgtend_ctid;
        same := ROW({stored_others})::pg_catalog.record OPERATOR(pg_catalog.*=) ROW({old_others})::pg_catalog.record;
        IF stored.{gz} IS NULL THEN
            same := same AND ROW(stored.{content})::pg_catalog.record OPERATOR(pg_catalog.*=) ROW(OLD.{content})::pg_catalog.record;
        ELSE
            same := same AND OLD.{content} IS NOT NULL AND ROW(pg_catalog.sha256({old_bytes}))::pg_catalog.record OPERATOR(pg_catalog.*=) ROW(stored.{hash})::pg_catalog.record;
        END IF;
        IF NOT same THEN
            -- By this very statement: then once is enough, as with a table.
            IF {own}(stored.pgtend_xmin) THEN RETURN NULL; END IF;
            EXIT;
        END IF;

        IF TG_OP OPERATOR(pg_catalog.=) 'DELETE' THEN
            DELETE FROM ONLY {stored} b WHERE {this};
            IF FOUND THEN RETURN OLD; END IF;
            CONTINUE;
        END IF;
        {always}
        IF ROW(NEW.{content})::pg_catalog.record OPERATOR(pg_catalog.*=) ROW(OLD.{content})::pg_catalog.record THEN
            -- By itself: in RETURNING, NEW is another one since PostgreSQL 18.
            pgtend_text := NEW.{content};
            UPDATE ONLY {stored} b SET {set_others} WHERE {this} RETURNING {returned_others} INTO {into};
        ELSE
            UPDATE ONLY {stored} b SET {set_text} WHERE {this} RETURNING {returned_text} INTO {into};
        END IF;
        IF FOUND THEN RETURN NEW; END IF;
        NEW := given;
    END LOOP;
    RAISE EXCEPTION 'could not serialize access: the row of view %.% was changed by another transaction meanwhile', TG_TABLE_SCHEMA, TG_TABLE_NAME
        USING ERRCODE = 'serialization_failure', HINT = 'Try the transaction again.';
END",
        same_key = same_key("OLD"),
        // By its place: should the key be gone one day, no other row with that key is touched. And by who wrote it: should
        // somebody change it while this waits for him, the server compares again, and finds another writer.
        this = "b.ctid OPERATOR(pg_catalog.=) stored.pgtend_ctid AND b.xmin OPERATOR(pg_catalog.=) stored.pgtend_xmin",
        own = table.function("own"),
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
