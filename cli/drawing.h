// An SVG document as it is drawn. Coordinates are in pixels, y downwards. A plain value; one
// thread.
#pragma once

#include <string>
#include <string_view>

namespace flexllm::cli {

class Drawing {
 public:
  // `more`: further attributes of the element, as they stand in SVG.
  void text(double x, double y, std::string_view words, std::string_view more = "");
  // `title` is shown under the pointer.
  void bar(double x, double y, double width, double height, std::string_view colour,
           std::string_view title);
  void line(double x1, double y1, double x2, double y2, std::string_view colour = "#ccc");

  // The document, on white.
  std::string finish(double width, double height) const;

 private:
  std::string body_;
};

}  // namespace flexllm::cli
