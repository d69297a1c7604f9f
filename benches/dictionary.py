#!/usr/bin/env python3
"""Measures the dictionaries of `[compress]`: real texts that the dictionary never saw, against pglz and gzip, and the time to read one.

Starts PostgreSQL 18 and 15 (scripts/postgres). The texts are files of a folder, each larger than 2 kB: the modules of Python's standard
library, or what --texts names. One half is loaded and compressed, so that pgtend learns from it; then the other half, whose bytes are
compared. One text of about 20 kB is read in turns in both forms, as gzip and with the dictionary; the fastest of each counts.
Needs `cargo build --release --bin pgtend`. Writes only below the temp folder, and removes it all.
"""

import argparse
import gzip
import hashlib
import json
import random
import subprocess
import sys
import sysconfig
from pathlib import Path

from common import HERE, Failed, benchmark, clean_environment, find_facts, print_targets, release, say

MIN_BYTES, MAX_BYTES, MOST = 2_000, 200_000, 2_000
SEED = 20261130
TURNS = 15


def texts(folder, ending):
    """The texts of a folder in an order of chance, without those that are the same."""
    found = {}
    for path in sorted(Path(folder).rglob(f"*{ending}")):
        try:
            text = path.read_text("utf-8")
        except (OSError, UnicodeDecodeError):
            continue
        if MIN_BYTES < len(text.encode()) <= MAX_BYTES and "\0" not in text:
            found[text] = None
    chosen = list(found)
    random.Random(SEED).shuffle(chosen)
    if len(chosen) < 100:
        raise Failed(f"only {len(chosen)} texts in {folder}")
    return chosen[:MOST]


class Bench:
    def __init__(self, folder, options):
        self.folder, self.environment, self.servers = folder, clean_environment(), []
        self.pgtend = Path(options.pgtend) if options.pgtend else release("pgtend")
        self.texts = texts(options.texts or sysconfig.get_paths()["stdlib"], options.ending)

    def call(self, *command, text=None):
        done = subprocess.run(command, input=text, stdout=subprocess.PIPE, text=True, env=self.environment)
        if done.returncode != 0:
            raise Failed(f"{Path(command[0]).name} {' '.join(map(str, command[1:3]))} failed with {done.returncode}")
        return done.stdout.strip()

    def sql(self, text):
        return self.call(self.bin / "psql", "-X", "-q", "-At", "-v", "ON_ERROR_STOP=1", "-d", self.url, "-f", "-", text=text)

    def run(self, *arguments):
        return self.call(self.pgtend, "--config", self.folder / "config.toml", "--log", "warn", *arguments)

    def load(self, bodies):
        escaped = (body.replace("\\", "\\\\").replace("\r", "\\r").replace("\n", "\\n").replace("\t", "\\t") for body in bodies)
        self.sql("COPY scripts (content) FROM stdin;\n" + "\n".join(escaped) + "\n\\.\nANALYZE scripts;\n")

    def measure(self, major):
        found = [line.split() for line in self.call(HERE / "scripts/postgres", "list").splitlines()]
        self.bin = next((Path(path) for of, path, _ in found if of == major), None)
        if self.bin is None:
            raise Failed(f"no PostgreSQL {major}: scripts/postgres list")
        server = self.folder / f"server{major}"
        self.url = self.call(HERE / "scripts/postgres", "start", server, major)
        self.servers.append(server)
        (self.folder / "jobs").mkdir(exist_ok=True)
        (self.folder / "config.toml").write_text(f"[databases.bench]\nurl = {json.dumps(self.url)}\n[tools]\nbin_dir = {json.dumps(str(self.bin))}\n")
        (self.folder / "jobs/scripts.toml").write_text(
            'database = "bench"\n[compress]\ntable = "public.scripts"\ncolumn = "content"\nmethod = "gzip"\ndictionary = true\nlarger_than = "2KB"\n'
        )
        self.sql("CREATE TABLE scripts (id int GENERATED ALWAYS AS IDENTITY PRIMARY KEY, content text COMPRESSION pglz NOT NULL)")
        half = len(self.texts) // 2
        say(f"{major}: learning from {half} texts ...")
        self.load(self.texts[:half])
        self.run("compress", "install", "scripts", "--force")
        learned = find_facts(json.loads(self.run("--json", "run-job", "scripts")))["dictionary"]
        self.load(self.texts[half:])
        hashes = "SELECT md5(string_agg(encode(sha256(convert_to(content, 'UTF8')), 'hex'), ',' ORDER BY id)) FROM scripts"
        before = self.sql(hashes)
        pglz = dict(line.split("|") for line in self.sql(f"SELECT id, pg_column_size(content) FROM scripts_stored WHERE id > {half} AND octet_length(content) > 2000").splitlines())
        facts = find_facts(json.loads(self.run("--json", "run-job", "scripts")))
        kept = dict(
            line.split("|")
            for line in self.sql(
                "SELECT id, coalesce(pg_column_size(content_gz) + pg_column_size(content_sha256), pg_column_size(content))"
                f" FROM scripts_stored WHERE id > {half}"
            ).splitlines()
        )
        same = self.sql(hashes) == before
        plain = {str(half + 1 + number): text.encode() for number, text in enumerate(self.texts[half:])}
        zipped = sum(len(gzip.compress(plain[id], 9)) + 36 for id in pglz)
        sums = (sum(len(plain[id]) for id in pglz), sum(map(int, pglz.values())), zipped, sum(int(kept[id]) for id in pglz))
        return (learned, facts["dictionary"]), len(pglz), sums, same, self.times()

    def times(self):
        """The fastest time in milliseconds to read one text of about 20 kB as gzip, and with the dictionary; and its bytes."""
        id, size = self.sql(
            "SELECT s.id, octet_length(v.content) FROM scripts_stored s JOIN scripts v USING (id)"
            " WHERE get_byte(s.content_gz, 0) = 1 ORDER BY abs(octet_length(v.content) - 20000) LIMIT 1"
        ).split("|")
        body = self.sql(f"SELECT encode(convert_to(content, 'UTF8'), 'hex') FROM scripts WHERE id = {id}")
        body = bytes.fromhex(body)
        said = self.sql(
            f"""
            CREATE TABLE forms AS SELECT content_gz AS with_dictionary, decode('{gzip.compress(body, 9).hex()}', 'hex') AS gz, decode('{hashlib.sha256(body).hexdigest()}', 'hex') AS hash
            FROM scripts_stored WHERE id = {id};
            DO $$ DECLARE started timestamptz; BEGIN
                CREATE TEMP TABLE times (form text, ms float8);
                FOR turn IN 1..{TURNS} LOOP
                    started := clock_timestamp();
                    PERFORM scripts_pgtend_gunzip(gz, hash, 'UTF8') FROM forms;
                    INSERT INTO times VALUES ('gzip', extract(epoch FROM clock_timestamp() - started) * 1000);
                    started := clock_timestamp();
                    PERFORM scripts_pgtend_gunzip(with_dictionary, hash, 'UTF8') FROM forms;
                    INSERT INTO times VALUES ('with', extract(epoch FROM clock_timestamp() - started) * 1000);
                END LOOP;
            END $$;
            SELECT round(min(ms) FILTER (WHERE form = 'gzip')::numeric, 2), round(min(ms) FILTER (WHERE form = 'with')::numeric, 2) FROM times
            """
        )
        return [float(ms) for ms in said.split("|")] + [int(size)]

    def close(self):
        for server in self.servers:
            self.call(HERE / "scripts/postgres", "destroy", server)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--texts", help="a folder of real texts; default the standard library of this Python")
    parser.add_argument("--ending", default=".py", help="the ending of their names; default .py")
    parser.add_argument("--pgtend", help="the binary; default the release build")
    parser.add_argument("--strict", action="store_true", help="exit with 1 when a target is missed")
    options = parser.parse_args()

    def work(bench):
        targets = []
        print("| PostgreSQL | texts | plain text | pglz | gzip | with a dictionary | reading 20 kB: gzip | with a dictionary |\n|---|---:|---:|---:|---:|---:|---:|---:|")
        for major in ("18", "15"):
            dictionaries, count, (raw, pglz, zipped, kept), same, (as_gzip, with_dictionary, size) = bench.measure(major)
            shares = " | ".join(f"{part / 1e6:.2f} MB ({part / raw:.3f})" for part in (pglz, zipped, kept))
            print(f"| {major} | {count:,} | {raw / 1e6:.2f} MB | {shares} | {as_gzip:.1f} ms | {with_dictionary:.1f} ms |")
            targets += [
                (f"{major}: every text reads as it was", same, "SHA-256 through the view"),
                (f"{major}: the second half finds the dictionary of the first", dictionaries == ("new", "present"), " and ".join(dictionaries)),
                (f"{major}: at most 0.50 of pglz", kept <= 0.5 * pglz, f"{kept / pglz:.3f}, gzip {zipped / pglz:.3f}"),
                (f"{major}: reading {size / 1000:.0f} kB takes no longer than gzip", with_dictionary <= as_gzip, f"{with_dictionary:.1f} ms against {as_gzip:.1f}"),
            ]
        print()
        missed = print_targets(targets)
        return 1 if options.strict and missed else 0

    return benchmark(lambda folder: Bench(folder, options), work)


if __name__ == "__main__":
    sys.exit(main())
