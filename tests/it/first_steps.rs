//! The stranger's stopwatch: what the tutorial and the README print is typed word for word, from an empty folder to a proved backup.

use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use tempfile::TempDir;

use crate::support::ends_with_tests;
use crate::support::postgres::Server;

/// A stranger has this long for it, beyond the build; it takes some 10 s.
const FIVE_MINUTES: Duration = Duration::from_secs(300);

/// The commands of each block that begins with `console`, up to this heading.
fn blocks(page: &str, end: &str) -> Vec<Vec<String>> {
    let text = std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(page)).unwrap();
    let text = text.split(end).next().unwrap();
    let commands = |block: &str| block.lines().filter_map(|line| line.strip_prefix("$ ")).map(str::to_owned).collect();
    text.split("```console\n").skip(1).map(|block| commands(block.split("```").next().unwrap())).collect()
}

/// Somebody at a shell in an empty folder, on a host with a server, its client tools and pgtend.
struct Stranger {
    server: Server,
    folder: TempDir,
}

impl Stranger {
    fn arrives() -> Self {
        // Debian's, which has pgbench.
        let stranger = Self { server: Server::start(15), folder: TempDir::new().unwrap() };
        std::fs::create_dir(stranger.folder.path().join("here")).unwrap();
        std::fs::create_dir(stranger.folder.path().join("bin")).unwrap();
        std::os::unix::fs::symlink(env!("CARGO_BIN_EXE_pgtend"), stranger.folder.path().join("bin/pgtend")).unwrap();
        stranger
    }

    fn types(&self, command: &str) -> String {
        let bin = self.folder.path().join("bin");
        let path = format!("{}:{}:/usr/bin:/bin", bin.display(), self.server.bin_dir.display());
        let mut shell = Command::new("sh");
        shell.args(["-c", command]).current_dir(self.folder.path().join("here")).env_clear();
        shell.env("PATH", path).env("HOME", self.folder.path()).env("PGHOST", self.server.socket()).env("PGUSER", "postgres");
        shell.env("TMPDIR", std::env::temp_dir());
        let ended = ends_with_tests(&mut shell).stdin(Stdio::null()).output().unwrap();
        let (said, complained) = (String::from_utf8_lossy(&ended.stdout), String::from_utf8_lossy(&ended.stderr));
        assert!(ended.status.success(), "{command}: {said}{complained}");
        said.into_owned()
    }

    /// Whether the newest backup was restored and counted.
    fn has_a_proved_backup(&self) {
        let listed: serde_json::Value = serde_json::from_str(&self.types("pgtend backups list --json")).unwrap();
        let sets = listed["sets"].as_array().unwrap();
        assert_eq!(sets.len(), 1, "{listed:#}");
        assert_eq!(sets[0]["bytes"], "intact", "{listed:#}");
        assert_eq!(sets[0]["restored"], true, "{listed:#}");
    }
}

#[test]
fn the_tutorial_leads_from_an_empty_folder_to_a_proved_backup_in_five_commands() {
    let blocks = blocks("docs/tutorial.md", "## What the demo shows");
    assert!(blocks[0].len() <= 5, "{:?}", blocks[0]);
    let stranger = Stranger::arrives();
    let started = Instant::now();
    let said: Vec<String> = blocks[0].iter().map(|command| stranger.types(command)).collect();
    assert!(started.elapsed() < FIVE_MINUTES, "{:?}", started.elapsed());
    // The last of them shows it.
    assert!(said.last().unwrap().contains("intact") && said.last().unwrap().contains("on 15."), "{said:?}");
    stranger.has_a_proved_backup();
    // The rest of the page, but for the scheduler, which goes on until Ctrl-C.
    let mut typed = 0;
    for command in blocks[1..].iter().flatten().filter(|command| *command != "pgtend serve") {
        stranger.types(command);
        typed += 1;
    }
    assert!(typed >= 9, "{typed}");
    // What it left is cleaned up.
    let left: Vec<_> = std::fs::read_dir(stranger.folder.path().join("here")).unwrap().collect();
    assert!(left.is_empty(), "{left:?}");
}

#[test]
fn the_first_commands_of_the_readme_lead_to_a_proved_backup() {
    let text = std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("README.md")).unwrap();
    assert!(text.contains("## A first backup\n"));
    let stranger = Stranger::arrives();
    let first = blocks("README.md", "## What it does").into_iter().find(|block| block[0].starts_with("createdb")).unwrap();
    assert!(first.len() <= 5, "{first:?}");
    first.iter().for_each(|command| drop(stranger.types(command)));
    stranger.has_a_proved_backup();
}
