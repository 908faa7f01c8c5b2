"""The networks of the golden files: plain PyTorch functions over a dictionary of named tensors.

Names and shapes are those of `models/src/names.rs`: timm's for the encoder and the classifier, the masked
autoencoder's reference code's (arXiv 2111.06377) for the decoder. Nothing here knows a precision: float32
weights give float32 results, float64 weights float64 results.
"""
import torch
import torch.nn.functional as F

EPS = 1e-6  # of every layer norm, and of the normalised targets
MLP_RATIO = 4


def sincos_positions(dim, grid):
    """[1, 1 + grid², dim]: zeros for the class token, then a patch's column in the first half, its row in the second.

    Each half holds the sines and then the cosines of its coordinate at dim / 4 frequencies.
    """
    omega = 10000.0 ** -(torch.arange(dim // 4, dtype=torch.float64) / (dim // 4))
    places = torch.arange(grid, dtype=torch.float64)
    row, column = torch.meshgrid(places, places, indexing="ij")
    halves = [axis.flatten()[:, None] * omega for axis in (column, row)]
    table = torch.cat([wave(angle) for angle in halves for wave in (torch.sin, torch.cos)], 1)
    return torch.cat([torch.zeros(1, dim, dtype=torch.float64), table])[None]


def block_shapes(name, dim):
    return {
        f"{name}.norm1.weight": (dim,),
        f"{name}.norm1.bias": (dim,),
        f"{name}.attn.qkv.weight": (3 * dim, dim),
        f"{name}.attn.qkv.bias": (3 * dim,),
        f"{name}.attn.proj.weight": (dim, dim),
        f"{name}.attn.proj.bias": (dim,),
        f"{name}.norm2.weight": (dim,),
        f"{name}.norm2.bias": (dim,),
        f"{name}.mlp.fc1.weight": (MLP_RATIO * dim, dim),
        f"{name}.mlp.fc1.bias": (MLP_RATIO * dim,),
        f"{name}.mlp.fc2.weight": (dim, MLP_RATIO * dim),
        f"{name}.mlp.fc2.bias": (dim,),
    }


def encoder_shapes(vit):
    dim, side = vit["dim"], vit["patch-size"]
    shapes = {
        "cls_token": (1, 1, dim),
        "pos_embed": (1, 1 + (vit["img-size"] // side) ** 2, dim),
        "patch_embed.proj.weight": (dim, vit["channels"], side, side),
        "patch_embed.proj.bias": (dim,),
    }
    for i in range(vit["depth"]):
        shapes |= block_shapes(f"blocks.{i}", dim)
    return shapes


def is_hybrid(vit):
    return vit.get("stem") == "convolutions"


def stage_layers(vit):
    """Name, inputs, outputs and stride of each convolution of a stem, in order."""
    widths = [vit["dim"] // 16 * parts for parts in (3, 6, 12, 16)]
    for i, (inputs, width) in enumerate(zip([vit["channels"], *widths], widths)):
        yield f"stages.{i}.down", inputs, width, 2
        if i:
            yield f"stages.{i}.conv1", width, width, 1
            yield f"stages.{i}.conv2", width, width, 1


def hybrid_shapes(vit, classes):
    dim, shapes = vit["dim"], {}
    for name, inputs, width, _ in stage_layers(vit):
        shapes |= {f"{name}.conv.weight": (width, inputs, 3, 3)}
        shapes |= {f"{name}.bn.weight": (width,), f"{name}.bn.bias": (width,)}
    shapes["pos_embed"] = (1, (vit["img-size"] // 16) ** 2, dim)
    for i in range(vit["depth"]):
        shapes |= block_shapes(f"blocks.{i}", dim)
    return shapes | {"head.weight": (classes, dim), "head.bias": (classes,)}


def classifier_shapes(vit, classes, pool):
    if is_hybrid(vit):
        return hybrid_shapes(vit, classes)
    dim, norm = vit["dim"], pool_norm(pool)
    rest = {f"{norm}.weight": (dim,), f"{norm}.bias": (dim,), "head.weight": (classes, dim), "head.bias": (classes,)}
    return encoder_shapes(vit) | rest


def mae_shapes(vit, decoder):
    dim, dec, side = vit["dim"], decoder["dim"], vit["patch-size"]
    tokens, patch = 1 + (vit["img-size"] // side) ** 2, side * side * vit["channels"]
    shapes = encoder_shapes(vit) | {
        "norm.weight": (dim,),
        "norm.bias": (dim,),
        "decoder_embed.weight": (dec, dim),
        "decoder_embed.bias": (dec,),
        "mask_token": (1, 1, dec),
        "decoder_pos_embed": (1, tokens, dec),
    }
    for i in range(decoder["depth"]):
        shapes |= block_shapes(f"decoder_blocks.{i}", dec)
    norm = {"decoder_norm.weight": (dec,), "decoder_norm.bias": (dec,)}
    return shapes | norm | {"decoder_pred.weight": (patch, dec), "decoder_pred.bias": (patch,)}


def pool_norm(pool):
    return {"token": "norm", "mean": "fc_norm"}[pool]


def layer_norm(x, w, name):
    return F.layer_norm(x, x.shape[-1:], w[f"{name}.weight"], w[f"{name}.bias"], EPS)


def linear(x, w, name):
    return F.linear(x, w[f"{name}.weight"], w[f"{name}.bias"])


def attention(x, w, name, heads):
    batch, tokens, dim = x.shape
    qkv = linear(x, w, f"{name}.qkv").reshape(batch, tokens, 3, heads, dim // heads)
    q, k, v = qkv.permute(2, 0, 3, 1, 4)
    share = (q @ k.transpose(-2, -1) * (dim // heads) ** -0.5).softmax(-1)
    return linear((share @ v).transpose(1, 2).reshape(batch, tokens, dim), w, f"{name}.proj")


def block(x, w, name, heads, keep=None):
    """One block; keep [2, B] scales each sample's attention and MLP branch (stochastic depth)."""
    scale = torch.ones(2, x.shape[0]) if keep is None else keep
    scale = scale.to(x.dtype)[:, :, None, None]
    x = x + attention(layer_norm(x, w, f"{name}.norm1"), w, f"{name}.attn", heads) * scale[0]
    hidden = F.gelu(linear(layer_norm(x, w, f"{name}.norm2"), w, f"{name}.mlp.fc1"))
    return x + linear(hidden, w, f"{name}.mlp.fc2") * scale[1]


def take(x, ids):
    """Tokens `ids` [B, V] of x [B, L, D]."""
    return x.gather(1, ids[:, :, None].expand(-1, -1, x.shape[2]))


def encode(w, vit, pixels, kept=None, keep=None):
    """[B, 1 + V, D] before the last norm: the class token, then the patches `kept` [B, V] in that order, or all."""
    side = vit["patch-size"]
    x = F.conv2d(pixels, w["patch_embed.proj.weight"], w["patch_embed.proj.bias"], stride=side)
    x = x.flatten(2).transpose(1, 2) + w["pos_embed"][:, 1:]
    x = x if kept is None else take(x, kept)
    token = (w["cls_token"] + w["pos_embed"][:, :1]).expand(len(x), -1, -1)
    x = torch.cat([token, x], 1)
    for i in range(vit["depth"]):
        x = block(x, w, f"blocks.{i}", vit["heads"], None if keep is None else keep[i])
    return x


def conv_norm(x, w, name, stride, running=None):
    """A 3x3 convolution and the batch norm of its outputs by their own statistics, which `running` takes down."""
    x = F.conv2d(x, w[f"{name}.conv.weight"], stride=stride, padding=1)
    mean, var = torch.zeros(x.shape[1], dtype=x.dtype), torch.zeros(x.shape[1], dtype=x.dtype)
    x = F.batch_norm(x, mean, var, w[f"{name}.bn.weight"], w[f"{name}.bn.bias"], True, 1.0, 1e-5)
    if running is not None:
        running |= {f"{name}.bn.running_mean": mean, f"{name}.bn.running_var": var}
    return x


def classify_hybrid(w, vit, pixels, running=None):
    """As `classify`: residual stages of convolutions, then blocks on their positions."""
    x = pixels
    for name, _, _, stride in stage_layers(vit):
        if name.endswith("conv2"):
            x = short + conv_norm(x, w, name, stride, running)
            continue
        x = conv_norm(x, w, name, stride, running).relu()
        short = x if name.endswith("down") else short
    x = x.relu().flatten(2).transpose(1, 2) + w["pos_embed"]
    for i in range(vit["depth"]):
        x = block(x, w, f"blocks.{i}", vit["heads"])
    embedding = x.mean(1)
    return embedding, linear(embedding, w, "head")


def classify(w, vit, pool, pixels, kept=None, keep=None):
    """(embedding [B, D], logits [B, K])."""
    if is_hybrid(vit):
        return classify_hybrid(w, vit, pixels)
    x = encode(w, vit, pixels, kept, keep)
    if pool == "token":
        embedding = layer_norm(x, w, "norm")[:, 0]
    else:
        embedding = layer_norm(x[:, 1:].mean(1), w, "fc_norm")
    return embedding, linear(embedding, w, "head")


def soft_cross_entropy(logits, targets):
    return -(targets * logits.log_softmax(-1)).sum(-1).mean()


def patchify(pixels, side):
    """[B, C, H, W] -> [B, L, side * side * C], a patch's values in the order (row, column, channel)."""
    batch, channels, height, _ = pixels.shape
    grid = height // side
    x = pixels.reshape(batch, channels, grid, side, grid, side)
    return x.permute(0, 2, 4, 3, 5, 1).reshape(batch, grid * grid, side * side * channels)


def hidden_mask(kept, patches):
    """[B, L]: 0 at the kept patches, 1 at the hidden ones."""
    return torch.ones(len(kept), patches).scatter(1, kept, 0.0)


def mae(w, vit, decoder, pixels, kept, norm_pix_loss):
    """(loss, pred [B, L, patch]) with the patches `kept` [B, V] visible."""
    x = linear(layer_norm(encode(w, vit, pixels, kept), w, "norm"), w, "decoder_embed")
    target = patchify(pixels, vit["patch-size"])
    patches = target.shape[1]
    slots = w["mask_token"].expand(len(x), patches, -1)
    slots = slots.scatter(1, kept[:, :, None].expand(-1, -1, decoder["dim"]), x[:, 1:])
    x = torch.cat([x[:, :1], slots], 1) + w["decoder_pos_embed"]
    for i in range(decoder["depth"]):
        x = block(x, w, f"decoder_blocks.{i}", decoder["heads"])
    pred = linear(layer_norm(x, w, "decoder_norm"), w, "decoder_pred")[:, 1:]
    if norm_pix_loss:
        target = (target - target.mean(-1, keepdim=True)) / (target.var(-1, keepdim=True) + EPS).sqrt()
    hidden = hidden_mask(kept, patches).to(pred.dtype)
    return (((pred - target) ** 2).mean(-1) * hidden).sum() / hidden.sum(), pred
