// What each file of bindings/ adds to edge_wm._native.
#pragma once

#include <pybind11/pybind11.h>

// Imagination, CallableImagination, DistanceImagination and Search. Comes before whatever derives
// from Imagination: a base class must be known first.
void bind_planner(pybind11::module_ &module);

// Step programs: Program, Graph, Rollout; which kernels there are, and what they can do at most.
void bind_program(pybind11::module_ &module);
