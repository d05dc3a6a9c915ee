# Writes OUTPUT, the definition of web::assets(), from the files of FOLDER:
#   cmake -D FOLDER=server/web -D OUTPUT=assets.cpp -P embed.cmake
# A page (*.html) has its URL from its name, and everything else one below /web/.

set(type_of_html "text/html; charset=utf-8")
set(type_of_css "text/css; charset=utf-8")
set(type_of_js "text/javascript; charset=utf-8")

file(GLOB files RELATIVE ${FOLDER} ${FOLDER}/*.html ${FOLDER}/*.css ${FOLDER}/*.js)
set(bodies "")
set(table "")
set(count 0)
foreach(file ${files})
  cmake_path(GET file STEM name)
  cmake_path(GET file EXTENSION LAST_ONLY kind)
  string(SUBSTRING ${kind} 1 -1 kind)
  if(file STREQUAL "index.html")
    set(url "/")
  elseif(kind STREQUAL "html")
    set(url "/${name}")
  else()
    set(url "/web/${file}")
  endif()
  file(SHA256 ${FOLDER}/${file} digest)
  string(SUBSTRING ${digest} 0 32 digest)
  file(READ ${FOLDER}/${file} hex HEX)
  string(REGEX REPLACE "(..)" "\\\\x\\1" escaped "${hex}")
  string(REGEX REPLACE "(................................................................................)" "\\1\"\n\"" escaped "${escaped}")
  string(LENGTH "${hex}" digits)
  math(EXPR bytes "${digits} / 2")
  string(APPEND bodies "constexpr char kBody${count}[] =\n\"${escaped}\";\n")
  string(APPEND table
    "    {\"${url}\", \"${type_of_${kind}}\", \"\\\"${digest}\\\"\", {kBody${count}, ${bytes}}},\n")
  math(EXPR count "${count} + 1")
endforeach()

file(WRITE ${OUTPUT} "// Made by server/web/embed.cmake.
#include \"server/web/assets.h\"

namespace flexllm::server::web {
namespace {

${bodies}
constexpr Asset kAssets[] = {
${table}};

}  // namespace

std::span<const Asset> assets() { return kAssets; }

}  // namespace flexllm::server::web
")
