// Gradients of out_i = sum_j p_ij v_j, p_i = softmax(scale * q_i . k), for the heads of one group:
//     dv_j = sum_i p_ij g_i           ds_ij = scale * p_ij (g_i . v_j - sum_m p_im g_i . v_m)
//     dq_i = sum_j ds_ij k_j          dk_j = sum_i ds_ij q_i
// The probabilities are computed again, and the inner sum runs over the keys, so that neither the
// forward's output nor any statistic of it is needed. As a part of a union, the share of one axis.
#pragma once

#include "union_exchange.h"

namespace asycmst {
namespace {

template <class IO>
struct BackwardScratch {
    using C = Compute<IO>;

    BackwardScratch(const AxialProblem& p, void* memory) : arena(memory) {
        const std::int64_t width = round_to_lanes<C>(p.channels);
        const std::int64_t block = round_to_lanes<C>(kBlockQueries);
        kept = arena.take<std::int64_t>(p.mask.data == nullptr ? 0 : p.keys);
        k = arena.take<C>(p.keys * width);
        v = arena.take<C>(p.keys * width);
        q = arena.take<C>(p.queries * width);
        grad = arena.take<C>(p.queries * width);
        packed = arena.take<C>(block * width);
        scores = arena.take<C>(score_elements<C>(p.queries, p.keys));
        grad_scores = arena.take<C>(score_elements<C>(p.queries, p.keys));
        dq = arena.take<C>(block * width);
        dk = arena.take<C>(p.keys * width);
        dv = arena.take<C>(p.keys * width);
    }

    Arena arena;
    std::int64_t* kept;
    C *k, *v, *q, *grad, *packed, *scores, *grad_scores, *dq, *dk, *dv;
};

template <class IO>
std::size_t axial_backward_scratch(const AxialProblem& problem) {
    return BackwardScratch<IO>(problem, nullptr).arena.used();
}

template <class IO>
void axial_backward(const AxialProblem& p, const AxialTask& task, double scale, void* memory) {
    using C = Compute<IO>;
    const BackwardScratch<IO> scratch(p, memory);
    const bool masked = p.mask.data != nullptr;
    const std::int64_t* index = masked ? scratch.kept : nullptr;
    const std::int64_t keys = masked ? list_kept_keys(p, task, scratch.kept) : p.keys;
    const C factor = static_cast<C>(scale);
    RowFetcher fetcher(p, task, static_cast<std::int64_t>(sizeof(IO)));
    fetcher.fetch_backward();

    for (std::int64_t head = task.head_begin; head < task.head_end; ++head) {
        fetcher.begin(head);
        const Share share = backward_share(p.part);
        const Results<IO> dq(p, task, head, share, p.dq, p.exchange.dq);
        const Results<IO> dk(p, task, head, share, p.dk, p.exchange.dk);
        const Results<IO> dv(p, task, head, share, p.dv, p.exchange.dv);
        if (keys == 0) {
            backward_without_keys(p, task, head, dq, dk, dv, scratch.dq);
            continue;
        }
        const Rows<C> k = read_rows(group_head<IO>(p.k, task.batch, task.group, head), p.k.row,
                                    keys, index, p.channels, scratch.k);
        const Rows<C> v = read_rows(group_head<IO>(p.v, task.batch, task.group, head), p.v.row,
                                    keys, index, p.channels, scratch.v);
        const Rows<C> q = read_rows(group_head<IO>(p.q, task.batch, task.group, head), p.q.row,
                                    p.queries, nullptr, p.channels, scratch.q);
        const Rows<C> grad = read_rows(group_head<IO>(p.grad, task.batch, task.group, head),
                                       p.grad.row, p.queries, nullptr, p.channels, scratch.grad);
        const bool results = p.part != Part::kFirst;
        Rows<C> to_dk{}, to_dv{};
        if (results) {
            to_dk = dk.collect(0, keys, index, scratch.dk);
            to_dv = dv.collect(0, keys, index, scratch.dv);
        }
        QueryBlock<C> block;
        for (std::int64_t begin = 0; begin < p.queries; begin += block.count) {
            block = next_block<C>(begin, p.queries, keys);
            const bool accumulate = begin > 0 || dk.completes();
            block_products<C>(block, grad.data + begin * grad.stride, grad.stride, C(1), v, keys,
                              p.channels, scratch.packed, scratch.grad_scores, fetcher);
            block_products<C>(block, q.data + begin * q.stride, q.stride, factor, k, keys,
                              p.channels, scratch.packed, scratch.scores, fetcher);
            backward_softmax(p, task, head, block, scratch.scores, keys, index,
                             scratch.grad_scores, factor);
            if (!results) {
                continue;
            }
            contract_queries(block, scratch.scores, grad, keys, p.channels,
                             Output<C>{to_dv.data, to_dv.stride, nullptr, accumulate}, fetcher);
            contract_queries(block, scratch.grad_scores, q, keys, p.channels,
                             Output<C>{to_dk.data, to_dk.stride, nullptr, accumulate}, fetcher);
            const Rows<C> to_dq = dq.collect(begin, block.count, nullptr, scratch.dq);
            contract_keys(block, scratch.grad_scores, k, keys, p.channels,
                          Output<C>{to_dq.data, to_dq.stride, nullptr, dq.completes()}, fetcher);
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
