//! Functions of the server that read gzip.

/// Our own inflate, under names that `name` makes.
pub fn functions(name: impl Fn(&str) -> String) -> String {
    let text = include_str!("inflate.sql");
    let names = ["huffman", "inflate", "gunzip"].map(|what| (what, name(what)));
    // Without the comment in front: a name may have a line's end in it. And its dollar quotes may be in a name, too.
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
