"""Mixed precision is accelerate's to choose; the candidate stays plain float32."""

import os
import subprocess
import sys

import pytest

CODE = """
import sys
from dataclasses import replace
from pathlib import Path
import torch
torch.set_num_threads(1)
from compress import Candidate, DistillStage, QuantizeStage, TrainStage
from compress.testing.nets import NETS
from compress.testing.stage_contract import bench_context

case = NETS["resnet"]
start = Candidate.of(case.build(), case.example())
events = []
context = replace(bench_context(start, Path(sys.argv[1])), report=events.append)
seen = set()
forward = torch.nn.functional.conv2d

def watched(*arguments):
    outputs = forward(*arguments)
    seen.add(outputs.dtype)
    return outputs

torch.nn.Conv2d._conv_forward = lambda self, x, w, b: watched(
    x, w, b, self.stride, self.padding, self.dilation, self.groups
)
trained = TrainStage(epochs=4, batch_size=32, ema=0.9).run(start, context)
print(torch.bfloat16 in seen, events[-1]["validation_loss"] < 0.7 * events[0]["loss"])
quantized = QuantizeStage().run(trained, context)
losses = [{"kind": "response"}, {"kind": "hint", "student": "blocks.0", "teacher": "blocks.0"}]
for stage in (TrainStage(epochs=1), DistillStage(epochs=1, losses=losses)):
    after = stage.run(quantized, context)
    after.validate()
    print(after.fingerprint != quantized.fingerprint)
"""


@pytest.mark.parametrize("precision", ["bf16"])
def test_a_stage_trains_in_lower_precision_and_leaves_no_trace_of_it(precision, tmp_path):
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", CODE, str(tmp_path)],
        env={**os.environ, "ACCELERATE_MIXED_PRECISION": precision, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == ["True"] * 4
