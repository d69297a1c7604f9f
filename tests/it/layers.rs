//! The folders of `src/` show the layers: an import runs down.

use std::process::Command;

#[test]
fn every_import_points_down_and_no_new_circle_appears() {
    let output = Command::new("scripts/layers").arg("--quiet").output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
}
