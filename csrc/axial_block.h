// One block of queries against all keys: scores and their contractions with rows.
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
