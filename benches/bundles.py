"""Bundles of many policies: the default bundle, what else is about its support bot, and policies about everybody else.

The same numbers give the same files. The policies have the forms that people write: a permit for an agent and a tool, for a
group, for a namespace; a forbid with a condition. Templates are left to those who have them.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PER_FILE = 1_000
PER_GROUP = 50
TOOLS = ["query_customers", "get_customer", "update_customer_email", "export_customers"]
SUPPORT_BOT = 'Agent::"spiffe://example.org/ns/agents/sa/support-bot"'
QUERY = 'Action::"crm/query_customers"'
# More than the load asks for. A twentieth of the quota is reserved in the journal at a time.
LIMITS = """
[[limit]]
name = "load-rate"
per = ["agent"]
rate = { units = 1000000, seconds = 1 }

[[limit]]
name = "load-quota"
per = ["agent", "tool"]
quota = { units = 10000000, seconds = 86400 }
"""


def write(directory: Path, policies: int, matching: int = 0) -> Path:
    """The default bundle with that many policies in all, `matching` more of them about the call that the load makes."""
    shutil.copytree(ROOT / "cedar", directory, ignore=shutil.ignore_patterns("tests", "*.md"))
    own = sum(text.read_text().count("@id(") - text.read_text().count("@grant(") for text in directory.glob("policies/*.cedar"))
    vary(directory, 0)
    others = [*about_the_call(matching), *about_others(policies - own - 1 - matching)]
    for start in range(0, len(others), PER_FILE):
        (directory / f"policies/many-{start // PER_FILE:03}.cedar").write_text("".join(others[start : start + PER_FILE]))
    groups = {f"team-{number // PER_GROUP}" for number in range(len(others))}
    entities = [{"uid": {"type": "AgentGroup", "id": group}, "attrs": {}, "parents": []} for group in sorted(groups)]
    (directory / "many.entities.json").write_text(json.dumps(entities, indent=0))
    return directory


def limited(directory: Path) -> Path:
    """The default bundle, but that the permit of the load's call has two limits, which it never reaches; that grants need not be for
    a task, so that some can be about that call; and that one workload may hold and grant."""
    shutil.copytree(ROOT / "cedar", directory, ignore=shutil.ignore_patterns("tests", "*.md"))
    change(directory / "policies/agents.cedar", '@id("support-bot-reads-customers")',
           '@id("support-bot-reads-customers")\n@limit("load-rate load-quota")')
    change(directory / "policies/control.cedar", '@grant("seconds=3600 calls=20 task")', '@grant("seconds=3600 calls=20")')
    groups = [{"type": "AgentGroup", "id": group} for group in ("operators", "orchestrators")]
    bench = {"uid": {"type": "Agent", "id": "spiffe://example.org/ns/agents/sa/bench"}, "attrs": {}, "parents": groups}
    (directory / "bench.entities.json").write_text(json.dumps([bench]))
    with (directory / "limits.toml").open("a") as limits:
        limits.write(LIMITS)
    return directory


def change(file: Path, before: str, after: str) -> None:
    text = file.read_text()
    if text.count(before) != 1:
        raise SystemExit(f"{file.name} has no `{before}`, or several")
    file.write_text(text.replace(before, after))


def vary(directory: Path, version: int) -> None:
    """Changes one policy, which no call is about, in one step."""
    scope = 'principal == Agent::"spiffe://example.org/ns/nowhere/sa/nobody", action, resource'
    aside = directory / "policies/.version.new"
    aside.write_text(policy("version", "permit", scope, f"when {{ context.local.hour < {version} }}"))
    aside.rename(directory / "policies/version.cedar")


def policy(name: str, effect: str, scope: str, conditions: str = "") -> str:
    return f'@id("{name}")\n@reason("Made for a measurement")\n{effect} ({scope})\n{conditions};\n\n'


def about_the_call(count: int) -> Iterator[str]:
    """Candidates for the support bot's query: permits that hold, and every fourth a forbid that does not."""
    for number in range(count):
        if number % 4 == 3:
            scope = 'principal in Namespace::"example.org/agents", action in Action::"tools/call", resource in Server::"crm"'
            yield policy(f"call-{number}", "forbid", scope, f"when {{ context.local.weekday > {7 + number} }}")
        else:
            scope = f'principal == {SUPPORT_BOT}, action == {QUERY}, resource == Tool::"crm/query_customers"'
            limit = f"when {{ context.input has limit && context.input.limit <= {100 + number} }}"
            yield policy(f"call-{number}", "permit", scope, limit)


def about_others(count: int) -> Iterator[str]:
    """Policies that no call of the support bot is about."""
    for number in range(count):
        team, tool = number // PER_GROUP, TOOLS[number % len(TOOLS)]
        agent = f'principal == Agent::"spiffe://example.org/ns/team-{team}/sa/agent-{number}"'
        group, action = f'principal in AgentGroup::"team-{team}"', f'action == Action::"crm/{tool}"'
        made = [
            ("permit", f'{agent}, {action}, resource == Tool::"crm/{tool}"', ""),
            ("permit", f"{agent}, {action}, resource", ""),
            ("permit", f'{agent}, {action}, resource in Server::"crm"', f"when {{ context.local.hour < {number % 24} }}"),
            ("permit", f"{agent}, action == {QUERY}, resource", f"when {{ context.input has limit && context.input.limit <= {number} }}"),
            ("permit", f'{group}, action in [{QUERY}, Action::"crm/get_customer"], resource in ToolGroup::"customer-data"', ""),
            ("forbid", f'{group}, action in Action::"tools/call", resource in Server::"crm"', "unless { resource has read_only && resource.read_only }"),
            ("permit", f'{agent}, action in Action::"http", resource in Endpoint::"crm-status/status/team-{team}"', ""),
            ("forbid", f'principal in Namespace::"example.org/team-{team}", action, resource in ServerGroup::"customer-data"',
             f"when {{ context.local.weekday > 5 && context.local.hour < {number % 24} }}"),
            ("permit", f'{agent}, action in [Action::"SendMessage", Action::"GetTask"], resource == Server::"researcher"', ""),
            ("permit", f'{agent}, action in Action::"tools/call", resource in ToolGroup::"exfiltration"', f"unless {{ context.local.hour > {number % 24} }}"),
        ][number % 10]
        effect, scope, conditions = made
        yield policy(f"other-{number}", effect, scope, conditions)
