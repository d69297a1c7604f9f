"""What the benchmarks of backups start beside pgtend: a PostgreSQL 18, an S3 server, a configuration; and how a command is measured."""

import json
import os
import shutil
import subprocess
import time
from pathlib import Path

import common
from common import HERE, Failed, built, end, postgres_18_with_pgvector

RECIPIENT = "age15ntu5nlxqltfr3lhutufqv44ngdhcqvrm6syas80kl42c95arsfslwpv8j"  # nobody has its secret key
MIB = 1 << 20


def text(value):
    return json.dumps(str(value))  # a JSON string is a TOML string


def clean_environment():
    """With the S3 server's own credentials; no metadata service is asked for others."""
    return common.clean_environment() | {"AWS_ACCESS_KEY_ID": "test-access-key", "AWS_SECRET_ACCESS_KEY": "test-secret-key", "AWS_EC2_METADATA_DISABLED": "true"}


class Beside:
    def __init__(self, folder, debug):
        self.folder = folder
        self.state = folder / "state"
        self.environment = clean_environment() | {"XDG_STATE_HOME": str(self.state)}
        self.pgtend, self.s3_program = built("pgtend", debug), built("examples/s3_server", debug)
        self.output, self.store, self.s3_folder = folder / "output", folder / "store", folder / "s3"
        self.proofs = folder / "proofs"
        self.running = []
        self.s3 = None
        self.stores, self.configured = "", ""

    # ---- what runs beside ---------------------------------------------------------------------------------------------

    def start(self):
        self.postgres("install", "--wheel-only")
        self.bin = postgres_18_with_pgvector(self.postgres("list"))
        self.server = self.postgres("start", self.folder / "server", "18").strip()
        for folder in (self.s3_folder, self.folder / "jobs", self.proofs):
            folder.mkdir()
        self.proofs.chmod(0o711)  # the user who runs a server there has to get in
        self.s3 = subprocess.Popen([self.s3_program, self.s3_folder], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=self.environment)
        endpoint = self.s3.stdout.readline().strip()
        if not endpoint:
            raise Failed("the S3 server did not start")
        self.stores = (
            f"[stores.directory]\npath = {text(self.store)}\n"
            f"[stores.encrypted]\npath = {text(self.store)}\nencrypt_to = [{text(RECIPIENT)}]\n"
            f"[stores.bucket]\nbucket = \"backups\"\nregion = \"us-east-1\"\nendpoint = {text(endpoint)}\n"
            f"[tools]\nbin_dir = {text(self.bin)}\nserver_bin_dir = {text(self.bin)}\nrun_as = \"nobody\"\n[verify]\nscratch_dir = {text(self.proofs)}\n"
        )

    def url(self, database):
        return self.server.removesuffix("/postgres") + f"/{database}"

    def make_database(self, name):
        """Creates it, and configures it under its name."""
        self.sql("postgres", f"CREATE DATABASE {name}")
        self.configured += f"[databases.{name}]\nurl = {text(self.url(name))}\n"
        (self.folder / "config.toml").write_text(self.configured + self.stores)

    def sql(self, database, *statements):
        """Runs each by itself, and returns what they print."""
        commands = [word for statement in statements for word in ("-c", statement)]
        return self.call(self.bin / "psql", "-X", "-q", "-A", "-t", "-v", "ON_ERROR_STOP=1", "-d", self.url(database), *commands).strip()

    def job(self, name, database, keys, store="directory"):
        (self.folder / "jobs" / f"{name}.toml").write_text(f'database = "{database}"\n[backup]\nstore = "{store}"\n{keys}\n')

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

    def pgtend_command(self, *arguments):
        return [self.pgtend, "--config", self.folder / "config.toml", *arguments]

    def run_job(self, name):
        """From nothing: without the sets of earlier runs."""
        self.clear()
        return self.measure([self.pgtend_command("run-job", name)], None, self.s3_folder if name == "bucket" else self.store)

    def measure(self, pipeline, stdout, result):
        """Runs a pipeline. CPU is of its processes and what they started, so without the server's; RSS is of the last one."""
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
        self.store.mkdir()
        for entry in self.s3_folder.iterdir():
            shutil.rmtree(entry) if entry.is_dir() else entry.unlink()
        (self.s3_folder / "backups").mkdir()


def fifty_megabytes(megabytes=50):
    """SQL: a table `fifty` whose rows have so many MB in a dump."""
    return f"CREATE TABLE fifty AS SELECT i, md5(i::text) || md5((i * 7)::text) || md5((i * 13)::text) AS body FROM generate_series(1, {round(megabytes * 1e6 / 104)}) i"


def size_of(path):
    """Of a file, or of a folder: then of the dump alone, where there is one that pgtend made."""
    if path.is_file():
        return path.stat().st_size
    files = [file for file in path.rglob("*") if file.is_file()]
    dumps = [file for file in files if file.name.removesuffix(".age") in ("dump.sql.gz", "dump.sql.zst")]
    return sum(file.stat().st_size for file in dumps or files)
