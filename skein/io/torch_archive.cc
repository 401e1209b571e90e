#include "skein/io/torch_archive.h"

#include <algorithm>
#include <cstring>
#include <string_view>

#include "skein/base/concat.h"
#include "skein/io/foreign_file.h"
#include "skein/io/zip_archive.h"

namespace skein {
namespace {

constexpr std::uint64_t kMaxPickleBytes = 64 << 20;

bool is_contiguous(const PickleTensor& tensor) {
  std::int64_t expected = 1;
  for (std::size_t i = tensor.shape.size(); i-- > 0;) {
    if (tensor.shape[i] == 1) continue;
    if (tensor.strides[i] != expected) return false;
    expected *= tensor.shape[i];  // no overflow: the whole product was checked
  }
  return true;
}

// Row-major copy of a strided tensor. Requires at least one element and checked bounds.
void gather(const PickleTensor& tensor, const std::byte* storage, std::int64_t element_bytes, std::byte* out) {
  const std::size_t rank = tensor.shape.size();
  Shape index(rank, 0);
  std::int64_t at = tensor.offset;
  for (;;) {
    std::memcpy(out, storage + at * element_bytes, static_cast<std::size_t>(element_bytes));
    out += element_bytes;
    std::size_t axis = rank;
    while (axis > 0) {
      --axis;
      at += tensor.strides[axis];
      if (++index[axis] < tensor.shape[axis]) break;
      at -= tensor.strides[axis] * tensor.shape[axis];
      index[axis] = 0;
      if (axis == 0) return;
    }
    if (rank == 0) return;
  }
}

}  // namespace

class TorchArchiveReader {
 public:
  TorchArchiveReader(TorchArchive& archive, const ZipArchive& zip) : archive_(archive), zip_(zip) {}

  Status read() {
    SKEIN_TRY(find_prefix());
    SKEIN_TRY(check_byte_order());
    const std::string pickle_name = prefix_ + "data.pkl";
    SKEIN_ASSIGN(const auto pickle, zip_.read(pickle_name));
    if (pickle.size() > kMaxPickleBytes) {
      return fault("its data.pkl has ", pickle.size(), " bytes; at most ", kMaxPickleBytes, " are accepted");
    }
    SKEIN_ASSIGN(archive_.root_, parse_pickle(pickle, archive_.path_));
    SKEIN_TRY(resolve(archive_.root_, "", true));
    auto& tensors = archive_.tensors_;
    std::sort(tensors.begin(), tensors.end(),
              [](const NamedTensor& a, const NamedTensor& b) { return a.name < b.name; });
    const auto twice = std::adjacent_find(tensors.begin(), tensors.end(),
                                          [](const NamedTensor& a, const NamedTensor& b) { return a.name == b.name; });
    if (twice != tensors.end()) return fault("two tensors are named \"", printable(twice->name), "\"");
    return {};
  }

 private:
  template <typename... Parts>
  Error fault(const Parts&... parts) const {
    return {concat(archive_.path_, ": ", parts...)};
  }

  // All members lie in one folder: "archive/", or the name the file was saved under.
  Status find_prefix() {
    std::string found;
    for (const auto& name : zip_.names()) {
      if (!name.ends_with("/data.pkl") || name.find('/') != name.size() - std::string_view("/data.pkl").size())
        continue;
      if (!found.empty()) return fault("two members are called data.pkl; a file of torch.save has one");
      found = name.substr(0, name.size() - std::string_view("data.pkl").size());
    }
    if (found.empty()) return fault("no FOLDER/data.pkl in the zip archive; is it a file of torch.save?");
    prefix_ = found;
    return {};
  }

  Status check_byte_order() {
    const std::string name = prefix_ + "byteorder";
    if (!zip_.contains(name)) return {};
    SKEIN_ASSIGN(const auto raw, zip_.read(name));
    const std::string_view order(reinterpret_cast<const char*>(raw.data()), raw.size());
    if (order != "little") return fault("its byte order is \"", printable(order, 20), "\"; \"little\" was expected");
    return {};
  }

  // Fills in the views of all tensors below `value`; named: dicts with string keys alone lead here.
  Status resolve(PickleValue& value, const std::string& name, bool named) {
    if (auto* tensor = value.get<PickleTensor>()) {
      SKEIN_TRY(resolve_tensor(*tensor, name.empty() ? "(unnamed)" : name));
      if (named) archive_.tensors_.push_back({name, tensor->view});
    } else if (auto* list = value.get<PickleValue::List>()) {
      for (auto& item : *list) SKEIN_TRY(resolve(item, name, false));
    } else if (auto* dict = value.get<PickleValue::Dict>()) {
      for (auto& [key, item] : *dict) {
        const auto* text = key.get<std::string>();
        const std::string below = text == nullptr ? name : name.empty() ? *text : concat(name, ".", *text);
        SKEIN_TRY(resolve(item, below, named && text != nullptr));
      }
    }
    return {};
  }

  Status resolve_tensor(PickleTensor& tensor, const std::string& name) {
    const std::string what = concat("tensor \"", printable(name), "\"");
    const std::int64_t element_bytes = dtype_size(tensor.dtype);
    SKEIN_ASSIGN(const auto* storage, storage_of(tensor, what));
    const auto numel = checked_numel(tensor.shape);
    const auto size = numel ? checked_mul(*numel, element_bytes) : std::nullopt;
    if (!size) return fault(what, ": the product of the shape ", to_string(tensor.shape), " overflows");
    SKEIN_TRY(check_window(tensor, *numel, what));

    tensor.view = {tensor.dtype, tensor.shape, {}};
    if (*numel == 0) return {};
    if (is_contiguous(tensor)) {
      tensor.view.bytes = std::span(*storage).subspan(static_cast<std::size_t>(tensor.offset * element_bytes),
                                                      static_cast<std::size_t>(*size));
      return {};
    }
    copied_bytes_ += static_cast<std::uint64_t>(*size);
    if (static_cast<std::uint64_t>(*size) > zip_.file_size() || copied_bytes_ > zip_.file_size()) {
      return fault(what, ": its strides unfold to more bytes than the file has");
    }
    archive_.copies_.push_back(std::make_unique<std::byte[]>(static_cast<std::size_t>(*size)));
    gather(tensor, storage->data(), element_bytes, archive_.copies_.back().get());
    tensor.view.bytes = {archive_.copies_.back().get(), static_cast<std::size_t>(*size)};
    return {};
  }

  Result<const std::vector<std::byte>*> storage_of(const PickleTensor& tensor, const std::string& what) {
    auto& storages = archive_.storages_;
    auto found = storages.find(tensor.storage);
    if (found == storages.end()) {
      SKEIN_ASSIGN(auto bytes, zip_.read(concat(prefix_, "data/", tensor.storage)));
      // Members may overlap in the file, so that many small lies add up.
      loaded_bytes_ += bytes.size();
      if (loaded_bytes_ > zip_.file_size())
        return fault("its storages overlap: together they have more bytes than the file");
      found = storages.emplace(tensor.storage, std::move(bytes)).first;
    }
    const auto claimed = checked_mul(tensor.storage_elements, dtype_size(tensor.dtype));
    if (!claimed || static_cast<std::uint64_t>(*claimed) != found->second.size()) {
      return fault(what, ": its storage of ", tensor.storage_elements, " ", dtype_name(tensor.dtype), " elements has ",
                   found->second.size(), " bytes in the file");
    }
    return &found->second;
  }

  // The last element a tensor reaches is at offset + sum (shape - 1) * stride.
  Status check_window(const PickleTensor& tensor, std::int64_t numel, const std::string& what) const {
    if (tensor.offset < 0) return fault(what, ": its offset is ", tensor.offset);
    for (const std::int64_t stride : tensor.strides) {
      if (stride < 0) return fault(what, ": its strides are ", to_string(tensor.strides));
    }
    if (numel == 0) return {};
    std::int64_t last = tensor.offset;
    for (std::size_t i = 0; i < tensor.shape.size(); ++i) {
      const auto reach = checked_mul(tensor.shape[i] - 1, tensor.strides[i]);
      if (!reach || __builtin_add_overflow(last, *reach, &last))
        return fault(what, ": its strides ", to_string(tensor.strides), " overflow");
    }
    if (last >= tensor.storage_elements) {
      return fault(what, " of shape ", to_string(tensor.shape), " reaches element ", last, " of a storage of ",
                   tensor.storage_elements);
    }
    return {};
  }

  TorchArchive& archive_;
  const ZipArchive& zip_;
  std::string prefix_;  // "archive/"
  std::uint64_t loaded_bytes_ = 0;
  std::uint64_t copied_bytes_ = 0;
};

Result<std::unique_ptr<TorchArchive>> TorchArchive::open(Env& env, const std::string& path) {
  SKEIN_ASSIGN(const auto map, env.map(path));
  const auto bytes = map->bytes();
  if (!bytes.empty() && bytes[0] == std::byte{0x80}) {
    return Error{
        concat(path, " is a pickle of PyTorch's format before 1.6; load it in Python and torch.save it again")};
  }
  if (bytes.size() < 2 || bytes[0] != std::byte{'P'} || bytes[1] != std::byte{'K'}) {
    const std::string hint = foreign_file_hint(bytes);
    return Error{concat(
        path, " is not a file of torch.save: ", hint.empty() ? "it does not begin as a zip archive does" : hint)};
  }
  SKEIN_ASSIGN(const auto zip, ZipArchive::open(env, path));
  std::unique_ptr<TorchArchive> archive(new TorchArchive);
  archive->path_ = path;
  SKEIN_TRY(TorchArchiveReader(*archive, *zip).read());
  return archive;
}

}  // namespace skein
