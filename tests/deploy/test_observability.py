"""The dashboard and the rules ask for what there is, and the runbook says what to do about each alert.

What there is comes from a real Palisade and a real Envoy (`exposed.py`), the reasons of denials from the table in the source, what an
expression asks for from Prometheus' own parser (`tools/promql-selectors`).
"""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml
from grafana_foundation_sdk.cog import plugins
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models.dashboard import Dashboard

import charts
import exposed

from demo import evidence

ROOT = Path(__file__).resolve().parents[2]
RULES = ROOT / "helm/palisade/rules/palisade.yaml"
DASHBOARD = ROOT / "helm/palisade/dashboards/palisade.json"
CASES = sorted((ROOT / "tests/deploy/rules").glob("*.yaml"))
PROGRAMS = ROOT / ".tools/deploy"

# What Prometheus adds to every series of a target, and what it makes itself.
TARGET_LABELS = {"namespace", "pod", "container"}
OWN_SERIES = {"up": set(), "ALERTS": {"alertname", "alertstate"}}
# What the dashboard need not show: what it is about is shown by another.
NOT_SHOWN = {"palisade_decision_seconds_sum", "palisade_decision_seconds_count"}
# The limit of the configuration that a threshold is four fifths, or half, of.
LIMITS = {
    "PalisadeNearlyFull": "in_flight_checks",
    "PalisadeProofsFilling": "remembered_proofs",
    "PalisadeSessionEndsFilling": "remembered_ends",
    "PalisadeRecordBacklog": "queue_records",
    "PalisadeUsesFilling": "counted_uses",
}


# ------------------------------------------------------------------------------------------------------------ what is asked


@dataclass(frozen=True)
class Expression:
    place: str
    text: str
    shown: str = ""  # a legend or a message, in which labels are named


@cache
def rules() -> list[dict[str, Any]]:
    return [rule for group in yaml.safe_load(RULES.read_text())["groups"] for rule in group["rules"]]


def alerts() -> dict[str, dict[str, Any]]:
    return {rule["alert"]: rule for rule in rules() if "alert" in rule}


def dashboard() -> dict[str, Any]:
    return json.loads(DASHBOARD.read_text())


def panels() -> list[dict[str, Any]]:
    return dashboard()["panels"]


def in_rules() -> list[Expression]:
    return [
        Expression(rule.get("alert") or rule["record"], rule["expr"], " ".join(rule.get("annotations", {}).values()))
        for rule in rules()
    ]


def in_dashboard() -> list[Expression]:
    found = [
        Expression(panel["title"], target["expr"], target["legendFormat"])
        for panel in panels()
        for target in panel.get("targets", [])
        if target["datasource"]["type"] == "prometheus"
    ]
    found += [Expression(it["name"], it["expr"]) for it in dashboard()["annotations"]["list"]]
    for variable in dashboard()["templating"]["list"]:
        if variable["type"] == "query":
            asked = re.fullmatch(r"label_values\((.+), (\w+)\)", variable["query"])
            assert asked, variable
            found.append(Expression(variable["name"], f"count by ({asked[2]}) ({asked[1]})"))
    # What Grafana puts in before it asks; what it puts into the values of labels is any value.
    return [Expression(it.place, re.sub(r"\$__(rate_interval|range)", "5m", it.text), it.shown) for it in found]


def program(name: str) -> Path:
    path = PROGRAMS / name
    assert path.exists(), f"there is no {path}: run tests/deploy/install.sh {name}"
    return path


def asked(expressions: list[Expression]) -> list[dict[str, Any]]:
    texts = json.dumps([expression.text for expression in expressions])
    ran = subprocess.run([program("promql-selectors")], input=texts, capture_output=True, text=True)
    assert ran.returncode == 0, ran.stderr
    return json.loads(ran.stdout)


# ------------------------------------------------------------------------------------------------------------- what there is


def reasons(blame: str = r"\w+") -> set[str]:
    """The codes of the one table of reasons; those of one blame."""
    table = (ROOT / "src/authz/reason.rs").read_text()
    found = set(re.findall(rf'^    \w+: "(\w+)", {blame}, \d', table, re.MULTILINE))
    assert len(found) >= 10
    return found


@pytest.fixture(scope="module")
def mesh(tmp_path_factory: pytest.TempPathFactory) -> Iterator[exposed.Mesh]:
    with exposed.running(tmp_path_factory.mktemp("exposed")) as mesh:
        for agent, tool in [("support-bot", "query_customers"), ("support-bot", "delete_customer"), ("outsider", "query_customers")]:
            exposed.call(mesh, agent, tool)
        yield mesh


@pytest.fixture(scope="module")
def there(mesh: exposed.Mesh) -> dict[str, exposed.Series]:
    """Every series that may be asked for: exposed ones, recorded ones, and Prometheus' own."""
    found = exposed.scraped(mesh)
    decisions = found["palisade_decisions_total"].labels
    assert decisions["reason"] <= reasons() | {""} and decisions["verdict"] == {"permit", "denial"}
    decisions["reason"] |= reasons()
    for name, labels in OWN_SERIES.items():
        found[name] = exposed.Series({label: {"PalisadeDown", "firing"} for label in labels})
    for rule in rules():
        if "record" in rule:
            found[rule["record"]] = exposed.Series({"reason": reasons()} if rule["record"].startswith("reason:") else {})
    return found


def mistakes(expressions: list[Expression], there: dict[str, exposed.Series]) -> list[str]:
    wrong = []
    for expression, of in zip(expressions, asked(expressions), strict=True):
        labels = set(TARGET_LABELS)
        for selector in of["selectors"]:
            found = [series for name, series in there.items() if selects(selector, name)]
            if not found:
                wrong.append(f"{expression.place}: nobody exposes `{name_of(selector)}`")
            for series in found:
                labels |= set(series.labels)
                wrong += [f"{expression.place}: {it}" for it in unmatched(selector, series)]
        named = set(of["labels"]) | set(re.findall(r"\$labels\.(\w+)", expression.shown))
        if "$" not in expression.shown:
            named |= set(re.findall(r"\{\{(\w+)\}\}", expression.shown))
        wrong += [f"{expression.place}: no series has a label `{label}`" for label in sorted(named - labels)]
    return wrong


def name_of(selector: dict[str, Any]) -> str:
    """The name of the series; or what it is matched by, where there is none."""
    return selector["name"] or next(it["value"] for it in selector["matchers"] if it["label"] == "__name__")


def selects(selector: dict[str, Any], name: str) -> bool:
    return name == selector["name"] or not selector["name"] and re.fullmatch(name_of(selector), name) is not None


def unmatched(selector: dict[str, Any], series: exposed.Series) -> Iterator[str]:
    """Matchers of labels that the series has not, or of values that they never have."""
    for matcher in selector["matchers"]:
        label, value = matcher["label"], matcher["value"]
        if label in TARGET_LABELS or label == "__name__":
            continue
        if label not in series.labels:
            yield f"`{selector['name']}` has no label `{label}`"
            continue
        is_pattern = "~" in matcher["op"]
        for one in value.split("|") if is_pattern else [value]:
            pattern = one if is_pattern else re.escape(one)
            if not any(re.fullmatch(pattern, known) for known in series.labels[label]):
                yield f"`{selector['name']}` never has {label}=\"{one}\""


# ------------------------------------------------------------------------------------------------------------------ the rules


def test_rules_ask_for_what_there_is(there: dict[str, exposed.Series]) -> None:
    assert mistakes(in_rules(), there) == []


def test_dashboard_asks_for_what_there_is(there: dict[str, exposed.Series]) -> None:
    assert mistakes(in_dashboard(), there) == []


@pytest.mark.parametrize(
    ("text", "mistake"),
    [
        ("palisade_decision_total", "nobody exposes `palisade_decision_total`"),
        ('palisade_keys{issuer="corp"}', "`palisade_keys` has no label `issuer`"),
        ('palisade_decisions_total{reason="overload"}', '`palisade_decisions_total` never has reason="overload"'),
        ('palisade_decisions_total{reason=~"held|hold"}', '`palisade_decisions_total` never has reason="hold"'),
        ('palisade_decision_seconds_bucket{le="0.03"}', '`palisade_decision_seconds_bucket` never has le="0.03"'),
        ("sum by (caller) (palisade_decisions_total)", "no series has a label `caller`"),
    ],
)
def test_a_misspelling_is_seen(there: dict[str, exposed.Series], text: str, mistake: str) -> None:
    assert mistakes([Expression("here", text)], there) == [f"here: {mistake}"]


def test_a_proxy_of_istio_is_told_to_keep_what_the_rules_ask_for(mesh: exposed.Mesh) -> None:
    """By Envoy's own names, which have dots; Istio hands the annotation to Envoy's inclusion list."""
    [pod] = charts.injected("sidecar")
    kept = pod["metadata"]["annotations"]["sidecar.istio.io/statsInclusionRegexps"]
    stats = evidence.get(mesh.ports.tools_envoy_admin, "/stats?filter=ext_authz").body.decode()
    names = {line.split(":")[0] for line in stats.splitlines()}
    wanted = {name for name in names if re.search(r"\.ext_authz\.(.+\.)?(error|failure_mode_allowed)$", name) and name.startswith("http.")}
    assert {name.rsplit(".", 1)[1] for name in wanted} == {"error", "failure_mode_allowed"}
    assert {name for name in names if re.fullmatch(kept, name)} == wanted


def test_dashboard_shows_every_metric(there: dict[str, exposed.Series]) -> None:
    shown = {name_of(selector) for of in asked(in_dashboard()) for selector in of["selectors"]}
    assert {name for name in there if name.startswith("palisade_")} - shown - NOT_SHOWN == set()


def test_reasons_of_palisades_own_are_those_of_the_table() -> None:
    """The objective counts exactly the denials that the table blames on Palisade; so does each panel about them."""
    lists = re.findall(r"bundle_missing\|[a-z_|]+", RULES.read_text() + DASHBOARD.read_text())
    assert len(lists) >= 8
    for found in lists:
        assert set(found.split("|")) == reasons("Us")


def test_what_is_worth_an_alert_has_one() -> None:
    worth = re.search(r"^Worth an alert: (.+?)\n\n", (ROOT / "docs/metrics.md").read_text(), re.MULTILINE | re.DOTALL)
    assert worth
    watched = {name_of(selector) for of in asked(in_rules()) for selector in of["selectors"]}
    assert set(re.findall(r"`(palisade_\w+)", worth[1])) - watched == set()


def test_thresholds_are_of_the_default_limits() -> None:
    defaults = (ROOT / "src/config/default.toml").read_text()
    for alert, key in LIMITS.items():
        limit = re.search(rf"^{key} = (\d+)", defaults, re.MULTILINE)
        assert limit and re.search(rf"\* {limit[1]}$", alerts()[alert]["expr"]), (alert, key)


def test_promtool_takes_the_rules() -> None:
    ran = subprocess.run([program("promtool"), "check", "rules", "--lint=all", "--lint-fatal", RULES], capture_output=True, text=True)
    assert ran.returncode == 0, ran.stdout + ran.stderr


def test_promtool_takes_the_configuration_in_the_runbook(tmp_path: Path) -> None:
    block = re.search(r"```yaml\n(rule_files.*?)```", (ROOT / "docs/runbook.md").read_text(), re.DOTALL)
    assert block
    (tmp_path / "prometheus.yaml").write_text(block[1])
    shutil.copy(RULES, tmp_path)
    ran = subprocess.run([program("promtool"), "check", "config", tmp_path / "prometheus.yaml"], capture_output=True, text=True)
    assert ran.returncode == 0, ran.stdout + ran.stderr


@pytest.mark.parametrize("cases", CASES, ids=lambda path: path.stem)
def test_alerts_fire_when_they_should(cases: Path) -> None:
    ran = subprocess.run([program("promtool"), "test", "rules", cases], capture_output=True, text=True)
    assert ran.returncode == 0, ran.stdout + ran.stderr


def test_every_alert_has_a_case_for_and_against() -> None:
    """An alert is silent for a reason only where the series are there that it is about."""
    about = {rule.place: of["selectors"] for rule, of in zip(in_rules(), asked(in_rules()), strict=True)}
    for rule in alerts():
        about[rule] = [it for one in about[rule] for it in about.get(one["name"], [one])]
    fires, silent = set(), set()
    for case in [case for path in CASES for case in yaml.safe_load(path.read_text())["tests"]]:
        given = {series["series"].split("{")[0] for series in case["input_series"]}
        for moment in case["promql_expr_test"]:
            assert moment["expr"] == 'count by (alertname, severity) (ALERTS{alertstate="firing"})'
            firing = {re.search(r'alertname="(\w+)"', sample["labels"])[1] for sample in moment["exp_samples"]}
            fires |= firing
            silent |= {
                alert
                for alert in set(alerts()) - firing
                if any(selects(selector, name) for selector in about[alert] for name in given)
            }
    assert set(alerts()) - fires == set()
    assert set(alerts()) - silent == set()


# ---------------------------------------------------------------------------------------------------------------- the runbook


def sections() -> dict[str, str]:
    text = (ROOT / "docs/runbook.md").read_text()
    return dict(re.findall(r"^### (\w+)\n(.*?)(?=^##|\Z)", text, re.MULTILINE | re.DOTALL))


def test_every_alert_says_what_it_is_and_what_to_do() -> None:
    for name, rule in alerts().items():
        assert rule["labels"]["severity"] in ("critical", "warning"), name
        assert rule["annotations"]["runbook"] == f"docs/runbook.md#{name.lower()}"
        assert rule["annotations"]["summary"] and rule["annotations"]["description"], name


def test_runbook_has_a_section_for_each_alert_and_no_other() -> None:
    assert set(sections()) == set(alerts())
    for name, section in sections().items():
        assert re.findall(r"^- \*\*(\w+):\*\* \S", section, re.MULTILINE) == ["Means", "Look", "Do", "Never"], name


# -------------------------------------------------------------------------------------------------------------- the dashboard


def lost(ours: Any, theirs: Any, path: str = "") -> Iterator[str]:
    """What of ours is not there any more, or is something else."""
    if isinstance(ours, dict) and isinstance(theirs, dict):
        for key, value in ours.items():
            if key in theirs:
                yield from lost(value, theirs[key], f"{path}/{key}")
            elif value is not None:
                yield f"{path}/{key}"
    elif isinstance(ours, list) and isinstance(theirs, list) and len(ours) == len(theirs):
        for at, (one, other) in enumerate(zip(ours, theirs, strict=True)):
            yield from lost(one, other, f"{path}/{at}")
    elif ours != theirs:
        yield path


def known_to_grafana(text: dict[str, Any]) -> list[str]:
    """What Grafana's own types do not know: they drop it."""
    plugins.register_default_plugins()
    read = json.loads(json.dumps(Dashboard.from_json(text), cls=JSONEncoder))
    return list(lost(text, read))


def test_dashboard_is_what_grafana_knows() -> None:
    assert known_to_grafana(dashboard()) == []


def test_a_member_that_grafana_does_not_know_is_seen() -> None:
    changed = dashboard()
    changed["panels"][1]["fieldConfig"]["defaults"]["units"] = "s"
    changed["panels"][1]["targets"][0]["legend"] = "x"
    assert known_to_grafana(changed) == ["/panels/1/fieldConfig/defaults/units", "/panels/1/targets/0/legend"]


def test_panels_say_what_to_do_and_from_where() -> None:
    variables = {it["name"]: it for it in dashboard()["templating"]["list"]}
    for panel in panels():
        if panel["type"] == "row":
            continue
        title = panel["title"]
        assert len(panel["description"]) > 30 and panel["fieldConfig"]["defaults"]["unit"], title
        for target in panel["targets"]:
            source = target["datasource"]
            assert source == panel["datasource"], title
            assert variables[source["uid"][2:-1]]["query"] == source["type"], title
        for name in re.findall(r"Palisade[A-Z]\w+", panel["description"]):
            assert name in alerts(), f"{title}: there is no alert {name}"
    assert len({panel["id"] for panel in panels()}) == len(panels())


def test_no_panel_covers_another() -> None:
    taken: dict[tuple[int, int], str] = {}
    for panel in panels():
        at = panel["gridPos"]
        assert at["x"] + at["w"] <= 24, panel["title"]
        for cell in [(x, y) for x in range(at["x"], at["x"] + at["w"]) for y in range(at["y"], at["y"] + at["h"])]:
            assert taken.setdefault(cell, panel["title"]) == panel["title"]


# ----------------------------------------------------------------------------------------------------------------- the traces


def test_the_tour_of_traces_names_attributes_that_there_are(mesh: exposed.Mesh) -> None:
    """Each attribute that the document names is one of a real span, or one that metrics.md explains."""
    explained = set(re.findall(r"`([a-z_]+(?:\.[a-z_]+)+)`", (ROOT / "docs/metrics.md").read_text()))
    exposed.chain(mesh, "delete_customer")
    real = {name for span in mesh.spans() for name in span["attributes"]}
    queries = DASHBOARD.read_text()
    document = (ROOT / "docs/traces.md").read_text()
    named = re.findall(r"\b((?:authz|gen_ai|mcp|jsonrpc|enduser)(?:\.[a-z_]+)+)", document + queries)
    assert len(named) > 10
    assert set(named) - real - explained == set()
    for name in re.findall(r"(?<=span\.)[a-z_.]+\b", queries):
        assert name in real, name


def test_the_tour_shows_the_tree_that_a_call_gives(mesh: exposed.Mesh) -> None:
    """Of each decision in the document: the spans above it, up to what the caller sent."""
    tree = re.search(r"```text\n(support-bot  .*?)```", (ROOT / "docs/traces.md").read_text(), re.DOTALL)
    assert tree
    lines = [re.fullmatch(r"([│├└─ ]*)(\S+)  (.+?) +[0-9.]+ ms", line) for line in tree[1].splitlines()]
    chains, above = set(), []
    for line in lines:
        assert line
        above = [*above[: len(line[1]) // 3], (line[2], line[3])]
        if line[2] == "palisade":
            chains.add(tuple(above[1:]))
    real = {exposed.chain(mesh, tool) for tool in exposed.CALLS}
    assert real < chains
