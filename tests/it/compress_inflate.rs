//! The inflate in SQL: it reads what gzip writes, refuses what is damaged, and never returns another text.

use std::io::Write as _;

use flate2::Compression;
use flate2::write::GzEncoder;
use proptest::prelude::RngExt as _;
use proptest::test_runner::{RngAlgorithm, TestRng};
use sha2::{Digest as _, Sha256};

use crate::support::postgres::server;
use crate::support::scripts::{HASHES, Scripts, create_inflated, database, of_5_kb, scenario};

/// Streams of every kind: levels, block kinds, several members.
fn streams(count: usize) -> Vec<(Vec<u8>, Vec<u8>)> {
    let mut random = TestRng::deterministic_rng(RngAlgorithm::ChaCha);
    let mut scripts = Scripts::new();
    (0..count)
        .map(|number| {
            let bytes = [0, 1, 2, 3, 17, 100, 700, 2_000, 9_000][random.random_range(0..9)];
            let mut body: Vec<u8> = match random.random_range(0..5) {
                0 => (0..bytes).map(|_| random.random_range(0..=255)).collect(),
                1 => (0..bytes).map(|_| random.random_range(b'a'..=b'c')).collect(),
                2 => vec![random.random_range(0..=255); bytes],
                3 => scripts.script(bytes).into_bytes(),
                _ => (0..bytes).map(|position| (position % random.random_range(1..300)) as u8).collect(),
            };
            let mut stream = Vec::new();
            for _ in 0..if number % 9 == 0 { 2 } else { 1 } {
                let part = match number % 3 {
                    // Level 0 stores; 1 is for speed; Z_FIXED comes with small inputs.
                    0 => gzip(&body, random.random_range(0..10)),
                    1 => libdeflated(&body, random.random_range(1..13)),
                    // Two blocks of different kinds, as a flush ends one.
                    _ => {
                        let mut encoder = GzEncoder::new(Vec::new(), Compression::new(random.random_range(0..10)));
                        let (first, second) = body.split_at(body.len() / 2);
                        encoder.write_all(first).unwrap();
                        encoder.flush().unwrap();
                        encoder.write_all(second).unwrap();
                        encoder.finish().unwrap()
                    }
                };
                stream.extend(part);
            }
            if number % 9 == 0 {
                body = body.repeat(2);
            }
            (body, stream)
        })
        .collect()
}

fn gzip(body: &[u8], level: u32) -> Vec<u8> {
    let mut encoder =
        flate2::GzBuilder::new().filename("a name").comment("and a comment").write(Vec::new(), Compression::new(level));
    encoder.write_all(body).unwrap();
    encoder.finish().unwrap()
}

fn libdeflated(body: &[u8], level: i32) -> Vec<u8> {
    let mut compressor = libdeflater::Compressor::new(libdeflater::CompressionLvl::new(level).unwrap());
    let mut stream = vec![0; compressor.gzip_compress_bound(body.len())];
    let length = compressor.gzip_compress(body, &mut stream).unwrap();
    stream.truncate(length);
    stream
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[test]
fn the_inflate_of_our_own_reads_what_gzip_writes_and_never_wrong_bytes_on_15_and_18() {
    let streams = streams(2_000);
    for major in [15, 18] {
        let server = server(major);
        let database = database(server, 3);
        scenario(server, &database, "").run(&["compress", "install", "scripts", "--force"]).succeeded();
        create_inflated(server, &database);
        let mut sql = String::from("CREATE TABLE streams (number int, hash bytea, stream bytea);\nCOPY streams FROM stdin;\n");
        for (number, (body, stream)) in streams.iter().enumerate() {
            sql += &format!("{number}\t\\\\x{}\t\\\\x{}\n", hex(&Sha256::digest(body)), hex(stream));
        }
        server.sql(&database, &(sql + "\\.\n"));
        assert_eq!(
            server.sql(&database, "SELECT count(*) FROM streams WHERE sha256(inflated(stream)) = hash"),
            "2000",
            "on {major}"
        );
        // Each of some streams, cut and flipped in many places: an error, or what it was (a name, a comment, a time).
        let found = server.sql(
            &database,
            "CREATE FUNCTION tried(s bytea, hash bytea) RETURNS text LANGUAGE plpgsql AS $$ BEGIN
                 RETURN CASE WHEN sha256(inflated(s)) = hash THEN 'same' ELSE 'wrong' END;
             EXCEPTION WHEN data_corrupted THEN RETURN 'refused'; WHEN OTHERS THEN RETURN 'refused: ' || SQLSTATE; END $$;
             SELECT what, result, count(*) > 0 FROM (
                 SELECT 'cut' AS what, tried(substring(stream for n * length(stream) / 25), hash) AS result
                 FROM streams, generate_series(0, 24) n WHERE number % 20 = 1 AND length(stream) > 0
                 UNION ALL SELECT 'longer', tried(stream || 'x', hash) FROM streams WHERE number % 20 = 1
                 UNION ALL SELECT 'flipped', tried(set_bit(stream, bit, 1 - get_bit(stream, bit)), hash)
                 FROM (SELECT stream, hash, (80 + n::bigint * 7919 % (length(stream) * 8 - 80)) AS bit
                       FROM streams, generate_series(1, 25) n WHERE number % 20 = 2) s) t
             GROUP BY 1, 2 ORDER BY 1, 2",
        );
        assert!(!found.contains("wrong"), "{found}");
        assert!(
            found.contains("cut|refused|t") && found.contains("flipped|refused|t") && found.contains("longer|refused|t"),
            "{found}"
        );
        assert!(!found.contains("cut|same"), "{found}");
    }
}

/// Bits in the order of a deflate stream: the lowest first.
#[derive(Default)]
struct Bits(Vec<u8>, u32);

impl Bits {
    fn put(mut self, value: u32, count: u32) -> Self {
        for bit in 0..count {
            if self.1.is_multiple_of(8) {
                self.0.push(0);
            }
            *self.0.last_mut().unwrap() |= ((value.checked_shr(bit).unwrap_or(0) & 1) as u8) << (self.1 % 8);
            self.1 += 1;
        }
        self
    }

    /// A Huffman code comes with its highest bit first.
    fn code(self, value: u32, count: u32) -> Self {
        self.put(value.reverse_bits() >> (32 - count), count)
    }

    /// As a member of gzip whose text is `body`.
    fn member(self, body: &[u8]) -> Vec<u8> {
        let mut crc = flate2::Crc::new();
        crc.update(body);
        let header = [31, 139, 8, 0, 0, 0, 0, 0, 0, 255];
        [&header[..], &self.0, &crc.sum().to_le_bytes(), &crc.amount().to_le_bytes()].concat()
    }
}

/// A last block with codes of its own: lengths of the code of lengths, in its odd order.
fn dynamic(literals: u32, distances: u32, lengths: &[u32]) -> Bits {
    let bits = Bits::default().put(1, 1).put(2, 2).put(literals - 257, 5).put(distances - 1, 5).put(lengths.len() as u32 - 4, 4);
    lengths.iter().fold(bits, |bits, length| bits.put(*length, 3))
}

#[test]
fn streams_that_nobody_makes_by_accident_are_read_exactly_or_refused_on_15_and_18() {
    let mut scripts = Scripts::new();
    // What comes again after nearly 32 KiB: as far back as a distance reaches.
    let (start, between) = (scripts.script(250), scripts.script(32_000));
    let far = [start.as_str(), between.as_str(), start.as_str()].concat().into_bytes();
    let long = scripts.script(300_000).into_bytes();
    let text = scripts.script(3_000).into_bytes();
    let plain = libdeflated(&text, 9);
    // Each optional field of the header, and all at once: extra bytes, a name, a comment, a checksum of it.
    let with = |flags: u8, fields: &[u8]| [&plain[..3], &[flags], &plain[4..10], fields, &plain[10..]].concat();
    let (extra, name, comment) = ([5, 0, b'h', b'e', b'l', b'l', b'o'], *b"script.ps1\0", *b"what it is\0");
    let all = [&extra[..], &name, &comment, &[1, 2]].concat();
    let read: Vec<(&str, Vec<u8>, Vec<u8>)> = vec![
        ("far back", far.clone(), libdeflated(&far, 12)),
        ("far back by zlib", far.clone(), gzip(&far, 9)),
        ("long", long.clone(), libdeflated(&long, 9)),
        ("long, stored", long.clone(), gzip(&long, 0)),
        ("long, in a row", b"ab".repeat(150_000), libdeflated(&b"ab".repeat(150_000), 9)),
        ("extra field", text.clone(), with(4, &extra)),
        ("name", text.clone(), with(8, &name)),
        ("comment", text.clone(), with(16, &comment)),
        ("header's checksum", text.clone(), with(2, &[1, 2])),
        ("all fields", text.clone(), with(4 | 8 | 16 | 2, &all)),
        // A literal, then three of it by a distance of one.
        (
            "fixed, by hand",
            b"xxxx".to_vec(),
            Bits::default().put(1, 1).put(1, 2).code(0x30 + 120, 8).code(1, 7).code(0, 5).code(0, 7).member(b"xxxx"),
        ),
    ];
    let refused: Vec<(&str, Vec<u8>)> = vec![
        ("an extra field that is longer than all", with(4, &[255, 255])),
        ("a name without an end", [&plain[..3], &[8], &plain[4..10], &[b'x'; 40]].concat()),
        ("reserved flags", with(32, &[])),
        (
            "before the start",
            Bits::default().put(1, 1).put(1, 2).code(0x30 + 120, 8).code(1, 7).code(1, 5).code(0, 7).member(b"xxxx"),
        ),
        (
            "a distance that there is not",
            Bits::default().put(1, 1).put(1, 2).code(0x30 + 120, 8).code(1, 7).code(30, 5).code(0, 7).member(b"xxxx"),
        ),
        (
            "a length that there is not",
            Bits::default().put(1, 1).put(1, 2).code(0x30 + 120, 8).code(0xC6, 8).code(0, 5).code(0, 7).member(b"xxxx"),
        ),
        ("an unknown kind of block", Bits::default().put(1, 1).put(3, 2).put(0, 32).member(b"")),
        ("a stored block whose lengths differ", Bits::default().put(1, 8).put(4, 16).put(7, 16).put(0, 32).member(b"xxxx")),
        // More codes of one bit than there are.
        ("over-subscribed code of lengths", dynamic(257, 1, &[1, 1, 1, 0]).put(0, 64).member(b"")),
        // One code only, and the stream uses the one that there is not.
        ("incomplete code of lengths", dynamic(257, 1, &[0, 0, 1, 0]).put(u32::MAX, 32).put(u32::MAX, 32).member(b"")),
        ("nothing to repeat", dynamic(257, 1, &[1, 0, 1, 0]).code(0, 1).put(0, 64).member(b"")),
        // 18 says zeros, 138 of them, again and again: more lengths than there are.
        ("too many lengths", dynamic(257, 1, &[0, 0, 1, 1]).code(1, 1).put(127, 7).code(1, 1).put(127, 7).put(0, 64).member(b"")),
        (
            "no end of the block",
            dynamic(257, 1, &[0, 0, 1, 1]).code(1, 1).put(127, 7).code(1, 1).put(109, 7).put(0, 64).member(b""),
        ),
        ("too many literals", dynamic(288, 1, &[1, 1, 0, 0]).put(0, 64).member(b"")),
        ("too many distances", dynamic(257, 31, &[1, 1, 0, 0]).put(0, 64).member(b"")),
        ("nothing", Vec::new()),
        ("its head alone", plain[..10].to_vec()),
        ("no gzip", b"PK\x03\x04 is a zip, and no gzip at all".to_vec()),
    ];
    // What the library of everybody says of them.
    for (what, body, stream) in &read {
        let mut found = Vec::new();
        std::io::Read::read_to_end(&mut flate2::read::MultiGzDecoder::new(&stream[..]), &mut found).unwrap_or_default();
        assert!(&found == body || what.contains("header's") || what.contains("all fields"), "{what}");
    }
    for major in [15, 18] {
        let server = server(major);
        let database = database(server, 3);
        scenario(server, &database, "").run(&["compress", "install", "scripts", "--force"]).succeeded();
        create_inflated(server, &database);
        for (what, body, stream) in &read {
            let sql = format!("SELECT encode(sha256(inflated('\\x{}')), 'hex')", hex(stream));
            assert_eq!(server.sql(&database, &sql), hex(&Sha256::digest(body)), "{what}, on {major}");
        }
        for (what, stream) in &refused {
            let error = server.psql(&database, &format!("SELECT inflated('\\x{}')", hex(stream))).unwrap_err();
            assert!(error.contains("corrupt gzip data"), "{what}, on {major}: {error}");
        }
    }
}

#[test]
fn a_damaged_body_is_an_error_for_its_reader_and_never_another_text() {
    let server = server(18);
    let database = of_5_kb(server, 20);
    let scenario = scenario(server, &database, "vacuum = false");
    scenario.run(&["compress", "install", "scripts"]).succeeded();
    scenario.run(&["run-job", "scripts"]).succeeded();
    let other = "UPDATE scripts_stored SET content_gz = (SELECT content_gz FROM scripts_stored WHERE id = 11) WHERE id = 12";
    server.sql(&database, other);
    let error = server.psql(&database, "SELECT content FROM scripts WHERE id = 12").unwrap_err();
    assert!(error.contains("differs from what was compressed"), "{error}");
    server.sql(
        &database,
        "UPDATE scripts_stored SET content_gz = set_byte(content_gz, 300, 255 - get_byte(content_gz, 300)) WHERE id = 13",
    );
    let error = server.psql(&database, "SELECT content FROM scripts WHERE id = 13").unwrap_err();
    assert!(error.contains("corrupt gzip data"), "{error}");
    // Titles are read as ever.
    server.sql(&database, "SELECT title FROM scripts");
}

#[test]
fn a_damaged_body_does_not_keep_others_from_coming_back() {
    let server = server(18);
    let database = of_5_kb(server, 60);
    let scenario = scenario(server, &database, "");
    let hashes = server.sql(&database, HASHES);
    scenario.run(&["compress", "install", "scripts"]).succeeded();
    scenario.run(&["run-job", "scripts"]).succeeded();
    // Flipped, cut, of another row, and with another hash.
    server.sql(
        &database,
        "CREATE TABLE kept AS SELECT * FROM scripts_stored WHERE id IN (3, 30, 31, 60);
         UPDATE scripts_stored SET content_gz = set_byte(content_gz, 300, 255 - get_byte(content_gz, 300)) WHERE id = 3;
         UPDATE scripts_stored SET content_gz = substring(content_gz FOR 200) WHERE id = 30;
         UPDATE scripts_stored SET content_gz = (SELECT content_gz FROM kept WHERE id = 60) WHERE id = 31;
         UPDATE scripts_stored SET content_sha256 = 'x' WHERE id = 60;",
    );
    for _ in 0..2 {
        scenario.run(&["compress", "undo", "scripts"]).exited(1).says(&[
            "4 cannot become text",
            "(id) = (3)",
            "(id) = (30)",
            "(id) = (31)",
            "(id) = (60)",
            "stay as they are",
        ]);
        let kinds = "SELECT count(content), count(content_gz) FROM scripts_stored";
        assert_eq!(server.sql(&database, kinds), "56|4", "all others are text");
        assert_eq!(server.sql(&database, "SELECT relkind FROM pg_class WHERE relname = 'scripts'"), "v", "the view stays");
    }
    server.sql(
        &database,
        "UPDATE scripts_stored s SET content_gz = k.content_gz, content_sha256 = k.content_sha256 FROM kept k WHERE k.id = s.id",
    );
    scenario.run(&["compress", "undo", "scripts"]).succeeded();
    assert_eq!(server.sql(&database, HASHES), hashes);
}
