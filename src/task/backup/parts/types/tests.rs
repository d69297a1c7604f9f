//! Tables of cases for which change of a type keeps each value.

use super::*;

#[test]
fn only_changes_that_keep_each_value_and_its_equality_are_taken() {
    for (old, new, keeps) in [
        ("integer", "integer", true),
        ("smallint", "bigint", true),
        ("bigint", "integer", false),
        ("integer", "numeric", true),
        ("integer", "numeric(12,2)", true),
        ("integer", "numeric(11,2)", false),
        ("integer", "text", false),
        ("numeric(12,4)", "numeric(12,1)", false),
        ("numeric(12,4)", "numeric(14,6)", true),
        ("numeric(12,4)", "numeric(12,6)", false),
        ("numeric(12,4)", "numeric", true),
        ("numeric", "numeric(12,4)", false),
        ("numeric(5,-2)", "numeric(5,2)", false),
        ("numeric(5,-2)", "numeric(7,0)", true),
        ("numeric(12,4)[]", "numeric(12,1)[]", false),
        ("integer[]", "bigint[]", true),
        ("integer[]", "integer", false),
        ("character varying(5)", "character varying(9)", true),
        ("character varying(5)", "character varying(4)", false),
        ("character varying", "character varying(4)", false),
        ("character varying(5)", "character varying", true),
        ("character varying(5)", "text", true),
        ("text", "character varying", true),
        ("text", "character varying(5)", false),
        ("character(5)", "text", false),
        ("character(5)", "character(6)", false),
        ("timestamp without time zone", "timestamp with time zone", false),
        ("timestamp with time zone", "timestamp without time zone", false),
        ("timestamp without time zone", "date", false),
        ("timestamp(3) without time zone", "timestamp without time zone", true),
        ("timestamp(3) without time zone", "timestamp(6) without time zone", true),
        ("timestamp without time zone", "timestamp(6) without time zone", true),
        ("timestamp without time zone", "timestamp(0) without time zone", false),
        ("time(0) with time zone", "time(3) with time zone", true),
        ("interval(3)", "interval", true),
        ("interval", "interval year to month", false),
        ("interval second(2)", "interval second(3)", true),
        ("numeric", "double precision", false),
        ("double precision", "real", false),
        ("real", "double precision", false),
        ("json", "jsonb", false),
        ("\"char\"", "character(1)", false),
        ("s.x", "t.x", false),
        ("s.x", "s.y", false),
        ("s.\"x\"", "s.x", true),
    ] {
        assert_eq!(changed(old, new, &Types::new(), &Types::new()).is_none(), keeps, "{old} to {new}");
    }
}

#[test]
fn types_of_types_are_compared_to_the_last() {
    let attributes = |list: &[(&str, &str)]| {
        Made::Attributes(list.iter().map(|(name, of_type)| ((*name).to_owned(), (*of_type).to_owned())).collect())
    };
    let types =
        |list: &[(&str, Made)]| -> Types { list.iter().map(|(name, made)| (Name::new("s", *name), made.clone())).collect() };
    let domain = |base: &str| Made::Domain(base.to_owned());
    let address = attributes(&[("street", "text"), ("price", "s.price")]);
    let of_set = types(&[
        ("addr", address.clone()),
        ("price", domain("numeric(12,4)")),
        ("span", Made::Range("s.price".to_owned())),
        ("own", domain("s.addr")),
    ]);
    for (here, says) in [
        (of_set.clone(), None),
        (types(&[("addr", address.clone()), ("price", domain("numeric"))]), None),
        (
            types(&[("addr", attributes(&[("price", "s.price"), ("street", "text")]))]),
            Some("(street text, price s.price) in the set"),
        ),
        (types(&[("addr", attributes(&[("street", "text")]))]), Some("(street text) here")),
        (
            types(&[("addr", address.clone()), ("price", domain("numeric(12,1)"))]),
            Some("numeric(12,4) in the set, and numeric(12,1) here"),
        ),
        (types(&[("addr", Made::Labels)]), Some("a composite type in the set, and an enum here")),
        // What the part makes of a type that lives.
        (types(&[("price", domain("integer"))]), Some("integer here")),
    ] {
        let found = changed("s.addr[]", "s.addr[]", &of_set, &here);
        assert_eq!(found.is_some(), says.is_some(), "{here:?}: {found:?}");
        assert!(found.unwrap_or_default().contains(says.unwrap_or_default()), "{here:?}");
    }
    let here = types(&[("price", domain("integer"))]);
    assert!(changed("s.own", "s.own", &of_set, &here).is_some() && changed("s.span", "s.span", &of_set, &here).is_some());
    // A type that has itself in it.
    let knot = types(&[("knot", attributes(&[("more", "s.knot[]")]))]);
    assert_eq!(changed("s.knot", "s.knot", &knot, &knot), None);
    let moved = Types::from([(Name::new("e", "vector"), Made::OfExtension)]);
    assert_eq!(changed("s.vector(3)", "e.vector(3)", &of_set, &moved), None);
    assert!(changed("s.vector(3)", "e.vector(4)", &of_set, &moved).is_some());
}
