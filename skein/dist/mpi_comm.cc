// The processes that mpirun or srun started, through MPI. The only file that includes mpi.h.
#define OMPI_SKIP_MPICXX 1  // the C interface alone: the C++ one is gone from MPI since 3.0
#include <mpi.h>

#include <algorithm>
#include <cstdlib>
#include <limits>

#include "skein/base/concat.h"
#include "skein/dist/comm.h"

namespace skein {
namespace {

// MPI counts in int: longer spans go in pieces.
constexpr std::size_t kMaxCount = std::numeric_limits<int>::max() / 2;

class MpiComm : public Comm {
 public:
  MpiComm() {
    MPI_Comm_rank(MPI_COMM_WORLD, &rank_);
    MPI_Comm_size(MPI_COMM_WORLD, &size_);
  }
  ~MpiComm() override { MPI_Finalize(); }

  int rank() const override { return rank_; }
  int size() const override { return size_; }

  void broadcast(std::span<std::byte> bytes, int root_rank) override {
    for (std::size_t begin = 0; begin < bytes.size(); begin += kMaxCount) {
      const auto piece = bytes.subspan(begin, std::min(kMaxCount, bytes.size() - begin));
      MPI_Bcast(piece.data(), static_cast<int>(piece.size()), MPI_BYTE, root_rank, MPI_COMM_WORLD);
    }
  }

  void all_reduce_sum(std::span<float> values) override { sum_in_rank_order(values, MPI_FLOAT); }
  void all_reduce_sum(std::span<double> values) override { sum_in_rank_order(values, MPI_DOUBLE); }
  void all_reduce_sum(std::span<std::uint64_t> counts) override {
    for (std::size_t begin = 0; begin < counts.size(); begin += kMaxCount) {
      const auto piece = counts.subspan(begin, std::min(kMaxCount, counts.size() - begin));
      MPI_Allreduce(MPI_IN_PLACE, piece.data(), static_cast<int>(piece.size()), MPI_UINT64_T, MPI_SUM, MPI_COMM_WORLD);
    }
  }

  std::vector<std::vector<std::byte>> gather(std::span<const std::byte> part, int root_rank) override {
    std::uint64_t size = part.size();
    std::vector<std::uint64_t> sizes(static_cast<std::size_t>(size_));
    MPI_Gather(&size, 1, MPI_UINT64_T, sizes.data(), 1, MPI_UINT64_T, root_rank, MPI_COMM_WORLD);
    if (rank_ != root_rank) {
      for_pieces(part.size(), [&](std::size_t begin, int count) {
        MPI_Send(part.data() + begin, count, MPI_BYTE, root_rank, 0, MPI_COMM_WORLD);
      });
      return {};
    }
    std::vector<std::vector<std::byte>> parts(static_cast<std::size_t>(size_));
    for (int rank = 0; rank < size_; ++rank) {
      auto& received = parts[static_cast<std::size_t>(rank)];
      if (rank == rank_) {
        received.assign(part.begin(), part.end());
        continue;
      }
      received.resize(sizes[static_cast<std::size_t>(rank)]);
      for_pieces(received.size(), [&](std::size_t begin, int count) {
        MPI_Recv(received.data() + begin, count, MPI_BYTE, rank, 0, MPI_COMM_WORLD, MPI_STATUS_IGNORE);
      });
    }
    return parts;
  }

  void barrier() override { MPI_Barrier(MPI_COMM_WORLD); }

 private:
  template <typename Each>
  static void for_pieces(std::size_t size, const Each& each) {
    for (std::size_t begin = 0; begin < size; begin += kMaxCount) {
      each(begin, static_cast<int>(std::min(kMaxCount, size - begin)));
    }
  }

  // MPI_Allreduce may add in any order. Gathering first costs size() times the bytes and fixes the order.
  template <typename T>
  void sum_in_rank_order(std::span<T> values, MPI_Datatype type) {
    constexpr std::size_t kPiece = 1 << 16;
    std::vector<T> all(kPiece * static_cast<std::size_t>(size_));
    for (std::size_t begin = 0; begin < values.size(); begin += kPiece) {
      const auto piece = values.subspan(begin, std::min(kPiece, values.size() - begin));
      const int count = static_cast<int>(piece.size());
      MPI_Allgather(piece.data(), count, type, all.data(), count, type, MPI_COMM_WORLD);
      for (std::size_t i = 0; i < piece.size(); ++i) {
        T sum = all[i];
        for (int rank = 1; rank < size_; ++rank) sum += all[static_cast<std::size_t>(rank) * piece.size() + i];
        piece[i] = sum;
      }
    }
  }

  int rank_ = 0;
  int size_ = 1;
};

// Set by the launchers that Debian's Open MPI works with: mpirun itself, and srun through PMI or PMIx.
bool started_by_launcher() {
  for (const char* variable : {"OMPI_COMM_WORLD_SIZE", "PMI_SIZE", "PMIX_RANK"}) {
    if (std::getenv(variable) != nullptr) return true;
  }
  return false;
}

}  // namespace

bool has_mpi() { return true; }

Result<std::unique_ptr<Comm>> make_comm() {
  if (!started_by_launcher()) return make_single_comm();
  int provided = 0;
  if (MPI_Init_thread(nullptr, nullptr, MPI_THREAD_FUNNELED, &provided) != MPI_SUCCESS) {
    return Error{"MPI could not be started; was this process started by mpirun or srun?"};
  }
  if (provided < MPI_THREAD_FUNNELED) {
    MPI_Finalize();
    return Error{"this MPI allows no threads beside the one that calls it; another build of MPI is needed"};
  }
  return std::unique_ptr<Comm>(std::make_unique<MpiComm>());
}

}  // namespace skein
