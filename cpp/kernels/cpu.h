// Which instruction sets this processor has, and the kernels for the best of them.
#pragma once

#include <vector>

#include "kernels.h"

namespace edge_wm::kernels {

// What was compiled and this processor can run, the best first; `plain` is always the last.
std::vector<const Kernels *> available();

// The kernels of that name, the best for an empty one; null if this machine has none such.
const Kernels *find(const char *name);

}  // namespace edge_wm::kernels
