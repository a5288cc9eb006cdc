// How slices of the two matrices of conv_tiled.cu get from global memory, through registers, to shared memory.
//
// The matrices are Windows and TransposedWindows (left), Matrix and TransposedFilter (right). Each has load_next(),
// which loads this thread's part of the next slice into registers, and store(), which writes it to shared memory.

// One slice of both matrices, indexed by depth first, because a thread reads neighbouring elements of one depth. The
// padding of four elements puts the lines into different banks, so that a warp can also write a column without
// conflicts.
struct alignas(16) Slice {
  float left[DEPTH][ROWS + 4], right[DEPTH][COLUMNS + 4];
};
__shared__ Slice slices[2];  // the one being multiplied, and the next one

__device__ constexpr int at_most(int a, int b) { return a < b ? a : b; }

// Load VECTOR contiguous elements, or zeros where `from` is null.
template <int VECTOR> __device__ __forceinline__ void load(float *to, const float *from) {
  if (VECTOR == 4) {
    float4 four = make_float4(0, 0, 0, 0);
    if (from) four = *(const float4 *)from;
    to[0] = four.x, to[1] = four.y, to[2] = four.z, to[3] = four.w;
  } else {
    *to = from ? *from : 0;
  }
}

// ---------------------------------------------------------------- how threads divide a slice
//
// A line is a row of the left matrix or a column of the right one. Neighbouring threads load contiguous elements, which
// belong to one line in some matrices and to one depth in the others.

// Contiguous elements belong to one line: each thread loads VECTOR of them, at a fixed depth of the slice, from COUNT
// lines.
template <int LINES, int VECTOR> struct AlongDepth {
  static constexpr int LANES = DEPTH / VECTOR, STEP = THREADS / LANES, COUNT = (LINES + STEP - 1) / STEP;
  static_assert(THREADS % LANES == 0 && COUNT <= 16, "this tile would need too many registers for its loads");
  float loaded[COUNT][VECTOR];

  static __device__ int depth() { return threadIdx.x % LANES * VECTOR; }
  static __device__ int line(int i) { return threadIdx.x / LANES + i * STEP; }

  __device__ void store(float (*slice)[LINES + 4]) const {
#pragma unroll
    for (int i = 0; i < COUNT; i++)
      if (LINES % STEP == 0 || line(i) < LINES)
#pragma unroll
        for (int j = 0; j < VECTOR; j++) slice[depth() + j][line(i)] = loaded[i][j];
  }
};

// Contiguous elements belong to one depth: each thread loads VECTOR of them, from fixed lines, at COUNT depths.
template <int LINES, int VECTOR> struct AcrossLines {
  static constexpr int LANES = LINES / VECTOR, STEP = at_most(THREADS / LANES, DEPTH), COUNT = DEPTH / STEP;
  static_assert(THREADS % LANES == 0 && DEPTH % STEP == 0, "this tile has too few threads for its lines");
  float loaded[COUNT][VECTOR];

  static __device__ int line() { return threadIdx.x % LANES * VECTOR; }
  static __device__ int depth(int i) { return threadIdx.x / LANES + i * STEP; }

  __device__ void store(float (*slice)[LINES + 4]) const {
#pragma unroll
    for (int i = 0; i < COUNT; i++)
      if (THREADS / LANES <= DEPTH || depth(i) < DEPTH)
#pragma unroll
        for (int j = 0; j < VECTOR; j++) slice[depth(i)][line() + j] = loaded[i][j];
  }
};

// ---------------------------------------------------------------- where the elements of each matrix lie

// A position along the depth: a tap (r, s) and a channel. Channels are the fastest, then s.
struct Tap {
  int r, s, channel, rows, columns, channels;

  __device__ Tap(int depth, int rows, int columns, int channels) : rows(rows), columns(columns), channels(channels) {
    int across = max(columns, 1);  // a phase has no taps where the stride exceeds the filter
    channel = depth % channels, s = depth / channels % across, r = depth / channels / across;
  }
  __device__ bool exists() const { return r < rows; }
  __device__ void advance() {
    for (channel += DEPTH; channel >= channels; channel -= channels)
      if (++s >= columns) s = 0, r++;
  }
};

// Left, for y and dx: a row is the window that starts at pixel (top, left) of an image. It extends down and right (y,
// DIRECTION 1) or up and left (dx, DIRECTION -1).
template <int DIRECTION> struct Windows : AlongDepth<ROWS, VECTOR_LEFT> {
  const float *images;
  int height, width;
  Tap tap;
  int above[COUNT], top[COUNT], left[COUNT];  // above: the rows of all earlier images

  __device__ Windows(const float *images, int height, int width, Tap tap)
      : images(images), height(height), width(width), tap(tap) {}

  __device__ void set_window(int i, bool exists, int n, int row, int column) {
    above[i] = n * height, left[i] = column;
    top[i] = exists ? row : -(1 << 30);  // far above the image: all of the window is outside
  }
  __device__ void load_next() {
#pragma unroll
    for (int i = 0; i < COUNT; i++) {
      int row = top[i] + DIRECTION * tap.r, column = left[i] + DIRECTION * tap.s;
      bool inside = tap.exists() && (unsigned)row < height && (unsigned)column < width;
      unsigned pixel = (unsigned)(above[i] + row) * width + column;
      load<VECTOR_LEFT>(loaded[i], inside ? images + ((long long)pixel * tap.channels + tap.channel) : nullptr);
    }
    tap.advance();
  }
};

// Right, for y and dw: a matrix as it is stored.
struct Matrix : AcrossLines<COLUMNS, VECTOR_RIGHT> {
  const float *matrix;
  int first, depths, column, columns;

  __device__ Matrix(const float *matrix, int first, int depths, int columns)
      : matrix(matrix), first(first), depths(depths), column(blockIdx.y * COLUMNS + line()), columns(columns) {}

  __device__ void load_next() {
#pragma unroll
    for (int i = 0; i < COUNT; i++) {
      int at = first + depth(i);
      bool inside = at < depths && column < columns;
      load<VECTOR_RIGHT>(loaded[i], inside ? matrix + ((long long)at * columns + column) : nullptr);
    }
    first += DEPTH;
  }
};

// Right, for dx: w with c and k exchanged. Only every stride-th tap belongs to it, starting at (first_r, first_s).
struct TransposedFilter : AlongDepth<COLUMNS, VECTOR_RIGHT> {
  const float *w;
  const Tap &tap;  // the left matrix's, which is at the same depth
  int first_r, first_s, columns, stride, channels;

  __device__ TransposedFilter(const float *w, const Tap &tap, int first_r, int first_s, const Geometry &g)
      : w(w), tap(tap), first_r(first_r), first_s(first_s), columns(g.S), stride(g.stride), channels(g.C) {}

  __device__ void load_next() {
    long long r = first_r + stride * tap.r, s = first_s + stride * tap.s;
    const float *channel = w + ((r * columns + s) * channels * tap.channels + tap.channel);
#pragma unroll
    for (int i = 0; i < COUNT; i++) {
      int c = blockIdx.y * COLUMNS + line(i);
      load<VECTOR_RIGHT>(loaded[i], tap.exists() && c < channels ? channel + (long long)c * tap.channels : nullptr);
    }
  }
};

// Left, for dw: a row is one tap (r, s, c), and the depth runs over the windows.
struct TransposedWindows : AcrossLines<ROWS, VECTOR_LEFT> {
  const float *x;
  const Geometry &g;
  int down, right, c, n, p, q;
  bool exists;

  __device__ TransposedWindows(const float *x, int first, const Geometry &g) : x(x), g(g) {
    int row = blockIdx.x * ROWS + line(), pixel = first + depth(0);
    c = row % g.C, down = row / g.C / g.S - g.top, right = row / g.C % g.S - g.left;
    exists = row < g.R * g.S * g.C;
    q = pixel % g.Q, p = pixel / g.Q % g.P, n = pixel / g.Q / g.P;
  }
  __device__ void load_next() {
#pragma unroll
    for (int i = 0; i < COUNT; i++) {
      int h = p * g.stride + down, w = q * g.stride + right;
      bool inside = exists && n < g.N && (unsigned)h < g.H && (unsigned)w < g.W;
      load<VECTOR_LEFT>(loaded[i], inside ? x + ((((long long)n * g.H + h) * g.W + w) * g.C + c) : nullptr);
      for (q += STEP; q >= g.Q; q -= g.Q)
        if (++p == g.P) p = 0, n++;
    }
  }
};
