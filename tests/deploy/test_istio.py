"""The four places of `istio/`: whether Istio takes the resources as they are meant, and whether they say what has to hold.

Not here: what istiod makes of them (`test_istiod.py`, on demand), and a cluster.
"""

from __future__ import annotations

import copy
import subprocess
import sys
import tomllib
from pathlib import Path

import jsonschema
import pytest
import yaml

import charts
from istio_sets import (
    PLACES, ROOT, SETS, Json, Resource, documents, mesh_config, of_kind, pod_specs, resource_schema, resources, schemas,
    strict_proto, values, walk,
)  # fmt: skip

sys.path.insert(0, str(ROOT))

from demo.mesh import binary  # noqa: E402

CORE = {"v1", "apps/v1"}
# No module of the SPIRE controller manager can be had here: its resources were held against its sources by eye.
WITHOUT_SCHEMA = {("spire.spiffe.io/v1alpha1", "ClusterSPIFFEID"), ("spire.spiffe.io/v1alpha1", "ClusterFederatedTrustDomain")}
EXTAUTHZ = "envoy.filters.http.ext_authz"
HCM = "envoy.filters.network.http_connection_manager"
PATCHED = {
    "HTTP_FILTER": "envoy.extensions.filters.network.http_connection_manager.v3.HttpFilter",
    "NETWORK_FILTER": "envoy.config.listener.v3.Filter",
    "VIRTUAL_HOST": "envoy.config.route.v3.VirtualHost",
}
MESSAGES = {
    "AuthorizationPolicy": "istio.security.v1beta1.AuthorizationPolicy",
    "DestinationRule": "istio.networking.v1alpha3.DestinationRule",
    "EnvoyFilter": "istio.networking.v1alpha3.EnvoyFilter",
    "PeerAuthentication": "istio.security.v1beta1.PeerAuthentication",
    "ServiceEntry": "istio.networking.v1alpha3.ServiceEntry",
    "Telemetry": "istio.telemetry.v1alpha1.Telemetry",
    "VirtualService": "istio.networking.v1alpha3.VirtualService",
}


def provider(name: str) -> Json:
    (found,) = [one for one in mesh_config()["extensionProviders"] if one["name"] == name]
    return found


def key_of(resource: Resource) -> tuple[str, str]:
    return resource.body["apiVersion"], resource.kind


def mistakes(resource: Resource) -> list[str]:
    validator = jsonschema.Draft4Validator(resource_schema(key_of(resource)))
    return [f"{error.json_path}: {error.message}" for error in validator.iter_errors(resource.body)]


OF_ISTIO = [it for it in resources() if it.body["apiVersion"] not in CORE and key_of(it) not in WITHOUT_SCHEMA]


# -------------------------------------------------------------------------------------------------- as Istio reads them


@pytest.mark.parametrize("resource", OF_ISTIO, ids=str)
def test_it_is_what_the_schema_says_and_nothing_more(resource: Resource) -> None:
    assert key_of(resource) in schemas(), f"{resource}: no such resource"
    assert not mistakes(resource)


@pytest.mark.parametrize(
    ("kind", "path", "wrong"),
    [
        ("AuthorizationPolicy", "action", "CUSTOMS"),
        ("AuthorizationPolicy", "providers", {"name": "palisade"}),
        ("PeerAuthentication", "mtls", {"mode": "STRICTLY"}),
        ("EnvoyFilter", "configPatch", []),
        ("ServiceEntry", "resolution", "STATICS"),
    ],
)
def test_the_schema_refuses_what_is_misspelt(kind: str, path: str, wrong: object) -> None:
    body = copy.deepcopy(of_kind(kind)[0].body)
    body["spec"][path] = wrong
    assert mistakes(Resource("", body))


def test_every_kind_is_known() -> None:
    known = {*schemas(), *WITHOUT_SCHEMA}
    assert {key_of(it) for it in resources() if it.body["apiVersion"] not in CORE} <= known
    core = {"ConfigMap", "Deployment", "Namespace", "Service", "ServiceAccount"}
    assert {it.kind for it in resources() if it.body["apiVersion"] in CORE} <= core


@pytest.mark.parametrize("version", ["1.37.2", "1.34.4"])
def test_kubernetes_takes_its_own_kinds(version: str) -> None:
    own = [it.body for it in resources() if it.body["apiVersion"] in ("v1", "apps/v1")]
    assert {"ConfigMap", "Deployment", "Service", "ServiceAccount"} <= {body["kind"] for body in own}
    charts.conforms(own, version)


def test_mesh_config_is_read_without_a_rest() -> None:
    questions = [
        {"name": file, "type": "istio.mesh.v1alpha1.MeshConfig", "value": values(file)["meshConfig"]}
        for file in ("mesh/istiod-values.yaml", "spire/istiod-values.yaml")
    ]
    assert not strict_proto(questions)
    misspelt = copy.deepcopy(questions[0])
    misspelt["value"]["extensionProviders"][0]["envoyExtAuthzGrpc"]["failOpened"] = False
    assert "failOpened" in strict_proto([misspelt])[0]


def test_every_resource_is_read_without_a_rest() -> None:
    specs = [{"name": str(it), "type": MESSAGES[it.kind], "value": it.spec} for it in OF_ISTIO if it.kind in MESSAGES]
    assert len(specs) > 15
    # Kubernetes' own Gateway has no such message.
    gateways = [it for it in of_kind("Gateway") if it.body["apiVersion"].startswith("networking.istio.io")]
    specs += [{"name": str(it), "type": "istio.networking.v1alpha3.Gateway", "value": it.spec} for it in gateways]
    assert not strict_proto(specs)


def patches() -> list[tuple[str, Json]]:
    found = [
        (f"{it} [{at}]", patch) for it in of_kind("EnvoyFilter") for at, patch in enumerate(it.spec["configPatches"])
    ]
    assert len(found) >= 4 * 3
    return found


def with_values() -> list[tuple[str, Json]]:
    return [(name, patch) for name, patch in patches() if patch["patch"]["operation"] != "REMOVE"]


def question(name: str, patch: Json) -> Json:
    # What is merged has the rest of its fields from istiod; what is inserted has to be whole.
    whole = patch["patch"]["operation"] != "MERGE"
    return {"name": name, "type": PATCHED[patch["applyTo"]], "whole": whole, "value": patch["patch"]["value"]}


def test_envoy_filters_are_read_without_a_rest() -> None:
    assert not strict_proto([question(name, patch) for name, patch in with_values()])


@pytest.mark.parametrize("setting", ["encode_raw_headers", "include_peer_certificate", "max_stream_duration", "google_re2"])
def test_a_misspelt_setting_of_an_envoy_filter_is_found(setting: str) -> None:
    found = 0
    for name, patch in with_values():
        text = yaml.safe_dump(patch)
        if f" {setting}:" in text:
            (misspelt,) = documents(text.replace(f"{setting}:", f"{setting}x:"))
            assert f"{setting}x" in "".join(strict_proto([question(name, misspelt)]))
            found += 1
    assert found >= 3


# --------------------------------------------------------------------------------------------------------- the contract


def test_the_provider_fails_closed() -> None:
    grpc = provider("palisade")["envoyExtAuthzGrpc"]
    assert grpc["failOpen"] is False and grpc["statusOnError"] == "503" and grpc["timeout"] == "0.25s"
    assert grpc["includeRequestBodyInCheck"] == {
        "maxRequestBytes": 65536,
        "allowPartialMessage": False,
        "packAsBytes": True,
    }
    default = tomllib.loads((ROOT / "src" / "config" / "default.toml").read_text())
    text = (ROOT / "src" / "config" / "default.toml").read_text()
    limits = {key: value for _, table in walk(default) if isinstance(table, dict) for key, value in table.items()}
    assert "deadline_ms" in text and limits["deadline_ms"] < 250
    assert limits["body_bytes"] >= 65536
    # What is matched is a prefix: no other provider's name may begin with this one and be asked instead.
    others = [one["name"] for one in mesh_config()["extensionProviders"] if one["name"] != "palisade"]
    assert not [name for name in others if "palisade".startswith(name)]


def test_the_provider_is_the_socket_that_palisade_listens_on() -> None:
    namespace, host = provider("palisade")["envoyExtAuthzGrpc"]["service"].split("/")
    entries = {it.file: it for it in of_kind("ServiceEntry") if it.spec["hosts"] == [host]}
    assert set(entries) == {"mesh/provider.yaml", "sidecar/loopback/provider.yaml"}
    addresses = {}
    for file, entry in entries.items():
        assert entry.namespace == namespace and entry.spec["resolution"] == "STATIC" and entry.spec["exportTo"] == ["*"]
        (port,) = entry.spec["ports"]
        assert port == {"name": "grpc", "number": provider("palisade")["envoyExtAuthzGrpc"]["port"], "protocol": "GRPC"}
        (endpoint,) = entry.spec["endpoints"]
        addresses[file] = endpoint["address"]
    for resource, config in configurations():
        (listener,) = config["listener"]
        if resource.file.startswith("sidecar/loopback/"):
            assert listener["tcp"] == f"{addresses['sidecar/loopback/provider.yaml']}:9191"
        else:
            assert f"unix://{listener['unix']}" == addresses["mesh/provider.yaml"]
        # What a client writes about itself is believed nowhere but behind the waypoint, which overwrites it.
        assert listener["identity"] == ("xfcc" if resource.file.startswith("waypoint/") else "source_principal")


def configurations() -> list[tuple[Resource, Json]]:
    found = [(it, it.body["data"]["palisade.toml"]) for it in of_kind("ConfigMap") if "palisade.toml" in it.body["data"]]
    assert len(found) == 5
    return [(it, tomllib.loads(text)) for it, text in found]


@pytest.mark.parametrize(("resource", "config"), configurations(), ids=lambda it: getattr(it, "file", ""))
def test_palisade_takes_its_configuration(resource: Resource, config: Json, tmp_path: Path) -> None:
    path = tmp_path / "palisade.toml"
    text = resource.body["data"]["palisade.toml"]
    # `config check` looks whether the folders are there.
    path.write_text(text.replace("/etc/palisade/bundle", str(ROOT / "cedar")).replace("/run/palisade/", f"{tmp_path}/"))
    done = subprocess.run([binary("debug"), "config", "check", path], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("place", PLACES)
def test_every_place_asks_about_every_call(place: str) -> None:
    policies = [it for it in of_kind("AuthorizationPolicy") if it.file.startswith(f"{place}/")]
    (custom,) = [it for it in policies if it.spec["action"] == "CUSTOM"]
    assert custom.spec["provider"] == {"name": "palisade"} and custom.spec["rules"] == [{}]
    assert "annotations" not in custom.body["metadata"], "a dry run would not enforce"
    waypoint = {"group": "gateway.networking.k8s.io", "kind": "Gateway", "name": "waypoint"}
    to = {
        "sidecar": {},
        "egress-gateway": {"selector": {"matchLabels": {"istio": "egress-gateway"}}},
        "ingress-gateway": {"selector": {"matchLabels": {"istio": "ingress-gateway"}}},
        "waypoint": {"targetRefs": [waypoint]},
    }
    assert {key: custom.spec[key] for key in custom.spec if key in ("selector", "targetRefs", "targetRef")} == to[place]
    if place.endswith("gateway"):
        (pods,) = [it for it in of_kind("Deployment") if it.file.startswith(f"{place}/")]
        assert to[place]["selector"]["matchLabels"].items() <= pods.spec["template"]["metadata"]["labels"].items()
    # Nothing else allows anything, but for ztunnel, which lets in the waypoint alone.
    others = [it for it in policies if it is not custom]
    assert [it.spec for it in others] == (
        [{"action": "ALLOW", "rules": [{"from": [{"source": {"principals": ["cluster.local/ns/tools/sa/waypoint"]}}]}]}]
        if place == "waypoint"
        else []
    )


@pytest.mark.parametrize("place", ["mesh", *PLACES])
def test_nothing_takes_plaintext(place: str) -> None:
    (peers,) = [it for it in of_kind("PeerAuthentication") if it.file.startswith(f"{place}/")]
    # For the whole namespace, and for every port.
    assert peers.spec == {"mtls": {"mode": "STRICT"}} and peers.name == "default"
    for gateway in of_kind("Gateway"):
        for server in gateway.spec.get("servers", []):
            assert server["tls"]["mode"] in ("MUTUAL", "ISTIO_MUTUAL"), gateway


@pytest.mark.parametrize("place", PLACES)
def test_envoy_is_told_what_mesh_config_cannot_say(place: str) -> None:
    (resource,) = [it for it in of_kind("EnvoyFilter") if it.file == f"{place}/checks.yaml"]
    waypoint = place == "waypoint"
    context = "GATEWAY" if place.endswith("gateway") else "SIDECAR_INBOUND"
    found: dict[str, Json] = {}
    every = resource.spec["configPatches"]
    if place == "sidecar":
        # The server's own container has no way to ask, through its proxy either.
        removed = {"routeConfiguration": {"vhost": {"name": "palisade-ext-authz.local:9191"}}, "context": "SIDECAR_OUTBOUND"}
        *every, last = every
        assert last == {"applyTo": "VIRTUAL_HOST", "match": removed, "patch": {"operation": "REMOVE"}}
    for patch in every:
        assert patch["match"]["context"] == context
        assert patch["match"]["listener"].get("name") == ("main_internal" if waypoint else None)
        connections = patch["match"]["listener"]["filterChain"]["filter"]
        assert connections["name"] == HCM
        value = patch["patch"]["value"]
        name = value.get("name") or connections.get("subFilter", connections)["name"]
        operation = "INSERT_FIRST" if name.startswith("palisade.") else "MERGE"
        assert patch["patch"]["operation"] == operation
        found[name] = value["typed_config"]

    check = {key: value for key, value in found.pop(EXTAUTHZ).items() if key != "@type"}
    certificate = {} if waypoint else {"include_peer_certificate": True}
    assert check == {"encode_raw_headers": True, "validate_mutations": True, **certificate}

    connections = found.pop(HCM)
    assert connections["path_with_escaped_slashes_action"] == "REJECT_REQUEST"
    assert connections["normalize_path"] and connections["merge_slashes"]
    options = connections["common_http_protocol_options"]
    assert options["headers_with_underscores_action"] == "REJECT_REQUEST" and options["max_stream_duration"] == "600s"

    removed = {one["remove"] for one in found.pop("palisade.forged-identity")["mutations"]["request_mutations"]}
    own = {"x-palisade-agent", "x-palisade-user", "x-palisade-decision-id"}
    # At a waypoint it is the very header that says who called: there the waypoint overwrites it.
    assert removed == own | (set() if waypoint else {"x-forwarded-client-cert"})
    # Where there is a TLS peer, it has one name.
    assert bool(found.pop("palisade.one-uri-san", None)) is not waypoint
    assert not found


def test_a_merge_never_needs_what_it_cannot_say() -> None:
    # Istio merges as protobuf does: a value that is its type's zero (false, the first of an enum) changes nothing.
    for name, patch in patches():
        if patch["patch"]["operation"] == "MERGE":
            zeros = [path for path, value in walk(patch["patch"]["value"]) if value in (False, 0, "", "SANITIZE", "KEEP_UNCHANGED")]
            assert not zeros, f"{name}: {zeros}"


def test_paths_have_one_spelling_and_the_log_has_the_decision() -> None:
    mesh = mesh_config()
    assert mesh["pathNormalization"] == {"normalization": "MERGE_SLASHES"}
    assert mesh["outboundTrafficPolicy"] == {"mode": "REGISTRY_ONLY"}
    # A partner's name would become ours in every policy of Istio's.
    assert not any(key == "trustDomainAliases" for file in ("mesh", "spire") for key in values(f"{file}/istiod-values.yaml")["meshConfig"])
    labels = provider("palisade-access-log")["envoyFileAccessLog"]["logFormat"]["labels"]
    for word in ("decision_id", "verdict", "reason"):
        assert labels[word] == f"%DYNAMIC_METADATA({EXTAUTHZ}:{word})%"
    (telemetry,) = of_kind("Telemetry")
    used = {one["name"] for part in ("accessLogging", "tracing") for it in telemetry.spec[part] for one in it["providers"]}
    assert used == {"palisade-access-log", "palisade-traces"} and telemetry.namespace == "istio-system"


# ------------------------------------------------------------------------------------------------------- no way around


def test_nothing_is_kept_from_the_proxy() -> None:
    # Words that take ports, addresses or a pod out of what the proxy captures, wherever they stand.
    forbidden = ("exclude", "includeInboundPorts", "includeOutboundIPRanges", "hostNetwork", "hostPort", "dry-run", "interceptionMode")
    for resource in resources():
        for path, value in walk(resource.body):
            key = path.rsplit(".", 1)[-1]
            assert not any(word.lower() in key.lower() for word in forbidden), f"{resource}: {path}"
            assert not (key.endswith("/inject") and value != "true"), f"{resource}: {path}"
            assert not (key == "mode" and value in ("PERMISSIVE", "PASSTHROUGH", "SIMPLE") and resource.kind != "DestinationRule")


@pytest.mark.parametrize(("name", "template"), pod_specs(), ids=lambda it: it if isinstance(it, str) else "")
def test_pods_may_do_little_and_nobody_else_reaches_the_socket(name: str, template: Json) -> None:
    spec = template["spec"]
    containers = {one["name"]: one for one in [*spec.get("initContainers", []), *spec["containers"]]}
    behind_waypoint = name.startswith("waypoint/crm.yaml")
    assert ("palisade" in containers) is not behind_waypoint
    for one in containers.values():
        if one["name"] == "istio-proxy" and "image" not in one:
            continue  # the waypoint's own, made by istiod
        security = one["securityContext"]
        assert security["runAsNonRoot"] and security["allowPrivilegeEscalation"] is False
        assert security["capabilities"] == {"drop": ["ALL"]} and security["seccompProfile"] == {"type": "RuntimeDefault"}
        if one["name"] != "istio-proxy":
            assert security["readOnlyRootFilesystem"] and one["resources"]["requests"] and one["resources"]["limits"]
    mounts = {
        container: mount
        for container, one in containers.items()
        for mount in one.get("volumeMounts", [])
        if mount["name"] == "palisade-socket" or mount["mountPath"].startswith("/run/palisade")
    }
    over_a_socket = not behind_waypoint and "loopback" not in name
    volumes = {one["name"]: one for one in spec.get("volumes", [])}
    assert ("palisade-socket" in volumes) is over_a_socket
    if over_a_socket:
        assert volumes["palisade-socket"]["emptyDir"]["medium"] == "Memory"
        # A sidecar's proxy is injected: its mount is an annotation.
        injected = template.get("metadata", {}).get("annotations", {}).get("sidecar.istio.io/userVolumeMount")
        assert set(mounts) == {"palisade"} if injected else {"palisade", "istio-proxy"}
        if injected:
            assert yaml.safe_load(injected) == {"palisade-socket": {"mountPath": "/run/palisade", "readOnly": True}}
    if not behind_waypoint:
        own = containers["palisade"]["securityContext"]
        assert (own["runAsUser"], own["runAsGroup"]) == (65532, 1337 if over_a_socket else 65532)
        assert containers["palisade"]["restartPolicy"] == "Always", "a native sidecar"
    for container, one in containers.items():
        if container not in ("palisade", "istio-proxy"):
            security = one["securityContext"]
            assert 1337 not in (security["runAsUser"], security["runAsGroup"]), "the proxy's: not captured, and the socket's"


def test_agents_go_out_through_the_gateway_alone() -> None:
    egress = [it for it in resources() if it.file == "egress-gateway/routes.yaml"]
    (entry,) = [it for it in egress if it.kind == "ServiceEntry"]
    assert [port["protocol"] for port in entry.spec["ports"]] == ["HTTP"], "what agents encrypt themselves nobody can check"
    (route,) = [it for it in egress if it.kind == "VirtualService"]
    by_gateway = {http["match"][0]["gateways"][0]: http for http in route.spec["http"]}
    assert set(by_gateway) == {"mesh", "egress"}
    assert by_gateway["mesh"]["route"][0]["destination"]["host"] == "egress-gateway.egress.svc.cluster.local"
    for http in route.spec["http"]:
        assert "rewrite" not in http and "redirect" not in http and http["retries"] == {"attempts": 0}
        assert all("uri" not in match for match in http["match"]), "another path would go another way"
    rules = {it.spec["host"]: it for it in egress if it.kind == "DestinationRule"}
    assert rules["tools.partner.example"].spec["exportTo"] == ["."], "an agent's proxy would go there itself"
    (subset,) = rules["egress-gateway.egress.svc.cluster.local"].spec["subsets"]
    assert subset["trafficPolicy"]["tls"]["mode"] == "ISTIO_MUTUAL"


def test_a_waypoint_says_who_called() -> None:
    (gateway,) = [it for it in of_kind("Gateway") if it.file == "waypoint/gateway.yaml"]
    infrastructure = gateway.spec["infrastructure"]
    for annotations in (gateway.body["metadata"]["annotations"], infrastructure["annotations"]):
        assert annotations == {"ambient.istio.io/xfcc-include-client-identity": "true"}
    names = {it.name for it in of_kind("ConfigMap") if it.file == gateway.file and set(it.body["data"]) == {"deployment"}}
    assert names == {infrastructure["parametersRef"]["name"]}


@pytest.mark.parametrize("place", [*PLACES, "spire"])
def test_a_place_says_what_it_does_not_do(place: str) -> None:
    text = (SETS / place / "README.md").read_text()
    for heading in ("## What is checked", "## What is not checked", "## When Palisade is down"):
        assert heading in text or place == "spire", heading
    for file in (SETS / place).rglob("*"):
        if file.is_file() and file.suffix in (".yaml", ".conf"):
            assert file.name in text, f"{file.name} is not in the README"
