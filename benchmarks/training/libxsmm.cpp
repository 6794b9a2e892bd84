// An epoch of SGD on a network with one hidden sigmoid layer, softmax and cross entropy, as plain C++ with the products
// of libxsmm: its kernels, compiled at run time for these shapes, and its transposition. One thread, float32.
#include <libxsmm.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <vector>

namespace {

// c (m, n) = a (m, k) . b (k, n), row-major: for the column-major kernels, the transposed of all.
class Product {
  public:
    Product(int m, int n, int k) {
        const float one = 1, zero = 0;
        kernel_ = libxsmm_smmdispatch(n, m, k, nullptr, nullptr, nullptr, &one, &zero, nullptr, nullptr);
    }
    void operator()(const float* a, const float* b, float* c) const { kernel_(b, a, c); }
    explicit operator bool() const { return kernel_ != nullptr; }

  private:
    libxsmm_smmfunction kernel_;
};

// to (columns, rows) = the transposed of from (rows, columns).
void transpose(const float* from, float* to, int rows, int columns) {
    libxsmm_otrans(to, from, sizeof(float), columns, rows, columns, rows);
}

void add_rows(float* units, const float* bias, int rows, int columns) {
    for (int i = 0; i < rows; ++i) {
        for (int j = 0; j < columns; ++j) {
            units[i * columns + j] += bias[j];
        }
    }
}

void descend(float* p, const float* gradient, float rate, int size) {
    for (int i = 0; i < size; ++i) {
        p[i] -= rate * gradient[i];
    }
}

// bias (columns) -= rate * the sums of d (rows, columns) over its rows.
void descend_bias(float* bias, const float* d, float rate, int rows, int columns) {
    for (int j = 0; j < columns; ++j) {
        float sum = 0;
        for (int i = 0; i < rows; ++i) {
            sum += d[i * columns + j];
        }
        bias[j] -= rate * sum;
    }
}

} // namespace

// x (rows, inputs), t (rows); order (steps, batch): rows; w1 (inputs, hidden), w2 (hidden, classes) and the biases are
// changed in place; losses (steps). Returns 0, or 1 where libxsmm has no kernels for this processor.
extern "C" int train(const float* x, const std::int64_t* t, const std::int64_t* order, int steps, int batch, int inputs,
                     int hidden, int classes, float* w1, float* b1, float* w2, float* b2, float rate, float* losses) {
    libxsmm_init();
    const Product first(batch, hidden, inputs), second(batch, classes, hidden), back(batch, hidden, classes);
    const Product gradient1(inputs, hidden, batch), gradient2(hidden, classes, batch);
    if (!first || !second || !back || !gradient1 || !gradient2) {
        return 1;
    }
    const auto floats = [](int rows, int columns) {
        return std::vector<float>(static_cast<std::size_t>(rows) * columns);
    };
    auto rows = floats(batch, inputs), z = floats(batch, hidden), y = floats(batch, classes), d = floats(batch, hidden);
    auto rows_t = floats(inputs, batch), z_t = floats(hidden, batch), w2_t = floats(classes, hidden);
    auto g1 = floats(inputs, hidden), g2 = floats(hidden, classes);
    for (int step = 0; step < steps; ++step, order += batch) {
        for (int i = 0; i < batch; ++i) {
            std::memcpy(&rows[static_cast<std::size_t>(i) * inputs], x + order[i] * inputs, sizeof(float) * inputs);
        }
        first(rows.data(), w1, z.data());
        add_rows(z.data(), b1, batch, hidden);
        for (float& unit : z) {
            unit = 1 / (1 + std::exp(-unit));
        }
        second(z.data(), w2, y.data());
        add_rows(y.data(), b2, batch, classes);
        float loss = 0;
        for (int i = 0; i < batch; ++i) {
            float* const row = &y[i * classes];
            const float most = *std::max_element(row, row + classes);
            float sum = 0;
            for (int j = 0; j < classes; ++j) {
                sum += row[j] = std::exp(row[j] - most);
            }
            const std::int64_t label = t[order[i]];
            loss -= std::log(row[label] / sum);
            for (int j = 0; j < classes; ++j) {
                row[j] = (row[j] / sum - (j == label ? 1.0f : 0.0f)) / batch;
            }
        }
        losses[step] = loss / batch;
        transpose(z.data(), z_t.data(), batch, hidden);
        gradient2(z_t.data(), y.data(), g2.data());
        transpose(w2, w2_t.data(), hidden, classes);
        back(y.data(), w2_t.data(), d.data());
        for (int i = 0; i < batch * hidden; ++i) {
            d[i] *= z[i] * (1 - z[i]);
        }
        transpose(rows.data(), rows_t.data(), batch, inputs);
        gradient1(rows_t.data(), d.data(), g1.data());
        descend(w1, g1.data(), rate, inputs * hidden);
        descend(w2, g2.data(), rate, hidden * classes);
        descend_bias(b1, d.data(), rate, batch, hidden);
        descend_bias(b2, y.data(), rate, batch, classes);
    }
    return 0;
}
