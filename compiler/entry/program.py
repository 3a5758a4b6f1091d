"""The whole program: what all its parts use, the method, and then the parts."""

from . import blocks, facts, plans, results, steps

__all__ = ["IR"]

_COMMON = r"""
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
declare ptr @PyObject_CallOneArg(ptr, ptr)
declare ptr @PyObject_Vectorcall(ptr, ptr, i64, ptr)
declare ptr @PyTuple_GetItem(ptr, i64)
declare ptr @PyTuple_New(i64)
declare i32 @PyTuple_SetItem(ptr, i64, ptr)
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

; Record number %i of a list of records of %bytes bytes each.
define internal ptr @record(ptr %list, i64 %i, i64 %bytes) alwaysinline {
  %offset = mul i64 %i, %bytes
  %place = getelementptr i8, ptr %list, i64 %offset
  ret ptr %place
}
"""

_METHOD = r"""
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
"""

IR = "\n".join([_COMMON, _METHOD, facts.IR, plans.IR, results.IR, steps.IR, blocks.IR])
