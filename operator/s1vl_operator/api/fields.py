"""The kinds of value that the custom resource is made of, each with its check and its form in the CRD's schema."""

from __future__ import annotations

from decimal import Decimal
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, WithJsonSchema
from pydantic.alias_generators import to_camel
from pydantic_core import PydanticCustomError

QUANTITY = r"^([0-9]+(\.[0-9]+)?)(([KMGTPE]i)|[munkMGTPE]|([eE][0-9]{1,2}))?$"
"""A Kubernetes quantity that is not negative, e.g. 100m, 2, 20Gi."""
_SUFFIXES = {"": 0, "n": -9, "u": -6, "m": -3, "k": 3, "M": 6, "G": 9, "T": 12, "P": 15, "E": 18}
_BINARY = {"Ki": 1, "Mi": 2, "Gi": 3, "Ti": 4, "Pi": 5, "Ei": 6}


class Model(BaseModel):
    """An object of the custom resource: camelCase on the wire, unknown fields refused, never changed after parsing."""

    model_config = ConfigDict(
        alias_generator=to_camel, populate_by_name=True, extra="forbid", frozen=True, use_attribute_docstrings=True
    )


def _json_value(value: Any) -> Any:
    if isinstance(value, bool) or not isinstance(value, int | str):
        raise PydanticCustomError("quantity_type", "Input should be a whole number or a string such as 100m or 2Gi")
    return str(value)


def _not_blank(value: str) -> str:
    if not value.strip():
        raise PydanticCustomError("blank", "must not be empty")
    return value


Quantity = Annotated[str, Field(pattern=QUANTITY, max_length=32)]
"""A size, always a string."""

ResourceQuantity = Annotated[
    str,
    BeforeValidator(_json_value),
    Field(pattern=QUANTITY, max_length=32),
    WithJsonSchema(
        {
            "anyOf": [{"type": "integer"}, {"type": "string"}],
            "x-kubernetes-int-or-string": True,
            "pattern": QUANTITY,
            "maxLength": 32,
        }
    ),
]
"""A number of a resource; `cpu: 2` and `cpu: "2"` mean the same."""

FreeForm = Annotated[dict[str, Any], WithJsonSchema({"type": "object", "x-kubernetes-preserve-unknown-fields": True})]
"""An object that belongs to Kubernetes' own API and is handed on as it is."""

Name = Annotated[str, Field(min_length=1, max_length=253, pattern=r"^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$")]
"""The name of a Kubernetes object."""

Key = Annotated[str, Field(min_length=1, max_length=253, pattern=r"^[-._a-zA-Z0-9]+$")]
"""A key in a Secret or ConfigMap."""

TenantName = Annotated[str, Field(min_length=1, max_length=40, pattern=r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$")]
"""A DNS label; bounded because it becomes part of the names of objects."""

Path = Annotated[str, Field(min_length=1, max_length=256)]
"""An absolute path; what makes it a good one is said in `rules`."""

Image = Annotated[str, Field(min_length=1, max_length=512), AfterValidator(_not_blank)]
"""A container image reference."""

Port = Annotated[int, Field(ge=1024, le=65535)]
"""A TCP port that a non-root process can bind."""

ResourceName = Annotated[
    str, Field(min_length=1, max_length=253, pattern=r"^[a-zA-Z0-9]([-_./a-zA-Z0-9]*[a-zA-Z0-9])?$")
]
"""The name of a resource that a node offers, e.g. nvidia.com/gpu."""


def quantity(text: str) -> Decimal:
    """The number that a quantity such as `1500m` or `2Gi` stands for.

    Raises:
        InvalidOperation: it is none.
        KeyError: its suffix is none.
    """
    digits = text.rstrip("KMGTPEinumk") if not text[-1:].isdigit() else text
    suffix = text[len(digits) :]
    if suffix in _BINARY:
        return Decimal(digits) * Decimal(1024) ** _BINARY[suffix]
    return Decimal(digits).scaleb(_SUFFIXES[suffix])
