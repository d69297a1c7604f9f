//! The server's functions that read gzip.

/// Returns the statements that create them, with names that `name` makes.
pub fn functions(name: impl Fn(&str) -> String) -> String {
    let text = include_str!("inflate.sql");
    let names = ["huffman", "inflate", "gunzip"].map(|what| (what, name(what)));
    // The comment at the top is left out, because a name may contain a line break. A name may also contain the dollar quotes.
    let mut text = text[text.find("CREATE").unwrap_or(0)..].to_owned();
    let mut tag = "$pgtend$".to_owned();
    while names.iter().any(|(_, name)| name.contains(&tag)) {
        tag.insert(1, 'x');
    }
    text = text.replace("$pgtend$", &tag).replace("-- The text of a body", "-- the text of a body");
    for (what, name) in names {
        text = text.replace(&format!("{{{what}}}"), &name);
    }
    text
}
