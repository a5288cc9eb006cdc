// How threads run and meet: barriers, exchanges within a warp, fibres, the order of threads and blocks.

namespace cuda {

// --- Synchronization.

// Let other threads run; returns when the scheduler resumes this thread.
inline void pause() {
  if (!_setjmp(now.fibres[now.thread->fibre].context)) _longjmp(now.scheduler, 1);
}

// Wait until all threads of the block have reached this line.
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

// Resume the waiting lanes if all lanes of the mask that still run have arrived.
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

// Deposit a value and wait until all lanes of the mask have done so. Returns the set that holds the deposits.
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
    poison(&value, sizeof value);  // the register of a lane that has ended
  return value;
}

// --- Fibres. makecontext gives each one a stack. After that, setjmp and longjmp switch between them: unlike
// swapcontext they make no system call and take nanoseconds.

// A fibre runs one thread after the other.
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
  context.uc_stack.ss_size = STACK - thread.fibre % 32 * 128;  // stacks at different places in the processor's cache
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

// Fill `list` with 0 ... n - 1 in the chosen order.
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

// No thread can continue: report one that waits.
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

// In ascending and descending order a warp runs as far as it can before the next one starts; in random order warps and
// lanes alternate.
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
      const unsigned mixed = (uint64_t)i * 2654435761u % blocks;  // a prime, so each block once
      const unsigned b = now.order == DESCENDING ? blocks - 1 - i : now.order == RANDOM ? mixed : i;
      now.block_index = {b % x, b / x % y, b / x / y};
      now.random = 2654435761u * (now.seed + b + 1) | 1;
      run_block();
    }
  now.running = false;
  request = now;
  return failed;
}

}  // namespace cuda
