//! `pgtend serve` under way: its log is in a file, its pages come over HTTP.

use std::fmt::Write as _;
use std::fs::File;
use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use serde_json::Value;

use super::postgres::Server;
use super::{Scenario, eventually};

/// A port that nobody listens on. Below those that the kernel gives to clients, so that none takes it meanwhile.
pub fn free_port() -> u16 {
    static TRIED: AtomicU32 = AtomicU32::new(0);
    let first = std::process::id().wrapping_mul(97) % 18_000;
    loop {
        let port = 10_000 + (first + TRIED.fetch_add(1, Ordering::Relaxed)) % 20_000;
        if TcpListener::bind(("127.0.0.1", port as u16)).is_ok() {
            return port as u16;
        }
    }
}

/// Dropped, it is killed.
pub struct Serving {
    child: Option<Child>,
    pub port: u16,
    config: PathBuf,
    log: PathBuf,
}

pub struct Answer {
    pub status: u16,
    pub headers: String,
    pub body: String,
}

impl Serving {
    /// Starts it with more lines for `[serve]`, and waits until it answers.
    pub fn start(scenario: &Scenario, serve: &str) -> Self {
        let serving = Self::start_by(scenario, serve, |_| {});
        eventually("serve answers", || serving.try_get("/healthz").is_some());
        serving
    }

    /// Starts it, and waits until it knows what is due.
    pub fn ready(scenario: &Scenario, serve: &str) -> Self {
        let serving = Self::start(scenario, serve);
        serving.is_ready();
        serving
    }

    /// With a change to the command. A port and a configuration file of its own: several serve one scenario.
    pub fn start_by(scenario: &Scenario, serve: &str, change: impl FnOnce(&mut Command)) -> Self {
        let port = free_port();
        let config = scenario.path(&format!("serve-{port}.toml"));
        std::fs::write(&config, format!("{}\n[serve]\nlisten = \"127.0.0.1:{port}\"\n{serve}\n", scenario.config)).unwrap();
        let log = scenario.path(&format!("serve-{port}.log"));
        let mut command = scenario.command(&["--config", &config.display().to_string(), "serve"]);
        change(&mut command);
        command.stdout(Stdio::null()).stderr(File::create(&log).unwrap());
        Self { child: Some(command.spawn().unwrap()), port, config, log }
    }

    /// The same again, after its end.
    pub fn again(mut self, scenario: &Scenario) -> Self {
        assert!(self.child.is_none(), "it still runs");
        let mut command = scenario.command(&["--config", &self.config.display().to_string(), "serve"]);
        let log = File::options().append(true).open(&self.log).unwrap();
        self.child = Some(command.stdout(Stdio::null()).stderr(log).spawn().unwrap());
        self
    }

    /// Another text in its configuration file.
    pub fn configure(&self, text: &str) {
        std::fs::write(&self.config, text).unwrap();
    }

    #[track_caller]
    pub fn is_ready(&self) {
        eventually("serve is ready", || self.try_get("/readyz").is_some_and(|answer| answer.status == 200));
    }

    pub fn pid(&self) -> u32 {
        self.child.as_ref().unwrap().id()
    }

    pub fn log(&self) -> String {
        String::from_utf8_lossy(&std::fs::read(&self.log).unwrap()).into_owned()
    }

    #[track_caller]
    pub fn logs(&self, text: &str) {
        eventually(&format!("the log says `{text}`"), || self.log().contains(text));
    }

    pub fn signal(&self, signal: rustix::process::Signal) {
        let pid = rustix::process::Pid::from_raw(self.pid() as i32).unwrap();
        rustix::process::kill_process(pid, signal).unwrap();
    }

    /// Reads the configuration anew, and waits until it says so.
    #[track_caller]
    pub fn reload(&self) {
        let told = || {
            self.log().matches("the new configuration has mistakes").count()
                + self.log().matches("configuration reloaded").count()
        };
        let before = told();
        self.signal(rustix::process::Signal::HUP);
        eventually("the configuration is reloaded", || told() > before);
    }

    /// kill -9.
    pub fn kill(&mut self) {
        let mut child = self.child.take().unwrap();
        child.kill().unwrap();
        child.wait().unwrap();
    }

    /// SIGTERM; its exit code.
    pub fn terminate(&mut self) -> Option<i32> {
        self.signal(rustix::process::Signal::TERM);
        self.wait()
    }

    pub fn wait(&mut self) -> Option<i32> {
        self.child.take().unwrap().wait().unwrap().code()
    }

    #[track_caller]
    pub fn get(&self, path: &str) -> Answer {
        self.get_with(path, &[])
    }

    #[track_caller]
    pub fn get_with(&self, path: &str, headers: &[(&str, &str)]) -> Answer {
        self.request("GET", path, headers, "").unwrap_or_else(|error| panic!("{path}: {error}; {}", self.log()))
    }

    /// Sends a form, as a browser does.
    #[track_caller]
    pub fn post(&self, path: &str, fields: &[(&str, &str)], headers: &[(&str, &str)]) -> Answer {
        let encode = |text: &str| percent_encoding::utf8_percent_encode(text, percent_encoding::NON_ALPHANUMERIC).to_string();
        let form = fields.iter().map(|(name, value)| format!("{name}={}", encode(value))).collect::<Vec<_>>().join("&");
        let length = form.len().to_string();
        let kind = [("Content-Type", "application/x-www-form-urlencoded"), ("Content-Length", &length)];
        let answer = self.request("POST", path, &[&kind, headers].concat(), &form);
        answer.unwrap_or_else(|error| panic!("{path}: {error}; {}", self.log()))
    }

    pub fn try_get(&self, path: &str) -> Option<Answer> {
        self.request("GET", path, &[], "").ok()
    }

    #[track_caller]
    pub fn json(&self, path: &str) -> Value {
        let answer = self.get(path);
        serde_json::from_str(&answer.body).unwrap_or_else(|error| panic!("{path}: {error}: {}", answer.body))
    }

    /// The value of a series, as it stands on the page: `pgtend_ledger_up`, `pgtend_job_late{job="a",database="app"}`.
    pub fn metric(&self, series: &str) -> Option<f64> {
        let page = self.try_get("/metrics")?.body;
        page.lines().find_map(|line| line.strip_prefix(series)?.strip_prefix(' ')?.parse().ok())
    }

    fn request(&self, method: &str, path: &str, headers: &[(&str, &str)], body: &str) -> std::io::Result<Answer> {
        let mut stream = TcpStream::connect(("127.0.0.1", self.port))?;
        stream.set_read_timeout(Some(Duration::from_secs(60)))?;
        let mut request = format!("{method} {path} HTTP/1.0\r\nHost: 127.0.0.1\r\n");
        for (name, value) in headers {
            write!(request, "{name}: {value}\r\n").unwrap();
        }
        stream.write_all((request + "\r\n" + body).as_bytes())?;
        let mut text = Vec::new();
        stream.read_to_end(&mut text)?;
        let text = String::from_utf8_lossy(&text);
        let invalid = || std::io::Error::other(format!("not HTTP: {text}"));
        let (head, body) = text.split_once("\r\n\r\n").ok_or_else(invalid)?;
        let (status, headers) = head.split_once("\r\n").ok_or_else(invalid)?;
        let status = status.split(' ').nth(1).and_then(|status| status.parse().ok()).ok_or_else(invalid)?;
        Ok(Answer { status, headers: headers.to_lowercase(), body: body.to_owned() })
    }
}

impl Drop for Serving {
    fn drop(&mut self) {
        if let Some(child) = &mut self.child {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// A database of the server, with its ledger in itself.
pub fn with_ledger(server: &Server) -> (Scenario, String) {
    let database = server.new_database();
    (Scenario::with_database(server, &database).config("[ledger]\ndatabase = \"app\"\n"), database)
}

/// A job of `app` that runs statements; `keys` come before the task.
pub fn sql_job(keys: &str, statements: &[&str]) -> String {
    format!("database = \"app\"\n{keys}\n[sql]\nstatements = {}\n", serde_json::to_string(statements).unwrap())
}

/// A schedule whose last tick was two or three hours ago.
pub fn hours_ago() -> String {
    use chrono::Timelike as _;
    format!("0 {} * * *", (chrono::Utc::now() - chrono::TimeDelta::hours(2)).hour())
}

/// Makes these jobs known for days in the ledger, so that their last tick is due when `serve` starts.
pub fn long_known(scenario: &Scenario, server: &Server, database: &str, schedule: &str, jobs: &[&str]) {
    scenario.run(&["runs"]).succeeded();
    for job in jobs {
        let known = format!("INSERT INTO pgtend.schedules VALUES ('{job}', 'app', '{schedule} UTC', now() - interval '3 days')");
        server.sql(database, &known);
    }
}

/// A query of the ledger that may not be there yet: then it returns nothing.
pub fn asked(server: &Server, database: &str, sql: &str) -> String {
    server.psql(database, sql).unwrap_or_default()
}

/// Waits until a query returns this.
#[track_caller]
pub fn becomes(server: &Server, database: &str, sql: &str, wanted: &str) {
    eventually(&format!("`{sql}` returns `{wanted}`"), || asked(server, database, sql) == wanted);
}

/// A query that counts returns at least this.
#[track_caller]
pub fn reaches(server: &Server, database: &str, sql: &str, wanted: u64) {
    eventually(&format!("`{sql}` returns {wanted} or more"), || {
        asked(server, database, sql).parse().is_ok_and(|count: u64| count >= wanted)
    });
}

/// All rows of the ledger, for a failing test's message.
pub fn history(server: &Server, database: &str) -> String {
    let rows = "SELECT id, job, trigger, scheduled_for, attempt, started_at, locked_at, finished_at, outcome, error, retry_at, pid FROM pgtend.runs ORDER BY id";
    asked(server, database, rows)
}
