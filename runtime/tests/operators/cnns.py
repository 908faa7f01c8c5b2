#!/usr/bin/env python3
"""Whole convolutional networks with random weights: their answers by ONNX Runtime, and their speed next to it.

    python -m venv /tmp/venv
    /tmp/venv/bin/pip install torch torchvision onnx onnxruntime efficientnet_lite_pytorch
    /tmp/venv/bin/python runtime/tests/operators/cnns.py make /tmp/cnns
    SMALTI_OPERATORS=/tmp/cnns cargo test --release -p smalti-runtime --no-default-features --test operators
    /tmp/venv/bin/python runtime/tests/operators/cnns.py bench /tmp/cnns --ours 'smalti-run bench {model} --json'

`make` writes `graphs/*.onnx` and `expected.json` in the form of `make.py`. `bench` runs the contenders in turns, one thread
each, and prints medians over the rounds. `efficientnet_lite0` is the one of `efficientnet_lite_pytorch`, `hybrid96` stands for
residual stages of 3x3 convolutions in front of transformer blocks; all others are torchvision's.
"""
import argparse
import json
import statistics
import subprocess
import sys
import time
from pathlib import Path

PATTERNS = 3


def hybrid(depth=2, widths=(24, 48, 96, 128), heads=4, classes=10):
    """[1, 3, 96, 96] -> logits: stages to stride 16, then blocks on 36 tokens."""
    import torch
    from torch import nn

    def conv(i, o, stride=1):
        return nn.Sequential(nn.Conv2d(i, o, 3, stride, 1, bias=False), nn.BatchNorm2d(o), nn.ReLU())

    class Residual(nn.Module):
        def __init__(self, c):
            super().__init__()
            self.a, self.b = conv(c, c), nn.Sequential(nn.Conv2d(c, c, 3, 1, 1, bias=False), nn.BatchNorm2d(c))

        def forward(self, x):
            return x + self.b(self.a(x))

    class Block(nn.Module):
        def __init__(self, dim):
            super().__init__()
            self.norm1, self.norm2 = nn.LayerNorm(dim, eps=1e-6), nn.LayerNorm(dim, eps=1e-6)
            self.qkv, self.proj = nn.Linear(dim, 3 * dim), nn.Linear(dim, dim)
            self.fc1, self.fc2 = nn.Linear(dim, 4 * dim), nn.Linear(4 * dim, dim)

        def forward(self, x):
            b, n, d = x.shape
            q, k, v = self.qkv(self.norm1(x)).reshape(b, n, 3, heads, d // heads).permute(2, 0, 3, 1, 4).unbind(0)
            weights = ((q * (d // heads) ** -0.5) @ k.transpose(-2, -1)).softmax(-1)
            x = x + self.proj((weights @ v).transpose(1, 2).reshape(b, n, d))
            return x + self.fc2(nn.functional.gelu(self.fc1(self.norm2(x))))

    class Hybrid(nn.Module):
        def __init__(self):
            super().__init__()
            a, b, c, dim = widths
            stages = [conv(3, a, 2), conv(a, b, 2), Residual(b), conv(b, c, 2), Residual(c), conv(c, dim, 2), Residual(dim)]
            self.stages = nn.Sequential(*stages, nn.ReLU())
            self.pos_embed = nn.Parameter(torch.randn(1, 36, dim) * 0.02)
            self.blocks = nn.ModuleList(Block(dim) for _ in range(depth))
            self.head = nn.Linear(dim, classes)

        def forward(self, image):
            x = self.stages(image).flatten(2).transpose(1, 2) + self.pos_embed
            for block in self.blocks:
                x = block(x)
            return self.head(x.mean(1))

    return Hybrid()


def networks():
    """Name, network, side of the image."""
    import torch
    import torchvision
    from efficientnet_lite_pytorch import EfficientNet

    torch.manual_seed(0)
    yield "resnet18", torchvision.models.resnet18(), 224
    yield "mobilenet_v2", torchvision.models.mobilenet_v2(), 224
    yield "mobilenet_v3_small", torchvision.models.mobilenet_v3_small(), 224
    yield "mobilenet_v3_large", torchvision.models.mobilenet_v3_large(), 224
    yield "efficientnet_b0", torchvision.models.efficientnet_b0(), 224
    yield "efficientnet_lite0", EfficientNet.from_name("efficientnet-lite0"), 224
    yield "hybrid96", hybrid(), 96


def make(folder):
    import numpy as np
    import onnxruntime as ort
    import torch
    from make import image

    (folder / "graphs").mkdir(parents=True, exist_ok=True)
    rows = {}
    for name, network, side in networks():
        # Statistics of images, without which a deep random network forgets its input.
        pixels = [image(pattern, (4, 3, side, side)) for pattern in range(100, 102)]
        for module in network.modules():
            if isinstance(module, torch.nn.BatchNorm2d):
                module.momentum = None
                torch.nn.init.uniform_(module.weight, 0.5, 1.5)
                torch.nn.init.normal_(module.bias, 0, 0.2)
        with torch.no_grad():
            [network.train()(torch.from_numpy(p / np.float32(128) - np.float32(1))) for p in pixels]
        path = str(folder / "graphs" / f"{name}.onnx")
        names = {"input_names": ["image"], "output_names": ["logits"]}
        torch.onnx.export(network.eval(), (torch.rand(1, 3, side, side),), path, opset_version=17, dynamo=False, **names)
        session = ort.InferenceSession(path, providers=["CPUExecutionProvider"])
        pixels = [image(pattern, (1, 3, side, side)) for pattern in range(PATTERNS)]
        found = [session.run(None, {"image": p / np.float32(128) - np.float32(1)})[0].reshape(-1) for p in pixels]
        answers = [[pattern, [float(f"{x:.9g}") for x in values]] for pattern, values in enumerate(found)]
        rows[name] = {"kernels": True, "engine": None, "answers": answers}
    (folder / "expected.json").write_text(json.dumps(rows))


def latency(path, seconds):
    """Prints ONNX Runtime's median milliseconds."""
    import numpy as np
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    session = ort.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    port = session.get_inputs()[0]
    feed = {port.name: np.random.default_rng(0).normal(size=port.shape).astype(np.float32)}
    times, start = [], time.perf_counter()
    while len(times) < 10 or time.perf_counter() - start < seconds:
        begin = time.perf_counter()
        session.run(None, feed)
        times.append(1e3 * (time.perf_counter() - begin))
    print(json.dumps({"p50_ms": statistics.median(times[2:]), "min_ms": min(times)}))


def measured(command, by, shell=False):
    done = subprocess.run(command, shell=shell, capture_output=True, text=True, check=True)
    return float(json.loads(done.stdout)[by])


def bench(folder, ours, rounds, seconds, names, by):
    for path in sorted((folder / "graphs").glob("*.onnx")):
        if names and path.stem not in names:
            continue
        times = {"onnxruntime": [], "ours": []}
        for _ in range(rounds):
            command = [sys.executable, __file__, "latency", str(path), "--seconds", str(seconds)]
            times["onnxruntime"].append(measured(command, by))
            times["ours"].append(measured(ours.format(model=path), by, shell=True))
        medians = {who: statistics.median(found) for who, found in times.items()}
        pairs = sorted(a / b for a, b in zip(times["onnxruntime"], times["ours"]))
        print(f"{path.stem:20} ONNX Runtime {medians['onnxruntime']:8.3f} ms, ours {medians['ours']:8.3f} ms, "
              f"{statistics.median(pairs):.2f} times as fast (pairs {pairs[0]:.2f} to {pairs[-1]:.2f})", flush=True)


if __name__ == "__main__":
    cli = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    cli.add_argument("action", choices=["make", "bench", "latency"])
    cli.add_argument("path", type=Path)
    cli.add_argument("--ours", default="smalti-run bench {model} --json")
    cli.add_argument("--rounds", type=int, default=5)
    cli.add_argument("--seconds", type=float, default=1.0)
    cli.add_argument("--by", choices=["p50_ms", "min_ms"], default="p50_ms", help="min_ms on a machine with other work")
    cli.add_argument("--models", type=lambda names: names.split(","), default=[])
    args = cli.parse_args()
    if args.action == "make":
        make(args.path)
    elif args.action == "bench":
        bench(args.path, args.ours, args.rounds, args.seconds, args.models, args.by)
    else:
        latency(str(args.path), args.seconds)
