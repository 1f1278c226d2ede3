#!/bin/sh
# Makes .venv from the locks: the GPU flavour of vLLM where there is an NVIDIA GPU, else the CPU one.
# FLAVOUR=cpu|gpu overrides. Run by make; quick when .venv/.ready is newer than the locks.
set -eu
cd "$(dirname "$0")/.."
python=${PYTHON:-python3}

"$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' ||
  { echo "Headgate needs Python 3.11 or newer; set PYTHON=… (found: $("$python" -V 2>&1))" >&2; exit 1; }
if [ -z "${FLAVOUR:-}" ]; then
  FLAVOUR=cpu
  if command -v nvidia-smi >/dev/null && nvidia-smi -L >/dev/null 2>&1; then FLAVOUR=gpu; fi
fi
bar=on; [ -t 1 ] || bar=off

step() { printf '[setup %s] %s\n' "$(date +%H:%M:%S)" "$1"; }
install() { .venv/bin/python -m pip install --quiet --progress-bar "$bar" --disable-pip-version-check "$@"; }

step "1/4 environment in .venv, $FLAVOUR flavour, $("$python" -V)"
[ -x .venv/bin/python ] || "$python" -m venv .venv
if [ "$FLAVOUR" = cpu ]; then
  step "2/4 torch, about 200 MB as a CPU build (several GB where only the registry's CUDA build is found)"
  install --no-deps torch==2.13.0
else
  step "2/4 torch comes with the GPU lock"
fi
step "3/4 the pinned packages, 3 GB unpacked: one to five minutes"
install --no-deps --require-hashes -r "deploy/lock/$FLAVOUR.txt"
step "4/4 headgate itself"
install --no-deps --editable .
touch .venv/.ready
step "ready"
