//! Configurations and jobs. Every mistake is told, no password is; no panic.

#![no_main]

use std::path::PathBuf;
use std::sync::OnceLock;

use libfuzzer_sys::fuzz_target;
use pgtend::base::toml_file::Problems;
use pgtend::config;
use pgtend::run::job;

const SECRET: &str = "hunter2";

/// In memory; of this process.
fn folder() -> &'static PathBuf {
    static FOLDER: OnceLock<PathBuf> = OnceLock::new();
    FOLDER.get_or_init(|| {
        let folder = PathBuf::from(format!("/dev/shm/pgtend-fuzz-{}", std::process::id()));
        std::fs::create_dir_all(folder.join("jobs")).expect("a folder");
        std::fs::write(folder.join("sound.toml"), SOUND).expect("a file");
        folder
    })
}

const SOUND: &str =
    "[databases.app]\nurl = 'postgres://u:p@h/app'\n[databases.b]\n[stores.local]\npath = 'store'\n[ledger]\ndatabase = 'app'\n";

fuzz_target!(|text: &[u8]| {
    let folder = folder();
    let mut problems = Vec::new();
    let config = folder.join("config.toml");
    std::fs::write(&config, text).expect("it is written");
    if config::load(&config, &mut problems).is_none() {
        assert!(!problems.is_empty(), "not a configuration, and nobody is told why");
    }
    std::fs::write(folder.join("jobs/job.toml"), text).expect("it is written");
    let config = config::load(&folder.join("sound.toml"), &mut Vec::new()).expect("a configuration that is right");
    let before = problems.len();
    let jobs = job::load_dir(&folder.join("jobs"), &config).unwrap_or_else(|_| panic!("the folder is there"));
    problems.extend(jobs.problems());
    assert!(!jobs.jobs.is_empty() || problems.len() > before, "not a job, and nobody is told why");
    let told = Problems(problems).render(false);
    if !told.contains(SECRET) {
        return;
    }
    // Said outside a URL, it is no secret.
    let text = String::from_utf8_lossy(text);
    let is_in_url = |at: usize| {
        let before = &text[..at];
        before.rfind("://").is_some_and(|url| !before[url..].contains(|c: char| c.is_whitespace() || "\"'`\\".contains(c)))
    };
    assert!(!text.match_indices(SECRET).all(|(at, _)| is_in_url(at)), "a password is told: {told}");
});
