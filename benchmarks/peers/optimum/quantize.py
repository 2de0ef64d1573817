"""In optimum's environment: exports a folder, optimizes it, and quantizes it by two presets.

Called by ``side_by_side.py`` with a model's folder and one for the files. Prints one JSON line for
each file: its name, path and bytes.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

from optimum.exporters.onnx import main_export
from optimum.onnxruntime import ORTOptimizer, ORTQuantizer
from optimum.onnxruntime.configuration import AutoOptimizationConfig, AutoQuantizationConfig


def main() -> None:
    """Write the files."""
    source, root = sys.argv[1], Path(sys.argv[2])
    exported = root / "exported"
    main_export(source, exported, task="feature-extraction", library_name="transformers")
    files = {"export, float32": exported / "model.onnx"}
    optimizer = ORTOptimizer.from_pretrained(exported)
    optimizer.optimize(AutoOptimizationConfig.O2(), save_dir=root / "optimized")
    files["ORTOptimizer O2, float32"] = root / "optimized" / "model_optimized.onnx"
    presets = {
        "avx2": AutoQuantizationConfig.avx2(is_static=False),
        "avx512_vnni": AutoQuantizationConfig.avx512_vnni(is_static=False),
    }
    for name, preset in presets.items():
        quantizer = ORTQuantizer.from_pretrained(exported)
        quantizer.quantize(preset, save_dir=root / name)
        files[f"ORTQuantizer {name}, dynamic int8"] = root / name / "model_quantized.onnx"
    for name, path in files.items():
        print(json.dumps({"name": name, "path": str(path), "bytes": path.stat().st_size}))


if __name__ == "__main__":
    main()
