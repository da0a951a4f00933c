// SPDX-License-Identifier: Apache-2.0
#include "exchange.hpp"

#include <functional>
#include <new>
#include <numeric>
#include <utility>

#include "../batch/memory_pool.hpp"

namespace cvxlayer {

namespace {

constexpr char kCapsule[] = "dlpack_exchange_api";
constexpr std::uint32_t kMajor = 1;
// From this size on memory is ours and kept, up to so much of it.
constexpr size_t kLargeBytes = size_t{1} << 20, kMostKeptBytes = size_t{64} << 20;

/// Tensors may outlive everything else, so it is never destroyed.
MemoryPool& pool() {
  static auto* const pool = new MemoryPool(kMostKeptBytes);
  return *pool;
}

}  // namespace

long count_of(const Shape& shape) {
  return std::accumulate(shape.begin(), shape.end(), 1L, std::multiplies<>());
}

/// A tensor in the memory of the pool.
struct Exchange::Large {
  Owned owned{};
  Shape shape, strides;
  size_t bytes;
  Memory memory = pool().take(bytes);

  Large(const Shape& of, nb::dlpack::dtype type, Version version, size_t size)
      : shape(of), strides(of.size(), 1), bytes(size) {
    for (size_t k = shape.size(); k-- > 1;) strides[k - 1] = strides[k] * shape[k];
    owned.version = version;
    owned.context = this;
    owned.deleter = [](Owned* tensor) { delete static_cast<Large*>(tensor->context); };
    owned.tensor.device = {nb::device::cpu::value, 0};
    owned.tensor.ndim = static_cast<std::int32_t>(shape.size());
    owned.tensor.dtype = type;
    owned.tensor.shape = shape.data();
    owned.tensor.strides = strides.data();
    owned.tensor.data = memory.get();
  }
  Large(const Large&) = delete;
  Large& operator=(const Large&) = delete;
  ~Large() { pool().give(std::move(memory), bytes); }
};

const Exchange::Table* Exchange::find(nb::handle capsule) {
  const auto* table = static_cast<const Table*>(PyCapsule_GetPointer(capsule.ptr(), kCapsule));
  if (table == nullptr) throw nb::python_error();
  while (table != nullptr && table->version.major != kMajor) table = table->older;
  return table;
}

bool Exchange::is_known(nb::handle capsule) {
  const Table* table = find(capsule);
  return table != nullptr && table->view != nullptr;
}

Exchange::Exchange(nb::handle capsule) : table_(find(capsule)) {
  if (!is_known(capsule)) {
    throw nb::value_error("native engine: tensors cannot be exchanged by this version of DLPack");
  }
}

nb::object Exchange::make(const Shape& shape, nb::dlpack::dtype type, void** data) const {
  const size_t bytes = static_cast<size_t>(count_of(shape)) * type.bits / 8;
  if (bytes >= kLargeBytes) {
    Owned* owned = &(new Large(shape, type, table_->version, bytes))->owned;
    *data = owned->tensor.data;
    return wrap(owned);
  }
  nb::dlpack::dltensor prototype{};
  prototype.device = {nb::device::cpu::value, 0};
  prototype.ndim = static_cast<std::int32_t>(shape.size());
  prototype.dtype = type;
  prototype.shape = const_cast<std::int64_t*>(shape.data());
  Owned* owned = nullptr;
  // What goes wrong here is that there is no memory left.
  const auto ignore = [](void*, const char*, const char*) {};
  if (table_->allocate(&prototype, &owned, nullptr, ignore) != 0) throw std::bad_alloc();
  *data = static_cast<char*>(owned->tensor.data) + owned->tensor.byte_offset;
  return wrap(owned);
}

nb::object Exchange::wrap(Owned* owned) const {
  void* object = nullptr;
  if (table_->wrap(owned, &object) != 0) throw nb::python_error();
  return nb::steal(static_cast<PyObject*>(object));
}

}  // namespace cvxlayer
