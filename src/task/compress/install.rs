//! Puts a view in the table's place that shows each value as text, whichever form it has. The table behind it gets another name.
//!
//! The application can notice only one transaction under ACCESS EXCLUSIVE, which reads no rows. The constraint is validated
//! afterwards, while reads and writes go on; if the process is killed in between, the next `install` does that.

use std::fmt;

use anyhow::Result;
use serde::Serialize;
use sqlx::PgConnection;

use super::names::{CONSTRAINT, FUNCTIONS};
use super::table::{Mark, Table, companion};
use super::{definition, dictionary, inflate, pack, triggers};
use crate::base::fault::{Fault, Kind};
use crate::live::governor;
use crate::live::session::{Attempt, Session};
use crate::pg::failure::MOVED;
use crate::pg::table::Checked;
use crate::pg::{self, identifier, literal, qualified};
use crate::task::bound::{self, Bound};
use crate::task::compress::names::{GUARDS, PLAIN, WRITE};
use crate::task::partition;
use crate::task::remade::{self, Views};

#[derive(Debug, Serialize)]
pub struct Installation {
    pub view: String,
    pub stored: String,
    /// The view exists already and is replaced for the table's present columns.
    pub again: bool,
    /// The statements of one transaction, under ACCESS EXCLUSIVE.
    pub statements: Vec<String>,
    /// The statement that follows, while reads and writes go on.
    pub validate: String,
    #[serde(skip)]
    oid: i64,
    #[serde(skip)]
    bound: Bound,
}

/// What it makes from texts of the catalog: views on the table, and defaults of its columns.
const TEXTS: [bound::Kind; 2] = [bound::Kind::View, bound::Kind::Default];

impl fmt::Display for Installation {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        writeln!(f, "In one transaction, under ACCESS EXCLUSIVE, for a moment:")?;
        for statement in &self.statements {
            let first = statement.lines().next().unwrap_or_default();
            let more = if statement.lines().count() > 1 { " …" } else { "" };
            writeln!(f, "  {first}{more}")?;
        }
        writeln!(f, "Then, while reads and writes go on:\n  {}", self.validate)
    }
}

/// Makes the statements that put a view in the table's place, or bring an existing one up to date. `doubts` are the remarks that
/// a person accepts by this installation.
pub async fn plan(connection: &mut PgConnection, table: &Table, doubts: &[String]) -> Result<Installation> {
    may_install(connection, table).await?;
    let again = table.view.is_some();
    let (view, stored) = match again {
        true => (table.public_name().to_owned(), table.name.clone()),
        false => (table.name.clone(), companion(&table.name, "_stored")),
    };
    let (view_sql, stored_sql) = (qualified(&table.schema, &view), qualified(&table.schema, &stored));
    let set_role = format!("SET LOCAL ROLE {}", identifier(&table.owner));
    // It comes right after the lock, under which the table cannot change.
    let unchanged = definition::unchanged(table.oid, &table.definition);
    let views = match again {
        true => Views { bound: bound::read(connection, table.oid, &[], &TEXTS[1..]).await?, ..Views::default() },
        false => remade::views(connection, table.oid, &[], &TEXTS).await?,
    };
    let mut statements = Vec::new();
    let is_lost = table.view.as_ref().is_some_and(|view| view.is_lost);
    if again {
        let first = if is_lost { format!("ONLY {stored_sql}") } else { view_sql.clone() };
        statements.push(format!("LOCK TABLE {first} IN ACCESS EXCLUSIVE MODE"));
        statements.extend([unchanged, remade::proof(table.oid, &TEXTS[1..]), set_role]);
        statements.push(mark_of(table, doubts).on(&stored_sql)?);
        statements.push(format!("ALTER TABLE ONLY {stored_sql} DROP CONSTRAINT IF EXISTS {PLAIN}"));
        statements.extend(dictionary::follow(connection, &table.schema, &table.owner, table.dictionaries()).await?);
    } else {
        // Readers lock a view before its table: the opposite order would deadlock with them.
        statements.extend(views.locks);
        statements.push(format!("LOCK TABLE ONLY {} IN ACCESS EXCLUSIVE MODE", table.sql()));
        statements.push(unchanged);
        statements.extend(views.bound.held());
        statements.extend([remade::proof(table.oid, &TEXTS), set_role]);
        statements.extend(companions(connection, table, doubts).await?);
        statements.push(format!("ALTER TABLE ONLY {} RENAME TO {}", table.sql(), identifier(&stored)));
    }
    statements.extend(functions(table, &stored_sql)?);
    statements.push(view_of(table, &view_sql, &stored_sql, !again || is_lost));
    // CREATE OR REPLACE VIEW takes away the options that somebody gave it, security_invoker among them.
    if let Some(options) = options_of(connection, &view_sql, again, table).await? {
        statements.push(format!("ALTER VIEW {view_sql} SET ({options})"));
    }
    statements.extend(defaults(table, &view_sql));
    if !again || is_lost {
        statements.extend(privileges_and_comments(connection, table, &view_sql, &stored_sql).await?);
    }
    statements.extend(create_triggers(table, &view_sql, &stored_sql));
    if !again {
        statements.push("RESET ROLE".to_owned());
        statements.extend(views.statements);
    }
    statements.extend(views.bound.proof(&view_sql));
    statements.push(is_the_view(table, &view_sql));
    Ok(Installation {
        view: view_sql,
        validate: format!("ALTER TABLE {stored_sql} VALIDATE CONSTRAINT {CONSTRAINT}"),
        stored: stored_sql,
        again,
        statements,
        oid: table.oid,
        bound: views.bound,
    })
}

/// Returns the options of the view that is there, as in SQL. With row security, `security_invoker` is none that somebody chooses.
async fn options_of(connection: &mut PgConnection, view: &str, is_there: bool, table: &Table) -> Result<Option<String>> {
    if !is_there {
        return Ok(None);
    }
    let options =
        "SELECT string_agg(format('%I = %L', option_name, option_value), ', ') FROM pg_class c, pg_options_to_table(c.reloptions)
                   WHERE c.oid = to_regclass($1) AND c.relkind = 'v' AND NOT (option_name = 'security_invoker' AND $2)";
    sqlx::query_scalar(options).bind(view).bind(table.has_row_security).fetch_one(connection).await.map_err(pg::in_its_own_words)
}

/// Fails if the role may not install the view.
async fn may_install(connection: &mut PgConnection, table: &Table) -> Result<()> {
    let (may, is_owner): (bool, bool) =
        sqlx::query_as("SELECT has_schema_privilege($1, 'CREATE'), pg_has_role($2::name, 'USAGE')")
            .bind(&table.schema)
            .bind(&table.owner)
            .fetch_one(connection)
            .await
            .map_err(pg::in_its_own_words)?;
    if may && is_owner {
        return Ok(());
    }
    let message = format!(
        "only {} may put a view in the place of {}, with CREATE on its schema: GRANT {} TO the role",
        identifier(&table.owner),
        table.view_sql(),
        identifier(&table.owner)
    );
    Err(Fault::new(Kind::Permission, message).into())
}

/// Makes the statements that create all functions.
fn functions(table: &Table, stored: &str) -> Result<Vec<String>> {
    let mut statements = vec![are_the_owners(table)];
    statements.extend(decoder(table)?);
    statements.extend([triggers::guard(table), triggers::write(table, stored)]);
    statements.push(are_the_owners(table));
    Ok(statements)
}

/// Makes the statement that fails if one of the functions belongs to another role: CREATE OR REPLACE leaves one that was there to who made it, and he could
/// replace it later.
fn are_the_owners(table: &Table) -> String {
    let all: Vec<String> = FUNCTIONS.iter().map(|(what, arguments)| format!("{}({arguments})", table.function(what))).collect();
    is_the_owners(table, &all)
}

/// The same for these functions, with the types of their arguments.
pub fn is_the_owners(table: &Table, functions: &[String]) -> String {
    let all: Vec<String> = functions.iter().map(|function| literal(function)).collect();
    let check = format!(
        "DECLARE other text; BEGIN SELECT p.oid::regprocedure::text INTO other FROM unnest(ARRAY[{}]) f JOIN pg_catalog.pg_proc p ON p.oid = pg_catalog.to_regprocedure(f)
         WHERE pg_catalog.pg_get_userbyid(p.proowner) <> {}; IF FOUND THEN RAISE EXCEPTION 'the function % is there already and belongs to another role: drop it', other USING ERRCODE = 'insufficient_privilege'; END IF; END",
        all.join(", "),
        literal(&table.owner)
    );
    format!("DO {}", literal(&check))
}

/// Makes the statement that fails if another view was there than the one that was read, and otherwise if the view is in another schema than the table or belongs to
/// another role: CREATE OR REPLACE leaves one that was there to who made it, and goes by the schema's name, which another schema may have by then.
fn is_the_view(table: &Table, view: &str) -> String {
    let same = match &table.view {
        Some(known) if !known.is_lost => format!("v.oid = {}", known.oid),
        _ => "v.relowner = t.relowner".to_owned(),
    };
    let check = format!(
        "BEGIN IF NOT EXISTS (SELECT FROM pg_catalog.pg_class v JOIN pg_catalog.pg_class t ON t.oid = {} AND t.relnamespace = v.relnamespace
             WHERE v.oid = pg_catalog.to_regclass({}) AND v.relkind = 'v' AND {same}) THEN
           RAISE EXCEPTION USING MESSAGE = {}, ERRCODE = '{MOVED}'; END IF; END",
        table.oid,
        literal(view),
        literal(&format!(
            "{view} is another view than the one of the table behind it, as another session has changed something while this one worked: nothing was done; run the command again"
        ))
    );
    format!("DO {}", literal(&check))
}

/// Makes the statements that create the function by which compressed text is read, let readers call it, and try it out.
pub fn decoder(table: &Table) -> Result<Vec<String>> {
    let function = format!("{}({})", table.function("gunzip"), inflate::ARGUMENTS);
    Ok(vec![
        inflate::gunzip(table.function("gunzip"), &table.schema).statement,
        format!("GRANT EXECUTE ON FUNCTION {function} TO PUBLIC"),
        // A reader that comes through another role's view may have no USAGE on this schema, where the function looks for dictionaries.
        format!("ALTER FUNCTION {function} SECURITY DEFINER"),
        try_out(table)?,
    ])
}

/// Makes the statements that give a new view the table's privileges and comments.
async fn privileges_and_comments(connection: &mut PgConnection, table: &Table, view: &str, stored: &str) -> Result<Vec<String>> {
    let like = partition::TableName { oid: table.oid, schema: table.schema.clone(), name: table.name.clone() };
    let privileges = partition::privileges(connection, &like, view).await?;
    // At that point the current role is the owner.
    let mut statements: Vec<String> = privileges.into_iter().filter(|sql| !sql.contains(" OWNER TO ")).collect();
    let comment: Option<String> = sqlx::query_scalar("SELECT obj_description($1::bigint::oid, 'pg_class')")
        .bind(table.oid)
        .fetch_one(&mut *connection)
        .await?;
    let comment = comment.unwrap_or_else(|| format!("{stored} with all of {} as text (pgtend compress)", table.content()));
    statements.push(format!("COMMENT ON VIEW {view} IS {}", literal(&comment)));
    statements.extend(comments_of_columns(connection, table, view).await?);
    Ok(statements)
}

/// Makes the statements that create the triggers of the view and of the table.
fn create_triggers(table: &Table, view: &str, stored: &str) -> Vec<String> {
    let mut statements = vec![format!(
        "CREATE OR REPLACE TRIGGER {WRITE} INSTEAD OF INSERT OR UPDATE OR DELETE ON {view} FOR EACH ROW EXECUTE FUNCTION {}()",
        table.function("write")
    )];
    let (content, gz) = (table.content(), table.gz());
    for (guard, on, when) in [
        (GUARDS[0], "UPDATE".to_owned(), format!("NEW.{content} IS NOT NULL AND NEW.{gz} IS NOT NULL")),
        (
            GUARDS[1],
            format!("UPDATE OF {content}"),
            format!("NEW.{content} IS NULL AND OLD.{gz} IS NOT NULL AND NEW.{gz} IS NOT NULL"),
        ),
    ] {
        statements.push(format!(
            "CREATE OR REPLACE TRIGGER {guard} BEFORE {on} ON {stored} FOR EACH ROW WHEN ({when}) EXECUTE FUNCTION {}()",
            table.function("guard")
        ));
        statements.push(format!("ALTER TABLE ONLY {stored} ENABLE ALWAYS TRIGGER {guard}"));
    }
    statements
}

pub async fn apply(session: &mut Session, installation: &Installation) -> Result<()> {
    let installed = match session.transaction(&installation.statements, &[installation.oid]).await {
        Err(error) => return Err(installation.bound.explained(&mut session.connection, error).await),
        Ok(installed) => installed,
    };
    if let Attempt::Locked(who) = installed {
        let message = format!("{} is locked: {who}; nothing was changed; try again at a quieter time", installation.view);
        return Err(Fault::new(Kind::Busy, message).into());
    }
    let stored = Checked::named(installation.stored.clone(), installation.oid);
    if let Attempt::Locked(who) = long(session, &installation.validate, &stored).await? {
        let message = format!(
            "{} is installed, but its constraint is not validated yet, because {who}: run install again before the job",
            installation.view
        );
        return Err(Fault::new(Kind::Busy, message).into());
    }
    Ok(())
}

/// Runs a statement under SHARE UPDATE EXCLUSIVE without a limit of time, because reads and writes go on. Its wait for the lock
/// is limited: a manual VACUUM may hold that lock for hours.
pub async fn long(session: &mut Session, sql: &str, table: &Checked) -> Result<Attempt<()>> {
    let lock_timeout = session.give_up_after.as_millis().max(1).to_string();
    for (name, value) in [("lock_timeout", lock_timeout.as_str()), ("statement_timeout", "0")] {
        pg::set(&mut session.connection, name, value).await?;
    }
    let tables = std::slice::from_ref(table);
    let result = session.long("SHARE UPDATE EXCLUSIVE", tables, sql).await.map_err(pg::in_its_own_words);
    pg::set(&mut session.connection, "lock_timeout", &session.lock_timeout.as_millis().to_string()).await?;
    match result {
        Ok(_) => Ok(Attempt::Done(())),
        Err(error) if governor::is_lock_trouble(&error) => Ok(Attempt::Locked(session.holders(&[table.oid]).await?)),
        Err(error) => Err(error.context(format!("cannot run: {sql}"))),
    }
}

fn mark_of(table: &Table, doubts: &[String]) -> Mark {
    let (not_null, not_null_name) = match &table.view {
        Some(view) => (view.not_null, view.not_null_name.clone()),
        None => (table.text_column.is_not_null, None),
    };
    Mark {
        pgtend: 1,
        column: table.text_column.name.clone(),
        not_null,
        not_null_name,
        encoding: Some(table.encoding.clone()),
        accepted: doubts.to_vec(),
        dictionaries: table.dictionaries().to_vec(),
    }
}

/// Returns the table's mark with one dictionary more.
pub fn mark_with(table: &Table, dictionary: &str) -> Mark {
    let accepted = table.view.as_ref().map(|view| view.accepted.as_slice()).unwrap_or_default();
    let mut mark = mark_of(table, accepted);
    mark.dictionaries.push(dictionary.to_owned());
    mark
}

/// Makes the statements that add the companion columns. They read no row: the columns are NULL, and the constraint is validated later.
async fn companions(connection: &mut PgConnection, table: &Table, doubts: &[String]) -> Result<Vec<String>> {
    let (name, content, gz, hash) = (table.sql(), table.content(), table.gz(), table.hash());
    let not_null = table.text_column.is_not_null;
    let as_text = if not_null { format!("{content} IS NOT NULL AND {gz} IS NULL") } else { format!("{gz} IS NULL") };
    let not_null_name: Option<String> = sqlx::query_scalar(
        "SELECT k.conname::text FROM pg_constraint k JOIN pg_attribute a ON a.attrelid = k.conrelid AND a.attnum = ANY (k.conkey)
         WHERE k.conrelid = $1::bigint::oid AND k.contype = 'n' AND a.attname = $2",
    )
    .bind(table.oid)
    .bind(&table.text_column.name)
    .fetch_optional(connection)
    .await?;
    let mark = Mark { not_null_name, ..mark_of(table, doubts) };
    let mut statements = vec![
        format!("ALTER TABLE ONLY {name} ADD COLUMN {gz} bytea, ADD COLUMN {hash} bytea, ALTER COLUMN {gz} SET STORAGE EXTERNAL"),
        format!(
            "ALTER TABLE ONLY {name} ADD CONSTRAINT {CONSTRAINT} CHECK (({as_text} AND {hash} IS NULL)
             OR ({content} IS NULL AND {gz} IS NOT NULL AND {hash} IS NOT NULL)) NOT VALID"
        ),
        mark.on(&name)?,
    ];
    if not_null {
        statements.push(format!("ALTER TABLE ONLY {name} ALTER COLUMN {content} DROP NOT NULL"));
    }
    Ok(statements)
}

/// Makes the statement that creates the view. A new one takes no other view's place: that would stay its owner's.
fn view_of(table: &Table, view: &str, stored: &str, is_new: bool) -> String {
    let columns: Vec<String> = table
        .visible()
        .map(|column| {
            let name = identifier(&column.name);
            if column.name != table.text_column.name {
                return format!("b.{name}");
            }
            let gunzip =
                format!("{}(b.{}, b.{}, {})", table.function("gunzip"), table.gz(), table.hash(), literal(&table.encoding));
            let kind = if column.data_type == "text" { String::new() } else { format!("::{}", column.data_type) };
            let collation = column.collation.as_ref().map(|collation| format!(" COLLATE {collation}")).unwrap_or_default();
            format!("COALESCE(b.{name}, {gunzip}{kind}{collation}) AS {name}")
        })
        .collect();
    // With policies, the reader's own apply. Without any, the owner's rights are used: otherwise those who read through another
    // role's view over this one would lose access (CREATE VIEW, security_invoker).
    let options = if table.has_row_security { " WITH (security_invoker = true)" } else { "" };
    let create = if is_new { "CREATE VIEW" } else { "CREATE OR REPLACE VIEW" };
    format!("{create} {view}{options} AS SELECT {} FROM ONLY {stored} b", columns.join(", "))
}

/// Makes the statements that give the view's columns their defaults, which fill in what an INSERT leaves out before the trigger sees
/// it. The trigger itself sets identity columns.
fn defaults(table: &Table, view: &str) -> Vec<String> {
    table
        .visible()
        .map(|column| {
            let action = match &column.default {
                Some(default) if column.identity.is_empty() && !column.is_generated => format!("SET DEFAULT {default}"),
                _ => "DROP DEFAULT".to_owned(),
            };
            format!("ALTER VIEW {view} ALTER COLUMN {} {action}", identifier(&column.name))
        })
        .collect()
}

/// Makes the statements that copy the columns' comments, which people and code generators read.
async fn comments_of_columns(connection: &mut PgConnection, table: &Table, view: &str) -> Result<Vec<String>> {
    let comments: Vec<(String, String)> = sqlx::query_as(
        "SELECT attname::text, description FROM pg_attribute JOIN pg_description ON objoid = attrelid AND objsubid = attnum AND classoid = 'pg_class'::regclass
         WHERE attrelid = $1::bigint::oid AND attnum > 0 AND NOT attisdropped ORDER BY attnum",
    )
    .bind(table.oid)
    .fetch_all(connection)
    .await?;
    let is_visible = |name: &str| table.visible().any(|column| column.name == name);
    Ok(comments
        .into_iter()
        .filter(|(column, _)| is_visible(column))
        .map(|(column, comment)| format!("COMMENT ON COLUMN {view}.{} IS {}", identifier(&column), literal(&comment)))
        .collect())
}

/// Makes a statement that fails unless the functions read what pgtend writes in this database: a stored, a fixed and a dynamic
/// block, and each of them damaged.
fn try_out(table: &Table) -> Result<String> {
    let dynamic: String = (0..30)
        .map(|number| format!("Get-ChildItem -Path $path{number} | Where-Object {{ $_.Length -gt {number} }}\r\n"))
        .collect();
    let mut checks = String::new();
    let gunzip = table.function("gunzip");
    for (text, stored) in [("Write-Host 'stored'", true), ("Write-Host 'fixed'", false), (dynamic.as_str(), false)] {
        let packed = pack::pack(text.as_bytes(), None)?;
        let gz = if stored { stored_block(text.as_bytes()) } else { packed.gz };
        let call = |gz: &[u8]| {
            format!(
                "{gunzip}(pg_catalog.decode('{}', 'hex'), pg_catalog.decode('{}', 'hex'), {})",
                hex::encode(gz),
                hex::encode(&packed.hash),
                literal(&table.encoding)
            )
        };
        checks += &format!(
            "IF ({} OPERATOR(pg_catalog.=) {}::text) IS NOT TRUE THEN RAISE EXCEPTION 'this server cannot read what pgtend compresses'; END IF;\n",
            call(&gz),
            literal(text)
        );
        let mut damaged = gz.clone();
        let middle = damaged.len() / 2;
        damaged[middle] ^= 1;
        checks += &format!(
            "BEGIN PERFORM {}; RAISE EXCEPTION 'damaged data is not detected' USING ERRCODE = 'assert_failure';
             EXCEPTION WHEN assert_failure THEN RAISE; WHEN OTHERS THEN NULL; END;\n",
            call(&damaged)
        );
    }
    Ok(format!("DO {}", literal(&format!("BEGIN\n{checks}END"))))
}

fn stored_block(text: &[u8]) -> Vec<u8> {
    let mut gz = vec![31, 139, 8, 0, 0, 0, 0, 0, 0, 255, 1];
    let length = text.len() as u16;
    gz.extend(length.to_le_bytes());
    gz.extend((!length).to_le_bytes());
    gz.extend(text);
    let mut crc = flate2::Crc::new();
    crc.update(text);
    gz.extend(crc.sum().to_le_bytes());
    gz.extend(crc.amount().to_le_bytes());
    gz
}
