;; Never ends. Made with: wat2wasm spin.wat
(module (memory (export "memory") 1) (func (export "_start") (loop $l (br $l))))
