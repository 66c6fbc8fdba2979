"""Draws a roofline (Williams, Waterman, Patterson, CACM 2009): what each layer reaches of what the machine allows.

A layer's intensity is its multiply-accumulates over the bytes it has to touch: input, output and weights once each,
in int8. The roofs are the multiply instruction's peak, as `bench --profile` measures it, and the memory's speed, measured
here by copying; most layers' tensors fit the caches, so points may lie above the slope.

    python3 tests/benches/roofline.py target/release/ghostlight models/default.safetensors docs/roofline.svg
"""

import argparse
import json
import math
import re
import subprocess
import time


def run(*command):
    return subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout


def copy_speed(megabytes=256, rounds=7):
    """Bytes a second that one thread reads and writes, in memory that no cache holds."""
    source, target = bytearray(megabytes << 20), bytearray(megabytes << 20)
    best = math.inf
    for _ in range(rounds):
        begin = time.perf_counter()
        target[:] = source
        best = min(best, time.perf_counter() - begin)
    return 2 * len(source) / best


def layers(ghostlight, model, size, timed):
    """([(name, intensity in MAC per byte, GMAC/s, ms)], peak in GMAC/s, ms of the network)."""
    shapes = {row["name"]: row for row in json.loads(run(ghostlight, "inspect", "--json", model))["layers"]}
    words = ["bench", "--profile", "--json", "--threads", "1", "--imgsz", str(size), "--iters", "40", "--model", model]
    *rows, total = map(json.loads, run(*timed, ghostlight, *words).splitlines())
    own = next(row["shape"][0] for row in shapes.values() if row["op"] == "input")
    scale = (size / own) ** 2
    found = []
    for row in rows:
        shape = shapes.get(row["layer"], {"macs": 0, "op": ""})
        conv = re.search(r"conv (\d+)x\d+(?:/(\d+))?", shape["op"])
        if not conv or not shape["macs"] or not row["ms"]:
            continue
        kernel, stride = int(conv[1]), int(conv[2] or 1)
        height, width, outputs = shape["shape"]
        inputs = shape["macs"] / (height * width * outputs * kernel**2)
        pixels = height * width * scale
        touched = pixels * (stride**2 * inputs + outputs) + kernel**2 * inputs * outputs
        found.append((row["layer"], shape["macs"] * scale / touched, row["gmac_per_s"], row["ms"]))
    return found, total["peak_gmac_per_s"], total["median_ms"], total["kernel"]


def svg(points, peak, slope, title):
    """Both axes are logarithmic; a point's area is its time."""
    width, height, left, right, top, bottom = 760, 440, 70, 730, 60, 380
    low_x, high_x, low_y, high_y = 4, 1024, 16, 1024

    def x(intensity):
        return left + math.log(intensity / low_x) / math.log(high_x / low_x) * (right - left)

    def y(speed):
        return bottom - math.log(max(speed, low_y) / low_y) / math.log(high_y / low_y) * (bottom - top)

    def text(at, to, words, anchor="middle", colour="#24292f"):
        return f'<text x="{at:.0f}" y="{to:.0f}" fill="{colour}" text-anchor="{anchor}">{words}</text>'

    out = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}"',
        'font-family="sans-serif" font-size="13">',
        f"<title>{title}</title>",
        f'<rect width="{width}" height="{height}" rx="8" fill="#fff"/>',
        text(left - 50, 24, title, "start"),
        text(left - 50, 44, "GMAC/s", "start"),
        text((left + right) / 2, bottom + 44, "multiply-accumulates per byte of input, output and weights"),
    ]
    for power in range(2, 11, 2):
        out.append(f'<path d="M{x(2**power):.0f} {top}V{bottom}" stroke="#eaeef2"/>')
        out.append(text(x(2**power), bottom + 20, 2**power))
    for power in range(4, 11):
        out.append(f'<path d="M{left} {y(2**power):.0f}H{right}" stroke="#eaeef2"/>')
        out.append(text(left - 8, y(2**power) + 4, 2**power, "end"))
    corner = peak / slope
    start = max(low_x, low_y / slope)
    roof = f"M{x(start):.1f} {y(start * slope):.1f}L{x(corner):.1f} {y(peak):.1f}H{right}"
    out.append(f'<path d="{roof}" fill="none" stroke="#24292f" stroke-width="2"/>')
    out.append(text(right, y(peak) - 8, f"peak {peak:.0f} GMAC/s", "end"))
    out.append(text(x(corner) - 6, y(peak) - 8, f"memory {slope:.0f} GB/s", "end"))
    whole = sum(ms for *_, ms in points)
    for name, intensity, speed, ms in sorted(points, key=lambda p: -p[3]):
        radius = 22 * math.sqrt(ms / whole * 5)
        out.append(
            f'<circle cx="{x(intensity):.1f}" cy="{y(speed):.1f}" r="{radius:.1f}" fill="#0b5cad" fill-opacity="0.35" '
            f'stroke="#0b5cad"><title>{name}: {speed:.0f} GMAC/s, {ms:.2f} ms</title></circle>'
        )
    # Those that lose most against the peak have their names.
    for name, intensity, speed, ms in sorted(points, key=lambda p: -p[3] * (1 - p[2] / peak))[:3]:
        out.append(text(x(intensity) + 14, y(speed) + 4, name, "start"))
    return "\n".join([*out, "</svg>\n"])


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("ghostlight", help="the program, a release build")
    parser.add_argument("model")
    parser.add_argument("svg", help="where to draw")
    parser.add_argument("--size", type=int, default=640)
    parser.add_argument("--timed", default="", help="words before the program where it is timed, such as 'chrt -f 10'")
    args = parser.parse_args()
    points, peak, ms, kernel = layers(args.ghostlight, args.model, args.size, args.timed.split())
    slope = copy_speed() / 1e9
    title = f"{args.model.split('/')[-1]} at {args.size}, {kernel}, one thread, {ms:.1f} ms: area is time"
    with open(args.svg, "w", encoding="utf-8") as file:
        file.write(svg(points, peak, slope, title))
    share = sum(p[2] * p[3] for p in points) / sum(p[3] for p in points) / peak
    print(f"peak {peak:.0f} GMAC/s, memory {slope:.1f} GB/s; {len(points)} layers reach {share:.0%} of the peak")
    for name, intensity, speed, ms in sorted(points, key=lambda p: -p[3])[:8]:
        print(f"{name:18} {ms:6.2f} ms  {speed:5.0f} GMAC/s  {intensity:6.1f} MAC/byte")


if __name__ == "__main__":
    main()
