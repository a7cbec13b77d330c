"""When an object already is what a manifest asks for, and when it is not."""

from __future__ import annotations

import copy
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from s1vl_operator.api.fields import quantity
from s1vl_operator.cluster.compare import closed, difference, grown, hash_of, with_hash

POLICY = {
    "apiVersion": "networking.k8s.io/v1",
    "kind": "NetworkPolicy",
    "metadata": {"name": "p", "namespace": "n"},
    "spec": {"podSelector": {"matchLabels": {"a": "b"}}, "policyTypes": ["Ingress", "Egress"]},
}
RULE = {"from": [{"podSelector": {"matchLabels": {"x": "y"}}}], "ports": [{"protocol": "TCP", "port": 80}]}


@pytest.mark.parametrize(
    ("wanted", "found"),
    [
        pytest.param({"a": 1}, {"a": 1, "b": 2}, id="a field that is not ours"),
        pytest.param({"a": {}}, {}, id="an empty object is left out"),
        pytest.param({"a": [], "b": None, "c": False, "d": ""}, {}, id="what is empty is left out"),
        pytest.param({"limits": {"cpu": "1000m"}}, {"limits": {"cpu": "1"}}, id="a quantity in another form"),
        pytest.param({"limits": {"cpu": 2}}, {"limits": {"cpu": "2"}}, id="a number as a quantity"),
        pytest.param({"limits": {"e.io/gpu": "04"}}, {"limits": {"e.io/gpu": "4"}}, id="an extended resource"),
        pytest.param({"requests": {"memory": "1024Mi"}}, {"requests": {"memory": "1Gi"}}, id="binary suffixes"),
        pytest.param({"emptyDir": {"sizeLimit": "0.5Gi"}}, {"emptyDir": {"sizeLimit": "512Mi"}}, id="sizeLimit"),
        pytest.param(
            {"containers": [{"name": "a", "image": "x"}]},
            {"containers": [{"name": "injected"}, {"name": "a", "image": "x", "tty": False}]},
            id="a container that somebody injected",
        ),
        pytest.param(
            {"ports": [{"port": 80, "targetPort": "http"}]},
            {"ports": [{"port": 80, "protocol": "TCP", "targetPort": "http", "nodePort": 30000}]},
            id="defaults of a port",
        ),
        pytest.param(
            {"volumeMounts": [{"mountPath": "/b", "name": "v"}, {"mountPath": "/a", "name": "v"}]},
            {"volumeMounts": [{"mountPath": "/a", "name": "v"}, {"mountPath": "/b", "name": "v"}]},
            id="mounts of one volume in another order",
        ),
    ],
)
def test_the_same(wanted: Any, found: Any) -> None:
    assert difference(wanted, found) == ""


@pytest.mark.parametrize(
    ("wanted", "found", "path"),
    [
        pytest.param({"a": {"b": 1}}, {"a": {"b": 2}}, "a.b", id="another value"),
        pytest.param({"a": {"b": 1}}, {"a": {}}, "a.b", id="a missing value"),
        pytest.param({"replicas": 1}, {"replicas": True}, "replicas", id="true is not 1"),
        pytest.param({"replicas": 0}, {"replicas": 3}, "replicas", id="zero is a value"),
        pytest.param({"args": ["a"]}, {"args": ["a", "b"]}, "args", id="one more argument"),
        pytest.param({"args": ["a", "b"]}, {"args": ["b", "a"]}, "args[0]", id="arguments in another order"),
        pytest.param({"data": {"x": "1"}}, {"data": {"x": "1.0"}}, "data.x", id="text that looks like a quantity"),
        pytest.param({"limits": {"cpu": "1"}}, {"limits": {"cpu": "2"}}, "limits.cpu", id="another quantity"),
        pytest.param(
            {"env": [{"name": "A", "value": "1"}]},
            {"env": [{"name": "B", "value": "1"}]},
            "env[0]",
            id="a missing variable",
        ),
        pytest.param(
            {"selector": {"a": "b"}},
            {"selector": {"a": "b", "broken": "yes"}},
            "selector.broken",
            id="a narrowed selector",
        ),
        pytest.param(
            {"rules": [{"resources": ["pods"], "verbs": ["get"]}]},
            {"rules": [{"resources": ["pods"], "verbs": ["get", "list"]}]},
            "rules[0].verbs",
            id="one more right",
        ),
        pytest.param(
            {"ingress": [RULE]},
            {"ingress": [{**RULE, "ports": [*RULE["ports"], {"protocol": "TCP", "port": 22}]}]},
            "ingress[0].ports",
            id="one more port in a policy",
        ),
        pytest.param(
            closed(POLICY), {**POLICY, "spec": {**POLICY["spec"], "egress": [RULE]}}, "spec.egress", id="an opening"
        ),
    ],
)
def test_a_difference_has_a_path(wanted: Any, found: Any, path: str) -> None:
    assert difference(wanted, found) == path


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1", "1"),
        ("100m", "0.1"),
        ("1.5Gi", "1610612736"),
        ("2k", "2000"),
        ("1e3", "1000"),
        ("3E", "3e18"),
        ("7n", "7e-9"),
    ],
)
def test_quantities(text: str, value: str) -> None:
    from decimal import Decimal

    assert quantity(text) == Decimal(value)


def test_the_digest_is_of_the_manifest_alone() -> None:
    once = with_hash(POLICY)
    assert hash_of(once) == hash_of(with_hash(copy.deepcopy(POLICY))) != ""
    assert hash_of(with_hash({**POLICY, "spec": {}})) != hash_of(once)
    assert "annotations" not in POLICY["metadata"]


@pytest.mark.parametrize(("has", "stays"), [("300Gi", "300Gi"), ("200Gi", "200Gi"), ("100Gi", "200Gi")])
def test_a_claim_that_was_enlarged_by_hand_stays_as_large(has: str, stays: str) -> None:
    def claim(size: str) -> dict[str, Any]:
        spec = {"resources": {"requests": {"storage": size}}}
        return {"kind": "PersistentVolumeClaim", "metadata": {"name": "c"}, "spec": spec}

    assert grown(claim("200Gi"), claim(has))["spec"]["resources"]["requests"]["storage"] == stays
    assert grown(claim("200Gi"), None) == claim("200Gi")


words = st.text("abcdefgh", min_size=1, max_size=6)
leaves = st.one_of(st.booleans(), st.integers(1, 99), words)
trees = st.recursive(
    leaves,
    lambda inner: st.one_of(
        st.dictionaries(words, inner, min_size=1, max_size=4),
        st.lists(words, min_size=1, max_size=3),
        st.lists(words, min_size=1, max_size=3, unique=True).flatmap(
            lambda names: st.lists(inner, min_size=len(names), max_size=len(names)).map(
                lambda values: [{"name": n, "value": v} for n, v in zip(names, values, strict=True)]
            )
        ),
    ),
    max_leaves=12,
)
objects = st.dictionaries(words, trees, min_size=1, max_size=5)


def with_defaults(data: st.DataObject, tree: Any) -> Any:
    """What a server makes of it: more fields in objects, more entries in keyed lists, in any order."""
    if isinstance(tree, dict):
        grown_tree = {key: with_defaults(data, value) for key, value in tree.items()}
        return {**grown_tree, **{f"default-{key}": 0 for key in data.draw(st.lists(words, max_size=2))}}
    if isinstance(tree, list) and tree and isinstance(tree[0], dict):
        more = [{"name": f"injected-{name}"} for name in data.draw(st.lists(words, max_size=2, unique=True))]
        return data.draw(st.permutations([*(with_defaults(data, entry) for entry in tree), *more]))
    return tree


def leaf_paths(tree: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    if isinstance(tree, dict):
        return [p for key, value in tree.items() for p in leaf_paths(value, (*path, key))]
    if isinstance(tree, list):
        return [p for index, value in enumerate(tree) for p in leaf_paths(value, (*path, index))]
    return [path]


@given(objects, st.data())
def test_what_a_server_adds_is_no_difference(wanted: dict[str, Any], data: st.DataObject) -> None:
    assert difference(wanted, with_defaults(data, copy.deepcopy(wanted))) == ""


@given(objects, st.data())
def test_any_value_of_ours_that_changes_is_a_difference(wanted: dict[str, Any], data: st.DataObject) -> None:
    found = copy.deepcopy(wanted)
    path = data.draw(st.sampled_from(leaf_paths(found)))
    place = found
    for step in path[:-1]:
        place = place[step]
    place[path[-1]] = "CHANGED"
    assert difference(wanted, with_defaults(data, found)) != ""
