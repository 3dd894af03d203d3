#!/usr/bin/env bash
# Makes the Python environment of Schemathesis and prints the path of its `st`.
#
# The environment lives in the user's cache, outside the tree, and is made anew when the pinned requirements
# change. Exit codes: 0 ready; 3 no Python that will do on this machine; anything else is a failure.
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
cache=${XDG_CACHE_HOME:-$HOME/.cache}/throng
venv=$cache/schemathesis-venv
stamp=$venv/requirements.sha256

find_python() {
    local candidate
    for candidate in "${PYTHON3:-}" python3; do
        if [[ -n $candidate ]] && "$candidate" -c 'import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 10))' 2>/dev/null; then
            command -v "$candidate"
            return
        fi
    done
    return 1
}

wanted=$(sha256sum <"$here/requirements.txt")
if [[ -x $venv/bin/st && $(cat "$stamp" 2>/dev/null) == "$wanted" ]]; then
    echo "$venv/bin/st"
    exit 0
fi

if ! python=$(find_python); then
    echo "no Python 3.10 or later with venv found (looked at PYTHON3 and PATH)" >&2
    exit 3
fi

export PIP_DISABLE_PIP_VERSION_CHECK=1
rm -rf "$venv"
mkdir -p "$cache"
{
    "$python" -m venv "$venv"
    "$venv/bin/pip" install --quiet --requirement "$here/requirements.txt"
    "$venv/bin/st" --version
} >&2
echo "$wanted" >"$stamp"
echo "$venv/bin/st"
