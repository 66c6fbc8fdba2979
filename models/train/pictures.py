"""Unlabelled pictures for distillation: kept decoded in memory, augmented into training batches."""

import queue
import threading
from pathlib import Path

import cv2
import numpy as np
import torch

PHOTOS, VIDEOS = {".jpg", ".jpeg", ".png"}, {".mp4", ".avi", ".mkv"}
GREY = 114


def load(paths, longest=640, video_step=10):
    """Decode photos (files or folders) and every `video_step`-th frame of videos to RGB, shrunk to `longest`."""
    files = []
    for path in map(Path, paths):
        files += sorted(path.rglob("*")) if path.is_dir() else [path]
    pictures = []
    for file in files:
        if file.suffix.lower() in PHOTOS:
            pictures.append(cv2.imread(str(file)))
        elif file.suffix.lower() in VIDEOS:
            video, at = cv2.VideoCapture(str(file)), 0
            while video.grab():
                if at % video_step == 0:
                    pictures.append(video.retrieve()[1])
                at += 1
    pictures = [_shrink(p[..., ::-1], longest) for p in pictures if p is not None]
    if not pictures:
        raise SystemExit(f"no pictures under {', '.join(map(str, paths))}")
    return pictures


def _shrink(picture, longest):
    scale = longest / max(picture.shape[:2])
    if scale >= 1:
        return np.ascontiguousarray(picture)
    return cv2.resize(np.ascontiguousarray(picture), None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)


def _paste(canvas, picture, rng, scale):
    """Fill `canvas` with a random window of the picture, resized by `scale` and maybe flipped."""
    height, width = canvas.shape[:2]
    stretch = rng.uniform(0.85, 1.18)
    size = [max(16, round(s * scale * f)) for s, f in zip(picture.shape[1::-1], (stretch, 1 / stretch))]
    how = cv2.INTER_AREA if scale < 0.7 else cv2.INTER_LINEAR
    picture = cv2.resize(picture, size, interpolation=how)
    if rng.random() < 0.5:
        picture = picture[:, ::-1]
    (ys, yd, h), (xs, xd, w) = (_window(p, c, rng) for p, c in zip(picture.shape, (height, width)))
    canvas[yd : yd + h, xd : xd + w] = picture[ys : ys + h, xs : xs + w]


def _window(length, room, rng):
    """Where to read from, where to write to, how much, along one axis."""
    slack = int(rng.integers(0, abs(length - room) + 1))
    return (slack, 0, room) if length > room else (0, slack, length)


def _colour(picture, rng):
    """Shift hue, saturation and brightness; sometimes grey, blur or noise."""
    hsv = cv2.cvtColor(picture, cv2.COLOR_RGB2HSV)
    hue, sat, val = rng.uniform(-1, 1, 3) * (0.02, 0.6, 0.45) + (0, 1, 1)
    at = np.arange(256)
    tables = [(at + hue * 180) % 180, np.clip(at * sat, 0, 255), np.clip(at * val, 0, 255)]
    hsv = cv2.merge([cv2.LUT(c, t.astype(np.uint8)) for c, t in zip(cv2.split(hsv), tables)])
    picture = cv2.cvtColor(hsv, cv2.COLOR_HSV2RGB)
    kind = rng.random()
    if kind < 0.04:
        picture = cv2.merge([cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY)] * 3)
    elif kind < 0.09:
        picture = cv2.GaussianBlur(picture, (0, 0), rng.uniform(0.4, 1.6))
    elif kind < 0.14:
        noise = rng.normal(0, rng.uniform(2, 10), picture.shape)
        picture = np.clip(picture + noise, 0, 255).astype(np.uint8)
    return picture


def compose(pictures, size, rng):
    """One augmented picture of size x size: one photo, or a mosaic of two by two with a random centre."""
    canvas = np.full((size, size, 3), GREY, np.uint8)
    chosen = rng.integers(0, len(pictures), 4)
    if rng.random() < 0.5:
        y, x = (int(size * rng.uniform(0.3, 0.7)) for _ in range(2))
        quarters = (canvas[:y, :x], canvas[:y, x:], canvas[y:, :x], canvas[y:, x:])
        for quarter, index in zip(quarters, chosen):
            _paste(quarter, pictures[index], rng, rng.uniform(0.5, 1.6) * size / 640)
    else:
        picture = pictures[chosen[0]]
        _paste(canvas, picture, rng, size / max(picture.shape[:2]) * np.exp(rng.uniform(-0.5, 0.5)))
    return _colour(canvas, rng)


def batch(pictures, count, size, rng):
    """`count` augmented pictures as uint8 [B, 3, size, size]; a few are blends of two."""
    made = np.stack([compose(pictures, size, rng) for _ in range(count)])
    for i in np.flatnonzero(rng.random(count) < 0.1):
        made[i] = cv2.addWeighted(made[i], 0.6, made[i - 1], 0.4, 0)
    return torch.from_numpy(made).permute(0, 3, 1, 2)


def to_float(pictures):
    """uint8 [0, 255] to what the models expect: float [0, 1], channels last in memory."""
    return pictures.to(memory_format=torch.channels_last).float().div_(255)


def ahead(make, first, last, depth=3):
    """Yield make(first), ..., make(last - 1), prepared by one thread up to `depth` ahead."""
    slots = queue.Queue(depth)

    def work():
        for index in range(first, last):
            slots.put(make(index))

    threading.Thread(target=work, daemon=True).start()
    for _ in range(first, last):
        yield slots.get()
