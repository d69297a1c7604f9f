#!/usr/bin/env python3
"""Compares `[partition]` with pg_partman and with DROP TABLE by hand: how long it takes to retire old partitions, and who waits for it.

Starts a PostgreSQL 15 of its own (scripts/postgres) and turns fsync on. A table has monthly partitions, those of more than 90 days ago
are to go; one of them is large. Each case has a database of its own, once alone, once with pgbench on the table and a reader that
began before and reads on for three seconds, as a report does. Prints a Markdown table of medians and the targets.
Needs `cargo build --release --bin pgtend` and Debian's postgresql-15-partman. Writes only below the temp folder, and removes it all.
"""

import argparse
import json
import os
import signal
import statistics
import subprocess
import sys
import time
from pathlib import Path

from common import HERE, Failed, at_most, benchmark, clean_environment, print_targets, release, say

BIN = Path("/usr/lib/postgresql/15/bin")
SMALL, LARGE, QUICK_LARGE = 10_000, 2_000_000, 200_000
MONTHS, RETAIN_DAYS = 8, 90
RATE, CLIENTS = 300, 4
READ_SECONDS = 3
PGTEND, PARTMAN, BY_HAND = "pgtend", "pg_partman", "DROP TABLE by hand"

TABLE = "CREATE TABLE logs (id bigint NOT NULL, created_at timestamptz NOT NULL, message text, PRIMARY KEY (id, created_at)) PARTITION BY RANGE (created_at)"
FILL = """
INSERT INTO logs SELECT row, date_trunc('month', now()) - interval '225 days', repeat(md5(row::text), 4) FROM generate_series(1, {rows}) AS row;
VACUUM (ANALYZE) logs; CHECKPOINT;
"""
PARTITIONS = f"""
DO $$ BEGIN FOR i IN -{MONTHS} .. 3 LOOP
    EXECUTE format('CREATE TABLE logs_p%s PARTITION OF logs FOR VALUES FROM (%L) TO (%L)', to_char(date_trunc('month', now()) + i * interval '1 month', 'YYYY_MM'),
                   date_trunc('month', now()) + i * interval '1 month', date_trunc('month', now()) + (i + 1) * interval '1 month');
END LOOP; END $$
"""
PARTITIONS_OF_PARTMAN = f"""
CREATE SCHEMA partman; CREATE EXTENSION pg_partman SCHEMA partman;
SELECT partman.create_parent('public.logs', 'created_at', 'native', '1 month', p_premake := 3, p_start_partition := (date_trunc('month', now()) - interval '{MONTHS} months')::text);
UPDATE partman.part_config SET retention = '{RETAIN_DAYS} days', retention_keep_table = false;
"""
OLD = f"""
SELECT format('DROP TABLE %s', inhrelid::regclass) FROM pg_inherits JOIN pg_class c ON c.oid = inhrelid WHERE inhparent = 'logs'::regclass
AND substring(pg_get_expr(relpartbound, c.oid) FROM $$TO \\('(.*)'\\)$$)::timestamptz < now() - interval '{RETAIN_DAYS} days' ORDER BY 1
"""
APPLICATION = """\
\\set id random(1, 1000000000)
INSERT INTO logs VALUES (:id, clock_timestamp(), 'x');
SELECT count(*) FROM logs WHERE created_at > now() - interval '1 second';
"""


class Bench:
    def __init__(self, folder, options):
        self.folder = folder
        self.environment = clean_environment()
        self.pgtend = Path(options.pgtend) if options.pgtend else release("pgtend")
        self.running, self.made = [], 0

    def start(self):
        server = self.call(HERE / "scripts/postgres", "start", self.folder / "server", "15").strip()
        self.base = server.removesuffix("/postgres")
        self.server = server
        if self.sql(server, "SELECT count(*) FROM pg_available_extensions WHERE name = 'pg_partman'") != "1":
            raise Failed("no pg_partman: apt-get install postgresql-15-partman")
        self.sql(server, "ALTER SYSTEM SET fsync = on", "ALTER SYSTEM SET autovacuum = off", "SELECT pg_reload_conf()")

    def close(self):
        for process in self.running:
            process.kill()
            process.wait()
        self.call(HERE / "scripts/postgres", "destroy", self.folder / "server")

    def call(self, *command):
        done = subprocess.run(list(map(str, command)), stdin=subprocess.DEVNULL, capture_output=True, text=True, env=self.environment)
        if done.returncode != 0:
            raise Failed(f"{Path(command[0]).name} failed with {done.returncode}:\n{done.stderr[-3000:]}")
        return done.stdout

    def sql(self, url, *statements):
        return self.call(BIN / "psql", "-X", "-q", "-At", "-v", "ON_ERROR_STOP=1", "-d", url, *(word for sql in statements for word in ("-c", sql))).strip()

    def launch(self, command, **keywords):
        process = subprocess.Popen(list(map(str, command)), text=True, env=self.environment, **keywords)
        self.running.append(process)
        return process

    def retire(self, who, rows, beside):
        """Seconds that it took; with `beside`, also the longest that a transaction of the application took, in milliseconds."""
        self.made += 1
        name = f"retire{self.made}"
        url = f"{self.base}/{name}"
        self.sql(self.server, f"CREATE DATABASE {name}")
        self.sql(url, TABLE)
        script = self.folder / "fill.sql"
        script.write_text((PARTITIONS_OF_PARTMAN if who == PARTMAN else PARTITIONS) + ";" + FILL.format(rows=rows))
        self.call(BIN / "psql", "-X", "-q", "-v", "ON_ERROR_STOP=1", "-d", url, "-f", script)
        os.sync()
        command = self.command(who, name, url)
        application = self.application(name, url) if beside else None
        reader = self.reader(url) if beside else None
        started = time.monotonic()
        self.call(*command)
        seconds = time.monotonic() - started
        left = self.sql(url, "SELECT count(*) FROM logs WHERE created_at < now() - interval '91 days'")
        if left != "0":
            raise Failed(f"{who} left {left} rows")
        slowest = self.slowest(name, application, reader) if beside else None
        self.sql(self.server, f"DROP DATABASE {name}")
        return seconds, slowest

    def command(self, who, name, url):
        psql = [BIN / "psql", "-X", "-q", "-At", "-v", "ON_ERROR_STOP=1", "-d", url]
        if who == PARTMAN:
            return psql + ["-c", "CALL partman.run_maintenance_proc(p_analyze := false)"]
        if who == BY_HAND:
            return psql + [word for sql in self.sql(url, OLD).splitlines() for word in ("-c", sql)]
        folder = self.folder / name
        (folder / "jobs").mkdir(parents=True)
        (folder / "config.toml").write_text(f"[databases.bench]\nurl = {json.dumps(url)}\n")
        (folder / "jobs/tend.toml").write_text(
            f'database = "bench"\n[partition]\ntable = "logs"\ncolumn = "created_at"\nevery = "month"\nretain = "{RETAIN_DAYS}d"\ngrace = "0s"\n'
        )
        return [self.pgtend, "--config", folder / "config.toml", "--log", "error", "run-job", "tend"]

    def application(self, name, url):
        (self.folder / "pgbench.sql").write_text(APPLICATION)
        command = [BIN / "pgbench", "-n", "-f", self.folder / "pgbench.sql", "-c", CLIENTS, "-j", 1, "-R", RATE, "-T", 600]
        process = self.launch(command + ["--log", f"--log-prefix={self.folder}/{name}", url], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
        time.sleep(1)
        return process

    def reader(self, url):
        process = self.launch([BIN / "psql", "-X", "-q", "-At", "-d", url], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        process.stdin.write("BEGIN; SELECT count(*) FROM logs WHERE created_at > now(); SELECT 'reads' FROM logs LIMIT 1;\n")
        process.stdin.flush()
        process.stdout.readline()
        process.stdin.write(f"SELECT pg_sleep({READ_SECONDS}); COMMIT;\n")
        process.stdin.close()
        return process

    def slowest(self, name, application, reader):
        reader.wait(60)
        self.running.remove(reader)
        time.sleep(0.5)
        application.send_signal(signal.SIGALRM)  # as if its time were over
        said = application.communicate(timeout=60)[1]
        self.running.remove(application)
        if application.returncode != 0:
            raise Failed(f"pgbench failed:\n{said[-2000:]}")
        fields = [line.split() for file in self.folder.glob(f"{name}.*") if file.is_file() for line in file.read_text().splitlines()]
        return max(int(line[2]) for line in fields) / 1000


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, help="runs of each (default 3; with --quick 1)")
    parser.add_argument("--quick", action="store_true", help=f"{QUICK_LARGE:,} rows and one round: to try, not to measure")
    parser.add_argument("--pgtend", help="another binary than target/release/pgtend")
    options = parser.parse_args()
    rounds = options.rounds or (1 if options.quick else 3)
    large = QUICK_LARGE if options.quick else LARGE

    def work(bench):
        bench.start()
        results = {}
        for number in range(rounds):
            for who in (PGTEND, PARTMAN, BY_HAND):
                for key, rows, beside in (("small", SMALL, False), ("large", large, False), ("beside", large, True)):
                    results.setdefault(who, {}).setdefault(key, []).append(bench.retire(who, rows, beside))
                found = {key: tries[-1] for key, tries in results[who].items()}
                say(f"round {number + 1}: {who}: {found['small'][0]:.2f} s, {found['large'][0]:.2f} s; with a reader {found['beside'][0]:.2f} s, slowest transaction {found['beside'][1]:.0f} ms")
        print_results(results, large)
        return 0

    return benchmark(lambda folder: Bench(folder, options), work)


def print_results(results, large):
    middle = lambda who, key, what: statistics.median(tried[what] for tried in results[who][key])
    print(f"\n| | {SMALL:,} rows: s | {large:,} rows: s | with a reader of {READ_SECONDS} s: s | slowest transaction beside, ms |")
    print("|---|---:|---:|---:|---:|")
    for who in results:
        print(f"| {who} | {middle(who, 'small', 0):.2f} | {middle(who, 'large', 0):.2f} | {middle(who, 'beside', 0):.2f} | {middle(who, 'beside', 1):.0f} |")
    print()
    small, whole = middle(PGTEND, "small", 0), middle(PGTEND, "large", 0)
    # What the kernel takes to free a file's pages and blocks is paid by everybody who drops a table; it comes after the commit.
    files = middle(BY_HAND, "large", 0) - middle(BY_HAND, "small", 0)
    targets = (
        (f"retiring {large:,} rows against {SMALL:,}", whole / small, 2),
        ("the same, without what a plain DROP TABLE takes longer for the larger file", (whole - files) / small, 2),
        ("longest wait of a transaction beside, against pg_partman", middle(PGTEND, "beside", 1) / middle(PARTMAN, "beside", 1), 1),
    )
    print_targets((what, *at_most(measured, limit)) for what, measured, limit in targets)


if __name__ == "__main__":
    sys.exit(main())
