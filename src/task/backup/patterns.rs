//! pg_dump's name patterns (`app_*`, `"We ird".t`) as regular expressions, built like its own `patternToSQLRegex` does.

use super::manifest::Filters;

/// The selection of a job's filters, for `~` in a query.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Patterns {
    /// Empty: all schemas.
    pub schemas: Vec<String>,
    pub without: Tables,
    pub without_rows: Tables,
}

/// The schemas (None: any that the search_path finds) and the names of tables, as parallel lists.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tables {
    pub schemas: Vec<Option<String>>,
    pub names: Vec<String>,
}

impl Patterns {
    pub fn of(filters: &Filters) -> Self {
        Self {
            schemas: filters.schemas.iter().filter_map(|pattern| parts(pattern).pop()).collect(),
            without: Tables::of(&filters.exclude_tables),
            without_rows: Tables::of(&filters.exclude_table_data),
        }
    }

    /// Returns whether a pattern of tables names no schema.
    pub fn need_a_search_path(&self) -> bool {
        self.without.schemas.iter().chain(&self.without_rows.schemas).any(Option::is_none)
    }
}

impl Tables {
    fn of(patterns: &[String]) -> Self {
        let mut tables = Self::default();
        for pattern in patterns {
            let mut parts = parts(pattern);
            tables.names.extend(parts.pop());
            // A database name before it can only be this database's.
            tables.schemas.push(parts.pop());
        }
        tables
    }
}

/// The parts between the dots, each as a regular expression for a whole name.
fn parts(pattern: &str) -> Vec<String> {
    let mut parts = vec![String::new()];
    let (mut is_quoted, mut rest) = (false, pattern.chars().peekable());
    while let Some(letter) = rest.next() {
        if letter == '.' && !is_quoted {
            parts.push(String::new());
            continue;
        }
        let Some(part) = parts.last_mut() else { continue };
        match letter {
            '"' if is_quoted && rest.peek() == Some(&'"') => {
                rest.next();
                part.push('"');
            }
            '"' => is_quoted = !is_quoted,
            '*' if !is_quoted => part.push_str(".*"),
            '?' if !is_quoted => part.push('.'),
            '$' => part.push_str("\\$"),
            letter if is_quoted && "|*+?()[]{}.^\\".contains(letter) => part.extend(['\\', letter]),
            // An array's brackets are not a character class.
            '[' if rest.peek() == Some(&']') => part.push_str("\\["),
            letter if !is_quoted => part.push(letter.to_ascii_lowercase()),
            letter => part.push(letter),
        }
    }
    parts.into_iter().map(|part| format!("^({part})$")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_mean_what_they_mean_to_pg_dump() {
        for (pattern, expected) in [
            ("App", &["^(app)$"][..]),
            ("app_*", &["^(app_.*)$"]),
            ("\"We ird\".\"t.\"\"x*\"", &["^(We ird)$", "^(t\\.\"x\\*)$"]),
            ("a?.b$", &["^(a.)$", "^(b\\$)$"]),
            ("(a|b)[0-9]", &["^((a|b)[0-9])$"]),
            ("x[]", &["^(x\\[])$"]),
        ] {
            assert_eq!(parts(pattern), expected, "{pattern}");
        }
        let filters = Filters { exclude_tables: vec!["t".into(), "s.u".into()], ..Filters::default() };
        let without = Patterns::of(&filters).without;
        assert_eq!(without.schemas, [None, Some("^(s)$".to_owned())]);
        assert_eq!(without.names, ["^(t)$", "^(u)$"]);
    }
}
