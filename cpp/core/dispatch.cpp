#include "core/dispatch.hpp"

#include <atomic>
#include <cstdlib>
#include <stdexcept>
#include <string>
#include <string_view>

// The instruction sets that CMake compiles, the best first.
#if FASTNET_X86_TARGETS >= 2
#    define FASTNET_TARGETS(X) X(avx512) X(avx2) X(baseline)
#elif FASTNET_X86_TARGETS == 1
#    define FASTNET_TARGETS(X) X(avx2) X(baseline)
#else
#    define FASTNET_TARGETS(X) X(baseline)
#endif

namespace fastnet {

#define FASTNET_DECLARE(name)                                                                                          \
    namespace name {                                                                                                   \
    extern const KernelTable table;                                                                                    \
    }
FASTNET_TARGETS(FASTNET_DECLARE)

namespace {

#define FASTNET_ADDRESS(name) &name::table,
constexpr const KernelTable* tables[] = {FASTNET_TARGETS(FASTNET_ADDRESS)};

bool has(std::string_view isa) {
#if defined(__x86_64__)
    const bool avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") &&
                      __builtin_cpu_supports("bmi") && __builtin_cpu_supports("bmi2");
    if (isa == "avx512") {
        return avx2 && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512dq") &&
               __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512vl");
    }
    if (isa == "avx2") {
        return avx2;
    }
#endif
    return isa == "baseline";
}

const KernelTable& find(std::string_view wanted) {
    std::string usable;
    for (const KernelTable* table : tables) {
        if (has(table->isa)) {
            if (wanted.empty() || wanted == table->isa) {
                return *table;
            }
            usable.append(usable.empty() ? "'" : ", '").append(table->isa).append("'");
        }
    }
    std::string message = "unknown or unsupported instruction set '";
    throw std::invalid_argument(message.append(wanted).append("': this processor can use ").append(usable));
}

std::atomic<const KernelTable*> current{nullptr};

} // namespace

const KernelTable& kernel_table() {
    const KernelTable* table = current.load(std::memory_order_acquire);
    if (table == nullptr) {
        const char* forced = std::getenv("FASTNET_ISA");
        table = &find(forced ? forced : "");
        current.store(table, std::memory_order_release);
    }
    return *table;
}

void use_isa(const char* name) {
    current.store(&find(name), std::memory_order_release);
}

std::vector<std::string> available_isas() {
    std::vector<std::string> names;
    for (const KernelTable* table : tables) {
        if (has(table->isa)) {
            names.emplace_back(table->isa);
        }
    }
    return names;
}

} // namespace fastnet
