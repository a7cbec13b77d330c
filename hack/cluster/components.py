"""The command lines and configuration files of the cluster's processes. Pure: starts nothing."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hack.cluster import containerd, network, paths
from hack.cluster.pki import Pki
from hack.cluster.processes import Program

NODE_NAME = "node-0"
CGROUP = "s1vl-cluster"
"""Under it lies `kubepods`, so that the cluster's cgroups cannot be taken for another kubelet's."""

PROVISIONER_MODULE = "hack.cluster.provisioner"
KUBELET_PORT = 10250


@dataclass(frozen=True)
class ControlPlane:
    """Addresses and folders of one etcd and one kube-apiserver.

    Attributes:
        state: the folder that everything lies in.
        program: finds a built program by its name.
        address: what the API server listens on.
        port, etcd_port, etcd_peer_port: TCP ports.
        service_cidr: addresses of Services.
    """

    state: Path
    program: Callable[[str], Path]
    address: str
    port: int
    etcd_port: int
    etcd_peer_port: int
    service_cidr: str = network.SERVICE_CIDR

    @property
    def pki(self) -> Pki:
        """The certificates."""
        return Pki(self.state / "pki")

    @property
    def server(self) -> str:
        """The API server's URL on this machine."""
        return f"https://127.0.0.1:{self.port}"

    def create_certificates(self, *addresses: str) -> None:
        """Make the authority and the certificates of the API server and of the administrator.

        Args:
            addresses: further addresses that the API server is reached at.
        """
        services = (
            "kubernetes",
            "kubernetes.default",
            "kubernetes.default.svc",
            "kubernetes.default.svc.cluster.local",
        )
        names = [f"DNS:{name}" for name in ("localhost", *services)]
        names += [f"IP:{address}" for address in ("127.0.0.1", *addresses)]
        self.pki.create_authority()
        self.pki.issue("apiserver", "kube-apiserver", names=tuple(names))
        self.pki.issue("kubelet-client", "kube-apiserver-kubelet-client", "system:masters")
        self.pki.issue("front-proxy", "front-proxy-client")
        self.pki.issue("admin", "admin", "system:masters")

    def etcd(self) -> Program:
        """Etcd without fsync: what it holds lives as long as the machine."""
        client, peer = (f"http://127.0.0.1:{port}" for port in (self.etcd_port, self.etcd_peer_port))
        flags = {
            "name": "s1vl",
            "data-dir": self.state / "etcd",
            "listen-client-urls": client,
            "advertise-client-urls": client,
            "listen-peer-urls": peer,
            "initial-advertise-peer-urls": peer,
            "initial-cluster": f"s1vl={peer}",
        }
        return Program("etcd", (str(self.program("etcd")), *_flags(flags), "--unsafe-no-fsync"))

    def apiserver(self, **more: object) -> Program:
        """kube-apiserver with RBAC, and with aggregation when certificates of a front proxy are there.

        Args:
            more: further flags; underscores stand for hyphens.
        """
        pki = self.pki
        flags: dict[str, object] = {
            "etcd-servers": f"http://127.0.0.1:{self.etcd_port}",
            "bind-address": self.address,
            "secure-port": self.port,
            "tls-cert-file": pki.certificate("apiserver"),
            "tls-private-key-file": pki.key("apiserver"),
            "client-ca-file": pki.ca,
            "service-account-key-file": pki.service_account_key,
            "service-account-signing-key-file": pki.service_account_key,
            "service-account-issuer": "https://kubernetes.default.svc.cluster.local",
            "service-cluster-ip-range": self.service_cidr,
            "authorization-mode": "Node,RBAC",
            "enable-admission-plugins": "NodeRestriction",
            "allow-privileged": "true",
            # by address: exec and logs would otherwise look the node's name up
            "kubelet-preferred-address-types": "InternalIP",
            "kubelet-certificate-authority": pki.ca,
            "kubelet-client-certificate": pki.certificate("kubelet-client"),
            "kubelet-client-key": pki.key("kubelet-client"),
            "requestheader-client-ca-file": pki.ca,
            "requestheader-allowed-names": "front-proxy-client",
            "requestheader-extra-headers-prefix": "X-Remote-Extra-",
            "requestheader-group-headers": "X-Remote-Group",
            "requestheader-username-headers": "X-Remote-User",
            "proxy-client-cert-file": pki.certificate("front-proxy"),
            "proxy-client-key-file": pki.key("front-proxy"),
            **{name.replace("_", "-"): value for name, value in more.items()},
        }
        return Program("kube-apiserver", (str(self.program("kube-apiserver")), *_flags(flags)))


@dataclass(frozen=True)
class Node:
    """Everything beside the control plane's two: one node that is both master and worker.

    Attributes:
        plane: etcd and the API server.
        run: the machine-wide folder of sockets and runtime state.
    """

    plane: ControlPlane
    run: Path

    @property
    def state(self) -> Path:
        """The folder that everything lies in."""
        return self.plane.state

    @property
    def kubelet_root(self) -> Path:
        """The kubelet's root: a short path bound onto the state folder, for it makes sockets in there."""
        return self.run / "kubelet"

    def conf(self, name: str) -> Path:
        """A configuration file."""
        return self.state / "conf" / name

    def create_certificates(self) -> None:
        """Make all certificates and kubeconfigs."""
        self.plane.create_certificates(network.NODE_IP, network.API_SERVICE_IP)
        pki = self.plane.pki
        pki.issue("kubelet", f"system:node:{NODE_NAME}", "system:nodes", (f"DNS:{NODE_NAME}", f"IP:{network.NODE_IP}"))
        for name in ("kube-controller-manager", "kube-scheduler", "kube-proxy"):
            pki.issue(name, f"system:{name}")
        pki.issue("provisioner", "host-path-provisioner", "system:masters")
        for name in ("kubelet", "kube-controller-manager", "kube-scheduler", "kube-proxy", "provisioner"):
            pki.kubeconfig(name, self.plane.server, self.conf(f"{name}.kubeconfig"))
        pki.kubeconfig("admin", self.plane.server, self.state / "kubeconfig")

    def files(self, resolvers: list[str]) -> dict[Path, str]:
        """The configuration files: path -> content.

        Args:
            resolvers: name servers for pods with `dnsPolicy: Default`.
        """
        return {
            self.conf("containerd.toml"): containerd.config(self.state, self.run),
            self.conf("cni/10-bridge.conflist"): json.dumps(network.cni_config(), indent=1),
            self.conf("kubelet.json"): json.dumps(self._kubelet_config(), indent=1),
            self.conf("kube-proxy.json"): json.dumps(self._proxy_config(), indent=1),
            self.conf("resolv.conf"): "".join(f"nameserver {server}\n" for server in resolvers),
        }

    def _kubelet_config(self) -> dict[str, Any]:
        pki = self.plane.pki
        return {
            "apiVersion": "kubelet.config.k8s.io/v1beta1",
            "kind": "KubeletConfiguration",
            "address": network.NODE_IP,
            "port": KUBELET_PORT,
            "failCgroupV1": False,
            "cgroupDriver": "cgroupfs",
            "cgroupRoot": f"/{CGROUP}",
            "containerRuntimeEndpoint": f"unix://{self.run}/containerd.sock",
            "authentication": {
                "anonymous": {"enabled": False},
                "webhook": {"enabled": True},
                "x509": {"clientCAFile": str(pki.ca)},
            },
            "authorization": {"mode": "Webhook"},
            "tlsCertFile": str(pki.certificate("kubelet")),
            "tlsPrivateKeyFile": str(pki.key("kubelet")),
            "clusterDNS": [network.DNS_IP],
            "clusterDomain": "cluster.local",
            "resolvConf": str(self.conf("resolv.conf")),
            "failSwapOn": False,
            "maxPods": 250,
            "serializeImagePulls": False,
            "oomScoreAdj": 0,
            "podLogsDir": str(self.state / "pod-logs"),
            "volumePluginDir": str(self.state / "volume-plugins"),
            "nodeStatusUpdateFrequency": "4s",
            # a test cluster on a machine that others fill too: only evict when nothing works any more
            "evictionHard": {"nodefs.available": "1%", "imagefs.available": "1%", "memory.available": "100Mi"},
            "imageGCHighThresholdPercent": 100,
        }

    def _proxy_config(self) -> dict[str, Any]:
        return {
            "apiVersion": "kubeproxy.config.k8s.io/v1alpha1",
            "kind": "KubeProxyConfiguration",
            "clientConnection": {"kubeconfig": str(self.conf("kube-proxy.kubeconfig"))},
            "mode": "iptables",
            "clusterCIDR": network.CLUSTER_CIDR,
            "hostnameOverride": NODE_NAME,
            "bindAddress": network.NODE_IP,
            "metricsBindAddress": "127.0.0.1:10249",
            "healthzBindAddress": "127.0.0.1:10256",
            "oomScoreAdj": 0,
            # the host's own connection tracking and routing stay as they are
            "conntrack": {"maxPerCore": 0, "tcpEstablishedTimeout": "0s", "tcpCloseWaitTimeout": "0s"},
            "iptables": {"localhostNodePorts": False, "minSyncPeriod": "100ms"},
        }

    def programs(self) -> list[Program]:
        """All processes, in the order to start them."""
        return [
            self.plane.etcd(),
            Program("containerd", ("containerd", "-c", str(self.conf("containerd.toml")))),
            self.plane.apiserver(advertise_address=network.NODE_IP, enable_aggregator_routing="true"),
            self._controller_manager(),
            self._program("kube-scheduler", {"leader-elect": "false", "bind-address": "127.0.0.1"}),
            self._kubelet(),
            Program("kube-proxy", (str(self.plane.program("kube-proxy")), f"--config={self.conf('kube-proxy.json')}")),
            self._provisioner(),
        ]

    def _program(self, name: str, flags: dict[str, object]) -> Program:
        kubeconfig = self.conf(f"{name}.kubeconfig")
        return Program(name, (str(self.plane.program(name)), *_flags({"kubeconfig": kubeconfig, **flags})))

    def _controller_manager(self) -> Program:
        return self._program(
            "kube-controller-manager",
            {
                "authentication-kubeconfig": self.conf("kube-controller-manager.kubeconfig"),
                "authorization-kubeconfig": self.conf("kube-controller-manager.kubeconfig"),
                "service-account-private-key-file": self.plane.pki.service_account_key,
                "root-ca-file": self.plane.pki.ca,
                "use-service-account-credentials": "true",
                "leader-elect": "false",
                "cluster-cidr": network.CLUSTER_CIDR,
                "allocate-node-cidrs": "true",
                "node-monitor-grace-period": "20s",
                "flex-volume-plugin-dir": self.state / "volume-plugins",
                "bind-address": "127.0.0.1",
            },
        )

    def _kubelet(self) -> Program:
        return self._program(
            "kubelet",
            {
                "config": self.conf("kubelet.json"),
                "hostname-override": NODE_NAME,
                "node-ip": network.NODE_IP,
                "root-dir": self.kubelet_root,
            },
        )

    def _provisioner(self) -> Program:
        flags = {"kubeconfig": self.conf("provisioner.kubeconfig"), "folder": self.state / "volumes"}
        return Program("provisioner", (sys.executable, "-m", PROVISIONER_MODULE, *_flags(flags)), paths.ROOT)


def _flags(flags: dict[str, Any]) -> tuple[str, ...]:
    return tuple(f"--{name}={value}" for name, value in flags.items())
