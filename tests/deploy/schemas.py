"""Make .tools/deploy/schemas: what Kubernetes and the operators beside it take, as JSON Schemas that know no other field.

From the Go modules that define them, pinned by version and hash below. A second run with the same pins does nothing.
Run it from anywhere: python tests/deploy/schemas.py
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).resolve().parents[2]
SCHEMAS = ROOT / ".tools/deploy/schemas"

# The newest, and an older one.
KUBERNETES = {
    "1.37.2": "h1:A2VDEiObzkYqFTKhSsn0ZEb0RlLEXpHWj93gi2HqEwE=",
    "1.34.4": "h1:Yy6R4QB8C9kJPp25GFqEvX5XQwY5qzKeqD0Xx6oAcmk=",
}
# Module, version, hash of what is in it, and the files in it that are custom resource definitions.
CUSTOM = [
    ("istio.io/api", "v1.31.1", "h1:5Yb5ihcz4YQsCkciusK7DnFpBMwRB6EFWeUKH1Atuyk=", "kubernetes/customresourcedefinitions.gen.yaml"),
    ("github.com/prometheus-operator/prometheus-operator", "v0.85.0", "h1:M5xLCLEoaW2IJfnuCwFzzpL+jSVQu3KGT84Pye+fW8s=", "example/prometheus-operator-crd/*.yaml"),
    ("github.com/cilium/cilium", "v1.20.2", "h1:dqiEGIcXc+gqCLYG/l7VCFJ8GHyb4HUrwbZOpkX5dL8=", "pkg/k8s/apis/cilium.io/client/crds/v2/*.yaml"),
    # Calico has no tagged module; this is its newest version that a module proxy names.
    ("github.com/projectcalico/calico", "v1.11.0-cni-plugin.0.20250813170300-a0db560f0520", "h1:TXnPEzx4pLWgwzCetIO/VJuz4iBZZrOdNSv16a50YqE=",
     "libcalico-go/config/crd/crd.projectcalico.org_globalnetworkpolicies.yaml"),
]
# Calico's own API server takes the kinds that it keeps in crd.projectcalico.org/v1 under this name, with the same `spec`.
ALSO_AS = {("crd.projectcalico.org", "v1"): ("projectcalico.org", "v3")}

# As kubeconform is told to look for them; the group of what has none is its version there.
LOCATION = "{{.Group}}_{{.ResourceKind}}_{{.ResourceAPIVersion}}.json"

Schema = dict[str, Any]


class Loader(getattr(yaml, "CSafeLoader", yaml.SafeLoader)):
    """YAML as Go's parser reads it: a lone `=` is a text."""


Loader.add_constructor("tag:yaml.org,2002:value", Loader.construct_yaml_str)


def main() -> None:
    pins = hashlib.sha256(Path(__file__).read_bytes()).hexdigest()
    mark = SCHEMAS / ".version"
    if mark.is_file() and mark.read_text() == pins:
        return
    print("palisade: fetching the schemas of Kubernetes and others (for the tests, once: 90 MB) ...", file=sys.stderr)
    SCHEMAS.parent.mkdir(parents=True, exist_ok=True)
    work = Path(tempfile.mkdtemp(prefix="schemas.", dir=SCHEMAS.parent))
    try:
        made = work / "made"
        for version, pin in KUBERNETES.items():
            source = module("k8s.io/kubernetes", f"v{version}", pin, work)
            write(made / version, built_in(json.loads((source / "api/openapi-spec/swagger.json").read_text())))
        for name, version, pin, files in CUSTOM:
            source = module(name, version, pin, work)
            found = sorted(source.glob(files))
            if not found:
                raise SystemExit(f"palisade: {name} {version} has no {files}")
            for path in found:
                write(made / "custom", custom(path))
        (made / ".version").write_text(pins)
        shutil.rmtree(SCHEMAS, ignore_errors=True)
        made.rename(SCHEMAS)
    finally:
        shutil.rmtree(work, ignore_errors=True)


def module(name: str, version: str, pin: str, work: Path) -> Path:
    """Where the module lies, once its hash is the pinned one."""
    environment = dict(os.environ, GOMODCACHE=str(work / "modules"), GOFLAGS="-modcacherw", GOTOOLCHAIN="local")
    environment["PATH"] += ":/usr/local/go/bin"
    try:
        done = subprocess.run(
            ["go", "mod", "download", "-json", f"{name}@{version}"], env=environment, capture_output=True, text=True, cwd=work
        )
    except FileNotFoundError:
        raise SystemExit("palisade: Go is missing; install Go 1.26.2 or newer") from None
    if done.returncode:
        raise SystemExit(f"palisade: {name} {version} cannot be downloaded: {(done.stderr or done.stdout).strip()[-300:]}")
    got = json.loads(done.stdout)
    if got["Sum"] != pin:
        raise SystemExit(f"palisade: {name} {version} has the hash {got['Sum']}, and not {pin}")
    return Path(got["Dir"])


def write(folder: Path, schemas: Iterator[tuple[str, str, str, Schema]]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for group, kind, version, schema in schemas:
        (folder / f"{group or version}_{kind.lower()}_{version}.json").write_text(json.dumps(schema))


def built_in(swagger: Schema) -> Iterator[tuple[str, str, str, Schema]]:
    """Every kind of the API, with the definitions that it needs."""
    definitions = {name: strict(one) for name, one in swagger["definitions"].items()}
    for name, definition in swagger["definitions"].items():
        for kind in definition.get("x-kubernetes-group-version-kind", []):
            if len(definition["x-kubernetes-group-version-kind"]) > 1 or kind["kind"].endswith("List"):
                continue
            needed: dict[str, Schema] = {}
            gather(name, definitions, needed)
            yield kind["group"], kind["kind"], kind["version"], {"$ref": f"#/definitions/{name}", "definitions": needed}


def gather(name: str, definitions: dict[str, Schema], into: dict[str, Schema]) -> None:
    if name in into:
        return
    into[name] = definitions[name]
    for reference in references(definitions[name]):
        gather(reference, definitions, into)


def references(value: Any) -> Iterator[str]:
    if isinstance(value, dict):
        if isinstance(value.get("$ref"), str):
            yield value["$ref"].removeprefix("#/definitions/")
        for inner in value.values():
            yield from references(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from references(inner)


def custom(path: Path) -> Iterator[tuple[str, str, str, Schema]]:
    for definition in yaml.load_all(path.read_text(), Loader):
        if not definition:
            continue
        spec = definition["spec"]
        for version in spec["versions"]:
            schema = strict(version["schema"]["openAPIV3Schema"])
            schema["properties"].update({"apiVersion": {"type": "string"}, "kind": {"type": "string"}, "metadata": METADATA})
            yield spec["group"], spec["names"]["kind"], version["name"], schema
            if also := ALSO_AS.get((spec["group"], version["name"])):
                yield also[0], spec["names"]["kind"], also[1], schema


TEXTS = {"type": "object", "additionalProperties": {"type": "string"}}
METADATA: Schema = {
    "type": "object",
    "additionalProperties": False,
    "properties": {"name": {"type": "string"}, "namespace": {"type": "string"}, "labels": TEXTS, "annotations": TEXTS},
    "required": ["name"],
}


def strict(schema: Any, whole: bool = True) -> Any:
    """The same schema, in which an object has no member that it does not name; rules in CEL are not kept. What is not `whole`
    describes a part of an object that another schema describes."""
    if isinstance(schema, list):
        return [strict(one, whole) for one in schema]
    if not isinstance(schema, dict):
        return schema
    if schema.get("x-kubernetes-int-or-string") or schema.get("format") == "int-or-string":
        return {"anyOf": [{"type": "integer"}, {"type": "string"}]}
    if is_quantity(schema):
        return {"anyOf": [{"type": "number"}, {"type": "string"}]}
    kept = {}
    for key, value in schema.items():
        if key.startswith("x-kubernetes-") or key in ("format", "description", "example", "nullable"):
            continue
        # Members of `properties` are names, and any name may be one.
        if key == "properties":
            kept[key] = {name: strict(one, whole) for name, one in value.items()}
        else:
            kept[key] = strict(value, whole and key not in ("allOf", "anyOf", "oneOf", "not"))
    open_to_all = schema.get("x-kubernetes-preserve-unknown-fields") or "additionalProperties" in schema
    if whole and "properties" in kept and not open_to_all:
        kept["additionalProperties"] = False
    if schema.get("nullable") and isinstance(kept.get("type"), str):
        kept["type"] = [kept["type"], "null"]
    return kept


def is_quantity(schema: Schema) -> bool:
    """Kubernetes' swagger describes a quantity as a text, and takes a number as well."""
    return schema.get("type") == "string" and "fixed-point representation of a number" in schema.get("description", "")


if __name__ == "__main__":
    main()
