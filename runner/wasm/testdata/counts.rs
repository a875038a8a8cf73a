// counts counts the words of /inputs/text and writes the counts to /outputs/counts; with an argument it ends with status 3. A Rust program
// with the standard library; Debian 12 (rustc, libstd-rust-dev-wasm32 1.63, lld-14, binaryen 108):
//
//   rustc --target wasm32-wasi -C linker=wasm-ld-14 -C linker-flavor=wasm-ld -C opt-level=z -C lto -C panic=abort
//     -C strip=symbols counts.rs
//   wasm-opt -Oz --strip-debug --strip-producers counts.wasm -o counts.wasm
use std::collections::BTreeMap;
use std::io::Write;
use std::{env, fs, process};

fn main() {
    let args: Vec<String> = env::args().collect();
    let text = fs::read_to_string("/inputs/text").expect("read /inputs/text");
    let mut counts = BTreeMap::new();
    for word in text.split_whitespace() {
        *counts.entry(word).or_insert(0) += 1;
    }
    let mut out = fs::File::create("/outputs/counts").expect("create /outputs/counts");
    for (word, n) in &counts {
        writeln!(out, "{} {}", word, n).unwrap();
    }
    println!("{:?}: {} words, LANG={:?}", args, counts.len(), env::var("LANG"));
    if args.len() > 1 {
        process::exit(3);
    }
}
