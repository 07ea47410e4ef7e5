// Loss and gradient of one sample, with d = s_t - s_i over the pairs t < i, w = 2 / (n (n - 1)):
//     loss = w * sum max(softplus(d), floor)
//     grad_t += w * sigmoid(d), grad_i -= w * sigmoid(d)   where softplus(d) > floor
// The frames stand on a ring. Each step k = 1 ... n / 2 pairs every frame with the one k places
// further on, so that all lanes work however few frames there are. Where the step wraps, the
// frame ahead is the earlier one and both signs turn. Memory grows with the frames only.
#pragma once

#include "ranking.h"
#include "rows.h"

namespace asycmst {
namespace {

// log(1 + u), given z = u / (2 + u): twice the series of atanh in z, for 0 <= u <= 1, so z <= 1/3.
template <class C>
ASYCMST_INLINE typename Vec<C>::type log1p_unit(typename Vec<C>::type z) {
    using V = typename Vec<C>::type;
    constexpr int terms = sizeof(C) == 4 ? 8 : 17;
    const V square = z * z;
    V sum = splat(C(1) / C(2 * terms + 1));
    ASYCMST_UNROLL
    for (int i = terms - 1; i >= 0; --i) {
        sum = sum * square + C(1) / C(2 * i + 1);
    }
    return C(2) * z * sum;
}

// Terms added in the narrow type before they join the total: bounds the rounding of long clips.
constexpr std::int64_t kStepsPerSum = 16;

// The scores twice round the ring, and what each frame gains as the near and as the far one.
template <class C>
struct RankingScratch {
    RankingScratch(std::int64_t frames, void* memory) : arena(memory) {
        const std::int64_t twice = 2 * frames + Vec<C>::lanes;
        scores = arena.take<C>(twice);
        near = arena.take<C>(frames + Vec<C>::lanes);
        far = arena.take<C>(twice);
    }

    Arena arena;
    C *scores, *near, *far;
};

template <class IO>
std::size_t ranking_scratch(const RankingProblem& problem) {
    return RankingScratch<Compute<IO>>(problem.frames, nullptr).arena.used();
}

template <class IO>
void ranking_row(const RankingProblem& p, std::int64_t batch, void* memory) {
    using C = Compute<IO>;
    using V = typename Vec<C>::type;
    constexpr int lanes = Vec<C>::lanes;
    const RankingScratch<C> scratch(p.frames, memory);

    std::int64_t n = p.frames;
    if (p.lengths != nullptr) {
        n = p.lengths[batch] < n ? p.lengths[batch] : n;
        n = n > 0 ? n : 0;
    }
    const IO* from = reinterpret_cast<const IO*>(p.scores) + batch * p.batch_stride;
    for (std::int64_t t = 0; t < n; ++t) {
        scratch.scores[t] = scratch.scores[n + t] = to_compute(from[t * p.frame_stride]);
    }
    for (std::int64_t t = 0; t < 2 * n + lanes; ++t) {
        scratch.far[t] = C(0);
    }
    for (int l = 0; l < lanes; ++l) {
        scratch.scores[2 * n + l] = C(0);
    }
    V lane = {};
    for (int l = 0; l < lanes; ++l) {
        lane[l] = static_cast<C>(l);
    }
    const V floor = splat(static_cast<C>(p.floor));
    double total = 0;
    for (std::int64_t t = 0; t < n; t += lanes) {
        const V here = load(scratch.scores + t);
        V terms = {};
        V gained = {};
        for (std::int64_t k = 1; 2 * k <= n; ++k) {
            // Half a ring away every pair would come twice.
            const std::int64_t near = 2 * k == n ? k : n;
            const auto inside = lane < static_cast<C>(near - t);
            const auto forward = lane < static_cast<C>(n - k - t);
            const V gap = here - load(scratch.scores + t + k);
            const V d = forward ? gap : -gap;
            const V u = exp_nonpositive(d > C(0) ? -d : d);
            // One quotient serves log1p, by z = u / (2 + u), and sigmoid, by 1 / (1 + u).
            const V quotient = C(1) / ((u + C(1)) * (u + C(2)));
            const V softplus = (d > C(0) ? d : V{}) + log1p_unit<C>(u * (u + C(1)) * quotient);
            const V sigmoid = (d > C(0) ? splat(C(1)) : u) * (u + C(2)) * quotient;
            // Written so that a NaN counts as unclamped and reaches loss and gradient.
            const auto clamped = softplus <= floor;
            const V term = clamped ? floor : softplus;
            const V slope = clamped ? V{} : forward ? sigmoid : -sigmoid;
            const V taken = inside ? slope : V{};
            terms += inside ? term : V{};
            gained += taken;
            store(scratch.far + t + k, load(scratch.far + t + k) + taken);
            if (k % kStepsPerSum == 0) {
                total += static_cast<double>(lane_sum<C>(terms));
                terms = V{};
            }
        }
        total += static_cast<double>(lane_sum<C>(terms));
        store(scratch.near + t, gained);
    }
    const double pairs = static_cast<double>(n) * static_cast<double>(n - 1) / 2;
    const double weight = n < 2 ? 0.0 : 1.0 / pairs;
    reinterpret_cast<C*>(p.loss)[batch] =
        static_cast<C>(total * weight);
    C* grad = reinterpret_cast<C*>(p.grad) + batch * p.frames;
    const C factor = static_cast<C>(weight);
    for (std::int64_t t = 0; t < p.frames; ++t) {
        grad[t] = t < n ? (scratch.near[t] - (scratch.far[t] + scratch.far[n + t])) * factor
                        : C(0);
    }
}

}  // namespace
}  // namespace asycmst
