//! Plans an undo: its statements, and the objects that stand in its way.

use std::fmt;

use anyhow::Result;
use serde::Serialize;
use sqlx::{PgConnection, Row as _};

use super::super::keys::Compress;
use super::super::names::{CONSTRAINT, GUARDS, PLAIN};
use super::super::plan::lost;
use super::super::table::{Table, View, companion};
use super::super::{definition, find};
use super::functions;
use crate::base::fault::{Fault, Kind};
use crate::base::units;
use crate::pg::{self, identifier, qualified};
use crate::task::bound::{Bound, Kind as Text};
use crate::task::remade::{self, Views};
use crate::work::RunContext;

#[derive(Debug, Serialize)]
pub struct UndoPlan {
    pub table: Table,
    pub compressed_rows: i64,
    pub compressed_bytes: i64,
    pub keep_view: bool,
    /// Statements that run before the others, while reads and writes go on.
    pub check: Vec<String>,
    /// Statements of one transaction under ACCESS EXCLUSIVE.
    pub statements: Vec<String>,
    /// Privileges that are missing on the view and that the table still grants: only its owner knows what was meant.
    pub wider: Vec<String>,
    /// Functions that are not dropped, and why.
    pub functions_stay: Vec<String>,
    /// What the views that are made again are bound to.
    #[serde(skip)]
    pub bound: Bound,
}

impl fmt::Display for UndoPlan {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        let (values, bytes) = (units::plural(self.compressed_rows, "value"), units::bytes(self.compressed_bytes as u64));
        writeln!(f, "Turns back into text, in batches: {values} of {}, {bytes} compressed", self.table.view_sql())?;
        if self.keep_view {
            return writeln!(f, "The view stays.");
        }
        writeln!(f, "Then, while reads and writes go on:")?;
        self.check.iter().try_for_each(|statement| writeln!(f, "  {statement}"))?;
        writeln!(
            f,
            "Then, once no transaction with an old snapshot is left, in one transaction under ACCESS EXCLUSIVE, for a moment:"
        )?;
        self.statements.iter().try_for_each(|statement| writeln!(f, "  {}", statement.lines().next().unwrap_or_default()))?;
        self.wider.iter().try_for_each(|remark| writeln!(f, "Look at this: {remark}"))?;
        self.functions_stay.iter().try_for_each(|reason| writeln!(f, "Look at this: {reason}"))
    }
}

/// What of an installation an undo leaves.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Keep {
    /// It only turns values into text.
    pub view: bool,
    pub dictionaries: bool,
}

pub async fn plan(compress: &Compress, run: &RunContext<'_>, connection: &mut PgConnection, keep: Keep) -> Result<UndoPlan> {
    let keep_view = keep.view;
    let job = run.job.name;
    let table = find::table(compress, connection).await?;
    let Some(view) = &table.view else {
        let message = format!("{} is not a view of pgtend: there is nothing to undo", compress.table);
        return Err(Fault::new(Kind::Configuration, message).into());
    };
    if view.is_lost {
        return Err(Fault::new(Kind::Configuration, lost(&compress.table, job)).into());
    }
    // This comes before everything that is read of the view below.
    let definition = definition::of(connection, view.oid).await?;
    let sql = format!(
        "SELECT count(*), coalesce(sum(octet_length({0})), 0)::bigint FROM ONLY {1} WHERE {0} IS NOT NULL",
        table.gz(),
        table.sql()
    );
    let row = pg::query(sql).fetch_one(&mut *connection).await.map_err(pg::in_its_own_words)?;
    let (compressed_rows, compressed_bytes) = (row.try_get(0)?, row.try_get(1)?);
    if !keep_view {
        may_uninstall(connection, &table).await?;
        refuse_renamed(connection, &table, view.oid).await?;
    }
    let in_the_way = if keep_view { Vec::new() } else { bound_to(connection, view.oid).await? };
    let on_columns = if keep_view { Vec::new() } else { bound_to_columns(connection, &table, view.oid).await? };
    if !on_columns.is_empty() {
        let message = format!(
            "columns {} and {} of {} cannot be dropped: {}. Change or drop that first; --keep-view turns all values into text, and keeps the view and the columns",
            table.gz(),
            table.hash(),
            table.sql(),
            on_columns.join(", ")
        );
        return Err(Fault::new(Kind::Configuration, message).into());
    }
    if !in_the_way.is_empty() {
        let message = format!(
            "view {} cannot be dropped: {} depends on it. Drop that first, and create it again afterwards; --keep-view turns all values into \
             text, and keeps the view",
            table.view_sql(),
            in_the_way.join(", ")
        );
        return Err(Fault::new(Kind::Configuration, message).into());
    }
    let views = match keep_view {
        true => Views::default(),
        false => remade::views(connection, view.oid, &[table.oid], &[Text::View]).await?,
    };
    let functions = functions::of(connection, &table, run, !keep.dictionaries).await?;
    let wider = if keep_view { Vec::new() } else { wider(connection, &table, view.oid).await? };
    let grants = later_grants(connection, &table, view.oid).await?;
    let (check, mut statements) = uninstall(&table, view, &views, grants, functions.drops);
    // It comes right after the lock, under which nothing changes.
    let behind_the_lock =
        [Some(definition::unchanged(view.oid, &definition)), views.bound.held(), Some(remade::proof(view.oid, &[Text::View]))];
    statements.splice(1..1, behind_the_lock.into_iter().flatten());
    let functions_stay = if keep_view { Vec::new() } else { functions.stay };
    Ok(UndoPlan {
        compressed_rows,
        compressed_bytes,
        keep_view,
        check,
        statements,
        wider,
        functions_stay,
        bound: views.bound,
        table,
    })
}

fn uninstall(
    table: &Table,
    installed: &View,
    views: &Views,
    grants: Vec<String>,
    drops: Vec<String>,
) -> (Vec<String>, Vec<String>) {
    let (stored, view, content, gz, hash) = (table.sql(), table.view_sql(), table.content(), table.gz(), table.hash());
    let name = table.public_name();
    let old_view = companion(name, "_pgtend_old");
    let and_text = if installed.not_null { format!(" AND {content} IS NOT NULL") } else { String::new() };
    let check = vec![
        format!("ALTER TABLE ONLY {stored} DROP CONSTRAINT IF EXISTS {PLAIN}"),
        format!("ALTER TABLE ONLY {stored} ADD CONSTRAINT {PLAIN} CHECK ({gz} IS NULL AND {hash} IS NULL{and_text}) NOT VALID"),
        format!("ALTER TABLE {stored} VALIDATE CONSTRAINT {PLAIN}"),
    ];
    let mut statements = vec![
        // This locks the view and the table behind it, in the order in which readers lock them.
        format!("LOCK TABLE {view} IN ACCESS EXCLUSIVE MODE"),
        format!("SET LOCAL ROLE {}", identifier(&table.owner)),
        format!("ALTER VIEW {view} RENAME TO {}", identifier(&old_view)),
    ];
    statements.extend(GUARDS.map(|guard| format!("DROP TRIGGER IF EXISTS {guard} ON {stored}")));
    // The server reads no rows for it, because the validated CHECK proves it.
    match &installed.not_null_name {
        Some(constraint) => {
            statements.push(format!("ALTER TABLE ONLY {stored} ADD CONSTRAINT {} NOT NULL {content}", identifier(constraint)))
        }
        None if installed.not_null => statements.push(format!("ALTER TABLE ONLY {stored} ALTER COLUMN {content} SET NOT NULL")),
        None => {}
    }
    statements.push(format!("ALTER TABLE ONLY {stored} DROP CONSTRAINT {PLAIN}, DROP CONSTRAINT {CONSTRAINT}"));
    statements.push(format!("ALTER TABLE ONLY {stored} RENAME TO {}", identifier(name)));
    statements.extend(grants);
    statements.push("RESET ROLE".to_owned());
    statements.extend(views.statements.iter().cloned());
    statements.extend(views.bound.proof(&view));
    statements.push(format!("SET LOCAL ROLE {}", identifier(&table.owner)));
    statements.push(format!("DROP VIEW {}", qualified(&table.schema, &old_view)));
    statements.extend(drops);
    statements.push(format!("ALTER TABLE ONLY {view} DROP COLUMN {gz}, DROP COLUMN {hash}"));
    (check, statements)
}

/// Returns the objects other than views that depend on the view by more than its name.
async fn bound_to(connection: &mut PgConnection, view: i64) -> Result<Vec<String>> {
    Ok(sqlx::query_scalar(
        "SELECT DISTINCT CASE WHEN v.oid IS NULL THEN pg_describe_object(d.classid, d.objid, 0) ELSE pg_describe_object('pg_class'::regclass, v.oid, 0) END
         FROM pg_depend d LEFT JOIN pg_rewrite r ON d.classid = 'pg_rewrite'::regclass AND r.oid = d.objid LEFT JOIN pg_class v ON v.oid = r.ev_class
         WHERE d.deptype = 'n' AND v.oid IS DISTINCT FROM $1::bigint::oid
           AND (d.refclassid = 'pg_class'::regclass AND d.refobjid = $1::bigint::oid AND v.relkind IS DISTINCT FROM 'v'
             OR d.refclassid = 'pg_type'::regclass AND d.refobjid IN (
                 SELECT reltype FROM pg_class WHERE oid = $1::bigint::oid UNION SELECT typarray FROM pg_type WHERE typrelid = $1::bigint::oid))
         ORDER BY 1",
    )
    .bind(view)
    .fetch_all(connection)
    .await?)
}

/// Fails, before hours of work, if the role may not rename the table.
async fn may_uninstall(connection: &mut PgConnection, table: &Table) -> Result<()> {
    let may: bool = sqlx::query_scalar("SELECT pg_has_role($1::name, 'USAGE')").bind(&table.owner).fetch_one(connection).await?;
    if may {
        return Ok(());
    }
    let (owner, name) = (identifier(&table.owner), table.sql());
    let message = format!("only the owner of {name} may rename it: GRANT {owner} TO the role; --keep-view needs only UPDATE");
    Err(Fault::new(Kind::Permission, message).into())
}

/// Fails, before hours of work, if a column of the view has privileges and another name than in the table: they could not be granted there.
async fn refuse_renamed(connection: &mut PgConnection, table: &Table, view: i64) -> Result<()> {
    let names: Option<String> = sqlx::query_scalar(
        "SELECT string_agg(quote_ident(a.attname), ', ' ORDER BY attnum) FROM pg_attribute a
         WHERE attrelid = $2::bigint::oid AND NOT attisdropped AND attacl IS NOT NULL AND NOT EXISTS (
             SELECT FROM pg_attribute b WHERE b.attrelid = $1::bigint::oid AND b.attname = a.attname AND NOT b.attisdropped)",
    )
    .bind(table.oid)
    .bind(view)
    .fetch_one(connection)
    .await?;
    let Some(names) = names else { return Ok(()) };
    let message = format!(
        "view {} has columns with privileges of their own and with other names than in {}: {names}. First give them those names (ALTER VIEW … RENAME COLUMN)",
        table.view_sql(),
        table.sql()
    );
    Err(Fault::new(Kind::Configuration, message).into())
}

/// Returns the objects, other than pgtend's, that need the companion columns, by pg_depend and by the text of trigger functions.
async fn bound_to_columns(connection: &mut PgConnection, table: &Table, view: i64) -> Result<Vec<String>> {
    let names = ["_gz", "_sha256"].map(|ending| companion(&table.text_column.name, ending)).to_vec();
    Ok(sqlx::query_scalar(
        "SELECT DISTINCT CASE WHEN v.oid IS NULL THEN pg_describe_object(d.classid, d.objid, d.objsubid) ELSE pg_describe_object('pg_class'::regclass, v.oid, 0) END || ' needs ' || quote_ident(a.attname)
         FROM pg_depend d JOIN pg_attribute a ON a.attrelid = d.refobjid AND a.attnum = d.refobjsubid
         LEFT JOIN pg_rewrite r ON d.classid = 'pg_rewrite'::regclass AND r.oid = d.objid LEFT JOIN pg_class v ON v.oid = r.ev_class
         LEFT JOIN pg_trigger t ON d.classid = 'pg_trigger'::regclass AND t.oid = d.objid
         LEFT JOIN pg_constraint k ON d.classid = 'pg_constraint'::regclass AND k.oid = d.objid
         WHERE d.refclassid = 'pg_class'::regclass AND d.refobjid = $1::bigint::oid AND a.attname = ANY ($3::text[])
           AND d.classid IN ('pg_rewrite'::regclass, 'pg_trigger'::regclass, 'pg_constraint'::regclass, 'pg_class'::regclass, 'pg_policy'::regclass, 'pg_proc'::regclass, 'pg_attrdef'::regclass)
           AND v.oid IS DISTINCT FROM $2::bigint::oid AND (t.tgname IS NULL OR t.tgname <> ALL ($4::text[])) AND (k.conname IS NULL OR k.conname <> ALL ($5::text[]))
           AND NOT (d.classid = 'pg_class'::regclass AND d.objid = $1::bigint::oid AND d.objsubid = 0)
         UNION
         SELECT format('the function of trigger %I, %s, names %I', t.tgname, p.oid::regprocedure, name)
         FROM pg_trigger t JOIN pg_proc p ON p.oid = t.tgfoid, unnest($3::text[]) name
         WHERE t.tgrelid = $1::bigint::oid AND NOT t.tgisinternal AND t.tgname <> ALL ($4::text[]) AND strpos(p.prosrc, name) > 0
         ORDER BY 1",
    )
    .bind(table.oid)
    .bind(view)
    .bind(names)
    .bind(GUARDS.map(str::to_owned).to_vec())
    .bind(vec![CONSTRAINT, PLAIN])
    .fetch_all(connection)
    .await?)
}

/// Returns statements that grant on the table what was granted on the view later, so that readers keep it.
async fn later_grants(connection: &mut PgConnection, table: &Table, view: i64) -> Result<Vec<String>> {
    let name = table.view_sql();
    Ok(privileges_beyond(connection, view, table.oid)
        .await?
        .into_iter()
        .map(|(role, privilege, grantable)| {
            let option = if grantable && role != "PUBLIC" { " WITH GRANT OPTION" } else { "" };
            format!("GRANT {privilege} ON TABLE {name} TO {role}{option}")
        })
        .collect())
}

/// Returns remarks on privileges that the table grants under its other name, and the view does not.
async fn wider(connection: &mut PgConnection, table: &Table, view: i64) -> Result<Vec<String>> {
    let name = table.view_sql();
    let remark = |(role, privilege, _): (String, String, bool)| {
        format!(
            "{role} has {privilege} on {}, which becomes {name}, but not on the view; if it was revoked there: REVOKE {privilege} ON TABLE {name} FROM {role}",
            table.sql()
        )
    };
    // Other privileges mean nothing for a view, so that it never had them.
    let found = privileges_beyond(connection, table.oid, view).await?.into_iter();
    Ok(found
        .filter(|(_, privilege, _)| ["SELECT", "INSERT", "UPDATE", "DELETE"].iter().any(|kind| privilege.starts_with(kind)))
        .map(remark)
        .collect())
}

/// Returns the privileges that one relation grants to roles other than its owner, and the other does not: the quoted role, the
/// privilege (`SELECT`, or of a column `SELECT ("title")`), and whether it has the GRANT OPTION.
async fn privileges_beyond(connection: &mut PgConnection, one: i64, other: i64) -> Result<Vec<(String, String, bool)>> {
    Ok(sqlx::query_as(
        "WITH given AS (
             SELECT c.oid, c.relowner, a.*, NULL::name AS attname FROM pg_class c, aclexplode(c.relacl) a WHERE c.oid IN ($1::bigint::oid, $2::bigint::oid)
             UNION ALL SELECT c.oid, c.relowner, a.*, attname FROM pg_class c JOIN pg_attribute ON attrelid = c.oid AND NOT attisdropped, aclexplode(attacl) a
             WHERE c.oid IN ($1::bigint::oid, $2::bigint::oid))
         SELECT coalesce(quote_ident(rolname), 'PUBLIC'), privilege_type || coalesce(' (' || quote_ident(attname) || ')', ''), bool_or(is_grantable)
         FROM given LEFT JOIN pg_roles r ON r.oid = given.grantee
         WHERE given.oid = $1::bigint::oid AND given.grantee <> given.relowner AND (given.grantee = 0 OR rolname IS NOT NULL) AND NOT EXISTS (
             SELECT FROM given had WHERE had.oid = $2::bigint::oid AND had.grantee = given.grantee AND had.privilege_type = given.privilege_type
               AND (had.attname IS NULL OR had.attname = given.attname))
         GROUP BY 1, 2 ORDER BY 1, 2",
    )
    .bind(one)
    .bind(other)
    .fetch_all(connection)
    .await?)
}
