#!/usr/bin/env bash
# From registry packages to weights, one command:   training/run.sh [minutes for the UNet, default 60]
# State (weights, EMA, optimisers, latents) is kept in .train/ at the repository's root; a second run goes on from there, and
# where it is lost, from the committed weights. Needs python3 >= 3.10 with requirements.txt installed (set PYTHON) and npm.
# PROCS=2 single-thread processes are used.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
model=$here/../www/embedded
state=${STATE:-$here/../.train}
mkdir -p "$state"
state=$(cd "$state" && pwd)
minutes=${1:-60}
if [ -z "${PYTHON:-}" ]; then
  PYTHON=$state/venv/bin/python
  if [ ! -x "$PYTHON" ]; then
    python3 -m venv "$state/venv"
    "$PYTHON" -m pip install -q -r "$here/requirements.txt"
  fi
fi
export OMP_NUM_THREADS=1
py() { echo "== $*"; nice -n "${NICE:-15}" "$PYTHON" "$here/$1" "${@:2}" 2>&1 | tee -a "$state/log.txt"; }

[ -d "$state/npm/node_modules/@iconify-json/fluent-emoji-flat" ] ||
  npm install --no-audit --no-fund --prefix "$state/npm" @iconify-json/fluent-emoji-flat
[ -f "$model/tokenizer/vocab.json" ] || py make_tokenizer.py
if [ ! -f "$state/text.pt" ] && [ ! -f "$model/text_encoder/model.safetensors" ]; then
  [ -f "$state/table.npy" ] || py make_table.py "$state"
  py train_text.py "$state" "${TEXT_STEPS:-700}"
fi
# from scratch the VAE wants some 40 minutes, a committed one none
if [ ! -f "$state/vae.pt" ]; then
  if [ -f "$model/vae/config.json" ]; then py train_vae.py "$state" "${VAE_MINUTES:-0}"
  else py train_vae.py "$state" "${VAE_MINUTES:-40}"; fi
fi
py make_latents.py "$state" "${SHARDS:-5}"
py train_unet.py "$state" "$minutes"
WITH_UNET=1 py train_decoder.py "$state" "${DECODER_MINUTES:-10}"
py export.py "$state"
py check.py "$state" "${GUIDANCE:-3}"
