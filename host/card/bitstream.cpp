#include "host/card/bitstream.h"

#include <dlfcn.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>
#include <xclbin.h>
#include <xocl_ioctl.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <mutex>
#include <string_view>

namespace flexllm::card {
namespace {

using Bytes = std::span<const std::byte>;

constexpr std::size_t kMostEntries = 4096;  // of any table in an image

template <typename T>
T read_at(Bytes from, std::size_t offset, const char* what) {
  if (offset > from.size() || sizeof(T) > from.size() - offset) {
    throw BitstreamError(EINVAL, std::string(what) + " is cut off");
  }
  T value;
  std::memcpy(&value, from.data() + offset, sizeof(T));
  return value;
}

template <std::size_t N, typename Char>
std::string text(const Char (&field)[N]) {
  const char* begin = reinterpret_cast<const char*>(field);
  return std::string(begin, ::strnlen(begin, N));
}

Bytes section(Bytes image, const axlf_header& header, axlf_section_kind kind) {
  constexpr std::size_t first = offsetof(axlf, m_sections);
  for (std::size_t i = 0; i < header.m_numSections; ++i) {
    const auto entry = read_at<axlf_section_header>(image, first + i * sizeof(axlf_section_header),
                                                    "table of sections");
    if (entry.m_sectionKind != static_cast<std::uint32_t>(kind)) continue;
    if (entry.m_sectionOffset > image.size() ||
        entry.m_sectionSize > image.size() - entry.m_sectionOffset) {
      throw BitstreamError(EINVAL, "section " + std::to_string(kind) + " lies outside the image");
    }
    return image.subspan(entry.m_sectionOffset, entry.m_sectionSize);
  }
  return {};
}

std::string raw(Bytes bytes) {
  return std::string(reinterpret_cast<const char*>(bytes.data()), bytes.size());
}

std::size_t count_of(Bytes table, const char* what) {
  const auto count = read_at<std::int32_t>(table, 0, what);
  if (count < 0 || static_cast<std::size_t>(count) > kMostEntries) {
    throw BitstreamError(EINVAL, std::string(what) + " has an impossible length");
  }
  return static_cast<std::size_t>(count);
}

std::vector<BankDescription> read_banks(Bytes table) {
  std::vector<BankDescription> banks;
  if (table.empty()) return banks;
  for (std::size_t i = 0, n = count_of(table, "memory topology"); i < n; ++i) {
    const auto entry = read_at<mem_data>(
        table, offsetof(mem_topology, m_mem_data) + i * sizeof(mem_data), "memory topology");
    if (entry.m_size > (1ull << 40)) throw BitstreamError(EINVAL, "a bank is impossibly large");
    banks.push_back(
        {text(entry.m_tag), entry.m_base_address, entry.m_size * 1024, entry.m_used != 0});
  }
  return banks;
}

std::vector<KernelDescription> read_kernels(Bytes table, const KernelLibrary* library) {
  std::vector<KernelDescription> kernels;
  for (std::size_t at = 0; at < table.size();) {
    const auto info = read_at<kernel_info>(table, at, "kernel table");
    at += sizeof(kernel_info);
    if (info.anums < 0 || static_cast<std::size_t>(info.anums) > kMostEntries) {
      throw BitstreamError(EINVAL, "a kernel has an impossible number of arguments");
    }
    KernelDescription kernel;
    kernel.name = text(info.name);
    for (int i = 0; i < info.anums; ++i, at += sizeof(argument_info)) {
      const auto argument = read_at<argument_info>(table, at, "kernel table");
      kernel.arguments.push_back({argument.offset, argument.size});
    }
    if (library != nullptr) kernel.entry = library->find(kernel.name);
    kernels.push_back(std::move(kernel));
  }
  return kernels;
}

std::vector<ComputeUnitDescription> read_compute_units(
    Bytes table, const std::vector<KernelDescription>& kernels) {
  std::vector<ip_data> entries;
  if (table.empty()) return {};
  for (std::size_t i = 0, n = count_of(table, "IP layout"); i < n; ++i) {
    const auto entry =
        read_at<ip_data>(table, offsetof(ip_layout, m_ip_data) + i * sizeof(ip_data), "IP layout");
    if (entry.m_type == IP_KERNEL) entries.push_back(entry);
  }
  // The index of a compute unit in the driver is the order of its interrupt.
  std::stable_sort(entries.begin(), entries.end(), [](const ip_data& a, const ip_data& b) {
    return (a.properties & IP_INTERRUPT_ID_MASK) < (b.properties & IP_INTERRUPT_ID_MASK);
  });
  std::vector<ComputeUnitDescription> units;
  for (const ip_data& entry : entries) {
    const std::string name = text(entry.m_name);
    const std::string_view kernel = std::string_view(name).substr(0, name.find(':'));
    const auto found = std::find_if(kernels.begin(), kernels.end(),
                                    [&](const auto& k) { return k.name == kernel; });
    if (found == kernels.end()) {
      throw BitstreamError(EINVAL, "compute unit " + name + " has no kernel in the metadata");
    }
    units.push_back(
        {name, entry.m_base_address, static_cast<std::size_t>(found - kernels.begin())});
  }
  return units;
}

}  // namespace

std::string to_string(const Uuid& uuid) {
  constexpr char digits[] = "0123456789abcdef";
  std::string out;
  for (std::size_t i = 0; i < uuid.size(); ++i) {
    if (i == 4 || i == 6 || i == 8 || i == 10) out += '-';
    out += digits[uuid[i] >> 4];
    out += digits[uuid[i] & 15];
  }
  return out;
}

namespace {

std::string file_name(int fd) { return "/proc/self/fd/" + std::to_string(fd); }

// A library with unique symbols is never unloaded, and its threads stay with it. The next one of
// the same bytes goes on with it, or each reset would leave another behind.
struct ResidentLibraries {
  std::mutex mutex;
  std::vector<int> files;  // of those that nobody uses
};

ResidentLibraries& resident_libraries() {
  static auto* const all = new ResidentLibraries;  // cards may go after static objects
  return *all;
}

bool holds(int fd, Bytes image) {
  struct stat about {};
  if (::fstat(fd, &about) != 0 || static_cast<std::size_t>(about.st_size) != image.size()) {
    return false;
  }
  std::vector<std::byte> part(std::size_t{1} << 20);
  for (std::size_t done = 0; done < image.size();) {
    const ssize_t n = ::pread(fd, part.data(), part.size(), static_cast<off_t>(done));
    if (n <= 0 || std::memcmp(part.data(), image.data() + done, static_cast<std::size_t>(n)) != 0) {
      return false;
    }
    done += static_cast<std::size_t>(n);
  }
  return true;
}

// -1: there is none.
int take_resident(Bytes image) {
  ResidentLibraries& all = resident_libraries();
  const std::lock_guard lock(all.mutex);
  const auto found =
      std::find_if(all.files.begin(), all.files.end(), [&](int fd) { return holds(fd, image); });
  if (found == all.files.end()) return -1;
  const int fd = *found;
  all.files.erase(found);
  return fd;
}

int write_file(Bytes image) {
  const int fd = ::memfd_create("flexllm-card-kernels", MFD_CLOEXEC);
  if (fd < 0) throw BitstreamError(errno, "cannot make an anonymous file for the kernels");
  for (std::size_t done = 0; done < image.size();) {
    const ssize_t n = ::write(fd, image.data() + done, image.size() - done);
    if (n <= 0) {
      ::close(fd);
      throw BitstreamError(ENOSPC, "cannot write the kernels to an anonymous file");
    }
    done += static_cast<std::size_t>(n);
  }
  return fd;
}

}  // namespace

KernelLibrary::KernelLibrary(Bytes image) : fd_(take_resident(image)) {
  if (fd_ < 0) fd_ = write_file(image);
  handle_ = ::dlopen(file_name(fd_).c_str(), RTLD_NOW | RTLD_LOCAL);
  if (handle_ == nullptr) {
    const std::string why = ::dlerror();
    ::close(fd_);
    throw BitstreamError(ENOEXEC, "the kernel library does not load: " + why);
  }
}

KernelLibrary::~KernelLibrary() {
  ::dlclose(handle_);
  // One that stays keeps its name: dlopen would answer the next library of that name with this one.
  // So its descriptor, which is in the name, stays taken.
  void* const resident = ::dlopen(file_name(fd_).c_str(), RTLD_NOW | RTLD_NOLOAD);
  if (resident == nullptr) {
    ::close(fd_);
  } else {
    ::dlclose(resident);
    ResidentLibraries& all = resident_libraries();
    const std::lock_guard lock(all.mutex);
    all.files.push_back(fd_);
  }
}

flexllm_card_kernel KernelLibrary::find(const std::string& kernel) const {
  return reinterpret_cast<flexllm_card_kernel>(
      ::dlsym(handle_, (kKernelSymbolPrefix + kernel).c_str()));
}

Bitstream parse_bitstream(Bytes image, Bytes kernel_table, const std::string& vbnv) {
  constexpr std::string_view magic("xclbin2", 8);  // with its terminator
  if (image.size() < offsetof(axlf, m_sections) ||
      std::memcmp(image.data(), magic.data(), magic.size()) != 0) {
    throw BitstreamError(EINVAL, "not an xclbin");
  }
  const auto header = read_at<axlf_header>(image, offsetof(axlf, m_header), "header");
  if (header.m_length != image.size() || header.m_numSections > kMostEntries) {
    throw BitstreamError(EINVAL, "the header contradicts the size of the image");
  }
  Bitstream out;
  std::memcpy(out.uuid.data(), header.uuid, out.uuid.size());
  if (const std::string made_for = text(header.m_platformVBNV); made_for != vbnv) {
    throw BitstreamError(EOPNOTSUPP, "made for shell " + made_for + ", this card has " + vbnv);
  }
  const auto find = [&](axlf_section_kind kind) { return section(image, header, kind); };
  out.mem_topology = raw(find(MEM_TOPOLOGY));
  out.group_topology = raw(find(ASK_GROUP_TOPOLOGY));
  out.ip_layout = raw(find(IP_LAYOUT));
  out.clocks = raw(find(CLOCK_FREQ_TOPOLOGY));
  const Bytes groups = find(ASK_GROUP_TOPOLOGY);
  out.banks = read_banks(groups.empty() ? find(MEM_TOPOLOGY) : groups);
  constexpr std::string_view elf("\177ELF", 4);
  const Bytes code = find(BITSTREAM);
  if (code.size() < elf.size() || std::memcmp(code.data(), elf.data(), elf.size()) != 0) {
    throw BitstreamError(EINVAL, "no kernel library inside: not an emulated bitstream");
  }
  out.library = std::make_shared<const KernelLibrary>(code);
  out.kernels = read_kernels(kernel_table, out.library.get());
  out.compute_units = read_compute_units(find(IP_LAYOUT), out.kernels);
  return out;
}

}  // namespace flexllm::card
