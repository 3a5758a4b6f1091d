"""The native entry, as LLVM IR: a call of a compiled einsum without a line of Python.

Where the arrays of a call are of a layout that was seen before, all that is left to do is to find
the plan, make the result, write a few addresses into the kernels' arguments and call the kernels.
In Python that takes ten times longer than a small contraction itself.

`IR` is the program. It becomes an image like any kernel, so it is compiled once, beforehand, and
`runtime/entry.py` makes methods of its entries:

    einsumc_call(self, args, count, names)     CompiledEinsum.__call__, METH_FASTCALL|METH_KEYWORDS
    einsumc_facts(args, count, out, words)     what a call's plan is found by

Whatever is in the least unusual (keywords other than `out`, subclasses, array-likes, several
dtypes, an `out` near an operand, a layout not seen before) is handed on, as it came, to the method
in Python, which is fully general. There is no error here that is not a failure of memory.

Everything is read with the GIL held, and no Python code runs between reading and using: only long
work gives the GIL up, and by then all addresses are taken. Long work goes to the thread pool in
slices, between which Python looks for signals.

What this code relies on is laid out at its top; `runtime/entry.py` looks at real objects before it
uses any of it. Functions and variables of CPython and NumPy are imported by name.

A *plan* is a `bytes` object, so its memory lives as long as somebody uses it. It holds 64-bit words
(`PLAN` names those at its head), then the facts that it is for, then the lists that the head tells
the places of, in bytes from the first word:

    template    the arguments of all kernels, addresses missing
    fills       three words for each address: where it goes, in bytes; whose it is (the number of an
                operand, the number of operands for the result, one more for the workspace); an
                offset to add, in bytes
    steps       six words each: the kernel's address, where its arguments begin in the template, its
                tiles, bytes of scratch for each thread, threads worth having, whether the step is
                long enough to give the GIL up
    shape       extents of the result, then its strides in bytes

A plan runs in one *block* of memory, on a page of its own: two words of the block's, room for a
scalar result, the arguments (from byte 64), the workspace, the threads' scratch.

An object's plans are a list: a dictionary from facts to plans, then the plans used last.
"""

from functools import cache

from .assemble import assemble

__all__ = ["ARGUMENTS", "CALL", "FACTS", "IR", "PLAN", "STATE", "STATE_BYTES", "WORDS", "symbols"]

CALL = "einsumc_call"
FACTS = "einsumc_facts"

WORDS = 1024
"""Words of facts that a call may have; one with more takes the way through Python."""

PLAN = (
    "facts_bytes",
    "scalar",  # 1: the result has no axes and is returned as a NumPy scalar
    "rank",  # of the result
    "dtype",  # address of the result's dtype object
    "shape",  # place of the extents
    "arguments_bytes",
    "template",  # place
    "fills",  # how many
    "fills_at",  # place
    "steps",  # how many
    "steps_at",  # place
    "workspace_at",  # in the block
    "scratch_at",  # in the block
    "block_bytes",  # with scratch for one thread
    "shared",  # 1: threads may help with some step
    "unused",
)
"""The words at the head of a plan, in order."""

STATE = ("changes", "slot", "slow", "out", "threads", "pool_run", "pool", "processors")
"""The words that `runtime/entry.py` keeps: how often settings changed; the offset in an object of
the pointer to its plans; the method in Python; the text "out"; a function that returns the number
of threads; the pool's entry and state; how many processors there are. Blocks not in use follow."""

STATE_BYTES = 4096

ARGUMENTS = 64
"""Where the arguments begin in a block."""

_FUNCTIONS = """
    PyArray_NewFromDescr PyArray_Scalar
    PyBytes_FromStringAndSize PyDict_GetItemWithError PyErr_CheckSignals PyErr_Clear
    PyErr_NoMemory PyEval_RestoreThread PyEval_SaveThread PyLong_AsLong PyMem_RawFree
    PyMem_RawMalloc PyObject_CallNoArgs PyObject_Vectorcall PyTuple_GetItem Py_DecRef
    Py_IncRef
"""


def symbols() -> frozenset[str]:
    """The names that the image imports beside those of every kernel."""
    return frozenset([*_FUNCTIONS.split(), "PyArray_Type", "_Py_NoneStruct", "einsumc_state"])


IR = r"""
target triple = "x86_64-unknown-linux-gnu"

; What is read of objects, by offset:
;
;   any object      8 type
;   tuple          16 size
;   list           16 size    24 items (elsewhere)
;   bytes          16 size    32 contents
;   NumPy array    16 data    24 rank (32 bits)   32 extents   40 strides   56 dtype
;                  64 flags (32 bits): 0x100 aligned, 0x400 writeable
;   NumPy dtype    24 kind, letter, byte order, flags, number: what tells it from others
;                  40 bytes of an element

@PyArray_Type = external global i8
@_Py_NoneStruct = external global i8

;               changes slot slow out  threads pool_run pool processors
%State = type { i64,    i64, ptr, ptr, ptr,    ptr,     ptr, i64,
;               blocks not in use
                [8 x ptr] }
@einsumc_state = external global %State

declare ptr @PyArray_NewFromDescr(ptr, ptr, i32, ptr, ptr, ptr, i32, ptr)
declare ptr @PyArray_Scalar(ptr, ptr, ptr)
declare ptr @PyBytes_FromStringAndSize(ptr, i64)
declare ptr @PyDict_GetItemWithError(ptr, ptr)
declare i32 @PyErr_CheckSignals()
declare void @PyErr_Clear()
declare ptr @PyErr_NoMemory()
declare void @PyEval_RestoreThread(ptr)
declare ptr @PyEval_SaveThread()
declare i64 @PyLong_AsLong(ptr)
declare void @PyMem_RawFree(ptr)
declare ptr @PyMem_RawMalloc(i64)
declare ptr @PyObject_CallNoArgs(ptr)
declare ptr @PyObject_Vectorcall(ptr, ptr, i64, ptr)
declare ptr @PyTuple_GetItem(ptr, i64)
declare void @Py_DecRef(ptr)
declare void @Py_IncRef(ptr)
declare i32 @bcmp(ptr, ptr, i64)
declare i64 @syscall(i64, ...)
declare void @llvm.memcpy.p0.p0.i64(ptr, ptr, i64, i1)
declare i64 @llvm.smin.i64(i64, i64)
declare i64 @llvm.smax.i64(i64, i64)
declare i64 @llvm.umin.i64(i64, i64)
declare i64 @llvm.umax.i64(i64, i64)

define internal i64 @word(ptr %object, i64 %offset) alwaysinline {
  %place = getelementptr i8, ptr %object, i64 %offset
  %value = load i64, ptr %place
  ret i64 %value
}

define internal ptr @pointer(ptr %object, i64 %offset) alwaysinline {
  %place = getelementptr i8, ptr %object, i64 %offset
  %value = load ptr, ptr %place
  ret ptr %value
}

define internal i64 @half_word(ptr %object, i64 %offset) alwaysinline {
  %place = getelementptr i8, ptr %object, i64 %offset
  %value = load i32, ptr %place
  %wide = zext i32 %value to i64
  ret i64 %wide
}


; --- the method -----------------------------------------------------------------------------------

define ptr @einsumc_call(ptr %self, ptr %args, i64 %count, ptr %names) {
entry:
  %words = alloca [1024 x i64], align 16
  %unnamed = icmp eq ptr %names, null
  br i1 %unnamed, label %look_up, label %named
named:
  ; `out` and nothing else. Names at the place of a call are interned: one text, one object.
  %how_many = call i64 @word(ptr %names, i64 16)
  %one = icmp eq i64 %how_many, 1
  br i1 %one, label %one_name, label %slow
one_name:
  %name = call ptr @PyTuple_GetItem(ptr %names, i64 0)
  %out_field = getelementptr %State, ptr @einsumc_state, i32 0, i32 3
  %out_name = load ptr, ptr %out_field
  %called_out = icmp eq ptr %name, %out_name
  br i1 %called_out, label %take_out, label %slow
take_out:
  %out_place = getelementptr ptr, ptr %args, i64 %count
  %given = load ptr, ptr %out_place
  %is_none = icmp eq ptr %given, @_Py_NoneStruct
  %given_out = select i1 %is_none, ptr null, ptr %given
  br label %look_up

look_up:
  %out = phi ptr [ null, %entry ], [ %given_out, %take_out ]
  %slot_field = getelementptr %State, ptr @einsumc_state, i32 0, i32 1
  %slot = load i64, ptr %slot_field
  %plans = call ptr @pointer(ptr %self, i64 %slot)
  %none_yet = icmp eq ptr %plans, null
  br i1 %none_yet, label %slow, label %describe
describe:
  %length = call i64 @einsumc_facts(ptr %args, i64 %count, ptr %out, ptr %words)
  %unusual = icmp eq i64 %length, 0
  br i1 %unusual, label %slow, label %search
search:
  %bytes = shl i64 %length, 3
  %plan = call ptr @find(ptr %plans, ptr %words, i64 %bytes)
  %unknown = icmp eq ptr %plan, null
  br i1 %unknown, label %slow, label %known
known:
  ; Ours while it runs: meanwhile another thread may throw all plans away.
  call void @Py_IncRef(ptr %plan)
  %content = getelementptr i8, ptr %plan, i64 32
  %result = call ptr @run(ptr %content, ptr %args, i64 %count, ptr %out)
  call void @Py_DecRef(ptr %plan)
  ret ptr %result

slow:
  %slow_result = call ptr @call_slowly(ptr %self, ptr %args, i64 %count, ptr %names)
  ret ptr %slow_result
}


; The same call of the method in Python.
define internal ptr @call_slowly(ptr %self, ptr %args, i64 %count, ptr %names) noinline {
entry:
  %unnamed = icmp eq ptr %names, null
  br i1 %unnamed, label %gather, label %named
named:
  %how_many = call i64 @word(ptr %names, i64 16)
  br label %gather
gather:
  %more = phi i64 [ 0, %entry ], [ %how_many, %named ]
  %all = add i64 %count, %more
  %room = add i64 %all, 2
  ; The first place is for whoever is called: PY_VECTORCALL_ARGUMENTS_OFFSET, the topmost bit.
  %copy = alloca ptr, i64 %room
  %first = getelementptr ptr, ptr %copy, i64 1
  store ptr %self, ptr %first
  %second = getelementptr ptr, ptr %copy, i64 2
  %bytes = shl i64 %all, 3
  call void @llvm.memcpy.p0.p0.i64(ptr %second, ptr %args, i64 %bytes, i1 false)
  %with_self = add i64 %count, 1
  %flagged = or i64 %with_self, u0x8000000000000000
  %slow_field = getelementptr %State, ptr @einsumc_state, i32 0, i32 2
  %slow = load ptr, ptr %slow_field
  %result = call ptr @PyObject_Vectorcall(ptr %slow, ptr %first, i64 %flagged, ptr %names)
  ret ptr %result
}


; --- facts ----------------------------------------------------------------------------------------

; Write down all that a plan depends on, and return how many words that takes; 0 if the arrays are
; not all plain ones of one dtype, if they have too many axes, or if %out comes near an operand.
;
;   settings, operands (and 2^32 with out), dtype, then for each operand and for out
;   rank + 2^32 * the first operand that is the same array, extents, strides
define i64 @einsumc_facts(ptr %args, i64 %count, ptr %out, ptr %words) {
entry:
  %box = alloca ptr
  %out_low = alloca i64
  %out_high = alloca i64
  %low = alloca i64
  %high = alloca i64
  %none = icmp eq i64 %count, 0
  br i1 %none, label %unusual, label %head
head:
  %first = load ptr, ptr %args
  %type = call ptr @pointer(ptr %first, i64 8)
  %plain = icmp eq ptr %type, @PyArray_Type
  br i1 %plain, label %begin, label %unusual
begin:
  %changes = load i64, ptr @einsumc_state
  store i64 %changes, ptr %words
  %has_out = icmp ne ptr %out, null
  %out_bit = select i1 %has_out, i64 4294967296, i64 0
  %number = or i64 %count, %out_bit
  %w1 = getelementptr i64, ptr %words, i64 1
  store i64 %number, ptr %w1
  %dtype_object = call ptr @pointer(ptr %first, i64 56)
  %dtype = call i64 @word(ptr %dtype_object, i64 24)
  %w2 = getelementptr i64, ptr %words, i64 2
  store i64 %dtype, ptr %w2
  br label %each

each:
  %i = phi i64 [ 0, %begin ], [ %next, %more ]
  %used = phi i64 [ 3, %begin ], [ %end, %more ]
  %end = call i64 @add_array(ptr %args, i64 %i, i64 0, i64 %dtype, ptr %words, i64 %used)
  %bad = icmp eq i64 %end, 0
  br i1 %bad, label %unusual, label %more
more:
  %next = add i64 %i, 1
  %last = icmp eq i64 %next, %count
  br i1 %last, label %look_at_out, label %each

look_at_out:
  br i1 %has_out, label %add_out, label %done
add_out:
  store ptr %out, ptr %box
  %out_end = call i64 @add_array(ptr %box, i64 0, i64 1024, i64 %dtype, ptr %words, i64 %end)
  %bad_out = icmp eq i64 %out_end, 0
  br i1 %bad_out, label %unusual, label %measure_out
measure_out:
  call void @bounds(ptr %out, ptr %out_low, ptr %out_high)
  %a = load i64, ptr %out_low
  %b = load i64, ptr %out_high
  br label %compare
compare:
  %j = phi i64 [ 0, %measure_out ], [ %j_next, %apart ]
  %place = getelementptr ptr, ptr %args, i64 %j
  %operand = load ptr, ptr %place
  call void @bounds(ptr %operand, ptr %low, ptr %high)
  %c = load i64, ptr %low
  %d = load i64, ptr %high
  %below = icmp ule i64 %b, %c
  %above = icmp ule i64 %d, %a
  %clear = or i1 %below, %above
  br i1 %clear, label %apart, label %unusual
apart:
  %j_next = add i64 %j, 1
  %all_apart = icmp eq i64 %j_next, %count
  br i1 %all_apart, label %done, label %compare

done:
  %length = phi i64 [ %end, %look_at_out ], [ %out_end, %apart ]
  ret i64 %length
unusual:
  ret i64 0
}


; Add the facts of array number %i, which must be aligned and have the flag %flag if there is one.
; Return how many words there are now, or 0.
define internal i64 @add_array(ptr %args, i64 %i, i64 %flag, i64 %dtype, ptr %words, i64 %used)
    alwaysinline {
entry:
  %place = getelementptr ptr, ptr %args, i64 %i
  %array = load ptr, ptr %place
  %type = call ptr @pointer(ptr %array, i64 8)
  %plain = icmp eq ptr %type, @PyArray_Type
  br i1 %plain, label %look, label %unusual
look:
  %flags = call i64 @half_word(ptr %array, i64 64)
  %wanted = or i64 %flag, 256
  %present = and i64 %flags, %wanted
  %all_present = icmp eq i64 %present, %wanted
  %own_dtype_object = call ptr @pointer(ptr %array, i64 56)
  %own_dtype = call i64 @word(ptr %own_dtype_object, i64 24)
  %one_dtype = icmp eq i64 %own_dtype, %dtype
  %rank = call i64 @half_word(ptr %array, i64 24)
  %both = shl i64 %rank, 1
  %begin = add i64 %used, 1
  %end = add i64 %begin, %both
  %fits = icmp ule i64 %end, 1024
  %good0 = and i1 %all_present, %one_dtype
  %good = and i1 %good0, %fits
  br i1 %good, label %compare, label %unusual

compare:
  %data = call ptr @pointer(ptr %array, i64 16)
  %extents = call ptr @pointer(ptr %array, i64 32)
  %strides = call ptr @pointer(ptr %array, i64 40)
  br label %earlier
earlier:
  %j = phi i64 [ 0, %compare ], [ %j_next, %differs ]
  %itself = icmp eq i64 %j, %i
  br i1 %itself, label %write, label %look_at_other
look_at_other:
  %other_place = getelementptr ptr, ptr %args, i64 %j
  %other = load ptr, ptr %other_place
  %other_data = call ptr @pointer(ptr %other, i64 16)
  %one_place = icmp eq ptr %data, %other_data
  br i1 %one_place, label %look_closer, label %differs
look_closer:
  %alike = call i1 @same_layout(ptr %array, ptr %other)
  br i1 %alike, label %write, label %differs
differs:
  %j_next = add i64 %j, 1
  br label %earlier

write:
  %same = phi i64 [ %i, %earlier ], [ %j, %look_closer ]
  %same_bits = shl i64 %same, 32
  %head = or i64 %rank, %same_bits
  %head_place = getelementptr i64, ptr %words, i64 %used
  store i64 %head, ptr %head_place
  %extents_to = getelementptr i64, ptr %words, i64 %begin
  %strides_to = getelementptr i64, ptr %extents_to, i64 %rank
  br label %copy
copy:
  %k = phi i64 [ 0, %write ], [ %k_next, %copy_one ]
  %copied = icmp eq i64 %k, %rank
  br i1 %copied, label %done, label %copy_one
copy_one:
  %from0 = getelementptr i64, ptr %extents, i64 %k
  %extent = load i64, ptr %from0
  %to0 = getelementptr i64, ptr %extents_to, i64 %k
  store i64 %extent, ptr %to0
  %from1 = getelementptr i64, ptr %strides, i64 %k
  %stride = load i64, ptr %from1
  %to1 = getelementptr i64, ptr %strides_to, i64 %k
  store i64 %stride, ptr %to1
  %k_next = add i64 %k, 1
  br label %copy
done:
  ret i64 %end
unusual:
  ret i64 0
}


; Whether two arrays have one shape and the same strides.
define internal i1 @same_layout(ptr %first, ptr %second) noinline {
entry:
  %rank = call i64 @half_word(ptr %first, i64 24)
  %other_rank = call i64 @half_word(ptr %second, i64 24)
  %one_rank = icmp eq i64 %rank, %other_rank
  br i1 %one_rank, label %compare, label %no
compare:
  %bytes = shl i64 %rank, 3
  %e0 = call ptr @pointer(ptr %first, i64 32)
  %e1 = call ptr @pointer(ptr %second, i64 32)
  %extents = call i32 @bcmp(ptr %e0, ptr %e1, i64 %bytes)
  %s0 = call ptr @pointer(ptr %first, i64 40)
  %s1 = call ptr @pointer(ptr %second, i64 40)
  %strides = call i32 @bcmp(ptr %s0, ptr %s1, i64 %bytes)
  %either = or i32 %extents, %strides
  %equal = icmp eq i32 %either, 0
  ret i1 %equal
no:
  ret i1 false
}


; The addresses between which all elements of an array lie.
define internal void @bounds(ptr %array, ptr %low_to, ptr %high_to) {
entry:
  %data = call i64 @word(ptr %array, i64 16)
  %dtype = call ptr @pointer(ptr %array, i64 56)
  %size = call i64 @word(ptr %dtype, i64 40)
  %end = add i64 %data, %size
  %rank = call i64 @half_word(ptr %array, i64 24)
  %extents = call ptr @pointer(ptr %array, i64 32)
  %strides = call ptr @pointer(ptr %array, i64 40)
  br label %axis
axis:
  %k = phi i64 [ 0, %entry ], [ %k_next, %move ]
  %low = phi i64 [ %data, %entry ], [ %new_low, %move ]
  %high = phi i64 [ %end, %entry ], [ %new_high, %move ]
  %done = icmp eq i64 %k, %rank
  br i1 %done, label %out, label %move
move:
  %e = getelementptr i64, ptr %extents, i64 %k
  %extent = load i64, ptr %e
  %s = getelementptr i64, ptr %strides, i64 %k
  %stride = load i64, ptr %s
  %moves = sub i64 %extent, 1
  %reach = mul i64 %moves, %stride
  %down = call i64 @llvm.smin.i64(i64 %reach, i64 0)
  %up = call i64 @llvm.smax.i64(i64 %reach, i64 0)
  %new_low = add i64 %low, %down
  %new_high = add i64 %high, %up
  %k_next = add i64 %k, 1
  br label %axis
out:
  store i64 %low, ptr %low_to
  store i64 %high, ptr %high_to
  ret void
}


; --- plans ----------------------------------------------------------------------------------------

; The plan for these facts, a borrowed reference, or null. It moves to the front of the plans used
; last, so that a program that goes round a few layouts never gets to the dictionary.
define internal ptr @find(ptr %plans, ptr %words, i64 %bytes) {
entry:
  %size = call i64 @word(ptr %plans, i64 16)
  %items = call ptr @pointer(ptr %plans, i64 24)
  %front = getelementptr ptr, ptr %items, i64 1
  br label %each
each:
  %i = phi i64 [ 1, %entry ], [ %next, %other ]
  %over = icmp sge i64 %i, %size
  br i1 %over, label %ask, label %look
look:
  %place = getelementptr ptr, ptr %items, i64 %i
  %plan = load ptr, ptr %place
  %empty = icmp eq ptr %plan, @_Py_NoneStruct
  br i1 %empty, label %ask, label %compare
compare:
  %own_bytes = call i64 @word(ptr %plan, i64 32)
  %one_length = icmp eq i64 %own_bytes, %bytes
  br i1 %one_length, label %compare_all, label %other
compare_all:
  %facts = getelementptr i8, ptr %plan, i64 160 ; 32 and the 16 words of the head
  %difference = call i32 @bcmp(ptr %facts, ptr %words, i64 %bytes)
  %equal = icmp eq i32 %difference, 0
  br i1 %equal, label %found, label %other
other:
  %next = add i64 %i, 1
  br label %each
found:
  %before = load ptr, ptr %front
  store ptr %plan, ptr %front
  store ptr %before, ptr %place
  ret ptr %plan

ask:
  %dictionary = load ptr, ptr %items
  %key = call ptr @PyBytes_FromStringAndSize(ptr %words, i64 %bytes)
  %no_key = icmp eq ptr %key, null
  br i1 %no_key, label %failed, label %get
get:
  %kept = call ptr @PyDict_GetItemWithError(ptr %dictionary, ptr %key)
  call void @Py_DecRef(ptr %key)
  %unknown = icmp eq ptr %kept, null
  br i1 %unknown, label %failed, label %keep
keep:
  ; In place of the one not used for longest, or in the first free place.
  %last = sub i64 %size, 1
  %where = call i64 @llvm.smin.i64(i64 %i, i64 %last)
  %end_place = getelementptr ptr, ptr %items, i64 %where
  %oldest = load ptr, ptr %end_place
  %newest = load ptr, ptr %front
  call void @Py_IncRef(ptr %kept)
  store ptr %newest, ptr %end_place
  store ptr %kept, ptr %front
  call void @Py_DecRef(ptr %oldest)
  ret ptr %kept
failed:
  call void @PyErr_Clear()
  ret ptr null
}


; Run a plan; return a new reference to the result, or null with an exception set.
define internal ptr @run(ptr %plan, ptr %args, i64 %count, ptr %out) {
entry:
  %scalar_word = call i64 @word(ptr %plan, i64 8)
  %scalar = icmp ne i64 %scalar_word, 0
  %rank = call i64 @word(ptr %plan, i64 16)
  %dtype = call ptr @pointer(ptr %plan, i64 24)
  %shape_at = call i64 @word(ptr %plan, i64 32)
  %arguments_bytes = call i64 @word(ptr %plan, i64 40)
  %template_at = call i64 @word(ptr %plan, i64 48)
  %fills = call i64 @word(ptr %plan, i64 56)
  %fills_at = call i64 @word(ptr %plan, i64 64)
  %steps = call i64 @word(ptr %plan, i64 72)
  %steps_at = call i64 @word(ptr %plan, i64 80)
  %workspace_at = call i64 @word(ptr %plan, i64 88)
  %scratch_at = call i64 @word(ptr %plan, i64 96)
  %block_bytes = call i64 @word(ptr %plan, i64 104)
  %shared_word = call i64 @word(ptr %plan, i64 112)
  %steps_begin = getelementptr i8, ptr %plan, i64 %steps_at
  %shared = icmp ne i64 %shared_word, 0
  br i1 %shared, label %ask_threads, label %get_block

ask_threads:
  %threads_field = getelementptr %State, ptr @einsumc_state, i32 0, i32 4
  %ask = load ptr, ptr %threads_field
  %number = call ptr @PyObject_CallNoArgs(ptr %ask)
  %no_number = icmp eq ptr %number, null
  br i1 %no_number, label %failed_early, label %read_threads
read_threads:
  %asked = call i64 @PyLong_AsLong(ptr %number)
  call void @Py_DecRef(ptr %number)
  br label %measure
measure:
  ; Scratch for as many threads as a step gets.
  %m = phi i64 [ 0, %read_threads ], [ %m_next, %measure_one ]
  %most = phi i64 [ %block_bytes, %read_threads ], [ %larger, %measure_one ]
  %measured = icmp eq i64 %m, %steps
  br i1 %measured, label %get_block, label %measure_one
measure_one:
  %m_place = mul i64 %m, 48
  %m_step = getelementptr i8, ptr %steps_begin, i64 %m_place
  %m_scratch = call i64 @word(ptr %m_step, i64 24)
  %m_worth = call i64 @word(ptr %m_step, i64 32)
  %m_threads = call i64 @llvm.smin.i64(i64 %m_worth, i64 %asked)
  %m_bytes = mul i64 %m_threads, %m_scratch
  %m_end = add i64 %scratch_at, %m_bytes
  %larger = call i64 @llvm.smax.i64(i64 %most, i64 %m_end)
  %m_next = add i64 %m, 1
  br label %measure

get_block:
  %available = phi i64 [ 1, %entry ], [ %asked, %measure ]
  %needed = phi i64 [ %block_bytes, %entry ], [ %most, %measure ]
  %block = call ptr @take_block(i64 %needed)
  %no_block = icmp eq ptr %block, null
  br i1 %no_block, label %no_memory, label %make_result
no_memory:
  %raised = call ptr @PyErr_NoMemory()
  br label %failed_early

make_result:
  %has_out = icmp ne ptr %out, null
  br i1 %has_out, label %use_out, label %new
use_out:
  call void @Py_IncRef(ptr %out)
  br label %array
new:
  br i1 %scalar, label %use_block, label %new_array
use_block:
  %room = getelementptr i8, ptr %block, i64 32
  br label %fill
new_array:
  %shape = getelementptr i8, ptr %plan, i64 %shape_at
  %strides = getelementptr i64, ptr %shape, i64 %rank
  %rank32 = trunc i64 %rank to i32
  call void @Py_IncRef(ptr %dtype) ; which NewFromDescr takes
  %made = call ptr @PyArray_NewFromDescr(ptr @PyArray_Type, ptr %dtype, i32 %rank32, ptr %shape,
                                         ptr %strides, ptr null, i32 0, ptr null)
  %not_made = icmp eq ptr %made, null
  br i1 %not_made, label %failed_unmade, label %array
failed_unmade:
  call void @give_block(ptr %block)
  br label %failed_early
failed_early:
  ret ptr null
array:
  %owned = phi ptr [ %out, %use_out ], [ %made, %new_array ]
  %its_data = call ptr @pointer(ptr %owned, i64 16)
  br label %fill

fill:
  %result = phi ptr [ null, %use_block ], [ %owned, %array ]
  %target = phi ptr [ %room, %use_block ], [ %its_data, %array ]
  %workspace = getelementptr i8, ptr %block, i64 %workspace_at
  %scratch = getelementptr i8, ptr %block, i64 %scratch_at
  %arguments = getelementptr i8, ptr %block, i64 64
  %template = getelementptr i8, ptr %plan, i64 %template_at
  call void @llvm.memcpy.p0.p0.i64(ptr %arguments, ptr %template, i64 %arguments_bytes, i1 false)
  %fills_begin = getelementptr i8, ptr %plan, i64 %fills_at
  br label %fill_each
fill_each:
  %f = phi i64 [ 0, %fill ], [ %f_next, %fill_one ]
  %filled = icmp eq i64 %f, %fills
  br i1 %filled, label %step_each, label %fill_look
fill_look:
  %f_place = mul i64 %f, 24
  %f_at = getelementptr i8, ptr %fills_begin, i64 %f_place
  %goes = call i64 @word(ptr %f_at, i64 0)
  %whose = call i64 @word(ptr %f_at, i64 8)
  %offset = call i64 @word(ptr %f_at, i64 16)
  %operand = icmp slt i64 %whose, %count
  br i1 %operand, label %fill_operand, label %fill_other
fill_operand:
  %a_place = getelementptr ptr, ptr %args, i64 %whose
  %a = load ptr, ptr %a_place
  %a_data = call ptr @pointer(ptr %a, i64 16)
  br label %fill_one
fill_other:
  %is_result = icmp eq i64 %whose, %count
  %other = select i1 %is_result, ptr %target, ptr %workspace
  br label %fill_one
fill_one:
  %base = phi ptr [ %a_data, %fill_operand ], [ %other, %fill_other ]
  %address = getelementptr i8, ptr %base, i64 %offset
  %f_to = getelementptr i8, ptr %arguments, i64 %goes
  store ptr %address, ptr %f_to
  %f_next = add i64 %f, 1
  br label %fill_each

step_each:
  %n = phi i64 [ 0, %fill_each ], [ %n_next, %step_done ]
  %all_done = icmp eq i64 %n, %steps
  br i1 %all_done, label %finish, label %step
step:
  %n_place = mul i64 %n, 48
  %n_at = getelementptr i8, ptr %steps_begin, i64 %n_place
  %kernel = call ptr @pointer(ptr %n_at, i64 0)
  %n_begin = call i64 @word(ptr %n_at, i64 8)
  %tiles = call i64 @word(ptr %n_at, i64 16)
  %stride = call i64 @word(ptr %n_at, i64 24)
  %worth = call i64 @word(ptr %n_at, i64 32)
  %long_word = call i64 @word(ptr %n_at, i64 40)
  %n_arguments = getelementptr i8, ptr %arguments, i64 %n_begin
  %long = icmp ne i64 %long_word, 0
  br i1 %long, label %step_long, label %step_short
step_short:
  call void %kernel(ptr %n_arguments, i64 0, i64 %tiles, ptr %scratch)
  br label %step_done
step_long:
  %threads = call i64 @llvm.smin.i64(i64 %worth, i64 %available)
  %status = call i32 @run_long(ptr %kernel, ptr %n_arguments, i64 %tiles, i64 %threads,
                               ptr %scratch, i64 %stride)
  %interrupted = icmp slt i32 %status, 0
  br i1 %interrupted, label %failed, label %step_done
step_done:
  %n_next = add i64 %n, 1
  br label %step_each

finish:
  %is_scalar = icmp eq ptr %result, null
  br i1 %is_scalar, label %finish_scalar, label %finish_array
finish_scalar:
  %value = call ptr @PyArray_Scalar(ptr %target, ptr %dtype, ptr null)
  br label %finish_array
finish_array:
  %final = phi ptr [ %result, %finish ], [ %value, %finish_scalar ]
  call void @give_block(ptr %block)
  ret ptr %final

failed:
  call void @give_block(ptr %block)
  %nothing = icmp eq ptr %result, null
  br i1 %nothing, label %leave, label %drop
drop:
  call void @Py_DecRef(ptr %result)
  br label %leave
leave:
  ret ptr null
}


; Run a kernel on the thread pool, without the GIL, and look for signals every 50 ms. Return -1 if
; one of them raised an exception.
define internal i32 @run_long(ptr %kernel, ptr %args, i64 %tiles, i64 %threads, ptr %scratch,
                              i64 %stride) noinline {
entry:
  %run_field = getelementptr %State, ptr @einsumc_state, i32 0, i32 5
  %pool_run = load ptr, ptr %run_field
  %pool_field = getelementptr %State, ptr @einsumc_state, i32 0, i32 6
  %pool = load ptr, ptr %pool_field
  %processors_field = getelementptr %State, ptr @einsumc_state, i32 0, i32 7
  %processors = load i64, ptr %processors_field
  ; Waiting awake makes sense where every thread has a processor.
  %several = icmp sgt i64 %threads, 1
  %fit = icmp sle i64 %threads, %processors
  %spinning = and i1 %several, %fit
  %spin = select i1 %spinning, i64 100000, i64 0
  br label %slice
slice:
  %done = phi i64 [ 0, %entry ], [ %now_done, %again ]
  %thread = call ptr @PyEval_SaveThread()
  %now_done = call i64 %pool_run(ptr %pool, ptr %kernel, ptr %args, i64 %done, i64 %tiles,
                                 i64 %threads, ptr %scratch, i64 %stride, i64 50000000, i64 %spin)
  call void @PyEval_RestoreThread(ptr %thread)
  %status = call i32 @PyErr_CheckSignals()
  %raised = icmp slt i32 %status, 0
  br i1 %raised, label %leave, label %again
again:
  %finished = icmp sge i64 %now_done, %tiles
  br i1 %finished, label %leave, label %slice
leave:
  ret i32 %status
}


; --- blocks ---------------------------------------------------------------------------------------

; A block's first two words are where its memory begins and how many bytes the block has. Those not
; in use wait in the state, where only who holds the GIL looks.

; A block of at least so many bytes, on a page, or null.
define internal ptr @take_block(i64 %bytes) {
entry:
  %blocks = getelementptr %State, ptr @einsumc_state, i32 0, i32 8
  br label %each
each:
  %i = phi i64 [ 0, %entry ], [ %next, %other ]
  %best = phi ptr [ null, %entry ], [ %best_now, %other ]
  %best_size = phi i64 [ -1, %entry ], [ %best_size_now, %other ]
  %misfit = phi ptr [ null, %entry ], [ %misfit_now, %other ]
  %over = icmp eq i64 %i, 8
  br i1 %over, label %choose, label %look
look:
  %place = getelementptr ptr, ptr %blocks, i64 %i
  %block = load ptr, ptr %place
  %empty = icmp eq ptr %block, null
  br i1 %empty, label %other, label %compare
compare:
  %size = call i64 @word(ptr %block, i64 8)
  %large = icmp uge i64 %size, %bytes
  %smaller = icmp ult i64 %size, %best_size
  %better = and i1 %large, %smaller
  %c_best = select i1 %better, ptr %place, ptr %best
  %c_size = select i1 %better, i64 %size, i64 %best_size
  %c_misfit = select i1 %large, ptr %misfit, ptr %place
  br label %other
other:
  %best_now = phi ptr [ %best, %look ], [ %c_best, %compare ]
  %best_size_now = phi i64 [ %best_size, %look ], [ %c_size, %compare ]
  %misfit_now = phi ptr [ %misfit, %look ], [ %c_misfit, %compare ]
  %next = add i64 %i, 1
  br label %each
choose:
  %fits = icmp ne ptr %best, null
  br i1 %fits, label %reuse, label %replace
reuse:
  %found = load ptr, ptr %best
  store ptr null, ptr %best
  ret ptr %found

replace:
  ; One that is too small goes: as needs grow, blocks do not pile up.
  %has_misfit = icmp ne ptr %misfit, null
  br i1 %has_misfit, label %remove, label %make
remove:
  %old = load ptr, ptr %misfit
  store ptr null, ptr %misfit
  %old_memory = load ptr, ptr %old
  call void @PyMem_RawFree(ptr %old_memory)
  br label %make
make:
  ; From 1 MiB on in huge pages, whole ones.
  %least = call i64 @llvm.umax.i64(i64 %bytes, i64 16384)
  %huge = icmp uge i64 %least, 1048576
  %unit = select i1 %huge, i64 2097152, i64 4096
  %below = sub i64 %unit, 1
  %mask = sub i64 0, %unit
  %reached = add i64 %least, %below
  %at_least = and i64 %reached, %mask
  %with_room = add i64 %at_least, %unit
  %memory = call ptr @PyMem_RawMalloc(i64 %with_room)
  %none = icmp eq ptr %memory, null
  br i1 %none, label %failed, label %align
align:
  %number = ptrtoint ptr %memory to i64
  %above = add i64 %number, %below
  %page = and i64 %above, %mask
  %new = inttoptr i64 %page to ptr
  br i1 %huge, label %advise, label %sign
advise:
  %advised = call i64 (i64, ...) @syscall(i64 28, ptr %new, i64 %at_least, i64 14) ; madvise
  br label %sign
sign:
  store ptr %memory, ptr %new
  %size_place = getelementptr i64, ptr %new, i64 1
  store i64 %at_least, ptr %size_place
  ret ptr %new
failed:
  ret ptr null
}


; Keep a block for the next call, unless it is very large or enough are kept.
define internal void @give_block(ptr %block) {
entry:
  %blocks = getelementptr %State, ptr @einsumc_state, i32 0, i32 8
  %size = call i64 @word(ptr %block, i64 8)
  %small = icmp ule i64 %size, 67108864
  br i1 %small, label %each, label %free
each:
  %i = phi i64 [ 0, %entry ], [ %next, %taken ]
  %over = icmp eq i64 %i, 8
  br i1 %over, label %free, label %look
look:
  %place = getelementptr ptr, ptr %blocks, i64 %i
  %there = load ptr, ptr %place
  %empty = icmp eq ptr %there, null
  br i1 %empty, label %keep, label %taken
taken:
  %next = add i64 %i, 1
  br label %each
keep:
  store ptr %block, ptr %place
  ret void
free:
  %memory = load ptr, ptr %block
  call void @PyMem_RawFree(ptr %memory)
  ret void
}
"""


@cache
def build_object() -> bytes:
    """Compile the entry: an ELF object for `compiler.image.link`. Equal LLVMs give equal bytes."""
    return assemble(IR)
