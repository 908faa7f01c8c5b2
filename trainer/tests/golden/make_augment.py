"""Writes augment.json: what Pillow makes of noise by the operations of RandAugment and TrivialAugment Wide, called as
torchvision's `_apply_op` calls them, the oracle for `smalti_trainer::data::augment`.

The table of magnitudes is torchvision's `_augmentation_space` for both policies, with 31 magnitudes. Sources are drawn
by a generator that the Rust test repeats, so only digests are stored: eight hexadecimal digits of SHA-256 for each
magnitude of an operation, and for its negative where the policies draw a sign.

    python make_augment.py
"""

import hashlib
import json
import pathlib

import PIL
from PIL import Image, ImageEnhance, ImageOps

BINS = 31
FILL = (37, 99, 201)
SAMPLING = {"nearest": Image.Resampling.NEAREST, "bilinear": Image.Resampling.BILINEAR}

# Width, height, channels, kind of noise (see `noise`).
SOURCES = [
    (32, 32, 3, "full"),
    (28, 28, 1, "full"),
    (23, 17, 3, "hard"),
    (40, 40, 3, "soft"),
    (21, 30, 1, "few"),
    (12, 12, 3, "flat"),
    (2, 3, 3, "full"),
    (1, 1, 1, "full"),
]


def noise(width, height, channels, kind):
    """Bytes of a linear congruential generator, the upper 8 of 32 bits."""
    state = width * 7919 + height * 31 + channels
    out = bytearray()
    for i in range(width * height * channels):
        state = (state * 1664525 + 1013904223) % 2**32
        byte = state >> 24
        drawn = {
            "full": byte,
            "hard": 255 * (byte >> 7),
            "soft": 96 + byte // 4,
            "few": 40 + 50 * (byte >> 6),
            "flat": 60 + 50 * (i % channels),
        }
        out.append(drawn[kind])
    return bytes(out)


def linear(last, first=0.0):
    return [first + (last - first) * i / (BINS - 1) for i in range(BINS)]


def posterize_bits(lost):
    return [8 - round(i / ((BINS - 1) / lost)) for i in range(BINS)]


def space(shear, across, down, degrees, factor, lost):
    """Each operation's magnitudes, and whether a sign is drawn."""
    signed = {
        "shear-x": shear,
        "shear-y": shear,
        "translate-x": across,
        "translate-y": down,
        "rotate": degrees,
        "brightness": factor,
        "color": factor,
        "contrast": factor,
        "sharpness": factor,
    }
    table = {"identity": ([0.0], False)}
    table.update({name: (linear(last), True) for name, last in signed.items()})
    table["posterize"] = (posterize_bits(lost), False)
    table["solarize"] = (linear(0.0, 255.0), False)
    table["auto-contrast"] = ([0.0], False)
    table["equalize"] = ([0.0], False)
    return table


def trivial(width, height):
    return space(0.99, 32.0, 32.0, 135.0, 0.99, 6)


def rand(width, height):
    return space(0.3, 150.0 / 331.0 * width, 150.0 / 331.0 * height, 30.0, 0.9, 4)


def affine(image, matrix, how, fill):
    return image.transform(image.size, Image.Transform.AFFINE, matrix, how, fillcolor=fill)


def apply(image, name, magnitude, how, fill):
    match name:
        case "identity":
            return image
        # torchvision goes through atan and tan, timm and AutoAugment's own code do not.
        case "shear-x":
            return affine(image, (1, magnitude, 0, 0, 1, 0), how, fill)
        case "shear-y":
            return affine(image, (1, 0, 0, magnitude, 1, 0), how, fill)
        case "translate-x":
            return affine(image, (1, 0, -int(magnitude), 0, 1, 0), how, fill)
        case "translate-y":
            return affine(image, (1, 0, 0, 0, 1, -int(magnitude)), how, fill)
        case "rotate":
            return image.rotate(magnitude, how, fillcolor=fill)
        case "brightness":
            return ImageEnhance.Brightness(image).enhance(1.0 + magnitude)
        case "color":
            return ImageEnhance.Color(image).enhance(1.0 + magnitude)
        case "contrast":
            return ImageEnhance.Contrast(image).enhance(1.0 + magnitude)
        case "sharpness":
            return ImageEnhance.Sharpness(image).enhance(1.0 + magnitude)
        case "posterize":
            return ImageOps.posterize(image, int(magnitude))
        case "solarize":
            return ImageOps.solarize(image, magnitude)
        case "auto-contrast":
            return ImageOps.autocontrast(image)
        case "equalize":
            return ImageOps.equalize(image)
        case "invert":
            return ImageOps.invert(image)
        case _:
            raise ValueError(name)


def drawn(source):
    width, height, channels, _ = source
    return Image.frombytes({1: "L", 3: "RGB"}[channels], (width, height), noise(*source))


def digests(source, name, magnitudes, how):
    image, fill = drawn(source), FILL[: source[2]]
    results = [apply(image, name, magnitude, how, fill) for magnitude in magnitudes]
    assert all((result.size, result.mode) == (image.size, image.mode) for result in results)
    return "".join(hashlib.sha256(result.tobytes()).hexdigest()[:8] for result in results)


def case(policy, source, name, magnitudes, how):
    found = digests(source, name, magnitudes, SAMPLING[how])
    return {"policy": policy, "source": source, "op": name, "sampling": how, "sha256": found}


def main():
    cases = []
    for source in SOURCES:
        tables = [("trivial", trivial(*source[:2]))]
        if source in SOURCES[:3]:
            tables.append(("rand", rand(*source[:2])))
        for policy, table in tables:
            for name, (magnitudes, signed) in table.items():
                if signed:
                    magnitudes = magnitudes + [-magnitude for magnitude in magnitudes]
                geometric = name.split("-")[0] in ("shear", "rotate", "translate")
                for how in SAMPLING if geometric else ["nearest"]:
                    cases.append(case(policy, source, name, magnitudes, how))
        cases.append(case(None, source, "invert", [0.0], "nearest"))
        turns = [0.0, 90.0, 180.0, 270.0, 360.0, 45.0, -405.0, 1e-9]
        cases += [case(None, source, "rotate", turns, how) for how in SAMPLING]
    tables = {
        name: {op: {"magnitudes": magnitudes, "signed": signed} for op, (magnitudes, signed) in table.items()}
        for name, table in (("trivial", trivial(32, 28)), ("rand", rand(32, 28)))
    }
    lines = ",\n".join(json.dumps(entry) for entry in cases)
    tables = ",\n".join(f'"{name}": {json.dumps(table)}' for name, table in tables.items())
    text = f'{{"pillow": "{PIL.__version__}", "cases": [\n{lines}\n], "tables": {{\n{tables}\n}}}}\n'
    pathlib.Path(__file__).with_name("augment.json").write_text(text)


if __name__ == "__main__":
    main()
