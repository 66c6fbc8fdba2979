#!/usr/bin/env bash
# Compiles the CUDA kernels for every GPU generation, without a GPU: tests/cuda/nvrtc.py with NVIDIA's compilers from PyPI.
#
#   .ci/nvrtc.sh
#
# VENV is where they are installed, default target/nvrtc. Without Python or PyPI nothing is compiled.
set -euo pipefail
cd "$(dirname "$0")/.."

VENV=${VENV:-target/nvrtc}
PACKAGES=(nvidia-cuda-nvrtc-cu12==12.6.85 nvidia-cuda-nvcc-cu12==12.6.85)

skip() { echo "nvrtc: not compiled: $1"; exit 0; }

python3 -m venv "$VENV" >/dev/null 2>&1 || skip "python3 makes no virtual environment (Debian: python3-venv)"
"$VENV/bin/pip" install -q "${PACKAGES[@]}" || skip "PyPI cannot be reached"
"$VENV/bin/python" tests/cuda/nvrtc.py
echo "nvrtc: passed"
