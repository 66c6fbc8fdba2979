"""Distil a trained YOLOv8 into a dynamic one on unlabelled pictures.

Teacher and student see the same augmented pictures; the student learns the teacher's features (the output of each
block, in units of the teacher's spread), class scores and box distributions. Labels are not used. It starts from
`upcycle.py`'s fit (OUT/upcycled.pt, made if absent).

Stage 1 trains only the dynamic convs and what follows each: the 1x1 conv that forms one linear map with a bare one
(there is no SiLU between them any more), the batch norm of a `DynamicConv_Single`. They alone hold what the upcycling
lost, and the rest still fits the teacher's features. Stage 2 trains everything on a cosine. Batch norm keeps the
teacher's statistics throughout: small batches then do no harm and training computes what the saved model computes.
The last tenth runs at 640.

`yolov8-dynamicconv-single` begins with its teacher's function, so on the same picture it has nothing to learn. With
`--degrade` the student sees most pictures as a camera takes them at night, in fog or out of focus (`degrade.py`), and
learns to answer as its teacher does with the clean picture. There the routing has something to tell apart.

Every few minutes OUT gets state.pt (everything) and student.pt (averaged weights, as Ultralytics saves them);
best.pt is the one that validated best, on the mean over the folders of --val. The same command goes on from there
after any kind of end. curve.jsonl has the validations.

    python distill.py yolov8n.pt --photos photos/ clips/ --val coco128 --out run
"""

import argparse
import copy
import json
import math
import os
import signal
import time
from pathlib import Path

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # before torch: beside other work, spinning threads cost 4x

import blocks
import cv2
import numpy as np
import pictures
import torch
from degrade import degraded
from evaluate import evaluate, load_labelled, load_model, quick_in_bf16
from saving import save, save_model
from torch.nn import functional as F
from upcycle import forward, next_block, upcycle

SIZES = {320: (0.2, 12), 416: (0.6, 8), 512: (0.12, 5), 640: (0.08, 4)}  # size: (share of steps, batch)
WEIGHTS = {"feature": 2.0, "score": 1.0, "logit": 0.2, "box": 1.5}
EMA = 0.999


def kept_layers(model):
    """The layers whose outputs are compared: every C2f and SPPF."""
    return [layer.i for layer in model.model if hasattr(layer, "cv1")]


def size_at(step, steps, rng):
    """(picture size, batch) of a step: mixed, then 640 for the last tenth."""
    size = 640 if step >= 0.9 * steps else rng.choice(list(SIZES), p=[share for share, _ in SIZES.values()])
    return int(size), SIZES[int(size)][1]


def losses(student, teacher):
    """The parts of the loss, each 0 when the student repeats the teacher. Both are `forward`'s answers."""
    (head, kept), (true_head, true_kept) = student, teacher
    feature = 0
    for layer, true in true_kept.items():
        spread = true.float().var((0, 2, 3), keepdim=True)
        error = (kept[layer].float() - true.float()).square()
        feature = feature + (error / (spread + 0.05 * spread.mean())).mean() / len(true_kept)
    logits, true_logits = head["scores"].float(), true_head["scores"].float()
    scores = true_logits.sigmoid()
    sure = scores.amax(1)  # how much an anchor matters
    total = sure.sum().clamp(min=1)
    entropy = F.binary_cross_entropy_with_logits(true_logits, scores, reduction="sum")
    score = F.binary_cross_entropy_with_logits(logits, scores, reduction="sum") - entropy
    logit = ((logits - true_logits).square().mean(1) * sure).sum()
    shape = len(logits), 4, -1, logits.shape[-1]
    bins, true_bins = (h["boxes"].float().view(shape).log_softmax(2) for h in (head, true_head))
    box = ((true_bins.exp() * (true_bins - bins)).sum(2).mean(1) * sure).sum()
    return {"feature": feature, "score": score / total, "logit": logit / total, "box": box / total}


def parameter_groups(model):
    """AdamW's groups, one a tensor, with a `stage` (0 routing, 1 dynamic kernels and what follows each, 2 rest).

    Without batch statistics nothing hides a weight's size from the loss, and sizes differ twentyfold between layers.
    So each tensor's rate is relative to its spread at the start (`scale`).
    """
    stage = {}
    for i, layer in enumerate(model.model):
        if isinstance(layer, blocks.DynamicConv):
            dynamic, after = layer, next_block(model, i).cv1
        elif isinstance(layer, blocks.DynamicConv_Single):
            dynamic, after = layer.conv[:2]
        else:
            continue
        stage |= dict.fromkeys(dynamic.routing.parameters(), 0)
        stage |= dict.fromkeys([*dynamic.cond_conv.parameters(), *after.parameters()], 1)
    groups = []
    for p in model.parameters():
        if p.requires_grad:
            scale = float(p.detach().square().mean().sqrt().clamp(0.01, 1))
            groups.append({"params": [p], "stage": stage.get(p, 2), "scale": scale})
    return groups


def learning_rates(step, args):
    """The relative rate of each stage: all follow a cosine down to a fiftieth, the rest joins after stage 1.

    Routing sums over all channels and is steep from the start, so it moves slower. The rest is slower too: it still
    fits the teacher, and at the full rate its noise costs more mAP than its freedom gains.
    """
    rate = args.lr * (0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * step / args.steps)))
    warm, late = min(1, (step + 1) / 50), min(1, max(0, step - args.stage1) / 300)
    return 0.1 * rate * warm, rate * warm, 0.2 * rate * late


def validate(name, model, labelled):
    """Print a model's mAP on each folder; the mean of mAP50-95 over them."""
    values = {folder: evaluate(model, pictures) for folder, pictures in labelled.items()}
    parts = ("{}: mAP50-95 {:.4f}  mAP50 {:.4f}".format(Path(folder).name, *value) for folder, value in values.items())
    print(f"{name}: " + ";  ".join(parts), flush=True)
    return sum(value for value, _ in values.values()) / len(values)


def start(args, photos):
    """The teacher, and a student from OUT/upcycled.pt."""
    teacher = load_model(args.teacher)
    file = Path(args.out) / "upcycled.pt"
    if not file.exists():
        student = blocks.build(args.name, args.scale, teacher.yaml["nc"]).eval()
        student.names = teacher.names
        rng = np.random.default_rng(args.seed)
        with torch.no_grad():
            upcycle(student, teacher, [pictures.batch(photos, 16, 416, rng) for _ in range(args.fit // 16)])
        save_model(student, file, "upcycled from a trained YOLOv8")
    return teacher, load_model(file)


def arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("teacher", help="trained YOLOv8 checkpoint (Ultralytics')")
    parser.add_argument("--photos", nargs="+", required=True, help="photos, videos and folders of them")
    parser.add_argument("--val", nargs="+", required=True, help="labelled folders (images/, labels/), never learnt from")
    parser.add_argument("--out", required=True, help="folder for checkpoints; also where to resume from")
    parser.add_argument("--name", default="yolov8-dynamicconv", choices=blocks.PARAMETERS)
    parser.add_argument("--scale", default="n")
    parser.add_argument("--degrade", type=float, default=0, help="share of pictures that the student sees badly")
    parser.add_argument("--steps", type=int, default=24000)
    parser.add_argument("--stage1", type=int, default=400, help="steps before everything trains")
    parser.add_argument("--lr", type=float, default=1.5e-3, help="highest rate, relative to a tensor's spread")
    parser.add_argument("--fit", type=int, default=768, help="pictures for the upcycling")
    parser.add_argument("--val-every", type=int, default=500)
    parser.add_argument("--val-count", type=int, default=64)
    parser.add_argument("--minutes", type=float, default=5, help="between checkpoints")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--seed", type=int, default=0)
    return parser.parse_args()


def main():
    args = arguments()
    torch.set_num_threads(args.threads)
    cv2.setNumThreads(0)
    torch.manual_seed(args.seed)
    out = Path(args.out)
    out.mkdir(parents=True, exist_ok=True)
    photos = pictures.load(args.photos)
    labelled = {folder: load_labelled(folder, 416, args.val_count) for folder in args.val}
    print(f"{len(photos)} pictures", flush=True)

    teacher, student = start(args, photos)
    student = student.to(memory_format=torch.channels_last)  # stays in eval mode: see the text on batch norm
    for parameter in student.parameters():
        parameter.requires_grad_(True)
    student.model[-1].dfl.conv.weight.requires_grad_(False)  # the fixed 0..15 of the box decoder
    average = copy.deepcopy(student).requires_grad_(False)
    keep = kept_layers(student)
    optimizer = torch.optim.AdamW(parameter_groups(student), lr=0, betas=(0.9, 0.999), weight_decay=1e-4)
    step, state = 0, out / "state.pt"
    if state.exists():
        saved = torch.load(state, map_location="cpu", weights_only=True)
        student.load_state_dict(saved["student"])
        average.load_state_dict(saved["average"])
        optimizer.load_state_dict(saved["optimizer"])
        step = saved["step"]
        print(f"goes on from step {step}", flush=True)
    validate("teacher", teacher, labelled)
    teacher = teacher.fuse(verbose=False).to(memory_format=torch.channels_last).requires_grad_(False)

    def checkpoint():
        parts = {"student": student, "average": average, "optimizer": optimizer}
        save({k: v.state_dict() for k, v in parts.items()} | {"step": step}, state)
        save_model(average, out / "student.pt", f"distilled, step {step} of {args.steps}")

    def keep_best():
        value = validate(f"step {step}", average, labelled)
        curve = out / "curve.jsonl"
        earlier = [json.loads(line)["map"] for line in curve.read_text().splitlines()] if curve.exists() else []
        if value > max(earlier, default=0):
            save_model(average, out / "best.pt", f"distilled, step {step} of {args.steps}, the best on --val so far")
        with open(curve, "a") as file:
            file.write(json.dumps({"step": step, "map": value}) + "\n")

    def make(index):
        rng = np.random.default_rng((args.seed, index))
        size, count = size_at(index, args.steps, rng)
        clean = pictures.batch(photos, count, size, rng)
        return clean, degraded(clean, args.degrade, rng)

    bf16, stop = quick_in_bf16(), []
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.append(True))
    sums, count, since, saved_at = {}, 0, time.time(), time.time()
    if step == 0:
        keep_best()
    for clean, seen in pictures.ahead(make, step, args.steps):
        rates = learning_rates(step, args)
        for group in optimizer.param_groups:
            group["lr"] = rates[group["stage"]] * group["scale"]
            group["params"][0].requires_grad_(group["lr"] > 0)
        x = pictures.to_float(clean)
        shown = x if seen is clean else pictures.to_float(seen)
        with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
            with torch.no_grad():
                answer = forward(teacher, x, keep=keep)
            parts = losses(forward(student, shown, keep=keep), answer)
        sum(WEIGHTS[k] * v for k, v in parts.items()).backward()
        torch.nn.utils.clip_grad_norm_(student.parameters(), 100)
        optimizer.step()
        optimizer.zero_grad()
        decay = min(EMA, (step + 1) / (step + 10))
        with torch.no_grad():
            torch._foreach_lerp_(list(average.parameters()), list(student.parameters()), 1 - decay)
        step += 1

        sums = {k: sums.get(k, 0) + v.item() for k, v in parts.items()}
        count += len(clean)
        if step % 50 == 0:
            text = "  ".join(f"{k} {v / 50:.4f}" for k, v in sums.items())
            print(f"{step}: {text}  {count / (time.time() - since):.1f} pictures/s", flush=True)
            sums, count, since = {}, 0, time.time()
        if step % args.val_every == 0:
            keep_best()
        if stop or step == args.steps or time.time() - saved_at > 60 * args.minutes:
            checkpoint()
            saved_at = time.time()
        if stop:
            return


if __name__ == "__main__":
    main()
