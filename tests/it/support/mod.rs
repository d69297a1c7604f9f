//! What tests are made of. A [`Scenario`] is a folder with a configuration, jobs and a store, and runs the binary in it.

pub mod azurite;
pub mod browser;
pub mod google;
pub mod http;
pub mod json_schema;
pub mod moto;
pub mod owners;
pub mod pgbench;
pub mod pooler;
pub mod postgres;
pub mod proxy;
pub mod s3;
pub mod scripts;
pub mod serve;
pub mod smtp;
pub mod stores;
pub mod tls;
pub mod vectors;
mod watcher;

use std::collections::BTreeMap;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex, mpsc};
use std::time::{Duration, Instant};

use postgres::Server;
use s3::S3Server;
use serde_json::Value;
use stores::Stores;
use tempfile::TempDir;
use watcher::removed_with_tests;

pub use watcher::ends_with_tests;

/// Longer than any step of a test takes on a loaded machine; a test that waits this long has failed.
const PATIENCE: Duration = Duration::from_secs(60);

/// No run of a test takes a tenth of it.
const LONGEST_RUN: Duration = Duration::from_secs(600);

pub struct Scenario {
    folder: TempDir,
    config: String,
    environment: BTreeMap<String, String>,
    /// How it is stored.
    pub stores: Stores,
}

/// How a command ended.
#[derive(Debug)]
pub struct Output {
    pub code: Option<i32>,
    pub stdout: String,
    pub stderr: String,
}

impl Scenario {
    /// Without databases and stores.
    pub fn empty() -> Self {
        let folder = TempDir::new().unwrap();
        removed_with_tests(folder.path());
        std::fs::create_dir(folder.path().join("jobs")).unwrap();
        Self { folder, config: String::new(), environment: BTreeMap::new(), stores: Stores::of_test() }
    }

    /// With `[databases.app]`, the server's client tools, and `[stores.local]`, a folder.
    pub fn with_database(server: &Server, database: &str) -> Self {
        Self::with_url(server, &server.url(database))
    }

    /// The same, for a URL of that server: as another role.
    pub fn with_url(server: &Server, url: &str) -> Self {
        Self::empty()
            .config(&format!("[databases.app]\nurl = {}\n", quoted(url)))
            .config(&format!("[tools]\nbin_dir = {}\n", quoted(&server.bin_dir.display().to_string())))
            .config("[stores.local]\npath = \"store\"\n")
    }

    /// Adds to config.toml.
    pub fn config(mut self, text: &str) -> Self {
        self.config += text;
        let text = self.stores.config(self.folder.path(), &self.config);
        std::fs::write(self.path("config.toml"), text).unwrap();
        self
    }

    /// Adds `[stores.bucket]` with credentials in the environment.
    pub fn s3(self, server: &S3Server) -> Self {
        self.config(&format!(
            "[stores.bucket]\nbucket = \"backups\"\nprefix = \"test\"\nregion = \"us-east-1\"\nendpoint = {}\n",
            quoted(&server.endpoint())
        ))
        .env("AWS_ACCESS_KEY_ID", s3::ACCESS_KEY)
        .env("AWS_SECRET_ACCESS_KEY", s3::SECRET_KEY)
    }

    /// The same for a bucket of moto.
    pub fn moto(self, server: &moto::Moto, bucket: &str) -> Self {
        self.config(&format!(
            "[stores.bucket]\nbucket = \"{bucket}\"\nprefix = \"test\"\nregion = \"us-east-1\"\nendpoint = {}\n",
            quoted(&server.endpoint())
        ))
        .env("AWS_ACCESS_KEY_ID", s3::ACCESS_KEY)
        .env("AWS_SECRET_ACCESS_KEY", s3::SECRET_KEY)
    }

    /// Adds `[stores.azure]`, a container of Azurite, with credentials in the environment.
    pub fn azure(self, server: &azurite::Azurite, container: &str) -> Self {
        self.config(&format!(
            "[stores.azure]\ncontainer = \"{container}\"\naccount = \"{}\"\nprefix = \"test\"\nendpoint = {}\n",
            azurite::ACCOUNT,
            quoted(&server.endpoint())
        ))
        .env("AZURE_STORAGE_ACCOUNT_KEY", azurite::KEY)
    }

    /// Adds `[stores.google]`, the bucket of a server with Google's API, with credentials in a file.
    pub fn google(self, server: &S3Server) -> Self {
        self.google_as("google", server)
    }

    /// The same under another name.
    pub fn google_as(self, name: &str, server: &S3Server) -> Self {
        std::fs::write(self.path("google.json"), google::service_account()).unwrap();
        self.config(&format!(
            "[stores.{name}]\ngcs_bucket = \"backups\"\nprefix = \"test\"\nendpoint = {}\ncredentials_file = \"google.json\"\n",
            quoted(&server.endpoint())
        ))
    }

    pub fn env(mut self, name: &str, value: &str) -> Self {
        self.environment.insert(name.to_owned(), value.to_owned());
        self
    }

    pub fn job(self, name: &str, text: &str) -> Self {
        std::fs::write(self.path(&format!("jobs/{name}.toml")), self.stores.job(text)).unwrap();
        self
    }

    /// A backup job `nightly` of `app` into `store`, with more lines for `[backup]`. A proof by restore is made in a scratch database
    /// on the source's server, whatever server programs this host has, unless these lines say where.
    pub fn backup_job(self, store: &str, more: &str) -> Self {
        let restores = more.contains("verify = \"restore\"") && !more.contains("scratch =");
        let scratch = if restores { "scratch = \"same\"\n" } else { "" };
        self.job("nightly", &format!("database = \"app\"\n[backup]\nstore = \"{store}\"\n{scratch}{more}\n"))
    }

    /// `[ledger]` in `[databases.app]`.
    pub fn ledger(self) -> Self {
        self.config("[ledger]\ndatabase = \"app\"\n")
    }

    /// A job that runs these statements on `app`; `keys` stand above its `[sql]`.
    pub fn sql_job(self, name: &str, keys: &str, statements: &[&str]) -> Self {
        // A JSON array of strings is one of TOML.
        let statements = serde_json::to_string(statements).unwrap();
        self.job(name, &format!("database = \"app\"\n{keys}\n[sql]\nstatements = {statements}\n"))
    }

    pub fn path(&self, relative: &str) -> PathBuf {
        self.folder.path().join(relative)
    }

    pub fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_pgtend"));
        command.current_dir(self.folder.path()).args(arguments).stdin(Stdio::null());
        for inherited in
            ["PGHOST", "PGPORT", "PGUSER", "PGDATABASE", "PGPASSWORD", "PGTEND_LOG", "RUST_BACKTRACE", "XDG_STATE_HOME"]
        {
            command.env_remove(inherited);
        }
        // No metadata service here: without this, finding no credentials takes seconds.
        command.env("AWS_EC2_METADATA_DISABLED", "true").env("HOME", self.folder.path());
        ends_with_tests(command.envs(&self.environment));
        command
    }

    pub fn run(&self, arguments: &[&str]) -> Output {
        finished(spawn(&mut self.command(arguments)))
    }

    /// Runs a shell script that may mount things which nobody else sees; `$pgtend` is the binary. Without root, in a
    /// user namespace.
    pub fn in_mount_namespace(&self, script: &str) -> Output {
        let flags = if rustix::process::geteuid().is_root() { "-m" } else { "-rm" };
        let mut command = Command::new("unshare");
        command
            .args([flags, "sh", "-c", script])
            .current_dir(self.folder.path())
            .env("pgtend", env!("CARGO_BIN_EXE_pgtend"))
            .env_remove("XDG_STATE_HOME")
            .envs(&self.environment);
        finished(spawn(ends_with_tests(&mut command).stdin(Stdio::null())))
    }

    /// Starts a command that the test will interrupt.
    pub fn start(&self, arguments: &[&str]) -> Running {
        Running { child: Some(spawn(&mut self.command(arguments))) }
    }

    /// What a command prints with --json, which is as `pgtend schema output` has it.
    #[track_caller]
    pub fn json(&self, arguments: &[&str]) -> Value {
        let output = self.run(&[arguments, &["--json"]].concat()).succeeded();
        let printed = serde_json::from_str(&output.stdout).unwrap_or_else(|error| panic!("{error}: {}", output.stdout));
        json_schema::is_as_described(arguments, &printed);
        printed
    }

    /// What `runs` lists, the oldest first.
    pub fn runs(&self, arguments: &[&str]) -> Vec<Value> {
        let listed = self.json(&[&["runs"], arguments].concat());
        listed["runs"].as_array().unwrap().iter().rev().cloned().collect()
    }

    /// The names of the sets that are listed.
    pub fn sets(&self) -> Vec<String> {
        let listed = self.json(&["backups", "list"]);
        listed["sets"].as_array().unwrap().iter().map(|set| set["set"].as_str().unwrap().to_owned()).collect()
    }

    /// Every file below a folder of the scenario, relative to it; but not what a directory store keeps for itself at its root.
    pub fn files(&self, folder: &str) -> Vec<String> {
        let root = self.path(folder);
        let mut files = Vec::new();
        collect_files(&root, &root, &mut files);
        files.retain(|file| !file.starts_with(".pgtend"));
        files.sort();
        files
    }
}

/// faketime's library, which tells a process another time.
pub fn faketime() -> PathBuf {
    let folders = std::fs::read_dir("/usr/lib").unwrap().flatten();
    folders
        .map(|folder| folder.path().join("faketime/libfaketime.so.1"))
        .find(|library| library.exists())
        .expect("no libfaketime: run `scripts/setup` (`make test` does)")
}

fn collect_files(root: &Path, folder: &Path, files: &mut Vec<String>) {
    for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
        match entry.path() {
            path if path.is_dir() => collect_files(root, &path, files),
            path => files.push(path.strip_prefix(root).unwrap().display().to_string()),
        }
    }
}

impl Output {
    #[track_caller]
    pub fn succeeded(self) -> Self {
        self.exited(0)
    }

    #[track_caller]
    pub fn exited(self, code: i32) -> Self {
        assert_eq!(self.code, Some(code), "stdout: {}\nstderr: {}", self.stdout, self.stderr);
        self
    }

    /// For what ends in one of several ways, each of them right.
    #[track_caller]
    pub fn exited_with_one_of(self, codes: &[i32]) -> Self {
        let code = self.code.unwrap_or_else(|| panic!("a signal ended it: {}", self.stderr));
        assert!(codes.contains(&code), "{code} is not in {codes:?}. stdout: {}\nstderr: {}", self.stdout, self.stderr);
        self
    }

    /// stderr says all of these.
    #[track_caller]
    pub fn says(self, texts: &[&str]) -> Self {
        for text in texts {
            assert!(self.stderr.contains(text), "`{text}` is not in: {}", self.stderr);
        }
        self
    }

    /// stdout says all of these.
    #[track_caller]
    pub fn prints(self, texts: &[&str]) -> Self {
        for text in texts {
            assert!(self.stdout.contains(text), "`{text}` is not in: {}", self.stdout);
        }
        self
    }
}

/// A command under way. Dropped, it is killed.
pub struct Running {
    child: Option<Child>,
}

impl Running {
    pub fn pid(&self) -> u32 {
        self.child.as_ref().unwrap().id()
    }

    pub fn signal(&self, signal: rustix::process::Signal) {
        let pid = rustix::process::Pid::from_raw(self.pid() as i32).unwrap();
        rustix::process::kill_process(pid, signal).unwrap();
    }

    pub fn is_running(&mut self) -> bool {
        self.child.as_mut().unwrap().try_wait().unwrap().is_none()
    }

    /// kill -9.
    pub fn kill(mut self) {
        let mut child = self.child.take().unwrap();
        child.kill().unwrap();
        child.wait().unwrap();
    }

    /// kill -9, and what it had said.
    pub fn killed(mut self) -> Output {
        self.child.as_mut().unwrap().kill().unwrap();
        self.wait()
    }

    pub fn wait(mut self) -> Output {
        finished(self.child.take().unwrap())
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if let Some(child) = &mut self.child {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

fn spawn(command: &mut Command) -> Child {
    command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
}

/// Waits for its end. One that hangs fails its test, with what it has said, and not the whole suite by the time limit of CI.
fn finished(mut child: Child) -> Output {
    let deadline = Instant::now() + LONGEST_RUN;
    let stdout = reads(child.stdout.take().unwrap());
    let stderr = reads(child.stderr.take().unwrap());
    for said in [&stdout, &stderr] {
        // It ends with the pipe, which a child of its own may hold as well.
        let _ = said.end.recv_timeout(deadline.saturating_duration_since(Instant::now()));
    }
    let text = |said: &Said| String::from_utf8_lossy(&said.text.lock().unwrap()).into_owned();
    loop {
        match child.try_wait().unwrap() {
            Some(status) if Instant::now() < deadline => {
                return Output {
                    code: status.code(),
                    stdout: String::from_utf8(stdout.text.lock().unwrap().clone()).unwrap(),
                    stderr: text(&stderr),
                };
            }
            None if Instant::now() < deadline => std::thread::sleep(Duration::from_millis(1)),
            _ => {
                let _ = child.kill();
                let _ = child.wait();
                panic!("it did not end in {} s. stdout: {}\nstderr: {}", LONGEST_RUN.as_secs(), text(&stdout), text(&stderr));
            }
        }
    }
}

/// What a pipe has said so far.
struct Said {
    text: Arc<Mutex<Vec<u8>>>,
    /// Closed at its end.
    end: mpsc::Receiver<()>,
}

fn reads(mut pipe: impl Read + Send + 'static) -> Said {
    let text = Arc::new(Mutex::new(Vec::new()));
    let (open, end) = mpsc::channel();
    let into = Arc::clone(&text);
    std::thread::spawn(move || {
        let _open: mpsc::Sender<()> = open;
        let mut chunk = vec![0; 64 * 1024];
        while let Ok(length @ 1..) = pipe.read(&mut chunk) {
            into.lock().unwrap().extend_from_slice(&chunk[..length]);
        }
    });
    Said { text, end }
}

/// How often a campaign repeats what it does at random moments: a quarter of `often` in `make test`, all of it in `make campaigns`.
pub fn times(often: u32) -> u32 {
    if std::env::var_os("PGTEND_TEST_CAMPAIGNS").is_some() { often } else { often.div_ceil(4) }
}

/// Waits until something is so. Asking a server takes a psql and a session: it is asked less often the longer it takes.
#[track_caller]
pub fn eventually(what: &str, mut is_so: impl FnMut() -> bool) {
    let started = Instant::now();
    while !is_so() {
        let waited = started.elapsed();
        assert!(waited < PATIENCE, "in {} s it did not come to be that {what}", PATIENCE.as_secs());
        std::thread::sleep((waited / 16).clamp(Duration::from_millis(20), Duration::from_millis(100)));
    }
}

/// A TOML string.
pub fn quoted(text: &str) -> String {
    format!("'{text}'")
}

/// Sets variables of this process, for what a test calls of pgtend as a library. Every test sets them to the same values.
#[expect(unsafe_code, reason = "another thread may read the environment meanwhile: the values never change once they are set")]
pub fn set_own_environment(variables: &[(&str, &str)]) {
    for (name, value) in variables {
        if std::env::var(name).is_ok_and(|set| set == *value) {
            continue;
        }
        unsafe { std::env::set_var(name, value) };
    }
}
