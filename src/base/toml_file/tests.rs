use std::sync::OnceLock;

use schemars::JsonSchema;
use serde::Deserialize;

use super::*;

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Example {
    schedule: Option<String>,
    timeout: Option<crate::base::units::Span>,
    inner: Option<Inner>,
    #[serde(default)]
    #[expect(dead_code, reason = "only its keys count")]
    stores: std::collections::BTreeMap<String, Inner>,
}

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Inner {
    last: Option<u32>,
    #[serde(default)]
    #[expect(dead_code, reason = "only its keys count")]
    tables: Vec<String>,
}

impl Document for Example {
    fn known() -> &'static Known {
        static KNOWN: OnceLock<Known> = OnceLock::new();
        const HABITS: &[Habit] = &[Habit { table: "*", keys: &["cron"], instead: "a time is `schedule`" }];
        KNOWN.get_or_init(|| Known::of::<Example>(HABITS, &[], "the manual"))
    }
}

type Said = (Option<(usize, usize)>, String);

fn problems_of(text: &str) -> (Option<Example>, Vec<Said>) {
    let mut problems = Vec::new();
    let read = parse::<Example>(&Source::from_text(text), &mut problems);
    let said = problems.into_iter().map(|p| (p.position(), format!("{} / {}", p.message, p.hint.unwrap_or_default())));
    (read.map(|read| read.value), said.collect())
}

fn first(text: &str) -> String {
    problems_of(text).1.into_iter().map(|(_, said)| said).next().unwrap_or_default()
}

#[test]
fn every_mistake_is_found_in_one_pass_with_its_place() {
    let (value, said) = problems_of("shedule = \"x\"\nschedule = 3\ntimeout = \"2\"\n[inner]\nlast = -1\nlst = 2\n");
    let lines: Vec<_> = said.iter().map(|(position, _)| position.unwrap().0).collect();
    assert_eq!(lines, [1, 2, 3, 5, 6], "each once, in the file's order: {said:?}");
    assert!(said[0].1.contains("unknown key `shedule` / did you mean `schedule`?"), "{said:?}");
    let value = value.expect("what was right comes back");
    assert!(value.schedule.is_none() && value.timeout.is_none() && value.inner.unwrap().last.is_none());
}

#[test]
fn syntax_errors_are_found_too_and_nothing_is_guessed() {
    let (value, said) = problems_of("schedule = \"x\ntimeout = \"1h\"\n");
    assert!(value.is_none());
    assert_eq!(said[0].1, "not valid TOML: the text has no quotation mark at its end / write schedule = \"x\"");
    assert_eq!(said.len(), 1, "{said:?}");
}

#[test]
fn a_right_file_has_no_problems() {
    let (value, said) = problems_of("schedule = \"x\"\ntimeout = \"2h\"\n[stores.a]\ntables = ['b']\n");
    assert!(said.is_empty() && value.is_some(), "{said:?}");
}

#[test]
fn a_key_in_the_wrong_table_is_told_where_it_belongs() {
    for (text, expected) in [
        (
            "[inner]\ntimeout = \"1h\"\n",
            "unknown key `timeout` in [inner] / `timeout` belongs above [inner]: at the top of the file",
        ),
        ("last = 3\n[inner]\n", "unknown key `last` / `last` belongs in [inner]"),
        ("[inner]\ncron = \"1h\"\n", "unknown key `cron` in [inner] / a time is `schedule`"),
        ("[store.a]\n", "unknown key `store` / did you mean `stores`?"),
    ] {
        let (_, said) = problems_of(text);
        assert!(said[0].1.contains(expected), "{text}: {said:?}");
        assert_eq!(said.len(), 1, "{said:?}");
    }
}

#[test]
fn a_value_of_the_wrong_form_is_told_with_what_to_write() {
    for (text, expected) in [
        ("inner = \"x\"", "found the text \"x\", expected a table of keys / write [inner], and its keys below it"),
        ("schedule = 3", "found 3, expected a text in quotation marks / write it like schedule = \"…\""),
        ("schedule = true", "found true, expected a text in quotation marks"),
        (
            "timeout = 30",
            "found 30, expected a length of time in quotation marks / a length of time has a unit: timeout = \"30s\"",
        ),
        (
            "inner = { last = \"3\" }",
            "found the text \"3\", expected a whole number that is not negative / without quotation marks: last = 3",
        ),
        ("inner = { last = 5000000000 }", "found 5000000000, expected a whole number that is not as large"),
        ("inner = { tables = \"a\" }", "found the text \"a\", expected a list of texts / write tables = [\"a\"]"),
        ("[[inner]]\nlast = 3", "[[inner]] is a list of tables, expected one table / write [inner], once"),
    ] {
        let said = first(text);
        assert!(said.contains(expected), "{text}: {said:?}");
        assert!(!["struct", "u32", "Inner", "sequence", "map", "integer"].iter().any(|word| said.contains(word)), "{said:?}");
    }
}

#[test]
fn what_is_no_toml_is_told_with_what_to_write() {
    for (text, expected) in [
        ("schedule = x", "a text needs quotation marks / write schedule = \"x\""),
        ("schedule = “x”", "these quotation marks are typographic / write schedule = \"x\""),
        ("schedule: x\nother: y", "`schedule` is followed by a colon, as in YAML / write schedule = \"x\""),
        ("enabled = True", "`True` is neither true nor false / write enabled = true, in lower case"),
        ("timeout = no", "`no` is neither true nor false / write timeout = false, in lower case"),
        ("timeout = None", "`None` is no value / remove `timeout`"),
        ("timeout = 2h", "a text needs quotation marks / write timeout = \"2h\""),
        ("timeout =", "`timeout` has no value"),
        ("timeout", "`timeout` has no value"),
        ("timeout = \"2h", "the text has no quotation mark at its end / write timeout = \"2h\""),
        ("schedule = \"C:\\users\\x\"", "a backslash begins an escape such as \\n / write schedule = 'C:\\users\\x'"),
        ("schedule = \"x\"\nschedule = \"y\"", "`schedule` is set twice / keep one of them (the first is in line 1)"),
        ("[inner]\n[inner]", "[inner] is there twice / put the keys of both under one [inner] (the first is in line 1)"),
        ("[inner\nlast = 3", "this is no name of a table / write [inner]"),
        ("inner = { last = 3", "the table is not complete"),
        ("schedule = [\"a\"", "the list is not complete"),
        ("url = postgres://u:hunter2@h/x", "a text needs quotation marks / write key = \"value\""),
    ] {
        let (_, said) = problems_of(text);
        assert!(said[0].1.contains(expected), "{text}: {said:?}");
        assert_eq!(said.len(), 1, "{text}: {said:?}");
    }
}

#[test]
fn an_inner_mistake_is_within_what_contains_it() {
    let mut problems = Vec::new();
    parse::<Example>(&Source::from_text("inner = { lst = 3 }"), &mut problems);
    assert!(problems[0].is_within(&(8..19)) && !problems[0].is_within(&(10..13)), "{problems:?}");
}
