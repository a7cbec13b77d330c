"""Whether an object in the cluster already is what a manifest asks for.

The API server adds defaults and writes some values in its own way (`1000m` as `1`, an empty list as nothing); other
owners add fields, entries of maps and entries of keyed lists. None of that is a difference. What is: a field of the
manifest that is missing or has another value, and another entry in a list that is replaced as a whole.
"""

from __future__ import annotations

import hashlib
import json
from decimal import InvalidOperation
from typing import Any

from s1vl_operator.api.fields import quantity
from s1vl_operator.cluster.kinds import Manifest

HASH_ANNOTATION = "s1vl.io/manifest-hash"
"""Digest of the manifest that was applied last: it alone shows that a field or a list's entry is no longer wanted."""

_KEYS = (
    ("uid",),
    ("containerPort", "protocol"),
    ("port", "protocol"),
    ("mountPath",),
    ("devicePath",),
    ("topologyKey", "whenUnsatisfiable"),
    ("name",),
)
"""What identifies an entry of a merged list: the first of these whose first part all of the manifest's entries have."""

_ATOMIC_LISTS = frozenset(
    {
        "command",
        "args",
        "ingress",
        "egress",
        "rules",
        "subjects",
        "tolerations",
        "items",
        "sources",
        "metrics",
        "triggers",
        "except",
    }
)
"""Lists that the API server replaces as a whole, with all that is in them, although their entries may have a name."""

_ATOMIC_MAPS = frozenset({"selector", "nodeSelector", "podSelector", "namespaceSelector", "labelSelector"})
"""Objects that it replaces as a whole, and to which it adds nothing."""

_QUANTITIES = frozenset({"requests", "limits", "hard", "capacity", "sizeLimit", "divisor"})


def with_hash(manifest: Manifest) -> Manifest:
    """The manifest with its own digest as an annotation."""
    text = json.dumps(manifest, sort_keys=True, separators=(",", ":"))
    digest = hashlib.sha256(text.encode()).hexdigest()[:32]
    metadata = manifest["metadata"]
    annotations = {**(metadata.get("annotations") or {}), HASH_ANNOTATION: digest}
    return {**manifest, "metadata": {**metadata, "annotations": annotations}}


def hash_of(manifest: Manifest) -> str:
    """The digest that an object or a manifest carries; "" when it has none."""
    digest = ((manifest.get("metadata") or {}).get("annotations") or {}).get(HASH_ANNOTATION)
    return str(digest or "")


def closed(manifest: Manifest) -> Manifest:
    """The manifest with the lists that must stay empty spelled out, so that an opening added to a policy is noticed."""
    if manifest["kind"] != "NetworkPolicy":
        return manifest
    return {**manifest, "spec": {"ingress": [], "egress": [], **manifest["spec"]}}


def grown(manifest: Manifest, found: Manifest | None) -> Manifest:
    """The manifest, but with the size that a claim already has when that is larger: a claim cannot shrink."""
    if found is None or manifest["kind"] != "PersistentVolumeClaim":
        return manifest
    requests, has = manifest["spec"]["resources"]["requests"], found["spec"]["resources"]["requests"]["storage"]
    if quantity(has) <= quantity(requests["storage"]):
        return manifest
    return {**manifest, "spec": {**manifest["spec"], "resources": {"requests": {**requests, "storage": has}}}}


def difference(wanted: Any, found: Any, path: str = "", *, exact: bool = False) -> str:
    """The first path at which `found` is not what `wanted` asks for; "" when it is everywhere.

    Args:
        wanted: the manifest, or a part of it.
        found: the object, or the same part of it; None when it is not there.
        path: where the parts are, e.g. `spec.template`.
        exact: lists here are replaced as a whole.
    """
    word = path.rpartition(".")[2]
    if isinstance(wanted, dict) and isinstance(found, dict):
        if word in _ATOMIC_MAPS and (more := sorted(found.keys() - wanted.keys())):
            return f"{path}.{more[0]}"
        for key, value in wanted.items():
            if at := difference(value, found.get(key), f"{path}.{key}" if path else str(key), exact=exact):
                return at
        return ""
    if isinstance(wanted, list) and isinstance(found, list):
        return _list_difference(wanted, found, path, exact or word in _ATOMIC_LISTS)
    return "" if _same(wanted, found, path) else path


def _list_difference(wanted: list[Any], found: list[Any], path: str, exact: bool) -> str:
    key = None if exact else _identity(wanted)
    if key is None:
        if len(wanted) != len(found):
            return path
        pairs = list(zip(wanted, found, strict=True))
    else:
        known = {_identify(entry, key): entry for entry in found if isinstance(entry, dict)}
        pairs = [(entry, known.get(_identify(entry, key))) for entry in wanted]
    for index, (one, other) in enumerate(pairs):
        if at := difference(one, other, f"{path}[{index}]", exact=exact):
            return at
    return ""


def _identity(wanted: list[Any]) -> tuple[str, ...] | None:
    if not wanted or not all(isinstance(entry, dict) for entry in wanted):
        return None
    for key in _KEYS:
        if all(key[0] in entry for entry in wanted):
            return key
    return None


def _identify(entry: dict[str, Any], key: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(str(entry.get(part, "TCP" if part == "protocol" else "")) for part in key)


def _same(wanted: Any, found: Any, path: str) -> bool:
    if found is None:
        # What is empty is left out when it is stored.
        return not wanted
    if wanted == found and isinstance(wanted, bool) == isinstance(found, bool):
        return True
    return (
        _is_quantity(path)
        and isinstance(wanted, str | int)
        and isinstance(found, str | int)
        and _equal_quantities(wanted, found)
    )


def _is_quantity(path: str) -> bool:
    parts = path.split(".")
    # A resource's name may itself hold dots: `limits.example.com/gpu`.
    return parts[-1] in _QUANTITIES or any(part in _QUANTITIES for part in parts[:-1])


def _equal_quantities(one: str | int, other: str | int) -> bool:
    try:
        return quantity(str(one)) == quantity(str(other))
    except (InvalidOperation, KeyError):
        return False
