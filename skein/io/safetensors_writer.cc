#include <algorithm>
#include <set>

#include "skein/base/concat.h"
#include "skein/io/atomic_file.h"
#include "skein/io/json.h"
#include "skein/io/safetensors.h"

namespace skein {
namespace {

constexpr std::size_t kAlignment = 8;

struct Layout {
  std::string header;  // length, JSON, padding
  std::uint64_t data_bytes = 0;
};

Result<Layout> lay_out(const std::string& path, const std::vector<TensorPlan>& plan,
                       const std::map<std::string, std::string>& metadata) {
  Json document = Json::object();
  auto& members = document.get_ref<Json::object_t&>();  // appended to without ordered_json's search for the key
  if (!metadata.empty()) members.emplace_back("__metadata__", metadata);
  std::set<std::string> names{"__metadata__"};
  std::int64_t offset = 0;
  for (const auto& [name, dtype, shape] : plan) {
    if (!names.insert(name).second) {
      return Error{concat("cannot write ", path, ": two tensors are named \"", printable(name), "\"")};
    }
    const auto numel = checked_numel(shape);
    const auto size = numel ? checked_mul(*numel, dtype_size(dtype)) : std::nullopt;
    std::int64_t end = 0;
    if (!size || __builtin_add_overflow(offset, *size, &end)) {
      return Error{concat("cannot write ", path, ": the size of tensor \"", printable(name), "\" ", to_string(shape),
                          " overflows")};
    }
    members.emplace_back(name, Json{{"dtype", dtype_name(dtype)}, {"shape", shape}, {"data_offsets", {offset, end}}});
    offset = end;
  }
  std::string text;
  try {
    text = document.dump();
  } catch (const Json::type_error&) {
    return Error{concat("cannot write ", path, ": a tensor's name or the metadata is not valid UTF-8")};
  }
  text.resize((text.size() + kAlignment - 1) / kAlignment * kAlignment, ' ');
  if (text.size() > SafetensorsLimits{}.max_header_bytes) {
    return Error{
        concat("cannot write ", path, ": a header of ", text.size(), " bytes is over the format's bound of 100 MB")};
  }
  Layout layout;
  for (int i = 0; i < 8; ++i) layout.header += static_cast<char>(static_cast<std::uint64_t>(text.size()) >> (8 * i));
  layout.header += text;
  layout.data_bytes = static_cast<std::uint64_t>(offset);
  return layout;
}

}  // namespace

Result<std::string> make_safetensors_header(const std::string& path, const std::vector<TensorPlan>& plan,
                                            const std::map<std::string, std::string>& metadata) {
  SKEIN_ASSIGN(Layout layout, lay_out(path, plan, metadata));
  return std::move(layout.header);
}

struct SafetensorsWriter::State {
  std::string path;
  std::unique_ptr<AtomicFile> file;
  std::uint64_t data_bytes = 0;
  std::uint64_t written_bytes = 0;
};

SafetensorsWriter::SafetensorsWriter(std::unique_ptr<State> state) : state_(std::move(state)) {}
SafetensorsWriter::~SafetensorsWriter() = default;

Result<std::unique_ptr<SafetensorsWriter>> SafetensorsWriter::create(
    Env& env, const std::string& path, std::vector<TensorPlan> plan,
    const std::map<std::string, std::string>& metadata) {
  SKEIN_ASSIGN(const Layout layout, lay_out(path, plan, metadata));
  auto state = std::make_unique<State>();
  state->path = path;
  state->data_bytes = layout.data_bytes;
  SKEIN_ASSIGN(state->file, AtomicFile::create(env, path));
  SKEIN_TRY(state->file->append(std::as_bytes(std::span(layout.header))));
  return std::unique_ptr<SafetensorsWriter>(new SafetensorsWriter(std::move(state)));
}

Status SafetensorsWriter::append(std::span<const std::byte> bytes) {
  if (bytes.size() > state_->data_bytes - state_->written_bytes) {
    return Error{concat("cannot write ", state_->path, ": more bytes than its tensors have")};
  }
  SKEIN_TRY(state_->file->append(bytes));
  state_->written_bytes += bytes.size();
  return {};
}

Status SafetensorsWriter::finish() {
  if (state_->written_bytes != state_->data_bytes) {
    return Error{concat("cannot finish ", state_->path, ": ", state_->written_bytes, " of ", state_->data_bytes,
                        " bytes were given")};
  }
  return state_->file->commit();
}

Status write_safetensors(Env& env, const std::string& path, const std::vector<NamedTensor>& tensors,
                         const std::map<std::string, std::string>& metadata) {
  std::vector<TensorPlan> plan;
  for (const auto& [name, view] : tensors) {
    const auto numel = checked_numel(view.shape);
    if (!numel ||
        static_cast<std::uint64_t>(*numel) * static_cast<std::uint64_t>(dtype_size(view.dtype)) != view.bytes.size()) {
      return Error{concat("cannot write ", path, ": tensor \"", printable(name), "\" of shape ", to_string(view.shape),
                          " has ", view.bytes.size(), " bytes")};
    }
    plan.push_back({name, view.dtype, view.shape});
  }
  SKEIN_ASSIGN(const auto writer, SafetensorsWriter::create(env, path, std::move(plan), metadata));
  for (const auto& named : tensors) SKEIN_TRY(writer->append(named.tensor.bytes));
  return writer->finish();
}

}  // namespace skein
