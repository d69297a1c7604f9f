//! The server's functions that read gzip.

const NAMED: [&str; 3] = ["huffman", "inflate", "gunzip"];

/// Returns the statements that create them, with names that `name` makes.
pub fn functions(name: impl Fn(&str) -> String) -> String {
    let text = include_str!("inflate.sql");
    let names = NAMED.map(|what| (format!("{{{what}}}"), name(what)));
    // The comment at the top is left out, because a name may contain a line break. A name may also contain the dollar quotes.
    let text = text[text.find("CREATE").unwrap_or(0)..].to_owned();
    let mut tag = "$pgtend$".to_owned();
    while names.iter().any(|(_, name)| name.contains(&tag)) {
        tag.insert(1, 'x');
    }
    let text = text.replace("$pgtend$", &tag).replace("-- The text of a body", "-- the text of a body");
    with_names(&text, &names)
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
        let (hostile, plain) = (functions(of_hostile), functions(of_plain));
        assert!(!plain.contains("{inflate}") && plain.matches("\"s\".\"t_huffman\"").count() == 6, "{plain}");
        assert_eq!(hostile.replace("{huffman}{inflate}{gunzip}", "t"), plain);
    }
}
