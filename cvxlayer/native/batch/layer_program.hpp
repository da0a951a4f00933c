// SPDX-License-Identifier: Apache-2.0
//
// A whole compiled program without Python: θ ↦ (P, q, A, b), what its derivatives multiply, and
// the way back to the user's variables. `program/parametric.py` and `program/recovery.py` are
// the readable specification.
#pragma once

#include <array>
#include <cstdint>
#include <memory>
#include <vector>

#include "engine.hpp"
#include "sparse_map.hpp"

namespace cvxlayer {

/// What a layer asks of the engine where its user says nothing; as in `solve/native.py`.
constexpr double kInfeasibleTolerance = 1e-8;
constexpr int kDefaultIterations = 100;

/// The settings of a whole solve; a limit of 0 iterations stands for ours.
inline SolveSettings layer_settings(double eps_abs, double eps_rel, int limit, bool polish) {
  return {
      eps_abs, eps_rel, kInfeasibleTolerance, limit > 0 ? limit : kDefaultIterations, false, polish,
      polish,  false};
}

/// Rows of doubles, contiguous: as many as the batch, or one that all instances share.
struct RowBlock {
  const double* start = nullptr;
  long rows = 0, length = 0;

  const double* row(long instance) const { return start + (rows == 1 ? 0 : instance * length); }
  Rows<const double> view(long first = 0) const { return {row(first), rows == 1 ? 0 : length, 1}; }
};

/// A block, with the memory it lies in if it was computed.
struct OwnedBlock {
  std::unique_ptr<double[]> memory;
  RowBlock block;
};

/// θ ↦ Σᵢ matrixᵢ θᵢ + offset. `forward` may rely on symmetric parameters being symmetric, so
/// tangents, which need not be, take `linear`; `adjoint` is its transpose.
struct ParametricMap {
  struct Part {
    int parameter;
    std::shared_ptr<const SparseMap> forward, linear, adjoint;
  };
  std::vector<double> offset;
  std::vector<Part> parts;
  bool has_offset = true;  // not all of it is zero
};

/// θ ↦ ½ Σ weight [θ; 1]ᵢ [θ; 1]ⱼ, θ stacked.
struct QuadraticForm {
  std::vector<std::int64_t> row, column;
  std::vector<double> weight;
};

/// One variable or dual of the user as an affine map of x, y and θ, or the exponential of it.
struct OutputMap {
  long size;
  std::shared_ptr<const SparseMap> from_x, from_y, to_x, to_y;  // the last two are transposed
  ParametricMap from_theta;
  bool is_exponential;
};

/// The data of a batch of cone programs.
struct ProgramData {
  OwnedBlock P, q, A, b;
  /// From a row on.
  ProblemData view(long first = 0) const {
    return {P.block.view(first), q.block.view(first), A.block.view(first), b.block.view(first)};
  }
};

/// θ by parts; those that are null are zero.
using Theta = std::vector<RowBlock>;

/// Immutable; every method may be called from several threads. x has n and y m numbers a row.
class LayerProgram {
 public:
  LayerProgram(Engine* engine, std::vector<long> part_sizes, ParametricMap P, ParametricMap q,
               ParametricMap A, ParametricMap b, bool has_bounds, QuadraticForm constant,
               std::vector<OutputMap> outputs)
      : engine_(engine),
        part_sizes_(std::move(part_sizes)),
        P_(std::move(P)),
        q_(std::move(q)),
        A_(std::move(A)),
        b_(std::move(b)),
        has_bounds_(has_bounds),
        constant_(std::move(constant)),
        outputs_(std::move(outputs)) {}

  Engine& engine() const { return *engine_; }
  const StructureView& structure() const { return engine_->structure().view(); }
  long part_size(long part) const { return part_sizes_[static_cast<size_t>(part)]; }
  long num_parts() const { return static_cast<long>(part_sizes_.size()); }
  const std::vector<OutputMap>& outputs() const { return outputs_; }

  /// The data at θ; rows whose bound is infinite are replaced by 0ᵀx + s = 1. Where asked, tells
  /// whether all of θ is finite.
  ProgramData evaluate(const Theta& theta, long batch, int threads,
                       bool* is_finite = nullptr) const;
  /// The linear part alone.
  ProgramData evaluate_linear(const Theta& theta, long batch, int threads) const;

  /// r = P x + Aᵀy + τ q and t = A x − τ b, row by row.
  void multiply(const ProgramData& data, RowBlock x, RowBlock y, double tau, long batch, double* r,
                double* t, int threads) const;

  /// The adjoint of `evaluate_linear` at xx₂ᵀ + …: the gradient in θ of
  ///   x₂ᵀP x + yᵀA x₂ + y₂ᵀA x + τ (qᵀx₂ − bᵀy₂).
  /// theta_bar[k] is written where its start is not null; with one row it is the sum.
  void weigh(RowBlock x, RowBlock y, RowBlock x2, RowBlock y2, double tau, long batch,
             const std::vector<RowBlock>& theta_bar, int threads) const;

  /// Output `which` of every row; its tangent; and what its cotangents become.
  void read(const OutputMap& output, const Theta& theta, RowBlock x, RowBlock y, long batch,
            double* out, int threads) const;
  void read_linear(const OutputMap& output, const Theta& theta, RowBlock x, RowBlock y, long batch,
                   double* out, int threads) const;
  void read_adjoint(const std::vector<const OutputMap*>& outputs,
                    const std::vector<RowBlock>& outputs_bar, long batch,
                    const std::vector<RowBlock>& theta_bar, double* x_bar, double* y_bar,
                    int threads) const;

  /// Which of P, q, A and b the cotangents that are wanted depend on.
  std::array<bool, 4> needs(const std::vector<RowBlock>& theta_bar) const;

  /// The adjoint of θ ↦ (P, q, A, b), and of what outputs take from θ itself. data_bar has one row
  /// per instance; what is null is zero.
  void pull_back(const std::array<const double*, 4>& data_bar,
                 const std::vector<const OutputMap*>& outputs,
                 const std::vector<RowBlock>& outputs_bar, long batch,
                 const std::vector<RowBlock>& theta_bar, int threads) const;

  /// ½xᵀP x + qᵀx + constant, the canonical objective of every row.
  void value(const Theta& theta, RowBlock x, long batch, double* out, int threads) const;

 private:
  ProgramData evaluate_blocks(const Theta& theta, long batch, int threads, bool is_affine,
                              bool* is_finite) const;
  void remove_infinite_rows(ProgramData& data) const;

  Engine* engine_;
  std::vector<long> part_sizes_;
  ParametricMap P_, q_, A_, b_;
  bool has_bounds_;
  QuadraticForm constant_;
  std::vector<OutputMap> outputs_;
};

}  // namespace cvxlayer
