"""A real kube-apiserver with etcd and without controllers, one for all tests of this folder."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from hack.cluster.controlplane import Running, control_plane


@pytest.fixture(scope="session")
def apiserver() -> Iterator[Running]:
    """The control plane itself: kubeconfig, URL, logs."""
    with control_plane() as running:
        yield running


@pytest.fixture(scope="session")
def kubeconfig(apiserver: Running) -> str:
    """Path of a cluster-admin kubeconfig."""
    return str(apiserver.kubeconfig)
