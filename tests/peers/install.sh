#!/bin/sh
# An environment with the originals and this project: sh tests/peers/install.sh FOLDER
# PYTHON names the interpreter to start from (3.10 to 3.12), TORCH what pip installs as torch.
set -eu

folder=${1:?"usage: sh tests/peers/install.sh FOLDER"}
here=$(cd "$(dirname "$0")" && pwd)
project=$(cd "$here/../.." && pwd)

"${PYTHON:-python3}" -m venv "$folder"
pip() { "$folder/bin/python" -m pip "$@"; }

pip install --quiet "${TORCH:-torch==2.13.0}" "setuptools>=77" wheel
pip install --quiet -r "$here/support.txt"
pip install --quiet --no-deps -r "$here/requirements.txt"
pip install --quiet --no-deps --no-build-isolation --editable "$project"

mkdir -p "$folder/peers"
if [ ! -d "$folder/peers/yolox-0.3.0" ]; then
    pip download --quiet --no-deps --no-build-isolation --no-binary yolox --dest "$folder/peers" yolox==0.3.0
    tar -xzf "$folder/peers/yolox-0.3.0.tar.gz" -C "$folder/peers"
    rm "$folder/peers/yolox-0.3.0.tar.gz"
fi

echo "ready: $folder/bin/python -m tests.peers --scenes 200"
