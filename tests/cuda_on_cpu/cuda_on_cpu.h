// CUDA on the CPU: compiles a .cu file as ordinary C++17 and runs it, every CUDA thread a fibre of its own.
//
// For proofs, not for speed. What a GPU leaves open is settled here in the least convenient way: shared memory is full of
// NaN when a block begins, an asynchronous copy arrives at the last possible moment, threads run in any order you ask for.
// What is forbidden becomes an error that names the thread and the line (the compiler's own checks for undefined behaviour
// help: their calls end here).
//
// The model, in short. A grid is many blocks, which know nothing of each other. A block is up to 1024 threads, which share
// memory and meet at barriers. 32 neighbours of a block are a warp, which can exchange registers and multiply matrices.
#pragma once
#include <csetjmp>
#include <csignal>
#include <cmath>
#include <cstdarg>
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <pthread.h>
#include <sys/mman.h>
#include <ucontext.h>
#include <type_traits>
#include <utility>

#define CUDA_ON_CPU
#ifndef __CUDA_ARCH__
#define __CUDA_ARCH__ 900
#endif
#define __global__
#define __device__
#define __host__
#define __constant__ static
#define __forceinline__ inline
#define __noinline__ __attribute__((noinline))
#define __restrict__ __restrict
#define __launch_bounds__(...)
#define __align__(bytes) __attribute__((aligned(bytes)))
// One section holds all of a kernel's shared arrays, so that they can be filled with NaN and measured.
#define __shared__ static __attribute__((section("cuda_shared")))
#define DYNAMIC_SHARED(type, name) type *const name = (type *)cuda_on_cpu::now.dynamic_shared
extern "C" __attribute__((weak, visibility("hidden"))) char __start_cuda_shared[], __stop_cuda_shared[];

struct uint3 {
  unsigned x, y, z;
};
typedef uint3 dim3;
struct alignas(8) float2 {
  float x, y;
};
struct alignas(16) float4 {
  float x, y, z, w;
};
struct alignas(8) int2 {
  int x, y;
};
struct alignas(16) int4 {
  int x, y, z, w;
};
struct alignas(16) uint4 {
  unsigned x, y, z, w;
};
inline float2 make_float2(float x, float y) { return {x, y}; }
inline float4 make_float4(float x, float y, float z, float w) { return {x, y, z, w}; }
inline int2 make_int2(int x, int y) { return {x, y}; }
inline int4 make_int4(int x, int y, int z, int w) { return {x, y, z, w}; }
inline uint4 make_uint4(unsigned x, unsigned y, unsigned z, unsigned w) { return {x, y, z, w}; }

namespace cuda_on_cpu {

constexpr int WARP = 32, MAX_THREADS = 1024, MAX_COPIES = 256;
constexpr size_t STACK = 128 * 1024, DEPOSIT = 64;
constexpr uint32_t POISON = 0x7fffdead;  // a NaN in float32, two of them a NaN in float64, and no sensible index

inline void poison(void *memory, size_t bytes) {
  for (size_t i = 0; i + 4 <= bytes; i += 4) memcpy((char *)memory + i, &POISON, 4);
}

enum State { READY, AT_BARRIER, IN_WARP, DONE };

struct Copy {
  void *shared;
  const void *global;
  bool inside;
  int group;
};

struct Thread {
  uint3 index;
  int number;
  State state;
  jmp_buf context;
  bool begun;
  Copy copies[MAX_COPIES];  // asynchronous copies under way, oldest first
  int copy_count, group;
};

// What the lanes of a warp hand to each other. The deposits of one exchange stay readable until the one after the next.
struct Warp {
  unsigned lanes, arrived[2], mask, generation;
  const char *operation;
  alignas(16) char deposit[2][WARP][DEPOSIT];
};

// All that is known about the launch that runs now. A library holds one kernel and runs one launch at a time.
struct Launch {
  dim3 grid, block;
  uint3 block_index;
  char *dynamic_shared;
  size_t dynamic_bytes;
  void (*kernel)(void **);
  void **arguments;
  Thread threads[MAX_THREADS], *thread;
  Warp warps[MAX_THREADS / WARP];
  int count, done, at_barrier, barrier_line;
  jmp_buf scheduler, failed;
  uint32_t random;
  bool running;
  pthread_t worker;
  char message[512];
  int line;
  void *address;
};
inline Launch now;

// Ends the launch with a message. Nothing of the fibres is unwound: their stacks are thrown away.
[[noreturn]] inline void fail(int line, const char *format, ...) {
  char text[400];
  va_list values;
  va_start(values, format);
  vsnprintf(text, sizeof text, format, values);
  va_end(values);
  const uint3 b = now.block_index, t = now.thread->index;
  snprintf(now.message, sizeof now.message, "block (%u, %u, %u), thread (%u, %u, %u): %s", b.x, b.y, b.z, t.x, t.y, t.z, text);
  now.line = line;
  _longjmp(now.failed, 1);
}

// --- Fibres. makecontext gives each thread a stack of its own; from then on setjmp and longjmp change between them, which
// takes nanoseconds, for unlike swapcontext they don't ask the operating system.

// Let others run; returns when the scheduler takes up this thread again.
inline void pause() {
  if (!_setjmp(now.thread->context)) _longjmp(now.scheduler, 1);
}

// The life of a fibre: one thread of every block.
inline void fibre() {
  for (;;) {
    now.kernel(now.arguments);
    Thread &thread = *now.thread;
    if (thread.copy_count) fail(0, "ends with asynchronous copies that it never waited for");
    thread.state = DONE;
    now.done++;
    now.warps[thread.number / WARP].lanes &= ~(1u << thread.number % WARP);
    pause();
  }
}

inline void resume(Thread &thread, char *stack) {
  now.thread = &thread;
  if (_setjmp(now.scheduler)) return;
  if (thread.begun) _longjmp(thread.context, 1);
  thread.begun = true;
  ucontext_t context;
  getcontext(&context);
  context.uc_stack.ss_sp = stack;
  context.uc_stack.ss_size = STACK;
  context.uc_link = nullptr;
  makecontext(&context, fibre, 0);
  setcontext(&context);
}

// --- Meeting points.

// __syncthreads: nobody goes on before all threads of the block are here, at the same line.
inline void barrier(int line) {
  if (now.at_barrier && now.barrier_line != line)
    fail(line, "waits at another barrier (line %d) than the threads before it (line %d)", line, now.barrier_line);
  now.barrier_line = line;
  now.thread->state = AT_BARRIER;
  if (++now.at_barrier == now.count) {
    now.at_barrier = 0;
    for (int i = 0; i < now.count; i++) now.threads[i].state = READY;
  }
  pause();
}

inline int lane() { return now.thread->number % WARP; }
inline Warp &warp() { return now.warps[now.thread->number / WARP]; }

// Every lane in the mask leaves a value and waits until all of them have; returns which of the two sets of deposits to read.
inline int exchange(const char *operation, unsigned mask, const void *value, size_t bytes) {
  Warp &w = warp();
  const int set = w.generation & 1;
  const unsigned me = 1u << lane();
  if (!(mask & me)) fail(0, "%s: the lane is not in its own mask %08x", operation, mask);
  if (!w.arrived[set]) w.mask = mask, w.operation = operation;
  if (w.mask != mask || w.operation != operation)
    fail(0, "lanes of one warp meet in %s (mask %08x) and %s (mask %08x)", w.operation, w.mask, operation, mask);
  if (bytes) memcpy(w.deposit[set][lane()], value, bytes);
  w.arrived[set] |= me;
  if (w.arrived[set] != (mask & w.lanes)) {
    now.thread->state = IN_WARP;
    pause();
    return set;
  }
  w.arrived[!set] = 0;
  w.generation++;
  Thread *first = now.thread - lane();
  for (int i = 0; i < WARP; i++)
    if (w.arrived[set] >> i & 1) first[i].state = READY;
  return set;
}

template <class T> T shuffle(const char *operation, unsigned mask, T value, int source, int width) {
  static_assert(sizeof(T) <= DEPOSIT, "too wide for a register");
  const int set = exchange(operation, mask, &value, sizeof value), first = lane() / width * width;
  if (source < first || source >= first + width) return value;
  T result;
  if (warp().arrived[set] >> source & 1)
    memcpy(&result, warp().deposit[set][source], sizeof result);
  else
    poison(&result, sizeof result);  // the register of a lane that isn't there
  return result;
}

// --- Blocks and grids.

inline uint32_t random_below(uint32_t n) {
  now.random ^= now.random << 13;
  now.random ^= now.random >> 17;
  now.random ^= now.random << 5;
  return now.random % n;
}

enum Order { ASCENDING, DESCENDING, RANDOM };

// Fill `list` with 0 .. n - 1 in the order asked for.
inline void arrange(int *list, int n, Order order) {
  for (int i = 0; i < n; i++) list[i] = order == DESCENDING ? n - 1 - i : i;
  if (order == RANDOM)
    for (int i = n - 1; i > 0; i--) std::swap(list[i], list[random_below(i + 1)]);
}

// Ascending and descending, each warp runs as far as it can before the next begins. In random order they take turns.
inline void run_block(Order order, char *stacks) {
  const int n = now.count, warps = (n + WARP - 1) / WARP;
  if (__start_cuda_shared) poison(__start_cuda_shared, __stop_cuda_shared - __start_cuda_shared);
  poison(now.dynamic_shared, now.dynamic_bytes);
  now.done = now.at_barrier = 0;
  for (int i = 0; i < warps; i++) now.warps[i] = {n - i * WARP >= WARP ? ~0u : (1u << n % WARP) - 1, {0, 0}, 0, 0, nullptr, {}};
  for (int i = 0; i < n; i++) {
    Thread &t = now.threads[i];
    const unsigned x = now.block.x, y = now.block.y;
    t.index = {i % x, i / x % y, i / x / y};
    t.number = i;
    t.state = READY;
    t.copy_count = t.group = 0;
  }
  int warp_order[MAX_THREADS / WARP], lane_order[WARP];
  while (now.done < n) {
    bool progress = false;
    arrange(warp_order, warps, order);
    for (int i = 0; i < warps; i++) {
      for (bool again = true; again;) {
        again = false;
        arrange(lane_order, WARP, order);
        for (int j = 0; j < WARP; j++) {
          const int number = warp_order[i] * WARP + lane_order[j];
          if (number >= n || now.threads[number].state != READY) continue;
          resume(now.threads[number], stacks + number * STACK);
          progress = true;
          again = order != RANDOM;
        }
      }
    }
    if (progress) continue;
    for (int i = 0; i < n; i++) {
      now.thread = &now.threads[i];
      if (now.thread->state == IN_WARP)
        fail(0, "waits in %s for lanes of its warp that never come", warp().operation);
      if (now.thread->state == AT_BARRIER)
        fail(now.barrier_line, "waits at a barrier that only %d of %d threads reach", now.at_barrier, n);
    }
  }
}

// An access outside all memory arrives as a signal. It may belong to somebody else: then it goes where it used to go.
inline struct sigaction before[NSIG];
inline void caught(int signal, siginfo_t *info, void *context) {
  if (now.running && pthread_equal(now.worker, pthread_self())) {
    now.address = signal == SIGFPE ? nullptr : info->si_addr;
    fail(0, signal == SIGFPE ? "divides by zero" : "reads or writes outside all memory");
  }
  struct sigaction &other = before[signal];
  if (other.sa_flags & SA_SIGINFO)
    other.sa_sigaction(signal, info, context);
  else if (other.sa_handler == SIG_DFL || other.sa_handler == SIG_IGN)
    sigaction(signal, &other, nullptr);  // returns to the same instruction, which now ends the process
  else
    other.sa_handler(signal);
}
__attribute__((constructor)) inline void catch_signals() {
  struct sigaction action = {};
  action.sa_sigaction = caught;
  action.sa_flags = SA_SIGINFO | SA_NODEFER;
  for (int signal : {SIGSEGV, SIGBUS, SIGFPE}) sigaction(signal, &action, &before[signal]);
}

struct Request {
  dim3 grid, block;
  void *dynamic_shared;
  size_t dynamic_bytes;
  void **arguments;
  int order;
  uint32_t seed;
  uint32_t first, step;  // of all blocks, do number first, first + step, ...
  char *message;         // 512 bytes
  int line;
  void *address;
};

inline int run(Request &request, void (*kernel)(void **)) {
  const Order order = (Order)request.order;
  now.grid = request.grid, now.block = request.block, now.kernel = kernel, now.arguments = request.arguments;
  now.dynamic_shared = (char *)request.dynamic_shared, now.dynamic_bytes = request.dynamic_bytes;
  now.count = now.block.x * now.block.y * now.block.z;
  now.thread = now.threads, now.worker = pthread_self(), now.running = true, now.address = nullptr;
  for (Thread &thread : now.threads) thread.begun = false;
  const size_t bytes = now.count * STACK;
  char *const stacks = (char *)mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  const unsigned x = now.grid.x, y = now.grid.y;
  const long long blocks = (long long)x * y * now.grid.z;
  const int failed = _setjmp(now.failed);
  if (!failed)
    for (long long i = request.first; i < blocks; i += request.step) {
      const unsigned b = order == DESCENDING ? blocks - 1 - i : i;
      now.block_index = {b % x, b / x % y, b / x / y};
      now.random = 2654435761u * (request.seed + b + 1) | 1;  // of its own in every block
      run_block(order, stacks);
    }
  now.running = false;
  munmap(stacks, bytes);
  memcpy(request.message, now.message, sizeof now.message);
  request.line = now.line, request.address = now.address;
  return failed;
}

// --- What the launcher must know of a kernel: its parameters, and how to call it with pointers to their values.

struct Parameter {
  int pointer, kind, bytes;  // kind: f, i or V, as in NumPy; of a pointer, of what it points to
};
template <class T> constexpr Parameter parameter() {
  using Value = std::remove_cv_t<std::remove_pointer_t<T>>;
  constexpr int kind = std::is_floating_point_v<Value> ? 'f' : std::is_integral_v<Value> ? 'i' : 'V';
  if constexpr (std::is_void_v<Value>)
    return {1, 'V', 0};
  else
    return {std::is_pointer_v<T>, kind, sizeof(Value)};
}
template <class... T> int parameters(void (*)(T...), Parameter *list) {
  const Parameter all[] = {parameter<T>()..., {}};
  memcpy(list, all, sizeof all - sizeof *all);
  return sizeof...(T);
}
template <class... T, size_t... i> void call(void (*kernel)(T...), void **values, std::index_sequence<i...>) {
  kernel(*(T *)values[i]...);
}
template <class... T> void call(void (*kernel)(T...), void **values) { call(kernel, values, std::index_sequence_for<T...>{}); }

}  // namespace cuda_on_cpu

#define threadIdx (cuda_on_cpu::now.thread->index)
#define blockIdx (cuda_on_cpu::now.block_index)
#define blockDim (cuda_on_cpu::now.block)
#define gridDim (cuda_on_cpu::now.grid)
#define warpSize 32
#define __syncthreads() cuda_on_cpu::barrier(__LINE__)

inline void __syncwarp(unsigned mask = ~0u) { cuda_on_cpu::exchange("__syncwarp", mask, nullptr, 0); }
template <class T> T __shfl_sync(unsigned mask, T value, int source, int width = 32) {
  const int first = cuda_on_cpu::lane() / width * width;
  return cuda_on_cpu::shuffle("__shfl_sync", mask, value, first + (source & (width - 1)), width);
}
template <class T> T __shfl_xor_sync(unsigned mask, T value, int bits, int width = 32) {
  return cuda_on_cpu::shuffle("__shfl_xor_sync", mask, value, cuda_on_cpu::lane() ^ bits, width);
}
template <class T> T __shfl_down_sync(unsigned mask, T value, unsigned distance, int width = 32) {
  return cuda_on_cpu::shuffle("__shfl_down_sync", mask, value, cuda_on_cpu::lane() + (int)distance, width);
}
template <class T> T __shfl_up_sync(unsigned mask, T value, unsigned distance, int width = 32) {
  return cuda_on_cpu::shuffle("__shfl_up_sync", mask, value, cuda_on_cpu::lane() - (int)distance, width);
}

template <class T> T __ldg(const T *p) { return *p; }
template <class T> T min(T a, T b) { return b < a ? b : a; }
template <class T> T max(T a, T b) { return a < b ? b : a; }
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

// --- Tensor cores and asynchronous copies, under the names that common.cuh gives the instructions.

// cvt.rna: to the nearest, half way cases away from zero. Infinities and NaN stay what they are.
inline unsigned to_tf32(float x) {
  const unsigned bits = __float_as_uint(x);
  return std::isfinite(x) ? (bits + 0x1000) & 0xffffe000 : bits;
}

// mma.m16n8k8. Each lane computes its four sums from everybody's a and b.
inline void multiply_add(float sum[4], const unsigned a[4], const unsigned b[2]) {
  struct {
    unsigned a[4], b[2];
  } mine, other;
  memcpy(mine.a, a, sizeof mine.a);
  memcpy(mine.b, b, sizeof mine.b);
  const int set = cuda_on_cpu::exchange("multiply_add", ~0u, &mine, sizeof mine), lane = cuda_on_cpu::lane();
  // The tensor cores don't look at the lowest 13 bits. A product of two such numbers is exact.
  const auto value = [](unsigned bits) { return __uint_as_float(bits & 0xffffe000); };
  const auto fragment = [&](int i, int j) { memcpy(&other, cuda_on_cpu::warp().deposit[set][4 * i + j], sizeof other); };
  for (int k = 0; k < 8; k++) {
    float left[2], right[2];
    fragment(lane / 4, k % 4);
    for (int half = 0; half < 2; half++) left[half] = value(other.a[half + k / 4 * 2]);  // rows i and i + 8
    for (int side = 0; side < 2; side++) {                                              // columns 2 j and 2 j + 1
      fragment(lane % 4 * 2 + side, k % 4);
      right[side] = value(other.b[k / 4]);
    }
    for (int n = 0; n < 4; n++) sum[n] += left[n / 2] * right[n % 2];
  }
}

inline void copy_16(void *shared, const void *global, bool inside) {
  auto &thread = *cuda_on_cpu::now.thread;
  if ((uintptr_t)shared % 16) cuda_on_cpu::fail(0, "copy_16: the address in shared memory is no multiple of 16");
  if ((uintptr_t)global % 16) cuda_on_cpu::fail(0, "copy_16: the address in global memory is no multiple of 16");
  if (thread.copy_count == cuda_on_cpu::MAX_COPIES) cuda_on_cpu::fail(0, "copy_16: too many copies that nobody waited for");
  cuda_on_cpu::poison(shared, 16);
  thread.copies[thread.copy_count++] = {shared, global, inside, thread.group};
}
inline void copy_commit() { cuda_on_cpu::now.thread->group++; }

// Only now do the copies arrive, and no more of them than must. Those after the last commit don't.
template <int pending> void copy_wait() {
  auto &thread = *cuda_on_cpu::now.thread;
  int arrived = 0;
  for (; arrived < thread.copy_count && thread.copies[arrived].group < thread.group - pending; arrived++) {
    const auto &copy = thread.copies[arrived];
    if (copy.inside)
      memcpy(copy.shared, copy.global, 16);
    else
      memset(copy.shared, 0, 16);
  }
  thread.copy_count -= arrived;
  memmove(thread.copies, thread.copies + arrived, thread.copy_count * sizeof *thread.copies);
}
