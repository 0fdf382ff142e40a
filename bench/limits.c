// What one core can do at most: multiply-adds in registers, a plain sum, and a sum of rows in any order.
//
// Compiled for the machine that it runs on and called through ctypes, which lets other Python threads run.

#include <stdint.h>

#if defined(__AVX512F__)
enum { kBytes = 64 };
#elif defined(__AVX__)
enum { kBytes = 32 };
#else
enum { kBytes = 16 };
#endif
enum { kLanes = kBytes / sizeof(float), kChains = 12, kSums = 8 };

typedef float Vector __attribute__((vector_size(kBytes)));
typedef float Unaligned __attribute__((vector_size(kBytes), aligned(4), may_alias));

static float lanes_of(Vector v) {
  float sum = 0;
  for (int i = 0; i < kLanes; ++i) sum += v[i];
  return sum;
}

// `rounds` multiply-adds in each lane of each chain: as many chains as hide the latency of all of them.
int64_t multiply_adds(int64_t rounds, float* inout) {
  Vector chain[kChains];
  // Different beginnings, unknown to the compiler, or it would find that one chain gives the result of all.
  for (int c = 0; c < kChains; ++c) chain[c] = *inout + (float)c - (Vector){};
  const Vector factor = 0.5f - (Vector){};
  for (int64_t i = 0; i < rounds; ++i) {
#pragma GCC unroll 16
    for (int c = 0; c < kChains; ++c) chain[c] = chain[c] * factor + factor;
  }
  *inout = 0;
  for (int c = 0; c < kChains; ++c) *inout += lanes_of(chain[c]);
  return rounds * kChains * kLanes;
}

static float sum_once(const float* values, int64_t count) {
  Vector sum[kSums] = {};
  int64_t i = 0;
  for (; i + kSums * kLanes <= count; i += kSums * kLanes) {
#pragma GCC unroll 16
    for (int s = 0; s < kSums; ++s) sum[s] += *(const Unaligned*)(values + i + s * kLanes);
  }
  float total = 0;
  for (; i < count; ++i) total += values[i];
  for (int s = 0; s < kSums; ++s) total += lanes_of(sum[s]);
  return total;
}

// So often that the call itself does not count.
float plain_sum(const float* values, int64_t count, int64_t times) {
  float total = 0;
  for (int64_t i = 0; i < times; ++i) {
    total += sum_once(values, count);
    __asm__ volatile("" ::: "memory");  // or the compiler sums once
  }
  return total;
}

// Every row once, in the given order, fetched ahead: nothing but the reading is to take time.
float row_sums(const float* values, const int64_t* order, int64_t rows, int64_t columns) {
  enum { kAhead = 16, kLine = 64 / sizeof(float) };
  Vector sum = {};
  float rest = 0;
  for (int64_t i = 0; i < rows; ++i) {
    if (i + kAhead < rows) {
      const float* ahead = values + order[i + kAhead] * columns;
      for (int64_t j = 0; j < columns; j += kLine) __builtin_prefetch(ahead + j);
    }
    const float* row = values + order[i] * columns;
    int64_t j = 0;
    for (; j + kLanes <= columns; j += kLanes) sum += *(const Unaligned*)(row + j);
    for (; j < columns; ++j) rest += row[j];
  }
  return rest + lanes_of(sum);
}
