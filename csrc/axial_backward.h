// Gradients of out_i = sum_j p_ij v_j, p_i = softmax(scale * q_i . k), for the heads of one group:
//     dv_j = sum_i p_ij g_i           ds_ij = scale * p_ij (g_i . v_j - sum_m p_im g_i . v_m)
//     dq_i = sum_j ds_ij k_j          dk_j = sum_i ds_ij q_i
// The probabilities are computed again, and the inner sum runs over the keys, so that neither the
// forward's output nor any statistic of it is needed.
#pragma once

#include "axial_block.h"

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
        IO* to_dq = group_head<IO>(p.dq, task.batch, task.group, head);
        IO* to_dk = group_head<IO>(p.dk, task.batch, task.group, head);
        IO* to_dv = group_head<IO>(p.dv, task.batch, task.group, head);
        if (keys == 0) {
            zero_rows(to_dq, p.dq.row, 0, p.queries, p.channels);
            zero_rows(to_dk, p.dk.row, 0, p.keys, p.channels);
            zero_rows(to_dv, p.dv.row, 0, p.keys, p.channels);
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
        const Rows<C> dk = result_rows(to_dk, p.dk.row, keys, index, p.channels, scratch.dk);
        const Rows<C> dv = result_rows(to_dv, p.dv.row, keys, index, p.channels, scratch.dv);
        QueryBlock<C> block;
        for (std::int64_t begin = 0; begin < p.queries; begin += block.count) {
            block = next_block<C>(begin, p.queries, keys);
            const bool accumulate = begin > 0;
            block_products<C>(block, grad.data + begin * grad.stride, grad.stride, C(1), v, keys,
                              p.channels, scratch.packed, scratch.grad_scores, fetcher);
            block_products<C>(block, q.data + begin * q.stride, q.stride, factor, k, keys,
                              p.channels, scratch.packed, scratch.scores, fetcher);
            block_softmax<C, true>(block, scratch.scores, keys, nullptr, scratch.grad_scores,
                                   static_cast<C>(scale));
            contract_queries(block, scratch.scores, grad, keys, p.channels,
                             Output<C>{dv.data, dv.stride, nullptr, accumulate}, fetcher);
            contract_queries(block, scratch.grad_scores, q, keys, p.channels,
                             Output<C>{dk.data, dk.stride, nullptr, accumulate}, fetcher);
            IO* to = to_dq + begin * p.dq.row;
            const Rows<C> dq =
                result_rows(to, p.dq.row, block.count, nullptr, p.channels, scratch.dq);
            contract_keys(block, scratch.grad_scores, k, keys, p.channels,
                          Output<C>{dq.data, dq.stride, nullptr, false}, fetcher);
            write_rows(dq, block.count, nullptr, block.count, p.channels, to, p.dq.row);
        }
        write_rows(dk, keys, index, p.keys, p.channels, to_dk, p.dk.row);
        write_rows(dv, keys, index, p.keys, p.channels, to_dv, p.dv.row);
    }
}

}  // namespace
}  // namespace asycmst
