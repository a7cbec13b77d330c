"""The CRD before a real API server: it is taken, fills in the defaults, and refuses what the operator would refuse."""

from __future__ import annotations

import json
import secrets
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from kubernetes import client, config
from kubernetes.client.exceptions import ApiException

from s1vl_operator.api.changes import Effect, change
from s1vl_operator.api.crd import crd
from s1vl_operator.api.v1alpha1 import GROUP, PLURAL, VERSION, parse
from s1vl_operator.desired import Context, desired_state
from tests.unit.operator.api.corpus import BAD, CHANGES, GOOD, Resource, resource
from tests.unit.operator.api.samples import around, fields

EXAMPLES = sorted((Path(__file__).parents[2] / "examples").glob("*.yaml"))


class Api:
    """Creates and changes S1VLDeployments in one namespace, as kubectl does: unknown fields are errors."""

    def __init__(self, api_client: Any, namespace: str) -> None:
        self.namespace = namespace
        self.custom = client.CustomObjectsApi(api_client)
        self.extensions = client.ApiextensionsV1Api(api_client)

    def create(self, cr: Resource, dry: bool = True) -> Resource:
        cr = {**cr, "metadata": {**cr["metadata"], "namespace": self.namespace}}
        only_check = {"dry_run": "All"} if dry else {}
        made: Resource = self.custom.create_namespaced_custom_object(
            GROUP, VERSION, self.namespace, PLURAL, cr, field_validation="Strict", **only_check
        )
        return made

    def replace(self, cr: Resource) -> Resource:
        cr["metadata"]["namespace"] = self.namespace
        made: Resource = self.custom.replace_namespaced_custom_object(
            GROUP, VERSION, self.namespace, PLURAL, cr["metadata"]["name"], cr, field_validation="Strict"
        )
        return made

    def delete(self, cr: Resource) -> None:
        self.custom.delete_namespaced_custom_object(GROUP, VERSION, self.namespace, PLURAL, cr["metadata"]["name"])


def said(refused: pytest.ExceptionInfo[ApiException]) -> str:
    assert refused.value.status in (400, 422), refused.value
    message: str = json.loads(refused.value.body)["message"]
    return message


def established(api: Api, name: str) -> bool:
    found = api.extensions.read_custom_resource_definition(name)
    return any(c.type == "Established" and c.status == "True" for c in (found.status.conditions or []))


@pytest.fixture(scope="module")
def api(kubeconfig: Path) -> Iterator[Api]:
    with config.new_client_from_config(str(kubeconfig)) as api_client:
        core = client.CoreV1Api(api_client)
        namespace = f"crd-{secrets.token_hex(4)}"
        core.create_namespace({"metadata": {"name": namespace}})
        api = Api(api_client, namespace)
        wanted = crd()
        name = wanted["metadata"]["name"]
        api.extensions.patch_custom_resource_definition(
            name, wanted, field_manager="tests", force=True, _content_type="application/apply-patch+yaml"
        )
        deadline = time.monotonic() + 60
        while not served(api, name):
            assert time.monotonic() < deadline, f"{name} is not served"
            time.sleep(0.1)
        yield api
        core.delete_namespace(namespace)


def served(api: Api, name: str) -> bool:
    """Established, and its endpoint answers: the one comes a little before the other."""
    if not established(api, name):
        return False
    try:
        api.custom.list_namespaced_custom_object(GROUP, VERSION, api.namespace, PLURAL)
    except ApiException as error:
        if error.status == 404:
            return False
        raise
    return True


@pytest.mark.parametrize("good", GOOD.values(), ids=GOOD)
def test_accepts(api: Api, good: Resource) -> None:
    made = api.create(good)
    # What the API server fills in is what the operator would have filled in.
    assert parse(made).spec == parse(good).spec


@pytest.mark.parametrize(("bad", "path", "message"), BAD.values(), ids=BAD)
def test_refuses_what_the_operator_refuses(api: Api, bad: Resource, path: str, message: str) -> None:
    with pytest.raises(ApiException) as refused:
        api.create(bad)
    text = said(refused)
    assert path in text
    assert message in text


@pytest.mark.parametrize(("before", "after", "message"), CHANGES.values(), ids=CHANGES)
def test_changes(api: Api, before: Resource, after: Resource, message: str) -> None:
    _change(api, before, after, message)


@pytest.mark.parametrize("path", sorted(fields()))
def test_every_field_can_be_changed_unless_it_is_said_to_be_immutable(api: Api, path: str) -> None:
    before, after = around(path)
    _change(api, before, after, "immutable" if change(path).effect is Effect.IMMUTABLE else "")


def _change(api: Api, before: Resource, after: Resource, message: str) -> None:
    """Create and change one; it is refused with the message, or taken when there is none."""
    name = f"change-{secrets.token_hex(3)}"
    made = api.create(resource(before, name), dry=False)
    try:
        changed = resource(after, name)
        changed["metadata"]["resourceVersion"] = made["metadata"]["resourceVersion"]
        if not message:
            assert api.replace(changed)["spec"]
        else:
            with pytest.raises(ApiException) as refused:
                api.replace(changed)
            assert message in said(refused)
    finally:
        api.delete(made)


@pytest.mark.parametrize(
    ("spec", "field"),
    [
        ({"engine": {"gpu": 4}}, "spec.engine.gpu"),
        ({"tenant": []}, "spec.tenant"),
        ({"tenants": [{"name": "a", "limits": {"rpm": 1}}]}, "spec.tenants[0].limits.rpm"),
    ],
)
def test_unknown_fields_are_refused(api: Api, spec: Resource, field: str) -> None:
    with pytest.raises(ApiException) as refused:
        api.create(resource(spec))
    assert f'unknown field "{field}"' in said(refused)


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda path: path.name)
def test_examples(api: Api, example: Path) -> None:
    *others, manifest = yaml.safe_load_all(example.read_text())
    assert api.create(manifest)["spec"]
    for other in others:
        _apply_dry(api, {**other, "metadata": {**other["metadata"], "namespace": api.namespace}})


def test_scale(api: Api) -> None:
    made = api.create(resource(name=f"scale-{secrets.token_hex(3)}"), dry=False)
    name = made["metadata"]["name"]
    try:
        api.custom.patch_namespaced_custom_object_scale(
            GROUP,
            VERSION,
            api.namespace,
            PLURAL,
            name,
            {"spec": {"replicas": 3}},
            _content_type="application/merge-patch+json",
        )
        found = api.custom.get_namespaced_custom_object(GROUP, VERSION, api.namespace, PLURAL, name)
        assert found["spec"]["engine"]["replicas"] == 3
    finally:
        api.delete(made)


@pytest.mark.parametrize("good", GOOD.values(), ids=GOOD)
def test_the_api_server_takes_the_desired_state(api: Api, good: Resource) -> None:
    """Every manifest by server-side apply, dry and strict: a misspelt or misplaced field is an error."""
    context = Context(
        "control:1", "sandbox:1", "vllm/vllm-openai:v0.11.2", "IfNotPresent", "s1vl", (("10.0.0.1/32", 6443),)
    )
    good = {**good, "metadata": {**good["metadata"], "namespace": api.namespace, "uid": str(uuid.uuid4())}}
    for manifest in desired_state(parse(good), context):
        if good["spec"].get("engine", {}).get("podTemplate"):
            continue  # Nonsense on purpose: the user's last word is not ours to check.
        _apply_dry(api, manifest)


def test_a_misplaced_field_of_a_manifest_would_be_seen(api: Api) -> None:
    deployment = parse({**resource(), "metadata": {"name": "demo", "namespace": api.namespace, "uid": "u"}})
    manifest = desired_state(deployment, Context("c:1", "s:1", "e:1", "Always", "s1vl"))[-1]
    manifest["spec"]["template"]["spec"]["containers"][0]["livenesProbe"] = {}
    with pytest.raises(AssertionError, match="livenesProbe"):
        _apply_dry(api, manifest)


def _apply_dry(api: Api, manifest: Resource) -> None:
    group, _, version = manifest["apiVersion"].rpartition("/")
    plural = {"NetworkPolicy": "networkpolicies"}.get(manifest["kind"], manifest["kind"].lower() + "s")
    meta = manifest["metadata"]
    root = f"/apis/{group}/{version}" if group else f"/api/{version}"
    raw = api.custom.api_client
    parameters = raw.param_serialize(
        "PATCH",
        f"{root}/namespaces/{meta['namespace']}/{plural}/{meta['name']}",
        query_params=[("fieldManager", "t"), ("force", "true"), ("dryRun", "All"), ("fieldValidation", "Strict")],
        header_params={"Content-Type": "application/apply-patch+yaml", "Accept": "application/json"},
        body=manifest,
        auth_settings=["BearerToken"],
    )
    answer = raw.call_api(*parameters)
    answer.read()
    assert answer.status in (200, 201), f"{manifest['kind']} {meta['name']}: {answer.data!r}"
