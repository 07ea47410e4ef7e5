"""Two clips through an exported model, with NumPy and onnxruntime and nothing of asycmst or torch.

    asycmst export --checkpoint run/best.ckpt --format onnx --out model/
    python onnx_clip.py model/ bus.npy ceus.npy

A clip is a .npy file, uint8 (frames, height, width) or (frames, height, width, 3), or a folder of
images with numbers in their names, which Pillow reads.
"""

import json
import re
import sys
from pathlib import Path

import numpy as np
import onnxruntime


def read_clip(path: Path) -> np.ndarray:
    """All frames, uint8 (n, height, width) or (n, height, width, 3)."""
    if not path.is_dir():
        return np.load(path, mmap_mode="r")
    from PIL import Image

    images = [image for image in path.iterdir() if re.search(r"\d", image.stem)]
    images.sort(key=lambda image: [int(number) for number in re.findall(r"\d+", image.stem)])
    return np.stack([np.asarray(Image.open(image).convert("RGB")) for image in images])


def triangles(before: int, after: int) -> np.ndarray:
    """Weights (after, before) of bilinear resizing; the filter widens where pixels get fewer."""
    scale = before / after
    centres = (np.arange(after) + 0.5) * scale
    distance = np.abs(np.arange(before) + 0.5 - centres[:, None]) / max(scale, 1.0)
    weights = np.maximum(0.0, 1.0 - distance)
    return weights / weights.sum(axis=1, keepdims=True)


def prepare(clip: np.ndarray, frames: int, height: int, width: int) -> np.ndarray:
    """What the model takes: float32 (1, 3, T, height, width) in [0, 1]."""
    taken = clip[np.arange(frames) * (len(clip) - 1) // max(frames - 1, 1)].astype(np.float64)
    if taken.ndim == 3:
        taken = np.repeat(taken[..., None], 3, axis=3)
    rows, columns = triangles(taken.shape[1], height), triangles(taken.shape[2], width)
    resized = np.einsum("tyxc,ry,sx->ctrs", taken, rows, columns, optimize=True)
    return np.ascontiguousarray(np.round(resized)[None] / 255.0, dtype=np.float32)


def main(folder: Path, bus: Path, ceus: Path) -> None:
    sizes = json.loads((folder / "model.json").read_text())["preprocessing"]
    session = onnxruntime.InferenceSession(folder / "model.onnx")
    clips = {
        name: prepare(read_clip(path), sizes["frames"], sizes["height"], sizes["width"])
        for name, path in (("bus", bus), ("ceus", ceus))
    }
    names = [output.name for output in session.get_outputs()]
    found = dict(zip(names, session.run(names, clips), strict=True))
    answer = {"probability_malignant": float(found["probability"][0])}
    if "frame_scores" in found:
        answer["frame_scores"] = found["frame_scores"][0].tolist()
    if "mask_logits" in found:
        answer["mask_area_fraction"] = (found["mask_logits"][0] > 0).mean(axis=(1, 2)).tolist()
    print(json.dumps(answer, indent=2))


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:]))
