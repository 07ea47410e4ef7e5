// The one matrix product behind scores, outputs and gradients.
#pragma once

#include <utility>

#include "prefetch.h"

namespace asycmst {
namespace {

// What the elements of A and B are: numbers of the compute type, summed in the same type.
template <class Element>
struct Product {
    using Sum = Element;
    using V = typename Vec<Element>::type;

    static ASYCMST_INLINE V broadcast(const Element* a) { return splat(*a); }
    static ASYCMST_INLINE V read(const Element* b) { return load(b); }
    static ASYCMST_INLINE V add(V sum, V a, V b) { return sum + a * b; }
};

template <class Element>
using Sum = typename Product<Element>::Sum;

// How A(m, k) lies in memory: `kRowMajor` a[m * lda + k], `kTransposed` a[k * lda + m].
enum class Layout { kRowMajor, kTransposed };

// What becomes of C: `scale` (one factor per row of C) may be null.
template <class C>
struct Output {
    C* data;
    std::int64_t stride;
    const C* scale;
    bool accumulate;
};

constexpr int kMaxVectors = kRegisters == 32 ? 4 : 2;
constexpr int kMaxRows = 8;
// One chain of sums is no longer than this; long chains would lose digits.
constexpr std::int64_t kMaxDepth = 128;

// `count` things in the fewest parts of at most `limit`, of even sizes: 49 rows are seven parts of
// seven, never six of eight and a lonely one.
class EvenParts {
  public:
    EvenParts(std::int64_t count, std::int64_t limit)
        : parts_((count + limit - 1) / limit), size_(count / parts_), rest_(count % parts_) {}

    std::int64_t parts() const { return parts_; }
    std::int64_t size(std::int64_t part) const { return size_ + (part < rest_ ? 1 : 0); }

  private:
    std::int64_t parts_, size_, rest_;
};

// Rows of C held in registers next to `vectors` columns; the rest holds B and one value of A.
constexpr int register_rows(int vectors) {
    const int rows = (kRegisters - 2 - vectors) / vectors;
    return rows > kMaxRows ? kMaxRows : rows;
}

// Steps of a product between two steps of a fetcher.
constexpr std::int64_t kFetchSteps = 2;

// kRows x (kVectors * lanes) of C = A B, summed over `depth` in registers. Meanwhile `fetcher`
// prepares what comes next.
template <class E, Layout kLayout, int kRows, int kVectors>
void gemm_block(std::int64_t depth, const E* a, std::int64_t lda, const E* b, std::int64_t ldb,
                const Output<Sum<E>>& out, std::int64_t row, std::int64_t column,
                RowFetcher& fetcher) {
    using C = Sum<E>;
    using V = typename Vec<C>::type;
    constexpr int lanes = Vec<C>::lanes;
    V sum[kRows][kVectors] = {};
    const auto add_product = [&]() __attribute__((always_inline)) {
        typename Product<E>::V b_k[kVectors];
        ASYCMST_UNROLL
        for (int v = 0; v < kVectors; ++v) {
            b_k[v] = Product<E>::read(b + v * lanes);
        }
        ASYCMST_UNROLL
        for (int m = 0; m < kRows; ++m) {
            const auto a_mk =
                Product<E>::broadcast(a + (kLayout == Layout::kRowMajor ? m * lda : m));
            ASYCMST_UNROLL
            for (int v = 0; v < kVectors; ++v) {
                sum[m][v] = Product<E>::add(sum[m][v], a_mk, b_k[v]);
            }
        }
        a += kLayout == Layout::kRowMajor ? 1 : lda;
        b += ldb;
    };
    std::int64_t k = 0;
    for (; k + kFetchSteps <= depth; k += kFetchSteps) {
        fetcher.step();
        ASYCMST_UNROLL
        for (int i = 0; i < kFetchSteps; ++i) {
            add_product();
        }
    }
    for (; k < depth; ++k) {
        add_product();
    }
    ASYCMST_UNROLL
    for (int m = 0; m < kRows; ++m) {
        C* c = out.data + (row + m) * out.stride + column;
        ASYCMST_UNROLL
        for (int v = 0; v < kVectors; ++v) {
            V value = sum[m][v];
            if (out.scale != nullptr) {
                value *= splat(out.scale[row + m]);
            }
            if (out.accumulate) {
                value += load(c + v * lanes);
            }
            store(c + v * lanes, value);
        }
    }
}

template <class E>
using GemmBlock = void (*)(std::int64_t, const E*, std::int64_t, const E*, std::int64_t,
                           const Output<Sum<E>>&, std::int64_t, std::int64_t, RowFetcher&);

// The block for each row count; counts that do not fit the registers are never asked for.
template <class E, Layout kLayout, int kVectors, int... kRow>
constexpr GemmBlock<E> pick_block(int rows, std::integer_sequence<int, kRow...>) {
    constexpr GemmBlock<E> blocks[] = {gemm_block<E, kLayout, kRow + 1, kVectors>...};
    return blocks[rows - 1];
}

template <class E, Layout kLayout, int kVectors>
void gemm_columns(std::int64_t rows, std::int64_t depth, const E* a, std::int64_t lda,
                  const E* b, std::int64_t ldb, const Output<Sum<E>>& out, std::int64_t column,
                  RowFetcher& fetcher) {
    constexpr int limit = register_rows(kVectors);
    const std::int64_t a_step = kLayout == Layout::kRowMajor ? lda : 1;
    const EvenParts blocks(rows, limit);
    std::int64_t row = 0;
    for (std::int64_t i = 0; i < blocks.parts(); ++i) {
        const auto block = pick_block<E, kLayout, kVectors>(
            static_cast<int>(blocks.size(i)), std::make_integer_sequence<int, limit>{});
        block(depth, a + row * a_step, lda, b + column, ldb, out, row, column, fetcher);
        row += blocks.size(i);
    }
}

// C (rows x vectors * lanes) = A (rows x depth) B (depth x vectors * lanes); all sizes >= 1.
template <Layout kLayout, class E>
void gemm(std::int64_t rows, std::int64_t vectors, std::int64_t depth, const E* a,
          std::int64_t lda, const E* b, std::int64_t ldb, Output<Sum<E>> out,
          RowFetcher& fetcher) {
    const EvenParts chains(depth, kMaxDepth);
    const EvenParts panels(vectors, kMaxVectors);
    for (std::int64_t chain = 0; chain < chains.parts(); ++chain) {
        const std::int64_t length = chains.size(chain);
        std::int64_t column = 0;
        for (std::int64_t panel = 0; panel < panels.parts(); ++panel) {
            const std::int64_t width = panels.size(panel);
            if (width == 1) {
                gemm_columns<E, kLayout, 1>(rows, length, a, lda, b, ldb, out, column, fetcher);
            } else if (width == 2) {
                gemm_columns<E, kLayout, 2>(rows, length, a, lda, b, ldb, out, column, fetcher);
            }
            if constexpr (kMaxVectors == 4) {
                if (width == 3) {
                    gemm_columns<E, kLayout, 3>(rows, length, a, lda, b, ldb, out, column, fetcher);
                } else if (width == 4) {
                    gemm_columns<E, kLayout, 4>(rows, length, a, lda, b, ldb, out, column, fetcher);
                }
            }
            column += width * Vec<Sum<E>>::lanes;
        }
        a += kLayout == Layout::kRowMajor ? length : length * lda;
        b += length * ldb;
        out.accumulate = true;
    }
}

}  // namespace
}  // namespace asycmst
