//! Real PostgreSQL servers, one of each version for all tests, or one of a test's own to break.

use std::cell::RefCell;
use std::io::Write as _;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};

use tempfile::TempDir;

use super::eventually;
use super::watcher::ends_with_tests;

const INITDB: &str = r#"
make() { "$bin/initdb" -D "$dir/data" -U postgres --auth=trust -E UTF8 --locale=C.UTF-8 --no-sync; }
said() { cat "$dir/initdb.log" >&2; exit 1; }
"#;

/// Makes a data folder that servers are copies of, and removes it when its standard input ends. Its arguments: programs, folder.
const TEMPLATE: &str = r#"
bin=$1 dir=$2
make >"$dir/initdb.log" 2>&1 || said
touch "$dir/ready"
read -r what
cd / && rm -rf "$dir"
"#;

/// Makes a data folder (as a copy; by pg_basebackup, where there is a primary) and runs the server until its standard input ends, which it
/// does when the test process does, however that comes about; then stops it and removes its folder. Until then, `crash` and `start` on its
/// input do that. Its arguments: programs, folder, folder of the primary's socket or nothing, the template or nothing, settings.
///
/// pgtend tells servers apart by their system identifier, the first eight bytes of pg_control: a copy gets one of its own, which pg_resetwal
/// takes over into the WAL.
///
/// Autovacuum is on but never wakes up: it would analyze a test's table, which runs the functions in its indexes, and take half of a
/// processor where there are a hundred databases.
const SUPERVISOR: &str = r#"
bin=$1 dir=$2 primary=$3 template=$4
shift 4
if [ -n "$primary" ]; then
    "$bin/pg_basebackup" -h "$primary" -U postgres -D "$dir/data" -R -X stream -c fast --no-sync
elif [ -n "$template" ]; then
    cp -a "$template" "$dir/data" &&
        head -c 4 /dev/urandom | dd of="$dir/data/global/pg_control" conv=notrunc && "$bin/pg_resetwal" -f -D "$dir/data"
else
    make
fi >"$dir/initdb.log" 2>&1 || said
start() {
    "$bin/postgres" -D "$dir/data" -k "$dir/socket" -c listen_addresses= -c fsync=off -c max_wal_size=512MB -c max_connections=200 -c shared_buffers=64MB -c autovacuum_naptime=1d "$@" >>"$dir/log" 2>&1 </dev/null &
    pid=$!
}
start "$@"
while read -r what; do
    case $what in crash) kill -QUIT $pid; wait $pid ;; start) start "$@" ;; esac
done
kill -QUIT $pid 2>/dev/null
wait $pid
cd / && rm -rf "$dir"
"#;

/// The databases of a test go with its thread: those of the whole suite took 10 GB of disk together.
#[derive(Default)]
struct Made {
    drop_database: Vec<Command>,
    /// In a poisoned run: each hostile database with the log of its server.
    hostile: Vec<(PathBuf, String)>,
}

thread_local! {
    static MADE: RefCell<Made> = RefCell::default();
}

impl Made {
    /// Reports what databases of the servers in this folder have taken over.
    fn report_taken_over(&mut self, servers: &Path) {
        for (log, database) in self.hostile.extract_if(.., |(log, _)| log.starts_with(servers)) {
            report_taken_over(&log, &database);
        }
    }
}

impl Drop for Made {
    fn drop(&mut self) {
        for drop_database in &mut self.drop_database {
            // A server of the test's own is gone already.
            let _ = drop_database.status();
        }
        self.report_taken_over(Path::new("/"));
    }
}

/// Adds to the file that [`POISONED`] names what the owner of this database has taken over.
fn report_taken_over(log: &Path, database: &str) {
    let logged = std::fs::read(log).unwrap_or_default();
    let report = std::env::var_os(POISONED).unwrap_or_default();
    let file = std::fs::OpenOptions::new().append(true).create(true).open(report);
    // The thread of a test has its name.
    let lines = taken_over(&String::from_utf8_lossy(&logged), database, std::thread::current().name().unwrap_or_default());
    let _ = file.and_then(|mut file| file.write_all(lines.as_bytes()));
}

/// The lines of a server's log in which fixtures/hostile.sql says whose code ran as whom in this database or a copy of it, with the test's name.
pub fn taken_over(logged: &str, database: &str, test: &str) -> String {
    let of_it = |line: &&str| {
        let after = line.split_once("TAKEN OVER in ").and_then(|(_, after)| after.strip_prefix(database));
        after.is_some_and(|after| after.starts_with([':', '_']))
    };
    logged.lines().filter(of_it).map(|line| format!("{test}: {line}\n")).collect()
}

/// A running server.
pub struct Server {
    /// Of the client tools.
    pub bin_dir: PathBuf,
    pub major: u32,
    port: u16,
    folder: TempDir,
    supervisor: Child,
}

/// The shared server of that major version.
pub fn server(major: u32) -> &'static Server {
    static SERVERS: [OnceLock<Server>; MAJORS.len()] = [const { OnceLock::new() }; MAJORS.len()];
    let slot = MAJORS.iter().position(|one| *one == major).unwrap_or_else(|| panic!("no PostgreSQL {major} in the tests"));
    SERVERS[slot].get_or_init(|| Server::start(major))
}

/// A data folder of that version as initdb makes it, to be copied; none where pg_resetwal is missing (14).
fn template(major: u32) -> Option<PathBuf> {
    // The shell that removes the folder waits for the end of its input: of the test process.
    static TEMPLATES: [OnceLock<(PathBuf, Child)>; MAJORS.len()] = [const { OnceLock::new() }; MAJORS.len()];
    if !server_dir(major).join("pg_resetwal").exists() {
        return None;
    }
    let slot = MAJORS.iter().position(|one| *one == major)?;
    let (template, _) = TEMPLATES[slot].get_or_init(|| {
        let folder = folder().keep();
        let mut command = Command::new("sh");
        command.args(["-c", &format!("{INITDB}{TEMPLATE}"), "sh"]).arg(server_dir(major)).arg(&folder);
        let shell = spawned(command, &folder, true);
        eventually("initdb is done", || folder.join("ready").exists());
        (folder.join("data"), shell)
    });
    Some(template.clone())
}

fn folder() -> TempDir {
    tempfile::Builder::new().prefix("pgt").tempdir().unwrap()
}

/// Starts a shell in a folder that becomes that of the user `nobody` for root, as initdb refuses root; so does the shell, where it `may`.
fn spawned(mut command: Command, folder: &Path, may: bool) -> Child {
    if rustix::process::geteuid().is_root() {
        let (uid, gid) = (nobody("-u"), nobody("-g"));
        give(folder, uid, gid);
        if may {
            command.uid(uid).gid(gid);
        }
    }
    command.env_clear().env("PATH", std::env::var_os("PATH").unwrap_or_default()).current_dir(folder);
    // A group of its own: a signal to all processes of the tests leaves it to stop its server.
    command.stdin(Stdio::piped()).process_group(0).spawn().unwrap()
}

/// All that are supported: for backups, restores and audits.
pub const MAJORS: [u32; 5] = [14, 15, 16, 17, 18];

/// What else is tested, is tested on these.
pub const SOME_MAJORS: [u32; 3] = [15, 16, 18];

/// Those that have pgvector here.
pub const WITH_PGVECTOR: [u32; 2] = [16, 18];

/// The folder with the client tools of that version; of the next one where it has none here, as 14.
pub fn bin_dir(major: u32) -> PathBuf {
    let mut found = installed().into_iter().filter(|(one, bin)| *one >= major && bin.join("pg_dump").exists());
    found.next().unwrap_or_else(|| panic!("no client tools of PostgreSQL {major}: run `scripts/postgres install`")).1
}

/// The folder with its server programs.
pub fn server_dir(major: u32) -> PathBuf {
    let mut found = installed().into_iter().filter(|(one, _)| *one == major);
    found.next().unwrap_or_else(|| panic!("no PostgreSQL {major}: run `scripts/postgres install` (`make test` does)")).1
}

/// Major versions and their folders, the oldest first.
fn installed() -> Vec<(u32, PathBuf)> {
    static LIST: OnceLock<String> = OnceLock::new();
    let list = LIST.get_or_init(|| {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("scripts/postgres");
        let output = Command::new(script).arg("list").output().unwrap();
        String::from_utf8(output.stdout).unwrap()
    });
    let mut found: Vec<_> = list
        .lines()
        .map(|line| {
            let mut words = line.split(' ');
            (words.next().unwrap().parse().unwrap(), PathBuf::from(words.next().unwrap()))
        })
        .collect();
    found.sort();
    found
}

/// How a server of a test's own differs from the shared ones.
#[derive(Default)]
pub struct Different<'a> {
    /// `name=value`, as for `postgres -c`.
    pub settings: Vec<String>,
    /// Where it is not 5432: also the name of its socket.
    pub port: Option<u16>,
    /// Puts files into its folder before it starts; they become the server's own.
    pub prepare: Option<&'a dyn Fn(&Path)>,
    /// It is a standby of that one.
    pub primary: Option<&'a Server>,
}

impl Server {
    /// One that no other test uses.
    pub fn start(major: u32) -> Self {
        Self::start_by(major, "sh", &[], Different::default())
    }

    /// One that no other test uses, as it is said.
    pub fn start_different(major: u32, different: Different) -> Self {
        Self::start_by(major, "sh", &[], different)
    }

    /// With further settings, each `name=value`.
    pub fn start_with(major: u32, settings: &[&str]) -> Self {
        let settings = settings.iter().map(|&setting| setting.to_owned()).collect();
        Self::start_different(major, Different { settings, ..Default::default() })
    }

    /// A hot standby of this one, which follows it. It stops and starts as any server does ([`Server::crash`],
    /// [`Server::start_again`]).
    pub fn standby(&self) -> Self {
        let standby = Self::start_different(self.major, Different { primary: Some(self), ..Default::default() });
        assert_eq!(standby.sql("postgres", "SELECT pg_is_in_recovery()"), "t");
        standby
    }

    /// Waits until this standby shows what its primary has now.
    pub fn catches_up(&self, primary: &Server) {
        let now = primary.sql("postgres", "SELECT pg_current_wal_insert_lsn()");
        eventually("the standby has caught up", || {
            self.sql("postgres", &format!("SELECT pg_last_wal_replay_lsn() >= '{now}'::pg_lsn")) == "t"
        });
    }

    /// Makes a server of its own of this standby, which stays on the timeline of its primary, as a snapshot of a disk does.
    pub fn part_from_its_primary(&mut self) {
        self.crash();
        std::fs::remove_file(self.path("data/standby.signal")).unwrap();
        self.start_again();
        assert_eq!(self.sql("postgres", "SELECT pg_is_in_recovery()"), "f");
    }

    /// Stops this standby from hearing of what its primary does.
    pub fn loses_its_primary(&self) {
        self.sql("postgres", "ALTER SYSTEM SET primary_conninfo = ''");
        self.sql("postgres", "SELECT pg_reload_conf()");
        eventually("the standby hears nothing", || self.sql("postgres", "SELECT count(*) FROM pg_stat_wal_receiver") == "0");
    }

    /// Makes a server of its own of this standby.
    pub fn promote(&self) {
        assert_eq!(self.sql("postgres", "SELECT pg_promote()"), "t");
    }

    /// With the folder `small` beside its data: a disk of so many megabytes, which only the server sees.
    pub fn start_with_a_small_disk(major: u32, megabytes: u32) -> Self {
        let is_root = rustix::process::geteuid().is_root();
        let (uid, gid) = if is_root {
            (nobody("-u"), nobody("-g"))
        } else {
            (rustix::process::getuid().as_raw(), rustix::process::getgid().as_raw())
        };
        // initdb refuses root, also one of a user namespace.
        let back = if is_root {
            format!("setpriv --reuid {uid} --regid {gid} --clear-groups")
        } else {
            format!("unshare -U --map-user={uid} --map-group={gid}")
        };
        let own = if is_root { format!("chown {uid}:{gid} \"$5/small\"") } else { "true".to_owned() };
        let script = format!(
            "mkdir \"$5/small\" && mount -t tmpfs -o size={megabytes}m,mode=777 none \"$5/small\" && {own} && exec {back} sh -c \"$2\" sh \"$4\" \"$5\" '' \"$7\""
        );
        Self::start_by(major, "unshare", &[if is_root { "-m" } else { "-rm" }, "sh", "-c", &script, "sh"], Different::default())
    }

    /// `by`: what starts the supervisor, whose arguments follow.
    fn start_by(major: u32, by: &str, arguments: &[&str], different: Different) -> Self {
        let template = if different.primary.is_none() { template(major) } else { None };
        let folder = folder();
        std::fs::create_dir(folder.path().join("socket")).unwrap();
        if let Some(prepare) = different.prepare {
            prepare(folder.path());
        }
        let mut command = Command::new(by);
        command.args(arguments).args(["-c", &format!("{INITDB}{SUPERVISOR}"), "sh"]).arg(server_dir(major)).arg(folder.path());
        command.arg(different.primary.map(Server::socket).unwrap_or_default()).arg(template.unwrap_or_default());
        for setting in different.settings.into_iter().chain(different.port.map(|port| format!("port={port}"))) {
            command.args(["-c", &setting]);
        }
        let supervisor = spawned(command, folder.path(), arguments.is_empty());
        let port = different.port.unwrap_or(5432);
        let server = Self { bin_dir: bin_dir(major), major, port, supervisor, folder };
        eventually("the server accepts connections", || server.psql("postgres", "SELECT 1").is_ok());
        server
    }

    /// A path below its folder.
    pub fn path(&self, relative: &str) -> PathBuf {
        self.folder.path().join(relative)
    }

    pub fn socket(&self) -> PathBuf {
        self.folder.path().join("socket")
    }

    /// What its log says; other tests' statements in it may have any encoding.
    pub fn logged(&self) -> String {
        String::from_utf8_lossy(&std::fs::read(self.log()).unwrap()).into_owned()
    }

    pub fn log(&self) -> PathBuf {
        self.folder.path().join("log")
    }

    pub fn url(&self, database: &str) -> String {
        self.url_as("postgres", database)
    }

    pub fn url_as(&self, user: &str, database: &str) -> String {
        let encode = |text: &str| percent_encoding::utf8_percent_encode(text, percent_encoding::NON_ALPHANUMERIC).to_string();
        let port = if self.port == 5432 { String::new() } else { format!(":{}", self.port) };
        format!("postgres://{}@{}{port}/{}", encode(user), encode(&self.socket().display().to_string()), encode(database))
    }

    /// A new database with a name of its own; in a poisoned run, one whose owner is against us.
    pub fn new_database(&self) -> String {
        let name = self.empty_database();
        if is_poisoned() {
            self.sql(&name, include_str!("../fixtures/hostile.sql"));
            MADE.with_borrow_mut(|made| made.hostile.push((self.log(), name.clone())));
        }
        name
    }

    /// A new database with nothing in it. In a poisoned run its settings alone are hostile.
    pub fn empty_database(&self) -> String {
        let name = self.trusted_database();
        self.poison(&name);
        name
    }

    /// A copy of a database that nobody is connected to: quicker than filling another one with the same rows.
    pub fn copy_of(&self, database: &str) -> String {
        let name = self.create_database(database);
        self.poison(&name);
        name
    }

    fn poison(&self, database: &str) {
        if is_poisoned() {
            let sets = POISON.iter().map(|(setting, hostile, _)| format!("ALTER DATABASE {database} SET {setting} = {hostile};"));
            self.sql("postgres", &sets.collect::<String>());
        }
    }

    /// A new database that no run poisons: the test makes one hostile by itself, connects in its own way, or compares all that is in it.
    pub fn trusted_database(&self) -> String {
        self.create_database("template1")
    }

    fn create_database(&self, template: &str) -> String {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        // The default since 15 writes every page to the WAL: 44 ms of a processor until it is dropped again, for 20 ms.
        let strategy = if self.major >= 15 { "STRATEGY file_copy" } else { "" };
        let name = format!("t{}", NUMBER.fetch_add(1, Ordering::Relaxed));
        self.sql("postgres", &format!("CREATE DATABASE {name} TEMPLATE {template} {strategy}"));
        self.drop_with_test(&name);
        name
    }

    /// Drops this database when the test ends, however it ends.
    pub fn drop_with_test(&self, database: &str) {
        let mut psql = self.tool("psql", "postgres");
        // DROP DATABASE waits for every process of the server, also for one that a test has stopped.
        psql.args(["-XqAt", "-c", "SET statement_timeout = '20s'", "-c"]);
        psql.arg(format!("DROP DATABASE IF EXISTS \"{database}\" WITH (FORCE)"));
        psql.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        MADE.with_borrow_mut(|made| made.drop_database.push(psql));
    }

    /// Runs SQL; it must succeed. Returns unaligned rows.
    #[track_caller]
    pub fn sql(&self, database: &str, sql: &str) -> String {
        self.psql(database, sql).unwrap_or_else(|error| panic!("{error}"))
    }

    pub fn psql(&self, database: &str, sql: &str) -> Result<String, String> {
        let mut psql = self
            .tool("psql", database)
            .args(["-XqAt", "-v", "ON_ERROR_STOP=1", "-f", "-"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        // It may have ended before it read anything: its stderr says why.
        let _ = psql.stdin.take().unwrap().write_all(sql.as_bytes());
        let output = psql.wait_with_output().unwrap();
        match output.status.success() {
            true => Ok(String::from_utf8(output.stdout).unwrap().trim_end().to_owned()),
            false => Err(String::from_utf8_lossy(&output.stderr).into_owned()),
        }
    }

    /// A client tool, of this server's version where there is one, for this server. Killed, it takes its statement with it: by
    /// itself a server notices that a client is gone when it has something to say. A statement that waits for ever fails.
    pub fn tool(&self, name: &str, database: &str) -> Command {
        let mut command = Command::new(self.bin_dir.join(name));
        command.env("PGHOST", self.socket()).env("PGUSER", "postgres").env("PGDATABASE", database);
        command.env("PGPORT", self.port.to_string());
        // LLVM would take longer than what a test asks.
        let mut options = vec!["-c client_connection_check_interval=1s -c statement_timeout=600s -c jit=off".to_owned()];
        if is_poisoned() {
            // What the tests themselves ask is not their subject.
            options.extend(POISON.iter().map(|(setting, _, harmless)| format!("-c {setting}={harmless}")));
        }
        ends_with_tests(command.env("PGOPTIONS", options.join(" ")));
        command
    }

    /// The same tool in a session that the settings of the database and of the role govern alone, in a poisoned run, too.
    pub fn tool_without_options(&self, name: &str, database: &str) -> Command {
        let mut command = self.tool(name, database);
        command.env_remove("PGOPTIONS");
        command
    }

    /// Stops it at once, as a crash would.
    pub fn stop_immediately(&mut self) {
        self.crash();
        drop(self.supervisor.stdin.take());
        self.supervisor.wait().unwrap();
    }

    /// The same, and its folder stays for [`Server::start_again`].
    pub fn crash(&mut self) {
        self.supervisor.stdin.as_mut().unwrap().write_all(b"crash\n").unwrap();
        let pid_file = self.folder.path().join("data/postmaster.pid");
        eventually("the server is gone", || !pid_file.exists() && self.psql("postgres", "SELECT 1").is_err());
    }

    pub fn start_again(&mut self) {
        self.supervisor.stdin.as_mut().unwrap().write_all(b"start\n").unwrap();
        eventually("the server accepts connections again", || self.psql("postgres", "SELECT 1").is_ok());
    }

    /// A session in which these statements were run, and which stays open until it is dropped.
    pub fn session(&self, database: &str, sql: &str) -> Session {
        let mut psql = self.tool("psql", database);
        let mut psql =
            psql.args(["-XqAt", "-v", "ON_ERROR_STOP=1"]).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        psql.stdin.as_mut().unwrap().write_all(format!("{sql};\n\\echo ready\n").as_bytes()).unwrap();
        let mut lines = std::io::BufRead::lines(std::io::BufReader::new(psql.stdout.take().unwrap()));
        assert!(lines.any(|line| line.unwrap() == "ready"), "the session ended: {sql}");
        Session(psql)
    }

    /// Whether a `pg_sleep` of that database is under way.
    pub fn sleeps(&self, database: &str) -> bool {
        let sql = format!("SELECT count(*) FROM pg_stat_activity WHERE datname = '{database}' AND wait_event = 'PgSleep'");
        self.sql("postgres", &sql) != "0"
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // Its log goes with it.
        MADE.with_borrow_mut(|made| made.report_taken_over(self.folder.path()));
        drop(self.supervisor.stdin.take());
        let _ = self.supervisor.wait();
    }
}

/// Set to the name of a file by scripts/poisoned: every new database is one whose owner is against us, so that any test shows whether that
/// matters. The file gets what was taken over.
const POISONED: &str = "PGTEND_TEST_POISONED";

fn is_poisoned() -> bool {
    std::env::var_os(POISONED).is_some()
}

/// Settings of such a database, and what the tests' own sessions have in their place.
const POISON: &[(&str, &str, &str)] = &[
    ("search_path", "public, hostile, pg_catalog", "\"$user\",public"),
    ("local_preload_libraries", "'nosuch'", ""),
    ("statement_timeout", "1", "0"),
    ("lock_timeout", "1", "0"),
    ("idle_in_transaction_session_timeout", "1", "0"),
    ("idle_session_timeout", "1", "0"),
    ("default_transaction_read_only", "on", "off"),
    ("default_transaction_isolation", "serializable", "read\\ committed"),
    ("row_security", "off", "on"),
    ("DateStyle", "'SQL, DMY'", "ISO,MDY"),
    ("IntervalStyle", "sql_standard", "postgres"),
    ("TimeZone", "'Asia/Kathmandu'", "UTC"),
    ("bytea_output", "escape", "hex"),
    ("extra_float_digits", "-15", "1"),
    ("standard_conforming_strings", "off", "on"),
    ("array_nulls", "off", "on"),
    ("transform_null_equals", "on", "off"),
    ("quote_all_identifiers", "on", "off"),
    ("exit_on_error", "on", "off"),
    ("enable_indexscan", "off", "on"),
];

/// psql, open.
pub struct Session(Child);

impl Session {
    /// Runs the last statements, and waits for its end.
    pub fn ends_with(mut self, sql: &str) {
        self.0.stdin.as_mut().unwrap().write_all(format!("{sql};\n").as_bytes()).unwrap();
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        drop(self.0.stdin.take());
        let _ = self.0.wait();
    }
}

/// With all that is in it.
fn give(path: &Path, uid: u32, gid: u32) {
    std::os::unix::fs::chown(path, Some(uid), Some(gid)).unwrap();
    for entry in std::fs::read_dir(path).into_iter().flatten().flatten() {
        give(&entry.path(), uid, gid);
    }
}

fn nobody(which: &str) -> u32 {
    let output = Command::new("id").args([which, "nobody"]).output().unwrap();
    String::from_utf8(output.stdout).unwrap().trim().parse().unwrap()
}
