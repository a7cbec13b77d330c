"""Which protocol the orchestrator gets: a built-in one by its name, or the text of a profile in a ConfigMap."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import yaml

from s1vl_operator.api.reasons import Reason
from s1vl_operator.api.v1alpha1 import S1VLDeployment
from s1vl_operator.desired.context import DEFAULT_PROTOCOL, Manifest

TEXT_MAX = 64 * 1024
"""Bytes of a profile; the built-in ones have 4 KiB. It shares the 1 MiB of a ConfigMap with up to 200 tenants."""


@dataclass(frozen=True)
class Protocol:
    """What is chosen.

    Attributes:
        value: for the configuration: a built-in name, or a profile's text; "" when there is none, nor was before.
        reason: why it is not the one that the spec asks for; None when it is.
        message: the same for people.
    """

    value: str
    reason: Reason | None = None
    message: str = ""


def choose(deployment: S1VLDeployment, found: Manifest | None, config: str) -> Protocol:
    """The protocol that the spec asks for, or else the one that is in use: a typing mistake must not stop the service.

    Args:
        deployment: the custom resource.
        found: the ConfigMap that `protocolRef` names; None when it does not exist, or none is named.
        config: the text of the orchestrator's configuration as it is; "" when there is none.
    """
    ref = deployment.spec.orchestrator.protocol_ref
    if ref is None:
        return Protocol(deployment.spec.orchestrator.protocol or DEFAULT_PROTOCOL)
    text = (found.get("data") or {}).get(ref.key) if found else None
    if found is None:
        return _kept(config, Reason.PROTOCOL_NOT_FOUND, f"there is no ConfigMap {ref.name}")
    if text is None:
        keys = ", ".join(sorted(found.get("data") or {})) or "none"
        return _kept(config, Reason.PROTOCOL_NOT_FOUND, f"the ConfigMap {ref.name} has no key {ref.key}; it has {keys}")
    size = len(text.encode())
    if text.strip() and size <= TEXT_MAX:
        return Protocol(text)
    why = f"has {size} bytes, more than {TEXT_MAX}" if size > TEXT_MAX else "is empty"
    return _kept(config, Reason.PROTOCOL_INVALID, f"{ref.key} of the ConfigMap {ref.name} {why}")


def untried(chosen: Protocol, config: str) -> Protocol:
    """The protocol while no orchestrator is there to try the one that `choose` found."""
    if not in_use(config):
        return chosen
    return _kept(config, Reason.CONFIG_NOT_LOADED, "no orchestrator has said yet whether it takes the new protocol")


def refused(deployment: S1VLDeployment, config: str, message: str) -> Protocol:
    """The protocol after an orchestrator said what is wrong with the one that `choose` found."""
    ref = deployment.spec.orchestrator.protocol_ref
    where = f"{ref.key} of the ConfigMap {ref.name}: " if ref else ""
    return _kept(config, Reason.PROTOCOL_INVALID, f"{where}{message}")


def in_use(config: str) -> str:
    """The protocol of a configuration's text; "" when it has none, or somebody made it unreadable."""
    try:
        parsed: Any = yaml.safe_load(config)
    except yaml.YAMLError:
        return ""
    value = parsed.get("protocol") if isinstance(parsed, dict) else None
    return value if isinstance(value, str) else ""


def _kept(config: str, reason: Reason, why: str) -> Protocol:
    value = in_use(config)
    rest = "the last protocol stays in the configuration" if value else "nobody is served until then"
    return Protocol(value, reason, f"{why}; {rest}")
