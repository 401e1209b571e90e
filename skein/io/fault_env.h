// An Env that fails on demand, around another Env: full disks, short reads, crashes before the rename. For tests.
#pragma once

#include <memory>

#include "skein/io/env.h"

namespace skein {

struct FaultPlan {
  std::int64_t write_budget_bytes =
      -1;  // after so many bytes every append and write_at fails as a full disk does; -1: never
  std::int64_t fail_at_operation = -1;  // the n-th mutating call (create, append, write_at, sync, close, make_folders,
                                        // rename, exchange, remove, sync_folder; from 0) and all that follow fail, as
                                        // after a crash; -1: never
  bool short_reads = false;  // open and map see half of every file
  bool no_exchange = false;  // exchange() says that the file system cannot
};

class FaultEnv : public Env {
 public:
  virtual void set_plan(FaultPlan plan) = 0;
  virtual std::int64_t operations() const = 0;  // mutating calls so far: a test first counts, then fails each in turn
  // What a power cut does to files written through this: each shrinks to what was synced; a sized file gets back the
  // bytes it had at its last sync. Renames are kept.
  virtual Status lose_unsynced() = 0;
};

// inner outlives the result.
std::unique_ptr<FaultEnv> make_fault_env(Env& inner);

}  // namespace skein
