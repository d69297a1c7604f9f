//! The pipeline from pg_dump's output to an object: one thread reads and counts, several compress, and one task orders the members, hashes
//! and uploads them. Every queue is bounded, and so is the memory.

use std::collections::HashSet;
use std::fs::File;
use std::io::{self, Read as _};
use std::sync::{Arc, Mutex, PoisonError, mpsc as thread_mpsc};

use anyhow::{Context as _, Result};
use sha2::{Digest as _, Sha256};
use tokio::sync::{mpsc, oneshot};

use super::scan::{Contents, Scanner};
use crate::base::progress::Phase;
use crate::base::thread;
use crate::members::blocks::{self, Blocks};
use crate::members::compress::{Compression, Compressor, MEMBER_BYTES};
use crate::members::index::MemberIndex;
use crate::store::Upload;

/// The compression of the stream.
#[derive(Clone, Copy, Debug)]
pub struct Shape {
    pub compression: Compression,
    pub level: i32,
    pub threads: usize,
}

/// The object's contents.
#[derive(Debug)]
pub struct Streamed {
    pub bytes: u64,
    /// In hexadecimal.
    pub sha256: String,
    pub members: MemberIndex,
    pub blocks: Blocks,
    pub contents: Contents,
}

/// Compresses all of `source` into `upload`, which is neither finished nor aborted here. With `known_settings`,
/// SET lines at the head of the dump that are not among them are commented out.
pub async fn compress_into(
    upload: &mut Upload,
    source: File,
    shape: Shape,
    known_settings: Option<HashSet<String>>,
    phase: &Phase,
) -> Result<Streamed> {
    let (work_sender, work_receiver) = thread_mpsc::sync_channel::<Work>(1);
    let work_receiver = Arc::new(Mutex::new(work_receiver));
    for _ in 0..shape.threads.max(1) {
        let mut compressor = Compressor::new(shape.compression, shape.level)?;
        let work_receiver = Arc::clone(&work_receiver);
        thread::spawn("compress", move || {
            loop {
                // The lock is held while waiting: the other threads wait for the lock instead of the queue.
                let received = work_receiver.lock().unwrap_or_else(PoisonError::into_inner).recv();
                let Ok(work) = received else { break };
                let compressed = compressor.member(&work.input);
                // The receiver is gone when the run was cancelled.
                let _ = work
                    .reply
                    .send(compressed.map(|compressed| Member { compressed, uncompressed_bytes: work.input.len() as u64 }));
            }
        })?;
    }

    // One member waiting for each thread: enough to keep all of them busy while an upload makes the task wait.
    let (order_sender, mut order_receiver) = mpsc::channel(shape.threads + 1);
    let (end_sender, end_receiver) = oneshot::channel();
    let reader_phase = phase.clone();
    thread::spawn("dump-reader", move || {
        let _ = end_sender.send(read_members(source, &work_sender, &order_sender, known_settings, &reader_phase));
    })?;

    let mut hash = Sha256::new();
    let mut blocks = blocks::Hasher::default();
    let mut members = MemberIndex::default();
    let mut bytes = 0;
    while let Some(reply) = order_receiver.recv().await {
        let reply: oneshot::Receiver<Result<Member>> = reply;
        let member = reply.await.context("a compressing thread ended")??;
        hash.update(&member.compressed);
        blocks.push(&member.compressed);
        members.push(&member.compressed, member.uncompressed_bytes);
        bytes += member.compressed.len() as u64;
        upload.write(member.compressed.into()).await?;
    }
    members.finish();
    let contents = end_receiver.await.context("the reading thread ended")?.context("cannot read the dump")?;
    Ok(Streamed { bytes, sha256: hex::encode(hash.finalize()), members, blocks: blocks.finish(), contents })
}

struct Work {
    input: Vec<u8>,
    reply: oneshot::Sender<Result<Member>>,
}

struct Member {
    compressed: Vec<u8>,
    uncompressed_bytes: u64,
}

/// Cuts `source` into members until its end, or until the receiver is gone.
fn read_members(
    mut source: File,
    work: &thread_mpsc::SyncSender<Work>,
    order: &mpsc::Sender<oneshot::Receiver<Result<Member>>>,
    known_settings: Option<HashSet<String>>,
    phase: &Phase,
) -> io::Result<Contents> {
    let mut scanner = Scanner::default();
    let mut head_filter = known_settings;
    loop {
        let mut input = Vec::with_capacity(MEMBER_BYTES);
        source.by_ref().take(MEMBER_BYTES as u64).read_to_end(&mut input)?;
        if input.is_empty() {
            return Ok(scanner.finish());
        }
        phase.advance(input.len() as u64);
        if let Some(known) = head_filter.take() {
            input = without_unknown_settings(&input, &known);
        }
        scanner.feed(&input);
        let (reply, receiver) = oneshot::channel();
        if order.blocking_send(receiver).is_err() || work.send(Work { input, reply }).is_err() {
            return Ok(scanner.finish());
        }
    }
}

/// Comments out unknown settings. pg_dump 17 and newer write `SET transaction_timeout = 0` for servers of any version, and psql with
/// ON_ERROR_STOP then stops at an older one. A setting that the server does not know cannot have mattered to the dump. Only the head is
/// searched, up to the first statement of another kind.
pub fn without_unknown_settings(start: &[u8], known: &HashSet<String>) -> Vec<u8> {
    let mut kept = Vec::with_capacity(start.len() + 128);
    let mut rest = start;
    while let Some(end) = memchr::memchr(b'\n', rest) {
        let (line, after) = rest.split_at(end + 1);
        let text = String::from_utf8_lossy(line);
        let setting = text.strip_prefix("SET ").and_then(|text| text.split(' ').next());
        let belongs_to_head = setting.is_some()
            || line.starts_with(b"--")
            || line.starts_with(b"\\")
            || line == b"\n"
            || line.starts_with(b"SELECT pg_catalog.set_config(");
        if !belongs_to_head {
            break;
        }
        if setting.is_some_and(|name| !known.contains(name)) {
            kept.extend_from_slice(b"-- this server does not know it: ");
        }
        kept.extend_from_slice(line);
        rest = after;
    }
    kept.extend_from_slice(rest);
    kept
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_unknown_settings_of_the_head_are_commented_out() {
        let dump = "--\n-- PostgreSQL database dump\n--\n\n\\restrict x\n\nSET lock_timeout = 0;\nSET transaction_timeout = 0;\nSELECT pg_catalog.set_config('search_path', '', false);\nCREATE TABLE t ();\nSET transaction_timeout = 0;\n";
        let known = HashSet::from(["lock_timeout".to_owned()]);
        let kept = String::from_utf8(without_unknown_settings(dump.as_bytes(), &known)).unwrap();
        assert_eq!(kept, dump.replacen("SET transaction_timeout", "-- this server does not know it: SET transaction_timeout", 1));
    }
}
