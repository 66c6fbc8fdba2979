"""Weights between those of two checkpoints of the same network.

Between a model and what further training made of it often lies one that keeps the first one's accuracy and most of
what was gained (WiSE-FT, Wortsman et al., CVPR 2022, https://arxiv.org/abs/2109.01903).

    python blend.py upcycled.pt student.pt --share 0.7 --out blend.pt
"""

import argparse

from evaluate import load_model
from saving import save_model


def blend(first, second, share):
    """Move `first` towards `second` by that share, in place."""
    other = second.state_dict()
    if {k: v.shape for k, v in first.state_dict().items()} != {k: v.shape for k, v in other.items()}:
        raise SystemExit("these are not the same network")
    for name, tensor in first.state_dict().items():
        if tensor.is_floating_point():
            tensor.lerp_(other[name], share)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("first")
    parser.add_argument("second")
    parser.add_argument("--share", type=float, default=0.5, help="of the second one")
    parser.add_argument("--out", required=True)
    args = parser.parse_args()
    model = load_model(args.first)
    blend(model, load_model(args.second), args.share)
    save_model(model, args.out, f"{1 - args.share:g} of {args.first} and {args.share:g} of {args.second}")


if __name__ == "__main__":
    main()
