// The convolution and its two gradients in float32: the second rung, a matrix product in tiles, used many times.
//
// Each of the three (formulas: conv_reference.cu) is a matrix product, left (rows, depth) times right (depth, columns):
//
//                 rows               depth            columns   left                      right
//   y             pixels n, p, q     taps r, s, c     k         windows of x              w
//   dx            pixels n, h, w     taps r, s, k     c         windows of dy             w, c and k exchanged
//   dw            taps r, s, c       pixels n, p, q   k         windows of x, turned      dy
//
// None of the left matrices is ever laid out: whoever needs one of its numbers works out where in the image it lies, or
// that it lies outside and is zero ("implicit" matrix product). What the first rung lacks is reuse. Here
//
//   a block of threads makes a tile of the result, ROWS x COLUMNS. It goes along the depth in slices of DEPTH, and
//   brings each slice of both matrices to shared memory once, where all of its threads read them;
//   a thread makes THREAD_ROWS x THREAD_COLUMNS of these numbers, in registers. For 8 + 8 numbers read from shared
//   memory it does 64 multiplications, enough to keep the arithmetic busier than the memory;
//   there are two slices in shared memory. While one is multiplied the next is on its way, first to registers (those
//   loads take hundreds of cycles and nobody waits for them), then to the other slice: one barrier for each slice.
//
// Where the result has few tiles for a whole GPU, blocks also share out the depth: block z sums its part only, and
// add_parts adds these parts, in their order, so that the same numbers always give the same result.
//
// Any sizes, any stride. VECTOR_LEFT is 4 where the left matrix's numbers can be loaded four at a time, because the
// channels of its image are a multiple of 4 and the array begins at a multiple of 16 bytes; else it is 1. VECTOR_RIGHT
// and VECTOR_RESULT likewise. The tiles' sizes: see TILES in tinysrgan/ops/cuda/convolution.py.
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
#endif

constexpr int ACROSS = COLUMNS / THREAD_COLUMNS, DOWN = ROWS / THREAD_ROWS, THREADS = ACROSS * DOWN;

// One slice of both matrices, the depth first: a thread needs numbers of one depth that are neighbours. Four numbers
// more than it needs in every line put the lines into different banks, so that a warp may write down a column at once.
struct alignas(16) Slice {
  float left[DEPTH][ROWS + 4], right[DEPTH][COLUMNS + 4];
};
__shared__ Slice slices[2];  // the one that is multiplied, and the next

__device__ constexpr int at_most(int a, int b) { return a < b ? a : b; }

// VECTOR neighbours from memory; zeros where there is nothing to load.
template <int VECTOR> __device__ __forceinline__ void load(float *to, const float *from) {
  if (VECTOR == 4) {
    float4 four = make_float4(0, 0, 0, 0);
    if (from) four = *(const float4 *)from;
    to[0] = four.x, to[1] = four.y, to[2] = four.z, to[3] = four.w;
  } else {
    *to = from ? *from : 0;
  }
}

// ---------------------------------------------------------------- how the threads share out the loading of a slice
//
// A matrix has lines: the left one's rows, the right one's columns. Numbers that are neighbours in memory are always
// loaded by neighbouring threads; in one matrix those are numbers of one line, in another numbers of one depth.

// Neighbours are of one line: each thread loads VECTOR of them, always at the same depth of the slice, of COUNT lines.
template <int LINES, int VECTOR> struct AlongDepth {
  static constexpr int LANES = DEPTH / VECTOR, STEP = THREADS / LANES, COUNT = (LINES + STEP - 1) / STEP;
  static_assert(THREADS % LANES == 0 && COUNT <= 16, "this tile would need too many registers for its loads");
  float held[COUNT][VECTOR];

  static __device__ int depth() { return threadIdx.x % LANES * VECTOR; }
  static __device__ int line(int i) { return threadIdx.x / LANES + i * STEP; }

  __device__ void store(float (*slice)[LINES + 4]) const {
#pragma unroll
    for (int i = 0; i < COUNT; i++)
      if (LINES % STEP == 0 || line(i) < LINES)
#pragma unroll
        for (int j = 0; j < VECTOR; j++) slice[depth() + j][line(i)] = held[i][j];
  }
};

// Neighbours are of one depth: each thread loads VECTOR of them, always of the same lines, from COUNT depths.
template <int LINES, int VECTOR> struct AcrossLines {
  static constexpr int LANES = LINES / VECTOR, STEP = at_most(THREADS / LANES, DEPTH), COUNT = DEPTH / STEP;
  static_assert(THREADS % LANES == 0 && DEPTH % STEP == 0, "this tile has too few threads for its lines");
  float held[COUNT][VECTOR];

  static __device__ int line() { return threadIdx.x % LANES * VECTOR; }
  static __device__ int depth(int i) { return threadIdx.x / LANES + i * STEP; }

  __device__ void store(float (*slice)[LINES + 4]) const {
#pragma unroll
    for (int i = 0; i < COUNT; i++)
      if (THREADS / LANES <= DEPTH || depth(i) < DEPTH)
#pragma unroll
        for (int j = 0; j < VECTOR; j++) slice[depth(i)][line() + j] = held[i][j];
  }
};

// ---------------------------------------------------------------- where the numbers of each matrix lie
//
// Each has next(), which loads this thread's share of the next slice into registers, and store().

// A tap (r, s) and a channel, in the order in which they lie in the depth.
struct Tap {
  int r, s, channel, rows, columns, channels;

  __device__ Tap(int depth, int rows, int columns, int channels) : rows(rows), columns(columns), channels(channels) {
    int across = max(columns, 1);  // where the stride is larger than the filter, some pixels have no taps
    channel = depth % channels, s = depth / channels % across, r = depth / channels / across;
  }
  __device__ bool exists() const { return r < rows; }
  __device__ void advance() {
    for (channel += DEPTH; channel >= channels; channel -= channels)
      if (++s >= columns) s = 0, r++;
  }
};

// Left: a row is the window that begins at pixel (top, left) of an image and goes down and right from there (y), or up
// and left (dx).
template <int DIRECTION> struct Windows : AlongDepth<ROWS, VECTOR_LEFT> {
  const float *images;
  int height, width;
  Tap tap;
  int above[COUNT], top[COUNT], left[COUNT];  // above: the rows of all images before this one

  __device__ Windows(const float *images, int height, int width, Tap tap)
      : images(images), height(height), width(width), tap(tap) {}

  __device__ void begin(int i, bool exists, int n, int row, int column) {
    above[i] = n * height, left[i] = column;
    top[i] = exists ? row : -(1 << 30);  // so high up that all of the window is outside
  }
  __device__ void next() {
#pragma unroll
    for (int i = 0; i < COUNT; i++) {
      int row = top[i] + DIRECTION * tap.r, column = left[i] + DIRECTION * tap.s;
      bool inside = tap.exists() && (unsigned)row < height && (unsigned)column < width;
      unsigned pixel = (unsigned)(above[i] + row) * width + column;
      load<VECTOR_LEFT>(held[i], inside ? images + ((long long)pixel * tap.channels + tap.channel) : nullptr);
    }
    tap.advance();
  }
};

// Right, for y and dw: a matrix that lies in memory as it is.
struct Matrix : AcrossLines<COLUMNS, VECTOR_RIGHT> {
  const float *matrix;
  int first, depths, column, columns;

  __device__ Matrix(const float *matrix, int first, int depths, int columns)
      : matrix(matrix), first(first), depths(depths), column(blockIdx.y * COLUMNS + line()), columns(columns) {}

  __device__ void next() {
#pragma unroll
    for (int i = 0; i < COUNT; i++) {
      int at = first + depth(i);
      bool inside = at < depths && column < columns;
      load<VECTOR_RIGHT>(held[i], inside ? matrix + ((long long)at * columns + column) : nullptr);
    }
    first += DEPTH;
  }
};

// Right, for dx: w with c and k exchanged, and of its taps only each stride-th, from (first_r, first_s) on.
struct Exchanged : AlongDepth<COLUMNS, VECTOR_RIGHT> {
  const float *w;
  const Tap &tap;  // the left matrix's: both are at the same depth
  int first_r, first_s, columns, stride, channels;

  __device__ Exchanged(const float *w, const Tap &tap, int first_r, int first_s, const Geometry &g)
      : w(w), tap(tap), first_r(first_r), first_s(first_s), columns(g.S), stride(g.stride), channels(g.C) {}

  __device__ void next() {
    long long r = first_r + stride * tap.r, s = first_s + stride * tap.s;
    const float *channel = w + ((r * columns + s) * channels * tap.channels + tap.channel);
#pragma unroll
    for (int i = 0; i < COUNT; i++) {
      int c = blockIdx.y * COLUMNS + line(i);
      load<VECTOR_RIGHT>(held[i], tap.exists() && c < channels ? channel + (long long)c * tap.channels : nullptr);
    }
  }
};

// Left, for dw: a row is one tap (r, s, c), the pixel at (r, s) in every window; along the depth go the windows.
struct Turned : AcrossLines<ROWS, VECTOR_LEFT> {
  const float *x;
  const Geometry &g;
  int down, right, c, n, p, q;
  bool exists;

  __device__ Turned(const float *x, int first, const Geometry &g) : x(x), g(g) {
    int row = blockIdx.x * ROWS + line(), pixel = first + depth(0);
    c = row % g.C, down = row / g.C / g.S - g.top, right = row / g.C % g.S - g.left;
    exists = row < g.R * g.S * g.C;
    q = pixel % g.Q, p = pixel / g.Q % g.P, n = pixel / g.Q / g.P;
  }
  __device__ void next() {
#pragma unroll
    for (int i = 0; i < COUNT; i++) {
      int h = p * g.stride + down, w = q * g.stride + right;
      bool inside = exists && n < g.N && (unsigned)h < g.H && (unsigned)w < g.W;
      load<VECTOR_LEFT>(held[i], inside ? x + ((((long long)n * g.H + h) * g.W + w) * g.C + c) : nullptr);
      for (q += STEP; q >= g.Q; q -= g.Q)
        if (++p == g.P) p = 0, n++;
    }
  }
};

// ---------------------------------------------------------------- the product

// The slices that one of `parts` blocks takes of a depth: `count` from `first` on.
struct Part {
  int first, count;

  __device__ Part(int depth, int part, int parts) {
    int slices = (depth + DEPTH - 1) / DEPTH, each = (slices + parts - 1) / parts;
    first = part * each, count = max(min(each, slices - first), 0);
  }
};

typedef float Sums[THREAD_ROWS][THREAD_COLUMNS];

// Of a thread's rows (columns), groups of 4 lie as far apart as they can, so that those of neighbouring threads are
// neighbours: then a warp reads shared memory without two of its threads in one bank.
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

// The right matrix is loaded first: for dx it looks at the left one's tap, which left.next() moves on.
template <class Left, class Right>
__device__ __forceinline__ void product(int count, Left &left, Right &right, Sums sums) {
  if (count == 0) return;
  right.next(), left.next();
  left.store(slices[0].left), right.store(slices[0].right);
  __syncthreads();
  for (int slice = 0; slice < count; slice++) {
    bool more = slice + 1 < count;
    if (more) right.next(), left.next();
    multiply(slices[slice % 2], sums);
    if (more) left.store(slices[(slice + 1) % 2].left), right.store(slices[(slice + 1) % 2].right);
    __syncthreads();
  }
}

// ---------------------------------------------------------------- what becomes of a sum

// prelu(sum + bias) + shortcut; bias (columns), slope (columns) and shortcut (as the result) may each be null.
struct Epilogue {
  const float *bias, *slope, *shortcut;  // shortcut may be the result itself: hence no __restrict__

  __device__ float operator()(float sum, long long i, int column) const {
    if (bias) sum += bias[column];
    if (slope && sum < 0) sum *= slope[column];
    return shortcut ? sum + shortcut[i] : sum;
  }
};

// The columns of one row of the tile that this thread made, `row` of the result; VECTOR divides `columns`.
template <int VECTOR>
__device__ __forceinline__ void write(float *result, const float *sums, long long row, int columns, Epilogue epilogue) {
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

// Blocks: tiles of rows, tiles of columns, parts of the depth. With more than one part y is (parts, N, P, Q, K) and
// bias, slope and shortcut are null: add_parts brings them in.
extern "C" __global__ void __launch_bounds__(THREADS, 1)
conv_forward(const float *__restrict__ x, const float *__restrict__ w, const float *__restrict__ bias,
             const float *__restrict__ slope, const float *shortcut, float *y, Geometry g) {
  int rows = g.N * g.P * g.Q, depth = g.R * g.S * g.C;
  Part part(depth, blockIdx.z, gridDim.z);

  using Left = Windows<1>;
  Left left(x, g.H, g.W, Tap(part.first * DEPTH + Left::depth(), g.R, g.S, g.C));
#pragma unroll
  for (int i = 0; i < Left::COUNT; i++) {
    int row = blockIdx.x * ROWS + Left::line(i), q = row % g.Q, p = row / g.Q % g.P, n = row / g.Q / g.P;
    left.begin(i, Left::line(i) < ROWS && row < rows, n, p * g.stride - g.top, q * g.stride - g.left);
  }
  Matrix right(w, part.first * DEPTH, depth, g.K);

  Sums sums = {};
  product(part.count, left, right, sums);
#pragma unroll
  for (int i = 0; i < THREAD_ROWS; i++) {
    int row = blockIdx.x * ROWS + row_in_tile(i);
    long long line = (long long)blockIdx.z * rows + row;
    if (row < rows) write<VECTOR_RESULT>(y, sums[i], line, g.K, {bias, slope, shortcut});
  }
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

// Blocks: tiles of the rows of the largest phase, tiles of columns, parts of the depth for each of the stride x stride
// phases. With more than one part dx is (parts, N, H, W, C).
extern "C" __global__ void __launch_bounds__(THREADS, 1)
conv_grad_input(const float *__restrict__ dy, const float *__restrict__ w, float *dx, Geometry g) {
  int phases = g.stride * g.stride, phase = blockIdx.z % phases;
  Phase down(g.H, g.R, g.top, g.stride, phase / g.stride), right(g.W, g.S, g.left, g.stride, phase % g.stride);
  int rows = g.N * down.pixels * right.pixels;
  if ((int)blockIdx.x * ROWS >= rows) return;
  Part part(down.taps * right.taps * g.K, blockIdx.z / phases, gridDim.z / phases);

  using Left = Windows<-1>;
  Left left(dy, g.P, g.Q, Tap(part.first * DEPTH + Left::depth(), down.taps, right.taps, g.K));
#pragma unroll
  for (int i = 0; i < Left::COUNT; i++) {
    int row = blockIdx.x * ROWS + Left::line(i);
    int q = row % right.pixels, p = row / right.pixels % down.pixels, n = row / right.pixels / down.pixels;
    left.begin(i, Left::line(i) < ROWS && row < rows, n, down.first + p, right.first + q);
  }
  Exchanged weights(w, left.tap, phase / g.stride, phase % g.stride, g);

  Sums sums = {};
  product(part.count, left, weights, sums);
#pragma unroll
  for (int i = 0; i < THREAD_ROWS; i++) {
    int row = blockIdx.x * ROWS + row_in_tile(i);
    if (row >= rows) continue;
    int column = right.pixel(row % right.pixels), n = row / right.pixels / down.pixels;
    long long line = (long long)(blockIdx.z / phases * g.N + n) * g.H + down.pixel(row / right.pixels % down.pixels);
    write<VECTOR_RESULT>(dx, sums[i], line * g.W + column, g.C, {});
  }
}

// Blocks: tiles of rows, tiles of columns, parts of the depth. With more than one part dw is (parts, R, S, C, K) and
// `before`, which is added otherwise unless it is null, is null.
extern "C" __global__ void __launch_bounds__(THREADS, 1)
conv_grad_weight(const float *__restrict__ x, const float *__restrict__ dy, const float *before, float *dw,
                 Geometry g) {
  int rows = g.R * g.S * g.C, depth = g.N * g.P * g.Q;
  Part part(depth, blockIdx.z, gridDim.z);
  Turned left(x, part.first * DEPTH, g);
  Matrix right(dy, part.first * DEPTH, depth, g.K);

  Sums sums = {};
  product(part.count, left, right, sums);
#pragma unroll
  for (int i = 0; i < THREAD_ROWS; i++) {
    int row = blockIdx.x * ROWS + row_in_tile(i);
    long long line = (long long)blockIdx.z * rows + row;
    if (row < rows) write<VECTOR_RESULT>(dw, sums[i], line, g.K, {nullptr, nullptr, before});
  }
}

// result (count) = the epilogue of the sum of parts (number, count); `columns` is the length of the result's last axis.
extern "C" __global__ void add_parts(const float *__restrict__ parts, const float *__restrict__ bias,
                                     const float *__restrict__ slope, const float *shortcut, float *result, int number,
                                     long long count, int columns) {
  long long i = (long long)blockIdx.x * blockDim.x + threadIdx.x;
  if (i >= count) return;
  float sum = 0;
  for (int part = 0; part < number; part++) sum += parts[part * count + i];
  result[i] = Epilogue{bias, slope, shortcut}(sum, i, i % columns);
}
