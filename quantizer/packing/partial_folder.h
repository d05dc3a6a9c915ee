// A folder beside an output with what a run that may be stopped has finished. One process at a time
// uses a folder; one thread uses a PartialFolder.
#pragma once

#include <cstdint>
#include <filesystem>
#include <string>

namespace flexllm::quantizer {

class PartialFolder {
 public:
  // Opens `output`.partial/, or makes it. Files that are there stay if they were made with the same
  // `key` (any text that names all inputs), and go otherwise. All names begin with `stem`. Throws
  // formats::Error if the folder cannot be made, holds other files, or is used by another process.
  PartialFolder(const std::filesystem::path& output, std::string stem, const std::string& key);
  // Leaves the folder for the next run, unless there is nothing in it.
  ~PartialFolder();
  PartialFolder(const PartialFolder&) = delete;
  PartialFolder& operator=(const PartialFolder&) = delete;

  // Bytes of the files in `output`.partial/, 0 if there is none.
  static uint64_t bytes_beside(const std::filesystem::path& output);

  // Where a SafetensorsWriter may write.
  std::filesystem::path file(const std::string& name) const;

  // Removes the folder: the output is in its place.
  void finish();

 private:
  // What a writer that was killed has left counts too.
  bool is_ours(const std::filesystem::path& file) const;
  void remove_files() const;
  bool holds_files() const;

  std::filesystem::path folder_;
  std::string stem_;
  int lock_ = -1;  // of the file `key`
};

}  // namespace flexllm::quantizer
