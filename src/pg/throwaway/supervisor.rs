//! The process that creates a throwaway server, and ends it when this process ends.

use std::io::{self, Write as _};
use std::os::unix::process::CommandExt as _;
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result};
use tokio::process::Child;

use super::folder::{self, Folder};
use super::memory::Memory;
use super::programs::Programs;
use super::room::Room;
use super::user::User;
use crate::base::child;

/// Runs initdb, and the server at a low priority, until its standard input ends. Then it stops the server and removes the folder; as
/// another user, it can remove only its own files in there, and the lock last. Its arguments are the folder of the programs, the superuser, the major
/// version, the folder, and the limit of each process's address space in KiB, or nothing. Its standard output is the folder's lock. It ignores signals that a terminal or a service manager sends to
/// all processes: this process, which holds the other end of its input, ends it after its own work.
const SCRIPT: &str = r#"
trap '' HUP INT TERM PIPE
bin=$1 superuser=$2 major=$3 folder=$4 memory=$5
exec 2>>log
ionice -c 3 -p $$ >/dev/null 2>&1
checksums=
[ "$major" -ge 18 ] && checksums=--no-data-checksums
"$bin/initdb" -D data -U "$superuser" -A scram-sha-256 --pwfile=password -E UTF8 --no-locale --no-sync $checksums \
    >>log 2>&1 </dev/null || exit 1
rm -f password
cat settings.conf >>data/postgresql.conf || exit 1
{ { [ -z "$memory" ] || ulimit -v "$memory"; } && nice -n 10 "$bin/postgres" -D data; : >ended; } >>log 2>&1 </dev/null &
while read -r line; do :; done
while [ ! -e ended ]; do
    [ -s data/postmaster.pid ] && kill -QUIT "$(head -n 1 data/postmaster.pid)" && break
    sleep 1
done
wait
rm -rf ./* ./.s.*
{ cd -P .. && rmdir server && rm -f lock && cd / && rmdir "$folder"; } 2>/dev/null
exit 0
"#;

/// Starts the supervisor. All its messages go to the folder's log. The superuser must log in with `password`, as every other role: a function
/// of an extension that can connect gets no further than the functions of PostgreSQL itself. `memory`: of the settings, and the limit of each process's address space.
pub fn start(
    programs: &Programs,
    user: Option<&User>,
    memory: (Memory, Option<u64>),
    room: &Room,
    superuser: &str,
    password: &str,
) -> Result<Child> {
    let (memory, limit_bytes) = memory;
    let server = room.server();
    for (name, text) in [("settings.conf", settings(room, memory, limit_bytes.is_some())), ("password", password.to_owned())] {
        let written = room.server_folder().and_then(|folder| write_new(&folder, name, &text, user));
        written.with_context(|| format!("cannot write {}", server.join(name).display()))?;
    }
    let mut command = Command::new("sh");
    command.args(["-c", SCRIPT, "pgtend-throwaway"]).arg(&programs.folder).arg(superuser);
    command.arg(programs.major.to_string()).arg(room.folder()).current_dir(&server);
    command.arg(limit_bytes.map(|bytes| (bytes >> 10).to_string()).unwrap_or_default());
    child::restrict_environment(&mut command);
    command.stdin(Stdio::piped()).stdout(Stdio::from(room.lock()?)).stderr(Stdio::null()).process_group(0);
    if let Some(user) = user {
        command.uid(user.uid).gid(user.gid);
    }
    let started = tokio::process::Command::from(command).spawn();
    started.with_context(|| match user {
        Some(user) => format!(
            "cannot start a server as the user {} in {}: that user must be able to enter the folder, and pgtend must be able to change its user (run_as of [tools], scratch_dir of [verify])",
            user.name,
            server.display()
        ),
        None => format!("cannot start a server in {}", server.display()),
    })
}

/// Writes a file for the server's user alone. The folder is that user's already, so the file must be new: a link that stands there is not
/// followed.
fn write_new(folder: &Folder, name: &str, text: &str, user: Option<&User>) -> io::Result<()> {
    let mut written = folder.create(name)?;
    if let Some(user) = user {
        folder::give(&written, user)?;
    }
    written.write_all(text.as_bytes())
}

/// Returns the settings of the server. Nothing in it is kept, so its writes need not reach a disk. With a limit for its memory, one process does
/// all the work: a parallel worker would have as much again.
fn settings(room: &Room, memory: Memory, has_limit: bool) -> String {
    let folder = room.server().display().to_string().replace('\'', "''");
    let memory = memory.settings();
    let workers = if has_limit { "max_worker_processes = 0\nmax_parallel_workers = 0\n" } else { "" };
    format!(
        "listen_addresses = ''
unix_socket_directories = '{folder}'
unix_socket_permissions = 0700
port = 5432
max_connections = 30
max_locks_per_transaction = 1024
fsync = off
full_page_writes = off
synchronous_commit = off
autovacuum = off
wal_level = minimal
max_wal_senders = 0
max_wal_size = 256MB
checkpoint_timeout = 1h
checkpoint_warning = 0
# Shared memory is in files of the folder: /dev/shm of a container has 64 MB, and a parallel build of an hnsw index puts its whole graph there.
dynamic_shared_memory_type = mmap
huge_pages = off
jit = off
{memory}{workers}"
    )
}
