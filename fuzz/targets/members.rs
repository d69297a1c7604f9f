//! Objects of gzip members and zstd frames, as they come from a store: arbitrary, and written and then changed.

#![no_main]

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

use libfuzzer_sys::fuzz_target;
use pgtend::members::blocks::{Hasher, Proof};
use pgtend::members::compress::Compression;
use pgtend::members::compress::{Compressor, DecodeError, decode};
use pgtend::members::index::MemberIndex;
use pgtend_fuzz::memory::most_held;

/// A bomb is given up here.
const MOST: usize = 4 << 20;

fuzz_target!(|input: &[u8]| {
    let [kind, parameter, rest @ ..] = input else { return };
    let compression = if kind & 1 == 0 { Compression::Gzip } else { Compression::Zstd };
    if kind & 2 == 0 {
        arbitrary(compression, rest);
    } else {
        written(compression, rest, usize::from(*parameter));
    }
});

fn decoded(compression: Compression, object: &[u8]) -> (Result<u64, DecodeError>, Vec<u8>) {
    let mut out = Vec::new();
    let members = decode(compression, object, |piece| {
        out.extend_from_slice(piece);
        if out.len() > MOST { Err(io::Error::other("more than is looked at")) } else { Ok(()) }
    });
    (members, out)
}

fn arbitrary(compression: Compression, object: &[u8]) {
    let ((members, out), held) = most_held(|| decoded(compression, object));
    assert!(held < 3 * MOST + (1 << 20), "{held} bytes held for {}", object.len());
    // However the bytes come.
    if let Ok(members) = &members {
        let in_bytes = decode(compression, io::BufReader::with_capacity(1, object), |_| Ok(()));
        assert_eq!(*members, in_bytes.expect("the same bytes, one by one"));
        assert_eq!(*members == 0, object.is_empty());
    }
    // By another library.
    if compression == Compression::Gzip && matches!(members, Ok(1)) {
        let mut other = vec![0; out.len() + 1];
        let length =
            libdeflater::Decompressor::new().gzip_decompress(object, &mut other).expect("libdeflate reads what zlib-rs reads");
        assert_eq!(&other[..length], out);
    }
}

fn written(compression: Compression, text: &[u8], parameter: usize) {
    let mut compressor = Compressor::new(compression, compression.default_level()).expect("a compressor");
    let (mut object, mut index, mut hasher) = (Vec::new(), MemberIndex::default(), Hasher::default());
    let text = &text[..text.len().min(2000)];
    for part in text.chunks(1 + parameter) {
        let member = compressor.member(part).expect("a member");
        index.push(&member, part.len() as u64);
        hasher.push(&member);
        object.extend_from_slice(&member);
    }
    index.finish();
    let blocks = hasher.finish();
    let (members, out) = decoded(compression, &object);
    assert_eq!(members.expect("what was written"), index.count);
    assert_eq!(out, text);
    let differences = |object: &[u8]| {
        let mut comparison = index.comparison(object.len() as u64);
        let differs = Arc::new(AtomicBool::new(false));
        let mut proof = Proof::new(blocks.clone(), object.len() as u64, Arc::clone(&differs));
        for piece in object.chunks(1 + parameter % 7) {
            comparison.feed(piece);
            proof.feed(piece);
        }
        proof.finish();
        (comparison.finish().is_some(), differs.load(Relaxed))
    };
    assert_eq!(differences(&object), (false, false));
    if !object.is_empty() {
        let at = (parameter * 7919) % object.len();
        object[at] ^= 1 << (parameter % 8);
        assert_eq!(differences(&object), (true, true), "byte {at} was flipped");
    }
}
