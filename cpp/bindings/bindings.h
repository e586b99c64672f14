// What the files of this folder add to the module.
#pragma once

#include <pybind11/pybind11.h>

namespace edge_wm {

void bind_program(pybind11::module_ &module);

}  // namespace edge_wm
