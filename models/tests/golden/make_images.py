"""Writes images/*: small files of every kind that is read, and images.json with Pillow's pixels for them.

    python make_images.py
"""

import json
import pathlib
import struct
import zlib

import numpy as np
import PIL
from PIL import Image, ImageOps

HERE = pathlib.Path(__file__).parent
OUT = HERE / "images"
ORIENTATION = 0x112


def scene(width, height):
    """A smooth image with a corner of its own in each quadrant, so that every turn shows."""
    y, x = np.mgrid[0:height, 0:width].astype(np.float64)
    red = 40 + 180 * x / width
    green = 40 + 180 * y / height
    blue = np.where((x < width / 2) & (y < height / 2), 220.0, 60.0)
    return Image.fromarray(np.stack([red, green, blue], axis=-1).astype(np.uint8), "RGB")


def exif(orientation):
    tags = Image.Exif()
    tags[ORIENTATION] = orientation
    return tags.tobytes()


def chunk(kind, data):
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png16(name, array, colour_type):
    """Pillow writes no RGB of 16 bits."""
    height, width = array.shape[:2]
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in array)
    header = struct.pack(">IIBBBBB", width, height, 16, colour_type, 0, 0, 0)
    body = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows, 9)) + chunk(b"IEND", b"")
    (OUT / name).write_bytes(b"\x89PNG\r\n\x1a\n" + body)


def write():
    colour, wide = scene(12, 8), scene(21, 14)
    for orientation in range(1, 9):
        colour.save(OUT / f"exif-{orientation}.jpg", quality=90, exif=exif(orientation))
    colour.save(OUT / "exif-6.png", exif=exif(6))
    colour.save(OUT / "exif-6.webp", lossless=True, exif=exif(6))
    wide.save(OUT / "rgb-444.jpg", quality=90, subsampling="4:4:4")
    wide.save(OUT / "rgb-420.jpg", quality=90, subsampling="4:2:0")
    wide.save(OUT / "progressive.jpg", quality=80, progressive=True)
    wide.save(OUT / "restarts.jpg", quality=80, restart_marker_blocks=1)
    wide.save(OUT / "plain-rgb.jpg", quality=90, keep_rgb=True)
    wide.convert("L").save(OUT / "grey.jpg", quality=90)
    wide.convert("CMYK").save(OUT / "cmyk.jpg", quality=95)
    wide.save(OUT / "rgb.png")
    wide.convert("L").save(OUT / "grey.png")
    wide.convert("1").save(OUT / "bits.png")
    wide.quantize(16).save(OUT / "palette.png")
    wide.quantize(16).save(OUT / "palette-transparent.png", transparency=3)
    clear = wide.copy()
    clear.putalpha(wide.getchannel("R"))
    clear.save(OUT / "alpha.png")
    clear.convert("LA").save(OUT / "grey-alpha.png")
    clear.save(OUT / "alpha.webp", lossless=True, exact=True)
    wide.save(OUT / "rgb-lossless.webp", lossless=True)
    wide.save(OUT / "rgb-lossy.webp", quality=90)
    wide.save(OUT / "animated.webp", save_all=True, append_images=[wide.rotate(180)], lossless=True)
    wide.save(OUT / "animated.png", save_all=True, append_images=[wide.rotate(180)], duration=100)
    wide.save(OUT / "rgb.bmp")
    wide.convert("L").save(OUT / "grey.bmp")
    wide.quantize(16).save(OUT / "palette.bmp")
    deep = np.array(wide).astype(np.uint16) * 251 + 17
    png16("deep-rgb.png", deep, 2)
    png16("deep-grey.png", deep[..., 0], 0)
    png16("deep-alpha.png", np.concatenate([deep, deep[..., :1]], axis=-1), 6)
    return deep


def pixels(path, deep):
    if path.name == "deep-grey.png":
        # Pillow clips 16-bit grey at 255 instead of scaling it.
        return Image.fromarray((deep[..., 0] >> 8).astype(np.uint8), "L")
    image = ImageOps.exif_transpose(Image.open(path))
    grey = image.mode in ("1", "L", "LA")
    return image.convert("L" if grey else "RGB")


def main():
    OUT.mkdir(exist_ok=True)
    deep = write()
    entries = []
    for path in sorted(OUT.iterdir()):
        image = pixels(path, deep)
        channels = len(image.getbands())
        entry = {"file": path.name, "width": image.width, "height": image.height, "channels": channels}
        entries.append(json.dumps({**entry, "pixels": image.tobytes().hex()}))
    lines = ",\n".join(entries)
    (HERE / "images.json").write_text(f'{{"pillow": "{PIL.__version__}", "files": [\n{lines}\n]}}\n')


if __name__ == "__main__":
    main()
