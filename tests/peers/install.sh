#!/bin/sh
# An environment with the originals and this project: sh tests/peers/install.sh FOLDER [--without-paddle]
# PYTHON names the interpreter to start from (3.10 to 3.12), TORCH what pip installs as torch.
set -eu

folder=${1:?"usage: sh tests/peers/install.sh FOLDER [--without-paddle]"}
here=$(cd "$(dirname "$0")" && pwd)
project=$(cd "$here/../.." && pwd)

"${PYTHON:-python3}" -m venv "$folder"
pip() { "$folder/bin/python" -m pip "$@"; }

pip install --quiet "${TORCH:-torch==2.13.0}" "flit_core>=3.12" setuptools wheel
pip install --quiet -r "$here/support.txt"
[ "${2:-}" = --without-paddle ] || pip install --quiet paddlepaddle==3.3.1
pip install --quiet --no-deps -r "$here/requirements.txt"
pip install --quiet --no-deps --no-build-isolation --editable "$project"

mkdir -p "$folder/peers"
for source in yolox-0.3.0 onedl_mmdetection-3.5.1 yolov6detect-0.4.1 yolov9pip-0.0.4; do
    [ -d "$folder/peers/$source" ] && continue
    pip download --quiet --no-deps --no-build-isolation --no-binary :all: --dest "$folder/peers" "${source%-*}==${source##*-}"
    tar -xzf "$folder/peers/$source.tar.gz" -C "$folder/peers"
    rm "$folder/peers/$source.tar.gz"
done
for version in 8.4.150 8.4.100 8.4.0 8.3.253 8.3.0; do
    [ -d "$folder/peers/ultralytics-$version" ] && continue
    pip download --quiet --no-deps --dest "$folder/peers" "ultralytics==$version"
    "$folder/bin/python" -m zipfile -e "$folder/peers/ultralytics-$version-py3-none-any.whl" "$folder/peers/ultralytics-$version"
    rm "$folder/peers/ultralytics-$version-py3-none-any.whl"
done

echo "ready: $folder/bin/python -m tests.peers --scenes 200"
