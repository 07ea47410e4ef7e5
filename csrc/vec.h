// Vectors of the widest registers the compiler may use here, by the compilers' vector extensions.
#pragma once

#include <cstdint>

#if defined(__AVX512F__) || defined(__F16C__)
#include <immintrin.h>
#endif

namespace asycmst {
namespace {

#if defined(__AVX512F__)
constexpr int kVectorBytes = 64;
#elif defined(__AVX__)
constexpr int kVectorBytes = 32;
#else
constexpr int kVectorBytes = 16;
#endif

#if defined(__AVX512F__) || defined(__aarch64__)
constexpr int kRegisters = 32;
#else
constexpr int kRegisters = 16;
#endif

#define ASYCMST_INLINE inline __attribute__((always_inline))
#define ASYCMST_INLINED __attribute__((always_inline))  // of a lambda, before its body
#if defined(__clang__)
#define ASYCMST_UNROLL _Pragma("unroll")
#else
#define ASYCMST_UNROLL _Pragma("GCC unroll 16")
#endif

struct Half {
    std::uint16_t bits;
};

struct BFloat {
    std::uint16_t bits;
};

// The type a storage type is computed in.
template <class IO>
struct ComputeOf {
    using type = float;
};
template <>
struct ComputeOf<double> {
    using type = double;
};
template <class IO>
using Compute = typename ComputeOf<IO>::type;

template <class C>
struct Vec;

template <>
struct Vec<float> {
    static constexpr int lanes = kVectorBytes / 4;
    typedef float type __attribute__((vector_size(kVectorBytes)));
    typedef float unaligned __attribute__((vector_size(kVectorBytes), aligned(4), may_alias));
    typedef std::uint32_t bits __attribute__((vector_size(kVectorBytes)));
    typedef std::int32_t ints __attribute__((vector_size(kVectorBytes)));
    typedef std::uint16_t half_bits __attribute__((vector_size(kVectorBytes / 2)));
    typedef std::uint16_t half_unaligned
        __attribute__((vector_size(kVectorBytes / 2), aligned(2), may_alias));
};

template <>
struct Vec<double> {
    static constexpr int lanes = kVectorBytes / 8;
    typedef double type __attribute__((vector_size(kVectorBytes)));
    typedef double unaligned __attribute__((vector_size(kVectorBytes), aligned(8), may_alias));
    typedef std::uint64_t bits __attribute__((vector_size(kVectorBytes)));
    typedef std::int64_t ints __attribute__((vector_size(kVectorBytes)));
};

using VFloat = Vec<float>::type;
using VDouble = Vec<double>::type;

template <class To, class From>
ASYCMST_INLINE To bit_cast(const From& from) {
    static_assert(sizeof(To) == sizeof(From), "same size");
    To to;
    __builtin_memcpy(&to, &from, sizeof(To));
    return to;
}

template <class C>
ASYCMST_INLINE typename Vec<C>::type splat(C value) {
    return value - typename Vec<C>::type{};  // keeps the sign of zero
}

// a > b ? a : b in every lane; a NaN in `a` yields b.
template <class V>
ASYCMST_INLINE V larger(V a, V b) {
    return a > b ? a : b;
}

// Scalars of the 16-bit types; rounding is to nearest even and NaN stays NaN.

ASYCMST_INLINE float to_compute(float value) { return value; }
ASYCMST_INLINE double to_compute(double value) { return value; }

ASYCMST_INLINE float to_compute(BFloat value) {
    return bit_cast<float>(std::uint32_t{value.bits} << 16);
}

ASYCMST_INLINE float to_compute(Half value) {
    const std::uint32_t sign = (value.bits & 0x8000u) << 16;
    const std::uint32_t magnitude = value.bits & 0x7fffu;
    if (magnitude >= 0x7c00u) {
        return bit_cast<float>(sign | 0x7f800000u | (magnitude << 13));
    }
    if (magnitude >= 0x0400u) {
        return bit_cast<float>(sign | ((magnitude << 13) + 0x38000000u));
    }
    const float subnormal = static_cast<float>(magnitude) * 0x1p-24f;
    return bit_cast<float>(sign | bit_cast<std::uint32_t>(subnormal));
}

ASYCMST_INLINE void from_compute(float value, float* to) { *to = value; }
ASYCMST_INLINE void from_compute(double value, double* to) { *to = value; }

ASYCMST_INLINE void from_compute(float value, BFloat* to) {
    const std::uint32_t bits = bit_cast<std::uint32_t>(value);
    const bool is_nan = (bits & 0x7fffffffu) > 0x7f800000u;
    const std::uint32_t even = bits + 0x7fffu + ((bits >> 16) & 1);
    const std::uint32_t rounded = is_nan ? bits | 0x00400000u : even;
    to->bits = static_cast<std::uint16_t>(rounded >> 16);
}

ASYCMST_INLINE void from_compute(float value, Half* to) {
    const std::uint32_t bits = bit_cast<std::uint32_t>(value);
    const std::uint32_t sign = (bits >> 16) & 0x8000u;
    const std::uint32_t magnitude = bits & 0x7fffffffu;
    std::uint32_t half;
    if (magnitude > 0x7f800000u) {
        half = 0x7e00u;
    } else if (magnitude >= 0x477ff000u) {  // rounds to 2^16 or is infinite
        half = 0x7c00u;
    } else if (magnitude < 0x38800000u) {  // subnormal: adding 1/2 rounds at 2^-24
        const float shifted = bit_cast<float>(magnitude) + 0.5f;
        half = bit_cast<std::uint32_t>(shifted) - 0x3f000000u;
    } else {
        half = (magnitude - 0x38000000u + 0xfffu + ((magnitude >> 13) & 1)) >> 13;
    }
    to->bits = static_cast<std::uint16_t>(sign | half);
}

// Unaligned loads and stores of one vector of the compute type.

ASYCMST_INLINE VFloat load(const float* from) {
    return *reinterpret_cast<const Vec<float>::unaligned*>(from);
}

ASYCMST_INLINE VDouble load(const double* from) {
    return *reinterpret_cast<const Vec<double>::unaligned*>(from);
}

ASYCMST_INLINE VFloat load(const BFloat* from) {
    const Vec<float>::half_bits half =
        *reinterpret_cast<const Vec<float>::half_unaligned*>(from);
    return bit_cast<VFloat>(__builtin_convertvector(half, Vec<float>::bits) << 16);
}

ASYCMST_INLINE VFloat load(const Half* from) {
#if defined(__AVX512F__)
    return (VFloat)_mm512_cvtph_ps(
        _mm256_loadu_si256(reinterpret_cast<const __m256i*>(from)));
#elif defined(__F16C__)
    return (VFloat)_mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i*>(from)));
#else
    VFloat value;
    for (int i = 0; i < Vec<float>::lanes; ++i) {
        value[i] = to_compute(from[i]);
    }
    return value;
#endif
}

ASYCMST_INLINE void store(float* to, VFloat value) {
    *reinterpret_cast<Vec<float>::unaligned*>(to) = value;
}

ASYCMST_INLINE void store(double* to, VDouble value) {
    *reinterpret_cast<Vec<double>::unaligned*>(to) = value;
}

ASYCMST_INLINE void store(BFloat* to, VFloat value) {
    using Bits = Vec<float>::bits;
    const Bits bits = bit_cast<Bits>(value);
    const Bits rounded = bits + 0x7fffu + ((bits >> 16) & 1u);
    const Bits result = value == value ? rounded : bits | 0x00400000u;
    *reinterpret_cast<Vec<float>::half_unaligned*>(to) =
        __builtin_convertvector(result >> 16, Vec<float>::half_bits);
}

ASYCMST_INLINE void store(Half* to, VFloat value) {
#if defined(__AVX512F__)
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(to),
                        _mm512_cvtps_ph((__m512)value, _MM_FROUND_TO_NEAREST_INT));
#elif defined(__F16C__)
    _mm_storeu_si128(reinterpret_cast<__m128i*>(to),
                     _mm256_cvtps_ph((__m256)value, _MM_FROUND_TO_NEAREST_INT));
#else
    for (int i = 0; i < Vec<float>::lanes; ++i) {
        from_compute(value[i], to + i);
    }
#endif
}

constexpr double kLog2E = 1.4426950408889634074;

// e^x for x <= 0, NaN for NaN, and exactly 0 where the result would not be a normal number: a
// denormal weight would slow every product it enters. x = n ln 2 + r with |r| <= ln 2 / 2: n by
// adding and subtracting a number whose last bit is 1, r by subtracting n ln 2 in two parts, of
// which the first is exact; e^r by the polynomial that interpolates at Chebyshev nodes and is
// exactly 1 at r = 0. The last step multiplies, so that NaN stays NaN.

ASYCMST_INLINE VFloat exp_nonpositive(VFloat x) {
    using Bits = Vec<float>::bits;
    constexpr float lowest = -87.3365f;
    const VFloat magic = splat(0x1.8p23f);
    const VFloat clamped = x < lowest ? splat(lowest) : x;
    const VFloat shifted = clamped * static_cast<float>(kLog2E) + magic;
    const VFloat n = shifted - magic;
    VFloat r = clamped - n * 0.693359375f;
    r -= n * -2.121944401e-04f;
    VFloat p = splat(1.393364103e-03f);
    p = p * r + 8.369148492e-03f;
    p = p * r + 4.166646501e-02f;
    p = p * r + 1.666650526e-01f;
    p = p * r + 5.000000013e-01f;
    p = p * r + 1.000000011e+00f;
    p = p * r + 1.0f;
    const Bits power = (bit_cast<Bits>(shifted) - (0x4b400000u - 127u)) << 23;
    return x < lowest ? VFloat{} : p * bit_cast<VFloat>(power);
}

ASYCMST_INLINE VDouble exp_nonpositive(VDouble x) {
    using Bits = Vec<double>::bits;
    constexpr double lowest = -708.396;
    const VDouble magic = splat(0x1.8p52);
    const VDouble clamped = x < lowest ? splat(lowest) : x;
    const VDouble shifted = clamped * kLog2E + magic;
    const VDouble n = shifted - magic;
    VDouble r = clamped - n * 0x1.62e42fee00p-1;
    r -= n * 1.90821492927058770e-10;
    VDouble p = splat(2.09181294549670730e-09);
    p = p * r + 2.51100376059637869e-08;
    p = p * r + 2.75572633014747632e-07;
    p = p * r + 2.75572409185789781e-06;
    p = p * r + 2.48015873364213282e-05;
    p = p * r + 1.98412698900471185e-04;
    p = p * r + 1.38888888888790861e-03;
    p = p * r + 8.33333333331960288e-03;
    p = p * r + 4.16666666666666852e-02;
    p = p * r + 1.66666666666666824e-01;
    p = p * r + 5.00000000000000111e-01;
    p = p * r + 1.00000000000000000e+00;
    p = p * r + 1.0;
    const Bits power = (bit_cast<Bits>(shifted) - (0x4338000000000000u - 1023u)) << 52;
    return x < lowest ? VDouble{} : p * bit_cast<VDouble>(power);
}

}  // namespace
}  // namespace asycmst
