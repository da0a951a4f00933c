// SPDX-License-Identifier: Apache-2.0
#include "layer_program.hpp"

#include <algorithm>
#include <atomic>
#include <cmath>
#include <limits>

#include "inspect.hpp"
#include "threads.hpp"

namespace cvxlayer {

namespace {

// Rows handed to a thread at a time, for loops of a few operations a number.
constexpr long kRowsPerPiece = 64;

std::unique_ptr<double[]> allocate(long count) {
  return std::unique_ptr<double[]>(new double[static_cast<size_t>(std::max(count, 1L))]);
}

long stride_of(const RowBlock& block) { return block.rows == 1 ? 0 : block.length; }

/// Σ matrixᵢ θᵢ, plus the offset if affine, of every row. What only shared parameters touch is
/// computed once, here; the rest row by row.
class BlockWriter {
 public:
  BlockWriter(const ParametricMap& map, const Theta& theta, long batch, bool is_affine)
      : length_(static_cast<long>(map.offset.size())) {
    std::vector<MapTerm> shared;
    for (const ParametricMap::Part& part : map.parts) {
      const RowBlock& points = theta[static_cast<size_t>(part.parameter)];
      if (points.start == nullptr) continue;
      const SparseMap* matrix = (is_affine ? part.forward : part.linear).get();
      (points.rows == 1 ? shared : varying_).push_back({matrix, points.start, stride_of(points)});
      if (points.rows != 1) numbers_ += matrix->num_entries();
    }
    const bool has_offset = is_affine && map.has_offset;
    if (is_affine && shared.empty()) {
      common_.block = {map.offset.data(), 1, length_};
    } else {
      common_ = own(1);
      const double* base = has_offset ? map.offset.data() : nullptr;
      apply_row(shared, base, common_.memory.get(), 0, length_);
    }
    if (varying_.empty()) return;
    if (has_offset || !shared.empty()) base_ = common_.block.start;
    rows_ = own(batch);
    numbers_ += length_;
  }

  /// What `write` moves.
  long numbers_per_row() const { return numbers_; }

  void write(long row) {
    if (varying_.empty()) return;
    apply_row(varying_, base_, rows_.memory.get() + row * length_, row, length_);
  }

  OwnedBlock result() { return std::move(varying_.empty() ? common_ : rows_); }

 private:
  OwnedBlock own(long rows) const {
    OwnedBlock made{allocate(rows * length_), {nullptr, rows, length_}};
    made.block.start = made.memory.get();
    return made;
  }

  long length_, numbers_ = 0;
  const double* base_ = nullptr;
  OwnedBlock common_, rows_;
  std::vector<MapTerm> varying_;
};

OwnedBlock apply(const ParametricMap& map, const Theta& theta, long batch, int threads,
                 bool is_affine) {
  BlockWriter writer(map, theta, batch, is_affine);
  share_rows(batch, writer.numbers_per_row(), threads, [&](long begin, long end) {
    for (long row = begin; row < end; ++row) writer.write(row);
  });
  return writer.result();
}

/// Collects what reaches the cotangents of θ, then writes each.
class ThetaAdjoint {
 public:
  ThetaAdjoint(const std::vector<RowBlock>& theta_bar, long batch, int threads)
      : theta_bar_(theta_bar), batch_(batch), threads_(threads), terms_(theta_bar.size()) {}

  bool needs(const ParametricMap& map) const {
    return std::any_of(map.parts.begin(), map.parts.end(), [this](const auto& part) {
      return theta_bar_[static_cast<size_t>(part.parameter)].start != nullptr;
    });
  }

  /// `bars` has one row per instance and must stay until `write`.
  void add(const ParametricMap& map, const double* bars) {
    const auto length = static_cast<long>(map.offset.size());
    const double* total = nullptr;
    for (const ParametricMap::Part& part : map.parts) {
      const auto k = static_cast<size_t>(part.parameter);
      if (theta_bar_[k].start == nullptr) continue;
      if (theta_bar_[k].rows == batch_) {
        terms_[k].push_back({part.adjoint.get(), bars, length});
        continue;
      }
      if (total == nullptr) {
        sums_.push_back(allocate(length));
        sum_rows(bars, batch_, length, sums_.back().get(), threads_);
        total = sums_.back().get();
      }
      terms_[k].push_back({part.adjoint.get(), total, 0});
    }
  }

  void write() const {
    for (size_t k = 0; k < theta_bar_.size(); ++k) {
      const RowBlock& bar = theta_bar_[k];
      if (bar.start == nullptr) continue;
      // Results are the caller's memory, held as blocks like everything else.
      apply_maps(terms_[k], nullptr, 0, const_cast<double*>(bar.start), bar.rows, bar.length,
                 threads_);
    }
  }

 private:
  const std::vector<RowBlock>& theta_bar_;
  long batch_;
  int threads_;
  std::vector<std::vector<MapTerm>> terms_;
  std::vector<std::unique_ptr<double[]>> sums_;
};

}  // namespace

ProgramData LayerProgram::evaluate_blocks(const Theta& theta, long batch, int threads,
                                          bool is_affine, bool* is_finite) const {
  std::array<BlockWriter, 4> writers{
      BlockWriter{P_, theta, batch, is_affine}, BlockWriter{q_, theta, batch, is_affine},
      BlockWriter{A_, theta, batch, is_affine}, BlockWriter{b_, theta, batch, is_affine}};
  std::atomic<bool> finite{true};
  const auto inspect = [&](const double* start, long count) {
    if (!all_finite(start, count, 1)) finite.store(false, std::memory_order_relaxed);
  };
  long numbers = 0;
  for (const BlockWriter& writer : writers) numbers += writer.numbers_per_row();
  std::vector<RowBlock> inspected;
  for (const RowBlock& part : theta) {
    if (is_finite == nullptr || part.start == nullptr) continue;
    if (part.rows == 1) {
      inspect(part.start, part.length);
    } else {
      inspected.push_back(part);
      numbers += part.length;
    }
  }
  if (numbers > 0) {
    share_rows(batch, numbers, threads, [&](long begin, long end) {
      for (const RowBlock& part : inspected) inspect(part.row(begin), (end - begin) * part.length);
      for (BlockWriter& writer : writers) {
        for (long row = begin; row < end; ++row) writer.write(row);
      }
    });
  }
  if (is_finite != nullptr) *is_finite = finite;
  return {writers[0].result(), writers[1].result(), writers[2].result(), writers[3].result()};
}

ProgramData LayerProgram::evaluate(const Theta& theta, long batch, int threads,
                                   bool* is_finite) const {
  ProgramData data = evaluate_blocks(theta, batch, threads, true, is_finite);
  if (has_bounds_) remove_infinite_rows(data);
  return data;
}

ProgramData LayerProgram::evaluate_linear(const Theta& theta, long batch, int threads) const {
  return evaluate_blocks(theta, batch, threads, false, nullptr);
}

void LayerProgram::remove_infinite_rows(ProgramData& data) const {
  const RowBlock b = data.b.block, A = data.A.block;
  const double infinity = std::numeric_limits<double>::infinity();
  if (std::find(b.start, b.start + b.rows * b.length, infinity) == b.start + b.rows * b.length) {
    return;
  }
  const int* A_row = structure().A_row;
  const long rows = std::max(b.rows, A.rows);
  OwnedBlock new_A{allocate(rows * A.length), {nullptr, rows, A.length}};
  for (long row = 0; row < rows; ++row) {
    double* out = new_A.memory.get() + row * A.length;
    const double *bound = b.row(row), *in = A.row(row);
    for (long k = 0; k < A.length; ++k) out[k] = bound[A_row[k]] == infinity ? 0.0 : in[k];
  }
  OwnedBlock new_b{allocate(b.rows * b.length), {nullptr, b.rows, b.length}};
  std::replace_copy(b.start, b.start + b.rows * b.length, new_b.memory.get(), infinity, 1.0);
  new_A.block.start = new_A.memory.get();
  new_b.block.start = new_b.memory.get();
  data.A = std::move(new_A);
  data.b = std::move(new_b);
}

void LayerProgram::multiply(const ProgramData& data, RowBlock x, RowBlock y, double tau, long batch,
                            double* r, double* t, int threads) const {
  const StructureView& view = structure();
  share_range(batch, kRowsPerPiece, threads, [&](long begin, long end) {
    for (long row = begin; row < end; ++row) {
      const double *P = data.P.block.row(row), *q = data.q.block.row(row);
      const double *A = data.A.block.row(row), *b = data.b.block.row(row);
      const double *xs = x.row(row), *ys = y.row(row);
      double *rs = r + row * view.n, *ts = t + row * view.m;
      for (int i = 0; i < view.m; ++i) ts[i] = tau == 0.0 ? 0.0 : -tau * b[i];
      for (int j = 0; j < view.n; ++j) rs[j] = tau == 0.0 ? 0.0 : tau * q[j];
      for (int j = 0; j < view.n; ++j) {
        double sum = 0.0;
        for (int k = view.P_start[j]; k < view.P_start[j + 1]; ++k) {
          const int i = view.P_row[k];
          sum += P[k] * xs[i];
          if (i != j) rs[i] += P[k] * xs[j];
        }
        for (int k = view.A_start[j]; k < view.A_start[j + 1]; ++k) {
          sum += A[k] * ys[view.A_row[k]];
          ts[view.A_row[k]] += A[k] * xs[j];
        }
        rs[j] += sum;
      }
    }
  });
}

void LayerProgram::weigh(RowBlock x, RowBlock y, RowBlock x2, RowBlock y2, double tau, long batch,
                         const std::vector<RowBlock>& theta_bar, int threads) const {
  const StructureView& view = structure();
  ThetaAdjoint adjoint(theta_bar, batch, threads);
  const bool needs_P = adjoint.needs(P_), needs_A = adjoint.needs(A_);
  const bool needs_q = tau != 0.0 && adjoint.needs(q_), needs_b = tau != 0.0 && adjoint.needs(b_);
  const auto P_bar = allocate(needs_P ? batch * view.num_P : 0);
  const auto A_bar = allocate(needs_A ? batch * view.num_A : 0);
  const auto q_bar = allocate(needs_q ? batch * view.n : 0);
  const auto b_bar = allocate(needs_b ? batch * view.m : 0);
  share_range(batch, kRowsPerPiece, threads, [&](long begin, long end) {
    for (long row = begin; row < end; ++row) {
      const double *xs = x.row(row), *ys = y.row(row), *zs = x2.row(row), *ws = y2.row(row);
      double *P = P_bar.get() + row * view.num_P, *A = A_bar.get() + row * view.num_A;
      for (int j = 0; j < view.n; ++j) {
        for (int k = view.P_start[j]; needs_P && k < view.P_start[j + 1]; ++k) {
          const int i = view.P_row[k];
          P[k] = i == j ? xs[i] * zs[i] : xs[i] * zs[j] + xs[j] * zs[i];
        }
        for (int k = view.A_start[j]; needs_A && k < view.A_start[j + 1]; ++k) {
          const int i = view.A_row[k];
          A[k] = ys[i] * zs[j] + ws[i] * xs[j];
        }
      }
      for (int j = 0; needs_q && j < view.n; ++j) q_bar[row * view.n + j] = tau * zs[j];
      for (int i = 0; needs_b && i < view.m; ++i) b_bar[row * view.m + i] = -tau * ws[i];
    }
  });
  if (needs_P) adjoint.add(P_, P_bar.get());
  if (needs_A) adjoint.add(A_, A_bar.get());
  if (needs_q) adjoint.add(q_, q_bar.get());
  if (needs_b) adjoint.add(b_, b_bar.get());
  adjoint.write();
}

void LayerProgram::read(const OutputMap& output, const Theta& theta, RowBlock x, RowBlock y,
                        long batch, double* out, int threads) const {
  const OwnedBlock rest = apply(output.from_theta, theta, batch, threads, true);
  std::vector<MapTerm> terms;
  if (output.from_x) terms.push_back({output.from_x.get(), x.start, stride_of(x)});
  if (output.from_y) terms.push_back({output.from_y.get(), y.start, stride_of(y)});
  apply_maps(terms, rest.block.start, stride_of(rest.block), out, batch, output.size, threads);
  for (long k = 0; output.is_exponential && k < batch * output.size; ++k) out[k] = std::exp(out[k]);
}

void LayerProgram::read_linear(const OutputMap& output, const Theta& theta, RowBlock x, RowBlock y,
                               long batch, double* out, int threads) const {
  const OwnedBlock rest = apply(output.from_theta, theta, batch, threads, false);
  std::vector<MapTerm> terms;
  if (output.from_x) terms.push_back({output.from_x.get(), x.start, stride_of(x)});
  if (output.from_y) terms.push_back({output.from_y.get(), y.start, stride_of(y)});
  apply_maps(terms, rest.block.start, stride_of(rest.block), out, batch, output.size, threads);
}

void LayerProgram::read_adjoint(const std::vector<const OutputMap*>& outputs,
                                const std::vector<RowBlock>& outputs_bar, long batch,
                                const std::vector<RowBlock>& theta_bar, double* x_bar,
                                double* y_bar, int threads) const {
  ThetaAdjoint adjoint(theta_bar, batch, threads);
  std::vector<MapTerm> to_x, to_y;
  for (size_t k = 0; k < outputs.size(); ++k) {
    const OutputMap& output = *outputs[k];
    const double* bars = outputs_bar[k].start;
    if (output.to_x) to_x.push_back({output.to_x.get(), bars, output.size});
    if (output.to_y) to_y.push_back({output.to_y.get(), bars, output.size});
    if (adjoint.needs(output.from_theta)) adjoint.add(output.from_theta, bars);
  }
  apply_maps(to_x, nullptr, 0, x_bar, batch, structure().n, threads);
  apply_maps(to_y, nullptr, 0, y_bar, batch, structure().m, threads);
  adjoint.write();
}

std::array<bool, 4> LayerProgram::needs(const std::vector<RowBlock>& theta_bar) const {
  const ThetaAdjoint adjoint(theta_bar, 0, 1);
  return {adjoint.needs(P_), adjoint.needs(q_), adjoint.needs(A_), adjoint.needs(b_)};
}

void LayerProgram::pull_back(const std::array<const double*, 4>& data_bar,
                             const std::vector<const OutputMap*>& outputs,
                             const std::vector<RowBlock>& outputs_bar, long batch,
                             const std::vector<RowBlock>& theta_bar, int threads) const {
  ThetaAdjoint adjoint(theta_bar, batch, threads);
  const std::array<const ParametricMap*, 4> blocks{&P_, &q_, &A_, &b_};
  for (size_t k = 0; k < blocks.size(); ++k) {
    if (data_bar[k] != nullptr) adjoint.add(*blocks[k], data_bar[k]);
  }
  for (size_t k = 0; k < outputs.size(); ++k) {
    if (adjoint.needs(outputs[k]->from_theta)) {
      adjoint.add(outputs[k]->from_theta, outputs_bar[k].start);
    }
  }
  adjoint.write();
}

void LayerProgram::value(const Theta& theta, RowBlock x, long batch, double* out,
                         int threads) const {
  const StructureView& view = structure();
  const OwnedBlock P = apply(P_, theta, batch, threads, true);
  const OwnedBlock q = apply(q_, theta, batch, threads, true);
  std::vector<double> stacked;
  for (long row = 0; row < batch; ++row) {
    const double *Ps = P.block.row(row), *qs = q.block.row(row), *xs = x.row(row);
    double total = 0.0;
    for (int j = 0; j < view.n; ++j) {
      double sum = qs[j];
      for (int k = view.P_start[j]; k < view.P_start[j + 1]; ++k) {
        sum += Ps[k] * xs[view.P_row[k]] * (view.P_row[k] == j ? 0.5 : 1.0);
      }
      total += sum * xs[j];
    }
    stacked.clear();
    for (const RowBlock& part : theta) {
      const double* start = part.row(row);
      // What may be infinite multiplies nothing here.
      for (long k = 0; k < part.length; ++k) {
        stacked.push_back(std::isinf(start[k]) ? 0.0 : start[k]);
      }
    }
    stacked.push_back(1.0);
    for (size_t k = 0; k < constant_.weight.size(); ++k) {
      total += 0.5 * constant_.weight[k] * stacked[static_cast<size_t>(constant_.row[k])] *
               stacked[static_cast<size_t>(constant_.column[k])];
    }
    out[row] = total;
  }
}

}  // namespace cvxlayer
