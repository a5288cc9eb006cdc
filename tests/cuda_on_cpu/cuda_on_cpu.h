// CUDA's execution model on the CPU, to prove kernels where there is no GPU: put in front of a .cu file's text, it makes
// C++17 of it. Every CUDA thread is a fibre, a stack of its own; the scheduler below runs them in turns on one core, and
// switches where threads wait for each other. What a GPU may do at its leisure is done here at the worst moment:
//
//   shared memory        holds NaN until it is written, in every block anew
//   asynchronous copies  arrive only when they are waited for; until then there is NaN
//   threads              run in ascending, descending or random order from barrier to barrier
//   tensor cores         see only the bits of a tf32 number, and only what each lane really holds
//
// A missing barrier or wait thus shows in the numbers in one of the orders at least.
#pragma once
#include <setjmp.h>
#include <ucontext.h>

#include <algorithm>
#include <cfloat>
#include <cmath>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <new>
#include <utility>
#include <vector>

#define CUDA_ON_CPU 1

// ---------------------------------------------------------------- what the compiler of CUDA knows by itself

#define __global__
#define __device__
#define __host__
#define __constant__ static
#define __forceinline__ inline
#define __launch_bounds__(...)
#define __align__(n) __attribute__((aligned(n)))
#define __restrict__ __restrict
#define __shared__ static __attribute__((section("shared_memory")))  // one stretch of memory, to be filled with NaN
#define DYNAMIC_SHARED(type, name) type *name = (type *)cuda::scheduler.dynamic

struct uint3 { unsigned x, y, z; };
struct dim3 { unsigned x = 1, y = 1, z = 1; };
struct alignas(8) float2 { float x, y; };
struct alignas(16) float4 { float x, y, z, w; };
struct alignas(8) int2 { int x, y; };
struct alignas(16) int4 { int x, y, z, w; };
struct alignas(16) double2 { double x, y; };
inline float2 make_float2(float x, float y) { return {x, y}; }
inline float4 make_float4(float x, float y, float z, float w) { return {x, y, z, w}; }
inline int2 make_int2(int x, int y) { return {x, y}; }
inline int4 make_int4(int x, int y, int z, int w) { return {x, y, z, w}; }

namespace cuda {

constexpr int WARP = 32;
constexpr size_t STACK = 64 * 1024;
constexpr size_t MOST_STATIC = 48 * 1024, MOST_SHARED = 227 * 1024;  // of an H100's shared memory, for one block

// ---------------------------------------------------------------- threads, and who runs when

enum State { READY, AT_BARRIER, IN_WARP, DONE };

struct Copy { void *to; const void *from; bool inside; };

struct Thread {
  uint3 index;
  int number, lane;
  State state;
  bool begun;
  jmp_buf place;       // where it was when it last gave way
  ucontext_t context;  // its stack
  char *stack = nullptr;
  std::vector<Copy> begun_copies;               // not committed yet
  std::vector<std::vector<Copy>> copy_groups;   // committed, the oldest first
};

struct Warp {
  int live, arrived;                        // lanes that still run; of them, those that have come to the exchange
  unsigned round;                           // counts exchanges
  // What every lane shows the others. In turns: who is ahead shows the next while others still read the last.
  alignas(16) unsigned char post[2][WARP][64];
};

struct Scheduler {
  std::vector<Thread> threads;
  std::vector<Warp> warps;
  Thread *current = nullptr;
  jmp_buf place;
  uint3 block;
  dim3 grid_size, block_size;
  void (*kernel)(void *) = nullptr;
  void *arguments = nullptr;
  char *dynamic = nullptr;
  size_t dynamic_bytes = 0;
  int live = 0, waiting = 0;
  int order = 0;  // 0 ascending, 1 descending, 2 random
  unsigned random = 1;
  const char *error = nullptr;
};
inline Scheduler scheduler;

inline void give_way() {
  if (!_setjmp(scheduler.current->place)) _longjmp(scheduler.place, 1);
}

// End the launch with an error; the thread never goes on.
[[noreturn]] inline void fail(const char *message) {
  scheduler.error = message;
  _longjmp(scheduler.place, 1);
}

inline void thread_main() {
  scheduler.kernel(scheduler.arguments);
  Thread &thread = *scheduler.current;
  if (!thread.begun_copies.empty() || !thread.copy_groups.empty())
    fail("a thread ended with asynchronous copies that it never waited for");
  thread.state = DONE;
  give_way();
}

inline void run(Thread &thread) {
  scheduler.current = &thread;
  if (_setjmp(scheduler.place)) return;  // the thread gave way
  if (thread.begun) _longjmp(thread.place, 1);
  thread.begun = true;
  setcontext(&thread.context);
}

inline unsigned dice() {  // xorshift
  unsigned &x = scheduler.random;
  x ^= x << 13, x ^= x >> 17, x ^= x << 5;
  return x;
}

template <class T> void shuffle(std::vector<T> &items) {
  for (size_t i = items.size(); i > 1; i--) std::swap(items[i - 1], items[dice() % i]);
}

inline void poison(void *memory, size_t bytes) {  // with NaN
  uint32_t *word = (uint32_t *)memory;
  for (size_t i = 0; i < bytes / 4; i++) word[i] = 0x7fc0dead;
}

extern "C" {  // the linker's names for the ends of the section
extern char __start_shared_memory[] __attribute__((weak));
extern char __stop_shared_memory[] __attribute__((weak));
}
inline size_t static_bytes() { return __start_shared_memory ? __stop_shared_memory - __start_shared_memory : 0; }

inline void begin_block() {
  Scheduler &s = scheduler;
  if (static_bytes()) poison(__start_shared_memory, static_bytes());
  poison(s.dynamic, s.dynamic_bytes);
  int count = (int)s.threads.size();
  for (int i = 0; i < count; i++) {
    Thread &thread = s.threads[i];
    unsigned x = s.block_size.x, y = s.block_size.y;
    thread.index = {i % x, i / x % y, i / x / y};
    thread.number = i, thread.lane = i % WARP, thread.state = READY, thread.begun = false;
    thread.begun_copies.clear(), thread.copy_groups.clear();
    getcontext(&thread.context);
    thread.context.uc_stack.ss_sp = thread.stack;
    thread.context.uc_stack.ss_size = STACK;
    thread.context.uc_link = nullptr;
    makecontext(&thread.context, thread_main, 0);
  }
  for (size_t i = 0; i < s.warps.size(); i++) {
    s.warps[i].arrived = 0;
    s.warps[i].live = std::min(WARP, count - (int)i * WARP);
  }
  s.live = count, s.waiting = 0;
}

// Run all threads of a block, from barrier to barrier.
inline void run_block() {
  Scheduler &s = scheduler;
  begin_block();
  std::vector<int> turns(s.threads.size());
  for (size_t i = 0; i < turns.size(); i++) turns[i] = (int)(s.order == 1 ? turns.size() - 1 - i : i);
  while (s.live) {
    if (s.order == 2) shuffle(turns);
    bool progress = false;
    for (int i : turns) {
      Thread &thread = s.threads[i];
      Warp &warp = s.warps[i / WARP];
      if (thread.state != READY && thread.state != IN_WARP) continue;
      unsigned round = warp.round;
      bool waited = thread.state == IN_WARP;
      thread.state = READY;
      run(thread);
      if (s.error) return;
      progress |= !waited || thread.state != IN_WARP || warp.round != round;
      if (thread.state == DONE) s.live--, warp.live--;
    }
    if (s.live && s.waiting == s.live) {
      s.waiting = 0, progress = true;
      for (Thread &thread : s.threads)
        if (thread.state == AT_BARRIER) thread.state = READY;
    }
    if (s.live && !progress) {
      s.error = "deadlock: some threads wait for others that never come (__syncthreads, or a warp's exchange)";
      return;
    }
  }
}

// Kernels whose threads never wait for each other need no fibres.
inline void run_block_plainly() {
  Scheduler &s = scheduler;
  Thread &thread = s.threads[0];
  int count = (int)(s.block_size.x * s.block_size.y * s.block_size.z);
  unsigned x = s.block_size.x, y = s.block_size.y;
  s.current = &thread;
  for (int i = 0; i < count; i++) {
    int turn = s.order == 0 ? i : count - 1 - i;
    thread.index = {turn % x, turn / x % y, turn / x / y};
    s.kernel(s.arguments);
  }
}

inline const char *launch(dim3 grid, dim3 block, size_t dynamic, int order, bool plain, void (*kernel)(void *),
                          void *arguments) {
  Scheduler &s = scheduler;
  size_t count = (size_t)block.x * block.y * block.z;
  if (count == 0 || count > 1024) return "a block has 1 to 1024 threads";
  if (!grid.x || !grid.y || !grid.z || grid.y > 65535 || grid.z > 65535)
    return "a grid has at least one block, and at most 65535 along y and z";
  if (static_bytes() > MOST_STATIC) return "more static shared memory than the 48 KiB that a block may have";
  if (static_bytes() + dynamic > MOST_SHARED) return "more shared memory than the 227 KiB that a block may have";
  s.error = nullptr, s.order = order, s.random = 2654435761u;
  s.grid_size = grid, s.block_size = block, s.kernel = kernel, s.arguments = arguments;
  s.dynamic_bytes = dynamic;
  s.dynamic = (char *)std::aligned_alloc(128, (dynamic + 128) / 128 * 128);
  for (Thread &thread : s.threads) std::free(thread.stack);
  s.threads = std::vector<Thread>(plain ? 1 : count);
  for (Thread &thread : s.threads) thread.stack = (char *)std::malloc(STACK);
  s.warps.resize((count + WARP - 1) / WARP);

  std::vector<uint3> blocks;
  for (unsigned z = 0; z < grid.z; z++)
    for (unsigned y = 0; y < grid.y; y++)
      for (unsigned x = 0; x < grid.x; x++) blocks.push_back({x, y, z});
  if (order == 1) std::reverse(blocks.begin(), blocks.end());
  if (order == 2) shuffle(blocks);
  for (uint3 at : blocks) {
    s.block = at;
    plain ? run_block_plainly() : run_block();
    if (s.error) break;
  }
  std::free(s.dynamic);
  return s.error;
}

// ---------------------------------------------------------------- a kernel's arguments, checked as CuPy can't

template <class... A, size_t... I> void call(void (*kernel)(A...), void **arguments, std::index_sequence<I...>) {
  kernel(*(std::remove_reference_t<A> *)arguments[I]...);
}

// grid and block: three numbers each. sizes: of every argument in bytes. What went wrong, or null.
template <class... A>
const char *launch_kernel(void (*kernel)(A...), const unsigned *grid, const unsigned *block, size_t dynamic, int order,
                          bool plain, void **arguments, const int *sizes, int count) {
  const int expected[] = {(int)sizeof(A)..., 0};
  if (count != (int)sizeof...(A)) return "another number of arguments than the kernel has";
  for (int i = 0; i < count; i++)
    if (sizes[i] != expected[i]) return "an argument of another width than the kernel's (CuPy passes Python's int as 8 bytes)";
  auto body = [&] { call(kernel, arguments, std::index_sequence_for<A...>{}); };
  return launch({grid[0], grid[1], grid[2]}, {block[0], block[1], block[2]}, dynamic, order, plain,
                [](void *body_) { (*(decltype(body) *)body_)(); }, &body);
}

// ---------------------------------------------------------------- what threads do together

inline void barrier() {
  scheduler.current->state = AT_BARRIER;
  scheduler.waiting++;
  give_way();
}

// Every lane of a warp shows `bytes` to the others, and goes on when all have: what lane i shows is at [i].
inline unsigned char (*exchange(const void *value, size_t bytes, unsigned mask = 0xffffffffu))[64] {
  Thread &thread = *scheduler.current;
  Warp &warp = scheduler.warps[thread.number / WARP];
  if (!(mask >> thread.lane & 1)) fail("a lane calls a warp's exchange without being in its mask");
  unsigned round = warp.round;
  auto post = warp.post[round & 1];
  if (value) std::memcpy(post[thread.lane], value, bytes);
  if (++warp.arrived == std::min(__builtin_popcount(mask), warp.live)) {
    warp.arrived = 0, warp.round++;
  } else {
    while (warp.round == round) {
      thread.state = IN_WARP;
      give_way();
    }
  }
  return post;
}

template <class T> T from_lane(unsigned mask, T value, int lane, int width) {
  auto post = exchange(&value, sizeof value, mask);
  int first = scheduler.current->lane / width * width;
  bool there = lane >= first && lane < first + width &&
               scheduler.current->number / WARP * WARP + lane < (int)scheduler.threads.size();
  if (there) std::memcpy(&value, post[lane], sizeof value);
  return value;
}

inline int lane() { return scheduler.current->lane; }

}  // namespace cuda

#define threadIdx (cuda::scheduler.current->index)
#define blockIdx (cuda::scheduler.block)
#define blockDim (cuda::scheduler.block_size)
#define gridDim (cuda::scheduler.grid_size)

inline void __syncthreads() { cuda::barrier(); }
inline void __syncwarp(unsigned mask = 0xffffffffu) { cuda::exchange(nullptr, 0, mask); }
template <class T> T __shfl_sync(unsigned mask, T value, int lane, int width = 32) {
  return cuda::from_lane(mask, value, cuda::lane() / width * width + lane % width, width);
}
template <class T> T __shfl_xor_sync(unsigned mask, T value, int bits, int width = 32) {
  return cuda::from_lane(mask, value, cuda::lane() ^ bits, width);
}
template <class T> T __shfl_down_sync(unsigned mask, T value, unsigned distance, int width = 32) {
  return cuda::from_lane(mask, value, cuda::lane() + (int)distance, width);
}
template <class T> T __shfl_up_sync(unsigned mask, T value, unsigned distance, int width = 32) {
  return cuda::from_lane(mask, value, cuda::lane() - (int)distance, width);
}
template <class T> T __ldg(const T *address) { return *address; }
inline float rsqrtf(float x) { return 1.0f / std::sqrt(x); }
inline float __fmaf_rn(float a, float b, float c) { return std::fma(a, b, c); }
inline unsigned __float_as_uint(float x) {
  unsigned bits;
  std::memcpy(&bits, &x, 4);
  return bits;
}
inline float __uint_as_float(unsigned bits) {
  float x;
  std::memcpy(&x, &bits, 4);
  return x;
}
using std::max;
using std::min;

// ---------------------------------------------------------------- common.cuh's functions for tensor cores and copies

// Round to 10 bits of mantissa, halves away from zero (PTX: cvt.rna.tf32.f32).
inline unsigned to_tf32(float x) {
  unsigned bits = __float_as_uint(x);
  bool finite = (bits & 0x7f800000u) != 0x7f800000u;
  return finite ? (bits + 0x1000u) & 0xffffe000u : bits;
}

inline void multiply_add(float sum[4], const unsigned a[4], const unsigned b[2]) {
  struct { unsigned a[4], b[2]; } held, other;
  std::memcpy(held.a, a, sizeof held.a);
  std::memcpy(held.b, b, sizeof held.b);
  auto post = cuda::exchange(&held, sizeof held);
  int i = cuda::lane() / 4, j = cuda::lane() % 4;
  for (int n = 0; n < 4; n++) {  // this lane's four numbers of the sum
    int row = i + (n >= 2 ? 8 : 0), column = 2 * j + n % 2;
    for (int k = 0; k < 8; k++) {
      std::memcpy(&other, post[row % 8 * 4 + k % 4], sizeof other);
      unsigned left = other.a[(row >= 8) + 2 * (k >= 4)];
      std::memcpy(&other, post[column * 4 + k % 4], sizeof other);
      unsigned right = other.b[k >= 4];
      const unsigned looked_at = 0xffffe000u;  // the hardware ignores the lowest 13 bits
      sum[n] = std::fma(__uint_as_float(left & looked_at), __uint_as_float(right & looked_at), sum[n]);
    }
  }
}

inline void copy_16(void *shared, const void *global, bool inside) {
  if ((uintptr_t)shared % 16 || (uintptr_t)global % 16) cuda::fail("an asynchronous copy of 16 bytes is not aligned to 16");
  cuda::poison(shared, 16);
  cuda::scheduler.current->begun_copies.push_back({shared, global, inside});
}
inline void copy_commit() {
  cuda::Thread &thread = *cuda::scheduler.current;
  thread.copy_groups.push_back(std::move(thread.begun_copies));
  thread.begun_copies.clear();
}
template <int pending> void copy_wait() {
  auto &groups = cuda::scheduler.current->copy_groups;
  while ((int)groups.size() > pending) {
    for (const cuda::Copy &copy : groups[0]) {
      if (copy.inside) std::memcpy(copy.to, copy.from, 16);
      else std::memset(copy.to, 0, 16);
    }
    groups.erase(groups.begin());
  }
}
