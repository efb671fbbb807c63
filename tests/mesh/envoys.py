"""The bootstraps of `envoy/`, changed in a place or two by tests that need them elsewhere than the demo has them."""

from __future__ import annotations

import string
from collections.abc import Mapping
from typing import Any

import yaml

from demo.mesh import ROOT

Config = dict[str, Any]


def config(name: str, **words: object) -> Config:
    """One of the files, filled in."""
    return yaml.safe_load(string.Template((ROOT / "envoy" / name).read_text()).substitute(words))


def listener(config: Config, name: str) -> Config:
    """Leaves this listener alone in the configuration, and returns it."""
    resources = config["static_resources"]
    resources["listeners"] = [one for one in resources["listeners"] if one["name"] == name]
    return resources["listeners"][0]


def manager(listener: Config) -> Config:
    """Its HTTP connection manager."""
    return listener["filter_chains"][0]["filters"][-1]["typed_config"]


def ext_authz(listener: Config) -> Config:
    filters = manager(listener)["http_filters"]
    return next(one["typed_config"] for one in filters if one["name"] == "envoy.filters.http.ext_authz")


def cluster(config: Config, name: str) -> Config:
    return next(one for one in config["static_resources"]["clusters"] if one["name"] == name)


def lead(config: Config, name: str, address: Mapping[str, Any]) -> None:
    """Lets this cluster lead there."""
    found = cluster(config, name)
    found["load_assignment"]["endpoints"][0]["lb_endpoints"][0]["endpoint"]["address"] = address


def tcp(ip: str, port: int) -> Config:
    return {"socket_address": {"address": ip, "port_value": port}}
