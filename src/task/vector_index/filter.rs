//! The conditions that applications add to their searches, and the columns whose values they compare: pure.

use crate::pg::literal;

/// Words of a condition that are no column.
const WORDS: [&str; 16] = [
    "and", "or", "not", "is", "null", "in", "any", "all", "like", "ilike", "between", "similar", "to", "true", "false",
    "operator",
];

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

/// Returns the columns that are compared with `$1`, `$2` and so on: the name before it in the same comparison, else the next one.
fn compared(text: &str) -> Result<Vec<String>, String> {
    let mut of: Vec<Option<String>> = Vec::new();
    let mut before: Option<String> = None;
    let mut is_type = false;
    let mut waiting: Option<usize> = None;
    for token in tokens(text) {
        match token {
            Token::Name(name, _) if is_type || WORDS.contains(&name.as_str()) => {
                if matches!(name.as_str(), "and" | "or") {
                    before = None;
                }
                is_type = false;
            }
            Token::Name(name, _) => {
                if let Some(number) = waiting.take() {
                    of[number - 1].get_or_insert(name.clone());
                }
                before = Some(name);
            }
            Token::Parameter(0) => return Err("parameters of a filter begin with $1".to_owned()),
            Token::Parameter(number) if number > 20 => return Err(format!("${number}: a filter has at most 20 parameters")),
            Token::Parameter(number) => {
                of.resize(of.len().max(number), None);
                match &before {
                    Some(column) => _ = of[number - 1].get_or_insert(column.clone()),
                    None => waiting = Some(number),
                }
            }
            Token::Other(text) => is_type = text.ends_with("::"),
        }
    }
    if text.trim().is_empty() {
        return Err("a filter is empty".to_owned());
    }
    let missing = |number: usize| format!("`{text}` compares ${} with no column", number + 1);
    of.into_iter().enumerate().map(|(number, column)| column.ok_or_else(|| missing(number))).collect()
}

#[derive(Debug, PartialEq)]
enum Token<'a> {
    /// A name as the server reads it, and as written.
    Name(String, &'a str),
    /// The number of `$1`.
    Parameter(usize),
    /// Operators, spaces, numbers and strings.
    Other(&'a str),
}

/// Splits a condition. Strings and quoted names keep what is in them.
fn tokens(text: &str) -> Vec<Token<'_>> {
    let mut tokens = Vec::new();
    let mut rest = text;
    while let Some(first) = rest.chars().next() {
        let is_in_name = |letter: char| letter.is_alphanumeric() || letter == '_';
        let length = match first {
            '\'' | '"' => {
                let closing = rest[1..].find(first).map_or(rest.len(), |end| end + 2);
                closing.min(rest.len())
            }
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
            '"' => Token::Name(token.trim_matches('"').to_owned(), token),
            '$' => token[1..].parse().map_or(Token::Other(token), Token::Parameter),
            first if first.is_alphabetic() || first == '_' => Token::Name(token.to_lowercase(), token),
            _ => Token::Other(token),
        });
        rest = after;
    }
    tokens
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
        ] {
            let filters = parsed(&[text]).unwrap();
            let found: Vec<&str> = filters.all[0].columns.iter().map(|place| filters.columns[*place].as_str()).collect();
            assert_eq!(found, columns, "{text}");
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
}
