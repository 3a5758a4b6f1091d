"""Running a chain of kernels block by block, as LLVM IR.

A chain (`compiler/chains.py`) looks like one kernel: `chain_run(args, begin, end, scratch)` runs
blocks `begin` to `end`, so that threads share blocks as they share a kernel's tiles. It is part of
the thread pool's image. For each block it copies the arguments of all kernels to the thread's
scratch, fills the addresses in, and calls the kernels one after the other.

All of `args` are 64-bit words; places and sizes are in bytes, those of `args` from its beginning:

    loops       how many, MOST_LOOPS at most
    whole       place of the variant for whole blocks
    last        place of the variant for the last blocks of the innermost loop
    scratch     where the kernels' scratch begins in the thread's, on a page
    counts      of blocks, for each loop, outermost first

and a variant is

    steps, fills, template      how many, how many, size
    for each step               address of the kernel, where its arguments begin in the template,
                                tiles
    for each fill               where it goes in the template; an address, or an offset in the
                                thread's scratch; 1 if it is such an offset; for each loop by how
                                much the address grows from block to block
    template                    the arguments of all kernels, addresses missing
"""

from .pool import IR as _POOL

__all__ = ["ENTRY", "IR"]

ENTRY = "chain_run"
"""Name of the entry."""

_CHAIN = r"""
define internal i64 @chain_word(ptr %list, i64 %i) alwaysinline {
  %place = getelementptr i64, ptr %list, i64 %i
  %value = load i64, ptr %place
  ret i64 %value
}

define void @chain_run(ptr %args, i64 %begin, i64 %end, ptr %scratch) {
entry:
  %position = alloca [4 x i64]
  %loops = call i64 @chain_word(ptr %args, i64 0)
  %whole_at = call i64 @chain_word(ptr %args, i64 1)
  %last_at = call i64 @chain_word(ptr %args, i64 2)
  %scratch_at = call i64 @chain_word(ptr %args, i64 3)
  %kernel_scratch = getelementptr i8, ptr %scratch, i64 %scratch_at
  %counts = getelementptr i64, ptr %args, i64 4
  %innermost = sub i64 %loops, 1
  %fill_words = add i64 %loops, 3
  br label %block
block:
  %number = phi i64 [ %begin, %entry ], [ %number_next, %ran ]
  %over = icmp sge i64 %number, %end
  br i1 %over, label %leave, label %split

  ; The position in every loop, the innermost one first.
split:
  %l = phi i64 [ %innermost, %block ], [ %l_next, %split ]
  %rest = phi i64 [ %number, %block ], [ %rest_next, %split ]
  %count = call i64 @chain_word(ptr %counts, i64 %l)
  %here = urem i64 %rest, %count
  %rest_next = udiv i64 %rest, %count
  %to = getelementptr i64, ptr %position, i64 %l
  store i64 %here, ptr %to
  %l_next = sub i64 %l, 1
  %outermost = icmp eq i64 %l, 0
  br i1 %outermost, label %choose, label %split
choose:
  %in_row = call i64 @chain_word(ptr %counts, i64 %innermost)
  %inner = call i64 @chain_word(ptr %position, i64 %innermost)
  %inner_next = add i64 %inner, 1
  %is_last = icmp eq i64 %inner_next, %in_row
  %variant_at = select i1 %is_last, i64 %last_at, i64 %whole_at
  %variant = getelementptr i8, ptr %args, i64 %variant_at
  %steps = call i64 @chain_word(ptr %variant, i64 0)
  %fills = call i64 @chain_word(ptr %variant, i64 1)
  %bytes = call i64 @chain_word(ptr %variant, i64 2)
  %step_list = getelementptr i64, ptr %variant, i64 3
  %step_words = mul i64 %steps, 3
  %fill_list = getelementptr i64, ptr %step_list, i64 %step_words
  %all_fill_words = mul i64 %fills, %fill_words
  %template = getelementptr i64, ptr %fill_list, i64 %all_fill_words
  call void @llvm.memcpy.p0.p0.i64(ptr %scratch, ptr %template, i64 %bytes, i1 false)
  br label %fill

fill:
  %f = phi i64 [ 0, %choose ], [ %f_next, %filled ]
  %all_filled = icmp eq i64 %f, %fills
  br i1 %all_filled, label %step, label %address
address:
  %fill_at = mul i64 %f, %fill_words
  %record = getelementptr i64, ptr %fill_list, i64 %fill_at
  %goes = call i64 @chain_word(ptr %record, i64 0)
  %base = call i64 @chain_word(ptr %record, i64 1)
  %own = call i64 @chain_word(ptr %record, i64 2)
  %moves = getelementptr i64, ptr %record, i64 3
  %scratch_number = ptrtoint ptr %scratch to i64
  %is_own = icmp ne i64 %own, 0
  %from = select i1 %is_own, i64 %scratch_number, i64 0
  %begins = add i64 %base, %from
  br label %move
move:
  %m = phi i64 [ 0, %address ], [ %m_next, %move ]
  %value = phi i64 [ %begins, %address ], [ %value_next, %move ]
  %by = call i64 @chain_word(ptr %moves, i64 %m)
  %times = call i64 @chain_word(ptr %position, i64 %m)
  %distance = mul i64 %by, %times
  %value_next = add i64 %value, %distance
  %m_next = add i64 %m, 1
  %moved = icmp eq i64 %m_next, %loops
  br i1 %moved, label %filled, label %move
filled:
  %target = getelementptr i8, ptr %scratch, i64 %goes
  store i64 %value_next, ptr %target
  %f_next = add i64 %f, 1
  br label %fill

step:
  %s = phi i64 [ 0, %fill ], [ %s_next, %called ]
  %all_called = icmp eq i64 %s, %steps
  br i1 %all_called, label %ran, label %called
called:
  %step_at = mul i64 %s, 3
  %step_record = getelementptr i64, ptr %step_list, i64 %step_at
  %kernel = load ptr, ptr %step_record
  %arguments_at = call i64 @chain_word(ptr %step_record, i64 1)
  %tiles = call i64 @chain_word(ptr %step_record, i64 2)
  %arguments = getelementptr i8, ptr %scratch, i64 %arguments_at
  call void %kernel(ptr %arguments, i64 0, i64 %tiles, ptr %kernel_scratch)
  %s_next = add i64 %s, 1
  br label %step
ran:
  %number_next = add i64 %number, 1
  br label %block
leave:
  ret void
}
"""

IR = _POOL + _CHAIN
"""The image of the thread pool, with chains."""
