"""Writes tests/golden/stock.safetensors: Ultralytics' own blocks, activations, and more forms of DynamicConv.

Needs torch, ultralytics 8.4 and safetensors: python tests/golden/make_stock.py
Laid out as blocks.safetensors; `keys_alone` says that the block must also build without its classes, as
from a state dict, and `slopes` gives LeakyReLU's.
"""
import json
import pathlib

import torch
from safetensors.torch import save_file
from torch import nn
from torch.nn import functional as F
from ultralytics.nn.modules import SPPF, Bottleneck, C2, C3, C3Ghost, Conv, DWConv, GhostBottleneck, GhostConv


class Experts(nn.Module):
    """Routing, and experts as a list of convolutions: `experts` or `cond_conv.experts`."""

    def __init__(self, c1, c2, k=1, s=1, experts=4, bias=True, softmax=False, inner=True):
        super().__init__()
        self.routing = nn.Linear(c1, experts)
        holder = self
        if inner:
            holder = self.cond_conv = nn.Module()
        holder.experts = nn.ModuleList(nn.Conv2d(c1, c2, k, s, k // 2, bias=bias) for _ in range(experts))
        self.softmax, self.s, self.k = softmax, s, k

    def forward(self, x):
        z = self.routing(x.mean((2, 3)))[0]
        r = z.softmax(0).clamp(1e-8, 1) if self.softmax else z.sigmoid()
        experts = self.cond_conv.experts if hasattr(self, "cond_conv") else self.experts
        w = sum(r[i] * e.weight for i, e in enumerate(experts))
        b = sum(r[i] * e.bias for i, e in enumerate(experts)) if experts[0].bias is not None else None
        return F.conv2d(x, w, b, self.s, self.k // 2)


class Stacked(nn.Module):
    """Routing, and experts as one tensor (`cond_conv.weight`, flattened)."""

    def __init__(self, c1, c2, k=1, s=1, experts=4, softmax=False):
        super().__init__()
        self.routing = nn.Linear(c1, experts)
        self.cond_conv = nn.Module()
        self.cond_conv.weight = nn.Parameter(torch.randn(experts, c2 * c1 * k * k) * 0.2)
        self.shape, self.softmax, self.s, self.k = (c2, c1, k, k), softmax, s, k

    def forward(self, x):
        z = self.routing(x.mean((2, 3)))
        r = z.softmax(1).clamp(1e-8, 1) if self.softmax else z.sigmoid()
        return F.conv2d(x, (r @ self.cond_conv.weight).view(self.shape), None, self.s, self.k // 2)


class Held(nn.Module):
    """One dynamic convolution under another name, bare, or with batch norm and SiLU beside it."""

    def __init__(self, c1, c2, k=1, s=1, inner=Stacked, norm=True, **options):
        super().__init__()
        self.dynamic = inner(c1, c2, k, s, **options)
        self.bn = nn.BatchNorm2d(c2) if norm else nn.Identity()
        self.act = nn.SiLU() if norm else nn.Identity()

    def forward(self, x):
        return self.act(self.bn(self.dynamic(x)))


class HeldSequence(nn.Module):
    """The same in a Sequential of another name."""

    def __init__(self, c1, c2, k=1, s=1, **options):
        super().__init__()
        self.layers = nn.Sequential(Stacked(c1, c2, k, s, **options), nn.BatchNorm2d(c2), nn.ReLU6())

    def forward(self, x):
        return self.layers(x)


class Flat(Stacked):
    def __init__(self, c1, c2, k=1, s=1, experts=4):
        super().__init__(c1, c2, k, s, experts, softmax=True)
        self.bn, self.act = nn.BatchNorm2d(c2), nn.SiLU()

    def forward(self, x):
        return self.act(self.bn(super().forward(x)))


class Wrapped(nn.Module):
    def __init__(self, c1, c2, k=1, s=1, inner=Stacked, **options):
        super().__init__()
        self.conv = nn.Sequential(inner(c1, c2, k, s, **options), nn.BatchNorm2d(c2), nn.SiLU())

    def forward(self, x):
        return self.conv(x)


# name: (block in model files, class, c1, row arguments, keyword arguments[, repeats in the constructor])
CASES = {
    "dwconv": ("DWConv", DWConv, 6, [6, 3], {}),
    "dwconv 5x5 stride 2": ("DWConv", DWConv, 6, [6, 5, 2], {}),
    "dwconv of common divisor": ("DWConv", DWConv, 6, [9, 3], {}),
    "dwconv multiplier 2, dilation 2": ("DWConv", DWConv, 6, [12, 3, 1, 2], {}),
    "dwconv no activation": ("DWConv", DWConv, 6, [6, 3, 1, 1, False], {}),
    "conv 6x6 of YOLOv5": ("Conv", Conv, 3, [8, 6, 2, 2], {}),
    "conv no activation": ("Conv", Conv, 3, [8, 3, 1, None, 1, 1, False], {}),
    "ghost conv": ("GhostConv", GhostConv, 6, [8], {}),
    "ghost conv 3x3 stride 2": ("GhostConv", GhostConv, 6, [8, 3, 2], {}),
    "ghost conv groups": ("GhostConv", GhostConv, 6, [12, 3, 1, 2], {}),
    "ghost conv odd, no activation": ("GhostConv", GhostConv, 6, [9, 1, 1, 1, False], {}),
    "stock ghost bottleneck": ("GhostBottleneck", GhostBottleneck, 8, [8], {}),
    "stock ghost bottleneck stride 2": ("GhostBottleneck", GhostBottleneck, 8, [12, 3, 2], {}),
    "stock ghost bottleneck 5x5 stride 2": ("GhostBottleneck", GhostBottleneck, 8, [8, 5, 2], {}),
    "c2": ("C2", C2, 6, [8], {}),
    "c2 no shortcut": ("C2", C2, 6, [8, False], {}),
    "c2 groups, e": ("C2", C2, 6, [8, True, 2, 0.75], {}),
    "c3": ("C3", C3, 6, [8], {}),
    "c3 no shortcut": ("C3", C3, 6, [8, False], {}),
    "c3 groups, e": ("C3", C3, 6, [8, True, 2, 0.75], {}),
    "c3 ghost": ("C3Ghost", C3Ghost, 6, [16, True], {}),
    "bottleneck": ("Bottleneck", Bottleneck, 8, [8], {}),
    "bottleneck 1x1 5x5, e": ("Bottleneck", Bottleneck, 8, [8, True, 2, [1, 5], 0.75], {}),
    "bottleneck no shortcut": ("Bottleneck", Bottleneck, 8, [8, False], {}),
    "sppf of YOLO26": ("SPPF", SPPF, 8, [8, 5, 2, True], {}),
    "relu": ("Conv", Conv, 4, [6, 3], {"act": nn.ReLU()}),
    "relu6": ("Conv", Conv, 4, [6, 3], {"act": nn.ReLU6()}),
    "hardswish": ("Conv", Conv, 4, [6, 3], {"act": nn.Hardswish()}),
    "leaky relu": ("Conv", Conv, 4, [6, 3], {"act": nn.LeakyReLU(0.1)}),
    "dynamic experts with bias": ("DynamicConv", Experts, 4, [6, 3], {}),
    "dynamic experts direct, 3 of them": ("DynamicConv", Experts, 4, [6, 3, 2], {"inner": False, "experts": 3}),
    "dynamic experts wrapped, 6 with bias": ("DynamicConv", Wrapped, 4, [6, 3], {"inner": Experts, "experts": 6}),
    "dynamic wrapped, 2 experts": ("DynamicConv", Wrapped, 4, [6, 3, 2], {"experts": 2}),
    "dynamic flat clamped, 5 experts": ("DynamicConv", Flat, 4, [6, 3], {"experts": 5}),
    "dynamic held": ("DynamicConv", Held, 4, [6, 3, 2], {}),
    "dynamic held bare, 8 experts": ("DynamicConv", Held, 4, [6, 3], {"norm": False, "experts": 8}),
    "dynamic held experts": ("DynamicConv", Held, 4, [6, 3], {"inner": Experts, "experts": 2}),
    "dynamic held softmax clamped": ("DynamicConv", Held, 4, [6, 3], {"softmax": True}),
    "dynamic held sequence": ("DynamicConv_Single", HeldSequence, 4, [6, 3], {}),
}
REPEATED = (C2, C3, C3Ghost)


def main():
    tensors, meta = {}, {}
    for seed, (name, (block, cls, c1, args, options)) in enumerate(CASES.items()):
        torch.manual_seed(seed)
        given = [args[0], 1, *args[1:]] if cls in REPEATED else args
        module = cls(c1, *given, **options).eval()
        for m in module.modules():
            if isinstance(m, nn.BatchNorm2d):
                m.eps = 1e-3
                nn.init.uniform_(m.weight, 0.5, 1.5), nn.init.uniform_(m.bias, -0.5, 0.5)
                nn.init.uniform_(m.running_mean, -0.5, 0.5), nn.init.uniform_(m.running_var, 0.3, 1.5)
            if isinstance(m, nn.Linear):
                nn.init.normal_(m.weight, 0, 2), nn.init.normal_(m.bias, 0, 0.5)
        # Wide enough for the bends of ReLU6 and Hardswish.
        x = torch.randn(1, c1, 6, 7) * (6 if "act" in options else 1)
        with torch.no_grad():
            y = module(x)
        for key, value in module.state_dict().items():
            if not key.endswith("num_batches_tracked"):
                tensors[f"{name}/state/{key}"] = value.contiguous()
        tensors[f"{name}/input"], tensors[f"{name}/output"] = x, y.contiguous()
        modules = {k: m for k, m in module.named_modules() if k}
        meta[name] = json.dumps({
            "block": block, "args": args, "softmax": bool(options.get("softmax")),
            "classes": {k: type(m).__name__ for k, m in modules.items()},
            "eps": {k: m.eps for k, m in modules.items() if isinstance(m, nn.BatchNorm2d)},
            "slopes": {k: m.negative_slope for k, m in modules.items() if isinstance(m, nn.LeakyReLU)},
            "keys_alone": "act" not in options and cls is not HeldSequence,
        })
    save_file(tensors, pathlib.Path(__file__).parent / "stock.safetensors", metadata=meta)


main()
