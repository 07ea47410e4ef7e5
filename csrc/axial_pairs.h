// The forward and backward of axial_forward.h and axial_backward.h for bfloat16 by products of
// pairs: inputs as they are, scores and sums in float32, probabilities and their derivatives
// rounded to bfloat16 for the second products.
#pragma once

#include "pairs.h"
#include "union_exchange.h"

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
    float *factors, *scores, *rows;
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
        const Results<BFloat> out(p, task, head, forward_share(p.part), p.out, p.exchange.out);
        if (keys == 0) {
            forward_without_keys(p, task, head, out, scratch.rows);
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
            PerQuery<float> inverse, carried;
            forward_softmax(p, task, head, block, scratch.scores, keys, index, inverse, carried);
            pair_scores_down(scratch.scores, keys, block.stride, scratch.down);
            const Rows<float> rows =
                out.collect(begin, block.count, nullptr, scratch.rows, carried.data);
            gemm<Layout::kTransposed>(
                block.count, vectors, pair_count(keys), scratch.down, block.stride,
                scratch.by_keys, scratch.width,
                Output<float>{rows.data, rows.stride, inverse.data, out.completes()}, fetcher);
            out.deliver(rows, begin, block.count, nullptr, block.count);
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
        const Share share = backward_share(p.part);
        const Results<BFloat> dq(p, task, head, share, p.dq, p.exchange.dq);
        const Results<BFloat> dk(p, task, head, share, p.dk, p.exchange.dk);
        const Results<BFloat> dv(p, task, head, share, p.dv, p.exchange.dv);
        if (keys == 0) {
            backward_without_keys(p, task, head, dq, dk, dv, scratch.rows);
            continue;
        }
        const BFloat* from_k = group_head<BFloat>(p.k, task.batch, task.group, head);
        const PairRows k =
            read_pairs(from_k, p.k.row, keys, index, p.channels, scratch.k);
        const PairRows v = read_pairs(group_head<BFloat>(p.v, task.batch, task.group, head),
                                      p.v.row, keys, index, p.channels, scratch.v);
        const bool results = p.part != Part::kFirst;
        Rows<float> to_dk{}, to_dv{};
        if (results) {
            pair_rows(from_k, p.k.row, keys, index, p.channels, width, scratch.by_keys);
            to_dk = dk.collect(0, keys, index, scratch.dk);
            to_dv = dv.collect(0, keys, index, scratch.dv);
        }
        QueryBlock<float> block;
        for (std::int64_t begin = 0; begin < p.queries; begin += block.count) {
            block = padded_block(begin, p.queries);
            const bool accumulate = begin > 0 || dk.completes();
            const std::int64_t depth = pair_count(block.count);
            const BFloat* q =
                group_head<BFloat>(p.q, task.batch, task.group, head) + begin * p.q.row;
            const BFloat* grad =
                group_head<BFloat>(p.grad, task.batch, task.group, head) + begin * p.grad.row;
            pair_products(block, grad, p.grad.row, v, keys, p.channels, nullptr,
                          scratch.transposed, scratch.grad_scores, fetcher);
            pair_products(block, q, p.q.row, k, keys, p.channels, scratch.factors,
                          scratch.transposed, scratch.scores, fetcher);
            backward_softmax(p, task, head, block, scratch.scores, keys, index,
                             scratch.grad_scores, static_cast<float>(scale));
            if (!results) {
                continue;
            }
            pair_scores_along(scratch.scores, keys, block.stride, scratch.along);
            pair_rows(grad, p.grad.row, block.count, nullptr, p.channels, width,
                      scratch.by_queries);
            gemm<Layout::kRowMajor>(keys, vectors, depth, scratch.along, block.stride / 2,
                                    scratch.by_queries, width,
                                    Output<float>{to_dv.data, to_dv.stride, nullptr, accumulate},
                                    fetcher);
            pair_scores_along(scratch.grad_scores, keys, block.stride, scratch.along);
            pair_rows(q, p.q.row, block.count, nullptr, p.channels, width, scratch.by_queries);
            gemm<Layout::kRowMajor>(keys, vectors, depth, scratch.along, block.stride / 2,
                                    scratch.by_queries, width,
                                    Output<float>{to_dk.data, to_dk.stride, nullptr, accumulate},
                                    fetcher);
            pair_scores_down(scratch.grad_scores, keys, block.stride, scratch.down);
            const Rows<float> to_dq = dq.collect(begin, block.count, nullptr, scratch.rows);
            gemm<Layout::kTransposed>(
                block.count, vectors, pair_count(keys), scratch.down, block.stride,
                scratch.by_keys, width,
                Output<float>{to_dq.data, to_dq.stride, nullptr, dq.completes()}, fetcher);
            dq.deliver(to_dq, begin, block.count, nullptr, block.count);
        }
        if (results) {
            dk.deliver(to_dk, 0, keys, index, p.keys);
            dv.deliver(to_dv, 0, keys, index, p.keys);
        }
    }
}

}  // namespace
}  // namespace asycmst
