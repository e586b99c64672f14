#!/bin/sh
# Build the firmware, only what is out of date: build.sh posix | lockstep | qemu |
# stm32f405 | stm32f405-emulated | rp2040 | fuzz | generated.
# The last line of its output is the path of what was built. Headers are generated first, from the
# schema (nunavut), the tables of modes and reasons, and the sources' hash.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
root=$(cd "$here/../.." && pwd)
what=${1:-posix}
python=${PYTHON:-}
if [ -z "$python" ]; then
    for python in "$root/.venv/bin/python" "$root/.venv-ros/bin/python" python3; do
        command -v "$python" >/dev/null 2>&1 && "$python" -c 'import nunavut' 2>/dev/null && break
    done
fi
exec "$python" "$root/firmware_bridge/build.py" "$what"
