// The convolution and its two gradients, the first rung of the ladder: one thread for each element of the result.
//
//   y [n, p, q, k] = sum over r, s, c   of  x[n, p stride - top + r, q stride - left + s, c]  w[r, s, c, k]
//   dx[n, h, w, c] = sum over r, s, k   of  dy[n, p, q, k]  w[r, s, c, k]  where p stride - top + r = h; q likewise
//   dw[r, s, c, k] = sum over n, p, q   of  x[n, p stride - top + r, q stride - left + s, c]  dy[n, p, q, k]
//
// x (N, H, W, C), w (R, S, C, K), y (N, P, Q, K). Any sizes, any stride. -DREAL=double makes everything float64, for
// gradient checks. This file also computes what the faster kernels do not take.
//
// Neighbouring threads compute neighbouring channels of the result. They read the same elements of x and contiguous
// elements of w, in one transaction for the whole warp. There is no other optimization: each element of x is read R S K
// times and each element of w N P Q times, from the caches at best, so each multiplication waits for two loads. The
// next rung, conv_tiled.cu, improves on that.
#include "convolution.cuh"

#ifndef REAL
#define REAL float
#endif

// The element of the result that this thread computes.
__device__ __forceinline__ long long thread_index() { return (long long)blockIdx.x * blockDim.x + threadIdx.x; }

// y = prelu(convolution + bias) + shortcut. bias (K), slope (K) and shortcut (N, P, Q, K) may each be null.
extern "C" __global__ void conv_forward(const REAL *__restrict__ x, const REAL *__restrict__ w,
                                        const REAL *__restrict__ bias, const REAL *__restrict__ slope,
                                        const REAL *shortcut, REAL *y, Geometry g) {
  long long i = thread_index();
  if (i >= (long long)g.N * g.P * g.Q * g.K) return;
  int k = i % g.K, q = i / g.K % g.Q, p = i / g.K / g.Q % g.P, n = i / g.K / g.Q / g.P;
  REAL sum = 0;
  for (int r = 0; r < g.R; r++)
    for (int s = 0; s < g.S; s++) {
      int row = p * g.stride - g.top + r, column = q * g.stride - g.left + s;
      if (row < 0 || row >= g.H || column < 0 || column >= g.W) continue;
      const REAL *pixel = x + (((long long)n * g.H + row) * g.W + column) * g.C;
      const REAL *tap = w + (long long)(r * g.S + s) * g.C * g.K + k;
      for (int c = 0; c < g.C; c++) sum += pixel[c] * tap[(long long)c * g.K];
    }
  y[i] = Epilogue<REAL>{bias, slope, shortcut}(sum, i, k);
}

// dx + shortcut; the shortcut may be null. A pixel of x contributes to the outputs whose windows contain it. Tap r
// connects it to one of them only where h + top - r is a multiple of the stride.
extern "C" __global__ void conv_grad_input(const REAL *__restrict__ dy, const REAL *__restrict__ w,
                                           const REAL *shortcut, REAL *dx, Geometry g) {
  long long i = thread_index();
  if (i >= (long long)g.N * g.H * g.W * g.C) return;
  int c = i % g.C, column = i / g.C % g.W, row = i / g.C / g.W % g.H, n = i / g.C / g.W / g.H;
  REAL sum = 0;
  for (int r = 0; r < g.R; r++)
    for (int s = 0; s < g.S; s++) {
      int down = row + g.top - r, right = column + g.left - s;  // p and q times the stride
      if (down < 0 || right < 0 || down % g.stride || right % g.stride) continue;
      int p = down / g.stride, q = right / g.stride;
      if (p >= g.P || q >= g.Q) continue;
      const REAL *pixel = dy + (((long long)n * g.P + p) * g.Q + q) * g.K;
      const REAL *tap = w + ((long long)(r * g.S + s) * g.C + c) * g.K;
      for (int k = 0; k < g.K; k++) sum += pixel[k] * tap[k];
    }
  dx[i] = Epilogue<REAL>{nullptr, nullptr, shortcut}(sum, i, c);
}

// w_grad += dw and, unless it is null, b_grad (K) += the sums of dy. Without b_grad, one thread for each element of
// w_grad; else K more.
extern "C" __global__ void conv_grad_weight(const REAL *__restrict__ x, const REAL *__restrict__ dy, REAL *w_grad,
                                            REAL *b_grad, Geometry g) {
  long long i = thread_index(), weights = (long long)g.R * g.S * g.C * g.K;
  REAL sum = 0;
  if (i >= weights) {
    int k = i - weights;
    if (!b_grad || k >= g.K) return;
    for (long long pixel = 0; pixel < (long long)g.N * g.P * g.Q; pixel++) sum += dy[pixel * g.K + k];
    b_grad[k] += sum;
    return;
  }
  int k = i % g.K, c = i / g.K % g.C, s = i / g.K / g.C % g.S, r = i / g.K / g.C / g.S;
  for (int n = 0; n < g.N; n++)
    for (int p = 0; p < g.P; p++)
      for (int q = 0; q < g.Q; q++) {
        int row = p * g.stride - g.top + r, column = q * g.stride - g.left + s;
        if (row < 0 || row >= g.H || column < 0 || column >= g.W) continue;
        long long inner = ((long long)n * g.H + row) * g.W + column, outer = ((long long)n * g.P + p) * g.Q + q;
        sum += x[inner * g.C + c] * dy[outer * g.K + k];
      }
  w_grad[i] += sum;
}
