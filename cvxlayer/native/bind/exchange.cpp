// SPDX-License-Identifier: Apache-2.0
#include "exchange.hpp"

#include <new>

namespace cvxlayer {

namespace {

constexpr char kCapsule[] = "dlpack_exchange_api";
constexpr std::uint32_t kMajor = 1;

}  // namespace

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
  void* object = nullptr;
  if (table_->wrap(owned, &object) != 0) throw nb::python_error();
  return nb::steal(static_cast<PyObject*>(object));
}

}  // namespace cvxlayer
