//! The docs say what is: links lead somewhere, and the keys in the tables are those of the schema.

use std::io::Write as _;
use std::process::{Command, Stdio};

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
