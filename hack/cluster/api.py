"""A few requests to a kube-apiserver with nothing but the standard library: quick to import, quick to answer."""

from __future__ import annotations

import base64
import json
import ssl
import tempfile
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

Object = dict[str, Any]


class ApiError(RuntimeError):
    """The API server could not be reached (`status` 0) or answered with an error."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(f"{status} {message}" if status else message)
        self.status = status


class Api:
    """One API server, reached as the user of a kubeconfig that `pki.Pki.kubeconfig` wrote."""

    def __init__(self, kubeconfig: Path, timeout: float = 5) -> None:
        content = json.loads(kubeconfig.read_text())
        cluster, user = content["clusters"][0]["cluster"], content["users"][0]["user"]
        self.server: str = cluster["server"]
        self.timeout = timeout
        context = ssl.create_default_context(cadata=base64.b64decode(cluster["certificate-authority-data"]).decode())
        with tempfile.NamedTemporaryFile() as pair:  # ssl reads client certificates from files only
            for part in ("client-certificate-data", "client-key-data"):
                pair.write(base64.b64decode(user[part]))
            pair.flush()
            context.load_cert_chain(pair.name)
        no_proxy = urllib.request.ProxyHandler({})
        self._opener = urllib.request.build_opener(no_proxy, urllib.request.HTTPSHandler(context=context))

    def request(self, method: str, path: str, body: Any = None, content_type: str = "application/json") -> Object:
        """One request; returns the parsed answer, `{"text": ...}` when it is not JSON.

        Raises:
            ApiError: not reached, or another status than 2xx.
        """
        data = None if body is None else json.dumps(body).encode()
        try:
            with self._open(method, path, data, content_type, self.timeout) as response:
                text = response.read().decode()
        except OSError as error:
            raise _api_error(error) from error
        try:
            found = json.loads(text)
        except ValueError:
            return {"text": text}
        return found if isinstance(found, dict) else {"text": text}

    def watch(self, path: str, seconds: int) -> Iterator[Object]:
        """The events of a watch (`path` ends with its query), for so many seconds.

        Raises:
            ApiError: not reached, or another status than 2xx.
        """
        try:
            with self._open("GET", f"{path}&timeoutSeconds={seconds}", None, "", seconds + self.timeout) as response:
                for line in response:
                    yield json.loads(line)
        except OSError as error:
            raise _api_error(error) from error

    def ready(self) -> bool:
        """Whether the API server says that it is ready."""
        try:
            return self.request("GET", "/readyz").get("text") == "ok"
        except ApiError:
            return False

    def _open(self, method: str, path: str, data: bytes | None, content_type: str, timeout: float) -> Any:
        headers = {"Accept": "application/json", **({"Content-Type": content_type} if data is not None else {})}
        request = urllib.request.Request(self.server + path, data, headers, method=method)
        return self._opener.open(request, timeout=timeout)


def _api_error(error: OSError) -> ApiError:
    if isinstance(error, urllib.error.HTTPError):
        text = error.read().decode(errors="replace")
        try:
            message = str(json.loads(text)["message"])  # a Status object
        except (ValueError, TypeError, KeyError):
            message = text[:500]
        return ApiError(error.code, message)
    return ApiError(0, str(error))
