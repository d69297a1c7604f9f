//! An application's clients: pgbench on a table in use, and what they met.

use std::path::PathBuf;
use std::process::{Child, Stdio};
use std::time::Duration;

use tempfile::TempDir;

use super::eventually;
use super::postgres::Server;

/// Clients at work until they are stopped. Dropped, they are killed.
pub struct Pgbench {
    child: Option<Child>,
    folder: TempDir,
    server_log: PathBuf,
}

/// What they met.
#[derive(Debug)]
pub struct Met {
    pub transactions: u64,
    pub longest: Duration,
}

impl Pgbench {
    /// `clients` that run `script`, `rate` times a second all together. Statements are prepared, as applications have them.
    pub fn start(server: &Server, database: &str, clients: u32, rate: u32, script: &str) -> Self {
        let folder = TempDir::new().unwrap();
        std::fs::write(folder.path().join("script"), script).unwrap();
        let mut command = server.tool("pgbench", database);
        // It ends long before that: see `stop`.
        command.args([
            "-n",
            "-M",
            "prepared",
            "-T",
            "600",
            "-j",
            "1",
            "--failures-detailed",
            "--log",
            "--log-prefix=log",
            "-f",
            "script",
        ]);
        command.args(["-c", &clients.to_string(), "-R", &rate.to_string()]).current_dir(folder.path());
        let child = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let sessions =
            format!("SELECT count(*) FROM pg_stat_activity WHERE application_name = 'pgbench' AND datname = '{database}'");
        eventually("all clients are connected", || server.sql("postgres", &sessions) == clients.to_string());
        Self { child: Some(child), folder, server_log: server.log() }
    }

    /// Not one of them met an error: no aborted client, no failed transaction (deadlock, serialization).
    #[track_caller]
    pub fn stop(mut self) -> Met {
        let child = self.child.take().unwrap();
        // The end of its -T.
        let pid = rustix::process::Pid::from_raw(child.id() as i32).unwrap();
        rustix::process::kill_process(pid, rustix::process::Signal::ALARM).unwrap();
        let output = child.wait_with_output().unwrap();
        let (said, errors) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        assert!(output.status.success(), "a client met an error: {errors}\n{said}");
        if !said.contains("number of failed transactions: 0 ") {
            let log = std::fs::read_to_string(&self.server_log).unwrap_or_default();
            let deadlock = log.rsplit_once("deadlock detected").map_or("", |(_, after)| after);
            panic!("{said}\n{errors}\nthe last deadlock: {}", deadlock.lines().take(12).collect::<Vec<_>>().join("\n"));
        }
        let mut met = Met { transactions: 0, longest: Duration::ZERO };
        for file in std::fs::read_dir(self.folder.path()).unwrap().flatten() {
            if !file.file_name().to_string_lossy().starts_with("log.") {
                continue;
            }
            // client, number, time, script, epoch, microseconds, lag: the time counts from when it was due.
            for line in std::fs::read_to_string(file.path()).unwrap().lines() {
                let fields: Vec<u64> = line.split(' ').map(|field| field.parse().unwrap_or_else(|_| panic!("{line}"))).collect();
                met.transactions += 1;
                met.longest = met.longest.max(Duration::from_micros(fields[2] - fields[6]));
            }
        }
        assert!(met.transactions > 0, "{said}");
        met
    }
}

impl Drop for Pgbench {
    fn drop(&mut self) {
        if let Some(child) = &mut self.child {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}
