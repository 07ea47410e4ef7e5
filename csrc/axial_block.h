// One block of queries against all keys: scores, softmax and its derivative, and contractions.
//
// Scores of a block lie transposed, [key][query], with the lanes over queries: the maximum and the
// sum of a softmax then run down the keys without touching the order of lanes, and keys are read
// as single broadcast values. A few queries left over from whole vectors would waste most lanes
// (49 = 3 * 16 + 1), so they form a block of their own with scores [query][key], lanes over keys.
#pragma once

#include "gemm.h"
#include "rows.h"

namespace asycmst {
namespace {

constexpr std::int64_t kBlockQueries = 64;
// Sums over keys are made of partial sums over this many: beside one key that dominates, a long
// chain of additions would drop the small ones one by one.
constexpr std::int64_t kPartialKeys = 8;

template <class C>
struct QueryBlock {
    std::int64_t begin, count;
    std::int64_t stride;  // between keys, or between queries when `by_query`
    bool by_query;
};

template <class C>
QueryBlock<C> next_block(std::int64_t begin, std::int64_t queries, std::int64_t keys) {
    constexpr std::int64_t lanes = Vec<C>::lanes;
    const std::int64_t left = queries - begin;
    const std::int64_t count = left < kBlockQueries ? left : kBlockQueries;
    const std::int64_t rest = count % lanes;
    if (rest == 0 || 4 * rest > lanes) {
        return {begin, count, round_to_lanes<C>(count), false};
    }
    if (count == rest) {
        return {begin, rest, round_to_lanes<C>(keys), true};
    }
    return {begin, count - rest, count - rest, false};
}

// Elements that the scores of any block of the problem need.
template <class C>
std::int64_t score_elements(std::int64_t queries, std::int64_t keys) {
    const std::int64_t width = queries < kBlockQueries ? queries : kBlockQueries;
    return round_to_lanes<C>(width) * round_to_lanes<C>(keys);
}

// scores = factor * (rows of the block) . (rows of the other side), for every query and key.
// `rows` points at the block's first row; `packed` holds width * round(channels) elements.
template <class IO>
void block_products(const QueryBlock<Compute<IO>>& block, const IO* rows, std::int64_t stride,
                    Compute<IO> factor, const Rows<Compute<IO>>& others, std::int64_t keys,
                    std::int64_t channels, Compute<IO>* packed, Compute<IO>* scores,
                    RowFetcher& fetcher) {
    using C = Compute<IO>;
    using V = typename Vec<C>::type;
    constexpr std::int64_t lanes = Vec<C>::lanes;
    if (!block.by_query) {
        pack_transposed(rows, stride, block.count, channels, factor, block.stride, packed);
        gemm<Layout::kRowMajor>(keys, block.stride / lanes, channels, others.data, others.stride,
                                packed, block.stride,
                                Output<C>{scores, block.stride, nullptr, false}, fetcher);
        return;
    }
    const std::int64_t width = round_to_lanes<C>(channels);
    pack_rows(rows, stride, block.count, nullptr, channels, packed);
    for (std::int64_t i = 0; i < block.count; ++i) {
        C* out = scores + i * block.stride;
        for (std::int64_t j = 0; j < keys; ++j) {
            V sum = {};
            for (std::int64_t c = 0; c < width; c += lanes) {
                sum += load(packed + i * width + c) * load(others.data + j * others.stride + c);
            }
            out[j] = factor * lane_sum<C>(sum);
        }
    }
}

// out (block.count x channels) = weights . (rows of the keys)
template <class C>
void contract_keys(const QueryBlock<C>& block, const C* weights, const Rows<C>& rows,
                   std::int64_t keys, std::int64_t channels, const Output<C>& out,
                   RowFetcher& fetcher) {
    const std::int64_t vectors = round_to_lanes<C>(channels) / Vec<C>::lanes;
    if (block.by_query) {
        gemm<Layout::kRowMajor>(block.count, vectors, keys, weights, block.stride, rows.data,
                                rows.stride, out, fetcher);
    } else {
        gemm<Layout::kTransposed>(block.count, vectors, keys, weights, block.stride, rows.data,
                                  rows.stride, out, fetcher);
    }
}

// out (keys x channels) = weights^T . (rows of the block's queries)
template <class C>
void contract_queries(const QueryBlock<C>& block, const C* weights, const Rows<C>& rows,
                      std::int64_t keys, std::int64_t channels, const Output<C>& out,
                      RowFetcher& fetcher) {
    const std::int64_t vectors = round_to_lanes<C>(channels) / Vec<C>::lanes;
    const C* first = rows.data + block.begin * rows.stride;
    if (block.by_query) {
        gemm<Layout::kTransposed>(keys, vectors, block.count, weights, block.stride, first,
                                  rows.stride, out, fetcher);
    } else {
        gemm<Layout::kRowMajor>(keys, vectors, block.count, weights, block.stride, first,
                                rows.stride, out, fetcher);
    }
}

// Softmax down the keys for kVectors columns of queries. `scores` become exponentials and
// `inverse` the reciprocals of their sums. With `grad`, the derivative by the exponentials'
// normalised values, the scores become probabilities p and `grad` becomes
// scale * p * (grad - sum over keys of p * grad).
template <class C, int kVectors, bool kBackward>
void softmax_columns(C* scores, std::int64_t stride, std::int64_t keys, C* inverse, C* grad,
                     C scale) {
    using V = typename Vec<C>::type;
    constexpr int lanes = Vec<C>::lanes;
    V top[kVectors];
    V sum[kVectors] = {};
    V delta[kVectors] = {};
    ASYCMST_UNROLL
    for (int v = 0; v < kVectors; ++v) {
        top[v] = load(scores + v * lanes);
    }
    for (std::int64_t j = 1; j < keys; ++j) {
        ASYCMST_UNROLL
        for (int v = 0; v < kVectors; ++v) {
            top[v] = larger(load(scores + j * stride + v * lanes), top[v]);
        }
    }
    for (std::int64_t first = 0; first < keys; first += kPartialKeys) {
        const std::int64_t last = keys - first < kPartialKeys ? keys : first + kPartialKeys;
        V sum_part[kVectors] = {};
        V delta_part[kVectors] = {};
        for (std::int64_t j = first; j < last; ++j) {
            ASYCMST_UNROLL
            for (int v = 0; v < kVectors; ++v) {
                C* s = scores + j * stride + v * lanes;
                const V p = exp_nonpositive(load(s) - top[v]);
                store(s, p);
                sum_part[v] += p;
                if constexpr (kBackward) {
                    delta_part[v] += p * load(grad + j * stride + v * lanes);
                }
            }
        }
        ASYCMST_UNROLL
        for (int v = 0; v < kVectors; ++v) {
            sum[v] += sum_part[v];
            delta[v] += delta_part[v];
        }
    }
    ASYCMST_UNROLL
    for (int v = 0; v < kVectors; ++v) {
        sum[v] = C(1) / sum[v];
        if constexpr (kBackward) {
            delta[v] *= sum[v];
        } else {
            store(inverse + v * lanes, sum[v]);
        }
    }
    if constexpr (kBackward) {
        for (std::int64_t j = 0; j < keys; ++j) {
            ASYCMST_UNROLL
            for (int v = 0; v < kVectors; ++v) {
                C* s = scores + j * stride + v * lanes;
                C* g = grad + j * stride + v * lanes;
                const V p = load(s) * sum[v];
                store(s, p);
                store(g, p * (load(g) - delta[v]) * splat(scale));
            }
        }
    }
}

// The same along the keys of one query; `scores` and `grad` have room for whole vectors.
template <class C, bool kBackward>
void softmax_row(C* scores, std::int64_t keys, C* inverse, C* grad, C scale) {
    using V = typename Vec<C>::type;
    constexpr std::int64_t lanes = Vec<C>::lanes;
    const std::int64_t width = round_to_lanes<C>(keys);
    for (std::int64_t j = keys; j < width; ++j) {
        scores[j] = -static_cast<C>(__builtin_inf());
        if constexpr (kBackward) {
            grad[j] = C(0);
        }
    }
    V top_lanes = load(scores);
    for (std::int64_t j = lanes; j < width; j += lanes) {
        top_lanes = larger(load(scores + j), top_lanes);
    }
    const V top = splat(lane_max<C>(top_lanes));
    V sum_lanes = {};
    V delta_lanes = {};
    for (std::int64_t j = 0; j < width; j += lanes) {
        const V p = exp_nonpositive(load(scores + j) - top);
        store(scores + j, p);
        sum_lanes += p;
        if constexpr (kBackward) {
            delta_lanes += p * load(grad + j);
        }
    }
    const C factor = C(1) / lane_sum<C>(sum_lanes);
    if constexpr (kBackward) {
        const V delta = splat(lane_sum<C>(delta_lanes) * factor);
        for (std::int64_t j = 0; j < width; j += lanes) {
            const V p = load(scores + j) * splat(factor);
            store(scores + j, p);
            store(grad + j, p * (load(grad + j) - delta) * splat(scale));
        }
    } else {
        *inverse = factor;
    }
}

template <class C, bool kBackward>
void block_softmax(const QueryBlock<C>& block, C* scores, std::int64_t keys, C* inverse, C* grad,
                   C scale) {
    constexpr std::int64_t lanes = Vec<C>::lanes;
    if (block.by_query) {
        for (std::int64_t i = 0; i < block.count; ++i) {
            const std::int64_t row = i * block.stride;
            softmax_row<C, kBackward>(scores + row, keys, inverse + i,
                                      kBackward ? grad + row : nullptr, scale);
        }
        return;
    }
    std::int64_t i = 0;
    for (; i + 2 * lanes <= block.stride; i += 2 * lanes) {
        softmax_columns<C, 2, kBackward>(scores + i, block.stride, keys, inverse + i,
                                         kBackward ? grad + i : nullptr, scale);
    }
    if (i < block.stride) {
        softmax_columns<C, 1, kBackward>(scores + i, block.stride, keys, inverse + i,
                                         kBackward ? grad + i : nullptr, scale);
    }
}

// The keys of a group that take part; `kept` has room for all of them.
inline std::int64_t list_kept_keys(const AxialProblem& problem, const AxialTask& task,
                                   std::int64_t* kept) {
    const char* mask = problem.mask.data + task.batch * problem.mask.batch +
                       task.group * problem.mask.group;
    std::int64_t count = 0;
    for (std::int64_t j = 0; j < problem.keys; ++j) {
        if (mask[j * problem.mask.row] != 0) {
            kept[count++] = j;
        }
    }
    return count;
}

}  // namespace
}  // namespace asycmst
