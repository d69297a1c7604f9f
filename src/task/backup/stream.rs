//! The pipeline from the text of a dump to an object: pieces are counted in the order in which they come, several threads compress them, and
//! one task passes the members on in the same order, to be encrypted (where the store asks for it), hashed and uploaded. Every queue is bounded, and so is the memory.

use std::collections::HashSet;
use std::io::{self, Read};
use std::sync::{Arc, PoisonError};

use anyhow::{Context as _, Result};
use tokio::sync::{Mutex, mpsc, oneshot};

use super::copies::fan_out::{FanOut, Lanes};
use super::scan::{Contents, Scanner};
use crate::base::progress::Phase;
use crate::base::thread;
use crate::members::compress::{Compression, Compressor, MEMBER_BYTES};
use crate::members::index::MemberIndex;

/// A piece that is longer is cut into several members: a row of a gigabyte.
const PIECE_LONGEST_BYTES: usize = 4 << 20;

/// Buffers of pieces that are kept for the next ones. With a new one for each piece, which one thread takes and another gives back, glibc kept
/// 8 MiB more in holes of its heaps (peak RSS, two sessions).
const BUFFERS_KEPT: usize = 8;

/// The compression of the stream.
#[derive(Clone, Copy, Debug)]
pub struct Shape {
    pub compression: Compression,
    pub level: i32,
    pub threads: usize,
    /// True: the rows of each table are hashed.
    pub hashes_rows: bool,
}

/// The contents of the object, in whatever store and however it is encrypted there.
#[derive(Debug)]
pub struct Streamed {
    pub members: MemberIndex,
    pub contents: Contents,
}

/// Compresses all that `produce` puts into the pieces, in that order, into the outlets, which are neither finished nor aborted here.
pub async fn compress_into<F: Future<Output = Result<()>>>(
    outlets: &mut FanOut,
    shape: Shape,
    phase: &Phase,
    produce: impl FnOnce(Pieces) -> F,
) -> Result<Streamed> {
    let (work, work_receiver) = mpsc::channel(1);
    let buffers = Buffers::default();
    spawn_compressors(shape, work_receiver, &buffers)?;
    // One member waiting for each thread: enough to keep all of them busy while an upload makes the task wait.
    let (order, order_receiver) = mpsc::channel(shape.threads + 1);
    let scanner = if shape.hashes_rows { Scanner::that_hashes() } else { Scanner::default() };
    let scanner = Arc::new(Mutex::new(scanner));
    let pieces = Pieces { scanner: Arc::clone(&scanner), order, work, buffers, phase: phase.clone() };
    let writing = outlets.pass(|lanes| write(lanes, order_receiver));
    let ((), members) = tokio::try_join!(produce(pieces), writing)?;
    let contents = std::mem::take(&mut *scanner.lock().await).finish();
    Ok(Streamed { members, contents })
}

async fn write(mut lanes: Lanes, mut order: mpsc::Receiver<Reply>) -> Result<(Lanes, MemberIndex)> {
    let mut members = MemberIndex::default();
    while let Some(reply) = order.recv().await {
        let member = reply.await.context("a compressing thread ended")??;
        members.push(&member.compressed, member.uncompressed_bytes);
        lanes.push(member.compressed.into()).await?;
    }
    members.finish();
    Ok((lanes, members))
}

type Reply = oneshot::Receiver<Result<Member>>;

struct Work {
    input: Vec<u8>,
    reply: oneshot::Sender<Result<Member>>,
}

struct Member {
    compressed: Vec<u8>,
    uncompressed_bytes: u64,
}

/// Buffers that were used, empty, for pieces to come.
#[derive(Clone, Default)]
struct Buffers(Arc<std::sync::Mutex<Vec<Vec<u8>>>>);

impl Buffers {
    fn take(&self) -> Vec<u8> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).pop().unwrap_or_default()
    }

    fn give_back(&self, mut buffer: Vec<u8>) {
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if kept.len() < BUFFERS_KEPT && buffer.capacity() <= PIECE_LONGEST_BYTES {
            buffer.clear();
            kept.push(buffer);
        }
    }
}

fn spawn_compressors(shape: Shape, work: mpsc::Receiver<Work>, buffers: &Buffers) -> Result<()> {
    let work = Arc::new(std::sync::Mutex::new(work));
    for _ in 0..shape.threads.max(1) {
        let mut compressor = Compressor::new(shape.compression, shape.level)?;
        let (work, buffers) = (Arc::clone(&work), buffers.clone());
        thread::spawn("compress", move || {
            loop {
                // The lock is held while waiting: the other threads wait for the lock instead of the queue.
                let received = work.lock().unwrap_or_else(PoisonError::into_inner).blocking_recv();
                let Some(Work { input, reply }) = received else { break };
                let uncompressed_bytes = input.len() as u64;
                let compressed = compressor.member(&input);
                buffers.give_back(input);
                // The receiver is gone when the run was cancelled.
                let _ = reply.send(compressed.map(|compressed| Member { compressed, uncompressed_bytes }));
            }
        })?;
    }
    Ok(())
}

/// Where the text of a dump goes: each piece becomes a member, after those that came before.
#[derive(Clone)]
pub struct Pieces {
    scanner: Arc<Mutex<Scanner>>,
    order: mpsc::Sender<Reply>,
    work: mpsc::Sender<Work>,
    buffers: Buffers,
    phase: Phase,
}

impl Pieces {
    /// Adds all of `source`. With `known_settings`, SET lines at its head that are not among them are commented out. The end of a pg_dump
    /// that failed looks like any other.
    pub async fn read(&self, source: impl Read + Send + 'static, known_settings: Option<HashSet<String>>) -> Result<()> {
        let (end_sender, end_receiver) = oneshot::channel();
        let pieces = self.clone();
        thread::spawn("dump-reader", move || {
            let _ = end_sender.send(pieces.read_blocking(source, known_settings));
        })?;
        end_receiver.await.context("the reading thread ended")?.context("cannot read the dump")
    }

    /// Ends early when the receiver of members is gone.
    fn read_blocking(&self, mut source: impl Read, known_settings: Option<HashSet<String>>) -> io::Result<()> {
        let mut head_filter = known_settings;
        loop {
            let mut input = self.buffer(MEMBER_BYTES);
            source.by_ref().take(MEMBER_BYTES as u64).read_to_end(&mut input)?;
            if input.is_empty() {
                return Ok(());
            }
            self.phase.advance(input.len() as u64);
            if let Some(known) = head_filter.take() {
                input = without_unknown_settings(&input, &known);
            }
            let mut scanner = self.scanner.blocking_lock();
            scanner.feed(&input);
            let (reply, receiver) = oneshot::channel();
            if self.order.blocking_send(receiver).is_err() || self.work.blocking_send(Work { input, reply }).is_err() {
                return Ok(());
            }
        }
    }

    /// An empty buffer for about so many bytes.
    pub fn buffer(&self, bytes: usize) -> Vec<u8> {
        let mut buffer = self.buffers.take();
        buffer.reserve(bytes);
        buffer
    }

    /// Adds whole statements, which no others come between.
    pub async fn add(&self, statements: Vec<u8>) -> Result<()> {
        self.phase.advance(statements.len() as u64);
        let mut scanner = self.scanner.lock().await;
        scanner.feed(&statements);
        let mut inputs = vec![statements];
        if inputs[0].len() > PIECE_LONGEST_BYTES {
            inputs = inputs[0].chunks(PIECE_LONGEST_BYTES).map(<[u8]>::to_vec).collect();
        }
        for input in inputs {
            let (reply, receiver) = oneshot::channel();
            self.order.send(receiver).await.context("the upload has ended")?;
            self.work.send(Work { input, reply }).await.context("the compressing threads have ended")?;
        }
        Ok(())
    }

    /// Returns whether what came so far ends like a complete dump.
    pub async fn are_complete(&self) -> bool {
        self.scanner.lock().await.is_complete()
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
