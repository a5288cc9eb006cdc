// The convolution and its two gradients on the tensor cores: the third rung. Formulas and shapes: conv_reference.cu.
// The matrix products that they are, left (rows, depth) times right (depth, columns), and how windows of an image
// become a matrix that is never laid out: conv_tiled.cu. There a thread multiplies one number at a time and carries its
// share of a slice of the depth from memory to shared memory through its registers. Here
//
//   a warp multiplies 16 x 8 by 8 x 8 numbers in one instruction (multiply_add). The tensor cores see 10 bits of
//   mantissa, so every factor is rounded to those (to_tf32); sums are float32. The lanes hold the numbers in an order
//   that the instruction prescribes, of which only multiply() and write() know;
//   slices go from memory to shared memory by themselves (copy_16), 16 bytes at a time, zeros for what lies outside of
//   the image. STAGES of them lie there: one is multiplied while STAGES - 1 are on their way, none of it in registers;
//   a block makes ROWS x COLUMNS of the result, its four warps WARP_ROWS x WARP_COLUMNS each: for 64 + 32 numbers that
//   a warp reads it does 64 * 32 multiplications.
//
// C and K are multiples of 32, R and S at most 16, arrays begin at multiples of 16 bytes; any stride. From sm_80 on.
#ifndef ROWS
#define ROWS 128
#define COLUMNS 64
#define DEPTH 32
#define STAGES 3
#endif

constexpr int WARP_ROWS = 64, WARP_COLUMNS = 32, ACROSS = COLUMNS / WARP_COLUMNS;
constexpr int THREADS = ROWS / WARP_ROWS * ACROSS * 32;

// ---------------------------------------------------------------- a slice in shared memory
//
// A matrix has lines: the left one's rows, the right one's columns. A slice is DEPTH numbers of each, and lies in
// shared memory as it comes from memory, for only neighbours come 16 bytes at a time: in one matrix neighbours are
// numbers of one line, in another numbers of one depth.
//
// Shared memory has 32 banks; a warp's 32 reads take one turn if they go to 32 different ones. For multiply_add, lane
// 4 i + j reads line i at depth j. With DEPTH + 4 numbers from line to line that is bank 4 i + j; with LINES + 8 from
// depth to depth it is bank 8 j + i: all different both times. Without the 4 and the 8, eight (four) lanes would meet.

// Neighbours are of one line. Each thread copies four of them, always at the same depth, for COUNT lines.
template <int LINES> struct AlongDepth {
  static constexpr int PITCH = DEPTH + 4, SIZE = LINES * PITCH, LANES = DEPTH / 4, STEP = THREADS / LANES;
  static constexpr int COUNT = LINES / STEP;

  static __device__ int at(int line, int depth) { return line * PITCH + depth; }
  static __device__ int depth() { return threadIdx.x % LANES * 4; }
  static __device__ int line(int i) { return threadIdx.x / LANES + i * STEP; }
};

// Neighbours are of one depth. Each thread copies four of them, always of the same lines, at COUNT depths.
template <int LINES> struct AcrossLines {
  static constexpr int PITCH = LINES + 8, SIZE = DEPTH * PITCH, LANES = LINES / 4, STEP = THREADS / LANES;
  static constexpr int COUNT = DEPTH / STEP;

  static __device__ int at(int line, int depth) { return depth * PITCH + line; }
  static __device__ int line() { return threadIdx.x % LANES * 4; }
  static __device__ int depth(int i) { return threadIdx.x / LANES + i * STEP; }
};

// ---------------------------------------------------------------- where the numbers of each matrix lie
//
// Each has copy(), which begins to copy this thread's share of the next slice.

// A tap (r, s) and a channel, in the order in which they lie in the depth. A slice is of one tap.
struct Tap {
  int r, s, channel, columns, channels;

  __device__ void advance() {
    if ((channel += DEPTH) < channels) return;
    channel = 0;
    if (++s == columns) s = 0, r++;
  }
};

// Left: a row is the window that begins at pixel (top, left) of an image and goes down and right from there (y), or up
// and left (dx). Which of its taps are inside of the image is found out once: bit r for the row, 16 + s for the column.
template <int DIRECTION> struct Windows : AlongDepth<ROWS> {
  const float *images;
  int height, width, rows;
  Tap tap;
  const float *first[COUNT];
  unsigned inside[COUNT];

  __device__ Windows(const float *images, int height, int width, int rows, int columns, int channels)
      : images(images), height(height), width(width), rows(rows), tap{0, 0, 0, columns, channels} {}

  __device__ void begin(int i, bool exists, int n, int top, int left) {
    first[i] = images + (((long long)n * height + top) * width + left) * tap.channels + depth();
    inside[i] = 0;
    for (int r = 0; r < rows; r++)
      if (exists && (unsigned)(top + DIRECTION * r) < height) inside[i] |= 1u << r;
    for (int s = 0; s < tap.columns; s++)
      if ((unsigned)(left + DIRECTION * s) < width) inside[i] |= 0x10000u << s;
  }
  __device__ void copy(float *slice) {
    long long step = (long long)DIRECTION * (tap.r * width + tap.s) * tap.channels + tap.channel;
    unsigned both = 1u << tap.r | 0x10000u << tap.s;
#pragma unroll
    for (int i = 0; i < COUNT; i++)
      copy_16(slice + at(line(i), depth()), first[i] + step, (inside[i] & both) == both);
    tap.advance();
  }
};

// Right, for y and dw: a matrix that lies in memory as it is.
struct Matrix : AcrossLines<COLUMNS> {
  const float *matrix;
  int first, depths, column, columns;

  __device__ Matrix(const float *matrix, int first, int depths, int columns)
      : matrix(matrix), first(first), depths(depths), column(blockIdx.y * COLUMNS + line()), columns(columns) {}

  __device__ void copy(float *slice) {
#pragma unroll
    for (int i = 0; i < COUNT; i++) {
      int row = first + depth(i);
      bool inside = row < depths && column < columns;
      copy_16(slice + at(line(), depth(i)), matrix + (long long)row * columns + column, inside);
    }
    first += DEPTH;
  }
};

// Right, for dx: w with c and k exchanged, and of its taps only each stride-th, from (first_r, first_s) on.
struct Exchanged : AlongDepth<COLUMNS> {
  const float *w;
  const Tap &tap;  // the left matrix's: both are at the same depth
  int first_r, first_s, columns, stride, channels;

  __device__ Exchanged(const float *w, const Tap &tap, int first_r, int first_s, const Geometry &g)
      : w(w), tap(tap), first_r(first_r), first_s(first_s), columns(g.S), stride(g.stride), channels(g.C) {}

  __device__ void copy(float *slice) {
    long long r = first_r + stride * tap.r, s = first_s + stride * tap.s;
    const float *channel = w + ((r * columns + s) * channels * tap.channels + tap.channel + depth());
#pragma unroll
    for (int i = 0; i < COUNT; i++) {
      int c = blockIdx.y * COLUMNS + line(i);
      copy_16(slice + at(line(i), depth()), channel + (long long)c * tap.channels, c < channels);
    }
  }
};

// Left, for dw: a row is one tap (r, s, c), the pixel at (r, s) in every window; along the depth go the windows. Rows
// beyond the last tap are pixels of the image, too; nobody keeps what becomes of them.
struct Turned : AcrossLines<ROWS> {
  const float *x;
  const Geometry &g;
  int down, right, c, n, p, q;  // this thread's tap, and the window that it copies next

  __device__ Turned(const float *x, int first, const Geometry &g) : x(x), g(g) {
    int row = blockIdx.x * ROWS + line(), window = first + depth(0);
    c = row % g.C, down = row / g.C / g.S - g.top, right = row / g.C % g.S - g.left;
    q = window % g.Q, p = window / g.Q % g.P, n = window / g.Q / g.P;
  }
  __device__ void copy(float *slice) {
#pragma unroll
    for (int i = 0; i < COUNT; i++) {
      int h = p * g.stride + down, w = q * g.stride + right;
      bool inside = n < g.N && (unsigned)h < g.H && (unsigned)w < g.W;
      copy_16(slice + at(line(), depth(i)), x + ((((long long)n * g.H + h) * g.W + w) * g.C + c), inside);
      for (q += STEP; q >= g.Q; q -= g.Q)
        if (++p == g.P) p = 0, n++;
    }
  }
};

// ---------------------------------------------------------------- the product

typedef float Sums[WARP_ROWS / 16][WARP_COLUMNS / 8][4];

// Where this warp's part of the block's tile begins, and its lane 4 i + j.
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

// The right slice is copied first: for dx it looks at the left one's tap, which left.copy() moves on. Each turn commits
// one group of copies, at the end an empty one, so that the same number of groups may always be under way.
template <class Left, class Right>
__device__ __forceinline__ void product(int count, Left &left, Right &right, Sums sums) {
  DYNAMIC_SHARED(float, stages);
  auto copy = [&](int slice) {
    float *stage = stages + slice % STAGES * (Left::SIZE + Right::SIZE);
    if (slice < count) right.copy(stage + Left::SIZE), left.copy(stage);
    copy_commit();
  };
#pragma unroll
  for (int slice = 0; slice < STAGES - 1; slice++) copy(slice);
  for (int slice = 0; slice < count; slice++) {
    copy_wait<STAGES - 2>();  // this thread's copies of the slice are there,
    __syncthreads();          // now everybody's, and the slice before has been multiplied: its stage is free
    copy(slice + STAGES - 1);
    const float *stage = stages + slice % STAGES * (Left::SIZE + Right::SIZE);
    multiply<Left, Right>(stage, stage + Left::SIZE, sums);
  }
}

// ---------------------------------------------------------------- what becomes of the sums

// prelu(sum + bias) + shortcut; bias (columns), slope (columns) and shortcut (as the result) may each be null.
struct Epilogue {
  const float *bias, *slope, *shortcut;

  __device__ float operator()(float sum, long long i, int column) const {
    if (bias) sum += bias[column];
    if (slope && sum < 0) sum *= slope[column];
    return shortcut ? sum + shortcut[i] : sum;
  }
};

// To line place(row) of the result. Four lanes with two numbers each write 32 bytes of a line, which is what memory
// takes at once.
template <class Place>
__device__ __forceinline__ void write(float *result, const Sums sums, int rows, int columns, Place place,
                                      const Epilogue &epilogue) {
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

// ---------------------------------------------------------------- the kernels

// Blocks: tiles of rows, tiles of columns.
extern "C" __global__ void __launch_bounds__(THREADS)
conv_forward(const float *__restrict__ x, const float *__restrict__ w, const float *__restrict__ bias,
             const float *__restrict__ slope, const float *__restrict__ shortcut, float *__restrict__ y, Geometry g) {
  int rows = g.N * g.P * g.Q, depth = g.R * g.S * g.C;
  using Left = Windows<1>;
  Left left(x, g.H, g.W, g.R, g.S, g.C);
#pragma unroll
  for (int i = 0; i < Left::COUNT; i++) {
    int row = blockIdx.x * ROWS + Left::line(i), q = row % g.Q, p = row / g.Q % g.P, n = row / g.Q / g.P;
    left.begin(i, row < rows, n, p * g.stride - g.top, q * g.stride - g.left);
  }
  Matrix right(w, 0, depth, g.K);

  Sums sums = {};
  product(depth / DEPTH, left, right, sums);
  write(y, sums, rows, g.K, [](int row) { return (long long)row; }, {bias, slope, shortcut});
}

// Of one axis, the pixels that have the same phase: those at which (pixel + before) % stride is `phase`. They meet only
// each stride-th tap, from `phase` on, without gaps: pixel i meets with tap j the output at first + i - j.
struct Phase {
  int stride, first_pixel, pixels, taps, first;

  __device__ Phase(int length, int size, int before, int stride, int phase) : stride(stride) {
    first_pixel = (phase + stride - before % stride) % stride;
    pixels = (length - first_pixel + stride - 1) / stride;
    taps = (size - phase + stride - 1) / stride;
    first = (first_pixel + before) / stride;
  }
  __device__ int pixel(int i) const { return first_pixel + i * stride; }
};

// Blocks: tiles of the rows of the largest phase, tiles of columns, stride x stride phases.
extern "C" __global__ void __launch_bounds__(THREADS)
conv_grad_input(const float *__restrict__ dy, const float *__restrict__ w, float *__restrict__ dx, Geometry g) {
  int phase_r = blockIdx.z / g.stride, phase_s = blockIdx.z % g.stride;
  Phase down(g.H, g.R, g.top, g.stride, phase_r), right(g.W, g.S, g.left, g.stride, phase_s);
  int rows = g.N * down.pixels * right.pixels;
  if ((int)blockIdx.x * ROWS >= rows) return;

  using Left = Windows<-1>;
  Left left(dy, g.P, g.Q, down.taps, right.taps, g.K);
#pragma unroll
  for (int i = 0; i < Left::COUNT; i++) {
    int row = blockIdx.x * ROWS + Left::line(i);
    int q = row % right.pixels, p = row / right.pixels % down.pixels, n = row / right.pixels / down.pixels;
    left.begin(i, row < rows, n, down.first + p, right.first + q);
  }
  Exchanged weights(w, left.tap, phase_r, phase_s, g);

  Sums sums = {};
  product(down.taps * right.taps * g.K / DEPTH, left, weights, sums);
  auto place = [&](int row) {
    int column = right.pixel(row % right.pixels), n = row / right.pixels / down.pixels;
    return ((long long)n * g.H + down.pixel(row / right.pixels % down.pixels)) * g.W + column;
  };
  write(dx, sums, rows, g.C, place, {});
}

// Blocks: tiles of rows, tiles of columns, parts of the depth, for the result has few tiles for a whole GPU. dw is
// (parts, R, S, C, K).
extern "C" __global__ void __launch_bounds__(THREADS)
conv_grad_weight(const float *__restrict__ x, const float *__restrict__ dy, float *__restrict__ dw, Geometry g) {
  int rows = g.R * g.S * g.C, depth = g.N * g.P * g.Q;
  int slices = (depth + DEPTH - 1) / DEPTH, each = (slices + gridDim.z - 1) / gridDim.z;
  int first = blockIdx.z * each * DEPTH;  // beyond the last of the depth there are zeros
  Turned left(x, first, g);
  Matrix right(dy, first, depth, g.K);

  Sums sums = {};
  product(each, left, right, sums);
  write(dw, sums, rows, g.K, [&](int row) { return (long long)blockIdx.z * rows + row; }, {});
}

// result (count) = the sum of parts (number, count), always in the same order. A thread for each number: C K is a
// multiple of 1024, so no block has threads too many.
extern "C" __global__ void add_parts(const float *__restrict__ parts, float *__restrict__ result, int number,
                                     long long count) {
  long long i = (long long)blockIdx.x * blockDim.x + threadIdx.x;
  float sum = 0;
  for (int part = 0; part < number; part++) sum += parts[part * count + i];
  result[i] = sum;
}
