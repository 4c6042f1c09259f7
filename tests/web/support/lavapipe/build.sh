#!/usr/bin/env bash
# build.sh FOLDER: makes there the Vulkan layer (layer.c) through which headless Chromium's WebGPU accepts Mesa's
# software driver lavapipe, and unpacks Debian backports' Mesa beside the system's where there is one (a Mesa
# older than 24 has no shader-f16 that Chromium takes). Needs a C compiler, libvulkan-dev, mesa-vulkan-drivers.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
mkdir -p "$1"; out=$(cd "$1" && pwd)

cc -O2 -shared -fPIC -o "$out/liblayer.so" "$here/layer.c"
cat >"$out/layer.json" <<J
{ "file_format_version": "1.1.2",
  "layer": {
    "name": "VK_LAYER_LAVAPIPE_webgpu", "type": "GLOBAL", "library_path": "$out/liblayer.so",
    "api_version": "1.3.239", "implementation_version": "1", "description": "lets Chromium's WebGPU accept lavapipe",
    "functions": { "vkNegotiateLoaderLayerInterfaceVersion": "vkNegotiateLoaderLayerInterfaceVersion" },
    "device_extensions": [ { "name": "VK_KHR_external_semaphore_fd", "spec_version": "1",
      "entrypoints": ["vkGetSemaphoreFdKHR", "vkImportSemaphoreFdKHR"] } ] } }
J

# The mirror is the one this machine already uses; nothing is installed, no system list is touched.
newer_mesa() {
  local uri; uri=$(apt-get indextargets --format '$(REPO_URI)' 'Created-By: Packages' 2>/dev/null | grep -m1 '/debian/*$') || return 1
  local apt=$out/apt; mkdir -p "$apt/lists/partial"
  printf 'deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] %s %s-backports main\n' \
    "${uri%/}" "$(. /etc/os-release; echo "$VERSION_CODENAME")" >"$apt/sources.list"
  local o=(-o "Dir::Etc::sourcelist=$apt/sources.list" -o Dir::Etc::sourceparts=/dev/null -o "Dir::State::Lists=$apt/lists"
    -o "Dir::Cache=$apt" -o APT::Sandbox::User=root)
  apt-get "${o[@]}" update -qq || return 1
  (cd "$apt" && apt-get "${o[@]}" download -qq mesa-vulkan-drivers libdrm2 libdrm-amdgpu1) || return 1
  local deb; for deb in "$apt"/*.deb; do dpkg -x "$deb" "$out/mesa"; done
  rm -rf "$apt"
}

unpacked() { find "$out/mesa" -name libvulkan_lvp.so 2>/dev/null | grep -m1 .; }
if driver=$(unpacked) || { newer_mesa && driver=$(unpacked); }; then
  printf '{ "file_format_version": "1.0.0", "ICD": { "library_path": "%s", "api_version": "1.3.0" } }\n' "$driver" >"$out/icd.json"
else
  echo "no newer Mesa in backports: lavapipe runs on the system's" >&2
fi
