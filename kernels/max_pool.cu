// The maximum of every 2x2 cell, and its gradient.
//
//   y [n, p, q, c] = max over i, j < 2  of  x[n, 2 p + i, 2 q + j, c]
//   dx[n, h, w, c] = dy of its cell where x is the first of the cell's elements that equal y, else 0
//
// x, dx (N, H, W, C); y, dy (N, H / 2, W / 2, C). An odd last row or column has no cell: the backward pass leaves it as
// it is. -DREAL=double makes everything float64.
//
// A block processes one row of cells (n, p); threadIdx.x is the channel, threadIdx.y the cell. Neighbouring threads
// access contiguous elements.
#ifndef REAL
#define REAL float
#endif

// Indices of a block's row of cells, and of the pixels in it.
struct Cells {
  int H, W, C, c;

  __device__ Cells(int H, int W, int C) : H(H), W(W), C(C), c(blockIdx.y * blockDim.x + threadIdx.x) {}
  __device__ int count() const { return c < C ? W / 2 : 0; }
  __device__ long long cell(int q) const { return ((long long)blockIdx.x * (W / 2) + q) * C + c; }
  __device__ long long pixel(int q, int i) const {
    int n = blockIdx.x / (H / 2), p = blockIdx.x % (H / 2);
    return (((long long)n * H + 2 * p + i / 2) * W + 2 * q + i % 2) * C + c;
  }
};

extern "C" __global__ void max_pool(const REAL *__restrict__ x, REAL *__restrict__ y, int H, int W, int C) {
  Cells cells(H, W, C);
  for (int q = threadIdx.y; q < cells.count(); q += blockDim.y) {
    REAL most = x[cells.pixel(q, 0)];
#pragma unroll
    for (int i = 1; i < 4; i++) {
      REAL value = x[cells.pixel(q, i)];
      if (value > most || value != value) most = value;  // NaN is passed on
    }
    y[cells.cell(q)] = most;
  }
}

extern "C" __global__ void max_pool_grad(const REAL *__restrict__ x, const REAL *__restrict__ y,
                                         const REAL *__restrict__ dy, REAL *__restrict__ dx, int H, int W, int C) {
  Cells cells(H, W, C);
  for (int q = threadIdx.y; q < cells.count(); q += blockDim.y) {
    REAL most = y[cells.cell(q)], gradient = dy[cells.cell(q)];
#pragma unroll
    for (int i = 0; i < 4; i++) {
      bool first = x[cells.pixel(q, i)] == most;
      dx[cells.pixel(q, i)] = first ? gradient : 0;
      if (first) gradient = 0;
    }
  }
}
