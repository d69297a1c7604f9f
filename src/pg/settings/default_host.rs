//! The host of a URL that names none: the folder of a socket. Whoever listens on a socket gets the password if it asks for one, and in /tmp everyone
//! may make a socket while the server is down. (pgtend's own sessions cannot see who answered, so `requirepeer` is no help.)

use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

/// The socket folder of Debian and Red Hat, which only the server's user can write to.
pub const PACKAGED: &str = "/var/run/postgresql";

/// The socket folders of Homebrew and of servers built from source, in which every user may make a socket.
const OF_ALL_USERS: [&str; 2] = ["/private/tmp", "/tmp"];

/// All of these, for libpq's rules about a socket folder that was built into it.
pub const FOLDERS: [&str; 3] = [PACKAGED, OF_ALL_USERS[0], OF_ALL_USERS[1]];

/// Returns the folder; client tools are told, whatever was built into them. Where packages of PostgreSQL have made their folder, it is that one, also
/// while it has no socket. Otherwise it is the one that has a socket of root, of this process's user or of `postgres`, and an error if the
/// socket is another user's. Without any, it is `localhost`.
pub fn folder(port: u16) -> Result<String, String> {
    if Path::new(PACKAGED).is_dir() {
        return Ok(PACKAGED.to_owned());
    }
    for folder in OF_ALL_USERS {
        let socket = Path::new(folder).join(format!(".s.PGSQL.{port}"));
        let Ok(found) = socket.symlink_metadata() else { continue };
        if !is_of_a_server(found.uid()) {
            return Err(format!(
                "no host is given, and the socket {} belongs to another user (uid {}), who would get the password: if that user runs the \
                 server, put ?host={folder} into the URL",
                socket.display(),
                found.uid()
            ));
        }
        return Ok(folder.to_owned());
    }
    Ok("localhost".to_owned())
}

/// Returns what to do if no server answers there, where another folder has a socket.
pub fn advice(host: &str, port: u16) -> Option<String> {
    let has_socket = |folder: &&str| Path::new(folder).join(format!(".s.PGSQL.{port}")).exists();
    let other = OF_ALL_USERS.into_iter().find(has_socket)?;
    (host == PACKAGED && !has_socket(&PACKAGED)).then(|| {
        format!(
            "there is no socket .s.PGSQL.{port} in {PACKAGED}; {other} was not tried, since every user may make a socket there: if the \
             server's is there, put ?host={other} into the URL"
        )
    })
}

fn is_of_a_server(uid: u32) -> bool {
    uid == 0 || uid == rustix::process::geteuid().as_raw() || Some(uid) == user_postgres()
}

/// Returns the number of the user `postgres` of this system, if it is in its own list of users.
fn user_postgres() -> Option<u32> {
    let users = std::fs::read_to_string("/etc/passwd").ok()?;
    users.lines().find_map(|line| line.strip_prefix("postgres:"))?.split(':').nth(1)?.parse().ok()
}
