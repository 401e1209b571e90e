#include "skein/io/gguf_writer.h"

#include <algorithm>
#include <cmath>
#include <cstring>

#include "skein/base/concat.h"
#include "skein/base/half.h"
#include "skein/io/atomic_file.h"

namespace skein {
namespace {

constexpr std::int64_t kAlignment = 32;  // general.alignment's default
constexpr std::int64_t kQ8Elements = 32, kQ8Bytes = 34;
// Kinds of metadata values.
constexpr std::uint32_t kUint32 = 4, kInt32 = 5, kFloat32 = 6, kBool = 7, kText = 8, kArray = 9;

std::int64_t aligned(std::int64_t offset) { return (offset + kAlignment - 1) / kAlignment * kAlignment; }

}  // namespace

template <typename T>
void GgufMetadata::put(T value) {
  bytes_.append(reinterpret_cast<const char*>(&value), sizeof(value));
}

void GgufMetadata::put_text(std::string_view text) {
  put<std::uint64_t>(text.size());
  bytes_ += text;
}

void GgufMetadata::begin(std::string_view key, std::uint32_t kind) {
  put_text(key);
  put(kind);
  ++size_;
}

void GgufMetadata::begin_array(std::string_view key, std::uint32_t kind, std::size_t length) {
  begin(key, kArray);
  put(kind);
  put<std::uint64_t>(length);
}

void GgufMetadata::add_text(std::string_view key, std::string_view value) {
  begin(key, kText);
  put_text(value);
}

void GgufMetadata::add_integer(std::string_view key, std::uint32_t value) {
  begin(key, kUint32);
  put(value);
}

void GgufMetadata::add_number(std::string_view key, float value) {
  begin(key, kFloat32);
  put(value);
}

void GgufMetadata::add_flag(std::string_view key, bool value) {
  begin(key, kBool);
  put<std::uint8_t>(value ? 1 : 0);
}

void GgufMetadata::add_texts(std::string_view key, std::span<const std::string> values) {
  begin_array(key, kText, values.size());
  for (const std::string& value : values) put_text(value);
}

void GgufMetadata::add_integers(std::string_view key, std::span<const std::int32_t> values) {
  begin_array(key, kInt32, values.size());
  for (const std::int32_t value : values) put(value);
}

void GgufMetadata::add_numbers(std::string_view key, std::span<const float> values) {
  begin_array(key, kFloat32, values.size());
  for (const float value : values) put(value);
}

Result<std::int64_t> gguf_tensor_bytes(const GgufTensorPlan& tensor) {
  const GgmlBlock block = ggml_block(tensor.type);
  const auto numel = checked_numel(tensor.shape);
  if (!numel || tensor.shape.empty() || tensor.shape.back() % block.elements != 0) {
    return Error{concat("tensor ", printable(tensor.name), " of shape ", to_string(tensor.shape),
                        " cannot be stored as ", ggml_type_name(tensor.type), ": rows of whole blocks of ",
                        block.elements, " were expected")};
  }
  const auto bytes = checked_mul(*numel / block.elements, block.bytes);
  if (!bytes) return Error{concat("the size of tensor ", printable(tensor.name), " overflows")};
  return *bytes;
}

struct GgufWriter::State {
  std::string path;
  std::unique_ptr<AtomicFile> file;
  std::vector<std::int64_t> sizes;  // bytes of each tensor
  std::size_t num_written = 0;
};

GgufWriter::GgufWriter(std::unique_ptr<State> state) : state_(std::move(state)) {}
GgufWriter::~GgufWriter() = default;

Result<std::unique_ptr<GgufWriter>> GgufWriter::create(Env& env, const std::string& path, const GgufMetadata& metadata,
                                                       std::vector<GgufTensorPlan> plan) {
  auto state = std::make_unique<State>();
  state->path = path;
  std::string header = "GGUF";
  const auto put = [&](auto value) { header.append(reinterpret_cast<const char*>(&value), sizeof(value)); };
  put(std::uint32_t{3});
  put(static_cast<std::uint64_t>(plan.size()));
  put(metadata.size());
  header += metadata.bytes();
  std::int64_t offset = 0;
  for (const GgufTensorPlan& tensor : plan) {
    SKEIN_ASSIGN(const std::int64_t bytes, gguf_tensor_bytes(tensor));
    put(static_cast<std::uint64_t>(tensor.name.size()));
    header += tensor.name;
    put(static_cast<std::uint32_t>(tensor.shape.size()));
    for (auto extent = tensor.shape.rbegin(); extent != tensor.shape.rend(); ++extent) put(std::uint64_t(*extent));
    put(static_cast<std::uint32_t>(tensor.type));
    put(static_cast<std::uint64_t>(offset));
    if (__builtin_add_overflow(offset, bytes, &offset) || __builtin_add_overflow(offset, kAlignment, &offset)) {
      return Error{concat("cannot write ", path, ": its size overflows")};
    }
    offset = aligned(offset - kAlignment);
    state->sizes.push_back(bytes);
  }
  header.resize(static_cast<std::size_t>(aligned(static_cast<std::int64_t>(header.size()))));
  SKEIN_ASSIGN(state->file, AtomicFile::create(env, path));
  SKEIN_TRY(state->file->append(std::as_bytes(std::span(header))));
  return std::unique_ptr<GgufWriter>(new GgufWriter(std::move(state)));
}

Status GgufWriter::append(std::span<const std::byte> tensor) {
  const auto size = static_cast<std::int64_t>(tensor.size());
  if (state_->num_written == state_->sizes.size() || size != state_->sizes[state_->num_written]) {
    return Error{concat("cannot write ", state_->path, ": tensor ", state_->num_written, " of ", state_->sizes.size(),
                        " was given ", size, " bytes, which its plan does not have")};
  }
  ++state_->num_written;
  SKEIN_TRY(state_->file->append(tensor));
  constexpr std::byte kPadding[kAlignment] = {};
  return state_->file->append(std::span(kPadding, static_cast<std::size_t>(aligned(size) - size)));
}

Status GgufWriter::finish() {
  if (state_->num_written != state_->sizes.size()) {
    return Error{concat("cannot finish ", state_->path, ": ", state_->num_written, " of ", state_->sizes.size(),
                        " tensors were given")};
  }
  return state_->file->commit();
}

bool quantize_q8_0(const float* from, std::int64_t count, std::byte* out) {
  for (std::int64_t begin = 0; begin < count; begin += kQ8Elements, out += kQ8Bytes) {
    float largest = 0;
    bool finite = true;
    for (std::int64_t i = 0; i < kQ8Elements; ++i) {
      largest = std::max(largest, std::abs(from[begin + i]));
      finite = finite && std::isfinite(from[begin + i]);
    }
    if (!finite) return false;
    const float d = largest / 127;
    const float inverse = d != 0 ? 1 / d : 0;
    const std::uint16_t half = f32_to_f16(d);
    std::memcpy(out, &half, sizeof(half));
    for (std::int64_t i = 0; i < kQ8Elements; ++i) {
      out[2 + i] = static_cast<std::byte>(static_cast<std::int8_t>(std::round(from[begin + i] * inverse)));
    }
  }
  return true;
}

}  // namespace skein
