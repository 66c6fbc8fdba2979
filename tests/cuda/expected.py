#!/usr/bin/env python3
"""What a frame should cost on a Jetson, from a model file alone: a model, not a measurement.

    python3 tests/cuda/expected.py models/coco-yolov8n-dynamicconv.safetensors 640 640

Each launch takes the longer of its products and its bytes, and a launch's own time. Products count whole tiles, and a
GPU that has fewer blocks than room for them waits for the fullest multiprocessor.
"""

import json
import struct
import sys

# Name, multiprocessors, GHz, GB/s, products a clock and multiprocessor that the kernels can issue at best, how.
GPUS = [
    ("Orin Nano 8 GB, 15 W, tensor cores", 8, 0.625, 68, 1300, "shared memory: 32 KMAC in some 24 clocks a warp"),
    ("Orin Nano 8 GB, 15 W, dp4a", 8, 0.625, 68, 256, "64 dp4a a clock"),
    ("Orin Nano Super, 25 W, tensor cores", 8, 1.02, 102, 1300, "as above"),
    ("Xavier NX, 15 W, tensor cores", 6, 1.1, 59.7, 650, "shared memory, and words that pass registers: a guess"),
    ("Xavier NX, 15 W, dp4a", 6, 1.1, 59.7, 256, "64 dp4a a clock"),
]
# Share of the best that a kernel of this kind reaches: latencies are not all hidden. A guess.
REACHED = 0.5
# Share of the memory's bandwidth. A guess.
STREAMED = 0.7
# From one kernel of a graph to the next, microseconds. Published figures for Orin are 1 to 2.
LAUNCH = 2.0
# One addition in f64 after another, clocks: the routing's sums are in order.
F64 = 48
TILES = [(64, 64, 10), (128, 32, 11), (256, 16, 13)]


def up(n, to):
    return -(-n // to) * to


def load(path):
    with open(path, "rb") as file:
        header = json.loads(file.read(struct.unpack("<Q", file.read(8))[0]))
    return json.loads(header["__metadata__"]["ghostlight.graph"])["nodes"]


def side(shape, n):
    extent = shape["dilation"] * (shape["kernel"] - 1) + 1
    pad = shape["padding"]
    if pad == "same":
        return -(-n // shape["stride"])
    return (n + 2 * pad["fixed"] - extent) // shape["stride"] + 1


def launches(nodes, height, width):
    """(kind, products, blocks, bytes, f64 additions in order) of each launch."""
    sizes, found = [], [("input", 0, 100, 2 * 4 * height * width, 0)]
    for node in nodes:
        op = node["op"]
        kind, body = (op, {}) if isinstance(op, str) else next(iter(op.items()))
        h, w = sizes[node["inputs"][0]] if node["inputs"] else (height, width)
        channels = node["channels"]
        if kind in ("conv", "dynamic_conv"):
            shape = body["shape"]
            inputs = h * w * shape["c_in"]
            h, w = side(shape, h), side(shape, w)
            taps = shape["kernel"] ** 2
            weights = channels * taps * (shape["c_in"] if shape["groups"] == 1 else 1)
            if kind == "dynamic_conv":
                experts = body["experts"]
                found.append(("sums", 0, 64, inputs, 0))
                found.append(("route", 0, 1, 0, shape["c_in"]))
                found.append(("mix", 2 * experts * weights / 16, up(channels, 16) // 16, (experts + 1) * weights, 0))
            element = 4 if body["output"] == "float" else 1
            pixels, columns, _ = min(TILES, key=lambda t: up(channels, t[1]) * t[2])
            blocks = -(-h * w // pixels) * -(-channels // columns)
            products = blocks * pixels * columns * taps * up(shape["c_in"], 4) if shape["groups"] == 1 else 0
            found.append(("conv", products, blocks, inputs + weights + h * w * channels * element, 0))
        elif kind == "upsample":
            found.append(("copy", 0, 100, h * w * channels * (1 + body["factor"] ** 2), 0))
            h, w = h * body["factor"], w * body["factor"]
        elif kind in ("max_pool", "add"):
            found.append((kind, 0, 100, 3 * h * w * channels, 0))
        elif kind == "squeeze_excite":
            found += [("sums", 0, 64, h * w * channels, 0), ("gates", 0, 1, 0, 2 * channels)]
            found.append(("scale", 0, 100, 2 * h * w * channels, 0))
        elif kind == "detect":
            for i in node["inputs"][1::2]:
                pixels = sizes[i][0] * sizes[i][1]
                found.append(("survivors", 0, 100, 4 * pixels * nodes[i]["channels"], 0))
            found.append(("counts", 0, 1, 0, 0))
        sizes.append((h, w))
    return found


def milliseconds(launch, gpu):
    _, products, blocks, moved, additions = launch
    _, count, clock, bandwidth, rate, _ = gpu
    full = -(-blocks // count) * count / blocks if blocks < 4 * count else 1
    compute = products * full / (count * clock * 1e6 * rate * REACHED)
    memory = moved / (bandwidth * 1e6 * STREAMED)
    return max(compute, memory) + additions * F64 / (clock * 1e6) + LAUNCH / 1e3


def main():
    nodes = load(sys.argv[1])
    height, width = int(sys.argv[2]), int(sys.argv[3])
    found = launches(nodes, height, width)
    products, moved = sum(l[1] for l in found), sum(l[3] for l in found)
    print(f"{len(found)} launches, {products / 1e9:.2f} G products in tiles, {moved / 1e6:.1f} MB moved")
    for gpu in GPUS:
        total = sum(milliseconds(l, gpu) for l in found)
        convs = sum(milliseconds(l, gpu) for l in found if l[0] == "conv")
        print(f"{total:6.2f} ms, {convs:.2f} of it convolutions: {gpu[0]} ({gpu[5]})")


main()
