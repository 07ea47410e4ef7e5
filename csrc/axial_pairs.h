// The forward and backward of axial_forward.h and axial_backward.h for bfloat16 by products of
// pairs: inputs as they are, scores and sums in float32, probabilities and their derivatives
// rounded to bfloat16 for the second products.
#pragma once

#include "axial_block.h"
#include "pairs.h"

namespace asycmst {
namespace {

// All queries of a block lie along the lanes, padded with zeros.
inline QueryBlock<float> padded_block(std::int64_t begin, std::int64_t queries) {
    const std::int64_t left = queries - begin;
    const std::int64_t count = left < kBlockQueries ? left : kBlockQueries;
    return {begin, count, round_to_lanes<float>(count), false};
}

// Pairs of `count` rows that lie along channels, with room for whole lanes of a transposed tile.
inline std::int64_t transposed_pairs(std::int64_t channels) {
    return round_to_lanes<float>(pair_count(channels)) * kBlockQueries;
}

struct PairScratch {
    PairScratch(const AxialProblem& p, bool backward, void* memory) : arena(memory) {
        width = round_to_lanes<float>(p.channels);
        const std::int64_t depth = pair_count(p.channels);
        const std::int64_t scores_count = p.keys * kBlockQueries;
        const std::int64_t paired = pair_count(p.keys) * kBlockQueries;
        kept = arena.take<std::int64_t>(p.mask.data == nullptr ? 0 : p.keys);
        factors = arena.take<float>(p.keys);
        k = arena.take<Pair>(p.keys * depth);
        by_keys = arena.take<Pair>(pair_count(p.keys) * width);
        transposed = arena.take<Pair>(transposed_pairs(p.channels));
        scores = arena.take<float>(scores_count);
        down = arena.take<Pair>(paired);
        inverse = arena.take<float>(kBlockQueries);
        rows = arena.take<float>(kBlockQueries * width);
        if (backward) {
            v = arena.take<Pair>(p.keys * depth);
            grad_scores = arena.take<float>(scores_count);
            along = arena.take<Pair>(p.keys * kBlockQueries / 2);
            by_queries = arena.take<Pair>(kBlockQueries / 2 * width);
            dk = arena.take<float>(p.keys * width);
            dv = arena.take<float>(p.keys * width);
        }
    }

    Arena arena;
    std::int64_t width;
    std::int64_t* kept;
    float *factors, *scores, *inverse, *rows;
    Pair *k, *by_keys, *transposed, *down;
    float *grad_scores = nullptr, *dk = nullptr, *dv = nullptr;
    Pair *v = nullptr, *along = nullptr, *by_queries = nullptr;
};

inline std::size_t axial_pairs_forward_scratch(const AxialProblem& p) {
    return PairScratch(p, false, nullptr).arena.used();
}

inline std::size_t axial_pairs_backward_scratch(const AxialProblem& p) {
    return PairScratch(p, true, nullptr).arena.used();
}

// scores = factors (of each key, or null for 1) * (rows of the block) . (rows of the keys)
inline void pair_products(const QueryBlock<float>& block, const BFloat* rows, std::int64_t stride,
                          const PairRows& others, std::int64_t keys, std::int64_t channels,
                          const float* factors, Pair* transposed, float* scores,
                          RowFetcher& fetcher) {
    pair_transposed(rows, stride, block.count, channels, block.stride, transposed);
    gemm<Layout::kRowMajor>(keys, block.stride / kPairLanes, pair_count(channels), others.data,
                            others.stride, transposed, block.stride,
                            Output<float>{scores, block.stride, factors, false}, fetcher);
}

inline void axial_pairs_forward(const AxialProblem& p, const AxialTask& task, double scale,
                                void* memory) {
    const PairScratch scratch(p, false, memory);
    const bool masked = p.mask.data != nullptr;
    const std::int64_t* index = masked ? scratch.kept : nullptr;
    const std::int64_t keys = masked ? list_kept_keys(p, task, scratch.kept) : p.keys;
    const std::int64_t vectors = scratch.width / kPairLanes;
    for (std::int64_t j = 0; j < keys; ++j) {
        scratch.factors[j] = static_cast<float>(scale);
    }
    RowFetcher fetcher(p, task, sizeof(BFloat));
    fetcher.fetch_forward();
    for (std::int64_t head = task.head_begin; head < task.head_end; ++head) {
        fetcher.begin(head);
        BFloat* out = group_head<BFloat>(p.out, task.batch, task.group, head);
        if (keys == 0) {
            zero_rows(out, p.out.row, 0, p.queries, p.channels);
            continue;
        }
        const BFloat* q = group_head<BFloat>(p.q, task.batch, task.group, head);
        const PairRows k = read_pairs(group_head<BFloat>(p.k, task.batch, task.group, head),
                                      p.k.row, keys, index, p.channels, scratch.k);
        pair_rows(group_head<BFloat>(p.v, task.batch, task.group, head), p.v.row, keys, index,
                  p.channels, scratch.width, scratch.by_keys);
        QueryBlock<float> block;
        for (std::int64_t begin = 0; begin < p.queries; begin += block.count) {
            block = padded_block(begin, p.queries);
            pair_products(block, q + begin * p.q.row, p.q.row, k, keys, p.channels,
                          scratch.factors, scratch.transposed, scratch.scores, fetcher);
            block_softmax<float, false>(block, scratch.scores, keys, scratch.inverse, nullptr,
                                        0.0f);
            pair_scores_down(scratch.scores, keys, block.stride, scratch.down);
            gemm<Layout::kTransposed>(
                block.count, vectors, pair_count(keys), scratch.down, block.stride,
                scratch.by_keys, scratch.width,
                Output<float>{scratch.rows, scratch.width, scratch.inverse, false}, fetcher);
            write_rows<BFloat>({scratch.rows, scratch.width}, block.count, nullptr, block.count,
                               p.channels, out + begin * p.out.row, p.out.row);
        }
    }
}

inline void axial_pairs_backward(const AxialProblem& p, const AxialTask& task, double scale,
                                 void* memory) {
    const PairScratch scratch(p, true, memory);
    const bool masked = p.mask.data != nullptr;
    const std::int64_t* index = masked ? scratch.kept : nullptr;
    const std::int64_t keys = masked ? list_kept_keys(p, task, scratch.kept) : p.keys;
    const std::int64_t width = scratch.width;
    const std::int64_t vectors = width / kPairLanes;
    for (std::int64_t j = 0; j < keys; ++j) {
        scratch.factors[j] = static_cast<float>(scale);
    }
    RowFetcher fetcher(p, task, sizeof(BFloat));
    fetcher.fetch_backward();
    for (std::int64_t head = task.head_begin; head < task.head_end; ++head) {
        fetcher.begin(head);
        BFloat* to_dq = group_head<BFloat>(p.dq, task.batch, task.group, head);
        BFloat* to_dk = group_head<BFloat>(p.dk, task.batch, task.group, head);
        BFloat* to_dv = group_head<BFloat>(p.dv, task.batch, task.group, head);
        if (keys == 0) {
            zero_rows(to_dq, p.dq.row, 0, p.queries, p.channels);
            zero_rows(to_dk, p.dk.row, 0, p.keys, p.channels);
            zero_rows(to_dv, p.dv.row, 0, p.keys, p.channels);
            continue;
        }
        const BFloat* from_k = group_head<BFloat>(p.k, task.batch, task.group, head);
        const PairRows k =
            read_pairs(from_k, p.k.row, keys, index, p.channels, scratch.k);
        const PairRows v = read_pairs(group_head<BFloat>(p.v, task.batch, task.group, head),
                                      p.v.row, keys, index, p.channels, scratch.v);
        pair_rows(from_k, p.k.row, keys, index, p.channels, width, scratch.by_keys);
        QueryBlock<float> block;
        for (std::int64_t begin = 0; begin < p.queries; begin += block.count) {
            block = padded_block(begin, p.queries);
            const bool accumulate = begin > 0;
            const std::int64_t depth = pair_count(block.count);
            const BFloat* q =
                group_head<BFloat>(p.q, task.batch, task.group, head) + begin * p.q.row;
            const BFloat* grad =
                group_head<BFloat>(p.grad, task.batch, task.group, head) + begin * p.grad.row;
            pair_products(block, grad, p.grad.row, v, keys, p.channels, nullptr,
                          scratch.transposed, scratch.grad_scores, fetcher);
            pair_products(block, q, p.q.row, k, keys, p.channels, scratch.factors,
                          scratch.transposed, scratch.scores, fetcher);
            block_softmax<float, true>(block, scratch.scores, keys, nullptr, scratch.grad_scores,
                                       static_cast<float>(scale));

            pair_scores_along(scratch.scores, keys, block.stride, scratch.along);
            pair_rows(grad, p.grad.row, block.count, nullptr, p.channels, width,
                      scratch.by_queries);
            gemm<Layout::kRowMajor>(keys, vectors, depth, scratch.along, block.stride / 2,
                                    scratch.by_queries, width,
                                    Output<float>{scratch.dv, width, nullptr, accumulate},
                                    fetcher);
            pair_scores_along(scratch.grad_scores, keys, block.stride, scratch.along);
            pair_rows(q, p.q.row, block.count, nullptr, p.channels, width, scratch.by_queries);
            gemm<Layout::kRowMajor>(keys, vectors, depth, scratch.along, block.stride / 2,
                                    scratch.by_queries, width,
                                    Output<float>{scratch.dk, width, nullptr, accumulate},
                                    fetcher);
            pair_scores_down(scratch.grad_scores, keys, block.stride, scratch.down);
            gemm<Layout::kTransposed>(block.count, vectors, pair_count(keys), scratch.down,
                                      block.stride, scratch.by_keys, width,
                                      Output<float>{scratch.rows, width, nullptr, false},
                                      fetcher);
            write_rows<BFloat>({scratch.rows, width}, block.count, nullptr, block.count,
                               p.channels, to_dq + begin * p.dq.row, p.dq.row);
        }
        write_rows<BFloat>({scratch.dk, width}, keys, index, p.keys, p.channels, to_dk, p.dk.row);
        write_rows<BFloat>({scratch.dv, width}, keys, index, p.keys, p.channels, to_dv, p.dv.row);
    }
}

}  // namespace
}  // namespace asycmst
