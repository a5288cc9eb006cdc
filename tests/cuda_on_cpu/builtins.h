// What kernels call: CUDA's built-in variables and functions, tensor cores and asynchronous copies.

#define threadIdx (cuda::now.thread->index)
#define blockIdx (cuda::now.block_index)
#define blockDim (cuda::now.block)
#define gridDim (cuda::now.grid)
#define warpSize 32

// --- CUDA's functions. __builtin_LINE() is the line of the call.

inline void __syncthreads(int line = __builtin_LINE()) { cuda::barrier(line); }
inline int __syncthreads_or(int any, int line = __builtin_LINE()) {
  static unsigned said = -1;  // the last barrier at which a thread said yes
  const unsigned here = cuda::now.barriers;
  if (any) said = here;
  cuda::barrier(line);
  return said == here;
}
inline void __syncwarp(unsigned mask = ~0u, int line = __builtin_LINE()) {
  cuda::exchange("__syncwarp", line, mask, nullptr, 0);
}
template <class T> T __shfl_sync(unsigned mask, T value, int source, int width = 32, int line = __builtin_LINE()) {
  return cuda::shuffle("__shfl_sync", line, mask, value, cuda::lane() / width * width + (source & (width - 1)), width);
}
template <class T> T __shfl_xor_sync(unsigned mask, T value, int bits, int width = 32, int line = __builtin_LINE()) {
  return cuda::shuffle("__shfl_xor_sync", line, mask, value, cuda::lane() ^ bits, width);
}
template <class T> T __shfl_down_sync(unsigned mask, T value, int lanes, int width = 32, int line = __builtin_LINE()) {
  return cuda::shuffle("__shfl_down_sync", line, mask, value, cuda::lane() + lanes, width);
}
template <class T> T __shfl_up_sync(unsigned mask, T value, int lanes, int width = 32, int line = __builtin_LINE()) {
  return cuda::shuffle("__shfl_up_sync", line, mask, value, cuda::lane() - lanes, width);
}

// Blocks run one after the other, so what one wrote is visible to the next.
inline void __threadfence() {}
inline unsigned atomicInc(unsigned *address, unsigned most) {
  const unsigned before = *address;
  *address = before >= most ? 0 : before + 1;
  return before;
}

template <class T> T __ldg(const T *address) { return *address; }
template <class A, class B> std::common_type_t<A, B> min(A a, B b) { return b < a ? b : a; }
template <class A, class B> std::common_type_t<A, B> max(A a, B b) { return a < b ? b : a; }
inline float rsqrtf(float x) { return 1 / sqrtf(x); }
inline float __expf(float x) { return expf(x); }
inline float __fdividef(float a, float b) { return a / b; }
inline float __fadd_rn(float a, float b) { return a + b; }
inline float __fmul_rn(float a, float b) { return a * b; }
inline float __fmaf_rn(float a, float b, float c) { return fmaf(a, b, c); }
inline unsigned __float_as_uint(float x) {
  unsigned bits;
  memcpy(&bits, &x, 4);
  return bits;
}
inline float __uint_as_float(unsigned bits) {
  float x;
  memcpy(&x, &bits, 4);
  return x;
}

// --- Tensor cores and asynchronous copies, under the names of kernels/tensor_cores.cuh.

// cvt.rna: round to nearest, ties away from zero. Infinities and NaN are unchanged.
inline unsigned to_tf32(float x) {
  const unsigned bits = __float_as_uint(x);
  return std::isfinite(x) ? (bits + 0x1000) & 0xffffe000 : bits;
}

// sum + the four products as tensor cores add: all five are aligned to the largest, what lies below its 24 bits is cut off,
// and so is the total's (Fasi, Higham, Mikaitis, Pranesh 2021, "Numerical behavior of NVIDIA tensor cores").
inline float add_cut_off(float sum, const double products[4]) {
  double largest = fabs((double)sum);
  for (int k = 0; k < 4; k++) largest = fmax(largest, fabs(products[k]));
  const double plain = sum + products[0] + products[1] + products[2] + products[3];
  if (largest == 0 || !std::isfinite(plain)) return plain;
  const double unit = ldexp(1.0, ilogb(largest) - 23);
  double total = trunc(sum / unit);
  for (int k = 0; k < 4; k++) total += trunc(products[k] / unit);
  uint64_t bits;
  memcpy(&bits, &total, 8);
  bits &= ~0x1fffffffull;  // of a double's 53 bits, the 24 that a float has
  memcpy(&total, &bits, 8);
  return total * unit;
}

// mma.m16n8k8: each lane computes its four sums from the a and b of all lanes.
inline void multiply_add(float sum[4], const unsigned a[4], const unsigned b[2], int line = __builtin_LINE()) {
  struct Fragments {
    unsigned a[4], b[2];
  } mine;
  memcpy(mine.a, a, sizeof mine.a);
  memcpy(mine.b, b, sizeof mine.b);
  const int set = cuda::exchange("multiply_add", line, ~0u, &mine, sizeof mine);
  const int i = cuda::lane() / 4, j = cuda::lane() % 4;
  const auto of_lane = [&](int lane) { return (const Fragments *)cuda::warp().deposit[set][lane]; };
  // The tensor cores ignore the lowest 13 bits. The product of two such values is exact.
  const auto value = [](unsigned bits) { return __uint_as_float(bits & 0xffffe000); };
  for (int half = 0; half < 2; half++)
    for (int n = 0; n < 4; n++) {  // rows i and i + 8, columns 2 j and 2 j + 1
      double products[4];
      for (int k = 0; k < 4; k++) {
        const unsigned left = of_lane(4 * i + k)->a[n / 2 + half * 2];
        const unsigned right = of_lane(4 * (2 * j + n % 2) + k)->b[half];
        products[k] = (double)value(left) * value(right);
      }
      sum[n] = add_cut_off(sum[n], products);
    }
}

inline void copy_16(void *shared, const void *global, bool inside, int line = __builtin_LINE()) {
  cuda::Thread &thread = *cuda::now.thread;
  thread.line = line;
  if ((uintptr_t)shared % 16) cuda::fail(line, "copies to shared memory that is not aligned to 16 bytes");
  if ((uintptr_t)global % 16) cuda::fail(line, "copies from memory that is not aligned to 16 bytes");
  if (thread.copy_count == cuda::MAX_COPIES) cuda::fail(line, "has %d copies under way", thread.copy_count);
  cuda::touch(shared, 16, true, line);
  cuda::poison(shared, 16);
  thread.copies[thread.copy_count++] = {shared, global, inside, thread.group};
}
inline void copy_commit() { cuda::now.thread->group++; }

// Perform the pending copies that must have arrived by now, and no others.
template <int pending> void copy_wait(int line = __builtin_LINE()) {
  cuda::Thread &thread = *cuda::now.thread;
  int arrived = 0;
  for (; arrived < thread.copy_count && thread.copies[arrived].group < thread.group - pending; arrived++) {
    const cuda::Copy &copy = thread.copies[arrived];
    cuda::touch(copy.shared, 16, true, line);
    if (copy.inside) cuda::touch(copy.global, 16, false, line);
    if (copy.inside)
      memcpy(copy.shared, copy.global, 16);
    else
      memset(copy.shared, 0, 16);
  }
  thread.copy_count -= arrived;
  memmove(thread.copies, thread.copies + arrived, thread.copy_count * sizeof *thread.copies);
}
