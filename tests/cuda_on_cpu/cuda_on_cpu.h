// CUDA on the CPU: compiles a .cu file as ordinary C++17 and runs it, every CUDA thread a fibre of its own.
//
// For proofs, not for speed. What a GPU leaves open is settled here in the least convenient way:
//
//   shared memory        is full of NaN when a block begins
//   asynchronous copies  arrive when they are waited for and no earlier; until then there is NaN
//   threads              run in any order one asks for, from one meeting point to the next
//   tensor cores         see only the bits of a tf32 number, and of the matrices only what each lane really holds
//
// What is forbidden ends the launch with a message that names the thread and the line.
//
// The model in short. A grid is many blocks, which know nothing of each other. A block is up to 1024 threads, which
// share memory and meet at barriers. 32 neighbours of a block are a warp; its lanes hand each other values, and multiply
// matrices together. (Of one warp's lanes only one group at a time can do so here, unlike on a GPU.)

#include <csetjmp>
#include <csignal>
#include <cmath>
#include <cstdarg>
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <pthread.h>
#include <type_traits>
#include <ucontext.h>
#include <utility>

// --- Words of the language.

#define CUDA_ON_CPU 1
#ifndef __CUDA_ARCH__
#define __CUDA_ARCH__ 900
#endif
#define __global__
#define __device__
#define __host__
#define __constant__ static
#define __forceinline__ inline
#define __noinline__ __attribute__((noinline))
#define __launch_bounds__(...)
#define __align__(bytes) __attribute__((aligned(bytes)))
// One section holds all shared arrays of a kernel, so that they can be measured and filled with NaN.
#define __shared__ static __attribute__((section("cuda_shared")))
#define DYNAMIC_SHARED(type, name) type *const name = (type *)cuda::now.dynamic_shared

struct uint3 { unsigned x, y, z; };
typedef uint3 dim3;
struct alignas(8) int2 { int x, y; };
struct alignas(16) int4 { int x, y, z, w; };
struct alignas(8) uint2 { unsigned x, y; };
struct alignas(16) uint4 { unsigned x, y, z, w; };
struct alignas(8) float2 { float x, y; };
struct alignas(16) float4 { float x, y, z, w; };
struct alignas(16) double2 { double x, y; };
inline int2 make_int2(int x, int y) { return {x, y}; }
inline int4 make_int4(int x, int y, int z, int w) { return {x, y, z, w}; }
inline uint2 make_uint2(unsigned x, unsigned y) { return {x, y}; }
inline uint4 make_uint4(unsigned x, unsigned y, unsigned z, unsigned w) { return {x, y, z, w}; }
inline float2 make_float2(float x, float y) { return {x, y}; }
inline float4 make_float4(float x, float y, float z, float w) { return {x, y, z, w}; }
inline double2 make_double2(double x, double y) { return {x, y}; }

// Words of our own: what the runner calls, what the compiler's instrumentation calls, and what it leaves alone.
#define EXPORT extern "C" __attribute__((used, visibility("default")))
#define CALLED_BACK extern "C" __attribute__((used, no_sanitize("thread"))) inline void
#define UNWATCHED __attribute__((no_sanitize("thread")))

extern "C" {  // the linker's names: where the section begins and ends, and where the library does
__attribute__((weak, visibility("hidden"))) extern char __start_cuda_shared[], __stop_cuda_shared[];
__attribute__((visibility("hidden"))) extern const char __ehdr_start[];
}

namespace cuda {

constexpr int WARP = 32, MAX_THREADS = 1024, MAX_COPIES = 256;
constexpr size_t STACK = 64 * 1024, SHARED_LIMIT = 227 * 1024;
constexpr uint32_t POISON = 0x7fffdead;  // a NaN in float32, two of them a NaN in float64, and no sensible index

UNWATCHED inline void poison(void *memory, size_t bytes) {
  for (size_t i = 0; i + 4 <= bytes; i += 4) memcpy((char *)memory + i, &POISON, 4);
}

// --- What the runner asks for and gets back; runner.py has the same structure.

enum Order { ASCENDING, DESCENDING, RANDOM };

struct Array {
  const char *fence, *begin, *end, *other_fence;  // between the fences and the array there is nothing for a kernel
};

struct Request {
  dim3 grid, block;
  char *dynamic_shared;
  size_t dynamic_bytes;
  void **arguments;
  int order;
  uint32_t seed;
  char *stacks;  // STACK bytes for every thread of a block
  const Array *arrays;
  int array_count;
  // Filled in by fail.
  char message[512];
  int line;             // of the kernel's text, or else
  size_t place;         // of the instruction in the library
  const void *address;  // that it wanted
};

// --- A launch: its threads, its warps, and who runs.

enum State { READY, AT_BARRIER, IN_WARP, DONE };

struct Copy {
  void *shared;
  const void *global;
  bool inside;
  int group;
};

struct Thread {
  uint3 index;
  int number, fibre, line;  // the line where it last met others
  State state;
  int group, copy_count;
  Copy copies[MAX_COPIES];  // asynchronous copies under way, oldest first
};

struct Warp {
  unsigned lanes;  // that still run
  // An exchange of values. There are two sets, used in turn: a lane that is ahead writes the next while others still
  // read the last.
  const char *operation;
  unsigned mask, generation, arrived[2];
  volatile unsigned synchronizations;  // by __syncwarp; volatile, as the compiler doesn't expect that `race` reads it
  bool orders_memory;
  alignas(16) char deposit[2][WARP][32];
};

struct Fibre {
  jmp_buf context;
  bool begun;
};

struct Launch : Request {
  uint3 block_index;
  void (*kernel)(void **);
  Thread threads[MAX_THREADS], *thread;
  Warp warps[MAX_THREADS / WARP];
  Fibre fibres[MAX_THREADS];
  int idle[MAX_THREADS], idle_count;
  int count, done, at_barrier;
  jmp_buf scheduler, failed;
  uint32_t random;
  volatile unsigned barriers;
  volatile bool running;
  pthread_t worker;
};
inline Launch now;  // a library holds one kernel and runs one launch at a time

inline int lane() { return now.thread->number % WARP; }
inline Warp &warp() { return now.warps[now.thread->number / WARP]; }

// Ends the launch. The fibres' stacks are simply left.
[[noreturn]] UNWATCHED inline void fail(int line, const char *format, ...) {
  const uint3 b = now.block_index, t = now.thread->index;
  const char *const who = "block (%u, %u, %u), thread (%u, %u, %u) ";
  const int n = snprintf(now.message, sizeof now.message, who, b.x, b.y, b.z, t.x, t.y, t.z);
  va_list values;
  va_start(values, format);
  vsnprintf(now.message + n, sizeof now.message - n, format, values);
  va_end(values);
  now.line = line;
  now.running = false;
  _longjmp(now.failed, 1);
}

// --- Where threads meet.

// Let others run; returns when the scheduler takes up this thread again.
inline void pause() {
  if (!_setjmp(now.fibres[now.thread->fibre].context)) _longjmp(now.scheduler, 1);
}

// Nobody goes on before all threads of the block are here, at the same line.
inline void barrier(int line) {
  now.thread->line = line;
  now.thread->state = AT_BARRIER;
  if (++now.at_barrier == now.count) {
    for (int i = 0; i < now.count; i++) {
      Thread &other = now.threads[i];
      if (other.line != line) fail(line, "waits at this barrier, another one at that of line %d", other.line);
      other.state = READY;
    }
    now.at_barrier = 0;
    now.barriers++;
  }
  pause();
}

// Let the lanes go on if all have come that are still to come.
inline bool complete(Warp &w) {
  const int set = w.generation & 1;
  if (!w.arrived[set] || w.arrived[set] != (w.mask & w.lanes)) return false;
  w.arrived[!set] = 0;
  w.generation++;
  w.synchronizations += w.orders_memory;
  Thread *first = now.threads + (&w - now.warps) * WARP;
  for (int i = 0; i < WARP; i++)
    if (w.arrived[set] >> i & 1) first[i].state = READY;
  return true;
}

// Every lane in the mask leaves a value and waits until all of them have. Returns the set of deposits that holds them.
inline int exchange(const char *operation, int line, unsigned mask, const void *value, size_t bytes) {
  Warp &w = warp();
  const int set = w.generation & 1;
  const unsigned me = 1u << lane();
  now.thread->line = line;
  if (!(mask & me)) fail(line, "calls %s, but isn't in its own mask %08x", operation, mask);
  if (!w.arrived[set]) w.mask = mask, w.operation = operation, w.orders_memory = !bytes;
  if (w.mask != mask || w.operation != operation)
    fail(line, "calls %s (mask %08x) while its warp is in %s (mask %08x)", operation, mask, w.operation, w.mask);
  if (bytes) memcpy(w.deposit[set][lane()], value, bytes);
  w.arrived[set] |= me;
  now.thread->state = IN_WARP;
  if (!complete(w)) pause();
  return set;
}

template <class T> T shuffle(const char *operation, int line, unsigned mask, T value, int source, int width) {
  static_assert(sizeof(T) <= sizeof now.warps->deposit[0][0], "a shuffle takes 4 or 8 bytes");
  const int set = exchange(operation, line, mask, &value, sizeof value), first = lane() / width * width;
  if (source < first || source >= first + width) return value;
  if (warp().arrived[set] >> source & 1)
    memcpy(&value, warp().deposit[set][source], sizeof value);
  else
    poison(&value, sizeof value);  // the register of a lane that isn't there
  return value;
}

// --- Fibres. makecontext gives each a stack; from then on setjmp and longjmp change between them, which takes
// nanoseconds, for unlike swapcontext they don't ask the operating system.

// The life of a fibre: one thread after the other.
inline void fibre() {
  for (;;) {
    now.kernel(now.arguments);
    Thread &thread = *now.thread;
    if (thread.copy_count) fail(thread.line, "ends with asynchronous copies that it never waited for");
    thread.state = DONE;
    now.done++;
    now.idle[now.idle_count++] = thread.fibre;
    warp().lanes &= ~(1u << lane());
    complete(warp());
    pause();
  }
}

inline void resume(Thread &thread) {
  now.thread = &thread;
  if (thread.fibre < 0) thread.fibre = now.idle[--now.idle_count];
  Fibre &mine = now.fibres[thread.fibre];
  if (_setjmp(now.scheduler)) return;
  if (mine.begun) _longjmp(mine.context, 1);
  mine.begun = true;
  ucontext_t context;
  getcontext(&context);
  context.uc_stack.ss_sp = now.stacks + thread.fibre * STACK;
  context.uc_stack.ss_size = STACK - thread.fibre % 32 * 128;  // not all at the same place in the processor's cache
  context.uc_link = nullptr;
  makecontext(&context, fibre, 0);
  setcontext(&context);
}

// --- Blocks and grids.

inline uint32_t random_below(uint32_t n) {  // xorshift
  now.random ^= now.random << 13;
  now.random ^= now.random >> 17;
  now.random ^= now.random << 5;
  return now.random % n;
}

// Fill `list` with 0 .. n - 1 in the order asked for.
inline void arrange(int *list, int n) {
  for (int i = 0; i < n; i++) list[i] = now.order == DESCENDING ? n - 1 - i : i;
  if (now.order == RANDOM)
    for (int i = n - 1; i > 0; i--) std::swap(list[i], list[random_below(i + 1)]);
}

inline void begin_block() {
  poison(__start_cuda_shared, __stop_cuda_shared - __start_cuda_shared);
  poison(now.dynamic_shared, now.dynamic_bytes);
  now.done = now.at_barrier = 0;
  now.barriers++;
  for (int i = 0; i < now.count; i++) {
    Thread &thread = now.threads[i];
    const unsigned x = now.block.x, y = now.block.y;
    thread.index = {i % x, i / x % y, i / x / y};
    thread.number = i;
    thread.fibre = -1;
    thread.state = READY;
    thread.line = thread.group = thread.copy_count = 0;
  }
  for (int i = 0; i * WARP < now.count; i++) {
    Warp &w = now.warps[i];
    const int lanes = now.count - i * WARP;
    w.lanes = lanes < WARP ? (1u << lanes) - 1 : ~0u;
    w.generation = w.arrived[0] = w.arrived[1] = 0;
  }
}

// Nobody can go on: name one who waits.
[[noreturn]] inline void deadlock() {
  for (int i = 0; i < now.count; i++) {
    now.thread = &now.threads[i];
    const int line = now.thread->line;
    if (now.thread->state == IN_WARP)
      fail(line, "waits in %s for lanes of its warp that never come: deadlock", warp().operation);
    if (now.thread->state == AT_BARRIER)
      fail(line, "waits at a barrier that only %d of %d threads reach: deadlock", now.at_barrier, now.count);
  }
  __builtin_unreachable();
}

// In ascending and descending order a warp runs as far as it can before the next begins; in random order they take
// turns.
inline void run_block() {
  const int warps = (now.count + WARP - 1) / WARP;
  int warp_order[MAX_THREADS / WARP], lane_order[WARP];
  begin_block();
  while (now.done < now.count) {
    bool progress = false;
    arrange(warp_order, warps);
    for (int i = 0; i < warps; i++) {
      for (bool again = true; again;) {
        again = false;
        arrange(lane_order, WARP);
        for (int j = 0; j < WARP; j++) {
          const int number = warp_order[i] * WARP + lane_order[j];
          if (number >= now.count || now.threads[number].state != READY) continue;
          resume(now.threads[number]);
          progress = true;
          again = now.order != RANDOM;
        }
      }
    }
    if (!progress) deadlock();
  }
}

inline int run(Request &request, void (*kernel)(void **)) {
  (Request &)now = request;
  now.kernel = kernel;
  now.count = now.block.x * now.block.y * now.block.z;
  now.thread = now.threads;
  now.idle_count = now.count;
  for (int i = 0; i < now.count; i++) now.idle[i] = now.count - 1 - i, now.fibres[i].begun = false;
  now.worker = pthread_self();
  now.running = true;
  const unsigned x = now.grid.x, y = now.grid.y;
  const long long blocks = (long long)x * y * now.grid.z;
  const int failed = _setjmp(now.failed);
  if (!failed)
    for (long long i = 0; i < blocks; i++) {
      const unsigned b = now.order == DESCENDING ? blocks - 1 - i : i;
      now.block_index = {b % x, b / x % y, b / x / y};
      now.random = 2654435761u * (now.seed + b + 1) | 1;
      run_block();
    }
  now.running = false;
  request = now;
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
EXPORT inline int static_shared() { return __stop_cuda_shared - __start_cuda_shared; }
template <class... T, size_t... i> void call(void (*kernel)(T...), void **values, std::index_sequence<i...>) {
  kernel(*(T *)values[i]...);
}
template <class... T> void call(void (*kernel)(T...), void **values) {
  call(kernel, values, std::index_sequence_for<T...>{});
}

// --- What is forbidden.

// Memory ends at forbidden pages, so that an access beyond arrives as a signal. If it isn't ours, it goes on to whom it
// would have gone to.
inline struct sigaction others[NSIG];
inline void caught(int signal, siginfo_t *info, void *context) {
  if (now.running && pthread_equal(now.worker, pthread_self())) {
#if defined(__x86_64__)
    now.place = ((ucontext_t *)context)->uc_mcontext.gregs[REG_RIP] - (size_t)__ehdr_start;
#elif defined(__aarch64__)
    now.place = ((ucontext_t *)context)->uc_mcontext.pc - (size_t)__ehdr_start;
#endif
    now.address = info->si_addr;
    fail(0, "reads or writes what is none of its memory");
  }
  struct sigaction &other = others[signal];
  if (other.sa_flags & SA_SIGINFO)
    other.sa_sigaction(signal, info, context);
  else if (other.sa_handler == SIG_DFL || other.sa_handler == SIG_IGN)
    sigaction(signal, &other, nullptr);  // back to the same instruction, which now ends the process
  else
    other.sa_handler(signal);
}
__attribute__((constructor)) inline void catch_signals() {
  struct sigaction action = {};
  action.sa_sigaction = caught;
  action.sa_flags = SA_SIGINFO | SA_NODEFER;
  for (int signal : {SIGSEGV, SIGBUS}) sigaction(signal, &action, &others[signal]);
}

// The compiler's own checks (-fsanitize=alignment,bounds,...) call these. All hand over where that was first.
struct Where {
  const char *file;
  unsigned line, column;
};
CALLED_BACK __ubsan_handle_type_mismatch_v1_abort(Where *at, void *) {
  fail(at->line, "uses an address that is not aligned to its type");
}
CALLED_BACK __ubsan_handle_out_of_bounds_abort(Where *at, void *index) {
  fail(at->line, "has an index outside of the array: %ld", (long)index);
}
CALLED_BACK __ubsan_handle_divrem_overflow_abort(Where *at, void *, void *) { fail(at->line, "divides by zero"); }
CALLED_BACK __ubsan_handle_shift_out_of_bounds_abort(Where *at, void *, void *bits) {
  fail(at->line, "shifts by %ld bits", (long)bits);
}

// --- Races. Compiled with -fsanitize=thread, every access to memory first calls one of the functions below.
//
// Two threads may use the same word of shared memory, unless both only read it, only with a barrier in between; within
// a warp __syncwarp will do. (The values that lanes hand each other order nothing.) What happened before the last barrier
// needn't be remembered, and between two barriers it doesn't matter who really came first.

#ifdef __SANITIZE_THREAD__

struct Word {
  unsigned barriers;                      // how many there had been; after another one the rest is of no interest
  int writer, reading_warp;               // the last of each
  unsigned written, read;                 // their warp's synchronizations at the time
  unsigned reading_lanes, reading_warps;  // since then; since the barrier
};
inline Word words[2][SHARED_LIMIT / 4];  // of static, of dynamic shared memory

// What is wrong with this thread's access to that word, or null; remembers it.
UNWATCHED inline const char *race(Word &word, bool write) {
  const int me = now.thread->number, my_warp = me / WARP;
  const unsigned synchronizations = now.warps[my_warp].synchronizations;
  if (word.barriers != now.barriers) word = {now.barriers, -1, -1, 0, 0, 0, 0};
  if (word.writer >= 0 && word.writer != me && (word.writer / WARP != my_warp || word.written == synchronizations))
    return write ? "race: writes to shared memory what another thread writes"
                 : "race: reads from shared memory what another thread writes";
  if (!write) {
    if (word.reading_warp != my_warp || word.read != synchronizations) word.reading_lanes = 0;
    word.reading_warp = my_warp, word.read = synchronizations;
    word.reading_lanes |= 1u << me % WARP, word.reading_warps |= 1u << my_warp;
    return nullptr;
  }
  word.writer = me, word.written = synchronizations;
  const bool in_warp = word.reading_warp == my_warp && word.read == synchronizations;
  if (word.reading_warps & ~(1u << my_warp) || (in_warp && word.reading_lanes & ~(1u << me % WARP)))
    return "race: writes to shared memory what another thread reads";
  return nullptr;
}

UNWATCHED inline void touch(const void *memory, size_t bytes, bool write, int line, const void *caller = nullptr) {
  if (!now.running) return;
  const char *first = (const char *)memory, *trouble = nullptr;
  for (int i = 0; i < now.array_count; i++) {
    const Array &a = now.arrays[i];
    if (first >= a.fence && first < a.other_fence && (first < a.begin || first + bytes > a.end))
      trouble = write ? "writes what is none of its memory" : "reads what is none of its memory";
  }
  const bool fixed = first >= __start_cuda_shared && first < __stop_cuda_shared;
  if (fixed || (first >= now.dynamic_shared && first < now.dynamic_shared + now.dynamic_bytes)) {
    const size_t offset = first - (fixed ? __start_cuda_shared : now.dynamic_shared);
    for (size_t i = offset / 4; i * 4 < offset + bytes && !trouble; i++) trouble = race(words[fixed ? 0 : 1][i], write);
  }
  if (!trouble) return;
  now.place = caller ? (const char *)caller - 1 - __ehdr_start : 0;  // of the call, not where it returns to
  now.address = memory;
  fail(line, "%s", trouble);
}

#define WATCH(name, bytes, write) \
  CALLED_BACK __tsan_##name(void *at) { touch(at, bytes, write, 0, __builtin_return_address(0)); }
#define WATCH_BOTH(prefix, bytes) WATCH(prefix##read##bytes, bytes, false) WATCH(prefix##write##bytes, bytes, true)
WATCH_BOTH(, 1) WATCH_BOTH(, 2) WATCH_BOTH(, 4) WATCH_BOTH(, 8) WATCH_BOTH(, 16)
WATCH_BOTH(unaligned_, 2) WATCH_BOTH(unaligned_, 4) WATCH_BOTH(unaligned_, 8) WATCH_BOTH(unaligned_, 16)
CALLED_BACK __tsan_read_range(void *at, size_t n) { touch(at, n, false, 0, __builtin_return_address(0)); }
CALLED_BACK __tsan_write_range(void *at, size_t n) { touch(at, n, true, 0, __builtin_return_address(0)); }
CALLED_BACK __tsan_init() {}
CALLED_BACK __tsan_func_entry(void *) {}
CALLED_BACK __tsan_func_exit(void *) {}
#else
inline void touch(const void *, size_t, bool, int) {}
#endif

}  // namespace cuda

#define threadIdx (cuda::now.thread->index)
#define blockIdx (cuda::now.block_index)
#define blockDim (cuda::now.block)
#define gridDim (cuda::now.grid)
#define warpSize 32

// --- Functions of the language. __builtin_LINE() is the line of the call.

inline void __syncthreads(int line = __builtin_LINE()) { cuda::barrier(line); }
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

// --- Tensor cores and asynchronous copies, under the names that common.cuh gives the instructions.

// cvt.rna: to the nearest, half way cases away from zero. Infinities and NaN stay what they are.
inline unsigned to_tf32(float x) {
  const unsigned bits = __float_as_uint(x);
  return std::isfinite(x) ? (bits + 0x1000) & 0xffffe000 : bits;
}

// mma.m16n8k8: each lane computes its four sums from everybody's a and b.
inline void multiply_add(float sum[4], const unsigned a[4], const unsigned b[2], int line = __builtin_LINE()) {
  struct Fragments {
    unsigned a[4], b[2];
  } mine;
  memcpy(mine.a, a, sizeof mine.a);
  memcpy(mine.b, b, sizeof mine.b);
  const int set = cuda::exchange("multiply_add", line, ~0u, &mine, sizeof mine);
  const int i = cuda::lane() / 4, j = cuda::lane() % 4;
  const auto of_lane = [&](int lane) { return (const Fragments *)cuda::warp().deposit[set][lane]; };
  // The tensor cores don't look at the lowest 13 bits. The product of two such numbers is exact.
  const auto number = [](unsigned bits) { return __uint_as_float(bits & 0xffffe000); };
  for (int k = 0; k < 8; k++)
    for (int n = 0; n < 4; n++) {  // rows i and i + 8, columns 2 j and 2 j + 1
      const unsigned left = of_lane(4 * i + k % 4)->a[n / 2 + k / 4 * 2];
      const unsigned right = of_lane(4 * (2 * j + n % 2) + k % 4)->b[k / 4];
      sum[n] += number(left) * number(right);
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

// Only now do copies arrive, and no more of them than must.
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
