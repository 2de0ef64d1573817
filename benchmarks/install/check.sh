#!/usr/bin/env bash
# Installs the wheel outside of the clone, with the versions of a file, and runs the fast tests, a
# recipe and what it shipped: check.sh PYTHON CONSTRAINTS. Takes 10 minutes on two cores.
set -euo pipefail
python=$1 constraints=$(realpath "$2")
root=$(realpath "$(dirname "$0")/../..")
place=$(mktemp -d)
trap 'rm -rf "$place"' EXIT

"$python" -m venv "$place/environment"
PATH="$place/environment/bin:$PATH"
pip install -q build
python -m build --outdir "$place/dist" "$root" >/dev/null
pip install -q -c "$constraints" "$(echo "$place"/dist/*.whl)[test]"

cd "$place"
cat >small.yaml <<'RECIPE'
name: small
task: digits
model: {arch: resnet, width: 8}
stages:
  - {kind: train, epochs: 2}
  - {kind: quantize}
  - {kind: prune, ratio: 0.3}
RECIPE
compresskit new
compresskit plan small.yaml
compresskit run small.yaml --quick
compresskit report runs/small
python runs/small/ship/run.py --check
compresskit doctor
cd "$root" && python -m pytest -q -p no:cacheprovider -m fast
python -m pip list
