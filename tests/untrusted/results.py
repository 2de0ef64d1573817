"""A device's result, as small as it may be."""

RESULT = {
    "schema": 1,
    "kind": "compresskit-result",
    "bundle_sha256": "0" * 64,
    "record": "r",
    "target": "t",
    "mode": "quick",
    "rows": [{"index": 0, "stage": "input", "sha256": "0" * 64}],
    "samples": {"count": 1, "of": 1},
    "lines": [],
}
