# Shared by script/quickstart and script/test: find Python, make .venv, install into it.
# shellcheck shell=bash

export PIP_DISABLE_PIP_VERSION_CHECK=1

step() { printf '\n== %s\n' "$*"; }

die() {
    printf 'error: %s\n' "$*" >&2
    exit 2
}

# Install Debian packages if this machine has apt-get and lets us use it.
apt_install() {
    local as_root=()
    command -v apt-get >/dev/null || return 1
    if [ "$(id -u)" -ne 0 ]; then
        sudo -n true 2>/dev/null || return 1
        as_root=(sudo -n)
    fi
    echo "apt-get install $*"
    local install=(env DEBIAN_FRONTEND=noninteractive apt-get install -y -q --no-install-recommends "$@")
    # An image without package lists needs them once.
    ${as_root[@]+"${as_root[@]}"} "${install[@]}" >/dev/null 2>&1 && return 0
    ${as_root[@]+"${as_root[@]}"} apt-get update -q >/dev/null && ${as_root[@]+"${as_root[@]}"} "${install[@]}"
}

# Print the name of a Python >= 3.11.
find_python() {
    local name
    for name in python3 python3.13 python3.12 python3.11 python3.14 python; do
        if "$name" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
            echo "$name"
            return 0
        fi
    done
    return 1
}

make_venv() {
    .venv/bin/python -m pip --version >/dev/null 2>&1 && return 0
    local python
    python=$(find_python) || die "no Python >= 3.11 found: install one (Debian: apt-get install python3 python3-venv; macOS: brew install python)."
    step "make .venv with $("$python" --version)"
    # Debian keeps venv in a package of its own.
    "$python" -c 'import venv, ensurepip' 2>/dev/null || apt_install python3-venv || true
    "$python" -m venv --clear .venv || die "$python cannot make a virtual environment: install its venv module (Debian: apt-get install python3-venv) and run this again."
}

pip_install() {
    .venv/bin/python -m pip install -q "$@" || die "pip could not install musicrl: see its message above, check the network, and run this again."
}
