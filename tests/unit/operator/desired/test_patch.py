from __future__ import annotations

import copy
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from s1vl_operator.desired.patch import merge


@pytest.mark.parametrize(
    ("base", "patch", "merged"),
    [
        ({"a": 1}, None, {"a": 1}),
        ({"a": 1}, {}, {"a": 1}),
        ({"a": {"b": 1, "c": 2}}, {"a": {"c": 3, "d": 4}}, {"a": {"b": 1, "c": 3, "d": 4}}),
        ({"a": 1, "b": 2}, {"a": None, "z": None}, {"b": 2}),
        ({"a": [1, 2]}, {"a": [3]}, {"a": [3]}),
        ({"a": {"b": 1}}, {"a": [1]}, {"a": [1]}),
        ({"containers": "x"}, {"containers": [{"name": "a"}]}, {"containers": [{"name": "a"}]}),
        (
            {"containers": [{"name": "a", "image": "i"}, {"name": "b"}]},
            {"containers": [{"name": "b", "tty": True}, {"name": "c"}]},
            {"containers": [{"name": "a", "image": "i"}, {"name": "b", "tty": True}, {"name": "c"}]},
        ),
        (
            {"volumeMounts": [{"mountPath": "/m", "name": "images", "subPath": "chem"}]},
            {"volumeMounts": [{"mountPath": "/m", "name": "images", "subPath": "elsewhere"}]},
            {"volumeMounts": [{"mountPath": "/m", "name": "images", "subPath": "elsewhere"}]},
        ),
        (
            {"env": [{"name": "A", "value": "1"}, {"name": "B", "value": "2"}]},
            {"env": [{"name": "A", "valueFrom": {"x": 1}}]},
            {"env": [{"name": "A", "valueFrom": {"x": 1}}, {"name": "B", "value": "2"}]},
        ),
        (
            {"volumes": [{"name": "tmp", "emptyDir": {"sizeLimit": "1Gi"}}]},
            {"volumes": [{"name": "tmp", "ephemeral": {}}]},
            {"volumes": [{"name": "tmp", "ephemeral": {}}]},
        ),
        ({"containers": [{"name": "a"}]}, {"containers": ["odd"]}, {"containers": [{"name": "a"}, "odd"]}),
        (
            {"containers": []},
            {"containers": [{"name": "a", "x": 1}, {"name": "a", "y": 2}]},
            {"containers": [{"name": "a", "x": 1, "y": 2}]},
        ),
        ({"tolerations": [{"key": "a"}]}, {"tolerations": [{"key": "b"}]}, {"tolerations": [{"key": "b"}]}),
    ],
)
def test_merge(base: dict[str, Any], patch: dict[str, Any] | None, merged: dict[str, Any]) -> None:
    before = copy.deepcopy((base, patch))
    assert merge(base, patch) == merged
    assert (base, patch) == before


VALUES = st.recursive(
    st.none() | st.integers() | st.text(max_size=3),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["a", "name", "containers", "env", "mountPath", "volumeMounts"]), inner, max_size=3
        )
    ),
    max_leaves=20,
)
OBJECTS = st.dictionaries(st.sampled_from(["a", "spec", "containers", "env"]), VALUES, max_size=4)


@given(OBJECTS, OBJECTS)
def test_whatever_a_user_writes_is_merged_and_changes_nothing(base: dict[str, Any], patch: dict[str, Any]) -> None:
    before = copy.deepcopy((base, patch))
    merge(base, patch)
    assert (base, patch) == before
