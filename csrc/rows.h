// Rows of channels between the caller's tensors and the kernels: read in place or packed.
#pragma once

#include "axial.h"
#include "shuffle.h"

namespace asycmst {
namespace {

// Rows of the compute type whose width is a whole number of vectors, zero beyond the channels.
template <class C>
struct Rows {
    C* data;
    std::int64_t stride;
};

template <class C>
ASYCMST_INLINE std::int64_t round_to_lanes(std::int64_t count) {
    constexpr std::int64_t lanes = Vec<C>::lanes;
    return (count + lanes - 1) / lanes * lanes;
}

// Hands out pieces of a task's scratch memory; without memory it only counts the bytes.
class Arena {
  public:
    explicit Arena(void* memory) : memory_(static_cast<char*>(memory)) {}

    template <class T>
    T* take(std::int64_t count) {
        const std::size_t begin = used_;
        used_ += (static_cast<std::size_t>(count) * sizeof(T) + 63) / 64 * 64;
        return memory_ == nullptr ? nullptr : reinterpret_cast<T*>(memory_ + begin);
    }

    std::size_t used() const { return used_; }

  private:
    char* memory_;
    std::size_t used_ = 0;
};

template <class IO>
ASYCMST_INLINE IO* group_head(const Operand& operand, std::int64_t batch, std::int64_t group,
                              std::int64_t head) {
    return reinterpret_cast<IO*>(operand.data) + batch * operand.batch + group * operand.group +
           head * operand.head;
}

// Whether rows this far apart fall on so few sets of a 64-set level-one cache that they evict
// each other although packed rows would not. Frames of 784 positions are such a stride.
inline bool rows_collide(std::int64_t count, std::int64_t row_bytes, std::int64_t stride_bytes) {
    const std::int64_t line_stride = (stride_bytes < 0 ? -stride_bytes : stride_bytes) / 64;
    const std::int64_t low_bit = line_stride & -line_stride;
    const std::int64_t starts = low_bit == 0 || low_bit >= 64 ? 1 : 64 / low_bit;
    const std::int64_t lines = (row_bytes + 63) / 64;
    const std::int64_t sets = starts * lines < 64 ? starts * lines : 64;
    return stride_bytes != 0 && count * lines > 8 * sets && sets <= 32;
}

// Rows can be used where they lie when they need neither conversion, padding nor selection.
template <class IO>
inline bool in_place(std::int64_t count, std::int64_t channels, std::int64_t stride) {
    return sizeof(IO) == sizeof(Compute<IO>) && channels % Vec<Compute<IO>>::lanes == 0 &&
           !rows_collide(count, channels * static_cast<std::int64_t>(sizeof(IO)),
                         stride * static_cast<std::int64_t>(sizeof(IO)));
}

template <class IO>
ASYCMST_INLINE typename Vec<Compute<IO>>::type load_part(const IO* from, std::int64_t count) {
    using C = Compute<IO>;
    C values[Vec<C>::lanes] = {};
    for (std::int64_t i = 0; i < count; ++i) {
        values[i] = to_compute(from[i]);
    }
    return load(values);
}

// Packs `count` rows, those named by `index` when it is not null, and pads them with zeros.
template <class IO>
void pack_rows(const IO* from, std::int64_t stride, std::int64_t count, const std::int64_t* index,
               std::int64_t channels, Compute<IO>* to) {
    constexpr std::int64_t lanes = Vec<Compute<IO>>::lanes;
    for (std::int64_t i = 0; i < count; ++i) {
        const IO* row = from + (index == nullptr ? i : index[i]) * stride;
        std::int64_t c = 0;
        for (; c + lanes <= channels; c += lanes, to += lanes) {
            store(to, load(row + c));
        }
        if (c < channels) {
            store(to, load_part(row + c, channels - c));
            to += lanes;
        }
    }
}

template <class IO>
Rows<Compute<IO>> read_rows(IO* from, std::int64_t stride, std::int64_t count,
                            const std::int64_t* index, std::int64_t channels,
                            Compute<IO>* buffer) {
    using C = Compute<IO>;
    if (index == nullptr && in_place<IO>(count, channels, stride)) {
        return {reinterpret_cast<C*>(from), stride};
    }
    pack_rows(from, stride, count, index, channels, buffer);
    return {buffer, round_to_lanes<C>(channels)};
}

// Where results are collected: in the caller's rows when they can be used in place.
template <class IO>
Rows<Compute<IO>> result_rows(IO* to, std::int64_t stride, std::int64_t count,
                              const std::int64_t* index, std::int64_t channels,
                              Compute<IO>* buffer) {
    using C = Compute<IO>;
    if (index == nullptr && in_place<IO>(count, channels, stride)) {
        return {reinterpret_cast<C*>(to), stride};
    }
    return {buffer, round_to_lanes<C>(channels)};
}

template <class IO>
void store_row(const Compute<IO>* from, std::int64_t channels, IO* to) {
    constexpr std::int64_t lanes = Vec<Compute<IO>>::lanes;
    std::int64_t c = 0;
    for (; c + lanes <= channels; c += lanes) {
        store(to + c, load(from + c));
    }
    for (; c < channels; ++c) {
        from_compute(from[c], to + c);
    }
}

template <class IO>
void zero_rows(IO* to, std::int64_t stride, std::int64_t begin, std::int64_t end,
               std::int64_t channels) {
    for (std::int64_t i = begin; i < end; ++i) {
        __builtin_memset(to + i * stride, 0, static_cast<std::size_t>(channels) * sizeof(IO));
    }
}

// Delivers results that were not collected in place. With an `index` of `count` of the `total`
// rows, the rows it leaves out become zero.
template <class IO>
void write_rows(const Rows<Compute<IO>>& from, std::int64_t count, const std::int64_t* index,
                std::int64_t total, std::int64_t channels, IO* to, std::int64_t stride) {
    if (static_cast<const void*>(from.data) == static_cast<const void*>(to)) {
        return;
    }
    std::int64_t next = 0;
    for (std::int64_t i = 0; i < count; ++i) {
        const std::int64_t row = index == nullptr ? i : index[i];
        zero_rows(to, stride, next, row, channels);
        store_row(from.data + i * from.stride, channels, to + row * stride);
        next = row + 1;
    }
    zero_rows(to, stride, next, total, channels);
}

// to[c * width + i] = factor * row i at channel c, for i < width; rows from `count` on are zero.
// `width` is a multiple of the lanes.
template <class IO>
void pack_transposed(const IO* from, std::int64_t stride, std::int64_t count,
                     std::int64_t channels, Compute<IO> factor, std::int64_t width,
                     Compute<IO>* to) {
    using C = Compute<IO>;
    using V = typename Vec<C>::type;
    constexpr std::int64_t lanes = Vec<C>::lanes;
    for (std::int64_t i = 0; i < width; i += lanes) {
        for (std::int64_t c = 0; c < channels; c += lanes) {
            const std::int64_t depth = channels - c < lanes ? channels - c : lanes;
            V tile[lanes];
            if (depth == lanes && i + lanes <= count) {
                ASYCMST_UNROLL
                for (int l = 0; l < lanes; ++l) {
                    tile[l] = load(from + (i + l) * stride + c);
                }
            } else {
                for (int l = 0; l < lanes; ++l) {
                    tile[l] = i + l < count ? load_part(from + (i + l) * stride + c, depth) : V{};
                }
            }
            transpose<C>(tile);
            C* column = to + c * width + i;
            if (depth == lanes) {
                ASYCMST_UNROLL
                for (int l = 0; l < lanes; ++l) {
                    store(column + l * width, tile[l] * splat(factor));
                }
            } else {
                for (std::int64_t l = 0; l < depth; ++l) {
                    store(column + l * width, tile[l] * splat(factor));
                }
            }
        }
    }
}

}  // namespace
}  // namespace asycmst
