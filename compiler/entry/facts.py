"""What a call is known by: dtype, extents and strides of its arrays, and which of them are one."""

__all__ = ["IR"]

IR = r"""
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
"""
