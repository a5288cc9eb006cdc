// A convolution with few outputs, as the last layer's 9x9 to three colours, on the tensor cores: what comes before and
// after conv_tf32.cu. conv_reference.cu has the formulas and the shapes.
//
// conv_tf32.cu computes 32 columns of a matrix product at a time; three outputs would waste 29 of them. But a pixel of
// the image has S x K products with the columns of a line of the filter, one for each output whose window it is in:
//
//   t[n, p, w, s, k] = sum over r, c  of  x[n, p - top + r, w, c] * w[r, s, c, k]
//   y[n, p, q, k]    = epilogue of  sum over s  of  t[n, p, q - left + s, s, k]
//
// The first line is a convolution with an R x 1 filter and S * K outputs, 27 for 9x9 to three. fold_filter orders its
// weights, conv_tf32.cu computes t, and add_columns computes y. The multiplications are the same, of which 27 in 32
// columns are of use, and a pixel is loaded R times instead of R * S times.
//
// The gradients are those of the two lines, the second first:
//
//   dt[n, p, w, s, k] = dy[n, p, w + left - s, k]
//
// spread_columns computes it, conv_tf32.cu the gradients of the R x 1 convolution, of which that of x is dx, and
// unfold_gradients orders that of the weights.
//
// folded (R, 1, C, L) and t (N, P, W, L), where the L columns are the S * K, then zeros. With stride 1,
// P = H and Q = W.
#include "convolution.cuh"

// One thread for each element of folded.
extern "C" __global__ void fold_filter(const float *__restrict__ w, float *__restrict__ folded, int L, Geometry g) {
  int i = blockIdx.x * blockDim.x + threadIdx.x;
  if (i >= g.R * g.C * L) return;
  int s = i % L / g.K, k = i % L % g.K, c = i / L % g.C, r = i / L / g.C;
  folded[i] = s < g.S ? w[((r * g.S + s) * g.C + c) * g.K + k] : 0;
}

// One thread for each element of y.
extern "C" __global__ void add_columns(const float *__restrict__ t, const float *__restrict__ bias,
                                       const float *__restrict__ slope, const float *shortcut, float *y, int L,
                                       Geometry g) {
  long long i = (long long)blockIdx.x * blockDim.x + threadIdx.x;
  if (i >= (long long)g.N * g.P * g.Q * g.K) return;
  int k = i % g.K, q = i / g.K % g.Q;
  long long line = i / g.K / g.Q * g.W;  // the pixels of t before this line
  float sum = 0;
  for (int s = 0; s < g.S; s++) {
    int column = q - g.left + s;
    if (column >= 0 && column < g.W) sum += t[(line + column) * L + s * g.K + k];
  }
  y[i] = Epilogue<float>{bias, slope, shortcut}(sum, i, k);
}

// One thread for each element of dt: threadIdx.x is the column, threadIdx.y the pixel.
extern "C" __global__ void spread_columns(const float *__restrict__ dy, float *__restrict__ dt, int L, Geometry g) {
  int pixel = blockIdx.x * blockDim.y + threadIdx.y;
  if (pixel >= g.N * g.P * g.W) return;
  int s = threadIdx.x / g.K, k = threadIdx.x % g.K, shift = g.left - s, q = pixel % g.W + shift;
  bool inside = s < g.S && q >= 0 && q < g.Q;
  dt[(long long)pixel * L + threadIdx.x] = inside ? dy[(long long)(pixel + shift) * g.K + k] : 0;
}

// w_grad += the gradient of the weights, b_grad += that of the biases: the sums of dt's columns with s = left, which
// are all of dy. One thread for each element of w_grad, then K more.
extern "C" __global__ void unfold_gradients(const float *__restrict__ dfolded, const float *__restrict__ column_sums,
                                            float *w_grad, float *b_grad, int L, Geometry g) {
  int i = blockIdx.x * blockDim.x + threadIdx.x, k = i % g.K, weights = g.R * g.S * g.C * g.K;
  if (i >= weights + g.K) return;
  if (i >= weights) {
    b_grad[k] += column_sums[g.left * g.K + k];
    return;
  }
  int c = i / g.K % g.C, s = i / g.K / g.C % g.S, r = i / g.K / g.C / g.S;
  w_grad[i] += dfolded[(r * g.C + c) * L + s * g.K + k];
}
