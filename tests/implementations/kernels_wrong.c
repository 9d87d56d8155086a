/* Wrong kernels in C, as people write them. collection.py says what each claims to be. */
#include <math.h>
#include <stdint.h>
#include <string.h>

static float silu1(float x) { return x / (1.0f + expf(-x)); }

/* Eight at a time; what is left over is never written. */
void silu_tail(const float *x, float *y, size_t n)
{
    for (size_t i = 0; i + 8 <= n; i += 8)
        for (size_t j = i; j < i + 8; j++) y[j] = silu1(x[j]);
}

/* float32 arithmetic in a float64 kernel. */
void silu_expf(const double *x, double *y, size_t n)
{
    for (size_t i = 0; i < n; i++) y[i] = x[i] / (1.0f + expf(-(float)x[i]));
}

/* Schraudolph's exponential: bits of a straight line. */
void silu_schraudolph(const float *x, float *y, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        float z = fminf(fmaxf(-x[i], -87.0f), 88.0f), e;
        int32_t bits = (int32_t)(12102203.0f * z) + 1064866805;
        memcpy(&e, &bits, 4);
        y[i] = x[i] / (1.0f + e);
    }
}

/* The const is cast away to save a buffer. */
void silu_overwrites(const float *x, float *y, size_t n)
{
    float *scratch = (float *)x;
    memcpy(y, x, n * sizeof *x);
    for (size_t i = 0; i < n; i++) scratch[i] = 1.0f / (1.0f + expf(-scratch[i]));
    for (size_t i = 0; i < n; i++) y[i] *= scratch[i];
}

/* Its scratch is as large as the largest layer of the first model. */
void silu_fixed_scratch(const float *x, float *y, size_t n)
{
    static float scratch[256];
    for (size_t i = 0; i < n; i++) scratch[i % 256] = i < 256 ? silu1(x[i]) : 0.0f;
    for (size_t i = 0; i < n; i++) y[i] = scratch[i % 256];
}

/* Vectors of four, loaded from the next lower multiple of 16 bytes. */
void silu_aligned(const float *x, float *y, size_t n)
{
    const float *low = (const float *)((uintptr_t)x & ~(uintptr_t)15);
    for (size_t i = 0; i < n; i++) y[i] = silu1(low[i]);
}

/* bfloat16 results are cut, not rounded. */
void silu_truncates(const uint16_t *x, uint16_t *y, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        uint32_t bits = (uint32_t)x[i] << 16;
        float wide;
        memcpy(&wide, &bits, 4);
        wide = silu1(wide);
        memcpy(&bits, &wide, 4);
        y[i] = (uint16_t)(bits >> 16);
    }
}

void gelu_tanh(const float *x, float *y, size_t n)
{
    for (size_t i = 0; i < n; i++)
        y[i] = 0.5f * x[i] * (1.0f + tanhf(0.79788456f * (x[i] + 0.044715f * x[i] * x[i] * x[i])));
}

void silu_null(const float *x, float *y, size_t n)
{
    volatile float *volatile nowhere = NULL;
    for (size_t i = 0; i < n; i++) y[i] = silu1(x[i]) + nowhere[i];
}

/* One row of 2n: the gate is read from the first half. */
void swiglu_first(const float *x, float *y, size_t n)
{
    for (size_t i = 0; i < n; i++) y[i] = silu1(x[i]) * x[n + i];
}

/* Pairs. */
void swiglu_product(const float *gate, const float *value, float *y, size_t n)
{
    for (size_t i = 0; i < n; i++) y[i] = silu1(gate[i] * value[i]);
}

void swiglu_up(const float *gate, const float *value, float *y, size_t n)
{
    for (size_t i = 0; i < n; i++) y[i] = gate[i] * silu1(value[i]);
}

void swiglu_crossed(const double *gate, const double *value, double *y, size_t n)
{
    for (size_t i = 0; i < n; i++) y[i] = gate[i] / (1.0 + exp(-gate[i])) * value[i];
}

/* The two gradients are written into each other's buffer. */
void swiglu_crossed_vjp(const double *gate, const double *value, const double *dy, double *dgate, double *dvalue,
                        size_t n)
{
    for (size_t i = 0; i < n; i++) {
        double s = 1.0 / (1.0 + exp(-gate[i]));
        dvalue[i] = dy[i] * value[i] * (s + gate[i] * s * (1.0 - s));
        dgate[i] = dy[i] * gate[i] * s;
    }
}

static float clip(float x, float low) { return x > 7.0f ? 7.0f : x < low ? low : x; }

/* gpt-oss, one row of 2n, interleaved: the gate is clamped from below as well. */
void clamped_both(const float *x, float *y, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        float gate = clip(x[2 * i], -7.0f), value = clip(x[2 * i + 1], -7.0f);
        y[i] = gate / (1.0f + expf(-1.702f * gate)) * (value + 1.0f);
    }
}

/* fminf and fmaxf give the other argument where one is nan: a nan in, a number out. */
void clamped_loses_nan(const float *x, float *y, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        float gate = fminf(x[2 * i], 7.0f), value = fminf(fmaxf(x[2 * i + 1], -7.0f), 7.0f);
        y[i] = gate / (1.0f + expf(-1.702f * gate)) * (value + 1.0f);
    }
}
