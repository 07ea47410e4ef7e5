// Both gates of feature maps and their gradient, by strips of `patch` rows.
//
// A task holds one map, or with channels last the maps of a few channels side by side. What it
// works on is a row of columns: the pixels of a row, or pixels times channels. Along the columns
// everything is done in vectors; along a row of patches there is only a quarter of a row or less.
// Sweep one collects, strip by strip, the sum of every patch, mean and squared deviation of every
// column, and in the backward, with q = grad * x, what q passes on to the rows of patches. Sweep
// two reads the maps again, from the cache where they fit, and writes.
//
// A pixel k rows into its strip lies between the centres of its patch and of the one before
// (k < patch / 2) or after: `far[k]` is the weight of the later one of the two.
#pragma once

#include "gates_task.h"

namespace asycmst {
namespace {

// Sweep one over one strip. Here and below Patch is the side of a patch, and Rows the number of
// rows, or 0 where that is not known in advance.
template <bool Backward, int Rows, class IO, bool Last>
void collect_strip(const GatesTask<IO, Last>& t, std::int64_t strip) {
    using C = Compute<IO>;
    using V = typename Vec<C>::type;
    const std::int64_t rows = t.rows_of(strip);
    const std::int64_t half = Rows > 0 ? Rows / 2 : t.half;
    const Maps x = t.p.x, g = t.p.grad;
    const IO* from = t.at(x, strip);
    const IO* grads = Backward ? t.at(g, strip) : nullptr;
    const C above = static_cast<C>(strip * t.patch);
    const C share = static_cast<C>(rows) / (above + static_cast<C>(rows));
    const C part = C(1) / static_cast<C>(rows);
    const bool top = strip == 0;
    each_vector(t, [&](auto access, std::int64_t pixel, std::int64_t channel,
                       std::int64_t column) ASYCMST_INLINED {
        const IO* here = from + pixel * x.pixel + channel;
        const V pivot = load(t.pivot + channel);
        V plain = {}, sum = {};
        repeat<Rows>(rows, [&](std::int64_t k) ASYCMST_INLINED {
            const V value = access.get(here + k * x.row);
            plain += value;
            sum += value - pivot;
        });
        const V mean = access.template only<C>(sum * part);
        V square = {};
        repeat<Rows>(rows, [&](std::int64_t k) ASYCMST_INLINED {
            const V off = access.get(here + k * x.row) - pivot - mean;
            square += off * off;
        });
        square = access.template only<C>(square);
        const V before = load(t.mean + column);
        const V shift = mean - before;
        square += shift * (shift * (above * share));  // in this order 0 stays 0 below infinity
        store(t.sum + column, plain);
        store(t.mean + column, before + shift * share);
        store(t.square + column, load(t.square + column) + square);
        if constexpr (Backward) {
            const IO* up = grads + pixel * g.pixel + channel;
            V back = {}, own = {}, ahead = {};
            repeat<Rows>(rows, [&](std::int64_t k) ASYCMST_INLINED {
                const V q = access.get(here + k * x.row) * access.get(up + k * g.row);
                const V later = q * t.template far_of<Rows>(k);
                if (k < half) {
                    back += q - later;
                    own += later;
                } else {
                    own += q - later;
                    ahead += later;
                }
            });
            store(t.total + column, load(t.total + column) + (back + own + ahead));
            // Before the first patch there is none to pass anything back to.
            store(t.done + column, load(t.carry + column) + back);
            store(t.carry + column, load(t.ahead + column) + own + (top ? back : V{}));
            store(t.ahead + column, ahead);
        }
    });
}

// The gates of one row of patches from the sums of its columns.
template <int Patch, class IO, bool Last>
void gate_patches(const GatesTask<IO, Last>& t, std::int64_t strip) {
    using C = Compute<IO>;
    const std::int64_t patch = Patch > 0 ? Patch : t.patch;
    const std::int64_t width = Last ? t.width : 1;
    const std::int64_t end = t.patches * width;
    C* row = t.gates + strip * t.gate_row();
    C* to = row + width;
    if (!t.spatial) {
        __builtin_memset(row, 0, static_cast<std::size_t>(t.gate_row()) * sizeof(C));
        return;
    }
    const C whole = C(1) / static_cast<C>(t.rows_of(strip) * patch);
    const C* from = t.sum;
    for (std::int64_t j = 0; j < t.patches; ++j) {
        for (std::int64_t l = 0; l < width; ++l) {
            C sum = 0;
            repeat<Patch>(patch, [&](std::int64_t k) ASYCMST_INLINED {
                sum += from[(j * patch + k) * width + l];
            });
            to[j * width + l] = sum * whole;
        }
    }
    const C cut = static_cast<C>(patch) / static_cast<C>(t.last_columns());
    for (std::int64_t i = end - width; i < end; ++i) {
        to[i] *= cut;
    }
    for (std::int64_t i = 0; i < end; i += Vec<C>::lanes) {
        store(to + i, sigmoid<C>(load(to + i)));
    }
    for (std::int64_t l = 0; l < width; ++l) {
        row[l] = to[l];
        to[end + l] = to[end - width + l];
    }
}

// What the columns in `done` pass on to the means of one row of patches, and so to each pixel.
template <int Patch, class IO, bool Last>
void pull_patches(const GatesTask<IO, Last>& t, std::int64_t strip) {
    using C = Compute<IO>;
    const std::int64_t patch = Patch > 0 ? Patch : t.patch;
    const std::int64_t width = Last ? t.width : 1;
    const std::int64_t end = t.patches * width;
    C* to = t.pulls + strip * end;
    if (!t.spatial) {
        __builtin_memset(to, 0, static_cast<std::size_t>(end) * sizeof(C));
        return;
    }
    const C* from = t.done;
    // Free in this sweep. `ahead` begins with what leaves the first patch to the left, which
    // stays there, and `back` ends with what leaves the last one to the right.
    C *own = t.upper, *ahead = t.middle, *back = t.lower;
    for (std::int64_t j = 0; j < t.patches; ++j) {
        for (std::int64_t l = 0; l < width; ++l) {
            C left = 0, stays = 0, right = 0;
            repeat<Patch>(patch, [&](std::int64_t k) ASYCMST_INLINED {
                const C q = from[(j * patch + k) * width + l];
                const C later = q * t.template far_of<Patch>(k);
                (k < patch / 2 ? left : stays) += q - later;
                (k < patch / 2 ? stays : right) += later;
            });
            back[j * width + l] = left;
            own[j * width + l] = stays;
            ahead[(j + 1) * width + l] = right;
        }
    }
    for (std::int64_t l = 0; l < width; ++l) {
        ahead[l] = back[l];
        back[end + l] = ahead[end + l];
    }
    const C* gate = t.gates + strip * t.gate_row() + width;
    const C whole = C(1) / static_cast<C>(t.rows_of(strip) * patch);
    for (std::int64_t i = 0; i < end; ++i) {
        to[i] = (own[i] + ahead[i] + back[i + width]) * (gate[i] * (C(1) - gate[i]) * whole);
    }
    const C cut = static_cast<C>(patch) / static_cast<C>(t.last_columns());
    for (std::int64_t i = end - width; i < end; ++i) {
        to[i] *= cut;
    }
}

// The channel gate and what the backward needs of it, from the statistics of the columns.
template <bool Backward, class IO, bool Last>
void settle_channels(GatesTask<IO, Last>& t) {
    using C = Compute<IO>;
    using V = typename Vec<C>::type;
    constexpr std::int64_t lanes = Vec<C>::lanes;
    const C columns = static_cast<C>(t.p.width);
    const C height = static_cast<C>(t.p.height);
    const C pixels = height * columns;
    const C degrees = pixels > C(1) ? pixels - C(1) : C(1);
    const std::int64_t step = Last ? t.width : lanes;
    const std::int64_t end = t.p.width * (Last ? t.width : 1);
    for (std::int64_t v = 0; v < (Last ? t.width : lanes); v += lanes) {
        V mean = {}, square = {}, total = {};
        for (std::int64_t i = v; i < end; i += step) {
            mean += load(t.mean + i);
            square += load(t.square + i);
            if constexpr (Backward) {
                total += load(t.total + i);
            }
        }
        const auto over = [&](V sum) ASYCMST_INLINED {
            return Last ? sum : splat(lane_sum<C>(sum));
        };
        mean = over(mean) / columns;
        for (std::int64_t i = v; i < end; i += step) {
            const V off = load(t.mean + i) - mean;
            const V more = off * (off * height);
            square += !Last && i + lanes > end ? Part{end - i}.only<C>(more) : more;
        }
        const V u = exp_nonpositive(-over(square) / degrees);
        const V open = C(1) / (u + C(1));
        store(t.gate + v, t.channel ? open : V{});
        if constexpr (Backward) {
            const V slope = over(total) * (u * open * open * (C(2) / degrees));
            store(t.slope + v, t.channel ? slope : V{});
            store(t.centre + v, t.channel ? mean + load(t.pivot + v) : V{});
        }
    }
}

// Both gates of every column in the height of the centres of one row of patches.
template <int Patch, class IO, bool Last>
void expand_gates(const GatesTask<IO, Last>& t, std::int64_t strip, Compute<IO>* to) {
    using C = Compute<IO>;
    const std::int64_t patch = Patch > 0 ? Patch : t.patch;
    const std::int64_t width = Last ? t.width : 1;
    const C* row = t.gates + strip * t.gate_row();
    for (std::int64_t j = 0; j < t.patches; ++j) {
        for (std::int64_t l = 0; l < width; ++l) {
            const C before = row[j * width + l];
            const C here = row[(j + 1) * width + l];
            const C after = row[(j + 2) * width + l];
            repeat<Patch>(patch, [&](std::int64_t k) ASYCMST_INLINED {
                const C far = t.template far_of<Patch>(k);
                const C spatial = k < patch / 2 ? before + far * (here - before)
                                                : here + far * (after - here);
                to[(j * patch + k) * width + l] = t.gate[l] + spatial;
            });
        }
    }
}

// What every column gets through the means of one row of patches.
template <int Patch, class IO, bool Last>
void expand_pulls(const GatesTask<IO, Last>& t, std::int64_t strip) {
    using C = Compute<IO>;
    const std::int64_t patch = Patch > 0 ? Patch : t.patch;
    const std::int64_t width = Last ? t.width : 1;
    const C* from = t.pulls + strip * t.patches * width;
    C* to = t.pull;
    for (std::int64_t j = 0; j < t.patches; ++j) {
        for (std::int64_t l = 0; l < width; ++l) {
            const C pull = from[j * width + l];
            repeat<Patch>(patch, [&](std::int64_t k) ASYCMST_INLINED {
                to[(j * patch + k) * width + l] = pull;
            });
        }
    }
}

// Sweep two over one strip, with the gates in the height of the centres around it.
template <bool Backward, int Rows, class IO, bool Last>
void write_strip(const GatesTask<IO, Last>& t, std::int64_t strip) {
    using C = Compute<IO>;
    using V = typename Vec<C>::type;
    const std::int64_t rows = t.rows_of(strip);
    const std::int64_t half = Rows > 0 ? Rows / 2 : t.half;
    const Maps x = t.p.x, g = t.p.grad, out = t.p.out;
    const IO* from = t.at(x, strip);
    const IO* grads = Backward ? t.at(g, strip) : nullptr;
    IO* to = t.at(out, strip);
    each_vector(t, [&](auto access, std::int64_t pixel, std::int64_t channel,
                       std::int64_t column) ASYCMST_INLINED {
        const IO* here = from + pixel * x.pixel + channel;
        const IO* up = Backward ? grads + pixel * g.pixel + channel : nullptr;
        IO* there = to + pixel * out.pixel + channel;
        const V middle = load(t.middle + column);
        const V from_upper = middle - load(t.upper + column);
        const V to_lower = load(t.lower + column) - middle;
        const V pull = Backward ? load(t.pull + column) : V{};
        const V slope = Backward ? load(t.slope + channel) : V{};
        const V centre = Backward ? load(t.centre + channel) : V{};
        repeat<Rows>(rows, [&](std::int64_t k) ASYCMST_INLINED {
            const C far = t.template far_of<Rows>(k);
            const V gate = k < half ? middle - from_upper * (C(1) - far) : middle + to_lower * far;
            const V value = access.get(here + k * x.row);
            if constexpr (Backward) {
                const V grad = access.get(up + k * g.row);
                access.put(there + k * out.row, grad * gate + (slope * (value - centre) + pull));
            } else {
                access.put(there + k * out.row, value * gate);
            }
        });
    });
}

template <bool Backward, int Patch, class IO, bool Last>
void gate_maps(GatesTask<IO, Last>& t) {
    const std::int64_t end = t.strips - 1;
    for (std::int64_t strip = 0; strip <= end; ++strip) {
        if (Patch > 0 && t.rows_of(strip) == Patch) {
            collect_strip<Backward, Patch>(t, strip);
        } else {
            collect_strip<Backward, 0>(t, strip);
        }
        gate_patches<Patch>(t, strip);
        if (Backward && strip > 0) {
            pull_patches<Patch>(t, strip - 1);
        }
    }
    if constexpr (Backward) {
        // No strip below passes anything back to the last one, which keeps what it passes ahead.
        for (std::int64_t i = 0; i < t.columns; ++i) {
            t.done[i] = t.carry[i] + t.ahead[i];
        }
        pull_patches<Patch>(t, end);
    }
    settle_channels<Backward>(t);
    expand_gates<Patch>(t, 0, t.upper);
    expand_gates<Patch>(t, 0, t.middle);
    for (std::int64_t strip = 0; strip <= end; ++strip) {
        expand_gates<Patch>(t, strip < end ? strip + 1 : end, t.lower);
        if constexpr (Backward) {
            expand_pulls<Patch>(t, strip);
        }
        if (Patch > 0 && t.rows_of(strip) == Patch) {
            write_strip<Backward, Patch>(t, strip);
        } else {
            write_strip<Backward, 0>(t, strip);
        }
        t.next_strip();
    }
}

template <bool Backward, class IO, bool Last>
void run_gates_task(const GatesProblem& p, std::int64_t task, void* memory) {
    GatesTask<IO, Last> t(p, task, memory);
    t.prepare();
    if (p.patch == 4) {  // by far the most common: its loops are unrolled
        gate_maps<Backward, 4>(t);
    } else {
        gate_maps<Backward, 0>(t);
    }
}

template <bool Backward, class IO>
void gates_task(const GatesProblem& p, std::int64_t task, void* memory) {
    (p.channels_last ? run_gates_task<Backward, IO, true>
                     : run_gates_task<Backward, IO, false>)(p, task, memory);
}

template <class IO>
std::int64_t gates_tasks(const GatesProblem& p) {
    return p.channels_last ? GatesTask<IO, true>::tasks(p) : GatesTask<IO, false>::tasks(p);
}

template <class IO>
std::size_t gates_scratch(const GatesProblem& p) {
    return p.channels_last ? GatesTask<IO, true>(p, 0, nullptr).arena.used()
                           : GatesTask<IO, false>(p, 0, nullptr).arena.used();
}

}  // namespace
}  // namespace asycmst
