#include "skein/base/concat.h"
#include "skein/dist/comm.h"

namespace skein {

std::string broadcast_text(Comm& comm, std::string text, int root_rank) {
  std::uint64_t size = text.size();
  comm.broadcast(std::as_writable_bytes(std::span(&size, 1)), root_rank);
  text.resize(size);
  if (size > 0) comm.broadcast(std::as_writable_bytes(std::span(text)), root_rank);
  return text;
}

Status agree(Comm& comm, const Status& own) {
  if (comm.size() == 1) return own;
  // One place per rank: 0 well, else 1 + the kind of its error.
  std::vector<std::uint64_t> faults(static_cast<std::size_t>(comm.size()), 0);
  if (!own.ok()) faults[static_cast<std::size_t>(comm.rank())] = 1 + static_cast<std::uint64_t>(own.error().kind);
  comm.all_reduce_sum(faults);
  for (int rank = 0; rank < comm.size(); ++rank) {
    const auto fault = faults[static_cast<std::size_t>(rank)];
    if (fault == 0) continue;
    const std::string message = broadcast_text(comm, own.ok() ? std::string() : own.error().message, rank);
    return Error{rank == 0 ? message : concat("rank ", rank, ": ", message), static_cast<ErrorKind>(fault - 1)};
  }
  return {};
}

}  // namespace skein
