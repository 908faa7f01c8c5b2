#!/usr/bin/env python3
"""Which models run, and where: exports families of models by PyTorch's exporters, runs each in ONNX Runtime and in
`smalti-run`, and prints a table as Markdown.

    cargo build -p smalti-run
    python -m venv /tmp/venv && /tmp/venv/bin/pip install torch timm transformers torchvision onnx onnxscript onnxruntime pillow
    /tmp/venv/bin/python scripts/exporters/table.py --smalti-run target/debug/smalti-run

Results are kept line by line, so that a second call goes on where the first one stopped; `--again` runs everything anew.
With `--keep FOLDER` the exported files stay there and are used again.
"""
import argparse
import json
import logging
import math
import shutil
import subprocess
import sys
import tempfile
import warnings
from collections import Counter
from fnmatch import fnmatch
from pathlib import Path

import numpy as np
import onnxruntime
import torch
from PIL import Image

sys.path.insert(0, str(Path(__file__).resolve().parent))
from families import FAMILIES, randomize  # noqa: E402

EXPORTERS = {
    **{f"old {opset}": dict(dynamo=False, opset_version=opset) for opset in (11, 13, 14, 17, 18, 20)},
    "default": dict(),
    "dynamo 18": dict(dynamo=True, opset_version=18, external_data=True),
}
IMAGES, CALIBRATION = 3, 200
FLAGS = ["--mean", ".5,.5,.5", "--std", ".5,.5,.5", "--resize", "squash"]
TOLERANCE = 1e-4


def image(side, seed):
    """Waves of a few colours, u8 [side, side, 3]."""
    random = np.random.default_rng(seed)
    y, x = np.mgrid[:side, :side] / side
    waves = sum(
        np.sin(2 * np.pi * (random.uniform(-4, 4) * x + random.uniform(-4, 4) * y) + random.uniform(0, 6))[..., None]
        * random.uniform(-60, 60, 3)
        for _ in range(4)
    )
    return (128 + waves + random.normal(0, 12, (side, side, 3))).clip(0, 255).astype(np.uint8)


def images(folder, side, count, first):
    """Writes images; gives their paths."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = [folder / f"{i}.png" for i in range(first, first + count)]
    for i, path in enumerate(paths):
        if not path.exists():
            Image.fromarray(image(side, first + i)).save(path)
    return paths


def export(family, settings, path):
    model = randomize(family.build(), family.side)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(model, (torch.zeros(1, 3, family.side, family.side),), str(path), **settings)


def smalti(program, *arguments):
    """The JSON that the program prints, or the message of its error."""
    done = subprocess.run([program, *map(str, arguments), "--json"], capture_output=True, text=True)
    lines = [line for line in done.stderr.splitlines() if line.strip()]
    if done.returncode:
        return None, f"exit {done.returncode}: {lines[-1] if lines else ''}"
    return json.loads(done.stdout), ""


def difference(program, path, files, external):
    """Where the model runs and how far its answers are from ONNX Runtime's, in relation to the largest above 1."""
    inspected, problem = smalti(program, "inspect", path, *external)
    if inspected is None:
        return {"where": "refused", "why": problem}
    said, problem = smalti(program, "run", path, *files, "-k", 9999, *FLAGS, *external)
    if said is None:
        return {"where": "refused", "why": problem}
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    name, most = session.get_inputs()[0].name, 0.0
    for file, result in zip(files, said["results"]):
        pixels = np.asarray(Image.open(file), np.float32)
        x = ((pixels / 255 - 0.5) / 0.5).transpose(2, 0, 1)[None].astype(np.float32)
        wanted = session.run([inspected["output"]], {name: x})[0][0]
        found = np.zeros(len(wanted))
        for guess in result["predictions"]:
            found[guess["index"]] = guess["probability"]
        if not inspected["gives_probabilities"]:
            # A softmax forgets a shift of all; what is too improbable says nothing.
            likely = found > 1e-12
            found, wanted = np.log(found[likely]), wanted[likely]
            found, wanted = found - found.mean(), wanted - wanted.mean()
        far = float(np.abs(found - wanted).max() / max(1, np.abs(wanted).max()))
        most = max(most, far if math.isfinite(far) else math.inf)
    why = inspected["fallback_reason"]
    return {"where": "tract" if why else "kernels", "why": why or "", "difference": most}


def quantized(program, path, calibration, out, external):
    said, problem = smalti(program, "quantize", path, "--calib", calibration, "-o", out, *FLAGS, *external)
    return {"int8": problem or "ok", "agreement": said["agreement"] if said else None}


def one(family, exporter, arguments, folder):
    """A row of the table."""
    place = Path(arguments.keep or folder) / f"{family.name} {exporter}".replace("/", "_").replace(" ", "_")
    path = place / "model.onnx"
    if not path.exists():
        place.mkdir(parents=True, exist_ok=True)
        try:
            export(family, EXPORTERS[exporter], path)
        except Exception as error:  # Whatever an exporter raises is an answer.
            shutil.rmtree(place)
            return {"where": "no export", "why": f"{type(error).__name__}: {str(error).strip().splitlines()[0]}"}
    external = ["--external-data"] if path.with_name("model.onnx.data").exists() else []
    pixels = folder / f"images-{family.side}"
    files = images(pixels / "test", family.side, IMAGES, 1000)
    row = difference(arguments.smalti_run, path, files, external)
    if arguments.int8 and row["where"] in ("kernels", "tract"):
        images(pixels / "calibration", family.side, CALIBRATION, 0)
        row |= quantized(arguments.smalti_run, path, pixels / "calibration", place / "int8.onnx", external)
    if not arguments.keep:
        shutil.rmtree(place)
    return row


def cell(row):
    if row is None:
        return ""
    text = row["where"]
    if "difference" in row:
        text = "ours" if row["where"] == "kernels" else row["where"]
        if row["difference"] > TOLERANCE:
            text += f" **off {row['difference']:.0e}**"
        if row.get("int8", "ok") != "ok":
            text += ", int8 fails"
    return {"no export": "–"}.get(text, text)


def show(rows):
    print("| family | " + " | ".join(EXPORTERS) + " |")
    print("|---" * (len(EXPORTERS) + 1) + "|")
    for family in FAMILIES.values():
        cells = [rows.get((family.name, exporter)) for exporter in EXPORTERS]
        if any(cells):
            print(f"| {family.name} | " + " | ".join(map(cell, cells)) + " |")
    print("\n| | exported | accepted | on our kernels | through tract | refused | largest difference |\n|" + "---|" * 7)
    for kind, name in [("vit", "vision transformers"), ("stages", "transformers in stages, mixers"), ("cnn", "CNNs")]:
        of_kind = [row for (family, _), row in rows.items() if FAMILIES[family].kind == kind]
        exported = [row for row in of_kind if row["where"] != "no export"]
        counts = Counter(row["where"] for row in exported)
        ran = counts["kernels"] + counts["tract"]
        share = lambda count: f"{count} ({100 * count / max(1, len(exported)):.0f} %)"
        most = max((row.get("difference", 0) for row in exported), default=0)
        numbers = [len(exported), share(ran), share(counts["kernels"]), counts["tract"], counts["refused"], f"{most:.1e}"]
        print(f"| {name} | " + " | ".join(map(str, numbers)) + " |")
    reasons = Counter((row["where"], row["why"]) for row in rows.values() if row["why"])
    print("\nWhy not on our kernels:\n")
    for (where, why), count in reasons.most_common():
        print(f"- {count}, {where}: {why}")
    for (family, exporter), row in rows.items():
        if row.get("int8", "ok") != "ok":
            print(f"- int8 of {family}, {exporter}: {row['int8']}")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--smalti-run", required=True, help="the program")
    parser.add_argument("--families", default="*", help="patterns with commas, e.g. `timm/vit*,hf/*`")
    parser.add_argument("--exporters", default="*", help="patterns with commas, e.g. `default,old*`")
    parser.add_argument("--results", type=Path, default=Path("exporters.jsonl"), help="where rows are kept")
    parser.add_argument("--again", action="store_true", help="run what is in the results already, too")
    parser.add_argument("--keep", type=Path, help="keep the exported files here")
    parser.add_argument("--int8", action="store_true", help="quantize each model, too")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    logging.disable(logging.WARNING)
    chosen = lambda name, patterns: any(fnmatch(name, pattern) for pattern in patterns.split(","))
    rows = {}
    if arguments.results.exists():
        for line in arguments.results.read_text().splitlines():
            row = json.loads(line)
            if row["family"] in FAMILIES:
                rows[row.pop("family"), row.pop("exporter")] = row
    with tempfile.TemporaryDirectory() as folder, arguments.results.open("a") as results:
        for family in FAMILIES.values():
            for exporter in EXPORTERS:
                done = (family.name, exporter) in rows and not arguments.again
                if done or not chosen(family.name, arguments.families) or not chosen(exporter, arguments.exporters):
                    continue
                row = one(family, exporter, arguments, Path(folder))
                rows[family.name, exporter] = row
                print(json.dumps({"family": family.name, "exporter": exporter, **row}), file=results, flush=True)
                print(f"{family.name}, {exporter}: {cell(row)} {row['why']}", file=sys.stderr, flush=True)
    show(rows)


if __name__ == "__main__":
    main()
