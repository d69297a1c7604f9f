//! Finds out why a dump failed, and what helps. pg_dump passes on the server's message, in the server's language and without a SQLSTATE.
//! Its own words are English (LC_MESSAGES=C) and say what it was doing; the cause is looked up on the server in a session of ours. So a
//! hint may be missing, but it is not wrong, whatever language the server speaks.

use anyhow::Result;
use sqlx::postgres::PgConnection;

use super::keys::Backup;
use super::plan::Plan;
use super::readiness::{self, Readiness};
use crate::base::fault::{Fault, Kind};
use crate::pg::{self, failure, identifier};
use crate::task::backup::standby::recovery_conflicts;

/// The longest text of a row, leaving room for escaping: PostgreSQL allocates at most 1 GiB.
const ROW_LONGEST_BYTES: u64 = 1_000_000_000;

/// This many tables of a LOCK TABLE are repeated.
const TABLES_SHOWN: usize = 3;

/// The messages of pg_dump's library when there is no connection or it was lost.
const NO_CONNECTION: [&str; 3] = ["connection to server", "server closed the connection", "could not connect"];

/// The findings on the server.
#[derive(Debug, Default)]
struct Found {
    ready: Readiness,
    /// SQL that finds rows that cannot be sent, of the table that was being dumped.
    long_rows: Option<String>,
    /// Sessions that hold or await a lock that blocks all readers.
    locked: Vec<Locked>,
    /// True if the standby has cancelled something since the dump began.
    recovery_conflict: bool,
    /// The kind of failure that our own connection met.
    no_connection: Option<Kind>,
}

/// A table that cannot be read at the moment.
#[derive(Clone, Debug, sqlx::FromRow)]
struct Locked {
    /// In SQL.
    table: String,
    /// In words, with the verb.
    by: String,
}

/// The error of a run whose pg_dump ended as `status` and said `said`.
pub async fn explain(status: &str, said: &str, settings: &pg::Settings, plan: &Plan, backup: &Backup) -> anyhow::Error {
    let mut found = Found::default();
    match settings.connect().await {
        Err(error) => found.no_connection = failure::kind_of(&error),
        Ok(mut connection) => {
            if let Err(error) = look(&mut found, &mut connection, said, settings, (plan, backup)).await {
                tracing::debug!("cannot find out why pg_dump failed: {error:#}");
            }
        }
    }
    let (kind, hint) = decide(said, &found, backup);
    let said = if said.is_empty() { "it said nothing".to_owned() } else { without_long_lists(said) };
    let message = match hint {
        Some(hint) => format!("pg_dump failed ({status}): {said}; {hint}"),
        None => format!("pg_dump failed ({status}): {said}"),
    };
    match kind {
        Some(kind) => Fault::new(kind, message).into(),
        None => anyhow::anyhow!(message),
    }
}

async fn look(
    found: &mut Found,
    connection: &mut PgConnection,
    said: &str,
    settings: &pg::Settings,
    (plan, backup): (&Plan, &Backup),
) -> Result<()> {
    if said.contains("LOCK TABLE") {
        // This comes first, because the lock may soon be released.
        found.locked = sqlx::query_as(include_str!("locked.sql")).fetch_all(&mut *connection).await?;
    }
    found.ready = readiness::read(connection, backup, settings).await?;
    if let Some(table) = copied_table(said) {
        found.recovery_conflict = recovery_conflicts(connection).await? > plan.recovery_conflicts;
        if names_a_gigabyte(said) {
            found.long_rows = search_for_long_rows(connection, table).await?;
        }
    }
    Ok(())
}

/// Who holds or awaits a lock that keeps readers out, as the end of a sentence; empty when no session does any more.
pub async fn who_locks(settings: &pg::Settings) -> Result<String> {
    let mut connection = settings.connect().await?;
    let locked: Vec<Locked> = sqlx::query_as(include_str!("locked.sql")).fetch_all(&mut connection).await?;
    let said: Vec<String> = locked.iter().take(TABLES_SHOWN).map(|locked| format!("{} {}", locked.table, locked.by)).collect();
    Ok(if said.is_empty() { String::new() } else { format!(": {}: end that session, or run at another time", said.join("; ")) })
}

/// The kind of the failure, and what helps. Pure.
fn decide(said: &str, found: &Found, backup: &Backup) -> (Option<Kind>, Option<String>) {
    let says = |texts: &[&str]| texts.iter().any(|text| said.contains(text));
    let (locking, copying) = (says(&["LOCK TABLE"]), copied_table(said).is_some());
    let Found { ready, long_rows, locked, recovery_conflict, no_connection } = found;

    if says(&["no matching schemas were found", "no matching tables were found"]) {
        let correct =
            || "correct `schemas` of the job: a pattern without a match would leave out what it was meant to include".to_owned();
        let hint = backup.schema.as_deref().map_or_else(correct, readiness::lacks_schema);
        return (Some(Kind::Configuration), Some(hint));
    }
    if no_connection.is_some() {
        return (*no_connection, None);
    }
    if says(&NO_CONNECTION) {
        return (Some(Kind::Unreachable), None);
    }
    if says(&["large object"])
        && let Some(hint) = ready.large_objects_in_words()
    {
        return (Some(Kind::Permission), Some(hint));
    }
    // Whatever pg_dump said, a complete dump is impossible then.
    if let Some(hint) = ready.unreadable_in_words() {
        return (Some(Kind::Permission), Some(hint));
    }
    if copied_table(said).is_some_and(|table| ready.row_security.iter().any(|name| name == table)) {
        return (Some(Kind::Permission), ready.row_security_in_words());
    }
    if locking {
        return (None, Some(about_locks(said, ready, locked, backup)));
    }
    if let Some(search) = long_rows {
        let hint = format!(
            "a row of that table is longer than 1 GB as text, which PostgreSQL cannot send (bytea doubles in size as text: at most 512 MB fit): shorten or \
             delete it, or leave the table's rows out with exclude_table_data; as the table's owner, this finds it: {search}"
        );
        return (None, Some(hint));
    }
    if *recovery_conflict && copying {
        let hint = "the standby cancelled the dump because it held back recovery: raise max_standby_streaming_delay, or dump the primary";
        return (None, Some(hint.to_owned()));
    }
    (None, None)
}

fn about_locks(said: &str, ready: &Readiness, locked: &[Locked], backup: &Backup) -> String {
    if let Some(hint) = ready.locks_in_words() {
        return hint;
    }
    // A setting's name is the same in every language.
    if said.contains("max_locks_per_transaction") {
        return format!(
            "the dump needs {} locks, and other sessions hold some: raise max_locks_per_transaction (now {}) and restart the server",
            ready.locks_needed, ready.locks_per_transaction
        );
    }
    let wait = backup.lock_wait_timeout;
    // A long list may have been cut.
    let named: Vec<&Locked> = locked.iter().filter(|locked| said.contains(&locked.table)).collect();
    let who = if named.is_empty() { locked.iter().collect() } else { named };
    match who.as_slice() {
        [] => format!(
            "if it waited for a lock longer than lock_wait_timeout ({wait}), the lock has been released by now: run it again"
        ),
        who => {
            let who: Vec<String> =
                who.iter().take(TABLES_SHOWN).map(|locked| format!("{} {}", locked.table, locked.by)).collect();
            format!("{}: raise lock_wait_timeout ({wait}), end that session, or run at another time", who.join("; "))
        }
    }
}

/// pg_dump repeats its whole LOCK TABLE, which may name each table of the database; its end may be cut off.
fn without_long_lists(said: &str) -> String {
    let lines = said.lines().map(|line| {
        let Some((start, list)) = line.split_once("LOCK TABLE ") else { return line.to_owned() };
        let (list, end) =
            list.split_once(" IN ACCESS SHARE MODE").map_or((list, ""), |(list, _)| (list, " IN ACCESS SHARE MODE"));
        let tables: Vec<&str> = list.split(", ").collect();
        if tables.len() <= TABLES_SHOWN {
            return line.to_owned();
        }
        let count = if end.is_empty() { String::new() } else { format!(" ({} tables)", tables.len()) };
        format!("{start}LOCK TABLE {}, …{count}{end}", tables[..TABLES_SHOWN].join(", "))
    });
    lines.collect::<Vec<_>>().join("\n")
}

/// `public.f` out of "… command was: COPY public.f (id, b) TO stdout;".
fn copied_table(said: &str) -> Option<&str> {
    let (_, rest) = said.split_once(" was: COPY ")?;
    let (command, _) = rest.split_once(" TO stdout").or_else(|| rest.split_once(" TO STDOUT"))?;
    // `COPY (SELECT …)`: of a foreign table, or with a condition.
    let table = command.split(" (").next()?.trim();
    (!table.is_empty() && !table.starts_with('(')).then_some(table)
}

/// Returns whether the message names sizes of a GiB together, as PostgreSQL's messages about too long texts do in every language: "invalid
/// memory alloc request size 1073741824", "string buffer containing 512 bytes by 1073741312 more bytes".
fn names_a_gigabyte(said: &str) -> bool {
    let numbers = said.split(|letter: char| !letter.is_ascii_digit()).filter_map(|digits| digits.parse::<u64>().ok());
    numbers.fold(0, u64::saturating_add) >= ROW_LONGEST_BYTES
}

/// Returns SQL that finds rows whose text is too long, from the catalog. It is not run here: a query of the table would run what its owner put
/// into conditions of its indexes, with the rights of this role. The name in pg_dump's message may also have been chosen by an attacker.
async fn search_for_long_rows(connection: &mut PgConnection, table: &str) -> Result<Option<String>> {
    let columns: Vec<(String, String, String)> = sqlx::query_as(
        "SELECT pg_catalog.format('%I.%I', n.nspname, c.relname), a.attname::text, a.atttypid::pg_catalog.regtype::text
         FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace JOIN pg_catalog.pg_attribute a ON a.attrelid = c.oid
         WHERE c.oid = pg_catalog.to_regclass($1) AND c.relkind IN ('r', 'm') AND a.attnum > 0 AND NOT a.attisdropped ORDER BY a.attnum",
    )
    .bind(table)
    .fetch_all(connection)
    .await?;
    let Some((name, ..)) = columns.first() else { return Ok(None) };
    let sizes = columns.iter().map(|(_, column, kind)| {
        let column = identifier(column);
        // Sizes come from the rows' headers: values stored out of line are not read.
        let size = match kind.as_str() {
            "bytea" => format!("2 * octet_length({column})::bigint"),
            "text" | "character varying" => format!("octet_length({column})::bigint"),
            _ => format!("pg_column_size({column})::bigint"),
        };
        format!("coalesce({size}, 0)")
    });
    let sizes = sizes.collect::<Vec<_>>().join(" + ");
    Ok(Some(format!("SELECT ctid FROM ONLY {name} WHERE {sizes} > {ROW_LONGEST_BYTES}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    const COPY: &str = "pg_dump: error: Dumping the contents of table \"f\" failed: PQgetResult() failed.\npg_dump: detail: Error message from server: FEHLER:  x\npg_dump: detail: Command was: COPY public.f (id, b) TO stdout;";

    #[test]
    fn the_table_that_was_dumped_is_read_out_of_what_pg_dump_says() {
        for (said, table) in [
            (COPY, Some("public.f")),
            ("The command was: COPY \"we ird\".t  TO stdout;", Some("\"we ird\".t")),
            ("Command was: COPY (SELECT x FROM public.t) TO stdout;", None),
            ("pg_dump: detail: Query was: COPY app.\"T\" (i) TO stdout;", Some("app.\"T\"")),
            ("something else", None),
        ] {
            assert_eq!(copied_table(said), table, "{said}");
        }
    }

    #[test]
    fn a_text_that_is_too_long_is_known_by_its_size_in_any_language() {
        for (said, expected) in [
            ("ERROR:  invalid memory alloc request size 1073741824", true),
            ("DETAIL:  Cannot enlarge string buffer containing 536870920 bytes by 536870922 more bytes.", true),
            ("FEHLER:  ungültige Anforderungsgröße für Speicherzuweisung: 1400000003", true),
            ("ERROR:  invalid page in block 4711 of relation base/16384/16385", false),
            (COPY, false),
        ] {
            assert_eq!(names_a_gigabyte(said), expected, "{said}");
        }
    }

    #[test]
    fn a_list_of_all_tables_is_shown_by_its_start() {
        let tables: Vec<String> = (0..900).map(|number| format!("public.t{number}")).collect();
        let said = format!(
            "pg_dump: error: query failed: ERROR:  x\npg_dump: detail: Query was: LOCK TABLE {} IN ACCESS SHARE MODE",
            tables.join(", ")
        );
        assert_eq!(
            without_long_lists(&said),
            "pg_dump: error: query failed: ERROR:  x\npg_dump: detail: Query was: LOCK TABLE public.t0, public.t1, public.t2, … (900 tables) IN ACCESS SHARE MODE"
        );
        assert_eq!(without_long_lists("LOCK TABLE public.t IN ACCESS SHARE MODE"), "LOCK TABLE public.t IN ACCESS SHARE MODE");
    }

    #[test]
    fn what_helps_is_found_in_any_language_and_nothing_is_guessed() {
        let unreadable = || Readiness { role: "bk".into(), unreadable: vec!["public.t".into()], ..Readiness::default() };
        let objects = || Readiness {
            role: "bk".into(),
            database: "d".into(),
            unreadable_large_objects: 1,
            a_large_object: Some(16400),
            large_object_owners: vec!["app".into()],
            ..Readiness::default()
        };
        let locks = || Readiness { locks_needed: 3000, locks_per_transaction: 10, lock_holders: 32, ..Readiness::default() };
        let found = |ready: Readiness| Found { ready, ..Found::default() };
        let lock = "pg_dump: error: query failed: FEHLER:  irgendetwas\npg_dump: detail: Query was: LOCK TABLE public.t IN ACCESS SHARE MODE";
        let locked = |table: &str| Locked { table: table.into(), by: "is locked by server process 7".into() };
        for (said, found, kind, expected) in [
            (lock, found(unreadable()), Some(Kind::Permission), "GRANT pg_read_all_data TO bk"),
            (lock, found(locks()), None, "max_locks_per_transaction = 118"),
            (lock, Found::default(), None, "the lock has been released by now"),
            (
                lock,
                Found { locked: vec![locked("public.other"), locked("public.t")], ..Found::default() },
                None,
                "; public.t is locked by server process 7: raise lock_wait_timeout (1m)",
            ),
            (
                "pg_dump: error: could not open large object 16400: FEHLER:  keine Berechtigung",
                found(objects()),
                Some(Kind::Permission),
                "cannot read 1 large object (such as 16400), which pg_read_all_data covers since PostgreSQL 19 only: GRANT app TO bk, or as a superuser: ALTER ROLE bk IN DATABASE d SET lo_compat_privileges = on",
            ),
            (
                COPY,
                Found { long_rows: Some("SELECT ctid FROM ONLY public.f WHERE true".into()), ..Found::default() },
                None,
                "this finds it: SELECT ctid FROM ONLY public.f WHERE true",
            ),
            (COPY, Found { recovery_conflict: true, ..Found::default() }, None, "dump the primary"),
            (COPY, Found::default(), None, ""),
            (
                COPY,
                found(Readiness { role: "bk".into(), row_security: vec!["public.f".into()], ..Readiness::default() }),
                Some(Kind::Permission),
                "ALTER ROLE bk BYPASSRLS",
            ),
            (
                "pg_dump: error: no matching schemas were found for pattern \"nosuch\"",
                Found::default(),
                Some(Kind::Configuration),
                "correct `schemas`",
            ),
            ("pg_dump: error: connection to server failed", Found::default(), Some(Kind::Unreachable), ""),
            (
                "pg_dump: error: connection to server failed: FATAL:  Passwort-Authentifizierung",
                Found { no_connection: Some(Kind::Permission), ..Found::default() },
                Some(Kind::Permission),
                "",
            ),
        ] {
            let (seen, hint) = decide(said, &found, &Backup::for_tests());
            let text = format!("; {}", hint.unwrap_or_default());
            assert!(seen == kind && text.contains(expected), "{said}: {seen:?} {text}");
            assert!(!expected.is_empty() || text == "; ", "{said}: {text}");
        }
    }
}
