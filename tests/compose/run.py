"""Runs what compose/compose.yaml names, without containers: tests/compose/run."""

import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import yaml

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent.parent
COMPOSE = ROOT / "compose"
RCLONE = Path(sys.executable).parent / "rclone"
SECRETS = ["app-url", "postgres-password", "serve-token"]


def main():
    pgtend = Path(sys.argv[1]).resolve()
    services = yaml.safe_load((COMPOSE / "compose.yaml").read_text())["services"]
    # Sockets have short paths, and root's servers run as nobody, who has to get in.
    folder = Path(tempfile.mkdtemp(prefix="pgtend-compose-", dir="/tmp" if os.geteuid() == 0 else None))
    folder.chmod(0o755)
    server = s3 = None
    try:
        secrets_are_made(folder)
        url = call([ROOT / "scripts/postgres", "start", folder / "server"]).strip()
        server = folder / "server"
        port = free_port()
        call(command_of(services["bucket"], folder, port))
        s3 = subprocess.Popen(command_of(services["s3"], folder, port), stderr=subprocess.PIPE)
        wait_for(port)
        backs_up(pgtend, folder, services["pgtend"]["environment"], url, port)
    finally:
        if s3:
            s3.terminate()
            s3.wait(10)
        if server:
            call([ROOT / "scripts/postgres", "destroy", server])
        shutil.rmtree(folder)
    print("ok")


def secrets_are_made(folder):
    """compose/up, with docker-compose's reading of the file in the place of its running."""
    copy = folder / "repo/compose"
    shutil.copytree(COMPOSE, copy, ignore=shutil.ignore_patterns("secrets"))
    compose = shutil.which("docker-compose")
    call([copy / "up"], COMPOSE=f"{compose} config -q --no-interpolate #" if compose else "true")
    made = {file.name: file.read_text() for file in (copy / "secrets").iterdir()}
    assert sorted(made) == SECRETS, sorted(made)
    assert (copy / "secrets").stat().st_mode & 0o077 == 0, "others may not look into the folder"
    assert made["postgres-password"] in made["app-url"] and len(made["serve-token"]) == 64, made
    call([copy / "up"], COMPOSE="true")
    assert made == {file.name: file.read_text() for file in (copy / "secrets").iterdir()}, "a second call changes no secret"
    print("compose.yaml:", f"{compose} reads it" if compose else "not read: no docker-compose here")


def command_of(service, folder, port):
    data = folder / "data"
    data.mkdir(exist_ok=True)
    return [RCLONE, *(word.replace("/data", str(data)).replace(":9000", f"127.0.0.1:{port}") for word in service["command"])]


def backs_up(pgtend, folder, environment, url, port):
    etc = folder / "etc"
    shutil.copytree(COMPOSE / "jobs", etc / "jobs")
    (etc / "app-url").write_text(url)
    (etc / "serve-token").write_text("0" * 64)
    config = (COMPOSE / "config.toml").read_text()
    for was, becomes in [("/run/secrets", str(etc)), ("http://s3:9000", f"http://127.0.0.1:{port}"), ("0.0.0.0:9187", "127.0.0.1:9187")]:
        assert was in config, was
        config = config.replace(was, becomes)
    (etc / "config.toml").write_text(config + "\n[tools]\n" + tools())
    ours = {name: value for name, value in environment.items() if name.startswith("AWS_")}
    paths = {"PGTEND_CONFIG": str(etc / "config.toml"), "PGTEND_JOBS": str(etc / "jobs"), "XDG_STATE_HOME": str(folder / "state")}
    call([pgtend, "check", "--connect"], **ours, **paths)
    print(call([pgtend, "run-job", "backup"], **ours, **paths).strip())
    listed = call([pgtend, "backups", "list"], **ours, **paths)
    assert "intact" in listed and "  on 1" in listed, f"not restored: {listed}"
    print(call([pgtend], **ours, **paths).strip())


def tools():
    line = call([ROOT / "scripts/postgres", "list"]).splitlines()[0]
    return f'bin_dir = "{line.split()[1]}"\n'


def free_port():
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        return listening.getsockname()[1]


def wait_for(port):
    for _ in range(100):
        try:
            return socket.create_connection(("127.0.0.1", port), 1).close()
        except OSError:
            time.sleep(0.1)
    raise SystemExit("the S3 server does not listen")


def call(command, **environment):
    ours = {name: value for name, value in os.environ.items() if not name.startswith(("PG", "AWS_"))}
    kept = {name: value for name, value in os.environ.items() if name == "PGTEND_POSTGRES_CACHE"}
    done = subprocess.run([str(word) for word in command], env=ours | kept | environment, capture_output=True, text=True, timeout=300)
    if done.returncode:
        raise SystemExit(f"{command}: exit code {done.returncode}\n{done.stdout}{done.stderr}")
    return done.stdout


main()
