"""Writing checkpoints: whole files or none, and models in the form that Ultralytics uses."""

import copy
import datetime
import os

import torch
import ultralytics

LICENSE = "AGPL-3.0: derived from Ultralytics' YOLOv8 weights (https://ultralytics.com/license)"


def save(value, path):
    """torch.save under a temporary name, then rename: a kill leaves the old file or the new one."""
    temporary = f"{path}.tmp"
    with open(temporary, "wb") as file:
        torch.save(value, file)
        file.flush()
        os.fsync(file.fileno())
    os.replace(temporary, path)


def save_model(model, path, note, license=LICENSE):
    """Save a DetectionModel as Ultralytics does: the module tree pickled in fp16, contiguous, without gradients."""
    model = copy.deepcopy(model).half().eval()
    for tensor in (*model.parameters(), *model.buffers()):
        tensor.requires_grad_(False)
        tensor.data = tensor.data.contiguous()
    save(
        {
            "epoch": -1,
            "best_fitness": None,
            "model": model,
            "ema": None,
            "updates": None,
            "optimizer": None,
            "train_args": {"task": "detect", "imgsz": 640},
            "date": datetime.datetime.now().isoformat(timespec="seconds"),
            "version": ultralytics.__version__,
            "license": license,
            "note": note,
        },
        path,
    )
