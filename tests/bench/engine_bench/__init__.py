"""The native engine against its peers: whole plans, interleaved, on one pinned core.

    cases/      the world models, as ONNX files with seeded random weights
    case.py     what a case is;  graph_writer.py  writes its files;  unroll.py  joins H steps
    imagination.py, planning.py   from functions to rollouts, from rollouts to a plan, in numpy
    peers.py    onnxruntime, OpenVINO, LiteRT, torch;  int8_graphs.py  quantizes for them
    native_engine.py              the one file that knows the native engine
    clock.py, memory.py, machine.py   how it is measured;  accuracy.py  what int8 costs
    table.py, picture.py, budget.py   what is shown, and what fails

Run it by `make bench`, or PYTHONPATH=tests/bench .venv/bin/python -m engine_bench --help.
"""
