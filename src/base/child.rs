//! Runs client tools as children: in a process group of their own, with their stderr kept, killed as a group when the run ends
//! before they do, and in an environment whose every variable is known.

use std::ffi::OsString;
use std::fs::File;
use std::os::unix::process::CommandExt as _;
use std::process::{Command, ExitStatus, Stdio};

use anyhow::{Context as _, Result};
use rustix::process::{Pid, Signal, kill_process_group};
use tokio::io::AsyncReadExt as _;
use tokio::task::JoinHandle;

use crate::base::{subtask, tool_output};

/// The last bytes of a tool's stderr that are kept: the error is there.
const STDERR_KEPT_BYTES: usize = 64 << 10;

/// The part of a line that is kept: pg_dump repeats a LOCK TABLE of 100 kB, with every table, after the error that it met.
const STDERR_LINE_KEPT_BYTES: usize = 8 << 10;

/// The kernel's default limit for an unprivileged process (/proc/sys/fs/pipe-max-size). With a pipe of 64 KiB, pg_dump and pgtend
/// would take turns.
const PIPE_BYTES: usize = 1 << 20;

/// The variables that a tool inherits, beside those that it is given: paths of programs and libraries, the user's files,
/// language, time zone, and what TLS and Kerberos libraries read. It must not see keys of stores, tokens, webhooks and passwords
/// of other databases: a stranger may have written what a dump or a schema file makes psql do.
const INHERITED: [&str; 20] = [
    "PATH",
    "LD_LIBRARY_PATH",
    "DYLD_LIBRARY_PATH",
    "HOME",
    "USER",
    "LOGNAME",
    "LANG",
    "TZ",
    "TZDIR",
    "TMPDIR",
    "SSL_CERT_FILE",
    "SSL_CERT_DIR",
    "OPENSSL_CONF",
    "OPENSSL_MODULES",
    "KRB5CCNAME",
    "KRB5_CONFIG",
    "KRB5_KTNAME",
    "KRB5_CLIENT_KTNAME",
    "KRB5_TRACE",
    "KRB5RCACHEDIR",
];

/// A running tool. Dropping it before it has ended kills it and all its children.
pub struct Child {
    name: String,
    process: tokio::process::Child,
    stderr: JoinHandle<String>,
}

/// The end of a tool.
#[derive(Debug)]
pub struct Ended {
    pub status: ExitStatus,
    /// The last 64 KiB of its stderr.
    pub stderr: String,
}

impl Child {
    /// Starts `command` with stdin and stdout as pipes.
    pub fn spawn(mut command: Command) -> Result<Self> {
        let name = command.get_program().to_string_lossy().into_owned();
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).process_group(0);
        restrict_environment(&mut command);
        let mut process = tokio::process::Command::from(command).spawn().with_context(|| format!("cannot start {name}"))?;
        let mut pipe = process.stderr.take().context("stderr is a pipe")?;
        let stderr = subtask::spawn_in_span(async move {
            let (mut kept, mut line_bytes) = (Vec::new(), 0);
            let mut buffer = [0; 4096];
            while let Ok(count @ 1..) = pipe.read(&mut buffer).await {
                keep(&buffer[..count], &mut kept, &mut line_bytes);
                if kept.len() > 2 * STDERR_KEPT_BYTES {
                    kept.drain(..kept.len() - STDERR_KEPT_BYTES);
                }
            }
            String::from_utf8_lossy(&kept).trim().to_owned()
        });
        Ok(Self { name, process, stderr })
    }

    /// Returns the tool's output, for a thread that reads it.
    pub fn take_stdout(&mut self) -> Result<File> {
        let pipe = self.process.stdout.take().context("stdout was taken already")?;
        let file = File::from(pipe.into_owned_fd()?);
        // A smaller pipe is slower but works: a host may forbid a large one.
        let _ = rustix::pipe::fcntl_setpipe_size(&file, PIPE_BYTES);
        Ok(file)
    }

    /// Returns the tool's input, for a thread that writes it.
    pub fn take_stdin(&mut self) -> Result<File> {
        let pipe = self.process.stdin.take().context("stdin was taken already")?;
        let file = File::from(pipe.into_owned_fd()?);
        let _ = rustix::pipe::fcntl_setpipe_size(&file, PIPE_BYTES);
        Ok(file)
    }

    /// Waits for the end. Dropping a tool that has ended kills nothing.
    pub async fn wait(&mut self) -> Result<Ended> {
        let status = self.process.wait().await.with_context(|| format!("cannot wait for {}", self.name))?;
        let stderr = (&mut self.stderr).await.unwrap_or_default();
        tool_output::stderr(&stderr);
        Ok(Ended { status, stderr })
    }

    /// Waits for the end, and leaves what it said to [`Self::wait`].
    pub async fn exit(&mut self) -> Result<ExitStatus> {
        self.process.wait().await.with_context(|| format!("cannot wait for {}", self.name))
    }

    /// Sends SIGKILL to the group. These tools only read, or write inside one transaction or a database that is dropped
    /// afterwards, so nothing is lost, and nothing can hang.
    pub fn kill(&self) {
        let group = self.process.id().and_then(|id| Pid::from_raw(id as i32));
        if let Some(group) = group {
            // The tool may have ended in between.
            let _ = kill_process_group(group, Signal::KILL);
        }
    }
}

/// Keeps what the command was given, leaves out what it was told to remove, and inherits only the variables of the list.
pub fn restrict_environment(command: &mut Command) {
    let given: Vec<(OsString, Option<OsString>)> =
        command.get_envs().map(|(name, value)| (name.to_owned(), value.map(ToOwned::to_owned))).collect();
    command.env_clear();
    for (name, value) in std::env::vars_os() {
        let is_inherited = name.to_str().is_some_and(|name| INHERITED.contains(&name) || name.starts_with("LC_"));
        if is_inherited && !given.iter().any(|(other, _)| *other == name) {
            command.env(name, value);
        }
    }
    command.envs(given.into_iter().filter_map(|(name, value)| Some((name, value?))));
    // Both code ("permission denied") and people read the messages.
    command.env("LC_MESSAGES", "C").env_remove("LC_ALL");
}

impl Drop for Child {
    fn drop(&mut self) {
        self.kill();
    }
}

/// Adds bytes, except for the rest of overlong lines; `line_bytes` is the length of the present line.
fn keep(bytes: &[u8], kept: &mut Vec<u8>, line_bytes: &mut usize) {
    for byte in bytes {
        *line_bytes = if *byte == b'\n' { 0 } else { *line_bytes + 1 };
        match *line_bytes {
            0..=STDERR_LINE_KEPT_BYTES => kept.push(*byte),
            length if length == STDERR_LINE_KEPT_BYTES + 1 => kept.extend_from_slice(" …".as_bytes()),
            _ => {}
        }
    }
}

/// Runs a tool to its end and returns its output; an exit code other than 0 is an error with its stderr.
pub async fn output(command: Command) -> Result<String> {
    let mut child = Child::spawn(command)?;
    drop(child.process.stdin.take());
    let mut stdout = child.process.stdout.take().context("stdout is a pipe")?;
    let mut text = Vec::new();
    stdout.read_to_end(&mut text).await?;
    let ended = child.wait().await?;
    anyhow::ensure!(ended.status.success(), "{} ended with {}: {}", child.name, ended.status, ended.stderr);
    Ok(String::from_utf8_lossy(&text).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_that_is_too_long_leaves_the_others_as_they_are() {
        let long = "x".repeat(STDERR_LINE_KEPT_BYTES + 5000);
        let (mut kept, mut line_bytes) = (Vec::new(), 0);
        for part in format!("error: what\ndetail: {long}\nhint\n").as_bytes().chunks(7) {
            keep(part, &mut kept, &mut line_bytes);
        }
        let kept = String::from_utf8(kept).unwrap();
        assert!(kept.starts_with("error: what\ndetail: xxx") && kept.ends_with("xx …\nhint\n"), "{kept}");
        assert!(kept.len() < STDERR_LINE_KEPT_BYTES + 100);
    }
}
