"""What must exist for one S1VLDeployment: pure functions from (deployment, context) to manifests; no I/O, no clock."""

from s1vl_operator.desired.context import Context, Manifest, PodAddress, SecretTemplate, SecretValue
from s1vl_operator.desired.protocols import Protocol
from s1vl_operator.desired.state import desired_secrets, desired_state, service_url

__all__ = [
    "Context",
    "Manifest",
    "PodAddress",
    "Protocol",
    "SecretTemplate",
    "SecretValue",
    "desired_secrets",
    "desired_state",
    "service_url",
]
