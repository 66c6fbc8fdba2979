#!/usr/bin/env bash
# Everything that wants a real GPU, on a Jetson or any machine with an NVIDIA GPU: the engine against the CPU's bit for
# bit, its latency, 10,000 frames without a leak, and compute-sanitizer where it is installed.
#
#     tests/cuda/jetson.sh [MODEL.onnx [CHECKPOINT.pt]]    the default model's network, for other engines
set -euo pipefail
cd "$(dirname "$0")/../.."
step() { printf '\n== %s\n' "$1"; }

step "machine"
tr -d '\0' < /proc/device-tree/model 2> /dev/null && echo || true
head -1 /etc/nv_tegra_release 2> /dev/null || nvidia-smi -L
command -v nvpmodel > /dev/null && nvpmodel -q | head -2

step "bits, latency, leaks"
cargo test --release --test cuda -- --ignored --nocapture --test-threads 1

step "the program, on both"
cargo build --release
ghostlight() { target/release/ghostlight "$@"; }
for engine in cuda cpu; do
    ghostlight -v bench --engine "$engine" --imgsz 640
done
detections() { ghostlight detect --format jsonl --engine "$1" models/samples | sed 's/.*"detections"://'; }
cmp <(detections cuda) <(detections cpu) && echo "the same detections"

step "memory errors"
if command -v compute-sanitizer > /dev/null; then
    for tool in memcheck racecheck initcheck synccheck; do
        compute-sanitizer --tool "$tool" --error-exitcode 1 \
            target/release/ghostlight detect --engine cuda --imgsz 320 models/samples > /dev/null
    done
else
    echo "not looked for: compute-sanitizer is not installed"
fi

step "other engines"
if [ $# -gt 0 ] && command -v trtexec > /dev/null; then
    trtexec --onnx="$1" --int8 --fp16 --useCudaGraph | grep -E 'Latency|Throughput'
else
    echo "TensorRT is not compared: give an ONNX file, and have trtexec in PATH"
fi
if [ $# -gt 0 ]; then
    python3 tests/cuda/peers.py target/release/ghostlight models/default.safetensors "$@"
fi
