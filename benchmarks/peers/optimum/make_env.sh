#!/bin/sh
# Makes the environment that optimum-onnx needs: sh benchmarks/peers/optimum/make_env.sh FOLDER
set -eu
folder=${1:?give the folder for the environment}
here=$(CDPATH='' cd -- "$(dirname -- "$0")" && pwd)
python3 -m venv "$folder"
"$folder/bin/pip" install --quiet --requirement "$here/requirements.txt"
"$folder/bin/python" -c "from optimum.onnxruntime import ORTModelForFeatureExtraction"
echo "$folder/bin/python"
