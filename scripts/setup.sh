#!/usr/bin/env bash
# Sets this checkout up:
#   scripts/setup.sh run | test | bench | tflite | ros | jazzy | colcon | arm | bench-arm
#
#   run        .venv with what `edge-wm run` needs, and the compiled module
#   test       the same, and what the suite needs
#   bench      the same, and the other engines that `make bench` compares with
#   tflite     .venv-tflite: tflite-runtime 2.14, which needs Python 3.10 or 3.11 and numpy < 2
#   ros        .venv-ros: rclpy with Fast DDS from PyPI (x86-64), and the ROS packages of ros2_ws
#   jazzy      .venv-jazzy: the same with the wheels of Jazzy, for the suite
#   colcon     .venv-colcon: colcon and rosidl from PyPI, to build ros2_ws as a ROS user does
#   arm        a compiler and an emulator for 64-bit ARM; part of `test`
#   bench-arm  the same, and llvm-mca
#
# Does only what is missing, says what it does and why, and may be interrupted anywhere.
# PYTHON=/path/to/python chooses the Python of a new environment.
set -euo pipefail
cd "$(dirname "$0")/.."

say() { printf '\033[1m[setup]\033[0m %s\n' "$*"; }
fail() { printf '[setup] %s\n' "$*" >&2; exit 1; }

# ---- Python -----------------------------------------------------------------------------
version_fits() {  # PYTHON LOWEST HIGHEST: does it start, and is it 3.LOWEST to 3.HIGHEST?
    "$1" -c "import sys; sys.exit(not (3, $2) <= sys.version_info[:2] <= (3, $3))" 2>/dev/null
}
has_venv() { "$1" -c 'import ensurepip, venv' 2>/dev/null; }
has_headers() {
    "$1" -c 'import os, sysconfig
os.stat(os.path.join(sysconfig.get_path("include"), "Python.h"))' 2>/dev/null
}
find_python() {  # LOWEST HIGHEST CHECK...: the first Python that passes every check
    local candidate check lowest=$1 highest=$2
    shift 2
    for candidate in ${PYTHON:-python3.11 python3.12 python3.10 python3.13 python3 /usr/bin/python3}
    do
        version_fits "$candidate" "$lowest" "$highest" || continue
        for check in "$@"; do "$check" "$candidate" || continue 2; done
        command -v "$candidate"
        return
    done
    return 1
}

# ---- system packages --------------------------------------------------------------------
missing_packages=()
missing() {  # PACKAGE WHY
    missing_packages+=("$1")
    say "missing system package $1: $2"
}
has_library() { { /sbin/ldconfig -p || true; } 2>/dev/null | grep -q "$1"; }
list_missing() {
    if ! find_python 10 13 has_venv has_headers >/dev/null; then
        [ -z "${PYTHON:-}" ] || fail "PYTHON=$PYTHON must be Python 3.10 to 3.13 with venv and \
headers (python3-venv, python3-dev); choose another or unset it"
        missing python3 "the runtime is written for Python 3.10 to 3.13"
        missing python3-venv "to keep edge-wm's packages in .venv, apart from the system's"
        missing python3-dev "Python's headers, for the compiled module"
    fi
    command -v g++ >/dev/null || missing g++ "compiles the kernels"
    command -v cmake >/dev/null || missing cmake "builds the compiled module"
    command -v ninja >/dev/null || missing ninja-build "builds the compiled module"
    has_library 'libEGL\.so\.1' || missing libegl1 "the simulated camera renders without a screen"
    has_library 'libEGL_mesa\.so\.0' || missing libegl-mesa0 "software rendering"
    has_library 'libOpenGL\.so\.0' || missing libopengl0 "the simulated camera renders with OpenGL"
    ls /usr/lib/*/dri/swrast_dri.so >/dev/null 2>&1 || has_library 'libgallium' ||
        missing libgl1-mesa-dri "software rendering"
}
apt_updated=
apt_install() {  # PACKAGES...
    local as_root=() step
    local command="apt-get install -y --no-install-recommends $*"
    command -v apt-get >/dev/null || { say "no apt-get here; install what the packages above hold"
        return 1; }
    if [ "$(id -u)" -ne 0 ]; then
        command -v sudo >/dev/null || { say "neither root nor sudo; as root: $command"; return 1; }
        as_root=(sudo)
    fi
    say "${as_root[*]:+sudo }$command"
    for step in "${apt_updated:-apt-get update}" "$command"; do
        "${as_root[@]}" env DEBIAN_FRONTEND=noninteractive $step >build/apt.log 2>&1 ||
            { cat build/apt.log >&2; say "failed: $step"; return 1; }
    done
    apt_updated=true
}
install_missing() {
    list_missing
    [ ${#missing_packages[@]} -eq 0 ] || apt_install "${missing_packages[@]}" || exit 1
}
# Without these the suite runs, and says which of its tests were skipped.
install_arm_tools() {  # [llvm-mca]
    [ "$(uname -m)" = x86_64 ] || return 0
    missing_packages=()
    command -v aarch64-linux-gnu-g++ >/dev/null ||
        missing g++-aarch64-linux-gnu "compiles the kernels for ARM, which the suite tests"
    command -v qemu-aarch64 >/dev/null || missing qemu-user "runs them, as four ARM processors"
    [ -e /usr/include/simde/x86/avx512.h ] ||
        missing libsimde-dev "checks the AVX-512 kernels on processors without AVX-512"
    if [ "${1:-}" = llvm-mca ] && ! command -v llvm-mca-19 >/dev/null; then
        missing llvm-19 "llvm-mca estimates the cost of loops on ARM cores"
    fi
    [ ${#missing_packages[@]} -eq 0 ] || apt_install "${missing_packages[@]}" ||
        say "could not be installed: what needs them is skipped"
}

install_firmware_tools() {
    missing_packages=()
    command -v arm-none-eabi-gcc >/dev/null ||
        missing gcc-arm-none-eabi "compiles the firmware for microcontrollers"
    [ -d /usr/lib/arm-none-eabi/newlib ] || [ -d /usr/include/newlib ] ||
        missing libnewlib-arm-none-eabi "is the C library of microcontrollers"
    command -v qemu-system-arm >/dev/null ||
        missing qemu-system-arm "runs the firmware on an emulated Cortex-M4"
    command -v cppcheck >/dev/null || missing cppcheck "checks the firmware's C"
    command -v clang-14 >/dev/null || missing clang-14 "fuzzes the firmware's parser and limiter"
    [ -n "$(find /usr/lib/llvm-14 -name 'libclang_rt.fuzzer*' -print -quit 2>/dev/null)" ] ||
        missing libclang-rt-14-dev "is the fuzzer and its sanitizers"
    [ ${#missing_packages[@]} -eq 0 ] || apt_install "${missing_packages[@]}" ||
        say "could not be installed: what needs them is skipped"
    [ -f build/downloads/bearssl/inc/bearssl.h ] || say "fetching the bootloader's cryptography"
    PYTHON=$PWD/.venv/bin/python firmware_bridge/mcu/boot/fetch.sh build/downloads ||
        say "could not be fetched: the bootloader's tests are skipped"
}

# ---- environments -----------------------------------------------------------------------
works() { "$1/bin/python" -m pip --version >/dev/null 2>&1; }
make_venv() {  # FOLDER PYTHON: anew, also where one was cut off or its Python is gone
    say "$1: new virtual environment with $("$2" --version) ($2)"
    "$2" -m venv --clear "$1"
}
stamp_of() {  # PYTHON EXTRAS: changes when what should be installed changes
    { "$1" --version; echo "$2" "$PWD"; cat pyproject.toml constraints.txt; } | sha256sum
}
install_packages() {  # FOLDER EXTRAS PIP-OPTIONS...
    local python=$1/bin/python extras=$2 stamp=$1/.edge-wm-$2
    shift 2
    if [ "$(cat "$stamp" 2>/dev/null)" = "$(stamp_of "$python" "$extras")" ]; then return; fi
    say "installing edge-wm[$extras] and what it needs"
    # wheel and setuptools: for packages that come as sources only (cobs)
    "$python" -m pip install -q --disable-pip-version-check "$@" 'scikit-build-core>=0.11' wheel \
        'pybind11>=2.13' 'setuptools<80'
    "$python" -m pip install -q --disable-pip-version-check --no-build-isolation "$@" \
        -e ".[$extras]"
    stamp_of "$python" "$extras" >"$stamp"
}
build_native() {
    local python=$PWD/.venv/bin/python build
    build=build/native-$("$python" -c 'import sys; print(sys.implementation.cache_tag)')
    if [ ! -e "$build/build.ninja" ]; then
        say "building the compiled module in $build"
        cmake -S . -B "$build" -G Ninja -DPython_EXECUTABLE="$python" >/dev/null
    fi
    cmake --build "$build" >"$build/log" || { cat "$build/log" >&2; fail "the build failed"; }
    cmake --install "$build" --prefix . >/dev/null
}

# ---- the four set-ups ------------------------------------------------------------------
set_up_venv() {  # EXTRAS
    install_missing
    if ! works .venv; then
        local python
        python=$(find_python 10 13 has_venv has_headers) || fail "Python 3.10 to 3.13 is needed, \
found $(python3 --version 2>&1); install one and run: PYTHON=/path/to/it make ..."
        make_venv .venv "$python"
    fi
    install_packages .venv "$1" -c constraints.txt
    build_native
}
set_up_tflite() {
    if ! works .venv-tflite; then
        local python
        if ! python=$(PYTHON='' find_python 10 11 has_venv); then
            say "no Python 3.10 or 3.11 with venv, which tflite-runtime 2.14 needs: not tested"
            return
        fi
        make_venv .venv-tflite "$python"
    fi
    install_packages .venv-tflite tflite
}

# The wheels of rclpy change how their Python starts, so they have an environment of their own.
set_up_ros() {
    if [ -n "${ROS_DISTRO:-}" ] && [ -z "${_ROS_WHEELS_BOOTSTRAP_COMPLETE:-}" ]; then
        say "ROS 2 ${ROS_DISTRO} is sourced here: its rclpy is used, nothing is installed beside it;"
        say "build ros2_ws with colcon (ros2_ws/README.md)"
        return
    fi
    if [ "$(uname -m)" != x86_64 ]; then
        say "rclpy is on PyPI for x86-64 only; on this machine ROS 2 comes from apt: not set up"
        return
    fi
    ros_venv .venv-ros run,ros-pypi,ros-peers,dev
}
set_up_jazzy() {
    [ -x .venv-ros/bin/python ] || return 0  # said above why
    ros_venv .venv-jazzy run,ros-pypi-jazzy,dev
}
ros_venv() {  # FOLDER EXTRAS
    works "$1" || make_venv "$1" "$(.venv/bin/python -c 'import sys; \
print(getattr(sys, "_base_executable", sys.executable))')"
    # empy, which the wheels need, is built from its source
    "$1/bin/python" -c 'import wheel' 2>/dev/null ||
        "$1/bin/python" -m pip install -q --disable-pip-version-check wheel 'setuptools<80'
    install_packages "$1" "$2" -c constraints.txt
    if ! "$1/bin/python" -c 'import edge_wm_ros' 2>/dev/null; then
        say "installing the ROS package edge_wm_ros in $1"
        "$1/bin/python" -m pip install -q --disable-pip-version-check --no-deps \
            -e ros2_ws/src/edge_wm_ros
    fi
}

set_up_colcon() {
    [ -x .venv-ros/bin/python ] || return 0  # said above why
    PYTHON="$(.venv/bin/python -c 'import sys; \
print(getattr(sys, "_base_executable", sys.executable))')" scripts/ros_build.sh --set-up
}

mkdir -p build
exec 9>build/.setup-lock
flock 9
case "${1:-}" in
    run) set_up_venv run ;;
    test) set_up_venv run,litert,motors,dev; install_arm_tools; install_firmware_tools ;;
    bench) set_up_venv run,litert,dev,bench ;;
    tflite) set_up_tflite ;;
    ros) set_up_venv run; set_up_ros ;;
    jazzy) set_up_jazzy ;;
    colcon) set_up_colcon ;;
    arm) install_arm_tools ;;
    bench-arm) install_arm_tools llvm-mca ;;
    *) fail "usage: scripts/setup.sh run | test | bench | tflite | ros | jazzy | colcon | arm | \
bench-arm" ;;
esac
