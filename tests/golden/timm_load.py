"""Loads a classifier's checkpoint into timm's VisionTransformer, every tensor, and compares its logits with ours.

  python timm_load.py --checkpoint last.safetensors --config config.json --probe probe.safetensors

The configuration's sizes may stand anywhere in the JSON file, under our names (`img-size`), Hugging Face's
(`image_size`) or timm's. Exits with 1 when the largest difference is above the tolerance.
"""
import argparse
import json
import sys
from pathlib import Path

import timm
import torch
from safetensors.torch import load_file

# timm's argument: the names it may have in a configuration
NAMES = {
    "img_size": ("img_size", "image_size", "imgsz"),
    "patch_size": ("patch_size",),
    "in_chans": ("in_chans", "channels", "num_channels"),
    "num_classes": ("num_classes", "classes", "num_labels"),
    "embed_dim": ("embed_dim", "dim", "hidden_size"),
    "depth": ("depth", "num_hidden_layers"),
    "num_heads": ("num_heads", "heads", "num_attention_heads"),
    "global_pool": ("global_pool", "pool", "pooling"),
}
POOLS = {"token": "token", "cls": "token", "mean": "avg", "avg": "avg"}


def flatten(value, found):
    """Every scalar (and list) of nested objects by its last name, dashes as underscores; outer win, no decoder's."""
    for key, item in value.items():
        if not isinstance(item, dict):
            found.setdefault(key.replace("-", "_"), item)
    for key, item in value.items():
        if isinstance(item, dict) and key != "decoder":
            flatten(item, found)
    return found


def timm_arguments(config, tensors):
    """timm's arguments from a configuration; the number of classes may be left to the head's shape."""
    flat, arguments = flatten(config, {}), {}
    for argument, names in NAMES.items():
        values = [flat[name] for name in names if name in flat]
        if argument == "num_classes" and (not values or isinstance(values[0], list)):
            values = [tensors["head.weight"].shape[0]]
        if not values:
            sys.exit(f"the configuration has none of {', '.join(names)}")
        arguments[argument] = values[0]
    if arguments["global_pool"] not in POOLS:
        sys.exit(f"pooling {arguments['global_pool']!r}: expected one of {', '.join(POOLS)}")
    arguments["global_pool"] = POOLS[arguments["global_pool"]]
    return arguments


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--checkpoint", type=Path, required=True)
    parser.add_argument("--config", type=Path, help="config.json, or where it is missing the one beside the checkpoint")
    parser.add_argument("--probe", type=Path, required=True, help="safetensors with `pixels` and `logits`")
    parser.add_argument("--tolerance", type=float, default=1e-4)
    args = parser.parse_args()
    torch.set_num_threads(1)
    tensors, probe = load_file(args.checkpoint), load_file(args.probe)
    config = json.loads((args.config or args.checkpoint.with_name("config.json")).read_text())
    arguments = timm_arguments(config, tensors)
    model = timm.models.VisionTransformer(class_token=True, **arguments)
    model.load_state_dict(tensors, strict=True)
    model.eval()
    with torch.no_grad():
        logits = model(probe["pixels"])
    if logits.shape != probe["logits"].shape:
        sys.exit(f"timm's logits are {tuple(logits.shape)}, the probe's {tuple(probe['logits'].shape)}")
    difference = (logits - probe["logits"]).abs().max().item()
    described = ", ".join(f"{key} {value}" for key, value in arguments.items())
    print(f"timm {timm.__version__} loaded {len(tensors)} tensors: {described}")
    print(f"largest difference of {tuple(logits.shape)} logits: {difference:.2e} (at most {args.tolerance:.0e})")
    sys.exit(0 if difference <= args.tolerance else 1)


if __name__ == "__main__":
    main()
