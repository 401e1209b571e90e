// Asks for the inputs of blocks in the order in which they will be handed out, as far ahead as is good.
//
// Inputs that are read once go past the page cache into memory of the merge's own, where they are not cached and the
// budget has room (skein/io/prefetch_room.h); others into the page cache, from where later passes take them again.
#pragma once

#include <condition_variable>
#include <cstdint>
#include <mutex>
#include <thread>
#include <vector>

#include "skein/merge/executor.h"
#include "skein/merge/plan.h"

namespace skein::merge {

class ReadAhead {
 public:
  // All outlive it. The first bytes are asked for before this returns.
  ReadAhead(const Plan& plan, const std::vector<std::size_t>& wanted, const MemoryPlan& memory);
  ~ReadAhead();
  // So many bytes of inputs more were handed out, in the order of `wanted`; from any thread.
  void handed_out(std::uint64_t bytes);

 private:
  void run();
  bool ask();  // for the next step; false at the end

  const Plan& plan_;
  const std::vector<std::size_t>& wanted_;
  const MemoryPlan& memory_;
  PrefetchRoom* room_ = nullptr;  // null: none

  std::size_t next_ = 0;    // into wanted_
  std::int64_t first_ = 0;  // element of that tensor
  std::vector<FileRange> ranges_;
  std::uint64_t asked_ = 0;

  std::mutex mutex_;
  std::condition_variable moved_;
  std::uint64_t handed_ = 0, told_ = 0;
  bool is_over_ = false;
  std::thread thread_;
};

// What a block of every input will be read from.
void ranges_of(const OutputTensor& tensor, std::int64_t first, std::int64_t count, std::vector<FileRange>& ranges);

}  // namespace skein::merge
