# syntax=docker/dockerfile:1
# The project's images for those who have docker and a registry:
#
#   docker build --target control -t REGISTRY/s1vl:TAG .
#   docker build --target sandbox -t REGISTRY/s1vl-sandbox:TAG .
#
# `python -m hack.images build` makes images of the same layout without either.

FROM python:3.11-slim-bookworm AS base
RUN apt-get update \
 && apt-get install --yes --no-install-recommends libseccomp2 tini \
 && rm -rf /var/lib/apt/lists/* \
 && groupadd --gid 10001 s1vl \
 && useradd --uid 10001 --gid 10001 --home-dir /tmp --no-create-home --shell /usr/sbin/nologin s1vl
# Pods have a read-only root file system and an empty /tmp.
ENV HOME=/tmp LANG=C.UTF-8 PYTHONDONTWRITEBYTECODE=1 PYTHONUNBUFFERED=1
ARG SITE=/usr/local/lib/python3.11/site-packages
ARG PIP="pip install --no-cache-dir --disable-pip-version-check --root-user-action ignore --no-compile --no-deps --only-binary :all: --require-hashes"
# Byte code is made while the root can still be written to; "unchecked", because layers round the time stamps of sources.
ARG COMPILE="python -m compileall -q -j 0 --invalidation-mode unchecked-hash /usr/local/lib/python3.11"
WORKDIR /tmp
ENTRYPOINT ["tini", "--"]

# What `importlib.metadata.version("s1vl")` reads, and one script per program, as pip would write them.
FROM base AS metadata
COPY pyproject.toml /src/
RUN python - <<'PYTHON'
import pathlib, tomllib

project = tomllib.loads(pathlib.Path("/src/pyproject.toml").read_text())["project"]
info = pathlib.Path(f"/out/s1vl-{project['version']}.dist-info")
info.mkdir(parents=True)
(info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: s1vl\nVersion: {project['version']}\n")
programs = pathlib.Path("/bin-out")
programs.mkdir()
for name, target in project["scripts"].items():
    module, function = target.split(":")
    script = programs / name
    script.write_text(f"#!/usr/local/bin/python3\nimport sys\n\nfrom {module} import {function}\n\nsys.exit({function}())\n")
    script.chmod(0o755)
PYTHON

FROM base AS control
COPY requirements/control.lock /src/
RUN $PIP -r /src/control.lock && $COMPILE
COPY --from=metadata /out/ $SITE/
COPY --from=metadata /bin-out/s1vl /bin-out/s1vl-operator /bin-out/s1vl-orchestrator /usr/local/bin/
COPY cli/s1vl_cli $SITE/s1vl_cli
COPY operator/s1vl_operator $SITE/s1vl_operator
COPY orchestrator/s1vl_orchestrator $SITE/s1vl_orchestrator
RUN $COMPILE
USER 10001:10001
CMD ["s1vl-operator"]

FROM base AS sandbox
COPY requirements/sandbox.lock /src/
RUN $PIP -r /src/sandbox.lock && $COMPILE
COPY --from=metadata /out/ $SITE/
COPY --from=metadata /bin-out/s1vl-sandbox /usr/local/bin/
COPY sandbox/s1vl_sandbox $SITE/s1vl_sandbox
RUN $COMPILE
USER 10001:10001
CMD ["s1vl-sandbox"]
