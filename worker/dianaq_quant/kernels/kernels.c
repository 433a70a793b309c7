/* Quantisation in one pass over memory, for dense float32 tensors on the CPU.
 *
 * Written as several tensor operations, each of these reads and writes every value five to ten times, which is what
 * makes quantisation-aware training slow. Nothing here differs from those operations in any bit (build.py compiles
 * without contracted multiply-adds); sums over a batch are taken in double precision, in an order that depends on the
 * number of threads alone.
 */
#include <math.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

/* Values that one thread takes at a time: 16 KB of each array, so that what it reads and writes stays in its L1 cache,
 * and calls too small to be worth a second thread remain with one. */
enum { BLOCK = 4096 };

static inline float clip(float x, float lo, float hi) { return x < lo ? lo : (x > hi ? hi : x); }

/* A mask has a bit for each value, an eighth of a byte where the activation itself is four. Eight flags of a byte each
 * become one byte by a multiplication that moves every flag to a bit of its own in the topmost byte, and come back by
 * another one that copies the byte eight times, of which one bit each is left. */
#if __BYTE_ORDER__ != __ORDER_LITTLE_ENDIAN__
#error "the flags of a mask would come back in another order"
#endif

static void pack(const uint8_t *restrict flags, uint8_t *restrict bits, int64_t n) {
    for (int64_t i = 0; i < n; i += 8) {
        uint64_t eight;
        memcpy(&eight, flags + i, 8);
        bits[i / 8] = (uint8_t)(eight * UINT64_C(0x0102040810204080) >> 56);
    }
}

static void unpack(const uint8_t *restrict bits, uint8_t *restrict flags, int64_t n) {
    for (int64_t i = 0; i < n; i += 8) {
        const uint64_t eight = bits[i / 8] * UINT64_C(0x0101010101010101) & UINT64_C(0x8040201008040201);
        memcpy(flags + i, &eight, 8);
    }
}

/* y = clip(floor((x [+ other]) / divisor + addend), lo, hi) * factor, over n values.
 * inside: a bit for each, 1 where nothing was clipped; other and inside may be NULL. */
void quantise(const float *restrict x, const float *restrict other, float *restrict y, uint8_t *restrict inside,
              int64_t n, float divisor, float addend, float lo, float hi, float factor) {
#pragma omp parallel for schedule(static) if (n > BLOCK)
    for (int64_t start = 0; start < n; start += BLOCK) {
        uint8_t flags[BLOCK];
        const int64_t count = start + BLOCK < n ? BLOCK : n - start;
        for (int64_t i = 0; i < count; i++) {
            const float value = other ? x[start + i] + other[start + i] : x[start + i];
            const float rounded = floorf(value / divisor + addend);
            const float clipped = clip(rounded, lo, hi);
            y[start + i] = clipped * factor;
            flags[i] = clipped == rounded;
        }
        if (!inside) continue;
        memset(flags + count, 0, (size_t)(-count & 7));
        pack(flags, inside + start / 8, count);
    }
}

/* out = inside ? gradient * factor : 0, over n values; inside as above. */
void pass_inside(const float *restrict gradient, const uint8_t *restrict inside, float *restrict out, int64_t n,
                 float factor) {
#pragma omp parallel for schedule(static) if (n > BLOCK)
    for (int64_t start = 0; start < n; start += BLOCK) {
        uint8_t flags[BLOCK];
        const int64_t count = start + BLOCK < n ? BLOCK : n - start;
        unpack(inside + start / 8, flags, count);
        for (int64_t i = 0; i < count; i++) out[start + i] = flags[i] ? gradient[start + i] * factor : 0.0f;
    }
}

/* What is kept of a conversion for its gradient: six bits of the converter's result (plus 32), and two flags. */
enum { RESULT = 0x3f, OFFSET = 32, CONVERTED = 0x40, REQUANTISED = 0x80 };

/* Values per channel are laid out for a tile of whole rows, about this many values: one loop over the tile is then
 * free of the number of channels, and as fast for 16 of them as for 512. */
enum { TILE = 256 };

static int64_t tile_of(int64_t channels) { return channels * ((TILE + channels - 1) / channels); }

static float *repeat(float *to, const float *values, int64_t channels, int64_t tile) {
    for (int64_t i = 0; i < tile; i++) to[i] = values[i % channels];
    return to;
}

typedef struct {
    const float *slope, *offset, *gain, *error;
    float lo, hi, divisor, out_lo, out_hi, sigma;
} Column;

static inline __attribute__((always_inline)) void convert_tile(const float *restrict v, const float *restrict noise,
                                                               float *restrict y, uint8_t *restrict code, int64_t n,
                                                               Column by, int requantise) {
    const float *restrict slope = by.slope, *restrict offset = by.offset;
    const float *restrict gain = by.gain, *restrict error = by.error;
    for (int64_t i = 0; i < n; i++) {
        float value = v[i];
        if (noise) value = (value * gain[i] + error[i]) + by.sigma * noise[i];
        const float rounded = floorf(value);
        const float a = clip(rounded, by.lo, by.hi);
        float result = offset[i] + a * slope[i];
        int flags = a == rounded ? CONVERTED : 0;
        if (requantise) {
            const float shifted = floorf(result / by.divisor);
            result = clip(shifted, by.out_lo, by.out_hi);
            flags |= result == shifted ? REQUANTISED : 0;
        }
        y[i] = result;
        code[i] = (uint8_t)(((int)a + OFFSET) | flags);
    }
}

/* The analog core's converter and what follows it, over rows x channels values, channels innermost:
 * a = clip(floor(v), lo, hi), y = offset[c] + a * slope[c], and with a positive divisor clip(floor(y / divisor)).
 * With a pool, v is disturbed before: v * gain[c] + error[c] + sigma * pool[first + its place]. The pool has `size`
 * values (a power of two) and, behind them, its first ones again, a tile's worth at least. code: see above.
 * Returns 0, or 1 without memory. */
int convert(const float *restrict v, float *restrict y, uint8_t *restrict code, int64_t rows, int64_t channels,
            const float *slope, const float *offset, float lo, float hi, float divisor, float out_lo, float out_hi,
            const float *restrict pool, int64_t size, int64_t first, float sigma, const float *gain,
            const float *error) {
    const int64_t n = rows * channels, tile = tile_of(channels);
    float *repeated = malloc((size_t)tile * 4 * sizeof(float));
    if (!repeated) return 1;
    Column by = {0, 0, 0, 0, lo, hi, divisor, out_lo, out_hi, sigma};
    by.slope = repeat(repeated, slope, channels, tile);
    by.offset = repeat(repeated + tile, offset, channels, tile);
    if (pool) {
        by.gain = repeat(repeated + 2 * tile, gain, channels, tile);
        by.error = repeat(repeated + 3 * tile, error, channels, tile);
    }
#pragma omp parallel for schedule(static) if (n > BLOCK)
    for (int64_t at = 0; at < n; at += tile) {
        const int64_t count = at + tile < n ? tile : n - at;
        const float *noise = pool ? pool + ((first + at) & (size - 1)) : 0;
        if (noise && divisor > 0) convert_tile(v + at, noise, y + at, code + at, count, by, 1);
        else if (noise) convert_tile(v + at, noise, y + at, code + at, count, by, 0);
        else if (divisor > 0) convert_tile(v + at, 0, y + at, code + at, count, by, 1);
        else convert_tile(v + at, 0, y + at, code + at, count, by, 0);
    }
    free(repeated);
    return 0;
}

/* The gradients of `convert`: of v (rows x channels), and of slope and offset (sums over rows, in double precision).
 * passing: factor on the gradient of v per channel, beside the divisor's.
 * threads: how many partial sums there are, which decides the order of addition. Returns 0, or 1 without memory. */
int convert_backward(const float *restrict gradient, const uint8_t *restrict code, float *restrict out, int64_t rows,
                     int64_t channels, const float *passing, float divisor, double *slope_sum,
                     double *offset_sum, int threads) {
    const int64_t n = rows * channels, tile = tile_of(channels), tiles = (n + tile - 1) / tile;
    float *repeated = malloc((size_t)tile * sizeof(float));
    double *partial = calloc((size_t)threads * 2 * (size_t)tile, sizeof(double));
    if (!repeated || !partial) {
        free(repeated);
        free(partial);
        return 1;
    }
    repeat(repeated, passing, channels, tile);
    const float factor = divisor > 0 ? 1.0f / divisor : 1.0f;
    const int needed = divisor > 0 ? REQUANTISED : 0;
#pragma omp parallel for schedule(static) if (n > BLOCK)
    for (int part = 0; part < threads; part++) {
        double *restrict slopes = partial + (size_t)part * 2 * (size_t)tile, *restrict offsets = slopes + tile;
        for (int64_t at = tiles * part / threads * tile; at < tiles * (part + 1) / threads * tile; at += tile) {
            const int64_t count = at + tile < n ? tile : n - at;
            for (int64_t i = 0; i < count; i++) {
                const int bits = code[at + i];
                const float passed = (bits & needed) == needed ? gradient[at + i] * factor : 0.0f;
                offsets[i] += passed;
                slopes[i] += passed * (float)((bits & RESULT) - OFFSET);
                out[at + i] = bits & CONVERTED ? passed * repeated[i] : 0.0f;
            }
        }
    }
    for (int64_t c = 0; c < channels; c++) slope_sum[c] = offset_sum[c] = 0.0;
    for (int part = 0; part < threads; part++) {
        const double *slopes = partial + (size_t)part * 2 * (size_t)tile, *offsets = slopes + tile;
        for (int64_t i = 0; i < tile; i++) {
            slope_sum[i % channels] += slopes[i];
            offset_sum[i % channels] += offsets[i];
        }
    }
    free(repeated);
    free(partial);
    return 0;
}
