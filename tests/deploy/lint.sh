#!/usr/bin/env bash
# Has Hadolint read docs/deploy/Dockerfile, and prints the one line that is counted.
#
# Its environment lives in the user's cache, outside the tree, and is made anew when the pinned requirement changes.
# Nothing is built: that needs a container runtime. Without a Python that will do nothing is read, which is said.
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
cache=${XDG_CACHE_HOME:-$HOME/.cache}/throng
venv=$cache/hadolint-venv
stamp=$venv/requirements.sha256
python=${PYTHON3:-python3}

if ! "$python" -c 'import venv, ensurepip' 2>/dev/null; then
    echo "LEFT OUT: no Python with venv found (looked at PYTHON3 and PATH), so the Dockerfile is not read"
    exit 0
fi
wanted=$(sha256sum <"$here/requirements.txt")
if [[ ! -x $venv/bin/hadolint || $(cat "$stamp" 2>/dev/null) != "$wanted" ]]; then
    export PIP_DISABLE_PIP_VERSION_CHECK=1
    rm -rf "$venv"
    mkdir -p "$cache"
    "$python" -m venv "$venv"
    "$venv/bin/pip" install --quiet --requirement "$here/requirements.txt"
    echo "$wanted" >"$stamp"
fi
if "$venv/bin/hadolint" --no-color "$here/../../docs/deploy/Dockerfile"; then
    echo "image: 1 passed, 0 failed"
else
    echo "image: 0 passed, 1 failed"
    exit 1
fi
