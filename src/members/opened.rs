//! Opens a whole encrypted object while it arrives, and leaves its members as they are: for one that is encrypted for others.

use std::io::BufRead as _;

use anyhow::Result;
use bytes::Bytes;
use tokio::sync::mpsc;

use super::compress::DecodeError;
use super::decode::ChunkReader;
use super::decrypt::Coding;
use crate::base::thread;

/// The most chunks on their way out.
const QUEUED_CHUNKS: usize = 4;

/// Opens what comes through `chunks`, on a thread of its own. What comes out ends with an error where it cannot be opened to its end.
pub fn opened(coding: Coding, chunks: mpsc::Receiver<Bytes>) -> Result<mpsc::Receiver<Result<Bytes, DecodeError>>> {
    let (sender, receiver) = mpsc::channel(QUEUED_CHUNKS);
    thread::spawn("open", move || {
        let mut source = match coding.open(ChunkReader::new(chunks)) {
            Ok(source) => source,
            Err(error) => return drop(sender.blocking_send(Err(error))),
        };
        loop {
            let chunk = match source.fill_buf() {
                Ok([]) => return,
                Ok(bytes) => Bytes::copy_from_slice(bytes),
                Err(error) => return drop(sender.blocking_send(Err(DecodeError::Source(error)))),
            };
            source.consume(chunk.len());
            // Nobody wants the rest.
            if sender.blocking_send(Ok(chunk)).is_err() {
                return;
            }
        }
    })?;
    Ok(receiver)
}
