"""Memory that plans run in, and that waits between calls."""

__all__ = ["IR"]

IR = r"""
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
