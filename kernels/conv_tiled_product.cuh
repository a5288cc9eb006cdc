// The matrix product of conv_tiled.cu: multiplies the slices that conv_tiled_load.cuh brings, and writes the result.

typedef float Sums[THREAD_ROWS][THREAD_COLUMNS];
constexpr int SUMS = THREAD_ROWS * THREAD_COLUMNS;

// The rows and columns of a thread come in groups of 4. The groups of one thread lie as far apart as possible, so that
// neighbouring threads read neighbouring groups, without bank conflicts.
__device__ __forceinline__ int row_in_tile(int i) { return i / 4 * (4 * DOWN) + threadIdx.x / ACROSS * 4 + i % 4; }
__device__ __forceinline__ int column_in_tile(int j) { return j / 4 * (4 * ACROSS) + threadIdx.x % ACROSS * 4 + j % 4; }

__device__ __forceinline__ void multiply(const Slice &slice, Sums sums) {
#pragma unroll
  for (int depth = 0; depth < DEPTH; depth++) {
    alignas(16) float left[THREAD_ROWS], right[THREAD_COLUMNS];
#pragma unroll
    for (int i = 0; i < THREAD_ROWS; i += 4)
      *(float4 *)(left + i) = *(const float4 *)&slice.left[depth][row_in_tile(i)];
#pragma unroll
    for (int j = 0; j < THREAD_COLUMNS; j += 4)
      *(float4 *)(right + j) = *(const float4 *)&slice.right[depth][column_in_tile(j)];
#pragma unroll
    for (int i = 0; i < THREAD_ROWS; i++)
#pragma unroll
      for (int j = 0; j < THREAD_COLUMNS; j++) sums[i][j] += left[i] * right[j];
  }
}

struct Ignore {
  __device__ void operator()(const Slice &) const {}
};

// The right matrix is loaded first: for dx it reads the left matrix's tap, which left.load_next() advances. `visit` is
// called with every slice.
template <class Left, class Right, class Visit = Ignore>
__device__ __forceinline__ void product(int count, Left &left, Right &right, Sums sums, Visit visit = Visit()) {
  if (count == 0) return;
  right.load_next(), left.load_next();
  left.store(slices[0].left), right.store(slices[0].right);
  __syncthreads();
  for (int slice = 0; slice < count; slice++) {
    bool more = slice + 1 < count;
    if (more) right.load_next(), left.load_next();
    multiply(slices[slice % 2], sums);
    visit(slices[slice % 2]);
    if (more) left.store(slices[(slice + 1) % 2].left), right.store(slices[(slice + 1) % 2].right);
    __syncthreads();
  }
}

// Write this thread's columns of one row of the tile, which is `row` of the result. VECTOR divides `columns`.
template <int VECTOR>
__device__ __forceinline__ void write(float *result, const float *sums, long long row, int columns,
                                      Epilogue<float> epilogue) {
#pragma unroll
  for (int j = 0; j < THREAD_COLUMNS; j += VECTOR) {
    int column = blockIdx.y * COLUMNS + column_in_tile(j);
    if (column >= columns) continue;
    long long i = row * columns + column;
    if (VECTOR == 4)
      *(float4 *)(result + i) =
          make_float4(epilogue(sums[j], i, column), epilogue(sums[j + 1], i + 1, column + 1),
                      epilogue(sums[j + 2], i + 2, column + 2), epilogue(sums[j + 3], i + 3, column + 3));
    else
      result[i] = epilogue(sums[j], i, column);
  }
}
