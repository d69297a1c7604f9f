//! Why a dump failed, and what helps. pg_dump hands on what the server said, in the server's language and without a
//! SQLSTATE; its own words are English and say what it was doing. So the server is asked what is the matter.

use anyhow::Result;
use sqlx::postgres::PgConnection;

use super::plan::Plan;
use super::readiness::{self, Readiness};
use crate::fault::{Fault, Kind};
use crate::pg::{self, identifier};

/// For looking through a table: not longer than people wait for an error.
const LOOKING_TIMEOUT: &str = "60s";

/// What a row may have as text, with what escaping adds to spare: PostgreSQL allocates no more than 1 GiB.
const ROW_LONGEST_BYTES: i64 = 1_000_000_000;

/// What was found out.
#[derive(Debug, Default)]
struct Found {
    ready: Readiness,
    /// Rows of the table that was being dumped and cannot be sent: where they are.
    long_rows: Vec<String>,
    in_recovery: bool,
}

/// The error of a run whose pg_dump ended as `status` and said `said`.
pub async fn explain(status: &str, said: &str, settings: &pg::Settings, plan: &Plan) -> anyhow::Error {
    let mut found = Found { in_recovery: plan.server.in_recovery, ..Found::default() };
    let looking = async {
        let mut connection = settings.connect().await?;
        found.ready = readiness::read(&mut connection).await?;
        if let Some(table) = copied_table(said) {
            found.long_rows = long_rows(&mut connection, table).await?;
        }
        anyhow::Ok(())
    };
    if let Err(error) = looking.await {
        tracing::debug!("cannot find out why pg_dump failed: {error:#}");
    }
    let (kind, hint) = decide(said, &found);
    let said = if said.is_empty() { "it said nothing" } else { said };
    let message = match hint {
        Some(hint) => format!("pg_dump failed ({status}): {said}; {hint}"),
        None => format!("pg_dump failed ({status}): {said}"),
    };
    match kind {
        Some(kind) => Fault::new(kind, message).into(),
        None => anyhow::anyhow!(message),
    }
}

/// Pure. The kind of the failure, and what helps.
fn decide(said: &str, found: &Found) -> (Option<Kind>, Option<String>) {
    let says = |texts: &[&str]| texts.iter().any(|text| said.contains(text));
    let (locking, copying) = (says(&["LOCK TABLE"]), copied_table(said).is_some());
    let Found { ready, long_rows, in_recovery } = found;

    if says(&["no matching schemas were found", "no matching tables were found"]) {
        let hint = "correct `schemas` of the job: a pattern that matches nothing would leave out what it was meant to keep";
        return (Some(Kind::Configuration), Some(hint.to_owned()));
    }
    if says(&["large object"])
        && let Some(hint) = ready.large_objects_in_words()
    {
        return (Some(Kind::Permission), Some(hint));
    }
    if (locking || copying || says(&["permission denied"]))
        && let Some(hint) = ready.unreadable_in_words()
    {
        return (Some(Kind::Permission), Some(hint));
    }
    let has_row_security = copied_table(said).is_some_and(|table| ready.row_security.iter().any(|name| name == table));
    if says(&["row-level security"]) || has_row_security {
        return (
            Some(Kind::Permission),
            Some(format!("{} has policies: dump as a role with BYPASSRLS", ready.row_security.join(", "))),
        );
    }
    if let Some(hint) = ready.locks_in_words().filter(|_| locking) {
        return (None, Some(hint));
    }
    if says(&["max_locks_per_transaction"]) {
        let hint = format!(
            "the dump needs {} locks, and other sessions hold some: raise max_locks_per_transaction (now {}) and restart the server",
            ready.locks_needed, ready.locks_per_transaction
        );
        return (None, Some(hint));
    }
    if locking {
        return (None, Some("somebody holds a table locked: raise lock_wait_timeout, or run at another time".to_owned()));
    }
    let too_long = ["invalid memory alloc request size", "Cannot enlarge string buffer", "string buffer exceeds maximum"];
    if says(&too_long) || !long_rows.is_empty() {
        let which = match long_rows.as_slice() {
            [] => "a row".to_owned(),
            rows => format!("the row at {}", rows.join(", ")),
        };
        let hint = format!(
            "{which} of that table is longer than 1 GB as text, which PostgreSQL cannot send (bytea doubles as text: 512 MB is the most): \
             shorten or delete it, or leave the table's rows out with exclude_table_data"
        );
        return (None, Some(hint));
    }
    let conflict = "canceling statement due to conflict with recovery";
    if says(&[conflict]) || *in_recovery && copying {
        return (
            None,
            Some(
                "a standby cancels what holds back its recovery: raise max_standby_streaming_delay, or dump the primary"
                    .to_owned(),
            ),
        );
    }
    (pg::kind_of_message(said), None)
}

/// `public.f` out of "… command was: COPY public.f (id, b) TO stdout;".
fn copied_table(said: &str) -> Option<&str> {
    let (_, rest) = said.split_once("ommand was: COPY ")?;
    let (command, _) = rest.split_once(" TO stdout").or_else(|| rest.split_once(" TO STDOUT"))?;
    // `COPY (SELECT …)`: of a foreign table, or with a condition.
    let table = command.split(" (").next()?.trim();
    (!table.is_empty() && !table.starts_with('(')).then_some(table)
}

/// Where rows are whose text is too long. Sizes come from the rows' headers: what is stored apart is not read.
async fn long_rows(connection: &mut PgConnection, table: &str) -> Result<Vec<String>> {
    pg::set(connection, "statement_timeout", LOOKING_TIMEOUT).await?;
    let columns: Vec<(String, String)> = sqlx::query_as(
        "SELECT attname::text, atttypid::pg_catalog.regtype::text FROM pg_catalog.pg_attribute
         WHERE attrelid = pg_catalog.to_regclass($1) AND attnum > 0 AND NOT attisdropped",
    )
    .bind(table)
    .fetch_all(&mut *connection)
    .await?;
    if columns.is_empty() {
        return Ok(Vec::new());
    }
    let sizes: Vec<String> = columns
        .iter()
        .map(|(name, kind)| {
            let name = identifier(name);
            let size = match kind.as_str() {
                "bytea" => format!("2 * pg_catalog.octet_length({name})::bigint"),
                "text" | "character varying" => format!("pg_catalog.octet_length({name})::bigint"),
                _ => format!("pg_catalog.pg_column_size({name})::bigint"),
            };
            format!("coalesce({size}, 0)")
        })
        .collect();
    let name = pg::fetch_text(
        connection,
        format!(
            "SELECT pg_catalog.format('%I.%I', n.nspname, c.relname) FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
             WHERE c.oid = pg_catalog.to_regclass({})",
            pg::literal(table)
        ),
    )
    .await?;
    let Some(name) = name else { return Ok(Vec::new()) };
    let sql = format!("SELECT 'ctid ' || ctid::text FROM ONLY {name} WHERE {} > {ROW_LONGEST_BYTES} LIMIT 3", sizes.join(" + "));
    let rows: Vec<(String,)> = pg::fetch_all_as(connection, sql).await?;
    Ok(rows.into_iter().map(|(row,)| row).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    const COPY: &str = "pg_dump: error: Dumping the contents of table \"f\" failed: PQgetResult() failed.\npg_dump: detail: Error message from server: ERROR:  x\npg_dump: detail: Command was: COPY public.f (id, b) TO stdout;";

    fn hint(said: &str, found: &Found) -> (Option<Kind>, String) {
        let (kind, hint) = decide(said, found);
        (kind, hint.unwrap_or_default())
    }

    #[test]
    fn the_table_that_was_dumped_is_read_out_of_what_pg_dump_says() {
        for (said, table) in [
            (COPY, Some("public.f")),
            ("The command was: COPY \"we ird\".t  TO stdout;", Some("\"we ird\".t")),
            ("Command was: COPY (SELECT x FROM public.t) TO stdout;", None),
            ("something else", None),
        ] {
            assert_eq!(copied_table(said), table, "{said}");
        }
    }

    #[test]
    fn what_helps_is_found_in_any_language() {
        let unreadable = || Readiness { role: "bk".into(), unreadable: vec!["public.t".into()], ..Readiness::default() };
        let objects =
            || Readiness { role: "bk".into(), unreadable_large_objects: 2, a_large_object: Some(16400), ..Readiness::default() };
        let locks = || Readiness { locks_needed: 3000, locks_per_transaction: 10, lock_holders: 32, ..Readiness::default() };
        let found = |ready: Readiness| Found { ready, ..Found::default() };
        let lock = "pg_dump: error: query failed: FEHLER:  irgendetwas\npg_dump: detail: Query was: LOCK TABLE public.t IN ACCESS SHARE MODE";
        for (said, found, kind, expected) in [
            (lock, found(unreadable()), Some(Kind::Permission), "GRANT pg_read_all_data"),
            (lock, found(locks()), None, "max_locks_per_transaction = 118"),
            (lock, found(Readiness::default()), None, "raise lock_wait_timeout"),
            (
                "pg_dump: error: could not open large object 16400: FEHLER:  keine Berechtigung",
                found(objects()),
                Some(Kind::Permission),
                "GRANT SELECT ON LARGE OBJECT 16400 TO bk",
            ),
            (
                COPY,
                Found { long_rows: vec!["ctid (0,1)".into()], ..Found::default() },
                None,
                "the row at ctid (0,1) of that table is longer than 1 GB as text",
            ),
            (COPY, Found { in_recovery: true, ..Found::default() }, None, "dump the primary"),
            (
                COPY,
                found(Readiness { row_security: vec!["public.f".into()], ..Readiness::default() }),
                Some(Kind::Permission),
                "BYPASSRLS",
            ),
            (
                "pg_dump: error: no matching schemas were found for pattern \"nosuch\"",
                Found::default(),
                Some(Kind::Configuration),
                "correct `schemas`",
            ),
            ("pg_dump: error: connection to server failed", Found::default(), Some(Kind::Unreachable), ""),
        ] {
            let (seen, text) = hint(said, &found);
            assert!(seen == kind && text.contains(expected), "{said}: {seen:?} {text}");
        }
    }
}
