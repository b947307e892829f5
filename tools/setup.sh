#!/usr/bin/env bash
# Make the environment that the Makefile needs. Safe to interrupt and to repeat.
#   tools/setup.sh install EXTRAS [OPTIONAL [BROWSER]]   .venv with this package (editable) and these extras, and
#                                              system libraries; an optional extra that does not install is left out,
#                                              and so is the Debian package of a browser where there is none yet
#   tools/setup.sh torch PYTHON                torch alone, into the environment of that interpreter
# PYTHON (interpreter), TORCH (version), TORCH_INDEX (its package index) override the choices.
set -euo pipefail
cd "$(dirname "$0")/.."

VENV=.venv # fixed: an editable install belongs to one source tree
TORCH=${TORCH:-2.13.0}
CPU_INDEX=https://download.pytorch.org/whl/cpu
LOG=$PWD/.setup.log
LIBRARIES="libegl1 libgl1 libgomp1 libusb-1.0-0" # MuJoCo draws off screen with the first two; Open3D loads all but EGL

say() { echo "setup: $*"; }
die() { printf 'setup: %s\n' "$@" >&2; exit 1; }

logged() {
  "$@" >>"$LOG" 2>&1 && return
  tail -n 15 "$LOG" >&2
  die "failed: $*" "everything it printed: $LOG"
}

as_root() { [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; }

apt_install() {
  say "Debian packages: $*"
  { apt-get update -q && DEBIAN_FRONTEND=noninteractive apt-get install -q -y --no-install-recommends "$@"; } \
    </dev/null >>"$LOG" 2>&1
}

# --- Python -----------------------------------------------------------------------------------------------
# Candidates are run before they are believed: a version manager's shim can exist and not work.
supported() { "$1" -c 'import sys; sys.exit(sys.version_info[:2] not in [(3, 11), (3, 12)])' 2>/dev/null; }
complete() { "$1" -c 'import venv, ensurepip' 2>/dev/null; }

candidates() {
  if [ -n "${PYTHON:-}" ]; then echo "$PYTHON"; return; fi
  type -ap python3.11 python3.12 python3 || true
  ls -d ~/.pyenv/versions/3.1[12].*/bin/python3 ~/.local/share/uv/python/cpython-3.1[12]*/bin/python3 2>/dev/null || true
}

first() { # the first candidate that passes all the tests named
  local python check
  while read -r python; do
    for check in "$@"; do "$check" "$python" || continue 2; done
    echo "$python" && return
  done < <(candidates)
}

install_python() { # what is missing for a virtual environment: the interpreter, or Debian's half of it
  local partial packages
  partial=$(first supported)
  packages="python3 python3-venv"
  if [ -n "$partial" ]; then
    packages=$("$partial" -c 'import sys; print("python%d.%d-venv" % sys.version_info[:2])')
  fi
  if as_root && [ -z "${PYTHON:-}" ]; then apt_install $packages || true; fi
  [ -n "$(first supported complete)" ] && return
  die "no usable Python 3.11 or 3.12 found${PYTHON:+ in PYTHON=$PYTHON}. One of these gets it:" \
    "  sudo apt install $packages                  (Debian 12, Ubuntu 24.04)" \
    "  curl -LsSf https://astral.sh/uv/install.sh | sh && ~/.local/bin/uv python install 3.12" \
    "then start again; or name one: make PYTHON=/path/to/python3.12 ..."
}

make_venv() {
  if supported "$VENV/bin/python" && "$VENV/bin/python" -m pip --version >/dev/null 2>&1; then return; fi
  local python stale=""
  [ -n "$(first supported complete)" ] || install_python
  python=$(first supported complete)
  supported "$VENV/bin/python" || stale=--clear
  if [ -n "$stale" ] && "$VENV/bin/python" -c '' 2>/dev/null; then
    die "$VENV is an environment of another Python: $("$VENV/bin/python" -V). Remove it and start again."
  fi
  say "$VENV from $python ($("$python" -V))"
  logged "$python" -m venv $stale "$VENV"
}

# --- packages ---------------------------------------------------------------------------------------------
pip() { "$python" -m pip --disable-pip-version-check --no-input "$@"; }

# What a killed install leaves: packages that it had set aside (~name), and metadata that pip would take for a
# complete package although it had not come to its scripts and its INSTALLER file.
forget_partial_installs() {
  local info
  rm -rf "$VENV"/lib/python3*/site-packages/~*
  for info in "$VENV"/lib/python3*/site-packages/*.dist-info; do
    if [ -d "$info" ] && [ ! -e "$info/INSTALLER" ]; then rm -r "$info"; fi
  done
}

has_nvidia() { command -v nvidia-smi >/dev/null || [ -e /dev/nvidiactl ]; }
has_torch() { "$python" -c "from importlib.metadata import version as v; assert v('torch').split('+')[0] == '$TORCH'" 2>/dev/null; }

cpu_torch() { # the default index may give the CUDA build, which is gigabytes: it is asked last
  pip install --no-deps "torch==$TORCH+cpu" ||
    pip install --no-deps --timeout 15 --retries 1 --index-url "$CPU_INDEX" "torch==$TORCH+cpu" ||
    pip install "torch==$TORCH"
}

install_torch() {
  has_torch && return
  if [ -n "${TORCH_INDEX:-}" ]; then
    say "torch $TORCH from $TORCH_INDEX"
    logged pip install --index-url "$TORCH_INDEX" "torch==$TORCH"
  elif has_nvidia; then
    say "torch $TORCH for this machine's NVIDIA GPU"
    logged pip install "torch==$TORCH"
  else
    say "torch $TORCH, CPU build"
    logged cpu_torch
  fi
}

install_optional() { # an extra that is compiled here; alone, because it may fail
  say "robolearn[$1] (compiled here: a few minutes)"
  pip install --editable ".[$1]" >>"$LOG" 2>&1 || say "robolearn[$1] was left out: it could not be built (log: .setup.log)"
}

install_libraries() {
  command -v dpkg-query >/dev/null || return 0
  local name missing=""
  for name in $LIBRARIES; do
    dpkg-query -W -f='${Status}' "$name" 2>/dev/null | grep -q 'ok installed' || missing+=" $name"
  done
  [ -z "$missing" ] && return
  if as_root && apt_install $missing; then return; fi
  say "no video without these (the rest works): sudo apt install$missing"
}

install_browser() { # for the tests of the operator's page; whoever uses the page has a browser of their own
  { command -v chromium || command -v google-chrome; } >/dev/null && return
  if as_root && apt_install "$1"; then return; fi
  say "the tests that need a browser will be skipped (the rest works): sudo apt install $1"
}

# --- main -------------------------------------------------------------------------------------------------
case ${1:-} in
  install)
    exec 9<"$0" && flock 9 # one at a time
    : >"$LOG"
    make_venv
    python=$VENV/bin/python
    install_libraries
    if [ -n "${4:-}" ]; then install_browser "$4"; fi
    forget_partial_installs
    install_torch
    say "robolearn[$2] and what it needs (a few minutes the first time; log: .setup.log)"
    logged pip install --editable ".[$2]"
    if [ -n "${3:-}" ]; then install_optional "$3"; fi
    say "done"
    ;;
  torch) python=$2 && install_torch ;;
  *) die "usage: tools/setup.sh install EXTRAS [OPTIONAL [BROWSER]] | torch PYTHON" ;;
esac
