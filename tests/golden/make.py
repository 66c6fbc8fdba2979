"""Writes tests/golden/blocks.safetensors: weights, input and PyTorch's output for each dynamic block.

Needs torch, timm and safetensors: python tests/golden/make.py
Dynamic convolutions are timm's CondConv2d behind one linear routing layer; blocks as in ParameterNet's
GhostNet (CVPR 2024). A case `NAME` has tensors `NAME/state/KEY`, `NAME/input` and `NAME/output` [1, c, h, w];
the file's metadata holds per case the block, its row arguments and the options to build it with.
"""
import json
import math
import pathlib

import torch
from safetensors.torch import save_file
from timm.layers import CondConv2d
from timm.layers import make_divisible
from timm.models._efficientnet_blocks import SqueezeExcite
from torch import nn
from torch.nn import functional as F


class DynamicConv(nn.Module):
    """Routing by global mean and one linear layer, then CondConv2d."""

    def __init__(self, c1, c2, k=1, s=1, p="", d=1, g=1, bias=False, experts=4, softmax=False):
        super().__init__()
        self.softmax = softmax
        self.routing = nn.Linear(c1, experts)
        self.cond_conv = CondConv2d(c1, c2, k, s, p, d, g, bias, experts)

    def forward(self, x):
        z = self.routing(x.mean((2, 3)))
        return self.cond_conv(x, z.softmax(1) if self.softmax else z.sigmoid())


class Wrapped(nn.Module):
    """As forks wrap it: convolution, batch norm and SiLU in one Sequential."""

    def __init__(self, c1, c2, k=1, s=1):
        super().__init__()
        self.conv = nn.Sequential(DynamicConv(c1, c2, k, s), nn.BatchNorm2d(c2), nn.SiLU())

    def forward(self, x):
        return self.conv(x)


class Flat(DynamicConv):
    """As other forks: batch norm beside it, softmax, SiLU."""

    def __init__(self, c1, c2, k=1, s=1):
        super().__init__(c1, c2, k, s, softmax=True)
        self.bn = nn.BatchNorm2d(c2)
        self.act = nn.SiLU()

    def forward(self, x):
        return self.act(self.bn(super().forward(x)))


class ConvBnAct(nn.Module):
    def __init__(self, c1, c2, k=3, s=1, d=1, p="", skip=False):
        super().__init__()
        self.conv = DynamicConv(c1, c2, k, s, p, d)
        self.bn1 = nn.BatchNorm2d(c2)
        self.act1 = nn.ReLU()
        self.residual = skip and s == 1 and c1 == c2

    def forward(self, x):
        y = self.act1(self.bn1(self.conv(x)))
        return y + x if self.residual else y


class GhostModule(nn.Module):
    def __init__(self, c1, c2, k=1, ratio=2, dw=3, s=1, act=True):
        super().__init__()
        self.c2 = c2
        first = math.ceil(c2 / ratio)
        cheap = first * (ratio - 1)
        after = (lambda: nn.ReLU()) if act else (lambda: nn.Sequential())
        self.primary_conv = nn.Sequential(DynamicConv(c1, first, k, s, k // 2), nn.BatchNorm2d(first), after())
        self.cheap_operation = nn.Sequential(
            DynamicConv(first, cheap, dw, 1, dw // 2, g=first), nn.BatchNorm2d(cheap), after())

    def forward(self, x):
        x1 = self.primary_conv(x)
        return torch.cat([x1, self.cheap_operation(x1)], 1)[:, : self.c2]


class GhostBottleneck(nn.Module):
    def __init__(self, c1, c2, dw=3, s=1, se=0.0):
        super().__init__()
        mid, half = 2 * c1, (dw - 1) // 2
        self.ghost1 = GhostModule(c1, mid)
        self.down = s > 1
        if self.down:
            self.conv_dw = nn.Conv2d(mid, mid, dw, s, half, groups=mid, bias=False)
            self.bn_dw = nn.BatchNorm2d(mid)
        self.se = SqueezeExcite(mid, se, gate_layer="hard_sigmoid",
                                rd_round_fn=lambda v: make_divisible(v, 4)) if se else None
        self.ghost2 = GhostModule(mid, c2, act=False)
        self.shortcut = nn.Sequential() if c1 == c2 and s == 1 else nn.Sequential(
            DynamicConv(c1, c1, dw, s, half, g=c1), nn.BatchNorm2d(c1),
            DynamicConv(c1, c2, 1, 1, 0), nn.BatchNorm2d(c2))

    def forward(self, x):
        y = self.ghost1(x)
        if self.down:
            y = self.bn_dw(self.conv_dw(y))
        if self.se is not None:
            y = self.se(y)
        return self.ghost2(y) + self.shortcut(x)


class PerExpert(nn.Module):
    """Experts as a list of convolutions, wrapped."""

    def __init__(self, c1, c2, k=1, s=1):
        super().__init__()
        inner = nn.Module()
        inner.routing = nn.Linear(c1, 4)
        inner.cond_conv = nn.Module()
        inner.cond_conv.experts = nn.ModuleList(nn.Conv2d(c1, c2, k, s, k // 2, bias=False) for _ in range(4))
        self.conv = nn.Sequential(inner, nn.BatchNorm2d(c2), nn.SiLU())
        self.s, self.k = s, k

    def forward(self, x):
        r = self.conv[0].routing(x.mean((2, 3))).sigmoid()[0]
        w = sum(r[i] * e.weight for i, e in enumerate(self.conv[0].cond_conv.experts))
        return self.conv[2](self.conv[1](F.conv2d(x, w, None, self.s, self.k // 2)))


# name: (block in model files, class, c1, row arguments, keyword arguments, options)
CASES = {
    "dynamic 1x1": ("DynamicConv", DynamicConv, 5, [6], {}),
    "dynamic 3x3 stride 2": ("DynamicConv", DynamicConv, 6, [10, 3, 2], {}),
    "dynamic same, stride 1": ("DynamicConv", DynamicConv, 4, [6, 3, 1, "same"], {}),
    "dynamic same, stride 2": ("DynamicConv", DynamicConv, 4, [6, 3, 2, "same"], {}),
    "dynamic same, 5x5 stride 3": ("DynamicConv", DynamicConv, 4, [6, 5, 3, "same"], {}),
    "dynamic valid": ("DynamicConv", DynamicConv, 4, [6, 3, 1, "valid"], {}),
    "dynamic padding 2, 3x3": ("DynamicConv", DynamicConv, 4, [6, 3, 1, 2], {}),
    "dynamic dilation 2": ("DynamicConv", DynamicConv, 4, [6, 3, 1, "", 2], {}),
    "dynamic dilation 2, stride 2, same": ("DynamicConv", DynamicConv, 4, [6, 3, 2, "same", 2], {}),
    "dynamic 2x2": ("DynamicConv", DynamicConv, 4, [6, 2, 1], {}),
    "dynamic groups 2": ("DynamicConv", DynamicConv, 6, [8, 3, 1, "", 1, 2], {}),
    "dynamic depthwise": ("DynamicConv", DynamicConv, 6, [6, 3, 1, "", 1, 6], {}),
    "dynamic depth multiplier 2": ("DynamicConv", DynamicConv, 6, [12, 3, 1, "", 1, 6], {}),
    "dynamic bias": ("DynamicConv", DynamicConv, 4, [6, 3, 1, "", 1, 1, True], {}),
    "dynamic 1 expert": ("DynamicConv", DynamicConv, 4, [6, 3, 1, "", 1, 1, False, 1], {}),
    "dynamic 3 experts": ("DynamicConv", DynamicConv, 4, [6, 3, 1, "", 1, 1, True, 3], {}),
    "dynamic 8 experts": ("DynamicConv", DynamicConv, 4, [6, 3, 1, "", 1, 1, False, 8], {}),
    "dynamic softmax": ("DynamicConv", DynamicConv, 4, [6, 3], {"softmax": True}),
    "dynamic wrapped": ("DynamicConv", Wrapped, 4, [6, 3, 2], {}),
    "dynamic flat": ("DynamicConv", Flat, 4, [6, 3, 2], {}),
    "dynamic per expert": ("DynamicConv", PerExpert, 4, [6, 3, 2], {}),
    "convbnact": ("ConvBnAct", ConvBnAct, 4, [6, 3, 2], {}),
    "convbnact skip": ("ConvBnAct", ConvBnAct, 6, [6, 3, 1, 1, "", True], {}),
    "convbnact skip that does not fit": ("ConvBnAct", ConvBnAct, 4, [6, 3, 1, 1, "", True], {}),
    "convbnact same dilation 2": ("ConvBnAct", ConvBnAct, 4, [6, 3, 1, 2, "same"], {}),
    "ghost module": ("GhostModule", GhostModule, 8, [8], {}),
    "ghost module odd": ("GhostModule", GhostModule, 6, [9], {}),
    "ghost module 3x3 stride 2": ("GhostModule", GhostModule, 6, [8, 3, 2, 5, 2], {}),
    "ghost module ratio 3": ("GhostModule", GhostModule, 6, [10, 1, 3], {}),
    "ghost module no activation": ("GhostModule", GhostModule, 6, [8], {"act": False}),
    "ghost bottleneck identity": ("GhostBottleneck", GhostBottleneck, 8, [8], {}),
    "ghost bottleneck projection": ("GhostBottleneck", GhostBottleneck, 6, [8], {}),
    "ghost bottleneck stride 2": ("GhostBottleneck", GhostBottleneck, 6, [8, 3, 2], {}),
    "ghost bottleneck se": ("GhostBottleneck", GhostBottleneck, 8, [8, 3, 1, 0.25], {}),
    "ghost bottleneck 5x5 stride 2 se": ("GhostBottleneck", GhostBottleneck, 6, [10, 5, 2, 0.25], {}),
}


def main():
    tensors, meta = {}, {}
    for seed, (name, (block, cls, c1, args, options)) in enumerate(CASES.items()):
        torch.manual_seed(seed)
        module = cls(c1, *args, **options).eval()
        for m in module.modules():
            if isinstance(m, nn.BatchNorm2d):
                m.eps = 1e-3 if seed % 2 else 1e-5
                nn.init.uniform_(m.weight, 0.5, 1.5), nn.init.uniform_(m.bias, -0.5, 0.5)
                nn.init.uniform_(m.running_mean, -0.5, 0.5), nn.init.uniform_(m.running_var, 0.3, 1.5)
            if isinstance(m, nn.Linear):
                nn.init.normal_(m.weight, 0, 2), nn.init.normal_(m.bias, 0, 0.5)
        x = torch.randn(1, c1, 9, 11)
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
        })
    save_file(tensors, pathlib.Path(__file__).parent / "blocks.safetensors", metadata=meta)


main()
