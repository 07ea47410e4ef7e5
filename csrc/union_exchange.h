// What the parts of a union of two axes take from each other and leave, block by block; for a whole
// softmax along one axis everything stays here.
#pragma once

#include "softmax.h"

namespace asycmst {
namespace {

// How the results of a part relate to the caller's: they are all of it, wait in the exchange for
// the other axis, or complete what waits there.
enum class Share { kAll, kLeft, kCompleted };

inline Share forward_share(Part part) {
    return part == Part::kFirst    ? Share::kLeft
           : part == Part::kOthers ? Share::kCompleted
                                   : Share::kAll;
}

inline Share backward_share(Part part) {
    return part == Part::kOthers  ? Share::kLeft
           : part == Part::kAgain ? Share::kCompleted
                                  : Share::kAll;
}

// The rows of one head of one result: the caller's, or those in the exchange. Calls would cost a
// tenth of a short axis's forward, hence inline.
template <class IO>
class Results {
    using C = Compute<IO>;

  public:
    Results(const AxialProblem& p, const AxialTask& task, std::int64_t head, Share share,
            const Operand& operand, const Operand& left)
        : share_(share),
          channels_(p.channels),
          to_(group_head<IO>(operand, task.batch, task.group, head)),
          left_(group_head<C>(left, task.batch, task.group, head)),
          stride_(operand.row),
          left_stride_(left.row) {}

    // Where `count` rows from `first` on are collected, or those that `index` names. They hold
    // what waits for completion, multiplied by `factors` (of each row, or null for 1).
    ASYCMST_INLINE Rows<C> collect(std::int64_t first, std::int64_t count,
                                   const std::int64_t* index, C* buffer,
                                   const C* factors = nullptr) const {
        if (share_ == Share::kLeft) {
            return result_rows(left_ + first * left_stride_, left_stride_, count, index, channels_,
                               buffer);
        }
        const Rows<C> rows =
            result_rows(to_ + first * stride_, stride_, count, index, channels_, buffer);
        const C* waiting = left_ + first * left_stride_;
        if (completes() && (factors != nullptr || rows.data != waiting)) {
            for (std::int64_t i = 0; i < count; ++i) {
                const std::int64_t row = index == nullptr ? i : index[i];
                copy_row(waiting + row * left_stride_, factors == nullptr ? C(1) : factors[i],
                         rows.data + i * rows.stride);
            }
        }
        return rows;
    }

    // Brings what was collected to its place; of `total` rows those outside `index` become zero.
    ASYCMST_INLINE void deliver(const Rows<C>& rows, std::int64_t first, std::int64_t count,
                                const std::int64_t* index, std::int64_t total) const {
        if (share_ == Share::kLeft) {
            write_rows(rows, count, index, total, channels_, left_ + first * left_stride_,
                       left_stride_);
        } else {
            write_rows(rows, count, index, total, channels_, to_ + first * stride_, stride_);
        }
    }

    void zero(std::int64_t total) const { deliver({nullptr, 0}, 0, 0, nullptr, total); }

    // Whether new products are added to what `collect` gives.
    bool completes() const { return share_ == Share::kCompleted; }

  private:
    void copy_row(const C* from, C factor, C* to) const {
        constexpr std::int64_t lanes = Vec<C>::lanes;
        std::int64_t c = 0;
        for (; c + lanes <= channels_; c += lanes) {
            store(to + c, load(from + c) * splat(factor));
        }
        if (c < channels_) {
            store(to + c, load_part(from + c, channels_ - c) * splat(factor));
        }
    }

    Share share_;
    std::int64_t channels_;
    IO* to_;
    C* left_;
    std::int64_t stride_, left_stride_;
};

// What a block knows of each of its queries.
template <class C>
struct QueryState {
    PerQuery<C> top, sum, delta;
};

template <class C>
C* state_row(const Operand& operand, const AxialTask& task, std::int64_t head,
             std::int64_t query) {
    return group_head<C>(operand, task.batch, task.group, head) + query * operand.row;
}

// Lanes beyond the queries of the block get 0.
template <class C, bool kBackward>
void take_state(const AxialProblem& p, const AxialTask& task, std::int64_t head,
                const QueryBlock<C>& block, QueryState<C>& state) {
    const std::int64_t end = round_to_lanes<C>(block.count);
    for (std::int64_t i = 0; i < end; ++i) {
        const bool beyond = i >= block.count;
        const std::int64_t query = block.begin + i;
        state.top.data[i] = beyond ? C(0) : *state_row<C>(p.exchange.top, task, head, query);
        state.sum.data[i] = beyond ? C(0) : *state_row<C>(p.exchange.sum, task, head, query);
        if constexpr (kBackward) {
            state.delta.data[i] =
                beyond ? C(0) : *state_row<C>(p.exchange.delta, task, head, query);
        }
    }
}

template <class C, bool kBackward>
void leave_state(const AxialProblem& p, const AxialTask& task, std::int64_t head,
                 const QueryBlock<C>& block, const QueryState<C>& state) {
    for (std::int64_t i = 0; i < block.count; ++i) {
        const std::int64_t query = block.begin + i;
        *state_row<C>(p.exchange.top, task, head, query) = state.top.data[i];
        *state_row<C>(p.exchange.sum, task, head, query) = state.sum.data[i];
        if constexpr (kBackward) {
            *state_row<C>(p.exchange.delta, task, head, query) = state.delta.data[i];
        }
    }
}

// Calls step(i) for every vector of the block's queries.
template <class C, class Step>
ASYCMST_INLINE void for_queries(const QueryBlock<C>& block, const Step& step) {
    for (std::int64_t i = 0; i < block.count; i += Vec<C>::lanes) {
        step(i);
    }
}

// A key takes part once: here without that of the query itself.
template <class C>
void leave_out_own(const QueryBlock<C>& block, C* scores, std::int64_t keys,
                   const std::int64_t* index) {
    for (std::int64_t j = 0; j < keys; ++j) {
        const std::int64_t i = (index == nullptr ? j : index[j]) - block.begin;
        if (i >= 0 && i < block.count) {
            scores[block.by_query ? i * block.stride + j : j * block.stride + i] =
                -static_cast<C>(__builtin_inf());
        }
    }
}

// Turns the scores into exponentials and finds the state of the queries, that of the first axis
// included; what that axis has left is to be multiplied by `carried`.
template <class C, bool kBackward>
void block_state(const AxialProblem& p, const AxialTask& task, std::int64_t head,
                 const QueryBlock<C>& block, C* scores, std::int64_t keys,
                 const std::int64_t* index, C* grad, QueryState<C>& state,
                 PerQuery<C>& carried) {
    using V = typename Vec<C>::type;
    const V nothing = {};
    const V lowest = splat(-static_cast<C>(__builtin_inf()));
    const bool others = p.part == Part::kOthers;
    if (keys == 0 || block.by_query) {
        for_queries(block, [&](std::int64_t i) {
            store(state.top.data + i, lowest);
            store(state.sum.data + i, nothing);
            store(state.delta.data + i, nothing);
        });
    }
    QueryState<C> first;
    if (others) {
        take_state<C, kBackward>(p, task, head, block, first);
    }
    if (keys != 0) {
        if (others) {
            leave_out_own(block, scores, keys, index);
        }
        block_top(block, scores, keys, state.top.data);
        if (others) {
            for_queries(block, [&](std::int64_t i) {
                C* top = state.top.data + i;
                store(top, larger(load(top), load(first.top.data + i)));
            });
        }
        block_exponentials<C, kBackward>(block, scores, keys, state.top.data, state.sum.data,
                                         grad, state.delta.data);
    } else if (others) {
        state.top = first.top;
    }
    if (!others) {
        return;
    }
    for_queries(block, [&](std::int64_t i) {
        // A query without any key has no largest score to compare with.
        const V sum = load(first.sum.data + i);
        const V above = load(first.top.data + i) - load(state.top.data + i);
        const V factor = sum == C(0) ? nothing : exp_nonpositive(above);
        store(carried.data + i, factor);
        store(state.sum.data + i, load(state.sum.data + i) + sum * factor);
        if constexpr (kBackward) {
            store(state.delta.data + i,
                  load(state.delta.data + i) + load(first.delta.data + i) * factor);
        }
    });
}

// The reciprocals of the sums, 0 for a query without a key.
template <class C>
void invert_sums(const QueryBlock<C>& block, PerQuery<C>& sum) {
    using V = typename Vec<C>::type;
    for_queries(block, [&](std::int64_t i) {
        const V value = load(sum.data + i);
        store(sum.data + i, value == C(0) ? V{} : C(1) / value);
    });
}

// Scores become exponentials. `inverse` is what their products with values are to be multiplied
// by, and `carried` what the results of the first axis are.
template <class C>
void forward_softmax(const AxialProblem& p, const AxialTask& task, std::int64_t head,
                     const QueryBlock<C>& block, C* scores, std::int64_t keys,
                     const std::int64_t* index, PerQuery<C>& inverse, PerQuery<C>& carried) {
    QueryState<C> state;
    block_state<C, false>(p, task, head, block, scores, keys, index, nullptr, state, carried);
    if (p.part == Part::kFirst) {
        leave_state<C, false>(p, task, head, block, state);
        for_queries(block, [&](std::int64_t i) { store(inverse.data + i, splat(C(1))); });
        return;
    }
    invert_sums(block, state.sum);
    inverse = state.sum;
    if (p.part == Part::kOthers) {
        for_queries(block, [&](std::int64_t i) {
            C* factor = carried.data + i;
            store(factor, load(factor) * load(inverse.data + i));
        });
    }
}

// Scores become probabilities and `grad`, the derivative by them, that by the scaled products. The
// first part of a union only leaves what it knows of the queries.
template <class C>
void backward_softmax(const AxialProblem& p, const AxialTask& task, std::int64_t head,
                      const QueryBlock<C>& block, C* scores, std::int64_t keys,
                      const std::int64_t* index, C* grad, C scale) {
    QueryState<C> state;
    PerQuery<C> carried;
    if (p.part == Part::kAgain) {
        take_state<C, true>(p, task, head, block, state);
        QueryState<C> unused;
        block_exponentials<C, true>(block, scores, keys, state.top.data, unused.sum.data, grad,
                                    unused.delta.data);
    } else {
        block_state<C, true>(p, task, head, block, scores, keys, index, grad, state, carried);
        if (p.part != Part::kFirst) {
            invert_sums(block, state.sum);
            for_queries(block, [&](std::int64_t i) {
                C* delta = state.delta.data + i;
                store(delta, load(delta) * load(state.sum.data + i));
            });
        }
        if (p.part != Part::kWhole) {
            leave_state<C, true>(p, task, head, block, state);
        }
    }
    if (p.part != Part::kFirst && keys != 0) {
        block_derivatives(block, scores, keys, state.sum.data, grad, state.delta.data, scale);
    }
}

// The rest of a forward for a group of which no key takes part; `buffer` holds a block of rows.
template <class IO>
void forward_without_keys(const AxialProblem& p, const AxialTask& task, std::int64_t head,
                          const Results<IO>& out, Compute<IO>* buffer) {
    using C = Compute<IO>;
    QueryBlock<C> block;
    for (std::int64_t begin = 0; begin < p.queries; begin += block.count) {
        block = next_block<C>(begin, p.queries, 0);
        PerQuery<C> inverse, carried;
        forward_softmax<C>(p, task, head, block, nullptr, 0, nullptr, inverse, carried);
        if (out.completes()) {
            out.deliver(out.collect(begin, block.count, nullptr, buffer, carried.data), begin,
                        block.count, nullptr, block.count);
        }
    }
    if (!out.completes()) {
        out.zero(p.queries);
    }
}

// The same for a backward; its results are dq, dk and dv.
template <class IO>
void backward_without_keys(const AxialProblem& p, const AxialTask& task, std::int64_t head,
                           const Results<IO>& dq, const Results<IO>& dk, const Results<IO>& dv,
                           Compute<IO>* buffer) {
    using C = Compute<IO>;
    QueryBlock<C> block;
    for (std::int64_t begin = 0; begin < p.queries; begin += block.count) {
        block = next_block<C>(begin, p.queries, 0);
        if (dq.completes()) {
            dq.deliver(dq.collect(begin, block.count, nullptr, buffer), begin, block.count,
                       nullptr, block.count);
        } else {
            backward_softmax<C>(p, task, head, block, nullptr, 0, nullptr, nullptr, C(0));
        }
    }
    if (p.part == Part::kFirst) {
        return;
    }
    if (!dq.completes()) {
        dq.zero(p.queries);
    }
    dk.zero(p.keys);
    dv.zero(p.keys);
}

}  // namespace
}  // namespace asycmst
