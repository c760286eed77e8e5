#!/usr/bin/env bash
# Makes .venv with what the program needs; with "dev", what the tests need, too. Does nothing where that is up to date.
set -euo pipefail
cd "$(dirname "$0")/.."
kind=${1:-program} # or dev

fail() {
    printf '\n%s\n' "$@" >&2
    exit 1
}

python=${PYTHON:-python3}
command -v "$python" >/dev/null || fail "Decant needs Python 3.11 or newer, and $python is not there." \
    "On Debian or Ubuntu: sudo apt-get install python3 python3-venv"
"$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' ||
    fail "Decant needs Python 3.11 or newer; $python is $("$python" -V)." "Name another one: make install PYTHON=python3.12"

app=() # the packages of the app in app/, whose tests run with the others; another app may name them elsewhere
if [[ -f app/requirements.txt ]]; then app=(app/requirements.txt); fi
digest() { cat "$@" | "$python" -c 'import hashlib, sys; print(hashlib.sha256(sys.stdin.buffer.read()).hexdigest())'; }
program="program $(digest requirements.txt pyproject.toml)"
dev="dev $(digest requirements.txt pyproject.toml requirements-dev.txt "${app[@]}")"
if [[ -x .venv/bin/python ]] && grep -qsx "${!kind}" .venv/.installed; then exit 0; fi

if ! [[ -x .venv/bin/python ]]; then
    if ! "$python" -c 'import ensurepip' 2>/dev/null; then
        if [[ $(id -u) == 0 ]] && command -v apt-get >/dev/null; then
            echo "Installing python3-venv, which Debian keeps apart from Python ..."
            if ! { apt-get -qq update && DEBIAN_FRONTEND=noninteractive apt-get -qq install -y python3-venv >/dev/null; }; then
                fail "python3-venv could not be installed." "Try: apt-get install python3-venv"
            fi
        else
            fail "Python's venv module is not complete." "On Debian or Ubuntu: sudo apt-get install python3-venv"
        fi
    fi
    echo "Making .venv ..."
    "$python" -m venv .venv
fi

echo "Installing the $kind's packages into .venv ..."
pip() { .venv/bin/python -m pip --disable-pip-version-check -q "$@"; }
install() {
    # uv takes seconds where pip takes a minute; pip knows settings (an index, a proxy) that uv may not.
    if .venv/bin/uv --version >/dev/null 2>&1 || pip install 'uv==0.13.9' 2>/dev/null; then
        UV_SYSTEM_CERTS=1 .venv/bin/uv pip install -q --python .venv/bin/python "$@" 2>/dev/null && return
    fi
    pip install "$@"
}
sorry=("The packages could not be installed." "Can this computer reach its Python package index?")
if [[ $kind == dev ]]; then
    install --require-hashes -r requirements.txt -r requirements-dev.txt || fail "${sorry[@]}"
    for file in "${app[@]}"; do
        hashes=()
        if grep -q -- --hash= "$file"; then hashes=(--require-hashes); fi
        install "${hashes[@]}" -r "$file" || fail "${sorry[@]}"
    done
    install --no-deps -e . || fail "${sorry[@]}"
    printf '%s\n' "$program" "$dev" >.venv/.installed
else
    install --require-hashes -r requirements.txt || fail "${sorry[@]}"
    install --no-deps -e . || fail "${sorry[@]}"
    printf '%s\n' "$program" >.venv/.installed
fi
