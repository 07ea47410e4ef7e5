// Loss and gradient of one sample, with d = s_t - s_i over the pairs t < i, w = 2 / (n (n - 1)):
//     loss = w * sum max(softplus(d), floor)
//     grad_t += w * sigmoid(d), grad_i -= w * sigmoid(d)   where softplus(d) > floor
// Each frame t meets all later frames i at once, lanes over i; memory grows with the frames only.
#pragma once

#include "ranking.h"
#include "rows.h"

namespace asycmst {
namespace {

// log(1 + u) / 2 is the series of atanh in z = u / (2 + u), here for 0 <= u <= 1, so z <= 1/3.
template <class C>
ASYCMST_INLINE typename Vec<C>::type log1p_unit(typename Vec<C>::type u) {
    using V = typename Vec<C>::type;
    constexpr int terms = sizeof(C) == 4 ? 8 : 17;
    const V z = u / (u + C(2));
    const V square = z * z;
    V sum = splat(C(1) / C(2 * terms + 1));
    ASYCMST_UNROLL
    for (int i = terms - 1; i >= 0; --i) {
        sum = sum * square + C(1) / C(2 * i + 1);
    }
    return C(2) * z * sum;
}

template <class IO>
std::size_t ranking_scratch(const RankingProblem& problem) {
    using C = Compute<IO>;
    Arena arena(nullptr);
    arena.take<C>(problem.frames + Vec<C>::lanes);
    arena.take<C>(problem.frames + Vec<C>::lanes);
    return arena.used();
}

template <class IO>
void ranking_row(const RankingProblem& p, std::int64_t batch, void* memory) {
    using C = Compute<IO>;
    using V = typename Vec<C>::type;
    constexpr int lanes = Vec<C>::lanes;
    Arena arena(memory);
    C* scores = arena.take<C>(p.frames + lanes);
    C* sums = arena.take<C>(p.frames + lanes);

    std::int64_t n = p.frames;
    if (p.lengths != nullptr) {
        n = p.lengths[batch] < n ? p.lengths[batch] : n;
        n = n > 0 ? n : 0;
    }
    const IO* from = reinterpret_cast<const IO*>(p.scores) + batch * p.batch_stride;
    for (std::int64_t t = 0; t < n + lanes; ++t) {
        scores[t] = t < n ? to_compute(from[t * p.frame_stride]) : C(0);
        sums[t] = C(0);
    }
    V lane = {};
    for (int l = 0; l < lanes; ++l) {
        lane[l] = static_cast<C>(l);
    }
    const V floor = splat(static_cast<C>(p.floor));
    double total = 0;
    for (std::int64_t t = 0; t < n; ++t) {
        V terms = {};
        V slopes = {};
        for (std::int64_t i = t + 1; i < n; i += lanes) {
            const V d = scores[t] - load(scores + i);
            const V u = exp_nonpositive(d > C(0) ? -d : d);
            const V softplus = (d > C(0) ? d : V{}) + log1p_unit<C>(u);
            const V sigmoid = (d > C(0) ? splat(C(1)) : u) / (u + C(1));
            // Written so that a NaN counts as unclamped and reaches loss and gradient.
            const auto clamped = softplus <= floor;
            const auto inside = lane < static_cast<C>(n - i);
            const V term = clamped ? floor : softplus;
            V slope = clamped ? V{} : sigmoid;
            slope = inside ? slope : V{};
            terms += inside ? term : V{};
            slopes += slope;
            store(sums + i, load(sums + i) - slope);
        }
        total += static_cast<double>(lane_sum<C>(terms));
        sums[t] += lane_sum<C>(slopes);
    }
    const double pairs = static_cast<double>(n) * static_cast<double>(n - 1) / 2;
    const double weight = n < 2 ? 0.0 : 1.0 / pairs;
    reinterpret_cast<C*>(p.loss)[batch] = static_cast<C>(total * weight);
    C* grad = reinterpret_cast<C*>(p.grad) + batch * p.frames;
    for (std::int64_t t = 0; t < p.frames; ++t) {
        grad[t] = t < n ? sums[t] * static_cast<C>(weight) : C(0);
    }
}

}  // namespace
}  // namespace asycmst
