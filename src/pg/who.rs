//! How a session is named to people.

/// SQL: "server process 123 (app, psql, …)" of a row of pg_stat_activity. `$more` is SQL of what follows in the parentheses, from its comma
/// on, or NULL. A literal, as a query has to be one.
macro_rules! session_in_words {
    ($row:literal, $more:literal) => {
        concat!(
            "pg_catalog.format('server process %s (%s, %s%s)', ",
            $row,
            ".pid, coalesce(",
            $row,
            ".usename, '-'), ",
            "coalesce(nullif(",
            $row,
            ".application_name, ''), ",
            $row,
            ".backend_type, '-'), ",
            $more,
            ")"
        )
    };
}

pub(crate) use session_in_words;
