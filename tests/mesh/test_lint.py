"""`palisade mesh`: what real Envoys say of themselves has no hole, and one that does is found, in their dumps and by calls."""

from __future__ import annotations

import json
import shlex
import subprocess
import urllib.request

from demo import guide, ports
from demo.mesh import Mesh, binary
from demo.names import HOSTS

UNSAFE = 17
# What turns the check off for every route of the first route configuration: the CRM's.
OFF = """typed_per_filter_config:
                    envoy.filters.http.ext_authz:
                      "@type": type.googleapis.com/envoy.extensions.filters.http.ext_authz.v3.ExtAuthzPerRoute
                      disabled: true
                  virtual_hosts:"""


def palisade(*arguments: object, text: str | None = None) -> subprocess.CompletedProcess[str]:
    command = [str(binary("debug")), "mesh", *map(str, arguments)]
    return subprocess.run(command, input=text, capture_output=True, text=True, timeout=120)


def dump(mesh: Mesh, port: int) -> str:
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/config_dump?include_eds", timeout=10) as answer:
        return answer.read().decode()


def lint(text: str) -> tuple[int, set[str], dict[str, int]]:
    done = palisade("lint", "--json", "--config-dump", "-", text=text)
    assert done.stdout, done.stderr
    told = json.loads(done.stdout)
    return done.returncode, {finding["code"] for finding in told["findings"]}, told["checked"]


def probe(mesh: Mesh, port: int, *more: object) -> subprocess.CompletedProcess[str]:
    through = f"http://127.0.0.1:{port}/mcp"
    # As the agent's own HTTP client does it: the agent's Envoy knows servers by their names.
    return palisade("probe", "--through", through, "--host", HOSTS["crm"], "--timeout", "20s", *more)


def beside(mesh: Mesh, name: str, change: tuple[str, str] | None = None) -> ports.Ports:
    """Two more Envoys before the same servers and the same Palisade, the servers' one changed."""
    others = ports.free(list(mesh.ports.agents))
    pairs = [(mesh.ports.crm, others.crm), (mesh.ports.researcher, others.researcher)]
    pairs += [(mesh.ports.tools_envoy_admin, others.tools_envoy_admin), (mesh.ports.agents_envoy_admin, others.agents_envoy_admin)]
    pairs += [(port, others.agents[agent]) for agent, port in mesh.ports.agents.items()]
    for side, admin in (("tools", others.tools_envoy_admin), ("agents", others.agents_envoy_admin)):
        text = mesh.path(f"{side}-envoy.yaml").read_text()
        for old, new in pairs:
            text = text.replace(str(old), str(new))
        if side == "tools" and change:
            assert change[0] in text
            text = text.replace(*change, 1)
        mesh.spawn_envoy(f"{name}-{side}", text, admin)
    return others


def test_what_the_examples_come_to_in_a_real_envoy_has_no_finding(start_mesh) -> None:
    mesh = start_mesh(patient=False)
    status, codes, checked = lint(dump(mesh, mesh.ports.tools_envoy_admin))
    assert (status, codes) == (0, set())
    # The version is the running one's own word: nothing told it.
    assert checked["listeners"] == 2 and checked["ext_authz filters"] == 2
    # Beside agents nobody is asked, on purpose: its listeners face the agents.
    assert lint(dump(mesh, mesh.ports.agents_envoy_admin))[:2] == (0, set())
    # What `make run` prints.
    done = subprocess.run(guide.lint_command(mesh), shell=True, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0 and "2 ext_authz filters" in done.stdout, done.stdout + done.stderr


def test_a_dump_shows_what_was_broken(start_mesh) -> None:
    mesh = start_mesh(patient=False)
    for number, (change, code) in enumerate([
        (("virtual_hosts:", OFF), "route-disabled"),
        (("failure_mode_allow: false", "failure_mode_allow: true"), "fail-open"),
        (("pack_as_bytes: true", "pack_as_bytes: false"), "text-body"),
        (("upgrade_configs: []", "upgrade_configs: [{upgrade_type: websocket}]"), "upgrade"),
        (("require_client_certificate: true", "require_client_certificate: false"), "permissive-mtls"),
        (("timeout: 0.25s", "timeout: 600s"), "timeout"),
    ]):  # fmt: skip
        weak = beside(mesh, f"weak-{number}", change)
        status, codes, _ = lint(dump(mesh, weak.tools_envoy_admin))
        assert codes == {code}
        # One that denies what should pass is a warning.
        assert status == (0 if code == "upgrade" else UNSAFE)


def test_canaries_are_denied_and_show_a_way_around(start_mesh) -> None:
    mesh = start_mesh(patient=False)
    port = mesh.ports.agents["support-bot"]
    done = subprocess.run(shlex.split(guide.probe_command(mesh)), capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "17 of 17" in done.stdout and "NOT" not in done.stdout
    assert "denied by Palisade: 403" in done.stdout and "refused by Envoy: 413" in done.stdout

    # The server behind its proxy is no address at all; Palisade's own port is one.
    authz = f"127.0.0.1:{mesh.ports.authz}"
    done = probe(mesh, port, "--closed", authz, "--closed", "127.0.0.1:1")
    assert done.returncode == UNSAFE and "NOT CLOSED" in done.stdout and "127.0.0.1:1 " in done.stdout
    assert "18 of 19" in done.stdout

    weak = beside(mesh, "weak", ("virtual_hosts:", OFF))
    done = probe(mesh, weak.agents["support-bot"])
    assert done.returncode == UNSAFE, done.stdout
    # The server itself says that it knows no such session.
    first = done.stdout.splitlines()[0]
    assert first.startswith("a call that nobody registered") and "NOT DENIED: 400" in first

    # Nobody decides: no canary passes, and none is denied by Palisade either.
    mesh.stop_palisade()
    done = probe(mesh, port)
    assert done.returncode == UNSAFE and "NOT DENIED: 503" in done.stdout

    nobody = probe(mesh, 1)
    assert nobody.returncode == 1 and "cannot be reached" in nobody.stderr


def test_canaries_of_a_target_without_messages(start_mesh) -> None:
    mesh = start_mesh(patient=False)
    through = f"http://127.0.0.1:{mesh.ports.agents['support-bot']}/status"
    done = palisade("probe", "--through", through, "--host", HOSTS["crm"], "--protocol", "http", "--timeout", "20s")
    assert done.returncode == 0 and "8 of 8" in done.stdout, done.stdout + done.stderr
    assert done.stdout.splitlines()[0].startswith("a call that nobody registered      denied by Palisade: ")


def test_health_is_what_the_admin_port_says(start_mesh) -> None:
    mesh = start_mesh(patient=False)

    def health(*more: str) -> subprocess.CompletedProcess[str]:
        command = [str(binary("debug")), "health", "--config", str(mesh.config_path), *more]
        return subprocess.run(command, capture_output=True, text=True, timeout=60)

    assert health().returncode == 0 and "ready" in health().stdout
    assert health("--live").returncode == 0
    mesh.stop_palisade()
    for more in ([], ["--live"]):
        done = health(*more)
        assert done.returncode == 1 and "http://127.0.0.1" in done.stderr
