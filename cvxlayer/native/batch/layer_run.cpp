// SPDX-License-Identifier: Apache-2.0
#include "layer_run.hpp"

#include <algorithm>
#include <array>
#include <chrono>

#include "threads.hpp"

namespace cvxlayer {

namespace {

template <class T>
std::unique_ptr<T[]> allocate(long count) {
  return std::unique_ptr<T[]>(new T[static_cast<size_t>(std::max(count, 1L))]);
}

// Of gradients that are handed on while they are in a core's own cache: 160 KB.
constexpr long kNumbersPerPiece = 20'000;
constexpr long kLanes = 8;  // a multiple of every width

RowBlock block_of(const double* start, long rows, long length) { return {start, rows, length}; }

}  // namespace

LayerRun::LayerRun(const LayerProgram& program, ProgramData data, const Theta& theta, long batch,
                   const SolveSettings& settings, int threads, int width,
                   const std::vector<double*>& outputs)
    : program_(program), batch_(batch), threads_(threads), width_(width), data_(std::move(data)) {
  const long n = structure().n, m = structure().m;
  const long scale_rows = has_shared_scaling() ? 1 : batch;
  reals_ = allocate<double>(batch * (n + 2 * m + 3) + scale_rows * (n + m) + batch);
  codes_ = allocate<std::int8_t>(batch * (1 + m));
  iterations_ = allocate<std::int32_t>(batch);
  const SolveResults found = results();
  const auto start = std::chrono::steady_clock::now();
  program.engine().solve(data_.view(), batch, nullptr, batch, settings, StartingPoints{}, threads,
                         width, scaling(), found);
  seconds_ = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  is_solved_ =
      std::all_of(found.status, found.status + batch, [](std::int8_t code) { return code == 0; });
  if (!is_solved_) return;
  for (size_t k = 0; k < outputs.size(); ++k) {
    program.read(program.outputs()[k], theta, block_of(found.x.start, batch, n),
                 block_of(found.y.start, batch, m), batch, outputs[k], threads);
  }
}

bool LayerRun::has_shared_scaling() const {
  return data_.P.block.rows == 1 && data_.A.block.rows == 1;
}

SolveResults LayerRun::results() const {
  const long n = structure().n, m = structure().m;
  double* x = reals_.get();
  double *y = x + batch_ * n, *s = y + batch_ * m, *primal = s + batch_ * m;
  return {{x, n, 1},       {y, m, 1},           {s, m, 1},
          codes_.get(),    iterations_.get(),   primal,
          primal + batch_, primal + 2 * batch_, {codes_.get() + batch_, m, 1}};
}

Scaling LayerRun::scaling() const {
  const long length = structure().n + structure().m;
  const long rows = has_shared_scaling() ? 1 : batch_;
  double* scale = results().gap + batch_;
  return {scale, rows == 1 ? 0 : length, scale + rows * length, nullptr};
}

void LayerRun::pull_back(const std::vector<RowBlock>& outputs_bar,
                         const std::vector<RowBlock>& theta_bar, double* residual) const {
  const std::array<bool, 4> needs = program_.needs(theta_bar);
  const long numbers = structure().num_P * needs[0] + structure().num_A * needs[2];
  const bool has_sums = std::any_of(theta_bar.begin(), theta_bar.end(), [&](const RowBlock& bar) {
    return bar.start != nullptr && bar.rows != batch_;
  });
  // Whole lanes, as many as share the gradients of P and A well within a core's cache.
  const long rows = numbers == 0 ? batch_ : (kNumbersPerPiece / numbers / kLanes + 1) * kLanes;
  if (has_sums || rows >= batch_) {
    return pull_back_rows(outputs_bar, theta_bar, residual, 0, batch_, threads_);
  }
  share_range(batch_, rows, threads_, [&](long begin, long end) {
    pull_back_rows(outputs_bar, theta_bar, residual, begin, end, 1);
  });
}

void LayerRun::pull_back_rows(std::vector<RowBlock> outputs_bar, std::vector<RowBlock> theta_bar,
                              double* residual, long begin, long end, int threads) const {
  const StructureView& view = structure();
  const long count = end - begin;
  const auto narrow = [&](RowBlock& block) {
    if (block.start != nullptr && block.rows == batch_)
      block = {block.row(begin), count, block.length};
  };
  std::for_each(outputs_bar.begin(), outputs_bar.end(), narrow);
  std::for_each(theta_bar.begin(), theta_bar.end(), narrow);
  residual += begin;
  std::vector<MapTerm> to_x, to_y;
  std::vector<const OutputMap*> outputs;
  std::vector<RowBlock> bars;
  for (size_t k = 0; k < outputs_bar.size(); ++k) {
    if (outputs_bar[k].start == nullptr) continue;
    const OutputMap& output = program_.outputs()[k];
    outputs.push_back(&output);
    bars.push_back(outputs_bar[k]);
    if (output.to_x) to_x.push_back({output.to_x.get(), outputs_bar[k].start, output.size});
    if (output.to_y) to_y.push_back({output.to_y.get(), outputs_bar[k].start, output.size});
  }
  std::array<const double*, 4> data_bar{};
  std::array<std::unique_ptr<double[]>, 4> memory;
  std::fill_n(residual, count, 0.0);
  if (!to_x.empty() || !to_y.empty()) {
    const auto adjoint_rows = [&](const std::vector<MapTerm>& terms, long length) {
      std::unique_ptr<double[]> rows;
      if (!terms.empty()) {
        rows = allocate<double>(count * length);
        apply_maps(terms, nullptr, 0, rows.get(), count, length, threads);
      }
      return rows;
    };
    const auto x_bar = adjoint_rows(to_x, view.n), y_bar = adjoint_rows(to_y, view.m);
    const std::array<bool, 4> needs = program_.needs(theta_bar);
    const std::array<long, 4> lengths{view.num_P, view.n, view.num_A, view.m};
    for (size_t k = 0; k < needs.size(); ++k) {
      if (needs[k]) memory[k] = allocate<double>(count * lengths[k]);
      data_bar[k] = memory[k].get();
    }
    const auto rows = [](double* start, long length) { return Rows<double>{start, length, 1}; };
    const auto bars_of = [](const std::unique_ptr<double[]>& start, long length) {
      return Rows<const double>{start.get(), length, 1};
    };
    const SolveResults found = results();
    const AdjointData io{{found.x.start + begin * view.n, view.n, 1},
                         {found.y.start + begin * view.m, view.m, 1},
                         {found.s.start + begin * view.m, view.m, 1},
                         found.status + begin,
                         {found.is_active.start + begin * view.m, view.m, 1},
                         bars_of(x_bar, view.n),
                         bars_of(y_bar, view.m),
                         {nullptr, 0, 0},
                         rows(memory[0].get(), view.num_P),
                         rows(memory[1].get(), view.n),
                         rows(memory[2].get(), view.num_A),
                         rows(memory[3].get(), view.m),
                         residual};
    Scaling scale = scaling();
    if (!scale.is_shared()) scale.scale += begin * (view.n + view.m);
    scale.cost += begin;
    program_.engine().pull_back(data_.view(begin), count, threads, width_, scale, io);
  }
  program_.pull_back(data_bar, outputs, bars, count, theta_bar, threads);
}

}  // namespace cvxlayer
