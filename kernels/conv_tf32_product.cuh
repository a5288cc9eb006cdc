// The matrix product of conv_tf32.cu: multiplies the slices that conv_tf32_load.cuh copies, and writes the result.

typedef float Sums[WARP_ROWS / 16][WARP_COLUMNS / 8][4];
constexpr int SUMS = sizeof(Sums) / sizeof(float);

// Where this warp's part of the block's tile starts, and i and j of its lane 4 i + j.
__device__ __forceinline__ int warp_row() { return threadIdx.x / 32 / ACROSS * WARP_ROWS; }
__device__ __forceinline__ int warp_column() { return threadIdx.x / 32 % ACROSS * WARP_COLUMNS; }
__device__ __forceinline__ int lane_i() { return threadIdx.x % 32 / 4; }
__device__ __forceinline__ int lane_j() { return threadIdx.x % 4; }

template <class Left, class Right>
__device__ __forceinline__ void multiply(const float *left, const float *right, Sums sums) {
#pragma unroll
  for (int step = 0; step < DEPTH; step += 8) {
    int depth = step + lane_j();
    unsigned a[WARP_ROWS / 16][4], b[WARP_COLUMNS / 8][2];
#pragma unroll
    for (int i = 0; i < WARP_ROWS / 16; i++)
#pragma unroll
      for (int k = 0; k < 4; k++)
        a[i][k] = to_tf32(left[Left::at(warp_row() + 16 * i + k % 2 * 8 + lane_i(), depth + k / 2 * 4)]);
#pragma unroll
    for (int j = 0; j < WARP_COLUMNS / 8; j++)
#pragma unroll
      for (int k = 0; k < 2; k++)
        b[j][k] = to_tf32(right[Right::at(warp_column() + 8 * j + lane_i(), depth + k * 4)]);
#pragma unroll
    for (int i = 0; i < WARP_ROWS / 16; i++)
#pragma unroll
      for (int j = 0; j < WARP_COLUMNS / 8; j++) multiply_add(sums[i][j], a[i], b[j]);
  }
}

struct Ignore {
  __device__ void operator()(const float *) const {}
};

// The right slice is copied first: for dx it reads the left matrix's tap, which left.copy() advances. Each iteration
// commits one group of copies, an empty one at the end, so that copy_wait always waits for the same number of groups.
// `visit` is called with every right slice.
template <class Left, class Right, class Visit = Ignore>
__device__ __forceinline__ void product(int count, Left &left, Right &right, Sums sums, Visit visit = Visit()) {
  DYNAMIC_SHARED(float, stages);
  auto copy = [&](int slice) {
    float *stage = stages + slice % STAGES * (Left::SIZE + Right::SIZE);
    if (slice < count) right.copy(stage + Left::SIZE), left.copy(stage);
    copy_commit();
  };
#pragma unroll
  for (int slice = 0; slice < STAGES - 1; slice++) copy(slice);
  for (int slice = 0; slice < count; slice++) {
    copy_wait<STAGES - 2>();  // this thread's copies of the slice have arrived,
    __syncthreads();          // and now those of all threads; the stage of the slice before is free
    copy(slice + STAGES - 1);
    const float *stage = stages + slice % STAGES * (Left::SIZE + Right::SIZE);
    multiply<Left, Right>(stage, stage + Left::SIZE, sums);
    visit(stage + Left::SIZE);
  }
}

// Write this warp's part of the tile, applying the epilogue. Row `row` of the product goes to row place(row) of the
// result. Four lanes with two elements each write 32 contiguous bytes, the size of a memory transaction.
template <class Place>
__device__ __forceinline__ void write(float *result, const Sums sums, int rows, int columns, Place place,
                                      const Epilogue<float> &epilogue) {
#pragma unroll
  for (int i = 0; i < WARP_ROWS / 8; i++) {
    int row = blockIdx.x * ROWS + warp_row() + 8 * i + lane_i();
    if (row >= rows) continue;
    long long line = place(row) * columns;
#pragma unroll
    for (int j = 0; j < WARP_COLUMNS / 8; j++) {
      int column = blockIdx.y * COLUMNS + warp_column() + 8 * j + 2 * lane_j();
      if (column >= columns) continue;
      const float *two = sums[i / 2][j] + i % 2 * 2;
      long long at = line + column;
      *(float2 *)(result + at) = make_float2(epilogue(two[0], at, column), epilogue(two[1], at + 1, column + 1));
    }
  }
}
