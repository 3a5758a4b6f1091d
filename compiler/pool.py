"""The thread pool, as LLVM IR: handing tiles to other threads without Python.

Waking a Python thread costs 85 to 100 microseconds, because the GIL has to change hands. Here the
workers are threads that Python never sees; they wait in native code, and a hand-over to one that
is awake is a write to memory.

`IR` is the program. It becomes an image like any kernel, so it is compiled once, beforehand, and
`runtime/threads.py` calls its one entry:

    i64 pool_run(state, kernel, args, first, tiles, threads, scratch, stride, deadline_ns, spin)

which runs `kernel(args, begin, end, scratch)` for ranges that cover tiles `first` to `tiles` and
returns the first tile that was not run. All tiles below that one are finished; it is less than
`tiles` only if more than `deadline_ns` nanoseconds have passed (0: no deadline). Thread `i` of a
job has its scratch at `scratch + i * stride`. `spin` is how many cycles a thread waits awake.

All state lies in memory that the caller owns: `STATE_BYTES` bytes, zero at first, never moved and
never freed. Zero is a pool without workers, which is why a forked child, where no worker lives on,
only needs the state zeroed.

The protocol, in the order of events (the comments in `IR` have the details):

1. A caller takes the lock `busy` without waiting. If another caller has it, or the job is too
   small to share, the caller runs its tiles alone. Tiles are independent: same bits either way.
2. It describes its `Job`, then opens the *gate*, one 64-bit word that holds all there is to agree
   about: the job's number, the seats for workers not yet taken, the workers inside. Workers that
   sleep are woken by futex, as many as there are seats for that no awake worker can take.
3. A worker takes a seat by compare-and-swap on the whole gate. The number in it makes sure that
   the seat is in the job it looked at, however long it was held up in between.
4. Everybody inside, the caller too, takes ranges of tiles by atomic addition until none is left.
5. The caller closes the gate by taking away the free seats, and waits for those inside only: a
   worker that wakes up late finds the gate closed and goes back to sleep.

References: Franke, Russell, Kirkwood, "Fuss, Futexes and Furwocks" (Ottawa Linux Symposium 2002);
futex(2).
"""

__all__ = ["ENTRY", "IR", "STATE_BYTES"]

ENTRY = "pool_run"
"""Name of the image's entry."""

STATE_BYTES = 4096
"""Size of a pool's state. It has a page for itself, so that fork can be told to wipe it."""

IR = r"""
target triple = "x86_64-unknown-linux-gnu"

; A job: what the threads inside share and nobody writes until all have left.
;                kernel args tiles largest scratch stride mxcsr
%Job = type     { ptr,  ptr, i64,  i64,    ptr,    i64,   i32 }

; The pool. What several threads write has two cache lines to itself: CPUs fetch lines in pairs.
;                 busy              gate              next tile         sleepers
%State = type   { i64, [120 x i8],  i64, [120 x i8],  i64, [120 x i8],  i64, [120 x i8],
;                 job               workers spin
                  %Job, [72 x i8],  i64,    i64 }

; The gate:  63 .. 32     31              30 .. 16      15 .. 0
;            job number   caller sleeps   free seats    workers inside
; Workers sleep on the upper half, which changes when a job comes. The caller sleeps on the lower
; half, which changes when a worker leaves.

@name = private unnamed_addr constant [8 x i8] c"einsumc\00"

; What workers block: all but SIGILL, SIGTRAP, SIGBUS, SIGFPE, SIGSEGV and SIGSYS (4, 5, 7, 8, 11,
; 31), which report this thread's own faults, and 32 to 34, which C libraries use themselves. So
; Ctrl-C goes to a thread that Python knows.
@blocked = private unnamed_addr constant [16 x i64] [
  i64 u0xFFFFFFFC3FFFFB27, i64 -1, i64 -1, i64 -1, i64 -1, i64 -1, i64 -1, i64 -1,
  i64 -1, i64 -1, i64 -1, i64 -1, i64 -1, i64 -1, i64 -1, i64 -1 ], align 8

declare i32 @clock_gettime(i32, ptr)
declare i64 @syscall(i64, ...)
declare i32 @pthread_create(ptr, ptr, ptr, ptr)
declare i32 @pthread_sigmask(i32, ptr, ptr)
declare i32 @pthread_attr_init(ptr)
declare i32 @pthread_attr_setdetachstate(ptr, i32)
declare i32 @pthread_attr_setstacksize(ptr, i64)
declare i32 @pthread_attr_destroy(ptr)
declare i64 @llvm.readcyclecounter()
declare i64 @llvm.smin.i64(i64, i64)
declare i64 @llvm.smax.i64(i64, i64)
declare void @llvm.x86.sse2.pause()
declare void @llvm.x86.sse.stmxcsr(ptr)
declare void @llvm.x86.sse.ldmxcsr(ptr)


define i64 @pool_run(ptr %state, ptr %kernel, ptr %args, i64 %first, i64 %tiles, i64 %threads,
                     ptr %scratch, i64 %stride, i64 %deadline_ns, i64 %spin) {
entry:
  %own_job = alloca %Job
  %own_next = alloca i64
  %mode = alloca i32
  ; Workers adopt the caller's rounding and denormal modes (MXCSR without its exception flags), or
  ; the bits would depend on who ran a tile.
  call void @llvm.x86.sse.stmxcsr(ptr %mode)
  %all_flags = load i32, ptr %mode
  %mxcsr = and i32 %all_flags, u0xFFC0

  %limited = icmp sgt i64 %deadline_ns, 0
  br i1 %limited, label %set_deadline, label %choose
set_deadline:
  %now = call i64 @nanoseconds()
  %then = add i64 %now, %deadline_ns
  br label %choose
choose:
  %deadline = phi i64 [ 0, %entry ], [ %then, %set_deadline ]
  %count = sub i64 %tiles, %first
  %spare_tiles = sub i64 %count, 1
  %spare_threads = sub i64 %threads, 1
  %helpers = call i64 @llvm.smin.i64(i64 %spare_tiles, i64 %spare_threads)
  %shared = icmp sgt i64 %helpers, 0
  br i1 %shared, label %try_lock, label %alone

alone:
  ; The same loop, on a job that nobody else sees.
  %alone_largest = call i64 @llvm.smax.i64(i64 %count, i64 1)
  call void @describe(ptr %own_job, ptr %kernel, ptr %args, i64 %tiles, i64 %alone_largest,
                      ptr %scratch, i64 %stride, i32 %mxcsr)
  store i64 %first, ptr %own_next
  call void @take_tiles(ptr %own_job, ptr %own_next, i64 0, i64 %deadline)
  %alone_next = load i64, ptr %own_next
  %alone_done = call i64 @llvm.smin.i64(i64 %alone_next, i64 %tiles)
  ret i64 %alone_done

try_lock:
  %busy = getelementptr %State, ptr %state, i32 0, i32 0
  %lock = cmpxchg ptr %busy, i64 0, i64 1 acquire monotonic
  %locked = extractvalue { i64, i1 } %lock, 1
  br i1 %locked, label %publish, label %alone

publish:
  %gate = getelementptr %State, ptr %state, i32 0, i32 2
  %next = getelementptr %State, ptr %state, i32 0, i32 4
  %sleepers = getelementptr %State, ptr %state, i32 0, i32 6
  %job = getelementptr %State, ptr %state, i32 0, i32 8
  %spin_field = getelementptr %State, ptr %state, i32 0, i32 11
  store atomic i64 %spin, ptr %spin_field monotonic, align 8
  %workers = call i64 @hire(ptr %state, i64 %helpers)
  %seats = call i64 @llvm.smin.i64(i64 %workers, i64 %helpers)
  ; At least eight ranges a thread, so that the last one to finish is not late by much.
  %shares = mul i64 %threads, 8
  %share = sdiv i64 %count, %shares
  %largest = call i64 @llvm.smax.i64(i64 %share, i64 1)
  call void @describe(ptr %job, ptr %kernel, ptr %args, i64 %tiles, i64 %largest,
                      ptr %scratch, i64 %stride, i32 %mxcsr)
  store atomic i64 %first, ptr %next monotonic, align 8
  %last_gate = load atomic i64, ptr %gate monotonic, align 8
  %last_number = lshr i64 %last_gate, 32
  %number = add i64 %last_number, 1
  %number_bits = shl i64 %number, 32
  %seat_bits = shl i64 %seats, 16
  %open = or i64 %number_bits, %seat_bits
  %before = atomicrmw xchg ptr %gate, i64 %open seq_cst
  ; A worker counts itself among the sleepers, then lets the kernel compare the job's number; here
  ; the number changes, then the sleepers are counted. One of the two sees the other.
  %asleep = load atomic i64, ptr %sleepers seq_cst, align 8
  %awake = sub i64 %workers, %asleep
  %wanted = sub i64 %seats, %awake
  %wake = icmp sgt i64 %wanted, 0
  br i1 %wake, label %wake_workers, label %take
wake_workers:
  %upper = getelementptr i8, ptr %gate, i64 4
  call void @futex_wake(ptr %upper, i64 %wanted)
  br label %take

take:
  call void @take_tiles(ptr %job, ptr %next, i64 0, i64 %deadline)
  ; Nobody takes any more, and all that was taken will be finished before this returns.
  %taken = atomicrmw xchg ptr %next, i64 %tiles seq_cst
  %done = call i64 @llvm.smin.i64(i64 %taken, i64 %tiles)
  ; Close the gate: no free seats.
  %at_close = atomicrmw and ptr %gate, i64 u0xFFFFFFFF0000FFFF seq_cst
  %closing = call i64 @llvm.readcyclecounter()
  br label %wait

wait:
  %inside_gate = load atomic i64, ptr %gate acquire, align 8
  %inside = and i64 %inside_gate, u0xFFFF
  %empty = icmp eq i64 %inside, 0
  br i1 %empty, label %unlock, label %still_inside
still_inside:
  %cycles = call i64 @llvm.readcyclecounter()
  %waited = sub i64 %cycles, %closing
  %impatient = icmp uge i64 %waited, %spin
  br i1 %impatient, label %sleep, label %pause
pause:
  call void @llvm.x86.sse2.pause()
  br label %wait
sleep:
  ; From now on the last worker to leave wakes us. If it left just now, the lower half is no longer
  ; what we tell the kernel to expect, and we do not sleep.
  %marked = atomicrmw or ptr %gate, i64 u0x80000000 seq_cst
  %expected = or i64 %marked, u0x80000000
  %expected_inside = and i64 %marked, u0xFFFF
  %left_now = icmp eq i64 %expected_inside, 0
  br i1 %left_now, label %wait, label %sleep_now
sleep_now:
  call void @futex_wait(ptr %gate, i64 %expected)
  br label %wait

unlock:
  store atomic i64 0, ptr %busy release, align 8
  ret i64 %done
}


; Fill in a job.
define internal void @describe(ptr %job, ptr %kernel, ptr %args, i64 %tiles, i64 %largest,
                               ptr %scratch, i64 %stride, i32 %mxcsr) {
  %f0 = getelementptr %Job, ptr %job, i32 0, i32 0
  store ptr %kernel, ptr %f0
  %f1 = getelementptr %Job, ptr %job, i32 0, i32 1
  store ptr %args, ptr %f1
  %f2 = getelementptr %Job, ptr %job, i32 0, i32 2
  store i64 %tiles, ptr %f2
  %f3 = getelementptr %Job, ptr %job, i32 0, i32 3
  store i64 %largest, ptr %f3
  %f4 = getelementptr %Job, ptr %job, i32 0, i32 4
  store ptr %scratch, ptr %f4
  %f5 = getelementptr %Job, ptr %job, i32 0, i32 5
  store i64 %stride, ptr %f5
  %f6 = getelementptr %Job, ptr %job, i32 0, i32 6
  store i32 %mxcsr, ptr %f6
  ret void
}


; Take ranges of tiles and run them, until none is left or the deadline (0: none) has passed.
;
; The first range is one tile. Ranges double while they take less than 200,000 cycles, some 70
; microseconds: small tiles cost few atomic additions, and with large ones the clock is looked at
; after every tile.
define internal void @take_tiles(ptr %job, ptr %next, i64 %seat, i64 %deadline) {
entry:
  %f0 = getelementptr %Job, ptr %job, i32 0, i32 0
  %kernel = load ptr, ptr %f0
  %f1 = getelementptr %Job, ptr %job, i32 0, i32 1
  %args = load ptr, ptr %f1
  %f2 = getelementptr %Job, ptr %job, i32 0, i32 2
  %tiles = load i64, ptr %f2
  %f3 = getelementptr %Job, ptr %job, i32 0, i32 3
  %largest = load i64, ptr %f3
  %f4 = getelementptr %Job, ptr %job, i32 0, i32 4
  %scratches = load ptr, ptr %f4
  %f5 = getelementptr %Job, ptr %job, i32 0, i32 5
  %stride = load i64, ptr %f5
  %distance = mul i64 %seat, %stride
  %scratch = getelementptr i8, ptr %scratches, i64 %distance
  %limited = icmp ne i64 %deadline, 0
  %start = call i64 @llvm.readcyclecounter()
  br label %grab

grab:
  %size = phi i64 [ 1, %entry ], [ %size, %more ], [ %larger, %grow ]
  %since = phi i64 [ %start, %entry ], [ %cycles, %more ], [ %cycles, %grow ]
  %begin = atomicrmw add ptr %next, i64 %size seq_cst
  %any = icmp slt i64 %begin, %tiles
  br i1 %any, label %run, label %out
run:
  %reach = add i64 %begin, %size
  %end = call i64 @llvm.smin.i64(i64 %reach, i64 %tiles)
  call void %kernel(ptr %args, i64 %begin, i64 %end, ptr %scratch)
  %last = icmp sge i64 %reach, %tiles
  br i1 %last, label %out, label %look_at_clock
look_at_clock:
  br i1 %limited, label %check_deadline, label %adapt
check_deadline:
  %now = call i64 @nanoseconds()
  %late = icmp sge i64 %now, %deadline
  br i1 %late, label %out, label %adapt
adapt:
  %cycles = call i64 @llvm.readcyclecounter()
  %took = sub i64 %cycles, %since
  %quick = icmp ult i64 %took, 200000
  br i1 %quick, label %grow, label %more
more:
  br label %grab
grow:
  %double = shl i64 %size, 1
  %larger = call i64 @llvm.smin.i64(i64 %double, i64 %largest)
  br label %grab
out:
  ret void
}


; A worker's life: look at the gate, take a seat or wait, for ever.
define internal ptr @worker(ptr %state) {
entry:
  %gate = getelementptr %State, ptr %state, i32 0, i32 2
  %upper = getelementptr i8, ptr %gate, i64 4
  %next = getelementptr %State, ptr %state, i32 0, i32 4
  %sleepers = getelementptr %State, ptr %state, i32 0, i32 6
  %job = getelementptr %State, ptr %state, i32 0, i32 8
  %mode = getelementptr %State, ptr %state, i32 0, i32 8, i32 6
  %spin_field = getelementptr %State, ptr %state, i32 0, i32 11
  %named = call i64 (i64, ...) @syscall(i64 157, i64 15, ptr @name) ; prctl(PR_SET_NAME)
  br label %idle

idle:
  %since = call i64 @llvm.readcyclecounter()
  br label %look
look:
  %seen = load atomic i64, ptr %gate acquire, align 8
  %seats = and i64 %seen, u0x7FFF0000
  %closed = icmp eq i64 %seats, 0
  br i1 %closed, label %shut, label %join
shut:
  %spin = load atomic i64, ptr %spin_field monotonic, align 8
  %cycles = call i64 @llvm.readcyclecounter()
  %waited = sub i64 %cycles, %since
  %impatient = icmp uge i64 %waited, %spin
  br i1 %impatient, label %sleep, label %pause
pause:
  call void @llvm.x86.sse2.pause()
  br label %look

sleep:
  ; On the number of the job whose gate was shut: if a job came since, the kernel sees another
  ; number and returns at once.
  %more = atomicrmw add ptr %sleepers, i64 1 seq_cst
  %number = lshr i64 %seen, 32
  call void @futex_wait(ptr %upper, i64 %number)
  %less = atomicrmw sub ptr %sleepers, i64 1 seq_cst
  br label %idle

join:
  %seated = add i64 %seen, u0xFFFFFFFFFFFF0001 ; one free seat less, one worker inside more
  %swap = cmpxchg ptr %gate, i64 %seen, i64 %seated seq_cst monotonic
  %joined = extractvalue { i64, i1 } %swap, 1
  br i1 %joined, label %work, label %look
work:
  call void @llvm.x86.sse.ldmxcsr(ptr %mode)
  %seat = lshr i64 %seats, 16
  call void @take_tiles(ptr %job, ptr %next, i64 %seat, i64 0)
  ; Leave. After this the job may be another one.
  %before = atomicrmw sub ptr %gate, i64 1 seq_cst
  %low = and i64 %before, u0x8000FFFF
  %wake = icmp eq i64 %low, u0x80000001 ; the last one out, and the caller sleeps
  br i1 %wake, label %wake_caller, label %idle
wake_caller:
  call void @futex_wake(ptr %gate, i64 1)
  br label %idle
}


; Make workers until there are as many as wanted, and return how many there are. Only whoever holds
; the lock gets here. A system that allows no more threads is no error: there are fewer helpers.
define internal i64 @hire(ptr %state, i64 %wanted) {
entry:
  %workers = getelementptr %State, ptr %state, i32 0, i32 10
  %present = load i64, ptr %workers
  %enough = icmp sge i64 %present, %wanted
  br i1 %enough, label %all_there, label %prepare
all_there:
  ret i64 %present
prepare:
  %attributes = alloca [16 x i64], align 16  ; pthread_attr_t: 56 bytes in glibc and musl
  %old_mask = alloca [16 x i64], align 16
  %thread = alloca i64
  %a0 = call i32 @pthread_attr_init(ptr %attributes)
  %a1 = call i32 @pthread_attr_setdetachstate(ptr %attributes, i32 1) ; PTHREAD_CREATE_DETACHED
  %a2 = call i32 @pthread_attr_setstacksize(ptr %attributes, i64 1048576)
  ; A thread starts with its maker's signal mask.
  %m0 = call i32 @pthread_sigmask(i32 2, ptr @blocked, ptr %old_mask) ; SIG_SETMASK
  br label %make
make:
  %count = phi i64 [ %present, %prepare ], [ %one_more, %made ]
  %missing = icmp slt i64 %count, %wanted
  br i1 %missing, label %create, label %finish
create:
  %error = call i32 @pthread_create(ptr %thread, ptr %attributes, ptr @worker, ptr %state)
  %failed = icmp ne i32 %error, 0
  br i1 %failed, label %finish, label %made
made:
  %one_more = add i64 %count, 1
  br label %make
finish:
  store i64 %count, ptr %workers
  %m1 = call i32 @pthread_sigmask(i32 2, ptr %old_mask, ptr null)
  %a3 = call i32 @pthread_attr_destroy(ptr %attributes)
  ret i64 %count
}


; Sleep while the 32 bits at %word are %expected. Returns early at any time; callers look again.
define internal void @futex_wait(ptr %word, i64 %expected) {
  %r = call i64 (i64, ...) @syscall(i64 202, ptr %word, i64 128, i64 %expected, ptr null)
  ret void
}

; Wake up to %count threads that sleep on %word.
define internal void @futex_wake(ptr %word, i64 %count) {
  %r = call i64 (i64, ...) @syscall(i64 202, ptr %word, i64 129, i64 %count)
  ret void
}

; CLOCK_MONOTONIC.
define internal i64 @nanoseconds() {
  %time = alloca { i64, i64 }
  %r = call i32 @clock_gettime(i32 1, ptr %time)
  %seconds = load i64, ptr %time
  %f1 = getelementptr { i64, i64 }, ptr %time, i32 0, i32 1
  %rest = load i64, ptr %f1
  %scaled = mul i64 %seconds, 1000000000
  %sum = add i64 %scaled, %rest
  ret i64 %sum
}
"""
