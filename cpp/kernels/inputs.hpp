// The rows of x as the first layer takes them: as they are, or by their nonzeros where most elements are zeros.
#pragma once

#include "kernels/nonzeros.hpp"

namespace fastnet::FASTNET_TARGET {

template <class T> struct Inputs {
    const T* x; // (count, columns), to be filled from the source if it `fills`
    Index count, columns;
    const Source<T>* source; // or null
    bool sparse;             // whether the first layer is multiplied by the nonzeros alone
    NonZeros<T> nonzeros;    // of the rows that load_rows was last asked for, by slot

    const T* row(Index i) const { return x + i * columns; }
    Matrix<T> rows(Index first, Index rows) const { return rows_of(row(first), rows, columns, columns); }

    // Another batch of the same data.
    void take(const Batch<T>& batch) {
        x = batch.x;
        count = batch.rows;
        source = batch.source;
    }

    // Row i of the batch where it lies, in x or in the source.
    const T* row_in_place(Index i) const { return fills() ? dense_row(i) : row(i); }

    // Makes the rows [first, first + rows) ready: fetches them from the source, and finds their nonzeros, which are
    // kept in the slots from `slot` on. Without `whole`, rows that the source has by their nonzeros are left at that:
    // x is not filled.
    void load_rows(Index first, Index rows, Index slot, bool whole = true) {
        constexpr Index ahead = 6; // rows
        for (Index i = first; i < first + rows; ++i) {
            const Index at = slot + i - first;
            if (source && i + ahead < first + rows) {
                prefetch_row(i + ahead);
            }
            if (sparse && source) {
                nonzeros.keep(packed_row(i), at);
                if (whole) {
                    fills() ? nonzeros.expand(at, source->to + i * columns) : nonzeros.set_whole(at, row(i));
                }
            } else if (sparse) {
                nonzeros.find(row(i), at);
            } else if (fills()) {
                const T* const from = dense_row(i);
                for_each_vector<T>(
                    columns, [&](Index j, Index n) { store(source->to + i * columns + j, load(from + j, n), n); });
            }
        }
    }

    // Prefetches one task's share of the next batch's rows, while the task has something else to do. Some tasks take
    // several rows and the others none, because rows of which each waits for the main memory wait together.
    void prefetch_next(Index task, Index tasks) const {
        constexpr Index together = 32;
        if (!source) {
            return;
        }
        const Index shares = (source->next + together - 1) / together;
        const auto begin = [&](Index t) {
            return min_index((t * shares + tasks - 1) / tasks * together, source->next);
        };
        for (Index i = begin(task); i < begin(task + 1); ++i) {
            prefetch_row(count + i);
        }
    }

    // Prefetches row i of the batch, or row i - count of the next one.
    void prefetch_row(Index i) const {
        if (sparse) {
            const std::uint64_t* const row = packed_row(i);
            touch(row);
            const Index size = nonzeros.storage == Storage::coded ? 1 : static_cast<Index>(sizeof(T)); // of a nonzero
            prefetch(row, nonzeros.groups + columns * size / 32); // nearly always all of it
        } else {
            const T* const row = dense_row(i);
            touch(row);
            touch(row + columns - 1);
            prefetch(row, columns);
        }
    }

    // Whether the rows are still to be fetched: a source without an order has the nonzeros of x as it is.
    bool fills() const { return source && source->order; }

    // Where row i of the batch is in the source.
    Index source_row(Index i) const { return source->order ? static_cast<Index>(source->order[i]) : i; }
    const std::uint64_t* packed_row(Index i) const { return source->packed + source->starts[source_row(i)]; }
    const T* dense_row(Index i) const { return source->x + source_row(i) * columns; }
};

// `slots` is the number of rows whose nonzeros are kept at a time. `may_expand`: whether the product with them may
// expand them for another product.
template <class T>
Inputs<T> make_inputs(const Network<T>& net, const T* x, Index rows, Index slots, const Source<T>* source = nullptr,
                      bool may_expand = false) {
    const Index columns = net.layers[0].inputs;
    const bool sparse = source ? source->packed != nullptr && rows > few_rows : worth_skipping_zeros(x, rows, columns);
    const Storage storage = !source || !sparse ? Storage::whole : source->coded ? Storage::coded : Storage::packed;
    const T* const coded = source ? source->coded : nullptr;
    return {x, rows, columns, source, sparse, NonZeros<T>(sparse ? slots : 0, columns, coded, storage, may_expand)};
}

} // namespace fastnet::FASTNET_TARGET
