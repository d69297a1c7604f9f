//! inflate.sql beside zlib: streams that were written and then changed, with trailers that are right for what zlib makes of them. For
//! PGTEND_FUZZ_SECONDS (`make fuzz TARGET=inflate`); a few where nobody says so. PGTEND_TEST_SEED repeats a campaign.

use std::fmt::Write as _;
use std::time::{Duration, Instant};

use flate2::{Decompress, FlushDecompress, Status};
use proptest::prelude::RngExt as _;
use proptest::test_runner::{RngAlgorithm, TestRng};
use sha2::{Digest as _, Sha256};

use crate::support::postgres::{Server, server};
use crate::support::scripts::{create_inflated, database, scenario};

const STREAMS_AT_ONCE: usize = 50;

/// A changed stream may say of itself that it is long.
const LONGEST_BYTES: usize = 200_000;

#[test]
fn whatever_is_changed_in_a_stream_inflate_says_what_zlib_says_on_15_and_18() {
    let number = |name: &str| std::env::var(name).ok().map(|text| text.parse::<u64>().unwrap());
    let seconds = number("PGTEND_FUZZ_SECONDS").unwrap_or(6);
    let now = || std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_nanos() as u64;
    let seed = number("PGTEND_TEST_SEED").unwrap_or_else(now);
    println!("PGTEND_TEST_SEED={seed}");
    let mut bytes = [0; 32];
    bytes[..8].copy_from_slice(&seed.to_le_bytes());
    let mut random = TestRng::from_seed(RngAlgorithm::ChaCha, &bytes);
    for major in [15, 18] {
        let server = server(major);
        let database = database(server, 3);
        scenario(server, &database, "").run(&["compress", "install", "scripts", "--force"]).succeeded();
        create_inflated(server, &database);
        server.sql(
            &database,
            "CREATE FUNCTION tried(s bytea) RETURNS text LANGUAGE plpgsql AS $$ BEGIN
                 RETURN encode(sha256(inflated(s)), 'hex');
             EXCEPTION WHEN data_corrupted THEN RETURN 'refused'; WHEN OTHERS THEN RETURN SQLSTATE || ' ' || SQLERRM; END $$",
        );
        let (mut streams, mut taken) = (0, 0);
        let until = Instant::now() + Duration::from_secs(seconds).div_f64(2.0);
        while streams == 0 || Instant::now() < until {
            let batch: Vec<(Vec<u8>, Option<Vec<u8>>)> = (0..STREAMS_AT_ONCE).map(|_| stream(&mut random)).collect();
            streams += batch.len();
            taken += batch.iter().filter(|(_, text)| text.is_some()).count();
            compare(server, &database, &batch);
        }
        println!("on {major}: {streams} streams, {taken} of them are some for zlib");
    }
}

#[track_caller]
fn compare(server: &Server, database: &str, batch: &[(Vec<u8>, Option<Vec<u8>>)]) {
    let mut sql = "CREATE TEMP TABLE streams (number int, stream bytea);\nCOPY streams FROM stdin;\n".to_owned();
    for (number, (stream, _)) in batch.iter().enumerate() {
        writeln!(sql, "{number}\t\\\\x{}", hex(stream)).unwrap();
    }
    sql += "\\.\nSELECT tried(stream) FROM streams ORDER BY number";
    let said = server.sql(database, &sql);
    assert_eq!(said.lines().count(), batch.len(), "{said}");
    for ((stream, text), said) in batch.iter().zip(said.lines()) {
        let expected = text.as_ref().map_or("refused".to_owned(), |text| hex(&Sha256::digest(text)));
        assert_eq!(said, expected, "{}", hex(stream));
    }
}

/// A member of gzip, and its text where zlib reads it.
fn stream(random: &mut TestRng) -> (Vec<u8>, Option<Vec<u8>>) {
    let mut deflated = deflated(random);
    for _ in 0..[0, 1, 1, 1, 2, 5][random.random_range(0..6)] {
        let at = random.random_range(0..deflated.len());
        match random.random_range(0..6) {
            0 => deflated.truncate(at.max(1)),
            1 => drop(deflated.remove(at)),
            2 => deflated.insert(at, random.random_range(0..=255)),
            3 => deflated[at] = random.random_range(0..=255),
            // Most of what can be wrong is said in the first bytes: the codes' lengths.
            4 => {
                let at = random.random_range(0..deflated.len().min(60));
                deflated[at] ^= 1 << random.random_range(0..8);
            }
            _ => deflated[at] ^= 1 << random.random_range(0..8),
        }
        if deflated.is_empty() {
            deflated.push(3);
        }
    }
    let inflated = inflated(&deflated);
    let (used, text) = inflated.map_or((deflated.len(), None), |(used, text)| (used, Some(text)));
    let mut crc = flate2::Crc::new();
    crc.update(text.as_deref().unwrap_or_default());
    let header: &[u8] = match random.random_range(0..3) {
        0 => &[31, 139, 8, 0, 0, 0, 0, 0, 0, 255],
        1 => &[31, 139, 8, 8, 1, 2, 3, 4, 2, 3, b'a', 0],
        _ => &[31, 139, 8, 4, 1, 2, 3, 4, 2, 3, 2, 0, b'x', b'y'],
    };
    ([header, &deflated[..used], &crc.sum().to_le_bytes(), &crc.amount().to_le_bytes()].concat(), text)
}

fn deflated(random: &mut TestRng) -> Vec<u8> {
    let bytes = [0, 1, 3, 17, 100, 300, 700, 2_000, 9_000][random.random_range(0..9)];
    let body: Vec<u8> = match random.random_range(0..5) {
        0 => (0..bytes).map(|_| random.random_range(0..=255)).collect(),
        1 => (0..bytes).map(|_| random.random_range(b'a'..=b'c')).collect(),
        2 => vec![random.random_range(0..=255); bytes],
        3 => (0..bytes).map(|at| b"Get-ChildItem -Recurse | Where-Object { $_.Length -gt 1MB }\r\n"[at % 61]).collect(),
        _ => (0..bytes).map(|at| (at % random.random_range(1..300)) as u8).collect(),
    };
    if random.random_range(0..2) == 0 {
        let level = libdeflater::CompressionLvl::new(random.random_range(0..13)).unwrap();
        let mut compressor = libdeflater::Compressor::new(level);
        let mut stream = vec![0; compressor.deflate_compress_bound(body.len())];
        let length = compressor.deflate_compress(&body, &mut stream).unwrap();
        stream.truncate(length);
        return stream;
    }
    let mut encoder = flate2::write::DeflateEncoder::new(Vec::new(), flate2::Compression::new(random.random_range(0..10)));
    std::io::Write::write_all(&mut encoder, &body).unwrap();
    encoder.finish().unwrap()
}

/// How many bytes make a whole deflate stream, and its text; None where there is none, or a very long one.
fn inflated(deflated: &[u8]) -> Option<(usize, Vec<u8>)> {
    let mut decompress = Decompress::new(false);
    let mut text = Vec::with_capacity(LONGEST_BYTES);
    let status = decompress.decompress_vec(deflated, &mut text, FlushDecompress::Finish);
    matches!(status, Ok(Status::StreamEnd)).then(|| (decompress.total_in() as usize, text))
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
