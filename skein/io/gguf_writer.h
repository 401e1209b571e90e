// Writes a GGUF v3 file that llama.cpp loads: docs/formats/gguf.md.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "skein/base/result.h"
#include "skein/io/env.h"
#include "skein/io/gguf.h"

namespace skein {

// The metadata entries of a file to be, in the order they are added. A key must be added once only.
class GgufMetadata {
 public:
  void add_text(std::string_view key, std::string_view value);
  void add_integer(std::string_view key, std::uint32_t value);
  void add_number(std::string_view key, float value);
  void add_flag(std::string_view key, bool value);
  void add_texts(std::string_view key, std::span<const std::string> values);
  void add_integers(std::string_view key, std::span<const std::int32_t> values);
  void add_numbers(std::string_view key, std::span<const float> values);

  std::uint64_t size() const { return size_; }         // entries
  const std::string& bytes() const { return bytes_; }  // as they stand in the file

 private:
  void begin(std::string_view key, std::uint32_t kind);
  void begin_array(std::string_view key, std::uint32_t kind, std::size_t length);
  template <typename T>
  void put(T value);
  void put_text(std::string_view text);

  std::string bytes_;
  std::uint64_t size_ = 0;
};

struct GgufTensorPlan {
  std::string name;  // llama.cpp's
  GgmlType type = GgmlType::kF32;
  Shape shape;  // (rows, columns); a row is a whole number of blocks
};

// The bytes of a tensor as GGUF stores it. Error: rows that are no whole blocks, sizes that overflow.
Result<std::int64_t> gguf_tensor_bytes(const GgufTensorPlan& tensor);

// Header at once, then one append for each tensor of the plan in its order. Appears under its final name only at
// finish(): temporary name, sync, rename.
class GgufWriter {
 public:
  static Result<std::unique_ptr<GgufWriter>> create(Env& env, const std::string& path, const GgufMetadata& metadata,
                                                    std::vector<GgufTensorPlan> plan);
  ~GgufWriter();                                     // without finish(): removes the temporary file
  Status append(std::span<const std::byte> tensor);  // all bytes of the next tensor
  Status finish();                                   // error if tensors are missing

 private:
  struct State;
  explicit GgufWriter(std::unique_ptr<State> state);
  std::unique_ptr<State> state_;
};

// `count` floats (a multiple of 32) as Q8_0 blocks of 34 bytes: d = max |x| / 127 as f16, q = round(x / d), as
// llama.cpp's reference quantiser. On the calling thread. False: a value is not finite, which Q8_0 cannot say.
bool quantize_q8_0(const float* from, std::int64_t count, std::byte* out);

}  // namespace skein
