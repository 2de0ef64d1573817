"""In optimum's environment: opens exported folders by their classes and compares what they give.

Called by ``exports.py`` with a folder of cases: ``NAME/`` is an exported folder, and beside it
``NAME.json`` says which class opens it and ``NAME-K.npz`` holds inputs and our outputs at some
sizes. Prints one JSON line for each.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import optimum.onnxruntime
import torch
import transformers


def compared(model: Any, path: Path) -> dict[str, Any]:
    """The sizes of one batch, and how far outputs are from those that are expected."""
    stored = dict(np.load(path))
    expected = stored.pop("expected")
    batch = {name: torch.from_numpy(array) for name, array in stored.items()}
    with torch.no_grad():
        answer = model(**batch)
    found = (answer.logits if "logits" in answer else answer.last_hidden_state).numpy()
    first = next(iter(batch.values()))
    return {
        "shape": list(first.shape),
        "output": list(found.shape),
        "max_error": float(np.abs(found - expected).max()),
        "largest": float(np.abs(expected).max()),
    }


def main() -> None:
    """Open each case and print what was found, or why it could not be opened."""
    root = Path(sys.argv[1])
    for facts in sorted(root.glob("*.json")):
        case: dict[str, Any] = {"case": facts.stem, **json.loads(facts.read_text())}
        options = {"use_cache": False} if case["opened_by"] == "ORTModelForCausalLM" else {}
        try:
            kind = getattr(optimum.onnxruntime, case["opened_by"])
            model = kind.from_pretrained(root / facts.stem, local_files_only=True, **options)
            batches = sorted(root.glob(f"{facts.stem}-[0-9].npz"))
            case["batches"] = [compared(model, path) for path in batches]
        except Exception as error:
            case["error"] = f"{type(error).__name__}: {error}"[:500]
        case["transformers"] = transformers.__version__
        print(json.dumps(case))


if __name__ == "__main__":
    main()
