"""Makes the class bank and the anomaly detector of these tests: needs numpy and Pillow, and smalti-run.

    python make.py path/to/smalti-run

Both belong to ../models/colours_u8.onnx: the class `white`, and what is unlike plain brown images.
"""

import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
from PIL import Image

here = Path(__file__).parent
model = here.parent / "models" / "colours_u8.onnx"


def paint(folder, colour, count):
    """Plain images of about that colour."""
    folder.mkdir()
    for i in range(count):
        rows, columns = np.mgrid[0:24, 0:24]
        pixels = np.array(colour) + 3 * i + ((columns + 2 * rows) % 5)[..., None]
        Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(folder / f"{i:02}.png")


def run(*words):
    subprocess.run([sys.argv[1], *map(str, words)], check=True)


with tempfile.TemporaryDirectory() as root:
    root = Path(root)
    for name, colour in [("red", (200, 20, 20)), ("green", (20, 200, 20)), ("blue", (20, 20, 200))]:
        paint(root / name, colour, 12)
    paint(root / "white", (180, 180, 180), 5)
    paint(root / "good", (90, 80, 70), 20)
    (here / "colours.bank").unlink(missing_ok=True)
    negatives = [word for name in ("red", "green", "blue") for word in ("--negatives", root / name)]
    run("learn", "add", model, here / "colours.bank", "white", root / "white", *negatives)
    run("anomaly", "fit", model, here / "good.anomaly", root / "good", "--false-alarms", "10%", "--remember", 20)
