// What this build is: for --version and bug reports.
#pragma once

#include <string>

namespace skein {

// Several lines: version and commit, compiler, torch, SIMD targets of this machine.
std::string build_facts();
// "torch 2.13.0, no CUDA device"; "without torch".
std::string torch_facts();

}  // namespace skein
