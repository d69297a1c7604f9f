//! Opens an encrypted object, or a part of one, while it is read.

use std::io::{self, BufRead, BufReader, Read, Seek, SeekFrom};
use std::ops::Range;
use std::sync::Arc;

use age::DecryptError;
use bytes::Bytes;

use super::compress::{Compression, DecodeError};
use super::encryption::{CHUNK_BYTES, Encryption};
use crate::base::age_keys::{AgeKeys, NO_IDENTITY, in_short};

const BUFFER_BYTES: usize = 64 << 10;

/// How the bytes of an object become text.
pub struct Coding {
    pub compression: Compression,
    encryption: Option<Opening>,
}

struct Opening {
    encryption: Encryption,
    keys: Arc<AgeKeys>,
    part: Option<Part>,
}

/// A part of an object: what is read of it begins with the chunk of its first byte.
struct Part {
    head: Bytes,
    /// In the contents.
    contents: Range<u64>,
}

impl From<Compression> for Coding {
    fn from(compression: Compression) -> Self {
        Self { compression, encryption: None }
    }
}

impl Coding {
    /// Of a whole object.
    pub fn new(compression: Compression, encryption: Option<&Encryption>, keys: &Arc<AgeKeys>) -> Self {
        let opening = |encryption: &Encryption| Opening { encryption: encryption.clone(), keys: Arc::clone(keys), part: None };
        Self { compression, encryption: encryption.map(opening) }
    }

    /// Of the chunks with these bytes of the contents; `head` is the start of the object, as [`Encryption::head`] says. Without encryption, the
    /// bytes that are read are these.
    pub fn of_part(self, head: &Bytes, contents: &Range<u64>) -> Self {
        let part = Some(Part { head: head.clone(), contents: contents.clone() });
        Self { encryption: self.encryption.map(|opening| Opening { part, ..opening }), ..self }
    }

    /// Finds out whether one of the keys opens the object, of which `head` is the start.
    pub fn tries_to_open(self, head: &Bytes) -> Result<(), DecodeError> {
        self.open(io::Cursor::new(head.clone())).map(drop)
    }

    /// Returns the members in `source`.
    pub(super) fn open(self, source: impl Read + 'static) -> Result<Box<dyn BufRead>, DecodeError> {
        match self.encryption {
            None => Ok(Box::new(BufReader::with_capacity(BUFFER_BYTES, source))),
            Some(opening) => opening.open(BufReader::with_capacity(BUFFER_BYTES, source)),
        }
    }
}

/// Opens a small object that is in memory.
pub fn open_whole(stored: Vec<u8>, encryption: &Encryption, keys: &Arc<AgeKeys>) -> Result<Vec<u8>, DecodeError> {
    let opened = Coding::new(Compression::Gzip, Some(encryption), keys).open(io::Cursor::new(stored))?;
    let mut contents = Vec::new();
    opened.take(encryption.contents_bytes).read_to_end(&mut contents).map_err(DecodeError::Source)?;
    Ok(contents)
}

impl Opening {
    fn open(self, mut source: impl BufRead + 'static) -> Result<Box<dyn BufRead>, DecodeError> {
        let Self { encryption, keys, part } = self;
        let Some(identities) = &keys.identities else { return Err(DecodeError::Locked(NO_IDENTITY.to_owned())) };
        let refused = |error: DecryptError| match error {
            DecryptError::NoMatchingKeys => {
                DecodeError::Locked(format!("no key of {} belongs to one of its recipients", identities.file.display()))
            }
            DecryptError::Io(error) => DecodeError::Source(error),
            error => DecodeError::Source(io::Error::other(format!("age cannot open it: {}", in_a_line(&error)))),
        };
        let (head, contents) = match part {
            Some(Part { head, contents }) => (head, Some(contents)),
            None => (read_head(&mut source, &encryption).map_err(DecodeError::Source)?, None),
        };
        let chunk_start = encryption.chunk_start(contents.as_ref().map_or(0, |contents| contents.start));
        ends_as_said(&head).map_err(DecodeError::Source)?;
        let spliced = Spliced { head, chunk_start, source, position: 0 };
        let opened = age::Decryptor::new_buffered(spliced).and_then(|opened| opened.decrypt(identities.as_age()));
        let mut opened = Explained(opened.map_err(refused)?);
        let Some(contents) = contents else { return Ok(Box::new(BufReader::with_capacity(BUFFER_BYTES, opened))) };
        // At the start of a chunk, age would look for the end of the whole object; within a chunk it goes there at once.
        if contents.start > 0 && contents.start.is_multiple_of(CHUNK_BYTES) {
            opened.seek(SeekFrom::Start(contents.start + 1)).map_err(DecodeError::Source)?;
        }
        opened.seek(SeekFrom::Start(contents.start)).map_err(DecodeError::Source)?;
        let own = opened.take(contents.end - contents.start);
        Ok(Box::new(BufReader::with_capacity(BUFFER_BYTES, own)))
    }
}

/// Reads no more than the manifest says, whose bounds are checked: age itself takes a header of any length.
fn read_head(source: &mut impl Read, encryption: &Encryption) -> io::Result<Bytes> {
    let mut head = vec![0; encryption.head().end as usize];
    source.read_exact(&mut head).map_err(explained)?;
    Ok(head.into())
}

/// Fails unless age's header and its nonce are the whole head: age itself would read on for as long as a header goes on.
fn ends_as_said(mut head: &[u8]) -> io::Result<()> {
    let parsed = age::Decryptor::new_buffered(&mut head).map(drop);
    let differs = || io::Error::other("age: its header does not end where the manifest says");
    match parsed {
        Err(DecryptError::Io(_)) => Err(differs()),
        Ok(()) if !head.is_empty() => Err(differs()),
        // Who opens it says what is wrong with it.
        Ok(()) | Err(_) => Ok(()),
    }
}

/// Says whose recipients could open it, for a message.
pub fn recipients_in_words(recipients: &[String]) -> String {
    recipients.iter().map(|recipient| in_short(recipient)).collect::<Vec<_>>().join(", ")
}

fn in_a_line(error: &DecryptError) -> String {
    error.to_string().lines().next().unwrap_or_default().to_owned()
}

/// Explains age's errors of the contents.
struct Explained<R>(R);

impl<R: Read> Read for Explained<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.0.read(buffer).map_err(explained)
    }
}

impl<R: Seek> Seek for Explained<R> {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        self.0.seek(to).map_err(explained)
    }
}

fn explained(error: io::Error) -> io::Error {
    match error.kind() {
        io::ErrorKind::InvalidData => io::Error::new(error.kind(), "age: a chunk is not the one that was encrypted"),
        io::ErrorKind::UnexpectedEof => io::Error::new(error.kind(), "age: it ends before its last chunk"),
        _ => error,
    }
}

/// The head of an object, and chunks from the middle of it.
struct Spliced<R> {
    head: Bytes,
    /// Where the bytes of `source` begin in the object.
    chunk_start: u64,
    source: R,
    position: u64,
}

impl<R: Read> Read for Spliced<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = match usize::try_from(self.position) {
            Ok(at) if at < self.head.len() => (&self.head[at..]).read(buffer)?,
            _ if self.position >= self.chunk_start => self.source.read(buffer)?,
            _ => 0,
        };
        self.position += count as u64;
        Ok(count)
    }
}

impl<R: BufRead> BufRead for Spliced<R> {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        match usize::try_from(self.position) {
            Ok(at) if at < self.head.len() => Ok(&self.head[at..]),
            _ if self.position >= self.chunk_start => self.source.fill_buf(),
            _ => Ok(&[]),
        }
    }

    fn consume(&mut self, count: usize) {
        if self.position >= self.head.len() as u64 {
            self.source.consume(count);
        }
        self.position += count as u64;
    }
}

/// Goes only where its bytes are: age asks for nothing else, as its start is read first, and then the chunks in their order.
impl<R> Seek for Spliced<R> {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        match to {
            SeekFrom::Current(0) => {}
            SeekFrom::Start(at) if at == self.position || (at == self.chunk_start && self.position <= at) => self.position = at,
            _ => return Err(io::Error::other("a part of the object that was not read is asked for")),
        }
        Ok(self.position)
    }
}

#[cfg(test)]
mod tests {
    use age::secrecy::ExposeSecret as _;
    use age::x25519::Identity;

    use super::*;
    use crate::base::age_keys::{Identities, Recipient};
    use crate::members::encrypt::Encryptor;

    fn keys(identity: &Identity) -> Arc<AgeKeys> {
        let identities = Identities::parse("key".into(), identity.to_string().expose_secret()).unwrap();
        Arc::new(AgeKeys { identities: Some(identities), ..AgeKeys::default() })
    }

    fn encrypted(contents: &[u8], identity: &Identity) -> (Vec<u8>, Encryption) {
        let mut encryptor = Encryptor::to(&[Recipient::parse(&identity.to_public().to_string()).unwrap()]).unwrap();
        let mut stored = Vec::new();
        for piece in contents.chunks(100_000) {
            stored.extend_from_slice(&encryptor.push(Bytes::copy_from_slice(piece)).unwrap());
        }
        let (rest, encryption) = encryptor.finish().unwrap();
        stored.extend_from_slice(&rest);
        (stored, encryption.unwrap())
    }

    fn contents(bytes: u64) -> Vec<u8> {
        (0..bytes).map(|at| (at * 31 % 251) as u8).collect()
    }

    fn opened(stored: &[u8], coding: Coding) -> Result<Vec<u8>, DecodeError> {
        let mut all = Vec::new();
        let mut source = coding.open(io::Cursor::new(stored.to_vec()))?;
        source.read_to_end(&mut all).map_err(DecodeError::Source)?;
        Ok(all)
    }

    #[test]
    fn every_part_of_an_object_is_opened_from_its_chunks_alone() {
        let identity = Identity::generate();
        for length in [1, CHUNK_BYTES - 1, CHUNK_BYTES, CHUNK_BYTES + 1, 3 * CHUNK_BYTES, 5 * CHUNK_BYTES + 77] {
            let plain = contents(length);
            let (stored, encryption) = encrypted(&plain, &identity);
            assert_eq!(stored.len() as u64, encryption.stored_bytes(), "{length}");
            let whole = Coding::new(Compression::Gzip, Some(&encryption), &keys(&identity));
            assert!(opened(&stored, whole).unwrap() == plain, "{length}");
            let head = Bytes::copy_from_slice(&stored[..encryption.head().end as usize]);
            let places = [0, 1, CHUNK_BYTES - 1, CHUNK_BYTES, CHUNK_BYTES + 1, 2 * CHUNK_BYTES, length / 2, length - 1, length];
            for from in places {
                for to in places.into_iter().filter(|to| from < *to && *to <= length) {
                    let stored_part = encryption.stored(&(from..to));
                    let part = &stored[stored_part.start as usize..stored_part.end as usize];
                    let coding = Coding::new(Compression::Gzip, Some(&encryption), &keys(&identity)).of_part(&head, &(from..to));
                    assert!(opened(part, coding).unwrap() == plain[from as usize..to as usize], "{from} to {to} of {length}");
                }
            }
        }
    }

    #[test]
    fn age_itself_finds_what_was_cut_swapped_or_flipped() {
        let identity = Identity::generate();
        let plain = contents(3 * CHUNK_BYTES + 5);
        let (stored, encryption) = encrypted(&plain, &identity);
        let open = |stored: &[u8]| opened(stored, Coding::new(Compression::Gzip, Some(&encryption), &keys(&identity)));
        assert!(open(&stored).is_ok());
        let chunk = |number: u64| (encryption.head().end + number * 65_552) as usize;
        for cut in [0, 10, chunk(0) - 1, chunk(0), chunk(1), chunk(2) + 1, chunk(3), stored.len() - 1] {
            assert!(open(&stored[..cut]).is_err(), "cut at {cut}");
        }
        for flipped in [5, 40, chunk(0) - 8, chunk(0), chunk(1) - 3, chunk(3) + 1, stored.len() - 1] {
            let mut changed = stored.clone();
            changed[flipped] ^= 1;
            assert!(open(&changed).is_err(), "flipped at {flipped}");
        }
        let mut swapped = stored.clone();
        swapped[chunk(0)..chunk(1)].copy_from_slice(&stored[chunk(1)..chunk(2)]);
        swapped[chunk(1)..chunk(2)].copy_from_slice(&stored[chunk(0)..chunk(1)]);
        assert!(open(&swapped).is_err());
        assert!(open(&[&stored[..], b"x"].concat()).is_err());
        // Of another object to the same recipient.
        let (other, _) = encrypted(&plain, &identity);
        let head = Bytes::copy_from_slice(&other[..chunk(0)]);
        let coding = Coding::new(Compression::Gzip, Some(&encryption), &keys(&identity)).of_part(&head, &(0..10));
        assert!(opened(&stored[chunk(0)..chunk(1)], coding).is_err());
    }

    #[test]
    fn a_header_ends_where_the_manifest_says_or_nothing_is_read_beyond_it() {
        let identity = Identity::generate();
        let (stored, encryption) = encrypted(&contents(1000), &identity);
        let (header, rest) = stored.split_at(encryption.header_bytes as usize);
        let (stanzas, mac) = header.split_at(memchr::memmem::rfind(header, b"--- ").unwrap());
        let longer = [stanzas, &b"-> x\n\n".repeat(400), mac, rest].concat();
        for (stored, header_bytes, contents_bytes) in [
            (&stored, encryption.header_bytes - 10, encryption.contents_bytes + 10),
            (&stored, encryption.header_bytes + 10, encryption.contents_bytes - 10),
            (&longer, encryption.header_bytes, encryption.contents_bytes),
        ] {
            let said = Encryption { header_bytes, contents_bytes, ..encryption.clone() };
            let error = opened(stored, Coding::new(Compression::Gzip, Some(&said), &keys(&identity))).unwrap_err();
            let DecodeError::Source(error) = error else { panic!("{error:?}") };
            assert!(error.to_string().contains("does not end where"), "{error}");
        }
    }

    #[test]
    fn without_the_right_key_nothing_is_opened_and_that_is_no_damage() {
        let (stored, encryption) = encrypted(b"secret", &Identity::generate());
        for (keys, says) in [(keys(&Identity::generate()), "no key of key belongs"), (Arc::default(), "no `identity_file`")] {
            match opened(&stored, Coding::new(Compression::Gzip, Some(&encryption), &keys)) {
                Err(DecodeError::Locked(why)) => assert!(why.contains(says), "{why}"),
                other => panic!("{other:?}"),
            }
        }
    }
}
