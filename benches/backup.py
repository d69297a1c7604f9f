#!/usr/bin/env python3
"""Compares pgtend's backups, restores and proofs with what people use instead, on a dump of some 490 MB; `make bench` runs it.

Starts a PostgreSQL 18 of its own (scripts/postgres), fills it (demo/seed.sql), and runs each contender once per round, in
turn, so that whatever else the machine does meets all of them. Prints a Markdown table of medians and the targets.
Needs `cargo build --release --bin pgtend --example s3_server`. Writes only below the temp folder, and removes it all.
How time and memory grow with the data: scale.py.
"""

import argparse
import os
import shutil
import statistics
import subprocess
import sys
import time

import common
from beside import MIB, Beside, fifty_megabytes
from common import HERE, benchmark, say

SEED = {"scripts": 5000, "embeddings": 11000, "logs": 900000, "messages": 1500}
TINY = {"scripts": 30, "embeddings": 300, "logs": 2000, "messages": 10}
BASE, NULL = "pg_dump \\| gzip -6", "pg_dump > /dev/null"
DIRECTORY, UPLOAD, ZSTD = "pgtend, to a directory", "pgtend, to S3", "pgtend, zstd 1"
ONE, MANY = "pgtend, one table", "pgtend, eight tables"
PSQL, PG_RESTORE, RESTORE = "createdb; gunzip \\| psql", "createdb; pg_restore -j2", "pgtend restore"
NO_PROOF, NO_PROOF_SERIAL = "pgtend, without a proof (fsync on)", "pgtend, without a proof, one session (fsync on)"
PROOF, SCRATCH = "pgtend, with a proof in a server of its own (fsync on)", "pgtend, with a proof in a scratch database (fsync on)"
COUNTED = "pgtend, with a proof in a server of its own that only counts rows (fsync on)"
SCRATCH_SERIAL = "pgtend, in a scratch database, one session (fsync on)"
ENCRYPTED = "pgtend, encrypted"
JOBS_RUNS = 20


class Bench(Beside):
    def __init__(self, folder, options):
        super().__init__(folder, options.debug)
        self.options = options

    def start(self):
        super().start()
        say("seeding ...")
        for name in ("bench", "one_table", "tables"):
            self.make_database(name)
        seed = TINY if self.options.debug else SEED
        variables = [word for name, value in seed.items() for word in ("-v", f"{name}={value}")]
        self.call(self.bin / "psql", "-X", "-q", *variables, "-f", HERE / "demo/seed.sql", self.url("bench"))
        rows = round(self.options.table_gb * 1e9 / 464)
        self.sql("one_table", f"CREATE TABLE t AS {rows_of(1, rows)}")
        self.sql("tables", *(f"CREATE TABLE t{number} AS {rows_of(number, rows // 8)}" for number in range(8)))
        # The table that comes back alone stands beside all else; in both, so that they have the same size.
        for name in ("one_table", "tables"):
            self.sql(name, fifty_megabytes(0.5 if self.options.debug else 50))
        for name in ("bench", "one_table", "tables"):
            self.sql(name, "VACUUM ANALYZE")  # now, not by autovacuum while we measure
        self.sql("bench", "CHECKPOINT")
        self.write_jobs()

    def write_jobs(self):
        wide = f"sessions = {self.options.sessions}\nthreads = {max(self.options.sessions, min(4, os.cpu_count()))}"
        gzip, none = f"{wide}\n", 'verify = "none"\n'
        self.job("directory", "bench", none + gzip)
        self.job("zstd", "bench", none + gzip + 'compression = "zstd"\nlevel = 1')
        self.job("encrypted", "bench", none + gzip, store="encrypted")
        self.job("bucket", "bench", none + gzip, store="bucket")
        self.job("checksum", "bench", 'verify = "checksum"\n' + gzip)
        self.job("proof", "bench", 'verify = "restore"\nscratch = "throwaway"\n' + gzip)
        self.job("counted", "bench", 'verify = { restore = "always", rows = "count" }\nscratch = "throwaway"\n' + gzip)
        self.job("scratch", "bench", 'verify = "restore"\nscratch = "same"\n' + gzip)
        # As the first release did it.
        serial = "sessions = 1\n"
        self.job("serial", "bench", none + serial)
        self.job("serial_scratch", "bench", 'verify = "restore"\nscratch = "same"\n' + serial)
        self.job("one", "one_table", none + gzip)
        self.job("many", "tables", none + gzip)
        self.job("part", "one_table", none + gzip, store="bucket")
        for number, keys in enumerate(self.options.variant):
            self.job(f"variant{number}", "bench", none + keys.replace(",", "\n"))

    # ---- what is measured ---------------------------------------------------------------------------------------------

    def contenders(self):
        """Title and how to run it; each returns a dict of figures."""
        dump = [self.bin / "pg_dump", "-d", self.url("bench")]
        file, folder = self.output / "dump", self.output / "folder"
        list_ = {
            NULL: lambda: self.alone([dump], None, None),
            BASE: lambda: self.alone([dump, ["gzip", "-6"]], file, file),
            "pg_dump -Fc": lambda: self.alone([dump + ["-Fc"]], file, file),
            "pg_dump \\| pigz -6": lambda: self.alone([dump, ["pigz", "-6"]], file, file),
            "pg_dump -Fd -j2": lambda: self.alone([dump + ["-Fd", "-j2", "-f", folder]], None, folder),
            DIRECTORY: lambda: self.run_job("directory"),
            ENCRYPTED: lambda: self.run_job("encrypted"),
            ZSTD: lambda: self.run_job("zstd"),
            UPLOAD: lambda: self.run_job("bucket"),
            ONE: lambda: self.run_job("one"),
            MANY: lambda: self.run_job("many"),
        }
        if not have_pigz():
            say("no pigz here and none could be installed: its row is left out")
            del list_["pg_dump \\| pigz -6"]
        for number, keys in enumerate(self.options.variant):
            list_[f"pgtend, {keys}"] = lambda name=f"variant{number}": self.run_job(name)
        return list_

    def restores(self):
        """The same for restores, of dumps that are made once, each into a database of its own."""
        self.clear()
        custom, plain = self.folder / "custom", self.folder / "plain.gz"
        dump = [self.bin / "pg_dump", "-d", self.url("bench")]
        self.measure([dump + ["-Fc"]], custom, None)
        self.measure([dump, ["gzip", "-6"]], plain, None)
        self.measure([self.pgtend_command("run-job", "directory")], None, None)
        into = ["-d", self.url("copy")]
        restore = ["backups", "restore", "latest", "--into", self.url("copy"), "--create", *self.options.restore.split()]
        psql = [self.bin / "psql", "-X", "-q", "-o", os.devnull, *into]
        return {
            PSQL: lambda: self.into_a_copy([["gunzip", "-c", plain], psql], makes_it=True),
            PG_RESTORE: lambda: self.into_a_copy([[self.bin / "pg_restore", "-j2", *into, custom]], makes_it=True),
            RESTORE: lambda: self.into_a_copy([self.pgtend_command(*restore)], makes_it=False),
        }

    def into_a_copy(self, pipeline, makes_it):
        self.sql("postgres", "DROP DATABASE IF EXISTS copy", "CHECKPOINT")
        started = time.perf_counter()
        if makes_it:
            self.sql("postgres", "CREATE DATABASE copy TEMPLATE template0")
        made = time.perf_counter() - started
        measured = self.measure(pipeline, None, None)
        return measured | {"wall": measured["wall"] + made}

    def alone(self, pipeline, stdout, result):
        self.clear()
        return self.measure(pipeline, stdout, result)

    def like_production(self):
        """From here on, the server waits for its disk. Autovacuum, which comes when it likes, is off: its WAL is not ours."""
        self.sql("postgres", "ALTER SYSTEM SET fsync = on", "ALTER SYSTEM SET autovacuum = off", "SELECT pg_reload_conf()", "CHECKPOINT")
        os.sync()

    def in_production(self):
        """The same for proofs on a server like production's: by several sessions here and there, and as the first release did."""
        return {
            NO_PROOF: lambda: self.run_job("directory"),
            PROOF: lambda: self.run_job("proof"),
            COUNTED: lambda: self.run_job("counted"),
            SCRATCH: lambda: self.run_job("scratch"),
            NO_PROOF_SERIAL: lambda: self.run_job("serial"),
            SCRATCH_SERIAL: lambda: self.run_job("serial_scratch"),
        }

    def wal_of_a_proof(self):
        """Bytes of WAL that the source writes while a set is made and proved. Whoever reads a row first notes on its page that its
        transaction has ended, which costs WAL where pages have checksums: a proof before this one has read all that is read."""
        lsn = "SELECT pg_current_wal_lsn()"
        self.clear()
        self.measure([self.pgtend_command("run-job", "proof")], None, None)
        self.clear()
        self.sql("postgres", "CHECKPOINT")
        time.sleep(20)  # within 15 s after other WAL, the background writer notes once which transactions run
        before = self.sql("bench", lsn)
        self.measure([self.pgtend_command("run-job", "proof")], None, None)
        return int(self.sql("bench", f"SELECT pg_current_wal_lsn() - '{before}'::pg_lsn"))

    def time_of_a_part(self):
        """A table of 50 MB out of a large set in the bucket: its rows, and as a table beside the living one."""
        self.clear()
        self.measure([self.pgtend_command("run-job", "part")], None, None)
        fetch = self.measure([self.pgtend_command("backups", "fetch", "latest", "--job", "part", "--table", "public.fifty")], None, None)
        restore = ("backups", "restore", "latest", "--job", "part", "--into", "one_table", "--table", "public.fifty", "--as", "public.fifty_again")
        restored = self.measure([self.pgtend_command(*restore)], None, None)
        return fetch["wall"], restored["wall"]

    def time_of_jobs(self):
        command = self.pgtend_command("jobs")
        started = time.perf_counter()
        self.call(*command)
        return time.perf_counter() - started


def rows_of(seed, rows):
    """SQL of rows of about 464 bytes each."""
    body = " || ".join(f"md5((i * {factor} + {seed})::text)" for factor in (3, 7))
    return f"SELECT i AS id, now() AS at, {body} || repeat('executed script ' || i % 1000 || ' in 12 ms; ', 12) AS body FROM generate_series(1, {rows}) i"


def have_pigz():
    if not shutil.which("pigz") and shutil.which("apt-get") and os.geteuid() == 0:
        say("installing pigz with apt-get ...")
        subprocess.run(["apt-get", "-q", "install", "-y", "--no-install-recommends", "pigz"], stdin=subprocess.DEVNULL, stdout=sys.stderr)
    return shutil.which("pigz") is not None


# ---- what is said ---------------------------------------------------------------------------------------------------------


def medians(runs):
    of = lambda name: statistics.median(run[name] for run in runs)
    walls = [run["wall"] for run in runs]
    figures = {"wall": of("wall"), "low": min(walls), "high": max(walls), "cpu": of("cpu"), "rss": max(run["rss"] for run in runs)}
    return figures | {"bytes": of("bytes") if runs[0]["bytes"] else None}


def table(results):
    base = results[BASE]
    lines = ["| | wall s | lowest–highest | × gzip -6 | client CPU s | output MB | × gzip -6 | peak RSS MiB |", "|---|---:|---:|---:|---:|---:|---:|---:|"]
    for title, row in results.items():
        size, ratio = ("–", "–") if row["bytes"] is None else (f"{row['bytes'] / 1e6:.1f}", f"{row['bytes'] / base['bytes']:.2f}")
        rss = f"{row['rss'] / MIB:.0f}" if title.startswith("pgtend") else "–"
        lines.append(f"| {title} | {row['wall']:.1f} | {row['low']:.1f}–{row['high']:.1f} | {row['wall'] / base['wall']:.2f} | {row['cpu']:.1f} | {size} | {ratio} | {rss} |")
    return "\n".join(lines)


def targets(results, once):
    """(what, measured, limit, unit) for each; the limits are those of issues 2 and 18."""
    ours, upload = results[DIRECTORY], results[UPLOAD]
    wall = lambda title, against: results[title]["wall"] / results[against]["wall"]
    yield "gzip against `pg_dump | gzip -6`", wall(DIRECTORY, BASE), 0.25, "×"
    yield "gzip against `pg_dump -Fd -j2`", wall(DIRECTORY, "pg_dump -Fd -j2"), 0.45, "×"
    if "pg_dump \\| pigz -6" in results:
        yield "gzip against `pg_dump | pigz -6`", wall(DIRECTORY, "pg_dump \\| pigz -6"), 0.45, "×"
    yield "zstd 1 against `pg_dump > /dev/null`", wall(ZSTD, NULL), 1.05, "×"
    yield "one table against eight of the same size together", wall(ONE, MANY), 1.10, "×"
    yield "object against gzip -6's", ours["bytes"] / results[BASE]["bytes"], 1.0, "×"
    yield "peak memory, to a directory", ours["rss"] / MIB, 96, " MiB"
    yield "peak memory, to S3", upload["rss"] / MIB, 96, " MiB"
    yield "peak memory, restore", results[RESTORE]["rss"] / MIB, 96, " MiB"
    yield "wall time to S3 against to a directory", upload["wall"] / ours["wall"], 1.30, "×"
    yield "wall time encrypted against not", results[ENCRYPTED]["wall"] / ours["wall"], 1.10, "×"
    yield "restore against `pg_restore -j2`", wall(RESTORE, PG_RESTORE), 1.0, "×"
    if PROOF in results:
        proof = lambda proved, title: results[proved]["wall"] - results[title]["wall"]
        first = proof(PROOF, NO_PROOF) / proof(SCRATCH_SERIAL, NO_PROOF_SERIAL)
        yield "proof in a server of its own against one in a scratch database by one session", first, 0.7, "×"
        yield "a proof that hashes rows against one that counts them", proof(PROOF, NO_PROOF) / proof(COUNTED, NO_PROOF), 1.25, "×"
        yield "dump and proof together against `pg_dump | gzip -6`", wall(PROOF, BASE), 0.75, "×"
        yield "WAL of the source during dump and proof", once["wal"], 0, " bytes"
    yield "a table of 50 MB from S3, its rows", once["fetch"], 3, " s"
    yield "a table of 50 MB from S3, restored beside", once["part"], 3, " s"
    yield "`pgtend jobs`, start to end", once["jobs"] * 1000, 50, " ms"


def run(bench, rounds):
    bench.start()
    say("warming up ...")
    contenders = list(bench.contenders().items())
    contenders[0][1]()
    results = rounds_of(contenders, rounds) | rounds_of(list(bench.restores().items()), rounds)
    fetch, part = bench.time_of_a_part()
    jobs = statistics.median(bench.time_of_jobs() for _ in range(JOBS_RUNS))
    once = {"fetch": fetch, "part": part, "jobs": jobs}
    if not bench.options.no_verify:
        results['pgtend, verify = "checksum" (once)'] = medians([bench.run_job("checksum")])
        bench.like_production()
        results |= rounds_of(list(bench.in_production().items()), rounds)
        once["wal"] = bench.wal_of_a_proof()
    return results, once


def rounds_of(contenders, rounds):
    runs = {title: [] for title, _ in contenders}
    for number in range(rounds):
        # Forth and back: whoever comes after a costly neighbour is not always the same.
        for title, measure in contenders if number % 2 == 0 else reversed(contenders):
            runs[title].append(measure())
            say(f"round {number + 1}: {title}: {runs[title][-1]['wall']:.2f} s")
    return {title: medians(measured) for title, measured in runs.items()}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3, help="runs of each contender (default 3)")
    parser.add_argument("--sessions", type=int, default=2, help="sessions of pgtend's dumps (default 2)")
    parser.add_argument("--restore", default="", metavar="WORDS", help="more words for `backups restore`")
    parser.add_argument("--table-gb", type=float, default=1.0, help="GB of the dump of the one table, and of the eight (default 1)")
    parser.add_argument("--strict", action="store_true", help="exit with 1 when a target is missed")
    parser.add_argument("--variant", action="append", default=[], metavar="KEYS", help='one more pgtend row with these job keys: --variant "level = 3, threads = 3"')
    parser.add_argument("--no-verify", action="store_true", help="leave out what is verified: by checksum, and by restore")
    parser.add_argument("--debug", action="store_true", help="the debug build and little data: to try this script, not to measure")
    options = parser.parse_args()
    if options.rounds < 1:
        parser.error("--rounds: 1 or more")
    if options.debug:
        options.table_gb = min(options.table_gb, 0.01)

    def work(bench):
        results, once = run(bench, options.rounds)
        print(f"{os.cpu_count()} processors, PostgreSQL 18 without fsync, {options.rounds} rounds, medians (peak RSS: highest), {options.sessions} sessions\n")
        print(table(results))
        print()
        missed = common.print_targets(
            (what, *common.at_most(measured, limit, unit, 3 if unit == "×" else 1)) for what, measured, limit, unit in targets(results, once)
        )
        return 1 if missed and options.strict else 0

    return benchmark(lambda folder: Bench(folder, options), work)


if __name__ == "__main__":
    sys.exit(main())
