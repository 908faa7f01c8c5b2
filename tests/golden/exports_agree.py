"""Exports vision transformers of timm and PyTorch at their usual sizes, random weights, and compares smalti-run with
ONNX Runtime: log-probabilities of one image, and whether all multiply-adds run on our kernels.

  exports_agree.py OUT SMALTI_RUN

Prints the largest difference of each model; exits with 1 when one is above 1e-4 or runs elsewhere.
"""
import json
import os
import subprocess
import sys

import numpy as np
import onnxruntime as ort
import timm
import torch
import torch.nn as nn
from PIL import Image

TOLERANCE = 1e-4
SIDE, MEAN, STD = 224, [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]


class Encoder(nn.Module):
    """A vision transformer of ViT-Tiny's size around PyTorch's nn.TransformerEncoder."""

    def __init__(self, dim=192, heads=3, depth=12, patch=16, classes=1000):
        super().__init__()
        tokens = (SIDE // patch) ** 2 + 1
        self.patch_embed = nn.Conv2d(3, dim, patch, patch)
        self.cls_token, self.pos_embed = nn.Parameter(torch.randn(1, 1, dim)), nn.Parameter(torch.randn(1, tokens, dim))
        layer = nn.TransformerEncoderLayer(dim, heads, 4 * dim, 0.0, "gelu", batch_first=True, norm_first=True)
        self.encoder = nn.TransformerEncoder(layer, depth, enable_nested_tensor=False)
        self.head = nn.Linear(dim, classes)

    def forward(self, image):
        x = self.patch_embed(image).flatten(2).transpose(1, 2)
        x = torch.cat([self.cls_token.expand(x.shape[0], -1, -1), x], 1) + self.pos_embed
        return self.head(self.encoder(x)[:, 0])


MODELS = {
    "vit_tiny": lambda: timm.create_model("vit_tiny_patch16_224"),
    "deit_tiny": lambda: timm.create_model("deit_tiny_patch16_224"),
    "deit_tiny_distilled": lambda: timm.create_model("deit_tiny_distilled_patch16_224"),
    "torch_encoder": Encoder,
}


def main():
    folder, program = sys.argv[1:3]
    os.makedirs(folder, exist_ok=True)
    pixels = np.random.default_rng(0).integers(0, 256, (SIDE, SIDE, 3), dtype=np.uint8)
    image = os.path.join(folder, "image.png")
    Image.fromarray(pixels).save(image)
    image = ((pixels / np.float32(255) - np.float32(MEAN)) / np.float32(STD)).astype(np.float32).transpose(2, 0, 1)[None]
    worst = False
    for name, build in MODELS.items():
        torch.manual_seed(0)
        model, path = build().eval(), os.path.join(folder, f"{name}.onnx")
        names = dict(input_names=["image"], output_names=["logits"])
        torch.onnx.export(model, (torch.from_numpy(image),), path, opset_version=17, dynamo=False, **names)
        logits = ort.InferenceSession(path, providers=["CPUExecutionProvider"]).run(None, {"image": image})[0][0]
        wanted = logits - logits.max() - np.log(np.exp(logits - logits.max()).sum())
        text = lambda values: ",".join(map(str, values))
        flags = ["--mean", text(MEAN), "--std", text(STD), "--resize", "squash", "--interpolation", "bicubic"]
        said = subprocess.run([program, "run", path, image, "--json", "-k", "1000", *flags], capture_output=True, check=True)
        found = np.full(len(wanted), np.nan)
        for label in json.loads(said.stdout)["results"][0]["predictions"]:
            found[label["index"]] = np.log(label["probability"])
        look = json.loads(subprocess.run([program, "inspect", path, "--json"], capture_output=True, check=True).stdout)
        off, share = np.abs(found - wanted).max(), look["kernels_share"]
        worst |= not off <= TOLERANCE or share < 0.95
        print(f"{name}: largest difference {off:.1e}, {100 * share:.0f} % of the multiply-adds on our kernels")
    return int(worst)


if __name__ == "__main__":
    sys.exit(main())
