from __future__ import annotations

import re

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from s1vl_operator.api.v1alpha1 import InvalidSpec, S1VLDeployment
from s1vl_operator.desired import desired_secrets, desired_state, names
from tests.unit.operator.desired.conftest import CONTEXT, deployment

DNS_LABEL = re.compile(r"[a-z]([-a-z0-9]{0,61}[a-z0-9])?")
LABEL_VALUE = re.compile(r"([A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?)?")

WORDS = st.lists(
    st.sampled_from(["a", "engine", "pods", "sandbox", "tenant", "orchestrator", "images", "x1"]), min_size=1
)
NAMES = WORDS.map("-".join).filter(lambda name: len(name) <= 40)


def children(deployment: S1VLDeployment) -> set[str]:
    made = [*desired_state(deployment, CONTEXT), *(s.manifest for s in desired_secrets(deployment, CONTEXT))]
    listed = [f"{m['kind']}/{m['metadata']['name']}" for m in made]
    assert len(listed) == len(set(listed))
    return set(listed)


def try_deployment(name: str, tenant: str) -> S1VLDeployment:
    try:
        return deployment({"tenants": [{"name": tenant}]}, name=name)
    except InvalidSpec:
        assume(False)
        raise


@given(NAMES, NAMES, NAMES, NAMES)
def test_two_deployments_share_no_child(one: str, ones_tenant: str, other: str, others_tenant: str) -> None:
    assume(one != other)
    assert not children(try_deployment(one, ones_tenant)) & children(try_deployment(other, others_tenant))


def test_two_tenants_whose_names_are_cut_share_nothing() -> None:
    long = "t" * 39
    tenants = [{"name": f"{long}a"}, {"name": f"{long}b"}]
    children(deployment({"tenants": tenants}, name="d" * 40))


def test_the_longest_names_fit() -> None:
    for manifest in desired_state(deployment({"tenants": [{"name": "t" * 40}]}, name="d" * 40), CONTEXT):
        name, kind = manifest["metadata"]["name"], manifest["kind"]
        assert len(name) <= (52 if kind == "StatefulSet" else 63)
        assert DNS_LABEL.fullmatch(name)
        assert all(LABEL_VALUE.fullmatch(value) for value in manifest["metadata"]["labels"].values())


@pytest.mark.parametrize(
    ("name", "limit", "beginning"),
    [
        ("demo-sandbox-chem", 52, None),
        ("a" * 52, 52, None),
        ("a" * 53, 52, "a" * 43),
        ("ab-cdefghijkl", 12, "ab"),
    ],
)
def test_bounded(name: str, limit: int, beginning: str | None) -> None:
    found = names.bounded(name, limit)
    if beginning is None:
        assert found == name
    else:
        assert re.fullmatch(rf"{beginning}-[0-9a-f]{{8}}", found)
        assert len(found) <= limit
        assert found != names.bounded(f"{name}x", limit)


def test_selectors_are_part_of_the_labels() -> None:
    cr = deployment()
    for component in ("engine", "sandbox", "orchestrator"):
        assert names.selector(cr, component, "chem").items() <= names.labels(cr, component, "chem").items()
    assert names.selector_text(cr, "engine") == (
        "app.kubernetes.io/component=engine,app.kubernetes.io/part-of=s1vl,s1vl.io/deployment=demo"
    )
