// SPDX-License-Identifier: Apache-2.0
//
// A framework's tensors, read and made without Python: the C exchange API of DLPack 1.3, a table
// of functions that a tensor type carries as the capsule `__dlpack_c_exchange_api__`. Its layout
// is fixed by the version.
//
// Source: https://github.com/dmlc/dlpack, include/dlpack/dlpack.h, `DLPackExchangeAPI`.
#pragma once

#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>

#include <cstdint>
#include <vector>

namespace cvxlayer {

namespace nb = nanobind;

using Shape = std::vector<std::int64_t>;

/// Of the numbers of a tensor.
long count_of(const Shape& shape);

class Exchange {
 public:
  /// Whether the table is of a version that is known here, and can do what is asked of it.
  static bool is_known(nb::handle capsule);
  explicit Exchange(nb::handle capsule);

  /// A tensor that stays its owner's; false if it cannot be described.
  bool view(nb::handle tensor, nb::dlpack::dltensor& out) const {
    if (table_->view(tensor.ptr(), &out) == 0) return true;
    PyErr_Clear();
    return false;
  }

  /// A new tensor in host memory, not written yet; `data` is where. The memory of a large one is
  /// used again once the tensor is gone.
  nb::object make(const Shape& shape, nb::dlpack::dtype type, void** data) const;

 private:
  struct Version {
    std::uint32_t major, minor;
  };
  struct Owned {
    Version version;
    void* context;
    void (*deleter)(Owned*);
    std::uint64_t flags;
    nb::dlpack::dltensor tensor;
  };
  using SetError = void (*)(void* context, const char* kind, const char* message);
  struct Table {
    Version version;
    Table* older;  // of another major version
    int (*allocate)(nb::dlpack::dltensor* prototype, Owned** out, void* context, SetError);
    int (*own)(void* object, Owned** out);
    int (*wrap)(Owned* tensor, void** out_object);
    int (*view)(void* object, nb::dlpack::dltensor* out);
    int (*current_stream)(std::int32_t device_type, std::int32_t device, void** out);
  };
  struct Large;
  static const Table* find(nb::handle capsule);
  /// The tensor as a Python object, which owns it from here on.
  nb::object wrap(Owned* owned) const;
  const Table* table_;
};

}  // namespace cvxlayer
