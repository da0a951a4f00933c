// SPDX-License-Identifier: Apache-2.0
//
// One plain call of a layer from the values of its parameters to its outputs, kept so that
// cotangents can go all the way back: what a layer does when no transform looks at it.
#pragma once

#include <memory>
#include <vector>

#include "layer_program.hpp"

namespace cvxlayer {

/// A batch that was solved. Its results may be completed from outside, if rows failed, before
/// anything else reads them.
class LayerRun {
 public:
  /// Solve with the data at θ and write the first outputs of the program, one row per instance,
  /// to `outputs`.
  LayerRun(const LayerProgram& program, ProgramData data, const Theta& theta, long batch,
           const SolveSettings& settings, int threads, int width,
           const std::vector<double*>& outputs);

  bool is_solved() const { return is_solved_; }
  const LayerProgram& program() const { return program_; }
  long batch() const { return batch_; }
  int threads() const { return threads_; }
  /// Wall time of the solve.
  double seconds() const { return seconds_; }
  const StructureView& structure() const { return program_.structure(); }
  SolveResults results() const;
  Scaling scaling() const;
  /// Whether all instances share one row (d, e) of scale factors.
  bool has_shared_scaling() const;

  /// The cotangents of θ from those of the outputs; null ones are zero, or not wanted. A block of
  /// theta_bar with one row gets the sum. Writes the relative residual of each row's system to
  /// `residual`. Of outputs that are not exponentials.
  void pull_back(const std::vector<RowBlock>& outputs_bar, const std::vector<RowBlock>& theta_bar,
                 double* residual) const;

 private:
  /// The same for some rows, all of them if there are sums.
  void pull_back_rows(std::vector<RowBlock> outputs_bar, std::vector<RowBlock> theta_bar,
                      double* residual, long begin, long end, int threads) const;

  const LayerProgram& program_;
  long batch_;
  int threads_, width_;
  ProgramData data_;
  std::unique_ptr<double[]> reals_;       // x, y, s, three residuals, (d, e), cost
  std::unique_ptr<std::int8_t[]> codes_;  // status, active rows
  std::unique_ptr<std::int32_t[]> iterations_;
  bool is_solved_ = false;
  double seconds_ = 0.0;
};

}  // namespace cvxlayer
