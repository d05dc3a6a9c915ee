# XRT's native API as the target `flexllm_xrt`.
#
# Debian's package has no CMake configuration and a broken pkg-config file, so the parts are looked
# for: first in $XILINX_XRT and /opt/xilinx/xrt (AMD's packages), then where the distribution puts
# them. XRT loads its driver plug-in, libxrt_core, from $XILINX_XRT/lib and nowhere else; Debian's
# folder is not searched. FLEXLLM_XRT_ROOT is a folder with a link to it, good for XILINX_XRT in
# tests and in an installation (docs/emulated-card.md).

include_guard(GLOBAL)

set(FLEXLLM_XRT_HINTS $ENV{XILINX_XRT} /opt/xilinx/xrt)
find_path(XRT_INCLUDE_DIR xrt/xrt_device.h HINTS ${FLEXLLM_XRT_HINTS}
  PATH_SUFFIXES include include/xrt xrt REQUIRED)
find_library(XRT_COREUTIL_LIBRARY xrt_coreutil HINTS ${FLEXLLM_XRT_HINTS} PATH_SUFFIXES lib REQUIRED)
find_library(XRT_CORE_LIBRARY xrt_core HINTS ${FLEXLLM_XRT_HINTS} PATH_SUFFIXES lib REQUIRED)
find_library(UUID_LIBRARY uuid REQUIRED)

add_library(flexllm_xrt INTERFACE)
target_include_directories(flexllm_xrt SYSTEM INTERFACE ${XRT_INCLUDE_DIR})
target_link_libraries(flexllm_xrt INTERFACE
  ${XRT_COREUTIL_LIBRARY} ${UUID_LIBRARY} pthread)

# Internal cache entries are seen by every folder, whichever includes this file first.
set(FLEXLLM_XRT_ROOT ${CMAKE_BINARY_DIR}/xrt-root CACHE INTERNAL "")
file(MAKE_DIRECTORY ${FLEXLLM_XRT_ROOT}/lib)
file(CREATE_LINK ${XRT_CORE_LIBRARY}.2 ${FLEXLLM_XRT_ROOT}/lib/libxrt_core.so.2 SYMBOLIC)
file(WRITE ${FLEXLLM_XRT_ROOT}/xrt.ini "[Runtime]\nruntime_log=null\n")
