"""The user's last word on a pod template: a patch in the manner of Kubernetes' strategic merge."""

from __future__ import annotations

from typing import Any

KEYS = {
    "containers": "name",
    "initContainers": "name",
    "volumes": "name",
    "env": "name",
    "imagePullSecrets": "name",
    "volumeMounts": "mountPath",
    "volumeDevices": "devicePath",
    "ports": "containerPort",
    "hostAliases": "ip",
}
"""Lists whose items are told apart by a key; every other list is replaced as a whole."""

WHOLE = frozenset({"volumes", "env"})
"""Of these an item replaces the one of the same key: two sources of one volume or variable would be invalid."""


def merge(base: dict[str, Any], patch: dict[str, Any] | None) -> dict[str, Any]:
    """`base` with `patch` applied; neither is changed.

    Objects are merged, a null removes a key, lists of `KEYS` are merged item by item (new items at the end), anything
    else is replaced.
    """
    if not patch:
        return base
    merged = dict(base)
    for key, value in patch.items():
        old = base.get(key)
        if value is None:
            merged.pop(key, None)
        elif isinstance(old, dict) and isinstance(value, dict):
            merged[key] = merge(old, value)
        elif key in KEYS and isinstance(old, list) and isinstance(value, list):
            merged[key] = merge_list(old, value, KEYS[key], whole=key in WHOLE)
        else:
            merged[key] = value
    return merged


def merge_list(base: list[Any], patch: list[Any], key: str, *, whole: bool = False) -> list[Any]:
    """`base` with each item of `patch` merged into (`whole`: in the place of) the item of the same `key`, or added."""
    merged = list(base)
    places = {_key(item, key): i for i, item in enumerate(base)}
    for item in patch:
        known = _key(item, key)
        if known is not None and known in places:
            place = places[known]
            merged[place] = item if whole else merge(merged[place], item)
        else:
            places[known] = len(merged)
            merged.append(item)
    return merged


def _key(item: Any, key: str) -> str | int | None:
    """What an item is told apart by; None where a user wrote something else than such an item."""
    value = item.get(key) if isinstance(item, dict) else None
    return value if isinstance(value, str | int) else None
