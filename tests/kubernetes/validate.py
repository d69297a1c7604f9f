"""Validates Kubernetes objects: YAML documents in files or on stdin, against the strict schemas of kubernetes-validate.

Its own validate() reads two schemas of 3 MB for every object; here each kind's validator is made once.
Beyond the schema: names that Kubernetes would refuse, two objects with one name, pods that a namespace with the Pod Security
Standard "restricted" would not take, or whose root file system is writable, network policies that let everybody in, and pages that
are open to others without a token.
"""

import argparse
import functools
import ipaddress
import json
import re
import sys
import tomllib

import importlib_resources
import jsonschema
import kubernetes_validate
import yaml
from referencing import Registry, Resource

DNS_LABEL = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?\Z")
# A CronJob's name gets 11 characters more for each Job.
LONGEST_NAME = {"CronJob": 52, "Service": 63}


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("files", nargs="*", default=["-"], help="- is stdin")
    parser.add_argument("--version", default=kubernetes_validate.latest_version(), help="of Kubernetes; default: %(default)s")
    arguments = parser.parse_args()
    count, problems = 0, 0
    seen = set()
    for file in arguments.files:
        for document in documents(file):
            count += 1
            for problem in check(document, arguments.version, seen):
                problems += 1
                print(f"{name_of(document)}: {problem}", file=sys.stderr)
    if count == 0:
        sys.exit("no object at all")
    print(f"{count} objects, {problems} problems, Kubernetes {arguments.version}")
    sys.exit(1 if problems else 0)


def documents(file):
    text = sys.stdin if file == "-" else open(file, encoding="utf-8")
    try:
        yield from (document for document in yaml.load_all(text, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader)) if document)
    except yaml.YAMLError as error:
        sys.exit(f"{file}: not YAML: {error}")


def check(document, version, seen):
    if not isinstance(document, dict) or not isinstance(document.get("kind"), str) or "apiVersion" not in document:
        yield "no Kubernetes object"
        return
    try:
        validator = validator_for(document["kind"], document["apiVersion"], version)
    except FileNotFoundError:
        yield f"Kubernetes {version} has no {document['kind']} in {document['apiVersion']}"
        return
    for error in validator.iter_errors(document):
        path = ".".join(str(part) for part in error.absolute_path)
        yield f"{path}: {error.message}"
    yield from unrestricted(document)
    yield from open_to_all(document)
    metadata = document.get("metadata") or {}
    name = metadata.get("name", "")
    longest = LONGEST_NAME.get(document["kind"], 253)
    if not DNS_LABEL.match(name) or len(name) > longest:
        yield f"the name is no DNS label of up to {longest} characters"
    identity = (document["kind"], metadata.get("namespace"), name)
    if identity in seen:
        yield "a second object with this name"
    seen.add(identity)


def unrestricted(document):
    spec = document.get("spec") or {}
    spec = (spec.get("jobTemplate") or {}).get("spec") or spec
    pod = (spec.get("template") or {}).get("spec")
    if not pod:
        return
    security = pod.get("securityContext") or {}
    if security.get("runAsNonRoot") is not True or (security.get("seccompProfile") or {}).get("type") != "RuntimeDefault":
        yield "the pod may run as root, or without a seccomp profile"
    if pod.get("automountServiceAccountToken") is not False:
        yield "the pod gets a service account's token"
    for container in pod.get("containers", []) + pod.get("initContainers", []):
        own = container.get("securityContext") or {}
        wanted = {"allowPrivilegeEscalation": False, "readOnlyRootFilesystem": True, "capabilities": {"drop": ["ALL"]}}
        if own != wanted:
            yield f"container {container['name']}: its security context is {own}, not {wanted}"


def open_to_all(document):
    spec = document.get("spec") or {}
    if document["kind"] == "NetworkPolicy":
        if "Ingress" not in spec.get("policyTypes", ["Ingress"]):
            yield "it keeps nobody out"
        for rule in spec.get("ingress") or []:
            if not rule.get("from"):
                yield "an ingress rule without `from` lets everybody in"
    if document["kind"] == "ConfigMap" and "config.toml" in (document.get("data") or {}):
        serve = tomllib.loads(document["data"]["config.toml"]).get("serve", {})
        host = serve.get("listen", "127.0.0.1:9187").rpartition(":")[0].strip("[]")
        if not ipaddress.ip_address(host).is_loopback and not {"token_file", "token_env"} & serve.keys():
            yield f"[serve] listens on {host} without a token"


@functools.cache
def validator_for(kind, api_version, version):
    # rbac.authorization.k8s.io/v1 is in rbac-v1.json
    api = re.sub(r"^([^./]*)(?:\.[^/]*)?/", r"\1-", api_version)
    schema = load(f"{kind.lower()}-{api}.json", version)
    registry = Resource.from_contents(schema) @ (definitions(version) @ Registry())
    return jsonschema.Draft202012Validator(schema, registry=registry)


@functools.cache
def definitions(version):
    return Resource.from_contents(load("_definitions.json", version))


def load(name, version):
    folder = importlib_resources.files("kubernetes_validate") / "kubernetes-json-schema" / f"v{version}-local-strict"
    return json.loads((folder / name).read_text(encoding="utf-8"))


def name_of(document):
    if not isinstance(document, dict):
        return repr(document)[:60]
    return f"{document.get('kind')}/{(document.get('metadata') or {}).get('name')}"


if __name__ == "__main__":
    main()
