//! The server's functions that read compressed text.

use crate::pg::literal;

/// Their names, as they stand in inflate.sql, and their arguments.
pub const SIGNATURES: [(&str, &str); 3] = [("huffman", "int[]"), ("inflate", "bytea"), ("gunzip", "bytea, bytea, text")];

pub struct Functions {
    /// The statements that create them, or put them in the place of those of an earlier release.
    pub statements: String,
    /// What the server has of each as its source: of `huffman`, `inflate` and `gunzip`.
    pub sources: Vec<String>,
}

/// Returns the functions, with the names that `name` makes. They look for dictionaries in `schema`.
pub fn functions(name: impl Fn(&str) -> String, schema: &str) -> Functions {
    let text = include_str!("inflate.sql");
    let mut names = SIGNATURES.map(|(what, _)| (format!("{{{what}}}"), name(what))).to_vec();
    names.push(("{schema}".to_owned(), literal(schema)));
    names.extend(["huffman", "inflate"].map(|what| (format!("{{{what}_name}}"), literal(&name(what)))));
    // The comment at the top is left out, because a name may contain a line break. A name may also contain the dollar quotes.
    let text = text[text.find("CREATE").unwrap_or(0)..].to_owned();
    let mut tag = "$pgtend$".to_owned();
    while names.iter().any(|(_, name)| name.contains(&tag)) {
        tag.insert(1, 'x');
    }
    let text = text.replace("$pgtend$", &tag).replace("-- The text of a body", "-- the text of a body");
    let statements = with_names(&text, &names);
    let sources = statements.split(&tag).skip(1).step_by(2).map(str::to_owned).collect();
    Functions { statements, sources }
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
        let of_hostile = |what: &str| format!("\"s\".\"{{huffman}}{{inflate}}{{gunzip}}_{what}\"");
        let of_plain = |what: &str| format!("\"s\".\"t_{what}\"");
        let (hostile, plain) = (functions(of_hostile, "s").statements, functions(of_plain, "s").statements);
        assert!(!plain.contains("{inflate}") && plain.matches("\"s\".\"t_huffman\"").count() == 8, "{plain}");
        assert_eq!(hostile.replace("{huffman}{inflate}{gunzip}", "t"), plain);
    }

    #[test]
    fn the_source_of_each_function_is_what_stands_between_its_dollar_quotes() {
        let functions = functions(|what| format!("\"s\".\"$pgtend$_{what}\""), "$pgtend$");
        assert_eq!(functions.sources.len(), 3);
        for source in functions.sources {
            assert!(source.starts_with('\n') && source.ends_with("END\n"), "{source}");
            assert!(functions.statements.contains(&format!("$xpgtend${source}$xpgtend$;")));
        }
    }
}
