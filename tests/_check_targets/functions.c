#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

/* An activation: 2x. */
void twice(const float *x, float *y, size_t n) {
    for (size_t i = 0; i < n; i++) y[i] = 2 * x[i];
}
void twice_vjp(const float *x, const float *dy, float *dx, size_t n) {
    for (size_t i = 0; i < n; i++) dx[i] = 2 * dy[i];
}

/* A pair, with a function for each of two dtypes. */
void product_f32(const float *gate, const float *value, float *y, size_t n) {
    for (size_t i = 0; i < n; i++) y[i] = gate[i] * value[i];
}
void product_f64(const double *gate, const double *value, double *y, size_t n) {
    for (size_t i = 0; i < n; i++) y[i] = gate[i] * value[i];
}
void product_f32_vjp(const float *gate, const float *value, const float *dy, float *dgate, float *dvalue, size_t n) {
    for (size_t i = 0; i < n; i++) {
        dgate[i] = dy[i] * value[i];
        dvalue[i] = dy[i] * gate[i];
    }
}
void product_f64_vjp(const double *gate, const double *value, const double *dy, double *dgate, double *dvalue, size_t n) {
    for (size_t i = 0; i < n; i++) {
        dgate[i] = dy[i] * value[i];
        dvalue[i] = dy[i] * gate[i];
    }
}

/* A packed unit: value first, then gate, one row. */
void packed(const float *x, float *y, size_t n) {
    for (size_t i = 0; i < n; i++) y[i] = x[i] * x[n + i];
}
void packed_vjp(const float *x, const float *dy, float *dx, size_t n) {
    for (size_t i = 0; i < n; i++) {
        dx[i] = dy[i] * x[n + i];
        dx[n + i] = dy[i] * x[i];
    }
}

/* beta x, beta by value. */
void scaled(const float *x, float *y, size_t n, float beta) {
    for (size_t i = 0; i < n; i++) y[i] = beta * x[i];
}
void scaled_vjp(const float *x, const float *dy, float *dx, size_t n, float beta, float *dbeta) {
    *dbeta = 0;
    for (size_t i = 0; i < n; i++) {
        dx[i] = beta * dy[i];
        *dbeta += dy[i] * x[i];
    }
}

/* beta * value * gate, packed, one row. */
void packed_scaled(const float *x, float *y, size_t n, float beta) {
    for (size_t i = 0; i < n; i++) y[i] = beta * x[i] * x[n + i];
}
void packed_scaled_vjp(const float *x, const float *dy, float *dx, size_t n, float beta, float *dbeta) {
    *dbeta = 0;
    for (size_t i = 0; i < n; i++) {
        dx[i] = beta * dy[i] * x[n + i];
        dx[n + i] = beta * dy[i] * x[i];
        *dbeta += dy[i] * x[i] * x[n + i];
    }
}

/* (x W) * (x V). */
void projected(const float *x, const float *W, const float *V, float *y, size_t rows, size_t d_in, size_t d_hidden) {
    for (size_t r = 0; r < rows; r++)
        for (size_t j = 0; j < d_hidden; j++) {
            float g = 0, v = 0;
            for (size_t i = 0; i < d_in; i++) {
                g += x[r * d_in + i] * W[i * d_hidden + j];
                v += x[r * d_in + i] * V[i * d_hidden + j];
            }
            y[r * d_hidden + j] = g * v;
        }
}

/* The bits of a 16-bit type, as they are. */
void copy_f16(const uint16_t *x, uint16_t *y, size_t n) {
    for (size_t i = 0; i < n; i++) y[i] = x[i];
}
void copy_bf16(const uint16_t *x, uint16_t *y, size_t n) {
    for (size_t i = 0; i < n; i++) y[i] = x[i];
}

/* Faults. */
void past_the_end(const float *x, float *y, size_t n) {
    for (size_t i = 0; i <= n; i++) y[i] = 1;
}
void half_written(const float *x, float *y, size_t n) {
    for (size_t i = 0; i < n / 2; i++) y[i] = x[i];
}
void overwrites(float *x, float *y, size_t n) {
    for (size_t i = 0; i < n; i++) {
        y[i] = x[i];
        x[i] = 0;
    }
}
void prints(const float *x, float *y, size_t n) {
    printf("hello from C");
    twice(x, y, n);
}
