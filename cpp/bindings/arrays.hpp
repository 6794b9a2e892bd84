// Checks arrays that come from Python: type, dtype, rank, shape and layout. The messages name the argument.
#pragma once

#include <cstdint>
#include <string>
#include <type_traits>
#include <vector>

#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>

#include "core/network.hpp"
#include "core/threads.hpp"

namespace fastnet::bindings {

namespace py = pybind11;

// Surrounds the call of a kernel: releases the GIL, and starts the clock of the checks for interrupts.
class KernelCall {
  public:
    KernelCall() { begin_call(); }

  private:
    const py::gil_scoped_release gil_{};
};

inline std::string shape_of(const py::array& a) {
    std::string text = "(";
    for (py::ssize_t i = 0; i < a.ndim(); ++i) {
        text += std::to_string(a.shape(i)) + (a.ndim() == 1 ? "," : i + 1 < a.ndim() ? ", " : "");
    }
    return text + ")";
}

// Returns `object` as a C-contiguous array. data_of, which checks the element type, also refuses foreign byte orders.
inline py::array as_array(py::handle object, const char* name, py::ssize_t ndim = -1) {
    if (!py::isinstance<py::array>(object)) {
        throw py::type_error(std::string(name) + " must be a NumPy array, not " +
                             std::string(py::str(py::type::of(object).attr("__name__"))));
    }
    auto array = py::reinterpret_borrow<py::array>(object);
    if (ndim >= 0 && array.ndim() != ndim) {
        throw py::value_error(std::string(name) + " must have " + std::to_string(ndim) + " dimension(s), not shape " +
                              shape_of(array));
    }
    if (!(array.flags() & py::array::c_style)) {
        throw py::value_error(std::string(name) + " must be C-contiguous");
    }
    if (!(array.flags() & py::detail::npy_api::NPY_ARRAY_ALIGNED_)) {
        throw py::value_error(std::string(name) + " must be aligned in memory");
    }
    return array;
}

template <class T> bool holds(const py::array& array) {
    return py::isinstance<py::array_t<T>>(array);
}

inline std::string dtype_of(const py::array& array) {
    return std::string(py::str(array.dtype()));
}

template <class T> const T* data_of(const py::array& array, const char* name) {
    if (!holds<T>(array)) {
        throw py::type_error(std::string(name) + " must be " + std::string(py::str(py::dtype::of<T>())) + ", not " +
                             dtype_of(array));
    }
    return static_cast<const T*>(array.data());
}

template <class T> T* data_of(py::array_t<T>& array) {
    return static_cast<T*>(array.mutable_data());
}

// Calls f(T{}) with the array's element type T, float or double.
template <class F> decltype(auto) with_element_type(const py::array& array, const char* name, F&& f) {
    if (holds<float>(array)) {
        return f(float{});
    }
    if (holds<double>(array)) {
        return f(double{});
    }
    throw py::type_error(std::string(name) + " must be float32 or float64, not " + dtype_of(array));
}

inline void require(bool holds, const char* message) {
    if (!holds) {
        throw py::value_error(message);
    }
}

// The same, with a function that builds the message, called only on failure.
template <class F> auto require(bool holds, F&& message) -> decltype(message(), void()) {
    if (!holds) {
        throw py::value_error(message());
    }
}

// Returns read(), which reads what Python describes by an object's attributes. Another object is a wrong type of
// argument.
template <class F> decltype(auto) described(F&& read) {
    try {
        return read();
    } catch (const py::error_already_set& error) {
        if (error.matches(PyExc_AttributeError)) {
            throw py::type_error(py::str(error.value()));
        }
        throw;
    }
}

// An uninitialised array. The constructors of py::array allocate lists of the shape and of the strides, too, which a
// small product would see.
template <class T> py::array_t<T> empty(int ndim, const py::ssize_t* shape) {
    const auto& numpy = py::detail::npy_api::get();
    PyObject* const made =
        numpy.PyArray_NewFromDescr_(numpy.PyArray_Type_, py::dtype::of<T>().release().ptr(), ndim,
                                    reinterpret_cast<const Py_intptr_t*>(shape), nullptr, nullptr, 0, nullptr);
    if (!made) {
        throw py::error_already_set();
    }
    return py::reinterpret_steal<py::array_t<T>>(made);
}

template <class T> py::array_t<T> empty(py::ssize_t rows, py::ssize_t columns) {
    const py::ssize_t shape[] = {rows, columns};
    return empty<T>(2, shape);
}

// One of the same shape.
template <class T> py::array_t<T> empty_like(const py::array& array) {
    return empty<T>(static_cast<int>(array.ndim()), array.shape());
}

// A copy of whole numbers, each of which check(i, number) has accepted: while a kernel runs, other threads may change
// the array, but no number that it uses as an index.
template <class F> std::vector<std::int64_t> checked_copy(const py::array& array, const char* name, F&& check) {
    const std::int64_t* const from = data_of<std::int64_t>(array, name);
    std::vector<std::int64_t> copy(from, from + array.size());
    for (std::size_t i = 0; i < copy.size(); ++i) {
        check(i, copy[i]);
    }
    return copy;
}

// The targets for outputs of shape (rows, classes): int64 labels (rows), or values (rows, classes) of type T.
template <class T> class TargetsView {
  public:
    TargetsView(const py::array& t, Index rows, Index classes) : t_(t) {
        if (t.ndim() == 2) {
            require(t.shape(0) == rows && t.shape(1) == classes, [&] {
                return "t has shape " + shape_of(t) + " for an answer of shape (" + std::to_string(rows) + ", " +
                       std::to_string(classes) + ")";
            });
            targets = {nullptr, data_of<T>(t, "t")};
            return;
        }
        require(t.ndim() == 1 && t.shape(0) == rows,
                [&] { return "t has shape " + shape_of(t) + " for " + std::to_string(rows) + " rows of x"; });
        labels_ = checked_copy(t, "t", [&](std::size_t i, std::int64_t label) {
            require(label >= 0 && label < classes, [&] {
                return "t[" + std::to_string(i) + "] is " + std::to_string(label) + ", which is not a label of " +
                       std::to_string(classes) + " classes";
            });
        });
        targets = {labels_.data(), nullptr};
    }
    TargetsView(const TargetsView&) = delete;
    TargetsView& operator=(const TargetsView&) = delete;

    Targets<T> targets{};

  private:
    const py::array t_; // kept alive
    std::vector<std::int64_t> labels_;
};

} // namespace fastnet::bindings
