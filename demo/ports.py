"""Which port everything listens on. All are on 127.0.0.1."""

from __future__ import annotations

import random
import socket
from collections.abc import Sequence
from dataclasses import dataclass

# The demo's documented range: 18000 to 18020.
DEMO_BASE = 18000

# Below the range from which the kernel picks ports for outgoing connections (32768 and up on Linux), so that nobody's
# outgoing connection takes a port between the moment it is found free and the moment it is bound.
_TEST_RANGE = range(20000, 32000)


class PortBusy(Exception):
    """A port that the mesh needs belongs to somebody else."""


@dataclass(frozen=True)
class Ports:
    agents: dict[str, int]  # plain HTTP proxy of each agent, in the agents' Envoy
    crm: int  # mTLS, tools' Envoy
    researcher: int  # mTLS, tools' Envoy
    authz: int  # Palisade, ext_authz over gRPC
    palisade_admin: int  # Palisade, /healthz /readyz /metrics
    agents_envoy_admin: int
    tools_envoy_admin: int
    otlp: int  # span receiver
    palisade_control: int  # Palisade, holds and grants over mTLS

    def named(self) -> dict[str, int]:
        """Every port with the words to use when it is busy."""
        return {f"agent {name}": port for name, port in self.agents.items()} | {
            "CRM, mTLS": self.crm,
            "researcher, mTLS": self.researcher,
            "Palisade ext_authz": self.authz,
            "Palisade admin": self.palisade_admin,
            "agents' Envoy admin": self.agents_envoy_admin,
            "tools' Envoy admin": self.tools_envoy_admin,
            "OTLP span receiver": self.otlp,
            "Palisade control, mTLS": self.palisade_control,
        }


def demo(agents: Sequence[str], base: int = DEMO_BASE) -> Ports:
    """The same ports every time; `PortBusy` names the first one that is taken."""
    ports = Ports(
        agents={name: base + 1 + index for index, name in enumerate(agents)},
        crm=base + 10,
        researcher=base + 11,
        authz=base + 12,
        palisade_admin=base + 13,
        agents_envoy_admin=base + 14,
        tools_envoy_admin=base + 15,
        otlp=base + 16,
        palisade_control=base + 17,
    )
    for use, port in ports.named().items():
        if not _is_free(port):
            raise PortBusy(
                f"port {port} ({use}) is in use: stop what listens there, or move all of them: make run BASE_PORT=28000"
            )
    return ports


def free(agents: Sequence[str]) -> Ports:
    """Ports that nobody uses at this moment: any number of meshes can run side by side."""
    pool = iter(some(len(agents) + 8))
    return Ports({name: next(pool) for name in agents}, *pool)


def some(count: int) -> set[int]:
    """So many ports that nobody uses at this moment."""
    found: set[int] = set()
    while len(found) < count:
        port = random.choice(_TEST_RANGE)
        if port not in found and _is_free(port):
            found.add(port)
    return found


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        # As the servers do it: connections of an earlier run in TIME_WAIT are no obstacle, a listener is.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
        return True
