// How slices of the two matrices of conv_tf32.cu are copied from global to shared memory.
//
// The matrices are Windows and TransposedWindows (left), Matrix and TransposedFilter (right). Each has copy(), which
// starts the copies of this thread's part of the next slice.

// ---------------------------------------------------------------- a slice in shared memory
//
// A line is a row of the left matrix or a column of the right one. A slice has DEPTH elements of each line, in the
// order that they have in global memory, since 16 contiguous bytes are copied at a time. Contiguous elements belong to
// one line in some matrices and to one depth in the others.
//
// Shared memory has 32 banks. The 32 reads of a warp take one cycle if they go to 32 different banks. For multiply_add,
// lane 4 i + j reads line i at depth j. If lines are DEPTH + 4 elements apart, that is bank 4 i + j. If depths are
// LINES + 8 elements apart, it is bank 8 j + i. Both are free of conflicts; without the padding of 4 or 8, groups of
// eight or four lanes would share a bank.

// Contiguous elements belong to one line. Each thread copies four of them, at a fixed depth, for COUNT lines.
template <int LINES> struct AlongDepth {
  static constexpr int PITCH = DEPTH + 4, SIZE = LINES * PITCH, LANES = DEPTH / 4, STEP = THREADS / LANES;
  static constexpr int COUNT = LINES / STEP;

  static __device__ int at(int line, int depth) { return line * PITCH + depth; }
  static __device__ int depth() { return threadIdx.x % LANES * 4; }
  static __device__ int line(int i) { return threadIdx.x / LANES + i * STEP; }
};

// Contiguous elements belong to one depth. Each thread copies four of them, from fixed lines, at COUNT depths.
template <int LINES> struct AcrossLines {
  static constexpr int PITCH = LINES + 8, SIZE = DEPTH * PITCH, LANES = LINES / 4, STEP = THREADS / LANES;
  static constexpr int COUNT = DEPTH / STEP;

  static __device__ int at(int line, int depth) { return depth * PITCH + line; }
  static __device__ int line() { return threadIdx.x % LANES * 4; }
  static __device__ int depth(int i) { return threadIdx.x / LANES + i * STEP; }
};

// ---------------------------------------------------------------- where the elements of each matrix lie

// A position along the depth: a tap (r, s) and a channel. Channels are the fastest, then s. A slice has only one tap.
struct Tap {
  int r, s, channel, columns, channels;

  __device__ Tap(int depth, int columns, int channels) : columns(columns), channels(channels) {
    int across = max(columns, 1);  // a phase has no taps where the stride exceeds the filter
    channel = depth % channels, s = depth / channels % across, r = depth / channels / across;
  }
  __device__ void advance() {
    if ((channel += DEPTH) < channels) return;
    channel = 0;
    if (++s == columns) s = 0, r++;
  }
};

// Left, for y and dx: a row is the window that starts at pixel (top, left) of an image. It extends down and right (y,
// DIRECTION 1) or up and left (dx, DIRECTION -1). `inside` records once which taps lie in the image: bit r for the row,
// bit 16 + s for the column.
template <int DIRECTION> struct Windows : AlongDepth<ROWS> {
  const float *images;
  int height, width, rows;
  Tap tap;
  const float *first[COUNT];
  unsigned inside[COUNT];

  __device__ Windows(const float *images, int height, int width, int rows, Tap tap)
      : images(images), height(height), width(width), rows(rows), tap(tap) {}

  __device__ void set_window(int i, bool exists, int n, int top, int left) {
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

// Right, for y and dw: a matrix as it is stored.
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

// Right, for dx: w with c and k exchanged. Only every stride-th tap belongs to it, starting at (first_r, first_s).
struct TransposedFilter : AlongDepth<COLUMNS> {
  const float *w;
  const Tap &tap;  // the left matrix's, which is at the same depth
  int first_r, first_s, columns, stride, channels;

  __device__ TransposedFilter(const float *w, const Tap &tap, int first_r, int first_s, const Geometry &g)
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

// Left, for dw: a row is one tap (r, s, c), and the depth runs over the windows. Rows beyond the last tap are not
// masked: they copy pixels of the image, too, and write() discards their results.
struct TransposedWindows : AcrossLines<ROWS> {
  const float *x;
  const Geometry &g;
  int down, right, c, n, p, q;  // this thread's tap, and the window to copy next

  __device__ TransposedWindows(const float *x, int first, const Geometry &g) : x(x), g(g) {
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
