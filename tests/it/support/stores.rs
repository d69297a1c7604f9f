//! Scenarios in other stores than they ask for: encrypted, two in place of one, or both. So the tests of what goes wrong with a backup are tests of these,
//! too: all of them with `make stores`, and some of them always (`two_encrypted_stores`).

use std::cell::Cell;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;
use std::process::Command;
use std::sync::OnceLock;

use super::{Scenario, collect_files};

/// `encrypted`, `twice`, or both with a comma: how the scenarios of all tests are stored.
const STORES: &str = "PGTEND_TEST_STORES";

/// The second store of each backup job: a folder of the scenario, with that name.
pub const SECOND: &str = "second";

#[derive(Clone, Copy, Debug, Default)]
pub struct Stores {
    /// Each store encrypts to a key of age, which is at hand.
    pub encrypted: bool,
    /// Each backup job has a second store, with the same `keep` of its own.
    pub twice: bool,
}

thread_local! {
    static OF_TEST: Cell<Option<Stores>> = const { Cell::new(None) };
}

/// Runs a test once more, in two encrypted stores.
pub fn on_two_encrypted_stores(test: fn()) {
    struct Ends;
    impl Drop for Ends {
        fn drop(&mut self) {
            OF_TEST.set(None);
        }
    }
    let _ends = Ends;
    OF_TEST.set(Some(Stores { encrypted: true, twice: true }));
    test();
}

impl Stores {
    /// Those of the test that runs in this thread.
    pub fn of_test() -> Self {
        let of_run = || {
            let asked = std::env::var(STORES).unwrap_or_default();
            let words: Vec<&str> = asked.split(',').filter(|word| !word.is_empty()).collect();
            let unknown: Vec<_> = words.iter().filter(|word| !["encrypted", "twice"].contains(word)).collect();
            assert!(unknown.is_empty(), "{STORES}: {unknown:?} is neither `encrypted` nor `twice`");
            Self { encrypted: words.contains(&"encrypted"), twice: words.contains(&"twice") }
        };
        OF_TEST.get().unwrap_or_else(of_run)
    }

    /// config.toml as it is written in the folder.
    pub fn config(self, folder: &Path, text: &str) -> String {
        let mut text = text.to_owned();
        if self.twice && text.contains("[stores.") {
            text += &format!("[stores.{SECOND}]\npath = \"{SECOND}\"\n");
        }
        if !self.encrypted {
            return text;
        }
        let Key { public, secret } = key();
        let path = folder.join("stores.key");
        if !path.exists() {
            let file = std::fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(path);
            std::io::Write::write_all(&mut file.unwrap(), secret.as_bytes()).unwrap();
        }
        let keys = format!("encrypt_to = [\"{public}\"]\nidentity_file = \"stores.key\"");
        let lines = text.lines().map(|line| match line.starts_with("[stores.") {
            true => format!("{line}\n{keys}\n"),
            false => format!("{line}\n"),
        });
        lines.collect()
    }

    /// A job as it is written.
    pub fn job(self, text: &str) -> String {
        if !self.twice || !text.contains("[backup]") {
            return text.to_owned();
        }
        let lines = text.lines().map(|line| match line.split_once(" = ") {
            Some(("store", store)) if !store.starts_with('[') => format!("store = [{store}, \"{SECOND}\"]\n"),
            Some(("keep", keep)) => format!("{line}\nkeep_in.{SECOND} = {keep}\n"),
            _ => format!("{line}\n"),
        });
        lines.collect()
    }
}

impl Scenario {
    /// The name of an object of a set as it is stored here: encrypted, it has another ending.
    pub fn object(&self, name: &str) -> String {
        if self.stores.encrypted { format!("{name}.age") } else { name.to_owned() }
    }

    /// Makes the second store what the test has made of the first one, a folder. Without a second store it does nothing.
    pub fn also_in_the_second_store(&self, first: &str) {
        if !self.stores.twice {
            return;
        }
        let is_own = |file: &String| file.starts_with(".pgtend");
        let (from, to) = (self.path(first), self.path(SECOND));
        let (mut there, mut here) = (Vec::new(), Vec::new());
        collect_files(&to, &to, &mut there);
        collect_files(&from, &from, &mut here);
        for file in there.iter().filter(|file| !is_own(file) && !here.contains(file)) {
            std::fs::remove_file(to.join(file)).unwrap();
        }
        for file in here.iter().filter(|file| !is_own(file)) {
            std::fs::create_dir_all(to.join(file).parent().unwrap()).unwrap();
            std::fs::copy(from.join(file), to.join(file)).unwrap();
        }
    }

    /// The stores of a job that has asked for one.
    pub fn stores_of(&self, asked: &'static str) -> Vec<&'static str> {
        if self.stores.twice { vec![asked, SECOND] } else { vec![asked] }
    }
}

/// One for all scenarios: some of them share a store.
struct Key {
    public: String,
    secret: String,
}

fn key() -> &'static Key {
    static KEY: OnceLock<Key> = OnceLock::new();
    KEY.get_or_init(|| {
        let made = Command::new("age-keygen").output().expect("no age: run `scripts/setup` (`make test` does)");
        let secret = String::from_utf8(made.stdout).unwrap();
        let public = secret.lines().find_map(|line| line.strip_prefix("# public key: ")).unwrap().to_owned();
        Key { public, secret }
    })
}
