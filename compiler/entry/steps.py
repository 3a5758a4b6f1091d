"""Calling a plan's kernels: their addresses, short work and long."""

__all__ = ["IR"]

IR = r"""
; Write all addresses where they belong among the arguments.
define internal void @fill_addresses(ptr %plan, ptr %args, i64 %count, ptr %written,
                                     ptr %workspace, ptr %arguments) {
entry:
  %fills = call i64 @word(ptr %plan, i64 56)
  %fills_at = call i64 @word(ptr %plan, i64 64)
  %results = call i64 @word(ptr %plan, i64 8)
  %list = getelementptr i8, ptr %plan, i64 %fills_at
  br label %each
each:
  %i = phi i64 [ 0, %entry ], [ %next, %write ]
  %all_filled = icmp eq i64 %i, %fills
  br i1 %all_filled, label %done, label %look
look:
  %fill = call ptr @record(ptr %list, i64 %i, i64 24)
  %goes = call i64 @word(ptr %fill, i64 0)
  %whose = call i64 @word(ptr %fill, i64 8)
  %offset = call i64 @word(ptr %fill, i64 16)
  %is_operand = icmp slt i64 %whose, %count
  br i1 %is_operand, label %operand, label %other
operand:
  %place = getelementptr ptr, ptr %args, i64 %whose
  %array = load ptr, ptr %place
  %data = call ptr @pointer(ptr %array, i64 16)
  br label %write
other:
  %beyond = sub i64 %whose, %count
  %is_result = icmp slt i64 %beyond, %results
  br i1 %is_result, label %result, label %write
result:
  %own = call ptr @record(ptr %written, i64 %beyond, i64 32)
  %target = load ptr, ptr %own
  br label %write
write:
  %base = phi ptr [ %data, %operand ], [ %target, %result ], [ %workspace, %other ]
  %address = getelementptr i8, ptr %base, i64 %offset
  %to = getelementptr i8, ptr %arguments, i64 %goes
  store ptr %address, ptr %to
  %next = add i64 %i, 1
  br label %each
done:
  ret void
}


; Call the kernels one after the other, with so many threads available. Return -1 if a signal raised
; an exception meanwhile.
define internal i32 @run_steps(ptr %plan, ptr %arguments, ptr %scratch, i64 %available) {
entry:
  %steps = call i64 @word(ptr %plan, i64 72)
  %steps_at = call i64 @word(ptr %plan, i64 80)
  %list = getelementptr i8, ptr %plan, i64 %steps_at
  br label %each
each:
  %i = phi i64 [ 0, %entry ], [ %next, %done ]
  %all_done = icmp eq i64 %i, %steps
  br i1 %all_done, label %leave, label %look
look:
  %step = call ptr @record(ptr %list, i64 %i, i64 48)
  %kernel = call ptr @pointer(ptr %step, i64 0)
  %begin = call i64 @word(ptr %step, i64 8)
  %tiles = call i64 @word(ptr %step, i64 16)
  %stride = call i64 @word(ptr %step, i64 24)
  %worth = call i64 @word(ptr %step, i64 32)
  %long_word = call i64 @word(ptr %step, i64 40)
  %own = getelementptr i8, ptr %arguments, i64 %begin
  %is_long = icmp ne i64 %long_word, 0
  br i1 %is_long, label %long, label %short
short:
  call void %kernel(ptr %own, i64 0, i64 %tiles, ptr %scratch)
  br label %done
long:
  %threads = call i64 @llvm.smin.i64(i64 %worth, i64 %available)
  %status = call i32 @run_long(ptr %kernel, ptr %own, i64 %tiles, i64 %threads, ptr %scratch,
                               i64 %stride)
  %interrupted = icmp slt i32 %status, 0
  br i1 %interrupted, label %leave, label %done
done:
  %next = add i64 %i, 1
  br label %each
leave:
  %result = phi i32 [ 0, %each ], [ %status, %long ]
  ret i32 %result
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
"""
