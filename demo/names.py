"""Who is in the demo mesh, and under which name."""

from __future__ import annotations

TRUST_DOMAIN = "example.org"

# Agents that call, each with a certificate of its own: name → SPIFFE ID.
AGENTS = {
    name: f"spiffe://{TRUST_DOMAIN}/ns/agents/sa/{name}"
    for name in ("support-bot", "coder", "analyst", "scraper", "auditor")
} | {
    # A partner's agent: its certificate is of a CA that Envoy trusts, its trust domain is none that Palisade believes.
    "outsider": "spiffe://partner.example/ns/agents/sa/outsider",
}

# Servers that are called.
SERVERS = {
    "crm": f"spiffe://{TRUST_DOMAIN}/ns/tools/sa/crm",
    "researcher": f"spiffe://{TRUST_DOMAIN}/ns/agents/sa/researcher",
}
# Who controls while calls flow: `palisade grant`, `palisade hold`. Neither calls through Envoy.
CONTROLLERS = {
    "planner": f"spiffe://{TRUST_DOMAIN}/ns/agents/sa/planner",
    "on-call": f"spiffe://{TRUST_DOMAIN}/ns/operators/sa/on-call",
}
# Palisade itself, at its control port.
PALISADE = f"spiffe://{TRUST_DOMAIN}/ns/mesh/sa/palisade"
HOSTS = {"crm": "crm.example.org", "researcher": "researcher.example.org"}
