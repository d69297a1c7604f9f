#!/usr/bin/env python3
"""How pgtend's dumps and restores grow with the data: time and memory at 0.1, 1 and 10 GB, by one or several sessions.

Starts a PostgreSQL 18 of its own (scripts/postgres). A database of each size has one table with four fifths of the data, others
with the rest, and one of 50 MB, which is fetched alone from S3. Prints a Markdown table, and whether time is linear and memory flat.
Needs `cargo build --release --bin pgtend --example s3_server`, and four times the largest size below the temp folder (TMPDIR).
"""

import argparse
import os
import shutil
import statistics
import sys

from beside import MIB, Beside, fifty_megabytes
from common import at_most, benchmark, print_targets, say

GB = 1e9
ROW_BYTES = 436  # of a dump
OTHERS = 4
# The database, its dump in the folder and in the bucket, and the copy.
SPACE = 4
MEMORY_MIB = 96
# Seconds per GB of a size may be so much more than of the size before it: a server that no longer has all data in memory reads them.
LINEAR = 1.25
FLAT = 1.25


class Bench(Beside):
    def __init__(self, folder, options):
        super().__init__(folder, options.debug)
        self.options = options

    def fill(self, name, size):
        """A database whose dump has so many GB."""
        say(f"filling a database of {size:g} GB ...")
        self.make_database(name)
        fifty = min(0.05, size / 2)
        rows = round((size - fifty) * GB / ROW_BYTES)
        body = "md5(i::text) || md5((i * 7)::text) || repeat('executed script ' || i % 1000 || ' in 12 ms; ', 11)"
        of = lambda count: f"SELECT i AS id, now() AS at, i % 100 AS kind, {body} AS body FROM generate_series(1, {count}) i"
        self.sql(name, f"CREATE TABLE large AS {of(rows * 4 // 5)}", "ALTER TABLE large ADD PRIMARY KEY (id)", "CREATE INDEX ON large (kind)")
        self.sql(name, *(f"CREATE TABLE other_{number} AS {of(rows // 5 // OTHERS)}" for number in range(OTHERS)))
        self.sql(name, fifty_megabytes(fifty * 1000), "VACUUM ANALYZE", "CHECKPOINT")

    def figures(self, name, sessions, rounds):
        """Seconds and bytes of memory of a dump, of its restore, and of one table from S3: medians, and the highest memory."""
        threads = max(sessions, min(4, os.cpu_count()))
        keys = f'verify = "none"\nsessions = {sessions}\nthreads = {threads}'
        self.job(name, name, keys)
        self.job(f"{name}_s3", name, keys, store="bucket")
        runs = [self.round(name, sessions) for _ in range(rounds)]
        of = lambda what, figure: [run[what][figure] for run in runs]
        walls = {what: statistics.median(of(what, "wall")) for what in runs[0]}
        return walls, {what: max(of(what, "rss")) for what in runs[0]}

    def round(self, name, sessions):
        measured = {"dump": self.run_job(name)}
        words = self.options.restore.replace("{sessions}", str(sessions)).split()
        restore = self.pgtend_command("backups", "restore", "latest", "--job", name, "--into", self.url("copy"), "--create", *words)
        measured["restore"] = self.measure([restore], None, None)
        self.sql("postgres", "DROP DATABASE copy", "CHECKPOINT")
        self.clear()  # the folder's set goes before the bucket's comes
        measured["pg_restore"] = self.pg_restore(name, sessions)
        measured["upload"] = self.measure([self.pgtend_command("run-job", f"{name}_s3")], None, None)
        fetch = self.pgtend_command("backups", "fetch", "latest", "--job", f"{name}_s3", "--table", "public.fifty")
        measured["fetch"] = self.measure([fetch], None, None)
        return measured


    def pg_restore(self, name, sessions):
        """The same restore by PostgreSQL's own means, of an archive that was made just before."""
        archive = self.folder / "beside.dump"
        self.call(self.bin / "pg_dump", "-Fc", "-Z1", "-f", archive, "-d", self.url(name))
        self.sql("postgres", "CREATE DATABASE copy TEMPLATE template0", "CHECKPOINT")
        measured = self.measure([[self.bin / "pg_restore", f"-j{sessions}", "-d", self.url("copy"), archive]], None, None)
        self.sql("postgres", "DROP DATABASE copy", "CHECKPOINT")
        archive.unlink()
        return measured


def run(bench):
    bench.start()
    options, results = bench.options, {}
    for number, size in enumerate(options.sizes):
        free = shutil.disk_usage(bench.folder).free
        if free < size * GB * SPACE:
            say(f"{size:g} GB are left out: {free / GB:.0f} GB are free, and {size * SPACE:.0f} are needed")
            continue
        name = f"scale_{number}"
        bench.fill(name, size)
        for sessions in options.sessions:
            results[size, sessions] = bench.figures(name, sessions, options.rounds)
            walls, _ = results[size, sessions]
            say(f"{size:g} GB, {sessions} sessions: dump {walls['dump']:.1f} s, restore {walls['restore']:.1f} s")
        bench.clear()
        bench.sql("postgres", f"DROP DATABASE {name}")
    return results


def table(results, sessions):
    lines = [
        "| GB | sessions | dump s | MB/s | × 1st | RSS MiB | restore s | MB/s | × 1st | RSS MiB | pg_restore s | to S3 s | RSS MiB | 50 MB from S3, s |",
        "|---:|---:|---:|---:|---:|---:|---:|---:|---:|---:|---:|---:|---:|---:|",
    ]
    for (size, count), (walls, memory) in results.items():
        first, _ = results[size, sessions[0]]
        of = lambda what: f"{walls[what]:.1f} | {size * 1000 / walls[what]:.0f} | {first[what] / walls[what]:.2f} | {memory[what] / MIB:.0f}"
        lines.append(f"| {size:g} | {count} | {of('dump')} | {of('restore')} | {walls['pg_restore']:.1f} | {walls['upload']:.1f} | {memory['upload'] / MIB:.0f} | {walls['fetch']:.1f} |")
    return "\n".join(lines)


def targets(results, sessions):
    """What is measured, whether it is met, and the figures."""
    for count in sessions:
        of = {size: figures for (size, number), figures in results.items() if number == count}
        sizes = sorted(of)
        for what in ("dump", "restore", "upload"):
            for smaller, larger in zip(sizes, sizes[1:]):
                ratio = of[larger][0][what] / larger / (of[smaller][0][what] / smaller)
                yield f"{count} sessions, {what}: seconds per GB at {larger:g} GB against {smaller:g} GB", *at_most(ratio, LINEAR)
            most = max(of[size][1][what] for size in sizes) / MIB
            yield f"{count} sessions, {what}: memory at every size", *at_most(most, MEMORY_MIB, " MiB", 1)
            # An upload has larger parts for a larger database.
            if what != "upload" and len(sizes) > 1:
                yield f"{count} sessions, {what}: memory at {sizes[-1]:g} GB against {sizes[0]:g} GB", *at_most(of[sizes[-1]][1][what] / of[sizes[0]][1][what], FLAT)
        for size in sizes:
            beside = of[size][0]["restore"] / of[size][0]["pg_restore"]
            yield f"{count} sessions, {size:g} GB: restore against `pg_restore -j{count}`", *at_most(beside, 1)
        yield f"{count} sessions: a table of 50 MB out of {sizes[-1]:g} GB from S3", *at_most(of[sizes[-1]][0]["fetch"], 3, " s", 1)


def numbers(kind):
    return lambda words: [kind(word) for word in words.split(",")]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", type=numbers(float), default=[0.1, 1, 10], help="GB of the dumps (default 0.1,1,10)")
    parser.add_argument("--sessions", type=numbers(int), default=[1, 2], help="sessions of the dumps (default 1,2): speed-up is against the first")
    parser.add_argument("--rounds", type=int, default=1, help="runs of each (default 1)")
    parser.add_argument("--restore", default="", metavar="WORDS", help="more words for `backups restore`; {sessions} stands for their number")
    parser.add_argument("--strict", action="store_true", help="exit with 1 when a target is missed")
    parser.add_argument("--debug", action="store_true", help="the debug build: to try this script, not to measure")
    options = parser.parse_args()
    if options.rounds < 1 or not options.sizes or min(options.sizes) <= 0 or min(options.sessions) < 1:
        parser.error("--rounds, --sizes and --sessions: above 0")

    def work(bench):
        results = run(bench)
        print(f"{os.cpu_count()} processors, PostgreSQL 18 without fsync, {options.rounds} rounds\n")
        print(table(results, options.sessions))
        print()
        missed = print_targets(targets(results, options.sessions)) if results else 1
        return 1 if missed and options.strict else 0

    return benchmark(lambda folder: Bench(folder, options), work)


if __name__ == "__main__":
    sys.exit(main())
