# The developer's commands; each sets up what it needs first. `make help` lists them.
.DEFAULT_GOAL := help
.PHONY: help run run-ros test test-ros test-jazzy ros-build test-arm lint misra mutate bench bench-arm clean
MAKEFLAGS += --no-print-directory
# Another Python's packages (a sourced ROS, an active environment) stay outside.
unexport PYTHONPATH PYTHONHOME VIRTUAL_ENV

DURATION ?= 30
TESTS ?=
ARGS ?=

help:  ## list these commands
	@sed -n 's/^\([a-z][a-z-]*[%]\{0,1\}\):.*## \(.*\)/  make \1\t\2/p' Makefile | expand -t 24

run:  ## set up, then drive the simulated rover and write a report: make run [DURATION=30] [ARGS=…]
	@scripts/setup.sh run
	.venv/bin/edge-wm run --duration $(DURATION) $(ARGS)

run-ros:  ## the same as ROS 2 nodes in processes of their own: make run-ros [DURATION=30] [ARGS=…]
	@scripts/setup.sh ros
	.venv-ros/bin/edge-wm run --ros --duration $(DURATION) $(ARGS)

test:  ## set up, then run the suite: make test [TESTS=tests/guard] [ARGS=-x]
	@scripts/setup.sh test
	@scripts/setup.sh tflite
	@scripts/setup.sh ros
	.venv/bin/python -m pytest $(TESTS) $(ARGS)
	@[ -n "$(TESTS)" ] || $(MAKE) test-ros

test-ros:  ## the ROS 2 nodes alone, with real rclpy and a process each
	@scripts/setup.sh ros
	@scripts/setup.sh jazzy
	@scripts/setup.sh colcon
	@if [ -x .venv-ros/bin/python ]; then echo ".venv-ros/bin/python -m pytest tests/ros2"; \
	  .venv-ros/bin/python -m pytest tests/ros2 $(ARGS); \
	else echo "tests/ros2: not run, there is no rclpy for this machine (see above)"; fi
	@[ -n "$(ARGS)" ] || [ ! -x .venv-jazzy/bin/python ] || $(MAKE) test-jazzy

# A choice that every kind of call goes through: messages, a drive, a killed process, an e-stop.
test-jazzy:
	.venv-jazzy/bin/python -m pytest tests/ros2/test_conversions.py tests/ros2/test_robot.py \
	  --deselect "tests/ros2/test_robot.py::test_the_runtime_is_killed[2]" \
	  -k "conversions or drives_to or runtime_is_killed or emergency or stops_in_time"

ros-build:  ## colcon build and colcon test of ros2_ws, with the wheels of PyPI or a sourced ROS 2
	@scripts/setup.sh ros
	scripts/ros_build.sh $(ARGS)

test-arm:  ## the kernels alone, on this processor and on four emulated ARM ones
	@scripts/setup.sh test
	.venv/bin/python -m pytest tests/arm $(ARGS)

lint:  ## style and types, for every Python that edge-wm is written for
	@scripts/setup.sh test
	.venv/bin/ruff check .
	.venv/bin/ruff format --check .
	.venv/bin/python scripts/generate_tables.py --check
	.venv/bin/python scripts/generate_wire.py --check
	.venv/bin/mypy --ignore-missing-imports --allow-subclassing-any \
	  ros2_ws/src/edge_wm_ros/edge_wm_ros
	@for version in 3.10 3.11 3.12 3.13; do \
	  echo "mypy --python-version $$version"; \
	  .venv/bin/mypy --python-version $$version --cache-dir .mypy_cache/$$version || exit 1; \
	done

bench:  ## the native engine against its peers: make bench [ARGS="tdmpc2 --quick"] (ARGS=--help)
	@scripts/setup.sh bench
	.venv/bin/python -m pytest tests/bench -o python_files='bench_*.py' \
	  -o python_functions='bench_*' --benchmark-columns=min,median,rounds -q
	PYTHONPATH=tests/bench .venv/bin/python -m engine_bench $(ARGS)

bench-arm:  ## what the kernels' inner loops would cost on ARM cores: an estimate, by llvm-mca
	@scripts/setup.sh test
	@scripts/setup.sh bench-arm
	.venv/bin/python scripts/bench_arm.py $(ARGS)

misra:  ## cppcheck and MISRA C:2012 over the firmware, by rule (docs/firmware-checks.md)
	@scripts/setup.sh test
	.venv/bin/python scripts/check_misra.py $(ARGS)

mutate:  ## change the firmware's safety code, see whether a test notices: make mutate [ARGS="--count 40"]
	@scripts/setup.sh test
	.venv/bin/python scripts/mutate_firmware.py $(ARGS)

prove-ros:
	@scripts/setup.sh ros
	.venv-ros/bin/python scripts/prove.py ros

prove-%:  ## the full figures of one topic, into docs/proofs.json (resumable)
	@scripts/setup.sh test
	.venv/bin/python scripts/prove.py $*

clean:  ## remove what make made: environments, builds, caches (not runs/)
	rm -rf .venv .venv-tflite .venv-ros .venv-jazzy .venv-colcon build dist edge_wm/_native*.so .mypy_cache .ruff_cache \
	  .pytest_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
