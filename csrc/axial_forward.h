// out_i = sum_j softmax_j(scale * q_i . k_j) v_j for the heads of one group, or the share that one
// axis of a union has in it.
#pragma once

#include "union_exchange.h"

namespace asycmst {
namespace {

template <class IO>
struct ForwardScratch {
    using C = Compute<IO>;

    ForwardScratch(const AxialProblem& p, void* memory) : arena(memory) {
        const std::int64_t width = round_to_lanes<C>(p.channels);
        const std::int64_t block = round_to_lanes<C>(kBlockQueries);
        kept = arena.take<std::int64_t>(p.mask.data == nullptr ? 0 : p.keys);
        k = arena.take<C>(p.keys * width);
        v = arena.take<C>(p.keys * width);
        packed = arena.take<C>(block * width);
        scores = arena.take<C>(score_elements<C>(p.queries, p.keys));
        out = arena.take<C>(block * width);
    }

    Arena arena;
    std::int64_t* kept;
    C *k, *v, *packed, *scores, *out;
};

template <class IO>
std::size_t axial_forward_scratch(const AxialProblem& problem) {
    return ForwardScratch<IO>(problem, nullptr).arena.used();
}

template <class IO>
void axial_forward(const AxialProblem& p, const AxialTask& task, double scale, void* memory) {
    using C = Compute<IO>;
    const ForwardScratch<IO> scratch(p, memory);
    const bool masked = p.mask.data != nullptr;
    const std::int64_t* index = masked ? scratch.kept : nullptr;
    const std::int64_t keys = masked ? list_kept_keys(p, task, scratch.kept) : p.keys;
    const C factor = static_cast<C>(scale);
    RowFetcher fetcher(p, task, static_cast<std::int64_t>(sizeof(IO)));
    fetcher.fetch_forward();

    for (std::int64_t head = task.head_begin; head < task.head_end; ++head) {
        fetcher.begin(head);
        const Results<IO> out(p, task, head, forward_share(p.part), p.out, p.exchange.out);
        if (keys == 0) {
            forward_without_keys(p, task, head, out, scratch.out);
            continue;
        }
        const IO* q = group_head<IO>(p.q, task.batch, task.group, head);
        const Rows<C> k = read_rows(group_head<IO>(p.k, task.batch, task.group, head), p.k.row,
                                    keys, index, p.channels, scratch.k);
        const Rows<C> v = read_rows(group_head<IO>(p.v, task.batch, task.group, head), p.v.row,
                                    keys, index, p.channels, scratch.v);
        QueryBlock<C> block;
        for (std::int64_t begin = 0; begin < p.queries; begin += block.count) {
            block = next_block<C>(begin, p.queries, keys);
            block_products(block, q + begin * p.q.row, p.q.row, factor, k, keys, p.channels,
                           scratch.packed, scratch.scores, fetcher);
            PerQuery<C> inverse, carried;
            forward_softmax(p, task, head, block, scratch.scores, keys, index, inverse, carried);
            const Rows<C> rows =
                out.collect(begin, block.count, nullptr, scratch.out, carried.data);
            contract_keys(block, scratch.scores, v, keys, p.channels,
                          Output<C>{rows.data, rows.stride, inverse.data, out.completes()},
                          fetcher);
            out.deliver(rows, begin, block.count, nullptr, block.count);
        }
    }
}

}  // namespace
}  // namespace asycmst
