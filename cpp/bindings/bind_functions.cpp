// Functions on arrays: matrix product, activations, softmax and losses.
#include <string>
#include <utility>

#include "bindings/arrays.hpp"
#include "bindings/register.hpp"
#include "core/dispatch.hpp"

namespace fastnet::bindings {

namespace {

Activation as_activation(int kind) {
    require(kind >= 0 && kind <= static_cast<int>(Activation::elu),
            [&] { return "there is no activation " + std::to_string(kind); });
    return static_cast<Activation>(kind);
}

template <class T> Matrix<T> as_matrix(const py::array& a, const char* name, bool transpose) {
    const T* data = data_of<T>(a, name);
    const Index rows = a.shape(0), columns = a.shape(1);
    return transpose ? Matrix<T>{data, columns, rows, 1, columns} : Matrix<T>{data, rows, columns, columns, 1};
}

py::array matmul(py::handle a_object, py::handle b_object, bool transpose_a, bool transpose_b) {
    const py::array a = as_array(a_object, "a", 2), b = as_array(b_object, "b", 2);
    return with_element_type(a, "a", [&](auto zero) -> py::array {
        using T = decltype(zero);
        const Matrix<T> left = as_matrix<T>(a, "a", transpose_a), right = as_matrix<T>(b, "b", transpose_b);
        require(left.columns == right.rows, [&] {
            return "a of shape " + shape_of(a) + (transpose_a ? " (transposed)" : "") + " and b of shape " +
                   shape_of(b) + (transpose_b ? " (transposed)" : "") + " can't be multiplied";
        });
        py::array_t<T> c = empty<T>(left.rows, right.columns);
        T* to = data_of(c);
        const KernelCall call;
        kernels<T>().matmul(left, right, to, right.columns);
        return c;
    });
}

py::array add_bias(py::handle x_object, py::handle b_object) {
    const py::array x = as_array(x_object, "x", 2), b = as_array(b_object, "b", 1);
    require(x.shape(1) == b.shape(0), [&] {
        return "b has " + std::to_string(b.shape(0)) + " elements for " + std::to_string(x.shape(1)) + " columns of x";
    });
    return with_element_type(x, "x", [&](auto zero) -> py::array {
        using T = decltype(zero);
        const T *from = data_of<T>(x, "x"), *bias = data_of<T>(b, "b");
        py::array_t<T> result = empty_like<T>(x);
        T* to = data_of(result);
        const Index rows = x.shape(0), columns = x.shape(1);
        const KernelCall call;
        kernels<T>().add_bias(from, bias, to, rows, columns);
        return result;
    });
}

// Returns an array of x's shape, any shape, which f(kernels, from, to, size) fills element by element.
template <class F> py::array map_array(py::handle object, F&& f) {
    const py::array x = as_array(object, "x");
    return with_element_type(x, "x", [&](auto zero) -> py::array {
        using T = decltype(zero);
        const T* from = data_of<T>(x, "x");
        py::array_t<T> result = empty_like<T>(x);
        T* to = data_of(result);
        const Index size = x.size();
        const KernelCall call;
        f(kernels<T>(), from, to, size);
        return result;
    });
}

// The exponential inside softmax and the activations, so that tests can measure its error by itself.
py::array exp(py::handle x) {
    return map_array(x, [](const auto& k, const auto* from, auto* to, Index n) { k.exp(from, to, n); });
}

py::array activation(int kind, py::handle x, double constant) {
    const Activation a = as_activation(kind);
    return map_array(x, [&]<class T>(const Kernels<T>& k, const T* from, T* to, Index n) {
        k.activation(a, static_cast<T>(constant), from, to, n);
    });
}

py::array activation_derivative(int kind, py::handle x, double constant) {
    const Activation a = as_activation(kind);
    return map_array(x, [&]<class T>(const Kernels<T>& k, const T* from, T* to, Index n) {
        k.activation_derivative(a, static_cast<T>(constant), from, to, n);
    });
}

py::array softmax(py::handle object) {
    const py::array x = as_array(object, "x", 2);
    require(x.shape(1) > 0, [&] { return "x of shape " + shape_of(x) + " has no columns"; });
    return with_element_type(x, "x", [&](auto zero) -> py::array {
        using T = decltype(zero);
        const T* from = data_of<T>(x, "x");
        py::array_t<T> result = empty_like<T>(x);
        T* to = data_of(result);
        const Index rows = x.shape(0), columns = x.shape(1);
        const KernelCall call;
        kernels<T>().softmax(from, to, rows, columns);
        return result;
    });
}

double mean_loss(int kind, py::handle y_object, py::handle t_object, double constant) {
    require(kind >= 0 && kind <= static_cast<int>(Loss::absolute_error),
            [&] { return "there is no loss " + std::to_string(kind); });
    const py::array y = as_array(y_object, "y", 2), t = as_array(t_object, "t");
    require(y.shape(0) > 0, [&] { return "y of shape " + shape_of(y) + " has no rows"; });
    return with_element_type(y, "y", [&](auto zero) {
        using T = decltype(zero);
        const T* from = data_of<T>(y, "y");
        const Index rows = y.shape(0), classes = y.shape(1);
        const TargetsView<T> view(t, rows, classes);
        const KernelCall call;
        return kernels<T>().mean_loss(static_cast<Loss>(kind), static_cast<T>(constant), from, view.targets, rows,
                                      classes);
    });
}

} // namespace

void register_functions(py::module_& m) {
    // A flag must be True or False, not only true or false.
    m.def("matmul", matmul, py::arg("a"), py::arg("b"), py::arg("transpose_a").noconvert() = false,
          py::arg("transpose_b").noconvert() = false);
    m.def("add_bias", add_bias, py::arg("x"), py::arg("b"));
    m.def("exp", exp, py::arg("x"));
    m.def("activation", activation, py::arg("kind"), py::arg("x"), py::arg("constant") = 0.0);
    m.def("activation_derivative", activation_derivative, py::arg("kind"), py::arg("x"), py::arg("constant") = 0.0);
    m.def("softmax", softmax, py::arg("x"));
    m.def("mean_loss", mean_loss, py::arg("kind"), py::arg("y"), py::arg("t"), py::arg("constant") = 0.0);
}

} // namespace fastnet::bindings
