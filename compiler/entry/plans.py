"""Finding the plan of a call, and running it."""

__all__ = ["IR"]

IR = r"""
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
  %results = call i64 @word(ptr %plan, i64 8)
  %written_at = call i64 @word(ptr %plan, i64 24)
  %arguments_bytes = call i64 @word(ptr %plan, i64 40)
  %template_at = call i64 @word(ptr %plan, i64 48)
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
  %m_step = call ptr @record(ptr %steps_begin, i64 %m, i64 48)
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
  br i1 %no_block, label %no_memory, label %make
no_memory:
  %raised = call ptr @PyErr_NoMemory()
  br label %failed_early
failed_early:
  ret ptr null

make:
  %written = getelementptr i8, ptr %block, i64 %written_at
  %made = call i64 @make_results(ptr %plan, ptr %out, ptr %written)
  %all_made = icmp eq i64 %made, %results
  br i1 %all_made, label %fill, label %failed
fill:
  %workspace = getelementptr i8, ptr %block, i64 %workspace_at
  %scratch = getelementptr i8, ptr %block, i64 %scratch_at
  %arguments = getelementptr i8, ptr %block, i64 64
  %template = getelementptr i8, ptr %plan, i64 %template_at
  call void @llvm.memcpy.p0.p0.i64(ptr %arguments, ptr %template, i64 %arguments_bytes, i1 false)
  call void @fill_addresses(ptr %plan, ptr %args, i64 %count, ptr %written, ptr %workspace,
                            ptr %arguments)
  %status = call i32 @run_steps(ptr %plan, ptr %arguments, ptr %scratch, i64 %available)
  %interrupted = icmp slt i32 %status, 0
  br i1 %interrupted, label %failed, label %finish

finish:
  %returned = call ptr @take_results(ptr %plan, ptr %written)
  call void @give_block(ptr %block)
  %final = call ptr @as_returned(ptr %plan, ptr %returned)
  ret ptr %final

failed:
  %there = phi i64 [ %made, %make ], [ %results, %fill ]
  call void @drop_results(ptr %written, i64 %there)
  call void @give_block(ptr %block)
  ret ptr null
}
"""
