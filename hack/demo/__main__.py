"""`make demo`: from nothing to the model card's snippet answered about a picture."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import Annotated

import typer

from hack.demo import ask, picture
from hack.deploy import Deployed, prepare
from hack.kube import CommandError, Kube
from hack.ui import Failure, fail, say, step

QUICKSTART = Path(__file__).parents[2] / "examples/quickstart.yaml"
STATE = Path(__file__).parents[2] / ".s1vl/demo"
NAMESPACE, NAME, TENANT = "default", "demo", "chem"
SEED = 7


def run(cluster: str) -> None:
    """Show the whole path, step by step."""
    deployed = prepare(cluster)
    kube = deployed.kube
    apply(kube)
    STATE.mkdir(parents=True, exist_ok=True)
    local = STATE / "field.png"
    with step("Drawing a 4K picture with one small mark and putting it on the image volume"):
        truth = picture.write(local, seed=SEED)
        target = f"/srv/s1vl/images/{TENANT}/{local.name}"
        kube.exec(f"deploy/{NAME}-orchestrator", NAMESPACE, "sh", "-c", f"cat > {target}", stdin=local.read_bytes())
    asking = step("Asking as the model card does: POST /process")
    with kube.port_forward(f"svc/{NAME}-orchestrator", NAMESPACE, 10044) as url, asking:
        result = ask.ask(url, local, f"/data/images/{local.name}")
    ask.show(result)
    say(f"The picture has one small {truth.colour} mark; the answer names it: {truth.colour in result['answer']}")
    if truth.colour not in result["answer"]:
        raise Failure(f"the answer does not name the mark's colour, {truth.colour}: {result['answer']}")
    what_next(deployed, local)


def apply(kube: Kube) -> None:
    """Apply the quickstart and follow its status until it is Ready."""
    with step(f"kubectl apply -f examples/{QUICKSTART.name}"):
        kube.kubectl("apply", "-n", NAMESPACE, "-f", str(QUICKSTART))
    with step(f"kubectl wait --for=condition=Ready s1vl/{NAME}"):
        wait = ("wait", "--for=condition=Ready", f"s1vl/{NAME}", "-n", NAMESPACE, "--timeout=300s")
        try:
            kube.kubectl(*wait, timeout=320)
        except CommandError as error:
            raise Failure(f"{error}\n{kube.kubectl('describe', 's1vl', NAME, '-n', NAMESPACE)}") from error
    say(kube.kubectl("get", "s1vl", "-n", NAMESPACE).rstrip())


def what_next(deployed: Deployed, local: Path) -> None:
    """The commands to go on with."""
    kubectl, config = deployed.kube.kubectl_program, deployed.kube.kubeconfig
    say(
        f"""
What to try next:
  export KUBECONFIG={config} PATH={kubectl.parent}:$PATH
  kubectl describe s1vl {NAME}                       # the whole story, by events and conditions
  kubectl get pods,pvc,networkpolicy -l s1vl.io/deployment={NAME}
  kubectl delete statefulset {NAME}-engine           # it comes back
  kubectl patch s1vl {NAME} --type=json -p '[{{"op":"add","path":"/spec/tenants/-","value":{{"name":"bio"}}}}]'
                                                     # a second tenant; nothing restarts
  kubectl port-forward svc/{NAME}-orchestrator 10044 &
  .s1vl/venv/bin/python -m hack.demo.ask http://127.0.0.1:10044 {local} /data/images/{local.name}
  make cluster-down                                  # leaves nothing behind"""
    )


def main(
    cluster: Annotated[str, typer.Option(help="local, current or kind")] = "local",
) -> None:
    """Cluster, chart, quickstart, and the model card's snippet answered about a picture."""
    started = time.monotonic()
    try:
        run(cluster)
    except (Failure, CommandError, ask.AskError) as error:
        fail(error)
        sys.exit(1)
    say(f"The demo took {time.monotonic() - started:.0f} s.")


if __name__ == "__main__":
    typer.run(main)
