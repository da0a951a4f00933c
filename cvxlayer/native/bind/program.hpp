// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <nanobind/nanobind.h>

namespace cvxlayer {

/// Add the classes `LayerProgram` and `LayerRun`.
void bind_program(nanobind::module_& module);

/// Add the classes `TensorProgram` and `TensorRun`.
void bind_tensors(nanobind::module_& module);

}  // namespace cvxlayer
