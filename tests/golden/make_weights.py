"""Makes weights/: small checkpoints as timm and Hugging Face save them, and what these programs compute from them.

  python make_weights.py           writes weights/
  python make_weights.py --check   recomputes and compares with the files that are there

All weights are drawn here. README.md lists the files' keys. Needs transformers besides requirements.txt.
"""
import argparse
import json
import sys
import tempfile
from pathlib import Path

import timm
import torch
import transformers
from safetensors.torch import load_file, save_file
from timm.layers import SwiGLU, SwiGLUPacked, resample_abs_pos_embed
from timm.models.beit import Beit
from timm.models.deit import VisionTransformerDistilled
from timm.models.vision_transformer import VisionTransformer
from timm.models.vision_transformer_relpos import VisionTransformerRelPos

HERE = Path(__file__).parent / "weights"
TIMM = dict(img_size=8, patch_size=4, embed_dim=12, depth=2, num_heads=3, num_classes=3)
FACE = dict(image_size=8, patch_size=4, hidden_size=12, num_hidden_layers=2, num_attention_heads=3,
            intermediate_size=48, layer_norm_eps=1e-6)
DINO = {key: value for key, value in FACE.items() if key != "intermediate_size"}
DECODER = dict(decoder_hidden_size=8, decoder_num_hidden_layers=1, decoder_num_attention_heads=2,
               decoder_intermediate_size=32)
REGISTERS = dict(reg_tokens=2, init_values=1e-5)
# Networks of timm with more than a plain vision transformer, and the prefix tokens that have positions.
VARIANTS = {
    "timm_registers": (REGISTERS | {"no_embed_class": True}, 0),
    "timm_placed_registers": (REGISTERS, 3),
    "timm_no_embed_class": ({"no_embed_class": True, "global_pool": "avg"}, 0),
    "timm_qk_norm": ({"qk_norm": True, "mlp_ratio": 2}, 1),
    "timm_swiglu": ({"mlp_layer": SwiGLU, "act_layer": torch.nn.SiLU, "mlp_ratio": 3, "init_values": 1e-5}, 1),
    "timm_swiglu_packed": ({"mlp_layer": SwiGLUPacked, "act_layer": torch.nn.SiLU, "qk_norm": True}, 1),
}
GRIDS = [(2, 3), (3, 2), (4, 8), (8, 4), (7, 14), (14, 16), (16, 14), (5, 1), (1, 3), (12, 7)]


def redraw(model, seed):
    """Weights far from a fresh model's, the same for the same names, exact in float32."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, weight in sorted(model.named_parameters()):
            noise = torch.randn(weight.shape, generator=generator)
            is_scale = "norm" in name and name.endswith("weight")
            weight.copy_(1.0 + 0.2 * noise if is_scale else 0.3 * noise)
    return model.eval()


def saved(model):
    """The tensors that `save_pretrained` writes."""
    with tempfile.TemporaryDirectory() as folder:
        model.save_pretrained(folder)
        return load_file(f"{folder}/model.safetensors")


def embed_timm(model, pixels):
    """What timm's head gets."""
    model = model.double()
    return model.forward_head(model.forward_features(pixels), pre_logits=True)


def embed_face(model, pixels, **options):
    """The class token behind Hugging Face's last norm."""
    return model.double()(pixel_values=pixels, **options).last_hidden_state[:, 0]


def variants(pixels, larger):
    """As `checkpoints`, of networks with more than a plain vision transformer, one block deep."""
    files, expected = {}, {}
    few = TIMM | {"depth": 1}
    for name, (options, prefix) in VARIANTS.items():
        model = redraw(VisionTransformer(**few, **options), 5)
        files[name] = {key: value.clone() for key, value in model.state_dict().items()}
        expected[f"embedding.{name}"] = embed_timm(model, pixels)
        wide = VisionTransformer(**few | {"img_size": 12}, **options).eval()
        positions = resample_abs_pos_embed(files[name]["pos_embed"], [3, 3], num_prefix_tokens=prefix)
        wide.load_state_dict(files[name] | {"pos_embed": positions})
        expected[f"larger.{name}"] = embed_timm(wide, larger)
    model = redraw(VisionTransformerDistilled(**few), 6)
    files["timm_distilled"] = {key: value.clone() for key, value in model.state_dict().items()}
    # timm's own embedding is the mean with the distillation token's.
    expected["embedding.timm_distilled"] = model.double().forward_features(pixels)[:, 0]
    face, dino = FACE | {"num_hidden_layers": 1}, DINO | {"num_hidden_layers": 1}
    faces = {
        "face_dinov2": transformers.Dinov2Model(transformers.Dinov2Config(**dino)),
        "face_swiglu": transformers.Dinov2Model(transformers.Dinov2Config(**dino, use_swiglu_ffn=True)),
        "face_registers": transformers.Dinov2WithRegistersModel(
            transformers.Dinov2WithRegistersConfig(**dino, num_register_tokens=3)),
    }
    for name, model in faces.items():
        files[name] = saved(redraw(model, 7))
        with torch.no_grad():
            for key, images in (("embedding", pixels), ("larger", larger)):
                expected[f"{key}.{name}"] = model.double()(pixel_values=images).pooler_output
    deit = redraw(transformers.DeiTModel(transformers.DeiTConfig(**face)), 8)
    files["face_deit"] = saved(deit)
    expected["embedding.face_deit"] = embed_face(deit, pixels)
    return files, expected


def checkpoints(pixels, larger):
    """({file: tensors}, {key: expected})."""
    files, expected = {}, {}
    for name, options in [("timm_token", {}), ("timm_mean", {"global_pool": "avg"})]:
        model = redraw(VisionTransformer(**TIMM, **options), 1)
        files[name] = {key: value.clone() for key, value in model.state_dict().items()}
        expected[f"embedding.{name}"] = embed_timm(model, pixels)
        wide = VisionTransformer(**TIMM | {"img_size": 12}, **options).eval()
        positions = resample_abs_pos_embed(files[name]["pos_embed"], [3, 3], num_prefix_tokens=1)
        wide.load_state_dict(files[name] | {"pos_embed": positions})
        expected[f"larger.{name}"] = embed_timm(wide, larger)
    model = redraw(transformers.ViTForImageClassification(transformers.ViTConfig(**FACE, num_labels=3)), 2)
    files["face_classifier"] = saved(model)
    files["face_memory"] = {key: value.clone() for key, value in model.state_dict().items()}
    expected["embedding.face_classifier"] = embed_face(model.vit, pixels)
    expected["logits.face_classifier"] = model.double()(pixel_values=pixels).logits
    expected["larger.face_classifier"] = embed_face(model.vit, larger, interpolate_pos_encoding=True)
    model = redraw(transformers.ViTModel(transformers.ViTConfig(**FACE)), 3)
    files["face_model"] = saved(model)
    expected["embedding.face_model"] = embed_face(model, pixels)
    model = redraw(transformers.ViTMAEForPreTraining(transformers.ViTMAEConfig(**FACE, **DECODER, mask_ratio=0.0)), 4)
    files["face_mae"] = saved(model)
    expected["embedding.face_mae"] = embed_face(model.vit, pixels)
    return files, expected


def refused():
    """{network: {tensor: shape}} of networks that Smalti does not compute."""
    few = TIMM | {"depth": 1}
    face = FACE | {"num_hidden_layers": 1}
    nets = {
        "timm-pre-norm": VisionTransformer(**few, pre_norm=True),
        "timm-mlp-norm": VisionTransformer(**few, scale_mlp_norm=True),
        "timm-attention-norm": VisionTransformer(**few, scale_attn_norm=True),
        "timm-attention-pooling": VisionTransformer(**few, global_pool="map"),
        "timm-no-class-token": VisionTransformer(**few, global_pool="avg", class_token=False),
        "timm-no-qkv-bias": VisionTransformer(**few, qkv_bias=False),
        "timm-relative": VisionTransformerRelPos(**few),
        "timm-beit": Beit(**few, use_rel_pos_bias=True),
    }
    found = {name: {key: list(value.shape) for key, value in net.state_dict().items()} for name, net in nets.items()}
    faces = {
        "face-beit": transformers.BeitModel(transformers.BeitConfig(**face, use_relative_position_bias=True)),
        "face-ijepa": transformers.IJepaModel(transformers.IJepaConfig(**face)),
    }
    for name, net in faces.items():
        found[name] = {key: list(value.shape) for key, value in sorted(saved(net).items())}
    return found


def positions(generator):
    """A table for each pair of grids, and timm's resampling of it in float32."""
    tables = {}
    for old, new in GRIDS:
        table = torch.randn(1, 1 + old * old, 3, generator=generator)
        tables[f"positions.{old}"] = tables.get(f"positions.{old}", table)
        tables[f"positions.{old}.{new}"] = resample_abs_pos_embed(tables[f"positions.{old}"], [new, new])
    return tables


def make():
    generator = torch.Generator().manual_seed(7)
    pixels, larger = (torch.randn(2, 3, side, side, generator=generator) for side in (8, 12))
    with torch.no_grad():
        files, expected = checkpoints(pixels.double(), larger.double())
        more = variants(pixels.double(), larger.double())
        files, expected = files | more[0], expected | more[1]
        files["expected"] = {"pixels": pixels, "larger": larger} | expected | positions(generator)
    files = {name: {key: value.float().contiguous() for key, value in tensors.items()} for name, tensors in files.items()}
    return files, refused()


def differences(files, names):
    """What is not as in the files."""
    if json.loads((HERE / "refused.json").read_text()) != names:
        yield "refused.json"
    for name, tensors in files.items():
        there = load_file(HERE / f"{name}.safetensors")
        if set(there) != set(tensors):
            yield f"{name}: {sorted(set(there) ^ set(tensors))}"
            continue
        for key, value in tensors.items():
            if there[key].shape != value.shape or (there[key] - value).abs().max() > 1e-6:
                yield f"{name}: {key}"


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="compare with the files that are there")
    check = parser.parse_args().check
    print(f"torch {torch.__version__}, timm {timm.__version__}, transformers {transformers.__version__}")
    files, names = make()
    if check:
        wrong = list(differences(files, names))
        print("\n".join(wrong) if wrong else "all as made")
        return 1 if wrong else 0
    HERE.mkdir(exist_ok=True)
    for name, tensors in files.items():
        save_file(tensors, HERE / f"{name}.safetensors", metadata={"format": "pt"})
    lines = [f"{json.dumps(name)}: {json.dumps(shapes)}" for name, shapes in sorted(names.items())]
    (HERE / "refused.json").write_text("{\n" + ",\n".join(lines) + "\n}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
