// The limits of this processor that kernels are compared with: fused multiply-adds from registers,
// products of bfloat16 pairs where the processor has them, and copies. Compiled by peak.py.
#include <cstdint>
#include <cstring>

#if defined(__AVX512BF16__)
#include <immintrin.h>
#endif

#if defined(__AVX512F__)
constexpr int kBytes = 64;
#elif defined(__AVX__)
constexpr int kBytes = 32;
#else
constexpr int kBytes = 16;
#endif

typedef float Vector __attribute__((vector_size(kBytes)));
constexpr int kLanes = kBytes / 4;
// Enough independent chains to fill two pipes of four to five cycles each.
constexpr int kChains = 12;

extern "C" {

// Runs `rounds` rounds over `memory` (at least 12 vectors of 64 bytes, so that the compiler cannot
// know that chains are alike); returns the floating-point operations done.
double fma_float32(std::int64_t rounds, float* memory) {
    Vector sum[kChains];
    std::memcpy(sum, memory, sizeof(sum));
    const Vector a = Vector{} + 0.999f;
    const Vector b = Vector{} + 1e-3f;
    for (std::int64_t i = 0; i < rounds; ++i) {
#pragma GCC unroll 12
        for (int c = 0; c < kChains; ++c) {
            sum[c] = sum[c] * a + b;
        }
    }
    std::memcpy(memory, sum, sizeof(sum));
    return 2.0 * kLanes * kChains * static_cast<double>(rounds);
}

// The same by products of bfloat16 pairs, 0 where the processor has none.
double dot_bfloat16(std::int64_t rounds, float* memory) {
#if defined(__AVX512BF16__)
    __m512 sum[kChains];
    std::memcpy(sum, memory, sizeof(sum));
    const __m512bh a = (__m512bh)_mm512_set1_epi32(0x3c003c00);
    for (std::int64_t i = 0; i < rounds; ++i) {
#pragma GCC unroll 12
        for (int c = 0; c < kChains; ++c) {
            sum[c] = _mm512_dpbf16_ps(sum[c], a, a);
        }
    }
    std::memcpy(memory, sum, sizeof(sum));
    return 2.0 * 32 * kChains * static_cast<double>(rounds);
#else
    (void)rounds;
    (void)memory;
    return 0;
#endif
}
}
