//! Reads all bytes of a set from its store and compares them with the manifest: length, SHA-256, every member decoded and counted, the
//! trailer, each table's rows. The decoded bytes can be passed on. Of an encrypted set without a key for it, length and SHA-256 are compared.
//!
//! Only this module judges bytes. One read that differs may be a flipped bit in transit or in memory: a set is called damaged when a
//! second, independent read shows exactly the same.

use std::io;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Instant;

use anyhow::{Context as _, Result};
use chrono::Utc;
use sha2::{Digest as _, Sha256};

use super::difference::{self, Found};
use super::locked;
use super::manifest::{Globals, Manifest};
use super::scan::{Contents, Scanner, TableData, joined};
use super::sealed;
use super::set::Set;
use super::verdict::{Bytes, BytesCheck};
use crate::base::progress::Phase;
use crate::base::units;
use crate::members::blocks::Proof;
use crate::members::compress::DecodeError;
use crate::members::decode::decode_object;
use crate::members::decrypt::Coding;
use crate::store::Store;

/// At most this many tables are named.
const TABLES_NAMED: usize = 20;

/// The result of one read of a set.
#[derive(Debug, Default)]
pub struct ReadBack {
    /// Differences from the manifest; empty when there are none.
    pub problems: Vec<String>,
    /// Length and SHA-256 of each object as read: two reads that saw the same bytes have the same values here.
    pub seen: Vec<(u64, String)>,
    /// The error of the sink, which stopped taking decoded bytes. They were read to their end all the same.
    pub sink_error: Option<io::Error>,
    /// The reason why the dump was not decoded: it is encrypted, and this host has no key for it.
    pub not_decoded: Option<String>,
}

/// Bytes of a set that differ from its manifest, in words. Another copy may be as it was written.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct Differs(pub String);

/// Reads the set and, if it differs from its manifest, reads it once more; returns the verdict on its bytes. An error is the store's or the
/// network's, and says nothing about the set.
pub async fn check(store: &Store, set: &Set, phase: &Phase) -> Result<BytesCheck> {
    let started = Instant::now();
    let first = read(store, set, phase).await?;
    let not_decoded = first.not_decoded.clone();
    let (verdict, problems) = if first.problems.is_empty() {
        (Bytes::Intact, Vec::new())
    } else {
        tracing::warn!("{} differs from its manifest and is read once more: {}", set.name, first.problems.join("; "));
        let second = read(store, set, phase).await.with_context(|| {
            format!(
                "one read of {} differs from its manifest ({}), and a second read was not possible",
                set.name,
                first.problems.join("; ")
            )
        })?;
        judge(first, second)
    };
    for problem in problems.iter().filter(|_| verdict == Bytes::Intact) {
        tracing::warn!("{}: {problem}", set.name);
    }
    let problems = if verdict == Bytes::Intact { Vec::new() } else { problems };
    let elapsed_seconds = started.elapsed().as_secs_f64();
    let pgtend_version = Some(env!("CARGO_PKG_VERSION").to_owned());
    Ok(BytesCheck { verdict, checked_at: Utc::now(), problems, elapsed_seconds, not_decoded, pgtend_version })
}

/// The verdict from two reads, the first of which differs from the manifest. Pure.
fn judge(first: ReadBack, second: ReadBack) -> (Bytes, Vec<String>) {
    let said = first.problems.join("; ");
    if second.problems.is_empty() {
        let problem = format!("the first read differed ({said}) and the second did not: check this host's network and memory");
        return (Bytes::Intact, vec![problem]);
    }
    if first.seen == second.seen {
        return (Bytes::Damaged, second.problems);
    }
    let again = second.problems.join("; ");
    let problem = format!(
        "two reads differ from the manifest and from each other ({said}; then {again}): check this host's network and memory"
    );
    (Bytes::Unknown, vec![problem])
}

/// Reads the dump and the globals once.
async fn read(store: &Store, set: &Set, phase: &Phase) -> Result<ReadBack> {
    let mut read = read_dump_or_hash(store, set, phase, |_| Ok(())).await?;
    read_globals(store, set, &mut read).await?;
    Ok(read)
}

/// Reads all of the dump once and hands the decoded bytes to `sink` for as long as it takes them: of a set with [`Blocks`] only bytes that
/// are proved. It is an error if this host has no key for an encrypted one.
///
/// [`Blocks`]: crate::members::blocks::Blocks
pub async fn read_dump<S>(store: &Store, set: &Set, phase: &Phase, sink: S) -> Result<ReadBack>
where
    S: FnMut(&[u8]) -> io::Result<()> + Send + 'static,
{
    let read = read_dump_or_hash(store, set, phase, sink).await?;
    match &read.not_decoded {
        // Of other bytes than those that were written, the key says nothing.
        Some(why) if read.problems.is_empty() => Err(locked::refusal(store, set, why)),
        _ => Ok(read),
    }
}

/// Does the same; a dump that cannot be opened is only hashed.
async fn read_dump_or_hash<S>(store: &Store, set: &Set, phase: &Phase, sink: S) -> Result<ReadBack>
where
    S: FnMut(&[u8]) -> io::Result<()> + Send + 'static,
{
    let dump = &set.manifest.dump;
    let key = set.name.key(&dump.object);
    let Some(reader) = store.read(&key).await? else {
        let problems = vec![format!("{} is gone", store.location(&key))];
        return Ok(ReadBack { problems, seen: vec![(0, String::new())], ..ReadBack::default() });
    };

    let mut parts = dump.members.comparison(dump.bytes);
    let differs = Arc::new(AtomicBool::new(false));
    let proof = dump.blocks.clone().map(|blocks| Proof::new(blocks, dump.bytes, Arc::clone(&differs)));
    // One more table than expected shows that there are too many.
    let state = (Scanner::of_at_most(joined(&set.manifest.tables).len() + 1), Ok(()), sink);
    let is_refused = Arc::clone(&differs);
    let mut decoded_bytes = 0;
    let written_bytes = dump.uncompressed_bytes;
    let feed = move |(scanner, taken, sink): &mut (Scanner, io::Result<()>, S), bytes: &[u8]| {
        decoded_bytes += bytes.len() as u64;
        // Forged bytes may decode to a thousand times their size, made to be slow: after a mismatch they are only hashed.
        let stop = match () {
            () if is_refused.load(Relaxed) => Some("the SHA-256 of one part differs from the manifest".to_owned()),
            () if decoded_bytes > written_bytes => {
                Some(format!("it decodes to more than the {written_bytes} bytes of its manifest"))
            }
            () => None,
        };
        if let Some(stop) = stop {
            if taken.is_ok() {
                *taken = Err(io::Error::other("the dump differs from what was written"));
            }
            return Err(io::Error::other(stop));
        }
        scanner.feed(bytes);
        if taken.is_ok() {
            *taken = sink(bytes);
        }
        Ok(())
    };
    // What it holds is compared with names and rows that are known.
    let no_keys = Arc::default();
    let keys = if set.manifest.names_are_sealed() { &no_keys } else { store.age_keys() };
    let coding = Coding::new(dump.compression, dump.encryption.as_ref(), keys);
    let decoded = decode_object(reader, coding, phase, proof, state, feed, |chunk| parts.feed(chunk)).await?;
    let (scanner, taken, _) = decoded.state;
    let found = Found { differs: differs.load(Relaxed), block: decoded.differing, members: parts.finish() };
    let contents = scanner.finish();
    let read = DumpRead { bytes: decoded.bytes, sha256: decoded.sha256, members: decoded.members, contents, found };
    let problems = differences(&set.manifest, &read, sealed::hides_names(store, &set.manifest));
    let not_decoded = match read.members {
        Err(DecodeError::Locked(why)) => Some(why),
        _ => None,
    };
    Ok(ReadBack { problems, seen: vec![(read.bytes, read.sha256)], sink_error: taken.err(), not_decoded })
}

/// Differences of the globals from the manifest, by one read. A set without globals has none here: its manifest says why.
pub async fn globals_differences(store: &Store, set: &Set) -> Result<Vec<String>> {
    let mut read = ReadBack::default();
    read_globals(store, set, &mut read).await?;
    Ok(read.problems)
}

async fn read_globals(store: &Store, set: &Set, read: &mut ReadBack) -> Result<()> {
    let Globals::Object { bytes, sha256, .. } = &set.manifest.globals else { return Ok(()) };
    let globals = set.globals_object();
    let Some(content) = store.get(&set.name.key(globals)).await? else {
        read.problems.push(format!("{globals} is gone"));
        read.seen.push((0, String::new()));
        return Ok(());
    };
    let seen = (content.len() as u64, hex::encode(Sha256::digest(&content)));
    if seen != (*bytes, sha256.clone()) {
        read.problems
            .push(format!("{globals}: read {} bytes with SHA-256 {}, {bytes} with {sha256} were written", seen.0, seen.1));
    }
    read.seen.push(seen);
    Ok(())
}

/// The dump as one read saw it.
struct DumpRead {
    bytes: u64,
    sha256: String,
    members: Result<u64, DecodeError>,
    contents: Contents,
    found: Found,
}

/// Compares the bytes read with the manifest. Two reads of the same bytes say the same. Pure.
fn differences(manifest: &Manifest, read: &DumpRead, hides_names: bool) -> Vec<String> {
    let dump = &manifest.dump;
    let mut problems = Vec::new();
    if read.bytes != dump.bytes {
        problems.push(format!("bytes: {} read, {} written", read.bytes, dump.bytes));
    }
    let place = read.found.in_words(dump);
    // When decoding ended is by chance, once some bytes are known to differ.
    if !read.found.differs {
        problems.extend(differences_of_contents(manifest, read, hides_names));
    } else if place.is_none() {
        problems.push(format!("the SHA-256 of one part of {} differs from the manifest", dump.object));
    }
    if read.sha256 != dump.sha256 {
        problems.push(format!("SHA-256: {} read, {} written", read.sha256, dump.sha256));
    }
    problems.extend(place);
    problems
}

/// Compares what the bytes decode to.
fn differences_of_contents(manifest: &Manifest, read: &DumpRead, hides_names: bool) -> Vec<String> {
    let (dump, contents) = (&manifest.dump, &read.contents);
    let mut problems = Vec::new();
    let mut compare = |what: &str, read: u64, written: u64| {
        if read != written {
            problems.push(format!("{what}: {read} read, {written} written"));
        }
    };
    match &read.members {
        Ok(members) => {
            compare("members", *members, dump.members.count);
            compare("uncompressed bytes", contents.bytes, dump.uncompressed_bytes);
            compare("large objects", contents.large_objects, manifest.large_objects);
            let of_tables = table_differences(&contents.tables, &joined(&manifest.tables));
            match of_tables.is_empty() || !hides_names {
                true => problems.extend(of_tables),
                false => problems.push("the rows of some tables differ, whose names are sealed".to_owned()),
            }
            if contents.has_zero_byte {
                problems.push("the dump has a zero byte that PostgreSQL does not write".to_owned());
            } else if !contents.complete {
                problems.push("the dump's last line is missing".to_owned());
            }
        }
        Err(DecodeError::Locked(_)) => {}
        Err(DecodeError::Source(error)) => {
            let bytes = difference::decoded_up_to(dump, contents.bytes);
            problems.push(format!("{} cannot be decoded beyond {bytes} uncompressed bytes: {error}", dump.object));
        }
        Err(DecodeError::Sink(error)) => problems.push(format!("{} was not decoded to its end: {error}", dump.object)),
    }
    problems
}

/// Compares table by table, in the dump's order.
fn table_differences(read: &[TableData], written: &[TableData]) -> Vec<String> {
    let mut problems = Vec::new();
    if read.len() > written.len() {
        problems.push(format!("there are more tables than the {} that were written", written.len()));
    } else if read.len() < written.len() {
        problems.push(format!("tables: {} read, {} written", read.len(), written.len()));
    }
    let differing = read.iter().zip(written).filter(|(read, written)| !read.has_the_rows_of(written));
    for (read, written) in differing.clone().take(TABLES_NAMED) {
        let name = |table: &TableData| format!("{}.{}", table.schema, table.name);
        problems.push(if name(read) == name(written) {
            format!(
                "{}: read {} in {}, written {} in {}",
                name(read),
                units::plural(read.rows, "row"),
                units::plural(read.bytes, "byte"),
                units::count(written.rows),
                units::count(written.bytes)
            )
        } else {
            format!("{} was found in place of {}", name(read), name(written))
        });
    }
    let more = differing.count().saturating_sub(TABLES_NAMED);
    if more > 0 {
        problems.push(format!("and {more} more tables"));
    }
    problems
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::task::backup::manifest::tests::manifest;

    fn read_back(problems: &[&str], sha256: &str) -> ReadBack {
        let problems = problems.iter().map(|problem| (*problem).to_owned()).collect();
        ReadBack { problems, seen: vec![(10, sha256.to_owned())], ..ReadBack::default() }
    }

    #[test]
    fn damaged_is_said_only_when_two_reads_have_seen_the_same() {
        for (second, verdict) in [
            (read_back(&[], "right"), Bytes::Intact),
            (read_back(&["SHA-256"], "wrong"), Bytes::Damaged),
            (read_back(&["SHA-256"], "wrong in another way"), Bytes::Unknown),
        ] {
            assert_eq!(judge(read_back(&["SHA-256"], "wrong"), second).0, verdict);
        }
    }

    #[test]
    fn rows_that_were_swapped_between_tables_are_seen_and_both_are_named() {
        let manifest = manifest();
        let mut contents =
            Contents { bytes: 5000, tables: manifest.tables.clone(), large_objects: 0, complete: true, has_zero_byte: false };
        (contents.tables[0].rows, contents.tables[1].rows) = (contents.tables[1].rows, contents.tables[0].rows);
        let read = DumpRead { bytes: 1000, sha256: "00".into(), members: Ok(0), contents, found: Found::default() };
        let problems = differences(&manifest, &read, false).join("; ");
        assert!(problems.contains("public.a: read 2 rows") && problems.contains("public.b: read 1 row "), "{problems}");
    }

    #[test]
    fn what_is_as_the_manifest_says_has_no_difference() {
        let manifest = manifest();
        let contents =
            Contents { bytes: 5000, tables: manifest.tables.clone(), large_objects: 0, complete: true, has_zero_byte: false };
        let read = DumpRead { bytes: 1000, sha256: "00".into(), members: Ok(0), contents, found: Found::default() };
        assert_eq!(differences(&manifest, &read, false), Vec::<String>::new());
    }
}
