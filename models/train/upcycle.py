"""A trained YOLOv8 turned into a dynamic one: same tree, other blocks, as much of its function as they can hold.

Every tensor whose name and shape agree is copied. Where a `Conv` (conv, batch norm, SiLU) became a
`DynamicConv_Single`, which has those as well, the function stays as it was: see `unfold`. Where it became a bare
`DynamicConv` (one linear conv mixed from experts: no batch norm, no bias, no SiLU) it can only be approached:

- The block after it begins with a 1x1 conv and batch norm, linear as well up to that batch norm. So the best kernel
  is the least-squares fit of a linear conv to the old layer's output, whichever linear map follows; the constant of
  the fit goes into the bias of that batch norm, where it is exact.
- Routing: r_e = sigmoid(z_e), with z_e the first principal components of the input's channel means over pictures,
  scaled to unit spread. With the routing fixed, the output is linear in all experts, so they are fitted together:
  first one kernel for all, then each expert's deviation from it under a ridge, chosen on held-out pictures. The
  experts differ from the start and the routing means something.
- Layers are fitted in order, each on what the student, not the teacher, feeds it, so that it corrects part of the
  error before it.

    python upcycle.py yolov8n.pt --photos photos/ --out student.pt
"""

import argparse

import blocks
import cv2
import numpy as np
import pictures
import torch
from evaluate import load_model
from saving import save_model
from torch.nn import functional as F

SIZE = 416
PLACES = 144  # positions used of each picture
HOLD_OUT = 8  # every eighth picture judges the ridge


def forward(model, x, upto=None, keep=()):
    """Run a DetectionModel; returns (output of layer `upto`, or Detect's raw head; {kept layer: output})."""
    outputs, kept = [], {}
    for layer in model.model:
        if layer.f != -1:
            x = outputs[layer.f] if isinstance(layer.f, int) else [x if j == -1 else outputs[j] for j in layer.f]
        if layer is model.model[-1]:
            return layer.forward_head(x, **layer.one2many), kept
        x = layer(x)
        if layer.i in keep:
            kept[layer.i] = x
        if layer.i == upto:
            return x, kept
        outputs.append(x if layer.i in model.save else None)


def next_block(model, index):
    """The C2f block that takes the output of layer `index` (through a concat, as its first channels)."""
    return next(layer for layer in list(model.model)[index + 1 :] if hasattr(layer, "cv1"))


def copy_matching(student, teacher):
    """Copy every tensor that fits; returns the names of the student's that had no counterpart."""
    source = teacher.state_dict()
    target = student.state_dict()
    fits = {k: v for k, v in source.items() if k in target and target[k].shape == v.shape}
    student.load_state_dict(fits, strict=False)
    return [k for k in target if k not in fits]


def set_routing(layer, means):
    """Point the routing at the principal components of the channel means [pictures, C] of the layer's input."""
    centre = means.mean(0)
    _, spread, axes = torch.linalg.svd(means - centre, full_matrices=False)
    experts = layer.cond_conv.num_experts
    weight = axes[:experts] / (spread[:experts, None] / len(means) ** 0.5 + 1e-6)
    layer.routing.weight.data.copy_(weight)
    layer.routing.bias.data.copy_(-weight @ centre)


def unfold(layer, source, means, spread):
    """Give a DynamicConv_Single the function of a Conv, and experts that differ.

    Experts stand in pairs with opposite routing, sigmoid(z) and sigmoid(-z), whose sum is 1 for every picture. With
    a share of the old kernel in each of a pair, the mixed kernel is the old one whatever z is. What is added to one
    and taken from the other (`spread`, relative to the kernel) is what training starts from.
    """
    dynamic, norm, _ = layer.conv
    norm.load_state_dict(source.bn.state_dict())
    norm.eps, norm.momentum = source.bn.eps, source.bn.momentum
    set_routing(dynamic, means)
    pairs = dynamic.cond_conv.num_experts // 2
    routing = dynamic.routing
    routing.weight.data[1::2] = -routing.weight.data[0::2]
    routing.bias.data[1::2] = -routing.bias.data[0::2]
    share = source.conv.weight.data.flatten() / pairs
    noise = torch.randn(pairs, len(share), generator=torch.Generator().manual_seed(0)) * share.std() * spread
    dynamic.cond_conv.weight.data[0::2] = share + noise
    dynamic.cond_conv.weight.data[1::2] = share - noise


class Sums:
    """The sums that least squares needs, for inputs [N, F] and targets [N, C]."""

    def __init__(self, features, outputs):
        self.xx = torch.zeros(features, features)
        self.xy = torch.zeros(features, outputs)
        self.x, self.y, self.yy, self.n = torch.zeros(features), torch.zeros(outputs), 0.0, 0

    def add(self, x, y):
        self.xx.addmm_(x.T, x)
        self.xy.addmm_(x.T, y)
        self.x += x.sum(0)
        self.y += y.sum(0)
        self.yy += y.square().sum().item()
        self.n += len(x)

    def centred(self):
        """(covariance of the inputs, covariance with the targets, variance of the targets)."""
        mx, my = self.x / self.n, self.y / self.n
        return self.xx / self.n - mx[:, None] * mx, self.xy / self.n - mx[:, None] * my, self.yy / self.n - my @ my


def unexplained(sums, weight):
    """The share of the targets' variance that a kernel [F, C] leaves."""
    xx, xy, yy = sums.centred()
    return ((yy - 2 * (weight * xy).sum() + (weight * (xx @ weight)).sum()) / yy).item()


def solve(xx, xy, ridge):
    """Ridge regression, the ridge relative to the mean of the diagonal."""
    diagonal = xx.diagonal().mean() * ridge
    return torch.linalg.solve(xx + diagonal * torch.eye(len(xx)), xy)


def fit(layer, inputs, targets):
    """Fit the experts of a DynamicConv to targets; `inputs`, `targets` yield batches. Returns the constant [C]."""
    conv = layer.cond_conv
    experts, per_expert = conv.num_experts, conv.weight_shape[1] * conv.kernel_size[0] * conv.kernel_size[1]
    train, held = (Sums(experts * per_expert, conv.out_channels) for _ in range(2))
    rng = torch.Generator().manual_seed(0)
    for x, y in zip(inputs, targets):
        columns = F.unfold(x, conv.kernel_size, conv.dilation, conv.padding, conv.stride)
        places = torch.randperm(columns.shape[-1], generator=rng)[:PLACES]
        columns, y = columns[..., places].transpose(1, 2), y.flatten(2)[..., places].transpose(1, 2)
        mixed = (layer.route(x)[:, None, :, None] * columns[:, :, None]).flatten(2)
        judges = torch.arange(len(x)) % HOLD_OUT == 0
        for sums, part in ((held, judges), (train, ~judges)):
            sums.add(mixed[part].flatten(0, 1), y[part].flatten(0, 1))
    xx, xy, _ = train.centred()
    shared = xx.view(experts, per_expert, experts, per_expert).sum((0, 2))
    static = solve(shared, xy.view(experts, per_expert, -1).sum(0), 1e-4).repeat(experts, 1)
    best, left = static, unexplained(held, static)
    print(f"  variance left: {left:.4f} with equal experts", end="")
    for ridge in (1.0, 0.1, 0.01):
        weight = static + solve(xx, xy - xx @ static, ridge)
        if unexplained(held, weight) < left:
            best, left = weight, unexplained(held, weight)
    print(f", {left:.4f} with different ones")
    kernels = best.view(experts, per_expert, -1).transpose(1, 2)
    noise = torch.randn(kernels.shape, generator=rng) * kernels.std() * 0.02
    conv.weight.data.copy_((kernels + noise).reshape(experts, -1))
    return train.y / train.n - train.x / train.n @ best


def upcycle(student, teacher, batches, spread=0.02):
    """Copy what fits, then unfold or fit each dynamic conv of the student that stands where the teacher has a Conv."""
    missing = copy_matching(student, teacher)
    fitted = [i for i, m in enumerate(student.model) if isinstance(m, (blocks.DynamicConv, blocks.DynamicConv_Single))]
    random = [k for k in missing if int(k.split(".")[1]) not in fitted]
    if random:
        print(f"left at random (train these): {len(random)} tensors, from {random[0]}")
    for index in fitted:
        layer = student.model[index]
        if isinstance(layer, blocks.DynamicConv_Single):
            inputs = (forward(student, pictures.to_float(b), upto=index - 1)[0] for b in batches)
            unfold(layer, teacher.model[index], torch.cat([x.float().mean((2, 3)) for x in inputs]), spread)
            continue
        print(f"layer {index}: {layer.cond_conv.in_channels} -> {layer.cond_conv.out_channels}")
        inputs = [forward(student, pictures.to_float(b), upto=index - 1)[0].bfloat16() for b in batches]
        set_routing(layer, torch.cat([x.float().mean((2, 3)) for x in inputs]))
        targets = (forward(teacher, pictures.to_float(b), upto=index)[0] for b in batches)
        constant = fit(layer, (x.float() for x in inputs), targets)
        after = next_block(student, index).cv1
        reach = after.conv.weight[:, : len(constant), 0, 0] @ constant
        after.bn.bias.data += reach * after.bn.weight / (after.bn.running_var + after.bn.eps).sqrt()


def difference(student, teacher, batch):
    """How far the student's answers for a batch lie from the teacher's, at most: (pixels of boxes, score)."""
    found, true = (model(pictures.to_float(batch))[0] for model in (student, teacher))
    apart = (found - true).abs()
    sure = true[:, 4:].amax(1) > 0.25  # boxes of anchors that see nothing mean nothing
    return apart[:, :4].amax(1)[sure].max().item(), apart[:, 4:].max().item()


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("teacher", help="trained YOLOv8 checkpoint (Ultralytics')")
    parser.add_argument("--photos", nargs="+", required=True, help="photos, folders or videos to fit on")
    parser.add_argument("--out", required=True)
    parser.add_argument("--name", default="yolov8-dynamicconv", choices=blocks.PARAMETERS)
    parser.add_argument("--scale", default="n")
    parser.add_argument("--spread", type=float, default=0.02, help="how unlike the experts of a Single are made")
    parser.add_argument("--count", type=int, default=1024, help="augmented pictures to fit on")
    args = parser.parse_args()
    cv2.setNumThreads(1)
    torch.manual_seed(0)
    teacher = load_model(args.teacher)
    student = blocks.build(args.name, args.scale, teacher.yaml["nc"]).eval()
    student.names = teacher.names
    photos, rng = pictures.load(args.photos), np.random.default_rng(0)
    with torch.no_grad():
        batches = [pictures.batch(photos, 16, SIZE, rng) for _ in range(args.count // 16)]
        upcycle(student, teacher, batches, args.spread)
        pixels, score = difference(student, teacher, batches[0])
        print(f"largest difference from the teacher: {pixels:.3g} pixels, score {score:.3g}")
    save_model(student, args.out, "upcycled from a trained YOLOv8")


if __name__ == "__main__":
    main()
