"""Certificates and kubeconfigs of the cluster, made with openssl."""

from __future__ import annotations

import json
import subprocess
from base64 import b64encode
from dataclasses import dataclass
from pathlib import Path

from hack.ui import Failure

DAYS = "3650"
SERVING = "extendedKeyUsage=serverAuth,clientAuth"


@dataclass(frozen=True)
class Pki:
    """A folder of certificates signed by one authority of its own.

    Every client has one of its own, so that RBAC applies to each component as in production.
    """

    folder: Path

    @property
    def ca(self) -> Path:
        """The authority's certificate; `ca.key` lies beside it."""
        return self.folder / "ca.crt"

    @property
    def service_account_key(self) -> Path:
        """The key that signs service account tokens."""
        return self.folder / "service-account.key"

    def certificate(self, name: str) -> Path:
        """The certificate called `name`."""
        return self.folder / f"{name}.crt"

    def key(self, name: str) -> Path:
        """The private key called `name`."""
        return self.folder / f"{name}.key"

    def create_authority(self) -> None:
        """Make the authority and the service account key."""
        self.folder.mkdir(parents=True, exist_ok=True)
        self.folder.chmod(0o700)
        _new_key(self.service_account_key)
        _new_key(self.key("ca"))
        _openssl(
            "req", "-x509", "-new", "-key", self.key("ca"), "-out", self.ca, "-days", DAYS, "-subj", "/CN=s1vl-cluster"
        )

    def issue(self, name: str, common_name: str, organization: str = "", names: tuple[str, ...] = ()) -> None:
        """Make a certificate.

        Args:
            name: what its files are called.
            common_name: the user name that Kubernetes sees.
            organization: the group that Kubernetes sees, if any.
            names: subject alternative names, as openssl writes them (`DNS:localhost`, `IP:127.0.0.1`).
        """
        _new_key(self.key(name))
        subject = (f"/O={organization}" if organization else "") + f"/CN={common_name}"
        extensions = self.folder / f"{name}.ext"
        extensions.write_text(SERVING + (f"\nsubjectAltName={','.join(names)}" if names else "") + "\n")
        request = self.folder / f"{name}.csr"
        _openssl("req", "-new", "-key", self.key(name), "-out", request, "-subj", subject)
        signer = ("-CA", self.ca, "-CAkey", self.key("ca"), "-CAcreateserial")
        _openssl(
            "x509",
            "-req",
            "-in",
            request,
            *signer,
            "-days",
            DAYS,
            "-extfile",
            extensions,
            "-out",
            self.certificate(name),
        )
        request.unlink()
        extensions.unlink()

    def kubeconfig(self, name: str, server: str, file: Path) -> None:
        """Write the kubeconfig of the client `name`, with everything embedded."""

        def data(source: Path) -> str:
            return b64encode(source.read_bytes()).decode()

        user = {"client-certificate-data": data(self.certificate(name)), "client-key-data": data(self.key(name))}
        content = {
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{"name": "s1vl", "cluster": {"server": server, "certificate-authority-data": data(self.ca)}}],
            "users": [{"name": name, "user": user}],
            "contexts": [{"name": "s1vl", "context": {"cluster": "s1vl", "user": name}}],
            "current-context": "s1vl",
        }
        file.parent.mkdir(parents=True, exist_ok=True)
        file.touch(mode=0o600)
        # JSON is YAML: kubectl and the client libraries read it
        file.write_text(json.dumps(content, indent=1))


def _new_key(file: Path) -> None:
    _openssl("ecparam", "-name", "prime256v1", "-genkey", "-noout", "-out", file)
    file.chmod(0o600)


def _openssl(*args: str | Path) -> None:
    done = subprocess.run(["openssl", *map(str, args)], capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise Failure(f"openssl {' '.join(map(str, args))} ended with {done.returncode}: {done.stderr.strip()}")
