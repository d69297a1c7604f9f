//! What tests start ends with their process, however that ends: a kill, a closed terminal, a stopped CI job.

use std::io::Write as _;
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::{Mutex, OnceLock};

/// A variable of every process that a test starts, with the process id of the tests. Servers and their supervisors do not have it: a supervisor
/// stops its server when its own input ends.
const MARK: &str = "PGTEND_TEST_PROCESS";

/// Reads folders until its standard input ends, which it does with the test process; then kills whatever has the mark, and removes the folders.
/// A process that is being started has no environment for a moment, so it looks again. Its argument is the mark.
const SCRIPT: &str = r#"
trap '' HUP INT TERM PIPE
mark=$1
shift
while IFS= read -r folder; do set -- "$@" "$folder"; done
for round in 1 2 3; do
    marked=$(LC_ALL=C grep -slzx "$mark" /proc/[0-9]*/environ | cut -d / -f 3)
    [ -z "$marked" ] || kill -KILL $marked
    sleep 0.1
done
rm -rf "$@"
"#;

/// Marks a command as one that ends with the tests.
pub fn ends_with_tests(command: &mut Command) -> &mut Command {
    watcher();
    command.env(MARK, std::process::id().to_string())
}

/// Has this folder removed at the end of the tests, where nothing else removed it.
pub fn removed_with_tests(folder: &Path) {
    let line = format!("{}\n", folder.display());
    watcher().lock().unwrap().stdin.as_mut().unwrap().write_all(line.as_bytes()).unwrap();
}

fn watcher() -> &'static Mutex<Child> {
    static WATCHER: OnceLock<Mutex<Child>> = OnceLock::new();
    WATCHER.get_or_init(|| {
        let mut command = Command::new("sh");
        command.args(["-c", SCRIPT, "sh", &format!("{MARK}={}", std::process::id())]).env_remove(MARK);
        // A group of its own: it outlives a signal to all processes of the tests.
        command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null()).process_group(0).current_dir("/");
        Mutex::new(command.spawn().unwrap())
    })
}
