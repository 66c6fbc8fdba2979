"""COCO-style mAP of checkpoints on a labelled folder, and how much their routing matters.

The folder follows Ultralytics: images/**/NAME.jpg and labels/**/NAME.txt. Pictures are letterboxed to a
square; confidence 0.001, NMS IoU 0.7, at most 300 boxes a picture.

    python evaluate.py teacher.pt student.pt --data coco128 --size 416
    python evaluate.py student.pt --data coco128 --size 640 --routing
"""

import argparse
import contextlib
from pathlib import Path

import blocks
import cv2
import numpy as np
import torch
from ultralytics.utils.metrics import ap_per_class, box_iou
from ultralytics.utils.nms import non_max_suppression

IOUS = torch.linspace(0.5, 0.95, 10)


def load_model(path):
    """The float model out of an Ultralytics checkpoint."""
    checkpoint = torch.load(path, map_location="cpu", weights_only=False)
    return (checkpoint.get("ema") or checkpoint["model"]).float().eval()


def quick_in_bf16():
    """Whether this CPU computes in bf16 itself. Others take ten times as long for it as for f32."""
    return torch.backends.mkldnn.is_available() and torch.ops.mkldnn._is_mkldnn_bf16_supported()


def letterbox(picture, size):
    """Resize to fit a grey square; returns it with the scale and the left and top margin."""
    height, width = picture.shape[:2]
    scale = size / max(height, width)
    w, h = round(width * scale), round(height * scale)
    left, top = (size - w) // 2, (size - h) // 2
    square = np.full((size, size, 3), 114, np.uint8)
    square[top : top + h, left : left + w] = cv2.resize(picture, (w, h), interpolation=cv2.INTER_LINEAR)
    return square, scale, left, top


def load_labelled(folder, size, limit=None):
    """[(uint8 picture [3, size, size], boxes [N, 5] as class and corners in the letterboxed picture)]."""
    files = sorted(f for f in (Path(folder) / "images").rglob("*") if f.suffix.lower() in {".jpg", ".png"})
    if not files:
        raise SystemExit(f"no pictures under {folder}/images")
    out = []
    for file in files[:limit]:
        picture = np.ascontiguousarray(cv2.imread(str(file))[..., ::-1])
        square, scale, left, top = letterbox(picture, size)
        text = Path(folder) / "labels" / file.relative_to(Path(folder) / "images").with_suffix(".txt")
        rows = text.read_text().split() if text.exists() else []
        boxes = torch.tensor([float(v) for v in rows]).view(-1, 5)
        h, w = (s * scale for s in picture.shape[:2])
        centre, half = boxes[:, 1:3] * torch.tensor([w, h]), boxes[:, 3:] * torch.tensor([w, h]) / 2
        margin = torch.tensor([left, top])
        boxes = torch.cat([boxes[:, :1], centre - half + margin, centre + half + margin], 1)
        out.append((torch.from_numpy(square).permute(2, 0, 1), boxes))
    return out


def matches(found, truth):
    """Which detections [N, 6] hit a true box [M, 5] of their class, one to one, at each IoU: bool [N, 10]."""
    hit = np.zeros((len(found), len(IOUS)), bool)
    if not len(found) or not len(truth):
        return hit
    iou = box_iou(truth[:, 1:], found[:, :4]) * (truth[:, :1] == found[:, 5])
    for column, threshold in enumerate(IOUS):
        pairs = torch.nonzero(iou >= threshold)
        order = iou[pairs[:, 0], pairs[:, 1]].argsort(descending=True)
        pairs = pairs[order].numpy()
        pairs = pairs[np.unique(pairs[:, 1], return_index=True)[1]]  # each detection takes its best box
        pairs = pairs[np.unique(pairs[:, 0], return_index=True)[1]]  # each box is taken once
        hit[pairs[:, 1], column] = True
    return hit


@torch.no_grad()
def evaluate(model, labelled, batch=8):
    """(mAP50-95, mAP50) of a model over the output of `load_labelled`."""
    was_training = model.training
    model.eval()
    hits, confidences, classes, truths = [], [], [], []
    for start in range(0, len(labelled), batch):
        part = labelled[start : start + batch]
        pictures = torch.stack([p for p, _ in part]).float() / 255
        output = model(pictures.to(memory_format=torch.channels_last))
        output = output[0] if isinstance(output, tuple) else output
        boxes = non_max_suppression(output, 0.001, 0.7, multi_label=True, max_det=300, max_time_img=1.0)
        for found, (_, truth) in zip(boxes, part):
            hits.append(matches(found, truth))
            confidences.append(found[:, 4].numpy())
            classes.append(found[:, 5].numpy())
            truths.append(truth[:, 0].numpy())
    model.train(was_training)
    gathered = [np.concatenate(v) for v in (hits, confidences, classes, truths)]
    ap = ap_per_class(*gathered, names={})[5]
    return float(ap.mean()), float(ap[:, 0].mean())


@contextlib.contextmanager
def frozen_routing(model, fixed):
    """Replace each picture's routing weights by fixed ones ({layer: [E]}), within the context."""
    layers = blocks.dynamic_layers(model)
    for name, layer in layers.items():
        layer.route = lambda x, r=fixed[name]: r.to(x.dtype).expand(len(x), -1)
    try:
        yield
    finally:
        for layer in layers.values():
            del layer.route


@torch.no_grad()
def routing_weights(model, labelled):
    """{layer: [pictures, E]}: every dynamic layer's routing weights for every picture."""
    seen, hooks = {}, []
    for name, layer in blocks.dynamic_layers(model).items():
        seen[name] = []
        hooks.append(
            layer.register_forward_pre_hook(lambda m, args, to=seen[name]: to.append(m.route(args[0]).float()))
        )
    for picture, _ in labelled:
        model(picture[None].float() / 255)
    for hook in hooks:
        hook.remove()
    return {name: torch.cat(rows) for name, rows in seen.items()}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkpoints", nargs="+")
    parser.add_argument("--data", required=True, help="folder with images/ and labels/")
    parser.add_argument("--size", type=int, default=640)
    parser.add_argument("--limit", type=int, help="use only the first pictures")
    parser.add_argument("--routing", action="store_true", help="print its spread, and the mAP with it frozen")
    args = parser.parse_args()
    labelled = load_labelled(args.data, args.size, args.limit)
    print(f"{len(labelled)} pictures at {args.size}")
    for path in args.checkpoints:
        model = load_model(path)
        print("{}: mAP50-95 {:.4f}  mAP50 {:.4f}".format(path, *evaluate(model, labelled)))
        if args.routing and blocks.dynamic_layers(model):
            weights = routing_weights(model, labelled)
            for name, rows in weights.items():
                spread = (f"{m:.3f} ± {s:.3f}" for m, s in zip(rows.mean(0), rows.std(0)))
                print(f"  {name}: " + ", ".join(spread))
            with frozen_routing(model, {name: rows.mean(0) for name, rows in weights.items()}):
                print("  routing frozen at its mean: mAP50-95 {:.4f}  mAP50 {:.4f}".format(*evaluate(model, labelled)))


if __name__ == "__main__":
    main()
