"""The resources of `istio/`, as an operator applies them, and Istio's own schemas to hold them against."""

from __future__ import annotations

import functools
import json
import subprocess
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).resolve().parents[2]
SETS = ROOT / "istio"
TOOLS = ROOT / ".tools" / "deploy"
Json = dict[str, Any]

# Values of Helm charts: no resources.
VALUES = ["mesh/istiod-values.yaml", "spire/istiod-values.yaml"]
# The folders in which calls are checked, each with the files that are applied for it.
PLACES = ["sidecar", "egress-gateway", "ingress-gateway", "waypoint"]


class _Strict(yaml.SafeLoader):
    """A key that is there twice is a mistake: YAML's readers take one of the two."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> Json:
        keys = [self.construct_object(key) for key, _ in node.value]
        twice = {key for key in keys if keys.count(key) > 1}
        if twice:
            raise yaml.constructor.ConstructorError(None, None, f"twice: {twice}", node.start_mark)
        return super().construct_mapping(node, deep)


def documents(text: str) -> list[Json]:
    return [document for document in yaml.load_all(text, _Strict) if document is not None]


@dataclass(frozen=True)
class Resource:
    file: str  # below istio/
    body: Json

    @property
    def kind(self) -> str:
        return str(self.body["kind"])

    @property
    def name(self) -> str:
        return str(self.body["metadata"]["name"])

    @property
    def namespace(self) -> str | None:
        """None: it is applied to each namespace that wants it."""
        return self.body["metadata"].get("namespace")

    @property
    def spec(self) -> Json:
        return self.body["spec"]

    def __str__(self) -> str:
        return f"{self.file} {self.kind} {self.name}"


@functools.cache
def resources() -> tuple[Resource, ...]:
    found = []
    for path in sorted(SETS.rglob("*.yaml")):
        file = str(path.relative_to(SETS))
        if file not in VALUES:
            found += [Resource(file, document) for document in documents(path.read_text())]
    return tuple(found)


def of_kind(*kinds: str) -> list[Resource]:
    return [resource for resource in resources() if resource.kind in kinds]


def values(file: str) -> Json:
    (document,) = documents((SETS / file).read_text())
    return document


def mesh_config() -> Json:
    return values("mesh/istiod-values.yaml")["meshConfig"]


def pod_specs() -> list[tuple[str, Json]]:
    """Every pod, the parts of one that a waypoint's Deployment is merged with included."""
    found = [(str(it), it.spec["template"]) for it in of_kind("Deployment")]
    for resource in of_kind("ConfigMap"):
        if overlay := resource.body["data"].get("deployment"):
            (document,) = documents(overlay)
            found.append((str(resource), document["spec"]["template"]))
    return found


def walk(value: object, path: str = "") -> Iterator[tuple[str, object]]:
    """Everything inside, with the path to it."""
    yield path, value
    if isinstance(value, dict):
        for key, inside in value.items():
            yield from walk(inside, f"{path}.{key}")
    elif isinstance(value, list):
        for at, inside in enumerate(value):
            yield from walk(inside, f"{path}[{at}]")


# ------------------------------------------------------------------------------------------------------------- schemas


def run(*command: str | Path) -> None:
    done = subprocess.run([str(part) for part in command], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr.strip() or done.stdout.strip()


@functools.cache
def schemas() -> Mapping[tuple[str, str], Json]:
    """By `apiVersion` and `kind`, made strict: what a schema does not name is refused."""
    run("tests/deploy/istio-crds.sh")
    found = {}
    for path in sorted((TOOLS / "istio-crds").glob("*.yaml")):
        for crd in yaml.load_all(path.read_text(), yaml.CSafeLoader):
            for version in crd["spec"]["versions"]:
                key = f"{crd['spec']['group']}/{version['name']}", crd["spec"]["names"]["kind"]
                found[key] = strict(version["schema"]["openAPIV3Schema"])
    return found


def strict(schema: Json) -> Json:
    """As the API server prunes: only what is named may be there. CEL rules (`x-kubernetes-validations`) are not run."""
    out = dict(schema)
    if "properties" in schema:
        out["properties"] = {name: strict(inside) for name, inside in schema["properties"].items()}
        if "additionalProperties" not in schema and not schema.get("x-kubernetes-preserve-unknown-fields"):
            out["additionalProperties"] = False
    for key in ("items", "additionalProperties"):
        if isinstance(schema.get(key), dict):
            out[key] = strict(schema[key])
    return out


def resource_schema(key: tuple[str, str]) -> Json:
    schema = dict(schemas()[key])
    # The API server's own: of the metadata only what is used here.
    named = {name: {"type": "string"} for name in ("name", "namespace")}
    texts = {"type": "object", "additionalProperties": {"type": "string"}}
    metadata = {
        "type": "object",
        "properties": {**named, "labels": texts, "annotations": texts},
        "required": ["name"],
        "additionalProperties": False,
    }
    text = {"type": "string"}
    schema["properties"] = {**schema["properties"], "apiVersion": text, "kind": text, "metadata": metadata}
    return schema


def strict_proto(questions: list[Json]) -> list[str]:
    """The mistakes in messages, each a name, a type and a value; see tools/strict-proto."""
    run("tests/deploy/install.sh", "strict-proto")
    asked = "".join(json.dumps(question) + "\n" for question in questions)
    done = subprocess.run([TOOLS / "strict-proto"], input=asked, capture_output=True, text=True)
    mistakes = done.stdout.splitlines()
    assert done.returncode == (1 if mistakes else 0) and not done.stderr, done.stderr
    return mistakes
