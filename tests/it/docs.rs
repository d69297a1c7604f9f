//! The docs say what is: links lead somewhere, the keys in the tables are those of the schema, and the tests that they name exist.

use std::collections::BTreeSet;
use std::fs;
use std::io::Write as _;
use std::path::Path;
use std::process::{Command, Stdio};

use crate::layers::sources;

#[test]
fn every_link_of_the_docs_leads_somewhere() {
    let output = Command::new("scripts/links").output().unwrap();
    assert!(output.status.success(), "{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
}

#[test]
fn the_keys_in_the_docs_are_those_of_the_schema() {
    let schema = Command::new(env!("CARGO_BIN_EXE_pgtend")).arg("schema").output().unwrap();
    assert!(schema.status.success());
    let mut keys =
        Command::new("scripts/keys").stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    keys.stdin.take().unwrap().write_all(&schema.stdout).unwrap();
    let output = keys.wait_with_output().unwrap();
    assert!(output.status.success(), "{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
}

#[test]
fn every_test_that_the_page_of_invariants_names_exists() {
    let tests: BTreeSet<String> = ["src", "tests"]
        .into_iter()
        .flat_map(|folder| sources(Path::new(folder)))
        .flat_map(|path| {
            let text = fs::read_to_string(&path).unwrap();
            let names =
                text.lines().filter_map(|line| line.trim().trim_start_matches("pub ").strip_prefix("fn ")?.split_once('('));
            names.map(|(name, _)| name.to_owned()).collect::<Vec<_>>()
        })
        .collect();
    let page = fs::read_to_string("docs/testing.md").unwrap();
    let named: Vec<&str> = page.split('`').skip(1).step_by(2).filter(|name| is_a_test(name)).collect();
    assert!(named.len() > 60, "{named:?}");
    // An ellipsis stands for the middle or the end of a long name.
    let exists = |name: &str| {
        let (begins, ends) = name.split_once('…').unwrap_or((name, ""));
        tests.iter().any(|test| if name.contains('…') { test.starts_with(begins) && test.ends_with(ends) } else { test == name })
    };
    let missing: Vec<&str> = named.into_iter().filter(|name| !exists(name)).collect();
    assert!(missing.is_empty(), "docs/testing.md names tests that do not exist: {missing:#?}");
}

/// Returns whether a text in backticks is a sentence as tests have them for names, with three underscores or more.
fn is_a_test(text: &str) -> bool {
    text.matches('_').count() >= 3
        && text.chars().all(|letter| letter.is_ascii_lowercase() || letter.is_ascii_digit() || "_…".contains(letter))
}
