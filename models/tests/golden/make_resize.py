"""Writes resize.json: what Pillow makes of noise at many sizes, the oracle for `smalti_models::resize`, and what
torchvision's Resize and CenterCrop make of it, the oracle for `smalti_models::preprocess`.

Sources are drawn by a generator that the Rust test repeats, so only results are stored: the pixels in
hexadecimal where they are few, else their SHA-256.

Pillow must be 13 or newer: older ones never resize the height first.

    python make_resize.py
"""

import hashlib
import json
import pathlib

import PIL
from PIL import Image

FILTERS = {"bilinear": Image.Resampling.BILINEAR, "bicubic": Image.Resampling.BICUBIC}
HEX_LIMIT = 600

# Width, height, channels, kind of noise ("full" range, "hard" black and white, "soft" middle greys).
SOURCES = [
    (17, 13, 1, "full"),
    (31, 20, 3, "full"),
    (20, 31, 3, "hard"),
    (5, 7, 1, "hard"),
    (64, 48, 3, "soft"),
    (1, 9, 3, "full"),
    (9, 1, 1, "full"),
    (1, 1, 3, "full"),
]
SIZES = [(8, 8), (7, 5), (13, 13), (1, 1), (33, 29), (17, 13), (20, 6), (3, 40)]
# A region as fractions of the image: inside, touching edges, thin, with and without whole pixels.
REGIONS = [(0.1, 0.2, 0.9, 0.7), (0.0, 0.25, 0.5, 1.0), (0.3333, 0.0, 0.3651, 1.0), (0.5, 0.5, 1.0, 1.0)]
LARGE = [
    ((640, 480, 3, "full"), (224, 224)),
    ((640, 480, 3, "hard"), (32, 32)),
    ((333, 500, 3, "soft"), (224, 336)),
    ((500, 333, 1, "full"), (640, 641)),
    ((2000, 3, 3, "full"), (96, 96)),
    ((150, 640, 3, "full"), (64, 64)),
]


def noise(width, height, channels, kind):
    """Bytes of a linear congruential generator, the upper 8 of 32 bits."""
    state = width * 7919 + height * 31 + channels
    out = bytearray()
    for _ in range(width * height * channels):
        state = (state * 1664525 + 1013904223) % 2**32
        byte = state >> 24
        out.append({"full": byte, "hard": 255 * (byte >> 7), "soft": 96 + byte // 4}[kind])
    return bytes(out)


def drawn(source):
    width, height, channels, _ = source
    return Image.frombytes({1: "L", 3: "RGB"}[channels], (width, height), noise(*source))


def result(entry, pixels):
    if len(pixels) <= HEX_LIMIT:
        return {**entry, "pixels": pixels.hex()}
    return {**entry, "sha256": hashlib.sha256(pixels).hexdigest()}


def case(source, size, how, box=None):
    pixels = drawn(source).resize(size, FILTERS[how], box=box).tobytes()
    entry = {"source": source, "size": size, "how": how}
    if box is not None:
        entry["region"] = box
    return result(entry, pixels)


def crop(source, size, how):
    """torchvision.transforms: Resize(size), CenterCrop(size)."""
    image = drawn(source)
    short, long = sorted(image.size)
    new = size, int(size * long / short)
    width, height = new if image.width <= image.height else new[::-1]
    image = image.resize((width, height), FILTERS[how])
    left, top = int(round((width - size) / 2.0)), int(round((height - size) / 2.0))
    pixels = image.crop((left, top, left + size, top + size)).tobytes()
    return result({"source": source, "img_size": size, "how": how}, pixels)


def region(source, fractions):
    width, height = source[:2]
    left, top, right, bottom = fractions
    return [left * width, top * height, right * width, bottom * height]


def main():
    assert int(PIL.__version__.split(".")[0]) >= 13, PIL.__version__
    cases = []
    for how in FILTERS:
        for source in SOURCES:
            cases += [case(source, size, how) for size in SIZES]
            cases += [case(source, SIZES[0], how, region(source, fractions)) for fractions in REGIONS]
        # A region of whole pixels as large as the result is a plain crop.
        cases.append(case((31, 20, 3, "full"), (8, 5), how, [3, 4, 11, 9]))
        cases += [case(source, size, how) for source, size in LARGE]
    crops = [crop(source, size, how) for how in FILTERS for source in SOURCES for size in (9, 14, 32)]
    crops += [crop(source, 64, how) for how in FILTERS for source, _ in LARGE]
    lists = [",\n".join(json.dumps(entry) for entry in entries) for entries in (cases, crops)]
    text = '{{"pillow": "{}", "cases": [\n{}\n], "crops": [\n{}\n]}}\n'.format(PIL.__version__, *lists)
    pathlib.Path(__file__).with_name("resize.json").write_text(text)


if __name__ == "__main__":
    main()
