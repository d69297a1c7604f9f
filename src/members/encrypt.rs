//! Encrypts an object while it is written.

use std::io::{self, Write};
use std::sync::{Arc, Mutex, PoisonError};

use age::stream::StreamWriter;
use anyhow::{Context as _, Result};
use bytes::Bytes;

use super::encryption::{Encryption, Format};
use crate::base::age_keys::Recipient;

/// Takes an object's bytes in order and returns them as they are to be stored: encrypted, or without recipients as they are. Chunks that are not
/// full stay here until [`Encryptor::finish`].
#[derive(Default)]
pub struct Encryptor(Option<Age>);

struct Age {
    writer: StreamWriter<Pipe>,
    pipe: Pipe,
    header_bytes: u64,
    contents_bytes: u64,
    recipients: Vec<String>,
}

impl Encryptor {
    pub fn to(recipients: &[Recipient]) -> Result<Self> {
        if recipients.is_empty() {
            return Ok(Self(None));
        }
        let encryptor =
            age::Encryptor::with_recipients(recipients.iter().map(Recipient::as_age)).context("cannot encrypt with age")?;
        let pipe = Pipe::default();
        let writer = encryptor.wrap_output(pipe.clone()).context("cannot encrypt with age")?;
        // Without the nonce of 16 bytes, which comes after it.
        let header_bytes = pipe.lock().len() as u64 - 16;
        let recipients = recipients.iter().map(Recipient::to_string).collect();
        Ok(Self(Some(Age { writer, pipe, header_bytes, contents_bytes: 0, recipients })))
    }

    pub fn encrypts(&self) -> bool {
        self.0.is_some()
    }

    pub fn push(&mut self, bytes: Bytes) -> Result<Bytes> {
        let Some(age) = &mut self.0 else { return Ok(bytes) };
        age.contents_bytes += bytes.len() as u64;
        age.writer.write_all(&bytes).context("cannot encrypt with age")?;
        Ok(age.pipe.take())
    }

    /// Returns the rest, and how the object is encrypted, if it is. Without the rest, it cannot be opened to its end.
    pub fn finish(self) -> Result<(Bytes, Option<Encryption>)> {
        let Some(age) = self.0 else { return Ok((Bytes::new(), None)) };
        let Age { writer, pipe, header_bytes, contents_bytes, recipients } = age;
        writer.finish().context("cannot encrypt with age")?;
        Ok((pipe.take(), Some(Encryption { format: Format::Age, header_bytes, contents_bytes, recipients })))
    }
}

/// Where age writes to, and from where its output is taken.
#[derive(Clone, Default)]
struct Pipe(Arc<Mutex<Vec<u8>>>);

impl Pipe {
    fn lock(&self) -> std::sync::MutexGuard<'_, Vec<u8>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn take(&self) -> Bytes {
        std::mem::take(&mut *self.lock()).into()
    }
}

impl Write for Pipe {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.lock().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
