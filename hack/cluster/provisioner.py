"""Gives every claim of the class `standard` a folder on this machine: `python -m hack.cluster.provisioner`.

kube-controller-manager has a provisioner of its own, but its folders are root's with mode 0750, so that no pod that
runs as another user can use them. These have mode 0777, as the shared file systems of real clusters usually do.
"""

from __future__ import annotations

import argparse
import shutil
import sys
import time
from pathlib import Path

from hack.cluster.api import Api, ApiError, Object

STORAGE_CLASS = "standard"
PROVISIONER = "s1vl.io/host-path"
PROVISIONED_BY = "pv.kubernetes.io/provisioned-by"
WATCH_SECONDS = 5
PERSISTENT_VOLUMES = "/api/v1/persistentvolumes"
CLAIMS = "/api/v1/persistentvolumeclaims"


def wants_volume(claim: Object) -> bool:
    """Whether a claim is of our class and has no volume yet."""
    spec = claim["spec"]
    return (
        spec.get("storageClassName") == STORAGE_CLASS
        and not spec.get("volumeName")
        and not spec.get("selector")
        and claim.get("status", {}).get("phase", "Pending") == "Pending"
    )


def volume_for(claim: Object, folder: Path) -> Object:
    """The PersistentVolume for a claim, bound to it and to nothing else."""
    meta, spec = claim["metadata"], claim["spec"]
    name = f"pvc-{meta['uid']}"
    return {
        "apiVersion": "v1",
        "kind": "PersistentVolume",
        "metadata": {"name": name, "annotations": {PROVISIONED_BY: PROVISIONER}},
        "spec": {
            "capacity": {"storage": spec["resources"]["requests"]["storage"]},
            "accessModes": spec["accessModes"],
            "persistentVolumeReclaimPolicy": "Delete",
            "storageClassName": STORAGE_CLASS,
            "volumeMode": "Filesystem",
            "claimRef": {
                "apiVersion": "v1",
                "kind": "PersistentVolumeClaim",
                "namespace": meta["namespace"],
                "name": meta["name"],
                "uid": meta["uid"],
            },
            "hostPath": {"path": str(folder / name), "type": "Directory"},
        },
    }


def provision(api: Api, claim: Object, folder: Path) -> None:
    """Make the folder and the volume of one claim."""
    volume = volume_for(claim, folder)
    path = Path(volume["spec"]["hostPath"]["path"])
    path.mkdir(parents=True, exist_ok=True)
    path.chmod(0o777)
    try:
        api.request("POST", PERSISTENT_VOLUMES, volume)
    except ApiError as error:
        if error.status != 409:  # made in the round before
            raise
        return
    print(f"{claim['metadata']['namespace']}/{claim['metadata']['name']} -> {path}", flush=True)


def reclaim(api: Api, volume: Object, folder: Path) -> None:
    """Remove the files and the object of a volume whose claim is gone."""
    name = volume["metadata"]["name"]
    path = Path(volume["spec"]["hostPath"]["path"])
    if path.parent == folder and path.exists():
        shutil.rmtree(path)
    try:
        api.request("DELETE", f"{PERSISTENT_VOLUMES}/{name}")
    except ApiError as error:
        if error.status != 404:
            raise
    print(f"reclaimed {path}", flush=True)


def reconcile(api: Api, folder: Path) -> str:
    """One round over all claims and volumes; returns the resourceVersion of the claims."""
    claims = api.request("GET", CLAIMS)
    for claim in filter(wants_volume, claims["items"]):
        provision(api, claim, folder)
    for volume in api.request("GET", PERSISTENT_VOLUMES)["items"]:
        ours = volume["metadata"].get("annotations", {}).get(PROVISIONED_BY) == PROVISIONER
        if (
            ours
            and volume.get("status", {}).get("phase") == "Released"
            and "deletionTimestamp" not in volume["metadata"]
        ):
            reclaim(api, volume, folder)
    return str(claims["metadata"]["resourceVersion"])


def main() -> None:
    """Run until killed; an API server that is away is waited for."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kubeconfig", type=Path, required=True)
    parser.add_argument("--folder", type=Path, required=True)
    arguments = parser.parse_args()
    api = Api(arguments.kubeconfig)
    while True:
        try:
            version = reconcile(api, arguments.folder)
            # the first event, or the end of the watch, starts the next round
            next(api.watch(f"{CLAIMS}?watch=true&resourceVersion={version}", WATCH_SECONDS), None)
        except (ApiError, OSError) as error:
            print(f"trying again: {error}", file=sys.stderr, flush=True)
            time.sleep(1)


if __name__ == "__main__":
    main()
