"""What other ways to quantize would gain: signal to noise of each layer's output in dB, for a float model of ours.

  python quantizers_noise.py MODEL.onnx IMAGES

One scale a tensor as `smalti-run quantize` has it (percentile), one a token (dynamic), and one a tensor with scales moved
across layers (arXiv 2211.10438, the best of three strengths). Weights have 8 bits and a scale an output. Half of 60
images, spread evenly over IMAGES/CLASS/*.png, calibrate; the others are measured.
"""
import glob
import sys

import numpy as np
import onnx
import onnxruntime
from onnx import helper, numpy_helper
from PIL import Image

TAIL = 5e-5


def quantized(x, low, high):
    low, high = np.minimum(low, 0), np.maximum(high, 0)
    scale = np.where(high > low, (high - low) / 255, 1)
    zero = np.round(-low / scale)
    return (np.clip(np.round(x / scale) + zero, 0, 255) - zero) * scale


def quantized_weight(w):
    scale = np.maximum(np.abs(w).max(0) / 127, 1e-30)
    return np.round(w / scale) * scale


def ratio(want, found):
    return 10 * np.log10(np.square(want).sum() / np.square(want - found).sum())


def static(calibration, x, w, by=1.0):
    low, high = np.quantile(calibration / by, [TAIL, 1 - TAIL])
    return ratio(x @ w, quantized(x / by, low, high) @ quantized_weight(w * np.reshape(by, (-1, 1))))


def across(calibration, x, w):
    reach, weights = np.abs(calibration).max(0) + 1e-6, np.abs(w).max(1) + 1e-6
    return max(static(calibration, x, w, reach**a / weights ** (1 - a)) for a in (0.25, 0.5, 0.75))


def main(path, images):
    model = onnx.load(path)
    constants = {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
    layers = [node for node in model.graph.node if node.op_type == "MatMul" and node.input[1] in constants]
    values = sorted({node.input[0] for node in layers} - {output.name for output in model.graph.output})
    model.graph.output.extend(helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, None) for name in values)
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    image = session.get_inputs()[0]
    files = sorted(glob.glob(f"{images}/*/*.png"))
    seen = {name: [] for name in values}
    for file in files[:: max(1, len(files) // 60)][:60]:
        image = Image.open(file).convert("RGB" if image.shape[3] == 3 else "L")
        pixels = np.asarray(image, np.uint8).reshape(image.shape)
        for name, value in zip(values, session.run(values, {image.name: pixels})):
            seen[name].append(value.reshape(-1, value.shape[-1]))
    rows = []
    for node in layers:
        w, value = constants[node.input[1]], seen.get(node.input[0])
        if value is None:
            continue
        half = len(value) // 2
        calibration, x = np.concatenate(value[:half]), np.concatenate(value[half:])
        token = ratio(x @ w, quantized(x, x.min(1, keepdims=True), x.max(1, keepdims=True)) @ quantized_weight(w))
        rows.append((static(calibration, x, w), token, across(calibration, x, w)))
    for name, (mean, least) in zip(("a tensor", "a token", "across layers"), zip(np.mean(rows, 0), np.min(rows, 0))):
        print(f"{name:14s} mean {mean:.1f} dB, worst {least:.1f} dB")


if __name__ == "__main__":
    main(*sys.argv[1:])
