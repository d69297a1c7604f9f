//! Text in another form: who reads and writes it notices nothing, and there is a way back.

use std::io::Write as _;
use std::process::Stdio;

use flate2::Compression;
use flate2::write::GzEncoder;
use proptest::prelude::RngExt as _;
use proptest::test_runner::{RngAlgorithm, TestRng};
use sha2::{Digest as _, Sha256};

use crate::support::postgres::{Server, server};
use crate::support::scripts::{HASHES, Scripts, TABLE, database, job, load, of_5_kb, scenario};
use crate::support::{Scenario, eventually};

/// What psql would recreate the database from.
fn schema(server: &Server, database: &str) -> String {
    let output = server.tool("pg_dump", database).args(["--schema-only"]).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    // Newer versions put a random key around it.
    let text = String::from_utf8(output.stdout).unwrap();
    text.lines()
        .filter(|line| !line.starts_with("\\restrict") && !line.starts_with("\\unrestrict"))
        .collect::<Vec<_>>()
        .join("\n")
}

/// The catalogs' rows of all objects that are not the server's own. It is what a command that changes nothing leaves alone.
fn catalogs(server: &Server, database: &str) -> String {
    let of = |catalog: &str| format!("SELECT '{catalog}', c::text FROM pg_catalog.{catalog} c WHERE c.oid >= 16384");
    let all = ["pg_class", "pg_attrdef", "pg_constraint", "pg_proc", "pg_trigger", "pg_rewrite", "pg_type", "pg_policy"].map(of);
    let columns = "SELECT 'pg_attribute', c::text FROM pg_catalog.pg_attribute c WHERE c.attrelid >= 16384";
    server.sql(database, &format!("{} UNION ALL {columns} ORDER BY 1, 2", all.join(" UNION ALL ")))
}

fn facts(report: &serde_json::Value) -> &serde_json::Value {
    &report["runs"][0]["report"]["facts"]
}

fn bytes(report: &serde_json::Value, fact: &str) -> u64 {
    facts(report)[fact].as_u64().unwrap_or_else(|| panic!("no {fact}: {report:#}"))
}

#[test]
fn readers_see_the_same_text_before_during_and_after_on_15_and_18() {
    for major in [15, 18] {
        let server = server(major);
        let database = database(server, 50);
        server.sql(
            &database,
            "CREATE TABLE comments (script_id int REFERENCES scripts ON DELETE CASCADE, said text);
             INSERT INTO comments SELECT id, 'good' FROM scripts;
             CREATE VIEW long_ones AS SELECT id, title, length(content) AS size FROM scripts WHERE length(content) > 3000;
             CREATE ROLE reader_of_nothing; GRANT SELECT ON scripts TO PUBLIC; COMMENT ON TABLE scripts IS 'It''s the table';
             COMMENT ON COLUMN scripts.content IS 'The body''s text';",
        );
        let (before, hashes) = (schema(server, &database), server.sql(&database, HASHES));
        let long_ones = server.sql(&database, "SELECT count(*), sum(size) FROM long_ones");
        server.sql(&database, "DROP ROLE reader_of_nothing");
        let scenario = scenario(server, &database, "");

        scenario.run(&["run-job", "scripts"]).exited(78).says(&["pgtend compress install scripts"]);
        scenario.run(&["run-job", "scripts", "--dry-run"]).exited(78).prints(&["gzip", "pglz", "forecast", "stored now"]);
        scenario
            .run(&["compress", "install", "scripts", "--dry-run"])
            .succeeded()
            .prints(&["ACCESS EXCLUSIVE", "CREATE OR REPLACE VIEW"]);
        assert_eq!(schema(server, &database), before, "a dry run writes nothing");

        scenario.run(&["compress", "install", "scripts"]).succeeded();
        assert_eq!(server.sql(&database, HASHES), hashes);
        let comments = "SELECT obj_description('scripts'::regclass, 'pg_class'), col_description('scripts'::regclass, attnum) FROM pg_attribute WHERE attrelid = 'scripts'::regclass AND attname = 'content'";
        assert_eq!(server.sql(&database, comments), "It's the table|The body's text");
        let report = scenario.json(&["run-job", "scripts"]);
        assert!(facts(&report)["rows_compressed"].as_u64() > Some(40), "{report:#}");
        assert!(bytes(&report, "bytes_after") < bytes(&report, "bytes_before") * 4 / 5, "{report:#}");
        assert_eq!(server.sql(&database, HASHES), hashes);
        assert_eq!(server.sql(&database, "SELECT count(*), sum(size) FROM long_ones"), long_ones);
        assert_eq!(server.sql(&database, "SELECT count(*) FROM scripts_stored WHERE pg_column_size(content) > 2000"), "0");

        // New and changed bodies are for the next run; one that has nothing to do says so.
        server.sql(&database, "UPDATE scripts SET content = content || ' changed' WHERE id IN (20, 21)");
        load(server, &database, &[Scripts::new().script(5_000)]);
        let hashes = server.sql(&database, HASHES);
        let report = scenario.json(&["run-job", "scripts"]);
        assert_eq!(facts(&report)["rows_compressed"], 3, "{report:#}");
        let report = scenario.json(&["run-job", "scripts"]);
        assert_eq!(facts(&report)["rows_compressed"], 0, "{report:#}");
        assert!(report["runs"][0]["report"]["summary"].as_str().unwrap().contains("nothing compressed"), "{report:#}");
        assert_eq!(server.sql(&database, HASHES), hashes);

        scenario.run(&["compress", "undo", "scripts", "--keep-view"]).succeeded();
        assert_eq!(server.sql(&database, "SELECT count(content_gz) FROM scripts_stored"), "0");
        assert_eq!(server.sql(&database, HASHES), hashes);
        scenario.run(&["run-job", "scripts"]).succeeded();
        scenario.run(&["compress", "undo", "scripts"]).succeeded();
        assert_eq!(server.sql(&database, HASHES), hashes);
        assert_eq!(schema(server, &database), before, "all is as it was");
        assert_eq!(server.sql(&database, "SELECT count(*) FROM comments"), "59");
        server.sql(&database, "DELETE FROM scripts WHERE id = 1");
        assert_eq!(server.sql(&database, "SELECT count(*) FROM comments"), "58", "its foreign keys are its own");
    }
}

#[test]
fn a_dump_of_it_restores_with_stock_tools_and_reads_the_same() {
    let server = server(18);
    let database = database(server, 30);
    let hashes = server.sql(&database, HASHES);
    let scenario = scenario(server, &database, "");
    scenario.run(&["compress", "install", "scripts"]).succeeded();
    scenario.run(&["run-job", "scripts"]).succeeded();
    let dump = server.tool("pg_dump", &database).output().unwrap();
    let restored = server.empty_database();
    server.sql(&restored, &String::from_utf8(dump.stdout).unwrap());
    assert_eq!(server.sql(&restored, HASHES), hashes);
    assert_ne!(server.sql(&restored, "SELECT count(content_gz) FROM scripts_stored"), "0");
}

#[test]
fn a_body_of_20_mb_comes_back_when_it_is_asked_for_and_stays_plain_when_not() {
    let server = server(18);
    let database = server.new_database();
    server.sql(&database, TABLE);
    load(server, &database, &[Scripts::new().script(20_000).repeat(1000), Scripts::new().script(9_000)]);
    let hashes = server.sql(&database, HASHES);
    let small = scenario(server, &database, "");
    small.run(&["compress", "install", "scripts"]).succeeded();
    let report = small.json(&["run-job", "scripts"]);
    assert_eq!(
        (facts(&report)["rows_compressed"].as_u64(), facts(&report)["rows_too_large"].as_u64()),
        (Some(1), Some(1)),
        "{report:#}"
    );
    let report = scenario(server, &database, "smaller_than = '30MB'").json(&["run-job", "scripts"]);
    assert_eq!(facts(&report)["rows_compressed"], 1, "{report:#}");
    assert_eq!(server.sql(&database, HASHES), hashes);
}

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
        let mut sql = String::from("CREATE TABLE streams (number int, hash bytea, stream bytea);\nCOPY streams FROM stdin;\n");
        for (number, (body, stream)) in streams.iter().enumerate() {
            sql += &format!("{number}\t\\\\x{}\t\\\\x{}\n", hex(&Sha256::digest(body)), hex(stream));
        }
        server.sql(&database, &(sql + "\\.\n"));
        assert_eq!(
            server.sql(&database, "SELECT count(*) FROM streams WHERE sha256(scripts_pgtend_inflate(stream)) = hash"),
            "2000",
            "on {major}"
        );
        // Each of some streams, cut and flipped in many places: an error, or what it was (a name, a comment, a time).
        let found = server.sql(
            &database,
            "CREATE FUNCTION tried(s bytea, hash bytea) RETURNS text LANGUAGE plpgsql AS $$ BEGIN
                 RETURN CASE WHEN sha256(scripts_pgtend_inflate(s)) = hash THEN 'same' ELSE 'wrong' END;
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
        for (what, body, stream) in &read {
            let sql = format!("SELECT encode(sha256(scripts_pgtend_inflate('\\x{}')), 'hex')", hex(stream));
            assert_eq!(server.sql(&database, &sql), hex(&Sha256::digest(body)), "{what}, on {major}");
        }
        for (what, stream) in &refused {
            let error = server.psql(&database, &format!("SELECT scripts_pgtend_inflate('\\x{}')", hex(stream))).unwrap_err();
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

#[test]
fn writers_through_the_view_and_on_the_table_keep_what_they_had_with_the_table() {
    for major in [15, 18] {
        let server = server(major);
        let database = of_5_kb(server, 29);
        server.sql(
            &database,
            "ALTER TABLE scripts ALTER content DROP NOT NULL, ADD slug text GENERATED ALWAYS AS (lower(title)) STORED",
        );
        let scenario = scenario(server, &database, "");
        scenario.run(&["compress", "install", "scripts"]).succeeded();
        scenario.run(&["run-job", "scripts"]).succeeded();
        let sql = |sql: &str| server.sql(&database, sql);
        let is_compressed = |id: u32| sql(&format!("SELECT content_gz IS NOT NULL FROM scripts_stored WHERE id = {id}"));

        let long = "SELECT string_agg(md5(i::text), E'\\n') FROM generate_series(1, 200) i";
        assert_eq!(
            sql(&format!("INSERT INTO scripts (content) VALUES (({long})) RETURNING id, title, runs, slug, length(content)")),
            "30|untitled|0|untitled|6599"
        );
        assert_eq!(
            sql("INSERT INTO scripts (id, title, content) VALUES (100, 'Mine', NULL) RETURNING slug, content IS NULL"),
            "mine|t"
        );
        assert_eq!(sql("UPDATE scripts SET title = 'New' WHERE id = 20 RETURNING slug, length(content) > 0"), "new|t");
        assert_eq!(is_compressed(20), "t", "a body that is not written keeps its form");
        assert_eq!(sql("UPDATE scripts SET content = 'short' WHERE id = 20 RETURNING content"), "short");
        assert_eq!((is_compressed(20), sql("SELECT content FROM scripts WHERE id = 20")), ("f".to_owned(), "short".to_owned()));
        assert_eq!(sql("UPDATE scripts SET content = NULL WHERE id = 21 RETURNING content IS NULL"), "t");
        assert_eq!(
            (is_compressed(21), sql("SELECT content IS NULL FROM scripts WHERE id = 21")),
            ("f".to_owned(), "t".to_owned())
        );
        assert_eq!(sql("DELETE FROM scripts WHERE id IN (22, 23, 9999) RETURNING id"), "22\n23");
        assert_eq!(sql("UPDATE scripts SET id = 200 WHERE id = 24 RETURNING id, length(content) > 0"), "200|t");
        assert_eq!(
            sql("UPDATE scripts s SET runs = runs + 1 FROM (VALUES (25), (25)) v (i) WHERE s.id = v.i RETURNING runs"),
            "1",
            "once, as with a table"
        );
        assert_eq!(
            sql(
                "BEGIN; UPDATE scripts SET runs = 5 WHERE id = 25; UPDATE scripts SET runs = runs + 1 WHERE id = 25 RETURNING runs; COMMIT"
            ),
            "6"
        );

        // On the table behind: text that is written takes the place of the compressed form.
        assert_eq!(is_compressed(26), "t");
        sql("UPDATE scripts_stored SET content = 'direct' WHERE id = 26");
        assert_eq!(sql("SELECT content FROM scripts WHERE id = 26"), "direct");
        sql("SET session_replication_role = replica; UPDATE scripts_stored SET content = 'as a replica' WHERE id = 27");
        assert_eq!(sql("SELECT content FROM scripts WHERE id = 27"), "as a replica");
        sql(
            "INSERT INTO scripts_stored (id, content) VALUES (28, 'upsert') ON CONFLICT (id) DO UPDATE SET content = excluded.content",
        );
        assert_eq!(sql("SELECT content FROM scripts WHERE id = 28"), "upsert");
        assert_eq!(is_compressed(29), "t");
        // A form that contradicts is refused.
        let error =
            server.psql(&database, "UPDATE scripts_stored SET content = 'x', content_gz = 'y' WHERE id = 29").unwrap_err();
        assert!(error.contains("pgtend_one_form"), "{error}");

        // What a view does not take fails, and says so.
        for refused in [
            "INSERT INTO scripts (id, content) VALUES (1, 'x') ON CONFLICT (id) DO NOTHING",
            "TRUNCATE scripts",
            "COPY scripts TO stdout",
            "CREATE INDEX ON scripts (title)",
        ] {
            server.psql(&database, refused).unwrap_err();
        }
        let copied = "COPY scripts (id, content) FROM stdin;\n300\tcopied\n\\.\n";
        sql(copied);
        assert_eq!(sql("SELECT content, title FROM scripts WHERE id = 300"), "copied|untitled");
        let hashes = sql(HASHES);
        scenario.run(&["run-job", "scripts"]).succeeded();
        scenario.run(&["compress", "undo", "scripts"]).succeeded();
        assert_eq!(sql(HASHES), hashes);
    }
}

#[test]
fn an_update_through_the_view_never_writes_over_one_that_came_meanwhile() {
    let server = server(18);
    let database = of_5_kb(server, 19);
    let scenario = scenario(server, &database, "");
    scenario.run(&["compress", "install", "scripts"]).succeeded();
    scenario.run(&["run-job", "scripts"]).succeeded();
    // A plain table would look again; a trigger cannot, and must not lose the first one.
    for first in ["UPDATE scripts SET runs = runs + 1 WHERE id = 15", "UPDATE scripts_stored SET content = 'mine' WHERE id = 15"]
    {
        for second in [
            "UPDATE scripts SET runs = runs + 1 WHERE id = 15",
            "DELETE FROM scripts WHERE id = 15 AND runs = 0",
            "UPDATE scripts SET content = 'theirs' WHERE id = 15",
        ] {
            server.sql(&database, "UPDATE scripts SET runs = 0, content = repeat('x', 5000) WHERE id = 15");
            let mut holder = server.tool("psql", &database).args(["-Xq"]).stdin(Stdio::piped()).spawn().unwrap();
            let mut input = holder.stdin.take().unwrap();
            input.write_all(format!("BEGIN; {first};\n").as_bytes()).unwrap();
            let idle =
                "SELECT count(*) FROM pg_stat_activity WHERE state = 'idle in transaction' AND datname = current_database()";
            eventually("the first has written", || server.sql(&database, idle) == "1");
            let waiting = {
                let (database, second) = (database.clone(), second.to_owned());
                std::thread::spawn(move || super::support::postgres::server(18).psql(&database, &second))
            };
            let blocked = "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = current_database()";
            eventually("the second waits", || server.sql(&database, blocked) == "1");
            input.write_all(b"COMMIT;\n").unwrap();
            drop(input);
            holder.wait().unwrap();
            let error = waiting.join().unwrap().unwrap_err();
            assert!(error.contains("could not serialize access"), "{first}, {second}: {error}");
        }
    }
}

#[test]
fn what_a_view_cannot_carry_is_found_first_and_named() {
    let server = server(18);
    let cases = [
        (
            "CREATE INDEX by_words ON scripts USING gin (to_tsvector('english', content))",
            "index by_words is built over the column",
        ),
        ("CREATE INDEX partly ON scripts (id) WHERE content <> ''", "index partly is built over the column"),
        ("CREATE UNIQUE INDEX once ON scripts (md5(content))", "index once"),
        ("ALTER TABLE scripts ADD size int GENERATED ALWAYS AS (length(content)) STORED", "generated column size"),
        ("ALTER TABLE scripts ADD EXCLUDE USING hash (content WITH =)", "scripts_content_excl"),
        (
            "ALTER TABLE scripts ADD CONSTRAINT full_ones CHECK (content IS NOT NULL)",
            "constraint \"full_ones\" refuses rows without the text",
        ),
        ("CREATE MATERIALIZED VIEW sizes AS SELECT id, length(content) FROM scripts", "materialized view public.sizes"),
        ("CREATE MATERIALIZED VIEW rows AS SELECT s FROM scripts s", "materialized view public.rows"),
        ("CREATE FUNCTION f() RETURNS SETOF scripts LANGUAGE sql AS 'SELECT * FROM scripts'", "function public.f()"),
        ("CREATE FUNCTION f() RETURNS bigint LANGUAGE sql BEGIN ATOMIC SELECT count(*) FROM scripts; END", "function public.f()"),
        ("CREATE PUBLICATION p FOR TABLE scripts", "published by p"),
        ("CREATE RULE r AS ON DELETE TO scripts DO ALSO SELECT 1", "it has a rule: r"),
        (
            "CREATE TABLE log (id int); CREATE RULE r AS ON INSERT TO log DO ALSO SELECT content FROM scripts WHERE id = NEW.id",
            "rule r of public.log reads it",
        ),
        (
            "CREATE TABLE parted (LIKE scripts) PARTITION BY RANGE (id); ALTER TABLE scripts ALTER id DROP IDENTITY;
             ALTER TABLE parted ATTACH PARTITION scripts DEFAULT",
            "it is a partition of public.parted",
        ),
        (
            "ALTER TABLE scripts ENABLE ROW LEVEL SECURITY; CREATE POLICY p ON scripts USING (content <> 'x')",
            "policy p on table public.scripts",
        ),
        ("CREATE ROLE column_reader; GRANT SELECT (id) ON scripts TO column_reader", "column id has privileges of its own"),
        ("CREATE TABLE scripts_stored (id int)", "already a relation or type public.scripts_stored"),
        ("ALTER TABLE scripts ADD content_gz text", "it already has a column content_gz"),
        ("ALTER TABLE scripts DROP CONSTRAINT scripts_pkey", "no primary key"),
        ("CREATE TABLE more () INHERITS (scripts)", "inherits from it"),
        (
            "CREATE FUNCTION t() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NEW; END'; CREATE TRIGGER t BEFORE UPDATE OF title ON scripts FOR EACH ROW EXECUTE FUNCTION t()",
            "UPDATE OF",
        ),
        (
            "CREATE FUNCTION t() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN NEW.title := md5(NEW.content); RETURN NEW; END'; CREATE TRIGGER t BEFORE UPDATE ON scripts FOR EACH ROW EXECUTE FUNCTION t()",
            "--force",
        ),
        (
            "CREATE FUNCTION t() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN INSERT INTO history VALUES (OLD.*); RETURN OLD; END'; CREATE TRIGGER t AFTER DELETE ON scripts FOR EACH ROW EXECUTE FUNCTION t()",
            "uses whole rows",
        ),
        (
            "ALTER TABLE scripts ADD tsv tsvector; CREATE TRIGGER t BEFORE UPDATE ON scripts FOR EACH ROW EXECUTE FUNCTION tsvector_update_trigger(tsv, 'pg_catalog.english', content)",
            "uses the column",
        ),
        (
            "CREATE FUNCTION t() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN INSERT INTO history SELECT * FROM gone; RETURN NULL; END'; CREATE TRIGGER t AFTER DELETE ON scripts REFERENCING OLD TABLE AS gone FOR EACH STATEMENT EXECUTE FUNCTION t()",
            "reads the changed rows as a table",
        ),
        (
            "CREATE FUNCTION t() RETURNS trigger LANGUAGE c AS '$libdir/plpgsql', 'plpgsql_call_handler'; CREATE TRIGGER t AFTER DELETE ON scripts FOR EACH ROW EXECUTE FUNCTION t()",
            "written in c",
        ),
        (
            "CREATE SUBSCRIPTION s CONNECTION 'dbname=nowhere' PUBLICATION p WITH (connect = false, slot_name = NONE); SET allow_system_table_mods = on;
             INSERT INTO pg_subscription_rel SELECT oid, 'scripts'::regclass, 'r', NULL FROM pg_subscription WHERE subdbid = (SELECT oid FROM pg_database WHERE datname = current_database())",
            "a subscription writes to it",
        ),
        ("CREATE VIEW by_key AS SELECT id, title, count(*) FROM scripts GROUP BY id", "view public.by_key groups by the key alone"),
        (
            "CREATE FUNCTION save(i int) RETURNS void LANGUAGE plpgsql AS 'BEGIN INSERT INTO scripts (id) VALUES (i) ON CONFLICT DO NOTHING; END'",
            "ON CONFLICT",
        ),
    ];
    let template = database(server, 3);
    for (number, (sql, said)) in cases.into_iter().enumerate() {
        let database = format!("{template}_{number}");
        server.sql("postgres", &format!("CREATE DATABASE {database} TEMPLATE {template}"));
        server.sql(&database, sql);
        let before = catalogs(server, &database);
        let scenario = scenario(server, &database, "");
        let output = scenario.run(&["compress", "install", "scripts"]);
        assert!(output.code == Some(78) && output.stderr.contains(said), "{sql}: {output:?}");
        assert_eq!(catalogs(server, &database), before, "{sql}");
        scenario.run(&["run-job", "scripts", "--dry-run"]).exited(78);
    }
    server.sql("postgres", "SELECT 1");

    let plain = |sql: &str, job: &str, said: &str| {
        let database = server.new_database();
        server.sql(&database, sql);
        Scenario::with_database(server, &database)
            .job("scripts", job)
            .run(&["compress", "install", "scripts"])
            .exited(78)
            .says(&[said]);
    };
    plain("CREATE TABLE scripts (id int, content text) PARTITION BY RANGE (id)", &job(""), "is partitioned");
    plain("CREATE TABLE scripts (id int PRIMARY KEY, content jsonb)", &job(""), "supports text and varchar");
    plain("CREATE TABLE scripts (id int PRIMARY KEY, content varchar(10)[])", &job(""), "supports text and varchar");
    // A name that ends in no letter is a word, too.
    plain(
        "CREATE TABLE scripts (id int PRIMARY KEY, title text, \"body!\" text);
         CREATE FUNCTION t() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN NEW.title := md5(NEW.\"body!\"); RETURN NEW; END';
         CREATE TRIGGER t BEFORE UPDATE ON scripts FOR EACH ROW EXECUTE FUNCTION t()",
        &job("").replace("'content'", "'body!'"),
        "uses the column",
    );
    plain("CREATE TABLE scripts (id int PRIMARY KEY, body text)", &job(""), "no column");
    plain("CREATE VIEW scripts AS SELECT 'x' AS content", &job(""), "not one that");
    plain("CREATE TABLE scripts (id int PRIMARY KEY, content text)", &job(""), "do nothing");
}

/// Those that fire although the run silences the ordinary ones; they fire as well where the role may not.
#[test]
fn triggers_that_would_change_other_columns_are_found_in_the_act_and_nothing_is_compressed() {
    let server = server(18);
    let database = database(server, 10);
    server.sql(
        &database,
        "CREATE FUNCTION count_changes() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN NEW.runs := OLD.runs + 1; RETURN NEW; END';
         CREATE TRIGGER changes BEFORE UPDATE ON scripts FOR EACH ROW EXECUTE FUNCTION count_changes();
         ALTER TABLE scripts ENABLE ALWAYS TRIGGER changes",
    );
    let hashes = server.sql(&database, HASHES);
    let scenario = scenario(server, &database, "");
    scenario.run(&["compress", "install", "scripts"]).succeeded();
    scenario.run(&["run-job", "scripts"]).exited(1).says(&["changes other columns"]);
    assert_eq!(server.sql(&database, "SELECT count(content_gz), sum(runs) FROM scripts_stored"), "0|0");
    // One that comes after the row is written, at once or at the end of the transaction.
    server.sql(
        &database,
        "DROP TRIGGER changes ON scripts_stored;
         CREATE FUNCTION count_later() RETURNS trigger LANGUAGE plpgsql AS
             'BEGIN IF pg_trigger_depth() = 1 THEN UPDATE public.scripts_stored SET runs = runs + 1 WHERE id = OLD.id; END IF; RETURN NULL; END';",
    );
    for when in ["TRIGGER", "CONSTRAINT TRIGGER"] {
        let deferred = if when == "TRIGGER" { "" } else { "DEFERRABLE INITIALLY DEFERRED" };
        server.sql(
            &database,
            &format!("CREATE {when} later AFTER UPDATE ON scripts_stored {deferred} FOR EACH ROW EXECUTE FUNCTION count_later(); ALTER TABLE scripts_stored ENABLE ALWAYS TRIGGER later"),
        );
        scenario.run(&["run-job", "scripts"]).exited(1).says(&["changes or deletes rows that were just written"]);
        assert_eq!(server.sql(&database, "SELECT count(content_gz), sum(runs) FROM scripts_stored"), "0|0");
        server.sql(&database, "DROP TRIGGER later ON scripts_stored");
    }
    server.sql(
        &database,
        "CREATE TRIGGER changes BEFORE UPDATE ON scripts_stored FOR EACH ROW EXECUTE FUNCTION count_changes();
         ALTER TABLE scripts_stored ENABLE ALWAYS TRIGGER changes",
    );
    // A time of the last change may change: the dry run says so.
    server.sql(
        &database,
        "CREATE OR REPLACE FUNCTION count_changes() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN NEW.updated_at := now(); RETURN NEW; END'",
    );
    scenario
        .run(&["run-job", "scripts", "--dry-run"])
        .succeeded()
        .prints(&["trigger changes fires for each row that is compressed, as it is ENABLE ALWAYS"]);
    scenario.run(&["run-job", "scripts"]).succeeded();
    assert_eq!(server.sql(&database, HASHES), hashes);
}

#[test]
fn keys_and_names_of_every_kind() {
    let server = server(18);
    for (columns, value) in [
        ("a int, \"B b\" text, PRIMARY KEY (\"B b\", a)", "i, 'it''s \"' || i % 7"),
        ("a uuid PRIMARY KEY", "md5(i::text)::uuid"),
        ("a text COLLATE \"C\" PRIMARY KEY", "chr(i + 64) || i || E'\\\\ \\n'"),
        (
            "a char(9) NOT NULL, b numeric(9, 3) NOT NULL, c timestamptz NOT NULL, UNIQUE (a, b, c)",
            "'k' || i % 3, i / 3.0, now() + make_interval(secs => i)",
        ),
        ("a bytea PRIMARY KEY", "sha256(i::text::bytea)"),
        ("a date NOT NULL, b bigint NOT NULL, PRIMARY KEY (b, a)", "current_date + i, 9e15::bigint + i"),
    ] {
        let database = server.new_database();
        let table = "\"Sc; \"\"x\"\" $pgtend$ ü\".\"T 'a\\ ble\n--\"";
        server.sql(
            &database,
            &format!(
                "CREATE SCHEMA \"Sc; \"\"x\"\" $pgtend$ ü\"; CREATE TABLE {table} ({columns}, \"the 'body\" varchar(90000) COLLATE \"C\");
                 INSERT INTO {table} SELECT {value}, CASE WHEN i < 22 THEN (SELECT string_agg(md5((i * 999 + j)::text), E'\r\n') FROM generate_series(1, 110) j) END
                 FROM generate_series(1, 22) i;"
            ),
        );
        let hashes = format!("SELECT md5(string_agg(t::text, ',' ORDER BY t::text)), count(\"the 'body\") FROM {table} t");
        let before = server.sql(&database, &hashes);
        let scenario = Scenario::with_database(server, &database).job(
            "odd",
            &format!(
                "database = 'app'\n[compress]\ntable = {}\ncolumn = \"the 'body\"\nmethod = 'gzip'\nlarger_than = '3KB'\n",
                serde_json::to_string(table).unwrap()
            ),
        );
        scenario.run(&["compress", "install", "odd"]).succeeded();
        let report = scenario.json(&["run-job", "odd"]);
        assert_eq!(facts(&report)["rows_compressed"], 21, "{columns}: {report:#}");
        assert_eq!(server.sql(&database, &hashes), before, "{columns}");
        scenario.run(&["compress", "undo", "odd"]).succeeded();
        assert_eq!(server.sql(&database, &hashes), before, "{columns}");
    }
}

#[test]
fn databases_of_other_encodings_and_sessions_with_odd_settings_read_the_same() {
    let server = server(18);
    for (encoding, text) in
        [("LATIN1", "E'gr\\xf6\\xdfer '"), ("SQL_ASCII", "E'\\xff\\xfe not UTF-8 '"), ("EUC_JP", "E'\\xa4\\xa2 '")]
    {
        let database = format!("enc_{}_{}", encoding.to_lowercase(), server.new_database());
        server.sql(
            "postgres",
            &format!("CREATE DATABASE {database} ENCODING '{encoding}' LC_COLLATE 'C' LC_CTYPE 'C' TEMPLATE template0"),
        );
        let own = format!("SET client_encoding = {encoding};");
        server.sql(&database, &format!("{own} {TABLE} INSERT INTO scripts (content) SELECT (SELECT string_agg({text} || md5((i * 999 + j)::text), '') FROM generate_series(1, 80) j) FROM generate_series(1, 20) i"));
        let hashes = format!("{own} SELECT md5(string_agg(md5(content), ',' ORDER BY id)) FROM scripts");
        let before = server.sql(&database, &hashes);
        let scenario = scenario(server, &database, "");
        scenario.run(&["compress", "install", "scripts"]).succeeded();
        let report = scenario.json(&["run-job", "scripts"]);
        assert_eq!(facts(&report)["rows_compressed"], 20, "{encoding}: {report:#}");
        assert_eq!(server.sql(&database, &hashes), before, "{encoding}");
        for settings in [
            "SET standard_conforming_strings = off; SET escape_string_warning = off;",
            "SET search_path = evil, pg_catalog, public;",
            "SET bytea_output = escape; SET default_transaction_read_only = on;",
        ] {
            assert_eq!(
                server.sql(&database, &format!("{settings} {hashes}").replace("FROM scripts", "FROM public.scripts")),
                before,
                "{encoding} {settings}"
            );
        }
        scenario.run(&["compress", "undo", "scripts"]).succeeded();
        assert_eq!(server.sql(&database, &hashes), before, "{encoding}");
    }
}

#[test]
fn functions_of_a_hostile_search_path_are_not_called() {
    let server = server(18);
    let database = of_5_kb(server, 19);
    let scenario = scenario(server, &database, "");
    scenario.run(&["compress", "install", "scripts"]).succeeded();
    scenario.run(&["run-job", "scripts"]).succeeded();
    let hashes = server.sql(&database, HASHES);
    let evil = "CREATE SCHEMA evil;
        CREATE FUNCTION evil.sha256(bytea) RETURNS bytea LANGUAGE sql AS 'SELECT NULL::bytea';
        CREATE FUNCTION evil.convert_to(text, name) RETURNS bytea LANGUAGE sql AS 'SELECT NULL::bytea';
        CREATE FUNCTION evil.never(text, text) RETURNS boolean LANGUAGE sql AS 'SELECT false';
        CREATE FUNCTION evil.never(int, int) RETURNS boolean LANGUAGE sql AS 'SELECT false';
        CREATE OPERATOR evil.= (LEFTARG = int, RIGHTARG = int, FUNCTION = evil.never);
        CREATE OPERATOR evil.<> (LEFTARG = text, RIGHTARG = text, FUNCTION = evil.never);
        CREATE TABLE evil.scripts_stored (id int, content text);";
    server.sql(&database, evil);
    let set = "SET search_path = evil, pg_catalog, public;";
    server.sql(&database, &format!("{set} UPDATE public.scripts SET title = 'x'; UPDATE public.scripts SET content = 'y' WHERE id OPERATOR(pg_catalog.=) 14; DELETE FROM public.scripts WHERE id OPERATOR(pg_catalog.=) 15;"));
    assert_eq!(server.sql(&database, "SELECT content FROM scripts WHERE id = 14"), "y");
    assert_eq!(server.sql(&database, "SELECT count(*), count(DISTINCT title) FROM scripts"), "18|1");
    server.sql(&database, "CREATE ROLE path_setter");
    server.sql(&database, "DROP ROLE path_setter");
    server.sql("postgres", &format!("ALTER DATABASE {database} SET search_path = evil, pg_catalog, public"));
    scenario.run(&["run-job", "scripts"]).succeeded();
    scenario.run(&["compress", "undo", "scripts"]).succeeded();
    let after = server.sql(&database, "SET search_path = public; SELECT md5(string_agg(id || encode(sha256(convert_to(content, 'UTF8')), 'hex'), ',' ORDER BY id)) FROM scripts WHERE id NOT IN (14, 15)");
    assert_ne!(after, hashes);
    assert_eq!(server.sql(&database, "SET search_path = public; SELECT count(*) FROM scripts WHERE content <> ''"), "18");
}

#[test]
fn privileges_are_those_of_the_table_through_views_of_others_too() {
    let of_others = "CREATE SCHEMA reports; CREATE VIEW reports.all_of_them AS SELECT id, content FROM scripts;
        ALTER SCHEMA reports OWNER TO OWNER; ALTER VIEW reports.all_of_them OWNER TO OWNER;
        GRANT USAGE ON SCHEMA reports TO OTHER; GRANT SELECT ON reports.all_of_them TO OTHER;";
    privileges(of_others, |as_role, reader, other| {
        assert_eq!(as_role(reader, "SELECT count(*), min(id), count(content) FROM public.scripts").unwrap(), "19|1|19");
        assert_eq!(as_role(reader, "UPDATE public.scripts SET title = 'x' WHERE id IN (11, 12) RETURNING id").unwrap(), "11\n12");
        // Without a right on the table, nor on its schema.
        assert_eq!(as_role(other, "SELECT count(*), count(md5(content)) FROM reports.all_of_them").unwrap(), "19|19");
    });
}

#[test]
fn row_security_is_that_of_the_table() {
    let policy = "ALTER TABLE scripts ENABLE ROW LEVEL SECURITY; CREATE POLICY even ON scripts TO READER USING (id % 2 = 0);";
    privileges(policy, |as_role, reader, _| {
        assert_eq!(as_role(reader, "SELECT count(*), min(id), count(content) FROM public.scripts").unwrap(), "9|2|9");
        assert_eq!(as_role(reader, "UPDATE public.scripts SET title = 'x' WHERE id IN (11, 12) RETURNING id").unwrap(), "12");
    });
}

fn privileges(more: &str, check: impl Fn(&dyn Fn(&str, &str) -> Result<String, String>, &str, &str)) {
    let server = server(18);
    let database = of_5_kb(server, 19);
    let (owner, reader, other) = (format!("own_{database}"), format!("read_{database}"), format!("none_{database}"));
    let more = more.replace("OTHER", &other).replace("READER", &reader).replace("OWNER TO OWNER", &format!("OWNER TO {owner}"));
    server.sql(
        &database,
        &format!(
            "CREATE ROLE {owner} LOGIN; CREATE ROLE {reader} LOGIN; CREATE ROLE {other} LOGIN; ALTER DATABASE {database} OWNER TO {owner};
             GRANT CREATE ON SCHEMA public TO {owner}; ALTER TABLE scripts OWNER TO {owner};
             GRANT SELECT, INSERT, UPDATE, DELETE ON scripts TO {reader};
             {more}
             REVOKE ALL ON SCHEMA public FROM PUBLIC; GRANT USAGE ON SCHEMA public TO {reader};"
        ),
    );
    let hashes = server.sql(&database, HASHES);
    let before = schema(server, &database);
    let scenario = Scenario::with_url(server, &server.url_as(&owner, &database)).job("scripts", &job(""));
    Scenario::with_url(server, &server.url_as(&reader, &database))
        .job("scripts", &job(""))
        .run(&["compress", "install", "scripts"])
        .exited(77);
    scenario.run(&["compress", "install", "scripts"]).succeeded();
    scenario.run(&["run-job", "scripts"]).succeeded();
    scenario.run(&["check", "--connect"]).succeeded();
    let as_role = |role: &str, sql: &str| server.psql(&database, &format!("SET ROLE {role}; {sql}"));
    assert!(as_role(&other, "SELECT 1 FROM public.scripts").unwrap_err().contains("permission denied"));
    check(&as_role, &reader, &other);
    assert_eq!(server.sql(&database, HASHES), hashes);
    scenario.run(&["compress", "undo", "scripts"]).succeeded();
    assert_eq!(schema(server, &database), before);
    server.sql("postgres", "SELECT 1");
}

#[test]
fn toast_writes_anew_what_is_stored_otherwise_and_nothing_that_would_become_larger() {
    for major in [15, 18] {
        let server = server(major);
        let database = database(server, 100);
        server.sql(&database, "ALTER TABLE scripts ALTER content SET STORAGE EXTERNAL; UPDATE scripts SET content = content || ''; VACUUM ANALYZE scripts");
        let hashes = server.sql(&database, HASHES);
        let text =
            "database = 'app'\n[compress]\ntable = 'public.scripts'\ncolumn = 'content'\nmethod = 'toast'\nlarger_than = '2KB'\n";
        let scenario = Scenario::with_database(server, &database).job("scripts", text);
        scenario.run(&["run-job", "scripts", "--dry-run"]).succeeded().prints(&["pglz: ", "SET STORAGE EXTENDED"]);
        let report = scenario.json(&["run-job", "scripts"]);
        assert!(facts(&report)["rows_compressed"].as_u64() > Some(70), "{report:#}");
        assert!(facts(&report)["rows_not_smaller"].as_u64() >= Some(1), "base64 is no smaller by pglz: {report:#}");
        assert!(bytes(&report, "bytes_after") < bytes(&report, "bytes_before") / 2, "{report:#}");
        assert_eq!(server.sql(&database, HASHES), hashes);
        let kinds =
            "SELECT pg_column_compression(content), count(*) > 0 FROM scripts WHERE length(content) > 2500 GROUP BY 1 ORDER BY 1";
        assert_eq!(server.sql(&database, kinds), "pglz|t\n|t");
        // What is no smaller was not written, and is not by the next run: an update that was taken back would have left its mark.
        let report = scenario.json(&["run-job", "scripts"]);
        assert_eq!(facts(&report)["rows_compressed"], 0, "{report:#}");
        let touched = "SELECT count(*) FROM scripts WHERE pg_column_compression(content) IS NULL AND length(content) > 2500 AND xmax <> '0'";
        assert_eq!(server.sql(&database, touched), "0");
        let lz4 = scenario.job("scripts", &format!("{text}compression = 'lz4'\n"));
        let said = lz4.run(&["run-job", "scripts", "--dry-run"]).succeeded().stdout;
        match major {
            15 => assert!(said.contains("lz4 saves too little"), "{said}"),
            _ => assert!(said.contains("no lz4") || said.contains("lz4 saves too little"), "{said}"),
        }
        if major == 15 {
            // The other way round: what lz4 stores is larger than what pglz would.
            server.sql(
                &database,
                "ALTER TABLE scripts ALTER content SET COMPRESSION lz4; UPDATE scripts SET content = content || ''",
            );
            let scenario = lz4.job("scripts", text);
            scenario.run(&["run-job", "scripts"]).succeeded();
            assert_eq!(server.sql(&database, HASHES), hashes);
        }
    }
}

#[test]
fn a_partition_is_written_anew_by_toast_and_its_siblings_are_not() {
    for major in [15, 18] {
        let server = server(major);
        let database = server.new_database();
        server.sql(
            &database,
            "CREATE TABLE all_scripts (id int PRIMARY KEY, content text) PARTITION BY RANGE (id);
             CREATE TABLE scripts PARTITION OF all_scripts FOR VALUES FROM (0) TO (100);
             CREATE TABLE others PARTITION OF all_scripts FOR VALUES FROM (100) TO (200);
             ALTER TABLE scripts ALTER content SET STORAGE EXTERNAL; ALTER TABLE others ALTER content SET STORAGE EXTERNAL;
             INSERT INTO all_scripts SELECT i, repeat('Write-Host ' || i || E'\\r\\n', 500) FROM generate_series(1, 150) i; ANALYZE",
        );
        let hashes = "SELECT md5(string_agg(id || content, ',' ORDER BY id)) FROM all_scripts";
        let before = server.sql(&database, hashes);
        let scenario = scenario(server, &database, "").job("scripts", &job("").replace("'gzip'", "'toast'"));
        let report = scenario.json(&["run-job", "scripts"]);
        assert_eq!(facts(&report)["rows_compressed"], 99, "{report:#}");
        let forms = "SELECT count(pg_column_compression(content)) FROM";
        assert_eq!(server.sql(&database, &format!("{forms} scripts")), "99");
        assert_eq!(server.sql(&database, &format!("{forms} others")), "0");
        assert_eq!(server.sql(&database, hashes), before);
        // A parent has rows of its own, and those of its children: which of them are meant?
        server.sql(&database, "CREATE TABLE parent (id int PRIMARY KEY, content text); CREATE TABLE child () INHERITS (parent)");
        let scenario = scenario.job("scripts", &job("").replace("'gzip'", "'toast'").replace("public.scripts", "public.parent"));
        scenario.run(&["run-job", "scripts"]).exited(78).says(&["public.child inherits from it"]);
    }
}

#[test]
fn a_table_that_changed_since_is_brought_up_to_date_by_another_install() {
    let server = server(18);
    let database = of_5_kb(server, 19);
    let scenario = scenario(server, &database, "");
    scenario.run(&["compress", "install", "scripts"]).succeeded();
    scenario.run(&["run-job", "scripts"]).succeeded();
    let hashes = server.sql(&database, HASHES);
    server.sql(&database, "ALTER TABLE scripts_stored ADD author text DEFAULT 'me', ALTER title SET DEFAULT 'no title'");
    scenario.run(&["compress", "install", "scripts"]).succeeded().prints(&["brought up to date"]);
    assert_eq!(server.sql(&database, "INSERT INTO scripts (content) VALUES ('x') RETURNING author, title"), "me|no title");
    server.sql(&database, "DELETE FROM scripts WHERE content = 'x'");
    assert_eq!(server.sql(&database, HASHES), hashes);
    // Something that would lose the text came later.
    server.sql(&database, "CREATE INDEX late ON scripts_stored (md5(content))");
    scenario.run(&["run-job", "scripts"]).exited(78).says(&["index late"]);
}

#[test]
fn another_column_of_the_same_table_and_a_changed_job_are_refused() {
    let server = server(18);
    let database = database(server, 10);
    server.sql(&database, "ALTER TABLE scripts ADD notes text; UPDATE scripts SET notes = repeat(md5(id::text), 500)");
    let scenario = scenario(server, &database, "").job("notes", &job("").replace("'content'", "'notes'"));
    scenario.run(&["compress", "install", "scripts"]).succeeded();
    scenario.run(&["run-job", "scripts"]).succeeded();
    let hashes = server.sql(&database, HASHES);
    for command in [&["compress", "install", "notes"][..], &["run-job", "notes"], &["compress", "undo", "notes"]] {
        scenario.run(command).exited(78).says(&["one such column"]);
    }
    let scenario = scenario.job("scripts", &job("").replace("public.scripts", "public.scripts_stored"));
    scenario.run(&["run-job", "scripts"]).exited(78).says(&["name the view"]);
    let scenario = scenario.job("scripts", &job("").replace("'gzip'", "'toast'"));
    scenario.run(&["run-job", "scripts"]).exited(78).says(&["undo"]);
    assert_eq!(server.sql(&database, HASHES), hashes);
}

#[test]
fn install_and_undo_are_runs_by_hand_with_rows_of_their_own_under_the_jobs_lock() {
    let server = server(18);
    let database = of_5_kb(server, 19);
    let scenario = scenario(server, &database, "").ledger();
    server.sql(&database, "CREATE INDEX in_the_way ON scripts (md5(content))");
    scenario.run(&["compress", "install", "scripts", "--dry-run"]).exited(78).prints(&["stored now"]).says(&["index in_the_way"]);
    scenario.run(&["compress", "install", "scripts"]).exited(78).says(&["index in_the_way"]);
    server.sql(&database, "DROP INDEX in_the_way");

    let shown = scenario.json(&["compress", "install", "scripts"]);
    assert_eq!(shown["runs"][0]["report"]["facts"]["table"], r#""public"."scripts_stored""#, "{shown:#}");
    scenario.run(&["run-job", "scripts"]).succeeded();
    scenario.run(&["compress", "undo", "scripts", "--dry-run"]).succeeded().prints(&["Turns back into text"]);
    let shown = scenario.json(&["compress", "undo", "scripts"]);
    assert_eq!(shown["runs"][0]["report"]["facts"]["rows"], 19, "{shown:#}");
    let runs = scenario.runs(&[]);
    let told: Vec<_> =
        runs.iter().map(|run| [&run["task"], &run["trigger"], &run["outcome"]].map(|value| value.as_str().unwrap())).collect();
    assert_eq!(
        told,
        [
            ["compress install", "manual", "failed"],
            ["compress install", "manual", "succeeded"],
            ["compress", "manual", "succeeded"],
            ["compress undo", "manual", "succeeded"],
        ]
    );
    assert_eq!(server.sql(&database, "SELECT count(*) FROM pgtend.runs WHERE locked_at IS NULL"), "0");
}

#[test]
fn mistakes_in_the_file_are_named_with_their_place() {
    for (more, said) in [
        ("smaller_than = '1KB'", "leaves no body between"),
        ("smaller_than = '65MB'", "too large"),
        ("compression = 'lz4'", "has no meaning"),
        ("level = 9", "level"),
    ] {
        let server = server(18);
        scenario(server, "postgres", more).run(&["check"]).exited(78).says(&[said, "scripts.toml"]);
    }
}
