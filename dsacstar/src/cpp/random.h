// Counter-based random numbers: every hypothesis owns the stream hash(seed, index), so the order in which
// hypotheses are drawn, and the number of threads, cannot change them.
// Source: SplitMix64 (Steele, Lea, Flood, OOPSLA 2014).
#pragma once

#include <cstdint>

namespace dsacstar {

inline uint64_t mix64(uint64_t x) {
  x += 0x9E3779B97F4A7C15ull;
  x = (x ^ (x >> 30)) * 0xBF58476D1CE4E5B9ull;
  x = (x ^ (x >> 27)) * 0x94D049BB133111EBull;
  return x ^ (x >> 31);
}

class Random {
 public:
  Random(uint64_t seed, uint64_t index) : state_(mix64(mix64(seed) ^ mix64(~index))) {}

  uint32_t bits() {
    state_ += 0x9E3779B97F4A7C15ull;
    uint64_t x = state_;
    x = (x ^ (x >> 30)) * 0xBF58476D1CE4E5B9ull;
    x = (x ^ (x >> 27)) * 0x94D049BB133111EBull;
    return static_cast<uint32_t>((x ^ (x >> 31)) >> 32);
  }
  // Uniform in [0, n), n > 0.
  int below(int n) { return static_cast<int>((static_cast<uint64_t>(bits()) * static_cast<uint64_t>(n)) >> 32); }
  // Uniform in [0, 1).
  float unit() { return static_cast<float>(bits() >> 8) * (1.0f / 16777216.0f); }

 private:
  uint64_t state_;
};

}  // namespace dsacstar
