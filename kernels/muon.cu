// A step of Muon (tinysrgan/optimizers/muon.py has the formulas) for all weight matrices of a net: 18 launches however
// many there are.
//
//   momentum      m = momentum m + g;  x = g + momentum m;  g = 0;  parts = sums of x^2
//   scale         x /= norm of its matrix
//   multiply      c = alpha d + beta p q, for each of many products: Newton and Schulz' iteration is three of these,
//                 A = x x^T;  B = b A + c A A;  x = a x + B x
//   apply         value -= rate sqrt(longest side) x
//
// A net has about twenty matrices of 288 x 32 or so. A launch for each operation on each of them takes a thousand
// launches, each with less work than the launch itself. So, as in adam.cu, the matrices are cut into pieces or tiles,
// a table on the GPU tells each block which one is its own, and the settings, momentum and rate, lie in memory.
// -DREAL=double makes everything else float64, too.
#ifndef REAL
#define REAL float
#endif

constexpr int THREADS = 256;

// The elements of a matrix that a block of momentum, scale or apply processes; parts has one number for each piece.
struct Piece {
  REAL *value, *gradient, *m, *x, *y;  // x is where the iteration starts, y where it ends
  long long count, longest_side, first_part, part_count;  // of the matrix' pieces
};

extern "C" __global__ void momentum(const Piece *__restrict__ pieces, REAL *__restrict__ parts,
                                    const double *__restrict__ settings) {
  __shared__ REAL sums[THREADS];
  Piece piece = pieces[blockIdx.x];
  REAL momentum = settings[0];
  REAL sum = 0;
  for (int i = threadIdx.x; i < piece.count; i += THREADS) {
    REAL g = piece.gradient[i], m = momentum * piece.m[i] + g, x = g + momentum * m;
    piece.m[i] = m, piece.gradient[i] = 0, piece.x[i] = x;
    sum += x * x;
  }
  sums[threadIdx.x] = sum;
  for (int half = THREADS / 2; half; half /= 2) {
    __syncthreads();  // the second half was written by other threads
    if (threadIdx.x < half) sums[threadIdx.x] += sums[threadIdx.x + half];
  }
  if (threadIdx.x == 0) parts[blockIdx.x] = sums[0];
}

extern "C" __global__ void scale(const Piece *__restrict__ pieces, const REAL *__restrict__ parts) {
  Piece piece = pieces[blockIdx.x];
  REAL sum = 0;
  for (int part = 0; part < piece.part_count; part++) sum += parts[piece.first_part + part];
  REAL norm = sqrt(sum) + REAL(1e-12);
  for (int i = threadIdx.x; i < piece.count; i += THREADS) piece.x[i] /= norm;
}

extern "C" __global__ void apply(const Piece *__restrict__ pieces, const double *__restrict__ settings) {
  Piece piece = pieces[blockIdx.x];
  REAL rate = settings[1], step = rate * sqrt((REAL)piece.longest_side);
  for (int i = threadIdx.x; i < piece.count; i += THREADS) piece.value[i] -= step * piece.y[i];
}

// A matrix in memory: element (i, j) is at[i * down + j * across]. One of the two strides is 1.
struct Matrix {
  REAL *at;
  long long down, across;

  __device__ REAL &operator()(int i, int j) const { return at[i * down + j * across]; }
};

// One tile of a product: elements (row, column) and up to TILE further each way.
struct Product {
  Matrix p, q, d, c;  // p (rows, depth), q (depth, columns), d and c (rows, columns)
  long long rows, columns, depth, row, column;
};

constexpr int TILE = 32, LANES = 32, GROUPS = THREADS / LANES;  // a thread computes TILE / GROUPS elements

// tile = the part of a matrix (rows, columns) that starts at (row, column), zero outside. Lanes run along contiguous
// elements. The tile's lines are one element longer than a warp, so that lanes along either axis use different banks.
__device__ void load(REAL tile[TILE][TILE + 1], Matrix matrix, int row, int column, int rows, int columns) {
  int lane = threadIdx.x % LANES;
  for (int group = threadIdx.x / LANES; group < TILE; group += GROUPS) {
    int i = matrix.across == 1 ? group : lane, j = matrix.across == 1 ? lane : group;
    tile[i][j] = row + i < rows && column + j < columns ? matrix(row + i, column + j) : 0;
  }
}

extern "C" __global__ void multiply(const Product *__restrict__ products, REAL alpha, REAL beta) {
  __shared__ REAL left[TILE][TILE + 1], right[TILE][TILE + 1];
  Product of = products[blockIdx.x];
  int lane = threadIdx.x % LANES, group = threadIdx.x / LANES;
  bool by_rows = of.c.across == 1;  // lanes run along contiguous elements of the result
  REAL sums[TILE / GROUPS] = {};
  for (int depth = 0; depth < of.depth; depth += TILE) {
    load(left, of.p, of.row, depth, of.rows, of.depth);
    load(right, of.q, depth, of.column, of.depth, of.columns);
    __syncthreads();  // the tiles are there
#pragma unroll 8
    for (int k = 0; k < TILE; k++)
#pragma unroll
      for (int n = 0; n < TILE / GROUPS; n++) {
        int other = group + n * GROUPS;
        sums[n] += left[by_rows ? other : lane][k] * right[k][by_rows ? lane : other];
      }
    __syncthreads();  // no thread still reads them
  }
#pragma unroll
  for (int n = 0; n < TILE / GROUPS; n++) {
    int other = group + n * GROUPS, i = of.row + (by_rows ? other : lane), j = of.column + (by_rows ? lane : other);
    if (i < of.rows && j < of.columns) of.c(i, j) = alpha * (of.d.at ? of.d(i, j) : 0) + beta * sums[n];
  }
}
