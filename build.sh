#!/usr/bin/env bash
# Builds, serves, tests and drives browser-diffusion. On a fresh Debian-like machine each command first
# installs what it lacks, into .tools/ where possible (git-ignored), and says so.
#   ./build.sh                          the wasm module, into www/pkg/, built quickly: for a first look, and to develop
#   ./build.sh release                  dist/, the site to publish, with the module as small as it gets, which tests use too;
#                                       packages/, the same for other people's sites (docs/embedding.md)
#   ./build.sh serve [PORT]             the page on http://127.0.0.1:PORT/
#   ./build.sh test                     every check and test
#   ./build.sh generate "PROMPT" -o FILE.png [--steps N --seed N --guidance G --source URL ...]
#   ./build.sh bench [--json FILE]      Stable Diffusion 1.5's shapes, streamed into headless Chromium
#   ./build.sh bench --memory [--json FILE]   GPU bytes at the peak, Stable Diffusion 1.5 and SDXL
#   ./build.sh bench --parity [--json FILE]   their networks at full size against torch
#   ./build.sh bench --vs-ort [...]     its operations, with --unet whole UNets, beside onnxruntime-web's
#   ./build.sh bench --step [--side N] [--json FILE]   one step by kernel class, of the driver's own peak
#   ./build.sh bench --isa [...]        what compilers of GPUs that are not here make of the kernels
#   ./build.sh bench --trace [...]      from the opened page to the first picture: what takes how long
#   ./build.sh bench --trace --cold [...]   the same where nothing was ever compiled: every pipeline's cost
#   ./build.sh bench --browsers         a step of the embedded model in Chromium and in Firefox
#   ./build.sh kit DIR                  what measures a GPU on its own machine, where only a driver is: DIR/run.sh
set -euo pipefail
cd "$(dirname "$0")"
export PATH="$PWD/.tools/bin:${CARGO_HOME:-$HOME/.cargo}/bin:$PATH"
wasm_target=target/wasm32-unknown-unknown

# With minutes and seconds since the start.
say() { printf '==> %d:%02d %s\n' $((SECONDS / 60)) $((SECONDS % 60)) "$*" >&2; }
die() { printf 'build.sh: %s\n' "$*" >&2; exit 1; }
has() { command -v "$1" >/dev/null 2>&1; }

# ---- what a fresh machine lacks ----

as_root() {
  if [ "$(id -u)" = 0 ]; then "$@"; elif has sudo; then sudo "$@"; else return 1; fi
}

# apt ARGS...: apt-get. While another package manager works, as the updater of a fresh Ubuntu does, apt-get fails at one
# of its locks (of the lists, the archives or dpkg: DPkg::Lock::Timeout covers dpkg's alone). It is tried again until
# that one is done, for 15 minutes at most.
apt() {
  local output until=$((SECONDS + 900)) waiting=
  until output=$(as_root env LC_ALL=C DEBIAN_FRONTEND=noninteractive apt-get "$@" 2>&1); do
    if ! [[ $output == *"Could not get lock"* ]] || [ $SECONDS -ge $until ]; then
      printf '%s\n' "$output" >&2
      return 1
    fi
    [ "$waiting" ] || say "another package manager is at work: waiting until it is done (15 minutes at most)"
    waiting=1
    sleep 3
  done
}

# apt_install PACKAGE...
apt_updated=
apt_install() {
  has apt-get || die "install $* with this system's package manager, then run this again"
  say "installing $* (apt; a minute, or less)"
  [ "$apt_updated" ] || apt update -qq || say "apt-get update failed: trying with the package lists at hand"
  apt_updated=1
  apt install -y -qq --no-install-recommends "$@" || die "could not install $*; as root: apt-get install $*"
}

need_c_compiler() { has cc || apt_install gcc libc6-dev; }

need_rust() {
  has cargo || die "Rust is missing: install it with rustup (https://rustup.rs), then run this again"
  need_c_compiler
}

# need_node [LEAST]: Node of this major version or a later one; 20, which the tests need, if none is given.
need_node() {
  has node || apt_install nodejs
  [ "$(node -p 'process.versions.node.split(".")[0]')" -ge "${1:-20}" ] && return
  need_npm
  local package; package=node-linux-$(node -p 'process.arch')
  say "Node $(node --version) is too old: taking Node 22 from npm (a minute, or less)"
  npm install --prefix .tools/node --no-save --no-audit --no-fund --silent "$package@22"
  mkdir -p .tools/bin; ln -sf "$PWD/.tools/node/node_modules/$package/bin/node" .tools/bin/node
}

need_npm() { has npm || apt_install npm; }

need_chromium() {
  has chromium || has google-chrome || apt_install chromium
}

# The second engine. Other systems than Debian may have none in apt: tests then run in Chromium alone.
need_firefox() {
  has firefox-esr || has firefox || (apt_install firefox-esr) || say "no Firefox: browser tests run in Chromium alone"
}

# Without one each Chinese character is a narrow box, and a test of how wide a page is sees nothing of it.
need_chinese_font() { fc-list :lang=zh-cn | grep -q . || apt_install fonts-wqy-microhei; }

need_vulkan_driver() {
  ls /usr/share/vulkan/icd.d/lvp_icd*.json >/dev/null 2>&1 || apt_install mesa-vulkan-drivers
  ldconfig -p | grep -q libvulkan.so.1 || apt_install libvulkan1
}

# npm packages of the tests: playwright-core, puppeteer-core, typescript, type definitions
need_node_modules() {
  need_node; need_npm
  local stamp=tests/web/node_modules/.package-lock.json
  [ "$stamp" -nt tests/web/package-lock.json ] && return
  say "installing the tests' npm packages (seconds)"
  (cd tests/web && npm ci --no-audit --no-fund --silent)
  touch "$stamp"
}

# The lavapipe layer gives headless Chromium a software GPU with shader-f16. Without it tests use SwiftShader.
need_lavapipe() {
  need_vulkan_driver
  [ .tools/lavapipe/ready -nt tests/web/support/lavapipe/layer.c ] && return
  say "building the lavapipe layer (seconds)"
  has cc && [ -f /usr/include/vulkan/vk_layer.h ] || apt_install gcc libc6-dev libvulkan-dev
  if tests/web/support/lavapipe/build.sh .tools/lavapipe; then touch .tools/lavapipe/ready
  else say "no lavapipe layer: browser tests run on SwiftShader alone"; fi
}

# ---- wasm ----

# The standard library for wasm32: the installed one, rustup's, or (where rustup has no network) built once from
# Debian's rust-src of this compiler's version.
wasm_std_env=() wasm_std_flags=()
need_wasm_std() {
  local lib; lib=$(rustc --print target-libdir --target wasm32-unknown-unknown)
  compgen -G "$lib/libstd-*.rlib" >/dev/null && return
  if has rustup; then
    say "adding the wasm32 standard library (rustup; seconds, 2 minutes at most)"
    timeout 120 rustup target add wasm32-unknown-unknown >&2 && return
    say "rustup could not: taking the library's source from Debian, and building it with the module (a minute more)"
  fi
  need_rust_src
  wasm_std_env=(RUSTC_BOOTSTRAP=1 "__CARGO_TESTS_ONLY_SRC_ROOT=$rust_src")
  wasm_std_flags=(-Zbuild-std=std,panic_abort)
}

# wasm_cargo COMMAND ARGS...: cargo for wasm32. Panics do not carry their place in the source, and {:?} of a type of ours
# writes its name without its fields: that saves 26 and some 15 KB gzipped of a module that a first visit waits for. The
# compiler still calls both flags unstable.
wasm_cargo() {
  env RUSTC_BOOTSTRAP=1 RUSTFLAGS="-Zlocation-detail=none -Zfmt-debug=shallow" "${wasm_std_env[@]}" cargo "$1" --target wasm32-unknown-unknown "${wasm_std_flags[@]}" "${@:2}"
}

# Sets rust_src to the library folder of Debian's rust-src in exactly this rustc's version.
need_rust_src() {
  local version; version=$(rustc --version | cut -d' ' -f2)
  rust_src=$PWD/.tools/rust-src/usr/src/rustc-$version/library
  [ -d "$rust_src" ] && return
  has apt-get && has dpkg || die "no wasm32 standard library: run 'rustup target add wasm32-unknown-unknown'"
  local mirror; mirror=$(apt-get indextargets --format '$(REPO_URI)' 'Created-By: Packages' | grep -m1 '/debian/*$') ||
    die "no Debian mirror in apt's sources: run 'rustup target add wasm32-unknown-unknown'"
  local dir=$PWD/.tools/rust-src suite deb
  mkdir -p "$dir"
  for suite in trixie-backports "$(. /etc/os-release; echo "${VERSION_CODENAME:-stable}")" trixie testing sid; do
    say "looking for rust-src $version in Debian $suite"
    deb=$(rust_src_from "$mirror" "$suite" "$version" "$dir") || continue
    dpkg -x "$deb" "$dir" && rm -rf "$dir"/apt-*
    [ -d "$rust_src" ] && return
  done
  die "Debian has no rust-src $version: run 'rustup target add wasm32-unknown-unknown'"
}

# rust_src_from MIRROR SUITE VERSION DIR: downloads the package, prints its path
rust_src_from() {
  local apt=$4/apt-$2; mkdir -p "$apt/lists/partial"
  printf 'deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] %s %s main\n' "${1%/}" "$2" >"$apt/sources.list"
  local o=(-o "Dir::Etc::sourcelist=$apt/sources.list" -o Dir::Etc::sourceparts=/dev/null -o "Dir::State::Lists=$apt/lists"
    -o "Dir::Cache=$apt" -o Debug::NoLocking=1 -o APT::Sandbox::User=root)
  apt-get "${o[@]}" update -qq >&2 || return 1
  local full; full=$(apt-cache "${o[@]}" madison rust-src | awk -v v="$3" '$3 == v || index($3, v "+") == 1 { print $3; exit }')
  [ -n "$full" ] || return 1
  (cd "$apt" && apt-get "${o[@]}" download -qq "rust-src=$full" >&2) || return 1
  ls "$apt"/rust-src_*.deb
}

# The tool that makes JavaScript's side of a module (tools/bindgen).
build_bindgen() { cargo build --quiet --package bindgen --target-dir target/bindgen; }
bindgen=target/bindgen/debug/bindgen

# Not a Binaryen before 116: Debian 12's 108 exports the wrong table for wasm-bindgen's references, so that the module
# throws when it starts.
need_wasm_opt() {
  local version; version=$(wasm-opt --version 2>/dev/null | grep -om1 '[0-9]\+' | head -1) || version=0
  [ "$version" -ge 116 ] && return
  need_node; need_npm
  say "taking wasm-opt from npm (seconds)"
  npm install --prefix .tools/binaryen --no-save --no-audit --no-fund --silent binaryen@132.0.0
  mkdir -p .tools/bin; ln -sf "$PWD/.tools/binaryen/node_modules/binaryen/bin/wasm-opt" .tools/bin/wasm-opt
}

# A reader of A1111's pictures that is not ours, for tests/web/tests/metadata.test.mjs.
need_reader() {
  [ -d .tools/reader/sd_prompt_reader ] && return
  python3 -m pip --version >/dev/null 2>&1 || apt_install python3-pip
  say "taking sd-prompt-reader from PyPI (seconds)"
  python3 -m pip install --quiet --no-deps --target .tools/reader sd-prompt-reader==1.3.5 pillow piexif==1.1.3
}

# fresh TARGET: true where no source is newer than TARGET
fresh() {
  [ -f "$1" ] && [ -z "$(find Cargo.toml Cargo.lock build.sh src shaders tools -newer "$1" 2>/dev/null | head -1)" ]
}

# build_wasm [quick|release]: www/pkg/, unless it is there and new enough. A release will do where a quick one is asked for.
build_wasm() {
  local kind=${1:-quick} out=www/pkg/browser_diffusion_bg.wasm tmp=.tools/pkg
  fresh $out && { [ "$kind" = quick ] || [ -f www/pkg/.release ]; } && return
  need_rust; need_wasm_std
  case $kind in
    quick) say "building the wasm module (two minutes the first time on two quiet cores; later 20 seconds)" ;;
    release) say "building the wasm module for release (3 minutes, then 1.5 of wasm-opt, on two quiet cores)" ;;
  esac
  # Both at once: each leaves a core idle at times.
  build_bindgen & local bindgen_build=$!
  wasm_cargo build --profile "$kind" --lib
  wait $bindgen_build
  rm -rf $tmp
  $bindgen "$wasm_target/$kind/browser_diffusion.wasm" $tmp
  if [ "$kind" = release ]; then
    need_wasm_opt
    say "making it small (wasm-opt; 1.5 minutes)"
    # Smallest of the orders tried, by 4 KB gzipped: the second -Oz finds what flat code lets it see. The first KiB of
    # memory is the stack's last, which no constant offset reaches: to know that saves 5 KB more. --converge, which
    # repeats all until nothing shrinks, would save 0.1 KB in another four minutes.
    wasm-opt --low-memory-unused -Oz --flatten --rereloop -Oz --gufa-optimizing -Oz \
      --enable-bulk-memory --enable-sign-ext --enable-mutable-globals --enable-nontrapping-float-to-int \
      --enable-reference-types --enable-multivalue --enable-simd $tmp/browser_diffusion_bg.wasm -o $tmp/optimised.wasm
    mv $tmp/optimised.wasm $tmp/browser_diffusion_bg.wasm
    touch $tmp/.release
  fi
  rm -rf www/pkg; mv $tmp www/pkg; touch $out
  say "www/pkg is ready: $(gzip -9c $out | wc -c) bytes of wasm when gzipped"
}

# The comparisons of tests/ops/cases for the browser, into target/ops-check/.
build_ops_check() {
  local out=target/ops-check/ops_check_bg.wasm
  fresh $out && [ -z "$(find tests/ops/cases tests/web/support/ops_check.rs -newer $out | head -1)" ] && return
  say "building the browser's op comparisons (a minute)"
  build_bindgen
  wasm_cargo build --release --example ops_check
  $bindgen "$wasm_target/release/examples/ops_check.wasm" target/ops-check
  touch $out
}

# ---- commands ----

# www/zh/ and the like: the pages in other languages, of the English ones and languages/
render_pages() {
  need_node 16
  node tools/languages.mjs || die "the pages are not whole in every language: see above, and languages/"
}

# dist/: www/ with the smallest module, scripts and styles; packages/: npm packages of it, and a zip
publish() {
  build_wasm release; render_pages; need_node_modules
  node tools/publish.mjs
  node tools/package.mjs
  say "dist/ and packages/ are ready to publish"
}

serve() {
  build_wasm; render_pages
  exec node tests/web/support/serve.mjs www "${1:-8080}"
}

# What tests of the browser draw with. Its cargo and the native one work in folders of their own, and wait for no lock of
# each other's.
modules() { publish; build_ops_check; }

run_tests() {
  need_rust; need_wasm_std; need_vulkan_driver; need_node_modules; need_wasm_opt
  need_chromium; need_chinese_font; need_firefox; need_lavapipe; need_reader
  say "cargo fmt"
  cargo fmt --all --check
  # Beside the native checks: link-time optimisation and wasm-opt keep one core busy, these the other.
  modules & local making=$!
  trap "kill $making 2>/dev/null || :" EXIT
  say "clippy"
  cargo clippy --all-targets --quiet -- -D warnings
  wasm_cargo clippy --lib --quiet -- -D warnings
  say "native tests"
  cargo test
  if need_isa; then
    say "registers of the kernels on GPUs that are not here: no spill, no scratch"
    cargo run --quiet --profile test --example isa >.tools/isa/table.txt || { tail -n 20 .tools/isa/table.txt; exit 1; }
  else
    say "Mesa's compilers cannot be had: registers are not checked"
  fi
  wait $making
  trap - EXIT
  say "types of the JavaScript"
  tests/web/node_modules/.bin/tsc -p tests/web/tsconfig.json
  say "gates: long lines, files and functions, circles of imports"
  node tests/gates/gates.mjs
  # Two files at a time: much of one is waiting for its browser to start, or for a server that is slow on purpose. None
  # measures time, and each has its own server, profile and folders.
  say "browser tests"
  node --test --test-concurrency=2 --test-timeout=3600000 --test-reporter=spec tests/web/tests/*.test.mjs
}

# drive KIND SCRIPT ARGS...: a script of tests/web with all that a browser needs; KIND of module as build_wasm has it
drive() {
  build_wasm "$1"; render_pages; need_node_modules; need_chromium; need_lavapipe
  exec node "tests/web/$2" "${@:3}"
}

# The parity command: torch and this engine on the same files.
parity() {
  need_rust; need_vulkan_driver; need_node
  node tests/web/support/real.mjs sd15 sdxl
  say "torch"
  tests/reference/run.sh parity.py
  say "this engine"
  exec cargo run --quiet --profile test --example parity -- "$@"
}

# The step command.
step() {
  need_rust; need_vulkan_driver
  exec cargo run --quiet --profile test --example kit -- step "$@"
}

# The kit command. As tests are built: what computes the references is fast enough, and the rest is the GPU's.
kit() {
  [ $# = 1 ] || die "./build.sh kit DIR"
  need_rust
  has strip || apt_install binutils
  cargo build --quiet --profile test --example kit
  mkdir -p "$1"
  strip -o "$1/kit" "${CARGO_TARGET_DIR:-target}/debug/examples/kit"
  cp tests/bench/kit/run.sh "$1/"
  say "$1/run.sh, with $(du -sh "$1" | cut -f1) in all"
}

# Debian's packages of Mesa's compilers, unpacked beside this folder's other tools; false where they cannot be had.
need_isa() {
  [ -f .tools/isa/version ] && return
  has apt-get && [ "$(dpkg --print-architecture)" = amd64 ] || return
  say "unpacking Mesa's compilers (apt; 100 MB to fetch, half a minute)"
  tests/bench/isa/fetch.sh .tools/isa
}

# The isa command.
isa() {
  need_rust
  need_isa || die "no compilers: they are Debian's, for x86-64; see what apt-get said above, if it did"
  exec cargo run --quiet --profile test --example isa -- "$@"
}

case "${1:-}" in
  "") build_wasm; render_pages ;;
  release) publish ;;
  serve) serve "${2:-}" ;;
  test) run_tests ;;
  kit) kit "${@:2}" ;;
  generate) drive quick support/generate.mjs "${@:2}" ;;
  bench)
    case " $* " in
      *" --memory "*) drive release bench/memory.mjs "${@:2}" ;;
      *" --parity "*) parity "${@:2}" ;;
      *" --isa "*) isa "${@:2}" ;;
      *" --step "*) step "${@:2}" ;;
      *" --vs-ort "*) drive release bench/vs-ort.mjs "${@:2}" ;;
      *" --cold "*) need_firefox; drive release bench/cold.mjs "${@:2}" ;;
      *" --browsers "*) need_firefox; drive release bench/browsers.mjs ;;
      *" --trace "*) drive release bench/trace.mjs "${@:2}" ;;
      *) drive release bench/bench.mjs "${@:2}" ;;
    esac ;;
  *) sed -n '2,19s/^# \{0,3\}//p' "$0"; exit 2 ;;
esac
