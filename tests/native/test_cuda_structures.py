"""The kernels' arguments, read from their sources."""

from __future__ import annotations

import ctypes

import pytest
from oracle.cuda_host import compiler, host_kernels

from rwkv_cli.native.cuda.structures import SourceError, constants, parse, signatures, structures

needs_gcc = pytest.mark.skipif(compiler() is None, reason="there is no g++")

PLAIN = """\
#define KERNEL(name, Arguments, threads) \\
  void name(Arguments args)
constexpr int kTwice = 2 * kSize + (1 << 2);  // kSize stands in the next file
enum Kind { kNone, kFew = 3, kMany };
/* struct Comment {
  int x;
}; */
struct Pair {
  const float *const *before;
  float *after;
};
template <typename T>
struct Any {
  T x;
};
struct Internal {
  uint4 packed;
  int sum() const { return 0; }
};
struct OneArguments {
  int rows, cols;
  i64 offset;
  Pair pair[kTwice][2];
  const float *mix[6];
  const Role *roles;
};
struct Role {
  u16 half;
  double exact;
};
KERNEL(one, OneArguments, 32 * kFew) {}
KERNEL(two, Role, 64) {}
"""


@needs_gcc
def test_structures_are_as_large_as_in_cpp() -> None:
    kernels = host_kernels()
    assert sorted(kernels.names()) == sorted(signatures())
    for name in kernels.names():
        size = ctypes.sizeof(signatures()[name].arguments)
        assert size == kernels.arguments_bytes(name), name


def test_every_kernel_takes_a_structure_of_its_sources() -> None:
    assert signatures()
    for name, signature in signatures().items():
        assert signature.arguments is structures()[signature.arguments.__name__]
        assert signature.threads % constants()["kWarp"] == 0, name


def test_plain_structures_are_read() -> None:
    found = parse({"a.cuh": PLAIN, "b.cuh": "constexpr int kSize = 4;"})
    assert set(found.structures) == {"Pair", "Role", "OneArguments"}
    one = found.structures["OneArguments"]
    assert [name for name, *_ in one._fields_] == [
        "rows", "cols", "offset", "pair", "mix", "roles",
    ]  # fmt: skip
    assert ctypes.sizeof(one) == 8 + 8 + 12 * 2 * 16 + 6 * 8 + 8
    assert found.constants == {"kTwice": 12, "kSize": 4, "kNone": 0, "kFew": 3, "kMany": 4}
    assert found.signatures["one"].threads == 96
    assert found.signatures["one"].arguments is one


def test_pointers_take_addresses() -> None:
    made = parse({"a.cuh": PLAIN, "b.cuh": "constexpr int kSize = 4;"}).structures["OneArguments"]()
    made.pair[11][1].after = 2**63 + 5
    made.mix[5] = 7
    assert made.pair[11][1].after == 2**63 + 5
    assert made.mix[5] == 7


def test_a_field_that_does_not_exist_cannot_be_set() -> None:
    role = parse({"a.cuh": "struct Role { int x; };\nKERNEL(k, Role, 1) {}"}).structures["Role"]
    with pytest.raises(AttributeError):
        role(y=1)
    with pytest.raises(AttributeError):
        role().y = 1


@pytest.mark.parametrize(
    ("body", "line", "what"),
    [
        ("\n  int x;\n  uint4 y;\n", 3, "no plain type: uint4"),
        ("\n\n  int x = 3;\n", 3, "plain field: int x = 3"),
        ("\n  int &x;\n", 2, "plain field"),
        ("\n  int x : 3;\n", 2, "plain field"),
        ("\n  int x[kUnknown];\n", 2, "no constant size: kUnknown"),
        ("\n  int x[0];\n", 2, "no constant size"),
        ("\n  int x[2 / 0];\n", 2, "no constant size"),
        ("\n  unsigned int x;\n", 2, "plain field"),
        ("\n  A self;\n", 2, "no plain type: A"),
        ("\n  int;\n", 2, "plain field"),
        ("\n  int x;\n  int", 3, "plain field: int$"),
    ],
)
def test_what_is_not_plain_is_an_error_with_its_line(body: str, line: int, what: str) -> None:
    text = f"struct A {{{body}}};\nKERNEL(k, A, 32) {{}}\n"
    with pytest.raises(SourceError, match=what) as error:
        parse({"a.cuh": text})
    assert error.value.message.startswith(f"a.cuh:{line}: ")


def test_what_no_kernel_takes_need_not_be_plain() -> None:
    assert not parse({"a.cuh": "struct A { uint4 packed; };"}).structures


def test_a_kernel_with_arguments_that_do_not_exist_is_an_error() -> None:
    with pytest.raises(SourceError, match=r"a\.cuh:2: no plain type: B"):
        parse({"a.cuh": "\nKERNEL(k, B, 32) {}"})
    with pytest.raises(SourceError, match=r"a\.cuh:1: no constant size: kMany"):
        parse({"a.cuh": "KERNEL(k, A, kMany) {} struct A { int x; };"})


def test_two_structures_of_one_name_are_an_error() -> None:
    with pytest.raises(SourceError, match=r"b\.cuh:1: there is a structure A already"):
        parse({"a.cuh": "struct A { int x; };", "b.cuh": "struct A { int y; };"})
