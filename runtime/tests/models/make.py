"""Makes the model files of this folder, the images beside them and expected.json (logits from ONNX Runtime).

    python make.py

Needs torch, timm, onnx, onnxscript, onnxruntime, numpy and pillow. Everything is tiny (width 8) so that the
files stay in kilobytes; the graphs are what full-size exports look like.

- colours_u8, colours_f32: a trained classifier of reddish, greenish and bluish images in the form that
  Smalti's exporter writes, with its metadata; colours_qdq: the same in ONNX Runtime's static int8.
- the others: random weights, exported by PyTorch from plain PyTorch and timm models.
"""
import hashlib
import json
import os
import sys

import numpy as np
import onnx
import onnxruntime as ort
import timm.models.deit
import timm.models.vision_transformer as timm_vit
import torch
import torch.nn as nn
import torch.nn.functional as F
from onnx import TensorProto, helper, numpy_helper
from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static
from PIL import Image

HERE = os.path.dirname(os.path.abspath(__file__))
SIDE, PATCH, DIM, DEPTH, HEADS = 8, 4, 8, 1, 2
NAMES = ["red", "green", "blue"]
MEAN, STD = [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]
MASK = (1 << 64) - 1


def path(name):
    return os.path.join(HERE, name)


class Attention(nn.Module):
    def __init__(self):
        super().__init__()
        self.qkv, self.proj = nn.Linear(DIM, 3 * DIM), nn.Linear(DIM, DIM)

    def forward(self, x):
        b, n, d = x.shape
        q, k, v = self.qkv(x).reshape(b, n, 3, HEADS, d // HEADS).permute(2, 0, 3, 1, 4).unbind(0)
        weights = ((q * (d // HEADS) ** -0.5) @ k.transpose(-2, -1)).softmax(-1)
        return self.proj((weights @ v).transpose(1, 2).reshape(b, n, d))


class Block(nn.Module):
    def __init__(self):
        super().__init__()
        self.norm1, self.attn = nn.LayerNorm(DIM, eps=1e-6), Attention()
        self.norm2 = nn.LayerNorm(DIM, eps=1e-6)
        self.fc1, self.fc2 = nn.Linear(DIM, 4 * DIM), nn.Linear(4 * DIM, DIM)

    def forward(self, x):
        x = x + self.attn(self.norm1(x))
        return x + self.fc2(F.gelu(self.fc1(self.norm2(x))))


class ViT(nn.Module):
    """timm's arithmetic with mean pooling over the patches and a norm behind it."""

    def __init__(self):
        super().__init__()
        self.patch_embed = nn.Conv2d(3, DIM, PATCH, PATCH)
        self.cls_token = nn.Parameter(torch.randn(1, 1, DIM) * 0.02)
        self.pos_embed = nn.Parameter(torch.randn(1, (SIDE // PATCH) ** 2 + 1, DIM) * 0.02)
        self.blocks = nn.ModuleList(Block() for _ in range(DEPTH))
        self.fc_norm, self.head = nn.LayerNorm(DIM, eps=1e-6), nn.Linear(DIM, len(NAMES))

    def forward(self, image):
        x = self.patch_embed(image).flatten(2).transpose(1, 2)
        x = torch.cat([self.cls_token.expand(x.shape[0], -1, -1), x], 1) + self.pos_embed
        for block in self.blocks:
            x = block(x)
        return self.head(self.fc_norm(x[:, 1:].mean(1)))


def colours(count, rng):
    """Images of one noisy colour on a grey ground; u8 [count, SIDE, SIDE, 3] and labels."""
    labels = rng.integers(0, 3, count)
    pixels = rng.integers(40, 160, (count, 1, 1, 1)) + rng.integers(-30, 31, (count, SIDE, SIDE, 3))
    pixels[np.arange(count), :, :, labels] += rng.integers(50, 90, (count, 1, 1))
    return pixels.clip(0, 255).astype(np.uint8), labels


def normalise(pixels):
    floats = (pixels.astype(np.float32) / 255 - np.float32(MEAN)) / np.float32(STD)
    return np.ascontiguousarray(floats.transpose(0, 3, 1, 2).astype(np.float32))


def train():
    torch.manual_seed(0)
    rng = np.random.default_rng(0)
    model = ViT()
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    for _ in range(300):
        pixels, labels = colours(64, rng)
        loss = F.cross_entropy(model(torch.from_numpy(normalise(pixels))), torch.from_numpy(labels))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    pixels, labels = colours(1000, rng)
    accuracy = (model(torch.from_numpy(normalise(pixels))).argmax(1).numpy() == labels).mean()
    print("accuracy on fresh colours:", accuracy)
    assert accuracy > 0.97
    return model.eval()


class Graph:
    """Nodes and weights under construction."""

    def __init__(self):
        self.nodes, self.weights = [], []

    def op(self, kind, inputs, name, outputs=1, **attributes):
        names = [name] if outputs == 1 else [f"{name}_{i}" for i in range(outputs)]
        self.nodes.append(helper.make_node(kind, inputs, names, name=name, **attributes))
        return name if outputs == 1 else names

    def const(self, name, array):
        array = array.detach().numpy() if isinstance(array, torch.Tensor) else array
        self.weights.append(numpy_helper.from_array(np.ascontiguousarray(array), name))
        return name

    def ints(self, name, values):
        return self.const(name, np.array(values, np.int64))

    def linear(self, x, layer, name):
        weight = self.const(f"{name}.weight", layer.weight.T)
        return self.op("Add", [self.op("MatMul", [x, weight], f"{name}/MatMul"), self.const(f"{name}.bias", layer.bias)], name)

    def norm(self, x, layer, name):
        inputs = [x, self.const(f"{name}.weight", layer.weight), self.const(f"{name}.bias", layer.bias)]
        return self.op("LayerNormalization", inputs, name, axis=-1, epsilon=1e-6)

    def attention(self, x, layer, name, tokens):
        qkv = self.linear(x, layer.qkv, f"{name}.qkv")
        split = self.ints(f"{name}.split", [1, tokens, 3, HEADS, DIM // HEADS])
        qkv = self.op("Transpose", [self.op("Reshape", [qkv, split], f"{name}/heads")], f"{name}/order", perm=[2, 0, 3, 1, 4])
        q, k, v = self.op("Split", [qkv], f"{name}/split", outputs=3, axis=0)
        axis = self.ints(f"{name}.axis", [0])
        q, k, v = (self.op("Squeeze", [part, axis], f"{name}/{letter}") for part, letter in zip((q, k, v), "qkv"))
        q = self.op("Mul", [q, self.const(f"{name}.scale", np.float32((DIM // HEADS) ** -0.5))], f"{name}/scaled")
        k = self.op("Transpose", [k], f"{name}/kT", perm=[0, 1, 3, 2])
        scores = self.op("Softmax", [self.op("MatMul", [q, k], f"{name}/scores")], f"{name}/softmax", axis=-1)
        mixed = self.op("Transpose", [self.op("MatMul", [scores, v], f"{name}/mixed")], f"{name}/back", perm=[0, 2, 1, 3])
        mixed = self.op("Reshape", [mixed, self.ints(f"{name}.join", [1, tokens, DIM])], f"{name}/joined")
        return self.linear(mixed, layer.proj, f"{name}.proj")

    def gelu(self, x, name):
        e = self.op("Erf", [self.op("Div", [x, self.const(f"{name}.root2", np.float32(2**0.5))], f"{name}/Div")], f"{name}/Erf")
        e = self.op("Add", [e, self.const(f"{name}.one", np.float32(1))], f"{name}/Add")
        e = self.op("Mul", [x, e], f"{name}/Mul")
        return self.op("Mul", [e, self.const(f"{name}.half", np.float32(0.5))], name)

    def block(self, x, layer, name, tokens):
        x = self.op("Add", [x, self.attention(self.norm(x, layer.norm1, f"{name}.norm1"), layer.attn, f"{name}.attn", tokens)], f"{name}/residual1")
        hidden = self.gelu(self.linear(self.norm(x, layer.norm2, f"{name}.norm2"), layer.fc1, f"{name}.mlp.fc1"), f"{name}.mlp.gelu")
        return self.op("Add", [x, self.linear(hidden, layer.fc2, f"{name}.mlp.fc2")], f"{name}/residual2")


def exporter_form(model, pixels_in):
    """The graph as Smalti's exporter writes it, without metadata."""
    g, tokens = Graph(), (SIDE // PATCH) ** 2 + 1
    weight, bias = model.patch_embed.weight.detach(), model.patch_embed.bias.detach()
    x = "image"
    if pixels_in:
        mean, std = torch.tensor(MEAN), torch.tensor(STD)
        bias = bias - (weight * (mean / std)[None, :, None, None]).sum((1, 2, 3))
        weight = weight / (255 * std)[None, :, None, None]
        x = g.op("Transpose", [g.op("Cast", [x], "floats", to=TensorProto.FLOAT)], "planes", perm=[0, 3, 1, 2])
    conv = [x, g.const("patch_embed.proj.weight", weight), g.const("patch_embed.proj.bias", bias)]
    x = g.op("Conv", conv, "patch_embed", kernel_shape=[PATCH, PATCH], strides=[PATCH, PATCH])
    x = g.op("Reshape", [x, g.ints("patches.shape", [1, DIM, tokens - 1])], "patches")
    x = g.op("Concat", [g.const("cls_token", model.cls_token), g.op("Transpose", [x], "tokens", perm=[0, 2, 1])], "with_class", axis=1)
    x = g.op("Add", [x, g.const("pos_embed", model.pos_embed)], "with_positions")
    for i, block in enumerate(model.blocks):
        x = g.block(x, block, f"blocks.{i}", tokens)
    ranges = [g.ints(f"pool.{name}", [value]) for name, value in (("from", 1), ("to", tokens), ("axis", 1))]
    x = g.op("ReduceMean", [g.op("Slice", [x, *ranges], "pool/patches")], "pool", axes=[1], keepdims=0)
    x = g.op("Identity", [g.norm(x, model.fc_norm, "fc_norm")], "embedding")
    head = [x, g.const("head.weight", model.head.weight), g.const("head.bias", model.head.bias)]
    g.op("Gemm", head, "logits", transB=1)
    kind, shape = (TensorProto.UINT8, [1, SIDE, SIDE, 3]) if pixels_in else (TensorProto.FLOAT, [1, 3, SIDE, SIDE])
    outputs = [("embedding", DIM), ("logits", len(NAMES))]
    graph = helper.make_graph(
        g.nodes,
        "smalti",
        [helper.make_tensor_value_info("image", kind, shape)],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, size]) for name, size in outputs],
        g.weights,
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8, producer_name="smalti")


def mix(x):
    """SplitMix64, as the contract's test images use it."""
    x = (x + 0x9E3779B97F4A7C15) & MASK
    x = ((x ^ (x >> 30)) * 0xBF58476D1CE4E5B9) & MASK
    x = ((x ^ (x >> 27)) * 0x94D049BB133111EB) & MASK
    return x ^ (x >> 31)


def golden_image(pattern):
    data, base = np.zeros((SIDE, SIDE, 3), np.uint8), mix(pattern)
    for y in range(SIDE):
        for x in range(SIDE):
            for channel in range(3):
                seed = mix(base ^ channel)
                across, down = 1 + seed % 4, 1 + (seed >> 8) % 4
                phase = (256 * (x * across + y * down) // SIDE + (seed >> 16)) % 256
                wave = phase if phase < 128 else 255 - phase
                size = -(-SIDE // 8)
                block = mix(seed ^ mix((x // size) << 32 | (y // size))) % 96
                noise = mix(seed ^ mix(~(x << 32 | y) & MASK)) % 32
                data[y, x, channel] = wave + block + noise
    return data


def session(name):
    """ONNX Runtime on the graph as it stands: its fused int8 products saturate on processors without VNNI."""
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.log_severity_level = 3
    return ort.InferenceSession(path(name), options, providers=["CPUExecutionProvider"])


def logits_of(name, feed):
    return session(name).run(["logits"], {"image": feed})[0]


def weights_digest(model):
    digest = hashlib.sha256()
    for tensor in model.graph.initializer:
        digest.update(tensor.name.encode() + b"\0" + len(tensor.raw_data).to_bytes(8, "little") + tensor.raw_data)
    return digest.hexdigest()


def add_record(model, name, pixels_in):
    onnx.save(model, path(name))
    golden = []
    for pattern in range(2):
        image = golden_image(pattern)
        feed = image[None] if pixels_in else normalise(image[None])
        golden.append({"pattern": pattern, "sha256": hashlib.sha256(image.tobytes()).hexdigest(), "logits": logits_of(name, feed)[0].tolist()})
    preprocessor = {
        "image_processor_type": "ViTImageProcessor", "do_convert_rgb": True, "do_resize": True, "do_rescale": True, "do_normalize": True, "rescale_factor": 1 / 255,
        "resample": 3, "size": {"height": SIDE, "width": SIDE}, "image_mean": MEAN, "image_std": STD,
    }
    record = {
        "names": "{0: 'red', 1: 'green', 2: 'blue'}", "imgsz": f"[{SIDE}, {SIDE}]", "task": "classify",
        "description": "Tells reddish, greenish and bluish images apart", "license": "MIT OR Apache-2.0", "version": "1",
        "preprocessor_config": json.dumps(preprocessor), "golden": json.dumps(golden), "training": "{}",
        "sha256.weights": weights_digest(model),
    }
    helper.set_model_props(model, record)
    onnx.checker.check_model(model, full_check=True)
    onnx.save(model, path(name))


class Samples(CalibrationDataReader):
    def __init__(self):
        pixels, _ = colours(64, np.random.default_rng(1))
        self.feeds = iter([{"image": one} for one in np.split(normalise(pixels), len(pixels))])

    def get_next(self):
        return next(self.feeds, None)


class Encoder(nn.Module):
    """A vision transformer around PyTorch's own nn.TransformerEncoder."""

    def __init__(self):
        super().__init__()
        self.patch_embed = nn.Conv2d(3, DIM, PATCH, PATCH)
        self.cls_token, self.pos_embed = nn.Parameter(torch.randn(1, 1, DIM)), nn.Parameter(torch.randn(1, 5, DIM))
        layer = nn.TransformerEncoderLayer(DIM, HEADS, 4 * DIM, 0.0, "gelu", batch_first=True, norm_first=True)
        self.encoder = nn.TransformerEncoder(layer, DEPTH, enable_nested_tensor=False)
        self.head = nn.Linear(DIM, 5)

    def forward(self, image):
        x = self.patch_embed(image).flatten(2).transpose(1, 2)
        x = torch.cat([self.cls_token.expand(x.shape[0], -1, -1), x], 1) + self.pos_embed
        return self.head(self.encoder(x)[:, 0])


def foreign():
    sizes = dict(img_size=SIDE, patch_size=PATCH, embed_dim=DIM, depth=DEPTH, num_heads=HEADS, num_classes=5)
    vit = lambda **options: timm_vit.VisionTransformer(**sizes, **options)
    yield "torch_vit", lambda: ViT(), False
    yield "torch_encoder", lambda: Encoder(), False
    yield "torch_encoder_dynamo", lambda: Encoder(), True
    yield "timm_vit", lambda: vit(), False
    yield "timm_vit_dynamo", lambda: vit(), True
    yield "timm_mean_dynamo", lambda: vit(global_pool="avg", qkv_bias=False), True
    yield "timm_tanh", lambda: vit(act_layer="gelu_tanh", init_values=0.1, class_token=False, global_pool="avg"), False
    yield "deit_distilled", lambda: timm.models.deit.VisionTransformerDistilled(**sizes), False
    yield "deit_distilled_dynamo", lambda: timm.models.deit.VisionTransformerDistilled(**sizes), True


def ramp():
    """The image for models without preprocessing, as the tests make it."""
    flat = np.arange(3 * SIDE * SIDE) * 73 + 19
    return (flat % 256 / np.float32(128) - 1).astype(np.float32).reshape(1, 3, SIDE, SIDE)


def strip(name):
    """Leaves out texts that only say where the exporter ran."""
    model = onnx.load(path(name))
    model.graph.doc_string = model.doc_string = ""
    for holder in [*model.graph.node, *model.graph.value_info, *model.graph.input, *model.graph.output]:
        holder.doc_string = ""
        del holder.metadata_props[:]
    del model.metadata_props[:]
    del model.graph.metadata_props[:]
    onnx.checker.check_model(model, full_check=True)
    onnx.save(model, path(name))


def export_foreign():
    for name, build, dynamo in foreign():
        torch.manual_seed(1)
        options = dict(opset_version=17, input_names=["image"], output_names=["logits"], dynamo=dynamo)
        if dynamo:
            options["external_data"] = False
        model = build().eval()
        if name.startswith("deit"):  # its heads start at zero
            nn.init.normal_(model.head.weight), nn.init.normal_(model.head_dist.weight)
        elif name.startswith("timm"):
            nn.init.normal_(model.head.weight)
        torch.onnx.export(model, (torch.randn(1, 3, SIDE, SIDE),), path(f"{name}.onnx"), **options)
        strip(f"{name}.onnx")
        yield name


def main():
    model = train()
    for name, pixels_in in (("colours_u8.onnx", True), ("colours_f32.onnx", False)):
        add_record(exporter_form(model, pixels_in), name, pixels_in)
    quantize_static(path("colours_f32.onnx"), path("colours_qdq.onnx"), Samples(), quant_format=QuantFormat.QDQ, activation_type=QuantType.QUInt8, weight_type=QuantType.QInt8, per_channel=True)
    strip("colours_qdq.onnx")
    names = ["colours_f32", "colours_qdq", *export_foreign()]
    expected = {name: logits_of(f"{name}.onnx", ramp())[0].tolist() for name in names}
    for i, colour in enumerate(NAMES):
        pixels = np.full((12, 20, 3), 90, np.uint8)
        pixels[2:, 3:, i] += 90
        Image.fromarray(pixels).save(path(f"{colour}.png"))
    with open(path("expected.json"), "w") as file:
        json.dump(expected, file, indent=1)
        file.write("\n")


if __name__ == "__main__":
    sys.exit(main())
