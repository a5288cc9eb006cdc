// Pixel shuffle and nearest upsampling by f, each with its gradient. f is FACTOR; a cell is f x f pixels of the large
// image.
//
//   shuffle       y [n, h f + i, w f + j, k] = x[n, h, w, k f f + i f + j]
//   shuffle_grad  dx[n, h, w, k f f + i f + j] = dy[n, h f + i, w f + j, k]
//   repeat        y [n, h f + i, w f + j, k] = x[n, h, w, k]
//   repeat_grad   dx[n, h, w, k] = sum over i, j  of  dy[n, h f + i, w f + j, k]
//
// y, dy (N, H f, W f, K); x, dx (N, H, W, K f f) for the shuffle, (N, H, W, K) for repeat. Any sizes. -DREAL=double
// makes everything float64.
//
// The kernels hardly compute; their speed depends on contiguous reads and writes. A thread processes channel k of a
// pixel of the small image, with the f f elements of its cell. In the large image, neighbouring threads access
// contiguous elements for each (i, j). In the small image of the shuffle, the f f elements of a thread are contiguous,
// and those of a warp are one long run: for f = 2, each thread loads or stores its four with a single instruction of 16
// bytes.
//
// A block processes one row of pixels (n, h), which becomes f rows; threadIdx.x is the channel, threadIdx.y the column.
#ifndef REAL
#define REAL float
#endif
#ifndef FACTOR
#define FACTOR 2
#endif
#ifndef ALIGN  // the address of a cell is a multiple of this many bytes
#define ALIGN 16
#endif

struct __align__(ALIGN) Cell {
  REAL at[FACTOR * FACTOR];
};

// Indices into a block's row of W pixels with K channels in the small image, and into its f rows in the large image.
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
    REAL value = x[row.small(w)];
#pragma unroll
    for (int i = 0; i < FACTOR; i++)
#pragma unroll
      for (int j = 0; j < FACTOR; j++) y[row.large(w, i, j)] = value;
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
