"""Making the results of a call, and handing them over."""

__all__ = ["IR"]

IR = r"""
; What the block keeps of a result, in 32 bytes: where it is written, the object or null for a
; scalar, room for a scalar.

; Make the results of a plan, or take %out for the only one; return how many there are, fewer than
; all with an exception set.
define internal i64 @make_results(ptr %plan, ptr %out, ptr %written) {
entry:
  %results = call i64 @word(ptr %plan, i64 8)
  %results_at = call i64 @word(ptr %plan, i64 16)
  %list = getelementptr i8, ptr %plan, i64 %results_at
  %has_out = icmp ne ptr %out, null
  br i1 %has_out, label %use_out, label %each
use_out:
  call void @Py_IncRef(ptr %out)
  %out_data = call ptr @pointer(ptr %out, i64 16)
  call void @keep_result(ptr %written, i64 0, ptr %out_data, ptr %out)
  ret i64 1
each:
  %i = phi i64 [ 0, %entry ], [ %next, %kept ]
  %all_made = icmp eq i64 %i, %results
  br i1 %all_made, label %leave, label %look
look:
  %result = call ptr @record(ptr %list, i64 %i, i64 32)
  %scalar_word = call i64 @word(ptr %result, i64 0)
  %scalar = icmp ne i64 %scalar_word, 0
  br i1 %scalar, label %use_room, label %new
use_room:
  %own = call ptr @record(ptr %written, i64 %i, i64 32)
  %room = getelementptr i8, ptr %own, i64 16
  br label %kept
new:
  %rank = call i64 @word(ptr %result, i64 8)
  %dtype = call ptr @pointer(ptr %result, i64 16)
  %shape_at = call i64 @word(ptr %result, i64 24)
  %shape = getelementptr i8, ptr %plan, i64 %shape_at
  %strides = getelementptr i64, ptr %shape, i64 %rank
  %rank32 = trunc i64 %rank to i32
  call void @Py_IncRef(ptr %dtype) ; which NewFromDescr takes
  %made = call ptr @PyArray_NewFromDescr(ptr @PyArray_Type, ptr %dtype, i32 %rank32, ptr %shape,
                                         ptr %strides, ptr null, i32 0, ptr null)
  %not_made = icmp eq ptr %made, null
  br i1 %not_made, label %leave, label %is_made
is_made:
  %made_data = call ptr @pointer(ptr %made, i64 16)
  br label %kept
kept:
  %object = phi ptr [ null, %use_room ], [ %made, %is_made ]
  %data = phi ptr [ %room, %use_room ], [ %made_data, %is_made ]
  call void @keep_result(ptr %written, i64 %i, ptr %data, ptr %object)
  %next = add i64 %i, 1
  br label %each
leave:
  ret i64 %i
}

define internal void @keep_result(ptr %written, i64 %i, ptr %data, ptr %object) alwaysinline {
  %place = call ptr @record(ptr %written, i64 %i, i64 32)
  store ptr %data, ptr %place
  %object_place = getelementptr ptr, ptr %place, i64 1
  store ptr %object, ptr %object_place
  ret void
}


; Give up the first %count results.
define internal void @drop_results(ptr %written, i64 %count) noinline {
entry:
  br label %each
each:
  %i = phi i64 [ 0, %entry ], [ %next, %more ]
  %done = icmp eq i64 %i, %count
  br i1 %done, label %leave, label %look
look:
  %place = call ptr @record(ptr %written, i64 %i, i64 32)
  %object = call ptr @pointer(ptr %place, i64 8)
  %none = icmp eq ptr %object, null
  br i1 %none, label %more, label %drop
drop:
  call void @Py_DecRef(ptr %object)
  br label %more
more:
  %next = add i64 %i, 1
  br label %each
leave:
  ret void
}


; The only result, or a tuple of all: a new reference, or null with an exception set.
define internal ptr @take_results(ptr %plan, ptr %written) {
entry:
  %results = call i64 @word(ptr %plan, i64 8)
  %results_at = call i64 @word(ptr %plan, i64 16)
  %several_word = call i64 @word(ptr %plan, i64 32)
  %several = icmp ne i64 %several_word, 0
  %list = getelementptr i8, ptr %plan, i64 %results_at
  br i1 %several, label %begin, label %only
only:
  %only_one = call ptr @result_object(ptr %list, ptr %written, i64 0)
  ret ptr %only_one
begin:
  %tuple = call ptr @PyTuple_New(i64 %results)
  %no_tuple = icmp eq ptr %tuple, null
  br i1 %no_tuple, label %failed, label %each
each:
  %i = phi i64 [ 0, %begin ], [ %next, %set ]
  %done = icmp eq i64 %i, %results
  br i1 %done, label %leave, label %take
take:
  %object = call ptr @result_object(ptr %list, ptr %written, i64 %i)
  %none = icmp eq ptr %object, null
  br i1 %none, label %drop_tuple, label %set
set:
  %is_set = call i32 @PyTuple_SetItem(ptr %tuple, i64 %i, ptr %object) ; which takes the object
  %next = add i64 %i, 1
  br label %each
drop_tuple:
  call void @Py_DecRef(ptr %tuple)
  br label %failed
failed:
  %left_from = phi i64 [ 0, %begin ], [ %i, %drop_tuple ]
  %left = call ptr @record(ptr %written, i64 %left_from, i64 32)
  %how_many = sub i64 %results, %left_from
  call void @drop_results(ptr %left, i64 %how_many)
  ret ptr null
leave:
  ret ptr %tuple
}

; A result as an object: the array, or a scalar that is made of what was written.
define internal ptr @result_object(ptr %list, ptr %written, i64 %i) {
entry:
  %place = call ptr @record(ptr %written, i64 %i, i64 32)
  %object = call ptr @pointer(ptr %place, i64 8)
  %scalar = icmp eq ptr %object, null
  br i1 %scalar, label %make, label %leave
make:
  %result = call ptr @record(ptr %list, i64 %i, i64 32)
  %dtype = call ptr @pointer(ptr %result, i64 16)
  %data = load ptr, ptr %place
  %made = call ptr @PyArray_Scalar(ptr %data, ptr %dtype, ptr null)
  br label %leave
leave:
  %taken = phi ptr [ %object, %entry ], [ %made, %make ]
  ret ptr %taken
}


; What the plan's function makes of the results, if it has one.
define internal ptr @as_returned(ptr %plan, ptr %results) {
entry:
  %function = call ptr @pointer(ptr %plan, i64 120)
  %none = icmp eq ptr %function, null
  %failed = icmp eq ptr %results, null
  %as_they_are = or i1 %none, %failed
  br i1 %as_they_are, label %leave, label %ask
ask:
  %made = call ptr @PyObject_CallOneArg(ptr %function, ptr %results)
  call void @Py_DecRef(ptr %results)
  br label %leave
leave:
  %returned = phi ptr [ %results, %entry ], [ %made, %ask ]
  ret ptr %returned
}
"""
