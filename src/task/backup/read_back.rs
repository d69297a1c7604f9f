//! Reads a set's dump from its store, all of it, and compares it with the manifest: length, SHA-256, every
//! member decoded and counted, the trailer, every table's rows. What is decoded can go somewhere on the way.

use std::io::{self, Read};

use anyhow::{Context as _, Result};
use bytes::{Buf as _, Bytes};
use sha2::{Digest as _, Sha256};
use tokio::sync::{mpsc, oneshot};

use super::compress::{self, Compression, DecodeError};
use super::scan::{Contents, Scanner};
use super::set::{GLOBALS, Globals, Manifest, Set};
use super::stream::{hex, spawn_thread};
use crate::progress::Phase;
use crate::store::{Reader, Store};

/// Chunks on their way from the store to the decoder.
const QUEUED_CHUNKS: usize = 4;

/// What reading a set has shown.
#[derive(Debug, Default)]
pub struct ReadBack {
    /// Where it differs from its manifest; empty when all is well.
    pub problems: Vec<String>,
    /// Whoever took the decoded bytes stopped taking them.
    pub sink_error: Option<io::Error>,
}

/// Reads all of the dump, handing the decoded bytes to `sink`. An error is the store's or the network's, and says
/// nothing about the set.
pub async fn read_dump(
    store: &Store,
    set: &Set,
    phase: &Phase,
    sink: impl FnMut(&[u8]) -> io::Result<()> + Send + 'static,
) -> Result<ReadBack> {
    let dump = &set.manifest.dump;
    let key = set.name.key(&dump.object);
    let Some(reader) = store.read(&key).await? else {
        return Ok(ReadBack { problems: vec![format!("{} is gone", store.location(&key))], sink_error: None });
    };

    let state = (Scanner::default(), sink);
    let decoded = decode_object(reader, dump.compression, phase, state, |(scanner, sink), bytes| {
        scanner.feed(bytes);
        sink(bytes)
    })
    .await?;
    let (bytes, contents) = (decoded.bytes, decoded.state.0.finish());
    Ok(match decoded.members {
        Ok(members) => {
            ReadBack { problems: differences(&set.manifest, bytes, &decoded.sha256, members, &contents), sink_error: None }
        }
        Err(DecodeError::Source(error)) => ReadBack {
            problems: vec![format!("{} does not decode, somewhere in its first {bytes} bytes: {error}", dump.object)],
            sink_error: None,
        },
        Err(DecodeError::Sink(error)) => ReadBack { problems: Vec::new(), sink_error: Some(error) },
    })
}

/// An object that was read to its end, or to where it does not decode.
pub struct Decoded<S> {
    pub bytes: u64,
    pub sha256: String,
    pub members: Result<u64, DecodeError>,
    pub state: S,
}

/// Reads an object of members, hashes it, and hands the decoded bytes to `feed` on a thread of its own. An error is
/// the store's or the network's, and says nothing about the object.
pub async fn decode_object<S: Send + 'static>(
    mut reader: Reader,
    compression: Compression,
    phase: &Phase,
    mut state: S,
    mut feed: impl FnMut(&mut S, &[u8]) -> io::Result<()> + Send + 'static,
) -> Result<Decoded<S>> {
    let (chunk_sender, chunk_receiver) = mpsc::channel(QUEUED_CHUNKS);
    let (end_sender, end_receiver) = oneshot::channel();
    spawn_thread("decode", move || {
        let source = io::BufReader::with_capacity(64 << 10, ChunkReader { chunks: chunk_receiver, current: Bytes::new() });
        let members = compress::decode(compression, source, |bytes| feed(&mut state, bytes));
        let _ = end_sender.send((members, state));
    })?;
    let mut hash = Sha256::new();
    let mut bytes = 0;
    while let Some(chunk) = reader.chunk().await? {
        hash.update(&chunk);
        bytes += chunk.len() as u64;
        phase.advance(chunk.len() as u64);
        // The decoder has stopped: its result says why.
        if chunk_sender.send(chunk).await.is_err() {
            break;
        }
    }
    drop(chunk_sender);
    let (members, state) = end_receiver.await.context("the decoding thread ended")?;
    Ok(Decoded { bytes, sha256: hex(&hash.finalize()), members, state })
}

/// Reads the globals' bytes against the manifest. A set without globals has no problem here: its manifest says why.
pub async fn check_globals(store: &Store, set: &Set) -> Result<Vec<String>> {
    let Globals::Object { bytes, sha256, .. } = &set.manifest.globals else { return Ok(Vec::new()) };
    Ok(match store.get(&set.name.key(GLOBALS)).await? {
        None => vec![format!("{GLOBALS} is gone")],
        Some(content) if content.len() as u64 != *bytes || hex(&Sha256::digest(&content)) != *sha256 => {
            vec![format!("{GLOBALS} is not what was written")]
        }
        Some(_) => Vec::new(),
    })
}

/// Pure: what was read against what the manifest says.
fn differences(manifest: &Manifest, bytes: u64, sha256: &str, members: u64, contents: &Contents) -> Vec<String> {
    let dump = &manifest.dump;
    let mut problems = Vec::new();
    let mut compare = |what: &str, read: u64, written: u64| {
        if read != written {
            problems.push(format!("{what}: {read} read, {written} written"));
        }
    };
    compare("bytes", bytes, dump.bytes);
    compare("members", members, dump.members.count);
    compare("uncompressed bytes", contents.bytes, dump.uncompressed_bytes);
    compare("tables", contents.tables.len() as u64, manifest.tables.len() as u64);
    compare("rows", contents.rows(), manifest.rows());
    compare("large objects", contents.large_objects, manifest.large_objects);
    if sha256 != dump.sha256 {
        problems.push("SHA-256 differs from the manifest's".to_owned());
    }
    if !contents.complete {
        problems.push("the dump's last line is missing".to_owned());
    }
    problems
}

/// Chunks that arrive, as something to read from a thread.
struct ChunkReader {
    chunks: mpsc::Receiver<Bytes>,
    current: Bytes,
}

impl Read for ChunkReader {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.current.is_empty() {
            match self.chunks.blocking_recv() {
                Some(chunk) => self.current = chunk,
                None => return Ok(0),
            }
        }
        let count = buffer.len().min(self.current.len());
        self.current.copy_to_slice(&mut buffer[..count]);
        Ok(count)
    }
}
