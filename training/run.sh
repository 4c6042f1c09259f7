#!/usr/bin/env bash
# The embedded model, from registry packages to weights:   training/run.sh [stage ...]
#
# Stages, all of them by default, in this order: data text vae latents unet decoder lora controlnet export check
# `practice` alone is another: LoRA and control for the weights that www/embedded/ has, into it.
# Every stage goes on from what STATE holds (the default is .train/ at the repository's root, git-ignored). Of the
# repository only the tokenizer and, where STATE has none, the text encoder are used. `check` says which goal was
# missed; what has passed is copied to www/embedded:   cp -r "$STATE"/model/. www/embedded/
#
# STATE=folder   DEVICE=cpu|cuda   PYTHON=python3 (else a virtual environment in STATE)   PROCS=1 (processes, CPU only)
# Minutes of each training: TEXT VAE UNET DECODER LORA CONTROLNET.   LATENTS: how many pictures the UNet learns from.
# With DEVICE=cuda all from text to export takes under nine minutes; data is one file made beforehand (sprites.npz).
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
state=${STATE:-$here/../.train}
device=${DEVICE:-cpu}
mkdir -p "$state"
state=$(cd "$state" && pwd)
if [ "$device" = cpu ]; then
  : "${TEXT:=45}" "${VAE:=100}" "${UNET:=240}" "${DECODER:=20}" "${LORA:=20}" "${CONTROLNET:=30}" "${LATENTS:=20000}"
else
  : "${TEXT:=0.7}" "${VAE:=1.5}" "${UNET:=3.7}" "${DECODER:=0.7}" "${LORA:=0.7}" "${CONTROLNET:=0.7}" "${LATENTS:=120000}"
fi
if [ -z "${PYTHON:-}" ]; then
  PYTHON=$state/venv/bin/python
  if [ ! -x "$PYTHON" ]; then
    python3 -m venv "$state/venv"
    "$PYTHON" -m pip install -q -r "$here/requirements.txt"
  fi
fi
export OMP_NUM_THREADS=1 PYTHONUNBUFFERED=1
py() { echo "== $*"; nice -n "${NICE:-15}" "$PYTHON" "$here/$1" "${@:2}" 2>&1 | tee -a "$state/log.txt"; }
learn() { py "$1" "$state" --minutes "$2" --device "$device"; }
# What needs the UNet and nothing of each other: on a GPU, which one of them does not fill, side by side.
aside=()
learn_aside() {
  if [ "$device" = cpu ]; then learn "$@"; else
    learn "$@" &
    aside+=($!)
  fi
}
meet() {
  local one
  for one in "${aside[@]}"; do wait "$one"; done
  aside=()
}

# sprites FOLDER FAMILY...
sprites() {
  local folder=$1; shift
  [ ! -f "$folder/sprites.npz" ] || return 0
  npm install --no-audit --no-fund --prefix "$folder/npm" "${@/#/@iconify-json/}"
  py sprites.py "$folder" "$@"
}
data() {
  sprites "$state" fluent-emoji-flat fluent-emoji noto noto-v1 twemoji
  [ -f "$here/../www/embedded/tokenizer/vocab.json" ] || py make_tokenizer.py
  [ -f "$here/../www/embedded/text_encoder/config.json" ] || [ -f "$state/table.npy" ] || py make_table.py "$state"
}
text() { learn train_text.py "$TEXT"; }
vae() { learn train_vae.py "$VAE"; }
latents() { py latents.py "$state" --count "$LATENTS" --device "$device"; }
unet() { learn train_unet.py "$UNET"; }
decoder() { learn_aside train_decoder.py "$DECODER"; }
lora() { learn_aside train_lora.py "$LORA"; }
controlnet() { learn_aside train_controlnet.py "$CONTROLNET"; }
export_() { meet; rm -rf "$state/model"; py export.py "$state" "$state/model"; }
check() { py check.py "$state" "$state/model"; }
practice() {
  local own=$state/shipped model=$here/../www/embedded
  mkdir -p "$own" "$model/lora"
  sprites "$own" fluent-emoji-flat
  py train_lora.py "$own" --model "$model" --minutes "$LORA" --device "$device"
  py train_controlnet.py "$own" --model "$model" --minutes "$CONTROLNET" --device "$device"
  install -m 644 "$own/ink.safetensors" "$model/lora/"
  install -m 644 -D -t "$model/controlnet" "$own"/controlnet/*
  py check_practice.py "$model" --sheet "$here/practice.png"
}

[ $# -gt 0 ] || set -- data text vae latents unet decoder lora controlnet export check
for stage; do
  case $stage in
    data|text|vae|latents|unet|decoder|lora|controlnet|check|practice) "$stage" ;;
    export) export_ ;;
    *) echo "no such stage: $stage" >&2; exit 2 ;;
  esac
done
meet
