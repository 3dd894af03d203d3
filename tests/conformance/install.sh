#!/usr/bin/env bash
# Makes the Python 2.7 environment of Autobahn's testsuite and prints the path of its `wstest`.
#
# The environment lives in the user's cache, outside the tree, and is made anew when the pinned
# requirements change. Exit codes: 0 ready; 3 no Python 2.7 on this machine; anything else is a failure.
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
cache=${XDG_CACHE_HOME:-$HOME/.cache}/throng
venv=$cache/autobahn-venv
stamp=$venv/requirements.sha256

# A shim on PATH may exist for a version that is not selected, so a candidate counts only when it runs.
find_python() {
    local candidate
    for candidate in "${PYTHON27:-}" python2.7 python2 "${PYENV_ROOT:-$HOME/.pyenv}"/versions/2.7*/bin/python2.7; do
        if [[ -n $candidate ]] && "$candidate" -c 'import sys; sys.exit(sys.version_info[:2] != (2, 7))' 2>/dev/null; then
            command -v "$candidate"
            return
        fi
    done
    return 1
}

wanted=$(sha256sum <"$here/requirements.txt")
if [[ -x $venv/bin/wstest && $(cat "$stamp" 2>/dev/null) == "$wanted" ]]; then
    echo "$venv/bin/wstest"
    exit 0
fi

if ! python=$(find_python); then
    echo "no Python 2.7 found (looked at PYTHON27, PATH and pyenv)" >&2
    exit 3
fi

export PIP_DISABLE_PIP_VERSION_CHECK=1 PYTHONWARNINGS=ignore
rm -rf "$venv" "$cache/autobahn-boot"
mkdir -p "$cache"
{
    "$python" -m pip --version >/dev/null 2>&1 || "$python" -m ensurepip --user
    # The last virtualenv that runs on 2.7 itself; installed aside, so that the interpreter stays as it was.
    "$python" -m pip install --quiet --target "$cache/autobahn-boot" 'virtualenv==20.15.1'
    PYTHONPATH=$cache/autobahn-boot "$python" -m virtualenv --quiet "$venv"
    "$venv/bin/pip" install --quiet --requirement "$here/requirements.txt"
    "$venv/bin/wstest" --version
} >&2
rm -rf "$cache/autobahn-boot"
echo "$wanted" >"$stamp"
echo "$venv/bin/wstest"
