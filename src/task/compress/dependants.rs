//! Finds, before anything is changed, the objects that stand in the way of a view in the table's place.

use anyhow::Result;
use serde::Serialize;
use sqlx::PgConnection;

use super::dictionary::PREFIX;
use super::names::{CONSTRAINT, FUNCTIONS, PLAIN};
use super::table::{Table, companion};
use super::without_text::{self, Strict, Verdict};
use crate::pg::{self, identifier, stat_statements};

#[derive(Debug, Default, Serialize)]
pub struct Dependants {
    /// Reasons for which the view is not installed.
    pub refusals: Vec<String>,
    /// Remarks on what may be harmless: a person has to look at it and use --force. Their texts are kept in the mark of an
    /// installation, so that a changed wording would make accepted remarks new ones.
    pub doubts: Vec<String>,
    pub notes: Vec<String>,
}

/// Finds them in the catalog alone: no row is read, and none of the table's code runs.
pub async fn find(connection: &mut PgConnection, table: &Table) -> Result<Dependants> {
    let mut found = Dependants::default();
    let attribute: i16 = sqlx::query_scalar(
        "SELECT attnum FROM pg_attribute WHERE attrelid = $1::bigint::oid AND attname = $2 AND NOT attisdropped",
    )
    .bind(table.oid)
    .bind(&table.text_column.name)
    .fetch_one(&mut *connection)
    .await?;
    let rows: Vec<(String, String)> = sqlx::query_as(include_str!("dependants.sql"))
        .bind(table.oid)
        .bind(attribute)
        .bind(&table.text_column.name)
        .bind(table.public_name())
        .fetch_all(&mut *connection)
        .await?;
    for (severity, what) in rows {
        match severity.as_str() {
            "hard" => found.refusals.push(what),
            "soft" => found.doubts.push(what),
            _ => found.notes.push(what),
        }
    }
    found.doubts.extend(statements_seen(connection, table).await?);
    found.judge_checks(connection, table, attribute).await?;
    if table.key.is_none() {
        found.refusals.push(NO_KEY.to_owned());
    }
    if table.text_column.is_generated {
        found.refusals.push("the column itself is generated".to_owned());
    }
    if table.columns.iter().filter(|column| !column.identity.is_empty()).count() > 1 {
        found.refusals.push("it has more than one identity column".to_owned());
    }
    if table.view.is_none() {
        found.refusals.extend(names_taken(connection, table).await?);
    } else if table.has_row_security && !table.dictionaries().is_empty() {
        found.refusals.push(ROWS_SHARE_TEXT.to_owned());
    }
    found.notes.extend(ways_of_applications(table));
    Ok(found)
}

/// Says which statements a view does not take, and what to write in their place: PostgreSQL has no rule or trigger by which a view could take them.
fn ways_of_applications(table: &Table) -> [String; 2] {
    let stored = match table.view {
        Some(_) => table.sql(),
        None => pg::qualified(&table.schema, &companion(&table.name, "_stored")),
    };
    let (merge, way) = match table.version_num < 170_000 {
        true => ("MERGE, ", ""),
        false => ("", " (or MERGE INTO the view, in place of ON CONFLICT)"),
    };
    [
        format!(
            "no catalog shows this: INSERT … ON CONFLICT, {merge}TRUNCATE, COPY … TO, CREATE INDEX and ALTER TABLE fail on the view: use the table \
             behind it for them, {stored}{way}"
        ),
        format!(
            "an ORM meets that, too: Sequelize's sync() with indexes, addColumn, upsert and updateOnDuplicate fail, and ignoreDuplicates fails at a \
             duplicate: give them {stored} as tableName"
        ),
    ]
}

const FIRES: &str = " fires for each row that is compressed: GRANT SET ON PARAMETER session_replication_role TO the role (PostgreSQL 15), and it does not";

impl Dependants {
    /// Says of the triggers that none fires when rows are compressed.
    pub fn triggers_are_silent(&mut self) {
        for note in self.notes.iter_mut().filter(|note| is_about_a_trigger(note)) {
            *note = note.replace(FIRES, " does not fire for what is compressed: to the application it is the same row");
        }
    }

    /// Keeps only what also matters for method = "toast", where the table keeps its columns and the text stays in its own.
    pub fn keep_those_of_toast(&mut self) {
        self.refusals.retain(|refusal| refusal == NO_KEY || refusal.ends_with(" inherits from it"));
        self.doubts.clear();
        self.notes.retain(|note| is_about_a_trigger(note) && note.contains(" each row "));
    }
}

/// Tells whether a remark is about a trigger: a trigger can damage what the application wrote, where others only fail.
pub fn is_about_a_trigger(remark: &str) -> bool {
    remark.starts_with("trigger ")
}

pub const NO_KEY: &str = "it has no primary key, and no unique index over NOT NULL columns of built-in types other than the compressed column: \
     rows could not be told apart";

/// Finds statements of applications in pg_stat_statements, where the role may read it.
async fn statements_seen(connection: &mut PgConnection, table: &Table) -> Result<Vec<String>> {
    let Some(relation) = stat_statements::view(connection).await? else { return Ok(Vec::new()) };
    let merge = if table.version_num < 170_000 { "|\\mmerge\\s+into\\M" } else { "" };
    let sql = format!(
        "SELECT string_agg(DISTINCT left(regexp_replace(query, '\\s+', ' ', 'g'), 120), E'\\n')
         FROM {relation}, (SELECT {name}::text AS name) n
         WHERE dbid = (SELECT oid FROM pg_catalog.pg_database WHERE datname = pg_catalog.current_database())
           AND query ~* (CASE WHEN name ~ '^\\w' THEN '\\m' ELSE '' END || regexp_replace(name, '([^[:alnum:]_])', '\\\\\\1', 'g')
                         || CASE WHEN name ~ '\\w$' THEN '\\M' ELSE '' END)
           AND query ~* '\\minsert\\s+into\\M.*\\mon\\s+conflict\\M|^\\s*truncate\\M|^\\s*copy\\M.*\\mto\\M{merge}'",
        name = pg::literal(table.public_name())
    );
    // An extension that is created but not preloaded fails, and has recorded nothing.
    let seen = pg::fetch_text(connection, sql).await.unwrap_or_default().unwrap_or_default();
    Ok(seen
        .lines()
        .map(|statement| format!("pg_stat_statements has seen a statement that the view does not take: {statement}"))
        .collect())
}

impl Dependants {
    /// Adds the CHECKs over the column that refuse, or may refuse, a row whose text is in the companion column. Nothing is tried: neither a row nor a text of
    /// theirs is read. A view that is there has stood it, and what a CHECK refuses stays as it is.
    async fn judge_checks(&mut self, connection: &mut PgConnection, table: &Table, attribute: i16) -> Result<()> {
        let checks: Vec<(String, String, String)> = sqlx::query_as(
            "SELECT k.conname::text, k.conbin::text, pg_get_expr(k.conbin, k.conrelid) FROM pg_constraint k
             WHERE k.conrelid = $1::bigint::oid AND k.contype = 'c' AND k.conname NOT IN ($3, $4) AND (k.conkey && ARRAY[0, $2]::int2[]) ORDER BY 1",
        )
        .bind(table.oid)
        .bind(attribute)
        .bind(CONSTRAINT)
        .bind(PLAIN)
        .fetch_all(&mut *connection)
        .await?;
        for (name, tree, expression) in checks {
            let name = identifier(&name);
            match without_text::judge(&tree, attribute, &strict(connection, &tree).await?) {
                Verdict::LetsIn => {}
                Verdict::Refuses => {
                    self.refusals.push(format!("constraint {name} refuses rows without the text: CHECK ({expression})"));
                }
                Verdict::CannotTell => {
                    let remark = format!(
                        "constraint {name} may refuse rows without the text, and then they stay as they are: CHECK ({expression})"
                    );
                    if table.view.is_none() { self.doubts.push(remark) } else { self.notes.push(remark) }
                }
            }
        }
        Ok(())
    }
}

/// Returns which functions and operators of a tree are strict.
async fn strict(connection: &mut PgConnection, tree: &str) -> Result<Strict> {
    let found: Vec<(bool, i64)> = sqlx::query_as(
        "SELECT m.found[1] = 'funcid', p.of FROM regexp_matches($1, ':(funcid|opno) ([0-9]+)', 'g') AS m(found), LATERAL (
             SELECT f.oid::bigint AS of FROM pg_proc f WHERE m.found[1] = 'funcid' AND f.oid = m.found[2]::oid AND f.proisstrict
             UNION ALL SELECT o.oid::bigint FROM pg_operator o JOIN pg_proc f ON f.oid = o.oprcode
             WHERE m.found[1] = 'opno' AND o.oid = m.found[2]::oid AND f.proisstrict) p",
    )
    .bind(tree)
    .fetch_all(connection)
    .await?;
    let of = |is_function| found.iter().filter(|(of_function, _)| *of_function == is_function).map(|(_, oid)| *oid).collect();
    Ok(Strict { functions: of(true), operators: of(false) })
}

const ROWS_SHARE_TEXT: &str = "it has row security now, and dictionaries from before: who may read one row could read text of others in them. Run `pgtend \
     compress undo --drop-dictionaries` first, then `pgtend compress install`";

/// Refuses a table whose rows share text, although not everybody may read them all, where the table's mark does not tell (that was made anew, and names no
/// dictionary). This reads rows of it.
pub async fn refuse_shared_text(connection: &mut PgConnection, table: &Table, found: &mut Dependants) -> Result<()> {
    let does_the_mark_tell = !table.dictionaries().is_empty();
    if table.view.is_some() && table.has_row_security && !does_the_mark_tell && has_dictionaries(connection, table).await? {
        found.refusals.push(ROWS_SHARE_TEXT.to_owned());
    }
    Ok(())
}

/// Tells whether values of the table have a dictionary, or may have one: a mark that was made anew names none.
async fn has_dictionaries(connection: &mut PgConnection, table: &Table) -> Result<bool> {
    if !table.dictionaries().is_empty() {
        return Ok(true);
    }
    // Most databases have no dictionary, and then no value is read.
    let any: bool = sqlx::query_scalar("SELECT EXISTS (SELECT FROM pg_proc WHERE starts_with(proname::text, $1))")
        .bind(PREFIX)
        .fetch_one(&mut *connection)
        .await?;
    let sql = format!(
        "SELECT 'some' FROM ONLY {} WHERE octet_length({gz}) > 20 AND substring({gz} FROM 1 FOR 1) = decode('01', 'hex') LIMIT 1",
        table.sql(),
        gz = table.gz()
    );
    Ok(any && pg::fetch_text(connection, sql).await?.is_some())
}

/// Returns the objects that have names of pgtend's. A function of the table's owner that no view or table of the owner uses is one that an undo had to leave, as
/// somebody's object needs it: it is replaced.
async fn names_taken(connection: &mut PgConnection, table: &Table) -> Result<Vec<String>> {
    let functions: Vec<String> = FUNCTIONS.iter().map(|(what, _)| companion(&table.name, &format!("_pgtend_{what}"))).collect();
    let columns = [companion(&table.text_column.name, "_gz"), companion(&table.text_column.name, "_sha256")];
    Ok(sqlx::query_scalar(
        "SELECT format('there is already a relation or type %I.%I', n.nspname, $2) FROM pg_namespace n
         WHERE n.nspname = $1 AND (EXISTS (SELECT FROM pg_class WHERE relnamespace = n.oid AND relname = $2)
            OR EXISTS (SELECT FROM pg_type WHERE typnamespace = n.oid AND typname = $2))
         UNION ALL SELECT format('there is already a function %s', p.oid::regprocedure) FROM pg_proc p
         WHERE pronamespace = (SELECT oid FROM pg_namespace WHERE nspname = $1) AND proname = ANY ($3)
           AND (pg_get_userbyid(proowner) <> $6 OR EXISTS (
               SELECT FROM pg_trigger t JOIN pg_class c ON c.oid = t.tgrelid WHERE t.tgfoid = p.oid AND c.relowner = p.proowner))
         UNION ALL SELECT format('it already has a column %I', attname) FROM pg_attribute
         WHERE attrelid = $4::bigint::oid AND attname = ANY ($5) AND NOT attisdropped",
    )
    .bind(&table.schema)
    .bind(companion(&table.name, "_stored"))
    .bind(functions)
    .bind(table.oid)
    .bind(columns.to_vec())
    .bind(&table.owner)
    .fetch_all(connection)
    .await?)
}
