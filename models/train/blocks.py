"""Dynamic-convolution blocks for stock Ultralytics (ParameterNet, CVPR 2024).

`import blocks` is enough: it registers the blocks, so that YAML files that name them build and
checkpoints that hold them load. The classes pickle under `ultralytics.nn.Addmodules.DynamicConv`,
the place where public forks keep them.

    python blocks.py            # build every model, compare the parameter counts
"""

import argparse
import inspect
import math
import sys
import types

import torch
from timm.layers import CondConv2d, SqueezeExcite
from torch import nn
from ultralytics.nn import tasks
from ultralytics.nn.modules import Conv

HOME = "ultralytics.nn.Addmodules.DynamicConv"
PARAMETERS = {
    "yolov8": 3_157_200,
    "yolov8-dynamicconv": 4_885_608,
    "yolov8-dynamicconv-single": 4_886_952,
    "yolov8-c2f-dynamicconv": 2_331_328,
}
# The block that halves the picture, where it is not `Conv`.
DOWN = {"yolov8-dynamicconv": "DynamicConv", "yolov8-dynamicconv-single": "DynamicConv_Single"}


class DynamicConv(nn.Module):
    """A convolution whose kernel is mixed per picture: W = sum_e sigmoid(Linear(mean(x)))_e * W_e.

    No batch norm, no activation and, by default, no bias.
    """

    def __init__(self, c1, c2, k=1, s=1, padding="", dilation=1, groups=1, bias=False, num_experts=4):
        super().__init__()
        self.routing = nn.Linear(c1, num_experts)
        self.cond_conv = CondConv2d(c1, c2, k, s, padding, dilation, groups, bias, num_experts)

    def route(self, x):
        """The weight of each expert for each picture, [B, E]."""
        return torch.sigmoid(self.routing(x.mean((2, 3))))

    def forward(self, x):
        return self.cond_conv(x, self.route(x))


class DynamicConv_Single(nn.Module):
    """DynamicConv in the place of a `Conv`: batch norm and SiLU follow it."""

    def __init__(self, c1, c2, k=1, s=1, num_experts=4):
        super().__init__()
        conv = DynamicConv(c1, c2, k, s, num_experts=num_experts)
        self.conv = nn.Sequential(conv, nn.BatchNorm2d(c2), nn.SiLU(inplace=True))

    def forward(self, x):
        return self.conv(x)


def _dynamic_bn(c1, c2, k=1, s=1, groups=1, act=None):
    """DynamicConv, batch norm and, if given, an activation; padding keeps the size at stride 1."""
    tail = act(inplace=True) if act else nn.Sequential()
    return nn.Sequential(DynamicConv(c1, c2, k, s, k // 2, groups=groups), nn.BatchNorm2d(c2), tail)


class GhostModule(nn.Module):
    """Half of the channels from a dynamic conv, the rest from a cheap depthwise one on top of it."""

    def __init__(self, inp, oup, kernel_size=1, ratio=2, dw_size=3, stride=1, act_layer=nn.ReLU):
        super().__init__()
        self.oup = oup
        first = math.ceil(oup / ratio)
        self.primary_conv = _dynamic_bn(inp, first, kernel_size, stride, act=act_layer)
        self.cheap_operation = _dynamic_bn(first, first * (ratio - 1), dw_size, groups=first, act=act_layer)

    def forward(self, x):
        x1 = self.primary_conv(x)
        return torch.cat([x1, self.cheap_operation(x1)], 1)[:, : self.oup]


class GhostBottleneck(nn.Module):
    """GhostNet's bottleneck: widen, shrink when s > 1, optionally squeeze-excite, narrow, add the shortcut."""

    def __init__(self, c1, c2, dw_size=3, s=1, se_ratio=0.0):
        super().__init__()
        mid = 2 * c1
        self.ghost1 = GhostModule(c1, mid)
        if s > 1:
            self.conv_dw = nn.Conv2d(mid, mid, dw_size, s, dw_size // 2, groups=mid, bias=False)
            self.bn_dw = nn.BatchNorm2d(mid)
        self.se = SqueezeExcite(mid, se_ratio, rd_divisor=4, gate_layer=nn.Hardsigmoid) if se_ratio else None
        self.ghost2 = GhostModule(mid, c2, act_layer=None)
        same = c1 == c2 and s == 1
        self.shortcut = (
            nn.Sequential()
            if same
            else nn.Sequential(*_dynamic_bn(c1, c1, dw_size, s, groups=c1)[:2], *_dynamic_bn(c1, c2)[:2])
        )

    def forward(self, x):
        y = self.ghost1(x)
        if hasattr(self, "conv_dw"):
            y = self.bn_dw(self.conv_dw(y))
        if self.se is not None:
            y = self.se(y)
        return self.ghost2(y) + self.shortcut(x)


class C2f_GhostModule_DynamicConv(nn.Module):
    """C2f with GhostModules inside; `shortcut` and `g` are taken for the YAML's sake and ignored."""

    def __init__(self, c1, c2, n=1, shortcut=False, g=1, e=0.5):
        super().__init__()
        self.c = int(c2 * e)
        self.cv1 = Conv(c1, 2 * self.c, 1, 1)
        self.cv2 = Conv((2 + n) * self.c, c2, 1)
        self.m = nn.ModuleList(GhostModule(self.c, self.c) for _ in range(n))

    def forward(self, x):
        y = list(self.cv1(x).chunk(2, 1))
        for ghost in self.m:
            y.append(ghost(y[-1]))
        return self.cv2(torch.cat(y, 1))


def register():
    """Teach Ultralytics' YAML parser the blocks.

    `parse_model` keeps two closed sets: the modules that take (c1, c2) and, among them, those that take the
    repeat count. A C2f that is missing from the second silently gets its other arguments shifted. The sets are
    literals inside the function, so its source is extended and compiled again.
    """
    if hasattr(tasks, "DynamicConv"):
        return
    blocks = {
        "DynamicConv": DynamicConv,
        "DynamicConv_Single": DynamicConv_Single,
        "GhostModule": GhostModule,
        "GhostModule_DynamicConv": GhostModule,
        "GhostBottleneck_DynamicConv": GhostBottleneck,
        "C2f_GhostModule_DynamicConv": C2f_GhostModule_DynamicConv,
        "C2f_DynamicConv": C2f_GhostModule_DynamicConv,
    }
    vars(tasks).update(blocks)
    repeated = "C2f_GhostModule_DynamicConv"
    source = inspect.getsource(tasks.parse_model)
    for name, extra in (("base_modules", ", ".join(dict.fromkeys(blocks))), ("repeat_modules", repeated)):
        at = source.index("{", source.index(f"{name} = frozenset(")) + 1
        source = f"{source[:at]} {extra}, {source[at:]}"
    exec(compile(source, f"{tasks.__file__} (extended)", "exec"), vars(tasks))

    package, module = types.ModuleType("ultralytics.nn.Addmodules"), types.ModuleType(HOME)
    package.__path__, package.DynamicConv = [], module
    sys.modules[package.__name__], sys.modules[HOME] = package, module
    for cls in set(blocks.values()):
        cls.__module__ = HOME
        setattr(module, cls.__name__, cls)
    module.C2f_DynamicConv = C2f_GhostModule_DynamicConv  # the other name for it


def model_dict(name, scale="n", nc=80, experts=4):
    """The YAML of one of `PARAMETERS` as a dict, at a scale; `experts` of each downsampling DynamicConv."""
    down = DOWN.get(name, "Conv")
    more = {"DynamicConv": [1, 1, 1, False, experts], "DynamicConv_Single": [experts]}.get(down, [])
    more = more if experts != 4 else []
    c2f = "C2f_DynamicConv" if name == "yolov8-c2f-dynamicconv" else "C2f"
    up = [-1, 1, "nn.Upsample", [None, 2, "nearest"]]
    backbone = [[-1, 1, "Conv", [64, 3, 2]]]
    for width, repeats in ((128, 3), (256, 6), (512, 6), (1024, 3)):
        backbone += [[-1, 1, down, [width, 3, 2, *more]], [-1, repeats, c2f, [width, True]]]
    backbone += [[-1, 1, "SPPF", [1024, 5]]]
    head = [up, [[-1, 6], 1, "Concat", [1]], [-1, 3, c2f, [512]]]
    head += [list(up), [[-1, 4], 1, "Concat", [1]], [-1, 3, c2f, [256]]]
    for width, other in ((256, 12), (512, 9)):
        head += [[-1, 1, down, [width, 3, 2, *more]], [[-1, other], 1, "Concat", [1]], [-1, 3, c2f, [2 * width]]]
    head += [[[15, 18, 21], 1, "Detect", ["nc"]]]
    scales = {
        "n": [0.33, 0.25, 1024],
        "s": [0.33, 0.50, 1024],
        "m": [0.67, 0.75, 768],
        "l": [1.00, 1.00, 512],
        "x": [1.00, 1.25, 512],
    }
    return {"nc": nc, "scale": scale, "scales": scales, "backbone": backbone, "head": head}


def build(name, scale="n", nc=80, experts=4):
    """A new DetectionModel with random weights; `name` is one of `PARAMETERS`."""
    return tasks.DetectionModel(model_dict(name, scale, nc, experts), ch=3, nc=nc, verbose=False)


def dynamic_layers(model):
    """{name: module} of every DynamicConv in a model."""
    return {name: m for name, m in model.named_modules() if isinstance(m, DynamicConv)}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.parse_args()
    for name, expected in PARAMETERS.items():
        found = sum(p.numel() for p in build(name).parameters())
        print(f"{name}: {found} parameters, {len(dynamic_layers(build(name)))} dynamic convs")
        if found != expected:
            sys.exit(f"{name}: expected {expected} parameters; the arguments have shifted")


register()
if __name__ == "__main__":
    main()
