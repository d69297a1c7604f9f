//! What is passed on of a server's words about the user's SQL. Rows that are not masked yet are nobody's to read, and code in the source, such as a trigger,
//! says what it likes with the SQLSTATE that it likes. So only messages of known shapes are passed on, and in them only names that the statement itself has;
//! of others the SQLSTATE, and the constraint or table where the server's own code says which.

use crate::base::fault;
use crate::pg::{self, Fields, failure};
use crate::task::backup::shown;

/// PostgreSQL's own messages; `…` stands for a name. Those of servers in another language fit none.
const SHAPES: &[&str] = &[
    "relation \"…\" does not exist",
    "table \"…\" does not exist",
    "view \"…\" does not exist",
    "materialized view \"…\" does not exist",
    "sequence \"…\" does not exist",
    "index \"…\" does not exist",
    "schema \"…\" does not exist",
    "type \"…\" does not exist",
    "role \"…\" does not exist",
    "extension \"…\" does not exist",
    "server \"…\" does not exist",
    "function …(…) does not exist",
    "procedure …(…) does not exist",
    "operator does not exist: …",
    "trigger \"…\" for table \"…\" does not exist",
    "constraint \"…\" of relation \"…\" does not exist",
    "column \"…\" of relation \"…\" does not exist",
    "column \"…\" does not exist",
    "column … does not exist",
    "column reference \"…\" is ambiguous",
    "missing FROM-clause entry for table \"…\"",
    "column \"…\" is of type … but expression is of type …",
    "relation \"…\" already exists",
    "schema \"…\" already exists",
    "column \"…\" of relation \"…\" already exists",
    "\"…\" is not a table",
    "\"…\" is a view",
    "\"…\" is not a table or materialized view",
    "permission denied for table …",
    "permission denied for view …",
    "permission denied for materialized view …",
    "permission denied for sequence …",
    "permission denied for schema …",
    "permission denied for function …",
    "permission denied for foreign server …",
    "permission denied for database …",
    "must be owner of table …",
    "must be owner of view …",
    "must be owner of materialized view …",
    "must be owner of sequence …",
    "must be owner of relation …",
    "must be owner of index …",
    "must be owner of schema …",
    "must be owner of function …",
    "must be owner of foreign server …",
    "must be superuser to …",
    "query would be affected by row-level security policy for table \"…\"",
    "cannot truncate a table referenced in a foreign key constraint",
    "cannot drop … because other objects depend on it",
    "cannot execute … in a read-only transaction",
    "… cannot run inside a transaction block",
    "… cannot be executed from a function or procedure",
    "current transaction is aborted, commands ignored until end of transaction block",
    "syntax error at or near \"…\"",
    "syntax error at end of input",
    "division by zero",
    "invalid input syntax for type …: \"…\"",
    "invalid input value for enum …: \"…\"",
    "value \"…\" is out of range for type …",
    "value too long for type …",
    "deadlock detected",
    "canceling statement due to statement timeout",
    "canceling statement due to lock timeout",
    "canceling statement due to user request",
    "terminating connection due to administrator command",
    "out of memory",
    "out of shared memory",
    "could not extend file \"…\": No space left on device",
    "could not write to file \"…\": No space left on device",
    "duplicate key value violates unique constraint \"…\"",
    "could not create unique index \"…\"",
    "null value in column \"…\" of relation \"…\" violates not-null constraint",
    "new row for relation \"…\" violates check constraint \"…\"",
    "insert or update on table \"…\" violates foreign key constraint \"…\"",
    "update or delete on table \"…\" violates foreign key constraint \"…\" on table \"…\"",
];

/// The functions of PostgreSQL's source that report a violation (14 to 18): what they name are a table, a column and a constraint. Nobody's SQL can claim to
/// be one of them: an error of `RAISE` is of exec_stmt_raise, whatever it says.
const OF_CONSTRAINTS: [&str; 8] = [
    "_bt_check_unique",
    "comparetup_index_btree",
    "comparetup_index_btree_tiebreak",
    "ExecConstraints",
    "ReportNotNullViolationError",
    "check_exclusion_or_unique_constraint",
    "ri_ReportViolation",
    "ATRewriteTable",
];

/// Says why a statement of the user failed.
pub fn of_statement(error: &anyhow::Error, statement: &str) -> String {
    match pg::fields(error) {
        Some(fields) => of_fields(&fields, statement),
        // No server has said it.
        None => fault::without_values(&shown::said_of(statement, &failure::in_a_line(error))),
    }
}

fn of_fields(fields: &Fields, statement: &str) -> String {
    let state = &fields.sql_state;
    let names_are_of_the_server = fields.routine.as_deref().is_some_and(|routine| OF_CONSTRAINTS.contains(&routine));
    let told = |name: &str| names_are_of_the_server || statement.contains(name);
    if let Some(words) = SHAPES.iter().find_map(|shape| in_shape(shape, &fields.message, told)) {
        return format!("{words} (SQLSTATE {state})");
    }
    let object = match (names_are_of_the_server, &fields.constraint, &fields.table) {
        (true, Some(constraint), Some(table)) => format!(", of constraint \"{constraint}\" of table \"{table}\""),
        (true, None, Some(table)) => format!(", of table \"{table}\""),
        _ => String::new(),
    };
    format!("SQLSTATE {state}{object}; the words of the server are left out, as values of rows may be in them. Its log has them")
}

/// Returns a message that has this shape, with `…` in place of each name that is not told. None where it has another one.
fn in_shape(shape: &str, message: &str, told: impl Fn(&str) -> bool) -> Option<String> {
    let mut words = shape.split('…');
    let first = words.next()?;
    let mut rest = message.strip_prefix(first)?;
    let mut said = first.to_owned();
    let mut words = words.peekable();
    while let Some(next) = words.next() {
        let is_last = words.peek().is_none();
        let end = match (is_last, next.is_empty()) {
            (true, true) => rest.len(),
            (true, false) => rest.strip_suffix(next)?.len(),
            (false, _) => rest.find(next)?,
        };
        let (name, after) = rest.split_at(end);
        said += if told(name) { name } else { "…" };
        said += next;
        rest = after.get(next.len()..)?;
    }
    rest.is_empty().then_some(said)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(state: &str, routine: &str, message: &str) -> String {
        let fields = Fields {
            sql_state: state.to_owned(),
            message: message.to_owned(),
            routine: Some(routine.to_owned()),
            table: Some("users".to_owned()),
            constraint: Some("users_email_key".to_owned()),
        };
        of_fields(&fields, "UPDATE users SET email = mask(email)")
    }

    #[test]
    fn only_known_messages_are_passed_on_and_in_them_only_names_of_the_statement() {
        for (state, routine, message, expected) in [
            (
                "42P01",
                "parserOpenTable",
                "relation \"users\" does not exist",
                "relation \"users\" does not exist (SQLSTATE 42P01)",
            ),
            (
                "42883",
                "ParseFuncOrColumn",
                "function mask(text) does not exist",
                "function mask(…) does not exist (SQLSTATE 42883)",
            ),
            (
                "42501",
                "aclcheck_error",
                "permission denied for table users",
                "permission denied for table users (SQLSTATE 42501)",
            ),
            ("3F000", "get_namespace_oid", "schema \"p@company\" does not exist", "schema \"…\" does not exist (SQLSTATE 3F000)"),
            (
                "42P01",
                "exec_stmt_raise",
                "relation \"p@company\" does not exist",
                "relation \"…\" does not exist (SQLSTATE 42P01)",
            ),
            (
                "57014",
                "ProcessInterrupts",
                "canceling statement due to user request",
                "canceling statement due to user request (SQLSTATE 57014)",
            ),
            (
                "22P02",
                "pg_strtoint32_safe",
                "invalid input syntax for type integer: \"p@company\"",
                "invalid input syntax for type …: \"…\" (SQLSTATE 22P02)",
            ),
            (
                "23505",
                "_bt_check_unique",
                "duplicate key value violates unique constraint \"users_email_key\"",
                "duplicate key value violates unique constraint \"users_email_key\" (SQLSTATE 23505)",
            ),
            (
                "23505",
                "exec_stmt_raise",
                "duplicate key value violates unique constraint \"p@company\"",
                "duplicate key value violates unique constraint \"…\" (SQLSTATE 23505)",
            ),
        ] {
            assert_eq!(said(state, routine, message), expected);
        }
        for (state, message) in [
            ("42501", "account p@company may not be changed"),
            ("55000", "p@company"),
            ("42P01", "relation \"users\" does not exist for p@company"),
            ("P0001", "bad row p@company"),
            ("22023", "invalid value p@company"),
        ] {
            let said = said(state, "exec_stmt_raise", message);
            assert!(said.starts_with(&format!("SQLSTATE {state}; ")) && !said.contains("company"), "{said}");
        }
        let of_another_language =
            said("23505", "_bt_check_unique", "doppelter Schlüsselwert verletzt Unique-Constraint »users_email_key«");
        assert!(of_another_language.starts_with("SQLSTATE 23505, of constraint \"users_email_key\" of table \"users\""));
    }
}
