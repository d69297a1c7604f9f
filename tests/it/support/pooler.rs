//! PgBouncer before a server of the tests.

use std::process::{Child, Command, Stdio};

use tempfile::TempDir;

use super::eventually;
use super::postgres::Server;
use super::serve::free_port;
use super::watcher::ends_with_tests;

pub struct Pooler {
    pub port: u16,
    pgbench: std::path::PathBuf,
    psql: std::path::PathBuf,
    process: Child,
    _folder: TempDir,
}

impl Pooler {
    /// `more`: lines of its configuration.
    pub fn start(server: &Server, pool_mode: &str, pool_size: u32, more: &str) -> Self {
        let folder = tempfile::Builder::new().prefix("pgb").tempdir().unwrap();
        let port = free_port();
        std::fs::write(folder.path().join("users"), "\"postgres\" \"\"\n").unwrap();
        let path = folder.path().display();
        let configuration = format!(
            "[databases]\n* = host={}\n[pgbouncer]\nlisten_addr = 127.0.0.1\nlisten_port = {port}\nunix_socket_dir =\n\
             auth_type = trust\nauth_file = {path}/users\npool_mode = {pool_mode}\ndefault_pool_size = {pool_size}\n\
             logfile = {path}/log\n{more}\n",
            server.socket().display()
        );
        std::fs::write(folder.path().join("ini"), configuration).unwrap();
        let mut command = if rustix::process::geteuid().is_root() {
            // It refuses root.
            let owned = Command::new("chown").args(["-R", "nobody"]).arg(folder.path()).status().unwrap();
            assert!(owned.success());
            let mut command = Command::new("setpriv");
            command.args(["--reuid", "nobody", "--clear-groups", "pgbouncer"]);
            command
        } else {
            Command::new("pgbouncer")
        };
        let process = ends_with_tests(&mut command)
            .env("PATH", format!("{}:/usr/sbin", std::env::var("PATH").unwrap_or_default()))
            .arg("-q")
            .arg(folder.path().join("ini"))
            .stdin(Stdio::null())
            .spawn()
            .expect("pgbouncer is installed (scripts/setup)");
        let (psql, pgbench) = (server.bin_dir.join("psql"), server.bin_dir.join("pgbench"));
        let pooler = Self { port, pgbench, psql, process, _folder: folder };
        eventually("the pooler accepts connections", || pooler.try_psql("postgres", "SELECT 1").is_some());
        pooler
    }

    /// From now on it leads elsewhere: a line of its section of databases.
    pub fn leads(&self, route: &str) {
        let path = self._folder.path().join("ini");
        let configuration = std::fs::read_to_string(&path).unwrap();
        std::fs::write(&path, format!("{configuration}\n[databases]\n{route}\n")).unwrap();
        let process = rustix::process::Pid::from_child(&self.process);
        rustix::process::kill_process(process, rustix::process::Signal::HUP).unwrap();
    }

    pub fn url(&self, database: &str) -> String {
        format!("postgres://postgres@127.0.0.1:{}/{database}", self.port)
    }

    pub fn psql(&self, database: &str, sql: &str) -> String {
        self.try_psql(database, sql).unwrap()
    }

    fn try_psql(&self, database: &str, sql: &str) -> Option<String> {
        let output = Command::new(&self.psql).args(["-XqAt", "-c", sql, &self.url(database)]).output().unwrap();
        output.status.success().then(|| String::from_utf8(output.stdout).unwrap())
    }

    /// Clients that ask without a pause.
    pub fn pgbench(&self, database: &str, clients: u32) -> Child {
        let script = self._folder.path().join("script");
        std::fs::write(&script, "SELECT count(*) FROM t;\n").unwrap();
        ends_with_tests(&mut Command::new(&self.pgbench))
            .args(["--no-vacuum", "--time=300", "--client", &clients.to_string(), "--file"])
            .arg(script)
            .arg(self.url(database))
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap()
    }
}

impl Drop for Pooler {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}
