// The softmax of a block of queries and its derivative, in steps between which a value of each query
// may be changed: the largest score, the sum of the exponentials, their product with a gradient.
#pragma once

#include "axial_block.h"

namespace asycmst {
namespace {

// Sums over keys are made of partial sums over this many: beside one key that dominates, a long
// chain of additions would drop the small ones one by one.
constexpr std::int64_t kPartialKeys = 8;

// One value for each query of a block, whole vectors of them.
template <class C>
struct alignas(64) PerQuery {
    C data[kBlockQueries];
};

template <class C, int kVectors>
void top_columns(const C* scores, std::int64_t stride, std::int64_t keys, C* top) {
    using V = typename Vec<C>::type;
    constexpr int lanes = Vec<C>::lanes;
    V best[kVectors];
    ASYCMST_UNROLL
    for (int v = 0; v < kVectors; ++v) {
        best[v] = load(scores + v * lanes);
    }
    for (std::int64_t j = 1; j < keys; ++j) {
        ASYCMST_UNROLL
        for (int v = 0; v < kVectors; ++v) {
            best[v] = larger(load(scores + j * stride + v * lanes), best[v]);
        }
    }
    ASYCMST_UNROLL
    for (int v = 0; v < kVectors; ++v) {
        store(top + v * lanes, best[v]);
    }
}

// Scores become exponentials above `top`, `sum` their sums and, with `grad`, `delta` the sums of
// their products with it.
template <class C, int kVectors, bool kBackward>
void exponential_columns(C* scores, std::int64_t stride, std::int64_t keys, const C* top, C* sum,
                         const C* grad, C* delta) {
    using V = typename Vec<C>::type;
    constexpr int lanes = Vec<C>::lanes;
    V best[kVectors];
    V sums[kVectors] = {};
    V deltas[kVectors] = {};
    ASYCMST_UNROLL
    for (int v = 0; v < kVectors; ++v) {
        best[v] = load(top + v * lanes);
    }
    for (std::int64_t first = 0; first < keys; first += kPartialKeys) {
        const std::int64_t last = keys - first < kPartialKeys ? keys : first + kPartialKeys;
        V sum_part[kVectors] = {};
        V delta_part[kVectors] = {};
        for (std::int64_t j = first; j < last; ++j) {
            ASYCMST_UNROLL
            for (int v = 0; v < kVectors; ++v) {
                C* s = scores + j * stride + v * lanes;
                const V p = exp_nonpositive(load(s) - best[v]);
                store(s, p);
                sum_part[v] += p;
                if constexpr (kBackward) {
                    delta_part[v] += p * load(grad + j * stride + v * lanes);
                }
            }
        }
        ASYCMST_UNROLL
        for (int v = 0; v < kVectors; ++v) {
            sums[v] += sum_part[v];
            deltas[v] += delta_part[v];
        }
    }
    ASYCMST_UNROLL
    for (int v = 0; v < kVectors; ++v) {
        store(sum + v * lanes, sums[v]);
        if constexpr (kBackward) {
            store(delta + v * lanes, deltas[v]);
        }
    }
}

// Exponentials become probabilities p, and `grad` becomes scale * p * (grad - delta).
template <class C, int kVectors>
void derivative_columns(C* scores, std::int64_t stride, std::int64_t keys, const C* inverse,
                        C* grad, const C* delta, C scale) {
    using V = typename Vec<C>::type;
    constexpr int lanes = Vec<C>::lanes;
    V factor[kVectors];
    V shift[kVectors];
    ASYCMST_UNROLL
    for (int v = 0; v < kVectors; ++v) {
        factor[v] = load(inverse + v * lanes);
        shift[v] = load(delta + v * lanes);
    }
    for (std::int64_t j = 0; j < keys; ++j) {
        ASYCMST_UNROLL
        for (int v = 0; v < kVectors; ++v) {
            C* s = scores + j * stride + v * lanes;
            C* g = grad + j * stride + v * lanes;
            const V p = load(s) * factor[v];
            store(s, p);
            store(g, p * (load(g) - shift[v]) * splat(scale));
        }
    }
}

// The same along the keys of one query; `scores` and `grad` have room for whole vectors.

template <class C>
void pad_row(C* row, std::int64_t keys, C value) {
    for (std::int64_t j = keys; j < round_to_lanes<C>(keys); ++j) {
        row[j] = value;
    }
}

template <class C>
C top_row(C* scores, std::int64_t keys) {
    constexpr std::int64_t lanes = Vec<C>::lanes;
    pad_row(scores, keys, -static_cast<C>(__builtin_inf()));
    auto best = load(scores);
    for (std::int64_t j = lanes; j < keys; j += lanes) {
        best = larger(load(scores + j), best);
    }
    return lane_max<C>(best);
}

template <class C, bool kBackward>
void exponential_row(C* scores, std::int64_t keys, C top, C* sum, C* grad, C* delta) {
    using V = typename Vec<C>::type;
    constexpr std::int64_t lanes = Vec<C>::lanes;
    pad_row(scores, keys, -static_cast<C>(__builtin_inf()));
    if constexpr (kBackward) {
        pad_row(grad, keys, C(0));
    }
    V sum_lanes = {};
    V delta_lanes = {};
    for (std::int64_t j = 0; j < keys; j += lanes) {
        const V p = exp_nonpositive(load(scores + j) - splat(top));
        store(scores + j, p);
        sum_lanes += p;
        if constexpr (kBackward) {
            delta_lanes += p * load(grad + j);
        }
    }
    *sum = lane_sum<C>(sum_lanes);
    if constexpr (kBackward) {
        *delta = lane_sum<C>(delta_lanes);
    }
}

template <class C>
void derivative_row(C* scores, std::int64_t keys, C inverse, C* grad, C delta, C scale) {
    using V = typename Vec<C>::type;
    constexpr std::int64_t lanes = Vec<C>::lanes;
    for (std::int64_t j = 0; j < keys; j += lanes) {
        const V p = load(scores + j) * splat(inverse);
        store(scores + j, p);
        store(grad + j, p * (load(grad + j) - splat(delta)) * splat(scale));
    }
}

template <int kCount>
struct Vectors {
    static constexpr int count = kCount;
};

// Calls columns(i, Vectors) for every two vectors of queries that start at i, or for a last one.
template <class C, class Columns>
ASYCMST_INLINE void for_columns(const QueryBlock<C>& block, const Columns& columns) {
    constexpr std::int64_t lanes = Vec<C>::lanes;
    std::int64_t i = 0;
    for (; i + 2 * lanes <= block.stride; i += 2 * lanes) {
        columns(i, Vectors<2>{});
    }
    if (i < block.stride) {
        columns(i, Vectors<1>{});
    }
}

template <class C>
void block_top(const QueryBlock<C>& block, C* scores, std::int64_t keys, C* top) {
    if (block.by_query) {
        for (std::int64_t i = 0; i < block.count; ++i) {
            top[i] = top_row(scores + i * block.stride, keys);
        }
        return;
    }
    for_columns(block, [&](std::int64_t i, auto vectors) {
        top_columns<C, decltype(vectors)::count>(scores + i, block.stride, keys, top + i);
    });
}

template <class C, bool kBackward>
void block_exponentials(const QueryBlock<C>& block, C* scores, std::int64_t keys, const C* top,
                        C* sum, C* grad, C* delta) {
    if (block.by_query) {
        for (std::int64_t i = 0; i < block.count; ++i) {
            const std::int64_t row = i * block.stride;
            exponential_row<C, kBackward>(scores + row, keys, top[i], sum + i,
                                          kBackward ? grad + row : nullptr,
                                          kBackward ? delta + i : nullptr);
        }
        return;
    }
    for_columns(block, [&](std::int64_t i, auto vectors) {
        exponential_columns<C, decltype(vectors)::count, kBackward>(
            scores + i, block.stride, keys, top + i, sum + i, kBackward ? grad + i : nullptr,
            kBackward ? delta + i : nullptr);
    });
}

template <class C>
void block_derivatives(const QueryBlock<C>& block, C* scores, std::int64_t keys, const C* inverse,
                       C* grad, const C* delta, C scale) {
    if (block.by_query) {
        for (std::int64_t i = 0; i < block.count; ++i) {
            const std::int64_t row = i * block.stride;
            derivative_row(scores + row, keys, inverse[i], grad + row, delta[i], scale);
        }
        return;
    }
    for_columns(block, [&](std::int64_t i, auto vectors) {
        derivative_columns<C, decltype(vectors)::count>(
            scores + i, block.stride, keys, inverse + i, grad + i, delta + i, scale);
    });
}

}  // namespace
}  // namespace asycmst
