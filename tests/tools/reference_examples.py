"""What the pages of the reference say by hand: an introduction each, and an example.

Examples are blocks of recipes, which a test reads within one.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

__all__ = ["EXAMPLES", "INTRODUCTIONS"]

INTRODUCTIONS: Mapping[str, str] = MappingProxyType(
    {
        "index": "Every key of a recipe: its values, default and range, and the source of each "
        "method. The pages are made of the settings themselves, as are the hover texts of "
        "[recipe.schema.json](../../recipes/recipe.schema.json) and `compresskit explain KEY`, "
        "which says the same in a terminal. Which to choose when is in "
        "[quantizing](../quantizing.md), [pruning](../pruning.md#what-to-choose-when), "
        "[distillation](../distillation.md), [training](../training.md) and "
        "[orders](../orders.md).",
        "recipe": "The keys of a recipe file. How such a file is written is in "
        "[what a recipe may hold](../recipes.md).",
        "train": "Training on labels. It is also what a recipe begins with where there is no "
        "checkpoint; see [training](../training.md).",
        "distill": "Training a student on a teacher's outputs, with every loss that there is. See "
        "[distillation](../distillation.md).",
        "quantize": "Number formats of weights and activations. What to choose when is in "
        "[quantizing](../quantizing.md).",
        "prune": "Removing channels, heads or single weights. What to choose when is in "
        "[pruning](../pruning.md#what-to-choose-when).",
        "tasks": "What a model is for: data, metric and loss. See [data](../data.md) for tasks of "
        "your own.",
        "models": "The model that enters, students and teachers. Folders of Hugging Face are in "
        "[transformers](../transformers.md).",
        "targets": "Devices and runtimes that rows are measured on. See "
        "[runtimes](../runtimes.md) and [devices](../devices.md).",
        "python": "The public names of `compress`, from their docstrings. On GitHub only the names "
        "are here; the site has the rest.",
        "budget": "What the device allows. It is drawn in the plots, decides which row to ship, "
        "and `compresskit run` ends with exit code 3 where no row is within it; see "
        "[the report](../report.md).",
    }
)

EXAMPLES: Mapping[str, str] = MappingProxyType(
    {
        "recipe": """
schema: 1
name: mine
task: digits
model: {arch: resnet, width: 16}
budget: {accuracy_drop: 1pt}
stages:
  - {kind: train, epochs: 12}
  - {kind: quantize}
""",
        "train": """
stages:
  - {kind: train, epochs: 12, batch_size: 32, schedule: one-cycle, ema: 0.99}
""",
        "distill": """
stages:
  - kind: distill
    student: {arch: dscnn, width: 16}
    losses:
      - {kind: response, temperature: 4.0, weight: 0.9}
      - {kind: label, weight: 0.1}
    epochs: 20
    views: 4
""",
        "quantize": """
stages:
  - {kind: quantize, weights: int8, activations: int8, calibration: {method: mse}}
  - {kind: quantize, weights: float32, activations: float32, select: [head]}
""",
        "prune": """
stages:
  - {kind: prune, ratio: 0.3, importance: taylor, round_to: 8, finetune: {epochs: 5}}
""",
        "tasks": """
task: {name: image-folder, folder: photos, size: 64}
""",
        "models": """
model: {arch: resnet, width: 16, blocks: 2}
""",
        "targets": """
targets:
  - {kind: local, threads: 1, batch: 1}
  - {name: pi, kind: ssh, host: pi@raspberrypi}
""",
        "budget": """
budget: {latency_p50_ms: 0.5, artifact_kib: 64, accuracy_drop: 1pt}
""",
    }
)
