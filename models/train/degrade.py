"""What cameras make of a scene in bad conditions: night, fog, blur, strong compression.

`distill.py --degrade` shows such pictures to the student and the clean ones to the teacher. As a command it writes a
degraded copy of a folder, the same at every run, for measuring:

    python degrade.py coco128 coco128-degraded
"""

import argparse
import shutil
from pathlib import Path

import cv2
import numpy as np
import torch
from pictures import PHOTOS

GAMMA = 2.2
LIGHT = (np.arange(256, dtype=np.float32) / 255) ** GAMMA


def log_uniform(low, high, rng):
    return float(np.exp(rng.uniform(np.log(low), np.log(high))))


def night(light, rng):
    """Few photons, so much noise, part of it made bright again; by infrared light, grey."""
    if rng.random() < 0.3:
        light[:] = light.mean(2, keepdims=True)
    exposure, photons = log_uniform(0.02, 0.4, rng), log_uniform(200, 4000, rng)
    light *= exposure
    noise = rng.standard_normal(light.shape, np.float32)
    light += noise * np.sqrt(light / photons + (1.5 / photons) ** 2)
    light *= exposure ** -rng.uniform(0, 1)


def fog(light, rng):
    """A bright veil."""
    veil = rng.uniform(0.3, 0.8)
    light *= 1 - veil
    light += veil * rng.uniform(0.2, 0.9)


def blur(light, rng):
    """Out of focus, or moving in one direction."""
    size = max(light.shape[:2])
    if rng.random() < 0.5:
        light[:] = cv2.GaussianBlur(light, (0, 0), size / 640 * rng.uniform(1, 3))
        return
    length, angle = max(3, round(size / 640 * rng.uniform(5, 15))), rng.uniform(0, np.pi)
    kernel, end = np.zeros((length, length), np.float32), (length - 1) / 2
    ends = [[round(end + s * end * f(angle)) for f in (np.cos, np.sin)] for s in (-1, 1)]
    cv2.line(kernel, *ends, 1)
    light[:] = cv2.filter2D(light, -1, kernel / kernel.sum())


def degrade(picture, rng):
    """uint8 RGB [H, W, 3] to the same in one bad condition."""
    light = LIGHT[picture]
    rng.choice([night, fog, blur], p=[0.6, 0.2, 0.2])(light, rng)
    picture = (cv2.pow(np.clip(light, 0, 1), 1 / GAMMA) * 255 + 0.5).astype(np.uint8)
    if rng.random() < 0.5:
        quality = [cv2.IMWRITE_JPEG_QUALITY, int(rng.integers(15, 60))]
        picture = cv2.imdecode(cv2.imencode(".jpg", picture, quality)[1], cv2.IMREAD_COLOR)
    return picture


def degraded(made, share, rng):
    """That share of a batch in bad conditions; the batch itself if it is 0."""
    if not share:
        return made
    made = made.permute(0, 2, 3, 1).numpy()
    return torch.from_numpy(np.stack([degrade(p, rng) if rng.random() < share else p for p in made])).permute(0, 3, 1, 2)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, help="folder of pictures, maybe with their labels (.txt)")
    parser.add_argument("out", type=Path, help="the copy, with the same names")
    args = parser.parse_args()
    count = 0
    for file in sorted(args.data.rglob("*")):
        to = args.out / file.relative_to(args.data)
        to.parent.mkdir(parents=True, exist_ok=True)
        if file.suffix.lower() in PHOTOS:
            picture = degrade(cv2.imread(str(file)), np.random.default_rng(count))
            cv2.imwrite(str(to), picture, [cv2.IMWRITE_JPEG_QUALITY, 97])
            count += 1
        elif file.suffix == ".txt":
            shutil.copyfile(file, to)
    print(f"{count} pictures in {args.out}")


if __name__ == "__main__":
    main()
