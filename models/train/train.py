"""Train a detector from a YAML file with stock Ultralytics and the dynamic blocks.

The usual recipe: 640, 150 epochs, SGD, mosaic off for the last ten. The same command resumes OUT/weights/last.pt.
On a CPU with bf16 the forward and backward pass run in it, about twice as fast; validation stays in float32.

    python train.py ../yolov8-c2f-dynamicconv.yaml --scale n --data cards/data.yaml --out runs/cards
"""

import argparse
import random
import re
from pathlib import Path

import blocks  # noqa: F401  registers the blocks
import numpy as np
import torch
import yaml
from evaluate import quick_in_bf16
from ultralytics import YOLO
from ultralytics.data.dataset import YOLODataset
from ultralytics.nn import tasks


def to_float(value):
    """Every tensor in nested dicts, lists and tuples as float32."""
    if isinstance(value, dict):
        return {k: to_float(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return type(value)(to_float(v) for v in value)
    return value.float() if torch.is_tensor(value) else value


def train_in_bf16():
    """Run the layers in bf16 while training. The loss gets float32: boxes have too few digits in bf16."""
    plain = tasks.DetectionModel._predict_once

    def predict(self, x, *args, **kwargs):
        if not self.training:
            return plain(self, x, *args, **kwargs)
        with torch.autocast(x.device.type, torch.bfloat16):
            return to_float(plain(self, x, *args, **kwargs))

    tasks.DetectionModel._predict_once = predict


def turned(boxes, quarters):
    """Normalized boxes (n x 4: centre, width, height) of a picture after numpy.rot90(picture, quarters)."""
    for _ in range(quarters):
        x, y, w, h = boxes.T
        boxes = np.stack([y, 1 - x, h, w], axis=1)
    return boxes


def train_on_turned_pictures():
    """Show each picture in any of its four orientations. Unlike oblique ones they leave the boxes tight."""
    plain = YOLODataset.get_image_and_label

    def get(self, index):
        label = plain(self, index)
        if not self.augment:
            return label
        quarters = random.randrange(4)
        label["img"] = np.ascontiguousarray(np.rot90(label["img"], quarters))
        label["instances"].convert_bbox("xywh")
        label["instances"].update(turned(label["instances"].bboxes, quarters))
        for key in ("ori_shape", "resized_shape", "ratio_pad"):
            label[key] = label[key][::-1] if quarters % 2 else label[key]
        return label

    YOLODataset.get_image_and_label = get


def with_absolute_path(data, out):
    """A copy of data.yaml that works from any folder: its relative `path` is meant from where it lies."""
    data = Path(data).resolve()
    content = yaml.safe_load(data.read_text())
    content["path"] = str((data.parent / content.get("path", ".")).resolve())
    copy = Path(out) / data.name
    copy.write_text(yaml.safe_dump(content, sort_keys=False))
    return str(copy)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", help="YAML file (yolov8*.yaml), or a .pt to start from")
    parser.add_argument("--scale", default="n", choices="nsmlx", help="size, for a YAML file")
    parser.add_argument("--data", required=True, help="data.yaml as Ultralytics has it")
    parser.add_argument("--out", required=True)
    parser.add_argument("--size", type=int, default=640)
    parser.add_argument("--epochs", type=int, default=150)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--optimizer", default="SGD")
    parser.add_argument("--lr", type=float, default=0.01)
    parser.add_argument("--mosaic", type=float, default=1.0, help="share of pictures put together from four")
    parser.add_argument("--fliplr", type=float, default=0.5, help="share mirrored; 0 where writing tells classes apart")
    parser.add_argument("--degrees", type=float, default=0.0, help="pictures are turned by up to that much")
    parser.add_argument("--turns", action="store_true", help="pictures have no upper side: turn them by quarters")
    parser.add_argument("--warmup", type=float, default=3, help="epochs")
    parser.add_argument("--freeze", type=int, default=0, help="layers from the picture on that stay as they are")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--threads", type=int, help="for the CPU")
    args = parser.parse_args()
    if args.threads:
        torch.set_num_threads(args.threads)
    if args.device == "cpu" and quick_in_bf16():
        train_in_bf16()
    if args.turns:
        train_on_turned_pictures()
    out = Path(args.out).resolve()
    out.mkdir(parents=True, exist_ok=True)
    last = out / "weights" / "last.pt"
    if last.exists():
        YOLO(last).train(resume=True)
        return
    model = Path(args.model)
    if model.suffix == ".yaml":  # Ultralytics reads the size from the name: yolov8n-x.yaml is yolov8-x.yaml at n
        model = model.with_name(re.sub(r"^(yolov8)(?=[-.])", rf"\1{args.scale}", model.name))
    YOLO(model, task="detect").train(
        data=with_absolute_path(args.data, out),
        imgsz=args.size,
        epochs=args.epochs,
        batch=args.batch,
        optimizer=args.optimizer,
        lr0=args.lr,
        warmup_epochs=args.warmup,
        # Ultralytics' default suits SGD; other optimizers lose at once what a started model knows.
        warmup_bias_lr=0.1 if args.optimizer == "SGD" else 0.0,
        close_mosaic=10,
        mosaic=args.mosaic,
        fliplr=args.fliplr,
        degrees=args.degrees,
        freeze=args.freeze or None,
        device=args.device,
        workers=args.workers,
        project=str(out.parent),
        name=out.name,
        exist_ok=True,
    )


if __name__ == "__main__":
    main()
