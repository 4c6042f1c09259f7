#!/bin/sh
# Regenerates the expected values under tests/reference/data from diffusers, transformers and torch.
#   run.sh               every script here
#   run.sh noise.py ...  these only
# The first run makes a virtual environment from PyPI (several hundred MB); PYTHON=... uses another.
set -eu
cd "$(dirname "$0")"
if [ -z "${PYTHON:-}" ]; then
    PYTHON=$(cd ../.. && pwd)/.tools/reference/bin/python
    if ! "$PYTHON" -c 'import diffusers, transformers' 2>/dev/null; then
        echo "making a Python environment in .tools/reference"
        python3 -m venv ../../.tools/reference
        "$PYTHON" -m pip install --quiet -r requirements.txt
    fi
fi
[ $# -gt 0 ] || set -- *.py
for script in "$@"; do
    echo "$script"
    "$PYTHON" "$script"
done
