// For tests: the ranks of a job as threads of one process. Each collective call is a meeting of all of them.
#pragma once

#include <barrier>
#include <functional>
#include <memory>
#include <thread>
#include <vector>

#include "skein/dist/comm.h"

namespace skein {

class ThreadComm : public Comm {
 public:
  struct Meeting {
    explicit Meeting(int size) : barrier(size), parts(static_cast<std::size_t>(size)) {}
    std::barrier<> barrier;
    std::vector<std::vector<std::byte>> parts;  // by rank
  };
  ThreadComm(std::shared_ptr<Meeting> meeting, int rank) : meeting_(std::move(meeting)), rank_(rank) {}

  int rank() const override { return rank_; }
  int size() const override { return static_cast<int>(meeting_->parts.size()); }
  void broadcast(std::span<std::byte> bytes, int root_rank) override {
    const auto parts = exchange(bytes);
    std::copy(parts[root_rank].begin(), parts[root_rank].end(), bytes.begin());
  }
  void all_reduce_sum(std::span<float> values) override { sum(values); }
  void all_reduce_sum(std::span<double> values) override { sum(values); }
  void all_reduce_sum(std::span<std::uint64_t> counts) override { sum(counts); }
  std::vector<std::vector<std::byte>> gather(std::span<const std::byte> part, int root_rank) override {
    auto parts = exchange(part);
    return rank_ == root_rank ? parts : std::vector<std::vector<std::byte>>();
  }
  void barrier() override { meeting_->barrier.arrive_and_wait(); }

 private:
  std::vector<std::vector<std::byte>> exchange(std::span<const std::byte> own) {
    meeting_->parts[rank_].assign(own.begin(), own.end());
    barrier();
    auto parts = meeting_->parts;
    barrier();
    return parts;
  }
  template <typename T>
  void sum(std::span<T> values) {
    const auto parts = exchange(std::as_bytes(values));
    std::fill(values.begin(), values.end(), T{});
    for (const auto& part : parts) {
      for (std::size_t i = 0; i < values.size(); ++i) values[i] += reinterpret_cast<const T*>(part.data())[i];
    }
  }

  std::shared_ptr<Meeting> meeting_;
  int rank_;
};

// work(comm) on each of `size` threads; returns when all have. An exception ends the program: catch inside.
inline void run_ranks(int size, const std::function<void(Comm&)>& work) {
  const auto meeting = std::make_shared<ThreadComm::Meeting>(size);
  std::vector<std::jthread> threads;
  for (int rank = 0; rank < size; ++rank) {
    threads.emplace_back([&, rank] {
      ThreadComm comm(meeting, rank);
      work(comm);
    });
  }
}

}  // namespace skein
