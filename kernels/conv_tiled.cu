// The convolution and its two gradients in float32, the second rung of the ladder: matrix products from tiles in shared
// memory.
//
// Each of the three (formulas: conv_reference.cu) is a matrix product, left (rows, depth) times right (depth, columns):
//
//                 rows               depth            columns   left                      right
//   y             pixels n, p, q     taps r, s, c     k         windows of x              w
//   dx            pixels n, h, w     taps r, s, k     c         windows of dy             w, c and k exchanged
//   dw            taps r, s, c       pixels n, p, q   k         windows of x, transposed  dy
//
// The left matrices are never stored. A thread that loads one of their elements computes where it lies in the image, or
// that it lies in the padding and is zero (an implicit matrix product). The first rung hardly reuses what it loads.
// Here:
//
// - A thread block computes a tile of the result, ROWS x COLUMNS. It walks along the depth in slices of DEPTH. It loads
//   each slice of both matrices into shared memory once, for all of its threads.
// - A thread computes THREAD_ROWS x THREAD_COLUMNS elements of it, in registers. For 8 + 8 values read from shared
//   memory it does 64 multiplications, so the arithmetic takes longer than the reads.
// - Shared memory holds two slices. While one is multiplied, the next one is loaded, first into registers and then into
//   the other slice. The loads take hundreds of cycles, in which the multiplications go on. A slice needs one barrier.
//
// A result of few tiles would leave most of a GPU idle. The depth is then split among thread blocks as well: block z
// sums part z. For y and dx the last block of a tile adds the parts (conv_parts.cuh), for dw conv_add_parts.cu does;
// both in a fixed order, so that results repeat exactly.
//
// Any sizes, any stride. VECTOR_LEFT is 4 where four elements of the left matrix can be loaded at once: the channels of
// its image are a multiple of 4 and the array starts at a multiple of 16 bytes. Otherwise it is 1. VECTOR_RIGHT and
// VECTOR_RESULT are defined likewise. SPLIT is 0 where y or dx is in one part, which leaves more registers. The sizes
// of the tiles: TILES in tinysrgan/ops/cuda/conv_tiled.py.
#ifndef ROWS
#define ROWS 128
#define COLUMNS 128
#define DEPTH 8
#define THREAD_ROWS 8
#define THREAD_COLUMNS 8
#endif
#ifndef VECTOR_LEFT
#define VECTOR_LEFT 4
#define VECTOR_RIGHT 4
#define VECTOR_RESULT 4
#define SPLIT 1
#endif

constexpr int ACROSS = COLUMNS / THREAD_COLUMNS, DOWN = ROWS / THREAD_ROWS, THREADS = ACROSS * DOWN;

#include "convolution.cuh"
#include "conv_tiled_load.cuh"
#include "conv_tiled_product.cuh"
#include "conv_parts.cuh"

// Blocks: tiles of rows, tiles of columns, parts of the depth.
extern "C" __global__ void __launch_bounds__(THREADS, 1)
conv_forward(const float *__restrict__ x, const float *__restrict__ w, const float *__restrict__ bias,
             const float *__restrict__ slope, const float *shortcut, float *y, float4 *parts, unsigned *tickets,
             Geometry g) {
  int rows = g.N * g.P * g.Q, depth = g.R * g.S * g.C;
  Part part((depth + DEPTH - 1) / DEPTH, blockIdx.z, gridDim.z);

  using Left = Windows<1>;
  Left left(x, g.H, g.W, Tap(part.first * DEPTH + Left::depth(), g.R, g.S, g.C));
#pragma unroll
  for (int i = 0; i < Left::COUNT; i++) {
    int row = blockIdx.x * ROWS + Left::line(i), q = row % g.Q, p = row / g.Q % g.P, n = row / g.Q / g.P;
    left.set_window(i, Left::line(i) < ROWS && row < rows, n, p * g.stride - g.top, q * g.stride - g.left);
  }
  Matrix right(w, part.first * DEPTH, depth, g.K);

  Sums sums = {};
  product(part.count, left, right, sums);
  if (SPLIT && !sum_parts<SUMS>(sums[0], 1, parts, tickets)) return;
#pragma unroll
  for (int i = 0; i < THREAD_ROWS; i++) {
    int row = blockIdx.x * ROWS + row_in_tile(i);
    if (row < rows) write<VECTOR_RESULT>(y, sums[i], row, g.K, {bias, slope, shortcut});
  }
}

// dx + shortcut; the shortcut may be null. Blocks: tiles of the rows of the largest phase, tiles of columns, parts of
// the depth for each of the stride x stride phases.
extern "C" __global__ void __launch_bounds__(THREADS, 1)
conv_grad_input(const float *__restrict__ dy, const float *__restrict__ w, const float *shortcut, float *dx,
                float4 *parts, unsigned *tickets, Geometry g) {
  int phases = g.stride * g.stride, phase = blockIdx.z % phases;
  Phase down(g.H, g.R, g.top, g.stride, phase / g.stride), right(g.W, g.S, g.left, g.stride, phase % g.stride);
  int rows = g.N * down.pixels * right.pixels;
  if ((int)blockIdx.x * ROWS >= rows) return;
  int depth = down.taps * right.taps * g.K;
  Part part((depth + DEPTH - 1) / DEPTH, blockIdx.z / phases, gridDim.z / phases);

  using Left = Windows<-1>;
  Left left(dy, g.P, g.Q, Tap(part.first * DEPTH + Left::depth(), down.taps, right.taps, g.K));
#pragma unroll
  for (int i = 0; i < Left::COUNT; i++) {
    int row = blockIdx.x * ROWS + Left::line(i);
    int q = row % right.pixels, p = row / right.pixels % down.pixels, n = row / right.pixels / down.pixels;
    left.set_window(i, Left::line(i) < ROWS && row < rows, n, down.first + p, right.first + q);
  }
  TransposedFilter weights(w, left.tap, phase / g.stride, phase % g.stride, g);

  Sums sums = {};
  product(part.count, left, weights, sums);
  if (SPLIT && !sum_parts<SUMS>(sums[0], phases, parts, tickets)) return;
#pragma unroll
  for (int i = 0; i < THREAD_ROWS; i++) {
    int row = blockIdx.x * ROWS + row_in_tile(i);
    if (row >= rows) continue;
    int column = right.pixel(row % right.pixels), n = row / right.pixels / down.pixels;
    long long line = (long long)n * g.H + down.pixel(row / right.pixels % down.pixels);
    write<VECTOR_RESULT>(dx, sums[i], line * g.W + column, g.C, {nullptr, nullptr, shortcut});
  }
}

// dw and, unless it is null, db (K), the sums of dy, which the blocks of the first tile of rows compute. Blocks: tiles
// of rows, tiles of columns, parts of the depth. With a `stride` of 0, the only part is added to what is there; else each
// is written `stride` elements after the one before, and conv_add_parts.cu adds them.
extern "C" __global__ void __launch_bounds__(THREADS, 1)
conv_grad_weight(const float *__restrict__ x, const float *__restrict__ dy, float *dw, float *db, long long stride,
                 Geometry g) {
  int rows = g.R * g.S * g.C, depth = g.N * g.P * g.Q;
  Part part((depth + DEPTH - 1) / DEPTH, blockIdx.z, gridDim.z);
  TransposedWindows left(x, part.first * DEPTH, g);
  Matrix right(dy, part.first * DEPTH, depth, g.K);

  Sums sums = {};
  float column_sum = 0;
  bool of_columns = db && blockIdx.x == 0 && threadIdx.x < COLUMNS;
  product(part.count, left, right, sums, [&](const Slice &slice) {
    float sum = 0;  // of the slice alone: short sums are more precise than a long one
    for (int depth = 0; of_columns && depth < DEPTH; depth++) sum += slice.right[depth][threadIdx.x];
    column_sum += sum;
  });
  bool add = stride == 0;
  float *result = dw + blockIdx.z * stride;
#pragma unroll
  for (int i = 0; i < THREAD_ROWS; i++) {
    int row = blockIdx.x * ROWS + row_in_tile(i);
    if (row < rows) write<VECTOR_RESULT>(result, sums[i], row, g.K, {nullptr, nullptr, add ? result : nullptr});
  }
  int column = blockIdx.y * COLUMNS + threadIdx.x;
  if (of_columns && column < g.K) {
    float *sum = db + blockIdx.z * stride + column;
    *sum = add ? *sum + column_sum : column_sum;
  }
}
