"""The families of models that `table.py` exports: small configurations with random weights that show a wrong answer.

Each is a function of no argument that builds a module for `float32 [1, 3, side, side]` images and ten classes (or an
embedding), registered under its name with what it is: `vit` (tokens of one resolution through blocks of attention),
`stages` (transformers and mixers with several resolutions), `cnn`.
"""
from dataclasses import dataclass
from typing import Callable

import timm
import torch
import torchvision
import transformers
from torch import nn

CLASSES = 10


@dataclass(frozen=True)
class Family:
    name: str
    kind: str
    side: int
    build: Callable[[], nn.Module]


FAMILIES: dict[str, Family] = {}


def family(name, kind, side, build):
    assert name not in FAMILIES, name
    FAMILIES[name] = Family(name, kind, side, build)


# ---------------------------------------------------------------- timm

VIT = dict(img_size=32, patch_size=8, depth=2, embed_dim=64, num_heads=2)


def of_timm(kind, name, side=32, **config):
    family(f"timm/{name}", kind, side, lambda: timm.create_model(name, num_classes=CLASSES, **config))


for name in [
    "vit_tiny_patch16_224",
    "deit_tiny_patch16_224",
    "deit_tiny_distilled_patch16_224",
    "deit3_small_patch16_224",
    "vit_base_patch16_clip_224",
    "vit_base_patch16_clip_quickgelu_224",
    "vit_base_patch16_siglip_224",
    "vit_base_patch16_siglip_gap_224",
    "vit_betwixt_patch16_reg4_gap_256",
    "vit_little_patch16_reg4_gap_256",
    "vit_relpos_small_patch16_224",
    "vit_srelpos_small_patch16_224",
    "vit_base_patch16_rpn_224",
    "vit_small_patch16_36x1_224",
    "vit_small_patch16_18x2_224",
    "vit_intern300m_patch14_448",
    "eva02_tiny_patch14_224",
    "vit_small_patch16_rope_224",
    "vit_small_patch16_rope_mixed_224",
    "vit_pe_core_tiny_patch16_384",
    "beit_base_patch16_224",
    "beitv2_base_patch16_224",
    "eva_giant_patch14_224",
    "aimv2_large_patch14_224",
    "convit_tiny",
]:
    of_timm("vit", name, **VIT)
of_timm("vit", "vit_small_patch14_dinov2", **VIT)
of_timm("vit", "vit_giant_patch14_dinov2", **VIT, mlp_ratio=4)
of_timm("vit", "vit_small_patch14_reg4_dinov2", **VIT)
of_timm("vit", "vit_small_patch16_dinov3", **VIT)
of_timm("vit", "vit_small_plus_patch16_dinov3", **VIT)
of_timm("vit", "flexivit_small", **VIT)
of_timm("vit", "cait_xxs24_224", **VIT)
of_timm("vit", "xcit_nano_12_p16_224", img_size=32, depth=2, embed_dim=32, num_heads=2)
of_timm("vit", "vit_tiny_r_s16_p8_224", side=64, img_size=64, depth=2, embed_dim=64, num_heads=2)
of_timm("vit", "vit_xsmall_patch16_clip_224", **VIT)

of_timm("stages", "swin_tiny_patch4_window7_224", side=56, img_size=56, depths=(2, 2), embed_dim=32, num_heads=(2, 4))
of_timm("stages", "swinv2_tiny_window8_256", side=64, img_size=64, depths=(2, 2), embed_dim=32, num_heads=(2, 4))
of_timm("stages", "mobilevit_xxs", side=64)
of_timm("stages", "mobilevitv2_050", side=64)
of_timm("stages", "tiny_vit_5m_224", side=224)
of_timm("stages", "fastvit_t8", side=64)
of_timm("stages", "levit_128s", side=224)
of_timm("stages", "pit_ti_224", side=224)
of_timm("stages", "efficientvit_b0", side=64)
of_timm("stages", "efficientformer_l1", side=224)
of_timm("stages", "poolformer_s12", side=64)
MIXER = dict(img_size=32, patch_size=8, num_blocks=2, embed_dim=64)
family("timm/mixer_s32_224", "stages", 32, lambda: timm.models.MlpMixer(num_classes=CLASSES, **MIXER))
of_timm("stages", "pvt_v2_b0", side=64)

for name in [
    "resnet18",
    "mobilenetv2_050",
    "mobilenetv3_small_100",
    "mobilenetv4_conv_small_050",
    "efficientnet_b0",
    "efficientnet_lite0",
    "convnext_atto",
    "convnextv2_atto",
    "regnety_002",
    "mobileone_s0",
    "repvit_m0_9",
    "densenet121",
    "ghostnet_050",
]:
    of_timm("cnn", name, side=64)

# ---------------------------------------------------------------- Hugging Face

ENCODER = dict(hidden_size=64, num_hidden_layers=2, num_attention_heads=2, intermediate_size=128)
TOKENS = dict(**ENCODER, image_size=32, patch_size=8, num_labels=CLASSES)


def of_transformers(kind, label, model, config, side=32, attentions=("sdpa",), **settings):
    for attention in attentions:
        suffix = f" {attention}" if attention else ""

        def build(attention=attention):
            made = getattr(transformers, config)(**settings)
            if attention:
                made._attn_implementation = attention
            return getattr(transformers, model)(made)

        family(f"hf/{label}{suffix}", kind, side, build)


of_transformers("vit", "vit", "ViTForImageClassification", "ViTConfig", attentions=("sdpa", "eager"), **TOKENS)
of_transformers("vit", "deit", "DeiTForImageClassificationWithTeacher", "DeiTConfig", attentions=("sdpa", "eager"), **TOKENS)
of_transformers("vit", "dinov2", "Dinov2ForImageClassification", "Dinov2Config", attentions=("sdpa", "eager"), **TOKENS)
of_transformers("vit", "dinov2-swiglu", "Dinov2ForImageClassification", "Dinov2Config", use_swiglu_ffn=True, **TOKENS)
of_transformers("vit", "dinov2-registers", "Dinov2WithRegistersForImageClassification", "Dinov2WithRegistersConfig", **TOKENS)
of_transformers("vit", "dinov3", "DINOv3ViTModel", "DINOv3ViTConfig", num_register_tokens=4, **TOKENS)
of_transformers("vit", "clip", "CLIPVisionModelWithProjection", "CLIPVisionConfig", attentions=("sdpa", "eager"), **{**TOKENS, "projection_dim": CLASSES})
of_transformers("vit", "siglip", "SiglipForImageClassification", "SiglipConfig", attentions=("sdpa", "eager"), vision_config=TOKENS, num_labels=CLASSES)
of_transformers("vit", "siglip-pooled", "SiglipVisionModel", "SiglipVisionConfig", **TOKENS)
of_transformers("vit", "beit", "BeitForImageClassification", "BeitConfig", use_relative_position_bias=True, **TOKENS)
of_transformers("vit", "msn", "ViTMSNForImageClassification", "ViTMSNConfig", **TOKENS)
of_transformers("vit", "ijepa", "IJepaForImageClassification", "IJepaConfig", **TOKENS)
SWIN = dict(image_size=56, patch_size=4, embed_dim=32, depths=[2, 2], num_heads=[2, 4], window_size=7)
of_transformers("stages", "swin", "SwinForImageClassification", "SwinConfig", side=56, attentions=("",), num_labels=CLASSES, **SWIN)
RESNET = dict(depths=[1, 1], hidden_sizes=[32, 64], num_labels=CLASSES)
of_transformers("cnn", "resnet", "ResNetForImageClassification", "ResNetConfig", side=64, attentions=("",), layer_type="basic", embedding_size=32, **RESNET)
of_transformers("cnn", "convnext", "ConvNextForImageClassification", "ConvNextConfig", side=64, attentions=("",), num_stages=2, **RESNET)

# ---------------------------------------------------------------- torchvision and PyTorch


def of_torchvision(kind, name, side=64, **config):
    family(f"torchvision/{name}", kind, side, lambda: torchvision.models.get_model(name, num_classes=CLASSES, **config))


def torchvision_vit():
    sizes = dict(image_size=32, patch_size=8, num_layers=2, num_heads=2, hidden_dim=64, mlp_dim=128)
    return torchvision.models.VisionTransformer(num_classes=CLASSES, **sizes)


family("torchvision/vit_b_16", "vit", 32, torchvision_vit)
SMALL_SWIN = dict(patch_size=[4, 4], embed_dim=32, depths=[2, 2], num_heads=[2, 4], window_size=[7, 7])
family("torchvision/swin_t", "stages", 56, lambda: torchvision.models.SwinTransformer(num_classes=CLASSES, **SMALL_SWIN))
for name in [
    "resnet18",
    "mobilenet_v2",
    "mobilenet_v3_small",
    "efficientnet_b0",
    "regnet_y_400mf",
    "shufflenet_v2_x0_5",
    "squeezenet1_1",
    "mnasnet0_5",
]:
    of_torchvision("cnn", name)


def convnext():
    block = torchvision.models.convnext.CNBlockConfig
    return torchvision.models.ConvNeXt([block(32, 64, 2), block(64, None, 2)], num_classes=CLASSES)


family("torchvision/convnext_tiny", "cnn", 64, convnext)


class Encoder(nn.Module):
    """Patches, positions and PyTorch's own encoder; its answer is a mean over tokens, or a weighted one (CCT)."""

    def __init__(self, tokenizer, tokens, weighted=False, **config):
        super().__init__()
        self.tokenizer = tokenizer
        self.position = nn.Parameter(torch.zeros(1, tokens, 64))
        layer = nn.TransformerEncoderLayer(64, 2, 128, batch_first=True, **config)
        self.encoder = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
        self.norm, self.head = nn.LayerNorm(64), nn.Linear(64, CLASSES)
        self.pool = nn.Linear(64, 1) if weighted else None

    def forward(self, image):
        x = self.tokenizer(image).flatten(2).transpose(1, 2) + self.position
        x = self.norm(self.encoder(x))
        if self.pool is None:
            return self.head(x.mean(1))
        weights = self.pool(x).softmax(1).transpose(-1, -2)
        return self.head((weights @ x).squeeze(-2))


def patches():
    return nn.Conv2d(3, 64, 8, 8)


def convolutions():
    """The tokenizer of a compact convolutional transformer (arXiv 2104.05704)."""

    def layer(channels, outputs):
        conv = nn.Conv2d(channels, outputs, 3, 1, 1, bias=False)
        return [conv, nn.ReLU(), nn.MaxPool2d(3, 2, 1)]

    return nn.Sequential(*layer(3, 32), *layer(32, 64))


for norm in ["first", "last"]:
    for activation in ["relu", "gelu"]:
        config = dict(norm_first=norm == "first", activation=activation)
        family(
            f"torch/TransformerEncoder norm {norm}, {activation}",
            "vit",
            32,
            lambda config=config: Encoder(patches(), 16, **config),
        )
family("torch/CCT", "vit", 32, lambda: Encoder(convolutions(), 64, weighted=True, activation="gelu", norm_first=True))


# ---------------------------------------------------------------- weights


@torch.no_grad()
def randomize(model, side):
    """Weights of a size at which everything matters: scales around 1, positions and tokens as large as what they meet,
    batch norms that have seen images."""
    torch.manual_seed(0)
    for name, value in model.named_parameters():
        last = name.rsplit(".", 1)[-1]
        is_table = "table" in name or "pos" in name or "token" in name or value.shape[:1] == (1,)
        if last == "bias":
            value.normal_(0, 0.2)
        elif value.ndim <= 1 or value.numel() == max(value.shape):
            value.uniform_(0.5, 1.0)
        elif is_table:
            value.normal_(0, 0.5)
        else:
            fan_in = value.numel() / value.shape[0]
            value.normal_(0, ((2 if value.ndim == 4 else 1) / fan_in) ** 0.5)
    model.eval()
    norms = [module for module in model.modules() if isinstance(module, nn.modules.batchnorm._BatchNorm)]
    if norms:
        for norm in norms:
            norm.momentum = 1.0
            norm.train()
        model(torch.randn(8, 3, side, side) + torch.randn(8, 3, 1, 1))
    return model.eval()
