#include "skein/io/gguf.h"

#include <algorithm>
#include <bit>
#include <limits>
#include <unordered_set>

#include "skein/base/concat.h"
#include "skein/io/byte_reader.h"
#include "skein/io/foreign_file.h"
#include "skein/io/gguf_types.h"

namespace skein {
namespace {

constexpr std::uint64_t kMaxKeyBytes = 65535;        // the format's own bound
constexpr std::uint64_t kMaxTensorNameBytes = 1024;  // the format says 64; some converters write more
constexpr std::uint32_t kMaxDimensions = 4;
constexpr std::uint64_t kMaxAlignment = 1 << 20;
// Elements of all arrays together: vocabularies have under a million. Bounds what widening can cost.
constexpr std::uint64_t kMaxArrayElements = 32 << 20;

enum ValueKind : std::uint32_t {
  kUint8,
  kInt8,
  kUint16,
  kInt16,
  kUint32,
  kInt32,
  kFloat32,
  kBool,
  kText,
  kArray,
  kUint64,
  kInt64,
  kFloat64,
};

// The fewest bytes that one value of a kind takes; 0 for what is no kind.
std::uint64_t least_bytes(std::uint32_t kind) {
  constexpr std::uint64_t kBytes[] = {1, 1, 2, 2, 4, 4, 4, 1, 8, 12, 8, 8, 8};
  return kind < std::size(kBytes) ? kBytes[kind] : 0;
}

}  // namespace

class GgufParser {
 public:
  GgufParser(GgufFile& file, std::span<const std::byte> bytes) : file_(file), bytes_(bytes), reader_(bytes) {}

  Status parse() {
    SKEIN_TRY(parse_preamble());
    SKEIN_TRY(parse_metadata());
    SKEIN_TRY(find_alignment());
    SKEIN_TRY(parse_tensors());
    return place_tensors();
  }

 private:
  struct Placement {
    std::uint64_t offset = 0;  // in the data section
    std::uint64_t size = 0;
    std::size_t index = 0;  // of the tensor
  };

  template <typename... Parts>
  Error fault(const Parts&... parts) const {
    return {concat(file_.path_, ": ", parts...)};
  }
  Error cut_short(const std::string& what) const {
    return fault(what, " runs past the end of the file (", bytes_.size(), " bytes); was it cut short?");
  }

  Status parse_preamble() {
    if (reader_.text(4) != "GGUF") {
      const std::string hint = foreign_file_hint(bytes_);
      return fault("not a GGUF file: ", hint.empty() ? "it does not begin with \"GGUF\"" : hint);
    }
    const auto version = reader_.number<std::uint32_t>();
    num_tensors_ = reader_.number<std::uint64_t>();
    num_pairs_ = reader_.number<std::uint64_t>();
    if (!reader_.ok()) return cut_short("its header");
    if (version != 2 && version != 3) {
      const bool swapped = version == 0x02000000U || version == 0x03000000U;
      return fault("GGUF version ", version, "; 2 or 3 was expected", swapped ? ": it is a big-endian file" : "");
    }
    // A pair takes at least 13 bytes (key length, kind, value), a tensor 24: a count cannot promise more than the file
    // has.
    if (num_pairs_ > reader_.left() / 13)
      return fault("claims ", num_pairs_, " metadata entries, more than its size allows");
    if (num_tensors_ > reader_.left() / 24)
      return fault("claims ", num_tensors_, " tensors, more than its size allows");
    return {};
  }

  Result<std::string> parse_text(std::uint64_t max_bytes, const std::string& what) {
    const auto length = reader_.number<std::uint64_t>();
    if (reader_.ok() && length > max_bytes)
      return fault(what, " claims ", length, " bytes; at most ", max_bytes, " are accepted");
    std::string text = reader_.text(length);
    if (!reader_.ok()) return cut_short(what);
    return text;
  }

  Status parse_metadata() {
    for (std::uint64_t i = 0; i < num_pairs_; ++i) {
      SKEIN_ASSIGN(std::string key, parse_text(kMaxKeyBytes, concat("the key of metadata entry ", i)));
      if (key.empty()) return fault("the key of metadata entry ", i, " is empty");
      const auto kind = reader_.number<std::uint32_t>();
      SKEIN_ASSIGN(GgufValue value, parse_value(kind, concat("\"", printable(key), "\"")));
      file_.metadata_.emplace_back(std::move(key), std::move(value));
    }
    auto& pairs = file_.metadata_;
    std::sort(pairs.begin(), pairs.end(), [](const auto& a, const auto& b) { return a.first < b.first; });
    const auto twice =
        std::adjacent_find(pairs.begin(), pairs.end(), [](const auto& a, const auto& b) { return a.first == b.first; });
    if (twice != pairs.end()) return fault("the key \"", printable(twice->first), "\" stands twice");
    return {};
  }

  Result<GgufValue> parse_value(std::uint32_t kind, const std::string& what) {
    if (kind == kArray) return parse_array(what);
    if (kind == kText) {
      SKEIN_ASSIGN(std::string text, parse_text(~std::uint64_t{0}, what));
      return GgufValue(std::move(text));
    }
    GgufValue value;
    switch (kind) {
      case kUint8:
        value = std::uint64_t{reader_.number<std::uint8_t>()};
        break;
      case kInt8:
        value = std::int64_t{reader_.number<std::int8_t>()};
        break;
      case kUint16:
        value = std::uint64_t{reader_.number<std::uint16_t>()};
        break;
      case kInt16:
        value = std::int64_t{reader_.number<std::int16_t>()};
        break;
      case kUint32:
        value = std::uint64_t{reader_.number<std::uint32_t>()};
        break;
      case kInt32:
        value = std::int64_t{reader_.number<std::int32_t>()};
        break;
      case kFloat32:
        value = double{reader_.number<float>()};
        break;
      case kUint64:
        value = reader_.number<std::uint64_t>();
        break;
      case kInt64:
        value = reader_.number<std::int64_t>();
        break;
      case kFloat64:
        value = reader_.number<double>();
        break;
      case kBool: {
        SKEIN_ASSIGN(const bool flag, parse_bool(what));
        value = flag;
        break;
      }
      default:
        return fault(what, " is of kind ", kind, ", which GGUF does not define");
    }
    if (!reader_.ok()) return cut_short(what);
    return value;
  }

  Result<bool> parse_bool(const std::string& what) {
    const auto byte = reader_.number<std::uint8_t>();
    if (byte > 1) return fault(what, " holds the boolean ", int{byte}, "; 0 or 1 was expected");
    return byte == 1;
  }

  Result<GgufValue> parse_array(const std::string& what) {
    const auto kind = reader_.number<std::uint32_t>();
    const auto count = reader_.number<std::uint64_t>();
    if (!reader_.ok()) return cut_short(what);
    if (kind == kArray) return fault(what, " is a list of lists, which is not read");
    if (least_bytes(kind) == 0) return fault(what, " is a list of kind ", kind, ", which GGUF does not define");
    if (count > reader_.left() / least_bytes(kind))
      return fault(what, " claims ", count, " elements, more than the file's size allows");
    array_elements_ += count;
    if (array_elements_ > kMaxArrayElements)
      return fault(what, " brings its lists to over ", kMaxArrayElements, " elements, the most that are accepted");
    switch (kind) {
      case kUint8:
        return numbers<std::uint8_t, std::uint64_t>(count);
      case kInt8:
        return numbers<std::int8_t, std::int64_t>(count);
      case kUint16:
        return numbers<std::uint16_t, std::uint64_t>(count);
      case kInt16:
        return numbers<std::int16_t, std::int64_t>(count);
      case kUint32:
        return numbers<std::uint32_t, std::uint64_t>(count);
      case kInt32:
        return numbers<std::int32_t, std::int64_t>(count);
      case kFloat32:
        return numbers<float, double>(count);
      case kUint64:
        return numbers<std::uint64_t, std::uint64_t>(count);
      case kInt64:
        return numbers<std::int64_t, std::int64_t>(count);
      case kFloat64:
        return numbers<double, double>(count);
      case kBool: {
        std::vector<bool> flags;
        flags.reserve(count);
        for (std::uint64_t i = 0; i < count; ++i) {
          SKEIN_ASSIGN(const bool flag, parse_bool(what));
          flags.push_back(flag);
        }
        return GgufValue(std::move(flags));
      }
      default:
        return texts(count, what);
    }
  }

  template <typename Stored, typename Widened>
  Result<GgufValue> numbers(std::uint64_t count) {
    std::vector<Widened> values(count);  // count was checked against the bytes left
    for (auto& value : values) value = reader_.number<Stored>();
    return GgufValue(std::move(values));
  }

  Result<GgufValue> texts(std::uint64_t count, const std::string& what) {
    std::vector<std::string_view> values;
    values.reserve(count);
    for (std::uint64_t i = 0; i < count; ++i) {
      const auto length = reader_.number<std::uint64_t>();
      values.push_back(reader_.text_in_place(length));
      if (!reader_.ok()) return cut_short(concat("string ", i, " of ", what));
    }
    return GgufValue(std::move(values));
  }

  Status find_alignment() {
    SKEIN_ASSIGN(const std::int64_t alignment, file_.integer("general.alignment", 32));
    if (alignment < 1 || static_cast<std::uint64_t>(alignment) > kMaxAlignment ||
        !std::has_single_bit(static_cast<std::uint64_t>(alignment))) {
      return fault("\"general.alignment\" is ", alignment, "; a power of two up to ", kMaxAlignment, " was expected");
    }
    alignment_ = static_cast<std::uint64_t>(alignment);
    SKEIN_ASSIGN(const std::int64_t parts, file_.integer("split.count", 1));
    if (parts > 1) return fault("it is one of ", parts, " parts; join them with `llama-gguf-split --merge`");
    return {};
  }

  Status parse_tensors() {
    file_.tensors_.reserve(num_tensors_);
    std::unordered_set<std::string> names;
    for (std::uint64_t i = 0; i < num_tensors_; ++i) {
      GgufTensor tensor;
      SKEIN_ASSIGN(tensor.name, parse_text(kMaxTensorNameBytes, concat("the name of tensor ", i)));
      const std::string what = concat("tensor \"", printable(tensor.name), "\"");
      if (tensor.name.empty()) return fault("the name of tensor ", i, " is empty");
      if (!names.insert(tensor.name).second) return fault(what, " stands twice");
      SKEIN_TRY(parse_shape(tensor, what));
      const auto type = reader_.number<std::uint32_t>();
      const auto offset = reader_.number<std::uint64_t>();
      if (!reader_.ok()) return cut_short(what);
      const auto known = ggml_type_from_number(type);
      if (!known) {
        return fault(what, " is stored as ", ggml_name_of_number(type), " (type ", type,
                     "); F32, F16, BF16, Q4_0, Q4_1, Q5_0, Q5_1, Q8_0, Q4_K, Q5_K and Q6_K are read");
      }
      tensor.type = *known;
      SKEIN_ASSIGN(const std::uint64_t size, size_of(tensor, what));
      if (offset % alignment_ != 0)
        return fault(what, " begins at offset ", offset, ", no multiple of the alignment ", alignment_);
      placements_.push_back({offset, size, file_.tensors_.size()});
      file_.tensors_.push_back(std::move(tensor));
    }
    return {};
  }

  Status parse_shape(GgufTensor& tensor, const std::string& what) {
    const auto dimensions = reader_.number<std::uint32_t>();
    if (reader_.ok() && (dimensions < 1 || dimensions > kMaxDimensions)) {
      return fault(what, " has ", dimensions, " dimensions; 1 to ", kMaxDimensions, " were expected");
    }
    for (std::uint32_t i = 0; i < dimensions; ++i) {
      const auto extent = reader_.number<std::uint64_t>();
      if (!reader_.ok()) return cut_short(what);
      if (extent < 1 || extent > static_cast<std::uint64_t>(std::numeric_limits<std::int64_t>::max())) {
        return fault(what, " has an extent of ", extent, "; 1 to 2^63 - 1 was expected");
      }
      tensor.shape.push_back(static_cast<std::int64_t>(extent));
    }
    std::reverse(tensor.shape.begin(), tensor.shape.end());
    return {};
  }

  Result<std::uint64_t> size_of(const GgufTensor& tensor, const std::string& what) const {
    const GgmlBlock block = ggml_block(tensor.type);
    if (tensor.shape.back() % block.elements != 0) {
      return fault(what, " has rows of ", tensor.shape.back(), " elements; ", ggml_type_name(tensor.type),
                   " needs a multiple of ", block.elements);
    }
    const auto numel = checked_numel(tensor.shape);
    const auto size = numel ? checked_mul(*numel / block.elements, block.bytes) : std::nullopt;
    if (!size) return fault("the size of ", what, " of shape ", to_string(tensor.shape), " overflows");
    return static_cast<std::uint64_t>(*size);
  }

  // Views into the data section, which begins at the next multiple of the alignment.
  Status place_tensors() {
    if (placements_.empty()) return {};
    const std::uint64_t begin = (reader_.position() + alignment_ - 1) / alignment_ * alignment_;
    const std::uint64_t available = begin <= bytes_.size() ? bytes_.size() - begin : 0;
    std::sort(placements_.begin(), placements_.end(),
              [](const Placement& a, const Placement& b) { return a.offset < b.offset; });
    std::uint64_t reached = 0;
    for (const auto& [offset, size, index] : placements_) {
      auto& tensor = file_.tensors_[index];
      const std::string what = concat("tensor \"", printable(tensor.name), "\"");
      if (offset > available || size > available - offset) {
        return fault(what, " has ", size, " bytes at offset ", offset, "; the data section has ", available,
                     "; was the file cut short?");
      }
      if (offset < reached) return fault("the bytes of ", what, " overlap another tensor's");
      reached = offset + size;
      tensor.bytes = bytes_.subspan(begin + offset, size);
    }
    return {};
  }

  GgufFile& file_;
  std::span<const std::byte> bytes_;
  ByteReader reader_;
  std::uint64_t num_tensors_ = 0;
  std::uint64_t num_pairs_ = 0;
  std::uint64_t array_elements_ = 0;
  std::uint64_t alignment_ = 32;
  std::vector<Placement> placements_;
};

Result<std::unique_ptr<GgufFile>> GgufFile::open(Env& env, const std::string& path) {
  auto file = std::make_unique<GgufFile>();
  file->path_ = path;
  SKEIN_ASSIGN(file->map_, env.map(path));
  SKEIN_TRY(GgufParser(*file, file->map_->bytes()).parse());
  return file;
}

}  // namespace skein
