//! The conditions that applications add to their searches, and the columns whose values they compare: pure.

use crate::pg::{identifier, literal};

/// Words of a condition that are no column.
const WORDS: [&str; 28] = [
    "and",
    "or",
    "not",
    "is",
    "null",
    "in",
    "any",
    "all",
    "some",
    "like",
    "ilike",
    "between",
    "symmetric",
    "similar",
    "to",
    "true",
    "false",
    "distinct",
    "from",
    "array",
    "row",
    "collate",
    "at",
    "case",
    "when",
    "then",
    "else",
    "end",
];
/// A list of values follows these words, and a comma in it separates no columns.
const BEFORE_LISTS: [&str; 5] = ["in", "any", "all", "some", "array"];

/// The filters of a job.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Filters {
    pub all: Vec<Filter>,
    /// The columns that they compare with `$1`, `$2`, each once.
    pub columns: Vec<String>,
}

/// One condition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Filter {
    /// As written: `tenant_id = $1`.
    pub text: String,
    /// For `$1`, `$2`, …: the place of the column in [`Filters::columns`].
    columns: Vec<usize>,
}

impl Filters {
    /// Reads the conditions. The error is a sentence for the job's author.
    pub fn parse(texts: &[String]) -> Result<Self, String> {
        let mut filters = Self::default();
        for text in texts {
            let mut columns = Vec::new();
            for column in compared(text)? {
                let known = filters.columns.iter().position(|known| *known == column);
                columns.push(known.unwrap_or_else(|| {
                    filters.columns.push(column);
                    filters.columns.len() - 1
                }));
            }
            filters.all.push(Filter { text: text.trim().to_owned(), columns });
        }
        Ok(filters)
    }
}

impl Filter {
    /// Returns the columns whose values its parameters are, quoted, each once.
    pub fn columns_of(&self, filters: &Filters) -> Vec<String> {
        let mut names: Vec<String> = Vec::new();
        for name in self.columns.iter().filter_map(|place| filters.columns.get(*place)) {
            let name = identifier(name);
            if !names.contains(&name) {
                names.push(name);
            }
        }
        names
    }

    /// Returns whether a partial index with this predicate, as the catalog has it, is one for the filter.
    pub fn is_predicate(&self, predicate: &str) -> bool {
        let bare = |text: &str| {
            let text = text.split_whitespace().collect::<Vec<_>>().join(" ");
            without_parentheses(&text).to_owned()
        };
        bare(&self.text) == bare(predicate)
    }

    /// Returns the condition with values in the place of `$1`, `$2`; None where one of them is NULL, which no application compares with.
    /// `values`: of the columns of [`Filters::columns`].
    pub fn with(&self, values: &[Option<String>]) -> Option<String> {
        let mut written = String::new();
        for token in tokens(&self.text) {
            match token {
                Token::Parameter(number) => {
                    let value = values.get(*self.columns.get(number - 1)?)?.as_ref()?;
                    written += &literal(value);
                }
                Token::Name(_, text) | Token::Other(text) => written += text,
            }
        }
        Some(written)
    }
}

/// Returns what is within parentheses around all of the text. Strings are not looked into: a text with a parenthesis in one may keep its own.
fn without_parentheses(text: &str) -> &str {
    let Some(inside) = text.strip_prefix('(').and_then(|text| text.strip_suffix(')')) else { return text };
    let mut depth = 0_i32;
    for letter in inside.chars() {
        depth += i32::from(letter == '(') - i32::from(letter == ')');
        if depth < 0 {
            return text;
        }
    }
    if depth == 0 { inside.trim() } else { text }
}

/// Returns the columns that are compared with `$1`, `$2` and so on: the name before it in the same comparison, else the next one.
fn compared(text: &str) -> Result<Vec<String>, String> {
    if text.trim().is_empty() {
        return Err("a filter is empty".to_owned());
    }
    let mut reading = Reading::default();
    let tokens = tokens(text);
    for (at, token) in tokens.iter().enumerate() {
        let next = tokens[at + 1..].iter().find_map(Token::first_letter);
        match token {
            Token::Name(name, written) => reading.name(name, written.starts_with('"'), next),
            Token::Parameter(number) => reading.parameter(*number, text)?,
            Token::Other(other) => reading.other(other, text)?,
        }
    }
    let missing = |number: usize| format!("`{text}` compares ${} with no column", number + 1);
    reading.of.into_iter().enumerate().map(|(number, column)| column.ok_or_else(|| missing(number))).collect()
}

/// What is known of a condition, as far as it was read.
#[derive(Default)]
struct Reading {
    /// The columns of `$1`, `$2`, …
    of: Vec<Option<String>>,
    /// The column before, in the same comparison.
    before: Option<String>,
    /// A parameter that stands before its column.
    waiting: Option<usize>,
    last_word: String,
    /// After `::`, up to the next sign: the names are those of a type.
    is_type: bool,
    /// Within `OPERATOR(…)`.
    is_operator: bool,
    /// After BETWEEN: the next AND belongs to it.
    is_between: bool,
    groups: Vec<Group>,
}

/// What is between parentheses.
#[derive(Default)]
struct Group {
    /// A list of values, or arguments of a function.
    is_list: bool,
    has_comma: bool,
    has_parameter: bool,
}

impl Reading {
    /// `next`: the first letter of what follows.
    fn name(&mut self, name: &str, is_quoted: bool, next: Option<char>) {
        let is_word = !is_quoted && WORDS.contains(&name);
        self.last_word = name.to_owned();
        match name {
            _ if self.is_operator => {}
            "operator" if !is_quoted => (self.is_operator, self.is_type) = (true, false),
            "between" if !is_quoted => (self.is_between, self.is_type) = (true, false),
            "and" if !is_quoted && self.is_between => (self.is_between, self.is_type) = (false, false),
            "and" | "or" if !is_quoted => (self.before, self.is_type) = (None, false),
            _ if is_word => self.is_type = false,
            // `lower(`, `items.`, `date '…'`
            _ if self.is_type || matches!(next, Some('(' | '.' | '\'')) => {}
            _ => {
                if let Some(number) = self.waiting.take() {
                    self.of[number - 1].get_or_insert(name.to_owned());
                }
                self.before = Some(name.to_owned());
            }
        }
    }

    fn parameter(&mut self, number: usize, text: &str) -> Result<(), String> {
        match number {
            0 => return Err("parameters of a filter begin with $1".to_owned()),
            1..=20 => self.of.resize(self.of.len().max(number), None),
            _ => return Err(format!("${number}: a filter has at most 20 parameters")),
        }
        match &self.before {
            Some(column) => _ = self.of[number - 1].get_or_insert(column.clone()),
            None => self.waiting = Some(number),
        }
        if let Some(group) = self.groups.last_mut() {
            group.has_parameter = true;
            group.refuse_row(text)?;
        }
        Ok(())
    }

    fn other(&mut self, other: &str, text: &str) -> Result<(), String> {
        if other.starts_with('\'') {
            return Ok(());
        }
        if self.is_operator {
            self.is_operator = !other.contains(')');
            return Ok(());
        }
        let is_of_types = |letter: char| letter.is_whitespace() || letter.is_ascii_digit() || ".()[],".contains(letter);
        self.is_type &= other.chars().all(is_of_types);
        for letter in other.chars() {
            match letter {
                '(' => {
                    // A name directly before is a function's.
                    let word = std::mem::take(&mut self.last_word);
                    let is_function = !word.is_empty() && word != "row" && !WORDS.contains(&word.as_str());
                    let is_list = BEFORE_LISTS.contains(&word.as_str()) || is_function;
                    self.groups.push(Group { is_list, ..Group::default() });
                }
                ')' => _ = self.groups.pop(),
                ',' => {
                    if let Some(group) = self.groups.last_mut() {
                        group.has_comma = true;
                        group.refuse_row(text)?;
                    }
                }
                _ => {}
            }
            if !letter.is_whitespace() {
                self.last_word.clear();
            }
        }
        if other.ends_with("::") {
            self.is_type = true;
        }
        Ok(())
    }
}

impl Group {
    /// Which of its columns a parameter in a row is compared with cannot be told from the text.
    fn refuse_row(&self, text: &str) -> Result<(), String> {
        match !self.is_list && self.has_comma && self.has_parameter {
            true => Err(format!("`{text}` compares rows: write each comparison by itself, `a = $1 AND b = $2`")),
            false => Ok(()),
        }
    }
}

#[derive(Debug, PartialEq)]
pub enum Token<'a> {
    /// A name as the server reads it, and as written.
    Name(String, &'a str),
    /// The number of `$1`.
    Parameter(usize),
    /// Operators, spaces, numbers and strings.
    Other(&'a str),
}

impl Token<'_> {
    pub fn is_space(&self) -> bool {
        matches!(self, Self::Other(text) if text.trim().is_empty())
    }

    /// Returns its first letter that is no space.
    fn first_letter(&self) -> Option<char> {
        match self {
            Self::Name(_, text) | Self::Other(text) => text.trim_start().chars().next(),
            Self::Parameter(_) => Some('$'),
        }
    }
}

/// Splits a condition. Strings and quoted names keep what is in them.
pub fn tokens(text: &str) -> Vec<Token<'_>> {
    let mut tokens = Vec::new();
    let mut rest = text;
    while let Some(first) = rest.chars().next() {
        let is_in_name = |letter: char| letter.is_alphanumeric() || letter == '_';
        let length = match first {
            '\'' | '"' => length_of_quoted(rest, first),
            '$' => 1 + rest[1..].find(|letter: char| !letter.is_ascii_digit()).unwrap_or(rest.len() - 1),
            first if first.is_alphabetic() || first == '_' => rest.find(|letter| !is_in_name(letter)).unwrap_or(rest.len()),
            first if first.is_ascii_digit() => {
                rest.find(|letter: char| !is_in_name(letter) && letter != '.').unwrap_or(rest.len())
            }
            _ => rest
                .find(|letter: char| is_in_name(letter) || matches!(letter, '\'' | '"' | '$'))
                .filter(|length| *length > 0)
                .unwrap_or(rest.len()),
        };
        let (token, after) = rest.split_at(length);
        tokens.push(match first {
            '"' => {
                let inside = token.strip_prefix('"').unwrap_or(token);
                Token::Name(inside.strip_suffix('"').unwrap_or(inside).replace("\"\"", "\""), token)
            }
            '$' => token[1..].parse().map_or(Token::Other(token), Token::Parameter),
            first if first.is_alphabetic() || first == '_' => Token::Name(token.to_lowercase(), token),
            _ => Token::Other(token),
        });
        rest = after;
    }
    tokens
}

/// Returns the length of a string or quoted name: in it, its quotes are doubled.
fn length_of_quoted(text: &str, quote: char) -> usize {
    let mut letters = text.char_indices().skip(1).peekable();
    while let Some((at, letter)) = letters.next() {
        if letter == quote && letters.next_if(|(_, next)| *next == quote).is_none() {
            return at + 1;
        }
    }
    text.len()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(texts: &[&str]) -> Result<Filters, String> {
        Filters::parse(&texts.iter().map(|text| (*text).to_owned()).collect::<Vec<_>>())
    }

    #[test]
    fn each_parameter_is_of_the_column_that_it_is_compared_with() {
        for (text, columns) in [
            ("tenant_id = $1", vec!["tenant_id"]),
            ("Tenant_Id::int = $1 AND NOT archived", vec!["tenant_id"]),
            ("lang = $2 AND tenant_id = $1", vec!["tenant_id", "lang"]),
            ("$1 = \"Odd Name\"", vec!["Odd Name"]),
            ("tags @> $1", vec!["tags"]),
            ("note <> 'costs $1' and kind in ($1, $2)", vec!["kind", "kind"]),
            ("price BETWEEN $1 AND 100.5e0", vec!["price"]),
            ("NOT archived", vec![]),
            ("tenant_id OPERATOR(pg_catalog.=) $1", vec!["tenant_id"]),
            ("$1 OPERATOR(public.@>) tags", vec!["tags"]),
            ("items.tenant_id = $1", vec!["tenant_id"]),
            ("$1 = t.tenant_id", vec!["tenant_id"]),
            ("lower(name) = lower($1)", vec!["name"]),
            ("pg_catalog.lower(name) = $1", vec!["name"]),
            ("metadata->>'tenant' = $1", vec!["metadata"]),
            ("price BETWEEN $1 AND $2 AND kind = $3", vec!["price", "price", "kind"]),
            ("asked_at::timestamp with time zone > $1", vec!["asked_at"]),
            ("tenant_id::public.tenant = $1", vec!["tenant_id"]),
            ("id = ANY (ARRAY[$1, $2])", vec!["id", "id"]),
            ("\"a\"\"b\" = $1", vec!["a\"b"]),
            ("note = 'it''s ($1, b' AND kind = $1", vec!["kind"]),
            ("(tenant_id = $1 AND lang IN ($2, 'de'))", vec!["tenant_id", "lang"]),
            ("created > date '2020-01-01' + $1", vec!["created"]),
            ("coalesce(tenant_id, $1) = $1", vec!["tenant_id"]),
        ] {
            let filters = parsed(&[text]).unwrap();
            let found: Vec<&str> = filters.all[0].columns.iter().map(|place| filters.columns[*place].as_str()).collect();
            assert_eq!(found, columns, "{text}");
        }
        for row in ["(a, b) = ($1, $2)", "(a, b) IN (($1, $2))", "ROW(a, b) = ROW($1, $2)", "(a, $1) = (b, c)"] {
            assert!(parsed(&[row]).is_err_and(|why| why.contains("compares rows")), "{row}");
        }
        for wrong in ["= $1", "", "x = $0", "x = $99"] {
            assert!(parsed(&[wrong]).is_err(), "{wrong}");
        }
        // A string that does not end is the server's to refuse.
        assert!(parsed(&["x = 'a"]).is_ok());
    }

    #[test]
    fn values_are_literals_whatever_is_in_them_and_null_is_not_asked_for() {
        let filters = parsed(&["tenant_id = $1 AND \"Lang\" <> $2", "tenant_id = $1"]).unwrap();
        let values = [Some("o'clock".to_owned()), None];
        assert_eq!(filters.columns, ["tenant_id", "Lang"]);
        assert_eq!(filters.all[0].with(&values), None);
        assert_eq!(filters.all[1].with(&values).as_deref(), Some("tenant_id = E'o''clock'"));
        assert_eq!(filters.all[1].with(&[]), None);
    }

    #[test]
    fn a_partial_index_is_for_a_filter_with_the_same_words() {
        let filters = parsed(&["tenant_id = 3", "(a = 1) AND (b = 2)"]).unwrap();
        assert!(filters.all[0].is_predicate("(tenant_id = 3)") && filters.all[1].is_predicate("((a = 1) AND (b = 2))"));
        assert!(!filters.all[0].is_predicate("(tenant_id = 30)") && !filters.all[1].is_predicate("(a = 1)"));
    }
}
