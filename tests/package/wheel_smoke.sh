#!/bin/sh
# Builds the wheel, installs it in a fresh environment and uses it from another folder.
set -eu
here=$(pwd)
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
mkdir "$scratch/source"
git ls-files -z | xargs -0 -I{} cp --parents {} "$scratch/source"
"$here/.venv/bin/python" -m pip wheel --quiet --disable-pip-version-check --no-deps -w "$scratch/dist" "$scratch/source"
"$PYTHON" -m venv "$scratch/fresh"
"$scratch/fresh/bin/python" -m pip install --quiet --disable-pip-version-check --no-compile "$scratch"/dist/*.whl
cd "$scratch"
"$scratch/fresh/bin/keras-practice" --version
for command in "" tune check doctor gpu-check; do
    "$scratch/fresh/bin/keras-practice" $command --help >/dev/null
done
"$scratch/fresh/bin/python" "$here/tests/package/wheel_smoke.py"
"$scratch/fresh/bin/keras-practice" tune --data iris --trials 2 --epochs 2 --out found
test -s found/best.keras && test -s found/search.png
"$scratch/fresh/bin/python" -m pip install --quiet --disable-pip-version-check --no-compile nbclient nbformat ipykernel
"$scratch/fresh/bin/python" "$here/tests/package/notebook_run.py" "$here/notebooks/quickstart.ipynb" executed.ipynb
echo "wheel: ok"
