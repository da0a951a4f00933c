// SPDX-License-Identifier: Apache-2.0
//
// Plain calls of a layer from a framework's tensors to its tensors, by `Exchange`: the steps of
// Python in between would take as long as the solve of a small QP.
#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>
#include <nanobind/stl/vector.h>

#include <algorithm>
#include <functional>
#include <limits>
#include <memory>
#include <numeric>
#include <utility>
#include <vector>

#include "../batch/inspect.hpp"
#include "../batch/layer_run.hpp"
#include "../batch/threads.hpp"
#include "exchange.hpp"
#include "program.hpp"

namespace nb = nanobind;
using namespace nb::literals;

namespace cvxlayer {
namespace {

using Tensor = nb::dlpack::dltensor;
using Buffer = std::unique_ptr<double[]>;

constexpr nb::dlpack::dtype kDouble = nb::dtype<double>(), kSingle = nb::dtype<float>();
constexpr long kPiece = 16'384;  // numbers that are worth a thread

bool is_contiguous(const Tensor& tensor) {
  std::int64_t stride = 1;
  for (int k = tensor.ndim - 1; k >= 0; --k) {
    if (tensor.shape[k] != 1 && tensor.strides != nullptr && tensor.strides[k] != stride) {
      return false;
    }
    stride *= tensor.shape[k];
  }
  return true;
}

template <class To, class From>
void convert(const From* from, To* to, long count, int threads) {
  share_range(count, kPiece, threads,
              [&](long begin, long end) { std::copy(from + begin, from + end, to + begin); });
}

/// The numbers of a tensor, and their place in memory once they are doubles.
struct Numbers {
  const void* data = nullptr;
  nb::dlpack::dtype type = kDouble;
  long count = 0;
  Buffer converted;

  const double* doubles(int threads) {
    if (data == nullptr || type == kDouble) return static_cast<const double*>(data);
    converted.reset(new double[static_cast<size_t>(count)]);
    convert(static_cast<const float*>(data), converted.get(), count, threads);
    return converted.get();
  }
};

/// A tensor that is being made, and where its numbers are written to as doubles.
struct Result {
  nb::object tensor;
  void* data = nullptr;
  nb::dlpack::dtype type = kDouble;
  long count = 0;
  Buffer doubles;

  Result() = default;
  Result(const Exchange& exchange, const Shape& shape, nb::dlpack::dtype dtype)
      : type(dtype), count(count_of(shape)) {
    tensor = exchange.make(shape, dtype, &data);
    if (type != kDouble) doubles.reset(new double[static_cast<size_t>(count)]);
  }

  double* start() const { return doubles ? doubles.get() : static_cast<double*>(data); }
  void finish(int threads) {
    if (doubles) convert(doubles.get(), static_cast<float*>(data), count, threads);
  }
};

class TensorProgram {
 public:
  TensorProgram(nb::object program, nb::handle capsule, std::vector<nb::object> types,
                nb::str is_lazy, std::vector<Shape> input_shapes, std::vector<unsigned> domains,
                std::vector<Shape> output_shapes)
      : owner_(std::move(program)),
        program_(nb::cast<const LayerProgram*>(owner_)),
        exchange_(capsule),
        types_(std::move(types)),
        is_lazy_(std::move(is_lazy)),
        inputs_(std::move(input_shapes)),
        domains_(std::move(domains)),
        outputs_(std::move(output_shapes)) {
    if (static_cast<long>(inputs_.size()) != program_->num_parts() ||
        inputs_.size() != domains_.size() || outputs_.size() > program_->outputs().size()) {
      throw nb::value_error(
          "native engine: one shape and domain for each parameter, one shape for each output");
    }
    for (size_t k = 0; k < inputs_.size(); ++k) {
      check(count_of(inputs_[k]) == program_->part_size(static_cast<long>(k)));
    }
    for (size_t k = 0; k < outputs_.size(); ++k) {
      check(count_of(outputs_[k]) == program_->outputs()[k].size);
    }
  }

  const LayerProgram& program() const { return *program_; }
  const Exchange& exchange() const { return exchange_; }
  const std::vector<Shape>& inputs() const { return inputs_; }
  const std::vector<Shape>& outputs() const { return outputs_; }

  /// Whether the values of parameter k, which came as numbers of this type, are what was declared.
  bool are_in_domain(size_t k, const RowBlock& values, nb::dlpack::dtype type, int threads) const {
    const double epsilon = type == kDouble ? std::numeric_limits<double>::epsilon()
                                           : std::numeric_limits<float>::epsilon();
    return domains_[k] == 0 ||
           all_in_domains(values.start, values.rows, values.length, domains_[k], epsilon, threads);
  }

  /// What is in a tensor of one of the types, if it is single or double, in host memory, without
  /// gaps and without operations that are still to be applied.
  bool read(nb::handle object, Numbers& numbers, Tensor& tensor) const {
    const auto is_type = [&](const nb::object& type) {
      return reinterpret_cast<PyObject*>(Py_TYPE(object.ptr())) == type.ptr();
    };
    if (!std::any_of(types_.begin(), types_.end(), is_type)) return false;
    if (!exchange_.view(object, tensor)) return false;
    if (tensor.device.device_type != nb::device::cpu::value || !is_contiguous(tensor)) return false;
    if (tensor.dtype != kDouble && tensor.dtype != kSingle) return false;
    const nb::object is_lazy = nb::steal(PyObject_CallMethodNoArgs(object.ptr(), is_lazy_.ptr()));
    if (!is_lazy.is_valid()) throw nb::python_error();
    if (nb::cast<bool>(is_lazy)) return false;
    numbers.data = static_cast<const char*>(tensor.data) + tensor.byte_offset;
    numbers.type = tensor.dtype;
    numbers.count =
        std::accumulate(tensor.shape, tensor.shape + tensor.ndim, 1L, std::multiplies<>());
    return true;
  }

 private:
  static void check(bool fits) {
    if (!fits) throw nb::value_error("native engine: a shape does not have the size of its part");
  }

  nb::object owner_;
  const LayerProgram* program_;
  Exchange exchange_;
  std::vector<nb::object> types_;
  nb::str is_lazy_;
  std::vector<Shape> inputs_;
  std::vector<unsigned> domains_;
  std::vector<Shape> outputs_;
};

/// The values of a call.
struct Values {
  std::vector<Numbers> numbers;
  std::vector<bool> is_shared;
  Shape batch;

  nb::dlpack::dtype type() const {
    const auto is_double = [](const Numbers& each) { return each.type == kDouble; };
    return std::any_of(numbers.begin(), numbers.end(), is_double) ? kDouble : kSingle;
  }
};

/// False if a value is not plain, or their batch dimensions, where they have some, differ.
bool read_values(const TensorProgram& program, nb::handle objects, Values& values) {
  const size_t count = nb::len(objects);
  if (count == 0 || count != program.inputs().size()) return false;
  values.numbers.resize(count);
  values.is_shared.assign(count, true);
  for (size_t k = 0; k < count; ++k) {
    Tensor tensor;
    if (!program.read(objects[k], values.numbers[k], tensor)) return false;
    const Shape& own = program.inputs()[k];
    const auto num_batch = static_cast<long>(tensor.ndim) - static_cast<long>(own.size());
    if (num_batch < 0 || values.numbers[k].count == 0) return false;
    const std::int64_t *begin = tensor.shape, *end = begin + num_batch;
    if (!std::equal(own.begin(), own.end(), end)) return false;
    if (num_batch == 0) continue;
    values.is_shared[k] = false;
    if (values.batch.empty()) {
      values.batch.assign(begin, end);
    } else if (!std::equal(begin, end, values.batch.begin(), values.batch.end())) {
      return false;
    }
  }
  return true;
}

Shape joined(Shape batch, const Shape& own) {
  batch.insert(batch.end(), own.begin(), own.end());
  return batch;
}

class TensorRun : public LayerRun {
 public:
  TensorRun(const TensorProgram& program, ProgramData data, const Theta& theta,
            const Values& values, const SolveSettings& settings, int threads, int width,
            const std::vector<double*>& starts)
      : LayerRun(program.program(), std::move(data), theta, count_of(values.batch), settings,
                 threads, width, starts),
        tensors_(program),
        batch_shape_(values.batch),
        is_shared_(values.is_shared) {
    for (const Numbers& each : values.numbers) types_.push_back(each.type);
  }

  const Shape& batch_shape() const { return batch_shape_; }
  /// Keep the program alive; this takes the GIL, which the solve does not have.
  void keep(nb::object program) { owner_ = std::move(program); }

  /// The gradients, and each residual if one is above `bound`; None if a cotangent is not plain.
  nb::object pull_back_tensors(nb::handle cotangents, nb::handle needs, double bound) const {
    const size_t num_outputs = tensors_.outputs().size(), num_inputs = is_shared_.size();
    if (nb::len(cotangents) != num_outputs || nb::len(needs) != num_inputs) {
      throw nb::value_error("native engine: one cotangent per output, one need per parameter");
    }
    std::vector<Numbers> bars(num_outputs);
    for (size_t k = 0; k < num_outputs; ++k) {
      const nb::object bar = cotangents[k];
      Tensor tensor;
      if (bar.is_none()) continue;
      if (!tensors_.read(bar, bars[k], tensor)) return nb::none();
      if (bars[k].count != batch() * program().outputs()[k].size) return nb::none();
    }
    std::vector<Result> gradients(num_inputs);
    for (size_t k = 0; k < num_inputs; ++k) {
      if (!nb::cast<bool>(needs[k])) continue;
      const Shape& own = tensors_.inputs()[k];
      gradients[k] =
          Result(tensors_.exchange(), is_shared_[k] ? own : joined(batch_shape_, own), types_[k]);
    }
    const std::unique_ptr<double[]> residual(new double[static_cast<size_t>(batch())]);
    {
      const nb::gil_scoped_release release;
      pull_back_numbers(bars, gradients, residual.get());
    }
    nb::list found;
    for (const Result& gradient : gradients) {
      found.append(gradient.data == nullptr ? nb::none() : gradient.tensor);
    }
    const auto is_small = [bound](double value) { return value <= bound; };
    if (std::all_of(residual.get(), residual.get() + batch(), is_small)) {
      return nb::make_tuple(found, nb::none());
    }
    const auto size = static_cast<size_t>(batch());
    return nb::make_tuple(
        found, nb::cast(nb::ndarray<nb::numpy, double, nb::ndim<1>>(residual.get(), {size}),
                        nb::rv_policy::copy));
  }

 private:
  void pull_back_numbers(std::vector<Numbers>& bars, std::vector<Result>& gradients,
                         double* residual) const {
    std::vector<RowBlock> outputs_bar(bars.size()), theta_bar(gradients.size());
    for (size_t k = 0; k < bars.size(); ++k) {
      if (bars[k].data == nullptr) continue;
      outputs_bar[k] = {bars[k].doubles(threads()), batch(), program().outputs()[k].size};
    }
    for (size_t k = 0; k < gradients.size(); ++k) {
      if (gradients[k].data == nullptr) continue;
      const long length = program().part_size(static_cast<long>(k));
      theta_bar[k] = {gradients[k].start(), is_shared_[k] ? 1 : batch(), length};
    }
    pull_back(outputs_bar, theta_bar, residual);
    for (Result& gradient : gradients) gradient.finish(threads());
  }

  nb::object owner_;  // of `tensors_`
  const TensorProgram& tensors_;
  Shape batch_shape_;
  std::vector<bool> is_shared_;
  std::vector<nb::dlpack::dtype> types_;
};

/// (run, outputs), without outputs if a row is not solved; None if the values are not plain.
nb::object run(nb::handle_t<TensorProgram> self, nb::handle objects, double eps_abs, double eps_rel,
               int max_iterations, bool polish, int threads, int width) {
  const TensorProgram& tensors = *nb::inst_ptr<TensorProgram>(self);
  const LayerProgram& program = tensors.program();
  Values values;
  if (!read_values(tensors, objects, values)) return nb::none();
  std::vector<Result> outputs;
  std::vector<double*> starts;
  for (const Shape& shape : tensors.outputs()) {
    outputs.emplace_back(tensors.exchange(), joined(values.batch, shape), values.type());
    starts.push_back(outputs.back().start());
  }
  const long batch = count_of(values.batch);
  std::unique_ptr<TensorRun> made;
  {
    const nb::gil_scoped_release release;
    Theta theta;
    bool is_sound = true;
    for (size_t k = 0; k < values.numbers.size(); ++k) {
      Numbers& numbers = values.numbers[k];
      const long rows = values.is_shared[k] ? 1 : batch;
      theta.push_back({numbers.doubles(threads), rows, program.part_size(static_cast<long>(k))});
      is_sound = is_sound && tensors.are_in_domain(k, theta.back(), numbers.type, threads);
    }
    ProgramData data;
    if (is_sound) data = program.evaluate(theta, batch, threads, &is_sound);
    if (is_sound) {
      made = std::make_unique<TensorRun>(tensors, std::move(data), theta, values,
                                         layer_settings(eps_abs, eps_rel, max_iterations, polish),
                                         threads, width, starts);
      if (made->is_solved()) {
        for (Result& output : outputs) output.finish(threads);
      }
    }
  }
  if (!made) return nb::none();
  made->keep(nb::borrow(self));
  const bool is_solved = made->is_solved();
  nb::list found;
  for (const Result& output : outputs) {
    if (is_solved) found.append(output.tensor);
  }
  return nb::make_tuple(nb::cast(made.release(), nb::rv_policy::take_ownership), found);
}

}  // namespace

void bind_tensors(nb::module_& module) {
  module.def("can_exchange", &Exchange::is_known, "exchange"_a,
             "Whether tensors can be exchanged by this capsule.");
  nb::class_<TensorRun, LayerRun>(module, "TensorRun", nb::is_weak_referenceable(),
                                  "A plain call with tensors.")
      .def_prop_ro("batch_shape",
                   [](const TensorRun& run) { return nb::tuple(nb::cast(run.batch_shape())); })
      .def("pull_back_tensors", &TensorRun::pull_back_tensors, "cotangents"_a, "needs"_a, "bound"_a,
           "Return the gradients of the values, and the residual of each row's linear system if "
           "one is above the bound; None if a cotangent is not a plain tensor.");
  nb::class_<TensorProgram>(module, "TensorProgram",
                            "A compiled program as a function of one framework's tensors.")
      .def(nb::init<nb::object, nb::handle, std::vector<nb::object>, nb::str, std::vector<Shape>,
                    std::vector<unsigned>, std::vector<Shape>>(),
           "program"_a, "exchange"_a, "types"_a, "is_lazy"_a, "input_shapes"_a, "domains"_a,
           "output_shapes"_a,
           "The types are those to expect, `is_lazy` their method that tells whether what lies in "
           "memory is still to be changed.")
      .def("run", &run, "values"_a, "eps_abs"_a, "eps_rel"_a, "max_iterations"_a, "polish"_a,
           "threads"_a, "width"_a,
           "Solve a batch: the run and its outputs, of which there are none if a row is not "
           "solved; None if the values are not finite and plain tensors, or may not be what their "
           "parameters were declared to be.");
}

}  // namespace cvxlayer
