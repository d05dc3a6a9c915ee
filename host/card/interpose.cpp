// The libc entry points through which XRT reaches a driver. Paths and descriptors that are not an
// emulated card's go to the next definition of the same symbol, untouched.
//
// Nothing here may call back into itself with a path or a descriptor of the rack: the card's own
// files are anonymous, so its calls fall through.
#include <dirent.h>
#include <dlfcn.h>
#include <fcntl.h>
#include <poll.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <cstdarg>
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <map>
#include <mutex>
#include <string>
#include <vector>

#include "host/card/rack.h"

namespace {

using flexllm::card::Card;
using flexllm::card::Rack;
using Kind = Rack::Entry::Kind;

// The definition of a symbol that comes after this library's. `known` remembers it and needs no
// guard: whoever comes first finds the same.
void* next_definition(std::atomic<void*>& known, const char* name) {
  void* next = known.load(std::memory_order_relaxed);
  if (next == nullptr) {
    next = ::dlsym(RTLD_NEXT, name);
    known.store(next, std::memory_order_relaxed);
  }
  return next;
}

// The function that would have been called without this library.
#define NEXT(function)                                                                 \
  ([]() {                                                                              \
    static std::atomic<void*> known{nullptr};                                          \
    return reinterpret_cast<decltype(&::function)>(next_definition(known, #function)); \
  }())

// Until the library is initialised, calls pass through: sanitizers make some before they are set up
// themselves, and nothing looks for a card so early.
bool initialised = false;
__attribute__((constructor)) void note_initialised() { initialised = true; }

// `stat` is also the name of a type, so NEXT cannot say it.
int next_stat(const char* path, struct stat* out) {
  static std::atomic<void*> known{nullptr};
  void* const next = next_definition(known, "stat");
  return reinterpret_cast<int (*)(const char*, struct stat*)>(next)(path, out);
}

int next_stat64(const char* path, struct stat64* out) {
  return next_stat(path, reinterpret_cast<struct stat*>(out));
}

bool may_own(const char* path) { return initialised && Rack::may_own(path); }

constexpr unsigned kDrmMajor = 226;

int fail(int error) {
  errno = error;
  return -1;
}

Rack::Entry find(const char* path) { return Rack::instance().find(path); }

Card* card_of(int fd) {
  return initialised && Rack::has_nodes() ? Rack::instance().card_of(fd) : nullptr;
}

// A file with this content that vanishes with its descriptor; -1 and errno on failure.
int anonymous_file(const std::string& content) {
  const int fd = ::memfd_create("flexllm-card-sysfs", MFD_CLOEXEC);
  if (fd < 0) return -1;
  for (std::size_t done = 0; done < content.size();) {
    const ssize_t n = ::write(fd, content.data() + done, content.size() - done);
    if (n <= 0) {
      NEXT(close)(fd);
      return -1;
    }
    done += static_cast<std::size_t>(n);
  }
  ::lseek(fd, 0, SEEK_SET);
  return fd;
}

// open() of something of the rack's.
int open_entry(const Rack::Entry& entry, int flags) {
  switch (entry.kind) {
    case Kind::node: {
      const int fd = Rack::instance().open_node(*entry.card, flags);
      return fd < 0 ? fail(-fd) : fd;
    }
    case Kind::file:
      return anonymous_file(entry.content);
    case Kind::directory:
      return fail(EISDIR);
    default:
      return fail(ENOENT);
  }
}

FILE* open_stream(const Rack::Entry& entry, const char* mode) {
  const int fd = open_entry(entry, O_RDONLY);
  return fd < 0 ? nullptr : ::fdopen(fd, mode);
}

template <typename Stat>
int describe(const Rack::Entry& entry, Stat* out) {
  if (entry.kind == Kind::missing) return fail(ENOENT);
  std::memset(out, 0, sizeof *out);
  out->st_nlink = 1;
  out->st_blksize = 4096;
  switch (entry.kind) {
    case Kind::directory:
      out->st_mode = S_IFDIR | 0555;
      break;
    case Kind::node:
      out->st_mode = S_IFCHR | 0666;
      out->st_rdev = makedev(kDrmMajor, static_cast<unsigned>(entry.card->render_minor()));
      break;
    default:
      out->st_mode = S_IFREG | 0644;
      out->st_size = static_cast<off_t>(entry.content.size());
  }
  return 0;
}

// Open directories of the rack. Their DIR is a real one (of "/"), so that whatever looks at it or
// at its descriptor finds something valid; only what is read from it is ours.
struct Listing {
  std::vector<std::string> names;
  std::size_t next = 0;
  dirent entry{};
};

class Listings {
 public:
  DIR* open(std::vector<std::string> names) {
    DIR* directory = NEXT(opendir)("/");
    if (directory == nullptr) return nullptr;
    names.insert(names.begin(), {".", ".."});
    const std::lock_guard lock(mutex_);
    open_[directory] = {std::move(names)};
    return directory;
  }

  // Whether the directory is ours; if so `out` is its next entry, or null at its end.
  bool read(DIR* directory, dirent*& out) {
    const std::lock_guard lock(mutex_);
    const auto found = open_.find(directory);
    if (found == open_.end()) return false;
    Listing& listing = found->second;
    out = nullptr;
    if (listing.next < listing.names.size()) {
      out = &listing.entry;
      const std::string& name = listing.names[listing.next++];
      out->d_ino = listing.next;
      out->d_reclen = sizeof *out;
      out->d_type = DT_UNKNOWN;
      std::strncpy(out->d_name, name.c_str(), sizeof out->d_name - 1);
    }
    return true;
  }

  void close(DIR* directory) {
    const std::lock_guard lock(mutex_);
    open_.erase(directory);
  }

 private:
  std::mutex mutex_;
  std::map<DIR*, Listing> open_;
};

// Made when the first directory is opened; readers before that find none.
std::atomic<Listings*> open_listings{nullptr};

Listings& listings() {
  static Listings* const all = new Listings;
  open_listings = all;
  return *all;
}

// A wake-up of a node is consumed by the poll that reports it, as the driver does.
void consume(const pollfd& polled) {
  if ((polled.revents & POLLIN) == 0 || card_of(polled.fd) == nullptr) return;
  std::uint64_t one = 0;
  [[maybe_unused]] const ssize_t n = ::read(polled.fd, &one, sizeof one);
}

mode_t creation_mode(int flags, va_list arguments) {
  return (flags & (O_CREAT | O_TMPFILE)) != 0 ? va_arg(arguments, mode_t) : 0;
}

static_assert(sizeof(dirent) == sizeof(dirent64) && sizeof(struct stat) == sizeof(struct stat64),
              "written for 64-bit systems, where both forms are the same");

}  // namespace

#define INTERPOSED extern "C" __attribute__((visibility("default")))

INTERPOSED int open(const char* path, int flags, ...) {
  va_list arguments;
  va_start(arguments, flags);
  const mode_t mode = creation_mode(flags, arguments);
  va_end(arguments);
  if (!may_own(path)) return NEXT(open)(path, flags, mode);
  const Rack::Entry entry = find(path);
  return entry.kind == Kind::elsewhere ? NEXT(open)(path, flags, mode) : open_entry(entry, flags);
}

INTERPOSED int open64(const char* path, int flags, ...) {
  va_list arguments;
  va_start(arguments, flags);
  const mode_t mode = creation_mode(flags, arguments);
  va_end(arguments);
  if (!may_own(path)) return NEXT(open64)(path, flags, mode);
  const Rack::Entry entry = find(path);
  return entry.kind == Kind::elsewhere ? NEXT(open64)(path, flags, mode) : open_entry(entry, flags);
}

// The forms that fortified programs call.
INTERPOSED int __open_2(const char* path, int flags) {
  if (!may_own(path)) return NEXT(open)(path, flags);
  const Rack::Entry entry = find(path);
  return entry.kind == Kind::elsewhere ? NEXT(open)(path, flags) : open_entry(entry, flags);
}

INTERPOSED int __open64_2(const char* path, int flags) {
  if (!may_own(path)) return NEXT(open64)(path, flags);
  const Rack::Entry entry = find(path);
  return entry.kind == Kind::elsewhere ? NEXT(open64)(path, flags) : open_entry(entry, flags);
}

INTERPOSED FILE* fopen(const char* path, const char* mode) {
  if (!may_own(path)) return NEXT(fopen)(path, mode);
  const Rack::Entry entry = find(path);
  return entry.kind == Kind::elsewhere ? NEXT(fopen)(path, mode) : open_stream(entry, mode);
}

INTERPOSED FILE* fopen64(const char* path, const char* mode) {
  if (!may_own(path)) return NEXT(fopen64)(path, mode);
  const Rack::Entry entry = find(path);
  return entry.kind == Kind::elsewhere ? NEXT(fopen64)(path, mode) : open_stream(entry, mode);
}

INTERPOSED DIR* opendir(const char* path) {
  if (!may_own(path)) return NEXT(opendir)(path);
  Rack::Entry entry = find(path);
  if (entry.kind == Kind::elsewhere) return NEXT(opendir)(path);
  if (entry.kind == Kind::directory) return listings().open(std::move(entry.names));
  errno = entry.kind == Kind::missing ? ENOENT : ENOTDIR;
  return nullptr;
}

INTERPOSED dirent* readdir(DIR* directory) {
  dirent* entry = nullptr;
  Listings* const ours = open_listings;
  return ours != nullptr && ours->read(directory, entry) ? entry : NEXT(readdir)(directory);
}

INTERPOSED dirent64* readdir64(DIR* directory) {
  dirent* entry = nullptr;
  Listings* const ours = open_listings;
  return ours != nullptr && ours->read(directory, entry) ? reinterpret_cast<dirent64*>(entry)
                                                         : NEXT(readdir64)(directory);
}

INTERPOSED int closedir(DIR* directory) {
  if (Listings* const ours = open_listings) ours->close(directory);
  return NEXT(closedir)(directory);
}

INTERPOSED int stat(const char* path, struct stat* out) {
  if (!may_own(path)) return next_stat(path, out);
  const Rack::Entry entry = find(path);
  return entry.kind == Kind::elsewhere ? next_stat(path, out) : describe(entry, out);
}

INTERPOSED int stat64(const char* path, struct stat64* out) {
  if (!may_own(path)) return next_stat64(path, out);
  const Rack::Entry entry = find(path);
  return entry.kind == Kind::elsewhere ? next_stat64(path, out) : describe(entry, out);
}

INTERPOSED int lstat(const char* path, struct stat* out) {
  if (!may_own(path)) return NEXT(lstat)(path, out);
  const Rack::Entry entry = find(path);
  return entry.kind == Kind::elsewhere ? NEXT(lstat)(path, out) : describe(entry, out);
}

INTERPOSED int lstat64(const char* path, struct stat64* out) {
  if (!may_own(path)) return NEXT(lstat64)(path, out);
  const Rack::Entry entry = find(path);
  return entry.kind == Kind::elsewhere ? NEXT(lstat64)(path, out) : describe(entry, out);
}

INTERPOSED int ioctl(int fd, unsigned long request, ...) {
  va_list arguments;
  va_start(arguments, request);
  void* const argument = va_arg(arguments, void*);
  va_end(arguments);
  Card* const card = card_of(fd);
  if (card == nullptr) return NEXT(ioctl)(fd, request, argument);
  const int result = card->ioctl(fd, request, argument);
  return result < 0 ? fail(-result) : result;
}

INTERPOSED void* mmap(void* address, std::size_t bytes, int protection, int flags, int fd,
                      off_t offset) {
  Card* const card = fd >= 0 ? card_of(fd) : nullptr;
  if (card == nullptr) return NEXT(mmap)(address, bytes, protection, flags, fd, offset);
  const Card::Mapping mapping = card->map(fd, static_cast<std::uint64_t>(offset), bytes);
  if (mapping.fd < 0) {
    errno = -mapping.fd;
    return MAP_FAILED;
  }
  return NEXT(mmap)(address, bytes, protection, flags, mapping.fd, mapping.offset);
}

INTERPOSED void* mmap64(void* address, std::size_t bytes, int protection, int flags, int fd,
                        off64_t offset) {
  return mmap(address, bytes, protection, flags, fd, offset);
}

INTERPOSED int poll(pollfd* polled, nfds_t count, int timeout) {
  const int ready = NEXT(poll)(polled, count, timeout);
  if (ready > 0 && Rack::has_nodes()) {
    for (nfds_t i = 0; i < count; ++i) consume(polled[i]);
  }
  return ready;
}

INTERPOSED int close(int fd) {
  if (Card* const card = card_of(fd)) {
    card->close(fd);
    Rack::instance().forget(fd);
  }
  return NEXT(close)(fd);
}
