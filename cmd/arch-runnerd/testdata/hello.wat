;; Prints "hello" and writes it to the output greeting. Directory 3 is /outputs: the first that the job has.
;; Made with: wat2wasm hello.wat
(module
  (import "wasi_snapshot_preview1" "fd_write" (func $write (param i32 i32 i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "path_open" (func $open (param i32 i32 i32 i32 i32 i64 i64 i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "proc_exit" (func $exit (param i32)))
  (memory (export "memory") 1)
  (data (i32.const 0) "\10\00\00\00\06\00\00\00")
  (data (i32.const 16) "hello\n")
  (data (i32.const 32) "greeting")
  (func (export "_start")
    (drop (call $write (i32.const 1) (i32.const 0) (i32.const 1) (i32.const 64)))
    (if (call $open (i32.const 3) (i32.const 0) (i32.const 32) (i32.const 8) (i32.const 1) (i64.const 64) (i64.const 0) (i32.const 0) (i32.const 68))
      (then (call $exit (i32.const 9))))
    (drop (call $write (i32.load (i32.const 68)) (i32.const 0) (i32.const 1) (i32.const 64)))))
