(module
  ;; 20,000 calls inside of each other, with a memory of one page to save them in.
  (memory (export "memory") 1)
  (func $deep (param $n i32) (param $a i64) (param $b i64) (result i64)
    (if (i32.eqz (local.get $n)) (then (return (local.get $a))))
    (i64.add
      (call $deep (i32.sub (local.get $n) (i32.const 1)) (i64.add (local.get $a) (local.get $b)) (local.get $a))
      (local.get $b)))
  (func (export "_start")
    (i64.store (i32.const 8) (call $deep (i32.const 20000) (i64.const 1) (i64.const 2)))))
