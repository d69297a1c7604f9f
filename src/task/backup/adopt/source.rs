//! Where an adopted dump comes from: a file of this host or an object of the store, and in which form: by its first bytes, whatever it is called.

use std::fs::File;
use std::io::{self, Cursor, Read, Write};
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context as _, Result};
use sha2::{Digest as _, Sha256};
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;

use super::claims::Claims;
use super::examined::Examined;
use crate::base::child::Child;
use crate::base::fault::{Fault, Kind};
use crate::base::subtask;
use crate::base::thread;
use crate::members::decode::ChunkReader;
use crate::pg::client_tools;
use crate::store::Store;
use crate::task::backup::adopted::Form;
use crate::task::backup::stream::Pieces;

/// The most chunks on their way from the store.
const QUEUED_CHUNKS: usize = 4;

/// A reader that has ended, or has stopped, ends the reading from the store at once.
const FEEDING_ENDS: Duration = Duration::from_secs(1);

/// A window of 128 MiB is the largest that a frame may ask for: what zstd itself accepts without an option.
const ZSTD_WINDOW_LOG: u32 = 27;

const GZIP: &[u8] = &[0x1f, 0x8b];
const ZSTD: &[u8] = &[0x28, 0xb5, 0x2f, 0xfd];
/// pg_dump's custom format.
const CUSTOM: &[u8] = b"PGDMP";

type Input = Box<dyn Read + Send>;

/// A dump that is about to be read.
pub struct Source {
    name: String,
    bytes: u64,
    reader: Input,
    /// Reads from the store; its error is the reason where the reader ends too early.
    feeding: Option<JoinHandle<Result<()>>>,
}

/// A dump that was read to its end.
pub struct ReadAll {
    /// The file's name, or the object's key.
    pub name: String,
    pub bytes: u64,
    pub sha256: String,
    pub form: Form,
    pub claims: Claims,
}

impl Source {
    /// A file of this host. A pipe is open when somebody writes into it, which may take for ever: another thread waits for that.
    pub async fn file(path: &Path) -> Result<Self> {
        let to_open = path.to_owned();
        let opened = on_a_thread(move || File::open(to_open).and_then(|file| Ok((file.metadata()?, file)))).await?;
        let (metadata, file) =
            opened.with_context(|| Fault::new(Kind::Configuration, format!("cannot read {}", path.display())))?;
        let is_folder = || {
            format!("{} is a folder: dump with --format=custom, or make SQL of it: pg_restore --file=- FOLDER", path.display())
        };
        anyhow::ensure!(!metadata.is_dir(), Fault::new(Kind::Configuration, is_folder()));
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        Ok(Self { name, bytes: metadata.len(), reader: Box::new(file), feeding: None })
    }

    /// An object of the store.
    pub async fn object(store: &Store, key: &str) -> Result<Self> {
        let is_key = key.split('/').all(|part| !matches!(part, "" | "." | ".."));
        let refused = |why: String| Fault::new(Kind::Configuration, why);
        anyhow::ensure!(
            is_key,
            refused(format!("`{key}` is not the key of an object: write it as the store lists it, without a / at its start"))
        );
        let missing = || refused(format!("there is no {}", store.location(key)));
        let bytes = store.stat(key).await?.with_context(missing)?.bytes;
        let mut object = store.read(key).await?.with_context(missing)?;
        let (sender, chunks) = mpsc::channel(QUEUED_CHUNKS);
        let feeding = subtask::spawn_in_span(async move {
            while let Some(chunk) = object.chunk().await? {
                if sender.send(chunk).await.is_err() {
                    break;
                }
            }
            anyhow::Ok(())
        });
        Ok(Self { name: key.to_owned(), bytes, reader: Box::new(ChunkReader::new(chunks)), feeding: Some(feeding) })
    }

    pub fn name(&self) -> &str {
        &self.name
    }

    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Puts the dump's text into the pieces.
    pub async fn read_into(self, pieces: Pieces, bin_dir: Option<&Path>) -> Result<ReadAll> {
        let Self { name, reader, feeding, .. } = self;
        let read = read(name, reader, pieces, bin_dir).await;
        if let Some(mut feeding) = feeding {
            // Where the store has failed, the reader has seen an end that is none.
            match tokio::time::timeout(FEEDING_ENDS, &mut feeding).await {
                Ok(fed) => fed.context("the reading task ended")??,
                Err(_) => feeding.abort(),
            }
        }
        read
    }
}

async fn read(name: String, reader: Input, pieces: Pieces, bin_dir: Option<&Path>) -> Result<ReadAll> {
    let seen = Arc::new(Mutex::new((Sha256::new(), 0)));
    let raw: Input = Box::new(Hashed { source: reader, seen: Arc::clone(&seen) });
    let (form, text) = on_a_thread(move || unpacked(raw)).await?.context("it does not decode")?;
    let claims = Arc::new(Mutex::new(Claims::default()));
    match form {
        Form::Custom => through_pg_restore(text, &pieces, &claims, bin_dir).await?,
        _ => pieces.read(Examined::of(text, Arc::clone(&claims)), None).await?,
    }
    let (hash, bytes) = std::mem::take(&mut *seen.lock().unwrap_or_else(PoisonError::into_inner));
    let claims = std::mem::take(&mut *claims.lock().unwrap_or_else(PoisonError::into_inner));
    Ok(ReadAll { name, bytes, sha256: hex::encode(hash.finalize()), form, claims })
}

/// Finds the form by the first bytes, and removes the compression.
fn unpacked(source: Input) -> io::Result<(Form, Input)> {
    let (start, source) = with_start(source)?;
    let (form, text): (Form, Input) = if start.starts_with(GZIP) {
        (Form::Gzip, Box::new(flate2::read::MultiGzDecoder::new(source)))
    } else if start.starts_with(ZSTD) {
        let mut decoder = zstd::stream::read::Decoder::new(source)?;
        decoder.window_log_max(ZSTD_WINDOW_LOG)?;
        (Form::Zstd, Box::new(decoder))
    } else {
        (Form::Plain, source)
    };
    let (start, text) = if form == Form::Plain { (start, text) } else { with_start(text)? };
    Ok((if start.starts_with(CUSTOM) { Form::Custom } else { form }, text))
}

/// Returns the first bytes, and a source that still has them.
fn with_start(mut source: Input) -> io::Result<(Vec<u8>, Input)> {
    let mut start = Vec::new();
    source.by_ref().take(CUSTOM.len() as u64).read_to_end(&mut start)?;
    Ok((start.clone(), Box::new(Cursor::new(start).chain(source))))
}

/// Lets pg_restore make SQL of an archive in the custom format. It connects to no server.
async fn through_pg_restore(archive: Input, pieces: &Pieces, claims: &Arc<Mutex<Claims>>, bin_dir: Option<&Path>) -> Result<()> {
    let tools = client_tools::newest(bin_dir).await?;
    let mut command = tools.command("pg_restore");
    command.args(["--format=custom", "--file=-"]);
    let mut pg_restore = Child::spawn(command)?;
    let (input, output) = (pg_restore.take_stdin()?, pg_restore.take_stdout()?);
    let (sender, copied) = oneshot::channel();
    thread::spawn("adopt", move || {
        let _ = sender.send(copy_all(archive, input));
    })?;
    pieces.read(Examined::of(output, Arc::clone(claims)), None).await?;
    let ended = pg_restore.wait().await?;
    copied.await.context("the reading thread ended")?.context("it does not decode")?;
    anyhow::ensure!(
        ended.status.success(),
        "pg_restore ({}) cannot read it: {}",
        tools.version,
        if ended.stderr.is_empty() { ended.status.to_string() } else { ended.stderr }
    );
    Ok(())
}

/// Copies to a program's input. One that takes no more has its reasons; the rest is read all the same, for its hash.
fn copy_all(mut source: Input, mut input: File) -> io::Result<()> {
    let mut buffer = vec![0; 256 << 10];
    let mut takes_more = true;
    loop {
        match source.read(&mut buffer)? {
            0 => return Ok(()),
            count => takes_more = takes_more && input.write_all(&buffer[..count]).is_ok(),
        }
    }
}

async fn on_a_thread<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T> {
    let (sender, done) = oneshot::channel();
    thread::spawn("adopt", move || {
        let _ = sender.send(work());
    })?;
    done.await.context("the reading thread ended")
}

/// Hashes and counts what is read.
struct Hashed {
    source: Input,
    seen: Arc<Mutex<(Sha256, u64)>>,
}

impl Read for Hashed {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.source.read(buffer)?;
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        let (hash, bytes) = &mut *seen;
        hash.update(&buffer[..count]);
        *bytes += count as u64;
        Ok(count)
    }
}
