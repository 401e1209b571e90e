// The fuzzer's bytes as a file.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>

#include "skein/io/env.h"

namespace skein {

// An Env in memory that holds them as "input".
inline std::unique_ptr<Env> env_with_input(const std::uint8_t* data, std::size_t size) {
  auto env = make_memory_env();
  const auto file = or_throw(env->create("input"));
  or_throw(file->append(std::as_bytes(std::span(data, size))));
  return env;
}

}  // namespace skein
