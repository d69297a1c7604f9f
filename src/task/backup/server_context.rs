//! What a server says about where an error was, by its form, which is the same in every language.

/// The innermost function of a context, by its form, which is the same in every language: `schema.name(arguments)`, or the name alone in
/// quotation marks for a function in SQL.
pub fn called(context: &str) -> Option<&str> {
    context.lines().find_map(|line| {
        // This line is about a COPY, or the text of a statement.
        if line.starts_with("COPY ") || line.ends_with(['"', '«']) {
            return None;
        }
        if let Some(open) = line.find('(') {
            let close = open + line[open..].find(')')? + 1;
            let start = line[..open].rfind(' ').map_or(0, |at| at + 1);
            return (start < open).then(|| &line[start..close]);
        }
        let quoted = |from: char, to: char| line.split_once(from)?.1.split_once(to).map(|(name, _)| name);
        quoted('"', '"').or_else(|| quoted('»', '«'))
    })
}

/// Returns whether a context names a function, in whatever language it is: `PL/Python function "f"`, too.
pub fn names_code(context: &str) -> bool {
    called(context).is_some() || context.lines().any(|line| !line.starts_with("COPY ") && line.contains("PL/"))
}

/// The context of a COPY that had only a part of a block's rows: `COPY t, line 3, column a: "x"`, in every language that has the number first after the
/// table's name and a comma. It gets the line of the block.
pub fn line_of_block(context: &str, rows_before: u64) -> String {
    let is_of_copy = |line: &&str| rows_before > 0 && line.starts_with("COPY ");
    let lines = context.lines().map(|line| {
        let found = Some(line).filter(is_of_copy).and_then(|line| {
            let comma = line.find(", ")?;
            let start = comma + line[comma..].find(|letter: char| letter.is_ascii_digit())?;
            let end = start + line[start..].find(|letter: char| !letter.is_ascii_digit()).unwrap_or(line.len() - start);
            // A number of a value stands after a colon.
            (!line[comma..start].contains(':')).then_some(())?;
            let number: u64 = line[start..end].parse().ok()?;
            Some(format!("{}{}{}", &line[..start], number.saturating_add(rows_before), &line[end..]))
        });
        found.unwrap_or_else(|| line.to_owned())
    });
    lines.collect::<Vec<_>>().join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_that_of_the_block_also_where_a_session_had_only_some_of_its_rows() {
        for (context, expected) in [
            ("COPY t, line 3, column a: \"x 7\"", "COPY t, line 103, column a: \"x 7\""),
            ("COPY t2, Zeile 3, Spalte a: »x«", "COPY t2, Zeile 103, Spalte a: »x«"),
            ("PL/pgSQL function f() line 3\nCOPY t, line 12", "PL/pgSQL function f() line 3\nCOPY t, line 112"),
            ("COPY t, column a: \"7\"", "COPY t, column a: \"7\""),
        ] {
            assert_eq!(line_of_block(context, 100), expected);
            assert_eq!(line_of_block(context, 0), context);
        }
    }

    #[test]
    fn the_innermost_function_of_a_context_is_found_by_its_form() {
        for (context, function) in [
            ("PL/pgSQL function public.slug(text) line 1 at RETURN\nCOPY p, line 1: \"x (y)\"", Some("public.slug(text)")),
            (
                "SQL statement \"SELECT helper(t)\"\nPL/pgSQL function public.\"S\"(text,integer) line 3 at PERFORM",
                Some("public.\"S\"(text,integer)"),
            ),
            ("SQL function \"slug\" during inlining", Some("slug")),
            ("SQL-Funktion »slug« beim Inlining", Some("slug")),
            ("COPY t, line 1, column a: \"f(x)\"", None),
        ] {
            assert_eq!(called(context), function, "{context}");
        }
    }
}
