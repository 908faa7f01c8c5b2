"""Writes reduced/*: small JPEGs of many forms, and as PNG what libjpeg-turbo makes of each: whole, at a half, a quarter and
an eighth.

    python make_reduced.py                        (needs cjpeg: apt install libjpeg-turbo-progs)
"""

import pathlib
import subprocess

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


def cjpeg(name, *options, scans=None):
    if scans:
        (OUT / "scans").write_text(scans)
        options = [*options, "-scans", str(OUT / "scans")]
    small = scene(45, 38)
    pixels = b"P6 %d %d 255\n" % small.size + small.tobytes()
    data = subprocess.run(["cjpeg", *options], input=pixels, check=True, stdout=subprocess.PIPE).stdout
    (OUT / "scans").unlink(missing_ok=True)
    (OUT / name).write_bytes(data)


def turn_into_ycck(path):
    """Adobe's marker says that CMYK is YCCK."""
    data = bytearray(path.read_bytes())
    data[data.index(b"Adobe") + 11] = 2
    path.write_bytes(data)


def move_quantisation(path):
    """The quantisation tables follow the frame's header."""
    data = path.read_bytes()
    start, frame, codes = (data.index(mark) for mark in (b"\xff\xdb", b"\xff\xc0", b"\xff\xc4"))
    path.write_bytes(data[:start] + data[frame:codes] + data[start:frame] + data[codes:])


def forms():
    small = scene(45, 38)
    cjpeg("411.jpg", "-sample", "4x1")
    cjpeg("separate-scans.jpg", "-sample", "2x2", scans="0;\n1;\n2;\n")
    bits = "0 1 2: 0-0, 0, 2;\n0 1 2: 0-0, 2, 1;\n0 1 2: 0-0, 1, 0;\n"
    bits += "".join(f"{c}: 1-9, 0, 1;\n{c}: 10-63, 0, 1;\n{c}: 1-63, 1, 0;\n" for c in range(3))
    cjpeg("bit-by-bit.jpg", "-sample", "2x1", "-restart", "1", scans=bits)
    cjpeg("16-bit-tables.jpg", "-quality", "3")
    small.save(OUT / "rgb.jpg", quality=75, keep_rgb=True)
    small.convert("CMYK").save(OUT / "cmyk.jpg", quality=75)
    small.convert("CMYK").save(OUT / "ycck.jpg", quality=75)
    turn_into_ycck(OUT / "ycck.jpg")
    small.save(OUT / "late-tables.jpg", quality=75, subsampling="4:2:0")
    move_quantisation(OUT / "late-tables.jpg")
    scene(3, 2).save(OUT / "tiny.jpg", quality=90, subsampling="4:2:0")


def write():
    OUT.mkdir(exist_ok=True)
    colour = scene(93, 74)
    colour.save(OUT / "444.jpg", quality=85, subsampling="4:4:4")
    colour.save(OUT / "422.jpg", quality=90, subsampling="4:2:2", optimize=True)
    colour.save(OUT / "420-restarts.jpg", quality=75, subsampling="4:2:0", restart_marker_blocks=4)
    colour.convert("L").save(OUT / "grey.jpg", quality=95)
    scene(96, 40).save(OUT / "440.jpg", quality=80, subsampling="4:2:2")
    turn_sampling(OUT / "440.jpg")
    forms()
    for path in sorted(OUT.glob("*.jpg")):
        for by in (1, 2, 4, 8):
            image = Image.open(path)
            image.draft(image.mode, (max(1, image.width // by), max(1, image.height // by)))
            image = image.convert("L" if image.mode == "L" else "RGB")
            image.save(OUT / f"{path.stem}-{by}.png", optimize=True)
    # The pixels of 444.jpg.
    colour.save(OUT / "progressive.jpg", quality=85, subsampling="4:4:4", progressive=True)


if __name__ == "__main__":
    print("libjpeg-turbo", features.version("libjpeg_turbo"))
    write()
