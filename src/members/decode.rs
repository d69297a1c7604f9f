//! Reads an object of members: hashes it, proves it block by block, and decrypts and decodes it on a separate thread. The proof is of the bytes as
//! they are stored, and needs no key.

use std::collections::VecDeque;
use std::io::{self, Read};
use std::ops::Range;

use anyhow::{Context as _, Result};
use bytes::{Buf as _, Bytes as Chunk};
use sha2::{Digest as _, Sha256};
use tokio::sync::{mpsc, oneshot};

use super::blocks::Proof;
use super::compress::{self, DecodeError};
use super::decrypt::Coding;
use crate::base::progress::Phase;
use crate::base::thread;
use crate::store::Reader;

/// The most chunks on their way from the store to the decoder.
const QUEUED_CHUNKS: usize = 4;

/// An object that was read to its end.
pub struct Decoded<S> {
    pub bytes: u64,
    pub sha256: String,
    pub members: Result<u64, DecodeError>,
    /// The first block that differs by the proof.
    pub differing: Option<Range<u64>>,
    pub state: S,
}

/// Reads an object of members to its end, hashes it, shows its bytes as stored to `see`, and hands the decoded bytes to `feed` on a
/// separate thread, until they do not decode or `feed` returns an error. With a `proof`, bytes wait until it lets them through.
/// An error of this function is the store's or the network's, and says nothing about the object.
pub async fn decode_object<S: Send + 'static>(
    reader: Reader,
    coding: impl Into<Coding>,
    phase: &Phase,
    proof: Option<Proof>,
    state: S,
    feed: impl FnMut(&mut S, &[u8]) -> io::Result<()> + Send + 'static,
    see: impl FnMut(&[u8]),
) -> Result<Decoded<S>> {
    decode_part(reader, coding, phase, (proof, 0..u64::MAX), state, feed, see).await
}

/// Does the same with a part of an object. The second of the pair says where members stand among the bytes of the reader: what is around
/// them is read and proved, and not decoded.
pub async fn decode_part<S: Send + 'static>(
    mut reader: Reader,
    coding: impl Into<Coding>,
    phase: &Phase,
    (mut proof, members): (Option<Proof>, Range<u64>),
    mut state: S,
    mut feed: impl FnMut(&mut S, &[u8]) -> io::Result<()> + Send + 'static,
    mut see: impl FnMut(&[u8]),
) -> Result<Decoded<S>> {
    let (chunk_sender, chunk_receiver) = mpsc::channel(QUEUED_CHUNKS);
    let (end_sender, end_receiver) = oneshot::channel();
    let coding = coding.into();
    thread::spawn("decode", move || {
        let compression = coding.compression;
        let opened = coding.open(ChunkReader::new(chunk_receiver));
        let members = opened.and_then(|source| compress::decode(compression, source, |bytes| feed(&mut state, bytes)));
        let _ = end_sender.send((members, state));
    })?;
    let mut hash = Sha256::new();
    let mut bytes = 0;
    let mut sent = 0;
    let mut waiting = VecDeque::new();
    let mut decoder_listens = true;
    let mut has_more = true;
    while has_more {
        let may_pass = match reader.chunk().await? {
            Some(chunk) => {
                hash.update(&chunk);
                see(&chunk);
                bytes += chunk.len() as u64;
                phase.advance(chunk.len() as u64);
                let may_pass = proof.as_mut().map_or(u64::MAX, |proof| proof.feed(&chunk));
                waiting.push_back(chunk);
                may_pass
            }
            None => {
                has_more = false;
                proof.as_mut().map_or(u64::MAX, Proof::finish)
            }
        };
        while let Some(chunk) = waiting.pop_front_if(|chunk| sent + chunk.len() as u64 <= may_pass) {
            let own = within(&members, sent, &chunk);
            sent += chunk.len() as u64;
            if own.is_empty() {
                continue;
            }
            // A decoder that has stopped gives its reason at the end; the hash covers the whole object in any case.
            decoder_listens = decoder_listens && chunk_sender.send(own).await.is_ok();
        }
    }
    drop(chunk_sender);
    let (members, state) = end_receiver.await.context("the decoding thread ended")?;
    let differing = proof.and_then(|proof| proof.first_difference());
    Ok(Decoded { bytes, sha256: hex::encode(hash.finalize()), members, differing, state })
}

/// Returns the bytes of a chunk at `position` that are in the range.
fn within(range: &Range<u64>, position: u64, chunk: &Chunk) -> Chunk {
    let at = |place: u64| place.saturating_sub(position).min(chunk.len() as u64) as usize;
    chunk.slice(at(range.start)..at(range.end))
}

/// Makes arriving chunks readable for a thread.
pub struct ChunkReader {
    chunks: mpsc::Receiver<Chunk>,
    current: Chunk,
}

impl ChunkReader {
    pub fn new(chunks: mpsc::Receiver<Chunk>) -> Self {
        Self { chunks, current: Chunk::new() }
    }
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
