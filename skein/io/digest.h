// Content digests: XXH3-128 as 32 hex digits. Not a defence against forgery; it finds change and damage.
#pragma once

#include <cstddef>
#include <memory>
#include <span>
#include <string>

#include "skein/base/result.h"
#include "skein/io/env.h"

namespace skein {

class Digest {
 public:
  Digest();
  ~Digest();
  void update(std::span<const std::byte> bytes);
  void update(const std::string& text);  // length, then bytes
  std::string hex() const;

 private:
  struct State;
  std::unique_ptr<State> state_;
};

Result<std::string> digest_of_file(Env& env, const std::string& path);

}  // namespace skein
