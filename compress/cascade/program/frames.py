"""Runs the filter in this folder with numpy and onnxruntime alone; as a program, on samples.npz.

::

    from run import Filter
    made, agreement, sent_back = Filter()(image, {"strength": 0.7})  # image (3, height, width)

The agreement is the net's with itself: its image of the frame, moved by a few pixels, beside its
image of the moved frame. A filter does the same wherever a thing stands; where the net does not, it
has not learned what to do, and the frame is one for the teacher. It takes a second run of the net.
"""

from __future__ import annotations

import json
import os
from typing import Any

import numpy as np
import onnxruntime

HERE = os.path.dirname(os.path.abspath(__file__))
MOVE = (3, 5)  # pixels down and to the right: no multiple of a net's stride
MOST_DB = 60.0
LEAST_EDGE, EDGE = 8, 8  # an eighth of the side is left out, where the frame's edge is seen


def moved(images: Any) -> Any:
    """Images ``(..., height, width)``, moved; what leaves at one edge comes in at the other."""
    return np.roll(images, MOVE, axis=(-2, -1))


def agreement(made: Any, of_moved: Any) -> Any:
    """How alike the moved image and that of the moved frame are, in dB, at most 60.

    Args:
        made: what the net makes of a frame, ``(..., 3, height, width)`` from 0 to 1.
        of_moved: what it makes of the moved frame.
    """
    edge = max(LEAST_EDGE, min(made.shape[-2:]) // EDGE)
    inner = (..., slice(edge, -edge), slice(edge, -edge))
    difference = np.asarray(moved(made)[inner] - of_moved[inner], np.float64)
    error = (difference**2).mean(axis=(-3, -2, -1))
    return -10 * np.log10(np.maximum(error, 10 ** (-MOST_DB / 10)))


class Filter:
    """The net makes an image, and says how far it agrees with itself."""

    def __init__(self, folder: str = HERE, threads: int = 1) -> None:
        with open(os.path.join(folder, "cascade.json"), encoding="utf-8") as stream:
            self.facts = json.load(stream)["frames"]
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        path = os.path.join(folder, self.facts["file"])
        self.session = onnxruntime.InferenceSession(
            path, options, providers=["CPUExecutionProvider"]
        )
        ports = self.session.get_inputs()
        self.image = next(port.name for port in ports if len(port.shape) == 4)
        self.controls = {one["name"]: one for one in self.facts["controls"]}

    def __call__(
        self, image: Any, controls: dict[str, float] | None = None
    ) -> tuple[Any, float, bool]:
        """The image that is made, the agreement in dB, and whether the frame is the teacher's.

        Image and what is made are ``(3, height, width)``, from 0 to 1.
        """
        controls = controls or {}
        made = self.net(image, controls)
        found = float(agreement(made, self.net(moved(image), controls)))
        threshold = self.facts["threshold"]
        return made, found, threshold is None or not found >= threshold

    def net(self, image: Any, controls: dict[str, float]) -> Any:
        """What the net makes of an image, cut off at 0 and 1."""
        feed = {self.image: np.asarray(image, np.float32)[None]}
        for name, one in self.controls.items():
            value = controls.get(name, one["default"])
            feed[name] = np.full((1, 1), value, np.float32)
        return self.session.run(None, feed)[0][0].clip(0, 1)


def main() -> int:
    """Run the samples of this folder: is the same found, and sent back, as before?"""
    net = Filter()
    with np.load(os.path.join(HERE, "samples.npz"), allow_pickle=False) as samples:
        arrays = {name: samples[name] for name in samples.files}
    back, same, count = 0, 0, len(arrays["sent_back"])
    for i in range(count):
        controls = {name: float(arrays[f"control/{name}"][i]) for name in net.controls}
        _, found, sent = net(arrays["image"][i] / 255, controls)
        back += sent
        same += sent == arrays["sent_back"][i] and abs(found - arrays["agreement"][i]) < 0.5
    print(json.dumps({"samples": count, "sent_back": int(back), "as_before": int(same)}))
    return 0 if same >= 0.99 * count else 1


if __name__ == "__main__":
    raise SystemExit(main())
