// The convolution and its two gradients on the tensor cores, the third rung of the ladder. conv_reference.cu has the
// formulas. conv_tiled.cu describes the matrix products, left (rows, depth) times right (depth, columns), and the
// matrices of windows that are never stored. There, a thread does single multiplications, and its part of a slice of
// the depth gets from global to shared memory through its registers. Here:
//
// - A warp multiplies 16 x 8 by 8 x 8 elements in one instruction (multiply_add). The tensor cores read 10 bits of the
//   mantissa, so every factor is rounded to those (to_tf32); sums are float32. The instruction prescribes which lane
//   holds which element. Only multiply() and write() depend on that.
// - Slices are copied to shared memory asynchronously (copy_16), 16 bytes at a time, with zeros for what lies outside
//   the image. Shared memory holds STAGES slices: one is multiplied while STAGES - 1 are in flight. Copies in flight
//   need no registers.
// - A thread block computes ROWS x COLUMNS elements of the result, and each of its four warps WARP_ROWS x WARP_COLUMNS.
//   For 64 + 32 values that a warp reads, it does 64 * 32 multiplications. Results of few columns have blocks of half
//   the width, whose warps do 32 * 32.
// - A result of few tiles would leave most of a GPU idle. Its depth is then split among thread blocks
//   (conv_parts.cuh for y and dx).
//
// C and K are multiples of 32 (K of 4 is enough for the forward pass), R and S at most 16, and arrays start at
// multiples of 16 bytes; any stride. From sm_80 on.
#ifndef ROWS
#define ROWS 128
#define COLUMNS 64
#define DEPTH 32
#define STAGES 3
#endif

constexpr int WARPS = 4, WARP_COLUMNS = 32, ACROSS = COLUMNS / WARP_COLUMNS;
constexpr int WARP_ROWS = ROWS * ACROSS / WARPS;
constexpr int THREADS = WARPS * 32;

#include "convolution.cuh"
#include "tensor_cores.cuh"
#include "conv_tf32_load.cuh"
#include "conv_tf32_product.cuh"
#include "conv_parts.cuh"

// Blocks: tiles of rows, tiles of columns, parts of the depth.
extern "C" __global__ void __launch_bounds__(THREADS)
conv_forward(const float *__restrict__ x, const float *__restrict__ w, const float *__restrict__ bias,
             const float *__restrict__ slope, const float *__restrict__ shortcut, float *__restrict__ y, float4 *parts,
             unsigned *tickets, Geometry g) {
  int rows = g.N * g.P * g.Q, depth = g.R * g.S * g.C;
  Part part(depth / DEPTH, blockIdx.z, gridDim.z);
  using Left = Windows<1>;
  Left left(x, g.H, g.W, g.R, Tap(part.first * DEPTH, g.S, g.C));
#pragma unroll
  for (int i = 0; i < Left::COUNT; i++) {
    int row = blockIdx.x * ROWS + Left::line(i), q = row % g.Q, p = row / g.Q % g.P, n = row / g.Q / g.P;
    left.set_window(i, row < rows, n, p * g.stride - g.top, q * g.stride - g.left);
  }
  Matrix right(w, part.first * DEPTH, depth, g.K);

  Sums sums = {};
  product(part.count, left, right, sums);
  if (!sum_parts<SUMS>(&sums[0][0][0], 1, parts, tickets)) return;
  write(y, sums, rows, g.K, [](int row) { return (long long)row; }, {bias, slope, shortcut});
}

// dx + shortcut; the shortcut may be null. Blocks: tiles of the rows of the largest phase, tiles of columns, parts of
// the depth for each of the stride x stride phases.
extern "C" __global__ void __launch_bounds__(THREADS)
conv_grad_input(const float *__restrict__ dy, const float *__restrict__ w, const float *__restrict__ shortcut,
                float *__restrict__ dx, float4 *parts, unsigned *tickets, Geometry g) {
  int phases = g.stride * g.stride, phase = blockIdx.z % phases;
  int phase_r = phase / g.stride, phase_s = phase % g.stride;
  Phase down(g.H, g.R, g.top, g.stride, phase_r), right(g.W, g.S, g.left, g.stride, phase_s);
  int rows = g.N * down.pixels * right.pixels;
  if ((int)blockIdx.x * ROWS >= rows) return;

  Part part(down.taps * right.taps * g.K / DEPTH, blockIdx.z / phases, gridDim.z / phases);
  using Left = Windows<-1>;
  Left left(dy, g.P, g.Q, down.taps, Tap(part.first * DEPTH, right.taps, g.K));
#pragma unroll
  for (int i = 0; i < Left::COUNT; i++) {
    int row = blockIdx.x * ROWS + Left::line(i);
    int q = row % right.pixels, p = row / right.pixels % down.pixels, n = row / right.pixels / down.pixels;
    left.set_window(i, row < rows, n, down.first + p, right.first + q);
  }
  TransposedFilter weights(w, left.tap, phase_r, phase_s, g);

  Sums sums = {};
  product(part.count, left, weights, sums);
  if (!sum_parts<SUMS>(&sums[0][0][0], phases, parts, tickets)) return;
  auto place = [&](int row) {
    int column = right.pixel(row % right.pixels), n = row / right.pixels / down.pixels;
    return ((long long)n * g.H + down.pixel(row / right.pixels % down.pixels)) * g.W + column;
  };
  write(dx, sums, rows, g.C, place, {nullptr, nullptr, shortcut});
}

// dw and db (K), the sums of dy, which the blocks of the first tile of rows compute, in float32. Blocks: tiles of rows,
// tiles of columns, parts of the depth, since the result has too few tiles for a large GPU. With a
// `stride` of 0, the only part is added to what is there; else each is written `stride` elements after the one before,
// and conv_add_parts.cu adds them.
extern "C" __global__ void __launch_bounds__(THREADS)
conv_grad_weight(const float *__restrict__ x, const float *__restrict__ dy, float *dw, float *db, long long stride,
                 Geometry g) {
  int rows = g.R * g.S * g.C, depth = g.N * g.P * g.Q;
  Part part((depth + DEPTH - 1) / DEPTH, blockIdx.z, gridDim.z);
  TransposedWindows left(x, part.first * DEPTH, g);  // where the depth has ended, zeros are copied
  Matrix right(dy, part.first * DEPTH, depth, g.K);

  Sums sums = {};
  float column_sum = 0;
  bool of_columns = blockIdx.x == 0 && threadIdx.x < COLUMNS;
  product(part.count, left, right, sums, [&](const float *slice) {
    float sum = 0;  // of the slice alone: short sums are more precise than a long one
#pragma unroll 8
    for (int depth = 0; of_columns && depth < DEPTH; depth++) sum += slice[Matrix::at(threadIdx.x, depth)];
    column_sum += sum;
  });
  bool add = stride == 0;
  float *result = dw + blockIdx.z * stride;
  write(result, sums, rows, g.K, [](int row) { return (long long)row; }, {nullptr, nullptr, add ? result : nullptr});
  int column = blockIdx.y * COLUMNS + threadIdx.x;
  if (of_columns && column < g.K) {
    float *sum = db + blockIdx.z * stride + column;
    *sum = add ? *sum + column_sum : column_sum;
  }
}
