"""Writes reduced/*: small JPEGs, and as PNG what libjpeg-turbo makes of each at a half, a quarter and an eighth.

    python make_reduced.py
"""

import pathlib

import numpy as np
from PIL import Image, features

HERE = pathlib.Path(__file__).parent
OUT = HERE / "reduced"


def scene(width, height):
    """Slopes, edges and grain in all colours."""
    y, x = np.mgrid[0:height, 0:width].astype(np.float64)
    random = np.random.default_rng(7)
    red = 128 + 110 * np.sin(x * y / 150)
    green = np.where((x // 13 + y // 9) % 2 < 1, 230.0, 30.0)
    blue = 255 * x / width
    image = np.stack([red, green, blue], axis=-1) + random.normal(0, 6, (height, width, 3))
    return Image.fromarray(image.clip(0, 255).astype(np.uint8), "RGB")


def turn_sampling(path):
    """4:2:2 becomes 4:4:0: half as wide and twice as high, the same blocks in the same order."""
    data = bytearray(path.read_bytes())
    frame = data.index(b"\xff\xc0\x00\x11")
    height, width = (int.from_bytes(data[at : at + 2]) for at in (frame + 5, frame + 7))
    data[frame + 5 : frame + 9] = (2 * height).to_bytes(2) + (width // 2).to_bytes(2)
    assert data[frame + 11] == 0x21
    data[frame + 11] = 0x12
    path.write_bytes(data)


def write():
    OUT.mkdir(exist_ok=True)
    colour = scene(93, 74)
    colour.save(OUT / "444.jpg", quality=85, subsampling="4:4:4")
    colour.save(OUT / "422.jpg", quality=90, subsampling="4:2:2", optimize=True)
    colour.save(OUT / "420-restarts.jpg", quality=75, subsampling="4:2:0", restart_marker_blocks=4)
    colour.convert("L").save(OUT / "grey.jpg", quality=95)
    scene(96, 40).save(OUT / "440.jpg", quality=80, subsampling="4:2:2")
    turn_sampling(OUT / "440.jpg")
    for path in sorted(OUT.glob("*.jpg")):
        for by in (2, 4, 8):
            image = Image.open(path)
            image.draft(image.mode, (image.width // by, image.height // by))
            image.save(OUT / f"{path.stem}-{by}.png", optimize=True)
    # Decoded whole: no golden pixels.
    colour.save(OUT / "progressive.jpg", quality=85, subsampling="4:4:4", progressive=True)


if __name__ == "__main__":
    print("libjpeg-turbo", features.version("libjpeg_turbo"))
    write()
