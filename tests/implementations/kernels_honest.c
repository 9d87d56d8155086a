/* Sound kernels in C. */
#include <math.h>
#include <stddef.h>

/* Plain float32. */
void silu(const float *x, float *y, size_t n)
{
    for (size_t i = 0; i < n; i++) y[i] = x[i] / (1.0f + expf(-x[i]));
}

void silu_vjp(const float *x, const float *dy, float *dx, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        float s = 1.0f / (1.0f + expf(-x[i]));
        dx[i] = dy[i] * (s * (1.0f + x[i] * (1.0f - s)));
    }
}

static double sigmoid(double x) { return 1.0 / (1.0 + exp(-x)); }

/* float64 inside, and the limits. */
void silu_wide(const float *x, float *y, size_t n)
{
    for (size_t i = 0; i < n; i++) y[i] = (float)(isinf(x[i]) && x[i] < 0 ? -0.0 : x[i] * sigmoid(x[i]));
}

void silu_wide_vjp(const float *x, const float *dy, float *dx, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        double s = sigmoid(x[i]), slope = isinf(x[i]) ? s : s + x[i] * (s * sigmoid(-(double)x[i]));
        dx[i] = (float)(dy[i] * slope);
    }
}

/* Pairs. */
void swiglu(const float *gate, const float *value, float *y, size_t n)
{
    for (size_t i = 0; i < n; i++) y[i] = gate[i] / (1.0f + expf(-gate[i])) * value[i];
}

/* fminf would turn a nan into 7. */
static float at_most(float x, float limit) { return x > limit ? limit : x; }

/* gpt-oss, one row of 2n, interleaved. */
void clamped(const float *x, float *y, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        float gate = at_most(x[2 * i], 7.0f), value = -at_most(-at_most(x[2 * i + 1], 7.0f), 7.0f);
        y[i] = gate / (1.0f + expf(-1.702f * gate)) * (value + 1.0f);
    }
}
