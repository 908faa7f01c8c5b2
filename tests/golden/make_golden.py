"""Makes the golden files: what PyTorch computes from given weights, images, masks and targets.

  python make_golden.py           writes *.safetensors and golden.json beside this script
  python make_golden.py --check   recomputes and compares with the files that are there

Weights and inputs are float32 values; everything computed from them is computed in float64, so a golden value is
right to its last stored digit, and a reader's difference from it is the reader's own. The table on standard output
shows how far PyTorch's own float32 is from it: a tolerance below that is too tight. README.md lists the files' keys.
"""
import argparse
import json
import math
from pathlib import Path

import timm
import torch
from safetensors.torch import load_file, save_file

import nets

HERE = Path(__file__).parent
STEPS = 10
ADAMW_EPS = 1e-8
WEIGHT_DECAY = 0.3  # several times the usual: decay on a wrong tensor moves ten losses by more than 1e-4

MAE = {
    "encoder": {"img-size": 16, "patch-size": 4, "channels": 3, "dim": 12, "depth": 2, "heads": 3},
    "decoder": {"dim": 8, "depth": 1, "heads": 2},
    "batch": 4,
    "visible": 4,
    "lr": 2e-3,
    "betas": [0.9, 0.95],
    "weight-decay": WEIGHT_DECAY,
}
COLOUR = {"img-size": 12, "patch-size": 4, "channels": 3, "dim": 12, "depth": 2, "heads": 3}
HYBRID = {"img-size": 32, "patch-size": 16, "channels": 3, "dim": 16, "depth": 1, "heads": 2, "stem": "convolutions"}
GREY = {"img-size": 8, "patch-size": 2, "channels": 1, "dim": 12, "depth": 2, "heads": 2}
COMMON = {
    "classes": 5,
    "batch": 4,
    "smoothing": 0.1,
    "lr": 4e-3,
    "betas": [0.9, 0.999],
    "weight-decay": WEIGHT_DECAY,
    "layer-decay": 0.75,
    "clip": None,
    "drop-path": 0.0,
    "kept": None,
}
FINETUNE = {
    "finetune_token": COMMON | {"encoder": COLOUR, "pool": "token", "final": True},
    "finetune_mean": COMMON | {"encoder": COLOUR | {"depth": 1}, "pool": "mean"},
    "finetune_drop_path": COMMON | {"encoder": GREY, "pool": "mean", "drop-path": 0.4, "clip": 1.0},
    "finetune_drop_tokens": COMMON | {"encoder": GREY | {"depth": 1}, "pool": "mean", "kept": 11},
    "finetune_hybrid": COMMON | {"encoder": HYBRID, "pool": "mean"},
}


def draw_weights(shapes, generator, grid, free_positions):
    """Weights far from a fresh model's, so that every path carries signal: no zero bias, no tiny head, no unit norm."""
    weights = {}
    for name, shape in shapes.items():
        noise = torch.randn(shape, generator=generator)
        if name.endswith("pos_embed") and shape[1] == grid**2:
            noise = 0.1 * noise
        elif name.endswith("pos_embed"):
            noise = nets.sincos_positions(shape[2], grid).float() + (0.1 * noise if free_positions else 0.0)
        elif name.endswith("token"):
            noise = 0.3 * noise
        elif len(shape) > 1:
            noise = noise * math.prod(shape[1:]) ** -0.5
        elif ("norm" in name or ".bn." in name) and name.endswith("weight"):
            noise = 1.0 + 0.2 * noise
        else:
            noise = 0.1 * noise
        weights[name] = noise
    return weights


def draw_order(generator, rows, patches, visible):
    """(noise [rows, L], kept [rows, V]): the patches of smallest noise, in its order."""
    noise = torch.rand(rows, patches, generator=generator)
    return noise, noise.argsort(dim=1, stable=True)[:, :visible]


def decays(name, weight):
    return weight.dim() > 1 and name.endswith("weight")


def layer_of(name, depth, hybrid):
    """0 the embedding, i + 1 block i, depth + 1 the rest; layer-wise decay's exponent counts down from the last.

    In a hybrid i is stage i, then 4 + i block i.
    """
    first = 4 if hybrid else 1
    if name.startswith("stages."):
        return int(name.split(".")[1])
    if name == "pos_embed" and hybrid:
        return 3
    if name in ("cls_token", "pos_embed") or name.startswith("patch_embed"):
        return 0
    return int(name.split(".")[1]) + first if name.startswith("blocks.") else depth + first


def optimizer(case, weights):
    depth, layer_decay = case["encoder"]["depth"], case.get("layer-decay", 1.0)
    hybrid = nets.is_hybrid(case["encoder"])
    last = layer_of("head.weight", depth, hybrid)
    groups = [
        {
            "params": [weight],
            "lr": case["lr"] * layer_decay ** (last - layer_of(name, depth, hybrid)),
            "weight_decay": case["weight-decay"] if decays(name, weight) else 0.0,
        }
        for name, weight in weights.items()
        if weight.requires_grad
    ]
    return torch.optim.AdamW(groups, betas=tuple(case["betas"]), eps=ADAMW_EPS)


def gradients(weights):
    return {name: weight.grad.clone() for name, weight in weights.items() if weight.requires_grad}


def trainable(weights, dtype, fixed=()):
    return {name: weight.to(dtype).clone().requires_grad_(name not in fixed) for name, weight in weights.items()}


def train(case, weights, loss_of):
    """(losses, gradient norms before clipping, first gradients) of STEPS steps; `loss_of(step)` gives a step's loss."""
    adamw, losses, norms, first = optimizer(case, weights), [], [], None
    learned = [weight for weight in weights.values() if weight.requires_grad]
    for step in range(STEPS):
        adamw.zero_grad()
        loss = loss_of(step)
        loss.backward()
        first = first or gradients(weights)
        limit = case.get("clip") or float("inf")
        norms.append(torch.nn.utils.clip_grad_norm_(learned, limit).item())
        losses.append(loss.item())
        adamw.step()
    return losses, norms, first


def mae_inputs(case, generator):
    vit, batch = case["encoder"], case["batch"]
    side, patches = vit["img-size"], (vit["img-size"] // vit["patch-size"]) ** 2
    pixels = torch.randn(batch, vit["channels"], side, side, generator=generator)
    noise, kept = draw_order(generator, STEPS * batch, patches, case["visible"])
    shape = (STEPS, batch, -1)
    noise, kept = noise.reshape(shape), kept.reshape(shape)
    # One nearly flat patch that step 0 hides: its deviation is that of epsilon's root, so epsilon's place shows.
    hidden = nets.hidden_mask(kept[0], patches)[0].nonzero()[0].item()
    row, column = divmod(hidden, side // vit["patch-size"])
    place = [slice(at * vit["patch-size"], (at + 1) * vit["patch-size"]) for at in (row, column)]
    pixels[0, :, place[0], place[1]] = 0.02 + 1e-3 * pixels[0, :, place[0], place[1]]
    return {"pixels": pixels, "noise": noise, "kept": kept, "mask": nets.hidden_mask(kept[0], patches)}


def mae_results(case, weights, inputs, dtype):
    vit, decoder, pixels = case["encoder"], case["decoder"], inputs["pixels"].to(dtype)
    fixed = ("pos_embed", "decoder_pos_embed")
    w = trainable(weights, dtype, fixed)
    raw, _ = nets.mae(w, vit, decoder, pixels, inputs["kept"][0], False)
    raw.backward()
    raw_grads = gradients(w)
    w = trainable(weights, dtype, fixed)
    _, pred = nets.mae(w, vit, decoder, pixels, inputs["kept"][0], True)
    losses, norms, grads = train(case, w, lambda i: nets.mae(w, vit, decoder, pixels, inputs["kept"][i], True)[0])
    scalars = {"loss": losses[0], "loss-raw": raw.item(), "losses": losses, "grad-norms": norms}
    tensors = {"pred": pred.detach()}
    tensors |= {f"grads.{name}": grad for name, grad in grads.items()}
    tensors |= {f"grads_raw.{name}": grad for name, grad in raw_grads.items()}
    return scalars, tensors


def finetune_inputs(case, generator):
    vit, batch, classes = case["encoder"], case["batch"], case["classes"]
    side, patches = vit["img-size"], (vit["img-size"] // vit["patch-size"]) ** 2
    first, second = torch.tensor([0, 3, 1, 4]), torch.tensor([2, 3, 4, 0])
    share = torch.tensor([0.3, 1.0, 0.75, 0.5])[:, None]  # as mixup leaves them; the second row has one class
    one_hot = torch.eye(classes)
    inputs = {
        "pixels": torch.randn(batch, vit["channels"], side, side, generator=generator),
        "labels": share * one_hot[first] + (1 - share) * one_hot[second],
    }
    if case["drop-path"]:
        rate = torch.linspace(0, case["drop-path"], vit["depth"])[None, :, None, None]
        chance = torch.rand(STEPS, vit["depth"], 2, batch, generator=generator)
        # Step 0 drops one sample a branch of the last block, so that its gradients miss no tensor.
        chance[0, -1] = torch.tensor([[0.0, 1.0, 1.0, 1.0], [1.0, 1.0, 0.0, 1.0]])
        inputs["keep"] = (chance >= rate).float() / (1 - rate)
    if case["kept"]:
        inputs["noise"], inputs["kept"] = draw_order(generator, STEPS * batch, patches, case["kept"])
        inputs = inputs | {key: inputs[key].reshape(STEPS, batch, -1) for key in ("noise", "kept")}
    return inputs


def finetune_results(case, weights, inputs, dtype):
    vit, pool, pixels, smoothing = case["encoder"], case["pool"], inputs["pixels"].to(dtype), case["smoothing"]
    targets = inputs["labels"].to(dtype) * (1 - smoothing) + smoothing / case["classes"]
    w = trainable(weights, dtype)

    def forward(step):
        extras = [inputs[key][step] if key in inputs else None for key in ("kept", "keep")]
        return nets.classify(w, vit, pool, pixels, *extras)

    tensors = dict(zip(("embedding", "logits"), (value.detach() for value in forward(0))))
    losses, norms, grads = train(case, w, lambda step: nets.soft_cross_entropy(forward(step)[1], targets))
    tensors |= {f"grads.{name}": grad for name, grad in grads.items()}
    if nets.is_hybrid(vit):
        running = {}
        nets.classify_hybrid(trainable(weights, dtype), vit, pixels, running)
        tensors |= {f"running.{name}": value.detach() for name, value in running.items()}
    if case.get("final"):
        tensors |= {f"final.{name}": weight.detach() for name, weight in w.items()}
    return {"loss": losses[0], "losses": losses, "grad-norms": norms}, tensors


def agrees_with_timm(case, weights, pixels):
    """That the classifier here is timm's, names and numbers, in float64."""
    vit = case["encoder"]
    model = timm.models.VisionTransformer(
        img_size=vit["img-size"],
        patch_size=vit["patch-size"],
        in_chans=vit["channels"],
        num_classes=case["classes"],
        embed_dim=vit["dim"],
        depth=vit["depth"],
        num_heads=vit["heads"],
        global_pool={"token": "token", "mean": "avg"}[case["pool"]],
    ).double()
    model.load_state_dict({name: weight.double() for name, weight in weights.items()}, strict=True)
    model.eval()
    w = {name: weight.double() for name, weight in weights.items()}
    difference = (model(pixels.double()) - nets.classify(w, vit, case["pool"], pixels.double())[1]).abs().max().item()
    assert difference < 1e-12, f"logits differ from timm's by {difference}"


def distance(found, wanted):
    """Of two tensors, relative to the length of the wanted one."""
    found, wanted = found.double(), wanted.double()
    return ((found - wanted).norm() / wanted.norm()).item()


def float32_distance(scalars, tensors, rounded_scalars, rounded_tensors):
    """In words, how far PyTorch's float32 is from the golden values."""
    steps = max(abs(a - b) for a, b in zip(scalars["losses"], rounded_scalars["losses"]))
    grads = [name for name in tensors if name.startswith("grads")]
    worst = max((distance(rounded_tensors[name], tensors[name]), name) for name in grads)
    loss = abs(scalars["loss"] - rounded_scalars["loss"])
    return f"loss {loss:.1e}  steps {steps:.1e}  gradient {worst[0]:.1e} ({worst[1]})"


def make(name, case, seed):
    """(scalars, tensors) of one case, everything that its files hold."""
    generator = torch.Generator().manual_seed(seed)
    vit = case["encoder"]
    grid = vit["img-size"] // vit["patch-size"]
    if "decoder" in case:
        weights = draw_weights(nets.mae_shapes(vit, case["decoder"]), generator, grid, False)
        inputs, results = mae_inputs(case, generator), mae_results
    else:
        weights = draw_weights(nets.classifier_shapes(vit, case["classes"], case["pool"]), generator, grid, True)
        inputs, results = finetune_inputs(case, generator), finetune_results
        if not nets.is_hybrid(vit):
            agrees_with_timm(case, weights, inputs["pixels"])
    scalars, tensors = results(case, weights, inputs, torch.float64)
    far = float32_distance(scalars, tensors, *results(case, weights, inputs, torch.float32))
    print(f"{name}: losses {scalars['losses'][0]:.4f} to {scalars['losses'][-1]:.4f}; float32's distance: {far}")
    smallest, where = min((value.norm().item(), key) for key, value in tensors.items() if key.startswith("grads"))
    assert smallest > 1e-3, f"{name}: {where} carries too little signal"
    stored = {f"weights.{key}": value for key, value in weights.items()} | inputs | tensors
    narrow = {torch.int64: torch.int32, torch.float64: torch.float32}
    stored = {key: value.to(narrow.get(value.dtype, value.dtype)).contiguous() for key, value in stored.items()}
    return case | {"eps": ADAMW_EPS, "steps": STEPS} | scalars, stored


def check(name, scalars, tensors, wanted):
    """That the files beside this script hold what was just computed."""
    found = load_file(HERE / f"{name}.safetensors")
    assert found.keys() == tensors.keys(), f"{name}.safetensors has other keys"
    for key, value in tensors.items():
        close = torch.allclose(found[key].double(), value.double(), rtol=1e-6, atol=1e-8)
        assert close, f"{name}.safetensors: {key} differs"
    for key, value in scalars.items():
        same = wanted[key] == value
        if isinstance(value, float) or key in ("losses", "grad-norms"):
            same = torch.allclose(torch.tensor(wanted[key]), torch.tensor(value), rtol=1e-9)
        assert same, f"golden.json: {name}.{key} differs"


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="compare with the committed files instead of writing")
    args = parser.parse_args()
    torch.set_num_threads(1)
    record = HERE / "golden.json"
    wanted, made = json.loads(record.read_text()) if args.check else {}, {}
    for seed, (name, case) in enumerate(({"mae": MAE} | FINETUNE).items()):
        made[name], tensors = make(name, case, seed)
        if args.check:
            check(name, made[name], tensors, wanted[name])
        else:
            save_file(tensors, HERE / f"{name}.safetensors")
    if not args.check:
        record.write_text(json.dumps(made, indent=1) + "\n")


if __name__ == "__main__":
    main()
