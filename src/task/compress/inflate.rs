//! The server's function that reads compressed text.

use crate::pg::literal;

/// The arguments of the function.
pub const ARGUMENTS: &str = "bytea, bytea, text";

pub struct Gunzip {
    /// The statement that creates it, or puts it in the place of that of an earlier release.
    pub statement: String,
    /// What the server has as its source.
    pub source: String,
}

/// Returns the function, with this qualified name. It looks for dictionaries in `schema`.
pub fn gunzip(name: String, schema: &str) -> Gunzip {
    let text = include_str!("inflate.sql");
    let names = [("{gunzip}".to_owned(), name), ("{schema}".to_owned(), literal(schema))];
    // The comment at the top is left out, because a name may contain a line break. A name may also contain the dollar quotes.
    let text = text[text.find("CREATE").unwrap_or(0)..].to_owned();
    let mut tag = "$pgtend$".to_owned();
    while names.iter().any(|(_, name)| name.contains(&tag)) {
        tag.insert(1, 'x');
    }
    let statement = with_names(&text.replace("$pgtend$", &tag), &names);
    let source = statement.split(&tag).nth(1).unwrap_or_default().to_owned();
    Gunzip { statement, source }
}

/// Puts each name in the place of its mark, in one pass: a name may contain such a mark itself, and another name in its quotes would end them.
fn with_names(mut text: &str, names: &[(String, String)]) -> String {
    let mut named = String::with_capacity(text.len());
    let next =
        |text: &str| names.iter().filter_map(|(mark, name)| Some((text.find(mark)?, mark, name))).min_by_key(|(at, ..)| *at);
    while let Some((at, mark, name)) = next(text) {
        named += &text[..at];
        named += name;
        text = &text[at + mark.len()..];
    }
    named + text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_that_has_the_mark_of_another_name_in_it_stays_as_it_is() {
        let hostile = gunzip("\"s\".\"{schema}{gunzip}_gunzip\"".to_owned(), "s").statement;
        let plain = gunzip("\"s\".\"t_gunzip\"".to_owned(), "s").statement;
        assert!(!plain.contains("{gunzip}") && plain.matches("\"s\".\"t_gunzip\"").count() == 1, "{plain}");
        assert_eq!(hostile.replace("{schema}{gunzip}", "t"), plain);
    }

    #[test]
    fn the_source_of_the_function_is_what_stands_between_its_dollar_quotes() {
        let gunzip = gunzip("\"s\".\"$pgtend$_gunzip\"".to_owned(), "$pgtend$");
        assert!(gunzip.source.starts_with('\n') && gunzip.source.ends_with("END\n"), "{}", gunzip.source);
        assert!(gunzip.statement.contains(&format!("$xpgtend${}$xpgtend$;", gunzip.source)));
    }
}
