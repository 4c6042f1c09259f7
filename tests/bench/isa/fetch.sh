#!/usr/bin/env bash
# Unpacks Mesa's compilers of Debian unstable, with no-op kernel drivers in their GPUs' place, into DIR (340 MB), each by
# its name through apt: nothing is installed into the system.
#   fetch.sh DIR
set -euo pipefail
dir=$(mkdir -p "$1" && cd "$1" && pwd)
mirror=$(apt-get indextargets --format '$(REPO_URI)' 'Created-By: Packages' | grep -m1 '/debian/*$') || {
  echo "no Debian mirror in apt's sources: the compilers are Debian's packages" >&2; exit 1; }
rm -rf "$dir/apt" "$dir/root" "$dir/kept"; mkdir -p "$dir/apt/lists/partial" "$dir/apt/archives/partial" "$dir/root"
# As on a machine with nothing installed, so that the compilers' own libraries come too.
: >"$dir/apt/status"
printf 'deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] %s sid main\n' "${mirror%/}" >"$dir/apt/sources.list"
own=(-qq -o "Dir::Etc::sourcelist=$dir/apt/sources.list" -o Dir::Etc::sourceparts=/dev/null
  -o "Dir::State::Lists=$dir/apt/lists" -o "Dir::State::status=$dir/apt/status" -o "Dir::Cache=$dir/apt"
  -o Debug::NoLocking=1 -o APT::Sandbox::User=root -o APT::Architecture=amd64 -o APT::Architectures=amd64)
apt-get "${own[@]}" update
apt-get "${own[@]}" install --no-install-recommends --download-only -y mesa-drm-shim mesa-vulkan-drivers libvulkan1 >&2
for deb in "$dir"/apt/archives/*.deb; do dpkg -x "$deb" "$dir/root"; done
dpkg-deb -f "$dir"/apt/archives/mesa-vulkan-drivers_*.deb Version >"$dir/version"
rm -rf "$dir/apt"
