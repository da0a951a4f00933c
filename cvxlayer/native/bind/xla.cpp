// SPDX-License-Identifier: Apache-2.0
//
// The handlers that XLA calls from compiled JAX code, without the GIL. Operands lead with rows,
// one for each instance or one that all share; the attribute `program` says what to solve.
// The operands and results of each are those of the primitive of its name in `jax/primitives.py`.
#include "registry.hpp"

#ifdef CVXLAYER_HAS_XLA

#include <algorithm>
#include <chrono>
#include <exception>
#include <vector>

#include "../hsde/status.hpp"
#include "xla_buffers.hpp"

namespace nb = nanobind;

namespace cvxlayer {
namespace {

// Where the derivative is unique, its system is solved to rounding, far below this.
constexpr double kLargeResidual = 1e-6;

/// A failure to report to the user of the layer rather than to its authors.
struct Failure : std::exception {
  explicit Failure(std::string text) : message(std::move(text)) {}
  const char* what() const noexcept override { return message.c_str(); }
  std::string message;
};

bool is(std::int8_t status, Status which) { return status == static_cast<std::int8_t>(which); }
bool has_solution(std::int8_t status) { return status <= static_cast<int>(Status::kInaccurate); }

/// The operands that hold θ, or tangents of some of its parts; `parts` are their indices.
class ThetaOperands {
 public:
  ThetaOperands(Call& call, const LayerProgram& program)
      : theta(static_cast<size_t>(program.num_parts())) {
    for (const std::int64_t part : call.integers("parts")) {
      operands_.push_back(call.operand());
      theta[static_cast<size_t>(part)] = operands_.back().block();
    }
  }
  Theta theta;

 private:
  std::vector<Operand> operands_;
};

/// The results that take cotangents of the parts of θ.
class ThetaOutcomes {
 public:
  ThetaOutcomes(Call& call, const LayerProgram& program)
      : blocks(static_cast<size_t>(program.num_parts())) {
    for (const std::int64_t part : call.integers("parts")) {
      outcomes_.push_back(call.outcome());
      blocks[static_cast<size_t>(part)] = outcomes_.back().block();
    }
  }
  void finish() const {
    for (const Outcome& outcome : outcomes_) outcome.finish();
  }
  std::vector<RowBlock> blocks;

 private:
  std::vector<Outcome> outcomes_;
};

/// Memory for the scale factors of a batch: (d, e) once if P and A are shared.
class ScalingStorage {
 public:
  ScalingStorage(const ProblemData& problem, long batch, long length)
      : stride_(problem.P.is_shared() && problem.A.is_shared() ? 0 : length),
        scale_(new double[static_cast<size_t>(stride_ == 0 ? length : batch * length) + 1]),
        cost_(new double[static_cast<size_t>(batch) + 1]) {}
  Scaling scaling() const { return {scale_.get(), stride_, cost_.get(), nullptr}; }

 private:
  long stride_;
  std::unique_ptr<double[]> scale_, cost_;
};

int threads_of(const Call& call) { return static_cast<int>(call.integer("threads")); }

/// Whether the rows need more than the core's first pass: another pass, a warning, an error.
bool is_unfinished(const std::int8_t* status, long batch, bool raises) {
  return std::any_of(status, status + batch, [raises](std::int8_t code) {
    const bool is_certain = is(code, Status::kInfeasible) || is(code, Status::kUnbounded);
    return !is(code, Status::kSolved) && (raises || !is_certain);
  });
}

void solve(Call& call) {
  const auto begin = std::chrono::steady_clock::now();
  const LayerProgram& program = find_program(call.integer("program"));
  const StructureView& view = program.structure();
  const int threads = threads_of(call);
  const ThetaOperands values(call, program);
  const bool starts = call.integer("starts") != 0;
  const Outcome x = call.outcome(), y = call.outcome();
  const Outcome exact_x = call.outcome(), exact_y = call.outcome(), exact_s = call.outcome();
  auto* status = call.typed_outcome<std::int8_t>();
  auto* iterations = call.typed_outcome<std::int32_t>();
  const Outcome primal = call.outcome(), dual = call.outcome(), gap = call.outcome();
  auto* solved_by = call.typed_outcome<std::int8_t>();
  auto* is_active = call.typed_outcome<std::int8_t>();
  const Outcome seconds = call.outcome();
  const long batch = x.rows();

  const ProgramData data = program.evaluate(values.theta, batch, threads);
  const SolveResults results{exact_x.view(), exact_y.view(), exact_s.view(),
                             status,         iterations,     primal.start(),
                             dual.start(),   gap.start(),    {is_active, view.m, 1}};
  std::fill_n(solved_by, batch, std::int8_t{0});
  if (call.integer("is_native") != 0) {
    const ScalingStorage storage(data.view(), batch, view.n + view.m);
    const bool polish = call.integer("polish") != 0;
    const long limit = call.integer("max_iterations");
    const SolveSettings settings =
        layer_settings(call.real("eps_abs"), call.real("eps_rel"), static_cast<int>(limit), polish);
    StartingPoints start{};
    std::vector<Operand> points;
    std::vector<std::int8_t> is_usable;
    if (starts) {
      for (int k = 0; k < 2; ++k) points.push_back(call.operand());
      const auto* usable = call.typed_operand<std::int8_t>();
      is_usable.assign(usable, usable + batch);
      start = {points[0].view(), points[1].view(), is_usable.data()};
    }
    program.engine().solve(data.view(), batch, nullptr, batch, settings, start, threads,
                           static_cast<int>(call.integer("width")), storage.scaling(), results);
    for (long row = 0; starts && row < batch; ++row) solved_by[row] = is_usable[row] != 0 ? 3 : 0;
  } else {
    std::fill_n(status, batch, static_cast<std::int8_t>(Status::kNumericalError));
  }
  if (is_unfinished(status, batch, call.integer("raises") != 0) ||
      call.integer("is_verbose") != 0) {
    const UnfinishedBatch unfinished{
        batch,           data.view(),  &view,      exact_x.start(), exact_y.start(),
        exact_s.start(), status,       solved_by,  is_active,       iterations,
        primal.start(),  dual.start(), gap.start()};
    const std::string wrong = finish_in_python(call.integer("route"), unfinished);
    if (!wrong.empty()) throw Failure(wrong);
  }
  // Nothing downstream has to look at rows without a solution: they are zero.
  for (long row = 0; row < batch; ++row) {
    if (has_solution(status[row])) continue;
    std::fill_n(exact_x.start() + row * view.n, view.n, 0.0);
    std::fill_n(exact_y.start() + row * view.m, view.m, 0.0);
    std::fill_n(exact_s.start() + row * view.m, view.m, 0.0);
  }
  std::copy_n(exact_x.start(), batch * view.n, x.start());
  std::copy_n(exact_y.start(), batch * view.m, y.start());
  x.finish();
  y.finish();
  const std::chrono::duration<double> duration = std::chrono::steady_clock::now() - begin;
  std::fill_n(seconds.start(), batch, duration.count());
  seconds.finish();
  primal.finish();
  dual.finish();
  gap.finish();
}

void refine(Call& call) {
  const LayerProgram& program = find_program(call.integer("program"));
  const int threads = threads_of(call);
  const ThetaOperands values(call, program);
  const Operand x = call.operand(), y = call.operand(), s = call.operand();
  AdjointData io{};
  io.x = x.view();
  io.y = y.view();
  io.s = s.view();
  io.status = call.typed_operand<std::int8_t>();
  const long m = program.structure().m;
  io.is_active = {call.typed_operand<std::int8_t>(), m, 1};
  const Outcome x_out = call.outcome(), y_out = call.outcome(), v_out = call.outcome();
  const Outcome balance = call.outcome(), exact_v = call.outcome();
  auto* is_active = call.typed_outcome<std::int8_t>();
  auto* solved = call.typed_outcome<std::int8_t>();
  const long batch = x.rows();
  std::vector<double> residual(static_cast<size_t>(batch));
  const PointData points{x_out.view(),      y_out.view(), exact_v.view(),  balance.view(),
                         {is_active, m, 1}, solved,       residual.data(), call.real("mu")};
  const ProgramData data = program.evaluate(values.theta, batch, threads);
  program.engine().refine(data.view(), batch, threads, 0, Scaling{}, io, points);
  // A point that did not reach the central path; NaN too.
  const auto is_far = [](double value) { return !(value <= kLargeResidual); };
  if (points.mu > 0.0 && std::any_of(residual.begin(), residual.end(), is_far)) {
    warn_in_python(residual.data(), batch);
  }
  std::copy_n(exact_v.start(), batch * m, v_out.start());
  for (const Outcome* outcome : {&x_out, &y_out, &v_out, &balance}) outcome->finish();
}

/// The operands that say where a solution is differentiated.
struct PointOperands {
  Operand balance, v;
  const std::int8_t *is_active, *has_solution;

  explicit PointOperands(Call& call)
      // Before v comes v in JAX's precision, through which derivatives flow.
      : balance((call.next_operand(), call.operand())),
        v(call.operand()),
        is_active(call.typed_operand<std::int8_t>()),
        has_solution(call.typed_operand<std::int8_t>()) {}
};

void apply(Call& call) {
  const LayerProgram& program = find_program(call.integer("program"));
  const StructureView& view = program.structure();
  const int threads = threads_of(call);
  const ThetaOperands values(call, program);
  const PointOperands point(call);
  const Operand gx = call.operand(), gy = call.operand();
  const Outcome lambda = call.outcome(), nu = call.outcome();
  const long batch = gx.rows(), sides = gx.inner();
  std::vector<double> residual(static_cast<size_t>(batch * sides));
  const SystemData io{point.v.view(),
                      point.balance.view(),
                      {point.is_active, view.m, 1},
                      point.has_solution,
                      sides,
                      {gx.start(), view.n, 1},
                      {gy.start(), view.m, 1},
                      {nullptr, 0, 0},
                      {lambda.start(), view.n, 1},
                      {nu.start(), view.m, 1},
                      residual.data(),
                      call.real("mu")};
  const ProgramData data = program.evaluate(values.theta, batch, threads);
  program.engine().apply(data.view(), batch, threads, 0, io);
  lambda.finish();
  nu.finish();
  for (long row = 0; row < batch; ++row) {
    const double* own = residual.data() + row * sides;
    residual[static_cast<size_t>(row)] = *std::max_element(own, own + sides);
  }
  if (*std::max_element(residual.begin(), residual.begin() + batch) > kLargeResidual) {
    warn_in_python(residual.data(), batch);
  }
}

void curvature(Call& call) {
  const LayerProgram& program = find_program(call.integer("program"));
  const long m = program.structure().m;
  const PointOperands point(call);
  const Operand first = call.operand(), second = call.operand();
  const Outcome result = call.outcome();
  const CurvatureData io{point.v.view(),        point.has_solution,     first.inner(),
                         {first.start(), m, 1}, {second.start(), m, 1}, {result.start(), m, 1},
                         call.real("mu")};
  program.engine().curvature(result.rows(), threads_of(call), 0, io);
  result.finish();
}

void multiply(Call& call) {
  const LayerProgram& program = find_program(call.integer("program"));
  const int threads = threads_of(call);
  const ThetaOperands values(call, program);
  const Operand x = call.operand(), y = call.operand();
  const Outcome r = call.outcome(), t = call.outcome();
  const long batch = r.rows();
  const ProgramData data = call.integer("is_affine") != 0
                               ? program.evaluate(values.theta, batch, threads)
                               : program.evaluate_linear(values.theta, batch, threads);
  program.multiply(data, x.block(), y.block(), call.real("tau"), batch, r.start(), t.start(),
                   threads);
  r.finish();
  t.finish();
}

void weigh(Call& call) {
  const LayerProgram& program = find_program(call.integer("program"));
  const Operand x = call.operand(), y = call.operand(), x2 = call.operand(), y2 = call.operand();
  const ThetaOutcomes theta_bar(call, program);
  const long batch = std::max(std::max(x.rows(), y.rows()), std::max(x2.rows(), y2.rows()));
  program.weigh(x.block(), y.block(), x2.block(), y2.block(), call.real("tau"), batch,
                theta_bar.blocks, threads_of(call));
  theta_bar.finish();
}

const OutputMap& output_of(const Call& call, const LayerProgram& program, long place) {
  return program.outputs()[static_cast<size_t>(call.integer("first") + place)];
}

void read(Call& call) {
  const LayerProgram& program = find_program(call.integer("program"));
  const ThetaOperands values(call, program);
  const Operand x = call.operand(), y = call.operand();
  for (long place = 0; place < call.integer("count"); ++place) {
    const Outcome out = call.outcome();
    program.read(output_of(call, program, place), values.theta, x.block(), y.block(), out.rows(),
                 out.start(), threads_of(call));
    out.finish();
  }
}

void read_linear(Call& call) {
  const LayerProgram& program = find_program(call.integer("program"));
  const ThetaOperands tangents(call, program);
  const Operand x = call.operand(), y = call.operand();
  for (long place = 0; place < call.integer("count"); ++place) {
    const Outcome out = call.outcome();
    program.read_linear(output_of(call, program, place), tangents.theta, x.block(), y.block(),
                        out.rows(), out.start(), threads_of(call));
    out.finish();
  }
}

void read_adjoint(Call& call) {
  const LayerProgram& program = find_program(call.integer("program"));
  std::vector<Operand> bars;
  std::vector<RowBlock> blocks;
  std::vector<const OutputMap*> outputs;
  for (long place = 0; place < call.integer("count"); ++place) {
    outputs.push_back(&output_of(call, program, place));
    bars.push_back(call.operand());
  }
  for (const Operand& bar : bars) blocks.push_back(bar.block());
  const ThetaOutcomes theta_bar(call, program);
  const Outcome x_bar = call.outcome(), y_bar = call.outcome();
  program.read_adjoint(outputs, blocks, x_bar.rows(), theta_bar.blocks, x_bar.start(),
                       y_bar.start(), threads_of(call));
  theta_bar.finish();
  x_bar.finish();
  y_bar.finish();
}

void value(Call& call) {
  const LayerProgram& program = find_program(call.integer("program"));
  const ThetaOperands values(call, program);
  const Operand x = call.operand();
  const Outcome out = call.outcome();
  program.value(values.theta, x.block(), out.rows(), out.start(), threads_of(call));
  out.finish();
}

/// A handler around a function, which may throw.
template <void (*function)(Call&)>
ffi::Error guarded(ffi::RemainingArgs args, ffi::RemainingRets rets, ffi::Dictionary attrs) {
  try {
    Call call(args, rets, attrs);
    function(call);
    return ffi::Error::Success();
  } catch (const Failure& failure) {
    return ffi::Error(ffi::ErrorCode::kFailedPrecondition, failure.message);
  } catch (const std::exception& error) {
    return ffi::Error::Internal(std::string("cvxlayer: ") + error.what());
  }
}

template <void (*function)(Call&)>
XLA_FFI_Error* handle(XLA_FFI_CallFrame* frame) {
  static auto* handler =
      ffi::Ffi::Bind().RemainingArgs().RemainingRets().Attrs().To(guarded<function>).release();
  return handler->Call(frame);
}

template <void (*function)(Call&)>
void add(nb::dict& handlers, const char* name) {
  handlers[name] = nb::capsule(reinterpret_cast<void*>(handle<function>));
}

}  // namespace

nb::dict xla_handlers() {
  nb::dict handlers;
  add<solve>(handlers, "solve");
  add<refine>(handlers, "refine");
  add<apply>(handlers, "apply");
  add<curvature>(handlers, "curvature");
  add<multiply>(handlers, "multiply");
  add<weigh>(handlers, "weigh");
  add<read>(handlers, "read");
  add<read_linear>(handlers, "read_linear");
  add<read_adjoint>(handlers, "read_adjoint");
  add<value>(handlers, "value");
  return handlers;
}

}  // namespace cvxlayer

#else

namespace cvxlayer {

nanobind::dict xla_handlers() { return {}; }

}  // namespace cvxlayer

#endif
