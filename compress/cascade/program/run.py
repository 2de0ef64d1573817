"""Serves the cascade in this folder with numpy and onnxruntime alone; as a program, on samples.npz.

::

    from run import Cascade
    outputs, sure, sent_back = Cascade()({"input": one_sample})  # (1, ...), as samples.npz has them
"""

from __future__ import annotations

import json
import os
from typing import Any

import numpy as np
import onnxruntime
from scores import confidence, pooled

HERE = os.path.dirname(os.path.abspath(__file__))


class Cascade:
    """The student answers; what it is not sure of goes to the larger model."""

    def __init__(self, folder: str = HERE, threads: int = 1) -> None:
        with open(os.path.join(folder, "cascade.json"), encoding="utf-8") as stream:
            self.facts = json.load(stream)["cascade"]
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        self.student, self.larger = (
            onnxruntime.InferenceSession(
                os.path.join(folder, self.facts[name]["file"]),
                options,
                providers=["CPUExecutionProvider"],
            )
            for name in ("student", "larger")
        )
        self.fitted = dict(np.load(os.path.join(folder, "fitted.npz"), allow_pickle=False))
        known = self.facts["model"]
        self.names = [known[key] for key in ("output", "features") if known[key]]
        self.threshold = self.facts["threshold"]
        if self.threshold is None:  # all go back
            self.threshold = float("inf")

    def __call__(self, inputs: dict[str, Any]) -> tuple[Any, float, bool]:
        """Outputs of one sample, how sure the student was, and whether it was sent back."""
        outputs, *features = self.student.run(self.names, fed(self.student, inputs))
        features = pooled(features[0]) if features else None
        sure = float(confidence(self.facts["score"], outputs, features, self.fitted)[0])
        if sure >= self.threshold:
            return outputs[0], sure, False
        names = [self.facts["larger_output"]]
        return self.larger.run(names, fed(self.larger, inputs))[0][0], sure, True


def fed(session: Any, inputs: dict[str, Any]) -> dict[str, Any]:
    """What of the inputs a file takes; an only one by whatever name it has there."""
    names = [port.name for port in session.get_inputs()]
    if len(names) == len(inputs) == 1:
        return {names[0]: next(iter(inputs.values()))}
    return {name: inputs[name] for name in names}


def main() -> int:
    """Run the samples of this folder: are they answered, and sent back, as they were before?"""
    cascade = Cascade()
    with np.load(os.path.join(HERE, "samples.npz"), allow_pickle=False) as samples:
        arrays = {name: samples[name] for name in samples.files}
    inputs = {name[6:]: array for name, array in arrays.items() if name.startswith("input/")}
    back, same, count = 0, 0, len(arrays["sent_back"])
    for i in range(count):
        outputs, _, sent = cascade({name: array[i : i + 1] for name, array in inputs.items()})
        alike = outputs.reshape(-1).argmax() == arrays["output"][i].reshape(-1).argmax()
        back, same = back + sent, same + (sent == arrays["sent_back"][i] and alike)
    found = {"samples": count, "sent_back": back, "as_before": int(same)}
    print(json.dumps(found))
    return 0 if same >= 0.99 * count else 1


if __name__ == "__main__":
    raise SystemExit(main())
