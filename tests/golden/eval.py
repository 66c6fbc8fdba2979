"""Writes tests/golden/eval-NAME.json: detections, labels, and what pycocotools and Ultralytics make of them.

Needs pycocotools, ultralytics (8.4) and pillow:
  ghostlight detect --format jsonl --conf 0.005 --max-det 120 [--model …] PICTURES… > found.jsonl
  python tests/golden/eval.py NAME CLASSES found.jsonl
Labels are looked for as Ultralytics does. Boxes are rounded to 0.1 pixel and confidences to 0.0001 before
anything is computed. No picture is kept.
"""
import contextlib
import io
import json
import pathlib
import sys

import numpy as np
import torch
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval
from ultralytics.engine.validator import BaseValidator
from ultralytics.utils.metrics import ConfusionMatrix, ap_per_class, box_iou


def main(name, classes, found):
    pictures = []
    for line in pathlib.Path(found).read_text().splitlines():
        line = json.loads(line)
        width, height = line["image"]["width"], line["image"]["height"]
        before, _, after = line["source"].rpartition("/images/")
        labels = pathlib.Path(f"{before}/labels/{after}").with_suffix(".txt")
        truths = []
        for row in labels.read_text().splitlines() if labels.exists() else []:
            c, x, y, w, h = map(float, row.split())
            corners = [(x - w / 2) * width, (y - h / 2) * height, (x + w / 2) * width, (y + h / 2) * height]
            truths.append([int(c), *(round(v, 1) for v in corners)])
        detections = [
            [d["class_id"], round(d["confidence"], 4), *(round(d["box"][k], 1) for k in ("x1", "y1", "x2", "y2"))]
            for d in line["detections"]
        ]
        pictures.append({"truths": truths, "detections": detections})
    golden = {
        "classes": classes,
        "pycocotools": coco(pictures, classes),
        "ultralytics": ultralytics(pictures, classes),
        "pictures": pictures,
    }
    path = pathlib.Path(__file__).with_name(f"eval-{name}.json")
    path.write_text(json.dumps(golden, separators=(",", ":")) + "\n")
    print(path, path.stat().st_size, golden["pycocotools"]["summary"], golden["ultralytics"]["summary"])


def coco(pictures, classes):
    truths, found = [], []
    for image, picture in enumerate(pictures, 1):
        for c, x1, y1, x2, y2 in picture["truths"]:
            w, h = x2 - x1, y2 - y1
            truths.append({"id": len(truths) + 1, "image_id": image, "category_id": c, "bbox": [x1, y1, w, h],
                           "area": w * h, "iscrowd": 0})
        for c, confidence, x1, y1, x2, y2 in picture["detections"]:
            found.append({"image_id": image, "category_id": c, "bbox": [x1, y1, x2 - x1, y2 - y1],
                          "score": confidence})
    with contextlib.redirect_stdout(io.StringIO()):
        data = COCO()
        data.dataset = {"images": [{"id": i + 1} for i in range(len(pictures))], "annotations": truths,
                        "categories": [{"id": c} for c in range(classes)]}
        data.createIndex()
        run = COCOeval(data, data.loadRes(found), "bbox")
        run.params.maxDets = [1, 10, 300]
        run.evaluate()
        run.accumulate()
    precision = run.eval["precision"]  # [IoU, recall, class, area, limit]

    def mean(values):
        values = values[values > -1]
        return float(values.mean()) if values.size else None

    whole = precision[..., 0, 2]
    return {
        "summary": {
            "map50_95": mean(whole), "map50": mean(whole[0]), "map75": mean(whole[5]),
            "map_small": mean(precision[..., 1, 2]), "map_medium": mean(precision[..., 2, 2]),
            "map_large": mean(precision[..., 3, 2]),
        },
        "classes": {str(c): mean(whole[:, :, c]) for c in range(classes) if mean(whole[:, :, c]) is not None},
    }


class Matcher(BaseValidator):
    def __init__(self):
        self.iouv = torch.linspace(0.5, 0.95, 10)


def ultralytics(pictures, classes):
    confusion = ConfusionMatrix({c: str(c) for c in range(classes)})
    hits, confidences, found_classes, true_classes = [], [], [], []
    for picture in pictures:
        truths = torch.tensor(picture["truths"], dtype=torch.float64).reshape(-1, 5)
        found = torch.tensor(picture["detections"], dtype=torch.float64).reshape(-1, 6)
        iou = box_iou(truths[:, 1:], found[:, 2:])
        hits.append(Matcher().match_predictions(found[:, 0], truths[:, 0], iou).numpy())
        confidences.append(found[:, 1].numpy())
        found_classes.append(found[:, 0].numpy())
        true_classes.append(truths[:, 0].numpy())
        confusion.process_batch({"cls": found[:, 0], "conf": found[:, 1], "bboxes": found[:, 2:]},
                                {"cls": truths[:, 0], "bboxes": truths[:, 1:]}, conf=0.25, iou_thres=0.45)
    _, _, p, r, _, ap, *_ = ap_per_class(*map(np.concatenate, (hits, confidences, found_classes, true_classes)))
    matrix = confusion.matrix.astype(int)
    return {
        "summary": {"map50_95": ap.mean(), "map50": ap[:, 0].mean(), "precision": p.mean(), "recall": r.mean()},
        "confusion": [[int(i), int(j), int(matrix[i, j])] for i, j in zip(*np.nonzero(matrix))],
    }


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), sys.argv[3])
