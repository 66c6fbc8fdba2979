"""Parameters against work and time: YOLOv8n plain, with 2, 4 and 8 experts, and with dynamic C2f blocks.

Random weights: the network's time does not depend on them. Each model is converted, then all are timed by turns on one
thread. Prints a table in Markdown and draws the plot. Let nothing else run, or give the timing the right of way:

    python sizes.py ../../target/release/ghostlight --out runs/sizes --svg ../parameters.svg --timed 'chrt -f 10'
"""

import argparse
import json
import math
import statistics
import subprocess
from pathlib import Path

import blocks
import torch
from saving import save_model

MODELS = {  # label: (name, experts)
    "dynamic C2f": ("yolov8-c2f-dynamicconv", 4),
    "YOLOv8n": ("yolov8", 4),
    "2 experts": ("yolov8-dynamicconv", 2),
    "4 experts": ("yolov8-dynamicconv", 4),
    "8 experts": ("yolov8-dynamicconv", 8),
}
SAMPLES = Path(__file__).parent.parent / "samples"


def run(*command):
    """The last line that a command prints."""
    return subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout.splitlines()[-1]


def convert(ghostlight, label, out):
    """Build, save and convert a model; returns (file, parameters, MACs with mixing, MACs of mixing)."""
    torch.manual_seed(0)
    model = blocks.build(MODELS[label][0], experts=MODELS[label][1])
    checkpoint, file = (out / (label.replace(" ", "-") + suffix) for suffix in (".pt", ".safetensors"))
    save_model(model, checkpoint, "random weights", license="none: random weights")
    run(ghostlight, "convert", checkpoint, "-o", file, "--calibrate", SAMPLES, "--target-drop", "off", "-q")
    described = json.loads(run(ghostlight, "inspect", file, "--json"))
    # Once per picture each expert's weight is multiplied by its share, and the routing is a small product.
    layers = blocks.dynamic_layers(model).values()
    mixing = sum(layer.cond_conv.weight.numel() + layer.routing.weight.numel() for layer in layers)
    return file, described["parameters"], described["macs"] + mixing, mixing


def time_by_turns(ghostlight, files, rounds, timed):
    """{label: median milliseconds of each round}."""
    found = {label: [] for label in files}
    for _ in range(rounds):
        for label, file in files.items():
            words = (*timed, ghostlight, "bench", "--model", file, "--threads", "1", "--iters", "30", "--json")
            found[label].append(json.loads(run(*words))["median_ms"])
    return found


def table(rows):
    """Markdown; `rows` are (label, parameters, MACs, MACs of mixing, ms, spread of the rounds)."""
    (base,) = (row for row in rows if row[0] == "YOLOv8n")
    head = "| model | parameters | MACs | of them mixing | ms | parameters, times YOLOv8n's | MACs | ms |"
    lines = [head, "|---" * 8 + "|"]
    for label, parameters, macs, mixing, ms, spread in rows:
        pairs = zip((parameters, macs, ms), (base[1], base[2], base[4]))
        ratios = " | ".join(f"{mine / its:.2f}" for mine, its in pairs)
        counts = f"{parameters / 1e6:.2f} M | {macs / 1e9:.3f} G | {mixing / 1e6:.1f} M | {ms:.2f} ± {spread:.2f}"
        lines.append(f"| {label} | {counts} | {ratios} |")
    return "\n".join(lines)


def svg(rows):
    """The plot: parameters to the right, MACs (left scale) and milliseconds (right scale) upwards, both from zero."""
    width, height, left, right, top, bottom = 720, 400, 64, 656, 82, 338
    most_macs, most_ms = 6e9, 3 * math.ceil(2 / 3 * max(row[4] for row in rows))  # times in the lower half
    ink, blue, red = "#24292f", "#0b5cad", "#b3470b"

    def x(parameters):
        return left + (parameters / 1e6 - 2) / 6 * (right - left)

    def y(value, most):
        return bottom - value / most * (bottom - top)

    def text(at, to, words, colour=ink, anchor="middle"):
        return f'<text x="{at:.0f}" y="{to:.0f}" fill="{colour}" text-anchor="{anchor}">{words}</text>'

    def line(points, colour, more=""):
        path = " ".join(f"{a:.1f},{b:.1f}" for a, b in points)
        return f'<polyline points="{path}" fill="none" stroke="{colour}"{more}/>'

    out = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}"',
        'font-family="sans-serif" font-size="13">',
        "<title>Parameters against multiply-accumulates and milliseconds</title>",
        f'<rect width="{width}" height="{height}" rx="8" fill="#fff"/>',
        text(left - 48, 22, "multiply-accumulates", blue, "start"),
        text(right + 48, 22, "milliseconds, one thread", red, "end"),
        text((left + right) / 2, bottom + 44, "parameters, millions"),
    ]
    for millions in range(2, 9):
        out.append(text(x(millions * 1e6), bottom + 20, millions))
    for third in range(4):
        level = y(third, 3)
        out.append(line([(left, level), (right, level)], ink if third == 0 else "#d8dee4"))
        out.append(text(left - 10, level + 4, f"{third * most_macs / 3e9:.0f} G", blue, "end"))
        out.append(text(right + 10, level + 4, third * most_ms // 3, red, "start"))
    kinds = (  # column, its most, colour, dashes, where its words lie, how they are written
        (2, most_macs, blue, "", -11, lambda macs: f"{macs / 1e9:.2f} G"),
        (4, most_ms, red, ' stroke-dasharray="6 4"', 18, lambda ms: f"{ms:.1f} ms"),
    )
    for column, most, colour, dash, below, words in kinds:
        points = [(x(row[1]), y(row[column], most)) for row in rows]
        out.append(line(points[1:], colour, dash + ' stroke-width="2"'))
        for row, (a, b) in zip(rows, points):
            fill = colour if row is not rows[0] else "#fff"
            out.append(f'<circle cx="{a:.1f}" cy="{b:.1f}" r="5" fill="{fill}" stroke="{colour}" stroke-width="2"/>')
            out.append(text(a, b + below, words(row[column]), colour))
    out += [text(x(row[1]), top - 14 - 18 * (place % 2), row[0]) for place, row in enumerate(rows)]
    return "\n".join([*out, "</svg>\n"])


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("ghostlight", help="the program, a release build")
    parser.add_argument("--out", required=True, type=Path, help="folder for checkpoints and models")
    parser.add_argument("--svg", type=Path, help="where to draw the plot")
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--timed", default="", help="words before the program where it is timed")
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    converted = {label: convert(args.ghostlight, label, args.out) for label in MODELS}
    files = {label: row[0] for label, row in converted.items()}
    times = time_by_turns(args.ghostlight, files, args.rounds, args.timed.split())
    rows = []
    for label, (_, *counts) in converted.items():
        quarters = statistics.quantiles(times[label])
        rows.append((label, *counts, statistics.median(times[label]), (quarters[2] - quarters[0]) / 2))
    print(table(rows))
    if args.svg:
        args.svg.write_text(svg(rows))


if __name__ == "__main__":
    main()
