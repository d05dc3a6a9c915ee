"""Each rule of kernel_subset.py finds what it is for, and leaves what is right alone."""

import sys
import tempfile
import unittest
from pathlib import Path

sys.dont_write_bytecode = True
sys.path.insert(0, str(Path(__file__).resolve().parent))
import kernel_subset as subset  # noqa: E402

ROOT = Path(__file__).resolve().parents[2]
CLANG = subset.find_clang()
START = """#include "kernels/hls/stream.h"
#include "kernels/hls/task.h"
#include "kernels/hls/word.h"
using namespace flexllm::kernels;
"""


class KernelSubset(unittest.TestCase):
    def check(self, source: str) -> list[tuple[int, str]]:
        """Line of `source`, counted from 1, and what is wrong there."""
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "kernel.cpp"
            path.write_text(START + source)
            found = subset.check_source(CLANG, path, [ROOT], lambda f: f.startswith(folder))
            return sorted((line - START.count("\n"), what) for _, line, what in found)

    def refused(self, source: str, line: int, what: str):
        found = self.check(source)
        self.assertTrue(any(at == line and what in text for at, text in found), found)
        self.assertEqual({at for at, _ in found}, {line}, found)

    def accepted(self, source: str):
        self.assertEqual(self.check(source), [])

    def test_allocation(self):
        self.refused("int* make() {\n  return new int;\n}", 2, "allocation")
        self.refused("void drop(int* p) {\n  delete p;\n}", 2, "allocation")
        self.refused("void* make() {\n  return __builtin_malloc(4);\n}", 2, "allocation")
        self.refused('extern "C" void* malloc(unsigned long);\nvoid* f() {\n  return malloc(4);\n}',
                     3, "allocation")

    def test_recursion(self):
        self.refused("int fall(int n) { return n == 0 ? 0 : fall(n - 1); }", 1, "calls itself")
        found = self.check("int odd(int n);\nint even(int n) { return n == 0 ? 1 : odd(n - 1); }\n"
                           "int odd(int n) { return n == 0 ? 0 : even(n - 1); }")
        self.assertEqual(len(found), 2, found)
        self.refused("template <typename T>\nT fall(T n) { return n == 0 ? 0 : fall(n - 1); }\n"
                     "int use() { return fall(3); }", 2, "calls itself")
        self.refused("struct A {\n  int f(int n) const { return n == 0 ? 0 : f(n - 1); }\n};", 2,
                     "calls itself")

    def test_recursion_of_constants(self):
        log = "constexpr int log2_of(int n) { return n <= 1 ? 0 : 1 + log2_of(n / 2); }\n"
        self.accepted(log + "constexpr int kStages = log2_of(64);\nint a[log2_of(8)] = {};"
                      .replace("int a", "const int a"))
        self.refused(log + "int use(int n) { return log2_of(n); }", 1, "calls itself")

    def test_templates_of_other_sizes_are_other_functions(self):
        self.accepted("template <int N>\nstruct Sum { static int of() "
                      "{ return N + Sum<N - 1>::of(); } };\ntemplate <>\nstruct Sum<0> "
                      "{ static int of() { return 0; } };\nint use() { return Sum<4>::of(); }")

    def test_virtual(self):
        self.refused("struct A {\n  virtual int f() { return 0; }\n};", 2, "virtual")

    def test_exceptions_and_rtti(self):
        self.refused("int f(int n) {\n  if (n == 0) throw 1;\n  return n;\n}", 2, "exception")
        self.refused("int f(int n) {\n  try { n = 1; } catch (...) {}\n  return n;\n}", 2,
                     "exception")
        self.refused("struct A {};\nstruct B : A {};\n"
                     "template <typename T>\nB* f(T* a) {\n  return dynamic_cast<B*>(a);\n}", 5,
                     "RTTI")

    def test_library(self):
        self.accepted("std::uint32_t f(std::int8_t x) { return static_cast<std::uint32_t>(x); }")
        self.refused("#include <array>\nint f(int n) {\n  return std::array<int, 2>{{n, n}}[0];\n}",
                     3, "std::")
        self.refused("#include <algorithm>\nint f(int n) {\n  return std::max(n, 2);\n}", 3,
                     "std::max")
        self.refused("#include <vector>\nint f(int n) {\n  return n;\n}\n"
                     "struct S {\n  std::vector<int> v;\n};", 6, "std::")

    def test_includes(self):
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "a.h"
            path.write_text("#pragma once\n#include <cstdint>\n#include <vector>\n")
            self.assertEqual([line for _, line, _ in subset.check_includes(path)], [3])

    def test_function_pointers(self):
        self.refused("int f(int (*g)(int)) {\n  return g(1);\n}", 1, "pointer to a function")
        self.refused("typedef int (*G)(int);", 1, "pointer to a function")
        self.accepted("int f(int (*rows)[4]) { return rows[0][1]; }")

    def test_lasting_variables(self):
        self.refused("int count = 0;", 1, "mutable static")
        self.refused("int next() {\n  static int count = 0;\n  return ++count;\n}", 2,
                     "mutable static")
        self.refused("struct A {\n  static int count;\n};", 2, "mutable static")
        self.accepted("constexpr int kOne = 1;\nconst int kTwo[2] = {1, 2};\n"
                      "struct A { static constexpr int three = 3; };")

    def test_goto(self):
        self.refused("int f(int n) {\nagain:\n  if (--n > 0) goto again;\n  return n;\n}", 3,
                     "goto")

    def test_double(self):
        self.refused("float f(float x) {\n  return static_cast<float>(x * 0.5);\n}", 2, "double")
        self.refused("long double f(long double x);", 1, "double")
        self.accepted("float f(float x) { return x * 0.5f; }")

    def test_variable_length_arrays(self):
        self.refused("int f(int n) {\n  int a[n];\n  a[0] = n;\n  return a[0];\n}", 2,
                     "variable length")

    def test_loops_without_bound(self):
        what = "without HLS_TRIPS"
        self.refused("int f(int n) {\n  int s = 0;\n  for (int i = 0; i < n; ++i) s += i;\n"
                     "  return s;\n}", 3, what)
        self.refused("int f(int n) {\n  while (n > 3) n /= 2;\n  return n;\n}", 2, what)
        self.refused("int f(int n) {\n  do {\n    n /= 2;\n  } while (n > 3);\n  return n;\n}", 2,
                     what)
        self.refused("int f(int n) {\n  for (int i = n; i < 4; ++i) n += 2;\n  return n;\n}", 2,
                     what)
        self.refused("int f(int n) {\n  int i = 0;\n  for (; i < 4;) n += 2;\n  return n;\n}", 3,
                     what)

    def test_loops_with_bound(self):
        self.accepted("template <typename K, int N>\nint f(int n) {\n"
                      "  constexpr int kMost = 2 * N;\n  const int most = kMost + K::rows;\n"
                      "  for (int i = 0; i + 1 < most; ++i) n += i;\n"
                      "  for (int i = N; i > 0; i /= 2) n += i;\n"
                      "  for (int i = 0; i < 8 && n > 2; ++i) n -= i;\n"
                      "  return n;\n}\nstruct S { enum { rows = 3 }; };\n"
                      "int use() { return f<S, 4>(1); }")
        self.accepted("int f(int n) {\n  while (n > 3) {\n    HLS_TRIPS(1, 9)\n    n /= 2;\n  }\n"
                      "  return n;\n}")

    def test_loops_may_end_where_an_outer_one_stands(self):
        outer = ("int f(int n) {\n  for (int half = 32; half > 0; half /= 2) {\n"
                 "    for (int i = 0; i < half; ++i) {\n      MARK n += i;\n    }\n  }\n"
                 "  return n;\n}")
        self.accepted(outer.replace("MARK", ""))
        self.refused(outer.replace("MARK", "HLS_UNROLL"), 3, "unrolled")
        self.accepted(outer.replace("MARK", "HLS_UNROLL").replace("{\n    for",
                                                                  "{\n HLS_UNROLL for"))

    def test_unrolled_loops_have_constant_bounds(self):
        self.refused("int f(int n) {\n  int s = 0;\n  HLS_UNROLL_AHEAD\n"
                     "  for (int i = 0; i < n; ++i) {\n    HLS_UNROLL\n    HLS_TRIPS(1, 4)\n"
                     "    s += i;\n  }\n  return s;\n}", 4, "unrolled")

    def test_bounds_of_an_instance_are_seen(self):
        self.refused("template <typename K>\nint f(K k) {\n  int s = 0;\n"
                     "  for (int i = 0; i < k.size(); ++i) s += i;\n  return s;\n}\n"
                     "struct S { int size() const { return 3; } };\n"
                     "int use() { return f(S()); }", 4, "without HLS_TRIPS")

    def pipelined(self, first: str, rest: str = "s += i;") -> str:
        return ("int f(int n) {\n  int s = 0;\n  for (int i = 0; i < 9; ++i) {\n"
                f"    {first}\n    {rest}\n  }}\n  return s + n;\n}}")

    def test_pipeline_comes_first(self):
        self.accepted(self.pipelined("HLS_PIPELINE(1)"))
        self.accepted(self.pipelined("HLS_TRIPS(1, 9) HLS_PIPELINE(1)"))
        self.refused(self.pipelined("s += 1;", "HLS_PIPELINE(1)"), 5, "not the first statement")
        self.refused(self.pipelined("if (n > 2) { HLS_PIPELINE(1) }"), 4,
                     "not the first statement")
        self.refused("void f() {\n  HLS_PIPELINE(1)\n}", 2, "not the first statement")

    def test_loops_in_pipelines_are_unrolled(self):
        self.accepted(self.pipelined(
            "HLS_PIPELINE(1)", "for (int j = 0; j < 4; ++j) { HLS_UNROLL s += j; }"))
        self.refused(self.pipelined("HLS_PIPELINE(1)", "for (int j = 0; j < 4; ++j) s += j;"), 5,
                     "not unrolled")

    def region(self, tasks: str, depth: str = "words") -> str:
        return ("void make(Stream<int>& out) { out.write(1); }\n"
                "void take(Stream<int>& in) { in.read(); }\n"
                "void pass(Stream<int>& in, Stream<int>& out) { out.write(in.read()); }\n"
                "void region(Stream<int>& end) {\n  HLS_DATAFLOW(\"region\");\n"
                f"  Fifo<int, 4> {depth};\n  {tasks}\n  HLS_DATAFLOW_END();\n}}")

    def test_streams_have_two_ends(self):
        self.accepted(self.region("HLS_TASK(make(words)); HLS_TASK(pass(words, end));"))
        self.refused(self.region("HLS_TASK(make(words)); HLS_TASK(take(end));"), 6, "1 tasks")
        self.refused(self.region("HLS_TASK(make(words)); HLS_TASK(make(words));"
                                 " HLS_TASK(take(words));"), 6, "3 tasks")
        self.refused(self.region("HLS_TASK(make(words)); HLS_TASK(pass(words, end));"
                                 " HLS_TASK(make(end));"), 4, "one end")

    def test_arrays_of_streams(self):
        tasks = ("for (int i = 0; i < 2; ++i) { HLS_UNROLL HLS_TASK_AT(i, make(words[i])); }"
                 " for (int i = 0; i < 2; ++i) { HLS_UNROLL HLS_TASK_AT(i, take(words[i])); }")
        self.accepted(self.region(tasks, "words[2]"))
        self.refused(self.region(tasks.split(" for")[0] + " HLS_TASK(take(end));", "words[2]"), 6,
                     "1 tasks")

    def test_what_does_not_compile_is_said(self):
        self.refused("int f() {\n  return g();\n}", 2, "does not compile")

    def test_the_stand_ins_know_every_directive(self):
        self.assertEqual(subset.check_stand_ins(ROOT), set())


if __name__ == "__main__":
    unittest.main()
