// Training: whole stretches of minibatches, with the optimizer's steps.
#include <cmath>
#include <iterator>
#include <string>
#include <type_traits>
#include <variant>
#include <vector>

#include "bindings/network_view.hpp"
#include "bindings/register.hpp"
#include "bindings/stage_view.hpp"

namespace fastnet::bindings {

namespace {

// The network's parameters, which training changes in place, each with its optimizer's slots.
template <class T>
std::vector<Parameter<T>> parameters_of(const std::vector<py::array>& arrays, const py::tuple& slots) {
    std::vector<Parameter<T>> parameters;
    for (const py::array& array : arrays) {
        const Index size = array.size();
        const std::string number = std::to_string(parameters.size() + 1);
        Parameter<T> parameter{writable<T>(array, "parameter " + number, size), {nullptr, nullptr}, size};
        for (std::size_t s = 0; s < slots.size(); ++s) {
            const py::tuple kept = slots[s];
            require(kept.size() > parameters.size(),
                    [&] { return "slot " + std::to_string(s + 1) + " has too few arrays"; });
            parameter.slots[s] = writable<T>(kept[parameters.size()], "slot array " + number, size);
        }
        parameters.push_back(parameter);
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

// Data x (rows, columns) prepared for training and for answers, and x itself.
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

    // The data; raises unless they fit the network.
    template <class Net> const Dataset<typename Net::Element>& get_for(const Net& net) const {
        using T = typename Net::Element;
        const auto* const data = std::get_if<Dataset<T>>(&data_);
        if (!data) {
            throw py::type_error("x must be " + std::string(py::str(py::dtype::of<T>())) + ", not " + dtype_of(x_));
        }
        require(data->columns() == net.inputs(), [&] {
            return "x has " + std::to_string(data->columns()) + " columns for a network of " +
                   std::to_string(net.inputs()) + " inputs";
        });
        return *data;
    }

  private:
    using Data = std::variant<Dataset<float>, Dataset<double>>;
    const py::array x_; // kept alive
    const Data data_;
};

// A network's answers to all rows, (rows, classes), in inference.
py::array answer_all(const DatasetView& dataset, py::handle spec) {
    return with_network(spec, [&](const auto& net) -> py::array {
        using T = typename std::remove_cvref_t<decltype(net)>::Element;
        const Dataset<T>& data = dataset.get_for(net);
        py::array_t<T> y = empty<T>(data.rows(), net.classes());
        T* to = data_of(y);
        const Source<T> source = data.all();
        const Batch<T> batch{data.x(), data.rows(), {}, &source};
        const KernelCall call;
        kernels_of(net).forward(net.network, batch, to);
        return y;
    });
}

// Whether no element of x is NaN or infinite.
bool all_finite(py::handle object) {
    const py::array x = as_array(object, "x");
    return with_element_type(x, "x", [&](auto zero) {
        using T = decltype(zero);
        const T* values = data_of<T>(x, "x");
        const Index size = x.size();
        const KernelCall call;
        return kernels<T>().all_finite(values, size);
    });
}

// What a network is trained with.
struct TrainingArguments {
    py::handle batches;
    int gradient;
    double h;
    py::handle update, losses, done;
};

// train(training) with the arguments as the kernels read them.
template <class Net, class F> void with_training(const Net& net, const TrainingArguments& arguments, F&& train) {
    using T = typename Net::Element;
    const py::object data_object = arguments.batches.attr("data");
    if (!py::isinstance<DatasetView>(data_object)) {
        throw py::type_error("data must be a Dataset, not " +
                             std::string(py::str(py::type::of(data_object).attr("__name__"))));
    }
    const auto& dataset = data_object.cast<const DatasetView&>();
    const Index batch_size = arguments.batches.attr("size").cast<Index>();
    const py::array t = as_array(arguments.batches.attr("targets"), "t");
    const Index epochs = arguments.batches.attr("epochs").cast<Index>();
    const py::array order = as_array(arguments.batches.attr("order"), "order");
    const py::array coefficients = as_array(arguments.update.attr("coefficients"), "coefficients", 2);
    const Dataset<T>& data = dataset.get_for(net);
    const std::vector<std::int64_t> rows = checked_copy(order, "order", [&](std::size_t i, std::int64_t row) {
        require(row >= 0 && row < data.rows(), [&] {
            return "order[" + std::to_string(i) + "] is " + std::to_string(row) + ", but x has " +
                   std::to_string(data.rows()) + " rows";
        });
    });
    const bool same_order = order.ndim() == 1;
    require(epochs > 0 && (same_order || (order.ndim() == 2 && order.shape(0) == epochs)), [&] {
        return "order has shape " + shape_of(order) + ", which is not that of " + std::to_string(epochs) + " epoch(s)";
    });
    const Index count = order.shape(order.ndim() - 1);
    const TargetsView<T> targets(t, data.rows(), net.classes());
    const int gradient = arguments.gradient;
    const double h = arguments.h;
    require(batch_size > 0, [&] { return "a batch's size must be positive, not " + std::to_string(batch_size); });
    require(gradient >= 0 && gradient <= static_cast<int>(GradientKind::nodal),
            [&] { return "there is no gradient kind " + std::to_string(gradient); });
    require(static_cast<T>(h) > 0 && std::isfinite(static_cast<T>(h)), "h must be positive and finite");
    const Index steps = epochs * ((count + batch_size - 1) / batch_size);
    const Optimizer optimizer = as_optimizer(arguments.update, coefficients, steps);
    const std::vector<Parameter<T>> parameters = parameters_of<T>(net.parameters(), arguments.update.attr("slots"));
    const Training<T> training{.data = &data,
                               .targets = targets.targets,
                               .order = rows.data(),
                               .order_stride = same_order ? 0 : count,
                               .epochs = epochs,
                               .count = count,
                               .batch_size = batch_size,
                               .gradient = static_cast<GradientKind>(gradient),
                               .h = h,
                               .optimizer = optimizer,
                               .parameters = parameters.data(),
                               .parameter_count = static_cast<Index>(parameters.size()),
                               .losses = writable<double>(arguments.losses, "losses", steps),
                               .done = writable<std::int64_t>(arguments.done, "done", 1)};
    const KernelCall call;
    train(training);
}

// `before`, which a chain does not need, is the same network with state arrays of its own, which hold the state from
// before the last step afterwards.
void train(py::handle spec, py::handle batches, int gradient, double h, py::handle update, py::handle losses,
           py::handle done, py::handle before_spec) {
    const TrainingArguments arguments{batches, gradient, h, update, losses, done};
    with_network(spec, [&](const auto& net) {
        using Net = std::remove_cvref_t<decltype(net)>;
        using T = typename Net::Element;
        if constexpr (Net::is_chain) {
            with_training(net, arguments,
                          [&](const Training<T>& training) { kernels<T>().train(net.network, training); });
        } else {
            require(!before_spec.is_none(), "a network that is not a chain needs `before`");
            require(!net.has_masks(), "the masks of dropout are given for one batch, and training has many");
            const StageView<T> before(before_spec);
            require(before.parts().size() == net.parts().size(), "the two networks must have as many stages");
            with_training(net, arguments, [&](const Training<T>& training) {
                kernels<T>().stages.train(net.network, before.network, training);
            });
        }
    });
}

} // namespace

void register_training(py::module_& m) {
    py::class_<DatasetView>(m, "Dataset")
        .def(py::init<py::handle>(), py::arg("x"))
        .def("forward", answer_all, py::arg("spec"));
    m.def("all_finite", all_finite, py::arg("x"));
    m.def("train", train, py::arg("spec"), py::arg("batches"), py::arg("gradient"), py::arg("h"), py::arg("update"),
          py::arg("losses"), py::arg("done"), py::arg("before") = py::none());
}

} // namespace fastnet::bindings
