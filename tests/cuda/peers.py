#!/usr/bin/env python3
"""Latency of the same network in what else runs on this GPU, by turns with Ghostlight, in one run.

    python3 tests/cuda/peers.py target/release/ghostlight MODEL.safetensors NETWORK.onnx [CHECKPOINT.pt]

ONNX Runtime runs the ONNX file on its CUDA provider, PyTorch the checkpoint, compiled, in f16 (it needs the package
ultralytics). What is not installed is told and left out. `--device cpu` tries the script where there is no GPU.
"""

import argparse
import json
import statistics
import subprocess
import sys
import time

SIZE = 640


def milliseconds(run, count):
    """Median over `count` runs, after three that do not count."""
    times = []
    for _ in range(count + 3):
        begin = time.perf_counter()
        run()
        times.append((time.perf_counter() - begin) * 1e3)
    return statistics.median(times[3:])


def onnx_runtime(path, device):
    import numpy
    import onnxruntime

    provider = {"cuda": "CUDAExecutionProvider", "cpu": "CPUExecutionProvider"}[device]
    session = onnxruntime.InferenceSession(path, providers=[provider])
    if session.get_providers()[0] != provider:
        raise RuntimeError(f"this build of ONNX Runtime has no {provider}")
    name = session.get_inputs()[0].name
    picture = numpy.random.default_rng(0).random((1, 3, SIZE, SIZE), dtype=numpy.float32)
    return lambda: session.run(None, {name: picture})


def pytorch(path, device):
    import torch
    from ultralytics import YOLO

    kind = torch.float16 if device == "cuda" else torch.float32
    network = YOLO(path).model.fuse().to(device, kind).eval()
    if device == "cuda":
        network = torch.compile(network, mode="max-autotune")
    picture = torch.rand(1, 3, SIZE, SIZE, device=device, dtype=kind)

    def run():
        with torch.inference_mode():
            network(picture)
        if device == "cuda":
            torch.cuda.synchronize()

    return run


def ghostlight(program, model, device, count):
    words = ["bench", "--json", "--engine", device, "--model", model, "--imgsz", str(SIZE), "--iters", str(count)]
    done = subprocess.run([program, *words], stdout=subprocess.PIPE, text=True)
    if done.returncode:
        sys.exit(done.returncode)  # it has said why
    return json.loads(done.stdout.splitlines()[-1])["median_ms"]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("program")
    parser.add_argument("model")
    parser.add_argument("onnx")
    parser.add_argument("checkpoint", nargs="?")
    parser.add_argument("--device", choices=["cuda", "cpu"], default="cuda")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--iters", type=int, default=50)
    args = parser.parse_args()
    peers = {}
    for name, make, path in [("ONNX Runtime", onnx_runtime, args.onnx), ("PyTorch", pytorch, args.checkpoint)]:
        if path is None:
            continue
        try:
            peers[name] = make(path, args.device)
            peers[name]()
        except Exception as error:  # whatever a package says of why it cannot run
            peers.pop(name, None)
            print(f"{name} is left out: {str(error).splitlines()[0] if str(error) else error!r}")
    times = {name: [] for name in ["Ghostlight", *peers]}
    for _ in range(args.rounds):
        for name, run in peers.items():
            times[name].append(milliseconds(run, args.iters))
        times["Ghostlight"].append(ghostlight(args.program, args.model, args.device, args.iters))
    own = times.pop("Ghostlight")
    print(f"Ghostlight     {statistics.median(own):8.2f} ms")
    for name, found in times.items():
        ratio = statistics.median(ours / theirs for ours, theirs in zip(own, found))
        print(f"{name:14} {statistics.median(found):8.2f} ms, Ghostlight takes {ratio:.2f} of that")


main()
