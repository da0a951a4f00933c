// SPDX-License-Identifier: Apache-2.0
//
// XLA's buffers as rows of doubles. The core computes in doubles whatever JAX holds, so float32
// is widened on the way in and rounded on the way out. Numbers that must survive in full where
// JAX has no float64 travel as pairs of uint32, the same bits.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <numeric>
#include <stdexcept>
#include <string>

#include "../batch/layer_program.hpp"
#include "xla/ffi/api/ffi.h"

namespace cvxlayer {

namespace ffi = xla::ffi;

template <class T>
T unwrap(ffi::ErrorOr<T> value) {
  if (value.has_error()) throw std::invalid_argument(value.error().message());
  return value.value();
}

inline long product_of(ffi::AnyBuffer::Dimensions dims, size_t count) {
  return std::accumulate(dims.begin(), dims.begin() + count, 1L, std::multiplies<long>());
}

/// Shape (rows, …, length) of a buffer whose last dimension is the row of a point; `inner` is
/// the product of what lies between.
struct BufferShape {
  long rows, inner, length;

  explicit BufferShape(const ffi::AnyBuffer& buffer) {
    const auto dims = buffer.dimensions();
    if (dims.size() < 2) throw std::invalid_argument("cvxlayer: a buffer without rows");
    rows = dims[0];
    inner = product_of(dims, dims.size() - 1) / (rows == 0 ? 1 : rows);
    length = dims[dims.size() - 1];
    if (buffer.element_type() == ffi::U32) length /= 2;
  }
};

/// An operand, read as doubles.
class Operand {
 public:
  explicit Operand(const ffi::AnyBuffer& buffer) : shape_(buffer) {
    const auto count = static_cast<size_t>(shape_.rows * shape_.inner * shape_.length);
    switch (buffer.element_type()) {
      case ffi::F64:
      case ffi::U32:
        start_ = static_cast<const double*>(buffer.untyped_data());
        break;
      case ffi::F32: {
        widened_.reset(new double[count + 1]);
        const auto* from = static_cast<const float*>(buffer.untyped_data());
        for (size_t k = 0; k < count; ++k) widened_[k] = from[k];
        start_ = widened_.get();
        break;
      }
      default:
        throw std::invalid_argument("cvxlayer: an operand must be float32 or float64");
    }
  }

  long rows() const { return shape_.rows; }
  long inner() const { return shape_.inner; }
  long length() const { return shape_.length; }
  const double* start() const { return start_; }
  RowBlock block() const { return {start_, shape_.rows, shape_.length}; }
  Rows<const double> view() const { return block().view(); }

 private:
  BufferShape shape_;
  std::unique_ptr<double[]> widened_;
  const double* start_;
};

/// A result, written as doubles; `finish` rounds it to what JAX asked for.
class Outcome {
 public:
  explicit Outcome(const ffi::AnyBuffer& buffer)
      : shape_(buffer), target_(buffer.untyped_data()), type_(buffer.element_type()) {
    if (type_ != ffi::F64 && type_ != ffi::U32 && type_ != ffi::F32) {
      throw std::invalid_argument("cvxlayer: a result must be float32 or float64");
    }
    if (type_ == ffi::F32) wide_.reset(new double[count() + 1]);
    start_ = type_ == ffi::F32 ? wide_.get() : static_cast<double*>(target_);
  }

  void finish() const {
    if (type_ != ffi::F32) return;
    auto* to = static_cast<float*>(target_);
    for (size_t k = 0; k < count(); ++k) to[k] = static_cast<float>(start_[k]);
  }

  size_t count() const { return static_cast<size_t>(shape_.rows * shape_.inner * shape_.length); }
  long rows() const { return shape_.rows; }
  double* start() const { return start_; }
  RowBlock block() const { return {start_, shape_.rows, shape_.length}; }
  Rows<double> view() const { return {start_, shape_.length, 1}; }

 private:
  BufferShape shape_;
  void* target_;
  ffi::DataType type_;
  std::unique_ptr<double[]> wide_;
  double* start_;
};

/// What one call of a handler was given, read from left to right.
class Call {
 public:
  Call(ffi::RemainingArgs args, ffi::RemainingRets rets, ffi::Dictionary attrs)
      : args_(args), rets_(rets), attrs_(attrs) {}

  long integer(const char* name) const { return unwrap(attrs_.get<std::int64_t>(name)); }
  ffi::Span<const std::int64_t> integers(const char* name) const {
    return unwrap(attrs_.get<ffi::Span<const std::int64_t>>(name));
  }
  double real(const char* name) const { return unwrap(attrs_.get<double>(name)); }

  Operand operand() { return Operand(next_operand()); }
  Outcome outcome() { return Outcome(next_outcome()); }
  template <class T>
  const T* typed_operand() {
    return static_cast<const T*>(next_operand().untyped_data());
  }
  template <class T>
  T* typed_outcome() {
    return static_cast<T*>(next_outcome().untyped_data());
  }
  ffi::AnyBuffer next_operand() { return unwrap(args_.get<ffi::AnyBuffer>(num_read_++)); }
  ffi::AnyBuffer next_outcome() { return *unwrap(rets_.get<ffi::AnyBuffer>(num_written_++)); }
  size_t operands_left() const { return args_.size() - num_read_; }

 private:
  ffi::RemainingArgs args_;
  ffi::RemainingRets rets_;
  ffi::Dictionary attrs_;
  size_t num_read_ = 0, num_written_ = 0;
};

}  // namespace cvxlayer
