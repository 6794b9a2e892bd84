// Training: whole stretches of minibatches, with the optimizer's steps.
#include <cmath>
#include <iterator>
#include <string>
#include <variant>
#include <vector>

#include "bindings/network_view.hpp"
#include "bindings/register.hpp"
#include "core/dispatch.hpp"

namespace fastnet::bindings {

namespace {

// `object` as an array that can be changed in place.
template <class T> T* writable(py::handle object, const std::string& name, Index size) {
    const py::array array = as_array(object, name.c_str());
    require(array.size() == size,
            [&] { return name + " has " + std::to_string(array.size()) + " elements, not " + std::to_string(size); });
    require(array.writeable(), [&] { return name + " is read-only"; });
    return const_cast<T*>(data_of<T>(array, name.c_str()));
}

// The network's parameters, W1, b1, W2, b2, …, which training changes in place, each with its optimizer's slots.
template <class T> std::vector<Parameter<T>> parameters_of(py::handle spec, const py::tuple& slots) {
    const py::tuple weights = spec.attr("weights"), biases = spec.attr("biases");
    std::vector<Parameter<T>> parameters;
    const auto add = [&](py::handle object) {
        const Index size = py::cast<py::array>(object).size();
        const std::string number = std::to_string(parameters.size() + 1);
        Parameter<T> parameter{writable<T>(object, "parameter " + number, size), {nullptr, nullptr}, size};
        for (std::size_t s = 0; s < slots.size(); ++s) {
            const py::tuple arrays = slots[s];
            require(arrays.size() > parameters.size(),
                    [&] { return "slot " + std::to_string(s + 1) + " has too few arrays"; });
            parameter.slots[s] = writable<T>(arrays[parameters.size()], "slot array " + number, size);
        }
        parameters.push_back(parameter);
    };
    for (std::size_t l = 0; l < weights.size(); ++l) {
        add(weights[l]);
        if (!biases[l].is_none()) {
            add(biases[l]);
        }
    }
    return parameters;
}

// An `Update` as the kernels read it, for so many steps.
Optimizer as_optimizer(py::handle update, const py::array& coefficients, Index steps) {
    const int rule = update.attr("rule").cast<int>();
    const py::tuple constants = update.attr("constants"), slots = update.attr("slots");
    require(rule >= 0 && rule < rule_count, [&] { return "there is no rule " + std::to_string(rule); });
    require(coefficients.shape(0) == steps, [&] {
        return "coefficients has " + std::to_string(coefficients.shape(0)) + " rows for " + std::to_string(steps) +
               " steps";
    });
    const RuleSizes sizes = rule_sizes[rule];
    require(std::ssize(slots) == sizes.slots && std::ssize(constants) == sizes.constants &&
                coefficients.shape(1) == sizes.coefficients,
            [&] {
                return "rule " + std::to_string(rule) + " takes " + std::to_string(sizes.constants) + " constants, " +
                       std::to_string(sizes.coefficients) + " coefficients and " + std::to_string(sizes.slots) +
                       " slots";
            });
    Optimizer optimizer{
        static_cast<Rule>(rule), {}, data_of<double>(coefficients, "coefficients"), coefficients.shape(1)};
    for (std::size_t i = 0; i < constants.size(); ++i) {
        optimizer.constants[i] = constants[i].cast<double>();
    }
    return optimizer;
}

// Data x (rows, columns) prepared for training, and x itself.
class DatasetView {
  public:
    explicit DatasetView(py::handle object)
        : x_(as_array(object, "x", 2)), data_(with_element_type(x_, "x", [&](auto zero) -> Data {
              using T = decltype(zero);
              require(x_.shape(0) > 0 && x_.shape(1) > 0, [&] { return "x of shape " + shape_of(x_) + " is empty"; });
              const T* values = data_of<T>(x_, "x");
              const Index rows = x_.shape(0), columns = x_.shape(1);
              const KernelCall call;
              return Data(std::in_place_type<Dataset<T>>, values, rows, columns);
          })) {}

    // Raises unless it holds elements of type T.
    template <class T> const Dataset<T>& get() const {
        if (const auto* data = std::get_if<Dataset<T>>(&data_)) {
            return *data;
        }
        throw py::type_error("x must be " + std::string(py::str(py::dtype::of<T>())) + ", not " + dtype_of(x_));
    }

  private:
    using Data = std::variant<Dataset<float>, Dataset<double>>;
    const py::array x_; // kept alive
    const Data data_;
};

void train(py::handle spec, py::handle batches, int gradient, double h, py::handle update, py::handle losses,
           py::handle done) {
    const py::object data_object = batches.attr("data");
    if (!py::isinstance<DatasetView>(data_object)) {
        throw py::type_error("data must be a Dataset, not " +
                             std::string(py::str(py::type::of(data_object).attr("__name__"))));
    }
    const auto& dataset = data_object.cast<const DatasetView&>();
    const Index batch_size = batches.attr("size").cast<Index>();
    const py::array t = as_array(batches.attr("targets"), "t");
    const py::array order = as_array(batches.attr("order"), "order", 1);
    const py::array coefficients = as_array(update.attr("coefficients"), "coefficients", 2);
    with_network_type(spec, [&](auto zero) {
        using T = decltype(zero);
        const NetworkView<T> net(spec);
        const Dataset<T>& data = dataset.get<T>();
        require(data.columns() == net.inputs(), [&] {
            return "x has " + std::to_string(data.columns()) + " columns for a network of " +
                   std::to_string(net.inputs()) + " inputs";
        });
        const std::int64_t* rows = data_of<std::int64_t>(order, "order");
        const Index count = order.shape(0);
        for (Index i = 0; i < count; ++i) {
            require(rows[i] >= 0 && rows[i] < data.rows(), [&] {
                return "order[" + std::to_string(i) + "] is " + std::to_string(rows[i]) + ", but x has " +
                       std::to_string(data.rows()) + " rows";
            });
        }
        require(batch_size > 0, [&] { return "a batch's size must be positive, not " + std::to_string(batch_size); });
        require(gradient >= 0 && gradient <= static_cast<int>(GradientKind::nodal),
                [&] { return "there is no gradient kind " + std::to_string(gradient); });
        require(static_cast<T>(h) > 0 && std::isfinite(static_cast<T>(h)), "h must be positive and finite");
        const Index steps = (count + batch_size - 1) / batch_size;
        const Optimizer optimizer = as_optimizer(update, coefficients, steps);
        const std::vector<Parameter<T>> parameters = parameters_of<T>(spec, update.attr("slots"));
        const Training<T> training{.data = &data,
                                   .targets = as_targets<T>(t, data.rows(), net.classes()),
                                   .order = rows,
                                   .count = count,
                                   .batch_size = batch_size,
                                   .gradient = static_cast<GradientKind>(gradient),
                                   .h = h,
                                   .optimizer = optimizer,
                                   .parameters = parameters.data(),
                                   .parameter_count = static_cast<Index>(parameters.size()),
                                   .losses = writable<double>(losses, "losses", steps),
                                   .done = writable<std::int64_t>(done, "done", 1)};
        const KernelCall call;
        kernels<T>().train(net.network, training);
    });
}

} // namespace

void register_training(py::module_& m) {
    py::class_<DatasetView>(m, "Dataset").def(py::init<py::handle>(), py::arg("x"));
    m.def("train", train, py::arg("spec"), py::arg("batches"), py::arg("gradient"), py::arg("h"), py::arg("update"),
          py::arg("losses"), py::arg("done"));
}

} // namespace fastnet::bindings
