// edge_wm._native, and with the files beside it the only pybind11 code. It takes arrays without conversion, releases the GIL
// and calls a kernel; what the arrays must be is checked and explained in Python before.
//
// `array_t<T, c_style>` with noconvert() is the one form that neither copies nor lies: without
// c_style, pybind11 hands out the raw pointer of a strided array.
#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>

#include <cstdint>
#include <stdexcept>

#include "../kernels/nonfinite.h"
#include "bind.h"

namespace py = pybind11;

namespace {

py::array_t<bool> nonfinite_rows(const py::array_t<float, py::array::c_style> &values) {
    if (values.ndim() != 2) {
        throw std::invalid_argument("nonfinite_rows: values must have 2 axes");
    }
    py::array_t<bool> rows(values.shape(0));
    const float *in = values.data();
    static_assert(sizeof(bool) == sizeof(std::uint8_t), "numpy's bool is one byte");
    auto *out = reinterpret_cast<std::uint8_t *>(rows.mutable_data());
    const auto count = static_cast<std::size_t>(values.shape(0));
    const auto columns = static_cast<std::size_t>(values.shape(1));
    {
        py::gil_scoped_release release;
        edge_wm::kernels::nonfinite(in, count, columns, out);
    }
    return rows;
}

}  // namespace

PYBIND11_MODULE(_native, module) {
    module.doc() = "The compiled part of edge-wm; edge_wm.numbers and edge_wm.planner open it.";
    module.def("nonfinite_rows", &nonfinite_rows, py::arg("values").noconvert());
    bind_planner(module);
    bind_program(module);  // its Rollout is one of the planner's imaginations
}
