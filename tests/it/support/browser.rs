//! Pages in Chromium, as people see them.

use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

use super::serve::Serving;

/// How somebody reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reader {
    pub width: u32,
    pub is_dark: bool,
    pub prints: bool,
}

impl Reader {
    pub const WIDE: Self = Self { width: 1280, is_dark: false, prints: false };
    pub const IN_THE_DARK: Self = Self { width: 1280, is_dark: true, prints: false };
    pub const PHONE: Self = Self { width: 390, is_dark: false, prints: false };
    pub const PHONE_IN_THE_DARK: Self = Self { width: 390, is_dark: true, prints: false };
    pub const PRINT: Self = Self { width: 1280, is_dark: false, prints: true };
    pub const ALL: [Self; 5] = [Self::WIDE, Self::IN_THE_DARK, Self::PHONE, Self::PHONE_IN_THE_DARK, Self::PRINT];
}

/// What a reader sees, with what axe-core finds, and as `script` the text of the first thing that the keyboard comes to.
pub fn look(serving: &Serving, path: &str, picture: &Path, reader: &Reader) -> Value {
    let mut command = screenshot(serving, path, picture);
    let height = if reader.width < 600 { "844" } else { "900" };
    command.args(["--width", &reader.width.to_string(), "--height", height, "--axe"]).arg(axe());
    command.args(["--script", "return document.querySelector('a, button, input, select, [tabindex=\"0\"]').innerText"]);
    command.args(reader.is_dark.then_some("--dark")).args(reader.prints.then_some("--print"));
    seen(command)
}

/// Runs a script on a page in the place of hands, and returns what is seen then, with what it returned as `script`.
pub fn does(serving: &Serving, path: &str, picture: &Path, script: &str) -> Value {
    let mut command = screenshot(serving, path, picture);
    command.args(["--script", script]);
    seen(command)
}

fn screenshot(serving: &Serving, path: &str, picture: &Path) -> Command {
    let mut command = Command::new("python3");
    let program = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it/support/screenshot.py");
    command.arg(program).arg(format!("http://127.0.0.1:{}{path}", serving.port)).arg(picture);
    command
}

fn seen(mut command: Command) -> Value {
    let output = command.output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).unwrap()
}

fn axe() -> PathBuf {
    let output = Command::new(Path::new(env!("CARGO_MANIFEST_DIR")).join("scripts/axe")).arg("path").output().unwrap();
    let path = PathBuf::from(String::from_utf8(output.stdout).unwrap().trim_end());
    assert!(path.is_file(), "no axe-core: run `scripts/axe install` (`make test` does)");
    path
}

/// Keeps it for the documentation, where `scripts/pictures` asks for that.
pub fn keep(picture: &Path, name: &str) {
    let Some(folder) = std::env::var_os("PGTEND_SCREENSHOTS").map(PathBuf::from) else { return };
    std::fs::create_dir_all(&folder).unwrap();
    std::fs::copy(picture, folder.join(name)).unwrap();
}
