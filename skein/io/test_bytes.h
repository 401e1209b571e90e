// Builds files byte by byte, true and lying ones, for the tests of io.
#pragma once

#include <cstdint>
#include <cstring>
#include <memory>
#include <string>
#include <string_view>

#include <gtest/gtest.h>

#include "skein/io/env.h"

namespace skein::testing {

template <typename T>
std::string little_endian(T value) {
  std::string bytes(sizeof(T), '\0');
  std::memcpy(bytes.data(), &value, sizeof(T));
  return bytes;
}

inline void put_file(Env& env, const std::string& path, std::string_view bytes) {
  const auto file = or_throw(env.create(path));
  or_throw(file->append(std::as_bytes(std::span(bytes))));
  or_throw(file->close());
}

inline std::unique_ptr<Env> env_with(const std::string& path, std::string_view bytes) {
  auto env = make_memory_env();
  put_file(*env, path, bytes);
  return env;
}

// A file of tests/golden/.
inline std::string golden_path(const std::string& name) {
  return std::string(SKEIN_SOURCE_DIR "/tests/golden/") + name;
}
inline std::string golden_bytes(const std::string& name) {
  return or_throw(read_text_file(real_env(), golden_path(name)));
}

// A safetensors file of a header's JSON and its data.
inline std::string safetensors_bytes(const std::string& header, const std::string& data) {
  return little_endian<std::uint64_t>(header.size()) + header + data;
}

// Fails the test unless `result` is an error whose message holds `part`.
template <typename R>
void expect_error(const R& result, std::string_view part) {
  ASSERT_FALSE(result.ok()) << "expected an error with: " << part;
  EXPECT_NE(result.error().message.find(part), std::string::npos)
      << "expected: " << part << "\n   found: " << result.error().message;
  for (const char byte : result.error().message)
    EXPECT_GE(static_cast<unsigned char>(byte), 0x20) << result.error().message;
}

}  // namespace skein::testing
