#include "skein/cli/build_facts.h"

#include <hwy/targets.h>

#include "skein/base/concat.h"
#include "skein/base/thread_pool.h"
#include "skein/cli/git_hash.h"

namespace skein {
namespace {

// Those of the instruction sets that Highway knows which this processor has, best first.
std::string simd_targets() {
  std::string names;
  for (std::int64_t rest = hwy::SupportedTargets() & HWY_TARGETS; rest != 0; rest &= rest - 1) {
    names += (names.empty() ? "" : " ") + std::string(hwy::TargetName(rest & -rest));
  }
  return names;
}

}  // namespace

std::string build_facts() {
  const std::string commit = SKEIN_GIT_HASH;
  return concat("skein ", SKEIN_VERSION, commit.empty() ? "" : " (" + commit + ")", "\n",  //
                "compiler  g++ ", __VERSION__, ", C++", __cplusplus / 100 % 100, "\n",     //
                "torch     ", torch_facts(), "\n",                                         //
                "cpu       ", available_cores(), " cores, SIMD ", simd_targets(), "\n");
}

}  // namespace skein
