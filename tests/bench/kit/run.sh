#!/bin/sh
# Measures this machine's GPU with the engine of browser-diffusion, in at most 8 minutes: run.sh [FOLDER] [--small]
#
# Needs an x86-64 Linux with a Vulkan driver and its loader (libvulkan.so.1), and nothing else: no root, no network. Writes
# into FOLDER (kit-results here, unless one is named): kit.md, tables to read; kit.json, the same and more for programs; of each
# part its JSON and what it printed. Each part has its own time limit, and none needs another. --small: seconds on a software
# adapter, for a test.
set -u
here=$(cd "$(dirname "$0")" && pwd)
folder=kit-results small=
for arg; do
  case "$arg" in
    --small) small=--small ;;
    -*) sed -n '2,7s/^# \{0,1\}//p' "$0"; exit 2 ;;
    *) folder=$arg ;;
  esac
done
mkdir -p "$folder" && folder=$(cd "$folder" && pwd) || exit 1
date -u '+%Y-%m-%d %H:%M UTC' >"$folder/date"
bad=0
# Some drivers look for it and complain.
[ "${XDG_RUNTIME_DIR:-}" ] || export XDG_RUNTIME_DIR="$folder"

# What may be wrong where there is no GPU.
look() {
  echo "The loader, by the system's list:"
  { ldconfig -p || /sbin/ldconfig -p; } 2>/dev/null | grep libvulkan || echo "  none: install libvulkan1 (Debian's name)"
  echo "Drivers: VK_DRIVER_FILES=${VK_DRIVER_FILES:-} VK_ICD_FILENAMES=${VK_ICD_FILENAMES:-} and"
  for file in /etc/vulkan/icd.d/*.json /usr/share/vulkan/icd.d/*.json /usr/local/share/vulkan/icd.d/*.json; do
    [ -f "$file" ] && echo "  $file" && grep library_path "$file"
  done
  VK_LOADER_DEBUG=error,warn,driver "$here/kit" adapter 2>&1 | head -n 60
}

# part SECONDS NAME: stops by itself when they are over, and is stopped soon after where it does not.
part() {
  echo "== $2 ($1 s at most)"
  timeout -k 5 "$(($1 + 8))" "$here/kit" "$2" --json "$folder/$2.json" --seconds "$1" $small >"$folder/$2.txt" 2>&1
  status=$?
  cat "$folder/$2.txt"
  case $status in
    0) echo "done" ;;
    1) echo "something is wrong" ;;
    3) echo "no GPU" ;;
    124 | 137) echo "stopped after $(($1 + 8)) s" ;;
    *) echo "crashed ($status)" ;;
  esac >"$folder/$2.status"
  [ $status = 0 ] || bad=1
  "$here/kit" report "$folder"
}

# 480 s in all, with the eight seconds that one may take longer.
part 10 adapter
[ $status = 0 ] || { look | tee "$folder/look.txt"; exit 1; }
part 110 ops
part 50 step
part 75 tiles
part 45 operations
part 20 probes
part 60 parity
# What a driver kept of an earlier run would be found instead of made.
export __GL_SHADER_DISK_CACHE=0 MESA_SHADER_CACHE_DISABLE=1
part 25 compile
part 13 compile-threads
echo "== $folder/kit.md, $folder/kit.json"
exit $bad
