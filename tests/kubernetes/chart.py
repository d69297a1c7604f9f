"""Renders the Helm chart in kubernetes/helm, and looks at what comes out: tests/kubernetes/chart."""

import subprocess
import sys
import tempfile
from pathlib import Path

import yaml

HERE = Path(__file__).resolve().parent
CHART = HERE.parent.parent / "kubernetes/helm/pgtend"
EXAMPLES = CHART.parent / "examples"
HELM = Path(sys.executable).parent / "helm"
OLDEST = "1.31.0"  # as tests/kubernetes/validate
SECRETS = {"app-url": "postgres://app@main-rw/app", "serve-token": "0" * 64, "uri": "postgres://app:secret@main-rw/app", "ca.crt": "no certificate"}
# Objects of others' definitions, of which Kubernetes has no schema.
FOREIGN = ("ServiceMonitor",)

# What a person might write, and a word of the refusal.
WRONG = [
    (["--set", "secrets.existing=x,service.prot=1"], "prot"),
    (["--set", "secrets.existing=x,service.port=80"], "service.port"),
    (["--set", "secrets.existing=x", "--set-json", "networkPolicy.from=[]"], "networkPolicy.from"),
    (["--set", "secrets.existing=x", "--set-json", 'jobs={"../evil.toml": "x"}'], "jobs"),
    (["--set", "secrets.existing=x", "--set-json", 'moreSecrets=[{"secret": "a", "folder": "secrets"}]'], "moreSecrets"),
    (["--set", "secrets.existing=x", "--set-json", 'volumes=[{"name": "a", "path": "store", "size": "1Gi"}]'], "volumes"),
    (["--set", "secrets.existing=x,podDisruptionBudget.maxUnavailable=2"], "podDisruptionBudget.maxUnavailable"),
    (["--set", "secrets.existing=x,config="], "config"),
    ([], "secrets.existing"),
]


def main():
    pgtend = Path(sys.argv[1]).resolve()
    examples = sorted(EXAMPLES.glob("*.yaml"))
    assert len(examples) >= 5, examples
    failed = 0
    for title, values in [("defaults", ["--set", "secrets.existing=pgtend"])] + [(file.name, ["-f", file]) for file in examples]:
        problems = list(problems_of(values, pgtend))
        failed += bool(problems)
        print(f"{title}: {'; '.join(problems) or 'ok'}")
    for values, word in WRONG:
        refused = helm("template", "nightly", CHART, *values)
        is_right = refused.returncode != 0 and word in refused.stderr
        failed += not is_right
        print(f"refused {values}: {'ok' if is_right else refused.stderr or 'it was taken'}")
    sys.exit(1 if failed else 0)


def problems_of(values, pgtend):
    yield from failures(helm("lint", "--strict", CHART, *values))
    rendered = helm("template", "nightly", CHART, "--namespace", "databases", *values)
    yield from failures(rendered)
    objects = [document for document in yaml.safe_load_all(rendered.stdout) if document]
    kinds = [document["kind"] for document in objects]
    for kind in ("ConfigMap", "Deployment", "Service", "NetworkPolicy", "PodDisruptionBudget"):
        if kind not in kinds:
            yield f"no {kind}"
    ours = yaml.safe_dump_all([document for document in objects if document["kind"] not in FOREIGN])
    for version in ([], ["--version", OLDEST]):
        yield from failures(run([sys.executable, HERE / "validate.py", *version, "-"], ours))
    yield from selectors(objects)
    yield from configuration(objects, pgtend)


def selectors(objects):
    """Who selects pods selects the Deployment's, and the monitor the Service."""
    labels = next(document for document in objects if document["kind"] == "Deployment")["spec"]["template"]["metadata"]["labels"]
    for document in objects:
        spec = document.get("spec", {})
        selector = spec.get("podSelector") or spec.get("selector") or {}
        wanted = selector.get("matchLabels", selector)
        if not wanted.items() <= labels.items():
            yield f"{document['kind']} selects {wanted}"


def configuration(objects, pgtend):
    """pgtend itself reads the files as the pod would see them: the folders are the mounts of the Deployment."""
    maps = {document["metadata"]["name"]: document["data"] for document in objects if document["kind"] == "ConfigMap"}
    pod = next(document for document in objects if document["kind"] == "Deployment")["spec"]["template"]["spec"]
    volumes = {volume["name"]: volume for volume in pod["volumes"]}
    with tempfile.TemporaryDirectory() as folder:
        etc = Path(folder)
        for mount in pod["containers"][0]["volumeMounts"]:
            path = etc / Path(mount["mountPath"]).relative_to("/etc/pgtend") if mount["mountPath"].startswith("/etc/pgtend") else None
            volume = volumes[mount["name"]]
            if "configMap" in volume and "subPath" in mount:
                path.write_text(maps[volume["configMap"]["name"]][mount["subPath"]])
            elif "configMap" in volume:
                write(path, maps[volume["configMap"]["name"]])
            elif "secret" in volume:
                keys = [item["key"] for item in volume["secret"].get("items", [])] or SECRETS
                write(path, {key: SECRETS[key] for key in keys})
        checked = run([pgtend, "--config", etc / "config.toml", "check"], "")
        yield from failures(checked)


def write(folder, files):
    folder.mkdir()
    for name, text in files.items():
        (folder / name).write_text(text)
        (folder / name).chmod(0o600)


def failures(done):
    if done.returncode:
        yield f"{Path(str(done.args[0])).name} {done.args[1]}: {(done.stderr or done.stdout).strip()}"


def helm(*arguments):
    return run([HELM, *arguments], "")


def run(command, text):
    return subprocess.run([str(word) for word in command], input=text, capture_output=True, text=True, timeout=120)


main()
