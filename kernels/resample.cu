// Pixels to cells of f x f pixels and back: pixel shuffle and nearest upsampling, each with its gradient. f is FACTOR.
//
//   shuffle       y [n, h f + i, w f + j, k] = x[n, h, w, k f f + i f + j]
//   shuffle_grad  dx[n, h, w, k f f + i f + j] = dy[n, h f + i, w f + j, k]
//   repeat        y [n, h f + i, w f + j, k] = x[n, h, w, k]
//   repeat_grad   dx[n, h, w, k] = sum over i, j  of  dy[n, h f + i, w f + j, k]
//
// y, dy (N, H f, W f, K); x, dx (N, H, W, K f f) for the shuffle, (N, H, W, K) for repeat. Any sizes. -DREAL=double makes
// everything float64.
//
// Nothing is computed here; it is all about reading and writing in runs. A thread takes channel k of a pixel of the small
// image, and with it the f f numbers of its cell. In the large image, neighbouring threads then have neighbouring numbers
// for each (i, j). In the shuffle's small image a thread's own f f numbers are neighbours, and a warp's are one long run:
// for f = 2, each thread loads or stores its four with a single instruction of 16 bytes.
//
// A block takes one row of pixels (n, h), which becomes f rows; threadIdx.x is the channel, threadIdx.y the column.
#ifndef REAL
#define REAL float
#endif
#ifndef FACTOR
#define FACTOR 2
#endif
#ifndef ALIGN  // the bytes of which a cell's address is a multiple
#define ALIGN 16
#endif

struct __align__(ALIGN) Cell {
  REAL at[FACTOR * FACTOR];
};

// A block's row of W small pixels with K channels, and the place in the f large rows that belong to it.
struct Row {
  int W, K, k;

  __device__ Row(int W, int K) : W(W), K(K), k(blockIdx.y * blockDim.x + threadIdx.x) {}
  __device__ long long small(int w) const { return ((long long)blockIdx.x * W + w) * K + k; }
  __device__ long long large(int w, int i, int j) const {
    return ((((long long)blockIdx.x * FACTOR + i) * W + w) * FACTOR + j) * K + k;
  }
};

extern "C" __global__ void shuffle(const Cell *__restrict__ x, REAL *__restrict__ y, int W, int K) {
  Row row(W, K);
  if (row.k >= K) return;
  for (int w = threadIdx.y; w < W; w += blockDim.y) {
    Cell cell = x[row.small(w)];
#pragma unroll
    for (int i = 0; i < FACTOR; i++)
#pragma unroll
      for (int j = 0; j < FACTOR; j++) y[row.large(w, i, j)] = cell.at[i * FACTOR + j];
  }
}

extern "C" __global__ void shuffle_grad(const REAL *__restrict__ dy, Cell *__restrict__ dx, int W, int K) {
  Row row(W, K);
  if (row.k >= K) return;
  for (int w = threadIdx.y; w < W; w += blockDim.y) {
    Cell cell;
#pragma unroll
    for (int i = 0; i < FACTOR; i++)
#pragma unroll
      for (int j = 0; j < FACTOR; j++) cell.at[i * FACTOR + j] = dy[row.large(w, i, j)];
    dx[row.small(w)] = cell;
  }
}

extern "C" __global__ void repeat(const REAL *__restrict__ x, REAL *__restrict__ y, int W, int K) {
  Row row(W, K);
  if (row.k >= K) return;
  for (int w = threadIdx.y; w < W; w += blockDim.y) {
    REAL number = x[row.small(w)];
#pragma unroll
    for (int i = 0; i < FACTOR; i++)
#pragma unroll
      for (int j = 0; j < FACTOR; j++) y[row.large(w, i, j)] = number;
  }
}

extern "C" __global__ void repeat_grad(const REAL *__restrict__ dy, REAL *__restrict__ dx, int W, int K) {
  Row row(W, K);
  if (row.k >= K) return;
  for (int w = threadIdx.y; w < W; w += blockDim.y) {
    REAL sum = 0;
#pragma unroll
    for (int i = 0; i < FACTOR; i++)
#pragma unroll
      for (int j = 0; j < FACTOR; j++) sum += dy[row.large(w, i, j)];
    dx[row.small(w)] = sum;
  }
}
