"""Checks an exported model by onnx.checker and compares ONNX Runtime's answers with ours, image by image.

  python onnx_agree.py MODEL.onnx --probe probe.safetensors

The probe's `images` (uint8 NHWC) or `pixels` (float32 NCHW) are used, whichever the model's input takes. Exits
with 1 when the largest difference is above the tolerance.
"""
import argparse
import sys
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
from safetensors.numpy import load_file

INPUTS = {"tensor(uint8)": "images", "tensor(float)": "pixels"}
OUTPUTS = ("logits", "embedding")


def open_session(path):
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 3
    return onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])


def answers(session, images, outputs):
    """Every image by itself, as the exported models take them: one array [N, ...] an output."""
    name = session.get_inputs()[0].name
    rows = [session.run(outputs, {name: images[i : i + 1]}) for i in range(len(images))]
    return [np.concatenate(column) for column in zip(*rows)]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path)
    parser.add_argument("--probe", type=Path, required=True)
    parser.add_argument("--tolerance", type=float, default=1e-4)
    args = parser.parse_args()
    onnx.checker.check_model(str(args.model), full_check=True)
    opsets = ", ".join(f"{opset.domain or 'ai.onnx'} {opset.version}" for opset in onnx.load(args.model).opset_import)
    session, probe = open_session(args.model), load_file(args.probe)
    kind = session.get_inputs()[0].type
    if INPUTS.get(kind) not in probe:
        sys.exit(f"the model takes {kind}; the probe has {', '.join(sorted(probe))}")
    names = [output.name for output in session.get_outputs()]
    if "logits" not in names:
        sys.exit(f"the model has no output `logits`, only {', '.join(names)}")
    outputs = [name for name in OUTPUTS if name in names and name in probe]
    images = probe[INPUTS[kind]]
    shape = session.get_inputs()[0].shape
    print(f"onnx.checker {onnx.__version__} accepts {args.model} ({opsets}); input {kind} {shape}")
    differences = []
    for name, found in zip(outputs, answers(session, images, outputs)):
        if found.shape != probe[name].shape:
            sys.exit(f"{name}: the model's are {found.shape}, the probe's {probe[name].shape}")
        difference = float(np.abs(found - probe[name]).max())
        differences.append(difference)
        print(f"{name} of {len(images)} images: largest difference {difference:.2e} (at most {args.tolerance:.0e})")
    sys.exit(0 if all(difference <= args.tolerance for difference in differences) else 1)  # not a number: 1


if __name__ == "__main__":
    main()
